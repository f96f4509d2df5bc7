use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning_invoice::{InvoiceBuilder, PaymentSecret};
use serde_json::json;

const NOW: u64 = 1_790_000_000;
const PREIMAGE: [u8; 32] = [7; 32];

fn key() -> SecretKey {
    SecretKey::from_slice(&[9; 32]).unwrap()
}

fn invoice(currency: Currency, msat: u64, expiry: u64, at: u64) -> String {
    let built = InvoiceBuilder::new(currency)
        .description("a top-up".into())
        .payment_hash(sha256::Hash::hash(&PREIMAGE))
        .payment_secret(PaymentSecret([3; 32]))
        .duration_since_epoch(Duration::from_secs(at))
        .min_final_cltv_expiry_delta(18)
        .expiry_time(Duration::from_secs(expiry))
        .amount_milli_satoshis(msat)
        .build_signed(|hash| Secp256k1::new().sign_ecdsa_recoverable(hash, &key()));
    built.unwrap().to_string()
}

fn wanted() -> Wanted {
    Wanted {
        msat: 21_000,
        expiry: 600,
        description: "a top-up".into(),
        label: "milliway-1".into(),
    }
}

fn terms() -> Terms {
    let payee = PublicKey::from_secret_key(&Secp256k1::new(), &key());
    Terms {
        network: "regtest".into(),
        payee: Some(hex::encode(&payee.serialize())),
    }
}

fn hash() -> String {
    hex::encode(sha256::Hash::hash(&PREIMAGE).as_byte_array())
}

fn answer(body: Value) -> Answer {
    Answer { status: 200, body }
}

#[test]
fn an_invoice_that_says_what_was_asked_for_is_taken() {
    let bolt11 = invoice(Currency::Regtest, 21_000, 600, NOW);
    let taken = terms().check(&bolt11, &wanted(), NOW).unwrap();
    assert_eq!(taken.payment_hash, hash());
    assert_eq!(taken.expires, NOW + 600);
    // Written in upper case for a QR code it is the same.
    assert!(terms().check(&bolt11.to_uppercase(), &wanted(), NOW).is_ok());
}

#[test]
fn an_invoice_that_the_node_changed_is_refused() {
    let check = |bolt11: &str| terms().check(bolt11, &wanted(), NOW).unwrap_err();
    for changed in [
        invoice(Currency::Regtest, 21_001, 600, NOW),
        invoice(Currency::Regtest, 20_999, 600, NOW),
        invoice(Currency::Bitcoin, 21_000, 600, NOW),
        invoice(Currency::Regtest, 21_000, 601, NOW),
        invoice(Currency::Regtest, 21_000, 600, NOW - 601),
    ] {
        assert!(matches!(check(&changed), Fault::Lied(_)), "{changed}");
    }
    let other = Terms {
        payee: Some(format!("02{}", "11".repeat(32))),
        ..terms()
    };
    let honest = invoice(Currency::Regtest, 21_000, 600, NOW);
    assert!(matches!(
        other.check(&honest, &wanted(), NOW),
        Err(Fault::Lied(_))
    ));
    let forged = honest.replacen("lnbcrt210n", "lnbcrt220n", 1);
    assert_ne!(forged, honest);
    assert_eq!(check(&forged), Fault::Malformed("the invoice"));
    assert_eq!(check(&"l".repeat(5_000)), Fault::Malformed("the invoice"));
    assert_eq!(check("lnbc1"), Fault::Malformed("the invoice"));
}

#[test]
fn lnd_is_asked_as_its_interface_says() {
    let lnd = Lnd::new(&[2, 1, 0xff]);
    let call = lnd.ask(&wanted());
    assert_eq!(call.path, "/v1/invoices");
    assert_eq!(call.secret, Some(("grpc-metadata-macaroon", "0201ff".to_owned())));
    assert_eq!(call.body.unwrap()["value_msat"], "21000");
    let made =
        answer(json!({"r_hash": STANDARD.encode([1; 32]), "payment_request": "lnbcrt1", "add_index": "4"}));
    assert_eq!(lnd.asked(&made).unwrap(), "lnbcrt1");
    assert_eq!(lnd.look_up(&hash()).path, format!("/v1/invoice/{}", hash()));
}

