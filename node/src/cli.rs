//! The command line. Every command is a file; results go to standard output, everything else to standard error.

mod account;
mod check;
mod deny;
mod did;
mod ledger;
mod parquet;
mod policy;
mod replay;
mod token;
mod top;
mod topup;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// A media relay that gets paid: an SFU for group calls and a TURN server, metered in millisatoshi.
#[derive(Parser)]
#[command(name = "milliway", version, arg_required_else_help = true)]
struct Milliway {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a one-machine relay for trying out: own issuer, faucet and call page
    Dev(DevArguments),
    /// Run a relay in production, as a node of a did:web operator
    Serve {
        /// The TOML file; see deploy/milliway.example.toml
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration file and say every mistake with its line
    Check {
        /// The TOML file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make and show identities (Ed25519 did:key, private JWK with mode 0600)
    Did {
        #[command(subcommand)]
        command: did::DidCommand,
    },
    /// Issue and show relay tokens
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Look into accounts, credit, freeze and refund them
    Account {
        #[command(subcommand)]
        command: account::AccountCommand,
    },
    /// Say who is not served; a running relay takes it up within a second
    Deny {
        #[command(subcommand)]
        command: deny::DenyCommand,
    },
    /// Explain what the policy makes of a token
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// What an issuer's vouchers came to
    Issuer {
        #[command(subcommand)]
        command: account::IssuerCommand,
    },
    /// Export what was used
    Usage {
        #[command(subcommand)]
        command: account::UsageCommand,
    },
    /// Watch what is live on a running relay
    Top(top::TopArguments),
    /// Money from outside: what came and what is awaited, and the coins of it
    Topup {
        #[command(subcommand)]
        command: topup::TopUpCommand,
    },
    /// Prove the books
    Ledger {
        #[command(subcommand)]
        command: ledger::LedgerCommand,
    },
}

/// What `milliway dev` is told. Each flag wins over the environment, which wins over the file.
#[derive(Args)]
pub(crate) struct DevArguments {
    /// Folder for keys, ledger and admin token, made with mode 0700 [default: ./milliway-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// TOML configuration; see deploy/milliway.example.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where pages, API, WHIP, WHEP and DSIP listen; port 0 means any [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// The SFU's UDP port; port 0 means any [default: 127.0.0.1:5004]
    #[arg(long, value_name = "ADDR")]
    pub(crate) sfu: Option<SocketAddr>,
    /// The TURN server's UDP port; port 0 means any [default: 127.0.0.1:3478]
    #[arg(long, value_name = "ADDR")]
    pub(crate) turn: Option<SocketAddr>,
    /// DSIP over QUIC; port 0 means any [default: 127.0.0.1:4433]
    #[arg(long, value_name = "ADDR")]
    pub(crate) quic: Option<SocketAddr>,
    /// The address put into ICE candidates and XOR-RELAYED-ADDRESS; may be repeated [default: the bound address, and
    /// for a wildcard every usable address of this machine]
    #[arg(long, value_name = "IP")]
    pub(crate) advertise: Vec<IpAddr>,
}

/// Why a command failed: one sentence for standard error.
type Failure = String;

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let result = match Milliway::parse().command {
        Command::Dev(arguments) => crate::dev::run(&arguments),
        Command::Serve { config } => crate::serve::run(&config),
        Command::Check { config } => check::run(&config),
        Command::Did { command } => did::run(command),
        Command::Token { command } => token::run(command),
        Command::Account { command } => account::run(command),
        Command::Deny { command } => deny::run(command),
        Command::Policy { command } => policy::run(command),
        Command::Issuer { command } => account::run_issuer(command),
        Command::Usage { command } => account::run_usage(command),
        Command::Top(arguments) => top::run(&arguments),
        Command::Topup { command } => topup::run(command),
        Command::Ledger { command } => ledger::run(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("milliway: {failure}");
            ExitCode::FAILURE
        }
    }
}
