//! Writing responses (RFC 8489 section 6.3.1). An answer to an authenticated request is signed with its key and says
//! what software this is; an answer to anybody else is as small as can be (see `challenge`).

use wire::stun::{Builder, Class, Message, Method, PasswordAlgorithm, TransactionId};

use crate::credential::{Credential, REALM};

const SOFTWARE: &str = "Milliway";

/// What an answer repeats of its request.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) id: TransactionId,
    /// The request has a FINGERPRINT, so the answer has one.
    pub(crate) fingerprint: bool,
    /// The request has MESSAGE-INTEGRITY-SHA256, so the answer has.
    sha256: bool,
    /// The key of the password that it showed.
    algorithm: PasswordAlgorithm,
}

impl Head {
    pub(crate) fn of(request: &Message<'_>) -> Self {
        Self {
            method: request.method(),
            id: request.transaction_id(),
            fingerprint: request.verify_fingerprint().is_some(),
            sha256: request.has_integrity_sha256(),
            algorithm: request.password_algorithm().unwrap_or_default(),
        }
    }

    /// Is the request signed by this credential?
    pub(crate) fn verify(self, request: &Message<'_>, credential: &Credential) -> bool {
        let key = credential.key(self.algorithm);
        match self.sha256 {
            // The stronger one, where both are there.
            true => request.verify_integrity_sha256(key),
            false => request.verify_integrity(key),
        }
    }

    /// A success, signed. `None` if it does not fit, which no buffer of ours lets happen.
    pub(crate) fn success(
        self,
        buffer: &mut [u8],
        credential: &Credential,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Option<usize> {
        let builder = attributes(Builder::new(buffer, Class::Success, self.method, self.id));
        self.seal(builder, credential)
    }

    /// An error, signed.
    pub(crate) fn error(
        self,
        buffer: &mut [u8],
        credential: &Credential,
        (code, reason): (u16, &str),
    ) -> Option<usize> {
        self.error_with(buffer, credential, (code, reason), |answer| answer)
    }

    /// An error with more to say, signed.
    pub(crate) fn error_with(
        self,
        buffer: &mut [u8],
        credential: &Credential,
        (code, reason): (u16, &str),
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Option<usize> {
        let builder = Builder::new(buffer, Class::Error, self.method, self.id).error_code(code, reason);
        self.seal(attributes(builder), credential)
    }

    /// 401 or 438 with what the client needs to try again.
    pub(crate) fn challenge(
        self,
        buffer: &mut [u8],
        code: u16,
        nonce: &str,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Option<usize> {
        let builder = Builder::new(buffer, Class::Error, self.method, self.id)
            .error_code(code, "")
            .realm(REALM)
            .nonce(nonce);
        self.finish(attributes(builder))
    }

    /// An error for somebody unknown.
    pub(crate) fn bare_error(
        self,
        buffer: &mut [u8],
        code: u16,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Option<usize> {
        let builder = Builder::new(buffer, Class::Error, self.method, self.id).error_code(code, "");
        self.finish(attributes(builder))
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

    fn seal(self, builder: Builder<'_>, credential: &Credential) -> Option<usize> {
        let (builder, key) = (builder.software(SOFTWARE), credential.key(self.algorithm));
        self.finish(match self.sha256 {
            true => builder.integrity_sha256(key),
            false => builder.integrity(key),
        })
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
