//! An SDP text read once into what negotiation needs (RFC 8829 section 5.8). Past this file nobody looks at raw
//! attributes again.

use sdp_types::{Attribute, ParserError, Session};

use super::credentials::Credentials;
use super::error::{Quoted, SdpError};
use super::extension::{self, Extension};
use super::{LINES_MAX, SDP_LENGTH_MAX, payload};
use crate::media::{Kind, Mid, Payload, SourceSsrc};

/// SSRCs kept of one m-line: simulcast needs three pairs, the rest would be noise.
const SOURCES_MAX: usize = 16;
/// Header extensions kept of one m-line.
const EXTENSIONS_MAX: usize = 32;
/// A media type or protocol is repeated in the answer only if it is a token of at most this length.
const WORD_LENGTH_MAX: usize = 64;

/// Which way media flows, as the author of the description sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub(super) fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    pub(super) fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    fn read(attributes: &[Attribute]) -> Option<Direction> {
        attributes
            .iter()
            .find_map(|attribute| match attribute.attribute.as_str() {
                "sendrecv" => Some(Direction::SendRecv),
                "sendonly" => Some(Direction::SendOnly),
                "recvonly" => Some(Direction::RecvOnly),
                "inactive" => Some(Direction::Inactive),
                _ => None,
            })
    }
}

/// One m-line with its attributes.
#[derive(Debug, Clone)]
pub(super) struct Section {
    /// Fit to be repeated in an answer.
    pub(super) media: String,
    pub(super) protocol: String,
    pub(super) format: String,
    /// `m=audio` or `m=video`.
    pub(super) kind: Option<Kind>,
    /// RTP over DTLS-SRTP.
    pub(super) secure: bool,
    /// Port 0 without `a=bundle-only`.
    pub(super) disabled: bool,
    pub(super) mid: Option<Mid>,
    pub(super) direction: Direction,
    pub(super) rtcp_mux: bool,
    pub(super) rtcp_rsize: bool,
    pub(super) payloads: Vec<Payload>,
    pub(super) extensions: Vec<(u8, Extension)>,
    pub(super) sources: Vec<SourceSsrc>,
    pub(super) credentials: Credentials,
}

/// A description.
#[derive(Debug, Clone)]
pub(super) struct Description {
    /// The MIDs of the first BUNDLE group, in its order, those without an m-line left out.
    pub(super) bundle: Vec<Mid>,
    pub(super) mixed_extensions: bool,
    pub(super) credentials: Credentials,
    pub(super) sections: Vec<Section>,
}

impl Description {
    pub(super) fn parse(text: &str) -> Result<Description, SdpError> {
        if text.len() > SDP_LENGTH_MAX {
            return Err(SdpError::TooLarge);
        }
        if text.lines().filter(|line| line.starts_with("m=")).count() > LINES_MAX {
            return Err(SdpError::TooManyLines);
        }
        let session = Session::parse(text.as_bytes()).map_err(|error| syntax(&error))?;
        if session.medias.is_empty() {
            return Err(SdpError::NoMedia);
        }
        if session
            .attributes
            .iter()
            .any(|attribute| attribute.attribute == "ice-lite")
        {
            return Err(SdpError::IceLite);
        }
        let mixed = |attributes: &[Attribute]| attributes.iter().any(|a| a.attribute == "extmap-allow-mixed");
        let mixed_extensions = mixed(&session.attributes);
        let direction = Direction::read(&session.attributes).unwrap_or(Direction::SendRecv);

        let mut sections: Vec<Section> = Vec::with_capacity(session.medias.len());
        for (index, media) in session.medias.iter().enumerate() {
            let mixed = mixed_extensions || mixed(&media.attributes);
            let section = Section::read(index, media, direction, mixed)?;
            if let Some(mid) = section.mid
                && sections.iter().any(|earlier| earlier.mid == Some(mid))
            {
                return Err(SdpError::DuplicateMid(mid));
            }
            sections.push(section);
        }
        let bundle = bundle(text, &session, &sections)?;
        Ok(Description {
            bundle,
            mixed_extensions,
            credentials: Credentials::read(&session.attributes),
            sections,
        })
    }

    /// Where the BUNDLE's transport is described: the first m-line of the group that is not disabled (RFC 9143
    /// section 7.1.3).
    pub(super) fn transport(&self) -> Result<Credentials, SdpError> {
        let members = self.bundle.iter().filter_map(|mid| {
            let section = self.sections.iter().find(|section| section.mid == Some(*mid))?;
            (!section.disabled).then_some(section)
        });
        let tagged = members
            .into_iter()
            .next()
            .map(|section| section.credentials.or(&self.credentials));
        tagged.ok_or(SdpError::NoBundle)
    }
}

