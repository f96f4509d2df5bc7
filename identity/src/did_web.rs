//! did:web (W3C CCG, the did:web Method): where the document of a DID lies. The fetch itself is the node's.
//!
//! `did:web:host` is `https://host/.well-known/did.json`, `did:web:host%3A8443:a:b` is `https://host:8443/a/b/did.json`.
//! The DID is a stranger's text, so what is no ordinary public name has no location here: IP literals in any
//! notation, single labels, upper case (one document, one DID), dots and slashes hidden in the path.

use std::fmt;

use crate::did::{Did, DidError};

/// Longest host name (RFC 1035 section 2.3.4).
const HOST_LENGTH_MAX: usize = 253;
/// Longest label of one.
const LABEL_LENGTH_MAX: usize = 63;

/// Where a document is fetched from, always over https.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// A host name with at least two labels, in lower case.
    pub host: String,
    /// The port, 443 unless the DID says otherwise.
    pub port: u16,
    /// Path and query, beginning with a slash.
    pub path: String,
}

impl Location {
    /// Where the document of a did:web lies.
    pub fn of(did: &Did) -> Result<Location, DidError> {
        if did.method() != "web" {
            return Err(DidError::Method);
        }
        let mut segments = did.identifier().split(':');
        let authority = segments.next().unwrap_or_default();
        let (host, port) = match split_colon(authority) {
            None => (authority, 443),
            Some((host, port)) => (host, parse_port(port)?),
        };
        let path: Vec<&str> = segments.collect();
        if !path.iter().all(|segment| segment_ok(segment)) {
            return Err(DidError::Location(
                "a part of its path is empty, dots, or hides a separator",
            ));
        }
        Ok(Location {
            host: checked_host(host)?,
            port,
            path: match path.is_empty() {
                true => "/.well-known/did.json".to_owned(),
                false => format!("/{}/did.json", path.join("/")),
            },
        })
    }

    /// An https URL without user, fragment or IP literal, as configuration and aliases name them.
    pub fn of_url(url: &str) -> Result<Location, DidError> {
        let rest = url
            .strip_prefix("https://")
            .ok_or(DidError::Location("only https:// is fetched"))?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            None => (authority, 443),
            Some((host, port)) => (host, parse_port(port)?),
        };
        let graphic = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !graphic || path.starts_with('?') {
            return Err(DidError::Location("its path has characters that no URL has"));
        }
        Ok(Location {
            host: checked_host(host)?,
            port,
            path: if path.is_empty() {
                "/".to_owned()
            } else {
                path.to_owned()
            },
        })
    }

    /// The value of the `Host` header.
    pub fn authority(&self) -> String {
        match self.port {
            443 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }
}

/// The did:web grammar has one colon inside the first part, percent-encoded, before the port.
fn split_colon(authority: &str) -> Option<(&str, &str)> {
    let at = authority.find("%3A").or_else(|| authority.find("%3a"))?;
    Some((&authority[..at], &authority[at + 3..]))
}

fn parse_port(text: &str) -> Result<u16, DidError> {
    let digits = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or(DidError::Location("its port is no number from 1 to 65535"))
}

/// A name that only DNS can answer for.
fn checked_host(host: &str) -> Result<String, DidError> {
    let label_ok = |label: &str| {
        (1..=LABEL_LENGTH_MAX).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let mut labels = host.rsplit('.');
    let last = labels.next().unwrap_or_default();
    // What ends in a number is an IPv4 address to some reader: 127.1, 0x7f.0.0.1, 2130706433.
    let numeric = last.starts_with(|first: char| first.is_ascii_digit());
    if host.len() > HOST_LENGTH_MAX || !host.contains('.') || numeric || !host.split('.').all(label_ok) {
        return Err(DidError::Location(
            "its host must be a domain name of at least two labels, in lower case, and no IP address",
        ));
    }
    Ok(host.to_owned())
}

/// A path segment stays encoded as it is; what it decodes to must be one segment too.
fn segment_ok(segment: &str) -> bool {
    let mut decoded = Vec::new();
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => decoded.push(u8::try_from(high * 16 + low).unwrap_or_default()),
            _ => return false,
        }
    }
    let hidden = |byte: &u8| matches!(byte, b'/' | b'\\' | b'%' | b'?' | b'#' | 0..=0x20 | 0x7f..);
    !matches!(decoded.as_slice(), b"" | b"." | b"..") && !decoded.iter().any(hidden)
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "https://{}{}", self.authority(), self.path)
    }
}

