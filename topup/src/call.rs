//! One HTTP exchange with a Lightning node or a mint, before and after.

use serde_json::Value;

/// What to ask. The base address and the connection are the caller's.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// Below the base address, from its slash on.
    pub path: String,
    /// A header that proves who asks. Secret.
    pub secret: Option<(&'static str, String)>,
    /// JSON to POST; none means GET.
    pub body: Option<Value>,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            secret: None,
            body: None,
        }
    }

    pub(crate) fn post(path: impl Into<String>, body: Value) -> Self {
        Self {
            path: path.into(),
            secret: None,
            body: Some(body),
        }
    }

    pub(crate) fn with_secret(mut self, name: &'static str, value: &str) -> Self {
        self.secret = Some((name, value.to_owned()));
        self
    }
}

// Its header and its body may be money.
impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let method = if self.body.is_some() { "POST" } else { "GET" };
        write!(f, "{method} {}", self.path)
    }
}

/// What came back.
#[derive(Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null where it is no JSON.
    pub body: Value,
}

impl Answer {
    /// The body of a success.
    pub(crate) fn ok(&self) -> Result<&Value, Fault> {
        match self.status {
            200..=299 => Ok(&self.body),
            status => Err(Fault::Refused {
                status,
                code: self.body.get("code").and_then(Value::as_i64),
            }),
        }
    }
}

/// Why an answer is of no use. Never what the other side wrote: it may be hostile, or secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It said no.
    #[error("the other side refused it (HTTP {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The protocol's own number for the reason, if there was one.
        code: Option<i64>,
    },
    /// It said something that makes no sense.
    #[error("the other side's answer lacks or garbles {0}")]
    Malformed(&'static str),
    /// It said something that is not true.
    #[error("the other side's answer contradicts what was asked: {0}")]
    Lied(&'static str),
}
