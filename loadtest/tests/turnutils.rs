//! Debian's TURN client (coturn's `turnutils_uclient`) in its modes against Debian's TURN server and, with credentials
//! bought over HTTP, against ours: so that what fails is known to be ours.

mod beside;

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use beside::{Coturn, Credentials, Peer, credentials, known_to_coturn, metric_becomes, port_of};
use loadtest::relay::Relay;

/// Messages each emulated client sends. The tool says how many came back.
const MESSAGES: u32 = 10;

fn uclient(port: u16, username: &str, password: &str, arguments: &[&str], seconds: u32) -> (Output, String) {
    let output = Command::new("timeout")
        .args([&seconds.to_string(), "turnutils_uclient"])
        .args(arguments)
        .args(["-u", username, "-w", password])
        .args(["-n", &MESSAGES.to_string(), "-p", &port.to_string(), "127.0.0.1"])
        .output()
        .expect("turnutils_uclient; `apt-get install coturn` brings it");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output, said)
}

/// The numbers after "name=" in the tool's last report: "tot_send_msgs=30, tot_recv_msgs=30, ...".
fn last(said: &str, name: &str) -> Option<u64> {
    let at = said.rfind(&format!("{name}="))? + name.len() + 1;
    let digits: String = said[at..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Over TLS and DTLS the tool draws lots which version it speaks, old ones among them, which nobody should; it then says
/// nothing of a transfer.
const DRAWS: usize = 8;

/// And coturn, on a loaded machine, is now and then too slow for its own tool.
const COTURN_DRAWS: usize = 3;

/// Everything that was sent came back.
fn all_came_back(name: &str, port: u16, credentials: &Credentials, arguments: &[&str], clients: u64) {
    let Credentials {
        username, password, ..
    } = credentials;
    let messages = u64::from(MESSAGES) * clients;
    let is_coturn = name == "coturn";
    let draws = match (arguments.contains(&"-S"), is_coturn) {
        (true, _) => DRAWS,
        (false, true) => COTURN_DRAWS,
        (false, false) => 1,
    };
    let seconds = if draws > 1 { 12 } else { 60 };
    let mut tried = None;
    for _ in 0..draws {
        let (output, said) = uclient(port, username, password, arguments, seconds);
        // Whoever got as far as sending is judged; a run that loses messages waits for them, and does not end in time.
        let transferred = last(&said, "tot_send_msgs").is_some();
        let done = transferred && (!is_coturn || last(&said, "tot_recv_msgs") == Some(messages));
        tried = Some((output, said));
        if done {
            break;
        }
    }
    let (output, said) = tried.expect("at least one run");
    assert!(output.status.success(), "{name}: {}\n{said}", output.status);
    assert_eq!(last(&said, "tot_send_msgs"), Some(messages), "{name}: {said}");
    assert_eq!(last(&said, "tot_recv_msgs"), Some(messages), "{name}: {said}");
    assert!(said.contains("Total lost packets 0"), "{name}: {said}");
}

/// The same from coturn and from us.
fn passes(arguments: &[&str], clients: u64) {
    let peer = Peer::start();
    let port = peer.port.to_string();
    let family = if arguments.contains(&"-x") {
        "::1"
    } else {
        "127.0.0.1"
    };
    let all = [arguments, &["-e", family, "-r", &port]].concat();
    let coturn = Coturn::start();
    let known = known_to_coturn();
    all_came_back("coturn", coturn.port, &known, &all, clients);
    let relay = Relay::start().expect("a relay that starts");
    all_came_back("milliway", port_of(&relay), &credentials(&relay), &all, clients);
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
}

#[test]
fn channels_to_a_peer_bring_everything_back() {
    passes(&["-X", "-c"], 1);
}

#[test]
fn send_indications_to_a_peer_bring_everything_back() {
    passes(&["-X", "-c", "-s"], 1);
}

#[test]
fn clients_reach_each_other_through_their_relayed_addresses() {
    passes(&["-y", "-X", "-c"], 2);
}

#[test]
fn over_tcp_channels_and_indications_bring_everything_back() {
    passes(&["-t", "-X", "-c"], 1);
    passes(&["-t", "-X", "-c", "-s"], 1);
}

#[test]
fn over_tls_on_the_same_port_everything_comes_back() {
    passes(&["-t", "-S", "-X", "-c"], 1);
    passes(&["-t", "-S", "-X", "-c", "-s"], 1);
}

/// The tool reads a TLS record for a message and counts it once: whatever else is in it is lost. Coturn packs two messages
/// into a record now and then, and then loses just these; we never do.
#[test]
fn clients_reach_each_other_over_tls() {
    const CHANNEL_DATA: u64 = 104;
    let (arguments, sent) = (["-v", "-t", "-S", "-y", "-X", "-c"], u64::from(2 * MESSAGES));
    let coturn = Coturn::start();
    let who = known_to_coturn();
    let said = (0..DRAWS)
        .map(|_| uclient(coturn.port, &who.username, &who.password, &arguments, 10).1)
        .find(|said| last(said, "tot_send_msgs") == Some(sent))
        .expect("a run that transfers");
    let records = said.split("response received: size=").skip(1);
    let of_data: Vec<u64> = records
        .filter_map(|rest| rest.lines().next()?.trim().parse().ok())
        .filter(|size| size % CHANNEL_DATA == 0)
        .collect();
    let carried: u64 = of_data.iter().map(|size| size / CHANNEL_DATA).sum();
    assert_eq!(carried, sent, "coturn sent all of them: {said}");
    assert_eq!(last(&said, "tot_recv_msgs"), Some(of_data.len() as u64), "{said}");
    let relay = Relay::start().expect("a relay that starts");
    all_came_back("milliway", port_of(&relay), &credentials(&relay), &arguments, 2);
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
}

#[test]
fn over_dtls_on_the_udp_port_everything_comes_back() {
    passes(&["-S", "-X", "-c"], 1);
}

#[test]
fn tcp_allocations_carry_everything_between_clients() {
    passes(&["-t", "-T", "-y", "-X", "-c"], 2);
    passes(&["-t", "-S", "-T", "-y", "-c"], 2);
}

#[test]
fn ipv6_allocations_and_both_families_at_once_bring_everything_back() {
    passes(&["-x", "-c"], 1);
    passes(&["-Z", "-c"], 1);
}

#[test]
fn mobile_clients_lose_nothing() {
    // Over TCP the tool fails at coturn.
    passes(&["-M", "-X", "-c"], 1);
}

#[test]
fn padded_channels_and_extra_requests_bring_everything_back() {
    passes(&["-D", "-X", "-c"], 1);
    passes(&["-t", "-D", "-X", "-c"], 1);
    passes(&["-G", "-X", "-c"], 1);
}

/// Runs the tool until it has said this, or so long; what it said. For runs that only wait afterwards.
fn uclient_until(port: u16, who: &Credentials, arguments: &[&str], done: &str, max: Duration) -> String {
    let mut child = Command::new("turnutils_uclient")
        .args(arguments)
        .args(["-u", &who.username, "-w", &who.password])
        .args(["-n", &MESSAGES.to_string(), "-p", &port.to_string(), "127.0.0.1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("turnutils_uclient; `apt-get install coturn` brings it");
    let mut output = child.stdout.take().expect("a pipe");
    let (pieces, piece) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = output.read(&mut buffer) {
            drop(pieces.send(String::from_utf8_lossy(&buffer[..len]).into_owned()));
        }
    });
    let mut said = String::new();
    let end = Instant::now() + max;
    while !said.contains(done) {
        match piece.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(more) => said.push_str(&more),
            Err(_) => break,
        }
    }
    drop(child.kill());
    drop(child.wait());
    drop(reader.join());
    said
}

/// The same tool at coturn and at us, at once: most of these runs wait for what does not come.
fn at_both<T: Send>(run: impl Fn(&str, u16, Credentials) -> T + Sync) -> [T; 2] {
    let coturn = Coturn::start();
    let relay = Relay::start().expect("a relay that starts");
    let both = std::thread::scope(|threads| {
        let theirs = threads.spawn(|| run("coturn", coturn.port, known_to_coturn()));
        let ours = threads.spawn(|| run("milliway", port_of(&relay), credentials(&relay)));
        [theirs, ours].map(|thread| thread.join().expect("a run that ends"))
    });
    whoever_comes_after_is_served(&relay);
    both
}

fn whoever_comes_after_is_served(relay: &Relay) {
    let peer = Peer::start();
    let good = ["-X", "-c", "-e", "127.0.0.1", "-r", &peer.port.to_string()];
    all_came_back("milliway", port_of(relay), &credentials(relay), &good, 1);
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
}

/// `-P`: the peer is the one that connects. It sends as much as the client, and the tool counts what the client got.
#[test]
fn a_peer_connects_to_a_tcp_allocation_and_its_bytes_arrive() {
    let relay = Relay::start().expect("a relay that starts");
    let coturn = Coturn::start();
    let arguments = ["-t", "-P", "-X", "-c"];
    let (sent, received) = (2 * MESSAGES, MESSAGES);
    let done = format!("tot_send_msgs={sent}, tot_recv_msgs={received},");
    let run = |port, who: &Credentials| uclient_until(port, who, &arguments, &done, Duration::from_secs(20));
    let (theirs, ours) = std::thread::scope(|threads| {
        let theirs = threads.spawn(|| run(coturn.port, &known_to_coturn()));
        let ours = run(port_of(&relay), &credentials(&relay));
        (theirs.join().expect("a run that ends"), ours)
    });
    for (name, said) in [("coturn", theirs), ("milliway", ours)] {
        assert!(said.contains(&done), "{name}: {said}");
    }
    // What the client sent reached the peer, too: the tool does not count it, the relay does.
    let bytes = u64::from(MESSAGES) * 100;
    for direction in ["in", "out"] {
        let name = format!("milliway_turn_bytes_total{{direction=\"{direction}\"}}");
        metric_becomes(&relay, &name, bytes);
    }
}

/// `-N`: channel numbers out of range, and CONNECTION-IDs that nobody gave out.
#[test]
fn wrong_channels_and_wrong_connections_are_refused_and_what_is_right_beside_them_passes() {
    let peer = Peer::start();
    let to = ["-X", "-c", "-e", "127.0.0.1", "-r", &peer.port.to_string()];
    let refused = "connection bind error 400";
    let both = at_both(|name, port, who| {
        let (output, said) = uclient(
            port,
            &who.username,
            &who.password,
            &[&["-N"], &to[..]].concat(),
            20,
        );
        assert!(!output.status.success(), "{name}: {said}");
        assert!(said.contains("channel bind: error 400"), "{name}: {said}");
        assert_eq!(last(&said, "tot_recv_msgs"), None, "{name}: {said}");
        all_came_back(name, port, &who, &[&["-N", "-s"], &to[..]].concat(), 1);
        let arguments = ["-N", "-t", "-T", "-X", "-c"];
        let said = uclient_until(port, &who, &arguments, refused, Duration::from_secs(5));
        assert_eq!(last(&said, "tot_recv_msgs"), None, "{name}: {said}");
        said
    });
    // Coturn answers a CONNECTION-ID that nobody knows by closing; we say 400, as RFC 6062 has it.
    assert!(both[1].contains(refused), "{}", both[1]);
}

/// `-R`: one message in ten is changed at random places. The tool waits for ever for the answer to a request that it spoilt,
/// so it is a matter of chance which runs get as far as sending.
#[test]
fn spoilt_messages_spoil_nothing_else() {
    const RUNS: usize = 10;
    let peer = Peer::start();
    let arguments = ["-R", "-X", "-c", "-e", "127.0.0.1", "-r", &peer.port.to_string()];
    let sent = u64::from(MESSAGES);
    let best = at_both(|_, port, who| {
        let run = || {
            let (_, said) = uclient(port, &who.username, &who.password, &arguments, 9);
            (last(&said, "tot_send_msgs") == Some(sent)).then(|| last(&said, "tot_recv_msgs"))?
        };
        std::thread::scope(|threads| {
            let runs: Vec<_> = (0..RUNS).map(|_| threads.spawn(run)).collect();
            runs.into_iter()
                .filter_map(|run| run.join().expect("a run that ends"))
                .max()
        })
    });
    for received in best {
        assert!(
            received.is_some_and(|received| received >= sent - 2),
            "{best:?} of {sent} came back"
        );
    }
}

/// `-O`: clients that allocate and vanish, over each transport.
#[test]
fn clients_that_connect_and_vanish_leave_room_for_others() {
    at_both(|name, port, who| {
        for transport in [&[][..], &["-t"], &["-t", "-S"]] {
            let arguments = [transport, &["-O", "-X", "-c", "-m", "8", "-e", "127.0.0.1"]].concat();
            let (output, said) = uclient(port, &who.username, &who.password, &arguments, 20);
            assert!(
                output.status.success(),
                "{name} {arguments:?}: {}\n{said}",
                output.status
            );
            assert_eq!(last(&said, "tot_send_msgs"), None, "{name}: {said}");
        }
    });
}

/// And over connections, which end with it, nothing of such a client stays.
#[test]
fn of_clients_that_vanish_from_their_connections_nothing_stays() {
    let relay = Relay::start().expect("a relay that starts");
    for transport in [&["-t"][..], &["-t", "-S"]] {
        let arguments = [transport, &["-O", "-X", "-c", "-m", "8", "-e", "127.0.0.1"]].concat();
        let Credentials {
            username, password, ..
        } = credentials(&relay);
        let (output, said) = uclient(port_of(&relay), &username, &password, &arguments, 20);
        assert!(output.status.success(), "{said}");
        metric_becomes(&relay, "milliway_turn_allocations", 0);
    }
}

#[test]
fn a_wrong_password_is_refused() {
    let relay = Relay::start().expect("a relay that starts");
    let peer = Peer::start();
    let username = credentials(&relay).username;
    let port = peer.port.to_string();
    for transport in [&[][..], &["-t"], &["-t", "-S"]] {
        let arguments = [transport, &["-X", "-c", "-e", "127.0.0.1", "-r", &port]].concat();
        let (output, said) = uclient(port_of(&relay), &username, "not the password", &arguments, 60);
        assert!(!output.status.success(), "{said}");
        assert!(last(&said, "tot_recv_msgs").unwrap_or(0) == 0, "{said}");
    }
}

#[test]
fn a_username_that_was_never_sold_is_refused() {
    let relay = Relay::start().expect("a relay that starts");
    let arguments = ["-X", "-c", "-e", "127.0.0.1"];
    let (output, said) = uclient(port_of(&relay), "nobody", "nothing", &arguments, 60);
    assert!(!output.status.success(), "{said}");
}
