//! Cashu: a token's coins are exchanged at their mint for coins that only the relay knows, and then they are the
//! relay's (NUT-00 to NUT-03, NUT-07, NUT-09, NUT-12).
//!
//! The exchange is safe against a crash between any two steps: what it is exchanged for is derived from a seed and the
//! token's own name, and written down before the mint is asked. Afterwards the mint can be asked again what it signed
//! (NUT-09) and whether the token is spent (NUT-07), and the answer to both says what happened.

mod cbor;
mod curve;
mod keyset;
mod output;
mod swap;
mod token;

pub use keyset::{Keyset, KeysetInfo, keys_answer, keys_call, keysets_answer, keysets_call};
pub use output::Seed;
pub use swap::{Coins, Plan, Spent};
pub use token::{Proof, Token, export};

/// Largest token that is read.
pub const TOKEN_LENGTH_MAX: usize = 48 * 1024;
/// Coins of one token. A wallet that holds any amount in powers of two pays with fewer than 64.
pub const PROOFS_MAX: usize = 256;

/// Why a token is not taken, for the one who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Its form.
    #[error("the token cannot be read: {0}")]
    Malformed(&'static str),
    /// Its mint.
    #[error("coins of this mint are not taken here")]
    Mint,
    /// Its unit.
    #[error("coins of this unit are not taken here; sat and msat are")]
    Unit,
    /// Coins with conditions.
    #[error("the coins are locked to a key or a condition; send such as anybody can spend")]
    Locked,
    /// A keyset that the mint does not have.
    #[error("the mint does not know the coins' keyset")]
    Keyset,
    /// NUT-12 fails.
    #[error("the mint's proof on a coin is wrong")]
    Proof,
    /// Nothing is left after the mint's fee.
    #[error("the coins are worth no more than the mint's fee")]
    Worthless,
}
