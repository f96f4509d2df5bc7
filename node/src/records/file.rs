//! Records as lines of a file: appended, and on the disk before they count as delivered. The file may be moved away at any
//! time (logrotate): the next records find that its name is another file, or none, and begin a new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::event::Event;

/// From here a torn line's beginning is looked for; no record is longer by far.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// A file of records.
pub(crate) struct FileSink {
    path: PathBuf,
    file: Option<File>,
}

impl FileSink {
    pub(crate) fn new(path: &str) -> FileSink {
        FileSink {
            path: path.into(),
            file: None,
        }
    }

    /// Appends. After an error nothing of it stands in the file, as far as the disk lets that be.
    pub(crate) async fn put(&mut self, records: &[Event]) -> Result<(), String> {
        let mut text = String::new();
        for record in records {
            text.push_str(&record.line());
            text.push('\n');
        }
        let (path, file) = (self.path.clone(), self.file.take());
        let written = tokio::task::spawn_blocking(move || append(&path, file, text.as_bytes()))
            .await
            .map_err(|error| error.to_string())?;
        self.file = Some(written.map_err(|error| format!("{}: {error}", self.path.display()))?);
        Ok(())
    }
}

fn append(path: &Path, file: Option<File>, text: &[u8]) -> io::Result<File> {
    let same = |file: &File| -> io::Result<bool> {
        let (held, named) = (file.metadata()?, std::fs::metadata(path)?);
        Ok((held.dev(), held.ino()) == (named.dev(), named.ino()))
    };
    let mut file = match file {
        Some(file) if same(&file).unwrap_or(false) => file,
        _ => open(path)?,
    };
    let before = file.seek(SeekFrom::End(0))?;
    let written = file.write_all(text).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // A full disk may have taken half a line.
        file.set_len(before)?;
        return Err(error);
    }
    Ok(file)
}

/// Opens it, and cuts off what a crash left of a line: that record was not acknowledged and comes again.
fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let length = file.metadata()?.len();
    let tail = length.min(LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(length - tail))?;
    let mut bytes = Vec::new();
    (&file).take(tail).read_to_end(&mut bytes)?;
    if bytes.last().is_some_and(|last| *last != b'\n') {
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        if whole == 0 && tail < length {
            return Err(io::Error::other(
                "its last line has no end; it is no file of records",
            ));
        }
        file.set_len(length - tail + whole as u64)?;
        file.sync_data()?;
    }
    // The name itself must survive a crash too.
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metering::ledger::{Entry, EntryId, Kind, Leaving};
    use metering::{AccountId, Msat};

    fn record(number: u64) -> Event {
        let leaving = Leaving {
            id: EntryId { shard: 0, number },
            entry: Entry::new(Kind::Settle, &AccountId::new("anna"), Msat::new(number)),
            voucher: None,
        };
        Event::of(leaving, "did:web:relay.example", number)
    }

    fn ids(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Event>(line).unwrap().id)
            .collect()
    }

    #[tokio::test]
    async fn a_line_that_a_crash_tore_is_cut_off_before_the_next_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let name = path.to_str().unwrap();
        FileSink::new(name).put(&[record(1), record(2)]).await.unwrap();
        let whole = std::fs::read(&path).unwrap();
        let half = record(3).line();
        std::fs::write(&path, [&whole[..], &half.as_bytes()[..half.len() / 2]].concat()).unwrap();
        FileSink::new(name).put(&[record(3)]).await.unwrap();
        assert_eq!(ids(&path), ["0-1-0", "0-2-0", "0-3-0"]);
        // Torn in the very first line.
        std::fs::write(&path, &half.as_bytes()[..5]).unwrap();
        FileSink::new(name).put(&[record(3)]).await.unwrap();
        assert_eq!(ids(&path), ["0-3-0"]);
    }

    #[tokio::test]
    async fn a_file_that_was_moved_away_is_begun_anew_and_one_that_is_none_of_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let mut sink = FileSink::new(path.to_str().unwrap());
        sink.put(&[record(1)]).await.unwrap();
        let rotated = folder.path().join("records.jsonl.1");
        std::fs::rename(&path, &rotated).unwrap();
        sink.put(&[record(2)]).await.unwrap();
        assert_eq!(
            (ids(&rotated), ids(&path)),
            (vec!["0-1-0".to_owned()], vec!["0-2-0".to_owned()])
        );

        let other = folder.path().join("other");
        std::fs::write(&other, vec![b'x'; 2 << 20]).unwrap();
        assert!(
            FileSink::new(other.to_str().unwrap())
                .put(&[record(1)])
                .await
                .is_err()
        );
        assert_eq!(std::fs::metadata(&other).unwrap().len(), 2 << 20);
    }
}
