//! The messages of a call; those about credentials are in [`crate::credentials`]. Client to relay: hello, invite, resume, update, ice, bye. Relay to client: challenge, answer,
//! update, bye, error. Unknown members are ignored, so that either side can grow.

use identity::Did;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::credentials::{CREDENTIALS_MAX, Introduction, Present, Request, Verified, Want, Wanted};
use crate::envelope::Envelope;
use crate::fault::Fault;

/// Longest `name`, `room` and `session`, bytes.
pub const NAME_LENGTH_MAX: usize = 256;

/// An SDP in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// RFC 8866.
    pub sdp: String,
}

/// An offer or answer; `seq` counts one side's offers, an answer repeats the offer's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// RFC 8866.
    pub sdp: String,
    /// Which offer.
    pub seq: u64,
}

/// `dsip.hello`: the client's nonce comes back in the challenge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Chosen by the client.
    pub nonce: String,
}

/// `dsip.challenge`: signed by the relay, so that the client can check whom it talks to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Challenge {
    /// The hello's `id`.
    pub correlates: String,
    /// To be signed in the invite, once, on this connection, within 60 s.
    pub nonce: String,
    /// The hello's `nonce`.
    pub hello_nonce: String,
    /// The WebSocket URL of this relay.
    pub url: String,
    /// The operator's DID: has to be the token's `aud`.
    pub relay: Did,
    /// As in `GET /v1/tariff`.
    pub tariff: Vec<Value>,
}

/// `dsip.invite`: the token, the answer to the challenge, the first offer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// Which room.
    pub room: String,
    /// Display name; a short form of the DID if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The relay token.
    pub token: String,
    /// The challenge's.
    pub nonce: String,
    /// The offer.
    pub media: Media,
    /// The client's own limit on what this session may cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_msat_per_second: Option<u64>,
    /// Credentials besides those in the token (DSIP 6.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Introduction>,
    /// `emergency`, where it is one (section 19).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
}

/// `dsip.resume`: a session goes on over this connection, after the one it was on broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Which.
    pub session: String,
    /// The challenge's.
    pub nonce: String,
}

/// `dsip.answer`: the session is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The invite's `id`.
    pub correlates: String,
    /// The session's name.
    pub session: String,
    /// The answer.
    pub media: Media,
    /// What it costs and what there is.
    pub economics: Economics,
}

/// Price and balance at admission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Economics {
    /// Tariff id.
    pub tariff: String,
    /// What the account can still spend.
    pub available_msat: i64,
    /// How long it lasts at full quality; null while nothing burns. Below 2^53.
    pub runway_seconds: Option<f64>,
    /// The ladder's step.
    pub step: String,
}

/// `dsip.update`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update<C> {
    /// The `id` being answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlates: Option<String>,
    /// Which session.
    pub session: String,
    /// What changes.
    pub changes: C,
}

/// What a client may change; several at once are applied in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientChanges {
    /// A new offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<Description>,
    /// The answer to a relay's offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Description>,
    /// What the client stops (true) or resumes (false) sending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mute: Option<Mute>,
    /// What the client wants of one participant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Subscribe>,
    /// A further token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topup: Option<Topup>,
    /// The credentials that the relay asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub present: Option<Present>,
    /// A service that the client wants to use: the relay says that it may, or asks for credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub want: Option<Want>,
}

/// True: muted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mute {
    /// The microphone.
    #[serde(default)]
    pub audio: bool,
    /// The camera.
    #[serde(default)]
    pub video: bool,
}

/// True: wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Of whom.
    pub name: String,
    /// Its audio.
    #[serde(default = "wanted")]
    pub audio: bool,
    /// Its video.
    #[serde(default = "wanted")]
    pub video: bool,
}

fn wanted() -> bool {
    true
}

/// A further token for the same account.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topup {
    /// The relay token.
    pub token: String,
}

/// What the relay tells; several at once are possible.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayChanges {
    /// A new offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<Description>,
    /// The answer to a client's offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Description>,
    /// The whole current mapping of receive m-lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracks: Option<Vec<Track>>,
    /// Everybody in the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participants: Option<Vec<Participant>>,
    /// The account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// The result of a top-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topup: Option<Credited>,
    /// Credentials that the relay asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// What came of those that were presented.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verified>,
}

/// Whose media a receive m-line carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// `a=mid` of the line.
    pub mid: String,
    /// "audio" or "video".
    pub kind: String,
    /// The participant.
    pub name: String,
}

/// Somebody in the room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// The participant.
    pub name: String,
    /// Publishes audio and has not muted it.
    pub audio: bool,
    /// Publishes video and has not muted it.
    pub video: bool,
}

/// The account of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// What the account can still spend.
    pub available_msat: i64,
    /// How long it lasts at full quality; null while nothing burns. Below 2^53.
    pub runway_seconds: Option<f64>,
    /// The ladder's step.
    pub step: String,
    /// What the account burns.
    pub burn_msat_per_second: f64,
}

/// The result of a top-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credited {
    /// By this voucher.
    pub credited_msat: u64,
    /// Now.
    pub available_msat: i64,
    /// The voucher had been credited before.
    pub repeated: bool,
}

/// `dsip.bye`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Such as "hangup", "balance-exhausted", "draining".
    #[serde(default)]
    pub reason: String,
    /// Which session, if the connection has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// `dsip.error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The `id` that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlates: Option<String>,
    /// As HTTP.
    pub code: u16,
    /// Stable, for programs.
    pub reason: String,
    /// For people.
    pub detail: String,
    /// Of `policy:reputation-too-low`: the credentials that would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Box<Wanted>>,
}

