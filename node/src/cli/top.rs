//! `milliway top`: what is live on a running relay, in the terminal, through the socket in its data folder. Plain ANSI, drawn
//! anew each second; once and as JSON for scripts.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::Failure;
use super::account::Books;
use crate::cashier::errand::Errand;

/// Home, and everything below it erased: what was drawn before does not flicker.
const REDRAW: &str = "\x1b[H\x1b[J";
/// Lines of sessions that are drawn; a terminal has no more, and the busiest come first.
const SESSIONS_SHOWN: usize = 60;

/// How to look.
#[derive(Args)]
pub(super) struct TopArguments {
    /// Print one snapshot and end
    #[arg(long)]
    once: bool,
    /// The snapshot as JSON: a line about the relay, then one for each live session
    #[arg(long, requires = "once")]
    json: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    #[command(flatten)]
    books: Books,
}

/// Bytes of each session at the last look, for rates.
type Before = (Instant, HashMap<String, (u64, u64)>);

pub(super) fn run(arguments: &TopArguments) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let mut before: Option<Before> = None;
    loop {
        let lines = arguments.books.run(Errand::Live)?;
        let drawn = match arguments.json {
            true => lines.iter().map(|line| format!("{line}\n")).collect(),
            false => draw(&lines, before.as_ref()),
        };
        let start = if arguments.once { "" } else { REDRAW };
        // A pipe that closed is somebody who has seen enough.
        if write!(out, "{start}{drawn}").and_then(|()| out.flush()).is_err() || arguments.once {
            return Ok(());
        }
        let counts = lines
            .iter()
            .skip(1)
            .map(|line| (text(line, "session"), bytes(line)));
        before = Some((Instant::now(), counts.collect()));
        std::thread::sleep(Duration::from_secs(arguments.every));
    }
}

fn draw(lines: &[Value], before: Option<&Before>) -> String {
    let (Some(relay), sessions) = (lines.first(), lines.get(1..).unwrap_or_default()) else {
        return String::new();
    };
    let number = |line: &Value, name: &str| line[name].as_u64().unwrap_or_default();
    let mut accounts: HashMap<String, u64> = HashMap::new();
    for line in sessions {
        accounts.insert(text(line, "account"), number(line, "burn_msat_per_second"));
    }
    let mut drawn = format!(
        "{}  {}\n{} sessions of {} accounts, {} rooms, {} msat/s{}{}\n\n",
        text(relay, "relay"),
        text(relay, "url"),
        sessions.len(),
        accounts.len(),
        number(relay, "rooms"),
        accounts.values().sum::<u64>(),
        if relay["draining"] == true {
            ", DRAINING"
        } else {
            ""
        },
        if relay["ledger_up"] == false {
            ", LEDGER DOWN"
        } else {
            ""
        },
    );
    drawn += &format!(
        "{:<16} {:<4} {:<20} {:<20} {:<10} {:>11} {:>8} {:>9} {:>9} {:>7}\n",
        "SESSION",
        "KIND",
        "ACCOUNT",
        "ROOM/NAME",
        "STEP",
        "USED msat",
        "RUNWAY",
        "OUT kb/s",
        "IN kb/s",
        "AGE"
    );
    let mut order: Vec<&Value> = sessions.iter().collect();
    order.sort_by_key(|line| std::cmp::Reverse(number(line, "used_msat")));
    for line in order.iter().take(SESSIONS_SHOWN) {
        let place = match (line["room"].as_str(), line["name"].as_str()) {
            (Some(_), Some(_)) => format!("{}/{}", text(line, "room"), text(line, "name")),
            (Some(_), None) => text(line, "room"),
            _ => String::new(),
        };
        let (rate_out, rate_in) = rates(line, before);
        let runway = line["runway_seconds"]
            .as_f64()
            .map_or("-".to_owned(), |left| format!("{left:.0}s"));
        let age = line["age_seconds"]
            .as_u64()
            .unwrap_or_else(|| number(line, "seconds"));
        drawn += &format!(
            "{:<16} {:<4} {:<20} {:<20} {:<10} {:>11} {:>8} {:>9} {:>9} {:>6}s\n",
            text(line, "session"),
            text(line, "service"),
            shortened(&text(line, "account")),
            place.chars().take(20).collect::<String>(),
            text(line, "step"),
            number(line, "used_msat"),
            runway,
            rate_out,
            rate_in,
            age,
        );
    }
    if order.len() > SESSIONS_SHOWN {
        drawn += &format!("and {} more\n", order.len() - SESSIONS_SHOWN);
    }
    drawn
}

