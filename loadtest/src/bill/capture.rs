//! What the wire carried: tcpdump on the loopback device, read as it writes (pcap, Ethernet, IPv4, UDP).

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use wire::channel_data::HEADER_LEN;
use wire::stun::{Class, Message, Method};

use crate::Error;

/// Of this process.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// The header of a capture file, of a packet in it, of Ethernet and of UDP.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const ETHERNET: usize = 14;
const UDP: usize = 8;
/// Little-endian, in nanoseconds.
const MAGIC: [u8; 4] = [0x4d, 0x3c, 0xb2, 0xa1];
/// The kernel hands its blocks over when they are full, or after a second.
const RETIRE: Duration = Duration::from_millis(2_500);
/// No packet of an honest capture is longer.
const PACKET_MAX: usize = 1 << 18;

/// What begins every payload: the run, the session, and the payload's length. GSO packets are captured whole, several
/// payloads end to end.
pub(super) const LABEL: usize = 10;

/// Writes a payload of this length, which is at least [`LABEL`].
pub(super) fn label(payload: &mut [u8], run: u32, session: u32) {
    let length = payload.len() as u16;
    payload[..4].copy_from_slice(&run.to_be_bytes());
    payload[4..8].copy_from_slice(&session.to_be_bytes());
    payload[8..10].copy_from_slice(&length.to_be_bytes());
}

/// What was seen of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Application bytes from the relay to the client.
    pub to_client: u64,
    /// Application bytes from the relay to the peer.
    pub to_peer: u64,
    /// Unix nanoseconds of the first answer to Allocate that granted it.
    pub allocated: Option<u64>,
    /// Unix nanoseconds of the last answer to Refresh.
    pub refreshed: Option<u64>,
}

/// A capture that runs.
pub struct Capture {
    run: u32,
    tcpdump: Child,
    reader: JoinHandle<Result<BTreeMap<u32, Seen>, String>>,
    said: JoinHandle<String>,
}

