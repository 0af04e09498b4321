//! Any JSON value, in the shape of an OTLP `AnyValue`.
//!
//! Nothing that was written is lost: the order of members is kept, a name that occurs twice keeps both of its
//! values, a number that fits neither a 64-bit integer nor a double is kept as its digits.

use std::borrow::Cow;
use std::collections::HashSet;

use super::json::{self, Cursor};

/// Objects and arrays nested deeper than this are kept as JSON text.
///
/// Receivers bound the nesting of protobuf messages, most of them at 100, and refuse the whole request beyond
/// it. One level of object takes three messages (`AnyValue`, `KeyValueList`, `KeyValue`), and a body begins
/// at the fourth: 4 + 3 × 30 = 94.
pub const MAX_DEPTH_LEVELS: usize = 30;

/// Up to here names are compared with one another; beyond it a set is quicker.
const PAIRWISE_MAX_NAMES: usize = 24;

/// A value of a record: body, attribute, or part of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value<'a> {
    /// JSON `null`.
    #[default]
    Empty,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number within 64 bits.
    Int(i64),
    /// Any other number, to the nearest double.
    Double(f64),
    /// Text.
    Str(Cow<'a, str>),
    /// A list.
    Array(Vec<Self>),
    /// An object, in the order it was written. Names are unique.
    Map(Vec<(Cow<'a, str>, Self)>),
}

/// A named value.
pub type Field<'a> = (Cow<'a, str>, Value<'a>);

impl<'a> Value<'a> {
    /// Reads one JSON value, borrowing text that has no escapes. `None` if `json` is not exactly one value.
    ///
    /// More is taken than RFC 8259 allows: raw control characters, broken UTF-8 (which becomes U+FFFD), lone
    /// surrogates and unknown escapes (which stay as written), and the `NaN` and `Infinity` that some JSON
    /// writers produce. A name that occurs again in the same object gets a number: `a`, `a.2`. Whole numbers
    /// beyond 64 bits and numbers beyond a double are kept as [`Value::Str`].
    pub fn parse(json: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(json, 0);
        let value = value(&mut cursor, 0)?;
        cursor.skip_space();
        cursor.peek().is_none().then_some(value)
    }

    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Whether this is anything but `null`.
    pub const fn is_something(&self) -> bool {
        !matches!(self, Self::Empty)
    }

    /// The number as a double, if this is a number.
    #[expect(clippy::cast_precision_loss, reason = "asked for as a double")]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            _ => None,
        }
    }

    /// The number, if this is a whole number of at least zero.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The member `name`, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }
}

fn value<'a>(cursor: &mut Cursor<'a>, depth: usize) -> Option<Value<'a>> {
    cursor.skip_space();
    match cursor.peek()? {
        b'"' => cursor.string().map(|inside| Value::Str(json::text(inside))),
        b'{' | b'[' if depth == MAX_DEPTH_LEVELS => {
            cursor.skip().map(|raw| Value::Str(String::from_utf8_lossy(raw)))
        }
        b'{' => object(cursor, depth + 1),
        b'[' => array(cursor, depth + 1),
        _ => scalar(cursor.token()?),
    }
}

fn object<'a>(cursor: &mut Cursor<'a>, depth: usize) -> Option<Value<'a>> {
    cursor.eat(b'{');
    let mut fields = Vec::new();
    cursor.skip_space();
    if cursor.eat(b'}') {
        return Some(Value::Map(fields));
    }
    loop {
        cursor.skip_space();
        let key = json::text(cursor.string()?);
        cursor.skip_space();
        if !cursor.eat(b':') {
            return None;
        }
        fields.push((key, value(cursor, depth)?));
        cursor.skip_space();
        if cursor.eat(b'}') {
            make_names_unique(&mut fields);
            return Some(Value::Map(fields));
        }
        if !cursor.eat(b',') {
            return None;
        }
    }
}

