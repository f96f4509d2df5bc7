//! The SFU core, sans-IO: one file per pipeline stage.
