//! DSIP over QUIC and in CBOR, against a really started relay, with the client of the crate `dsip`.
#![allow(clippy::unwrap_used)]

mod certificate;
mod relay;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use certificate::trusting;
use dsip::message::{ClientChanges, Mute};
use dsip::{Client, Encoding, RelayMessage, Terms};
use identity::{Did, SigningKey};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream};
use relay::{Relay, now, offer};

/// How long a word of the relay may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(15);

async fn connect(at: SocketAddr, alpn: &[u8]) -> Result<(Endpoint, Connection), quinn::ConnectionError> {
    // The relay's certificate proves nothing: its challenge does.
    let mut tls = trusting(&Arc::default());
    tls.alpn_protocols = vec![alpn.to_vec()];
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let connection = endpoint.connect_with(config, at, "localhost").unwrap().await?;
    Ok((endpoint, connection))
}

/// One conversation over QUIC.
struct Conversation {
    _endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    client: Client,
}

impl Conversation {
    async fn open(relay: &Relay, key: &SigningKey, encoding: Encoding) -> Conversation {
        let at = relay.ready["quic"].as_str().unwrap();
        let (endpoint, connection) = connect(at.parse().unwrap(), b"dsip/0.3").await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        let key = SigningKey::from_jwk(&key.to_private_jwk()).unwrap();
        let did = Did::parse(relay.did()).unwrap();
        Conversation {
            _endpoint: endpoint,
            connection,
            send,
            receive,
            client: Client::new(key, did, &format!("quic://{at}"), encoding),
        }
    }

    async fn say(&mut self, envelope: &[u8]) {
        let length = u32::try_from(envelope.len()).unwrap().to_be_bytes();
        // In pieces, as a network may deliver it.
        for piece in [&length[..2], &length[2..], envelope] {
            self.send.write_all(piece).await.unwrap();
        }
    }

    async fn hear(&mut self) -> RelayMessage {
        let heard = async {
            let mut length = [0; 4];
            self.receive.read_exact(&mut length).await.unwrap();
            let mut envelope = vec![0; u32::from_be_bytes(length) as usize];
            self.receive.read_exact(&mut envelope).await.unwrap();
            envelope
        };
        let envelope = tokio::time::timeout(PATIENCE, heard)
            .await
            .expect("the relay speaks");
        let encoding = match envelope[0] {
            b'{' => Encoding::Json,
            _ => Encoding::Cbor,
        };
        self.client.receive(encoding, &envelope, now()).unwrap()
    }

