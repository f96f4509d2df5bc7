//! The CBOR form of an envelope (RFC 8949): JSON's types only, no tags, no byte strings outside of `sig`, whole numbers
//! within 2^53-1, text as names, each once. What is signed is the JSON that it stands for, in its canonical form.

use ciborium::value::Value as Cbor;
use identity::json::INTEGER_MAX;
use serde_json::{Map, Number, Value};

/// Nesting, as for JSON.
const DEPTH_MAX: usize = 128;

/// Why bytes are not such an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CborError {
    /// Not one CBOR map, or something after it, or nested too deeply.
    Syntax,
    /// A name twice in one map.
    RepeatedKey,
    /// A whole number beyond 2^53-1.
    IntegerTooLarge,
    /// A tag, a byte string, an infinite number or another type that JSON lacks.
    NotJson,
}

/// An envelope's members, and apart from them its `sig`, as the CBOR that it is.
type Parsed = (Map<String, Value>, Option<Vec<u8>>);

/// Reads one map.
pub(crate) fn parse_envelope(bytes: &[u8]) -> Result<Parsed, CborError> {
    let mut rest = bytes;
    let value: Cbor = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX)
        .map_err(|_| CborError::Syntax)?;
    let Cbor::Map(entries) = value else {
        return Err(CborError::Syntax);
    };
    if !rest.is_empty() {
        return Err(CborError::Syntax);
    }
    let (mut members, mut sig) = (Map::new(), None);
    for (name, value) in entries {
        let name = name.into_text().map_err(|_| CborError::NotJson)?;
        let repeated = if name == "sig" {
            sig.replace(encode(&value)).is_some()
        } else {
            members.insert(name, to_json(value)?).is_some()
        };
        if repeated {
            return Err(CborError::RepeatedKey);
        }
    }
    Ok((members, sig))
}

/// Writes an object and its signature, which is CBOR already.
pub(crate) fn write_envelope(members: &Map<String, Value>, sig: &[u8]) -> Vec<u8> {
    let sig: Cbor = ciborium::from_reader(sig).expect("a signature that was just written reads back");
    let mut entries: Vec<(Cbor, Cbor)> = members
        .iter()
        .map(|(name, value)| (Cbor::from(name.as_str()), from_json(value)))
        .collect();
    entries.push((Cbor::from("sig"), sig));
    encode(&Cbor::Map(entries))
}

fn encode(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("writing to memory does not fail");
    bytes
}

fn to_json(value: Cbor) -> Result<Value, CborError> {
    Ok(match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(flag) => Value::Bool(flag),
        Cbor::Text(text) => Value::String(text),
        Cbor::Float(number) => Value::Number(Number::from_f64(number).ok_or(CborError::NotJson)?),
        Cbor::Integer(number) => {
            let number = i64::try_from(number).map_err(|_| CborError::IntegerTooLarge)?;
            if number.unsigned_abs() > INTEGER_MAX {
                return Err(CborError::IntegerTooLarge);
            }
            Value::from(number)
        }
        Cbor::Array(items) => Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?),
        Cbor::Map(entries) => {
            let mut members = Map::new();
            for (name, value) in entries {
                let name = name.into_text().map_err(|_| CborError::NotJson)?;
                if members.insert(name, to_json(value)?).is_some() {
                    return Err(CborError::RepeatedKey);
                }
            }
            Value::Object(members)
        }
        _ => return Err(CborError::NotJson),
    })
}

fn from_json(value: &Value) -> Cbor {
    match value {
        Value::Null => Cbor::Null,
        Value::Bool(flag) => Cbor::Bool(*flag),
        Value::String(text) => Cbor::from(text.as_str()),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Cbor::from(number),
            (None, Some(number)) => Cbor::from(number),
            (None, None) => Cbor::from(number.as_f64().expect("a number is an integer or a double")),
        },
        Value::Array(items) => Cbor::Array(items.iter().map(from_json).collect()),
        Value::Object(members) => Cbor::Map(
            members
                .iter()
                .map(|(name, value)| (Cbor::from(name.as_str()), from_json(value)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: Vec<(Cbor, Cbor)>) -> Result<Map<String, Value>, CborError> {
        parse_envelope(&encode(&Cbor::Map(entries))).map(|(members, _)| members)
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let member = |value: Cbor| parse(vec![(Cbor::from("m"), value)]);
        let nested = |value: Cbor| member(Cbor::Array(vec![value]));
        for (value, error) in [
            (Cbor::Bytes(vec![1]), CborError::NotJson),
            (
                Cbor::Tag(0, Box::new(Cbor::from("2026-01-01T00:00:00Z"))),
                CborError::NotJson,
            ),
            (Cbor::Float(f64::NAN), CborError::NotJson),
            (Cbor::Float(f64::INFINITY), CborError::NotJson),
            (Cbor::from(INTEGER_MAX + 1), CborError::IntegerTooLarge),
            (Cbor::from(-(INTEGER_MAX as i64) - 1), CborError::IntegerTooLarge),
            (Cbor::from(u64::MAX), CborError::IntegerTooLarge),
            (Cbor::Map(vec![(Cbor::from(1), Cbor::Null)]), CborError::NotJson),
            (
                Cbor::Map(vec![(Cbor::from("a"), Cbor::Null), (Cbor::from("a"), Cbor::Null)]),
                CborError::RepeatedKey,
            ),
        ] {
            assert_eq!(member(value.clone()), Err(error));
            assert_eq!(nested(value), Err(error));
        }
        let twice = |name: &str| vec![(Cbor::from(name), Cbor::Null), (Cbor::from(name), Cbor::Null)];
        assert_eq!(parse(twice("m")), Err(CborError::RepeatedKey));
        assert_eq!(parse(twice("sig")), Err(CborError::RepeatedKey));
        assert_eq!(parse(vec![(Cbor::from(1), Cbor::Null)]), Err(CborError::NotJson));
    }

    #[test]
    fn anything_but_one_map_is_refused() {
        let whole = encode(&Cbor::Map(vec![(Cbor::from("m"), Cbor::from("text"))]));
        for end in 0..whole.len() {
            assert_eq!(parse_envelope(&whole[..end]), Err(CborError::Syntax), "{end}");
        }
        assert_eq!(
            parse_envelope(&[&whole[..], &[0]].concat()),
            Err(CborError::Syntax)
        );
        assert_eq!(parse_envelope(b"\x80"), Err(CborError::Syntax));
        let mut deep = vec![0xa1, 0x61, b'm'];
        deep.extend(std::iter::repeat_n(0x81, 1_000));
        deep.push(0xf6);
        assert_eq!(parse_envelope(&deep), Err(CborError::Syntax));
        // An array that claims 2^60 items.
        assert_eq!(
            parse_envelope(b"\xa1\x61m\x9b\x10\0\0\0\0\0\0\0\xf6"),
            Err(CborError::Syntax)
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = parse_envelope(&bytes);
        }

        #[test]
        fn what_is_written_reads_back(text in ".{0,40}", integer in -(INTEGER_MAX as i64)..=INTEGER_MAX as i64, number: f64) {
            let value = serde_json::json!({"a": [text, integer, null, true], "b": {"c": Number::from_f64(number)}});
            let members = value.as_object().unwrap().clone();
            let (read, sig) = parse_envelope(&write_envelope(&members, b"\xf6")).unwrap();
            proptest::prop_assert_eq!(read, members);
            proptest::prop_assert_eq!(sig.unwrap(), b"\xf6");
        }
    }
}
