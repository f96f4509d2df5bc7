//! The TURN core, sans-IO: the same stage names.
