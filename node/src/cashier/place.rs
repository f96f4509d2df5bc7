//! Where the books are: in a file of this relay's own, or in a database that several share.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use ledger_postgres::{Options, Postgres, Seat};
use metering::ledger::{IssuerLimits, LedgerError, Recovery};
use metering::{Embedded, Ledger, Msat};

use super::desk::Reopen;

/// The cashier's thread waits so long for a connection that is being made, and then goes on with its rounds: what is
/// held and what is ended must not wait for a database that does not answer.
const CONNECTING: Duration = Duration::from_millis(50);

/// Where the books are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In a file.
    File(PathBuf),
    /// In a database, under this node's name.
    Database {
        /// `postgres://...`
        url: String,
        /// The name.
        node: String,
    },
}

impl Place {
    /// From the configuration: `redb:PATH`, `postgres://...`, or nothing for the file in the data folder.
    pub(crate) fn parse(url: &str, node: &str, file: &Path) -> Result<Self, String> {
        if url.is_empty() {
            return Ok(Self::File(file.to_owned()));
        }
        if let Some(path) = url.strip_prefix("redb:").filter(|path| !path.is_empty()) {
            return Ok(Self::File(path.into()));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Database {
                url: url.to_owned(),
                node: node.to_owned(),
            });
        }
        Err("ledger.url must be redb:PATH or postgres://...".to_owned())
    }

    /// Opens the books, puts right what a kill left, and says how they are opened again. Blocks; not for async code.
    pub(crate) fn open(
        &self,
        limit: Option<Msat>,
        unix_ns: u64,
    ) -> Result<(Box<dyn Ledger>, Reopen, Recovery), LedgerError> {
        let limits = IssuerLimits {
            each: limit,
            ..IssuerLimits::default()
        };
        match self {
            Self::File(path) => {
                let (ledger, recovery) = Embedded::open(path, unix_ns)?;
                let path = path.clone();
                let again = limits.clone();
                let reopen: Reopen =
                    Box::new(move || Ok(Box::new(Embedded::reopen(&path)?.with_limits(again.clone()))));
                Ok((Box::new(ledger.with_limits(limits)), reopen, recovery))
            }
            Self::Database { url, node } => {
                let options = Options {
                    limits,
                    ..Options::new(node.clone())
                };
                let (ledger, recovery) = Postgres::open(url, options.clone(), unix_ns)?;
                let reopen = reopen(url.clone(), options, ledger.seat());
                Ok((Box::new(ledger), reopen, recovery))
            }
        }
    }
}

impl Place {
    /// Opens the books to look at them, or to change them for an operator: what a stopped relay left open stays open.
    pub(crate) fn open_for_operator(&self, unix_ns: u64) -> Result<Box<dyn Ledger>, LedgerError> {
        Ok(match self {
            Self::File(path) => Box::new(Embedded::reopen(path)?),
            Self::Database { url, node } => {
                Box::new(Postgres::open(url, Options::new(node.clone()), unix_ns)?.0)
            }
        })
    }
}

/// Connects on a thread beside the cashier's, which asks now and then whether that is done.
fn reopen(url: String, options: Options, seat: Seat) -> Reopen {
    let mut connecting: Option<Receiver<Result<Postgres, LedgerError>>> = None;
    Box::new(move || {
        let answer = connecting.get_or_insert_with(|| {
            let (sender, answer) = channel();
            let (url, options, seat) = (url.clone(), options.clone(), seat.clone());
            std::thread::spawn(move || {
                // Whoever asked has gone where nobody waits for it.
                drop(sender.send(Postgres::reopen(&url, options, &seat)));
            });
            answer
        });
        match answer.recv_timeout(CONNECTING) {
            Ok(opened) => {
                connecting = None;
                Ok(Box::new(opened?))
            }
            Err(RecvTimeoutError::Timeout) => Err(LedgerError::Storage("still connecting".into())),
            Err(RecvTimeoutError::Disconnected) => {
                connecting = None;
                Err(LedgerError::Storage("the attempt to connect failed".into()))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_or_a_database() {
        let parse = |url| Place::parse(url, "a", Path::new("own.redb"));
        assert!(matches!(parse(""), Ok(Place::File(path)) if path == Path::new("own.redb")));
        assert!(matches!(parse("redb:/x/y"), Ok(Place::File(path)) if path == Path::new("/x/y")));
        assert!(matches!(parse("postgres://h/d"), Ok(Place::Database { .. })));
        for wrong in ["redb:", "mysql://h/d", "/x/y"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
