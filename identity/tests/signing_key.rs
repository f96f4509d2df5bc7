//! Key files: private, complete or absent, never overwritten.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use identity::{SigningKey, SigningKeyError};
use support::key;

#[test]
fn a_key_file_is_private_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("issuer.jwk");
    key(1).save(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(SigningKey::load(&path).unwrap().kid(), key(1).kid());
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no draft is left behind"
    );
}

#[test]
fn a_key_file_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.jwk");
    key(1).save(&path).unwrap();
    assert_eq!(
        key(2).save(&path).unwrap_err().kind(),
        std::io::ErrorKind::AlreadyExists
    );
    assert_eq!(SigningKey::load(&path).unwrap().kid(), key(1).kid());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.jwk");
    key(1).save(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        SigningKey::load(&path),
        Err(SigningKeyError::Readable(0o640))
    ));
}

#[test]
fn a_jwk_whose_halves_do_not_match_is_refused() {
    let (one, two) = (key(1).to_private_jwk(), key(2).to_private_jwk());
    let x = |jwk: &str| {
        serde_json::from_str::<serde_json::Value>(jwk).unwrap()["x"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mixed = one.replace(&x(&one), &x(&two));
    assert!(matches!(
        SigningKey::from_jwk(&mixed),
        Err(SigningKeyError::Mismatch)
    ));
    for text in [
        "",
        "{}",
        r#"{"kty":"oct","k":"AAAA"}"#,
        "[]",
        r#"{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}"#,
    ] {
        assert!(
            matches!(SigningKey::from_jwk(text), Err(SigningKeyError::Format)),
            "{text}"
        );
    }
}
