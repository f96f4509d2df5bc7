//! The tables of a comparison: floors and relays under the same load, from the reports that `compare.sh` leaves in one
//! folder.
//!
//! A relay is measured against the *floor of the load*, the floor program that carried the same packets in the batches
//! that this load gives: at once where frames arrive in bursts, with a tick of 5 ms where publishers pace them, since that
//! is what a relay may wait. Both are shown for both.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Error;

/// A run that lost more says little about cost.
const LOSS_PERCENT_MAX: f64 = 0.5;

/// What a relay may wait, in milliseconds, where publishers pace.
const TICK_PACED: f64 = 5.0;

/// One report, and what its file's name says beyond it: the part after a `+`.
struct Row {
    variant: Option<String>,
    report: Value,
}

/// What the rows of one comparison have in common: which load, of what size, in which way.
type Load = (String, u64, String);

/// Reads every `.json` of the folder and writes Markdown tables.
pub fn tables(folder: &Path) -> Result<String, Error> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let stem = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let report = serde_json::from_slice(&fs::read(&path)?)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let row = Row {
                variant: stem.split_once('+').map(|(_, variant)| variant.replace('-', " ")),
                report,
            };
            if row.kind() == Kind::Unknown {
                return Err(format!("{}: not a report", path.display()).into());
            }
            rows.push(row);
        }
    }
    Ok(written(rows))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// seal, single, batch: a steady stream.
    Steady,
    /// A load, by a floor or by a relay.
    Load,
    Sweep,
    Allocations,
    Unknown,
}

impl Row {
    fn text(&self, field: &str) -> &str {
        self.report[field].as_str().unwrap_or_default()
    }

    fn number(&self, field: &str) -> Option<f64> {
        self.used()[field]
            .as_f64()
            .or_else(|| self.report[field].as_f64())
    }

    /// loadtest tells what the relay used apart; a floor is its own relay.
    fn used(&self) -> &Value {
        match &self.report["relay"] {
            relay if relay.is_object() => relay,
            _ => &self.report,
        }
    }

    fn kind(&self) -> Kind {
        match (self.text("floor"), self.text("scenario")) {
            ("seal" | "single" | "batch", _) => Kind::Steady,
            ("load" | "turn single" | "turn batch", _) => Kind::Load,
            ("", "sfu sweep") => Kind::Sweep,
            ("", "turn allocations") => Kind::Allocations,
            ("", scenario) if !scenario.is_empty() => Kind::Load,
            _ => Kind::Unknown,
        }
    }

    fn load(&self) -> Load {
        let count = |field: &str| self.report[field].as_u64().unwrap_or_default();
        let scenario = match (self.text("floor"), self.text("scenario")) {
            ("turn single", _) => "turn sparse",
            ("turn batch", _) => "turn bursts",
            (_, scenario) => scenario.strip_prefix("sfu ").unwrap_or(scenario),
        };
        if scenario.starts_with("turn") {
            let transport = self.report["transport"].as_str().unwrap_or("udp");
            return (scenario.to_owned(), count("allocations"), transport.to_owned());
        }
        let size = match scenario {
            "conference" if self.is_floor() => count("subscribers"),
            "conference" => count("participants"),
            _ => count("subscribers"),
        };
        let mut way = self.text("arrival").to_owned();
        if let Some(loss) = self.report["injected_loss_percent"]
            .as_f64()
            .filter(|loss| *loss > 0.0)
        {
            let _ = write!(way, ", {loss} % lost on {}", self.text("injected_loss_on"));
        }
        (scenario.to_owned(), size, way)
    }

    fn is_floor(&self) -> bool {
        !self.text("floor").is_empty()
    }

    fn name(&self) -> String {
        let mut name = match self.text("floor") {
            "" => format!("**{}**", self.text("target")),
            "turn single" => "floor: one in, one out".to_owned(),
            "turn batch" => "floor: GRO in, GSO out".to_owned(),
            _ => match self.number("tick_milliseconds") {
                Some(tick) if tick > 0.0 => format!("floor, ticks of {tick} ms"),
                _ => "floor, at once".to_owned(),
            },
        };
        if let Some(variant) = &self.variant {
            let _ = write!(name, ", {variant}");
        }
        name
    }

