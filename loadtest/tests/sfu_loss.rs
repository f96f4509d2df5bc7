//! One packet in twenty is lost between everybody and the relay, and the video still arrives whole: the relay asks
//! the publisher for what it misses, and answers what its subscribers ask for.

use std::time::{Duration, Instant};

use loadtest::client::{Client, Place};
use loadtest::holder::bearer_token;
use loadtest::relay::Relay;
use loadtest::swarm::Swarm;

const ONE_IN: u64 = 20;

#[test]
fn video_arrives_whole_although_one_packet_in_twenty_is_lost_each_way() {
    let relay = Relay::start().expect("a relay that starts");
    let base = relay.ready.http.clone();
    let epoch = Instant::now();
    let mut swarm = Swarm::new().expect("a poll");
    let tokens: Vec<String> = (0..3)
        .map(|_| bearer_token(&base, 10_000_000).expect("the faucet"))
        .collect();
    let place = |token| Place {
        base: &base,
        token,
        room: "lossy",
        name: "stage",
    };
    swarm
        .add(Client::publish(place(&tokens[0]), epoch).expect("a WHIP session"))
        .expect("a socket");
    for token in &tokens[1..] {
        swarm
            .add(Client::subscribe(place(token), epoch).expect("a WHEP session"))
            .expect("a socket");
    }
    let sees = |client: &mut Client| client.subscriber().is_none_or(|s| s.video.packets_ever > 0);
    let end = Instant::now() + Duration::from_secs(10);
    let all_see = swarm
        .run_while(end, Duration::from_millis(5), |clients| {
            !clients.iter_mut().all(sees)
        })
        .expect("a poll");
    assert!(
        all_see,
        "video at both subscribers within 10 s; the relay said:\n{}",
        relay.log()
    );
    // A round trip is known by then, and NACK is on its feet.
    swarm
        .run_until(Instant::now() + Duration::from_secs(1))
        .expect("a poll");
    swarm
        .clients()
        .iter_mut()
        .for_each(|client| client.lose_one_in(ONE_IN));
    let from = epoch.elapsed().as_nanos() as u64;
    let until = from + 4_000_000_000;
    let mut sent = 0;
    for client in swarm.clients() {
        if let Some(publisher) = client.publisher() {
            sent = publisher.video.packets();
        } else if let Some(subscriber) = client.subscriber() {
            subscriber.video.measure(from..until);
        }
    }
    swarm
        .run_until(epoch + Duration::from_nanos(until))
        .expect("a poll");
    sent = swarm.clients()[0]
        .publisher()
        .expect("the first is the publisher")
        .video
        .packets()
        - sent;
    // What was lost last is asked for and sent again.
    swarm
        .run_until(Instant::now() + Duration::from_millis(700))
        .expect("a poll");
    for (index, client) in swarm.clients().iter_mut().enumerate() {
        assert_eq!(client.failure(), None);
        assert!(
            client.lost() > sent / ONE_IN / 3,
            "client {index} lost {} packets",
            client.lost()
        );
        if let Some(subscriber) = client.subscriber() {
            let got = subscriber.video.packets;
            assert!(
                got * 1_000 >= sent * 995,
                "subscriber {index} got {got} of {sent} packets of video"
            );
            assert!(subscriber.audio.packets_ever > 0);
        }
    }
}
