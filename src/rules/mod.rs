//! The user's rules: what becomes of log records before they are kept (`OUTLAST_RULES`, `docs/rules.md`).
//!
//! ```text
//! text ──RuleSet::parse──> rules, problems          once, at the start
//! log record ──RuleSet::apply──> log record, or nothing     each, before it is encoded
//! first part of a cut record ──RuleSet::withhold──> what may wait on disk for the rest
//! ```
//! Rules are asked in the order they are written. `drop`, `sample` and `keep` decide whether a record is sent, and the first of
//! them that does so decides it; `redact`, `rename` and `set` change it, each in its turn, and no decision keeps them from
//! doing so: an exception for errors must not let out what is in them.
//!
//! Pure: no clock, no randomness, no I/O. What is sampled is a matter of hashes, so that all records of an invocation or of a
//! trace share a fate, here and in every other environment.

mod detect;
mod keys;
mod parse;
mod pattern;
mod raw;
mod redact;
mod spans;
#[cfg(test)]
mod tests;
mod when;

use crate::observe::Sampler;
use crate::record::log::{INVOCATION_ID, UID};
use crate::record::value::make_names_unique;
use crate::record::{Field, LogRecord, Value, severity};
use redact::Redaction;
use std::borrow::Cow;
use when::When;
use xxhash_rust::xxh3::xxh3_128;

pub use parse::{Problem, RULES_MAX_BYTES};
pub use raw::Withheld;

/// The rules, compiled.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    when: When,
    action: Action,
    /// Records it acted on, of deliveries that were kept.
    records: u64,
}

#[derive(Clone, Debug)]
enum Action {
    Drop,
    Keep,
    Sample { sampler: Sampler, by_trace: bool },
    Redact(Box<Redaction>),
    Rename(Vec<(String, String)>),
    Set(Vec<(String, Value<'static>)>),
}

/// How often each rule acted in a delivery that may still be turned away.
#[derive(Clone, Debug, Default)]
pub struct Tally(Vec<u64>);

/// How often a rule acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its name, or its number.
    pub name: String,
    /// What it did to them: `dropped`, `kept`, `sampled out`, `redacted`, `renamed`, `set`.
    pub done: &'static str,
    /// Log records.
    pub records: u64,
}

impl RuleSet {
    /// Reads rules, and says what is wrong. A rule that is wrong is left out.
    pub fn parse(text: &str) -> (Self, Vec<Problem>) {
        let (rules, problems) = parse::parse(text);
        (Self { rules }, problems)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether anything is taken out of records.
    pub fn redacts(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.action, Action::Redact(_)))
    }

    /// Whether it matters how an invocation ended.
    pub fn samples(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.action, Action::Sample { .. }))
    }

    fn redactions(&mut self) -> impl Iterator<Item = &mut Redaction> {
        self.rules.iter_mut().filter_map(|rule| match &mut rule.action {
            Action::Redact(redaction) => Some(redaction.as_mut()),
            _ => None,
        })
    }

    /// Does to `record` what the rules say; false if it is not to be sent. `failed`: its invocation is known to have failed.
    pub fn apply(&mut self, record: &mut LogRecord<'_>, failed: bool, tally: &mut Tally) -> bool {
        let unread = redact::is_unread(record);
        let mut settled = false;
        // Before a rule can take the id out.
        let invocation = if self.samples() { invocation_of(record) } else { None };
        for (index, rule) in self.rules.iter_mut().enumerate() {
            let decides = matches!(rule.action, Action::Drop | Action::Keep | Action::Sample { .. });
            if decides && settled {
                continue;
            }
            // Nobody knows what something is that cannot be read: it is redacted by every rule.
            let always = unread && matches!(rule.action, Action::Redact(_));
            if !always && !rule.when.holds(record) {
                continue;
            }
            let acted = match &mut rule.action {
                Action::Drop => {
                    tally.count(index);
                    return false;
                }
                Action::Keep => {
                    settled = true;
                    true
                }
                Action::Sample { sampler, by_trace } => {
                    let grave = failed || record.severity.number >= severity::ERROR;
                    if !grave && !is_sampled(record.trace_id.filter(|_| *by_trace).or(invocation), *sampler) {
                        tally.count(index);
                        return false;
                    }
                    false
                }
                Action::Redact(redaction) => redaction.apply(record),
                Action::Rename(names) => rename(record, names),
                Action::Set(fields) => {
                    set(record, fields);
                    true
                }
            };
            if acted {
                tally.count(index);
            }
        }
        true
    }

    /// Takes out of attributes that come from a log record, and go elsewhere than into one, whatever any rule redacts.
    /// Conditions are not asked: there is no record to ask them of.
    pub fn redact(&mut self, attributes: &mut [Field<'_>]) {
        for redaction in self.redactions() {
            redaction.fields(attributes);
        }
    }

    /// What `tally` counts was kept.
    pub fn count(&mut self, tally: &Tally) {
        for (rule, records) in self.rules.iter_mut().zip(&tally.0) {
            rule.records += records;
        }
    }

    /// How often each rule acted since the start, in the order of the rules.
    pub fn counts(&self) -> impl Iterator<Item = Counted> {
        self.rules.iter().map(|rule| Counted {
            name: rule.name.clone(),
            done: match rule.action {
                Action::Drop => "dropped",
                Action::Keep => "kept",
                Action::Sample { .. } => "sampled out",
                Action::Redact(_) => "redacted",
                Action::Rename(_) => "renamed",
                Action::Set(_) => "set",
            },
            records: rule.records,
        })
    }
}

impl Tally {
    fn count(&mut self, index: usize) {
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        if let Some(records) = self.0.get_mut(index) {
            *records += 1;
        }
    }
}

/// What stands for the invocation of `record` where it is decided which are kept.
fn invocation_of(record: &LogRecord<'_>) -> Option<[u8; 16]> {
    let id = record.attributes.iter().find(|(name, _)| name == INVOCATION_ID)?.1.as_str()?;
    Some(xxh3_128(id.as_bytes()).to_be_bytes())
}

/// Whether the invocation, or the trace, that a record belongs to is one of those that are kept. One that belongs to none is.
fn is_sampled(belongs_to: Option<[u8; 16]>, sampler: Sampler) -> bool {
    belongs_to.is_none_or(|id| sampler.keeps(id, None))
}

/// Gives attributes other names, and the fields of a body that is an object.
fn rename(record: &mut LogRecord<'_>, names: &[(String, String)]) -> bool {
    let mut renamed = false;
    let body = match &mut record.body {
        Value::Map(fields) => fields.as_mut_slice(),
        _ => &mut [],
    };
    for fields in [record.attributes.as_mut_slice(), body] {
        let mut here = false;
        for (name, _) in fields.iter_mut().filter(|(name, _)| name != UID) {
            if let Some((_, new)) = names.iter().find(|(old, _)| old == name) {
                *name = Cow::Owned(new.clone());
                here = true;
            }
        }
        if here {
            // Whatever had that name before keeps its value.
            make_names_unique(fields);
        }
        renamed |= here;
    }
    renamed
}

/// Sets attributes, whatever they were.
fn set(record: &mut LogRecord<'_>, fields: &[(String, Value<'static>)]) {
    for (name, value) in fields {
        match record.attributes.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value.clone(),
            None => record.attributes.push((Cow::Owned(name.clone()), value.clone())),
        }
    }
}
