//! Session descriptions of the light clients, by hand: offers as a browser makes them for Opus and VP8 with RTX, what
//! matters of an answer, and answers to a server that offers (Janus to subscribers, Milliway in a growing call).
//!
//! One BUNDLE on one transport; codecs other than these two, simulcast and data channels are not spoken.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use crate::Error;

/// What an m-line carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opus.
    Audio,
    /// VP8.
    Video,
}

/// Which way media flows on an m-line, as its writer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Out.
    Send,
    /// In.
    Receive,
    /// Both.
    Both,
    /// Not at all.
    Inactive,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Direction::Send => "sendonly",
            Direction::Receive => "recvonly",
            Direction::Both => "sendrecv",
            Direction::Inactive => "inactive",
        }
    }

    fn read(line: &str) -> Option<Direction> {
        use Direction::{Both, Inactive, Receive, Send};
        [Send, Receive, Both, Inactive]
            .into_iter()
            .find(|direction| direction.as_str() == line)
    }
}

/// The SSRCs that a publisher sends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssrcs {
    /// Of the audio.
    pub audio: u32,
    /// Of the video.
    pub video: u32,
    /// Of what is sent again of it.
    pub rtx: u32,
}

/// A light client's own side.
#[derive(Clone, Debug)]
pub struct Local {
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// "sha-256 AB:CD:...".
    pub fingerprint: String,
    /// Its host candidate.
    pub address: SocketAddr,
    /// What it sends with, where it publishes.
    pub ssrcs: Ssrcs,
}

/// Who opens the DTLS handshake, as the other side says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Either.
    ActPass,
    /// The other side.
    Active,
    /// We.
    Passive,
}

/// What the other side said.
#[derive(Clone, Debug)]
pub struct Remote {
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// Hash name and digest of its certificate.
    pub fingerprint: (String, Vec<u8>),
    /// Its DTLS role.
    pub setup: Setup,
    /// Whether it only answers connectivity checks.
    pub ice_lite: bool,
    /// Where it can be reached, best first.
    pub candidates: Vec<SocketAddr>,
    /// Its m-lines.
    pub lines: Vec<Line>,
}

/// An m-line of the other side.
#[derive(Clone, Debug)]
pub struct Line {
    /// `None` for what is neither audio nor video.
    pub kind: Option<Kind>,
    /// `a=mid`.
    pub mid: String,
    /// As the other side sees it.
    pub direction: Direction,
    /// Port 0.
    pub is_rejected: bool,
    /// Payload types with the codec's name in lower case.
    pub codecs: Vec<(u8, String)>,
    /// Pairs of a payload type of RTX and the one that it repairs.
    pub rtx: Vec<(u8, u8)>,
    /// Ids and URIs of header extensions.
    pub extensions: Vec<(u8, String)>,
    /// Whether feedback may come without a report before it (RFC 5506).
    pub is_reduced_size: bool,
    media: String,
    protocol: String,
    formats: String,
}

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
const TRANSPORT_WIDE: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const OFFERED_EXTENSIONS: [(u8, &str); 3] = [(2, ABS_SEND_TIME), (3, TRANSPORT_WIDE), (4, MID)];

/// Our own payload types, those of Chromium.
const OPUS: u8 = 111;
const VP8: u8 = 96;
const VP8_RTX: u8 = 97;

impl Line {
    /// The payload type of Opus or VP8.
    #[must_use]
    pub fn payload_type(&self) -> Option<u8> {
        let codec = match self.kind? {
            Kind::Audio => "opus",
            Kind::Video => "vp8",
        };
        self.codecs
            .iter()
            .find(|(_, name)| name == codec)
            .map(|(pt, _)| *pt)
    }

    /// The payload type of its RTX.
    #[must_use]
    pub fn rtx_payload_type(&self) -> Option<u8> {
        let pt = self.payload_type()?;
        self.rtx.iter().find(|(_, apt)| *apt == pt).map(|(rtx, _)| *rtx)
    }

    fn extension(&self, uri: &str) -> Option<u8> {
        self.extensions
            .iter()
            .find(|(_, known)| known == uri)
            .map(|(id, _)| *id)
    }
}

