//! A real PostgreSQL for tests: the one that `MILLIWAY_TEST_POSTGRES` names, or Debian's, started in a private directory
//! as an unprivileged user, on a Unix socket only, with fsync on, and gone with the test's process.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Names a server that is running: postgres://...
const VARIABLE: &str = "MILLIWAY_TEST_POSTGRES";

/// Starts the server, says so, and ends it once its standard input closes: with the process that holds the other end,
/// however that ends.
const WATCH: &str = r#"
set -e
cd "$1"
"$2/initdb" -D data -U milliway -A trust --no-sync >initdb.log 2>&1 || { cat initdb.log >&2; exit 1; }
[ -z "$4" ] || printf "$4" >data/own_hba.conf
start() {
    "$2/postgres" -D data -k "$1" -c listen_addresses= -c fsync=on -c max_connections=60 $3 >>server.log 2>&1 &
    server=$!
    for _ in $(seq 200); do
        "$2/pg_isready" -q -h "$1" -p "${5:-5432}" && { echo ready; break; }
        sleep 0.05
    done
}
start "$@"
# Each line is a crash: every process of the server ends at once, and what was committed is recovered from its log.
while read -r _; do
    kill -QUIT $server
    wait $server || true
    start "$@"
done
kill -INT $server
wait $server || true
rm -rf "$1"
"#;

/// A server of this process's own.
pub(crate) struct Own {
    url: String,
    stdin: ChildStdin,
    lines: BufReader<ChildStdout>,
    port: u16,
}

impl Own {
    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its TCP port, if it has one.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Crashes it, and starts it again.
    pub(crate) fn crash(&mut self) {
        self.stdin.write_all(b"crash\n").unwrap();
        self.wait();
    }

    fn wait(&mut self) {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "PostgreSQL did not start: {}", self.url);
    }
}

/// Where PostgreSQL's programs are.
pub(crate) fn programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop().unwrap_or_else(|| {
        panic!("no PostgreSQL in /usr/lib/postgresql: install Debian's `postgresql`, or name a server in {VARIABLE}")
    })
}

/// Whose processes the server's are: PostgreSQL refuses to run as root.
fn unprivileged() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> u32 {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id(&["-u"]) == 0).then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"])))
}

/// Starts one.
pub(crate) fn start() -> Own {
    start_in(&tempfile::tempdir().unwrap().keep(), "", "", None)
}

/// Starts one that also listens on a port of 127.0.0.1, and there takes nobody without TLS. With its certificate and key.
pub(crate) fn start_with_tls(certificate: &str, key: &str) -> Own {
    let folder = tempfile::tempdir().unwrap().keep();
    // Free a moment ago; another process would have to take it in between.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for (name, text) in [("server.crt", certificate), ("server.key", key)] {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if let Some((user, group)) = unprivileged() {
            chown(&path, Some(user), Some(group)).unwrap();
        }
    }
    let folder_name = folder.display();
    let options = format!(
        "-c listen_addresses=127.0.0.1 -c port={port} -c ssl=on -c ssl_cert_file={folder_name}/server.crt \
         -c ssl_key_file={folder_name}/server.key -c hba_file={folder_name}/data/own_hba.conf"
    );
    let rules = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
    start_in(&folder, &options, rules, Some(port))
}

fn start_in(folder: &std::path::Path, options: &str, rules: &str, port: Option<u16>) -> Own {
    let mut command = Command::new("sh");
    if let Some((user, group)) = unprivileged() {
        chown(folder, Some(user), Some(group)).unwrap();
        command.uid(user).gid(group);
    }
    #[expect(
        clippy::zombie_processes,
        reason = "it ends after this process, when its standard input closes"
    )]
    let mut child = command
        .args(["-c", WATCH, "postgres-for-tests"])
        .arg(folder)
        .arg(programs())
        .args([options, rules])
        .args(port.map(|port| port.to_string()))
        .current_dir("/")
        // Not a signal of the terminal's, but the closed pipe is to end it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let host = folder.display().to_string().replace('/', "%2F");
    let mut own = Own {
        url: format!("postgres://milliway@{host}/postgres"),
        stdin: child.stdin.take().unwrap(),
        lines: BufReader::new(child.stdout.take().unwrap()),
        port: port.unwrap_or_default(),
    };
    own.wait();
    own
}

/// The server.
pub(crate) fn url() -> String {
    static OWN: OnceLock<Own> = OnceLock::new();
    match std::env::var(VARIABLE) {
        Ok(url) => url,
        Err(_) => OWN.get_or_init(start).url.clone(),
    }
}

/// Runs SQL beside the program under test.
pub(crate) fn sql(url: &str, text: &str) -> String {
    let output = Command::new(programs().join("psql"))
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url, "-c", text])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{text}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Empty books of their own on the server.
pub(crate) fn fresh() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let schema = format!(
        "test_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    sql(&url(), &format!("CREATE SCHEMA {schema}"));
    format!("{}?options=-csearch_path%3D{schema}", url())
}
