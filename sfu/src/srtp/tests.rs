use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// RFC 3711 appendix B.3.
#[test]
fn session_keys_are_derived_as_in_rfc_3711_b_3() {
    let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
    let mut out = [0; 16];
    derive(&key, &salt, Label::RtpEncryption, &mut out);
    assert_eq!(out.to_vec(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
    let mut out = [0; 14];
    derive(&key, &salt, Label::RtpSalt, &mut out);
    assert_eq!(out.to_vec(), hex("30CBBC08863D8C85D49DB34A9AE1"));
    let mut out = [0; 94];
    derive(&key, &salt, Label::RtpAuthentication, &mut out);
    let expected = "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE
        E049646C43D9327AD175578EF7227098 6371C10C9A369AC2F94A8C5FBCDDDC25
        6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2";
    assert_eq!(out.to_vec(), hex(expected));
}

/// RFC 3711 appendix B.2: the keystream under a zero SSRC and index.
#[test]
fn counter_mode_keystream_is_as_in_rfc_3711_b_2() {
    let key = hex("2B7E151628AED2A6ABF7158809CF4F3C");
    let salt: [u8; 14] = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
    let cipher = counter_mode::CounterMode::new(&key, salt, &[0; 20]);
    let mut out = [0; 48];
    cipher.apply(0, 0, &[0; 48], &mut out);
    let expected = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB
        41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(out.to_vec(), hex(expected));
}

const RFC_7714_RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
    69736120 696e2070 61727465 73207472 6573";

/// RFC 7714 section 16.1: the session keys are given, so the cipher is fed directly.
#[test]
fn gcm_128_seals_as_in_rfc_7714_16_1() {
    let aead = aead::Aead::new(
        &hex("000102030405060708090a0b0c0d0e0f"),
        hex("517569642070726f2071756f").try_into().unwrap(),
    );
    let sealer = Sealer {
        cipher: Cipher::Aead(aead),
    };
    let packet = hex(RFC_7714_RTP);
    let mut out = vec![0; packet.len() + 16];
    out[..12].copy_from_slice(&packet[..12]);
    sealer.seal(&mut out, 12, 0xf17b, &packet[12..]);
    let expected = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5
        0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce";
    assert_eq!(out, hex(expected));
    let aead = aead::Aead::new(
        &hex("000102030405060708090a0b0c0d0e0f"),
        hex("517569642070726f2071756f").try_into().unwrap(),
    );
    let opener = Opener {
        cipher: Cipher::Aead(aead),
    };
    let mut plain = [0; 100];
    assert_eq!(opener.open(&out, 12, 0xf17b, &mut plain), Ok(packet.len() - 12));
    assert_eq!(plain[..packet.len() - 12], packet[12..]);
}

/// RFC 7714 section 16.2.
#[test]
fn gcm_256_seals_as_in_rfc_7714_16_2() {
    let aead = aead::Aead::new(
        &hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
        hex("517569642070726f2071756f").try_into().unwrap(),
    );
    let sealer = Sealer {
        cipher: Cipher::Aead(aead),
    };
    let packet = hex(RFC_7714_RTP);
    let mut out = vec![0; packet.len() + 16];
    out[..12].copy_from_slice(&packet[..12]);
    sealer.seal(&mut out, 12, 0xf17b, &packet[12..]);
    let expected = "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238
        9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13";
    assert_eq!(out, hex(expected));
}

/// RFC 7714 section 17.1.
#[test]
fn gcm_128_seals_rtcp_as_in_rfc_7714_17_1() {
    let plain = hex(
        "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
        deadbeef deadbeef deadbeef deadbeef deadbeef",
    );
    let cipher = || {
        Cipher::Aead(aead::Aead::new(
            &hex("000102030405060708090a0b0c0d0e0f"),
            hex("517569642070726f2071756f").try_into().unwrap(),
        ))
    };
    let mut sealer = srtcp_with(cipher(), 0x5d3);
    let mut out = [0; 200];
    let length = sealer.seal(&plain, &mut out).unwrap();
    let expected = "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d
        c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4";
    assert_eq!(out[..length].to_vec(), hex(expected));
}

fn srtcp_with(cipher: Cipher, index: u32) -> RtcpSealer {
    RtcpSealer::for_vectors(cipher, index)
}

fn masters(profile: Profile) -> Vec<u8> {
    (0..profile.keying_material_length())
        .map(|byte| byte as u8 ^ 0x5a)
        .collect()
}

const PROFILES: [Profile; 3] = [
    Profile::AeadAes128Gcm,
    Profile::AeadAes256Gcm,
    Profile::Aes128CmSha1_80,
];

#[test]
fn every_profile_opens_what_it_sealed_and_nothing_else() {
    for profile in PROFILES {
        let material = masters(profile);
        let (client, server) = Master::from_dtls(profile, &material).unwrap();
        let sealer = Sealer::new(client);
        let opener = Opener::new(client);
        let payload: Vec<u8> = (0..1100u32).map(|byte| byte as u8).collect();
        let mut packet = vec![0; 20 + payload.len() + sealer.tag_length()];
        packet[..20].copy_from_slice(&hex("9060ffff 00000001 0badcafe bede0001 10aa0000"));
        sealer.seal(&mut packet, 20, 0x7_ffff, &payload);
        let mut out = [0; 1500];
        assert_eq!(
            opener.open(&packet, 20, 0x7_ffff, &mut out),
            Ok(payload.len()),
            "{profile:?}"
        );
        assert_eq!(out[..payload.len()], payload);
        assert_eq!(
            opener.open(&packet, 20, 0x6_ffff, &mut out),
            Err(Rejected::Unauthentic),
            "wrong ROC"
        );
        assert_eq!(
            Opener::new(server).open(&packet, 20, 0x7_ffff, &mut out),
            Err(Rejected::Unauthentic)
        );
        assert_eq!(
            opener.open(&packet, 20, 0x7_ffff, &mut out[..1000]),
            Err(Rejected::Oversize)
        );
        for at in [1, 13, 19, 20, 600, packet.len() - 1] {
            let mut forged = packet.clone();
            forged[at] ^= 1;
            assert_eq!(
                opener.open(&forged, 20, 0x7_ffff, &mut out),
                Err(Rejected::Unauthentic),
                "byte {at}"
            );
        }
        for length in 0..20 + sealer.tag_length() {
            assert_eq!(
                opener.open(&packet[..length], 20, 0x7_ffff, &mut out),
                Err(Rejected::Short)
            );
        }
    }
}

#[test]
fn every_profile_opens_rtcp_once() {
    for profile in PROFILES {
        let material = masters(profile);
        let (client, _) = Master::from_dtls(profile, &material).unwrap();
        let (mut sealer, mut opener) = (RtcpSealer::new(client), RtcpOpener::new(client));
        let plain = hex("81c90007 00000001 00000002 00000000 00000000 00000000 00000000 00000000");
        let (mut sealed, mut out) = ([0; 100], [0; 100]);
        let length = sealer.seal(&plain, &mut sealed).unwrap();
        assert_eq!(
            opener.open(&sealed[..length], &mut out),
            Ok(plain.len()),
            "{profile:?}"
        );
        assert_eq!(out[..plain.len()], plain);
        assert_eq!(opener.open(&sealed[..length], &mut out), Err(Rejected::Replayed));
        let length = sealer.seal(&plain, &mut sealed).unwrap();
        for at in 0..length {
            let mut forged = sealed;
            forged[at] ^= 0x40;
            assert!(
                opener.open(&forged[..length], &mut out).is_err(),
                "{profile:?} byte {at}"
            );
        }
        for cut in 0..length {
            assert!(opener.open(&sealed[..cut], &mut out).is_err());
        }
        assert_eq!(opener.open(&sealed[..length], &mut out), Ok(plain.len()));
    }
}
