//! What a `dsip.error` says: a code, a stable reason and a sentence that tells what to do.

use std::borrow::Cow;

use identity::Refusal;
use identity::credential::CredentialFault;

use crate::credentials::Wanted;

/// Why an envelope or a request is refused. Becomes a `dsip.error`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {reason}: {detail}")]
pub struct Fault {
    /// As HTTP: 400, 401, 402, 403, 404, 408, 409, 413, 429, 503.
    pub code: u16,
    /// Stable, for programs.
    pub reason: Cow<'static, str>,
    /// For people: what to do. Repeats nothing of what was sent.
    pub detail: Cow<'static, str>,
    /// The `id` of the envelope that caused it, as far as it could be read.
    pub correlates: Option<String>,
    /// Credentials that would do, where that is what is missing.
    pub wanted: Option<Box<Wanted>>,
}

impl Fault {
    /// A fault with this code, reason and advice.
    pub fn new(code: u16, reason: &'static str, detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault {
            code,
            reason: reason.into(),
            detail: detail.into(),
            correlates: None,
            wanted: None,
        }
    }

    /// 402: the account cannot pay for what was asked.
    pub fn balance_exhausted(detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(402, "payment:balance-exhausted", detail)
    }

    /// 403: below the operator's reputation floor.
    pub fn reputation_too_low() -> Fault {
        Fault::new(
            403,
            "policy:reputation-too-low",
            "the token's reputation is below what this relay asks; get a ReputationScore or a token that has one",
        )
    }

    /// The same, about the envelope with this `id`.
    #[must_use]
    pub fn about(mut self, id: &str) -> Fault {
        self.correlates = Some(id.to_owned());
        self
    }

    /// The same, with the credentials that would do.
    #[must_use]
    pub fn wanting(mut self, wanted: Wanted) -> Fault {
        self.wanted = Some(Box::new(wanted));
        self
    }

    pub(crate) fn malformed(detail: &'static str) -> Fault {
        Fault::new(400, "envelope-malformed", detail)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        if refusal == Refusal::NonceRequired {
            return Fault::new(
                401,
                "challenge-stale",
                "the invite's `nonce` is not that of a fresh challenge on this connection; send `dsip.hello` again \
                 and sign the new one within 60 seconds",
            );
        }
        Fault::new(refusal.status(), refusal.slug(), refusal.to_string())
    }
}

impl From<&CredentialFault> for Fault {
    fn from(fault: &CredentialFault) -> Fault {
        let mut said = Fault::new(
            fault.status(),
            "",
            format!("this credential does not count: {fault}"),
        );
        said.reason = format!("policy:{}", fault.slug()).into();
        said
    }
}
