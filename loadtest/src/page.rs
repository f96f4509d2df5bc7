//! A report as a page that needs nothing else: figures, and plots as SVG inside it.

use std::fmt::Write;

use serde_json::Value;

use crate::plot::{Axis, Line, Plot, bars};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2733;\
background:#fff}h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:\
collapse;margin:.5rem 0}td,th{padding:.2rem .9rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid \
#e3e8ee}td:nth-child(n+2),th:nth-child(n+2){font-variant-numeric:tabular-nums}.warn{background:#fdecea;border-left:4px \
solid #c0392b;padding:.6rem 1rem}.muted{color:#5b6b7b}svg{max-width:100%;height:auto}details pre{overflow:auto;\
background:#f6f8fa;padding:1rem;font-size:12px}";

const COLOURS: [&str; 4] = ["#2563eb", "#d97706", "#059669", "#7c3aed"];

/// The page.
#[must_use]
pub fn page(report: &Value) -> String {
    let mut out = String::new();
    let title = format!("{} at {}", text(&report["scenario"]), text(&report["target"]));
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    );
    match report["steps"].as_array() {
        Some(steps) => sweep(&mut out, report, steps),
        None => single(&mut out, report),
    }
    let json = serde_json::to_string_pretty(report).unwrap_or_default();
    let _ = writeln!(
        out,
        "<h2>Everything</h2><details><summary>The report as JSON</summary><pre>{}</pre></details></html>",
        escaped(&json)
    );
    out
}

fn single(out: &mut String, report: &Value) {
    warning(out, report);
    let _ = write!(out, "<table>");
    for (name, label) in [
        ("subscribers", "subscribers"),
        ("publishers", "publishers"),
        ("allocations", "allocations"),
        ("transport", "transport"),
        ("arrival", "arrival of frames"),
        ("profile", "SRTP profile"),
        ("seconds", "seconds measured"),
        ("received_packets_per_second", "packets received a second"),
        ("received_megabits_per_second", "Mbit/s received"),
        ("loss_percent", "lost, %"),
        ("loss_percent_worst", "lost at the worst receiver, %"),
        ("frames_complete_percent", "frames complete, %"),
        (
            "frames_complete_percent_worst",
            "frames complete at the worst receiver, %",
        ),
    ] {
        if !report[name].is_null() {
            let _ = write!(out, "<tr><td>{label}<td>{}", text(&report[name]));
        }
    }
    let relay = &report["relay"];
    for (name, label) in [
        (
            "cpu_nanoseconds_per_forwarded_packet",
            "server: CPU ns a forwarded packet",
        ),
        (
            "cpu_nanoseconds_per_relayed_packet",
            "server: CPU ns a relayed packet",
        ),
        ("allocations_per_cpu_second", "server: allocations a CPU second"),
        ("resident_kib", "server: resident KiB"),
        ("resident_kib_per_subscriber", "server: KiB a subscriber"),
        ("resident_kib_per_allocation", "server: KiB an allocation"),
    ] {
        if !relay[name].is_null() {
            let _ = write!(out, "<tr><td>{label}<td>{}", text(&relay[name]));
        }
    }
    let _ = write!(out, "</table>");
    latencies(out, report);
    cpu(out, report);
}

