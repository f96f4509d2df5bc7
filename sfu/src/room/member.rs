//! One member's place in a room: what it publishes, what it wants, and who occupies which of its slots.

use std::sync::Arc;

use metering::SessionId;

use super::{MEMBERS_MAX, Member, Mode, Participant, Published, SLOTS_MAX, Slot, Track};
use crate::Source;
use crate::media::Mid;

/// What a subscriber wants of one publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) audio: bool,
    pub(super) video: bool,
}

impl Default for Subscription {
    /// Everything.
    fn default() -> Subscription {
        Subscription {
            audio: true,
            video: true,
        }
    }
}

const NOTHING: Subscription = Subscription {
    audio: false,
    video: false,
};

/// Names that a member may have said something about. One that names more forgets the oldest.
const SUBSCRIPTIONS_MAX: usize = MEMBERS_MAX;

#[derive(Debug)]
pub(super) struct Place {
    pub(super) session: SessionId,
    pub(super) holder: Arc<str>,
    pub(super) mode: Mode,
    pub(super) published: Published,
    pub(super) muted: Published,
    /// By slot: its lines and who is in it.
    slots: Vec<(Slot, Option<SessionId>)>,
    subscriptions: Vec<(String, Subscription)>,
    /// Lines (audio, video) that were asked for already, those it has included.
    asked: (usize, usize),
    /// What the core and the client were last told.
    pub(super) routes: Vec<(Mid, Source)>,
    pub(super) tracks: Option<Vec<Track>>,
    pub(super) participants: Option<Vec<Participant>>,
}

impl Place {
    pub(super) fn new(member: Member) -> Place {
        let mut place = Place {
            session: member.session,
            holder: member.holder,
            mode: member.mode,
            published: member.published,
            muted: Published::default(),
            slots: Vec::new(),
            subscriptions: Vec::new(),
            asked: (0, 0),
            routes: Vec::new(),
            tracks: Some(Vec::new()),
            participants: None,
        };
        if !matches!(place.mode, Mode::Call { .. }) {
            place.participants = Some(Vec::new());
        }
        place.set_slots(member.slots);
        place
    }

    /// The name it is seen under; pure subscribers have none.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        match &self.mode {
            Mode::Call { name } | Mode::Publish { name } => Some(name),
            Mode::Subscribe { .. } => None,
        }
    }

    /// Takes over the lines of a new negotiation. Who is in a slot stays there while the slot has a line left.
    pub(super) fn set_slots(&mut self, slots: Vec<Slot>) {
        let occupants: Vec<Option<SessionId>> = self.slots.iter().map(|(_, occupant)| *occupant).collect();
        let occupant = |index: usize| occupants.get(index).copied().flatten();
        let slots = slots.into_iter().take(SLOTS_MAX).enumerate();
        self.slots = slots
            .map(|(index, slot)| (slot, occupant(index).filter(|_| slot != Slot::default())))
            .collect();
    }

    pub(super) fn subscribe(&mut self, name: &str, subscription: Subscription) {
        self.subscriptions.retain(|(known, _)| known != name);
        if subscription == Subscription::default() {
            return;
        }
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            self.subscriptions.remove(0);
        }
        self.subscriptions.push((name.to_owned(), subscription));
    }

    /// What it wants of the publisher `name`.
    pub(super) fn subscription_to(&self, name: &str) -> Subscription {
        match &self.mode {
            Mode::Publish { .. } => return NOTHING,
            Mode::Subscribe { to } if &**to != name => return NOTHING,
            Mode::Call { .. } | Mode::Subscribe { .. } => {}
        }
        let said = self.subscriptions.iter().find(|(known, _)| known == name);
        said.map(|(_, subscription)| *subscription).unwrap_or_default()
    }

    /// Frees the slots of those who are not wanted any more, and gives free slots to those who are and have none:
    /// first the slots that have both lines.
    pub(super) fn occupy(&mut self, wanted: &[SessionId]) {
        for (_, occupant) in &mut self.slots {
            occupant.take_if(|occupant| !wanted.contains(occupant));
        }
        for publisher in wanted {
            if self
                .slots
                .iter()
                .any(|(_, occupant)| occupant == &Some(*publisher))
            {
                continue;
            }
            let whole = |slot: &Slot| slot.audio.is_some() && slot.video.is_some();
            let free = self
                .slots
                .iter()
                .enumerate()
                .filter(|(_, (slot, occupant))| occupant.is_none() && *slot != Slot::default());
            let best = free
                .min_by_key(|(index, (slot, _))| (!whole(slot), *index))
                .map(|(index, _)| index);
            match best {
                Some(index) => self.slots[index].1 = Some(*publisher),
                None => break,
            }
        }
    }

    pub(super) fn occupied(&self) -> impl Iterator<Item = (Slot, SessionId)> {
        self.slots
            .iter()
            .filter_map(|(slot, occupant)| Some((*slot, (*occupant)?)))
    }

    /// Lines (audio, video) that are missing for `wanted` publishers. Only a call can be offered further lines.
    pub(super) fn lines_needed(&self, wanted: usize) -> (usize, usize) {
        if !matches!(self.mode, Mode::Call { .. }) {
            return (0, 0);
        }
        let (audio, video) = self.lines();
        let goal = wanted.min(SLOTS_MAX);
        (goal.saturating_sub(audio), goal.saturating_sub(video))
    }

    /// What to ask the client for now: nothing that was asked for before, since it may have been declined.
    pub(super) fn ask(&mut self, wanted: usize) -> Option<(usize, usize)> {
        let (audio, video) = self.lines();
        let needed = self.lines_needed(wanted);
        let goal = (audio + needed.0, video + needed.1);
        let fresh = (needed.0 > 0 && goal.0 > self.asked.0) || (needed.1 > 0 && goal.1 > self.asked.1);
        if !fresh {
            return None;
        }
        self.asked = (self.asked.0.max(goal.0), self.asked.1.max(goal.1));
        Some(needed)
    }

    fn lines(&self) -> (usize, usize) {
        let audio = self.slots.iter().filter(|(slot, _)| slot.audio.is_some()).count();
        let video = self.slots.iter().filter(|(slot, _)| slot.video.is_some()).count();
        (audio, video)
    }
}
