//! What loggers say about an exception, under the names of the semantic conventions (OpenTelemetry semantic conventions,
//! "Exceptions in logs").
//!
//! A field is renamed only where its name and its form leave no doubt, and where its value stays what it was.
//!
//! | field | becomes |
//! |---|---|
//! | `err`, `error`, `exception`: an object with a stack as text | its `type` or `name`, `message`, and stack; the rest of it stays |
//! | `stack_trace`, `stackTrace`, `stack`, `error.stack_trace`, `exception`: text of several lines | `exception.stacktrace` |
//! | `stackTrace`, `stack_trace`: a list of lines | the lines, in `exception.stacktrace` |
//! | `exception_name`, beside such an `exception` | `exception.type` |
//! | `errorType` and `errorMessage`, together | `exception.type`, `exception.message` |

use std::borrow::Cow;

use super::fields::get;
use super::value::{Field, Value};

const TYPE: &str = "exception.type";
const MESSAGE: &str = "exception.message";
const STACK: &str = "exception.stacktrace";

/// Members of an object that describes an exception, and where they go. Of two for one place the first wins.
const MEMBERS: [(&str, &str); 7] = [
    ("type", TYPE),
    ("message", MESSAGE),
    ("stack", STACK),
    ("stack_trace", STACK),
    ("stacktrace", STACK),
    ("stackTrace", STACK),
    ("name", TYPE),
];

/// What is known of the object whose fields become attributes.
pub(super) struct Exceptions {
    /// Nothing is renamed, because the logger uses the conventions itself.
    keeps: bool,
    /// Both of Lambda's own fields are there.
    has_pair: bool,
    /// `exception` is a stack trace.
    has_text: bool,
    taken: [bool; 3],
}

impl Exceptions {
    pub(super) fn of(object: &[Field<'_>]) -> Self {
        let text = |name| matches!(get(object, name), Some(Value::Str(_)));
        Self {
            keeps: object.iter().any(|(name, _)| name.starts_with("exception.")),
            has_pair: text("errorType") && text("errorMessage"),
            has_text: get(object, "exception").is_some_and(is_stack),
            taken: [false; 3],
        }
    }

    /// Appends a field as an attribute, or as several.
    pub(super) fn push<'a>(&mut self, name: Cow<'a, str>, value: Value<'a>, out: &mut Vec<Field<'a>>) {
        if self.keeps {
            return out.push((name, value));
        }
        let (place, value) = match (name.as_ref(), value) {
            ("err" | "error" | "exception", Value::Map(members)) => {
                return self.push_members(name, members, out);
            }
            ("stackTrace" | "stack_trace", Value::Array(lines)) if are_lines(&lines) => {
                let joined = Value::Str(join(&lines).into());
                // It would not come back if somebody else has the place.
                return match self.take(STACK) {
                    Some(place) => out.push((place.into(), joined)),
                    None => out.push((name, Value::Array(lines))),
                };
            }
            (known, value) => {
                let place = match known {
                    "stack_trace" | "stackTrace" | "stack" | "error.stack_trace" | "exception"
                        if is_stack(&value) =>
                    {
                        Some(STACK)
                    }
                    "exception_name" if self.has_text && value.as_str().is_some() => Some(TYPE),
                    "errorType" if self.has_pair => Some(TYPE),
                    "errorMessage" if self.has_pair => Some(MESSAGE),
                    _ => None,
                };
                (place.and_then(|place| self.take(place)), value)
            }
        };
        out.push((place.map_or(name, Cow::Borrowed), value));
    }

    fn push_members<'a>(&mut self, name: Cow<'a, str>, members: Vec<Field<'a>>, out: &mut Vec<Field<'a>>) {
        let has_stack = MEMBERS
            .iter()
            .any(|(member, place)| *place == STACK && matches!(get(&members, member), Some(Value::Str(_))));
        if !has_stack {
            return out.push((name, Value::Map(members)));
        }
        let mut rest = Vec::new();
        // `name` is the type only where nothing else is.
        let has_type = matches!(get(&members, "type"), Some(Value::Str(_)));
        for (member, value) in members {
            let place = MEMBERS
                .iter()
                .find(|(known, _)| *known == member && !(has_type && *known == "name"))
                .filter(|_| value.as_str().is_some())
                .and_then(|(_, place)| self.take(place));
            match place {
                Some(place) => out.push((place.into(), value)),
                None => rest.push((member, value)),
            }
        }
        if !rest.is_empty() {
            out.push((name, Value::Map(rest)));
        }
    }

    /// Takes a place, unless it is taken.
    fn take(&mut self, place: &'static str) -> Option<&'static str> {
        let taken = self.taken.get_mut([TYPE, MESSAGE, STACK].iter().position(|known| *known == place)?)?;
        (!std::mem::replace(taken, true)).then_some(place)
    }
}

/// One line may be anything; a stack trace has several.
fn is_stack(value: &Value<'_>) -> bool {
    value.as_str().is_some_and(|text| text.contains('\n'))
}

/// Whether the items, joined by newlines, could be told apart again.
fn are_lines(items: &[Value<'_>]) -> bool {
    !items.is_empty() && items.iter().all(|item| item.as_str().is_some_and(|line| !line.contains('\n')))
}

fn join(lines: &[Value<'_>]) -> String {
    let mut text = String::new();
    for (at, line) in lines.iter().filter_map(Value::as_str).enumerate() {
        if at > 0 {
            text.push('\n');
        }
        text.push_str(line);
    }
    text
}