fn array<'a>(cursor: &mut Cursor<'a>, depth: usize) -> Option<Value<'a>> {
    cursor.eat(b'[');
    let mut items = Vec::new();
    cursor.skip_space();
    if cursor.eat(b']') {
        return Some(Value::Array(items));
    }
    loop {
        items.push(value(cursor, depth)?);
        cursor.skip_space();
        if cursor.eat(b']') {
            return Some(Value::Array(items));
        }
        if !cursor.eat(b',') {
            return None;
        }
    }
}

fn scalar(token: &[u8]) -> Option<Value<'_>> {
    match token {
        b"null" => return Some(Value::Empty),
        b"true" => return Some(Value::Bool(true)),
        b"false" => return Some(Value::Bool(false)),
        b"NaN" => return Some(Value::Double(f64::NAN)),
        b"Infinity" => return Some(Value::Double(f64::INFINITY)),
        b"-Infinity" => return Some(Value::Double(f64::NEG_INFINITY)),
        _ => {}
    }
    let shape = number_shape(token)?;
    let text = std::str::from_utf8(token).ok()?;
    // "-0" is a number JSON can tell from 0, and an integer cannot.
    if shape == Shape::Whole && text != "-0" {
        return Some(text.parse().map_or(Value::Str(Cow::Borrowed(text)), Value::Int));
    }
    let number: f64 = text.parse().ok()?;
    let mantissa_is_zero =
        token.iter().take_while(|byte| !matches!(byte, b'e' | b'E')).all(|byte| !matches!(byte, b'1'..=b'9'));
    let out_of_range = number.is_infinite() || (number == 0.0 && !mantissa_is_zero);
    Some(if out_of_range { Value::Str(Cow::Borrowed(text)) } else { Value::Double(number) })
}

#[derive(PartialEq, Eq)]
enum Shape {
    Whole,
    Fraction,
}

