//! Regular expressions, in time that grows with the text alone. The only file that names the engine.
//!
//! All expressions of a list are one automaton, made state by state as texts need it, which says in one pass whether any of
//! them is found. Only where one is, each is asked for places: an automaton of its own finds where a match ends, and the
//! slower engine then looks for the groups up to there. An automaton may have to look to the end of the text to know that a
//! match was short (`a(?:.*b)?`), and to do so for each match; [`PASSES_MAX`] bounds that.

use super::spans::Span;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::pikevm::{self, PikeVM};
use regex_automata::nfa::thompson::{self, NFA};
use regex_automata::util::captures::Captures;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

/// The longest expression.
pub(super) const PATTERN_MAX_BYTES: usize = 4 << 10;
/// What an expression, and what a list of them, may take once it is compiled: repetitions such as `(a{1000}){1000}` are
/// short to write.
const COMPILED_MAX_BYTES: usize = 256 << 10;
/// Groups within groups: the parser calls itself for each.
const NEST_MAX_LEVELS: u32 = 50;
/// Memory for the states of an automaton. It begins anew when they are full; the least that works is taken if this is not enough.
const STATES_MAX_BYTES: usize = 512 << 10;
/// The same for the automaton of one expression, of which there may be many.
const OWN_STATES_MAX_BYTES: usize = 64 << 10;
/// So often, about, an expression may be led through one text: honest ones need one pass or two. What is behind the place
/// that it came to by then is taken for found, because it may be.
const PASSES_MAX: usize = 16;
/// Texts shorter than this may be gone through as if they were as long, for a few dozen short matches are honest.
const PASS_MIN_BYTES: usize = 4 << 10;

/// Expressions of which any may be found.
#[derive(Clone, Debug)]
pub(super) struct Patterns {
    any: DFA,
    states: Cache,
    each: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// Finds where the next match ends.
    ends: DFA,
    states: Cache,
    vm: PikeVM,
    cache: pikevm::Cache,
    found: Captures,
}

impl Patterns {
    /// Compiles `patterns`; the error says what is wrong with which of them.
    pub(super) fn compile<P: AsRef<str>>(patterns: &[P]) -> Result<Self, String> {
        let mut each = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            let pattern = pattern.as_ref();
            if pattern.len() > PATTERN_MAX_BYTES {
                return Err(format!("an expression is longer than {PATTERN_MAX_BYTES} bytes"));
            }
            let one = nfa(&[pattern]).and_then(|nfa| {
                let ends = automaton(nfa.clone(), MatchKind::LeftmostFirst, OWN_STATES_MAX_BYTES)?;
                Ok((ends, PikeVM::new_from_nfa(nfa).map_err(|e| e.to_string())?))
            });
            let (ends, vm) = one.map_err(|why| format!("`{pattern}` is not taken: {why}"))?;
            let (states, cache, found) = (ends.create_cache(), vm.create_cache(), vm.create_captures());
            each.push(Pattern { ends, states, vm, cache, found });
        }
        // All matches count, not the first: nothing but whether there is one is asked.
        let any = nfa(patterns)
            .and_then(|nfa| automaton(nfa, MatchKind::All, STATES_MAX_BYTES))
            .map_err(|why| format!("the expressions are not taken: {why}"))?;
        Ok(Self { states: any.create_cache(), any, each })
    }

    /// Whether any of them is found in `text`.
    pub(super) fn is_in(&mut self, text: &str) -> bool {
        let input = Input::new(text.as_bytes()).earliest(true);
        match self.any.try_search_fwd(&mut self.states, &input) {
            Ok(found) => found.is_some(),
            // The automaton gave up; the others never do.
            Err(_) => self.each.iter_mut().any(|one| one.vm.is_match(&mut one.cache, text.as_bytes())),
        }
    }

    /// Notes where they are found: the groups of an expression that has some, else all of it.
    pub(super) fn find(&mut self, text: &str, spans: &mut Vec<Span>) {
        if !self.is_in(text) {
            return;
        }
        for one in &mut self.each {
            one.find(text.as_bytes(), spans);
        }
    }
}

impl Pattern {
    fn find(&mut self, text: &[u8], spans: &mut Vec<Span>) {
        let groups = self.vm.get_nfa().group_info().group_len(regex_automata::PatternID::ZERO);
        let mut left = text.len().max(PASS_MIN_BYTES).saturating_mul(PASSES_MAX);
        let mut from = 0;
        while from <= text.len() {
            let Ok(end) = self.next_end(text, from, &mut left) else {
                spans.push(Span::plain(from, text.len()));
                break;
            };
            let Some(end) = end else { break };
            let input = Input::new(text).span(from..end);
            self.vm.search(&mut self.cache, &input, &mut self.found);
            let Some(whole) = self.found.get_match() else { break };
            let noted = spans.len();
            let places = (1..groups).filter_map(|group| self.found.get_group(group));
            spans.extend(places.map(|place| Span::plain(place.start, place.end)));
            if spans.len() == noted {
                spans.push(Span::plain(whole.start(), whole.end()));
            }
            from = if whole.is_empty() { whole.end() + 1 } else { whole.end() };
        }
    }

