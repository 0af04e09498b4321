//! From TOML to rules. What is wrong is told with its line, and costs the rule it is in.

use super::detect::{AWS_SECRET_NAMES, DETECTORS, Detector};
use super::keys::{Keys, normal};
use super::pattern::Patterns;
use super::redact::Redaction;
use super::when::{Test, When};
use super::{Action, Rule};
use crate::observe::Sampler;
use crate::record::log::UID;
use crate::record::{Severity, Value};
use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// The longest text of rules. A whole environment has 4 KB; the rest is for files.
pub const RULES_MAX_BYTES: usize = 64 << 10;
/// Each is asked of each record.
const RULES_MAX: usize = 64;
/// Entries of a list: detectors, expressions, names.
const LIST_MAX: usize = 64;
/// The longest name of a rule, and the longest replacement.
const WORD_MAX_CHARS: usize = 64;
/// What stands in the place of what was redacted.
const REDACTED: &str = "[REDACTED]";

const ACTIONS: &str = "one of `drop`, `keep`, `sample`, `redact`, `rename`, `set`";
const LEVELS: &str =
    "trace, debug, info, warn, error, fatal or unknown, with `>=`, `>`, `<=` or `<` before it if need be";

/// Something wrong with the rules. `Display` gives one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, from 1.
    pub line: usize,
    /// The rule by name or number; none if it is in no rule.
    pub rule: Option<String>,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => {
                write!(f, "line {}, rule \"{rule}\": {}; the rule is left out", self.line, self.what)
            }
            None => write!(f, "line {}: {}; ignored", self.line, self.what),
        }
    }
}

/// What is wrong, and where in the text.
struct Wrong {
    at: usize,
    what: String,
}

type Read<T> = Result<T, Wrong>;
type Node<'i> = Spanned<DeValue<'i>>;

fn wrong<T>(node: &Node<'_>, what: impl Into<String>) -> Read<T> {
    Err(Wrong { at: node.span().start, what: what.into() })
}

/// The rules of `text`, and what is wrong with it.
pub(super) fn parse(text: &str) -> (Vec<Rule>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut tell = |at: usize, rule: Option<String>, what: String| {
        let before = text.get(..at).unwrap_or(text);
        let line = 1 + before.matches('\n').count();
        problems.push(Problem { line, rule, what });
    };
    if text.len() > RULES_MAX_BYTES {
        tell(0, None, format!("rules are longer than {RULES_MAX_BYTES} bytes"));
        return (Vec::new(), problems);
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut found: &[Node<'_>] = &[];
    for (key, value) in document.get_ref() {
        match value.get_ref() {
            DeValue::Array(list) if key.get_ref() == "rule" => found = nodes(list),
            _ => tell(
                key.span().start,
                None,
                format!("`{}` is not known; rules are `[[rule]]`", key.get_ref()),
            ),
        }
    }
    // Of a rule that is not even TOML nothing is believed.
    let mut broken = vec![false; found.len()];
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let index = found.iter().rposition(|node| node.span().start <= at);
        let named = index.and_then(|index| Some(name_of(found.get(index)?, index)));
        if let Some(broken) = index.and_then(|index| broken.get_mut(index)) {
            *broken = true;
        }
        tell(at, named, format!("not TOML: {}", error.message()));
    }
    let mut rules = Vec::new();
    for (index, (node, broken)) in found.iter().zip(broken).enumerate() {
        if broken {
            continue;
        }
        if rules.len() == RULES_MAX {
            tell(
                node.span().start,
                Some(name_of(node, index)),
                format!("there are more than {RULES_MAX} rules"),
            );
            break;
        }
        match rule(node, index) {
            Ok(rule) => rules.push(rule),
            Err(Wrong { at, what }) => tell(at, Some(name_of(node, index)), what),
        }
    }
    problems.sort_by_key(|problem| problem.line);
    (rules, problems)
}

fn nodes<'n, 'i>(list: &'n DeArray<'i>) -> &'n [Node<'i>] {
    list
}

/// What a rule is called: as the user says, else by its number.
fn name_of(node: &Node<'_>, index: usize) -> String {
    let given = node
        .get_ref()
        .as_table()
        .and_then(|table| table.get("name"))
        .and_then(|name| name.get_ref().as_str());
    given.map_or_else(|| (index + 1).to_string(), |name| name.chars().take(WORD_MAX_CHARS).collect())
}

