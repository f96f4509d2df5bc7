//! The operator's deny list: a file in the data folder that `milliway deny` writes and a running relay reads when it
//! changes. One entry a line, `kind value`. It is replaced as a whole, so a reader sees the old list or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use identity::policy::DenyList;

use crate::config::Mistake;

/// What tells one version of the file from another: its inode is new each time.
type Version = Option<(u64, i64, i64, u64)>;

/// The file.
pub(crate) struct DenyFile {
    path: PathBuf,
    seen: Mutex<Version>,
}

impl DenyFile {
    /// In this data folder.
    pub(crate) fn at(folder: &Path) -> DenyFile {
        DenyFile {
            path: folder.join("deny.list"),
            seen: Mutex::new(None),
        }
    }

    /// Everything on it; nothing if there is no file yet.
    pub(crate) fn read(&self) -> Result<DenyList, Mistake> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = self.version();
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(self.mistake(None, &error)),
        };
        let mut list = DenyList::default();
        for (number, line) in text.lines().enumerate() {
            let mistake = |what: &dyn std::fmt::Display| self.mistake(Some(number + 1), what);
            let (kind, value) = line
                .split_once(' ')
                .ok_or_else(|| mistake(&"must be: KIND VALUE"))?;
            let kind = kind.parse().map_err(|error| mistake(&error))?;
            list.add(kind, value).map_err(|error| mistake(&error))?;
        }
        Ok(list)
    }

    /// Is the file another one than was read last?
    pub(crate) fn has_changed(&self) -> bool {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != self.version()
    }

    /// Changes the list, alone among all who would. The file is complete at any time, and only its owner's to read.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut DenyList) -> Result<T, String>,
    ) -> Result<T, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.path.display());
        let private = |path: &Path| {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)
        };
        let lock = private(&self.path.with_extension("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut list = self.read().map_err(|mistake| mistake.to_string())?;
        let result = change(&mut list)?;
        let draft = self.path.with_extension("draft");
        let text: String = list
            .iter()
            .map(|(kind, value)| format!("{kind} {value}\n"))
            .collect();
        // What a writer that was killed left is not ours to build on.
        let _ = fs::remove_file(&draft);
        let mut file: File = private(&draft).map_err(failed)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        fs::rename(&draft, &self.path).map_err(failed)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        Ok(result)
    }

    fn version(&self) -> Version {
        let file = fs::metadata(&self.path).ok()?;
        Some((file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
    }

    fn mistake(&self, line: Option<usize>, what: &dyn std::fmt::Display) -> Mistake {
        let line = line.map_or(String::new(), |line| format!(":{line}"));
        Mistake {
            place: format!("{}{line}", self.path.display()),
            what: what.to_string(),
        }
    }
}
