//! How clients get into a server: one adapter a kind of server, behind a thread of its own, so that media goes on
//! while others join.

mod dsip;
mod janus;
mod whip;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

pub use janus::Janus;
pub use whip::{Tokens, Whip};

use crate::Error;
use crate::peer::Negotiated;
use crate::sdp::Local;

/// How often an adapter looks at what the server says by itself.
const ATTEND_INTERVAL: Duration = Duration::from_millis(20);

/// How long all sessions together may take to end.
const LEAVE_MAX: Duration = Duration::from_secs(60);

/// What a client wants.
pub enum Wish {
    /// To publish audio and video under this name.
    Publish {
        /// The room.
        room: String,
        /// The publisher's name in it.
        name: String,
    },
    /// To receive what these publish, on one connection.
    Subscribe {
        /// The room.
        room: String,
        /// The publishers' names.
        names: Vec<String>,
    },
    /// To publish and to receive everybody else, on one connection.
    Call {
        /// The room.
        room: String,
        /// Its name.
        name: String,
        /// How many others there will be.
        others: usize,
    },
}

/// What a participant of a conference needs of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// One connection that does everything.
    OneConnection,
    /// One to publish, one to receive everybody.
    PublishAndSubscribe,
    /// One to publish, and one for each publisher to receive.
    SubscribeEach,
}

/// A kind of server.
pub trait Signalling: Send {
    /// Lets a client in.
    fn join(&mut self, local: &Local, wish: &Wish) -> Result<Negotiated, Error>;

    /// What conferences look like there.
    fn manner(&self) -> Manner;

    /// Does what the server asks for by itself.
    fn attend(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends every session, as far as that is possible before `until`.
    fn leave(&mut self, until: Instant);
}

/// The thread that joins clients.
pub struct Desk {
    wishes: Option<Sender<(usize, Local, Wish)>>,
    results: Receiver<(usize, Result<Negotiated, Error>)>,
    thread: Option<thread::JoinHandle<()>>,
    /// What conferences look like.
    pub manner: Manner,
}

impl Desk {
    /// Starts the thread. Where `leaves`, every session is ended when the desk is dropped.
    #[must_use]
    pub fn open(mut signalling: Box<dyn Signalling>, leaves: bool) -> Desk {
        let manner = signalling.manner();
        let (wishes, inbox) = channel::<(usize, Local, Wish)>();
        let (outbox, results) = channel();
        let thread = thread::spawn(move || {
            let mut attended = Instant::now();
            loop {
                match inbox.recv_timeout(ATTEND_INTERVAL) {
                    Ok((index, local, wish)) => {
                        let _ = outbox.send((index, signalling.join(&local, &wish)));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if attended.elapsed() >= ATTEND_INTERVAL {
                    if let Err(error) = signalling.attend() {
                        let _ = outbox.send((usize::MAX, Err(error)));
                    }
                    attended = Instant::now();
                }
            }
            if leaves {
                signalling.leave(Instant::now() + LEAVE_MAX);
            }
        });
        Desk {
            wishes: Some(wishes),
            results,
            thread: Some(thread),
            manner,
        }
    }

    /// Asks for a client to be let in; `index` comes back with the answer.
    pub fn ask(&self, index: usize, local: Local, wish: Wish) -> Result<(), Error> {
        let wishes = self.wishes.as_ref().ok_or("the desk is closed")?;
        wishes
            .send((index, local, wish))
            .map_err(|_| "the signalling thread ended".into())
    }

    /// An answer, if there is one.
    pub fn answer(&self) -> Result<Option<(usize, Negotiated)>, Error> {
        match self.results.try_recv() {
            Ok((index, result)) => Ok(Some((index, result?))),
            Err(_) => Ok(None),
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.wishes = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been printed; there is nothing to add.
            let _ = thread.join();
        }
    }
}