/// The grammar of RFC 8259 section 6.
fn number_shape(token: &[u8]) -> Option<Shape> {
    let rest = token.strip_prefix(b"-").unwrap_or(token);
    let (whole, rest) = digits(rest);
    if whole.is_empty() || (whole.len() > 1 && whole.first() == Some(&b'0')) {
        return None;
    }
    let mut shape = Shape::Whole;
    let mut rest = rest;
    if let Some(after) = rest.strip_prefix(b".") {
        let (fraction, after) = digits(after);
        if fraction.is_empty() {
            return None;
        }
        (shape, rest) = (Shape::Fraction, after);
    }
    if let Some(after) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let after = after.strip_prefix(b"+").or_else(|| after.strip_prefix(b"-")).unwrap_or(after);
        let (exponent, after) = digits(after);
        if exponent.is_empty() {
            return None;
        }
        (shape, rest) = (Shape::Fraction, after);
    }
    rest.is_empty().then_some(shape)
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// Numbers the second and later occurrences of a name: `a`, `a.2`, `a.3`.
///
/// OTLP requires unique names, and there are backends that refuse a whole request over one name twice.
pub(crate) fn make_names_unique(fields: &mut [Field<'_>]) {
    if !has_repeats(fields) {
        return;
    }
    let mut taken: HashSet<String> = fields.iter().map(|(name, _)| name.to_string()).collect();
    let mut seen = HashSet::new();
    let mut counts = std::collections::HashMap::new();
    for (name, _) in fields {
        if seen.insert(name.to_string()) {
            continue;
        }
        let count = counts.entry(name.to_string()).or_insert(1_usize);
        let fresh = loop {
            *count += 1;
            let candidate = format!("{name}.{count}");
            if taken.insert(candidate.clone()) {
                break candidate;
            }
        };
        *name = Cow::Owned(fresh);
    }
}

fn has_repeats(fields: &[Field<'_>]) -> bool {
    if fields.len() <= PAIRWISE_MAX_NAMES {
        let mut rest = fields;
        while let Some(((name, _), after)) = rest.split_first() {
            if after.iter().any(|(other, _)| other == name) {
                return true;
            }
            rest = after;
        }
        return false;
    }
    let mut seen = HashSet::with_capacity(fields.len());
    !fields.iter().all(|(name, _)| seen.insert(name.as_ref()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<Value<'_>> {
        Value::parse(text.as_bytes())
    }

    fn string(text: &str) -> Value<'_> {
        Value::Str(text.into())
    }

    #[test]
    fn numbers_keep_every_digit() {
        assert_eq!(parse("9223372036854775807"), Some(Value::Int(i64::MAX)));
        assert_eq!(parse("-9223372036854775808"), Some(Value::Int(i64::MIN)));
        assert_eq!(parse("9223372036854775808"), Some(string("9223372036854775808")));
        assert_eq!(parse("18446744073709551616000"), Some(string("18446744073709551616000")));
        assert_eq!(parse("1e400"), Some(string("1e400")));
        assert_eq!(parse("-1e400"), Some(string("-1e400")));
        assert_eq!(parse("1e-400"), Some(string("1e-400")));
        assert_eq!(parse("0e-400"), Some(Value::Double(0.0)));
        assert_eq!(parse("0.30000000000000004"), Some(Value::Double(0.1 + 0.2)));
        assert_eq!(parse("1.0"), Some(Value::Double(1.0)));
        assert_eq!(parse("1E2"), Some(Value::Double(100.0)));
        let Some(Value::Double(zero)) = parse("-0") else { panic!("-0 is a double") };
        assert!(zero.is_sign_negative());
    }

    #[test]
    fn what_is_not_a_value_is_refused() {
        for text in [
            "",
            " ",
            "01",
            "1.",
            ".5",
            "1e",
            "+1",
            "--1",
            "tru",
            "nul",
            "{",
            "[1",
            "[1,]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "1 2",
            "\"a",
            "[1}",
            "x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_twice_keeps_both_values() {
        let Some(Value::Map(fields)) = parse(r#"{"a":1,"b":2,"a":3,"a.2":4,"a":5}"#) else {
            panic!("an object")
        };
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(names, ["a", "b", "a.3", "a.2", "a.4"]);
        let many: Vec<_> = (0..40).map(|i| format!("\"k{}\":{i}", i % 39)).collect();
        let many = format!("{{{}}}", many.join(","));
        let Some(Value::Map(fields)) = parse(&many) else { panic!("an object") };
        assert_eq!(
            fields.last().map(|(name, value)| (name.as_ref(), value.clone())),
            Some(("k0.2", Value::Int(39)))
        );
    }

    #[test]
    fn what_is_too_deep_is_kept_as_text() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        let mut value = parse(&deep).expect("kept");
        for _ in 0..MAX_DEPTH_LEVELS {
            let Value::Array(mut items) = value else { panic!("an array") };
            value = items.pop().expect("one item");
        }
        let left = 200 - MAX_DEPTH_LEVELS;
        assert_eq!(value, Value::Str(format!("{}1{}", "[".repeat(left), "]".repeat(left)).into()));
    }

    #[test]
    fn raw_control_characters_and_broken_utf8_do_not_lose_a_record() {
        assert_eq!(
            Value::parse(b"{\"a\":\"x\ny\xff\"}"),
            Some(Value::Map(vec![("a".into(), string("x\ny\u{fffd}"))]))
        );
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".*".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".*", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn same(ours: &Value<'_>, theirs: &serde_json::Value) -> bool {
        use serde_json::Value as Json;
        match (ours, theirs) {
            (Value::Empty, Json::Null) => true,
            (Value::Bool(a), Json::Bool(b)) => a == b,
            (Value::Int(a), Json::Number(b)) => b.as_i64() == Some(*a),
            (Value::Double(a), Json::Number(b)) => b.as_f64().map(f64::to_bits) == Some(a.to_bits()),
            (Value::Str(a), Json::String(b)) => a == b,
            (Value::Array(a), Json::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Value::Map(a), Json::Object(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(k, v)| b.get(k.as_ref()).is_some_and(|other| same(v, other)))
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn valid_json_reads_as_serde_json_reads_it(json in json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.unwrap();
            let ours = parse(&text).expect("valid JSON");
            prop_assert!(same(&ours, &json), "{text} read as {ours:?}");
        }

        #[test]
        fn no_input_makes_it_fail_badly(bytes in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b','), Just(b':'), Just(b'u'), Just(b'1'), any::<u8>()], 0..60)) {
            let _ = Value::parse(&bytes);
        }
    }
}
