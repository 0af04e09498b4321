//! Indexer acknowledgement as Splunk's collector has it: an id for each request, whose state is asked for. It is true once,
//! and then forgotten; what is not known is false.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::script::Answer;

/// When events are indexed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Indexing {
    /// Before anyone asks.
    #[default]
    AtOnce,
    /// After this many questions about the same id.
    After(u32),
    /// Not at all.
    Never,
}

/// What is asked for, and what was told.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    pub(crate) indexing: Indexing,
    /// How many of the next answers get lost.
    pub(crate) lose: u32,
    pub(crate) asked: u64,
    by_id: HashMap<u64, u32>,
    forgotten: HashSet<u64>,
}

impl Acks {
    /// The answer to a question; none if it gets lost.
    pub(crate) fn ask(&mut self, question: &[u8]) -> Option<Answer> {
        self.asked += 1;
        let question: Value = serde_json::from_slice(question).unwrap_or_default();
        let Some(ids) = question.get("acks").and_then(Value::as_array) else {
            return Some(Answer::new(400).body("application/json", r#"{"text":"No data","code":5}"#));
        };
        let mut states = serde_json::Map::new();
        for id in ids.iter().filter_map(Value::as_u64) {
            let asked = self.by_id.entry(id).or_default();
            let indexed = match self.indexing {
                Indexing::AtOnce => true,
                Indexing::After(questions) => *asked >= questions,
                Indexing::Never => false,
            };
            *asked += 1;
            let told = indexed && self.forgotten.insert(id);
            states.insert(id.to_string(), Value::Bool(told));
        }
        if self.lose > 0 {
            self.lose -= 1;
            return None;
        }
        Some(Answer::new(200).body("application/json", json!({"acks": states}).to_string()))
    }
}
