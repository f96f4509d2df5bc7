//! Strict JSON (RFC 8259 within I-JSON, RFC 7493): what two parsers could read differently is refused.
//!
//! Repeated member names, lone surrogates, integers beyond 2^53-1 and deep nesting are errors. Integers keep
//! being integers: `1.0` and `1e3` are not accepted where a claim asks for one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The largest integer that every JSON implementation reads alike: 2^53 - 1 (RFC 7493 section 2.2).
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Why a text is not strict JSON. The message names the cause and the place, never the content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or nested deeper than 128.
    #[error("not JSON: error at line {line}, column {column}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A member name appears twice in one object.
    #[error("a member name appears twice in one object (line {line}, column {column}); send each once")]
    RepeatedKey {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// An integer that a double cannot hold exactly.
    #[error("an integer is beyond 2^53-1; send a smaller one")]
    IntegerTooLarge,
}

const REPEATED: &str = "repeated member name";
const TOO_LARGE: &str = "integer beyond 2^53-1";

/// Parses `text`, or says why another parser might read it differently.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    match serde_json::from_str::<Strict>(text) {
        Ok(Strict(value)) => Ok(value),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let cause = error.to_string();
            Err(if error.is_data() && cause.starts_with(REPEATED) {
                JsonError::RepeatedKey { line, column }
            } else if error.is_data() && cause.starts_with(TOO_LARGE) {
                JsonError::IntegerTooLarge
            } else {
                JsonError::Syntax { line, column }
            })
        }
    }
}

/// As [`parse`], and the value has to be an object.
pub fn parse_object(text: &str) -> Result<Map<String, Value>, JsonError> {
    match parse(text)? {
        Value::Object(map) => Ok(map),
        _ => Err(JsonError::Syntax { line: 1, column: 1 }),
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value > INTEGER_MAX {
            Err(E::custom(TOO_LARGE))
        } else {
            Ok(Value::Number(value.into()))
        }
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > INTEGER_MAX {
            Err(E::custom(TOO_LARGE))
        } else {
            Ok(Value::Number(value.into()))
        }
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // Every double from 2^53 on is an integer, however it was written, and JavaScript cannot see how.
        if value.abs() > INTEGER_MAX as f64 {
            return Err(E::custom(TOO_LARGE));
        }
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a finite number"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let Strict(value) = access.next_value()?;
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom(REPEATED));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_member_names_are_refused_at_any_depth_and_however_they_are_escaped() {
        assert!(matches!(
            parse(r#"{"a":1,"a":1}"#),
            Err(JsonError::RepeatedKey { .. })
        ));
        assert!(matches!(
            parse(r#"{"x":[{"a":1,"\u0061":2}]}"#),
            Err(JsonError::RepeatedKey { .. })
        ));
        assert!(parse(r#"{"a":{"a":1}}"#).is_ok());
    }

    #[test]
    fn lone_surrogates_are_refused() {
        for text in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#"{"\udead":1}"#,
        ] {
            assert!(matches!(parse(text), Err(JsonError::Syntax { .. })), "{text}");
        }
        assert_eq!(
            parse(r#""\ud83d\ude00""#).unwrap(),
            Value::String("\u{1f600}".into())
        );
    }

    #[test]
    fn integers_beyond_two_to_the_53_less_one_are_refused() {
        for text in [
            "9007199254740992",
            "-9007199254740992",
            "18446744073709551616",
            "[1,99999999999999999999]",
            "1e30",
            "-1e16",
            "9007199254740992.0",
        ] {
            assert_eq!(parse(text), Err(JsonError::IntegerTooLarge), "{text}");
        }
        for text in [
            "9007199254740991",
            "-9007199254740991",
            "1e-30",
            "0.1",
            r#""9007199254740992""#,
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
        assert!(
            parse(r#""\"9007199254740992""#).is_ok(),
            "digits after an escaped quote are still text"
        );
    }

    #[test]
    fn only_an_integer_literal_is_an_integer() {
        assert!(parse("1000").unwrap().is_u64());
        assert!(!parse("1e3").unwrap().is_u64());
        assert!(!parse("1.0").unwrap().is_u64());
        assert!(!parse("-0").unwrap().is_u64());
        assert!(!parse("-1").unwrap().is_u64());
    }

    #[test]
    fn trailing_text_and_deep_nesting_are_refused() {
        assert!(parse("{} {}").is_err());
        assert!(parse("").is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&format!("{}{}", "[".repeat(100), "]".repeat(100))).is_ok());
        assert!(parse(&format!("{}{}", "[".repeat(200), "]".repeat(200))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_a_panic(text in ".{0,200}") {
            let _ = parse(&text);
        }
        #[test]
        fn what_serde_json_writes_is_read_back(number in -1e15f64..1e15, name in ".{0,20}") {
            let value = serde_json::json!({ name: number });
            proptest::prop_assert_eq!(parse(&value.to_string()).unwrap(), value);
        }
    }
}