/// Kilobits a second since the last look; unknown at the first, and where a segment began anew.
fn rates(line: &Value, before: Option<&Before>) -> (String, String) {
    let unknown = || "-".to_owned();
    let known = before.and_then(|(at, counts)| Some((at, counts.get(&text(line, "session"))?)));
    let Some((at, (out_before, in_before))) = known else {
        return (unknown(), unknown());
    };
    let seconds = at.elapsed().as_secs_f64().max(0.001);
    let (out_now, in_now) = bytes(line);
    let rate = |now: u64, before: u64| {
        now.checked_sub(before).map_or_else(unknown, |more| {
            format!("{:.0}", more as f64 * 8.0 / 1000.0 / seconds)
        })
    };
    (rate(out_now, *out_before), rate(in_now, *in_before))
}

fn bytes(line: &Value) -> (u64, u64) {
    let count = |name: &str| line[name].as_u64().unwrap_or_default();
    (count("bytes_out"), count("bytes_in"))
}

/// What users chose may hold anything; a terminal gets none of it that it would obey.
fn text(line: &Value, name: &str) -> String {
    let text = line[name].as_str().unwrap_or_default();
    let harmless = |character: char| if character.is_control() { '?' } else { character };
    text.chars().map(harmless).collect()
}

fn shortened(did: &str) -> String {
    let count = did.chars().count();
    match count > 20 {
        true => {
            let head: String = did.chars().take(12).collect();
            let tail: String = did.chars().skip(count - 7).collect();
            format!("{head}…{tail}")
        }
        false => did.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(session: &str, used: u64, out: u64) -> Value {
        json!({"session": session, "service": "sfu", "account": "did:key:z6MkfH8dqTLjPzAqVyLFQfFQLHjyBgNKkmJHQB",
               "room": "tea", "name": "\u{1b}[31mMallory", "step": "full", "used_msat": used, "bytes_out": out,
               "bytes_in": 0, "runway_seconds": 99.6, "burn_msat_per_second": 8, "age_seconds": 5})
    }

    #[test]
    fn the_dearest_come_first_and_nothing_that_users_chose_reaches_the_terminal_as_an_order() {
        let relay = json!({"relay": "did:web:r.example#node-1", "url": "https://r.example", "rooms": 1, "ledger_up": true});
        let drawn = draw(&[relay, line("aa", 5, 0), line("bb", 50, 0)], None);
        assert!(drawn.find("bb").unwrap() < drawn.find("aa").unwrap(), "{drawn}");
        assert!(
            !drawn.contains('\u{1b}') && drawn.contains("?[31mMallory"),
            "{drawn}"
        );
        assert!(
            drawn.contains("2 sessions of 1 accounts, 1 rooms, 8 msat/s\n"),
            "{drawn}"
        );
        assert!(
            drawn.contains("did:key:z6Mk…KkmJHQB") && drawn.contains("100s"),
            "{drawn}"
        );
    }

    #[test]
    fn rates_are_those_since_the_last_look() {
        let second_ago = Instant::now() - Duration::from_secs(1);
        let before = (second_ago, HashMap::from([("aa".to_owned(), (1_000, 0))]));
        let (out, _) = rates(&line("aa", 0, 251_000), Some(&before));
        let out: f64 = out.parse().unwrap();
        assert!((1_900.0..=2_000.0).contains(&out), "{out}");
        assert_eq!(
            rates(&line("aa", 0, 10), Some(&before)).0,
            "-",
            "a new segment counts from 0"
        );
        assert_eq!(rates(&line("bb", 0, 10), Some(&before)).0, "-");
    }
}
