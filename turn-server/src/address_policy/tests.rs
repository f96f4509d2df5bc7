use super::*;

fn peer(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn nothing_outside_the_public_internet_is_a_peer() {
    let policy = AddressPolicy::default();
    let census = Census::new();
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.255",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:0:8.8.8.8",
        "64:ff9b::808:808",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
    ] {
        assert_eq!(
            policy.admit(SocketAddr::new(ip(text), 5000), Protocol::Udp, &census),
            Err(Denied),
            "{text}"
        );
        assert_eq!(policy.admit_address(ip(text)), Err(Denied), "{text}");
    }
}

#[test]
fn the_public_internet_is_open() {
    let policy = AddressPolicy::default();
    for text in [
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "2606:4700::1111",
        "2a00::1",
    ] {
        assert_eq!(
            policy.admit(SocketAddr::new(ip(text), 53), Protocol::Udp, &Census::new()),
            Ok(PeerKind::Foreign),
            "{text}"
        );
    }
}

#[test]
fn of_our_own_addresses_only_the_sfu_and_relayed_ports_are_peers() {
    let policy = AddressPolicy {
        own_addresses: vec![ip("8.8.4.4"), ip("10.0.0.5")],
        sfu: vec![peer("8.8.4.4:5004")],
        own_listeners: vec![3478, 8080],
        ..AddressPolicy::default()
    };
    let census = Census::new();
    assert!(census.take_port(Protocol::Udp, 50_000));
    assert_eq!(
        policy.admit(peer("8.8.4.4:5004"), Protocol::Udp, &census),
        Ok(PeerKind::OwnSfu)
    );
    assert_eq!(
        policy.admit(peer("8.8.4.4:50000"), Protocol::Udp, &census),
        Ok(PeerKind::OwnRelay)
    );
    assert_eq!(
        policy.admit(peer("10.0.0.5:50000"), Protocol::Udp, &census),
        Ok(PeerKind::OwnRelay)
    );
    for denied in [
        "8.8.4.4:3478",
        "8.8.4.4:8080",
        "8.8.4.4:22",
        "8.8.4.4:50001",
        "10.0.0.5:5004",
        "127.0.0.1:22",
    ] {
        assert_eq!(
            policy.admit(peer(denied), Protocol::Udp, &census),
            Err(Denied),
            "{denied}"
        );
    }
}

#[test]
fn an_sfu_on_the_wildcard_is_a_peer_at_each_of_our_addresses_and_nowhere_else() {
    let policy = AddressPolicy {
        own_addresses: vec![ip("10.0.0.5")],
        sfu: vec![peer("0.0.0.0:5004")],
        ..AddressPolicy::default()
    };
    let census = Census::new();
    assert_eq!(
        policy.admit(peer("10.0.0.5:5004"), Protocol::Udp, &census),
        Ok(PeerKind::OwnSfu)
    );
    assert_eq!(
        policy.admit(peer("10.0.0.6:5004"), Protocol::Udp, &census),
        Err(Denied)
    );
}

#[test]
fn loopback_can_be_allowed_but_never_our_own_listeners_there() {
    let policy = AddressPolicy {
        own_listeners: vec![3478, 8080],
        allow_loopback: true,
        ..AddressPolicy::default()
    };
    let census = Census::new();
    assert_eq!(
        policy.admit(peer("127.0.0.1:9"), Protocol::Udp, &census),
        Ok(PeerKind::Foreign)
    );
    assert_eq!(
        policy.admit(peer("127.0.0.1:3478"), Protocol::Udp, &census),
        Err(Denied)
    );
    assert_eq!(
        policy.admit(peer("[::1]:8080"), Protocol::Udp, &census),
        Err(Denied)
    );
    assert_eq!(
        policy.admit(peer("[::ffff:127.0.0.1]:9"), Protocol::Udp, &census),
        Err(Denied)
    );
}

#[test]
fn port_0_is_no_peer() {
    let policy = AddressPolicy {
        allow_loopback: true,
        ..AddressPolicy::default()
    };
    assert_eq!(
        policy.admit(peer("8.8.8.8:0"), Protocol::Udp, &Census::new()),
        Err(Denied)
    );
    assert_eq!(
        policy.admit(peer("127.0.0.1:0"), Protocol::Udp, &Census::new()),
        Err(Denied)
    );
}

#[test]
fn an_operator_lists_exceptions() {
    let policy = AddressPolicy {
        exceptions: vec!["10.1.0.0/16".parse().unwrap()],
        ..AddressPolicy::default()
    };
    let census = Census::new();
    assert_eq!(
        policy.admit(peer("10.1.2.3:5000"), Protocol::Udp, &census),
        Ok(PeerKind::Foreign)
    );
    assert_eq!(
        policy.admit(peer("10.2.2.3:5000"), Protocol::Udp, &census),
        Err(Denied)
    );
    for wrong in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/-1"] {
        assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
    }
    assert!("0.0.0.0/0".parse::<Prefix>().unwrap().contains(ip("8.8.8.8")));
}
