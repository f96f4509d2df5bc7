//! What a really started relay writes into its log while people use it and others try to.
#![allow(clippy::unwrap_used)]

mod relay;

use identity::SigningKey;
use relay::Relay;

#[test]
fn no_secret_and_nobodys_did_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let relay = Relay::start_logging(std::fs::File::create(&path).unwrap());
    let (key, thief) = (SigningKey::generate(), SigningKey::generate());
    let token = relay.faucet(key.did().as_str(), 100_000, false);
    let bearer = relay.faucet(key.did().as_str(), 100_000, true);
    let offer = relay::offer();
    let whip = |key, token: &str| relay.signed(key, Some(token), "POST", "/whip/den/Ada", offer.as_bytes());
    let joined = whip(&key, &token);
    assert_eq!(joined.status, 201, "{}", joined.text());
    assert_eq!(whip(&thief, &token).status, 401);
    assert_eq!(whip(&key, &token[..token.len() - 2]).status, 401);
    let turn = relay.signed(&key, Some(&token), "POST", "/v1/turn/credentials", b"");
    assert_eq!(turn.status, 200);
    let password = turn.json()["iceServers"][0]["credential"]
        .as_str()
        .unwrap()
        .to_owned();
    let authorization = format!("Bearer {bearer}");
    let headers = [("Authorization", authorization.as_str())];
    assert_eq!(relay.call("GET", "/v1/account", &headers, b"").status, 200);
    assert_eq!(
        relay
            .signed(&key, Some(&token), "DELETE", &joined.headers["location"], b"")
            .status,
        200
    );
    let issuer = std::fs::read_to_string(relay.ready["issuer_key"].as_str().unwrap()).unwrap();
    relay.stop();

    let log = std::fs::read_to_string(&path).unwrap();
    assert!(
        log.contains("session opened") && log.contains("session ended"),
        "the log is the relay's: {log}"
    );
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let secrets = [
        ("a token", token.clone()),
        ("a token's signature", signature(&token)),
        ("a bearer token's signature", signature(&bearer)),
        ("a TURN password", password),
        ("the issuer's key", issuer.trim().to_owned()),
        ("an ICE password", "x9cml/YzichV2+XlhiMu8g5T".to_owned()),
        ("a holder's DID", key.did().as_str().to_owned()),
        ("a thief's DID", thief.did().as_str().to_owned()),
    ];
    for (what, secret) in secrets {
        assert!(
            secret.len() > 10 && !log.contains(&secret),
            "{what} is in the log: {log}"
        );
    }
}
