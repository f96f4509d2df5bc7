//! The transport attributes of a description: ICE credentials (RFC 8839 section 5.4), DTLS fingerprint (RFC 8122
//! section 5) and DTLS role (RFC 8842 section 5). Candidates are not among them: an ICE-lite relay learns the
//! client's addresses from its checks, so mDNS, TCP and odd candidates cannot do harm.

use sdp_types::Attribute;

use super::error::{Quoted, SdpError};
use crate::media::{DtlsRole, Fingerprint, FingerprintAlgorithm, IceCredentials};

const UFRAG_LENGTHS: std::ops::RangeInclusive<usize> = 4..=256;
const PWD_LENGTHS: std::ops::RangeInclusive<usize> = 22..=256;

/// `a=setup` of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    ActPass,
    Active,
    Passive,
}

impl Setup {
    /// Our role: passive wherever we may choose, so that the client speaks first.
    pub(super) fn our_role(self) -> DtlsRole {
        match self {
            Setup::ActPass | Setup::Active => DtlsRole::Passive,
            Setup::Passive => DtlsRole::Active,
        }
    }
}

/// What one level of a description (the session, or one m-line) says about the transport, unchecked.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprints: Vec<String>,
    setup: Option<String>,
}

/// An m-line may repeat fingerprints for several hashes; more than this is noise.
const FINGERPRINTS_MAX: usize = 8;

impl Credentials {
    pub(super) fn read(attributes: &[Attribute]) -> Credentials {
        let mut credentials = Credentials::default();
        for attribute in attributes {
            let Some(value) = attribute.value.as_deref().map(str::trim) else {
                continue;
            };
            match attribute.attribute.as_str() {
                "ice-ufrag" => credentials.ufrag = Some(value.to_owned()),
                "ice-pwd" => credentials.pwd = Some(value.to_owned()),
                "setup" => credentials.setup = Some(value.to_owned()),
                "fingerprint" if credentials.fingerprints.len() < FINGERPRINTS_MAX => {
                    credentials.fingerprints.push(value.to_owned());
                }
                _ => {}
            }
        }
        credentials
    }

    /// The m-line's values, with the session's where it has none.
    pub(super) fn or(&self, session: &Credentials) -> Credentials {
        let own_ice = self.ufrag.is_some() || self.pwd.is_some();
        let ice = if own_ice { self } else { session };
        let prints = if self.fingerprints.is_empty() {
            session
        } else {
            self
        };
        Credentials {
            ufrag: ice.ufrag.clone(),
            pwd: ice.pwd.clone(),
            fingerprints: prints.fingerprints.clone(),
            setup: self.setup.clone().or_else(|| session.setup.clone()),
        }
    }

    pub(super) fn ice(&self) -> Result<IceCredentials, SdpError> {
        match (&self.ufrag, &self.pwd) {
            (Some(ufrag), Some(pwd)) => ice(ufrag, pwd),
            _ => Err(SdpError::MissingIce),
        }
    }

    /// The strongest fingerprint.
    pub(super) fn fingerprint(&self) -> Result<Fingerprint, SdpError> {
        let mut refused = SdpError::MissingFingerprint;
        let mut best: Option<Fingerprint> = None;
        for text in &self.fingerprints {
            match fingerprint(text) {
                Ok(found) => {
                    let stronger = |old: &Fingerprint| found.value.len() > old.value.len();
                    if best.as_ref().is_none_or(stronger) {
                        best = Some(found);
                    }
                }
                Err(error) => refused = error,
            }
        }
        best.ok_or(refused)
    }

    /// The role; RFC 4145 section 4 makes `active` the default of an offer.
    pub(super) fn setup(&self) -> Result<Setup, SdpError> {
        match self.setup.as_deref() {
            Some("actpass") => Ok(Setup::ActPass),
            Some("active") | None => Ok(Setup::Active),
            Some("passive") => Ok(Setup::Passive),
            Some(other) => Err(SdpError::BadSetup(Quoted::new(other))),
        }
    }
}

