//! From a host's name to an address that may be connected to (THREATS: did:web as a weapon). Every address that a name
//! has is checked, and one that is not public condemns the name: an answer that mixes both is somebody's attempt to
//! have the relay try. What comes out is connected to as it is; nobody looks the name up a second time.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use turn_server::{AddressPolicy, Prefix};

use crate::config::HostAddress;

/// Addresses of one name that are looked at; an honest one has a handful.
const ADDRESSES_MAX: usize = 64;

/// A question to DNS.
pub(crate) type Lookup =
    Box<dyn Fn(&str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync>;

/// Looks names up and judges what comes back.
pub(crate) struct Names {
    hosts: HashMap<String, Vec<IpAddr>>,
    policy: AddressPolicy,
    lookup: Lookup,
}

impl Names {
    /// With the operator's own hosts and exceptions. Every other name is asked for with `lookup`.
    pub(crate) fn new(hosts: &[HostAddress], exceptions: Vec<Prefix>, lookup: Lookup) -> Names {
        let mut known: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for host in hosts {
            known.entry(host.name.clone()).or_default().push(host.address);
        }
        let policy = AddressPolicy {
            exceptions,
            ..AddressPolicy::default()
        };
        Names {
            hosts: known,
            policy,
            lookup,
        }
    }

    /// The addresses of a host, all of them checked.
    pub(crate) async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, &'static str> {
        let found = match self.hosts.get(host) {
            Some(known) => known.clone(),
            None => (self.lookup)(host)
                .await
                .map_err(|_| "its host's name could not be looked up")?,
        };
        if found.is_empty() {
            return Err("its host has no address");
        }
        let public = |ip: &IpAddr| self.policy.admit_address(*ip).is_ok();
        if found.len() > ADDRESSES_MAX || !found.iter().all(public) {
            return Err("its host has an address that is not public");
        }
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}

/// The system's resolver.
pub(crate) fn system() -> Lookup {
    Box::new(|host| {
        // With the final dot the name is whole: no search domain of this machine is appended to a stranger's text.
        let whole = format!("{host}.");
        Box::pin(async move {
            let found = tokio::net::lookup_host((whole.as_str(), 443)).await?;
            Ok(found
                .map(|address| address.ip())
                .take(ADDRESSES_MAX + 1)
                .collect())
        })
    })
}
