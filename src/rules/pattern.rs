//! Regular expressions, in time that grows with the text alone. The only file that names the engine.
//!
//! All expressions of a list are one automaton, made state by state as texts need it, which says in one pass whether any of
//! them is found. Only where one is, each is asked for places and groups.

use super::spans::Span;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::pikevm::{self, PikeVM};
use regex_automata::nfa::thompson::{self, NFA};
use regex_automata::util::captures::Captures;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind};

/// The longest expression.
pub(super) const PATTERN_MAX_BYTES: usize = 4 << 10;
/// What an expression, and what a list of them, may take once it is compiled: repetitions such as `(a{1000}){1000}` are
/// short to write.
const COMPILED_MAX_BYTES: usize = 256 << 10;
/// Groups within groups: the parser calls itself for each.
const NEST_MAX_LEVELS: u32 = 50;
/// Memory for the states of an automaton. It begins anew when they are full; the least that works is taken if this is not enough.
const STATES_MAX_BYTES: usize = 512 << 10;

/// Expressions of which any may be found.
#[derive(Clone, Debug)]
pub(super) struct Patterns {
    any: DFA,
    states: Cache,
    each: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
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
            let vm = nfa(&[pattern]).and_then(|nfa| PikeVM::new_from_nfa(nfa).map_err(|e| e.to_string()));
            let vm = vm.map_err(|why| format!("`{pattern}` is not taken: {why}"))?;
            each.push(Pattern { cache: vm.create_cache(), found: vm.create_captures(), vm });
        }
        // All matches count, not the first: nothing but whether there is one is asked.
        let config = DFA::config()
            .match_kind(MatchKind::All)
            .cache_capacity(STATES_MAX_BYTES)
            .skip_cache_capacity_check(true);
        let any = nfa(patterns)
            .and_then(|nfa| DFA::builder().configure(config).build_from_nfa(nfa).map_err(|e| e.to_string()))
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
            let groups = one.vm.get_nfa().group_info().group_len(regex_automata::PatternID::ZERO);
            let mut from = 0;
            while from <= text.len() {
                let input = Input::new(text.as_bytes()).span(from..text.len());
                one.vm.search(&mut one.cache, &input, &mut one.found);
                let Some(whole) = one.found.get_match() else { break };
                let noted = spans.len();
                let places = (1..groups).filter_map(|group| one.found.get_group(group));
                spans.extend(places.map(|place| Span::plain(place.start, place.end)));
                if spans.len() == noted {
                    spans.push(Span::plain(whole.start(), whole.end()));
                }
                from = if whole.is_empty() { whole.end() + 1 } else { whole.end() };
            }
        }
    }
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
