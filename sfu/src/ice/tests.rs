use super::*;

fn credentials(name: &str) -> IceCredentials {
    IceCredentials {
        ufrag: format!("{name}frag"),
        pwd: format!("{name}-password-of-22-chars"),
    }
}

fn agent() -> Agent {
    Agent::new(credentials("relay"), credentials("client"), 9)
}

fn path(port: u16) -> Path {
    Path {
        remote: SocketAddr::from(([192, 0, 2, 1], port)),
        local: None,
    }
}

struct Check {
    username: &'static str,
    password: String,
    nominate: bool,
    controlled: bool,
}

impl Default for Check {
    fn default() -> Self {
        let password = credentials("relay").pwd;
        Check {
            username: "relayfrag:clientfrag",
            password,
            nominate: false,
            controlled: false,
        }
    }
}

impl Check {
    fn deliver(
        &self,
        agent: &mut Agent,
        path: Path,
        connected: bool,
        now: Instant,
    ) -> Result<Answered, Discard> {
        let mut request = [0; 300];
        let id = TransactionId([7; 12]);
        let mut builder = Builder::new(&mut request, Class::Request, Method::BINDING, id)
            .username(self.username)
            .priority(1);
        builder = if self.controlled {
            builder.ice_controlled(1)
        } else {
            builder.ice_controlling(1)
        };
        if self.nominate {
            builder = builder.use_candidate();
        }
        let length = builder
            .integrity(self.password.as_bytes())
            .fingerprint()
            .finish()
            .unwrap();
        let message = Message::parse(&request[..length]).unwrap();
        let mut out = [0; MESSAGE_BYTES_MAX];
        let answered = agent.handle_request(
            &message,
            path,
            connected,
            || TransactionId([8; 12]),
            now,
            &mut out,
        )?;
        let (Answered::Valid { length, .. } | Answered::Refused { length }) = answered;
        let answer = Message::parse(&out[..length]).unwrap();
        assert!(answer.verify_integrity(credentials("relay").pwd.as_bytes()));
        assert_eq!(answer.verify_fingerprint(), Some(true));
        assert_eq!(answer.transaction_id(), id);
        if let Answered::Valid { .. } = answered {
            assert_eq!(answer.xor_mapped_address(), Some(path.remote));
        }
        Ok(answered)
    }
}

#[test]
fn a_check_with_our_credentials_is_answered_and_counts_as_consent() {
    let (mut agent, now) = (agent(), Instant::now());
    assert!(matches!(
        Check::default().deliver(&mut agent, path(1), false, now),
        Ok(Answered::Valid { new_path: true, .. })
    ));
    assert_eq!(agent.last_check(), Some(now));
    assert_eq!(agent.selected(), Some(path(1)));
}

#[test]
fn a_check_with_the_wrong_key_or_name_changes_nothing() {
    let (mut agent, now) = (agent(), Instant::now());
    let wrong = Check {
        password: "another-password-of-22".into(),
        ..Check::default()
    };
    assert_eq!(
        wrong.deliver(&mut agent, path(1), false, now),
        Err(Discard::StunUnauthentic)
    );
    let wrong = Check {
        username: "relayfrag:other",
        ..Check::default()
    };
    assert_eq!(
        wrong.deliver(&mut agent, path(1), false, now),
        Err(Discard::UnknownUfrag)
    );
    let wrong = Check {
        username: "relayfrag",
        ..Check::default()
    };
    assert_eq!(
        wrong.deliver(&mut agent, path(1), false, now),
        Err(Discard::MalformedStun)
    );
    assert_eq!(
        (agent.last_check(), agent.selected(), agent.addresses().count()),
        (None, None, 0)
    );
}

#[test]
fn a_peer_that_says_it_is_controlled_is_told_of_the_conflict() {
    let (mut agent, now) = (agent(), Instant::now());
    let check = Check {
        controlled: true,
        ..Check::default()
    };
    assert!(matches!(
        check.deliver(&mut agent, path(1), false, now),
        Ok(Answered::Refused { .. })
    ));
    assert_eq!(agent.last_check(), None);
}

