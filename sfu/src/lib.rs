//! The SFU core, sans-IO: one file per pipeline stage.
//!
//! `classify -> admit -> forward -> charge -> egress`, by the names of the packet's journey. Datagrams,
//! instants and a seed go in; datagrams to send and events come out. Nothing in this crate owns a socket or
//! reads a clock. Signalling (`sdp`, `room`) lives beside the core and meets it only in [`media`].

pub mod media;
