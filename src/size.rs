//! Sizes as people write them, `100MiB`: for `#[serde(with = "...")]`.

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serializer};

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// # Errors
/// What the serializer says.
pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    let whole = |&(_, unit): &(&str, u64)| *bytes >= unit && bytes.is_multiple_of(unit);
    let (name, unit) = UNITS.into_iter().find(whole).unwrap_or(("", 1));
    serializer.collect_str(&format_args!("{}{name}", bytes / unit))
}

/// # Errors
/// For text that is not a size.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| Error::invalid_value(Unexpected::Str(&text), &"a size, such as 64KiB, 100MiB or 1GiB"))
}

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    digits.trim().parse::<u64>().ok()?.checked_mul(*unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_two() {
        assert_eq!(parse("100MiB"), Some(100 << 20));
        assert_eq!(parse(" 3 KiB "), Some(3072));
        assert_eq!(parse("0"), Some(0));
        assert_eq!(parse("4096"), Some(4096));
        for wrong in ["", "MiB", "1.5GiB", "-1", "1TB", "99999999999GiB"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
