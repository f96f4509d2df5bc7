//! `docs/turn.md` names a test for every section: each of them exists, and no protocol test is missing there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose tests the table may name.
const TESTS: [&str; 7] = [
    "datagram/src",
    "turn-server/src",
    "turn-server/tests",
    "wire/src",
    "wire/tests",
    "node/tests",
    "loadtest/tests",
];

/// Files of which every test is in the table.
const COMPLETE: [&str; 9] = [
    "requests",
    "credentials",
    "tcp",
    "mobility",
    "discovery",
    "turnutils",
    "natdiscovery",
    "webrtc",
    "proto",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// `file::name` of every test.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    TESTS
        .iter()
        .for_each(|folder| sources(&root().join(folder), &mut files));
    let mut tests = BTreeSet::new();
    for path in files {
        let file = match path.file_stem().unwrap().to_str().unwrap() {
            // `address_policy/tests.rs` is the foot of `address_policy.rs`.
            "tests" => path.parent().unwrap().file_name().unwrap().to_str().unwrap(),
            stem => stem,
        };
        let text = fs::read_to_string(&path).unwrap();
        for after in text.split("#[test]").skip(1) {
            let name = after.split_once("fn ").and_then(|(_, name)| name.split_once('('));
            tests.insert(format!("{file}::{}", name.unwrap().0));
        }
    }
    tests
}

/// `file::name` of every test that the table names.
fn named() -> BTreeSet<String> {
    let table = fs::read_to_string(root().join("docs/turn.md")).unwrap();
    table
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|word| word.contains("::"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_test_that_the_table_names_exists() {
    let (tests, named) = (tests(), named());
    let missing: Vec<_> = named.difference(&tests).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named.len() > 80, "{} are named", named.len());
}

/// What attacks a TURN server; `docs/turn.md` has a row of tests for each.
const ATTACKS: [&str; 10] = [
    "Server-side request forgery",
    "Reflection",
    "State exhaustion",
    "Allocation, permission, channel and port exhaustion",
    "Port prediction",
    "Parsers",
    "Credentials that outlive their money",
    "Hijack",
    "Covert relaying loops",
    "Source port 0, peer port 0",
];

#[test]
fn every_attack_has_a_row_that_names_its_tests() {
    let table = fs::read_to_string(root().join("docs/turn.md")).unwrap();
    for attack in ATTACKS {
        let row = table
            .lines()
            .find(|line| line.starts_with(&format!("| {attack} |")));
        assert!(row.is_some_and(|row| row.contains("::")), "{attack}");
    }
}

#[test]
fn every_protocol_test_is_in_the_table() {
    let named = named();
    let missing: Vec<_> = tests()
        .into_iter()
        .filter(|test| COMPLETE.iter().any(|file| test.starts_with(&format!("{file}::"))))
        .filter(|test| !named.contains(test))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