    fn nanoseconds(&self) -> Option<f64> {
        self.number("cpu_nanoseconds_per_forwarded_packet")
    }

    /// Is this the floor that relays under its load are measured against?
    fn is_floor_of_load(&self) -> bool {
        let is_paced = self.text("arrival") == "paced";
        match self.text("floor") {
            "load" => self.number("tick_milliseconds") == Some(if is_paced { TICK_PACED } else { 0.0 }),
            other => !other.is_empty(),
        }
    }

    fn is_rival(&self) -> bool {
        matches!(self.text("target"), "janus" | "coturn")
    }

    fn p50_and_p99(&self, field: &str) -> String {
        let of = |percentile: &str| self.report[field][percentile].as_f64();
        match (of("p50"), of("p99")) {
            // Nothing takes no time at all: there were no such packets.
            (Some(p50), Some(p99)) if p99 > 0.0 => format!("{:.2}, {:.2}", p50 / 1e3, p99 / 1e3),
            _ => String::new(),
        }
    }

    fn is_starved(&self) -> bool {
        self.report["generator_starved"].as_bool().unwrap_or_default()
    }
}

fn written(rows: Vec<Row>) -> String {
    let (mut steady, mut sweeps, mut allocations) = (Vec::new(), Vec::new(), Vec::new());
    let mut loads: BTreeMap<Load, Vec<Row>> = BTreeMap::new();
    for row in rows {
        match row.kind() {
            Kind::Steady => steady.push(row),
            Kind::Sweep => sweeps.push(row),
            Kind::Allocations => allocations.push(row),
            _ => loads.entry(row.load()).or_default().push(row),
        }
    }
    let mut out = String::new();
    if !loads.is_empty() {
        write_loads(&mut out, loads);
    }
    write_allocations(&mut out, &allocations);
    write_sweeps(&mut out, &sweeps);
    write_steady(&mut out, steady);
    out
}

