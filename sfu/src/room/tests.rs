use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const BOTH: Published = Published {
    audio: true,
    video: true,
};
const AUDIO: Published = Published {
    audio: true,
    video: false,
};
const NONE: Published = Published {
    audio: false,
    video: false,
};

fn id(number: u64) -> SessionId {
    SessionId::new(number)
}

fn slots(count: usize) -> Vec<Slot> {
    let mid = |letter: char, index| Mid::new(&format!("{letter}{index}"));
    (0..count)
        .map(|index| Slot {
            audio: mid('a', index),
            video: mid('v', index),
        })
        .collect()
}

fn caller(number: u64, published: Published, count: usize) -> Member {
    Member {
        session: id(number),
        holder: format!("did:{number}").into(),
        mode: Mode::Call {
            name: format!("n{number}").into(),
        },
        published,
        slots: slots(count),
    }
}

fn subscriber(number: u64, to: &str) -> Member {
    Member {
        mode: Mode::Subscribe { to: to.into() },
        slots: slots(1),
        ..caller(number, NONE, 1)
    }
}

fn publisher(number: u64) -> Member {
    Member {
        mode: Mode::Publish {
            name: format!("n{number}").into(),
        },
        ..caller(number, BOTH, 0)
    }
}

/// What the core would carry after these changes.
#[derive(Default)]
struct Core(BTreeMap<(SessionId, Mid), Source>);

impl Core {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Route {
                subscriber,
                mid,
                source,
            } = change
            {
                match source {
                    Some(source) => self.0.insert((*subscriber, *mid), *source),
                    None => self.0.remove(&(*subscriber, *mid)),
                };
            }
        }
    }

    fn of(&self, subscriber: u64) -> Vec<(String, u64)> {
        let own = self
            .0
            .iter()
            .filter(|((session, _), _)| *session == id(subscriber));
        own.map(|((_, mid), source)| (mid.to_string(), source.session.get()))
            .collect()
    }
}

fn needs(changes: &[Change], session: u64) -> Option<(usize, usize)> {
    changes.iter().find_map(|change| match change {
        Change::NeedLines {
            subscriber,
            audio,
            video,
        } if *subscriber == id(session) => Some((*audio, *video)),
        _ => None,
    })
}

fn list(changes: &[Change], session: u64) -> Option<Vec<(String, bool, bool)>> {
    changes.iter().rev().find_map(|change| match change {
        Change::Participants { subscriber, list } if *subscriber == id(session) => Some(
            list.iter()
                .map(|p| (p.name.to_string(), p.audio, p.video))
                .collect(),
        ),
        _ => None,
    })
}

#[test]
fn two_callers_carry_each_other_and_not_themselves() {
    let (mut room, mut core) = (Room::new(), Core::default());
    core.apply(&room.join(caller(1, BOTH, 2)).unwrap());
    core.apply(&room.join(caller(2, BOTH, 2)).unwrap());
    assert_eq!(core.of(1), [("a0".into(), 2), ("v0".into(), 2)]);
    assert_eq!(core.of(2), [("a0".into(), 1), ("v0".into(), 1)]);
}

#[test]
fn a_freed_slot_serves_the_next_and_nobody_else_moves() {
    let (mut room, mut core) = (Room::new(), Core::default());
    for number in 1..=3 {
        core.apply(&room.join(caller(number, BOTH, 2)).unwrap());
    }
    core.apply(&room.leave(id(2)));
    assert_eq!(core.of(1), [("a1".into(), 3), ("v1".into(), 3)]);
    core.apply(&room.join(caller(4, BOTH, 3)).unwrap());
    let expected = [
        ("a0".into(), 4),
        ("a1".into(), 3),
        ("v0".into(), 4),
        ("v1".into(), 3),
    ];
    assert_eq!(core.of(1), expected);
}