/// What both sides agreed on for one kind of media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Payload type.
    pub payload_type: u8,
    /// Of RTX, where retransmissions have a stream of their own.
    pub rtx_payload_type: Option<u8>,
    /// The line's MID.
    pub mid: String,
    /// Id of the MID extension.
    pub mid_extension: Option<u8>,
    /// Id of abs-send-time.
    pub abs_send_time: Option<u8>,
    /// Id of the transport-wide sequence number.
    pub transport_wide: Option<u8>,
}

impl Remote {
    /// What was agreed on for the first line of this kind that flows so, as the other side sees it.
    #[must_use]
    pub fn agreed(&self, kind: Kind, direction: Direction) -> Option<Agreed> {
        let line = self.lines.iter().find(|line| {
            line.kind == Some(kind)
                && !line.is_rejected
                && (line.direction == direction || line.direction == Direction::Both)
                && line.payload_type().is_some()
        })?;
        Some(Agreed {
            payload_type: line.payload_type()?,
            rtx_payload_type: line.rtx_payload_type(),
            mid: line.mid.clone(),
            mid_extension: line.extension(MID),
            abs_send_time: line.extension(ABS_SEND_TIME),
            transport_wide: line.extension(TRANSPORT_WIDE),
        })
    }

    /// Reads an offer or an answer.
    pub fn parse(text: &str) -> Result<Remote, Error> {
        let mut session = Level::default();
        let mut lines: Vec<(Line, Level)> = Vec::new();
        let mut ice_lite = false;
        let mut candidates: Vec<(u32, SocketAddr)> = Vec::new();
        for row in text.lines().map(str::trim_end) {
            if let Some(media) = row.strip_prefix("m=") {
                lines.push((media_line(media)?, Level::default()));
                continue;
            }
            let Some(attribute) = row.strip_prefix("a=") else {
                continue;
            };
            ice_lite |= attribute == "ice-lite";
            candidates.extend(attribute.strip_prefix("candidate:").and_then(candidate));
            match lines.last_mut() {
                Some((line, level)) => {
                    level.read(attribute);
                    line.read(attribute);
                }
                None => session.read(attribute),
            }
        }
        // The BUNDLE's transport is that of its first line; where that is silent, the session's.
        let levels = || {
            lines
                .iter()
                .filter(|(line, _)| !line.is_rejected)
                .map(|(_, level)| level)
                .chain([&session])
        };
        let ufrag = levels().find_map(|level| level.ufrag.clone());
        let pwd = levels().find_map(|level| level.pwd.clone());
        let fingerprint = levels().find_map(|level| level.fingerprint.clone());
        let setup = levels().find_map(|level| level.setup);
        candidates.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        // Every m-line may repeat them.
        candidates.dedup();
        Ok(Remote {
            ufrag: ufrag.ok_or("an SDP without a=ice-ufrag")?,
            pwd: pwd.ok_or("an SDP without a=ice-pwd")?,
            fingerprint: fingerprint.ok_or("an SDP without a=fingerprint")?,
            setup: setup.ok_or("an SDP without a=setup")?,
            ice_lite,
            candidates: candidates.into_iter().map(|(_, address)| address).collect(),
            lines: lines.into_iter().map(|(line, _)| line).collect(),
        })
    }
}

/// Transport attributes of the session or of one m-line.
#[derive(Default)]
struct Level {
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprint: Option<(String, Vec<u8>)>,
    setup: Option<Setup>,
}

impl Level {
    fn read(&mut self, attribute: &str) {
        let Some((name, value)) = attribute.split_once(':') else {
            return;
        };
        match name {
            "ice-ufrag" => self.ufrag = Some(value.trim().to_owned()),
            "ice-pwd" => self.pwd = Some(value.trim().to_owned()),
            "fingerprint" => self.fingerprint = fingerprint(value),
            "setup" => {
                self.setup = match value.trim() {
                    "actpass" => Some(Setup::ActPass),
                    "active" => Some(Setup::Active),
                    "passive" => Some(Setup::Passive),
                    _ => None,
                }
            }
            _ => {}
        }
    }
}

