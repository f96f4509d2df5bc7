//! Who may import whom: the crate graph as `cargo metadata` sees it, against the table that ARCHITECTURE.md explains.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each crate and the crates of ours that it may import. `wire`, `identity` and `metering` are layer 0.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("identity", &[]),
    ("metering", &[]),
    // A room of its own: `metering` opens no socket, and the program is not the only user of the shared ledger.
    ("ledger-postgres", &["metering"]),
    ("topup", &[]),
    ("dsip", &["identity"]),
    ("datagram", &["wire", "identity", "metering"]),
    ("sfu", &["wire", "identity", "metering"]),
    ("turn-server", &["wire", "identity", "metering"]),
    (
        "milliway",
        &[
            "wire",
            "identity",
            "metering",
            "ledger-postgres",
            "dsip",
            "datagram",
            "sfu",
            "turn-server",
            "topup",
        ],
    ),
    (
        "loadtest",
        &[
            "wire",
            "identity",
            "metering",
            "ledger-postgres",
            "dsip",
            "datagram",
            "sfu",
            "turn-server",
            "topup",
            "milliway",
        ],
    ),
    (
        "benches",
        &[
            "wire",
            "identity",
            "metering",
            "ledger-postgres",
            "dsip",
            "datagram",
            "sfu",
            "turn-server",
            "topup",
            "milliway",
            "loadtest",
        ],
    ),
];

/// Every member of the workspace and what it imports of ours, outside tests.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let ours = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|import| {
                    // Ours are those that lie in the workspace; tests may look further than the crate itself.
                    import["path"].is_string() && import["kind"] != "dev"
                });
            let names = ours
                .map(|import| import["name"].as_str().unwrap().to_owned())
                .collect();
            (package["name"].as_str().unwrap().to_owned(), names)
        })
        .collect()
}

#[test]
fn every_crate_imports_only_what_the_table_allows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = MAY_IMPORT
        .iter()
        .map(|(name, imports)| (*name, imports.iter().copied().collect()))
        .collect();
    for (name, imports) in imports() {
        let may = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} is in no row of the table"));
        for import in imports {
            assert!(may.contains(import.as_str()), "{name} must not import {import}");
        }
    }
}

#[test]
fn every_room_of_the_house_exists() {
    let members = imports();
    for (name, _) in MAY_IMPORT {
        assert!(
            members.contains_key(*name),
            "{name} is missing from the workspace"
        );
    }
}

#[test]
fn nobody_imports_the_tools() {
    for (name, imports) in imports() {
        for tool in ["loadtest", "fuzz"] {
            assert!(
                name == "benches" || !imports.contains(tool),
                "{name} must not import {tool}"
            );
        }
    }
}
