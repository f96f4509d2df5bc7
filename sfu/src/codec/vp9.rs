//! The VP9 payload descriptor (RFC 9628 section 4.2).

const HAS_PICTURE_ID: u8 = 0x80;
const INTER_PICTURE: u8 = 0x40;
const HAS_LAYERS: u8 = 0x20;
const START_OF_FRAME: u8 = 0x08;
const LONG_PICTURE_ID: u8 = 0x80;

pub(super) fn starts_key_frame(payload: &[u8]) -> bool {
    let Some(&flags) = payload.first() else {
        return false;
    };
    if flags & INTER_PICTURE != 0 || flags & START_OF_FRAME == 0 {
        return false;
    }
    if flags & HAS_LAYERS == 0 {
        return true;
    }
    let mut at = 1;
    if flags & HAS_PICTURE_ID != 0 {
        match payload.get(at) {
            Some(id) if id & LONG_PICTURE_ID != 0 => at += 2,
            Some(_) => at += 1,
            None => return false,
        }
    }
    // TID (3 bits), U, SID (3 bits), D: a picture starts with its lowest spatial layer.
    payload.get(at).is_some_and(|layers| (layers >> 1) & 0x07 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_frame_starts_at_the_lowest_layer_of_a_picture_without_references() {
        assert!(starts_key_frame(&[0x08]));
        assert!(starts_key_frame(&[0xa8, 0x91, 0x01, 0x00, 0x00]));
        assert!(
            !starts_key_frame(&[0xa8, 0x91, 0x01, 0x02, 0x00]),
            "spatial layer 1"
        );
        assert!(!starts_key_frame(&[0x48]), "an inter picture");
        assert!(!starts_key_frame(&[0x00]), "not the start of a frame");
        assert!(!starts_key_frame(&[0xa8]), "cut short");
    }
}
