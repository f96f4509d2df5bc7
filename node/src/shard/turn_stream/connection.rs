//! One TCP connection of a client: plain or TLS, told apart by its first byte; messages in, messages out.
//!
//! What it holds while nothing happens is this struct and, with TLS, the library's state. A client that does not read
//! loses what is relayed to it, as it would over UDP, and delays nobody.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};
use wire::stream;

use super::pool::{LARGE, Lent, Pool};

/// The first byte of TLS: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// From accepting to the first message, the TLS handshake included.
pub(super) const FIRST_MESSAGE_MAX: Duration = Duration::from_secs(10);

/// A client without an allocation may be silent for so long.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);

/// One read from the kernel.
const READ: usize = 64 * 1024;

/// What a client may leave unread before answers to it are lost too: what it asked for must not hang on what it was
/// sent, but one that never reads cannot make us hold more.
const ANSWER_RESERVE: usize = 8 * 1024;

/// A message of somebody without an allocation is a request, and those are short.
const UNKNOWN_MESSAGE_MAX: usize = 2 * 1024;

/// Where reads land before messages are taken out of them; one a shard.
pub(in crate::shard) struct Scratch {
    cipher: Box<[u8]>,
    pub(in crate::shard) plain: Box<[u8]>,
}

impl Scratch {
    pub(in crate::shard) fn new() -> Self {
        Self {
            cipher: vec![0; READ].into_boxed_slice(),
            plain: vec![0; LARGE + READ].into_boxed_slice(),
        }
    }
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::shard) enum Ended {
    /// The client closed it.
    ByClient,
    /// It broke.
    Broken,
    /// Neither STUN, ChannelData nor TLS, or a message longer than it may be.
    Garbage,
    /// TLS where no certificate is configured, or a handshake that failed.
    Tls,
    /// Nothing came for too long.
    Silent,
    /// The shard's buffers are used up.
    NoBuffers,
}

/// What carries the bytes.
enum Carrier {
    /// Nothing has come yet.
    Undecided,
    Plain,
    Tls(Box<ServerConnection>),
}

/// What became of a message that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    /// It leaves with the next flush.
    Yes,
    /// The client does not read: it is dropped.
    Dropped,
}

/// A client's connection.
pub(in crate::shard) struct Connection {
    io: TcpStream,
    client: SocketAddr,
    local: SocketAddr,
    carrier: Carrier,
    /// The start of a message whose rest is on its way.
    partial: Option<Lent>,
    /// What is to be sent.
    outbound: Option<Lent>,
    /// How many bytes of it, from the front, are messages; what follows is a data connection's, as it came.
    framed: usize,
    /// The kernel takes no more until it says so.
    blocked: bool,
    /// By when something must have come.
    pub(super) deadline: Instant,
    /// It has had an allocation, so that long messages are to be expected.
    pub(super) known: bool,
    /// Waits for a flush.
    pub(super) dirty: bool,
    /// May have more to read.
    pub(super) queued: bool,
}

impl Connection {
    pub(super) fn new(io: TcpStream, client: SocketAddr, local: SocketAddr, now: Instant) -> Self {
        Self {
            io,
            client,
            local,
            carrier: Carrier::Undecided,
            partial: None,
            outbound: None,
            framed: 0,
            blocked: false,
            deadline: now + FIRST_MESSAGE_MAX,
            known: false,
            dirty: false,
            queued: false,
        }
    }

    pub(super) fn io(&mut self) -> &mut TcpStream {
        &mut self.io
    }

