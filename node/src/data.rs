//! The data folder: everything of a relay that must survive a restart. Keys and the admin token are readable by their
//! owner only, and so is the folder.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::{Did, SigningKey};
use rand::RngExt;

/// The file with the DID URL that the relay's key was last served as.
const SERVED_AS: &str = "served-as";

/// A relay's data folder.
pub(crate) struct Data {
    folder: PathBuf,
}

impl Data {
    /// The folder at `path`, which may not exist yet.
    pub(crate) fn at(path: &Path) -> Data {
        Data {
            folder: path.to_owned(),
        }
    }

    /// Makes the folder, or sees that an existing one is nobody else's to read.
    pub(crate) fn prepare(&self) -> Result<(), String> {
        let named = |error: std::io::Error| format!("data folder {}: {error}", self.folder.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(named)?;
        let mode = fs::metadata(&self.folder).map_err(named)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            fs::set_permissions(&self.folder, PermissionsExt::from_mode(0o700)).map_err(named)?;
        }
        Ok(())
    }

    /// The ledger's file.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder.join("ledger.redb")
    }

    /// A private key of the relay, made on first use.
    pub(crate) fn key(&self, name: &str) -> Result<SigningKey, String> {
        let path = self.path(name);
        if !path.exists() {
            let key = SigningKey::generate();
            match key.save(&path) {
                Ok(()) => return Ok(key),
                // Another process was first; its key is the one.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(format!("{}: {error}", path.display())),
            }
        }
        SigningKey::load(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The relay's own key, under the DID that it was last served as.
    pub(crate) fn relay_key(&self) -> Result<SigningKey, String> {
        let key = self.key("relay.jwk")?;
        let Ok(kid) = fs::read_to_string(self.path(SERVED_AS)) else {
            return Ok(key);
        };
        let wrong = || {
            format!(
                "{}: it must name a DID URL, or be removed",
                self.path(SERVED_AS).display()
            )
        };
        let (did, fragment) = kid.trim().split_once('#').ok_or_else(wrong)?;
        Ok(key.listed_as(Did::parse(did).map_err(|_| wrong())?, fragment))
    }

    /// The relay's key under its own did:key, whatever it was served as before.
    pub(crate) fn relay_key_alone(&self) -> Result<SigningKey, String> {
        let _ = fs::remove_file(self.path(SERVED_AS));
        self.key("relay.jwk")
    }

    /// The relay's key as a node of an operator, which is remembered for `milliway account` and its like.
    pub(crate) fn relay_key_as(&self, operator: &Did, node: &str) -> Result<SigningKey, String> {
        let key = self
            .key("relay.jwk")?
            .listed_as(operator.clone(), &format!("node-{node}"));
        let path = self.path(SERVED_AS);
        fs::write(&path, format!("{}\n", key.kid()))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(key)
    }

    /// The file of the admin token, made on first use.
    pub(crate) fn admin_token_file(&self) -> Result<PathBuf, String> {
        let path = self.path("admin.token");
        let token = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 32]>());
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match made.and_then(|mut file| writeln!(file, "{token}")) {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(path),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// 32 secret bytes in a file, as hexadecimal digits; drawn on first use. A file elsewhere is named by its whole path.
    pub(crate) fn secret_32(&self, name: &str) -> Result<[u8; 32], String> {
        let path = self.path(name);
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let drawn: [u8; 32] = rand::rng().random();
        let text: String = drawn.iter().map(|byte| format!("{byte:02x}")).collect();
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match made.and_then(|mut file| writeln!(file, "{text}").and_then(|()| file.sync_all())) {
            Ok(()) => return Ok(drawn),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(named(&error)),
        }
        let text = fs::read_to_string(&path).map_err(|error| named(&error))?;
        let digits = text.trim();
        let bytes =
            (digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())).then(|| {
                let byte =
                    |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap_or_default();
                std::array::from_fn(byte)
            });
        bytes.ok_or_else(|| named(&"it must hold 64 hexadecimal digits"))
    }

    /// A file in the folder, as an absolute path where that can be known.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let folder = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        folder.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_and_nobody_else_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data::at(&folder.path().join("deep/data"));
        data.prepare().unwrap();
        let first = data.key("relay.jwk").unwrap().did().clone();
        assert_eq!(*data.key("relay.jwk").unwrap().did(), first);
        let token = data.admin_token_file().unwrap();
        let text = fs::read_to_string(&token).unwrap();
        assert_eq!(
            fs::read_to_string(data.admin_token_file().unwrap()).unwrap(),
            text
        );
        for path in [data.path("relay.jwk"), token] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let mode = fs::metadata(folder.path().join("deep/data"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
