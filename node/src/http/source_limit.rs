//! How much one source may ask for: a token bucket and a count of connections for each IPv4 address or IPv6 /56,
//! so that one client cannot keep the others from the front door. Bounded, and forgetful of who behaves.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Instant;

/// Sources remembered at once. Past it, sources that are back at a full bucket are forgotten; if none is, the
/// newcomer is refused, since that takes 65,536 sources that are all busy.
const SOURCES_MAX: usize = 65_536;

/// Who is counted as one: an IPv4 address, or the /56 that an IPv6 customer usually has.
pub(crate) fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & (u128::MAX << 72))),
    }
}

struct Bucket {
    left: f64,
    at: Instant,
    connections: u32,
}

/// The buckets and counts of all sources.
pub(crate) struct SourceLimit {
    per_second: f64,
    burst: f64,
    connections_max: u32,
    sources: Mutex<HashMap<IpAddr, Bucket>>,
}

impl SourceLimit {
    pub(crate) fn new(per_second: u64, burst: u64, connections_max: u64) -> SourceLimit {
        SourceLimit {
            per_second: per_second as f64,
            burst: burst as f64,
            connections_max: u32::try_from(connections_max).unwrap_or(u32::MAX),
            sources: Mutex::new(HashMap::new()),
        }
    }

    fn with<T>(&self, address: IpAddr, now: Instant, full: T, work: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut sources = self
            .sources
            .lock()
            .expect("nothing panics while it holds the source table");
        let source = source_of(address);
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&source) {
            let (rate, burst) = (self.per_second, self.burst);
            sources.retain(|_, bucket| {
                bucket.connections > 0
                    || bucket.left + now.saturating_duration_since(bucket.at).as_secs_f64() * rate < burst
            });
            if sources.len() >= SOURCES_MAX {
                return full;
            }
        }
        work(sources.entry(source).or_insert(Bucket {
            left: self.burst,
            at: now,
            connections: 0,
        }))
    }

    /// Takes one call from the source's bucket; false if there is none left.
    pub(crate) fn call(&self, address: IpAddr, now: Instant) -> bool {
        let (rate, burst) = (self.per_second, self.burst);
        self.with(address, now, false, |bucket| {
            let refill = now.saturating_duration_since(bucket.at).as_secs_f64() * rate;
            bucket.left = (bucket.left + refill).min(burst);
            bucket.at = now;
            let enough = bucket.left >= 1.0;
            if enough {
                bucket.left -= 1.0;
            }
            enough
        })
    }

    /// Counts a new connection of the source; false if it has its share already.
    pub(crate) fn connect(&self, address: IpAddr, now: Instant) -> bool {
        let most = self.connections_max;
        self.with(address, now, false, |bucket| {
            let room = bucket.connections < most;
            bucket.connections += u32::from(room);
            room
        })
    }

    /// A connection that [`SourceLimit::connect`] counted has ended.
    pub(crate) fn disconnect(&self, address: IpAddr, now: Instant) {
        self.with(address, now, (), |bucket| {
            bucket.connections = bucket.connections.saturating_sub(1)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_source_past_its_burst_waits_and_others_do_not() {
        let limit = SourceLimit::new(2, 3, 10);
        let (now, loud, quiet) = (
            Instant::now(),
            "192.0.2.1".parse().unwrap(),
            "192.0.2.2".parse().unwrap(),
        );
        assert_eq!((0..10).filter(|_| limit.call(loud, now)).count(), 3);
        assert!(limit.call(quiet, now));
        assert!(!limit.call(loud, now + Duration::from_millis(400)));
        assert!(limit.call(loud, now + Duration::from_millis(1000)));
    }

    #[test]
    fn one_ipv6_customer_is_one_source() {
        let first: IpAddr = "2001:db8:1:2300::1".parse().unwrap();
        assert_eq!(
            source_of(first),
            source_of("2001:db8:1:23ff:ffff::9".parse().unwrap())
        );
        assert_ne!(source_of(first), source_of("2001:db8:1:2400::1".parse().unwrap()));
        assert_eq!(
            source_of("::ffff:192.0.2.1".parse().unwrap()),
            source_of("192.0.2.1".parse().unwrap())
        );
    }

    #[test]
    fn connections_of_one_source_are_counted() {
        let limit = SourceLimit::new(1, 1, 2);
        let (now, source) = (Instant::now(), "192.0.2.1".parse().unwrap());
        assert!(limit.connect(source, now) && limit.connect(source, now) && !limit.connect(source, now));
        limit.disconnect(source, now);
        assert!(limit.connect(source, now));
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let limit = SourceLimit::new(1, 1, 2);
        let now = Instant::now();
        for number in 0..SOURCES_MAX as u32 {
            assert!(limit.call(IpAddr::from(number.to_be_bytes()), now));
        }
        assert!(!limit.call("203.0.113.1".parse().unwrap(), now), "all are busy");
        assert!(
            limit.call("203.0.113.1".parse().unwrap(), now + Duration::from_secs(2)),
            "all are forgotten"
        );
    }
}
