//! SRTP contexts from keying material as DTLS exports it, another one for each subscriber. Nothing secret is ever sealed
//! with them.

use sfu::srtp::{Master, Opener, Profile, Sealer};

/// All that the relay negotiates.
pub const PROFILES: [Profile; 3] = [
    Profile::AeadAes128Gcm,
    Profile::AeadAes256Gcm,
    Profile::Aes128CmSha1_80,
];

/// What the subscriber's packets are sealed with.
pub fn sealer(profile: Profile, subscriber: usize) -> Sealer {
    let material = material(profile, subscriber);
    let (client, _) = Master::from_dtls(profile, &material).expect("as long as the profile says");
    Sealer::new(client)
}

/// What opens them.
pub fn opener(profile: Profile, subscriber: usize) -> Opener {
    let material = material(profile, subscriber);
    let (client, _) = Master::from_dtls(profile, &material).expect("as long as the profile says");
    Opener::new(client)
}

fn material(profile: Profile, subscriber: usize) -> Vec<u8> {
    (0..profile.keying_material_length())
        .map(|at| (at * 7 + subscriber) as u8)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_subscriber_is_sealed_nobody_else_opens() {
        for profile in PROFILES {
            let mut packet = vec![0; 12 + 100 + profile.tag_length()];
            packet[0] = 0x80;
            sealer(profile, 1).seal(&mut packet, 12, 7, &[0x5A; 100]);
            let mut slot = vec![0; 2_048];
            assert!(opener(profile, 2).open(&packet, 12, 7, &mut slot).is_err());
            assert_eq!(opener(profile, 1).open(&packet, 12, 7, &mut slot), Ok(100));
        }
    }
}
