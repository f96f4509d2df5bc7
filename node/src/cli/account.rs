//! `milliway account`, `milliway issuer`, `milliway usage`: the books, as an operator sees and changes them. A running
//! relay is asked through its socket; a stopped one's ledger is opened directly.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand, ValueEnum};
use metering::ledger::{Entry, EntryId};
use rand::RngExt;
use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use super::parquet::UsageFile;
use crate::admin_socket;
use crate::cashier::errand::{self, ENTRIES_MAX, Errand, UsageRecord};
use crate::cashier::place::Place;
use crate::clock;
use crate::config::Config;
use crate::data::Data;

/// The name under which this program takes a seat at a shared ledger when no relay runs here.
pub(super) const OPERATOR_SEAT: &str = "operator";

/// Which relay's books.
#[derive(Args)]
pub(super) struct Books {
    /// The relay's data folder [default: that of the configuration, or ./milliway-data]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Its TOML configuration, which says where the ledger is
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl Books {
    fn config(&self) -> Result<(Config, Data), Failure> {
        let config = Config::for_dev()
            .with(self.config.as_deref(), std::env::vars())
            .map_err(|mistakes| {
                let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                mistakes.join("\nmilliway: ")
            })?;
        let data = Data::at(self.data.as_ref().unwrap_or(&config.relay.data));
        Ok((config, data))
    }

    /// Where the ledger is that no relay uses now.
    pub(super) fn stopped(&self) -> Result<Place, Failure> {
        let (config, data) = self.config()?;
        if std::os::unix::net::UnixStream::connect(data.path(admin_socket::NAME)).is_ok() {
            return Err("a relay is running there; stop it first".to_owned());
        }
        Place::parse(&config.ledger.url, OPERATOR_SEAT, &data.ledger())
    }

    /// Has an errand done.
    pub(super) fn run(&self, errand: Errand) -> Result<Vec<Value>, Failure> {
        let (config, data) = self.config()?;
        if let Some(answer) = admin_socket::ask(&data.path(admin_socket::NAME), &errand) {
            return answer;
        }
        let place = Place::parse(&config.ledger.url, OPERATOR_SEAT, &data.ledger())?;
        let operator = match &place {
            Place::File(path) if !path.is_file() => {
                return Err(format!(
                    "{} does not exist; name the relay's folder with --data",
                    path.display()
                ));
            }
            // Only a credit needs the name.
            _ if data.path("relay.jwk").is_file() => data.relay_key()?.did().as_str().to_owned(),
            _ => OPERATOR_SEAT.to_owned(),
        };
        let mut ledger = place
            .open_for_operator(clock::unix_ns())
            .map_err(|error| error.to_string())?;
        errand::run(errand, &mut *ledger, &operator, clock::unix_ns())
    }

    pub(super) fn print(&self, errand: Errand) -> Result<(), Failure> {
        for line in self.run(errand)? {
            println!("{line}");
        }
        Ok(())
    }
}

#[derive(Subcommand)]
pub(super) enum AccountCommand {
    /// One line of JSON for each account
    List {
        #[command(flatten)]
        books: Books,
    },
    /// One account
    Show {
        /// Its DID, or `bearer:` and the hash
        did: String,
        #[command(flatten)]
        books: Books,
    },
    /// Give promotional credit: spent first, never paid back as money
    Credit {
        /// Whose account
        did: String,
        /// How much
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..(1 << 53)))]
        msat: u64,
        /// Why; it stands in the journal
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Names this credit, so that repeating the command does not repeat the credit [default: random]
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        #[command(flatten)]
        books: Books,
    },
    /// Stop an account's spending: its live sessions end, on every node
    Freeze {
        /// Whose account
        did: String,
        #[command(flatten)]
        books: Books,
    },
    /// Allow a frozen account to spend again
    Unfreeze {
        /// Whose account
        did: String,
        #[command(flatten)]
        books: Books,
    },
    /// Pay back what is available and refundable
    Refund {
        /// Whose account
        did: String,
        /// Why; it stands in the journal
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// First freeze the account and settle its live sessions, so that nothing stays behind
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        books: Books,
    },
}

pub(super) fn run(command: AccountCommand) -> Result<(), Failure> {
    match command {
        AccountCommand::List { books } => books.print(Errand::Accounts),
        AccountCommand::Show { did, books } => books.print(Errand::Account { did }),
        AccountCommand::Credit {
            did,
            msat,
            reason,
            id,
            books,
        } => {
            let id = id.unwrap_or_else(|| URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 12]>()));
            books.print(Errand::Credit {
                did,
                msat,
                reason,
                id,
            })
        }
        AccountCommand::Freeze { did, books } => books.print(Errand::Freeze { did, frozen: true }),
        AccountCommand::Unfreeze { did, books } => books.print(Errand::Freeze { did, frozen: false }),
        AccountCommand::Refund {
            did,
            reason,
            all,
            books,
        } => books.print(Errand::Refund { did, reason, all }),
    }
}

