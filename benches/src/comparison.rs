//! The table of a comparison: floors and relays under the same load, from the reports that `compare.sh` leaves in one
//! folder.
//!
//! A relay is measured against the *floor of the load*: what loadtest's publisher sends comes in frames of several
//! packets and in single packets of audio, and no relay can make larger batches of it than that. So each batch of the
//! load counts with the floor of the largest measured batch that is no larger, audio with the floor of small packets.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use loadtest::media::{AUDIO_INTERVAL, FRAME_INTERVAL, Video};
use serde_json::Value;

use crate::Error;

/// Floors with smaller payloads than this are those of audio.
const VIDEO_BYTES_MIN: u64 = 500;

/// A run that lost more says little about cost.
const LOSS_PERCENT_MAX: f64 = 0.5;

/// One report.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    subscribers: u64,
    subject: Subject,
    nanoseconds: f64,
    loss_percent: Option<f64>,
    p50_microseconds: Option<u64>,
    p99_microseconds: Option<u64>,
    resident_kib: Option<u64>,
}

/// Ordered as the table is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Seal {
        bytes: u64,
    },
    Single {
        bytes: u64,
    },
    Batch {
        bytes: u64,
        packets: u64,
    },
    /// The name before the first hyphen of its file.
    Relay(String),
}

/// Reads every `.json` of the folder and writes a Markdown table.
pub fn table(folder: &Path) -> Result<String, Error> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let report = serde_json::from_slice(&fs::read(&path)?)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            rows.push(row(&stem, &report).ok_or_else(|| format!("{}: not a report", path.display()))?);
        }
    }
    Ok(written(rows))
}

fn row(stem: &str, report: &Value) -> Option<Row> {
    let packets = report["packets_per_send"].as_u64();
    let subject = match report["floor"].as_str() {
        Some("seal") => Subject::Seal {
            bytes: report["bytes"].as_u64()?,
        },
        Some("single") => Subject::Single {
            bytes: report["bytes"].as_u64()?,
        },
        Some("batch") => Subject::Batch {
            bytes: report["bytes"].as_u64()?,
            packets: packets?,
        },
        Some(_) => return None,
        None => Subject::Relay(stem.split('-').next()?.to_owned()),
    };
    // loadtest tells what the relay used apart; a floor is its own relay.
    let used = if report["relay"].is_object() {
        &report["relay"]
    } else {
        report
    };
    Some(Row {
        subscribers: report["subscribers"].as_u64()?,
        subject,
        nanoseconds: used["cpu_nanoseconds_per_forwarded_packet"].as_f64()?,
        loss_percent: report["loss_percent"].as_f64(),
        p50_microseconds: report["latency_microseconds"]["p50"].as_u64(),
        p99_microseconds: report["latency_microseconds"]["p99"].as_u64(),
        resident_kib: used["resident_kib"].as_u64(),
    })
}

