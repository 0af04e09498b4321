//! The timeline as an SVG: backlog, lines, added time and memory over the same axis of time.
//!
//! Colours are CSS variables of the page, so that one drawing serves light and dark.

use crate::{
    spread::{mib, ms, thousands},
    story::{Sample, Story},
};

const WIDTH: f64 = 1000.0;
/// Room for the labels of the vertical axes.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 8.0;
/// Room for the names of the phases.
const TOP: f64 = 44.0;
const PANEL_HEIGHT: f64 = 130.0;
const PANEL_GAP: f64 = 34.0;
/// Room for the axis of time.
const BOTTOM: f64 = 24.0;
/// Added times of invocations reach from under 0.01 ms to tens of them: the smallest that is drawn apart
/// from zero.
const ADDED_FLOOR_US: f64 = 10.0;

const WAITING: &str = "log lines acknowledged and not yet delivered (a red line: lost)";
/// The axis of added times reaches at least to here, or a fraction of a millisecond would look like much.
const ADDED_TOP_US: u64 = 10_000;

/// Axes of one panel.
struct Panel {
    top: f64,
    until_ms: f64,
    max: f64,
}

impl Panel {
    fn new(index: u8, until_ms: u64, max: f64) -> Self {
        let top = TOP + f64::from(index) * (PANEL_HEIGHT + PANEL_GAP);
        Self { top, until_ms: float(until_ms).max(1.0), max: max.max(1.0) }
    }

    fn x(&self, at_ms: u64) -> f64 {
        LEFT + float(at_ms) / self.until_ms * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        self.top + PANEL_HEIGHT * (1.0 - (value / self.max).clamp(0.0, 1.0))
    }

    fn bottom(&self) -> f64 {
        self.top + PANEL_HEIGHT
    }

    /// Title, base line, and the label of the top.
    fn frame(&self, title: &str, top_label: &str) -> String {
        let (top, bottom, right) = (self.top, self.bottom(), WIDTH - RIGHT);
        format!(
            "<text class=title x={LEFT} y={:.1}>{title}</text>\
             <line class=axis x1={LEFT} x2={right} y1={bottom} y2={bottom} />\
             <line class=grid x1={LEFT} x2={right} y1={top} y2={top} />\
             <text class=label x={:.1} y={:.1} text-anchor=end>{top_label}</text>\
             <text class=label x={:.1} y={:.1} text-anchor=end>0</text>\n",
            top - 8.0,
            LEFT - 6.0,
            top + 4.0,
            LEFT - 6.0,
            bottom + 4.0,
        )
    }

    fn path(&self, points: impl Iterator<Item = (u64, f64)>) -> String {
        let points: Vec<_> =
            points.map(|(at_ms, value)| format!("{:.1},{:.1}", self.x(at_ms), self.y(value))).collect();
        points.join(" ")
    }

    fn line(&self, class: &str, points: impl Iterator<Item = (u64, f64)>) -> String {
        format!("<polyline class={class} points=\"{}\" />\n", self.path(points))
    }

    /// A line with the area under it filled.
    fn area(&self, class: &str, points: impl Iterator<Item = (u64, f64)> + Clone) -> String {
        let mut ends = points.clone().map(|(at_ms, _)| at_ms);
        let Some(first) = ends.next() else { return String::new() };
        let last = ends.last().unwrap_or(first);
        let bottom = self.bottom();
        let (from, to) = (self.x(first), self.x(last));
        format!(
            "<polygon class={class}-area points=\"{from:.1},{bottom} {} {to:.1},{bottom}\" />\n{}",
            self.path(points.clone()),
            self.line(class, points),
        )
    }
}

/// The whole drawing.
pub(crate) fn svg(story: &Story) -> String {
    let until = story.samples.last().map_or(1, |sample| sample.at_ms);
    let height = TOP + 4.0 * PANEL_HEIGHT + 3.0 * PANEL_GAP + BOTTOM;
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=img aria-label=\"Timeline of the demo\">\n");
    svg.push_str(&phases(story, until, height));
    svg.push_str(&waiting(story, until));
    svg.push_str(&lines(story, until));
    svg.push_str(&added(story, until));
    svg.push_str(&memory(story, until));
    svg.push_str(&marks(story, until, height));
    svg.push_str(&time_axis(until, height));
    svg.push_str("</svg>\n");
    svg
}

/// A band for each phase, tinted where the backend took nothing.
fn phases(story: &Story, until_ms: u64, height: f64) -> String {
    let axis = Panel::new(0, until_ms, 1.0);
    let bands = story.phases.iter().map(|phase| {
        let (from, to) = (axis.x(phase.from_ms), axis.x(phase.to_ms));
        let class = if phase.outage { "outage" } else { "fine" };
        format!(
            "<rect class={class} x={from:.1} y=0 width={:.1} height={:.1}><title>{}: {}</title></rect>\
             <text class=phase x={:.1} y=15 text-anchor=middle>{}</text>\n",
            (to - from).max(0.0),
            height - BOTTOM,
            escape(&phase.name),
            escape(&phase.what),
            f64::midpoint(from, to),
            escape(&phase.name),
        )
    });
    join(bands)
}

