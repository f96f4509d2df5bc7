//! H.264 NAL units in RTP (RFC 6184 section 5): single, aggregated (STAP-A) and fragmented (FU-A).

const TYPE: u8 = 0x1f;
const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const FU_START: u8 = 0x80;

pub(super) fn starts_key_frame(payload: &[u8]) -> bool {
    let Some((&first, rest)) = payload.split_first() else {
        return false;
    };
    match first & TYPE {
        STAP_A => stap_a_holds_key_frame(rest),
        FU_A => rest
            .first()
            .is_some_and(|fu| fu & FU_START != 0 && opens_key_frame(fu & TYPE)),
        single => opens_key_frame(single),
    }
}

/// An IDR slice, or the parameter set that precedes it in the same picture.
fn opens_key_frame(nal_type: u8) -> bool {
    nal_type == IDR || nal_type == SPS
}

fn stap_a_holds_key_frame(mut units: &[u8]) -> bool {
    while let [high, low, rest @ ..] = units {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(unit) = rest.get(..length) else {
            return false;
        };
        if unit.first().is_some_and(|header| opens_key_frame(header & TYPE)) {
            return true;
        }
        units = &rest[length..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_frame_starts_with_a_parameter_set_or_an_idr_slice() {
        assert!(starts_key_frame(&[0x67, 0x42]), "SPS");
        assert!(starts_key_frame(&[0x65, 0x88]), "IDR");
        assert!(starts_key_frame(&[0x7c, 0x85, 0x88]), "first fragment of an IDR");
        assert!(
            starts_key_frame(&[0x78, 0, 1, 0x68, 0, 2, 0x67, 0x42]),
            "SPS behind a PPS in a STAP-A"
        );
        assert!(!starts_key_frame(&[0x7c, 0x05, 0x88]), "a later fragment");
        assert!(!starts_key_frame(&[0x41, 0x9a]), "a P slice");
        assert!(!starts_key_frame(&[0x78, 0, 9, 0x67]), "a STAP-A that overruns");
    }
}
