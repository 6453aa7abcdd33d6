//! The parameters of a request, as browsers and programs write them behind the `?` of an address.

use crate::connections::{Query, QueryError};

/// What a request for connections asks for.
///
/// # Errors
/// The first parameter that makes no sense.
pub(super) fn query(text: &str) -> Result<Query, QueryError> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    Query::parse(pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    }))
}

/// `+` is a space, and `%41` is an `A`. What is not UTF-8 then is no name of anything, and will match nothing.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = after.first_chunk::<2>().filter(|_| *first == b'%').and_then(|hex| byte(*hex));
        bytes.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn byte(hex: [u8; 2]) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    Some((digit(hex[0])? * 16 + digit(hex[1])?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(decoded("a%20b+c%C3%a9"), "a b c\u{e9}");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz%+1%ff"), "%zz% 1\u{fffd}");
        let query = query("&comm=a%26b&limit=5&").unwrap();
        assert_eq!((query.filter.comm.unwrap()[..4].to_vec(), query.limit), (b"a&b\0".to_vec(), 5));
    }
}
