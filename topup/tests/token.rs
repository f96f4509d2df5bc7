//! Tokens out of a real wallet (Nutshell), whole and damaged. THREATS: oversize and hostile tokens.
#![allow(clippy::unwrap_used)]

use topup::cashu::{PROOFS_MAX, TOKEN_LENGTH_MAX, Token, TokenFault, export};

const RECORDED: &str = "cashuBo2F0gaJhaUgBbfsUlitGHGFwhKNhYRiAYXN4QGMyZjUxNDg0ODAxNjFhYWEwZWIzYjgyM2M1ZWRhODAwYWM4Njg3NzgyYjI5MGU1MGQ1YjFmZjUyOWU1NzNhODhhY1ghAopQEkAN9UAe9IuYgueyF-UVYyw7ohFETyjn0SxUtx-Mo2FhGEBhc3hAZjQwOTk5OTZjODUxNTE1MGFjOGNmNmMyYmQ0MjMxMTkyMzZlNzY2Y2RkYTY0YWMzNzFjYzc5ZmFkY2JlZDI4MmFjWCED1y1CnjNEREDeWk-DV9gpJFULQAa3uUSISAis5y-PZRSjYWEQYXN4QDJlMGE4YjU0MThiMmMxMGUzNjllMWY4YTMwMTc3ZGE3ZDZiYTI4NzliZDU4OGE0N2MyNDJkNTdlMWIwOTkwZjlhY1ghAiRsWdz1s_frEAH2pt8Ori3nzS7wUW4toKx2vgD2Ctn4o2FhAmFzeEBmYWE2M2VjMzhkODI0NDhmOWUzODliNjc3NzExNmFmNjU1NTdjZDZjZTU5NWE4ZGZmMjY4ODEyMDgzYTU4MGNlYWNYIQLHfkc-JedqHHvt_caTvqElC28nQv8OlY41uJiwV769wGFtdmh0dHA6Ly8xMjcuMC4wLjE6MTMzMzhhdWNzYXQ";

#[test]
fn a_recorded_token_reads_and_reads_again_in_the_older_form_under_the_same_name() {
    let token = Token::parse(RECORDED).unwrap();
    assert_eq!(
        (token.mint.as_str(), token.unit.as_str()),
        ("http://127.0.0.1:13338", "sat")
    );
    assert_eq!((token.amount(), token.proofs.len()), (210, 4));
    let mut backwards = token.proofs.clone();
    backwards.reverse();
    let older = Token::parse(&export(&token.mint, &token.unit, &backwards)).unwrap();
    assert_eq!(older.name(), token.name());
    assert_eq!(
        Token::parse(&format!(" cashu:{RECORDED}\n")).unwrap().name(),
        token.name()
    );
}

#[test]
fn a_coin_twice_too_many_coins_or_locked_ones_are_refused() {
    let token = Token::parse(RECORDED).unwrap();
    let of = |proofs: &[topup::cashu::Proof]| Token::parse(&export(&token.mint, "sat", proofs));
    let one = token.proofs[0].clone();
    assert!(matches!(
        of(&[one.clone(), one.clone()]),
        Err(TokenFault::Malformed(_))
    ));
    assert!(matches!(of(&[]), Err(TokenFault::Malformed(_))));
    let many: Vec<_> = (0..=PROOFS_MAX)
        .map(|secret| topup::cashu::Proof {
            secret: secret.to_string(),
            ..one.clone()
        })
        .collect();
    assert!(of(&many).is_err());
    let locked = topup::cashu::Proof {
        secret: "[\"P2PK\",{\"nonce\":\"00\",\"data\":\"02\",\"tags\":[]}]".into(),
        ..one
    };
    assert_eq!(of(&[locked]).unwrap_err(), TokenFault::Locked);
    let long = format!("cashuA{}", "A".repeat(TOKEN_LENGTH_MAX));
    assert!(matches!(Token::parse(&long), Err(TokenFault::Malformed(_))));
}

#[test]
fn a_damaged_token_is_refused_or_another_and_never_a_panic() {
    let name = Token::parse(RECORDED).unwrap().name();
    for at in 0..RECORDED.len() {
        let _ = Token::parse(&RECORDED[..at]);
        for byte in [b'A', b'_', b'z', b'0'] {
            let mut damaged = RECORDED.as_bytes().to_vec();
            damaged[at] = byte;
            let damaged = String::from_utf8(damaged).unwrap();
            // Where secrets and mint are what they were, so is the name; all else is another token.
            if let Ok(token) = Token::parse(&damaged)
                && token.name() == name
            {
                assert_eq!(token.mint, "http://127.0.0.1:13338");
            }
        }
    }
}
