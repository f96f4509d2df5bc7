//! DSIP over QUIC (RFC 9000): ALPN `dsip/0.3`, one bidirectional stream that the client opens, before each envelope its
//! length in 4 bytes, big-endian. The conversation on it is that of the WebSocket.
//!
//! The TLS certificate is made at start and proves nothing: clients know the relay by the DID that signs its challenge,
//! in which the URL is named that they connected to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, Incoming, ServerConfig, TransportConfig, VarInt};
use rustls::pki_types::PrivateKeyDer;
use tokio::time::timeout;

use crate::clock;
use crate::http::{Place, dsip_socket};
use crate::relay::Relay;

/// The protocol's name in TLS.
const ALPN: &[u8] = b"dsip/0.3";
/// A client that is silent for so long is gone; as long as over the WebSocket.
const IDLE_MAX: Duration = Duration::from_secs(45);
/// How often a silent client is asked for a sign of life.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// From the first packet to an open stream.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes under way that are let pass without a proof of the source address (RFC 9000 section 8.1.2).
const UNVALIDATED_MAX: usize = 64;
/// What one connection may have in flight towards us: a few envelopes of the longest that is read.
const RECEIVE_WINDOW: u32 = 512 * 1024;
/// And unacknowledged towards it.
const SEND_WINDOW: u64 = 1024 * 1024;

/// Opens the port.
pub(crate) fn bind(listen: SocketAddr) -> io::Result<Endpoint> {
    Endpoint::server(configuration().map_err(io::Error::other)?, listen)
}

fn configuration() -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .keep_alive_interval(Some(KEEPALIVE_EVERY))
        .max_idle_timeout(Some(IDLE_MAX.try_into()?));
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Accepts connections until the relay closes its door.
pub(crate) async fn serve(relay: Arc<Relay>, endpoint: Endpoint) {
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => incoming,
                None => return,
            },
            () = relay.door_closed() => break,
        };
        let unproven = !incoming.remote_address_validated();
        if unproven && endpoint.open_connections() >= UNVALIDATED_MAX {
            // Whoever reads this answer comes again and is who it says.
            let _ = incoming.retry();
            continue;
        }
        let source = incoming.remote_address().ip();
        if !relay.sources.call(source, clock::now()) {
            incoming.refuse();
            continue;
        }
        match Place::take(&relay, source) {
            Some(place) => drop(tokio::spawn(connection(relay.clone(), incoming, place))),
            None => incoming.refuse(),
        }
    }
    // Conversations are told by the relay itself; what is left of them after that is nothing to wait for.
    endpoint.wait_idle().await;
}

async fn connection(relay: Arc<Relay>, incoming: Incoming, place: Arc<Place>) {
    let opened = timeout(OPEN_PATIENCE, async {
        let connection = incoming.await.ok()?;
        let (send, receive) = connection.accept_bi().await.ok()?;
        Some((connection, send, receive))
    });
    if let Ok(Some((connection, send, receive))) = opened.await {
        dsip_socket::converse_over_quic(relay, connection, send, receive).await;
    }
    // The connection's place is taken for as long as the conversation lasts.
    drop(place);
}
