use identity::SigningKey;
use serde_json::{Value, json};

use super::*;
use crate::Draft;

fn envelope(kind: &str, body: Value) -> Envelope {
    let Value::Object(body) = body else {
        panic!("a body is an object")
    };
    let key = SigningKey::from_seed(&[1; 32]);
    Envelope::parse(
        &Draft {
            kind,
            id: "1",
            timestamp: 1,
            to: None,
            correlates: None,
            body,
        }
        .sign(&key),
    )
    .unwrap()
}

#[test]
fn an_invite_reads_its_room_token_nonce_and_offer() {
    let body =
        json!({"room": "r", "token": "t", "nonce": "n", "media": {"sdp": "v=0"}, "max_msat_per_second": 40});
    let Ok(ClientMessage::Invite(invite)) = ClientMessage::of(&envelope("dsip.invite", body)) else {
        panic!("an invite")
    };
    assert_eq!(
        (invite.room.as_str(), invite.token.as_str(), invite.nonce.as_str()),
        ("r", "t", "n")
    );
    assert_eq!(invite.media.sdp, "v=0");
    assert_eq!((invite.name, invite.max_msat_per_second), (None, Some(40)));
}

#[test]
fn a_missing_member_is_named_and_no_value_is_repeated() {
    let said = |kind, body| match ClientMessage::of(&envelope(kind, body)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("refused"),
    };
    assert!(said("dsip.invite", json!({"room": "r"})).contains("`token`"));
    assert!(said("dsip.update", json!({})).contains("`changes`"));
    let shape = said(
        "dsip.update",
        json!({"changes": {"topup": {"token": {"secret": 1}}}}),
    );
    assert!(!shape.contains("secret"), "{shape}");
    assert!(said("dsip.unheard", json!({})).contains("dsip.hello"));
}

#[test]
fn several_changes_may_come_at_once_and_unknown_ones_are_ignored() {
    let body = json!({"changes": {"mute": {"audio": true}, "subscribe": {"name": "bob", "video": false}, "later": 1}});
    let Ok(ClientMessage::Update(changes)) = ClientMessage::of(&envelope("dsip.update", body)) else {
        panic!("an update")
    };
    assert_eq!(
        changes.mute,
        Some(Mute {
            audio: true,
            video: false
        })
    );
    assert_eq!(
        changes.subscribe,
        Some(Subscribe {
            name: "bob".into(),
            audio: true,
            video: false
        })
    );
    assert!(changes.offer.is_none() && changes.answer.is_none() && changes.topup.is_none());
}

#[test]
fn the_relay_says_only_what_changed() {
    let changes = RelayChanges {
        topup: Some(Credited {
            credited_msat: 5,
            available_msat: 9,
            repeated: false,
        }),
        ..RelayChanges::default()
    };
    let message = RelayMessage::Update {
        session: "s".into(),
        changes: Box::new(changes),
    };
    assert_eq!(message.kind(), "dsip.update");
    let expected = json!({"session": "s", "changes": {"topup": {"credited_msat": 5, "available_msat": 9}}});
    assert_eq!(Value::Object(message.body()), expected);
}