/// A did:web may name a person: only the host prints.
impl fmt::Debug for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Location({})", self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(did: &str) -> Result<String, DidError> {
        Ok(Location::of(&Did::parse(did).unwrap())?.to_string())
    }

    #[test]
    fn the_examples_of_the_did_web_specification_are_located() {
        for (did, url) in [
            (
                "did:web:w3c-ccg.github.io",
                "https://w3c-ccg.github.io/.well-known/did.json",
            ),
            (
                "did:web:w3c-ccg.github.io:user:alice",
                "https://w3c-ccg.github.io/user/alice/did.json",
            ),
            (
                "did:web:example.com%3A3000:user:alice",
                "https://example.com:3000/user/alice/did.json",
            ),
            (
                "did:web:example.com%3a443",
                "https://example.com/.well-known/did.json",
            ),
            ("did:web:example.com:caf%C3", ""),
        ] {
            if url.is_empty() {
                assert!(location(did).is_err(), "{did}");
            } else {
                assert_eq!(location(did).as_deref(), Ok(url));
            }
        }
    }

    #[test]
    fn a_did_web_that_names_an_address_or_hides_one_has_no_location() {
        for did in [
            "did:web:127.0.0.1",
            "did:web:127.1",
            "did:web:2130706433",
            "did:web:0x7f.0.0.0x1",
            "did:web:%5B%3A%3A1%5D",
            "did:web:a%3A%3A1",
            "did:web:localhost",
            "did:web:localhost%3A8443",
            "did:web:Example.com",
            "did:web:example.com.",
            "did:web:.example.com",
            "did:web:a..example",
            "did:web:-a.example",
            "did:web:a_b.example",
            "did:web:user%40example.com",
            "did:web:example.com%2Fx",
            "did:web:example.com%3A0",
            "did:web:example.com%3A65536",
            "did:web:example.com%3A+80",
            "did:web:example.com%3A80%3A80",
            "did:web:example.com::a",
            "did:web:example.com:..",
            "did:web:example.com:%2e%2E:etc",
            "did:web:example.com:a%2Fb",
            "did:web:example.com:a%5Cb",
            "did:web:example.com:a%0D%0AHost%3A",
            "did:web:example.com:a%3Fb",
            "did:web:example.com:a%252F",
        ] {
            let Ok(parsed) = Did::parse(did) else { continue };
            assert!(Location::of(&parsed).is_err(), "{did}");
        }
        assert!(location(&format!("did:web:{}.example", "a".repeat(64))).is_err());
        assert!(location(&format!("did:web:{}example", "a.".repeat(130))).is_err());
        assert_eq!(location("did:key:z6Mk"), Err(DidError::Method));
    }

    #[test]
    fn urls_of_configuration_are_https_names_and_nothing_else() {
        let of = |url: &str| Location::of_url(url).map(|location| location.to_string());
        assert_eq!(
            of("https://lists.example").as_deref(),
            Ok("https://lists.example/")
        );
        assert_eq!(
            of("https://lists.example:8443/a?b=c").as_deref(),
            Ok("https://lists.example:8443/a?b=c")
        );
        for url in [
            "http://lists.example/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://u@lists.example/",
            "https://lists.example/a b",
            "https://lists.example/\r\nX: y",
            "https://lists.example/#a",
            "https://lists.example?x",
            "ftp://lists.example/",
            "",
        ] {
            assert!(of(url).is_err(), "{url}");
        }
    }
}
