//! The AV1 aggregation header (RTP Payload Format for AV1, section 4.4).

/// The first OBU continues one of the previous packet.
const CONTINUES: u8 = 0x80;
/// The packet is the first of a coded video sequence.
const NEW_SEQUENCE: u8 = 0x08;

pub(super) fn starts_key_frame(payload: &[u8]) -> bool {
    payload
        .first()
        .is_some_and(|header| header & NEW_SEQUENCE != 0 && header & CONTINUES == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_frame_starts_a_coded_video_sequence() {
        assert!(starts_key_frame(&[0x08]));
        assert!(!starts_key_frame(&[0x88]));
        assert!(!starts_key_frame(&[0x10]));
        assert!(!starts_key_frame(&[]));
    }
}
