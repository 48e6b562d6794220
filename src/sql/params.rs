//! Parameters as JSON has them: `null`, booleans (0 and 1), numbers, strings, `{"base64":"…"}` for bytes and
//! `{"integer":"…"}` for 64-bit integers from clients whose numbers are not exact.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub enum Param {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// By position (`[…]`) or by name (`{…}`).
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub enum Params {
    Positional(Vec<Param>),
    Named(Vec<(String, Param)>),
}

impl Default for Params {
    fn default() -> Self {
        Params::Positional(Vec::new())
    }
}

impl ToSql for Param {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Param::Null => ValueRef::Null,
            Param::Integer(value) => ValueRef::Integer(*value),
            Param::Real(value) => ValueRef::Real(*value),
            Param::Text(value) => ValueRef::Text(value.as_bytes()),
            Param::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

impl<'de> Deserialize<'de> for Param {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneParam)
    }
}

struct OneParam;

impl<'de> Visitor<'de> for OneParam {
    type Value = Param;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a parameter: null, a boolean, a number, a string, {\"base64\":\"…\"} or {\"integer\":\"…\"}; JSON itself goes as a string",
        )
    }

    fn visit_unit<E>(self) -> Result<Param, E> {
        Ok(Param::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Param, E> {
        Ok(Param::Integer(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Param, E> {
        Ok(Param::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Param, E> {
        i64::try_from(value).map(Param::Integer).map_err(|_| E::custom(format!("{value} does not fit a 64-bit signed integer")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Param, E> {
        Ok(Param::Real(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Param, E> {
        Ok(Param::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Param, E> {
        Ok(Param::Text(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Param, A::Error> {
        let wrong = || de::Error::invalid_type(de::Unexpected::Map, &OneParam);
        let (kind, value) = map.next_entry::<String, String>().map_err(|_| wrong())?.ok_or_else(wrong)?;
        if map.next_key::<de::IgnoredAny>()?.is_some() {
            return Err(wrong());
        }
        match kind.as_str() {
            "base64" => BASE64.decode(value).map(Param::Blob).map_err(|error| de::Error::custom(format!("not base64: {error}"))),
            "integer" => {
                value.parse().map(Param::Integer).map_err(|_| de::Error::custom(format!("not a 64-bit signed integer: {value:?}")))
            }
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AllParams;

        impl<'de> Visitor<'de> for AllParams {
            type Value = Params;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("parameters: an array, or an object by name")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Params, A::Error> {
                let mut params = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(64));
                while let Some(param) = seq.next_element()? {
                    params.push(param);
                }
                Ok(Params::Positional(params))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Params, A::Error> {
                let mut params = Vec::new();
                while let Some(param) = map.next_entry()? {
                    params.push(param);
                }
                Ok(Params::Named(params))
            }
        }

        deserializer.deserialize_any(AllParams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_parameter_is_read_exactly() {
        let json = r#"[null, true, 9007199254740993, -1.5, "x", {"base64":"AP8="}, {"integer":"-9223372036854775808"}]"#;
        let read: Params = serde_json::from_str(json).unwrap();
        let wanted = vec![
            Param::Null,
            Param::Integer(1),
            Param::Integer(9_007_199_254_740_993),
            Param::Real(-1.5),
            Param::Text("x".to_owned()),
            Param::Blob(vec![0, 255]),
            Param::Integer(i64::MIN),
        ];
        assert_eq!(read, Params::Positional(wanted));
        assert_eq!(serde_json::from_str::<Params>(r#"{":a":1}"#).unwrap(), Params::Named(vec![(":a".to_owned(), Param::Integer(1))]));
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        for json in ["[[1]]", r#"[{"a":1}]"#, "[{}]", r#"[{"base64":"?"}]"#, "[18446744073709551615]", r#"[{"base64":"","x":""}]"#, "3"] {
            assert!(serde_json::from_str::<Params>(json).is_err(), "{json}");
        }
    }
}
