//! An f64 in SQLite, which knows no NaN and no −0: a REAL and a class beside it.
//!
//! | value | REAL | class |
//! |---|---|---|
//! | a finite number | itself | 0 |
//! | NaN | NULL | 1 |
//! | inf | inf | 2 |
//! | −inf | −inf | 3 |
//! | −0 | 0 | 4 |

/// The two columns of a number.
pub(super) fn columns(value: f64) -> (Option<f64>, i64) {
    match value {
        _ if value.is_nan() => (None, 1),
        f64::INFINITY => (Some(value), 2),
        f64::NEG_INFINITY => (Some(value), 3),
        _ if value == 0.0 && value.is_sign_negative() => (Some(0.0), 4),
        _ => (Some(value), 0),
    }
}

/// The number of two columns; none where they contradict each other.
pub(super) fn value(real: Option<f64>, class: i64) -> Option<f64> {
    match (real, class) {
        (None, 1) => Some(f64::NAN),
        (Some(f64::INFINITY), 2) => Some(f64::INFINITY),
        (Some(f64::NEG_INFINITY), 3) => Some(f64::NEG_INFINITY),
        (Some(0.0), 4) => Some(-0.0),
        (Some(real), 0) if real.is_finite() => Some(real),
        _ => None,
    }
}

/// Losses of single tokens as bytes.
pub(super) fn bytes(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// And back.
pub(super) fn values(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    /// Through SQLite and back, bit for bit.
    #[test]
    fn numbers_survive_sqlite() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (x REAL, class INTEGER NOT NULL) STRICT").unwrap();
        let numbers = [
            0.1 + 0.2,
            3.0,
            -0.0,
            0.0,
            5e-324,
            f64::MAX,
            f64::MIN,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            -22.983004318556205,
        ];
        for number in numbers {
            connection.execute("DELETE FROM t", []).unwrap();
            connection.execute("INSERT INTO t VALUES (?1, ?2)", columns(number)).unwrap();
            let (real, class) =
                connection.query_row("SELECT x, class FROM t", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            let back = value(real, class).unwrap();
            assert!(back.to_bits() == number.to_bits() || back.is_nan() && number.is_nan(), "{number} became {back}");
        }
        assert_eq!(values(&bytes(&numbers)).len(), numbers.len());
        assert!(values(&bytes(&numbers)).iter().zip(numbers).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn columns_that_contradict_each_other_are_no_number() {
        for (real, class) in [(None, 0), (Some(1.0), 1), (Some(1.0), 2), (Some(f64::INFINITY), 0), (Some(1.0), 4)] {
            assert_eq!(value(real, class), None, "{real:?} {class}");
        }
    }
}
