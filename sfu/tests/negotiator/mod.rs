//! What the negotiation tests share: a relay's side with nothing random in it, and the recorded offers.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sfu::media::{Fingerprint, FingerprintAlgorithm, IceCredentials};
use sfu::sdp::{Answer, LocalParameters, Negotiation, Purpose, SdpError, VideoCodecs};

/// The relay's side, the same in every run.
pub(crate) fn local(purpose: Purpose) -> LocalParameters {
    LocalParameters {
        purpose,
        ice: IceCredentials::generate(&mut StdRng::seed_from_u64(1)),
        fingerprint: Fingerprint {
            algorithm: FingerprintAlgorithm::Sha256,
            value: vec![0xab; 32],
        },
        candidates: vec![
            "192.0.2.1:5004".parse().unwrap(),
            "[2001:db8::1]:5004".parse().unwrap(),
        ],
        video_codecs: VideoCodecs::default(),
    }
}

pub(crate) fn relay(purpose: Purpose) -> Negotiation {
    Negotiation::new(local(purpose), [7; 32])
}

/// A recorded offer or answer.
pub(crate) fn recorded(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/offers")
        .join(format!("{name}.sdp"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn answer(purpose: Purpose, offer: &str) -> Result<Answer, SdpError> {
    relay(purpose).answer(offer)
}

/// The m-section of a description that has this MID.
pub(crate) fn section(sdp: &str, mid: &str) -> String {
    let sections = sdp.split("\r\nm=").skip(1);
    let wanted = format!("\r\na=mid:{mid}\r\n");
    let found = sections
        .into_iter()
        .find(|section| format!("{section}\r\n").contains(&wanted));
    format!(
        "m={}\r\n",
        found.unwrap_or_else(|| panic!("no mid {mid} in {sdp}"))
    )
}