    /// Where the next match from `from` on ends, if there is one more. Each byte that is looked at is taken off `left`.
    fn next_end(&mut self, text: &[u8], from: usize, left: &mut usize) -> Result<Option<usize>, Spent> {
        let input = Input::new(text).span(from..text.len()).anchored(Anchored::No);
        let (ends, states) = (&self.ends, &mut self.states);
        let mut state = ends.start_state_forward(states, &input).map_err(|_| Spent)?;
        let mut last = None;
        for (at, byte) in text.iter().enumerate().skip(from) {
            *left = left.checked_sub(1).ok_or(Spent)?;
            state = ends.next_state(states, state, *byte).map_err(|_| Spent)?;
            // The automaton is one byte behind.
            if state.is_match() {
                last = Some(at);
            } else if state.is_dead() {
                return Ok(last);
            } else if state.is_quit() {
                return Err(Spent);
            }
        }
        state = ends.next_eoi_state(states, state).map_err(|_| Spent)?;
        Ok(if state.is_match() { Some(text.len()) } else { last })
    }
}

/// Nobody knows what else is in a text: that would take more than it may.
struct Spent;

/// An automaton that is made state by state, and begins anew when it has `states_max_bytes` of them.
fn automaton(nfa: NFA, kind: MatchKind, states_max_bytes: usize) -> Result<DFA, String> {
    let config =
        DFA::config().match_kind(kind).cache_capacity(states_max_bytes).skip_cache_capacity_check(true);
    DFA::builder().configure(config).build_from_nfa(nfa).map_err(|error| error.to_string())
}

/// Bytes, not characters: without Unicode's tables, which would weigh more than everything else here.
fn nfa<P: AsRef<str>>(patterns: &[P]) -> Result<NFA, String> {
    let syntax = syntax::Config::new().unicode(false).utf8(false).nest_limit(NEST_MAX_LEVELS);
    let config = thompson::Config::new().utf8(false).nfa_size_limit(Some(COMPILED_MAX_BYTES));
    let built = thompson::Compiler::new().syntax(syntax).configure(config).build_many(patterns);
    built.map_err(|error| {
        // The parser draws the expression with a mark below; its last line says what is wrong.
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let text = source.unwrap_or_else(|| error.to_string());
        text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(patterns: &[&str], text: &str) -> Vec<String> {
        let mut spans = Vec::new();
        Patterns::compile(patterns).unwrap().find(text, &mut spans);
        spans
            .iter()
            .map(|span| String::from_utf8_lossy(&text.as_bytes()[span.start..span.end]).into_owned())
            .collect()
    }

    #[test]
    fn groups_are_found_where_there_are_some_and_else_the_whole() {
        assert_eq!(found(&[r"password=(\S+)"], "a password=x1 b password=y2"), ["x1", "y2"]);
        assert_eq!(found(&[r"(?:a)=\d+"], "a=12 b=3 a=4"), ["a=12", "a=4"]);
        assert_eq!(found(&[r"(a)|b"], "ab"), ["a", "b"]);
        assert_eq!(found(&["x*"], "é"), ["", "", ""], "nothing at each place");
    }

    #[test]
    fn expressions_do_not_hide_what_others_find() {
        assert_eq!(found(&[r"user=\w+", r"\w+@x\.com"], "user=bob@x.com"), ["user=bob", "bob@x.com"]);
    }

    #[test]
    fn a_match_that_looks_to_the_end_of_the_text_each_time_is_bounded() {
        let text = "a".repeat(1 << 20);
        // To the end for each letter, this would be 2³⁹ steps.
        let all = found(&["a(?:.*b)?"], &text);
        assert_eq!(all.concat(), text, "what could not be looked at is taken for found");
        assert!(all.len() < 2 * PASSES_MAX, "{}", all.len());
        let few = "a".repeat(60);
        assert_eq!(found(&["a(?:.*b)?"], &few), vec!["a"; 60]);
        // Honest ones go on for as long as the text does.
        let many = "id=7 ".repeat(50_000);
        assert_eq!(found(&[r"id=(\d+)"], &many), vec!["7"; 50_000]);
        assert_eq!(found(&[r"\bid\b|7$"], &many).len(), 50_000);
    }

    #[test]
    fn what_is_wrong_is_said_on_one_line() {
        for (pattern, why) in [
            ("a(b", "unclosed group"),
            (r"\p{Greek}", "Unicode"),
            ("((a{100}){100}){100}", "limit"),
            (&format!("{}a{}", "(".repeat(100), ")".repeat(100)), "nest"),
            (&"a".repeat(PATTERN_MAX_BYTES + 1), "longer than"),
        ] {
            let said = Patterns::compile(&[pattern]).unwrap_err();
            assert!(said.contains(why) && !said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn bytes_beyond_ascii_are_matched_as_they_are_written() {
        assert_eq!(found(&["senha é (.+)$"], "a senha é ação"), ["ação"]);
        assert_eq!(found(&[r"(?i)TOKEN=([^&]+)"], "?token=ü&x"), ["ü"]);
    }
}
