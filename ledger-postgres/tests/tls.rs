//! A PostgreSQL that takes nobody without TLS, with a certificate of an authority of the test's own.
#![allow(clippy::unwrap_used)]

mod server;

use std::path::Path;

use ledger_postgres::{Options, Postgres};
use metering::Ledger;
use metering::ledger::Command;

/// A server with a certificate for `localhost`, signed by the authority in `folder`/ca.pem.
fn encrypted(folder: &Path) -> server::Own {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    server::start_with_tls(&leaf.pem(), &key.serialize_pem())
}

fn other_authority(folder: &Path) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&key).unwrap();
    std::fs::write(folder.join("other.pem"), certificate.pem()).unwrap();
}

#[test]
fn the_ledger_is_reached_over_tls_and_only_a_server_that_is_who_it_says_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let own = encrypted(folder.path());
    other_authority(folder.path());
    let port = own.port();
    let file = |name: &str| folder.path().join(name).display().to_string().replace('/', "%2F");
    let url = |host: &str, rest: &str| format!("postgres://milliway@{host}:{port}/postgres{rest}");
    let open = |url: String| Postgres::open(&url, Options::new("a"), 1).map(|(ledger, _)| ledger);
    let said = |url: String| open(url).expect_err("it must not be believed").to_string();
    let (ca, other) = (file("ca.pem"), file("other.pem"));

    // The server itself refuses who comes without.
    assert!(said(url("localhost", "")).contains("no encryption"));
    assert!(said(url("localhost", "?sslmode=disable")).contains("no encryption"));

    // All of it works as without.
    let full = url("localhost", &format!("?sslmode=verify-full&sslrootcert={ca}"));
    let mut ledger = open(full.clone()).unwrap();
    ledger
        .apply(
            &[Command::Freeze {
                account: "anna".into(),
                frozen: true,
            }],
            2,
        )
        .unwrap();
    assert_eq!(ledger.verify().unwrap().accounts, 1);
    drop(ledger);
    assert!(Postgres::look(&full).unwrap().accounts().unwrap()[0].frozen);

    // The certificate is for the name `localhost`.
    assert!(
        said(url(
            "127.0.0.1",
            &format!("?sslmode=verify-full&sslrootcert={ca}")
        ))
        .contains("certificate")
    );
    open(url("127.0.0.1", &format!("?sslmode=verify-ca&sslrootcert={ca}"))).unwrap();
    // And of this authority.
    for mode in ["verify-full", "verify-ca", "require"] {
        let why = said(url("localhost", &format!("?sslmode={mode}&sslrootcert={other}")));
        assert!(why.contains("certificate"), "{mode}: {why}");
    }
    // The system knows nothing of it.
    assert!(said(url("localhost", "?sslmode=verify-full")).contains("certificate"));
    // Encrypted, whoever it is.
    open(url("127.0.0.1", "?sslmode=require")).unwrap();
}

#[test]
fn a_server_without_tls_is_not_spoken_to_where_tls_is_asked_for() {
    let url = server::url();
    let separator = if url.contains('?') { '&' } else { '?' };
    let error = Postgres::open(&format!("{url}{separator}sslmode=require"), Options::new("a"), 1);
    assert!(error.is_err());
}
