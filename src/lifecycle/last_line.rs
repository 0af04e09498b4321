//! The last line of the process: what became of everything.

use crate::PerSignal;
use crate::keeper::{Fared, Summary};

/// The line.
pub(super) fn last_line(summary: &Summary, has_fallback: bool, egress_bytes: u64) -> String {
    let Summary { received, main, further, rules } = summary;
    let Fared { delivered, handed, .. } = main;
    let (left, dropped) = left_and_dropped(main);
    let further: Vec<String> = further
        .iter()
        .map(|(name, fared)| {
            let (left, dropped) = left_and_dropped(fared);
            format!("; {name}: {} delivered, {left}, {dropped}", fared.delivered)
        })
        .collect();
    let further = further.concat();
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
        "shutdown: {received} records received, {delivered} delivered{handed}, {left}, {dropped}{further}{by_rule}; {egress_bytes} bytes sent"
    )
}

fn left_and_dropped(fared: &Fared) -> (String, String) {
    let left = by_signal("left on disk", &PerSignal::from_fn(|signal| fared.waiting.get(signal).records));
    (left, by_signal("dropped", &fared.dropped))
}

/// What became of so many records of each signal.
fn by_signal(what: &str, counts: &PerSignal<u64>) -> String {
    let total: u64 = counts.iter().map(|(_, count)| *count).sum();
    let told = counts.iter().filter(|(_, count)| **count > 0);
    let told: Vec<String> = told.map(|(signal, count)| format!("{count} {signal}")).collect();
    if told.is_empty() { format!("0 {what}") } else { format!("{total} {what} ({})", told.join(", ")) }
}