fn rule(node: &Node<'_>, index: usize) -> Read<Rule> {
    let mut when = When::default();
    let mut action = None;
    for (key, value) in table(node, "a rule")? {
        let found = match &**key.get_ref() {
            "name" => {
                text(value, "name")?;
                continue;
            }
            "when" => {
                when = conditions(value)?;
                continue;
            }
            "drop" => truth(value, "drop").map(|()| Action::Drop)?,
            "keep" => truth(value, "keep").map(|()| Action::Keep)?,
            "sample" => sample(value)?,
            "redact" => redact(value)?,
            "rename" => Action::Rename(renames(value)?),
            "set" => Action::Set(settings(value)?),
            other => {
                return wrong(
                    value,
                    format!("`{other}` is not known; a rule has `name`, `when` and {ACTIONS}"),
                );
            }
        };
        if action.replace(found).is_some() {
            return wrong(value, format!("a rule has {ACTIONS}, and not two"));
        }
    }
    let Some(action) = action else { return wrong(node, format!("a rule has {ACTIONS}")) };
    Ok(Rule { name: name_of(node, index), when, action, records: 0 })
}

fn table<'n, 'i>(node: &'n Node<'i>, what: &str) -> Read<&'n DeTable<'i>> {
    match node.get_ref() {
        DeValue::Table(table) => Ok(table),
        _ => wrong(node, format!("{what} is a table")),
    }
}

fn text<'n>(node: &'n Node<'_>, what: &str) -> Read<&'n str> {
    match node.get_ref().as_str() {
        Some(text) => Ok(text),
        None => wrong(node, format!("`{what}` is a text")),
    }
}

fn truth(node: &Node<'_>, what: &str) -> Read<()> {
    match node.get_ref() {
        DeValue::Boolean(true) => Ok(()),
        _ => wrong(node, format!("`{what}` is `true`")),
    }
}

/// A text, or a list of some.
fn texts<'n>(node: &'n Node<'_>, what: &str) -> Read<Vec<&'n str>> {
    match node.get_ref() {
        DeValue::String(one) => Ok(vec![one]),
        DeValue::Array(list) if (1..=LIST_MAX).contains(&nodes(list).len()) => {
            nodes(list).iter().map(|one| text(one, what)).collect()
        }
        _ => wrong(node, format!("`{what}` is a text or a list of 1 to {LIST_MAX} texts")),
    }
}

fn patterns(node: &Node<'_>, what: &str) -> Read<Patterns> {
    let found = texts(node, what)?;
    Patterns::compile(&found).or_else(|why| wrong(node, format!("`{what}`: {why}")))
}

fn number(node: &Node<'_>) -> Option<f64> {
    match node.get_ref() {
        DeValue::Integer(number) => number.as_str().parse().ok().filter(|_| number.radix() == 10),
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    }
}

