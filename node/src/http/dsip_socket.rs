//! One DSIP conversation: over a WebSocket at `/v1/dsip` (subprotocol `dsip.v0.3`, JSON in text, CBOR in binary
//! messages), or over QUIC.
//!
//! hello -> challenge -> invite -> answer, then updates both ways, then bye. Every envelope is signed, both ways;
//! signatures, freshness and replay are the crate `dsip`'s, this file is what the messages do. One connection carries
//! one session. A session whose connection breaks waits for a while for its client to come back over another one
//! ([`away`]); it never outlives its conversation.

mod away;
mod carrier;
mod credentials;
mod speech;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use away::Away;
use away::{NotAway, Return};
use axum::Extension;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use carrier::{Carrier, Gone, Heard, MESSAGE_LENGTH_MAX, QuicStream};
use credentials::Standings;
use dsip::message::{
    Bye, Challenge, ClientChanges, Description, ErrorBody, Hello, Invite, RelayChanges, Resume, Update,
};
use dsip::{ClientMessage, Encoding, Fault, Received, Receiver, SUBPROTOCOL};
use identity::{Did, Documents, Permit, Refusal, proof, token};
use metering::SessionId;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Place;
use super::problem::{Problem, sentence};
use crate::cashier::Notice;
use crate::clock;
use crate::money;
use crate::relay::Relay;
use crate::session::{EndReason, Join, Mode, OUTBOX_MAX, Told};

/// From connecting to an accepted invite: a person may be asked for a camera meanwhile, but not for long.
const INVITE_PATIENCE: Duration = Duration::from_secs(90);
/// How often a silent client is asked for a sign of life, and how long it may take to give one.
const PING_EVERY: Duration = Duration::from_secs(15);
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// A client that does not take a message in this time does not read.
const SEND_PATIENCE: Duration = Duration::from_secs(5);
/// How long an offer of ours waits for its answer. Browsers take well under a second.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Envelopes in a row, and a second: a call that people come and go in needs a handful a second.
const ENVELOPES_BURST: f64 = 100.0;
const ENVELOPES_PER_SECOND: f64 = 20.0;

/// A client that is still sending when its connection ends needs this long to read why: closing a socket with
/// unread input makes the kernel throw the goodbye away.
const LINGER: Duration = Duration::from_secs(1);

/// Upgrades to a DSIP conversation.
pub(crate) async fn upgrade(
    State(relay): State<Arc<Relay>>,
    Extension(place): Extension<Arc<Place>>,
    ConnectInfo(source): ConnectInfo<SocketAddr>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let usage = "Open a WebSocket here with the subprotocol dsip.v0.3.";
    let upgrade = upgrade
        .map_err(|_| Problem::new("bad-request", usage))?
        .protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return Err(Problem::new("bad-request", usage));
    }
    Ok(upgrade
        .max_message_size(MESSAGE_LENGTH_MAX)
        .max_frame_size(MESSAGE_LENGTH_MAX)
        .on_upgrade(move |socket| async move {
            let carrier = Carrier::WebSocket(socket);
            Conversation::new(relay, carrier, source.ip()).run().await;
            // The connection's place is taken for as long as the conversation lasts.
            drop(place);
        }))
}

/// A conversation over the one stream of a QUIC connection.
pub(crate) async fn converse_over_quic(
    relay: Arc<Relay>,
    connection: quinn::Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
) {
    let source = connection.remote_address().ip();
    let carrier = Carrier::Quic(QuicStream::new(connection, send, receive));
    Conversation::new(relay, carrier, source).run().await;
}

/// Why a conversation is over.
enum Over {
    /// The client said goodbye or closed its socket.
    Left,
    /// The client does not read, or is silent.
    Lost(EndReason),
    /// The relay has ended the session and said so.
    Ended,
    /// The client broke the rules of the connection itself.
    Misbehaved,
    /// The connection serves another conversation now: the one whose session was resumed over it.
    Resumed,
}