#[derive(Subcommand)]
pub(super) enum IssuerCommand {
    /// Vouchers credited, spent, paid back, and what is still owed
    Statement {
        /// The issuer's DID
        did: String,
        #[command(flatten)]
        books: Books,
    },
}

pub(super) fn run_issuer(command: IssuerCommand) -> Result<(), Failure> {
    let IssuerCommand::Statement { did, books } = command;
    books.print(Errand::Issuer { did })
}

/// How usage is written.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// RFC 4180, with a line of column names
    Csv,
    /// One object a line
    Json,
    /// Apache Parquet, for what reads columns
    Parquet,
}

#[derive(Subcommand)]
pub(super) enum UsageCommand {
    /// Every settled segment, in the order of the journal
    Export {
        /// How it is written
        #[arg(long, value_enum)]
        format: Format,
        /// Settled at this Unix second or later
        #[arg(long, value_name = "SECONDS")]
        since: Option<u64>,
        /// Settled before this Unix second
        #[arg(long, value_name = "SECONDS")]
        until: Option<u64>,
        /// Of this account only
        #[arg(long, value_name = "DID")]
        account: Option<String>,
        /// Write to this new file instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        books: Books,
    },
    /// How far each sink of usage records is, and what it lacks
    Sinks {
        #[command(flatten)]
        books: Books,
    },
}

#[derive(Deserialize)]
struct Listed {
    id: EntryId,
    entry: Entry,
}

/// What an export is written with.
enum Writer {
    Lines(Box<dyn Write + Send>, Format),
    Parquet(Box<UsageFile<Box<dyn Write + Send>>>),
}

impl Writer {
    fn new(format: Format, mut to: Box<dyn Write + Send>) -> Result<Writer, Failure> {
        Ok(match format {
            Format::Parquet => {
                Writer::Parquet(Box::new(UsageFile::new(to).map_err(|error| error.to_string())?))
            }
            format => {
                if let Format::Csv = format {
                    writeln!(to, "{}", UsageRecord::COLUMNS).map_err(|error| error.to_string())?;
                }
                Writer::Lines(to, format)
            }
        })
    }

    fn push(&mut self, record: UsageRecord) -> Result<(), Failure> {
        match self {
            Writer::Parquet(file) => file.push(record).map_err(|error| error.to_string()),
            Writer::Lines(to, Format::Csv) => {
                writeln!(to, "{}", record.csv()).map_err(|error| error.to_string())
            }
            Writer::Lines(to, _) => {
                let line = serde_json::to_string(&record).map_err(|error| error.to_string())?;
                writeln!(to, "{line}").map_err(|error| error.to_string())
            }
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Writer::Parquet(file) => file.finish().map_err(|error| error.to_string()),
            Writer::Lines(mut to, _) => to.flush().map_err(|error| error.to_string()),
        }
    }
}

pub(super) fn run_usage(command: UsageCommand) -> Result<(), Failure> {
    let (format, since, until, account, out, books) = match command {
        UsageCommand::Sinks { books } => return books.print(Errand::Sinks),
        UsageCommand::Export {
            format,
            since,
            until,
            account,
            out,
            books,
        } => (format, since, until, account, out, books),
    };
    let to: Box<dyn Write + Send> = match &out {
        None => Box::new(BufWriter::new(std::io::stdout())),
        Some(path) => {
            let file = File::create_new(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Box::new(BufWriter::new(file))
        }
    };
    let mut writer = Writer::new(format, to)?;
    let period = since.unwrap_or(0)..until.unwrap_or(u64::MAX);
    let mut after = None;
    loop {
        let lines = books.run(Errand::Journal { after })?;
        let last = lines.len() < ENTRIES_MAX;
        for line in lines {
            let Listed { id, entry } = serde_json::from_value(line).map_err(|error| error.to_string())?;
            after = Some(id);
            let wanted = period.contains(&(entry.at / 1_000_000_000))
                && account
                    .as_ref()
                    .is_none_or(|account| entry.account.as_str() == account);
            if let Some(record) = UsageRecord::of(id, &entry).filter(|_| wanted) {
                writer.push(record)?;
            }
        }
        if last {
            return writer.finish();
        }
    }
}
