//! Which core does what: the thread that is measured has the first core to itself as far as the machine allows, all
//! others share the last one. On a machine with one core they share that.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Who wants a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The thread whose CPU time is the floor.
    Relay,
    /// Generator and sinks.
    Clients,
}

/// Keeps the calling thread, and threads that it starts from now on, on its core. Where the kernel refuses, the thread
/// stays where it may be: the figure is then a little worse, not wrong.
pub(crate) fn pin(place: Place) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    if let Some(core) = core(&allowed, place) {
        let mut only = CpuSet::new();
        only.set(core);
        let _ = sched_setaffinity(None, &only);
    }
}

fn core(allowed: &CpuSet, place: Place) -> Option<usize> {
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    match place {
        Place::Relay => cores.next(),
        Place::Clients => cores.next_back(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_has_the_first_core_and_its_clients_the_last() {
        let mut allowed = CpuSet::new();
        assert_eq!(core(&allowed, Place::Relay), None);
        for number in [3, 5, 6] {
            allowed.set(number);
        }
        assert_eq!(core(&allowed, Place::Relay), Some(3));
        assert_eq!(core(&allowed, Place::Clients), Some(6));
    }
}