fn fingerprint(value: &str) -> Option<(String, Vec<u8>)> {
    let (hash, digest) = value.trim().split_once(' ')?;
    let bytes: Result<Vec<u8>, _> = digest
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect();
    Some((hash.to_ascii_lowercase(), bytes.ok()?))
}

/// Priority and address of a UDP candidate of the RTP component.
fn candidate(value: &str) -> Option<(u32, SocketAddr)> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let &[_, component, transport, priority, ip, port, ..] = &words[..] else {
        return None;
    };
    if component != "1" || !transport.eq_ignore_ascii_case("udp") {
        return None;
    }
    let ip: IpAddr = ip.parse().ok()?;
    Some((priority.parse().ok()?, SocketAddr::new(ip, port.parse().ok()?)))
}

fn media_line(text: &str) -> Result<Line, Error> {
    let mut words = text.splitn(4, ' ');
    let mut word = || words.next().ok_or("an m-line that is too short");
    let (media, port, protocol, formats) = (word()?, word()?, word()?, word()?);
    Ok(Line {
        kind: match media {
            "audio" => Some(Kind::Audio),
            "video" => Some(Kind::Video),
            _ => None,
        },
        mid: String::new(),
        direction: Direction::Both,
        is_rejected: port == "0",
        codecs: Vec::new(),
        rtx: Vec::new(),
        extensions: Vec::new(),
        is_reduced_size: false,
        media: media.to_owned(),
        protocol: protocol.to_owned(),
        formats: formats.to_owned(),
    })
}

impl Line {
    fn read(&mut self, attribute: &str) {
        if let Some(direction) = Direction::read(attribute) {
            self.direction = direction;
        }
        self.is_reduced_size |= attribute == "rtcp-rsize";
        let Some((name, value)) = attribute.split_once(':') else {
            return;
        };
        let (first, rest) = value.split_once(' ').unwrap_or((value, ""));
        match name {
            "mid" => self.mid = value.trim().to_owned(),
            // "rtpmap:96 VP8/90000"
            "rtpmap" => {
                let codec = rest.split('/').next().unwrap_or_default().trim();
                if let Ok(pt) = first.parse() {
                    self.codecs.push((pt, codec.to_ascii_lowercase()));
                }
            }
            // "fmtp:97 apt=96"
            "fmtp" => {
                let apt = rest.trim().strip_prefix("apt=").and_then(|apt| apt.parse().ok());
                if let (Ok(pt), Some(apt)) = (first.parse(), apt) {
                    self.rtx.push((pt, apt));
                }
            }
            // "extmap:2/recvonly URI"
            "extmap" => {
                let id = first.split('/').next().and_then(|id| id.parse().ok());
                if let Some(id) = id {
                    let uri = rest.split_ascii_whitespace().next().unwrap_or_default();
                    self.extensions.push((id, uri.to_owned()));
                }
            }
            _ => {}
        }
    }
}

fn head(mids: &[String]) -> String {
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
         a=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n",
        mids.join(" ")
    )
}

/// The lines that every m-line begins with, up to its direction.
fn transport(out: &mut String, local: &Local, setup: &str, mid: &str) {
    let (ip, port) = (local.address.ip(), local.address.port());
    let family = if ip.is_ipv4() { 4 } else { 6 };
    let _ = write!(
        out,
        "c=IN IP{family} {ip}\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
         a=candidate:1 1 udp 2122194687 {ip} {port} typ host generation 0 network-id 1\r\n\
         a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\na=fingerprint:{}\r\na=setup:{setup}\r\na=mid:{mid}\r\n",
        local.ufrag, local.pwd, local.fingerprint
    );
}

