//! Reading claims: each has one type and one limit, and a wrong one says how to put it right.

use serde_json::{Map, Value};

use super::issue::Confirmation;
use super::{NAME_LENGTH_MAX, Services};
use crate::did::Did;
use crate::documents::Documents;
use crate::json::{INTEGER_MAX, JsonError, parse_object};
use crate::key::Thumbprint;
use crate::refusal::Refusal;

pub(super) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn parse(payload: &[u8]) -> Result<Claims, Refusal> {
        let refusal = |fix| Refusal::TokenMalformed { field: "claims", fix };
        let text = str::from_utf8(payload).map_err(|_| refusal("send UTF-8"))?;
        parse_object(text).map(Claims).map_err(|error| match error {
            JsonError::RepeatedKey { .. } => refusal("a member name appears twice; send each claim once"),
            JsonError::IntegerTooLarge => refusal("an integer is beyond 2^53-1; send a smaller one"),
            JsonError::Syntax { .. } => refusal("send one JSON object"),
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(super) fn did(&self, field: &'static str) -> Result<Did, Refusal> {
        self.0
            .get(field)
            .and_then(Value::as_str)
            .and_then(|text| Did::parse(text).ok())
            .ok_or(Refusal::TokenMalformed {
                field,
                fix: "it must be one DID, as a string",
            })
    }

    pub(super) fn integer(&self, field: &'static str) -> Result<u64, Refusal> {
        self.0
            .get(field)
            .and_then(Value::as_u64)
            .filter(|integer| *integer <= INTEGER_MAX)
            .ok_or(Refusal::TokenMalformed {
                field,
                fix: "it must be an integer from 0 to 9007199254740991, written with digits only",
            })
    }

    pub(super) fn text(&self, field: &'static str) -> Result<Option<&str>, Refusal> {
        match self.0.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::TokenMalformed {
                field,
                fix: "it must be a string",
            }),
        }
    }

    /// A short text without control characters.
    pub(super) fn name(&self, field: &'static str) -> Result<Option<String>, Refusal> {
        match self.text(field)? {
            Some(text)
                if text.is_empty() || text.len() > NAME_LENGTH_MAX || text.contains(char::is_control) =>
            {
                Err(Refusal::TokenMalformed {
                    field,
                    fix: "it must have 1 to 256 bytes and no control characters",
                })
            }
            text => Ok(text.map(str::to_owned)),
        }
    }

    pub(super) fn boolean(&self, field: &'static str) -> Result<bool, Refusal> {
        match self.0.get(field) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(Refusal::TokenMalformed {
                field,
                fix: "it must be true or false",
            }),
        }
    }

    pub(super) fn services(&self) -> Result<Services, Refusal> {
        let refusal = Refusal::TokenMalformed {
            field: "service",
            fix: "it must be an array with \"sfu\", \"turn\" or both; leave it out for both",
        };
        let list = match self.0.get("service") {
            None => {
                return Ok(Services {
                    sfu: true,
                    turn: true,
                });
            }
            Some(Value::Array(list)) if !list.is_empty() => list,
            Some(_) => return Err(refusal),
        };
        let mut services = Services {
            sfu: false,
            turn: false,
        };
        for service in list {
            match service.as_str() {
                Some("sfu") => services.sfu = true,
                Some("turn") => services.turn = true,
                _ => return Err(refusal),
            }
        }
        Ok(services)
    }

    pub(super) fn confirmation(&self) -> Result<Option<Confirmation>, Refusal> {
        self.0.get("cnf").map(confirmation).transpose()
    }
}

/// `cnf` (RFC 7800): exactly one of `kid`, `jkt`. A whole key (`jwk`) has no place here.
pub(super) fn confirmation(value: &Value) -> Result<Confirmation, Refusal> {
    let refusal = Refusal::TokenMalformed {
        field: "cnf",
        fix: "it must be {\"kid\": DID URL} or {\"jkt\": thumbprint}, with that one member",
    };
    let member = value
        .as_object()
        .filter(|object| object.len() == 1)
        .and_then(|object| object.iter().next());
    match member {
        Some((name, Value::String(text))) if name == "kid" => Ok(Confirmation::Kid(text.clone())),
        Some((name, Value::String(text))) if name == "jkt" => Thumbprint::parse(text)
            .map(Confirmation::Thumbprint)
            .ok_or(refusal),
        _ => Err(refusal),
    }
}

impl Confirmation {
    /// The thumbprint of the named key.
    pub(super) fn thumbprint(&self, documents: &Documents) -> Result<Thumbprint, Refusal> {
        match self {
            Confirmation::Thumbprint(thumbprint) => Ok(*thumbprint),
            Confirmation::Kid(url) => match documents.key(url) {
                Some(key) => Ok(key.thumbprint()),
                None => Err(Refusal::TokenMalformed {
                    field: "cnf",
                    fix: "`kid` must be the DID URL of an authentication key of a DID that resolves here",
                }),
            },
        }
    }
}