#[test]
fn further_lines_are_asked_for_once_and_only_what_lacks() {
    let mut room = Room::new();
    room.join(caller(1, BOTH, 1)).unwrap();
    assert_eq!(needs(&room.join(caller(2, BOTH, 4)).unwrap(), 1), None);
    assert_eq!(needs(&room.join(caller(3, BOTH, 4)).unwrap(), 1), Some((1, 1)));
    assert_eq!(needs(&room.set_mute(id(3), true, true), 1), None);
    assert_eq!(room.lines_needed(id(1)), (1, 1));
    assert_eq!(needs(&room.join(caller(4, BOTH, 4)).unwrap(), 1), Some((2, 2)));
    let mut core = Core::default();
    core.apply(&room.set_slots(id(1), slots(3)));
    assert_eq!(room.lines_needed(id(1)), (0, 0));
    assert_eq!(core.of(1).len(), 4, "the two that had no slot");
}

#[test]
fn a_whip_publisher_and_whep_subscribers_are_never_asked_for_lines() {
    let (mut room, mut core) = (Room::new(), Core::default());
    core.apply(&room.join(subscriber(7, "n1")).unwrap());
    assert!(core.of(7).is_empty(), "nobody publishes yet");
    core.apply(&room.join(publisher(1)).unwrap());
    core.apply(&room.join(publisher(2)).unwrap());
    assert_eq!(core.of(7), [("a0".into(), 1), ("v0".into(), 1)]);
    assert_eq!(room.lines_needed(id(1)), (0, 0));
    core.apply(&room.leave(id(1)));
    assert!(core.of(7).is_empty());
    let again = Member {
        session: id(9),
        ..publisher(1)
    };
    core.apply(&room.join(again).unwrap());
    assert_eq!(core.of(7), [("a0".into(), 9), ("v0".into(), 9)]);
}

#[test]
fn names_belong_to_their_holder() {
    let mut room = Room::new();
    room.join(caller(1, BOTH, 1)).unwrap();
    assert_eq!(room.claim("n1", "did:1"), Claim::Replaces(id(1)));
    assert_eq!(room.claim("n1", "did:2"), Claim::Taken);
    assert_eq!(room.claim("n2", "did:2"), Claim::Free);
    let same_name = Member {
        session: id(5),
        ..caller(1, BOTH, 1)
    };
    assert_eq!(room.join(same_name), Err(RoomError::NameTaken));
    assert_eq!(room.join(caller(1, BOTH, 1)), Err(RoomError::NameTaken));
}

#[test]
fn a_full_room_says_so() {
    let mut room = Room::new();
    for number in 0..MEMBERS_MAX as u64 {
        room.join(caller(number, NONE, 0)).unwrap();
    }
    assert_eq!(room.join(caller(99, NONE, 0)), Err(RoomError::Full));
    assert_eq!(room.len(), MEMBERS_MAX);
}

#[test]
fn those_who_watch_take_no_place_of_those_who_take_part_and_concern_nobody() {
    let mut room = Room::new();
    let watcher = |number| Member {
        mode: Mode::Subscribe { to: "p1".into() },
        published: Published::default(),
        ..caller(number, NONE, 1)
    };
    room.join(caller(1, BOTH, 1)).unwrap();
    for number in 100..1_000 {
        let changes = room.join(watcher(number)).unwrap();
        let own = |change: &Change| match change {
            Change::Route { subscriber, .. }
            | Change::Tracks { subscriber, .. }
            | Change::Participants { subscriber, .. }
            | Change::NeedLines { subscriber, .. } => *subscriber == id(number),
        };
        assert!(changes.iter().all(own), "{changes:?}");
    }
    for number in 2..=MEMBERS_MAX as u64 {
        room.join(caller(number, NONE, 0)).unwrap();
    }
    assert_eq!(room.join(caller(99, NONE, 0)), Err(RoomError::Full));
    assert!(room.leave(id(100)).is_empty());
    assert_eq!(room.join(watcher(101)), Err(RoomError::NameTaken));
}

#[test]
fn mutes_are_told_and_routes_stay() {
    let mut room = Room::new();
    room.join(caller(1, BOTH, 2)).unwrap();
    let joined = room.join(caller(2, AUDIO, 2)).unwrap();
    assert_eq!(list(&joined, 1).unwrap(), [("n2".into(), true, false)]);
    assert_eq!(list(&joined, 2).unwrap(), [("n1".into(), true, true)]);
    let muted = room.set_mute(id(1), false, true);
    assert_eq!(list(&muted, 2).unwrap(), [("n1".into(), true, false)]);
    assert!(!muted.iter().any(|change| matches!(change, Change::Route { .. })));
    assert!(
        room.set_mute(id(1), false, true).is_empty(),
        "nothing new, nothing told"
    );
}

