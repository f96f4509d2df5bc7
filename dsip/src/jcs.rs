//! JSON Canonicalization Scheme (RFC 8785): one text per value, so that a signature can be checked on what was
//! parsed.

use serde_json::Value;

/// The canonical text: members sorted by UTF-16 code units, no spaces, strings and numbers as ECMAScript writes them.
pub fn canonicalise(value: &Value) -> String {
    serde_jcs::to_string(value)
        .expect("a JSON value has a canonical form: it holds no NaN and only text as names")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        canonicalise(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn the_numbers_of_rfc_8785_appendix_b_are_written_as_ecmascript_writes_them() {
        for (bits, expected) in [
            (0x0000000000000000u64, "0"),
            (0x8000000000000000, "0"),
            (0x0000000000000001, "5e-324"),
            (0x8000000000000001, "-5e-324"),
            (0x7fefffffffffffff, "1.7976931348623157e+308"),
            (0xffefffffffffffff, "-1.7976931348623157e+308"),
            (0x4340000000000000, "9007199254740992"),
            (0xc340000000000000, "-9007199254740992"),
            (0x4430000000000000, "295147905179352830000"),
            (0x44b52d02c7e14af5, "9.999999999999997e+22"),
            (0x44b52d02c7e14af6, "1e+23"),
            (0x44b52d02c7e14af7, "1.0000000000000001e+23"),
            (0x444b1ae4d6e2ef4e, "999999999999999700000"),
            (0x444b1ae4d6e2ef4f, "999999999999999900000"),
            (0x444b1ae4d6e2ef50, "1e+21"),
            (0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"),
            (0x3eb0c6f7a0b5ed8d, "0.000001"),
            (0x41b3de4355555553, "333333333.3333332"),
            (0x41b3de4355555554, "333333333.33333325"),
            (0x41b3de4355555555, "333333333.3333333"),
            (0x41b3de4355555556, "333333333.3333334"),
            (0x41b3de4355555557, "333333333.33333343"),
            (0xbecbf647612f3696, "-0.0000033333333333333333"),
            (0x43143ff3c1cb0959, "1424953923781206.2"),
        ] {
            assert_eq!(
                canonicalise(&f64::from_bits(bits).into()),
                expected,
                "{bits:016x}"
            );
        }
    }

    #[test]
    fn the_example_of_rfc_8785_section_3_2_2_is_canonical() {
        let input = r#"{
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#;
        let expected = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
                        \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(canonical(input), expected);
    }

    #[test]
    fn members_are_sorted_by_utf16_code_units_as_in_rfc_8785_section_3_2_3() {
        let input = r#"{
            "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control",
            "\u00f6": "Latin Small Letter O With Diaeresis"
        }"#;
        let expected = "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
                        \"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\
                        \"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}";
        assert_eq!(canonical(input), expected);
    }

    #[test]
    fn integers_and_doubles_of_one_value_have_one_text() {
        assert_eq!(canonical("[1, 1.0, 1e0, 10e-1, -0, -0.0, 0]"), "[1,1,1,1,0,0,0]");
        assert_eq!(canonical("[100, 1e2, 1E+2]"), "[100,100,100]");
    }

    proptest::proptest! {
        #[test]
        fn a_canonical_double_reads_back_as_itself(bits: u64) {
            let number = f64::from_bits(bits);
            if number.is_finite() {
                let text = canonicalise(&number.into());
                proptest::prop_assert_eq!(text.parse::<f64>().unwrap(), number);
            }
        }
        #[test]
        fn canonical_text_is_a_fixed_point(text in ".{0,40}", number in -1e15f64..1e15, flag: bool) {
            let value = serde_json::json!({ text.clone(): [number, flag, text], "": null });
            let once = canonicalise(&value);
            proptest::prop_assert_eq!(canonical(&once), once.clone());
        }
    }
}