#[test]
fn lnd_is_believed_only_with_the_preimage_of_the_invoice_that_was_asked_for() {
    let lnd = Lnd::new(b"m");
    let r_hash = STANDARD.encode(sha256::Hash::hash(&PREIMAGE).as_byte_array());
    let stands = |state: &str, preimage: &str, hash: &str| json!({"r_hash": hash, "state": state, "r_preimage": preimage, "amt_paid_msat": "21000"});
    let look = |body| lnd.looked_up(&hash(), &answer(body));
    assert_eq!(look(stands("OPEN", "", &r_hash)), Ok(Payment::Awaited));
    assert_eq!(look(stands("ACCEPTED", "", &r_hash)), Ok(Payment::Awaited));
    assert_eq!(look(stands("CANCELED", "", &r_hash)), Ok(Payment::Gone));
    let preimage = STANDARD.encode(PREIMAGE);
    assert_eq!(
        look(stands("SETTLED", &preimage, &r_hash)),
        Ok(Payment::Paid { msat: 21_000 })
    );
    let wrong = STANDARD.encode([8; 32]);
    assert!(matches!(
        look(stands("SETTLED", &wrong, &r_hash)),
        Err(Fault::Lied(_))
    ));
    assert!(matches!(
        look(stands("SETTLED", &preimage, &wrong)),
        Err(Fault::Lied(_))
    ));
    assert!(matches!(
        look(stands("SETTLED", "", &r_hash)),
        Err(Fault::Lied(_) | Fault::Malformed(_))
    ));
    assert_eq!(look(stands("MAYBE", "", &r_hash)), Err(Fault::Malformed("state")));
    assert_eq!(look(Value::Null), Err(Fault::Malformed("r_hash")));
    let gone = Answer {
        status: 404,
        body: json!({"code": 5}),
    };
    assert_eq!(
        lnd.looked_up(&hash(), &gone),
        Err(Fault::Refused {
            status: 404,
            code: Some(5)
        })
    );
}

#[test]
fn core_lightning_is_asked_and_believed_likewise() {
    let node = CoreLightning::new(" rune==\n");
    let call = node.ask(&wanted());
    assert_eq!(call.path, "/v1/invoice");
    assert_eq!(call.secret, Some(("rune", "rune==".to_owned())));
    assert_eq!(call.body.unwrap()["amount_msat"], 21_000);
    let made = Answer {
        status: 201,
        body: json!({"bolt11": "lnbcrt1"}),
    };
    assert_eq!(node.asked(&made).unwrap(), "lnbcrt1");
    let stands = |status: &str, hash: &str| {
        json!({"invoices": [{"payment_hash": hash, "status": status, "amount_received_msat": 21_000,
            "payment_preimage": hex::encode(&PREIMAGE)}]})
    };
    let look = |body| node.looked_up(&hash(), &answer(body));
    assert_eq!(look(stands("unpaid", &hash())), Ok(Payment::Awaited));
    assert_eq!(look(stands("expired", &hash())), Ok(Payment::Gone));
    assert_eq!(look(stands("paid", &hash())), Ok(Payment::Paid { msat: 21_000 }));
    assert!(matches!(
        look(stands("paid", &"00".repeat(32))),
        Err(Fault::Lied(_))
    ));
    assert_eq!(
        look(json!({"invoices": []})),
        Err(Fault::Malformed("the invoice"))
    );
    // Older versions write the unit.
    let mut older = stands("paid", &hash());
    older["invoices"][0]["amount_received_msat"] = "21000msat".into();
    assert_eq!(look(older), Ok(Payment::Paid { msat: 21_000 }));
}
