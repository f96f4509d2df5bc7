//! Writing responses (RFC 8489 section 6.3.1). An answer to an authenticated request is signed with its key and says
//! what software this is; an answer to anybody else is as small as can be (see `challenge`).

use aws_lc_rs::hmac;
use wire::stun::{Builder, Class, Message, Method, TransactionId};

use crate::credential::REALM;

const SOFTWARE: &str = "Milliway";

/// What an answer repeats of its request.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) id: TransactionId,
    /// The request has a FINGERPRINT, so the answer has one.
    pub(crate) fingerprint: bool,
}

impl Head {
    pub(crate) fn of(request: &Message<'_>) -> Self {
        Self {
            method: request.method(),
            id: request.transaction_id(),
            fingerprint: request.verify_fingerprint().is_some(),
        }
    }

    /// A success, signed. `None` if it does not fit, which no buffer of ours lets happen.
    pub(crate) fn success(
        self,
        buffer: &mut [u8],
        key: &hmac::Key,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Option<usize> {
        let builder = attributes(Builder::new(buffer, Class::Success, self.method, self.id));
        self.seal(builder, key)
    }

    /// An error, signed.
    pub(crate) fn error(
        self,
        buffer: &mut [u8],
        key: &hmac::Key,
        (code, reason): (u16, &str),
    ) -> Option<usize> {
        self.seal(
            Builder::new(buffer, Class::Error, self.method, self.id).error_code(code, reason),
            key,
        )
    }

    /// 420 with what was not understood, signed.
    pub(crate) fn unknown(
        self,
        buffer: &mut [u8],
        key: &hmac::Key,
        types: impl IntoIterator<Item = u16>,
    ) -> Option<usize> {
        let builder = Builder::new(buffer, Class::Error, self.method, self.id)
            .error_code(420, "Unknown Attribute")
            .unknown_attributes(types);
        self.seal(builder, key)
    }

    /// 401 or 438 with what the client needs to try again.
    pub(crate) fn challenge(self, buffer: &mut [u8], code: u16, nonce: &str) -> Option<usize> {
        let builder = Builder::new(buffer, Class::Error, self.method, self.id)
            .error_code(code, "")
            .realm(REALM)
            .nonce(nonce);
        self.finish(builder)
    }

    /// An error for somebody unknown.
    pub(crate) fn bare_error(self, buffer: &mut [u8], code: u16) -> Option<usize> {
        self.finish(Builder::new(buffer, Class::Error, self.method, self.id).error_code(code, ""))
    }

    /// A success for somebody unknown: Binding.
    pub(crate) fn bare_success(
        self,
        buffer: &mut [u8],
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Option<usize> {
        self.finish(attributes(Builder::new(
            buffer,
            Class::Success,
            self.method,
            self.id,
        )))
    }

    fn seal(self, builder: Builder<'_>, key: &hmac::Key) -> Option<usize> {
        self.finish(builder.software(SOFTWARE).integrity_key(key))
    }

    fn finish(self, builder: Builder<'_>) -> Option<usize> {
        let builder = if self.fingerprint {
            builder.fingerprint()
        } else {
            builder
        };
        builder.finish().ok()
    }
}
