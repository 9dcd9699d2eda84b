//! JSON as text: what a string looks like, and whether a text that is JSON is one that `jsonb` takes.

use std::fmt::Write;

/// Appends the text as a JSON string.
pub fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        let escaped = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            c if c < ' ' => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        plain = at + c.len_utf8();
        match escaped {
            "" => drop(write!(out, "\\u{:04x}", u32::from(c))),
            escaped => out.push_str(escaped),
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// A JSON number's digits: those before and behind the point, and the exponent.
struct Number {
    whole: usize,
    fraction: usize,
    exponent: i64,
}

/// The number that the text begins with, and its length.
fn number(text: &[u8]) -> Option<(Number, usize)> {
    let digits = |from: usize| {
        let digits = text.get(from..).unwrap_or_default().iter();
        digits.take_while(|c| c.is_ascii_digit()).count()
    };
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return None;
    }
    at += whole;
    let mut fraction = 0;
    if text.get(at) == Some(&b'.') {
        fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    let mut exponent = 0;
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let len = digits(at + 1 + sign);
        if len == 0 {
            return None;
        }
        let shown = std::str::from_utf8(&text[at + 1 + sign..at + 1 + sign + len]).ok()?;
        exponent = shown.parse().unwrap_or(i64::from(i32::MAX));
        if text[at + 1] == b'-' {
            exponent = -exponent;
        }
        at += 1 + sign + len;
    }
    let number = Number {
        whole,
        fraction,
        exponent,
    };
    Some((number, at))
}

/// Whether the text is a JSON number: `NaN` and `Infinity` are none.
pub fn is_number(text: &str) -> bool {
    number(text.as_bytes()).is_some_and(|(_, len)| len == text.len())
}

/// Most digits before the point that a `numeric` has, and behind it (numeric.c, `NUMERIC_WEIGHT_MAX`,
/// `NUMERIC_DSCALE_MAX`); some are left for rounding to groups of four.
const MOST_WHOLE: i64 = 131_000;
const MOST_FRACTION: i64 = 16_000;
/// Deeper than this `jsonb` may run out of stack where `json` did not.
const MOST_LEVELS: u32 = 1_000;

fn fits_numeric(number: &Number) -> bool {
    let whole = number.whole as i64 + number.exponent;
    let fraction = number.fraction as i64 - number.exponent;
    whole <= MOST_WHOLE && fraction <= MOST_FRACTION
}

/// Whether a text that is valid JSON can be `jsonb`: no `\u0000`, whole surrogate pairs, numbers that a
/// `numeric` can hold. `unicode`: the database's encoding has all characters, so that each `\u` is one of it;
/// elsewhere only those of ASCII surely are.
pub fn fits_jsonb(text: &str, unicode: bool) -> bool {
    let bytes = text.as_bytes();
    let (mut at, mut levels) = (0, 0u32);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => match string(bytes, at + 1, unicode) {
                Some(end) => at = end,
                None => return false,
            },
            b'-' | b'0'..=b'9' => match number(&bytes[at..]) {
                Some((number, len)) if fits_numeric(&number) => at += len,
                _ => return false,
            },
            c => {
                match c {
                    b'{' | b'[' => levels += 1,
                    b'}' | b']' => levels = levels.saturating_sub(1),
                    _ => {}
                }
                if levels > MOST_LEVELS {
                    return false;
                }
                at += 1;
            }
        }
    }
    true
}

/// The end of the string whose first character is at `at`; `None` if `jsonb` cannot hold it.
fn string(bytes: &[u8], mut at: usize, unicode: bool) -> Option<usize> {
    let mut high = false;
    loop {
        let code = match bytes.get(at)? {
            b'"' => return (!high).then_some(at + 1),
            b'\\' if bytes.get(at + 1) == Some(&b'u') => {
                let shown = std::str::from_utf8(bytes.get(at + 2..at + 6)?).ok()?;
                at += 6;
                Some(u32::from_str_radix(shown, 16).ok()?)
            }
            b'\\' => {
                at += 2;
                None
            }
            _ => {
                at += 1;
                None
            }
        };
        let is = |code: Option<u32>, first: u32| {
            code.is_some_and(|it| (first..first + 0x400).contains(&it))
        };
        if high != is(code, 0xDC00) || code == Some(0) {
            return None;
        }
        if !unicode && code.is_some_and(|code| code > 0x7F) {
            return None;
        }
        high = is(code, 0xD800);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> String {
        let mut out = String::new();
        quote(text, &mut out);
        out
    }

    #[test]
    fn strings_are_quoted() {
        assert_eq!(quoted("a\"b\\c\n\u{1}ä"), "\"a\\\"b\\\\c\\n\\u0001ä\"");
        assert_eq!(quoted(""), "\"\"");
    }

    #[test]
    fn what_is_a_number() {
        for text in [
            "0",
            "-1",
            "10.50",
            "1e5",
            "1E-7",
            "-0.0",
            "12345678901234567890",
        ] {
            assert!(is_number(text), "{text}");
        }
        for text in [
            "", "-", "01", "1.", ".5", "NaN", "Infinity", "1e", "1 ", "+1", "0x1",
        ] {
            assert!(!is_number(text), "{text}");
        }
    }

    #[test]
    fn what_jsonb_takes() {
        for text in [
            r#"{"a": "x\\u0000"}"#,
            r#"[1e131, "\u00e4\ud83d\ude00", true, null, -0.5e-3]"#,
            r#""\"\\""#,
            "1e130999",
        ] {
            assert!(fits_jsonb(text, true), "{text}");
        }
        for text in [
            r#"{"a": "\u0000"}"#,
            r#"["x", "\u0000"]"#,
            r#""\ud83d""#,
            r#""\ude00\ud83d""#,
            r#""\ud83dx""#,
            "1e999999",
            "[1e-999999]",
            "1e99999999999999999999999",
            &format!("{}{}", "[".repeat(5000), "]".repeat(5000)),
        ] {
            assert!(!fits_jsonb(text, true), "{text}");
        }
        assert!(!fits_jsonb(r#""\u20ac""#, false));
        assert!(fits_jsonb(r#""\u0041""#, false));
    }
}
