//! Permissions (RFC 8656 section 9): which peer addresses an allocation exchanges data with, for five minutes each.

use std::net::IpAddr;
use std::time::Instant;

use crate::allocation::Family;
use crate::config::PERMISSION_LIFETIME;

/// The permissions of one allocation, in the order of their addresses. Usually there is one and there are at most as many
/// as a browser has candidates, so that a search by halves is faster than a hash and takes no more memory than they need.
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
        self.place(ip).is_ok_and(|place| now < self.entries[place].1)
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
        match self.place(ip) {
            Ok(place) => self.entries[place].1 = expires,
            Err(place) => {
                // Twice as many as before, and one at first: an idle allocation has no room to spare.
                if self.entries.len() == self.entries.capacity() {
                    self.entries.reserve_exact(self.entries.len().max(1));
                }
                self.entries.insert(place, (ip, expires));
            }
        }
    }

    fn place(&self, ip: IpAddr) -> Result<usize, usize> {
        self.entries.binary_search_by(|(permitted, _)| permitted.cmp(&ip))
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
    fn permissions_are_found_in_whatever_order_they_came() {
        let start = Instant::now();
        let mut permissions = Permissions::new(64);
        let v4 = |n: u32| IpAddr::from((0x0808_0000 + n).to_be_bytes());
        let v6 = |n: u16| IpAddr::from([0x2001, 0xDB8, 0, 0, 0, 0, 0, n]);
        // 37 has no factor in common with 32: every number comes once.
        let mixed = || (0..32_u32).map(|n| n * 37 % 32);
        for n in mixed() {
            permissions.install(v4(n), start);
            permissions.install(v6(n as u16), start);
        }
        assert!(mixed().all(|n| permissions.allows(v4(n), start) && permissions.allows(v6(n as u16), start)));
        assert!(!permissions.allows(v4(32), start) && !permissions.allows(v6(32), start));
        permissions.remove_family(Family::V4);
        assert!(!permissions.allows(v4(1), start) && permissions.allows(v6(1), start));
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