    pub(super) fn client(&self) -> SocketAddr {
        self.client
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.carrier, Carrier::Tls(_))
    }

    /// Nothing of it waits to be sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbound.is_none() && !self.blocked
    }

    /// What has come, behind what was kept of the last time: the length in `scratch.plain`, and whether there may be
    /// more. `tls` is for connections that begin with a handshake.
    pub(super) fn read(
        &mut self,
        scratch: &mut Scratch,
        pool: &mut Pool,
        tls: Option<&Arc<ServerConfig>>,
    ) -> Result<(usize, bool), Ended> {
        let mut len = 0;
        if let Some(partial) = self.partial.take() {
            len = partial.bytes().len();
            scratch.plain[..len].copy_from_slice(partial.bytes());
            pool.give_back(partial);
        }
        let read = match &self.carrier {
            Carrier::Plain => self.io.read(&mut scratch.plain[len..len + READ]),
            Carrier::Undecided | Carrier::Tls(_) => self.io.read(&mut scratch.cipher),
        };
        let read = match read {
            Ok(0) => return Err(Ended::ByClient),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.keep(&scratch.plain[..len], pool)?;
                return Ok((0, false));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.keep(&scratch.plain[..len], pool)?;
                return Ok((0, true));
            }
            Err(_) => return Err(Ended::Broken),
        };
        // A stream has no boundaries: only a read that fails says for certain that nothing is left.
        let more = true;
        if let Carrier::Undecided = self.carrier {
            self.carrier = if scratch.cipher[0] == TLS_HANDSHAKE {
                let config = tls.ok_or(Ended::Tls)?;
                let mut connection = ServerConnection::new(config.clone()).map_err(|_| Ended::Tls)?;
                // What waits is bounded here, before it is encrypted.
                connection.set_buffer_limit(None);
                Carrier::Tls(Box::new(connection))
            } else {
                Carrier::Plain
            };
            if let Carrier::Plain = self.carrier {
                scratch.plain[..read].copy_from_slice(&scratch.cipher[..read]);
            }
        }
        match &mut self.carrier {
            Carrier::Tls(connection) => {
                let decrypted = decrypt(connection, &scratch.cipher[..read], &mut scratch.plain[len..]);
                // Handshake and alerts leave at once.
                self.dirty |= connection.wants_write();
                match decrypted {
                    Ok(decrypted) => Ok((len + decrypted, more)),
                    Err(ended) => {
                        let _ = connection.write_tls(&mut self.io);
                        Err(ended)
                    }
                }
            }
            _ => Ok((len + read, more)),
        }
    }

    /// How many bytes the first message of what was read takes, none until it is whole.
    pub(super) fn message_len(&self, bytes: &[u8]) -> Result<Option<usize>, Ended> {
        let Some(len) = stream::message_len(bytes).map_err(|_| Ended::Garbage)? else {
            return Ok(None);
        };
        if !self.known && len > UNKNOWN_MESSAGE_MAX {
            return Err(Ended::Garbage);
        }
        Ok(Some(len).filter(|len| *len <= bytes.len()))
    }

    /// Keeps the start of a message until the rest comes.
    pub(super) fn keep(&mut self, rest: &[u8], pool: &mut Pool) -> Result<(), Ended> {
        if rest.is_empty() {
            return Ok(());
        }
        let mut partial = pool.lend(rest.len()).ok_or(Ended::NoBuffers)?;
        partial.extend(rest);
        self.partial = Some(partial);
        Ok(())
    }

    /// Puts a message behind what is to be sent: relayed data if there is room, an answer also into the reserve.
    pub(super) fn push(&mut self, message: &[u8], answer: bool, pool: &mut Pool) -> Queued {
        let padding = stream::padding(message.len());
        let room = message.len() + padding + if answer { 0 } else { ANSWER_RESERVE };
        if !pool.make_room(&mut self.outbound, room) {
            return Queued::Dropped;
        }
        if let Some(outbound) = &mut self.outbound {
            outbound.extend(message);
            outbound.extend(&[0; 3][..padding]);
            self.framed += message.len() + padding;
        }
        Queued::Yes
    }

    /// Puts bytes as they are behind what is to be sent; how many there was room for.
    pub(super) fn push_bytes(&mut self, bytes: &[u8], pool: &mut Pool) -> usize {
        if !pool.make_room(&mut self.outbound, bytes.len()) {
            return 0;
        }
        let Some(outbound) = &mut self.outbound else {
            return 0;
        };
        let taken = bytes.len().min(outbound.room());
        outbound.extend(&bytes[..taken]);
        taken
    }

    /// The kernel may take more again. True if it did not before.
    pub(super) fn unblock(&mut self) -> bool {
        std::mem::take(&mut self.blocked)
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// How many more bytes may wait to be sent.
    pub(super) fn room(&self) -> usize {
        LARGE
            - self
                .outbound
                .as_ref()
                .map_or(0, |outbound| outbound.bytes().len())
    }

    /// Sends what the kernel takes.
    pub(super) fn flush(&mut self, pool: &mut Pool) -> Result<(), Ended> {
        while !self.blocked {
            if let Carrier::Tls(connection) = &mut self.carrier {
                if connection.wants_write() {
                    match connection.write_tls(&mut self.io) {
                        Ok(0) => return Err(Ended::Broken),
                        Ok(_) => {}
                        Err(error) => self.blocked = blocked(&error)?,
                    }
                    continue;
                }
                if connection.is_handshaking() {
                    break;
                }
            }
            let Some(outbound) = &mut self.outbound else { break };
            let gone = match &mut self.carrier {
                Carrier::Tls(connection) => {
                    encrypt(connection, outbound.bytes(), std::mem::take(&mut self.framed))?
                }
                _ => match self.io.write(outbound.bytes()) {
                    Ok(0) => return Err(Ended::Broken),
                    Ok(gone) => {
                        self.framed = self.framed.saturating_sub(gone);
                        gone
                    }
                    Err(error) => {
                        self.blocked = blocked(&error)?;
                        0
                    }
                },
            };
            if gone == outbound.bytes().len() {
                self.outbound
                    .take()
                    .into_iter()
                    .for_each(|lent| pool.give_back(lent));
            } else {
                outbound.consume(gone);
            }
        }
        Ok(())
    }

    /// Says goodbye as far as that is possible at once, and gives the buffers back.
    pub(super) fn close(mut self, pool: &mut Pool) -> TcpStream {
        if let Carrier::Tls(connection) = &mut self.carrier {
            connection.send_close_notify();
            let _ = self.flush(pool);
        }
        let Self {
            io,
            partial,
            outbound,
            ..
        } = self;
        partial
            .into_iter()
            .chain(outbound)
            .for_each(|lent| pool.give_back(lent));
        io
    }
}

