//! Measured numbers in JSON, which has no word for NaN and infinity, and in an order, which NaN has no place in.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;

/// A number in JSON: non-finite values are the strings "NaN", "inf" and "-inf". Reading gives the bits that were written
/// (any NaN for a NaN).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(pub f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.serialize_str(&self.0.to_string())
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, \"NaN\", \"inf\" or \"-inf\"")
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<Number, E> {
                Ok(Number(value))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                match text {
                    "NaN" => Ok(Number(f64::NAN)),
                    "inf" => Ok(Number(f64::INFINITY)),
                    "-inf" => Ok(Number(f64::NEG_INFINITY)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Value)
    }
}

/// Ascending, NaN of either sign behind everything: `f64::total_cmp` puts a negative NaN first, and x86 makes those.
pub fn nan_last(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_json_bit_for_bit() {
        let values = [
            0.1 + 0.2,
            1e-300,
            f64::MAX,
            5e-324,
            -22.983004318556205,
            0.0,
            -0.0,
            7.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ];
        for value in values {
            let json = serde_json::to_string(&Number(value)).unwrap();
            let Number(read) = serde_json::from_str(&json).unwrap();
            assert_eq!(read.to_bits(), value.to_bits(), "{json}");
        }
        assert!(serde_json::from_str::<Number>("\"NaN\"").unwrap().0.is_nan());
        for bad in ["\"nan\"", "true", "null", "\"1\""] {
            assert!(serde_json::from_str::<Number>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_nan_is_the_least() {
        let mut values = [f64::NAN, 1.0, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0];
        values.sort_by(|a, b| nan_last(*a, *b));
        assert_eq!(values[..4], [f64::NEG_INFINITY, 0.0, 1.0, f64::INFINITY]);
        assert!(values[4].is_nan() && values[5].is_nan());
        assert_eq!(nan_last(f64::NAN, -f64::NAN), Ordering::Equal);
    }
}