    async fn join(&mut self, token: &str, name: &str) -> String {
        let hello = self.client.hello(now());
        self.say(&hello).await;
        assert!(matches!(self.hear().await, RelayMessage::Challenge(_)));
        let sdp = offer();
        let terms = Terms {
            room: "den",
            name: Some(name),
            token,
            sdp: &sdp,
            max_msat_per_second: None,
            credentials: &[],
        };
        let invite = self.client.invite(&terms, now()).unwrap();
        self.say(&invite).await;
        match self.hear().await {
            RelayMessage::Answer(answer) => answer.session,
            other => panic!("not an answer: {other:?}"),
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_call_is_joined_and_left_over_quic_in_both_encodings() {
    let relay = Relay::start();
    for (encoding, seed) in [(Encoding::Cbor, 31), (Encoding::Json, 32)] {
        let key = SigningKey::from_seed(&[seed; 32]);
        let token = relay.faucet(key.did().as_str(), 1_000_000, false);
        runtime().block_on(async {
            let mut conversation = Conversation::open(&relay, &key, encoding).await;
            let session = conversation.join(&token, "Zoë").await;
            assert_eq!(conversation.client.session(), Some(&session[..]));
            let mute = Some(Mute {
                audio: true,
                video: false,
            });
            let changes = ClientChanges {
                mute,
                ..ClientChanges::default()
            };
            let update = conversation.client.update(changes, now()).unwrap();
            conversation.say(&update).await;
            let bye = conversation.client.bye("hangup", now());
            conversation.say(&bye).await;
            let closed = tokio::time::timeout(PATIENCE, conversation.connection.closed()).await;
            assert!(closed.is_ok(), "the relay closes after a goodbye");
        });
    }
    relay.stop();
}

#[test]
fn a_session_whose_connection_broke_goes_on_over_another_one() {
    let relay = Relay::start();
    let (key, thief) = (SigningKey::from_seed(&[35; 32]), SigningKey::from_seed(&[36; 32]));
    let token = relay.faucet(key.did().as_str(), 1_000_000, false);
    runtime().block_on(async {
        let mut first = Conversation::open(&relay, &key, Encoding::Cbor).await;
        let session = first.join(&token, "Zoë").await;
        let resume = async |key: &SigningKey, session: &str| {
            let mut again = Conversation::open(&relay, key, Encoding::Json).await;
            let hello = again.client.hello(now());
            again.say(&hello).await;
            assert!(matches!(again.hear().await, RelayMessage::Challenge(_)));
            let envelope = again.client.resume(session, now()).unwrap();
            again.say(&envelope).await;
            let answer = again.hear().await;
            (again, answer)
        };
        let code = |message: &RelayMessage| match message {
            RelayMessage::Error(error) => error.code,
            _ => 200,
        };
        let (_, answer) = resume(&key, &session).await;
        assert_eq!(code(&answer), 404, "its connection still stands");
        // The network goes: no goodbye of any kind reaches the relay in order.
        first.connection.close(quinn::VarInt::from_u32(99), b"");
        first.connection.closed().await;
        drop(first);
        let (_, answer) = resume(&thief, &session).await;
        assert_eq!(code(&answer), 404, "somebody else's session");
        let (_, answer) = resume(&key, "0000000000000000").await;
        assert_eq!(code(&answer), 404, "no session");
        let (mut again, answer) = resume(&key, &session).await;
        match answer {
            RelayMessage::Update(update) => {
                assert_eq!(update.session, session);
                assert!(update.changes.participants.is_some(), "where the session stands");
            }
            other => panic!("not an update: {other:?}"),
        }
        let changes = ClientChanges {
            topup: Some(dsip::message::Topup {
                token: relay.faucet(key.did().as_str(), 5_000, false),
            }),
            ..ClientChanges::default()
        };
        let update = again.client.update(changes, now()).unwrap();
        again.say(&update).await;
        loop {
            match again.hear().await {
                RelayMessage::Update(update) if update.changes.topup.is_some() => break,
                RelayMessage::Update(_) => {}
                other => panic!("not an update: {other:?}"),
            }
        }
        let bye = again.client.bye("hangup", now());
        again.say(&bye).await;
        assert!(
            tokio::time::timeout(PATIENCE, again.connection.closed())
                .await
                .is_ok()
        );
    });
    relay.stop();
}

#[test]
fn an_envelope_that_is_too_large_or_malformed_is_told_so_over_quic() {
    let relay = Relay::start();
    let key = SigningKey::from_seed(&[33; 32]);
    runtime().block_on(async {
        let mut conversation = Conversation::open(&relay, &key, Encoding::Cbor).await;
        let code = |message: RelayMessage| match message {
            RelayMessage::Error(error) => error.code,
            other => panic!("not an error: {other:?}"),
        };
        conversation.say(b"\xa0").await;
        assert_eq!(code(conversation.hear().await), 400);
        conversation.say(&vec![0xa0; 65 * 1024]).await;
        assert_eq!(code(conversation.hear().await), 413);
        conversation
            .send
            .write_all(&u32::MAX.to_be_bytes())
            .await
            .unwrap();
        assert_eq!(code(conversation.hear().await), 413);
        let closed = tokio::time::timeout(PATIENCE, conversation.connection.closed()).await;
        assert!(closed.is_ok(), "what cannot be skipped ends the conversation");
    });
    relay.stop();
}

#[test]
fn another_protocol_name_is_refused_and_the_door_stays_open() {
    let relay = Relay::start();
    let at: SocketAddr = relay.ready["quic"].as_str().unwrap().parse().unwrap();
    runtime().block_on(async {
        assert!(connect(at, b"h3").await.is_err());
        // Garbage in plain datagrams is nobody's connection.
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for length in [1_usize, 20, 1_200] {
            socket.send_to(&vec![0xc3; length], at).await.unwrap();
        }
        assert!(connect(at, b"dsip/0.3").await.is_ok());
    });
    let document = relay.get("/.well-known/did.json").json();
    assert_eq!(
        document["service"][0]["serviceEndpoint"]["quic"][0],
        format!("quic://{at}")
    );
    relay.stop();
}

#[test]
fn a_relay_that_ends_says_goodbye_over_quic() {
    let relay = Relay::start();
    let key = SigningKey::from_seed(&[34; 32]);
    let token = relay.faucet(key.did().as_str(), 1_000_000, false);
    runtime().block_on(async {
        let mut conversation = Conversation::open(&relay, &key, Encoding::Cbor).await;
        conversation.join(&token, "late").await;
        relay.signal("TERM");
        let mut updates = 0;
        loop {
            match conversation.hear().await {
                RelayMessage::Bye(bye) => break assert_eq!(bye.reason, "draining"),
                // The second signal ends at once what the first one gave time to leave.
                RelayMessage::Update(_) => {
                    updates += 1;
                    if updates == 3 {
                        relay.signal("TERM");
                    }
                }
                other => panic!("not a goodbye: {other:?}"),
            }
        }
    });
}
