//! The VP8 payload descriptor (RFC 7741 section 4.2) and the first byte of the payload header (section 4.3).

const EXTENDED: u8 = 0x80;
const START_OF_PARTITION: u8 = 0x10;
const PARTITION_INDEX: u8 = 0x07;
const HAS_PICTURE_ID: u8 = 0x80;
const HAS_TL0PICIDX: u8 = 0x40;
const HAS_TID: u8 = 0x20;
const HAS_KEYIDX: u8 = 0x10;
const LONG_PICTURE_ID: u8 = 0x80;
/// The inverse key frame flag: 0 on key frames.
const INTERFRAME: u8 = 0x01;

pub(super) fn starts_key_frame(payload: &[u8]) -> bool {
    let Some(&first) = payload.first() else {
        return false;
    };
    if first & START_OF_PARTITION == 0 || first & PARTITION_INDEX != 0 {
        return false;
    }
    descriptor_length(payload)
        .and_then(|length| payload.get(length))
        .is_some_and(|header| header & INTERFRAME == 0)
}

fn descriptor_length(payload: &[u8]) -> Option<usize> {
    if payload.first()? & EXTENDED == 0 {
        return Some(1);
    }
    let flags = *payload.get(1)?;
    let mut length = 2;
    if flags & HAS_PICTURE_ID != 0 {
        length += if payload.get(length)? & LONG_PICTURE_ID != 0 {
            2
        } else {
            1
        };
    }
    if flags & HAS_TL0PICIDX != 0 {
        length += 1;
    }
    if flags & (HAS_TID | HAS_KEYIDX) != 0 {
        length += 1;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_frame_starts_where_the_first_partition_starts_and_the_p_bit_is_clear() {
        assert!(starts_key_frame(&[0x10, 0x00, 0x9d]));
        assert!(!starts_key_frame(&[0x10, 0x01]), "an interframe");
        assert!(!starts_key_frame(&[0x00, 0x00]), "not the start of a partition");
        assert!(!starts_key_frame(&[0x11, 0x00]), "the second partition");
    }

    #[test]
    fn every_optional_field_is_skipped() {
        assert!(starts_key_frame(&[0x90, 0x80, 0x11, 0x00]), "7-bit picture id");
        assert!(
            starts_key_frame(&[0x90, 0x80, 0x91, 0x01, 0x00]),
            "15-bit picture id"
        );
        assert!(
            starts_key_frame(&[0x90, 0xe0, 0x91, 0x01, 0x01, 0x21, 0x00]),
            "with TL0PICIDX and TID"
        );
        assert!(!starts_key_frame(&[0x90, 0xe0, 0x91, 0x00, 0x00, 0x20, 0x01]));
        assert!(!starts_key_frame(&[0x90, 0xe0, 0x91]), "cut short");
    }
}
