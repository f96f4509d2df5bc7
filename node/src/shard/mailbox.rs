//! How a shard is reached: bounded queues and a bell. The bell is rung once for however much is put in before the shard
//! looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{fmt, io};

use mio::{Poll, Token, Waker};

use super::command::Command;
use super::handover::Parcel;

/// Commands that may wait: more than a second of a busy control plane.
const COMMANDS_MAX: usize = 16_384;

/// Datagrams from other shards that may wait: 5 ms of 2 Gbit/s. They lie in the queue itself, 2 KiB each.
const PARCELS_MAX: usize = 1_024;

/// The poll's token of the bell.
pub(super) const BELL: Token = Token(0);

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shard's queue is full")
    }
}

impl std::error::Error for Full {}

/// Reaches one shard from anywhere.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    commands: SyncSender<Command>,
    parcels: SyncSender<Parcel>,
    bell: Arc<Bell>,
}

struct Bell {
    rung: AtomicBool,
    waker: Waker,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A shard that cannot be woken looks by itself within its next timeout.
            let _ = self.waker.wake();
        }
    }
}

impl ShardHandle {
    /// Hands over a command. Never waits.
    pub(crate) fn send(&self, command: Command) -> Result<(), Full> {
        self.commands.try_send(command).map_err(|_| Full)?;
        self.bell.ring();
        Ok(())
    }

    /// Hands over a datagram, without the bell. False if it is lost.
    pub(super) fn post(&self, parcel: Parcel) -> bool {
        self.parcels.try_send(parcel).is_ok()
    }

    /// Rings for what was posted.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }
}

/// The shard's side.
pub(super) struct Mailbox {
    pub(super) poll: Poll,
    commands: Receiver<Command>,
    parcels: Receiver<Parcel>,
    handle: ShardHandle,
}

pub(super) fn new() -> io::Result<Mailbox> {
    let poll = Poll::new()?;
    let bell = Arc::new(Bell {
        rung: AtomicBool::new(false),
        waker: Waker::new(poll.registry(), BELL)?,
    });
    let (commands, commands_in) = sync_channel(COMMANDS_MAX);
    let (parcels, parcels_in) = sync_channel(PARCELS_MAX);
    Ok(Mailbox {
        poll,
        commands: commands_in,
        parcels: parcels_in,
        handle: ShardHandle {
            commands,
            parcels,
            bell,
        },
    })
}

impl Mailbox {
    pub(super) fn handle(&self) -> ShardHandle {
        self.handle.clone()
    }

    /// To be called before looking, so that what comes while looking rings again.
    pub(super) fn answer_bell(&self) {
        self.handle.bell.rung.store(false, Ordering::Release);
    }

    pub(super) fn next_command(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    pub(super) fn next_parcel(&self) -> Option<Parcel> {
        self.parcels.try_recv().ok()
    }
}
