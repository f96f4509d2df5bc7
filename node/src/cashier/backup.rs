//! A backup of the books: one line of JSON a row, between a line that says what it is and one that says that it is whole.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use metering::ledger::{DumpRow, Ledger, LedgerError};
use serde::{Deserialize, Serialize};

/// The version of the format.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    milliway_ledger: u32,
    /// Unix nanoseconds.
    at: u64,
}

#[derive(Serialize, Deserialize)]
struct Foot {
    rows: u64,
    /// Over all lines before.
    sha256: String,
}

fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> LedgerError {
    LedgerError::Storage(Box::new(error))
}

fn damaged(what: &str) -> LedgerError {
    LedgerError::Corrupt(format!("this backup is {what}"))
}

/// Writes one. A file that is there is not overwritten; one that could not be finished says so by having no end.
pub(crate) fn write(ledger: &dyn Ledger, path: &Path, unix_ns: u64) -> Result<u64, LedgerError> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(unwritable)?;
    let mut out = BufWriter::new(file);
    let (mut hash, mut rows) = (Context::new(&SHA256), 0);
    let mut line = |text: String, hash: &mut Context| {
        hash.update(text.as_bytes());
        hash.update(b"\n");
        writeln!(out, "{text}").map_err(unwritable)
    };
    let head = Head {
        milliway_ledger: VERSION,
        at: unix_ns,
    };
    line(serde_json::to_string(&head).map_err(unwritable)?, &mut hash)?;
    ledger.dump(&mut |row| {
        rows += 1;
        line(serde_json::to_string(&row).map_err(unwritable)?, &mut hash)
    })?;
    let foot = Foot {
        rows,
        sha256: URL_SAFE_NO_PAD.encode(hash.clone().finish()),
    };
    line(serde_json::to_string(&foot).map_err(unwritable)?, &mut hash)?;
    let file = out.into_inner().map_err(|error| unwritable(error.into_error()))?;
    file.sync_all().map_err(unwritable)?;
    Ok(rows)
}

/// Reads one, all of it or nothing.
pub(crate) fn read(path: &Path) -> Result<Vec<DumpRow>, LedgerError> {
    let mut lines = BufReader::new(File::open(path).map_err(unwritable)?).lines();
    let mut hash = Context::new(&SHA256);
    let head = lines
        .next()
        .ok_or_else(|| damaged("empty"))?
        .map_err(unwritable)?;
    match serde_json::from_str::<Head>(&head) {
        Ok(found) if found.milliway_ledger == VERSION => {}
        Ok(_) => return Err(damaged("of a version that this program does not know")),
        Err(_) => return Err(damaged("none")),
    }
    hash.update(head.as_bytes());
    hash.update(b"\n");
    let mut rows = Vec::new();
    for line in lines {
        let line = line.map_err(unwritable)?;
        if let Ok(foot) = serde_json::from_str::<Foot>(&line) {
            let whole =
                foot.rows == rows.len() as u64 && foot.sha256 == URL_SAFE_NO_PAD.encode(hash.finish());
            return if whole { Ok(rows) } else { Err(damaged("damaged")) };
        }
        hash.update(line.as_bytes());
        hash.update(b"\n");
        rows.push(serde_json::from_str(&line).map_err(|_| damaged("damaged"))?);
    }
    Err(damaged("not whole: its end is missing"))
}