struct Conversation {
    relay: Arc<Relay>,
    carrier: Carrier,
    /// Where the client called from. Not for logs.
    source: IpAddr,
    /// As the client's last envelope came, ours go.
    encoding: Encoding,
    receiver: Receiver,
    challenge: Option<proof::Challenge>,
    live: Option<Live>,
    outbox: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    /// The last words about tracks and participants: what a client that comes back has to know.
    state: RelayChanges,
    /// Tells that the policy has changed.
    rules_changed: watch::Receiver<u64>,
    heard: Instant,
    began: Instant,
    bucket: (f64, Instant),
}

/// The session of this conversation.
struct Live {
    session: SessionId,
    permit: Arc<Permit>,
    /// Until when the offer of ours that is out may be answered.
    answer_due: Option<Instant>,
    /// The cashier's word: steps at once, the balance every 2 s.
    notices: mpsc::Receiver<Notice>,
    /// Which services the client may use, and what it was asked for.
    standings: Standings,
}

/// However a conversation ends, its session does not outlive it. One that was ended for a reason is gone by now.
impl Drop for Conversation {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            self.relay.leave(live.session, EndReason::ConnectionLost);
        }
    }
}

impl Conversation {
    fn new(relay: Arc<Relay>, carrier: Carrier, source: IpAddr) -> Conversation {
        let (outbox, told) = mpsc::channel(OUTBOX_MAX);
        let receiver = Receiver::new(relay.key.did().clone(), relay.dsip_memory.clone());
        let now = Instant::now();
        Conversation {
            rules_changed: relay.policies.changes(),
            relay,
            carrier,
            source,
            encoding: Encoding::Json,
            receiver,
            challenge: None,
            live: None,
            outbox,
            told,
            state: RelayChanges::default(),
            heard: now,
            began: now,
            bucket: (ENVELOPES_BURST, now),
        }
    }

    async fn run(mut self) {
        let mut over = self.converse().await;
        while let Over::Lost(EndReason::ConnectionLost) = over {
            over = match self.away().await {
                Ok(()) => self.converse().await,
                Err(over) => {
                    self.carrier = Carrier::Away;
                    if let Over::Lost(_) = over {
                        self.finish(EndReason::ConnectionLost);
                    }
                    return;
                }
            };
        }
        if let Some(live) = &self.live {
            match over {
                Over::Left => self.relay.leave(live.session, EndReason::Hangup),
                Over::Lost(reason) => self.relay.leave(live.session, reason),
                Over::Misbehaved => self.relay.leave(live.session, EndReason::Denied),
                Over::Ended | Over::Resumed => {}
            }
        }
        let (code, reason) = match over {
            Over::Resumed => return,
            Over::Left | Over::Ended => (1000, "bye"),
            Over::Lost(_) => (1008, "too slow or silent"),
            Over::Misbehaved => (1008, "rules of the connection"),
        };
        let _ = timeout(SEND_PATIENCE, self.carrier.close(code, reason)).await;
        if matches!(over, Over::Misbehaved) {
            tokio::time::sleep(LINGER).await;
        }
    }

    fn finish(&self, reason: EndReason) {
        if let Some(live) = &self.live {
            self.relay.leave(live.session, reason);
        }
    }

    /// The connection broke. The session goes on for as long as its client may take to come back.
    async fn away(&mut self) -> Result<(), Over> {
        let lost = || Over::Lost(EndReason::ConnectionLost);
        let patience = Duration::from_secs(self.relay.config.room.resume_seconds);
        let session = self.live.as_ref().map(|live| live.session).ok_or_else(lost)?;
        let key = self.receiver.speaker_key().ok_or_else(lost)?;
        if patience.is_zero() || self.relay.is_draining() {
            return Err(lost());
        }
        let mut returned = self.relay.away.wait(session, key).ok_or_else(lost)?;
        self.carrier = Carrier::Away;
        // An answer that was due may have been lost with the connection: the lines are offered again.
        self.answer_missed()?;
        let until = Instant::now() + patience;
        let over = loop {
            tokio::select! {
                client = &mut returned => match client {
                    Ok(client) => return self.resume(client).await,
                    Err(_) => break lost(),
                },
                Some(told) = self.told.recv() => match told {
                    Told::Tracks(tracks) => self.state.tracks = speech::tracks(tracks).tracks,
                    Told::Participants(list) => self.state.participants = speech::participants(list).participants,
                    Told::Ended(_) => break Over::Ended,
                    Told::NeedLines | Told::Draining(_) => {}
                },
                notice = next_notice(&mut self.live) => self.state.balance = Some(speech::balance(&notice)),
                () = sleep_until(until) => break lost(),
                () = self.relay.door_closed() => break lost(),
            }
        };
        self.relay.away.give_up(session);
        Err(over)
    }