/// A value without parts, as an attribute has it.
fn scalar(node: &Node<'_>) -> Option<Value<'static>> {
    Some(match node.get_ref() {
        DeValue::String(text) => Value::Str(Cow::Owned(text.clone().into_owned())),
        DeValue::Integer(number) => Value::Int(i64::from_str_radix(number.as_str(), number.radix()).ok()?),
        DeValue::Float(_) => Value::Double(number(node)?),
        DeValue::Boolean(is) => Value::Bool(*is),
        _ => return None,
    })
}

fn conditions(node: &Node<'_>) -> Read<When> {
    let mut when = When::default();
    for (key, value) in table(node, "`when`")? {
        match &**key.get_ref() {
            "type" => {
                let known = |kind: &&str| {
                    matches!(*kind, "function" | "extension" | "platform") || kind.starts_with("platform.")
                };
                let types = texts(value, "when.type")?;
                if !types.iter().all(known) {
                    return wrong(
                        value,
                        "`when.type` accepts function, extension, platform, and platform.NAME",
                    );
                }
                when.types = types.into_iter().map(str::to_owned).collect();
            }
            "severity" => {
                let ranges = texts(value, "when.severity")?.into_iter().map(severities).collect();
                let Some(ranges) = ranges else {
                    return wrong(value, format!("`when.severity` accepts {LEVELS}"));
                };
                when.severities = ranges;
            }
            "text" => when.text = Some(patterns(value, "when.text")?),
            "attribute" => {
                for (name, value) in table(value, "`when.attribute`")? {
                    let test = match value.get_ref() {
                        DeValue::String(_) | DeValue::Array(_) => {
                            Test::Text(Box::new(patterns(value, "when.attribute")?))
                        }
                        _ => match scalar(value) {
                            Some(value) => Test::Is(value),
                            None => {
                                return wrong(
                                    value,
                                    "`when.attribute` accepts expressions, numbers, true and false",
                                );
                            }
                        },
                    };
                    when.attributes.push((name.get_ref().to_string(), test));
                }
            }
            other => {
                let accepted = "`when` has `type`, `severity`, `text`, `attribute`";
                return wrong(value, format!("`{other}` is not known; {accepted}"));
            }
        }
    }
    Ok(when)
}

/// The numbers a level stands for: those of its four steps, and if it is asked for, those above or below.
fn severities(wanted: &str) -> Option<RangeInclusive<u8>> {
    const LAST: u8 = 24;
    let (sign, word) = wanted.split_at(wanted.find(|c: char| c.is_ascii_alphabetic())?);
    if word.eq_ignore_ascii_case("unknown") {
        return sign.is_empty().then_some(0..=0);
    }
    let number = Severity::from_word(Cow::Borrowed(word))?.number;
    let first = (number - 1) / 4 * 4 + 1;
    Some(match sign.trim() {
        "" => first..=first + 3,
        ">=" => first..=LAST,
        ">" => first + 4..=LAST,
        "<=" => 1..=first + 3,
        "<" => {
            let below = first - 1;
            1..=below
        }
        _ => return None,
    })
}

fn sample(node: &Node<'_>) -> Read<Action> {
    let accepted = "`sample` is the share that is kept, from 0 to 1, or a table with `ratio` and `by` (invocation or trace)";
    let (mut ratio, mut by_trace) = (number(node), false);
    if let DeValue::Table(table) = node.get_ref() {
        for (key, value) in table {
            match (&**key.get_ref(), value.get_ref().as_str()) {
                ("ratio", _) => ratio = number(value),
                ("by", Some("invocation")) => by_trace = false,
                ("by", Some("trace")) => by_trace = true,
                _ => return wrong(value, accepted),
            }
        }
    }
    match ratio {
        Some(ratio) if (0.0..=1.0).contains(&ratio) => {
            Ok(Action::Sample { sampler: Sampler { parent_based: false, ratio }, by_trace })
        }
        _ => wrong(node, accepted),
    }
}

fn redact(node: &Node<'_>) -> Read<Action> {
    let (mut detectors, mut expressions, mut keys) = (Vec::new(), None, Keys::default());
    let mut with = REDACTED.to_owned();
    for (key, value) in table(node, "`redact`")? {
        match &**key.get_ref() {
            "detect" => {
                for name in texts(value, "redact.detect")? {
                    let Some((_, detector)) = DETECTORS.iter().find(|(known, _)| *known == name) else {
                        let known = DETECTORS.map(|(known, _)| known).join(", ");
                        return wrong(value, format!("`redact.detect` accepts {known}"));
                    };
                    detectors.push(*detector);
                }
            }
            "regex" => expressions = Some(patterns(value, "redact.regex")?),
            "keys" => {
                keys.names = texts(value, "redact.keys")?.into_iter().map(normal).collect();
                if keys.names.iter().any(String::is_empty) {
                    return wrong(value, "`redact.keys` accepts names");
                }
            }
            "with" => {
                let given = text(value, "redact.with")?;
                // It may stand within JSON.
                let plain = |c: char| !c.is_control() && !matches!(c, '"' | '\'' | '\\');
                if given.chars().count() > WORD_MAX_CHARS || !given.chars().all(plain) {
                    let accepted = "up to 64 characters without quotes, backslashes and line breaks";
                    return wrong(value, format!("`redact.with` accepts {accepted}"));
                }
                given.clone_into(&mut with);
            }
            other => {
                let accepted = "`redact` has `detect`, `regex`, `keys`, `with`";
                return wrong(value, format!("`{other}` is not known; {accepted}"));
            }
        }
    }
    if detectors.contains(&Detector::AwsKey) {
        keys.endings = &AWS_SECRET_NAMES;
    }
    if detectors.is_empty() && expressions.is_none() && keys.is_empty() {
        return wrong(node, "`redact` has at least one of `detect`, `regex`, `keys`");
    }
    Ok(Action::Redact(Box::new(Redaction::new(detectors, expressions, keys, with))))
}

/// Names of attributes, which are no empty texts and not that of what identifies a record.
fn attribute_name<'n>(name: &'n str, node: &Node<'_>) -> Read<&'n str> {
    if name.is_empty() || name == UID {
        return wrong(
            node,
            format!("an attribute may have any name but `{UID}`, by which repeats are known, and none"),
        );
    }
    Ok(name)
}

fn renames(node: &Node<'_>) -> Read<Vec<(String, String)>> {
    let pairs = table(node, "`rename`")?.iter().map(|(old, new)| {
        let old = attribute_name(old.get_ref(), new)?;
        Ok((old.to_owned(), attribute_name(text(new, "rename")?, new)?.to_owned()))
    });
    not_empty(node, pairs.collect::<Read<_>>()?)
}

fn settings(node: &Node<'_>) -> Read<Vec<(String, Value<'static>)>> {
    let fields = table(node, "`set`")?.iter().map(|(name, node)| match scalar(node) {
        Some(value) => Ok((attribute_name(name.get_ref(), node)?.to_owned(), value)),
        None => wrong(node, "`set` accepts texts, numbers, true and false"),
    });
    not_empty(node, fields.collect::<Read<_>>()?)
}

fn not_empty<T>(node: &Node<'_>, list: Vec<T>) -> Read<Vec<T>> {
    if list.is_empty() {
        wrong(node, "it names no attribute; write names with dots in quotes")
    } else {
        Ok(list)
    }
}
