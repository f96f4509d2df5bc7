//! Many clients on one thread: their sockets behind one poll, their timers in one heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use mio::{Events, Poll, Token};

use crate::Error;
use crate::client::{Client, Detour};

/// Readiness events taken at once.
const EVENTS_MAX: usize = 256;

/// Clients that are driven together.
pub struct Swarm {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// For each client the time of its entry in the heap that counts.
    scheduled: Vec<Option<Instant>>,
}

impl Swarm {
    /// Nobody yet.
    pub fn new() -> Result<Swarm, Error> {
        Ok(Swarm {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            clients: Vec::new(),
            timers: BinaryHeap::new(),
            scheduled: Vec::new(),
        })
    }

    /// Takes a client in; its index among [`Swarm::clients`].
    pub fn add(&mut self, mut client: Client) -> Result<usize, Error> {
        let index = self.clients.len();
        client.register(self.poll.registry(), Token(index))?;
        self.clients.push(client);
        self.scheduled.push(None);
        self.schedule(index);
        Ok(index)
    }

    /// Gives a client a better way, which it moves to.
    pub fn move_to(&mut self, index: usize, detour: Detour) -> Result<(), Error> {
        let client = &mut self.clients[index];
        client.move_to(detour)?;
        client.register_detour(self.poll.registry(), Token(index))?;
        self.schedule(index);
        Ok(())
    }

    /// Takes every client out, to let them leave one by one.
    pub fn into_clients(self) -> Vec<Client> {
        self.clients
    }

    /// All clients.
    pub fn clients(&mut self) -> &mut [Client] {
        &mut self.clients
    }

    /// Drives everybody until `end`.
    pub fn run_until(&mut self, end: Instant) -> Result<(), Error> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            self.fire(now);
            let next = self.timers.peek().map_or(end, |Reverse((at, _))| end.min(*at));
            let wait = next.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut self.events, Some(wait)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            for index in ready {
                self.clients[index].handle_readable();
                self.schedule(index);
            }
        }
    }

    /// Drives everybody until `done` says so; false where `end` came first.
    pub fn run_while(
        &mut self,
        end: Instant,
        step: std::time::Duration,
        mut unfinished: impl FnMut(&mut [Client]) -> bool,
    ) -> Result<bool, Error> {
        while unfinished(&mut self.clients) {
            let now = Instant::now();
            if now >= end {
                return Ok(false);
            }
            self.run_until(end.min(now + step))?;
        }
        Ok(true)
    }

    fn fire(&mut self, now: Instant) {
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            if self.scheduled[index] != Some(at) {
                continue;
            }
            self.scheduled[index] = None;
            if self.clients[index].deadline() <= now {
                self.clients[index].handle_timeout(now);
            }
            self.schedule(index);
        }
    }

    /// An entry that is early enough stays: when it fires, the true deadline is looked at again.
    fn schedule(&mut self, index: usize) {
        let deadline = self.clients[index].deadline();
        if self.scheduled[index].is_none_or(|at| deadline < at) {
            self.scheduled[index] = Some(deadline);
            self.timers.push(Reverse((deadline, index)));
        }
    }
}
