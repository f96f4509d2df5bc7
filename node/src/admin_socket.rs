//! DATA/admin.sock: how `milliway account` and its like reach a running relay, which keeps its ledger to itself.
//!
//! One line of JSON asks, one line of JSON answers: `{"ok":[...]}` or `{"error":"..."}`. Who may open the socket is
//! who may read the data folder: its owner.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::cashier::errand::{self, Errand};
use crate::clock;
use crate::relay::Relay;

/// The socket's name in the data folder.
pub(crate) const NAME: &str = "admin.sock";
/// The longest errand.
const LINE_MAX: u64 = 64 * 1024;
/// A caller has this long to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// And the relay this long to do it; a proof over a long journal takes its time.
const ANSWER_PATIENCE: Duration = Duration::from_secs(600);

/// Opens the socket. One that a killed relay left is replaced: the ledger's own lock has shown that it is dead.
pub(crate) fn open(path: &Path) -> Result<UnixListener, String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(named(error)),
    }
    let listener = UnixListener::bind(path).map_err(named)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(named)?;
    Ok(listener)
}

/// Serves until the door closes.
pub(crate) async fn serve(relay: Arc<Relay>, listener: UnixListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = relay.door_closed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(answer(relay.clone(), stream));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin socket cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(relay: Arc<Relay>, stream: tokio::net::UnixStream) {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(LINE_MAX));
    if !matches!(
        tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await,
        Ok(Ok(1..))
    ) {
        return;
    }
    let done = match serde_json::from_str::<Errand>(&line) {
        Ok(Errand::Live) => live(&relay).await,
        Ok(errand) => {
            let operator = relay.key.did().as_str().to_owned();
            let done = relay
                .cashier
                .errand(move |ledger, unix_ns| errand::run(errand, ledger, &operator, unix_ns))
                .await;
            done.map_err(|refused| refused.to_string()).flatten()
        }
        Err(error) => Err(format!("not an errand: {error}")),
    };
    let answer = match done {
        Ok(lines) => json!({ "ok": lines }),
        Err(error) => json!({ "error": error }),
    };
    // A caller that went away does not need it.
    let _ = writer.write_all(format!("{answer}\n").as_bytes()).await;
}

/// A line about the relay, then one for each live session.
async fn live(relay: &Relay) -> Result<Vec<Value>, String> {
    let live = relay
        .cashier
        .live()
        .await
        .map_err(|refused| refused.to_string())?;
    let registry = relay.registry();
    let (sfu_sessions, rooms) = registry.live();
    let mut lines = vec![json!({
        "relay": relay.key.kid(),
        "url": relay.public_url,
        "unix": clock::unix(),
        "sfu_sessions": sfu_sessions,
        "rooms": rooms,
        "billed_sessions": live.len(),
        "draining": relay.is_draining(),
        "ledger_up": relay.cashier.is_up(),
    })];
    for session in live {
        let known = registry.session(session.session);
        let mut line = json!(session);
        line["room"] = json!(known.map(|known| &*known.room));
        line["name"] = json!(known.and_then(|known| known.name.as_deref()));
        line["age_seconds"] =
            json!(known.map(|known| clock::now().saturating_duration_since(known.opened).as_secs()));
        lines.push(line);
    }
    Ok(lines)
}

/// Asks a running relay. None: none runs there.
pub(crate) fn ask(path: &Path, errand: &Errand) -> Option<Result<Vec<Value>, String>> {
    let mut stream = UnixStream::connect(path).ok()?;
    let mut asked = || -> Result<Vec<Value>, String> {
        let said = |error: std::io::Error| format!("{}: {error}", path.display());
        stream.set_read_timeout(Some(ANSWER_PATIENCE)).map_err(said)?;
        let line = serde_json::to_string(errand).map_err(|error| error.to_string())?;
        stream.write_all(format!("{line}\n").as_bytes()).map_err(said)?;
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).map_err(said)?;
        let mut answer: Value =
            serde_json::from_str(&answer).map_err(|_| "the relay ended before it had answered".to_owned())?;
        match answer["ok"].take() {
            Value::Array(lines) => Ok(lines),
            _ => Err(answer["error"]
                .as_str()
                .unwrap_or("the relay's answer makes no sense")
                .to_owned()),
        }
    };
    Some(asked())
}
