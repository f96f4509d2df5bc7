//! A timer of the kernel's that wakes a poll, exact to microseconds: epoll's own timeout counts milliseconds.

use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::Error;

const SECOND: u64 = 1_000_000_000;

/// What it is known by in the poll.
pub const ALARM: Token = Token(usize::MAX);

/// Wakes one poll.
pub struct Alarm {
    timer: OwnedFd,
}

impl Alarm {
    /// For the poll of this registry.
    pub fn new(registry: &Registry) -> Result<Alarm, Error> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), ALARM, Interest::READABLE)?;
        Ok(Alarm { timer })
    }

    /// Wakes it in so many nanoseconds, and not before.
    pub fn set(&self, wait: u64) -> Result<(), Error> {
        // Zero would disarm it.
        let wait = wait.max(1);
        let spec = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: (wait / SECOND) as i64,
                tv_nsec: (wait % SECOND) as i64,
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}