impl Capture {
    /// Returns once it sees packets.
    pub fn start() -> Result<Capture, Error> {
        let mut tcpdump = Command::new("tcpdump")
            .args([
                "-i",
                "lo",
                "-n",
                "-U",
                "-s",
                "0",
                "-B",
                "65536",
                "--time-stamp-precision=nano",
                "-w",
                "-",
            ])
            .arg("udp and host 127.0.0.1 and net 127.0.0.0/8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("no tcpdump (`apt-get install tcpdump` brings it): {error}"))?;
        let run = std::process::id() << 8 | RUNS.fetch_add(1, Ordering::Relaxed) & 0xFF;
        let out = tcpdump.stdout.take().ok_or("tcpdump's output is not a pipe")?;
        let reader = thread::spawn(move || read(BufReader::new(out), run).map_err(|error| error.to_string()));
        let (line, first) = mpsc::channel();
        let mut errors = tcpdump.stderr.take().ok_or("tcpdump's errors are not a pipe")?;
        let said = thread::spawn(move || {
            let (mut text, mut byte) = (String::new(), [0]);
            while let Ok(1) = errors.read(&mut byte) {
                text.push(char::from(byte[0]));
                if text.ends_with("listening on") {
                    let _ = line.send(());
                }
            }
            text
        });
        first
            .recv_timeout(Duration::from_secs(10))
            .map_err(|_| "tcpdump does not listen: it needs root or CAP_NET_RAW")?;
        Ok(Capture {
            run,
            tcpdump,
            reader,
            said,
        })
    }

    /// Names this run in its packets.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// Ends it; what each session was seen to send. An error where the kernel dropped any packet of it.
    pub fn stop(mut self) -> Result<BTreeMap<u32, Seen>, Error> {
        thread::sleep(RETIRE);
        kill_process(Pid::from_child(&self.tcpdump), Signal::INT)?;
        self.tcpdump.wait()?;
        let said = self.said.join().map_err(|_| "reading what tcpdump said")?;
        if !said.contains("\n0 packets dropped by kernel") {
            return Err(format!("the capture is not whole: {said}").into());
        }
        Ok(self.reader.join().map_err(|_| "reading the capture")??)
    }
}

fn read(mut capture: impl Read, run: u32) -> Result<BTreeMap<u32, Seen>, Error> {
    let mut seen = BTreeMap::new();
    let mut head = [0; FILE_HEADER];
    capture.read_exact(&mut head)?;
    if head[..4] != MAGIC {
        return Err("a capture of another kind".into());
    }
    let mut record = [0; RECORD_HEADER];
    let mut frame = Vec::new();
    while capture.read_exact(&mut record).is_ok() {
        let word =
            |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
        let (length, whole) = (word(8) as usize, word(12) as usize);
        if length != whole || length > PACKET_MAX {
            return Err(format!("{length} of {whole} bytes of a packet").into());
        }
        frame.resize(length, 0);
        capture.read_exact(&mut frame)?;
        let at = u64::from(word(0)) * 1_000_000_000 + u64::from(word(4));
        if let Some((source, target, payload)) = udp(&frame) {
            note(&mut seen, run, source, target, payload, at);
        }
    }
    Ok(seen)
}

/// Source, destination and payload of an IPv4 packet of UDP.
fn udp(frame: &[u8]) -> Option<([u8; 4], [u8; 4], &[u8])> {
    let packet = frame.get(ETHERNET..)?;
    let header = usize::from(packet.first()? & 0x0F) * 4;
    let address = |at: usize| -> Option<[u8; 4]> { packet.get(at..at + 4)?.try_into().ok() };
    Some((address(12)?, address(16)?, packet.get(header + UDP..)?))
}

fn note(seen: &mut BTreeMap<u32, Seen>, run: u32, source: [u8; 4], target: [u8; 4], payload: &[u8], at: u64) {
    // The relay is at 127.0.0.1, a client at 127.x.y.1 and its peer at 127.x.y.2.
    if source != [127, 0, 0, 1] {
        return;
    }
    match target[3] {
        2 => labelled(payload, 0, run, |session, bytes| {
            seen.entry(session).or_default().to_peer += bytes;
        }),
        1 if payload.first().is_some_and(|first| first >> 6 == 1) => {
            labelled(payload, HEADER_LEN, run, |session, bytes| {
                seen.entry(session).or_default().to_client += bytes;
            });
        }
        1 => {
            let Ok(message) = Message::parse(payload) else {
                return;
            };
            if message.class() != Class::Success {
                return;
            }
            let [a, b, c, d, ..] = message.transaction_id().0;
            let session = seen.entry(u32::from_be_bytes([a, b, c, d])).or_default();
            match message.method() {
                Method::ALLOCATE => drop(session.allocated.get_or_insert(at)),
                Method::REFRESH => session.refreshed = Some(at),
                _ => {}
            }
        }
        _ => {}
    }
}

/// Walks through payloads that lie end to end, each with so many bytes of a header before it.
fn labelled(mut rest: &[u8], header: usize, run: u32, mut take: impl FnMut(u32, u64)) {
    while let Some(payload) = rest.get(header..).filter(|payload| payload.len() >= LABEL) {
        let word =
            |at: usize| u32::from_be_bytes([payload[at], payload[at + 1], payload[at + 2], payload[at + 3]]);
        let length = usize::from(u16::from_be_bytes([payload[8], payload[9]]));
        if word(0) != run || length < LABEL {
            return;
        }
        take(word(4), length as u64);
        rest = payload.get(length..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_found_end_to_end_and_those_of_others_are_not() {
        let (mut one, mut other) = ([0; 40], [0; 12]);
        label(&mut one, 7, 5);
        label(&mut other, 7, 6);
        let mut found = Vec::new();
        labelled(&[&one[..], &other].concat(), 0, 7, |session, bytes| {
            found.push((session, bytes))
        });
        assert_eq!(found, [(5, 40), (6, 12)]);
        labelled(&one, 0, 8, |_, _| panic!("another run's"));
        labelled(&one[..5], 0, 7, |_, _| panic!("cut off"));
    }
}
