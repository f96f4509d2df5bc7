//! A private Ed25519 key: the relay's or an issuer's. On disk a private JWK (RFC 8037) that only its owner can
//! read.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::{fmt, io};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

use crate::did::Did;
use crate::key::PublicKey;
use crate::{base64url, json, jws, random};

/// A private key with its did:key. It does not print.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
    public: PublicKey,
    did: Did,
    kid: String,
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// Reading or writing failed.
    #[error("cannot use the key file: {0}")]
    Io(#[from] io::Error),
    /// Others can read it.
    #[error(
        "others can read this key file (mode {0:o}); run chmod 600 on it, and make a new key if it may have been read"
    )]
    Readable(u32),
    /// Not a private Ed25519 JWK.
    #[error(
        "not a private Ed25519 JWK with kty OKP, crv Ed25519, x and d; make one with `milliway did new --out FILE`"
    )]
    Format,
    /// `x` is not the public part of `d`.
    #[error("x and d of this JWK do not belong together; restore the file from a backup or make a new key")]
    Mismatch,
}

impl SigningKey {
    /// A new random key.
    pub fn generate() -> SigningKey {
        SigningKey::from_seed(&random::bytes())
    }

    /// The key of a 32-byte seed (RFC 8032 section 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> SigningKey {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32-byte seed is an Ed25519 key");
        let public =
            PublicKey::ed25519(pair.public_key().as_ref()).expect("a derived key has the group's order");
        let did = Did::from_key(&public);
        let kid = format!("{did}#{}", &did.as_str()["did:key:".len()..]);
        SigningKey {
            pair,
            seed: *seed,
            public,
            did,
            kid,
        }
    }

    /// From a private JWK.
    pub fn from_jwk(text: &str) -> Result<SigningKey, SigningKeyError> {
        let jwk = json::parse_object(text).map_err(|_| SigningKeyError::Format)?;
        let member = |name: &str| jwk.get(name).and_then(|value| value.as_str());
        if member("kty") != Some("OKP") || member("crv") != Some("Ed25519") {
            return Err(SigningKeyError::Format);
        }
        let bytes = |name: &str| -> Option<[u8; 32]> { base64url::decode(member(name)?)?.try_into().ok() };
        let seed = bytes("d").ok_or(SigningKeyError::Format)?;
        let x = bytes("x").ok_or(SigningKeyError::Format)?;
        let key = SigningKey::from_seed(&seed);
        if key.pair.public_key().as_ref() != x {
            return Err(SigningKeyError::Mismatch);
        }
        Ok(key)
    }

    /// The private JWK as text. This is the secret itself.
    pub fn to_private_jwk(&self) -> String {
        format!(
            r#"{{"kty":"OKP","crv":"Ed25519","x":"{}","d":"{}"}}"#,
            base64url::encode(self.pair.public_key()),
            base64url::encode(self.seed)
        )
    }

    /// Reads a key file; refuses one that group or others can read.
    pub fn load(path: &Path) -> Result<SigningKey, SigningKeyError> {
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SigningKeyError::Readable(mode));
        }
        SigningKey::from_jwk(&fs::read_to_string(path)?)
    }

    /// Writes a new key file, mode 0600. It is complete or absent, and never replaces an existing one
    /// (`AlreadyExists`).
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut draft_name = std::ffi::OsString::from(".");
        draft_name.push(name);
        draft_name.push(format!(".{}", base64url::encode(random::bytes::<9>())));
        let draft = path.with_file_name(draft_name);
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&draft)?;
            file.write_all(self.to_private_jwk().as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            // A hard link, unlike a rename, fails when the name is taken.
            fs::hard_link(&draft, path)
        })();
        let _ = fs::remove_file(&draft);
        written?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// The public part.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Its did:key.
    pub fn did(&self) -> &Did {
        &self.did
    }

    /// The DID URL that headers name: `did:key:z…#z…`, unless [`SigningKey::listed_as`] said otherwise.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The same key under another DID that lists it, such as `did:web:relay.example` and `#node-1`.
    #[must_use]
    pub fn listed_as(mut self, did: Did, fragment: &str) -> SigningKey {
        self.kid = format!("{did}#{fragment}");
        self.did = did;
        self
    }

    /// The 64-byte signature over `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair
            .sign(message)
            .as_ref()
            .try_into()
            .expect("an Ed25519 signature has 64 bytes")
    }

    /// A compact JWS with the header {`alg`, `kid`, `typ`}: receipts, statements, tokens.
    pub fn sign_jws(&self, typ: &str, payload: &[u8]) -> String {
        let header = format!(
            r#"{{"alg":"{}","kid":{},"typ":{}}}"#,
            self.public.algorithm().name(),
            jws::quoted(&self.kid),
            jws::quoted(typ)
        );
        jws::sign(self, &header, payload)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({:?})", self.public)
    }
}
