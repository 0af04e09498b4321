//! Names of variables: which are ours, and what a misspelt one was probably meant to be.

use super::problem::Problem;
use super::settings::SETTINGS;

/// All our variables start with this.
pub(super) const PREFIX: &str = "OUTLAST_";

/// Variables for exporters of OTLP start with this.
pub(super) const OTLP_PREFIX: &str = "OTEL_EXPORTER_OTLP_";

/// Whether `name` is a standard variable that we read or have something to say about.
pub(super) fn is_standard(name: &str) -> bool {
    SETTINGS
        .iter()
        .any(|setting| setting.name == name || setting.standard.iter().any(|standard| standard.name == name))
}

/// What to say about a variable that is set, if no setting reads it.
pub(super) fn unknown(name: &str) -> Option<Problem> {
    if SETTINGS.iter().any(|setting| setting.name == name) || !name.starts_with(PREFIX) {
        return None;
    }
    let accepted = match nearest(name) {
        Some(known) => format!("not a setting; the nearest is {known}"),
        None => "not a setting".to_owned(),
    };
    Some(Problem { variable: name.to_owned(), value: None, accepted, consequence: "ignored".to_owned() })
}

/// The setting whose name takes the fewest edits, if that is under half of what follows the prefix.
fn nearest(name: &str) -> Option<&'static str> {
    let typed = name.strip_prefix(PREFIX)?;
    SETTINGS
        .iter()
        .filter_map(|setting| setting.name.strip_prefix(PREFIX).map(|own| (edits(typed, own), setting.name)))
        .min()
        .filter(|(edits, known)| *edits * 2 < known.len() - PREFIX.len())
        .map(|(_, known)| known)
}

/// Levenshtein distance: insertions, deletions and replacements that turn `from` into `to`.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (line, a) in from.chars().enumerate() {
        let mut left = line + 1;
        let mut diagonal = line;
        for (cell, b) in row.iter_mut().skip(1).zip(to.chars()) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_answered_with_the_nearest() {
        assert_eq!(nearest("OUTLAST_TIMEOT"), Some("OUTLAST_TIMEOUT"));
        assert_eq!(nearest("OUTLAST_END_POINT"), Some("OUTLAST_ENDPOINT"));
        assert_eq!(nearest("OUTLAST_QUEUE_MAX_BYTE"), Some("OUTLAST_QUEUE_MAX_BYTES"));
        assert_eq!(nearest("OUTLAST_SOMETHING_ELSE_ENTIRELY"), None);
    }

    #[test]
    fn edits_are_counted_as_levenshtein_did() {
        for (from, to, count) in
            [("", "", 0), ("a", "", 1), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(edits(from, to), count, "{from} {to}");
        }
    }
}
