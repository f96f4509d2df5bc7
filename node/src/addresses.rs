//! Which addresses clients can be told: what the operator advertises, else the address that was bound, and for a
//! wildcard every usable address of this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The addresses of this machine's interfaces, as the kernel lists them. Empty where /proc is not to be had.
pub(crate) fn of_this_machine() -> Vec<IpAddr> {
    let trie = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let inet6 = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut all: Vec<IpAddr> = in_fib_trie(&trie).into_iter().map(IpAddr::V4).collect();
    all.extend(in_if_inet6(&inet6).into_iter().map(IpAddr::V6));
    all
}

/// Local IPv4 addresses: a leaf `|-- ADDRESS`, then `/32 host LOCAL`.
fn in_fib_trie(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut leaf = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = leaf
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// IPv6 addresses: 32 hex digits at each line's start.
fn in_if_inet6(text: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| {
        u128::from_str_radix(line.split_whitespace().next()?, 16)
            .ok()
            .map(Ipv6Addr::from)
    };
    text.lines().filter_map(address).collect()
}

/// Can a client elsewhere use this address?
fn usable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !address.is_loopback() && !address.is_link_local() && !address.is_unspecified()
        }
        IpAddr::V6(address) => {
            !address.is_loopback() && !address.is_unicast_link_local() && !address.is_unspecified()
        }
    }
}

/// What to tell clients about a socket bound to `bound`.
pub(crate) fn advertised(bound: SocketAddr, wished: &[IpAddr]) -> Vec<SocketAddr> {
    let with_port = |address: IpAddr| SocketAddr::new(address, bound.port());
    if !wished.is_empty() {
        return wished.iter().copied().map(with_port).collect();
    }
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    let both = bound.is_ipv6();
    let mut found: Vec<IpAddr> = of_this_machine();
    found.retain(|address| usable(address) && (both || address.is_ipv4()));
    if found.is_empty() {
        found.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    found.into_iter().map(with_port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_understood() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 172.17.0.2\n        \
                    /32 host LOCAL\n     |-- 172.17.255.255\n        /32 link BROADCAST\nLocal:\n     |-- 172.17.0.2\n        \
                    /32 host LOCAL\n";
        assert_eq!(in_fib_trie(trie), [Ipv4Addr::new(172, 17, 0, 2)]);
        let inet6 = "00000000000000000000000000000001 01 80 10 80       lo\nnonsense\n";
        assert_eq!(in_if_inet6(inet6), [Ipv6Addr::LOCALHOST]);
    }

    #[test]
    fn a_bound_address_is_told_as_it_is_and_a_wildcard_never() {
        let bound: SocketAddr = "127.0.0.1:5004".parse().unwrap();
        assert_eq!(advertised(bound, &[]), [bound]);
        let wished = ["203.0.113.5".parse().unwrap()];
        assert_eq!(advertised(bound, &wished), ["203.0.113.5:5004".parse().unwrap()]);
        let any = advertised("0.0.0.0:5004".parse().unwrap(), &[]);
        assert!(!any.is_empty() && any.iter().all(|address| !address.ip().is_unspecified()));
    }
}
