//! base64url without padding (RFC 4648 section 5, RFC 7515 section 2), canonical: no stray last bits, so that one
//! value has one text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_and_stray_last_bits_are_refused() {
        assert_eq!(decode("Zg").as_deref(), Some(&b"f"[..]));
        assert_eq!(decode("Zg=="), None);
        assert_eq!(decode("Zh"), None);
        assert_eq!(decode("Zg\n"), None);
        assert_eq!(decode("Z+"), None);
    }
}
