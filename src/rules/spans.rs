//! Places in a text that are to be replaced.

/// A place, in bytes, and what stands there afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The quote that has to stand around the replacement, and the backslashes before it.
    pub(super) quote: Option<(char, usize)>,
}

impl Span {
    /// A place whose surroundings stay what they are.
    pub(super) const fn plain(start: usize, end: usize) -> Self {
        Self { start, end, quote: None }
    }
}

/// `text` with `with` in each of the places, or `None` if there are none. The places may lie in any order and over one
/// another, and within a character, which then goes as a whole. They are used up.
pub(super) fn replace(text: &str, spans: &mut Vec<Span>, with: &str) -> Option<String> {
    spans.retain(|span| span.start < span.end);
    if spans.is_empty() {
        return None;
    }
    spans.sort_unstable_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    let mut out = String::with_capacity(text.len() + with.len());
    let mut copied = 0;
    let mut rest = spans.drain(..).peekable();
    while let Some(Span { start, mut end, quote }) = rest.next() {
        while let Some(next) = rest.next_if(|next| next.start < end) {
            end = end.max(next.end);
        }
        let (start, end) = (floor(text, start.max(copied)), ceil(text, end));
        out.push_str(text.get(copied..start).unwrap_or_default());
        let edge = quote.map(|(mark, escapes)| format!("{}{mark}", "\\".repeat(escapes))).unwrap_or_default();
        if start < end {
            out.extend([edge.as_str(), with, &edge]);
        }
        copied = end.max(copied);
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Some(out)
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn ceil(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str, spans: &[(usize, usize)]) -> Option<String> {
        replace(text, &mut spans.iter().map(|&(start, end)| Span::plain(start, end)).collect(), "#")
    }

    #[test]
    fn places_are_joined_where_they_meet_and_characters_go_whole() {
        assert_eq!(replaced("abcdef", &[]), None);
        assert_eq!(replaced("abcdef", &[(3, 3)]), None);
        assert_eq!(replaced("abcdef", &[(4, 5), (0, 2), (1, 3)]).as_deref(), Some("#d#f"));
        assert_eq!(replaced("aéb", &[(2, 3)]).as_deref(), Some("a#b"));
        assert_eq!(replaced("éé", &[(0, 1), (1, 3)]).as_deref(), Some("##"));
    }

    #[test]
    fn a_quoted_place_keeps_its_quotes() {
        let mut spans = vec![Span { start: 1, end: 3, quote: Some(('"', 1)) }];
        assert_eq!(replace("a12b", &mut spans, "#").as_deref(), Some("a\\\"#\\\"b"));
    }
}
