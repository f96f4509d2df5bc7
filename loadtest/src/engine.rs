//! Many light clients on one thread: their sockets behind one epoll, their timers in one heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use datagram::Inbox;
use mio::{Events, Interest, Poll, Token};

use crate::Error;
use crate::alarm::{ALARM, Alarm};
use crate::pace::Pace;
use crate::peer::{Peer, Scratch};
use crate::receiver::Tally;

/// Readiness events taken at once.
const EVENTS_MAX: usize = 1_024;

/// Clients that are driven together.
pub struct Engine {
    poll: Poll,
    events: Events,
    alarm: Alarm,
    epoch: Instant,
    peers: Vec<Peer>,
    timers: BinaryHeap<Reverse<(u64, u32)>>,
    /// For each client the time of its entry in the heap that counts.
    scheduled: Vec<u64>,
    inbox: Inbox,
    scratch: Box<Scratch>,
    ready: Vec<usize>,
    pace: Pace,
    /// What arrived within the measured time.
    pub tally: Tally,
    /// Datagrams read, ever.
    pub datagrams: u64,
}

impl Engine {
    /// Nobody yet. All times count from now.
    pub fn new() -> Result<Engine, Error> {
        let poll = Poll::new()?;
        let alarm = Alarm::new(poll.registry())?;
        Ok(Engine {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            alarm,
            epoch: Instant::now(),
            peers: Vec::new(),
            timers: BinaryHeap::new(),
            scheduled: Vec::new(),
            inbox: Inbox::new(),
            scratch: Box::default(),
            ready: Vec::with_capacity(EVENTS_MAX),
            pace: Pace::default(),
            tally: Tally::default(),
            datagrams: 0,
        })
    }

    /// What all times count from.
    #[must_use]
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Takes a client in; its index among [`Engine::peers`].
    pub fn add(&mut self, mut peer: Peer) -> Result<usize, Error> {
        let index = self.peers.len();
        self.poll
            .registry()
            .register(peer.socket(), Token(index), Interest::READABLE)?;
        self.peers.push(peer);
        self.scheduled.push(u64::MAX);
        self.schedule(index);
        Ok(index)
    }

    /// All clients.
    pub fn peers(&mut self) -> &mut [Peer] {
        &mut self.peers
    }

    /// One client, which may have something new to do afterwards.
    pub fn with<T>(&mut self, index: usize, work: impl FnOnce(&mut Peer) -> T) -> T {
        let result = work(&mut self.peers[index]);
        self.schedule(index);
        result
    }

    /// Why some client cannot go on.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let mut failures = self
            .peers
            .iter()
            .enumerate()
            .filter_map(|(index, peer)| Some((index, peer.failure()?)));
        let (index, failure) = failures.next()?;
        let more = failures.count();
        let others = if more > 0 {
            format!(" (and {more} others)")
        } else {
            String::new()
        };
        Some(format!("client {index}: {failure}{others}"))
    }

    /// Drives everybody until `end`, in nanoseconds since the epoch.
    pub fn run_until(&mut self, end: u64) -> Result<(), Error> {
        loop {
            let now = self.now();
            if now >= end {
                return Ok(());
            }
            self.fire(now);
            let next = self.timers.peek().map_or(end, |Reverse((at, _))| end.min(*at));
            self.pace.wait(self.now(), next, self.datagrams);
            self.alarm.set(next.saturating_sub(self.now()))?;
            match self.poll.poll(&mut self.events, Some(Duration::from_secs(1))) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            self.ready.clear();
            let tokens = self.events.iter().map(|event| event.token());
            self.ready
                .extend(tokens.filter(|token| *token != ALARM).map(|token| token.0));
            for at in 0..self.ready.len() {
                let index = self.ready[at];
                self.datagrams +=
                    self.peers[index].handle_readable(&mut self.inbox, &mut self.scratch, &mut self.tally);
                self.schedule(index);
                // Media leaves on time although a thousand sockets are ready.
                if at % 32 == 31 {
                    let now = self.now();
                    if self.timers.peek().is_some_and(|Reverse((due, _))| *due <= now) {
                        self.fire(now);
                    }
                }
            }
        }
    }

    /// Drives everybody for so long.
    pub fn run_for(&mut self, duration: Duration) -> Result<(), Error> {
        self.run_until(self.now() + duration.as_nanos() as u64)
    }

    fn fire(&mut self, now: u64) {
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let index = index as usize;
            if self.scheduled[index] != at {
                continue;
            }
            self.scheduled[index] = u64::MAX;
            if self.peers[index].due() <= now {
                self.peers[index].handle_timeout(now, &mut self.scratch);
            }
            self.schedule(index);
        }
    }

    /// An entry that is early enough stays: when it fires, the true deadline is looked at again.
    fn schedule(&mut self, index: usize) {
        let due = self.peers[index].due();
        if due < self.scheduled[index] {
            self.scheduled[index] = due;
            self.timers.push(Reverse((due, index as u32)));
        }
    }
}