impl From<&Fault> for ErrorBody {
    fn from(fault: &Fault) -> ErrorBody {
        ErrorBody {
            correlates: fault.correlates.clone(),
            code: fault.code,
            reason: fault.reason.to_string(),
            detail: fault.detail.to_string(),
            wanted: fault.wanted.clone(),
        }
    }
}

/// What a client says.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientMessage {
    /// `dsip.hello`.
    Hello(Hello),
    /// `dsip.invite`.
    Invite(Invite),
    /// `dsip.resume`.
    Resume(Resume),
    /// `dsip.update`.
    Update(Update<ClientChanges>),
    /// `dsip.ice`: accepted and ignored, the relay is ICE-lite.
    Ice,
    /// `dsip.bye`.
    Bye(Bye),
}

impl ClientMessage {
    pub(crate) fn read(envelope: &Envelope) -> Result<ClientMessage, Fault> {
        match envelope.kind() {
            "dsip.hello" => {
                let hello: Hello = envelope.body("`dsip.hello` needs `nonce`, a string of 1 to 256 bytes")?;
                within_limits(&[&hello.nonce])?;
                Ok(ClientMessage::Hello(hello))
            }
            "dsip.invite" => {
                let invite: Invite = envelope.body(
                    "`dsip.invite` needs `room`, `token`, `nonce` and `media.sdp`, strings; `name` may be a string, \
                     `max_msat_per_second` an integer",
                )?;
                within_limits(&[&invite.room, &invite.nonce])?;
                if let Some(name) = &invite.name {
                    within_limits(&[name])?;
                }
                if let Some(introduction) = &invite.identity {
                    few_enough(&introduction.texts())?;
                }
                Ok(ClientMessage::Invite(invite))
            }
            "dsip.resume" => {
                let resume: Resume =
                    envelope.body("`dsip.resume` needs `session` and the challenge's `nonce`, strings")?;
                within_limits(&[&resume.session, &resume.nonce])?;
                Ok(ClientMessage::Resume(resume))
            }
            "dsip.update" => {
                let update: Update<ClientChanges> = envelope.body(
                    "`dsip.update` needs `session` and `changes` with `offer` or `answer` {`sdp`, `seq`}, `mute` \
                     {`audio`, `video`}, `subscribe` {`name`, `audio`, `video`}, `topup` {`token`}, `present` {`nonce`, \
                     `credentials`} or `want` {`service`}",
                )?;
                if update.changes == ClientChanges::default() {
                    return Err(Fault::malformed(
                        "`changes` names nothing that this relay knows: `offer`, `answer`, `mute`, `subscribe`, `topup`, \
                         `present`, `want`",
                    ));
                }
                if let Some(present) = &update.changes.present {
                    few_enough(&present.credentials)?;
                    within_limits(&[&present.nonce])?;
                }
                Ok(ClientMessage::Update(update))
            }
            "dsip.ice" => Ok(ClientMessage::Ice),
            "dsip.bye" => Ok(ClientMessage::Bye(
                envelope.body("`dsip.bye` may have `reason`, a string")?,
            )),
            _ => Err(Fault::new(
                404,
                "type-unknown",
                "a client sends `dsip.hello`, `dsip.invite`, `dsip.resume`, `dsip.update`, `dsip.ice` or `dsip.bye`",
            )),
        }
    }
}

fn few_enough(credentials: &[String]) -> Result<(), Fault> {
    if credentials.len() <= CREDENTIALS_MAX {
        return Ok(());
    }
    Err(Fault::new(
        413,
        "too-large",
        "a presentation has at most four credentials; send those that the relay asks for",
    ))
}

fn within_limits(names: &[&str]) -> Result<(), Fault> {
    if names
        .iter()
        .all(|name| (1..=NAME_LENGTH_MAX).contains(&name.len()) && !name.contains(char::is_control))
    {
        Ok(())
    } else {
        Err(Fault::malformed(
            "`room`, `name` and `nonce` have 1 to 256 bytes and no control characters",
        ))
    }
}

/// What the relay says, as a client reads it.
#[derive(Clone, Debug, PartialEq)]
pub enum RelayMessage {
    /// `dsip.challenge`.
    Challenge(Challenge),
    /// `dsip.answer`.
    Answer(Answer),
    /// `dsip.update`.
    Update(Box<Update<RelayChanges>>),
    /// `dsip.bye`.
    Bye(Bye),
    /// `dsip.error`.
    Error(ErrorBody),
}

impl RelayMessage {
    /// Reads a relay's envelope. The caller has checked who signed it.
    pub fn read(envelope: &Envelope) -> Result<RelayMessage, Fault> {
        const SHAPE: &str = "the body does not fit its `type`";
        Ok(match envelope.kind() {
            "dsip.challenge" => RelayMessage::Challenge(envelope.body(SHAPE)?),
            "dsip.answer" => RelayMessage::Answer(envelope.body(SHAPE)?),
            "dsip.update" => RelayMessage::Update(envelope.body(SHAPE)?),
            "dsip.bye" => RelayMessage::Bye(envelope.body(SHAPE)?),
            "dsip.error" => RelayMessage::Error(envelope.body(SHAPE)?),
            _ => {
                return Err(Fault::new(
                    404,
                    "type-unknown",
                    "a relay does not send this `type`",
                ));
            }
        })
    }
}

/// Tokens do not print.
impl std::fmt::Debug for Invite {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Invite({} bytes of SDP)", self.media.sdp.len())
    }
}

impl std::fmt::Debug for Topup {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Topup(…)")
    }
}
