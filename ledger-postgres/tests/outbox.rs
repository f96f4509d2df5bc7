//! The outbox of both ledgers: what a sink is given, in which order, by whom, and that nothing is lost however the
//! deliverer ends.
#![allow(clippy::unwrap_used)]

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ledger_postgres::{Options, Postgres};
use metering::ledger::{Command, Kind, Leaving};
use metering::{Embedded, Ledger, Msat, Voucher};

fn node(url: &str, name: &str) -> Postgres {
    let options = Options {
        presumed_dead_after: Duration::from_secs(1),
        ..Options::new(name)
    };
    Postgres::open(url, options, 1).unwrap().0
}

fn credit(account: &str, jti: u64) -> Command {
    Command::Credit(Voucher {
        iss: "did:key:z6MkIssuer".into(),
        jti: jti.to_string(),
        sub: account.into(),
        payer: None,
        aud: "did:key:z6MkRelay".into(),
        balance: Msat::new(1),
        account: account.into(),
        refundable: true,
    })
}

/// Delivers what there is, `most` entries of each journal at a time, to `to`.
fn drain(ledger: &mut dyn Ledger, most: usize, to: &mut Vec<Leaving>) {
    loop {
        let unsent = ledger
            .unsent("file", most)
            .unwrap()
            .expect("nobody else delivers");
        if unsent.behind == 0 {
            return;
        }
        assert!(
            !unsent.entries.is_empty(),
            "{} are behind and none can leave",
            unsent.behind
        );
        let mut cursor = unsent.cursor;
        for leaving in unsent.entries {
            cursor.pass(leaving.id);
            to.push(leaving);
        }
        assert!(ledger.sent("file", &cursor).unwrap());
    }
}

/// Every entry of the journal once, and each account's in the order of their numbers.
fn whole_and_in_order(ledger: &dyn Ledger, delivered: &[Leaving]) {
    let ids: BTreeSet<_> = delivered.iter().map(|leaving| leaving.id).collect();
    assert_eq!(ids.len(), delivered.len(), "none twice");
    let journal: BTreeSet<_> = ledger
        .journal(None, 1_000_000)
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(ids, journal);
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for leaving in delivered {
        let number = leaving.entry.number.unwrap();
        let last = last.entry(leaving.entry.account.as_str()).or_default();
        assert_eq!(number, *last + 1);
        *last = number;
        if leaving.entry.kind == Kind::Credit {
            assert_eq!(leaving.voucher.as_ref().unwrap().account, leaving.entry.account);
        }
    }
}

#[test]
fn a_sink_of_one_relay_gets_the_whole_journal_and_again_what_it_did_not_acknowledge() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, _) = Embedded::open(&folder.path().join("l.redb"), 1).unwrap();
    assert_eq!(ledger.unsent("file", 9).unwrap().unwrap().behind, 0);
    for jti in 0..25 {
        ledger
            .apply(&[credit("anna", jti), credit("ben", 100 + jti)], 2)
            .unwrap();
    }
    let first = ledger.unsent("file", 10).unwrap().unwrap();
    assert_eq!((first.entries.len(), first.behind), (10, 50));
    assert_eq!(
        ledger.unsent("file", 10).unwrap().unwrap(),
        first,
        "not acknowledged"
    );
    let mut delivered = Vec::new();
    drain(&mut ledger, 7, &mut delivered);
    whole_and_in_order(&ledger, &delivered);
    // Another sink has its own place.
    assert_eq!(ledger.unsent("webhook", 1).unwrap().unwrap().behind, 50);
    assert_eq!(ledger.sinks().unwrap().len(), 1);
}

#[test]
fn records_of_accounts_that_three_nodes_write_at_once_leave_in_each_accounts_order() {
    let url = server::fresh();
    let mut nodes: Vec<Postgres> = ["a", "b", "c"].iter().map(|name| node(&url, name)).collect();
    std::thread::scope(|scope| {
        for (index, node) in nodes.iter_mut().enumerate() {
            scope.spawn(move || {
                for round in 0..60 {
                    let account = ["anna", "ben", "carl"][(round as usize + index) % 3];
                    node.apply(&[credit(account, index as u64 * 1_000 + round)], 2)
                        .unwrap();
                }
            });
        }
    });
    for most in [1, 3, 1_000] {
        server::sql(&url, "DELETE FROM sinks");
        let mut delivered = Vec::new();
        drain(&mut nodes[0], most, &mut delivered);
        whole_and_in_order(&nodes[0], &delivered);
    }
}

#[test]
fn one_node_delivers_until_it_is_gone_and_then_cannot_move_the_cursor_any_more() {
    let url = server::fresh();
    let (mut a, mut b) = (node(&url, "a"), node(&url, "b"));
    a.apply(&[credit("anna", 1), credit("anna", 2)], 2).unwrap();
    let read = a.unsent("file", 10).unwrap().unwrap();
    assert_eq!(read.entries.len(), 2);
    assert_eq!(b.unsent("file", 10).unwrap(), None, "a delivers");
    assert!(!b.sent("file", &read.cursor).unwrap());

    // b sees a's beat stand still, and presumes it dead.
    let start = Instant::now();
    b.watch(&[], start, 3).unwrap();
    b.watch(&[], start + Duration::from_secs(2), 3).unwrap();
    let taken = b.unsent("file", 10).unwrap().unwrap();
    assert_eq!(
        taken.entries, read.entries,
        "delivered again, under the same names"
    );
    let mut cursor = taken.cursor;
    taken.entries.iter().for_each(|leaving| cursor.pass(leaving.id));
    assert!(b.sent("file", &cursor).unwrap());

    // a was not dead: what it goes on to say changes nothing.
    assert!(!a.sent("file", &read.cursor).unwrap());
    assert_eq!(a.unsent("file", 10).unwrap(), None);
    assert_eq!(b.unsent("file", 10).unwrap().unwrap().behind, 0);

    // A node that comes back under its name is another one.
    let mut c = node(&url, "b");
    assert!(!b.sent("file", &cursor).unwrap());
    assert_eq!(c.unsent("file", 10).unwrap().unwrap().cursor, cursor);
}

#[test]
fn books_that_move_take_their_sinks_along_and_lose_no_record() {
    let url = server::fresh();
    let (mut a, mut b) = (node(&url, "a"), node(&url, "b"));
    for jti in 0..10 {
        a.apply(&[credit("anna", jti)], 2).unwrap();
        b.apply(&[credit("anna", 100 + jti)], 2).unwrap();
    }
    let unsent = a.unsent("file", 4).unwrap().unwrap();
    let mut cursor = unsent.cursor;
    unsent.entries.iter().for_each(|leaving| cursor.pass(leaving.id));
    cursor.records = unsent.entries.len() as u64;
    a.sent("file", &cursor).unwrap();
    let had: BTreeSet<_> = unsent
        .entries
        .iter()
        .map(|leaving| leaving.entry.number)
        .collect();

    let mut rows = Vec::new();
    a.dump(&mut |row| {
        rows.push(row);
        Ok(())
    })
    .unwrap();
    let mut moved = Embedded::in_memory(3).unwrap();
    moved.load(&mut rows.into_iter().map(Ok), None, 3).unwrap();
    let unsent = moved.unsent("file", 100).unwrap().unwrap();
    assert_eq!(unsent.cursor.records, cursor.records);
    let mut all: BTreeSet<_> = unsent
        .entries
        .iter()
        .map(|leaving| leaving.entry.number)
        .collect();
    all.extend(had);
    assert_eq!(all.len(), 20, "none is missing");
}