#[test]
fn before_dtls_the_latest_nomination_wins_at_once() {
    let (mut agent, now) = (agent(), Instant::now());
    let nominate = Check {
        nominate: true,
        ..Check::default()
    };
    Check::default().deliver(&mut agent, path(1), false, now).unwrap();
    nominate.deliver(&mut agent, path(2), false, now).unwrap();
    Check::default().deliver(&mut agent, path(1), false, now).unwrap();
    assert_eq!(
        agent.selected(),
        Some(path(2)),
        "a check without nomination does not take over"
    );
    nominate.deliver(&mut agent, path(3), false, now).unwrap();
    assert_eq!(agent.selected(), Some(path(3)));
}

#[test]
fn after_dtls_a_new_address_must_answer_first() {
    let (mut agent, mut now) = (agent(), Instant::now());
    let nominate = Check {
        nominate: true,
        ..Check::default()
    };
    nominate.deliver(&mut agent, path(1), false, now).unwrap();
    nominate.deliver(&mut agent, path(2), true, now).unwrap();
    assert_eq!(
        agent.selected(),
        Some(path(1)),
        "a spoofed source is not followed"
    );

    let mut out = [0; MESSAGE_BYTES_MAX];
    let (length, to) = agent.poll_request(now, &mut out).unwrap();
    assert_eq!(to, path(2));
    let request = Message::parse(&out[..length]).unwrap();
    assert_eq!(request.username(), Some("clientfrag:relayfrag"));
    assert!(request.verify_integrity(credentials("client").pwd.as_bytes()));
    assert!(
        agent.poll_request(now, &mut [0; MESSAGE_BYTES_MAX]).is_none(),
        "not due yet"
    );

    let mut answer = [0; 200];
    let length = Builder::new(
        &mut answer,
        Class::Success,
        Method::BINDING,
        request.transaction_id(),
    )
    .xor_mapped_address(path(9).remote)
    .integrity(credentials("client").pwd.as_bytes())
    .fingerprint()
    .finish()
    .unwrap();
    let answer = Message::parse(&answer[..length]).unwrap();
    assert_eq!(
        agent.handle_response(&answer, path(3)),
        Err(Discard::UnexpectedResponse),
        "from elsewhere"
    );
    assert_eq!(agent.handle_response(&answer, path(2)), Ok(()));
    assert_eq!(agent.selected(), Some(path(2)));
    assert_eq!(
        agent.handle_response(&answer, path(2)),
        Err(Discard::UnexpectedResponse),
        "once"
    );

    nominate.deliver(&mut agent, path(4), true, now).unwrap();
    let mut requests = 0;
    while let Some(due) = agent.due() {
        now = due;
        requests += u8::from(agent.poll_request(now, &mut out).is_some());
    }
    assert_eq!(
        (requests, agent.selected()),
        (CHALLENGE_TRIES, Some(path(2))),
        "silence is not followed"
    );
}

#[test]
fn an_answer_with_the_wrong_key_proves_nothing() {
    let (mut agent, now) = (agent(), Instant::now());
    let nominate = Check {
        nominate: true,
        ..Check::default()
    };
    nominate.deliver(&mut agent, path(1), false, now).unwrap();
    nominate.deliver(&mut agent, path(2), true, now).unwrap();
    let mut answer = [0; 200];
    let length = Builder::new(
        &mut answer,
        Class::Success,
        Method::BINDING,
        TransactionId([8; 12]),
    )
    .integrity(b"guess")
    .finish()
    .unwrap();
    let answer = Message::parse(&answer[..length]).unwrap();
    assert_eq!(
        agent.handle_response(&answer, path(2)),
        Err(Discard::StunUnauthentic)
    );
    assert_eq!(agent.selected(), Some(path(1)));
}

#[test]
fn candidates_by_the_thousand_are_not_remembered() {
    let (mut agent, now) = (agent(), Instant::now());
    for port in 1..=ADDRESSES_MAX as u16 {
        Check::default()
            .deliver(&mut agent, path(port), false, now)
            .unwrap();
    }
    assert_eq!(
        Check::default().deliver(&mut agent, path(99), false, now),
        Err(Discard::TooManyAddresses)
    );
    assert!(Check::default().deliver(&mut agent, path(3), false, now).is_ok());
    let later = now + STALE_AFTER;
    Check::default()
        .deliver(&mut agent, path(1), false, later)
        .unwrap();
    let roamed = Check::default()
        .deliver(&mut agent, path(99), false, later)
        .unwrap();
    assert!(
        matches!(
            roamed,
            Answered::Valid {
                forgotten: Some(_),
                ..
            }
        ),
        "an old address makes room"
    );
    assert_eq!(agent.addresses().count(), ADDRESSES_MAX);
}
