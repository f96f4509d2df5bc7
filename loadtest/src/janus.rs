//! A Janus of our own (Debian's `janus`): only its videoroom and its HTTP API, two event loops, a folder of its own.
//!
//! Janus passes loopback addresses over, so it needs another one on this machine: see [`crate::namespace`].

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Error;

/// How long Janus may take until its HTTP API answers, and to end.
const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(5);

/// Threads that carry media.
pub const EVENT_LOOPS: u32 = 2;

/// Everything of Debian's package that is not needed.
const PLUGINS_OFF: &str = "libjanus_audiobridge.so,libjanus_duktape.so,libjanus_echotest.so,libjanus_lua.so,\
                           libjanus_nosip.so,libjanus_recordplay.so,libjanus_sip.so,libjanus_streaming.so,\
                           libjanus_textroom.so,libjanus_videocall.so,libjanus_voicemail.so";
const TRANSPORTS_OFF: &str = "libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so,\
                              libjanus_websockets.so";

/// A Janus that runs.
pub struct Server {
    /// Its HTTP API.
    pub base: String,
    child: Child,
    log: PathBuf,
    _folder: TempDir,
}

impl Server {
    /// Starts it with media on `ip` and so many event loops.
    pub fn start(ip: IpAddr, event_loops: u32) -> Result<Server, Error> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = folder.path().join("janus.log");
        fs::write(
            folder.path().join("janus.jcfg"),
            main_configuration(ip, event_loops),
        )?;
        fs::write(
            folder.path().join("janus.transport.http.jcfg"),
            format!(
                "general: {{\n  json = \"compact\"\n  base_path = \"/janus\"\n  http = true\n  port = {port}\n  \
                 ip = \"127.0.0.1\"\n  https = false\n}}\nadmin: {{\n  admin_http = false\n}}\n"
            ),
        )?;
        fs::write(
            folder.path().join("janus.plugin.videoroom.jcfg"),
            "general: {\n}\n",
        )?;
        let out = File::create(&log)?;
        let child = Command::new("janus")
            .arg("--configs-folder")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|error| format!("no janus (`apt-get install janus` brings it): {error}"))?;
        let mut server = Server {
            base: format!("http://127.0.0.1:{port}"),
            child,
            log,
            _folder: folder,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let end = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            let ended = server.child.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                return Err(format!("janus did not start: {ended:?}\n{}", server.log()).into());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged until now.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let end = Instant::now() + STOP_MAX;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main_configuration(ip: IpAddr, event_loops: u32) -> String {
    format!(
        "general: {{\n  debug_level = 3\n  debug_colors = false\n  session_timeout = 0\n  event_loops = {event_loops}\n}}\n\
         media: {{\n  ipv6 = false\n  rtp_port_range = \"20000-60000\"\n  slowlink_threshold = 0\n}}\n\
         nat: {{\n  ice_enforce_list = \"{ip}\"\n  ignore_mdns = true\n}}\n\
         plugins: {{\n  disable = \"{PLUGINS_OFF}\"\n}}\n\
         transports: {{\n  disable = \"{TRANSPORTS_OFF}\"\n}}\n"
    )
}