#[test]
fn an_unsubscribed_publisher_gives_its_slot_to_the_next() {
    let (mut room, mut core) = (Room::new(), Core::default());
    for number in 1..=3 {
        core.apply(&room.join(caller(number, BOTH, 1)).unwrap());
    }
    assert_eq!(core.of(1), [("a0".into(), 2), ("v0".into(), 2)]);
    core.apply(&room.set_subscription(id(1), "n2", false, false));
    assert_eq!(core.of(1), [("a0".into(), 3), ("v0".into(), 3)]);
    core.apply(&room.set_subscription(id(1), "n3", true, false));
    assert_eq!(core.of(1), [("a0".into(), 3)]);
    core.apply(&room.set_subscription(id(1), "n3", true, true));
    assert_eq!(core.of(1), [("a0".into(), 3), ("v0".into(), 3)]);
}

#[test]
fn starting_a_camera_uses_the_slot_already_held() {
    let (mut room, mut core) = (Room::new(), Core::default());
    core.apply(&room.join(caller(1, BOTH, 3)).unwrap());
    core.apply(&room.join(caller(2, AUDIO, 3)).unwrap());
    assert_eq!(core.of(1), [("a0".into(), 2)]);
    core.apply(&room.set_published(id(2), BOTH));
    assert_eq!(core.of(1), [("a0".into(), 2), ("v0".into(), 2)]);
}