fn write_loads(out: &mut String, loads: BTreeMap<Load, Vec<Row>>) {
    out.push_str(
        "| load | what | CPU ns a forwarded packet | times the floor | of the rival | packets a send | lost | whole frames | \
         latency p50, p99 ms: delta | audio | key | resident | generator's share of its core |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let (mut is_lossy, mut is_starved) = (false, false);
    for ((scenario, size, way), mut rows) in loads {
        rows.sort_by_key(|row| (!row.is_floor(), row.is_rival(), row.name()));
        let floor = rows
            .iter()
            .find(|row| row.is_floor_of_load())
            .and_then(Row::nanoseconds);
        let rival = rows.iter().find(|row| row.is_rival()).and_then(Row::nanoseconds);
        for row in &rows {
            let ratio = |to: Option<f64>| match (row.nanoseconds(), to) {
                (Some(own), Some(to)) => format!("{:.2}", own / to),
                _ => String::new(),
            };
            let whole = |field: &str, digits: usize| {
                row.number(field)
                    .map_or_else(String::new, |number| format!("{number:.digits$}"))
            };
            // TURN's packets are all of one kind.
            let delta = match row.p50_and_p99("latency_delta_microseconds") {
                none if none.is_empty() => row.p50_and_p99("latency_microseconds"),
                some => some,
            };
            let share = row
                .number("generator_cpu_share")
                .map_or_else(String::new, |share| {
                    format!(
                        "{:.0} %{}",
                        share * 100.0,
                        if row.is_starved() { " **starved**" } else { "" }
                    )
                });
            let resident = match (row.report["floor"].as_str(), row.number("resident_kib")) {
                (None, Some(kib)) => format!("{:.0} MiB", kib / 1024.0),
                _ => String::new(),
            };
            let _ = writeln!(
                out,
                "| {scenario} {size}, {way} | {} | {} | {} | {} | {} | {} % | {} | {delta} | {} | {} | {resident} | {share} |",
                row.name(),
                whole("cpu_nanoseconds_per_forwarded_packet", 0),
                ratio(floor),
                ratio(rival),
                whole("mean_packets_per_send", 1),
                whole("loss_percent", 2),
                row.number("frames_complete_percent")
                    .map_or_else(String::new, |percent| format!("{percent:.2} %")),
                row.p50_and_p99("latency_audio_microseconds"),
                row.p50_and_p99("latency_key_microseconds"),
            );
            let is_on_purpose = way.contains("lost on");
            is_lossy |= !is_on_purpose
                && row
                    .number("loss_percent")
                    .is_some_and(|loss| loss > LOSS_PERCENT_MAX);
            is_starved |= row.is_starved();
        }
    }
    if is_lossy {
        let _ = writeln!(
            out,
            "\n**Rows that lost more than {LOSS_PERCENT_MAX} % are no comparison: something starved.**"
        );
    }
    if is_starved {
        let _ = writeln!(
            out,
            "\n**Where the generator starved, figures are its own limits, not the relay's.**"
        );
    }
}

fn write_allocations(out: &mut String, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "\n| what | allocations | a CPU second | times coturn | KiB resident an idle one |\n|---|---|---|---|---|\n",
    );
    let rate = |row: &Row| row.number("allocations_per_cpu_second");
    for row in rows {
        let is_rival =
            |other: &&Row| other.is_rival() && other.report["allocations"] == row.report["allocations"];
        let rival = rows.iter().find(is_rival).and_then(rate);
        let _ = writeln!(
            out,
            "| {} | {} | {:.0} | {} | {:.1} |",
            row.name(),
            row.report["allocations"],
            rate(row).unwrap_or_default(),
            rate(row)
                .zip(rival)
                .map_or_else(String::new, |(own, rival)| format!("{:.2}", own / rival)),
            row.number("resident_kib_per_allocation").unwrap_or_default(),
        );
    }
}

fn write_sweeps(out: &mut String, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "\n| what | subscribers that it held | ended by | its share of a core | the generator's |\n|---|---|---|---|---|\n",
    );
    for row in rows {
        let percent = |field: &str| {
            row.number(field)
                .map_or_else(String::new, |share| format!("{:.0} %", share * 100.0))
        };
        let _ = writeln!(
            out,
            "| {}, {} | {} | {} | {} | {} |",
            row.name(),
            row.text("arrival"),
            row.report["held_subscribers"],
            row.text("ended_by"),
            percent("held_relay_cpu_share"),
            percent("held_generator_cpu_share"),
        );
    }
}

