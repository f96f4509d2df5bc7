//! Calls over DSIP: one WebSocket and one connection for media a participant, renegotiated by the relay as others come.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use dsip::message::{Bye, Challenge, ClientChanges, Description, Hello, Invite, Media, Update};
use dsip::{Envelope, RelayMessage, SUBPROTOCOL};
use identity::{Did, SigningKey};
use serde::Serialize;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::Error;
use crate::holder::{now, token};
use crate::peer::Negotiated;
use crate::sdp::{Direction, Kind, Local, Remote, answer, offer};

/// What each participant may spend: enough for hours.
const BALANCE_MSAT: u64 = 100_000_000;

/// How long the relay may take for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pairs of receiving m-lines in the first offer; the relay offers more where it needs them.
const RECEIVING_PAIRS_MAX: usize = 16;

/// Every participant's WebSocket at one relay.
pub(super) struct Calls {
    base: String,
    participants: Vec<Participant>,
}

struct Participant {
    socket: WebSocket<TcpStream>,
    key: SigningKey,
    relay: Option<Did>,
    session: String,
    local: Local,
}

impl Calls {
    /// Nobody yet.
    pub(super) fn new(base: &str) -> Calls {
        Calls {
            base: base.trim_end_matches('/').to_owned(),
            participants: Vec::new(),
        }
    }

    /// Hello, challenge, invite, answer.
    pub(super) fn join(
        &mut self,
        local: &Local,
        room: &str,
        name: &str,
        others: usize,
    ) -> Result<Negotiated, Error> {
        let host = self
            .base
            .strip_prefix("http://")
            .ok_or("only http:// is spoken here")?;
        let key = SigningKey::generate();
        let token = token(&self.base, &key, BALANCE_MSAT)?;
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = format!("ws://{host}/v1/dsip").into_client_request()?;
        request
            .headers_mut()
            .insert("sec-websocket-protocol", SUBPROTOCOL.parse()?);
        let (socket, _) =
            tungstenite::client(request, stream).map_err(|error| format!("no WebSocket: {error}"))?;
        let mut participant = Participant {
            socket,
            key,
            relay: None,
            session: String::new(),
            local: local.clone(),
        };
        let challenge = participant.hello()?;
        let mut lines = vec![(Kind::Audio, Direction::Send), (Kind::Video, Direction::Send)];
        for _ in 0..others.min(RECEIVING_PAIRS_MAX) {
            lines.extend([
                (Kind::Audio, Direction::Receive),
                (Kind::Video, Direction::Receive),
            ]);
        }
        let invite = Invite {
            room: room.to_owned(),
            name: Some(name.to_owned()),
            token,
            nonce: challenge.nonce,
            media: Media {
                sdp: offer(local, &lines),
            },
            max_msat_per_second: None,
            identity: None,
            priority: None,
        };
        participant.say("dsip.invite", &invite)?;
        let sdp = loop {
            match participant.hear()? {
                Some(RelayMessage::Answer(answer)) => {
                    participant.session = answer.session;
                    break answer.media.sdp;
                }
                Some(message) => participant.follow(message)?,
                None => return Err("no answer to an invite".into()),
            }
        };
        participant.socket.get_ref().set_nonblocking(true)?;
        self.participants.push(participant);
        Ok(Negotiated {
            remote: Remote::parse(&sdp)?,
            we_offered: true,
        })
    }

    /// Answers the relay's offers.
    pub(super) fn attend(&mut self) -> Result<(), Error> {
        for participant in &mut self.participants {
            while let Some(message) = participant.hear()? {
                participant.follow(message)?;
            }
        }
        Ok(())
    }

    /// Says goodbye everywhere.
    pub(super) fn leave(&mut self) {
        for participant in &mut self.participants {
            let bye = Bye {
                reason: "hangup".into(),
                session: Some(participant.session.clone()),
            };
            // Who is gone already needs no goodbye.
            let _ = participant.say("dsip.bye", &bye);
        }
        self.participants.clear();
    }
}

impl Participant {
    fn hello(&mut self) -> Result<Challenge, Error> {
        let nonce = format!("loadtest-{}", self.local.ufrag);
        self.say("dsip.hello", &Hello { nonce })?;
        match self.hear()? {
            Some(RelayMessage::Challenge(challenge)) => {
                self.relay = Some(challenge.relay.clone());
                Ok(challenge)
            }
            other => Err(format!("not a challenge: {other:?}").into()),
        }
    }

    fn say(&mut self, kind: &str, body: &impl Serialize) -> Result<(), Error> {
        let envelope = dsip::seal(&self.key, self.relay.as_ref(), kind, body, now()?);
        let mut sent = self.socket.send(Message::text(envelope));
        let end = Instant::now() + PATIENCE;
        // The socket may be full for a moment.
        while let Err(tungstenite::Error::Io(error)) = &sent
            && error.kind() == ErrorKind::WouldBlock
            && Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(1));
            sent = self.socket.flush();
        }
        Ok(sent?)
    }

    /// The next message; `None` where none has come yet.
    fn hear(&mut self) -> Result<Option<RelayMessage>, Error> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let envelope = Envelope::open(&text).map_err(|fault| format!("{fault:?}"))?;
                    let message = RelayMessage::read(&envelope).map_err(|fault| format!("{fault:?}"))?;
                    return Ok(Some(message));
                }
                Ok(Message::Close(_)) => return Err("the relay closed a WebSocket".into()),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(None);
                }
                Err(error) => return Err(format!("a WebSocket broke: {error}").into()),
            }
        }
    }

    fn follow(&mut self, message: RelayMessage) -> Result<(), Error> {
        match message {
            RelayMessage::Update(update) => {
                let Some(offer) = update.changes.offer else {
                    return Ok(());
                };
                let sdp = answer(&self.local, &Remote::parse(&offer.sdp)?);
                let update = Update {
                    correlates: None,
                    session: update.session,
                    changes: ClientChanges {
                        answer: Some(Description { sdp, seq: offer.seq }),
                        ..ClientChanges::default()
                    },
                };
                self.say("dsip.update", &update)
            }
            RelayMessage::Error(error) => {
                Err(format!("{} {}: {}", error.code, error.reason, error.detail).into())
            }
            RelayMessage::Bye(bye) => Err(format!("the relay said goodbye: {}", bye.reason).into()),
            _ => Ok(()),
        }
    }
}