fn waiting(story: &Story, until_ms: u64) -> String {
    let most = story.samples.iter().map(|sample| sample.waiting.max(sample.lost)).max().unwrap_or_default();
    let panel = Panel::new(0, until_ms, float(most));
    let points = story.samples.iter().map(|sample: &Sample| (sample.at_ms, float(sample.waiting)));
    let mut svg = panel.frame(WAITING, &thousands(most)) + &panel.area("waiting", points);
    if story.samples.iter().any(|sample| sample.lost > 0) {
        svg.push_str(&panel.line("lost", story.samples.iter().map(|at| (at.at_ms, float(at.lost)))));
    }
    svg
}

fn lines(story: &Story, until_ms: u64) -> String {
    let most = story.samples.iter().map(|sample| sample.acknowledged).max().unwrap_or_default();
    let panel = Panel::new(1, until_ms, float(most));
    let title = "log lines <tspan class=acknowledged-text>acknowledged</tspan> and \
                 <tspan class=delivered-text>delivered</tspan>";
    panel.frame(title, &thousands(most))
        + &panel.line("acknowledged", story.samples.iter().map(|at| (at.at_ms, float(at.acknowledged))))
        + &panel.line("delivered", story.samples.iter().map(|at| (at.at_ms, float(at.delivered))))
}

/// A dot for each invocation, the height by the logarithm.
fn added(story: &Story, until_ms: u64) -> String {
    let most_us =
        story.invocations.iter().filter_map(|row| row.added_us).max().unwrap_or_default().max(ADDED_TOP_US);
    let height = |us: u64| (float(us).max(ADDED_FLOOR_US) / ADDED_FLOOR_US).log10();
    let panel = Panel::new(2, until_ms, height(most_us));
    let frame = panel.frame(
        "milliseconds added per invocation, logarithmic (hollow: the first 10 of an environment)",
        &ms(most_us),
    );
    let decades = [100, 1_000, 10_000, 100_000].into_iter().filter(|us| *us * 3 / 2 < most_us).map(|us| {
        let y = panel.y(height(us));
        format!(
            "<line class=grid x1={LEFT} x2={} y1={y:.1} y2={y:.1} />\
             <text class=label x={} y={:.1} text-anchor=end>{}</text>\n",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            ms(us),
        )
    });
    let dots = story.invocations.iter().filter_map(|row| {
        let us = row.added_us?;
        let class = if row.first { "first" } else { "dot" };
        let (x, y) = (panel.x(row.at_ms), panel.y(height(us)));
        let title = ms(us);
        Some(format!("<circle class={class} cx={x:.1} cy={y:.1} r=2><title>{title} ms</title></circle>\n"))
    });
    frame + &join(decades) + &join(dots)
}

fn memory(story: &Story, until_ms: u64) -> String {
    let most = story.samples.iter().filter_map(|sample| sample.rss_kib).max().unwrap_or_default();
    let panel = Panel::new(3, until_ms, float(most));
    let points = story.samples.iter().filter_map(|sample| Some((sample.at_ms, float(sample.rss_kib?))));
    panel.frame("resident memory of the extension, MiB", &mib(most)) + &panel.line("memory", points)
}

fn marks(story: &Story, until_ms: u64, height: f64) -> String {
    let axis = Panel::new(0, until_ms, 1.0);
    let marks = story.marks.iter().map(|mark| {
        let x = axis.x(mark.at_ms);
        // Near the right edge the text stands to the left of its line.
        let (anchor, shift) = if x > WIDTH * 0.85 { ("end", -4.0) } else { ("start", 4.0) };
        format!(
            "<line class=mark x1={x:.1} x2={x:.1} y1=22 y2={:.1} />\
             <text class=mark-text x={:.1} y=31 text-anchor={anchor}>{}</text>\n",
            height - BOTTOM,
            x + shift,
            escape(&mark.what),
        )
    });
    join(marks)
}

fn time_axis(until_ms: u64, height: f64) -> String {
    const STEPS_S: [u64; 7] = [1, 2, 5, 10, 30, 60, 300];
    const LABELS_MAX: u64 = 14;
    let axis = Panel::new(0, until_ms, 1.0);
    let seconds = until_ms / 1000;
    let step = STEPS_S.into_iter().find(|step| seconds / step <= LABELS_MAX).unwrap_or(seconds.max(1));
    let labels = (0..=seconds / step).map(|at| {
        let seconds = at * step;
        let x = axis.x(seconds * 1000);
        format!("<text class=label x={x:.1} y={:.1} text-anchor=middle>{seconds} s</text>\n", height - 6.0)
    });
    join(labels)
}

/// Pieces of markup in a row.
pub(crate) fn join(pieces: impl Iterator<Item = String>) -> String {
    pieces.collect::<Vec<_>>().concat()
}

/// For text and attributes of HTML.
pub(crate) fn escape(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            other => other.to_string(),
        })
        .collect()
}

/// For drawing, where no count comes near the 2^53 up to which this is exact.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn float(number: impl TryInto<u64>) -> f64 {
    number.try_into().unwrap_or(u64::MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panel_maps_time_and_value_into_itself() {
        let panel = Panel::new(0, 1000, 50.0);
        assert!((panel.x(0) - LEFT).abs() < 0.01 && (panel.x(1000) - (WIDTH - RIGHT)).abs() < 0.01);
        assert!((panel.y(0.0) - panel.bottom()).abs() < 0.01);
        assert!((panel.y(50.0) - panel.top).abs() < 0.01);
        assert!(panel.y(1e9) >= panel.top, "clamped");
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }
}
