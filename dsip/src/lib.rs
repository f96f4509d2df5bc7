//! Signed DSIP envelopes and the session messages built on them.
