//! A network of this run's own: the program starts itself again without any network but its own loopback and one
//! address beside it. Nothing of it is left when the run ends.
//!
//! Traffic between programs that share the address passes the loopback device, as traffic to 127.0.0.1 does, so that
//! figures of servers inside and outside compare.

use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::Error;

/// Set for the program that is started again.
const INSIDE: &str = "LOADTEST_NAMESPACE";

/// From the block for benchmarks (RFC 2544).
const ADDRESS: [u8; 4] = [198, 18, 0, 1];

/// Starts this program again inside; returns there with the network's address, and nowhere else but on failure.
pub fn enter() -> Result<IpAddr, Error> {
    if std::env::var_os(INSIDE).is_none() {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        let error = command
            .arg("--net")
            .arg(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .exec();
        return Err(format!("no network namespace of our own (unshare --net): {error}").into());
    }
    let [a, b, c, d] = ADDRESS;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "add", "media0", "type", "veth", "peer", "name", "media1"])?;
    ip(&["addr", "add", &format!("{a}.{b}.{c}.{d}/24"), "dev", "media0"])?;
    ip(&["link", "set", "media0", "up"])?;
    ip(&["link", "set", "media1", "up"])?;
    Ok(IpAddr::from(ADDRESS))
}

fn ip(arguments: &[&str]) -> Result<(), Error> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("ip {}: {said}", arguments.join(" ")).into())
}
