//! JSON Canonicalization Scheme (RFC 8785): one text per value, so that a signature can be checked on what was
//! parsed.

use serde_json::Value;

/// The canonical text: members sorted by UTF-16 code units, no spaces, strings and numbers as ECMAScript writes them.
pub fn canonicalise(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            text.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_string(name, text);
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        Value::String(string) => write_string(string, text),
        Value::Number(number) if number.is_f64() => {
            write_double(number.as_f64().expect("asked just before"), text);
        }
        Value::Number(_) | Value::Bool(_) | Value::Null => text.push_str(&value.to_string()),
    }
}

/// As `JSON.stringify` (RFC 8785 section 3.2.2.2): \b \t \n \f \r \" \\, other controls as \u00xx, all else as it is.
fn write_string(string: &str, text: &mut String) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            '\0'..='\u{1f}' => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => text.push(other),
        }
    }
    text.push('"');
}

/// ECMAScript `Number::toString` (ECMA-262 section 6.1.6.1.20). Rust's `{:e}` gives the same shortest digits; only
/// their layout differs.
fn write_double(number: f64, text: &mut String) {
    if number == 0.0 {
        text.push('0'); // also for -0
        return;
    }
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a decimal exponent");
    let (count, point) = (digits.len() as i32, exponent + 1);
    if number < 0.0 {
        text.push('-');
    }
    let zeros = |count: i32| "0".repeat(count.max(0) as usize);
    if count <= point && point <= 21 {
        text.push_str(&digits);
        text.push_str(&zeros(point - count));
    } else if 0 < point && point <= 21 {
        let (whole, fraction) = digits.split_at(point as usize);
        text.push_str(whole);
        text.push('.');
        text.push_str(fraction);
    } else if -6 < point && point <= 0 {
        text.push_str("0.");
        text.push_str(&zeros(-point));
        text.push_str(&digits);
    } else {
        let (first, rest) = digits.split_at(1);
        text.push_str(first);
        if !rest.is_empty() {
            text.push('.');
            text.push_str(rest);
        }
        text.push_str(if exponent < 0 { "e-" } else { "e+" });
        text.push_str(&exponent.unsigned_abs().to_string());
    }
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
            let mut text = String::new();
            write_double(f64::from_bits(bits), &mut text);
            assert_eq!(text, expected, "{bits:016x}");
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
                let mut text = String::new();
                write_double(number, &mut text);
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
