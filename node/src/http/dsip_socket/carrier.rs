//! What carries a conversation: a WebSocket, or one bidirectional stream of a QUIC connection. Both bring whole
//! envelopes in either encoding and say when the client is gone; what envelopes mean is not decided here.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use dsip::{ENVELOPE_LENGTH_MAX, Encoding};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt};

/// What is read of one message: more than an envelope may have, so that a client whose envelope is too large hears
/// so and goes on.
pub(super) const MESSAGE_LENGTH_MAX: usize = 4 * ENVELOPE_LENGTH_MAX;
/// Before each envelope on a QUIC stream: its length, big-endian.
const LENGTH_BYTES: usize = 4;
/// Taken from a QUIC stream at once.
const CHUNK_MAX: usize = 16 * 1024;
/// Until a goodbye on a QUIC stream has been acknowledged.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Codes of a client that leaves of its own will: none, normal, going away (RFC 6455 section 7.4.1). Others say that
/// something went wrong, and the client may come back.
const GOODBYES: [u64; 3] = [0, 1000, 1001];

/// What came.
pub(super) enum Heard {
    /// An envelope, to be opened.
    Envelope(Encoding, Vec<u8>),
    /// A sign of life.
    Alive,
    /// Longer than anything that is read.
    TooLong,
    /// The client closed it.
    Closed,
    /// It broke.
    Lost,
}

/// Sending failed: the client is gone.
pub(super) struct Gone;

/// A way to a client.
// A conversation has one for life; it is moved once.
#[allow(clippy::large_enum_variant)]
pub(super) enum Carrier {
    /// `/v1/dsip`.
    WebSocket(WebSocket),
    /// ALPN `dsip/0.3`.
    Quic(QuicStream),
    /// The connection broke; the client may come back over another one.
    Away,
}

impl Carrier {
    /// The next thing that comes. May be dropped while it waits: nothing is lost.
    pub(super) async fn hear(&mut self) -> Heard {
        match self {
            Carrier::WebSocket(socket) => match socket.recv().await {
                Some(Ok(Message::Text(text))) => Heard::Envelope(Encoding::Json, text.as_str().into()),
                Some(Ok(Message::Binary(bytes))) => Heard::Envelope(Encoding::Cbor, bytes.into()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => Heard::Alive,
                Some(Ok(Message::Close(None))) => Heard::Closed,
                Some(Ok(Message::Close(Some(frame)))) if GOODBYES.contains(&frame.code.into()) => {
                    Heard::Closed
                }
                Some(Ok(Message::Close(Some(_)))) => Heard::Lost,
                Some(Err(error)) if is_too_long(&error) => Heard::TooLong,
                Some(Err(_)) | None => Heard::Lost,
            },
            Carrier::Quic(stream) => stream.hear().await,
            Carrier::Away => std::future::pending().await,
        }
    }

    /// Sends one envelope.
    pub(super) async fn say(&mut self, encoding: Encoding, envelope: Vec<u8>) -> Result<(), Gone> {
        match self {
            Carrier::WebSocket(socket) => {
                let message = match encoding {
                    Encoding::Cbor => Message::Binary(envelope.into()),
                    Encoding::Json => match String::from_utf8(envelope) {
                        Ok(text) => Message::Text(text.into()),
                        Err(_) => return Err(Gone),
                    },
                };
                socket.send(message).await.map_err(|_| Gone)
            }
            Carrier::Quic(stream) => stream.say(&envelope).await,
            Carrier::Away => Err(Gone),
        }
    }

    /// Asks for a sign of life. QUIC's own keepalive has done so already: true if there was one.
    pub(super) async fn ping(&mut self) -> Result<bool, Gone> {
        match self {
            Carrier::WebSocket(socket) => match socket.send(Message::Ping(Default::default())).await {
                Ok(()) => Ok(false),
                Err(_) => Err(Gone),
            },
            Carrier::Quic(stream) => match stream.connection.close_reason() {
                None => Ok(true),
                Some(_) => Err(Gone),
            },
            Carrier::Away => Err(Gone),
        }
    }

    /// Says goodbye: a code of RFC 6455 section 7.4 and its reason.
    pub(super) async fn close(&mut self, code: u16, reason: &'static str) {
        match self {
            Carrier::WebSocket(socket) => {
                let reason = reason.into();
                let _ = socket
                    .send(Message::Close(Some(CloseFrame { code, reason })))
                    .await;
            }
            Carrier::Quic(stream) => stream.close(code, reason).await,
            Carrier::Away => {}
        }
    }
}

/// The one stream of a connection.
pub(super) struct QuicStream {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    /// What came of the next envelope, its length first.
    pending: Vec<u8>,
}

impl QuicStream {
    pub(super) fn new(connection: Connection, send: SendStream, receive: RecvStream) -> QuicStream {
        let pending = Vec::new();
        QuicStream {
            connection,
            send,
            receive,
            pending,
        }
    }

    async fn hear(&mut self) -> Heard {
        loop {
            if let Some((length, _)) = self.pending.split_first_chunk::<LENGTH_BYTES>() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > MESSAGE_LENGTH_MAX {
                    return Heard::TooLong;
                }
                let end = LENGTH_BYTES + length;
                if self.pending.len() >= end {
                    let envelope = self.pending[LENGTH_BYTES..end].to_vec();
                    self.pending.drain(..end);
                    return Heard::Envelope(encoding_of(&envelope), envelope);
                }
            }
            match self.receive.read_chunk(CHUNK_MAX, true).await {
                Ok(Some(chunk)) => self.pending.extend_from_slice(&chunk.bytes),
                Ok(None) => return Heard::Closed,
                Err(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(close)))
                    if GOODBYES.contains(&close.error_code.into_inner()) =>
                {
                    return Heard::Closed;
                }
                Err(_) => return Heard::Lost,
            }
        }
    }

    async fn say(&mut self, envelope: &[u8]) -> Result<(), Gone> {
        let length = u32::try_from(envelope.len()).map_err(|_| Gone)?.to_be_bytes();
        self.send.write_all(&length).await.map_err(|_| Gone)?;
        self.send.write_all(envelope).await.map_err(|_| Gone)
    }

    async fn close(&mut self, code: u16, reason: &str) {
        // Closing the connection throws away what was not acknowledged: the goodbye first.
        if self.send.finish().is_ok() {
            let _ = tokio::time::timeout(GOODBYE_MAX, self.send.stopped()).await;
        }
        self.connection.close(VarInt::from(code), reason.as_bytes());
    }
}

/// A JSON envelope begins with a brace, which begins no CBOR map.
fn encoding_of(envelope: &[u8]) -> Encoding {
    let first = envelope.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        Some(b'{') => Encoding::Json,
        _ => Encoding::Cbor,
    }
}

/// Whether a message was longer than is read. axum does not export the error, so its words have to do.
fn is_too_long(error: &axum::Error) -> bool {
    error.to_string().starts_with("Space limit exceeded")
}
