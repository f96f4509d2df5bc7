//! A disk that fails on purpose, for tests: it is full, or the power goes, and of what was not synced some is lost and some torn.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used)]

use redb::StorageBackend;
use std::{
    io,
    sync::{Arc, Mutex},
};

/// A disk that remembers what was synced, what was only written, and when it shall fail.
#[derive(Debug, Default)]
struct Platters {
    synced: Vec<u8>,
    written: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
    operations_left: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Platters>>);

impl Disk {
    fn operation(&self) -> io::Result<std::sync::MutexGuard<'_, Platters>> {
        let mut platters = self.0.lock().unwrap();
        match &mut platters.operations_left {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(platters)
    }

    /// The operation after so many fails, and every one after it.
    pub(crate) fn fail_after(&self, operations: usize) {
        self.0.lock().unwrap().operations_left = Some(operations);
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        self.0.lock().unwrap().operations_left = None;
    }

    /// What is on the disk after the power failed: of the writes that were not synced, those that `luck` picks, and
    /// one of them torn.
    pub(crate) fn after_the_crash(&self, luck: u64) -> Disk {
        let platters = self.0.lock().unwrap();
        let mut image = platters.synced.clone();
        image.resize(platters.written.len().max(image.len()), 0);
        for (index, (offset, data)) in platters.unsynced.iter().enumerate() {
            let bits = luck.rotate_left(index as u32 * 3);
            let part = match bits & 3 {
                0 => 0,
                1 => data.len() / 2,
                _ => data.len(),
            };
            let start = *offset as usize;
            image[start..start + part].copy_from_slice(&data[..part]);
        }
        Disk(Arc::new(Mutex::new(Platters {
            synced: image.clone(),
            written: image,
            ..Platters::default()
        })))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platters = self.0.lock().unwrap();
        let start = offset as usize;
        let stored = platters
            .written
            .get(start..start + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(stored);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platters = self.operation()?;
        platters.written.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platters = self.operation()?;
        let Platters {
            synced,
            written,
            unsynced,
            ..
        } = &mut *platters;
        synced.resize(written.len(), 0);
        for (offset, data) in unsynced.drain(..) {
            let start = offset as usize;
            synced[start..start + data.len()].copy_from_slice(&data);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platters = self.operation()?;
        let start = offset as usize;
        platters.written[start..start + data.len()].copy_from_slice(data);
        platters.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}
