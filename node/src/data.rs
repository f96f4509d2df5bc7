//! The data folder: everything of a relay that must survive a restart. Keys and the admin token are readable by their
//! owner only, and so is the folder.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::SigningKey;
use rand::RngExt;

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