fn written(mut rows: Vec<Row>) -> String {
    rows.sort_by(|a, b| (a.subscribers, &a.subject).cmp(&(b.subscribers, &b.subject)));
    let mut out = String::from(
        "| broadcast to | what | CPU ns a forwarded packet | times the floor of the load | lost | latency p50, p99 | resident |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let mut lossy = false;
    for group in rows.chunk_by(|a, b| a.subscribers == b.subscribers) {
        let floor = floor_of_load(group);
        for row in group {
            line(&mut out, row, floor);
            lossy |= row.loss_percent.is_some_and(|loss| loss > LOSS_PERCENT_MAX);
        }
        if let Some(floor) = floor {
            let subscribers = group[0].subscribers;
            let _ = writeln!(
                out,
                "| {subscribers} | *floor of the load* | {floor:.0} | 1.00 | | | |"
            );
        }
    }
    if lossy {
        let _ = writeln!(
            out,
            "\n**Rows that lost more than {LOSS_PERCENT_MAX} % are no comparison: something starved.**"
        );
    }
    out
}

fn line(out: &mut String, row: &Row, floor: Option<f64>) {
    let ratio = floor.map_or_else(String::new, |floor| format!("{:.2}", row.nanoseconds / floor));
    let loss = row
        .loss_percent
        .map_or_else(String::new, |loss| format!("{loss:.2} %"));
    let latency = match (row.p50_microseconds, row.p99_microseconds) {
        (Some(p50), Some(p99)) => format!("{:.2} ms, {:.2} ms", p50 as f64 / 1e3, p99 as f64 / 1e3),
        _ => String::new(),
    };
    let memory = row
        .resident_kib
        .map_or_else(String::new, |kib| format!("{} MiB", kib / 1024));
    let name = match &row.subject {
        Subject::Seal { bytes } => format!("floor: encryption alone, {bytes} B"),
        Subject::Single { bytes } => format!("floor: one in, one out, {bytes} B"),
        Subject::Batch { bytes, packets } => format!("floor: {packets} a send, {bytes} B"),
        Subject::Relay(name) => format!("**{name}**"),
    };
    let _ = writeln!(
        out,
        "| {} | {name} | {:.0} | {ratio} | {loss} | {latency} | {memory} |",
        row.subscribers, row.nanoseconds
    );
}

/// `None` where the floors that it needs were not all measured.
fn floor_of_load(rows: &[Row]) -> Option<f64> {
    let mut batches = BTreeMap::new();
    let mut audio = None;
    for row in rows {
        match row.subject {
            Subject::Batch { bytes, packets } if bytes >= VIDEO_BYTES_MIN => {
                batches.insert(packets, row.nanoseconds);
            }
            Subject::Batch { packets: 1, .. } => audio = Some(row.nanoseconds),
            _ => {}
        }
    }
    let load = load();
    let (mut total, mut nanoseconds) = (load.audio, load.audio as f64 * audio?);
    for (packets, count) in load.frames {
        let (_, floor) = batches.range(..=packets).next_back()?;
        total += packets * count;
        nanoseconds += (packets * count) as f64 * floor;
    }
    Some(nanoseconds / total as f64)
}

/// What the load generator's publisher sends from one keyframe to the next.
struct LoadCycle {
    /// Frames by their number of packets.
    frames: BTreeMap<u64, u64>,
    /// Packets of audio.
    audio: u64,
}

fn load() -> LoadCycle {
    let now = Instant::now();
    let mut video = Video::new(now);
    let keyframe = video.frame(now).len() as u64;
    let mut frames = BTreeMap::from([(keyframe, 1)]);
    let mut duration = FRAME_INTERVAL;
    // The load has a keyframe every 3 seconds; an hour without another one would be a load of another kind.
    while duration < Duration::from_secs(3_600) {
        let packets = video.frame(now).len() as u64;
        if packets == keyframe {
            break;
        }
        *frames.entry(packets).or_default() += 1;
        duration += FRAME_INTERVAL;
    }
    let audio = (duration.as_secs_f64() / AUDIO_INTERVAL.as_secs_f64()).round() as u64;
    LoadCycle { frames, audio }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn batch(packets: u64, bytes: u64, nanoseconds: f64) -> Row {
        Row {
            subscribers: 100,
            subject: Subject::Batch { bytes, packets },
            nanoseconds,
            loss_percent: Some(0.0),
            p50_microseconds: Some(100),
            p99_microseconds: Some(2_000),
            resident_kib: None,
        }
    }

    #[test]
    fn the_load_is_delta_frames_of_six_packets_one_keyframe_and_50_packets_of_audio_a_second() {
        let load = load();
        assert_eq!(load.frames, BTreeMap::from([(6, 89), (23, 1)]));
        assert_eq!(load.audio, 150);
    }

    #[test]
    fn the_floor_of_the_load_weighs_each_batch_by_its_packets() {
        let rows = [
            batch(1, 100, 2_700.0),
            batch(1, 1_006, 2_900.0),
            batch(6, 1_006, 850.0),
            batch(20, 1_006, 540.0),
        ];
        let expected = (150.0 * 2_700.0 + 534.0 * 850.0 + 23.0 * 540.0) / 707.0;
        let floor = floor_of_load(&rows).unwrap();
        assert!((floor - expected).abs() < 1e-6, "{floor} is not {expected}");
        assert_eq!(floor_of_load(&rows[1..]), None, "nothing to weigh audio with");
    }

    #[test]
    fn a_relay_is_shown_against_the_floor_of_its_own_number_of_subscribers() {
        let report = json!({
            "scenario": "sfu broadcast", "subscribers": 100, "loss_percent": 0.7,
            "latency_microseconds": { "p50": 250, "p95": 3_000, "p99": 4_000, "max": 5_000 },
            "relay": { "cpu_nanoseconds_per_forwarded_packet": 1_500.0, "resident_kib": 51_200 },
        });
        let other = row("milliway-broadcast-100", &report).unwrap();
        let floors = [batch(1, 100, 1_000.0), batch(1, 1_006, 1_000.0)];
        let table = written([vec![other.clone()], floors.to_vec()].concat());
        let expected = "| 100 | **milliway** | 1500 | 1.50 | 0.70 % | 0.25 ms, 4.00 ms | 50 MiB |";
        assert!(table.contains(expected), "{table}");
        assert!(table.contains("no comparison"), "{table}");
        let elsewhere = Row {
            subscribers: 50,
            ..other
        };
        let table = written([vec![elsewhere], floors.to_vec()].concat());
        assert!(
            table.contains("| 50 | **milliway** | 1500 |  | 0.70 %"),
            "{table}"
        );
    }

    #[test]
    fn what_is_no_report_is_refused() {
        assert_eq!(row("machine", &json!({ "kernel": "6.18" })), None);
        assert_eq!(row("floor-x", &json!({ "floor": "x", "subscribers": 1 })), None);
    }
}
