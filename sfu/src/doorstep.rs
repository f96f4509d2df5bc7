//! Where a session waits until a core takes it in: it answers connectivity checks (RFC 8445 section 7.3), and nothing
//! else. Any thread may do that for it, since an answer changes nothing here; which core is to have the session is
//! settled by where its handshake begins. What was proved meanwhile is told to that core with [`crate::Sfu::prove`].

use std::net::SocketAddr;

use wire::stun::{Class, Message, Method};

use crate::discard::Discard;
use crate::ice::{Keys, MESSAGE_BYTES_MAX};
use crate::media::Transport;

/// Remote addresses that one session may prove before it is taken in: as many as it may have afterwards.
pub const ADDRESSES_MAX: usize = crate::ice::ADDRESSES_MAX;

/// Room for every answer.
pub const ANSWER_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// What can be said to the client of one session before it has a core.
pub struct Doorstep {
    local: Keys,
    remote_ufrag: String,
}

/// What a check led to. The answer's length is that of what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// It is authentic: the address it came from is one of the client's.
    Valid {
        /// Length of the answer.
        length: usize,
        /// Whether the client wants to use this path (USE-CANDIDATE).
        nominated: bool,
    },
    /// It is authentic and asks for what cannot be.
    Refused {
        /// Length of the answer.
        length: usize,
    },
}

impl Doorstep {
    /// For a session with this transport.
    #[must_use]
    pub fn new(transport: &Transport) -> Doorstep {
        Doorstep {
            local: Keys::new(transport.local.clone()),
            remote_ufrag: transport.remote.ufrag.clone(),
        }
    }

    /// Answers a Binding request from `source`.
    ///
    /// # Errors
    /// Why it gets no answer.
    pub fn answer(
        &self,
        datagram: &[u8],
        source: SocketAddr,
        out: &mut [u8; ANSWER_BYTES_MAX],
    ) -> Result<Checked, Discard> {
        let message = Message::parse(datagram).map_err(|_| Discard::MalformedStun)?;
        if (message.class(), message.method()) != (Class::Request, Method::BINDING) || source.port() == 0 {
            return Err(Discard::MalformedStun);
        }
        self.local.authenticate(&message, &self.remote_ufrag)?;
        if message.ice_controlled().is_some() {
            let length = self.local.write_role_conflict(&message, out)?;
            return Ok(Checked::Refused { length });
        }
        let length = self.local.write_success(&message, source, out)?;
        Ok(Checked::Valid {
            length,
            nominated: message.use_candidate(),
        })
    }
}

#[cfg(test)]
mod tests {
    use wire::stun::{Builder, TransactionId};

    use super::*;
    use crate::media::{DtlsRole, Fingerprint, FingerprintAlgorithm, IceCredentials};

    fn transport() -> Transport {
        let credentials = |name: &str| IceCredentials {
            ufrag: format!("{name}frag"),
            pwd: format!("{name}-password-of-22-chars"),
        };
        Transport {
            local: credentials("relay"),
            remote: credentials("client"),
            fingerprint: Fingerprint {
                algorithm: FingerprintAlgorithm::Sha256,
                value: vec![0; 32],
            },
            role: DtlsRole::Passive,
        }
    }

    fn check(username: &str, password: &str, controlled: bool) -> Vec<u8> {
        let mut request = vec![0; 300];
        let id = TransactionId([7; 12]);
        let builder = Builder::new(&mut request, Class::Request, Method::BINDING, id)
            .username(username)
            .use_candidate();
        let builder = if controlled {
            builder.ice_controlled(1)
        } else {
            builder.ice_controlling(1)
        };
        let length = builder
            .integrity(password.as_bytes())
            .fingerprint()
            .finish()
            .unwrap();
        request.truncate(length);
        request
    }

    #[test]
    fn an_authentic_check_is_answered_as_the_core_would_and_any_other_is_not() {
        let (transport, source) = (transport(), SocketAddr::from(([192, 0, 2, 1], 4_000)));
        let doorstep = Doorstep::new(&transport);
        let mut out = [0; ANSWER_BYTES_MAX];
        let mut answer = |datagram: &[u8]| {
            let checked = doorstep.answer(datagram, source, &mut out)?;
            let (Checked::Valid { length, .. } | Checked::Refused { length }) = checked;
            let message = Message::parse(&out[..length]).unwrap();
            assert!(message.verify_integrity(transport.local.pwd.as_bytes()));
            assert_eq!(message.transaction_id(), TransactionId([7; 12]));
            Ok((
                message.class(),
                matches!(checked, Checked::Valid { nominated: true, .. }),
            ))
        };
        let password = transport.local.pwd.as_str();
        let good = check("relayfrag:clientfrag", password, false);
        assert_eq!(answer(&good), Ok((Class::Success, true)));
        let conflict = check("relayfrag:clientfrag", password, true);
        assert_eq!(answer(&conflict), Ok((Class::Error, false)));
        let guessed = check("relayfrag:clientfrag", "a guess", false);
        assert_eq!(answer(&guessed), Err(Discard::StunUnauthentic));
        let other = check("relayfrag:somebody", password, false);
        assert_eq!(answer(&other), Err(Discard::UnknownUfrag));
        assert_eq!(answer(&good[..30]), Err(Discard::MalformedStun));
    }
}