/// What packets cost by how many of them share a send.
fn write_steady(out: &mut String, mut rows: Vec<Row>) {
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "\n| floor of a steady stream | subscribers | CPU ns a packet | lost |\n|---|---|---|---|\n",
    );
    let order = |row: &Row| match row.text("floor") {
        "seal" => 0,
        "single" => 1,
        _ => 2,
    };
    let count = |row: &Row, field: &str| row.report[field].as_u64().unwrap_or_default();
    rows.sort_by_key(|row| {
        let bytes = u64::MAX - count(row, "bytes");
        (
            count(row, "subscribers"),
            bytes,
            order(row),
            count(row, "packets_per_send"),
        )
    });
    for row in rows {
        let name = match row.text("floor") {
            "seal" => "encryption alone".to_owned(),
            "single" => "one in, one out, plain calls".to_owned(),
            _ => format!("{} a send", count(&row, "packets_per_send")),
        };
        let loss = row
            .number("loss_percent")
            .map_or_else(String::new, |loss| format!("{loss:.2} %"));
        let nanoseconds = row.nanoseconds().unwrap_or_default();
        let (bytes, subscribers) = (count(&row, "bytes"), count(&row, "subscribers"));
        let _ = writeln!(
            out,
            "| {name}, {bytes} B | {subscribers} | {nanoseconds:.0} | {loss} |"
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(report: Value) -> Row {
        Row {
            variant: None,
            report,
        }
    }

    fn floor(arrival: &str, tick: f64, nanoseconds: f64) -> Row {
        row(
            json!({ "floor": "load", "scenario": "broadcast", "subscribers": 100, "arrival": arrival,
            "tick_milliseconds": tick, "cpu_nanoseconds_per_forwarded_packet": nanoseconds, "loss_percent": 0.0 }),
        )
    }

    fn relay(target: &str, arrival: &str, nanoseconds: f64) -> Row {
        row(
            json!({ "scenario": "sfu broadcast", "target": target, "subscribers": 100, "arrival": arrival,
            "loss_percent": 0.0, "generator_cpu_share": 0.25, "injected_loss_percent": 0.0,
            "latency_delta_microseconds": { "p50": 500, "p99": 4_000 },
            "relay": { "cpu_nanoseconds_per_forwarded_packet": nanoseconds, "resident_kib": 40_960 } }),
        )
    }

    #[test]
    fn a_relay_is_set_beside_the_floor_of_its_own_load_and_beside_its_rival() {
        let table = written(vec![
            relay("janus", "burst", 12_000.0),
            relay("milliway", "burst", 1_500.0),
            floor("burst", 0.0, 1_000.0),
            floor("burst", 5.0, 900.0),
        ]);
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert!(
            lines[0].starts_with("| broadcast 100, burst | floor, at once | 1000 | 1.00 | 0.08 |"),
            "{table}"
        );
        assert!(
            lines[2].starts_with("| broadcast 100, burst | **milliway** | 1500 | 1.50 | 0.12 |"),
            "{table}"
        );
        assert!(
            lines[2].contains("| 0.50, 4.00 |") && lines[2].ends_with("| 40 MiB | 25 % |"),
            "{table}"
        );
        assert!(
            lines[3].contains("| **janus** | 12000 | 12.00 | 1.00 |"),
            "{table}"
        );
    }

    #[test]
    fn where_publishers_pace_the_floor_may_wait_for_a_tick() {
        let rows = vec![
            relay("milliway", "paced", 1_500.0),
            floor("paced", 0.0, 3_000.0),
            floor("paced", 5.0, 1_000.0),
        ];
        assert!(written(rows).contains("| **milliway** | 1500 | 1.50 |"));
    }

    #[test]
    fn a_starved_generator_is_named() {
        let mut starved = relay("milliway", "burst", 1_500.0);
        starved.report["generator_starved"] = json!(true);
        let table = written(vec![starved]);
        assert!(
            table.contains("25 % **starved**") && table.contains("its own limits"),
            "{table}"
        );
    }

    #[test]
    fn sparse_and_burst_loads_of_turn_have_each_their_floor() {
        let turn = |target: &str, scenario: &str, nanoseconds: f64| {
            row(
                json!({ "scenario": scenario, "target": target, "transport": "udp", "allocations": 100,
                "relay": { "cpu_nanoseconds_per_forwarded_packet": nanoseconds } }),
            )
        };
        let floor = |floor: &str, nanoseconds: f64| {
            row(
                json!({ "floor": floor, "allocations": 100, "cpu_nanoseconds_per_forwarded_packet": nanoseconds }),
            )
        };
        let table = written(vec![
            turn("milliway", "turn sparse", 2_200.0),
            turn("coturn", "turn sparse", 4_400.0),
            turn("milliway", "turn bursts", 600.0),
            floor("turn single", 2_000.0),
            floor("turn batch", 500.0),
        ]);
        assert!(
            table.contains("| turn sparse 100, udp | **milliway** | 2200 | 1.10 | 0.50 |"),
            "{table}"
        );
        assert!(
            table.contains("| turn bursts 100, udp | **milliway** | 600 | 1.20 |  |"),
            "{table}"
        );
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for report in [
            json!({ "kernel": "6.18" }),
            json!({ "floor": "x", "subscribers": 1 }),
        ] {
            assert!(row(report).kind() == Kind::Unknown);
        }
    }
}
