//! The last line of the process: what became of everything.

use crate::PerSignal;
use crate::keeper::Summary;

/// The line.
pub(super) fn last_line(summary: &Summary, has_fallback: bool, egress_bytes: u64) -> String {
    let Summary { received, delivered, handed, dropped, waiting, rules } = summary;
    let left = by_signal("left on disk", &PerSignal::from_fn(|signal| waiting.get(signal).records));
    let dropped = by_signal("dropped", dropped);
    let handed = if has_fallback || *handed > 0 {
        format!(", {handed} handed to the fallback")
    } else {
        String::new()
    };
    let acted = rules.iter().filter(|rule| rule.records > 0);
    let by_rule: Vec<String> =
        acted.map(|rule| format!("\"{}\" {} {}", rule.name, rule.done, rule.records)).collect();
    let by_rule =
        if by_rule.is_empty() { String::new() } else { format!("; by rules: {}", by_rule.join(", ")) };
    format!(
        "shutdown: {received} records received, {delivered} delivered{handed}, {left}, {dropped}{by_rule}; {egress_bytes} bytes sent"
    )
}

/// What became of so many records of each signal.
fn by_signal(what: &str, counts: &PerSignal<u64>) -> String {
    let total: u64 = counts.iter().map(|(_, count)| *count).sum();
    let told = counts.iter().filter(|(_, count)| **count > 0);
    let told: Vec<String> = told.map(|(signal, count)| format!("{count} {signal}")).collect();
    if told.is_empty() { format!("0 {what}") } else { format!("{total} {what} ({})", told.join(", ")) }
}
