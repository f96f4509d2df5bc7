//! `application/trickle-ice-sdpfrag` bodies (RFC 8840 section 9), as WHIP and WHEP clients PATCH them: trickled
//! candidates, which an ICE-lite relay does not need, or new credentials, which restart ICE.

use super::FRAGMENT_LENGTH_MAX;
use super::credentials;
use super::error::SdpError;
use crate::media::IceCredentials;

/// What a fragment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// The client's credentials: those of the session for trickle, new ones for a restart.
    pub ice: Option<IceCredentials>,
    /// How many candidates it brings.
    pub candidates: usize,
    /// Whether more may follow.
    pub end_of_candidates: bool,
}

impl Fragment {
    /// Reads a body.
    pub fn parse(text: &str) -> Result<Fragment, SdpError> {
        if text.len() > FRAGMENT_LENGTH_MAX {
            return Err(SdpError::FragmentTooLarge);
        }
        let (mut ufrag, mut pwd) = (None, None);
        let mut fragment = Fragment {
            ice: None,
            candidates: 0,
            end_of_candidates: false,
        };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() {
                continue;
            }
            let syntax = SdpError::Syntax {
                line: index + 1,
                field: "not an a= or m= line of an SDP fragment",
            };
            let Some(attribute) = line.strip_prefix("a=") else {
                if line.starts_with("m=") {
                    continue;
                }
                return Err(syntax);
            };
            match attribute.split_once(':').unwrap_or((attribute, "")) {
                ("ice-ufrag", value) => first_or_same(&mut ufrag, value, "a=ice-ufrag")?,
                ("ice-pwd", value) => first_or_same(&mut pwd, value, "a=ice-pwd")?,
                ("candidate", _) => fragment.candidates += 1,
                ("end-of-candidates", _) => fragment.end_of_candidates = true,
                _ => {}
            }
        }
        fragment.ice = match (ufrag, pwd) {
            (Some(ufrag), Some(pwd)) => Some(credentials::ice(ufrag, pwd)?),
            (None, None) => None,
            _ => return Err(SdpError::MissingIce),
        };
        Ok(fragment)
    }
}

/// One transport has one pair of credentials, however many m-lines repeat them.
fn first_or_same<'a>(
    known: &mut Option<&'a str>,
    value: &'a str,
    field: &'static str,
) -> Result<(), SdpError> {
    let value = value.trim();
    if *known.get_or_insert(value) == value {
        return Ok(());
    }
    Err(SdpError::BadIce { field })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9725_are_read() {
        let trickle = "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:EsAw\r\n\
                       a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 \
                       typ host generation 0 ufrag EsAw network-id 1\r\na=end-of-candidates\r\n";
        let fragment = Fragment::parse(trickle).unwrap();
        assert_eq!(fragment.ice.unwrap().ufrag, "EsAw");
        assert_eq!((fragment.candidates, fragment.end_of_candidates), (1, true));
    }

    #[test]
    fn half_credentials_and_other_lines_are_refused() {
        assert_eq!(Fragment::parse("a=ice-ufrag:abcd\r\n"), Err(SdpError::MissingIce));
        assert!(matches!(
            Fragment::parse("hello"),
            Err(SdpError::Syntax { line: 1, .. })
        ));
        assert_eq!(
            Fragment::parse(&"a".repeat(FRAGMENT_LENGTH_MAX + 1)),
            Err(SdpError::FragmentTooLarge)
        );
        let two = "a=ice-ufrag:abcd\r\na=ice-ufrag:efgh\r\n";
        assert_eq!(
            Fragment::parse(two),
            Err(SdpError::BadIce { field: "a=ice-ufrag" })
        );
    }
}
