//! Sockets to batches to sockets: GRO, GSO, ECN.