    /// The client is back: it is told where its session stands.
    async fn resume(&mut self, client: Return) -> Result<(), Over> {
        let Return {
            carrier,
            encoding,
            receiver,
            correlates,
        } = client;
        (self.carrier, self.encoding, self.receiver) = (carrier, encoding, receiver);
        self.heard = Instant::now();
        let state = self.state.clone();
        self.update(Some(&correlates), state).await?;
        self.offer_more().await?;
        self.ask_again().await
    }

    async fn converse(&mut self) -> Over {
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.live.as_ref().and_then(|live| live.answer_due);
            let review = self.live.as_ref().and_then(|live| live.standings.due());
            let silent = match self.live {
                Some(_) => self.heard + SILENCE_MAX,
                None => (self.heard + SILENCE_MAX).min(self.began + INVITE_PATIENCE),
            };
            let done = tokio::select! {
                heard = self.carrier.hear() => self.hear(heard).await,
                Some(told) = self.told.recv() => self.pass_on(told).await,
                notice = next_notice(&mut self.live) => self.tell_balance(notice).await,
                _ = ping.tick() => self.ping().await,
                () = sleep_until(due.unwrap_or(silent)), if due.is_some() => self.answer_missed(),
                () = sleep_until(review.unwrap_or(silent)), if review.is_some() => {
                    self.review("credential-expired").await
                }
                Ok(()) = self.rules_changed.changed() => self.review("policy-changed").await,
                () = sleep_until(silent) => Err(Over::Lost(EndReason::ConnectionLost)),
                () = self.relay.door_closed(), if self.live.is_none() => Err(Over::Ended),
            };
            if let Err(over) = done {
                return over;
            }
        }
    }

    async fn hear(&mut self, heard: Heard) -> Result<(), Over> {
        self.heard = Instant::now();
        let (encoding, envelope) = match heard {
            Heard::Envelope(encoding, envelope) => (encoding, envelope),
            Heard::Alive => return Ok(()),
            Heard::TooLong => return self.too_long().await,
            Heard::Closed => return Err(Over::Left),
            Heard::Lost => return Err(Over::Lost(EndReason::ConnectionLost)),
        };
        self.encoding = encoding;
        if !self.within_rate() {
            let detail = "More envelopes than a call needs; connect again and send fewer.";
            self.complain(Fault::new(429, "rate-limited", detail)).await?;
            return Err(Over::Misbehaved);
        }
        let documents = match documents_of(&self.relay, encoding, &envelope).await {
            Ok(documents) => documents,
            Err(refusal) => return self.complain(refusal.into()).await,
        };
        let now = clock::unix();
        let received = match (encoding, str::from_utf8(&envelope)) {
            (Encoding::Cbor, _) => self.receiver.receive_cbor_with(&envelope, &documents, now),
            (Encoding::Json, Ok(text)) => self.receiver.receive_with(text, &documents, now),
            (Encoding::Json, Err(_)) => Err(Fault::new(400, "envelope-malformed", "JSON is UTF-8.")),
        };
        let received = match received {
            Ok(received) => received,
            Err(fault) => return self.complain(fault).await,
        };
        let id = received.envelope.id().to_owned();
        let done = match &received.message {
            ClientMessage::Hello(hello) => self.challenge(hello, &id).await,
            ClientMessage::Invite(invite) => self.invited(invite, &received, documents).await,
            ClientMessage::Resume(resume) => self.resumed(resume, &id).await,
            ClientMessage::Update(update) => self.updated(update, &id).await,
            ClientMessage::Ice => Ok(()),
            ClientMessage::Bye(_) => return Err(Over::Left),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Trouble::Over(over)) => Err(over),
            Err(Trouble::Fault(fault)) => self.complain(fault.about(&id)).await,
        }
    }

    async fn too_long(&mut self) -> Result<(), Over> {
        let detail = "An envelope has at most 64 KiB; connect again and send a smaller one.";
        self.complain(Fault::new(413, "too-large", detail)).await?;
        Err(Over::Misbehaved)
    }

    fn within_rate(&mut self) -> bool {
        let now = Instant::now();
        let (left, at) = self.bucket;
        let left = (left + (now - at).as_secs_f64() * ENVELOPES_PER_SECOND).min(ENVELOPES_BURST);
        self.bucket = (left - 1.0, now);
        left >= 1.0
    }

    async fn challenge(&mut self, hello: &Hello, id: &str) -> Result<(), Trouble> {
        let challenge = proof::Challenge::new(clock::unix());
        let body = Challenge {
            correlates: id.to_owned(),
            nonce: challenge.nonce().to_owned(),
            hello_nonce: hello.nonce.clone(),
            url: match &self.carrier {
                Carrier::Quic(_) => self.relay.quic_url(),
                Carrier::WebSocket(_) | Carrier::Away => self.relay.dsip_url(),
            },
            relay: self.relay.policies.rules().token.operator.clone(),
            tariff: self.relay.tariffs(),
        };
        self.challenge = Some(challenge);
        Ok(self.say("dsip.challenge", &body).await?)
    }

    async fn invited(
        &mut self,
        invite: &Invite,
        received: &Received,
        documents: Documents,
    ) -> Result<(), Trouble> {
        if self.live.is_some() {
            let detail = "This connection has a session; open another connection for another one.";
            return Err(Fault::new(409, "session-open", detail).into());
        }
        let permit = match self.permit(invite, received, documents).await {
            Ok(permit) => permit,
            Err(fault) => {
                self.relay.metrics.auth_failure("dsip-invite");
                return Err(fault.into());
            }
        };
        let permit = Arc::new(credentials::introduced(&self.relay, invite, permit).await?);
        let name = invite
            .name
            .clone()
            .unwrap_or_else(|| received.envelope.from().redacted());
        let joined = self
            .relay
            .join(Join {
                permit: permit.clone(),
                room: invite.room.clone(),
                name,
                mode: Mode::Call,
                offer: invite.media.sdp.clone(),
                max_msat_per_second: invite.max_msat_per_second,
                emergency: invite.priority.as_deref() == Some("emergency"),
                source: self.source,
                outbox: Some(self.outbox.clone()),
            })
            .await
            .map_err(|problem| credentials::wanting(&self.relay, &problem))?;
        let notices = self.relay.cashier.subscribe(joined.session);
        let standings = Standings::of(&self.relay.policies.rules(), &permit, clock::unix());
        self.live = Some(Live {
            session: joined.session,
            permit,
            answer_due: None,
            notices,
            standings,
        });
        let body = dsip::message::Answer {
            correlates: received.envelope.id().to_owned(),
            session: joined.session.to_string(),
            media: dsip::message::Media { sdp: joined.answer },
            economics: joined.economics,
        };
        Ok(self.say("dsip.answer", &body).await?)
    }

    /// Hands this connection to the conversation whose session the client asks for.
    async fn resumed(&mut self, resume: &Resume, id: &str) -> Result<(), Trouble> {
        if self.live.is_some() {
            let detail = "This connection has a session; open another connection for another one.";
            return Err(Fault::new(409, "session-open", detail).into());
        }
        let challenge = self
            .challenge
            .take()
            .ok_or_else(|| Fault::from(Refusal::NonceRequired))?;
        if !challenge.is_answered_by(&resume.nonce, clock::unix()) {
            return Err(Fault::from(Refusal::NonceRequired).into());
        }
        let fresh = Receiver::new(self.relay.key.did().clone(), self.relay.dsip_memory.clone());
        let client = Return {
            carrier: std::mem::replace(&mut self.carrier, Carrier::Away),
            encoding: self.encoding,
            receiver: std::mem::replace(&mut self.receiver, fresh),
            correlates: id.to_owned(),
        };
        let refused = match resume.session.parse() {
            Ok(session) => self.relay.away.come_back(session, client),
            Err(_) => Err(NotAway(Box::new(client))),
        };
        match refused {
            Ok(()) => Err(Over::Resumed.into()),
            Err(NotAway(client)) => {
                (self.carrier, self.receiver) = (client.carrier, client.receiver);
                let detail = "No such session waits for you: it has ended, or its connection still stands. \
                              Send an invite.";
                Err(Fault::new(404, "session-unknown", detail).into())
            }
        }
    }

    /// The holder's signature over the invite that answers our challenge, with the token in it.
    async fn permit(
        &mut self,
        invite: &Invite,
        received: &Received,
        mut documents: Documents,
    ) -> Result<Permit, Fault> {
        let relay = self.relay.clone();
        let rules = relay.policies.rules();
        let policy = &rules.token;
        // An invite by a did:key or a device key can still carry a token of a did:web.
        documents.extend(relay.resolver.documents_for(&invite.token, policy).await?);
        let now = clock::unix();
        let challenge = self
            .challenge
            .take()
            .ok_or_else(|| Fault::from(Refusal::NonceRequired))?;
        let proof = received.holder_proof(challenge, &documents, now)?;
        let token = token::verify_with(&invite.token, policy, &documents, now)?;
        Ok(Permit::from_holder_proof(token, proof)?)
    }

    async fn updated(&mut self, update: &Update<ClientChanges>, id: &str) -> Result<(), Trouble> {
        let Some(live) = self
            .live
            .as_ref()
            .filter(|live| live.session.to_string() == update.session)
        else {
            return Err(Fault::new(
                404,
                "session-unknown",
                "No such session on this connection; send an invite.",
            )
            .into());
        };
        let (session, account) = (live.session, live.permit.account().to_owned());
        let changes = &update.changes;
        if let Some(Description { sdp, seq }) = &changes.offer
            && let Some((answer, _)) = self.relay.reoffer(session, sdp)?
        {
            let answer = RelayChanges {
                answer: Some(Description {
                    sdp: answer,
                    seq: *seq,
                }),
                ..RelayChanges::default()
            };
            self.update(Some(id), answer).await?;
            self.offer_more().await?;
        }
        if let Some(Description { sdp, seq }) = &changes.answer {
            if let Some(live) = &mut self.live {
                live.answer_due = None;
            }
            self.relay.answered(session, *seq, sdp)?;
            self.offer_more().await?;
        }
        if let Some(mute) = changes.mute {
            self.relay
                .registry()
                .in_room(session, |room| room.set_mute(session, mute.audio, mute.video));
        }
        if let Some(wish) = &changes.subscribe {
            let subscribe = |room: &mut sfu::room::Room| {
                room.set_subscription(session, &wish.name, wish.audio, wish.video)
            };
            self.relay.registry().in_room(session, subscribe);
        }
        if let Some(topup) = &changes.topup {
            let credited = money::top_up(&self.relay, &topup.token, &account).await?;
            let changes = RelayChanges {
                topup: Some(credited),
                ..RelayChanges::default()
            };
            self.update(Some(id), changes).await?;
        }
        if let Some(present) = &changes.present {
            self.presented(present, id).await?;
        }
        if let Some(want) = &changes.want {
            self.wanted(want, id).await?;
        }
        Ok(())
    }

    /// Offers the lines that the client lacks, if none of our offers is out.
    async fn offer_more(&mut self) -> Result<(), Over> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let Some((sdp, seq)) = self.relay.offer_more(live.session) else {
            return Ok(());
        };
        live.answer_due = Some(Instant::now() + ANSWER_PATIENCE);
        let offer = Some(Description { sdp, seq });
        self.update(
            None,
            RelayChanges {
                offer,
                ..RelayChanges::default()
            },
        )
        .await
    }

    /// The client never answered our offer: it stays as it is, and we may offer again when the room changes.
    fn answer_missed(&mut self) -> Result<(), Over> {
        if let Some(live) = &mut self.live {
            live.answer_due = None;
            self.relay.unanswered(live.session);
        }
        Ok(())
    }

    async fn pass_on(&mut self, told: Told) -> Result<(), Over> {
        match told {
            Told::NeedLines => self.offer_more().await,
            Told::Tracks(tracks) => {
                let changes = speech::tracks(tracks);
                self.state.tracks.clone_from(&changes.tracks);
                self.update(None, changes).await
            }
            Told::Participants(list) => {
                let changes = speech::participants(list);
                self.state.participants.clone_from(&changes.participants);
                self.update(None, changes).await
            }
            Told::Draining(seconds) => {
                let changes = serde_json::json!({ "draining": { "seconds": seconds } });
                self.update(None, changes).await
            }
            Told::Ended(reason) => {
                let session = self.live.as_ref().map(|live| live.session.to_string());
                let _ = self
                    .say(
                        "dsip.bye",
                        &Bye {
                            reason: reason.as_str().to_owned(),
                            session,
                        },
                    )
                    .await;
                Err(Over::Ended)
            }
        }
    }

    async fn tell_balance(&mut self, notice: Notice) -> Result<(), Over> {
        let balance = Some(speech::balance(&notice));
        self.state.balance.clone_from(&balance);
        self.update(
            None,
            RelayChanges {
                balance,
                ..RelayChanges::default()
            },
        )
        .await
    }

    async fn update(&mut self, correlates: Option<&str>, changes: impl Serialize) -> Result<(), Over> {
        let Some(live) = &self.live else { return Ok(()) };
        let correlates = correlates.map(str::to_owned);
        let body = Update {
            correlates,
            session: live.session.to_string(),
            changes,
        };
        self.say("dsip.update", &body).await
    }

    async fn complain(&mut self, fault: Fault) -> Result<(), Over> {
        let mut body = ErrorBody::from(&fault);
        body.detail = sentence(&body.detail);
        self.say("dsip.error", &body).await
    }

    async fn say(&mut self, kind: &str, body: &impl Serialize) -> Result<(), Over> {
        let to: Option<&Did> = self.receiver.speaker();
        let (key, now) = (&self.relay.key, clock::unix());
        let envelope = match self.encoding {
            Encoding::Json => dsip::seal(key, to, kind, body, now).into_bytes(),
            Encoding::Cbor => dsip::seal_cbor(key, to, kind, body, now),
        };
        within_patience(self.carrier.say(self.encoding, envelope)).await
    }

    async fn ping(&mut self) -> Result<(), Over> {
        if within_patience(self.carrier.ping()).await? {
            self.heard = Instant::now();
        }
        Ok(())
    }
}