#[test]
fn a_stranger_changes_nothing() {
    let mut room = Room::new();
    room.join(caller(1, BOTH, 1)).unwrap();
    assert!(room.leave(id(9)).is_empty());
    assert!(room.set_mute(id(9), true, true).is_empty());
    assert!(room.set_subscription(id(9), "n1", false, false).is_empty());
    assert_eq!(room.lines_needed(id(9)), (0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Join {
        number: u64,
        audio: bool,
        video: bool,
        slots: usize,
        mode: u8,
        to: u64,
    },
    Leave(u64),
    Publish {
        number: u64,
        audio: bool,
        video: bool,
    },
    Slots {
        number: u64,
        more: usize,
    },
    Mute {
        number: u64,
        audio: bool,
        video: bool,
    },
    Subscribe {
        number: u64,
        to: u64,
        audio: bool,
        video: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let member = 0..8_u64;
    prop_oneof![
        4 => (member.clone(), any::<bool>(), any::<bool>(), 0..9_usize, 0..4_u8, member.clone()).prop_map(
            |(number, audio, video, slots, mode, to)| Step::Join { number, audio, video, slots, mode, to }
        ),
        2 => member.clone().prop_map(Step::Leave),
        2 => (member.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(number, audio, video)| Step::Publish { number, audio, video }),
        1 => (member.clone(), 1..4_usize).prop_map(|(number, more)| Step::Slots { number, more }),
        1 => (member.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(number, audio, video)| Step::Mute { number, audio, video }),
        2 => (member.clone(), member, any::<bool>(), any::<bool>())
            .prop_map(|(number, to, audio, video)| Step::Subscribe { number, to, audio, video }),
    ]
}

/// The room as a reader of its rules would keep it.
#[derive(Debug, Clone)]
struct Model {
    published: Published,
    slots: usize,
    mode: u8,
    to: u64,
    unwanted: BTreeMap<u64, (bool, bool)>,
}

impl Model {
    fn sees(&self, number: u64, other: u64, model: &Model) -> (bool, bool) {
        let reaches = match self.mode {
            2 => false,
            3 => self.to == other,
            _ => true,
        };
        if number == other || model.mode == 3 || !reaches {
            return (false, false);
        }
        let (audio, video) = self.unwanted.get(&other).copied().unwrap_or((true, true));
        (model.published.audio && audio, model.published.video && video)
    }
}

proptest! {
    #[test]
    fn every_subscriber_with_enough_slots_carries_every_publisher_once(steps in prop::collection::vec(step(), 1..60)) {
        let (mut room, mut core) = (Room::new(), Core::default());
        let mut model: BTreeMap<u64, Model> = BTreeMap::new();
        for step in steps {
            let before = core.0.clone();
            let unchanged = model.clone();
            let changes = match step {
                Step::Join { number, audio, video, slots: count, mode, to } => {
                    let published = if mode == 3 { NONE } else { Published { audio, video } };
                    let mut member = caller(number, published, if mode == 2 { 0 } else { count });
                    match mode {
                        2 => member.mode = Mode::Publish { name: format!("n{number}").into() },
                        3 => member.mode = Mode::Subscribe { to: format!("n{to}").into() },
                        _ => {}
                    }
                    match room.join(member) {
                        Ok(changes) => {
                            let slots = if mode == 2 { 0 } else { count };
                            let joined = Model { published, slots, mode, to, unwanted: BTreeMap::new() };
                            prop_assert!(model.insert(number, joined).is_none());
                            changes
                        }
                        Err(_) => {
                            prop_assert!(model.contains_key(&number));
                            Vec::new()
                        }
                    }
                }
                Step::Leave(number) => {
                    model.remove(&number);
                    core.0.retain(|(session, _), _| *session != id(number));
                    room.leave(id(number))
                }
                Step::Publish { number, audio, video } => {
                    if let Some(member) = model.get_mut(&number).filter(|member| member.mode != 3) {
                        member.published = Published { audio, video };
                        room.set_published(id(number), Published { audio, video })
                    } else {
                        Vec::new()
                    }
                }
                Step::Slots { number, more } => match model.get_mut(&number).filter(|member| member.mode != 2) {
                    Some(member) => {
                        member.slots += more;
                        room.set_slots(id(number), slots(member.slots))
                    }
                    None => Vec::new(),
                },
                Step::Mute { number, audio, video } => room.set_mute(id(number), audio, video),
                Step::Subscribe { number, to, audio, video } => {
                    if let Some(member) = model.get_mut(&number) {
                        member.unwanted.insert(to, (audio, video));
                    }
                    room.set_subscription(id(number), &format!("n{to}"), audio, video)
                }
            };
            core.apply(&changes);

            for (number, member) in &model {
                let carried = core.of(*number);
                let mut expected: BTreeSet<(char, u64)> = BTreeSet::new();
                let mut wanted = 0;
                for (other, publisher) in &model {
                    let (audio, video) = member.sees(*number, *other, publisher);
                    wanted += usize::from(audio || video);
                    expected.extend(audio.then_some(('a', *other)));
                    expected.extend(video.then_some(('v', *other)));
                }
                let routes: Vec<(char, u64)> =
                    carried.iter().map(|(mid, source)| (mid.chars().next().unwrap(), *source)).collect();
                let once: BTreeSet<(char, u64)> = routes.iter().copied().collect();
                prop_assert_eq!(once.len(), routes.len(), "nobody is carried twice");
                prop_assert!(once.is_subset(&expected), "only what is wanted: {:?} of {:?}", once, expected);
                if wanted <= member.slots {
                    prop_assert_eq!(&once, &expected, "subscriber {} has {} slots", number, member.slots);
                }
                // A participant's two lines are of one slot.
                for (mid, source) in &carried {
                    let other = format!("{}{}", if mid.starts_with('a') { 'v' } else { 'a' }, &mid[1..]);
                    let partner = carried.iter().find(|(mid, _)| *mid == other);
                    prop_assert!(partner.is_none_or(|(_, session)| session == source));
                }
                // Whoever was and still is wanted stays on its line.
                for ((session, mid), source) in &before {
                    let (still_here, publisher) = (*session == id(*number), source.session.get());
                    let Some(other) = model.get(&publisher).filter(|_| still_here) else { continue };
                    if unchanged.contains_key(&publisher) && unchanged.contains_key(number) {
                        let (audio, video) = member.sees(*number, publisher, other);
                        let wanted = if source.kind == Kind::Audio { audio } else { video };
                        if wanted {
                            prop_assert_eq!(core.0.get(&(*session, *mid)), Some(source), "slots never flap");
                        }
                    }
                }
            }
        }
    }
}
