//! Who hears and sees whom: the slots of each subscriber and what they carry.

use std::sync::Arc;

use metering::SessionId;

use crate::Source;
use crate::media::{Kind, Mid};

/// A participant's place at a subscriber: the m-lines that carry its audio and its video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    /// The audio line.
    pub audio: Option<Mid>,
    /// The video line.
    pub video: Option<Mid>,
}

/// Which kinds, of what somebody publishes, mutes or subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// Audio.
    pub audio: bool,
    /// Video.
    pub video: bool,
}

/// What a member takes part as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Is seen by everybody and sees everybody else.
    Call {
        /// Its name in the room.
        name: Arc<str>,
    },
    /// Is seen and sees nobody.
    Publish {
        /// Its name in the room.
        name: Arc<str>,
    },
    /// Sees one publisher and is not seen.
    Subscribe {
        /// Whom.
        to: Arc<str>,
    },
}

/// Somebody who joins.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its session.
    pub session: SessionId,
    /// Its DID or bearer account: who may replace it.
    pub holder: Arc<str>,
    /// What as.
    pub mode: Mode,
    /// What it publishes (`Negotiation::published`).
    pub published: Published,
    /// What it can receive on (`Negotiation::slots`).
    pub slots: Vec<Slot>,
}

/// What one of a subscriber's lines carries now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// The subscriber's m-line.
    pub mid: Mid,
    /// Audio or video.
    pub kind: Kind,
    /// Whose.
    pub name: Arc<str>,
}

/// Somebody in the room, as the others are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// The name.
    pub name: Arc<str>,
    /// Publishes audio and has not muted it.
    pub audio: bool,
    /// Publishes video and has not muted it.
    pub video: bool,
}

/// What follows from a change in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// For the core: what a line carries from now on.
    Route {
        /// Whose line.
        subscriber: SessionId,
        /// Which line.
        mid: Mid,
        /// What it carries.
        source: Option<Source>,
    },
    /// For the subscriber: the whole mapping of its lines.
    Tracks {
        /// Whom to tell.
        subscriber: SessionId,
        /// The mapping.
        tracks: Vec<Track>,
    },
    /// For the subscriber: everybody else in the room.
    Participants {
        /// Whom to tell.
        subscriber: SessionId,
        /// Everybody else.
        list: Vec<Participant>,
    },
    /// For the subscriber: it needs further lines (`Negotiation::offer_more`).
    NeedLines {
        /// Whose lines.
        subscriber: SessionId,
        /// Further audio lines.
        audio: usize,
        /// Further video lines.
        video: usize,
    },
}

/// Whether a name may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has it.
    Free,
    /// The same holder has it: that session is to leave first.
    Replaces(SessionId),
    /// Somebody else has it.
    Taken,
}

/// Why somebody cannot join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// The room is full.
    #[error("the room is full: it holds {MEMBERS_MAX} members at most; wait until somebody leaves")]
    Full,
    /// The name is another member's, or the session is already in.
    #[error("the name is taken by somebody else in this room: choose another one")]
    NameTaken,
}

/// Members of a room.
pub const MEMBERS_MAX: usize = 64;
/// Slots of a subscriber.
pub const SLOTS_MAX: usize = 16;

/// One room.
#[derive(Debug, Default)]
pub struct Room {}

#[allow(unused_variables, clippy::todo, missing_docs)]
impl Room {
    pub fn new() -> Room {
        Room::default()
    }
    /// Whether `holder` may take `name`.
    pub fn claim(&self, name: &str, holder: &str) -> Claim {
        todo!()
    }
    pub fn join(&mut self, member: Member) -> Result<Vec<Change>, RoomError> {
        todo!()
    }
    /// Changes for the leaver itself are not among them.
    pub fn leave(&mut self, session: SessionId) -> Vec<Change> {
        todo!()
    }
    pub fn set_published(&mut self, session: SessionId, published: Published) -> Vec<Change> {
        todo!()
    }
    pub fn set_slots(&mut self, session: SessionId, slots: Vec<Slot>) -> Vec<Change> {
        todo!()
    }
    /// `true` means muted.
    pub fn set_mute(&mut self, session: SessionId, audio: bool, video: bool) -> Vec<Change> {
        todo!()
    }
    /// What of `name` the subscriber wants; default both.
    pub fn set_subscription(&mut self, session: SessionId, name: &str, audio: bool, video: bool) -> Vec<Change> {
        todo!()
    }
    /// Lines the subscriber still lacks (audio, video): ask after every settled offer, as `NeedLines` comes once.
    pub fn lines_needed(&self, session: SessionId) -> (usize, usize) {
        todo!()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
}