/// A client that does not take what is sent is slow; one that cannot be sent to is gone.
async fn within_patience<T>(sending: impl Future<Output = Result<T, Gone>>) -> Result<T, Over> {
    match timeout(SEND_PATIENCE, sending).await {
        Ok(Ok(sent)) => Ok(sent),
        Ok(Err(Gone)) => Err(Over::Lost(EndReason::ConnectionLost)),
        Err(_) => Err(Over::Lost(EndReason::SlowClient)),
    }
}

/// What an envelope by a did:web needs to be checked: the document of its signer, which is fetched for who is known
/// here, or who brings a token of a listed issuer (in the hello too) that names it.
async fn documents_of(relay: &Relay, encoding: Encoding, envelope: &[u8]) -> Result<Documents, Refusal> {
    let named = match (encoding, str::from_utf8(envelope)) {
        (Encoding::Cbor, _) => dsip::signer_named_cbor(envelope),
        (Encoding::Json, Ok(text)) => dsip::signer_named(text),
        (Encoding::Json, Err(_)) => None,
    };
    let Some((signer, token)) = named else {
        return Ok(Documents::none());
    };
    let mut documents = match token {
        Some(token) => {
            relay
                .resolver
                .documents_for(&token, &relay.policies.rules().token)
                .await?
        }
        None => Documents::none(),
    };
    if documents.lacks(&signer) && relay.is_known(&signer).await {
        relay.resolver.add(&mut documents, &[signer]).await;
    }
    Ok(documents)
}

/// The next word of the cashier about the session; never, while there is none.
async fn next_notice(live: &mut Option<Live>) -> Notice {
    match live {
        Some(live) => match live.notices.recv().await {
            Some(notice) => notice,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// What can go wrong with a message: something to tell the client, or the end.
enum Trouble {
    Fault(Fault),
    Over(Over),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        Trouble::Fault(fault)
    }
}

impl From<Over> for Trouble {
    fn from(over: Over) -> Trouble {
        Trouble::Over(over)
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Trouble {
        Trouble::Fault(speech::fault(&problem))
    }
}