/// Feeds what came to TLS; the length of what it was.
fn decrypt(connection: &mut ServerConnection, mut cipher: &[u8], plain: &mut [u8]) -> Result<usize, Ended> {
    let mut len = 0;
    while !cipher.is_empty() {
        connection.read_tls(&mut cipher).map_err(|_| Ended::Tls)?;
        connection.process_new_packets().map_err(|_| Ended::Tls)?;
        loop {
            match connection.reader().read(&mut plain[len..]) {
                Ok(0) => return Err(Ended::ByClient),
                Ok(read) => len += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Err(Ended::Broken),
            }
        }
    }
    Ok(len)
}

/// Gives what waits to TLS; how much it took. A message is a record of its own: there are clients that read a record for
/// a message (coturn's), and lose whatever else is in it. What belongs to a data connection is packed.
fn encrypt(connection: &mut ServerConnection, plain: &[u8], framed: usize) -> Result<usize, Ended> {
    let mut gone = 0;
    while gone < plain.len() {
        let rest = &plain[gone..];
        let message = stream::message_len(&plain[gone..framed.max(gone)])
            .ok()
            .flatten()
            .map_or(rest.len(), |len| len.min(rest.len()));
        gone += connection
            .writer()
            .write(&rest[..message])
            .map_err(|_| Ended::Broken)?;
    }
    Ok(gone)
}

/// True if the kernel's buffer is full; what else goes wrong ends the connection.
fn blocked(error: &io::Error) -> Result<bool, Ended> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(true),
        ErrorKind::Interrupted => Ok(false),
        _ => Err(Ended::Broken),
    }
}