fn warning(out: &mut String, report: &Value) {
    if report["generator_starved"] != true {
        return;
    }
    let why: Vec<String> = report["generator_starved_because"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    let _ = write!(
        out,
        "<p class=\"warn\"><b>The load generator was starved</b>: {}. These figures are its limit, not the server's.</p>",
        why.join("; ")
    );
}

fn latencies(out: &mut String, report: &Value) {
    let curves = report["latency_distribution"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let lines: Vec<Line> = curves
        .iter()
        .zip(COLOURS)
        .map(|(curve, colour)| {
            let points = curve["points"].as_array().into_iter().flatten();
            Line {
                label: text(&curve["content"]),
                colour,
                points: points
                    .filter_map(|point| {
                        let (share, microseconds) = (point[0].as_f64()?, point[1].as_f64()?);
                        // Each nine takes as much room as the one before.
                        Some((-(1.0 - share).log10(), microseconds / 1e3))
                    })
                    .collect(),
            }
        })
        .filter(|line: &Line| !line.points.is_empty())
        .collect();
    if lines.is_empty() {
        return;
    }
    let nines = [
        (0.0, "0"),
        (0.301, "50 %"),
        (1.0, "90 %"),
        (2.0, "99 %"),
        (3.0, "99.9 %"),
    ];
    let plot = Plot {
        x: Axis::labelled(
            "of packets were faster",
            nines.map(|(at, label)| (at, label.to_owned())).to_vec(),
        ),
        y: Axis::logarithmic(
            "ms",
            lines.iter().flat_map(|line| &line.points).map(|point| point.1),
        ),
        lines,
    };
    let _ = write!(out, "<h2>One-way latency</h2>{}", plot.svg());
    let _ = write!(out, "<table><tr><th>ms<th>p50<th>p95<th>p99<th>worst");
    for (name, label) in [
        ("latency_microseconds", "all"),
        ("latency_delta_microseconds", "delta frames"),
        ("latency_audio_microseconds", "audio"),
        ("latency_key_microseconds", "keyframes"),
        ("latency_recovered_microseconds", "retransmitted"),
    ] {
        let latency = &report[name];
        if latency["max"].as_u64().unwrap_or(0) == 0 {
            continue;
        }
        let _ = write!(out, "<tr><td>{label}");
        for percentile in ["p50", "p95", "p99", "max"] {
            let milliseconds = latency[percentile].as_f64().unwrap_or(0.0) / 1e3;
            let _ = write!(out, "<td>{milliseconds:.2}");
        }
    }
    let _ = write!(out, "</table>");
}

fn cpu(out: &mut String, report: &Value) {
    let share = |value: &Value| value.as_f64().unwrap_or(0.0) * 100.0;
    let mut shares = Vec::new();
    if report["relay"].is_object() {
        shares.push((
            "server".to_owned(),
            share(&report["relay"]["cpu_share"]),
            COLOURS[0],
        ));
    }
    shares.push((
        "generator".to_owned(),
        share(&report["generator_cpu_share"]),
        COLOURS[1],
    ));
    shares.push((
        "generator waited".to_owned(),
        share(&report["generator_wait_share"]),
        "#9aa7b4",
    ));
    let _ = write!(
        out,
        "<h2>CPU, % of one core</h2>{}<p class=\"muted\">The generator has a core of its own; near 100 it measures itself.</p>",
        bars(&shares)
    );
}

fn sweep(out: &mut String, report: &Value, steps: &[Value]) {
    let _ = write!(
        out,
        "<p>Held {} subscribers, ended by {}. Arrival of frames: {}.</p>",
        text(&report["held_subscribers"]),
        text(&report["ended_by"]),
        text(&report["arrival"])
    );
    if let Some(last) = steps.last() {
        warning(out, last);
    }
    let points = |value: &dyn Fn(&Value) -> f64| -> Vec<(f64, f64)> {
        steps
            .iter()
            .map(|step| (step["subscribers"].as_f64().unwrap_or(0.0), value(step)))
            .collect()
    };
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let plot = |title: &str, unit: &str, lines: Vec<(&str, Vec<(f64, f64)>)>| {
        let lines: Vec<Line> = lines
            .into_iter()
            .zip(COLOURS)
            .map(|((label, points), colour)| Line {
                label: label.to_owned(),
                colour,
                points,
            })
            .collect();
        let all = || lines.iter().flat_map(|line| line.points.iter().copied());
        let plot = Plot {
            x: Axis::linear("subscribers", all().map(|point| point.0)),
            y: Axis::linear(unit, all().map(|point| point.1)),
            lines: lines.clone(),
        };
        format!("<h2>{title}</h2>{}", plot.svg())
    };
    let latency = |name: &'static str, percentile: &'static str| {
        points(&|step: &Value| number(&step[name][percentile]) / 1e3)
    };
    out.push_str(&plot(
        "Latency, 99 of 100 packets",
        "ms",
        vec![
            ("delta", latency("latency_delta_microseconds", "p99")),
            ("audio", latency("latency_audio_microseconds", "p99")),
            ("key", latency("latency_key_microseconds", "p99")),
        ],
    ));
    out.push_str(&plot(
        "Loss",
        "%",
        vec![("lost", points(&|step: &Value| number(&step["loss_percent"])))],
    ));
    out.push_str(&plot(
        "CPU, % of one core",
        "%",
        vec![
            (
                "server",
                points(&|step: &Value| number(&step["relay"]["cpu_share"]) * 100.0),
            ),
            (
                "generator",
                points(&|step: &Value| number(&step["generator_cpu_share"]) * 100.0),
            ),
        ],
    ));
    out.push_str(&plot(
        "Server CPU a forwarded packet",
        "us",
        vec![(
            "server",
            points(&|step: &Value| number(&step["relay"]["cpu_nanoseconds_per_forwarded_packet"]) / 1e3),
        )],
    ));
}

/// A value as people read it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() != 0.0 => {
                let digits = if float.abs() >= 100.0 { 0 } else { 2 };
                format!("{float:.digits$}")
            }
            Some(float) if number.is_f64() => format!("{float:.0}"),
            _ => number.to_string(),
        },
        Value::Null => "-".to_owned(),
        other => escaped(&other.to_string()),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_needs_nothing_from_elsewhere_and_warns_of_a_starved_generator() {
        let report = json!({
            "scenario": "sfu broadcast", "target": "<b>", "generator_starved": true,
            "generator_starved_because": ["it used 99 % of a core"], "generator_cpu_share": 0.99,
            "latency_distribution": [{ "content": "delta", "points": [[0.5, 200], [0.99, 9_000]] }],
            "latency_microseconds": { "p50": 200, "p95": 1, "p99": 9_000, "max": 9_500 },
        });
        let page = page(&report);
        assert!(page.contains("<svg") && page.contains("starved") && page.contains("9.00"));
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
        assert!(!page.contains("<b></title>"), "what is not ours is escaped");
    }

    #[test]
    fn a_sweep_has_its_curves() {
        let step = |subscribers: u32| {
            json!({ "subscribers": subscribers, "loss_percent": 0.0, "generator_cpu_share": 0.2,
                    "latency_delta_microseconds": { "p99": 900 }, "relay": { "cpu_share": 0.1 } })
        };
        let report = json!({ "scenario": "sfu sweep", "target": "milliway", "steps": [step(50), step(100)] });
        assert_eq!(page(&report).matches("<svg").count(), 4);
    }
}
