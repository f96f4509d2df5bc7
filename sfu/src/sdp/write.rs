//! The negotiated state written as SDP (RFC 8829 sections 5.2 and 5.3): answers, and the relay's own offers, which
//! differ in `a=setup` only.

use std::net::{IpAddr, SocketAddr};

use sdp_types::{AddrType, Attribute, Connection, NetType, Origin, Session, Time};

use super::LocalParameters;
use super::extension::Extension;
use super::state::{Flow, Line, State};
use crate::media::{DtlsRole, Kind, Mid, Payload};

/// Which description is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Offer,
    Answer,
}

pub(super) fn description(local: &LocalParameters, state: &State, form: Form) -> String {
    let mut origin = Origin::new(
        state.session_number,
        state.version,
        NetType::In,
        AddrType::Ip4,
        "0.0.0.0",
    );
    origin.username = Some("-".into());
    let mut session = Session::new(origin, "-");
    session.times.push(Time::new(0, 0));
    session.add_attribute(Attribute::new("ice-lite"));
    if state.mixed_extensions {
        session.add_attribute(Attribute::new("extmap-allow-mixed"));
    }
    session.add_attribute(Attribute::with_value("msid-semantic", " WMS *"));
    let bundle = state.bundle();
    let members: String = bundle.iter().map(|mid| format!(" {mid}")).collect();
    session.add_attribute(Attribute::with_value("group", format!("BUNDLE{members}")));
    for line in &state.lines {
        let tagged = line.mid.is_some() && line.mid == bundle.first().copied();
        session.medias.push(section(local, state, line, tagged, form));
    }
    let mut text = Vec::new();
    session
        .write(&mut text)
        .expect("writing into memory does not fail");
    String::from_utf8(text).expect("every part was a string")
}

fn section(
    local: &LocalParameters,
    state: &State,
    line: &Line,
    tagged: bool,
    form: Form,
) -> sdp_types::Media {
    let rejected = line.flow == Flow::Rejected;
    let default = local.candidates.first().filter(|_| !rejected);
    let mut media = sdp_types::Media {
        media: line.media.clone(),
        port: match default {
            _ if rejected => 0,
            Some(candidate) => candidate.port(),
            None => 9,
        },
        num_ports: None,
        proto: line.protocol.clone(),
        fmt: if rejected {
            line.format.clone()
        } else {
            formats(&line.payloads)
        },
        media_title: None,
        connections: vec![connection(default)],
        bandwidths: Vec::new(),
        key: None,
        attributes: Vec::new(),
    };
    let mut add = |name: &str, value: String| media.attributes.push(Attribute::with_value(name, value));
    if let Some(mid) = line.mid {
        add("mid", mid.to_string());
    }
    if rejected {
        media.attributes.push(Attribute::new("inactive"));
        return media;
    }
    add("ice-ufrag", state.ice.ufrag.clone());
    add("ice-pwd", state.ice.pwd.clone());
    add("ice-options", "ice2 trickle".into());
    add("fingerprint", local.fingerprint.to_string());
    let setup = match (form, state.role) {
        // Roles are agreed on once; an offer that keeps them still says actpass (RFC 8842 section 5.2).
        (Form::Offer, _) => "actpass",
        (Form::Answer, Some(DtlsRole::Active)) => "active",
        (Form::Answer, _) => "passive",
    };
    add("setup", setup.into());
    for (id, extension) in &line.extensions {
        add("extmap", format!("{id} {}", extension.uri()));
    }
    let direction = match line.flow {
        Flow::Receive { .. } => "recvonly",
        Flow::Send => "sendonly",
        Flow::Inactive | Flow::Rejected => "inactive",
    };
    media.attributes.push(Attribute::new(direction));
    media.attributes.push(Attribute::new("rtcp-mux"));
    if line.rtcp_rsize {
        media.attributes.push(Attribute::new("rtcp-rsize"));
    }
    for payload in &line.payloads {
        describe_payload(payload, &mut media.attributes);
    }
    let mut add = |name: &str, value: String| media.attributes.push(Attribute::with_value(name, value));
    if let (Flow::Send, Some(outlet), Some(kind)) = (&line.flow, &line.outlet, line.kind) {
        let stream = state.stream(outlet.slot);
        add("msid", format!("{stream} {stream}-{}", kind.as_str()));
        let rtx = outlet.rtx_ssrc.filter(|_| line.repaired());
        if let Some(rtx) = rtx {
            add("ssrc-group", format!("FID {} {rtx}", outlet.ssrc));
        }
        for ssrc in [Some(outlet.ssrc), rtx].into_iter().flatten() {
            add("ssrc", format!("{ssrc} cname:{stream}"));
        }
    }
    if tagged {
        for candidate in candidates(&local.candidates) {
            add("candidate", candidate);
        }
        media.attributes.push(Attribute::new("end-of-candidates"));
    }
    media
}

