//! Permissions (RFC 8656 section 9): which peer addresses an allocation exchanges data with, for five minutes each.

use std::net::IpAddr;
use std::time::Instant;

use crate::allocation::Family;
use crate::config::PERMISSION_LIFETIME;

/// The permissions of one allocation. A handful, so a list is faster than a map.
pub(crate) struct Permissions {
    entries: Vec<(IpAddr, Instant)>,
    max: usize,
}

impl Permissions {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            entries: Vec::new(),
            max,
        }
    }

    pub(crate) fn allows(&self, ip: IpAddr, now: Instant) -> bool {
        self.entries
            .iter()
            .any(|(permitted, expires)| *permitted == ip && now < *expires)
    }

    /// Would all of these fit? Repeated ones are counted once.
    pub(crate) fn fits(&mut self, ips: impl Iterator<Item = IpAddr>, now: Instant) -> bool {
        self.entries.retain(|(_, expires)| now < *expires);
        let mut added = Vec::new();
        for ip in ips {
            if !self.allows(ip, now) && !added.contains(&ip) {
                added.push(ip);
                if self.entries.len() + added.len() > self.max {
                    return false;
                }
            }
        }
        true
    }

    /// Removes those of one family.
    pub(crate) fn remove_family(&mut self, family: Family) {
        self.entries.retain(|(ip, _)| Family::of(*ip) != family);
    }

    /// Makes or refreshes one. Call [`Permissions::fits`] first.
    pub(crate) fn install(&mut self, ip: IpAddr, now: Instant) {
        let expires = now + PERMISSION_LIFETIME;
        match self.entries.iter_mut().find(|(permitted, _)| *permitted == ip) {
            Some(entry) => entry.1 = expires,
            None => self.entries.push((ip, expires)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_lasts_five_minutes_and_a_refresh_five_more() {
        let start = Instant::now();
        let ip = IpAddr::from([8, 8, 8, 8]);
        let mut permissions = Permissions::new(2);
        permissions.install(ip, start);
        assert!(permissions.allows(ip, start + PERMISSION_LIFETIME / 2));
        permissions.install(ip, start + PERMISSION_LIFETIME / 2);
        assert!(permissions.allows(ip, start + PERMISSION_LIFETIME));
        assert!(!permissions.allows(ip, start + PERMISSION_LIFETIME * 3 / 2));
    }

    #[test]
    fn expired_permissions_make_room() {
        let start = Instant::now();
        let mut permissions = Permissions::new(2);
        let ips = |range: std::ops::Range<u8>| range.map(|last| IpAddr::from([8, 8, 8, last]));
        assert!(permissions.fits(ips(0..2), start));
        ips(0..2).for_each(|ip| permissions.install(ip, start));
        assert!(permissions.fits(ips(0..2), start), "refreshing needs no room");
        assert!(!permissions.fits(ips(2..3), start));
        assert!(permissions.fits(ips(2..4), start + PERMISSION_LIFETIME));
        assert!(!permissions.fits(ips(2..5), start + PERMISSION_LIFETIME));
    }
}
