//! One connection to the database: every statement is prepared once, and none outlives its time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use metering::ledger::LedgerError;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Socket, Statement};

use crate::tls::{Address, address};

/// The server gives up on a statement after this; the node goes on inside its leases meanwhile.
const STATEMENT_TIME: Duration = Duration::from_secs(4);
/// And on waiting for another node's commit after this, which is longer than a healthy commit by far.
const LOCK_TIME: Duration = Duration::from_secs(2);
/// The node itself waits a little longer for a commit, and then takes the connection for dead: a server that is stopped,
/// or a network that swallows packets, says nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// To connect.
const CONNECT_TIME: Duration = Duration::from_secs(2);

const _: () = assert!(
    LOCK_TIME.as_millis() < STATEMENT_TIME.as_millis() && STATEMENT_TIME.as_millis() < PATIENCE.as_millis(),
    "the innermost limit says best what is wrong"
);

/// The connection.
pub(crate) struct Link {
    client: Client,
    statements: RefCell<HashMap<&'static str, Statement>>,
}

impl Link {
    /// Connects. The driver of the connection runs on the caller's runtime.
    pub(crate) async fn open(url: &str) -> Result<Self, LedgerError> {
        let Address { mut config, tls } = address(url)?;
        config.connect_timeout(CONNECT_TIME);
        config.application_name("milliway");
        let client = match tls {
            Some(tls) => connect(&config, tls).await?,
            None => connect(&config, NoTls).await?,
        };
        let link = Self {
            client,
            statements: RefCell::default(),
        };
        link.run(&format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; SET default_transaction_isolation = 'read committed'",
            STATEMENT_TIME.as_millis(),
            LOCK_TIME.as_millis()
        ))
        .await?;
        Ok(link)
    }

    /// Runs statements without arguments or results.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), LedgerError> {
        self.client.batch_execute(sql).await.map_err(storage)
    }

    /// One statement.
    pub(crate) async fn query(
        &self,
        sql: &'static str,
        arguments: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, LedgerError> {
        let known = self.statements.borrow().get(sql).cloned();
        let statement = match known {
            Some(statement) => statement,
            None => {
                let statement = self.client.prepare(sql).await.map_err(storage)?;
                self.statements.borrow_mut().insert(sql, statement.clone());
                statement
            }
        };
        self.client.query(&statement, arguments).await.map_err(storage)
    }
}

async fn connect<T>(config: &Config, tls: T) -> Result<Client, LedgerError>
where
    T: MakeTlsConnect<Socket> + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let connected = tokio::time::timeout(PATIENCE, config.connect(tls)).await;
    let (client, connection) = connected.map_err(|_| silent())?.map_err(storage)?;
    tokio::spawn(connection);
    Ok(client)
}

/// An error of the driver's, with what it is about in words: its own `Display` leaves the cause out.
fn storage(error: tokio_postgres::Error) -> LedgerError {
    LedgerError::Storage(Box::new(Told(error)))
}

#[derive(Debug)]
struct Told(tokio_postgres::Error);

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.as_db_error(), self.0.source()) {
            (Some(error), _) => write!(f, "{} ({})", error.message(), error.code().code()),
            (None, Some(cause)) => write!(f, "{}: {cause}", self.0),
            (None, None) => write!(f, "{}", self.0),
        }
    }
}

impl Error for Told {}

/// Whether a commit that failed so is to be tried again: another one was first.
pub(crate) fn is_conflict(error: &LedgerError) -> bool {
    let LedgerError::Storage(error) = error else {
        return false;
    };
    let code = error.downcast_ref::<Told>().and_then(|told| told.0.code());
    [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        // Somebody inserted the row that was not there: now it is, and is read.
        SqlState::UNIQUE_VIOLATION,
        SqlState::LOCK_NOT_AVAILABLE,
        // `CREATE TABLE IF NOT EXISTS` of two nodes at once: the name of the other's row type is taken already.
        SqlState::DUPLICATE_OBJECT,
        SqlState::DUPLICATE_TABLE,
    ]
    .iter()
    .any(|conflict| code == Some(conflict))
}

/// No answer in time.
pub(crate) fn silent() -> LedgerError {
    LedgerError::Storage("the database does not answer".into())
}
