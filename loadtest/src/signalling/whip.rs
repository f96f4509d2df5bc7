//! WHIP (RFC 9725) to publish and WHEP to receive, at Milliway or at any other server that speaks them.

use std::time::Instant;

use super::dsip::Calls;
use super::{Manner, Signalling, Wish};
use crate::Error;
use crate::holder::bearer_token;
use crate::http;
use crate::peer::Negotiated;
use crate::sdp::{Direction, Kind, Local, Remote, offer};

/// What each client may spend: enough for hours.
const BALANCE_MSAT: u64 = 100_000_000;

/// Where bearer tokens come from.
pub enum Tokens {
    /// A fresh one for every session, from the faucet of `milliway dev`.
    Faucet,
    /// The same for all.
    Fixed(String),
    /// The server wants none.
    None,
}

/// A server that speaks WHIP and WHEP.
pub struct Whip {
    base: String,
    tokens: Tokens,
    /// With `{room}` and `{name}` in them.
    whip_path: String,
    whep_path: String,
    calls: Option<Calls>,
    /// Authorization and path of every session.
    sessions: Vec<(Option<String>, String)>,
}

impl Whip {
    /// Milliway: tokens from its faucet, calls over DSIP.
    #[must_use]
    pub fn milliway(base: &str) -> Whip {
        Whip {
            calls: Some(Calls::new(base)),
            ..Whip::generic(base, Tokens::Faucet, "/whip/{room}/{name}", "/whep/{room}/{name}")
        }
    }

    /// Any server; paths have `{room}` and `{name}` in them.
    #[must_use]
    pub fn generic(base: &str, tokens: Tokens, whip_path: &str, whep_path: &str) -> Whip {
        Whip {
            base: base.to_owned(),
            tokens,
            whip_path: whip_path.to_owned(),
            whep_path: whep_path.to_owned(),
            calls: None,
            sessions: Vec::new(),
        }
    }

    fn exchange(&mut self, local: &Local, path: &str, direction: Direction) -> Result<Negotiated, Error> {
        let authorization = match &self.tokens {
            Tokens::Faucet => Some(format!("Bearer {}", bearer_token(&self.base, BALANCE_MSAT)?)),
            Tokens::Fixed(token) => Some(format!("Bearer {token}")),
            Tokens::None => None,
        };
        let mut headers = vec![("content-type", "application/sdp")];
        if let Some(authorization) = &authorization {
            headers.push(("authorization", authorization));
        }
        let lines = [(Kind::Audio, direction), (Kind::Video, direction)];
        let answer = http::call(&self.base, "POST", path, &headers, &offer(local, &lines))?;
        let answer = answer.expect(201, path)?;
        let resource = answer
            .header("location")
            .ok_or("a 201 without Location")?
            .to_owned();
        self.sessions.push((authorization, resource));
        Ok(Negotiated {
            remote: Remote::parse(&answer.body)?,
            we_offered: true,
        })
    }
}

impl Signalling for Whip {
    fn join(&mut self, local: &Local, wish: &Wish) -> Result<Negotiated, Error> {
        let path =
            |template: &str, room: &str, name: &str| template.replace("{room}", room).replace("{name}", name);
        match wish {
            Wish::Publish { room, name } => {
                let path = path(&self.whip_path, room, name);
                self.exchange(local, &path, Direction::Send)
            }
            Wish::Subscribe { room, names } => {
                let [name] = &names[..] else {
                    return Err("WHEP receives one publisher a connection".into());
                };
                let path = path(&self.whep_path, room, name);
                self.exchange(local, &path, Direction::Receive)
            }
            Wish::Call { room, name, others } => match &mut self.calls {
                Some(calls) => calls.join(local, room, name, *others),
                None => Err("WHIP has no calls on one connection".into()),
            },
        }
    }

    fn manner(&self) -> Manner {
        match self.calls {
            Some(_) => Manner::OneConnection,
            None => Manner::SubscribeEach,
        }
    }

    fn attend(&mut self) -> Result<(), Error> {
        self.calls.as_mut().map_or(Ok(()), Calls::attend)
    }

    fn leave(&mut self, until: Instant) {
        if let Some(calls) = &mut self.calls {
            calls.leave();
        }
        for (authorization, resource) in self.sessions.drain(..) {
            if Instant::now() > until {
                return;
            }
            let header = authorization.as_deref().map(|value| ("authorization", value));
            let headers: Vec<_> = header.into_iter().collect();
            // A session that the server ended itself is not there any more.
            let _ = http::call(&self.base, "DELETE", &resource, &headers, "");
        }
    }
}