impl Section {
    fn read(
        index: usize,
        media: &sdp_types::Media,
        session_direction: Direction,
        mixed: bool,
    ) -> Result<Section, SdpError> {
        let value = |name: &str| {
            let found = media
                .attributes
                .iter()
                .find(|attribute| attribute.attribute == name);
            found.map(|attribute| attribute.value.as_deref().unwrap_or("").trim())
        };
        let flag = |name: &str| value(name).is_some();
        let kind = match media.media.as_str() {
            "audio" => Some(Kind::Audio),
            "video" => Some(Kind::Video),
            _ => None,
        };
        let secure = matches!(
            media.proto.as_str(),
            "UDP/TLS/RTP/SAVPF"
                | "UDP/TLS/RTP/SAVP"
                | "TCP/DTLS/RTP/SAVPF"
                | "TCP/DTLS/RTP/SAVP"
                | "RTP/SAVPF"
        );
        let disabled = media.port == 0 && !flag("bundle-only");
        let mid = match value("mid") {
            Some(text) => Some(Mid::new(text).ok_or(SdpError::BadMid { index })?),
            None => None,
        };
        let mut section = Section {
            media: word(&media.media).ok_or(SdpError::BadLine { index })?,
            protocol: word(&media.proto).ok_or(SdpError::BadLine { index })?,
            format: media
                .fmt
                .split_ascii_whitespace()
                .next()
                .and_then(word)
                .unwrap_or_else(|| "0".into()),
            kind,
            secure,
            disabled,
            mid,
            direction: Direction::read(&media.attributes).unwrap_or(session_direction),
            rtcp_mux: flag("rtcp-mux") || flag("rtcp-mux-only"),
            rtcp_rsize: flag("rtcp-rsize"),
            payloads: Vec::new(),
            extensions: Vec::new(),
            sources: Vec::new(),
            credentials: Credentials::default(),
        };
        if disabled {
            return Ok(section);
        }
        section.credentials = Credentials::read(&media.attributes);
        if let (Some(kind), true) = (kind, secure) {
            let mid = mid.ok_or(SdpError::MissingMid { index })?;
            section.payloads = payload::read(mid, kind, &media.fmt, &media.attributes)?;
            section.sources = sources(mid, &media.attributes)?;
            let extmaps = media
                .attributes
                .iter()
                .filter(|attribute| attribute.attribute == "extmap");
            section.extensions = extmaps
                .filter_map(|attribute| extension::parse(attribute.value.as_deref()?, mixed))
                .take(EXTENSIONS_MAX)
                .collect();
        }
        Ok(section)
    }
}

/// The announced SSRCs, RTX folded into the stream it repairs (RFC 5576 section 4.2, `FID`).
fn sources(mid: Mid, attributes: &[Attribute]) -> Result<Vec<SourceSsrc>, SdpError> {
    let malformed = |attribute| SdpError::BadAttribute { mid, attribute };
    let mut sources: Vec<SourceSsrc> = Vec::new();
    let values = |name: &'static str| {
        let named = attributes
            .iter()
            .filter(move |attribute| attribute.attribute == name);
        named.map(|attribute| attribute.value.as_deref().unwrap_or("").trim())
    };
    for value in values("ssrc-group") {
        let mut words = value.split_ascii_whitespace();
        if words.next() != Some("FID") {
            continue;
        }
        let mut next = || words.next().and_then(|word| word.parse::<u32>().ok());
        let ssrc = next().ok_or_else(|| malformed("ssrc-group"))?;
        let rtx = Some(next().ok_or_else(|| malformed("ssrc-group"))?);
        if sources.len() < SOURCES_MAX && sources.iter().all(|source| source.ssrc != ssrc) {
            sources.push(SourceSsrc { ssrc, rtx });
        }
    }
    for value in values("ssrc") {
        let word = value.split_ascii_whitespace().next().unwrap_or("");
        let ssrc: u32 = word.parse().map_err(|_| malformed("ssrc"))?;
        let known = sources
            .iter()
            .any(|source| source.ssrc == ssrc || source.rtx == Some(ssrc));
        if !known && sources.len() < SOURCES_MAX {
            sources.push(SourceSsrc { ssrc, rtx: None });
        }
    }
    Ok(sources)
}

/// The first BUNDLE group. A MID in it without an m-line is passed over, as FFmpeg names both of its m-lines even
/// when it has only one, unless the text also ends in the middle of a line.
fn bundle(text: &str, session: &Session, sections: &[Section]) -> Result<Vec<Mid>, SdpError> {
    let groups = session
        .attributes
        .iter()
        .filter(|attribute| attribute.attribute == "group");
    let mut members =
        groups.filter_map(|attribute| attribute.value.as_deref()?.trim().strip_prefix("BUNDLE"));
    let members = members.next().ok_or(SdpError::NoBundle)?;
    let mut bundle = Vec::new();
    for member in members.split_ascii_whitespace() {
        let mid = Mid::new(member).filter(|mid| sections.iter().any(|section| section.mid == Some(*mid)));
        match mid {
            Some(mid) if !bundle.contains(&mid) => bundle.push(mid),
            Some(_) => {}
            None if !text.ends_with('\n') => return Err(SdpError::CutShort(Quoted::new(member))),
            None => {}
        }
    }
    Ok(bundle)
}

fn word(text: &str) -> Option<String> {
    let token =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'+' | b'*');
    (!text.is_empty() && text.len() <= WORD_LENGTH_MAX && text.bytes().all(token)).then(|| text.to_owned())
}

fn syntax(error: &ParserError) -> SdpError {
    let (line, field) = match *error {
        ParserError::InvalidLineFormat(line, field)
        | ParserError::InvalidFieldEncoding(line, field)
        | ParserError::InvalidFieldFormat(line, field)
        | ParserError::MissingField(line, field)
        | ParserError::FieldTrailingData(line, field) => (line, field),
        ParserError::InvalidVersion(line, _) => (line, "v= is not 0"),
        ParserError::NoVersion => (1, "v=0 is missing"),
        ParserError::MultipleVersions(line)
        | ParserError::MultipleOrigins(line)
        | ParserError::MultipleSessionNames(line)
        | ParserError::MultipleSessionDescription(line)
        | ParserError::MultipleUris(line)
        | ParserError::MultipleConnections(line)
        | ParserError::MultipleTimeZones(line)
        | ParserError::MultipleMediaTitles(line)
        | ParserError::MultipleKeys(line) => (line, "a second line of a kind that comes once"),
        ParserError::RepeatWithoutTime(line) => (line, "r= without t="),
        // Variants the parser no longer makes.
        _ => (1, "unexpected line"),
    };
    SdpError::Syntax { line, field }
}
