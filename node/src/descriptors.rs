//! File descriptors: every relayed port and every connection is one, and most systems start programs with 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Relayed ports that a node may have open, one an allocation and family: the TURN core's limit on allocations.
const ALLOCATIONS: u64 = 10_000;

/// For connections of the front door, listeners and files.
const BESIDES: u64 = 1_024;

/// Raises the limit to what the system allows; what it is then, none for no limit.
pub(crate) fn raise() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the limit on open files was not raised");
    }
    getrlimit(Resource::Nofile).current
}

/// A sentence for operators whose limit is too low for a full node.
pub(crate) fn warning() -> Option<String> {
    let allowed = getrlimit(Resource::Nofile).maximum?;
    (allowed < ALLOCATIONS + BESIDES).then(|| {
        format!(
            "this system allows {allowed} open files; a node with {ALLOCATIONS} TURN allocations needs {}: raise LimitNOFILE or ulimit -Hn",
            ALLOCATIONS + BESIDES
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows() {
        assert_eq!(raise(), getrlimit(Resource::Nofile).maximum);
    }
}