fn formats(payloads: &[Payload]) -> String {
    let all = payloads
        .iter()
        .flat_map(|payload| [Some(payload.pt), payload.rtx])
        .flatten();
    all.map(|pt| pt.to_string()).collect::<Vec<_>>().join(" ")
}

fn describe_payload(payload: &Payload, attributes: &mut Vec<Attribute>) {
    let pt = payload.pt;
    let mut add = |name: &str, value: String| attributes.push(Attribute::with_value(name, value));
    let channels = if payload.codec.kind() == Kind::Audio {
        "/2"
    } else {
        ""
    };
    add(
        "rtpmap",
        format!("{pt} {}/{}{channels}", payload.codec.as_str(), payload.clock_rate),
    );
    for (agreed, feedback) in [
        (payload.remb, "goog-remb"),
        (payload.transport_cc, "transport-cc"),
        (payload.fir, "ccm fir"),
        (payload.nack, "nack"),
        (payload.pli, "nack pli"),
    ] {
        if agreed {
            add("rtcp-fb", format!("{pt} {feedback}"));
        }
    }
    if !payload.fmtp.is_empty() {
        add("fmtp", format!("{pt} {}", payload.fmtp));
    }
    if let Some(rtx) = payload.rtx {
        add("rtpmap", format!("{rtx} rtx/{}", payload.clock_rate));
        add("fmtp", format!("{rtx} apt={pt}"));
    }
}

fn connection(address: Option<&SocketAddr>) -> Connection {
    match address.map(SocketAddr::ip) {
        Some(ip @ IpAddr::V6(_)) => Connection::new(NetType::In, AddrType::Ip6, ip),
        Some(ip) => Connection::new(NetType::In, AddrType::Ip4, ip),
        None => Connection::new(NetType::In, AddrType::Ip4, "0.0.0.0"),
    }
}

/// Host candidates, best first (RFC 8839 section 5.1, priorities of RFC 8445 section 5.1.2.1).
fn candidates(addresses: &[SocketAddr]) -> impl Iterator<Item = String> {
    addresses.iter().enumerate().map(|(index, address)| {
        let local_preference = 65_535_u32.saturating_sub(index as u32);
        let priority = (126 << 24) | (local_preference << 8) | 255;
        format!(
            "{} 1 udp {priority} {} {} typ host",
            index + 1,
            address.ip(),
            address.port()
        )
    })
}

/// The credentials and candidates alone, as an `application/trickle-ice-sdpfrag` body (RFC 8840 section 9,
/// RFC 9725 section 4.3.3).
pub(super) fn fragment(local: &LocalParameters, state: &State) -> String {
    let bundle = state.bundle();
    let members: String = bundle.iter().map(|mid| format!(" {mid}")).collect();
    let mut text = format!("a=ice-lite\r\na=ice-options:ice2 trickle\r\na=group:BUNDLE{members}\r\n");
    let tagged = state
        .lines
        .iter()
        .find(|line| line.mid.is_some() && line.mid == bundle.first().copied());
    if let Some((line, mid)) = tagged.and_then(|line| Some((line, line.mid?))) {
        let format = formats(&line.payloads);
        text += &format!("m={} 9 {} {format}\r\na=mid:{mid}\r\n", line.media, line.protocol);
    }
    text += &format!(
        "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
        state.ice.ufrag, state.ice.pwd
    );
    for candidate in candidates(&local.candidates) {
        text += &format!("a=candidate:{candidate}\r\n");
    }
    text + "a=end-of-candidates\r\n"
}

/// The extensions of a line that the relay offers itself.
pub(super) fn offered_extensions(state: &State, kind: Kind) -> Vec<(u8, Extension)> {
    let map = &state.extensions;
    let audio_level = map.audio_level.filter(|_| kind == Kind::Audio);
    [
        (map.mid, Extension::Mid),
        (map.abs_send_time, Extension::AbsSendTime),
        (audio_level, Extension::AudioLevel),
    ]
    .into_iter()
    .filter_map(|(id, extension)| Some((id?, extension)))
    .collect()
}

/// The MID of the relay's own m-line `number`.
pub(super) fn own_mid(number: u32) -> Mid {
    Mid::new(&format!("r{number}")).expect("a letter and at most ten digits are a MID")
}
