//! Values in the shape of their key. Text that looks like a number is a number only where the default is one: a node
//! may be called `1`, and `1` may be a list of one port.

use figment::providers::{Format, Yaml};
use figment::value::{Num, Tag, Value};

/// Brings a value into the shape of the key's default. What does not fit is left alone: the type of the section
/// refuses it and says what it expects.
pub fn fit(value: Value, default: &Value) -> Value {
    match (default, value) {
        (Value::Array(_, items), Value::String(_, text)) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| fit_item(part.into(), items)).collect::<Vec<_>>().into()
        }
        (Value::Array(_, items), Value::Array(_, values)) => {
            values.into_iter().map(|value| fit_item(value, items)).collect::<Vec<_>>().into()
        }
        (Value::Array(_, items), number @ Value::Num(..)) => vec![fit_item(number, items)].into(),
        (Value::Num(..), Value::String(_, text)) => number(&text).unwrap_or_else(|| text.into()),
        (Value::Bool(..), Value::String(_, text)) => match text.trim().parse::<bool>() {
            Ok(flag) => flag.into(),
            Err(_) => text.into(),
        },
        // An optional key that is set to nothing, which is how an upper layer takes back what a lower one set.
        (Value::Empty(_, empty), Value::String(_, text)) if text.is_empty() => Value::Empty(Tag::Default, *empty),
        (Value::String(..) | Value::Empty(..), Value::Bool(_, flag)) => flag.to_string().into(),
        // Not fractions: YAML has already turned 1.10 into 1.1.
        (Value::String(..) | Value::Empty(..), whole @ Value::Num(_, number)) if number.to_f64().is_none() => {
            show(&whole).into()
        }
        (_, value) => value,
    }
}

/// Items of a list that is empty by default are text, until their type says otherwise.
fn fit_item(value: Value, items: &[Value]) -> Value {
    match items.first() {
        Some(item) => fit(value, item),
        None => fit(value, &"".into()),
    }
}

fn number(text: &str) -> Option<Value> {
    let text = text.trim();
    let whole = text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<i64>().map(Value::from));
    whole.ok().or_else(|| text.parse::<f64>().map(Value::from).ok())
}

/// A value as YAML on one line.
pub fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) if is_plain(text) => text.clone(),
        Value::Array(_, items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Dict(_, entries) => {
            let entries = entries.iter().map(|(name, value)| format!("{name}: {}", show(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        // Without an exponent, which people would have to decode.
        Value::Num(_, Num::F64(fraction)) => fraction.to_string(),
        other => serde_json::to_string(other).expect("a value without maps serialises"),
    }
}

/// Whether YAML reads the text as the same string without quotes.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "._/:-".contains(c))
        && Yaml::from_str::<Value>(text).is_ok_and(|read| read.as_str() == Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(value: impl Into<Value>, default: impl Into<Value>) -> String {
        show(&fit(value.into(), &default.into()))
    }

    #[test]
    fn text_takes_the_shape_of_the_default() {
        assert_eq!(fitted("8080", 1u16), "8080");
        assert_eq!(fitted("8080", "a"), "\"8080\"");
        assert_eq!(fitted("80a", 1u16), "80a");
        assert_eq!(fitted("true", false), "true");
        assert_eq!(fitted("a, b,", vec!["x"]), "[a, b]");
        assert_eq!(fitted("", vec!["x"]), "[]");
        assert_eq!(fitted("0.5,1", vec![0.1]), "[0.5, 1]");
    }

    #[test]
    fn yaml_scalars_do_too() {
        assert_eq!(fitted(123, "a"), "\"123\"");
        assert_eq!(fitted(true, "a"), "\"true\"");
        assert_eq!(fitted(0.5, vec![0.1]), "[0.5]");
        assert_eq!(fitted(vec![1, 2], Vec::<String>::new()), "[\"1\", \"2\"]");
    }

    #[test]
    fn a_fraction_is_not_turned_into_text_that_nobody_wrote() {
        assert_eq!(fitted(1.1, "a"), "1.1");
    }

    #[test]
    fn values_are_shown_as_yaml_reads_them_back() {
        for text in ["10s", "127.0.0.1", "/metrics", "", "no: thing", "a #b", "null", "1.5", "::1", "-", "\n"] {
            let shown = show(&text.into());
            assert_eq!(Yaml::from_str::<Value>(&shown).unwrap().as_str(), Some(text), "{shown}");
        }
        assert_eq!(show(&0.00002.into()), "0.00002");
    }
}
