//! A real Cashu mint with its fake Lightning wallet, and a real wallet: Nutshell, from PyPI. Between the relay and the mint
//! stands a proxy that the test can tell to lose a request, to lose an answer, or to change it.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Python on a loaded machine.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// What the mint takes for each coin, in thousandths of a sat.
pub(crate) const FEE: u64 = 100;

/// The virtual environment: test.sh's, or one beside the build.
pub(crate) fn environment() -> PathBuf {
    if let Some(made) = std::env::var_os("MILLIWAY_TEST_NUTSHELL") {
        return made.into();
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nutshell");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nutshell/install.sh");
    let installed = Command::new(script).arg(&folder).status().unwrap();
    assert!(installed.success(), "Nutshell could not be installed");
    folder
}

/// What the proxy does with a request whose path is `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mischief {
    /// Nothing.
    None,
    /// The mint never sees it, and nobody answers.
    LoseRequest,
    /// The mint does it, and nobody answers.
    LoseAnswer,
    /// The mint does it, and its signatures come back as other points.
    Forge,
}

/// The mint and what it needs. Ends with the test.
pub(crate) struct Mint {
    child: Child,
    python: PathBuf,
    folder: TempDir,
    /// Its address, by way of the proxy: what tokens name.
    pub(crate) url: String,
    mischief: Arc<Mutex<Mischief>>,
    /// Exchanges that the proxy did something to.
    pub(crate) caught: Arc<AtomicUsize>,
}

impl Mint {
    pub(crate) fn start() -> Mint {
        let python = environment().join("bin/python");
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let log = std::fs::File::create(folder.path().join("mint.log")).unwrap();
        let mut child = Command::new("timeout")
            // A test that is killed leaves nothing behind for long.
            .arg("600")
            .arg(&python)
            .args(["-c", "from cashu.mint.main import main; main()"])
            .current_dir(folder.path())
            .env("CASHU_DIR", folder.path())
            .env("MINT_DATABASE", folder.path().join("mint"))
            .env("MINT_BACKEND_BOLT11_SAT", "FakeWallet")
            .env("FAKEWALLET_BRR", "TRUE")
            .env("FAKEWALLET_DELAY_INCOMING_PAYMENT", "0")
            .env("MINT_LISTEN_HOST", "127.0.0.1")
            .env("MINT_LISTEN_PORT", port.to_string())
            .env("MINT_PRIVATE_KEY", "a-key-for-tests")
            .env("MINT_INPUT_FEE_PPK", FEE.to_string())
            .env("TOR", "FALSE")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let until = Instant::now() + START_PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > until || child.try_wait().unwrap().is_some() {
                let log = std::fs::read_to_string(folder.path().join("mint.log")).unwrap_or_default();
                let end = log.lines().rev().take(20).collect::<Vec<_>>();
                panic!("the mint does not start; its last lines, the last first: {end:#?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let mischief = Arc::new(Mutex::new(Mischief::None));
        let caught = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (of_proxy, counter) = (mischief.clone(), caught.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (mischief, caught) = (of_proxy.clone(), counter.clone());
                std::thread::spawn(move || relay(client, port, &mischief, &caught));
            }
        });
        Mint {
            child,
            python,
            folder,
            url,
            mischief,
            caught,
        }
    }

    /// What happens to exchanges from now on.
    pub(crate) fn set(&self, mischief: Mischief) {
        *self.mischief.lock().unwrap() = mischief;
    }

    /// A wallet of its own, of this name.
    pub(crate) fn wallet<'m>(&'m self, name: &str) -> Wallet<'m> {
        Wallet {
            mint: self,
            folder: self.folder.path().join(name),
        }
    }
}

impl Drop for Mint {
    fn drop(&mut self) {
        // `timeout` hands it on.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// Nutshell's wallet.
pub(crate) struct Wallet<'m> {
    mint: &'m Mint,
    folder: PathBuf,
}

impl Wallet<'_> {
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("timeout")
            .arg("60")
            .arg(&self.mint.python)
            .args(["-c", "from cashu.wallet.cli.cli import cli; cli()", "-y"])
            .args(arguments)
            .current_dir(self.mint.folder.path())
            .env("CASHU_DIR", &self.folder)
            .env("MINT_URL", &self.mint.url)
            .env("TOR", "FALSE")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stdout) + &text(&output.stderr))
        }
    }

    /// Buys coins with the fake Lightning wallet.
    pub(crate) fn fill(&self, sat: u64) {
        let sat = sat.to_string();
        let said = self.run(&["invoice", &sat, "--no-check"]).unwrap();
        let id = said
            .split("--id ")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        let id = id.unwrap_or_else(|| panic!("no invoice: {said}"));
        self.run(&["invoice", &sat, "--id", id]).unwrap();
    }

    /// A token.
    pub(crate) fn send(&self, sat: u64, options: &[&str]) -> String {
        let sat = sat.to_string();
        let mut arguments = vec!["send", &sat];
        arguments.extend(options);
        let said = self.run(&arguments).unwrap();
        let token = said.lines().find(|line| line.starts_with("cashu"));
        token.unwrap_or_else(|| panic!("no token: {said}")).to_owned()
    }

    /// Takes a token.
    pub(crate) fn receive(&self, token: &str) -> Result<String, String> {
        self.run(&["receive", token])
    }
}

/// One request after the other, each on a connection of its own to the mint.
fn relay(mut client: TcpStream, port: u16, mischief: &Mutex<Mischief>, caught: &AtomicUsize) {
    while let Some(request) = message(&mut client) {
        let is_swap = request.starts_with(b"POST /v1/swap ");
        let mischief = if is_swap {
            *mischief.lock().unwrap()
        } else {
            Mischief::None
        };
        if mischief != Mischief::None {
            caught.fetch_add(1, Ordering::SeqCst);
        }
        if mischief == Mischief::LoseRequest {
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
        server.write_all(&request).unwrap();
        let Some(mut answer) = message(&mut server) else {
            return;
        };
        match mischief {
            Mischief::LoseAnswer => {
                std::thread::sleep(Duration::from_secs(60));
                return;
            }
            Mischief::Forge => answer = forged(&answer),
            _ => {}
        }
        if client.write_all(&answer).is_err() {
            return;
        }
    }
}

/// A whole HTTP message with a Content-Length.
fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if bytes.len() >= head + 4 + length {
                return Some(bytes);
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

/// The generator in place of every signature: a point on the curve, but nobody's signature.
fn forged(answer: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(answer).into_owned();
    let generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let mut parts = text.split("\"C_\":\"");
    let mut forged = parts.next().unwrap().to_owned();
    for part in parts {
        forged += &format!("\"C_\":\"{generator}{}", &part[66..]);
    }
    assert_ne!(forged, text);
    forged.into_bytes()
}

/// Waits for something.
pub(crate) fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(40);
    while !is() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A configuration that takes this mint's coins.
pub(crate) fn configuration(mint: &Mint, folder: &Path) -> String {
    let file = folder.join("relay.toml");
    std::fs::write(&file, format!("[topup]\nmints = [\"{}\"]\n", mint.url)).unwrap();
    file.display().to_string()
}
