//! The relay under test: started as its users start it, in a folder of its own, and stopped with SIGTERM.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::Error;

/// How long the relay may take until its ready line, and from SIGTERM to its end.
const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(40);

/// The ready line.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// Whether it is.
    pub ready: bool,
    /// The front door, "http://host:port".
    pub http: String,
    /// The SFU's address.
    pub sfu: String,
    /// The TURN server's address.
    pub turn: String,
    /// The relay's DID.
    pub did: String,
    /// Its process.
    pub pid: u32,
}

/// A relay of ours. Dropped, it is told to stop, twice if it waits for clients that will never leave.
pub struct Relay {
    /// What it said when it was ready.
    pub ready: Ready,
    child: Child,
    log: PathBuf,
    _data: Option<TempDir>,
}

/// The `milliway` program: `MILLIWAY_BIN`, or beside this program, or in the release folder near it.
pub fn program() -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os("MILLIWAY_BIN") {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("MILLIWAY_BIN names {}, which is not there", path.display()).into())
        };
    }
    let this = std::env::current_exe()?;
    let near = this
        .ancestors()
        .flat_map(|folder| [folder.join("milliway"), folder.join("release/milliway")]);
    near.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        "no milliway program near this one: build it with `cargo build --release -p milliway`, or name it in MILLIWAY_BIN"
            .into()
    })
}

impl Relay {
    /// Starts `milliway dev` on free ports with a fresh folder.
    pub fn start() -> Result<Relay, Error> {
        let data = tempfile::tempdir()?;
        let mut relay = Relay::start_in(data.path(), &[])?;
        relay._data = Some(data);
        Ok(relay)
    }

    /// The same with settings of its environment.
    pub fn start_with(settings: &[(&str, String)]) -> Result<Relay, Error> {
        let data = tempfile::tempdir()?;
        let mut relay = Relay::spawn(data.path(), &[], settings)?;
        relay._data = Some(data);
        Ok(relay)
    }

    /// Starts `milliway dev` on free ports with this folder and more arguments.
    pub fn start_in(data: &Path, arguments: &[&str]) -> Result<Relay, Error> {
        Relay::spawn(data, arguments, &[])
    }

    /// The same with settings of its environment: a node that comes back to its folder.
    pub fn start_node(data: &Path, settings: &[(&str, String)]) -> Result<Relay, Error> {
        Relay::spawn(data, &[], settings)
    }

    fn spawn(data: &Path, arguments: &[&str], settings: &[(&str, String)]) -> Result<Relay, Error> {
        let log = data.join("relay.log");
        let mut child = Command::new(program()?)
            .args([
                "dev",
                "--http",
                "127.0.0.1:0",
                "--sfu",
                "127.0.0.1:0",
                "--turn",
                "127.0.0.1:0",
                "--quic",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(data)
            .args(arguments)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let out = child.stdout.take().ok_or("the relay's output is not a pipe")?;
        let (line, first_line) = mpsc::channel();
        // Keeps reading after the first line, so that the relay never waits for us.
        thread::spawn(move || {
            BufReader::new(out)
                .lines()
                .map_while(Result::ok)
                .for_each(|l| drop(line.send(l)))
        });
        let ready = first_line
            .recv_timeout(START_MAX)
            .map_err(Error::from)
            .and_then(|line| {
                serde_json::from_str(&line)
                    .map_err(|error| format!("not a ready line: {line:?}: {error}").into())
            });
        match ready {
            Ok(ready) => Ok(Relay {
                ready,
                child,
                log,
                _data: None,
            }),
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                Err(format!("the relay did not get ready: {error}\n{said}").into())
            }
        }
    }

    /// What it logged until now.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL: it settles nothing.
    pub fn kill(mut self) -> Result<(), Error> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> Result<ExitStatus, Error> {
        self.terminate(STOP_MAX)
    }

    /// Lets it drain for so long, then asks again, which ends it at once.
    fn terminate(&mut self, drain: Duration) -> Result<ExitStatus, Error> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let start = Instant::now();
        let mut asked_again = false;
        while start.elapsed() < STOP_MAX {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > drain && !asked_again {
                kill_process(Pid::from_child(&self.child), Signal::TERM)?;
                asked_again = true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.child.kill()?;
        self.child.wait()?;
        Err(format!(
            "the relay did not stop within {} s of SIGTERM",
            STOP_MAX.as_secs()
        )
        .into())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.terminate(Duration::from_millis(200)));
    }
}
