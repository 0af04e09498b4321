//! Names whose values are sensitive: fields of objects, and the same written in a text.
//!
//! In a text a value is found behind its name as JSON writes it, also as JSON within a JSON string within a text, where quotes
//! have backslashes before them; as Python and JavaScript print objects (`'name': 'x'`, `name: 'x'`); and as `name=x`.

use super::spans::Span;
use crate::record::unescaped;

/// Names in a text are looked for so far before the sign that follows them.
const NAME_MAX_BYTES: usize = 128;

/// Sensitive names, as [`normal`] writes them.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    /// Compared with the whole name, or its last part after a dot.
    pub(super) names: Vec<String>,
    /// Compared with how a name ends.
    pub(super) endings: &'static [&'static str],
}

/// A name as names are compared: `api_key`, `apiKey` and `API-Key` are one.
pub(super) fn normal(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

impl Keys {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.endings.is_empty()
    }

    /// Whether what is called `name` is sensitive.
    pub(super) fn has(&self, name: &str) -> bool {
        let name = normal(name);
        // A name that occurs twice in an object has got a number.
        let bare = match name.rsplit_once('.') {
            Some((bare, number)) if number.bytes().all(|digit| digit.is_ascii_digit()) => bare,
            _ => &name,
        };
        let last = bare.rsplit('.').next().unwrap_or(bare);
        self.names.iter().any(|known| known == bare || known == last || *known == name)
            || self.endings.iter().any(|ending| last.ends_with(ending))
    }

    /// Notes where values of sensitive names stand in `text`.
    pub(super) fn find(&self, text: &str, spans: &mut Vec<Span>) {
        if self.is_empty() {
            return;
        }
        let bytes = text.as_bytes();
        // What stands within a value that was found goes with it.
        let mut found_to = 0;
        for sign in bytes.iter().enumerate().filter(|(_, byte)| matches!(byte, b':' | b'=')).map(|(at, _)| at)
        {
            if sign >= found_to
                && let Some((name, quote)) = name_before(text, sign)
                && self.means(name, quote)
                && let Some(span) = value_after(bytes, sign, quote)
            {
                found_to = span.end;
                spans.push(span);
            }
        }
    }

    fn means(&self, name: &str, quote: Option<Quote>) -> bool {
        if !name.contains('\\') {
            return self.has(name);
        }
        let mut plain = name.to_owned();
        for _ in 0..=quote.map_or(0, |quote| quote.escapes.count_ones()) {
            plain = unescaped(plain.as_bytes()).into_owned();
        }
        self.has(&plain)
    }
}

/// How a string is quoted: by `"` or `'`, after so many backslashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quote {
    mark: u8,
    escapes: usize,
}

fn escapes_before(text: &[u8], at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count()
}

impl Quote {
    /// Whether a quote at `at` ends a string that began with this one. JSON within JSON has `\"` for its quotes and `\\\"` for
    /// quotes within its strings; a quote of what is around it ends both.
    fn ends_at(self, text: &[u8], at: usize) -> bool {
        let escapes = escapes_before(text, at);
        text.get(at) == Some(&self.mark)
            && (escapes < self.escapes || escapes % (2 * (self.escapes + 1)) == self.escapes)
    }

    /// Where the string ends whose inside begins at `from`: the place of its quote with the backslashes before it.
    fn end(self, text: &[u8], from: usize) -> Option<usize> {
        let end =
            (from..text.len()).find(|at| text.get(*at) == Some(&self.mark) && self.ends_at(text, *at))?;
        Some(end - escapes_before(text, end).min(self.escapes))
    }
}

