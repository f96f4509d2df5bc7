//! webrtc-rs's `turn` over UDP, and over TCP, where the framing is ours: the crate itself speaks in datagrams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Mutex;
use tokio::time::timeout;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

use super::{BYTES, Credentials, MESSAGES, PATIENCE, is_served, message};

/// Past half of an allocation's ten minutes, when the crate refreshes it.
const LATER: Duration = Duration::from_secs(301);

/// A stream that is read and written a message at a time (RFC 8656 section 12.5).
struct Framed {
    local: SocketAddr,
    remote: SocketAddr,
    reader: Mutex<(OwnedReadHalf, Vec<u8>)>,
    writer: Mutex<OwnedWriteHalf>,
}

impl Framed {
    fn new(stream: TcpStream) -> Framed {
        let (local, remote) = (
            stream.local_addr().expect("one"),
            stream.peer_addr().expect("one"),
        );
        let (reader, writer) = stream.into_split();
        Framed {
            local,
            remote,
            reader: Mutex::new((reader, Vec::new())),
            writer: Mutex::new(writer),
        }
    }
}

#[async_trait]
impl Conn for Framed {
    async fn connect(&self, _: SocketAddr) -> webrtc_util::Result<()> {
        Ok(())
    }

    async fn recv(&self, buffer: &mut [u8]) -> webrtc_util::Result<usize> {
        Ok(self.recv_from(buffer).await?.0)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> webrtc_util::Result<(usize, SocketAddr)> {
        let mut guard = self.reader.lock().await;
        let (reader, held) = &mut *guard;
        loop {
            let whole = wire::stream::message_len(held).expect("messages of TURN");
            if let Some(len) = whole.filter(|len| *len <= held.len()) {
                buffer[..len].copy_from_slice(&held[..len]);
                held.drain(..len);
                return Ok((len, self.remote));
            }
            if reader.read_buf(held).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    async fn send(&self, message: &[u8]) -> webrtc_util::Result<usize> {
        let mut framed = message.to_vec();
        framed.resize(message.len() + wire::stream::padding(message.len()), 0);
        self.writer.lock().await.write_all(&framed).await?;
        Ok(message.len())
    }

    async fn send_to(&self, message: &[u8], _: SocketAddr) -> webrtc_util::Result<usize> {
        self.send(message).await
    }

    fn local_addr(&self) -> webrtc_util::Result<SocketAddr> {
        Ok(self.local)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.remote)
    }

    async fn close(&self) -> webrtc_util::Result<()> {
        Ok(self.writer.lock().await.shutdown().await?)
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

/// Sends and gets back what it sent.
async fn exchange(relayed: &impl Conn, peer: SocketAddr) {
    let mut buffer = [0; 2048];
    for n in 0..MESSAGES {
        relayed.send_to(&message(n, BYTES), peer).await.expect("sent");
        let got = timeout(PATIENCE, relayed.recv_from(&mut buffer))
            .await
            .expect("an echo");
        let (len, from) = got.expect("an echo");
        assert_eq!((from, &buffer[..len]), (peer, &message(n, BYTES)[..]));
    }
}

async fn live(conn: Arc<dyn Conn + Send + Sync>, server: SocketAddr, who: &Credentials, peer: SocketAddr) {
    let client = Client::new(ClientConfig {
        stun_serv_addr: server.to_string(),
        turn_serv_addr: server.to_string(),
        username: who.username.clone(),
        password: who.password.clone(),
        realm: String::new(),
        software: String::new(),
        rto_in_ms: 0,
        conn,
        vnet: None,
    })
    .await
    .expect("a client");
    client.listen().await.expect("a client that listens");
    let relayed = timeout(PATIENCE, client.allocate())
        .await
        .expect("an answer")
        .expect("an allocation");
    assert!(
        relayed
            .local_addr()
            .expect("a relayed address")
            .ip()
            .is_loopback()
    );
    // It begins with indications, and binds a channel meanwhile.
    exchange(&relayed, peer).await;
    // Its timers run out at once: the allocation, the permission and the channel are refreshed.
    tokio::time::pause();
    tokio::time::advance(LATER).await;
    tokio::time::resume();
    exchange(&relayed, peer).await;
    relayed.close().await.expect("closed");
    client.close().await.expect("closed");
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future);
}

#[test]
fn the_turn_crate_is_served_over_udp() {
    is_served(BYTES, |server, who, peer| {
        run(async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            live(Arc::new(socket), server, who, peer).await;
        });
    });
}

#[test]
fn the_turn_crate_is_served_over_tcp() {
    is_served(BYTES, |server, who, peer| {
        run(async {
            let stream = TcpStream::connect(server).await.expect("a connection");
            live(Arc::new(Framed::new(stream)), server, who, peer).await;
        });
    });
}
