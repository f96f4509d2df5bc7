//! Who is asking: DIDs, relay tokens, proofs of possession, Permit.