fn skip_blanks(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The name that ends before the sign at `sign`, and its quote if it has one.
fn name_before(text: &str, sign: usize) -> Option<(&str, Option<Quote>)> {
    let bytes = text.as_bytes();
    let before = bytes.get(..sign)?.trim_ascii_end();
    let last = before.len().checked_sub(1)?;
    let first = last.saturating_sub(NAME_MAX_BYTES);
    let mark = *bytes.get(last)?;
    if matches!(mark, b'"' | b'\'') {
        let quote = Quote { mark, escapes: escapes_before(bytes, last) };
        let end = last - quote.escapes;
        let opens = |at: &usize| bytes.get(*at) == Some(&mark) && escapes_before(bytes, *at) <= quote.escapes;
        let start = (first..end).rev().find(opens)?;
        return Some((text.get(start + 1..end)?, Some(quote)));
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte) || *byte >= 0x80;
    let start = last + 1 - before.get(first..)?.iter().rev().take_while(|byte| is_name(byte)).count();
    // `\nname: x`: the letter belongs to the escape.
    let start = start + usize::from(escapes_before(bytes, start) % 2 == 1);
    Some((text.get(start..=last)?, None)).filter(|(name, _)| !name.is_empty())
}

/// The value after the sign at `sign`. A bare one goes to the end of what can belong to it.
fn value_after(text: &[u8], sign: usize, name: Option<Quote>) -> Option<Span> {
    let start = skip_blanks(text, sign + 1);
    let escapes = text.get(start..)?.iter().take_while(|byte| **byte == b'\\').count();
    let quote = name.map(|quote| (char::from(quote.mark), quote.escapes));
    match *text.get(start + escapes)? {
        mark @ (b'"' | b'\'') => {
            let from = start + escapes + 1;
            let end = Quote { mark, escapes }.end(text, from).unwrap_or(text.len());
            Some(Span::plain(from, end))
        }
        b'{' | b'[' if escapes == 0 => Some(Span { start, end: block_end(text, start), quote }),
        _ => {
            let is_header = text.get(sign) == Some(&b':');
            let ends = |byte: u8| match byte {
                b',' | b';' | b'}' | b']' | b')' | b'"' | b'\n' | b'\r' => true,
                b'&' | b'\'' => !is_header,
                byte => !is_header && byte.is_ascii_whitespace(),
            };
            let length = text.get(start..)?.iter().take_while(|byte| !ends(**byte)).count();
            // Backslashes before a quote are the quote's.
            let end = start + text.get(start..start + length)?.trim_ascii_end().len();
            let end = if text.get(end) == Some(&b'"') {
                end - escapes_before(text, end).min(end - start)
            } else {
                end
            };
            (end > start).then_some(Span { start, end, quote })
        }
    }
}

/// Where the object or list that begins at `start` ends. Strings in it may be quoted in any way.
fn block_end(text: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    let mut apostrophes_quote = true;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            mark @ (b'"' | b'\'') if mark == b'"' || apostrophes_quote => {
                let quote = Quote { mark, escapes: escapes_before(text, at) };
                if let Some(end) = quote.end(text, at + 1) {
                    at = end + quote.escapes;
                } else if mark == b'"' {
                    return text.len();
                } else {
                    apostrophes_quote = false;
                }
            }
            _ => {}
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::super::spans::replace;
    use super::*;
    use proptest::prelude::*;

    fn keys() -> Keys {
        Keys {
            names: ["password", "apikey", "authorization"].map(str::to_owned).into(),
            endings: &["sessiontoken"],
        }
    }

    fn redacted(text: &str) -> String {
        let mut spans = Vec::new();
        keys().find(text, &mut spans);
        replace(text, &mut spans, "#").unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn names_are_one_however_they_are_written() {
        for name in [
            "password",
            "Password",
            "PASS_WORD",
            "user.password",
            "password.2",
            "api_key",
            "apiKey",
            "API-Key",
            "awsSessionToken",
        ] {
            assert!(keys().has(name), "{name}");
        }
        for name in ["passwords", "my_password", "password.x", "key", "", "2"] {
            assert!(!keys().has(name), "{name}");
        }
    }

    #[test]
    fn values_in_a_text_are_found_as_json_and_others_write_them() {
        for (text, expected) in [
            (r#"{"password":"hunter2","a":1}"#, r##"{"password":"#","a":1}"##),
            (r#"{"password" : "hun\"ter2" }"#, r##"{"password" : "#" }"##),
            (r#"{"password":"a\\","b":"c"}"#, r##"{"password":"#","b":"c"}"##),
            (r#"{"password":12345,"b":2}"#, r##"{"password":"#","b":2}"##),
            (r#"{"password":null}"#, r##"{"password":"#"}"##),
            (r#"{"password":{"a":["}","x"]},"b":2}"#, r##"{"password":"#","b":2}"##),
            (r#"{"a":{"password":["x",{"y":"z"}]},"b":2}"#, r##"{"a":{"password":"#"},"b":2}"##),
            (r#"{"pass\u0077ord":"x"}"#, r##"{"pass\u0077ord":"#"}"##),
            (
                r#"{"m":"{\"password\":\"hun\\\"ter2\",\"b\":1}"}"#,
                r##"{"m":"{\"password\":\"#\",\"b\":1}"}"##,
            ),
            (r#"{"m":"{\"password\":123}"}"#, r##"{"m":"{\"password\":\"#\"}"}"##),
            (r#"{"password":"cut off he"#, r##"{"password":"#"##),
            (r#"{"password":{"cut":"off he"#, r##"{"password":"#""##),
            ("{'password': 'x', 'b': 1}", "{'password': '#', 'b': 1}"),
            ("{ password: 'x', b: 1 }", "{ password: '#', b: 1 }"),
            ("password=hunter2 b=1", "password=# b=1"),
            ("GET /?password=hunter2&b=1", "GET /?password=#&b=1"),
            ("Authorization: Basic aHVudGVyMg==\nHost: x", "Authorization: #\nHost: x"),
            (r"a\nAuthorization: Basic x", r"a\nAuthorization: #"),
            ("user.password=\"a b\" c", "user.password=\"#\" c"),
            (r#"{"m":"password=x"}"#, r#"{"m":"password=#"}"#),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
    }

    #[test]
    fn what_has_another_name_is_left() {
        for text in [
            r#"{"passwords":"x","my password":"y"}"#,
            "password",
            "password:",
            "the password is x",
            "::==",
            r#"":"x"#,
            "{'it''s':1}",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    proptest! {
        #[test]
        fn json_stays_json_and_loses_the_value_alone(value in prop_oneof![
            "\\PC*".prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            prop::collection::vec("\\PC{0,8}", 0..3).prop_map(serde_json::Value::from),
            prop::collection::btree_map("\\PC{0,8}", "\\PC{0,8}", 0..3).prop_map(|map| serde_json::Value::Object(map.into_iter().map(|(k, v)| (k, v.into())).collect())),
        ], other in "[a-z ]{0,20}", levels in 0_usize..3) {
            // Nothing is no secret.
            prop_assume!(value != "");
            let mut json = serde_json::json!({"a": other, "password": value, "z": [other]});
            let mut expected = json.clone();
            expected["password"] = "#".into();
            for _ in 0..levels {
                json = serde_json::json!({"m": json.to_string()});
                expected = serde_json::json!({"m": expected.to_string()});
            }
            // A text within may look like a name with a value of its own, which is then gone as well.
            prop_assert_eq!(redacted(&json.to_string()), expected.to_string());
        }

        #[test]
        fn no_text_makes_it_fail(text in r#"(["'\\:={}\[\], \n]|password|\PC){0,60}"#) {
            redacted(&text);
        }
    }
}