fn codec(out: &mut String, kind: Kind, pt: u8, rtx: Option<u8>) {
    let _ = match kind {
        Kind::Audio => write!(
            out,
            "a=rtpmap:{pt} opus/48000/2\r\na=rtcp-fb:{pt} transport-cc\r\na=fmtp:{pt} minptime=10;useinbandfec=1\r\n"
        ),
        Kind::Video => write!(
            out,
            "a=rtpmap:{pt} VP8/90000\r\na=rtcp-fb:{pt} goog-remb\r\na=rtcp-fb:{pt} transport-cc\r\n\
             a=rtcp-fb:{pt} ccm fir\r\na=rtcp-fb:{pt} nack\r\na=rtcp-fb:{pt} nack pli\r\n"
        ),
    };
    if let Some(rtx) = rtx {
        let _ = write!(out, "a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={pt}\r\n");
    }
}

fn sources(out: &mut String, local: &Local, kind: Kind) {
    let stream = &local.ufrag;
    let track = match kind {
        Kind::Audio => "microphone",
        Kind::Video => "camera",
    };
    let _ = write!(out, "a=msid:{stream} {track}\r\n");
    let ssrcs = match kind {
        Kind::Audio => vec![local.ssrcs.audio],
        Kind::Video => {
            let (video, rtx) = (local.ssrcs.video, local.ssrcs.rtx);
            let _ = write!(out, "a=ssrc-group:FID {video} {rtx}\r\n");
            vec![video, rtx]
        }
    };
    for ssrc in ssrcs {
        let _ = write!(
            out,
            "a=ssrc:{ssrc} cname:{stream}\r\na=ssrc:{ssrc} msid:{stream} {track}\r\n"
        );
    }
}

/// An offer with these m-lines, whose MIDs are 0, 1, 2 and so on.
#[must_use]
pub fn offer(local: &Local, lines: &[(Kind, Direction)]) -> String {
    let mids: Vec<String> = (0..lines.len()).map(|index| index.to_string()).collect();
    let mut out = head(&mids);
    for ((kind, direction), mid) in lines.iter().zip(&mids) {
        let port = local.address.port();
        let (name, pt, rtx) = match kind {
            Kind::Audio => ("audio", OPUS, None),
            Kind::Video => ("video", VP8, Some(VP8_RTX)),
        };
        let formats = rtx.map_or(pt.to_string(), |rtx| format!("{pt} {rtx}"));
        let _ = write!(out, "m={name} {port} UDP/TLS/RTP/SAVPF {formats}\r\n");
        transport(&mut out, local, "actpass", mid);
        for (id, uri) in OFFERED_EXTENSIONS {
            let _ = write!(out, "a=extmap:{id} {uri}\r\n");
        }
        let _ = write!(out, "a={}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n", direction.as_str());
        codec(&mut out, *kind, pt, rtx);
        if matches!(direction, Direction::Send | Direction::Both) {
            sources(&mut out, local, *kind);
        }
    }
    out
}

