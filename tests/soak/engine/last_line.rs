//! What the extension's last line says.

/// The name of the further destination.
pub(crate) const FURTHER: &str = "further";

/// How many log records the last line says were dropped since the queue was made: for the backend, and for the further
/// destination if there is one. Nothing if it says that something is left on disk for either.
pub(crate) fn dropped_if_drained(line: &str, has_further: bool) -> Option<(u64, u64)> {
    let mut parts = line.split("; ");
    let (left, dropped) = counts(parts.next()?)?;
    let further = parts.find_map(|part| part.strip_prefix(FURTHER));
    let (left_for_further, dropped_for_further) = match further {
        Some(part) if has_further => counts(part)?,
        None if has_further => return None,
        _ => (0, 0),
    };
    (left + left_for_further == 0).then_some((dropped, dropped_for_further))
}

/// What a part of the last line says is left on disk, of all signals, and how many log records were dropped.
fn counts(line: &str) -> Option<(u64, u64)> {
    let (left, rest) = line.split_once(" left on disk")?;
    let (_, dropped) = rest.split_once(" dropped")?;
    let mut by_signal = dropped.split(')').next()?.trim_start_matches(" (").split(", ");
    let logs = by_signal.find_map(|count| count.strip_suffix(" logs")).unwrap_or("0");
    Some((left.rsplit(' ').next()?.parse().ok()?, logs.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_of_either_destination_if_nothing_is_left() {
        let line = |left: u64, rest: &str| {
            format!(
                "shutdown: 9 received, {left} left on disk, 7 dropped (3 logs, 4 spans) since it was made{rest}"
            )
        };
        assert_eq!(dropped_if_drained(&line(0, ""), false), Some((3, 0)));
        assert_eq!(dropped_if_drained(&line(1, ""), false), None);
        assert_eq!(dropped_if_drained(&line(0, ""), true), None, "nothing is said of the other");
        let further = "; further: 5 delivered, 0 left on disk, 2 dropped (2 logs)";
        assert_eq!(dropped_if_drained(&line(0, further), true), Some((3, 2)));
        let further = "; further: 5 delivered, 1 left on disk, 0 dropped";
        assert_eq!(dropped_if_drained(&line(0, further), true), None);
    }
}
