//! The rooms of this node: who holds which name, and what a change in a room means for shards and sockets. The rules of subscribing themselves are `sfu::room`; this file is plain state, behind the
//! control plane's one short lock.

use std::collections::HashMap;
use std::sync::Arc;

use metering::SessionId;
use sfu::room::Room;

use crate::http::problem::Problem;

/// Who holds a name: one session, and perhaps a newer one of the same holder that is still being admitted.
struct Named {
    holder: Arc<str>,
    current: Option<SessionId>,
    pending: Option<SessionId>,
}

struct Entry {
    room: Room,
    names: HashMap<String, Named>,
    /// Sessions of the room, admitted or about to be.
    sessions: usize,
}

/// All rooms of this node.
pub(crate) struct Rooms {
    rooms: HashMap<Arc<str>, Entry>,
    rooms_max: usize,
    members_max: usize,
}

impl Rooms {
    pub(crate) fn new(rooms_max: usize, members_max: usize) -> Rooms {
        Rooms {
            rooms: HashMap::new(),
            rooms_max,
            members_max,
        }
    }

    /// Rooms with anybody in them.
    pub(crate) fn len(&self) -> usize {
        self.rooms.len()
    }

    /// The room's members and their subscriptions.
    pub(crate) fn room(&mut self, room: &str) -> Option<&mut Room> {
        self.rooms.get_mut(room).map(|entry| &mut entry.room)
    }

    /// Takes a place in the room and, where `name` is given, that name for `holder`. The place is given back with
    /// [`Rooms::leave`].
    pub(crate) fn reserve(
        &mut self,
        room: &Arc<str>,
        name: Option<&str>,
        holder: &Arc<str>,
        session: SessionId,
    ) -> Result<(), Problem> {
        if !self.rooms.contains_key(room) && self.rooms.len() >= self.rooms_max {
            return Err(Problem::new(
                "capacity",
                "This relay has no place for another room; try again later.",
            ));
        }
        let members_max = self.members_max;
        let entry = self.rooms.entry(room.clone()).or_insert_with(|| Entry {
            room: Room::new(),
            names: HashMap::new(),
            sessions: 0,
        });
        let mut replaces = false;
        if let Some(named) = name.and_then(|name| entry.names.get(name)) {
            if named.holder != *holder {
                let detail = "Somebody else in this room has that name; choose another one.";
                return Err(Problem::new("name-taken", detail));
            }
            replaces = true;
        }
        if entry.sessions >= members_max + usize::from(replaces) {
            return Err(Problem::new(
                "capacity",
                "This room is full; wait until somebody leaves.",
            ));
        }
        if let Some(name) = name {
            let named = entry.names.entry(name.to_owned()).or_insert_with(|| Named {
                holder: holder.clone(),
                current: None,
                pending: None,
            });
            // Of two that are being admitted, the later one wins.
            named.pending = Some(session);
        }
        entry.sessions += 1;
        Ok(())
    }

    /// The session has been admitted and takes its name over. Says whom it replaces.
    pub(crate) fn take_over(
        &mut self,
        room: &str,
        name: &str,
        session: SessionId,
    ) -> Result<Option<SessionId>, Problem> {
        let named = self
            .rooms
            .get_mut(room)
            .and_then(|entry| entry.names.get_mut(name));
        match named {
            Some(named) if named.pending == Some(session) => {
                named.pending = None;
                Ok(named.current.replace(session))
            }
            _ => Err(Problem::new(
                "name-taken",
                "A newer session of yours has taken this name meanwhile.",
            )),
        }
    }

    /// Gives the session's place and name back. An empty room is forgotten.
    pub(crate) fn leave(&mut self, room: &str, name: Option<&str>, session: SessionId) {
        let Some(entry) = self.rooms.get_mut(room) else {
            return;
        };
        if let Some(name) = name
            && let Some(named) = entry.names.get_mut(name)
        {
            named.current.take_if(|current| *current == session);
            named.pending.take_if(|pending| *pending == session);
            if named.current.is_none() && named.pending.is_none() {
                entry.names.remove(name);
            }
        }
        entry.sessions = entry.sessions.saturating_sub(1);
        if entry.sessions == 0 {
            self.rooms.remove(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> SessionId {
        SessionId::new(number)
    }

    #[test]
    fn another_holder_cannot_take_a_name() {
        let (mut rooms, room) = (Rooms::new(2, 4), Arc::from("r"));
        rooms
            .reserve(&room, Some("a"), &Arc::from("did:1"), id(1))
            .unwrap();
        let refused = rooms
            .reserve(&room, Some("a"), &Arc::from("did:2"), id(2))
            .unwrap_err();
        assert_eq!(refused.slug(), "name-taken");
        rooms.reserve(&room, None, &Arc::from("did:2"), id(3)).unwrap();
    }

    #[test]
    fn the_same_holder_replaces_its_old_session_only_once_admitted() {
        let (mut rooms, room, holder) = (Rooms::new(2, 4), Arc::from("r"), Arc::from("did:1"));
        rooms.reserve(&room, Some("a"), &holder, id(1)).unwrap();
        assert_eq!(rooms.take_over(&room, "a", id(1)).unwrap(), None);
        rooms.reserve(&room, Some("a"), &holder, id(2)).unwrap();
        rooms.leave(&room, Some("a"), id(2));
        rooms.reserve(&room, Some("a"), &holder, id(3)).unwrap();
        rooms.reserve(&room, Some("a"), &holder, id(4)).unwrap();
        assert!(
            rooms.take_over(&room, "a", id(3)).is_err(),
            "a later one is on its way"
        );
        rooms.leave(&room, Some("a"), id(3));
        assert_eq!(rooms.take_over(&room, "a", id(4)).unwrap(), Some(id(1)));
    }

    #[test]
    fn an_empty_room_is_forgotten_and_a_full_relay_opens_no_other() {
        let (mut rooms, room, holder) = (Rooms::new(1, 2), Arc::from("r"), Arc::from("did:1"));
        rooms.reserve(&room, Some("a"), &holder, id(1)).unwrap();
        assert_eq!(
            rooms
                .reserve(&Arc::from("s"), None, &holder, id(2))
                .unwrap_err()
                .slug(),
            "capacity"
        );
        rooms.leave(&room, Some("a"), id(1));
        assert_eq!(rooms.len(), 0);
        rooms.reserve(&Arc::from("s"), None, &holder, id(2)).unwrap();
    }

    #[test]
    fn a_full_room_still_lets_a_member_come_back() {
        let (mut rooms, room, holder) = (Rooms::new(1, 2), Arc::from("r"), Arc::from("did:1"));
        rooms.reserve(&room, Some("a"), &holder, id(1)).unwrap();
        rooms.reserve(&room, Some("b"), &holder, id(2)).unwrap();
        assert_eq!(
            rooms
                .reserve(&room, Some("c"), &holder, id(3))
                .unwrap_err()
                .slug(),
            "capacity"
        );
        rooms.reserve(&room, Some("a"), &holder, id(4)).unwrap();
    }
}