/// The answer to a server's offer: everything that it sends in Opus or VP8 is received; what we send already stays.
#[must_use]
pub fn answer(local: &Local, offer: &Remote) -> String {
    let usable = |line: &&Line| !line.is_rejected && line.payload_type().is_some();
    let mids: Vec<String> = offer
        .lines
        .iter()
        .filter(usable)
        .map(|line| line.mid.clone())
        .collect();
    let mut out = head(&mids);
    for line in &offer.lines {
        let pt = line.payload_type().filter(|_| !line.is_rejected);
        let (Some(kind), Some(pt)) = (line.kind, pt) else {
            let Line {
                media,
                protocol,
                formats,
                mid,
                ..
            } = line;
            let _ = write!(
                out,
                "m={media} 0 {protocol} {formats}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=inactive\r\n"
            );
            continue;
        };
        let rtx = line.rtx_payload_type();
        let formats = rtx.map_or(pt.to_string(), |rtx| format!("{pt} {rtx}"));
        let port = local.address.port();
        let _ = write!(out, "m={} {port} {} {formats}\r\n", line.media, line.protocol);
        transport(&mut out, local, "active", &line.mid);
        let known = OFFERED_EXTENSIONS
            .iter()
            .filter_map(|(_, uri)| Some((line.extension(uri)?, uri)));
        for (id, uri) in known {
            let _ = write!(out, "a=extmap:{id} {uri}\r\n");
        }
        let direction = match line.direction {
            Direction::Send => Direction::Receive,
            Direction::Receive => Direction::Send,
            other => other,
        };
        let _ = write!(out, "a={}\r\na=rtcp-mux\r\n", direction.as_str());
        if line.is_reduced_size {
            out.push_str("a=rtcp-rsize\r\n");
        }
        codec(&mut out, kind, pt, rtx);
        if matches!(direction, Direction::Send | Direction::Both) {
            sources(&mut out, local, kind);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Local {
        Local {
            ufrag: "SaEq".into(),
            pwd: "CJdOgQMJXe283gAmALAFuQqz".into(),
            fingerprint: format!("sha-256 {}", ["AB"; 32].join(":")),
            address: "127.0.0.1:4000".parse().unwrap(),
            ssrcs: Ssrcs {
                audio: 1,
                video: 2,
                rtx: 3,
            },
        }
    }

    #[test]
    fn an_offer_is_read_as_it_was_meant() {
        let text = offer(
            &local(),
            &[(Kind::Audio, Direction::Send), (Kind::Video, Direction::Receive)],
        );
        let read = Remote::parse(&text).unwrap();
        assert_eq!((read.ufrag.as_str(), read.setup), ("SaEq", Setup::ActPass));
        assert_eq!(read.fingerprint, ("sha-256".into(), vec![0xAB; 32]));
        assert_eq!(read.candidates, ["127.0.0.1:4000".parse().unwrap()]);
        let audio = read.agreed(Kind::Audio, Direction::Send).unwrap();
        assert_eq!((audio.payload_type, audio.rtx_payload_type), (111, None));
        let video = read.agreed(Kind::Video, Direction::Receive).unwrap();
        assert_eq!((video.payload_type, video.rtx_payload_type), (96, Some(97)));
        assert_eq!((video.mid.as_str(), video.transport_wide), ("1", Some(3)));
        assert_eq!(read.agreed(Kind::Video, Direction::Send), None);
    }

    #[test]
    fn an_answer_turns_directions_around_and_rejects_what_it_does_not_know() {
        let mut text = offer(
            &local(),
            &[(Kind::Audio, Direction::Send), (Kind::Video, Direction::Send)],
        );
        text += "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n";
        let read = Remote::parse(&answer(&local(), &Remote::parse(&text).unwrap())).unwrap();
        assert_eq!(read.setup, Setup::Active);
        let directions: Vec<_> = read.lines.iter().map(|line| line.direction).collect();
        assert_eq!(
            directions,
            [Direction::Receive, Direction::Receive, Direction::Inactive]
        );
        assert!(read.lines[2].is_rejected);
        assert_eq!(read.lines[1].rtx_payload_type(), Some(97));
    }

    #[test]
    fn what_lacks_credentials_is_refused() {
        assert!(Remote::parse("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n").is_err());
    }

    #[test]
    fn our_offers_are_offers_that_milliway_answers() {
        use sfu::media::{Fingerprint, FingerprintAlgorithm, IceCredentials};
        let local_parameters = sfu::sdp::LocalParameters {
            purpose: sfu::sdp::Purpose::Subscribe,
            ice: IceCredentials {
                ufrag: "abcd".into(),
                pwd: "a".repeat(24),
            },
            fingerprint: Fingerprint {
                algorithm: FingerprintAlgorithm::Sha256,
                value: vec![7; 32],
            },
            candidates: vec!["127.0.0.1:5004".parse().unwrap()],
            video_codecs: sfu::sdp::VideoCodecs::default(),
        };
        let mut negotiation = sfu::sdp::Negotiation::new(local_parameters, [3; 32]);
        let lines = [
            (Kind::Audio, Direction::Receive),
            (Kind::Video, Direction::Receive),
        ];
        let answered = negotiation.answer(&offer(&local(), &lines)).unwrap();
        let read = Remote::parse(&answered.sdp).unwrap();
        assert!(read.ice_lite && read.setup == Setup::Passive);
        let video = read.agreed(Kind::Video, Direction::Send).unwrap();
        assert_eq!((video.payload_type, video.rtx_payload_type), (96, Some(97)));
        assert_eq!(read.candidates, ["127.0.0.1:5004".parse().unwrap()]);
    }
}