/// Checks ICE credentials against RFC 8839 section 5.4.
pub(super) fn ice(ufrag: &str, pwd: &str) -> Result<IceCredentials, SdpError> {
    let characters = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'='))
    };
    // `-`, `_` and `=` are not in the RFC's alphabet, but some stacks use base64 in other dialects.
    if !UFRAG_LENGTHS.contains(&ufrag.len()) || !characters(ufrag) {
        return Err(SdpError::BadIce { field: "a=ice-ufrag" });
    }
    if !PWD_LENGTHS.contains(&pwd.len()) || !characters(pwd) {
        return Err(SdpError::BadIce { field: "a=ice-pwd" });
    }
    Ok(IceCredentials {
        ufrag: ufrag.to_owned(),
        pwd: pwd.to_owned(),
    })
}

fn fingerprint(text: &str) -> Result<Fingerprint, SdpError> {
    let (name, digits) = text.split_once(' ').ok_or(SdpError::BadFingerprint)?;
    let algorithm =
        FingerprintAlgorithm::from_name(name).ok_or_else(|| SdpError::WeakFingerprint(Quoted::new(name)))?;
    let byte = |pair: &str| {
        let hexadecimal = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        hexadecimal.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
    };
    let value: Vec<u8> = digits
        .trim()
        .split(':')
        .map(byte)
        .collect::<Option<_>>()
        .ok_or(SdpError::BadFingerprint)?;
    if value.len() != algorithm.digest_length() {
        return Err(SdpError::BadFingerprint);
    }
    Ok(Fingerprint { algorithm, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&str, &str)]) -> Credentials {
        let attributes: Vec<Attribute> = lines
            .iter()
            .map(|(name, value)| Attribute::with_value(name, value))
            .collect();
        Credentials::read(&attributes)
    }

    fn digest(name: &str, length: usize) -> String {
        format!("{name} {}", vec!["AB"; length].join(":"))
    }

    #[test]
    fn the_strongest_fingerprint_wins_and_sha_1_never_does() {
        let (weak, strong) = (digest("SHA-256", 32), digest("sha-512", 64));
        let both = of(&[("fingerprint", &weak), ("fingerprint", &strong)]);
        assert_eq!(
            both.fingerprint().unwrap().algorithm,
            FingerprintAlgorithm::Sha512
        );
        let sha1 = of(&[("fingerprint", &digest("sha-1", 20))]);
        assert_eq!(
            sha1.fingerprint(),
            Err(SdpError::WeakFingerprint(Quoted::new("sha-1")))
        );
        for bad in ["sha-256", "sha-256 AB", "sha-256 +A:BC", "sha-256 \u{e9}:AB"] {
            assert_eq!(
                of(&[("fingerprint", bad)]).fingerprint(),
                Err(SdpError::BadFingerprint),
                "{bad}"
            );
        }
        assert_eq!(of(&[]).fingerprint(), Err(SdpError::MissingFingerprint));
    }

    #[test]
    fn ice_credentials_have_the_lengths_of_the_rfc() {
        let pwd = "x".repeat(22);
        assert!(ice("abcd", &pwd).is_ok());
        assert!(ice("abc", &pwd).is_err());
        assert!(ice("abcd", &pwd[1..]).is_err());
        assert!(ice(&"a".repeat(257), &pwd).is_err());
        assert!(ice("ab:d", &pwd).is_err());
        assert!(ice("ab d", &pwd).is_err());
    }

    #[test]
    fn a_lines_own_attributes_win_over_the_sessions() {
        let session = of(&[
            ("ice-ufrag", "sess"),
            ("ice-pwd", &"s".repeat(22)),
            ("setup", "actpass"),
        ]);
        let line = of(&[("ice-ufrag", "line"), ("ice-pwd", &"l".repeat(22))]);
        assert_eq!(line.or(&session).ice().unwrap().ufrag, "line");
        assert_eq!(of(&[]).or(&session).ice().unwrap().ufrag, "sess");
        assert_eq!(line.or(&session).setup(), Ok(Setup::ActPass));
        // A ufrag of one level is never mixed with a password of another.
        assert_eq!(
            of(&[("ice-ufrag", "line")]).or(&session).ice(),
            Err(SdpError::MissingIce)
        );
    }

    #[test]
    fn passive_clients_are_answered_active() {
        assert_eq!(
            of(&[("setup", "passive")]).setup().unwrap().our_role(),
            DtlsRole::Active
        );
        assert_eq!(
            of(&[("setup", "actpass")]).setup().unwrap().our_role(),
            DtlsRole::Passive
        );
        assert_eq!(of(&[]).setup().unwrap().our_role(), DtlsRole::Passive);
        assert!(of(&[("setup", "holdconn")]).setup().is_err());
    }
}
