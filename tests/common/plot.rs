//! Line charts as SVG, for figures that are committed: panels one below the other over one axis.

const WIDTH: f64 = 900.0;
/// Room for the labels of the vertical axes, and of the axis below.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const PANEL_HEIGHT: f64 = 140.0;
const PANEL_GAP: f64 = 40.0;
const BOTTOM: f64 = 40.0;

/// Told apart by lightness too.
const COLOURS: [&str; 6] = ["#1f5fa8", "#d9822b", "#3a9a5b", "#8a4fa3", "#b8303b", "#6b6b6b"];

const STYLE: &str = "<style>text{font:12px sans-serif;fill:#333}.t{font-weight:bold}polyline{fill:none;stroke-width:1.4}\
                     .a{stroke:#888}.g{stroke:#ddd}</style>";

/// One line: a name and points.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// One drawing among several that share an axis.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
    /// Values at which a level line is drawn, with what it means.
    pub(crate) levels: Vec<(f64, String)>,
    /// Whether the axis of values is logarithmic.
    pub(crate) by_powers: bool,
}

/// The whole.
pub(crate) struct Chart {
    /// What the axis below means.
    pub(crate) axis: String,
    /// Whether that axis is logarithmic.
    pub(crate) by_powers: bool,
    pub(crate) panels: Vec<Panel>,
}

/// An axis: where values lie between 0 and 1. It reaches to zero, unless it is logarithmic.
struct Scale {
    least: f64,
    most: f64,
    by_powers: bool,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone, by_powers: bool) -> Self {
        let shown = values.filter(|value| value.is_finite() && (!by_powers || *value > 0.0));
        let most = shown.clone().fold(f64::MIN_POSITIVE, f64::max);
        let least = shown.fold(if by_powers { most } else { 0.0 }, f64::min);
        Self { least, most: if most > least + 1e-12 { most } else { least + 1.0 }, by_powers }
    }

    fn place(&self, value: f64) -> f64 {
        let share = if self.by_powers {
            (value.max(self.least) / self.least).ln() / (self.most / self.least).ln()
        } else {
            (value - self.least) / (self.most - self.least)
        };
        share.clamp(0.0, 1.0)
    }

    /// Where labels go: the decades, or round numbers from zero on.
    fn marks(&self) -> Vec<f64> {
        if !self.by_powers {
            let rough = self.most / 5.0;
            let power = 10_f64.powf(rough.log10().floor());
            let round = [1.0, 2.0, 5.0].into_iter().map(|step| step * power).find(|step| *step >= rough);
            let step = round.unwrap_or(10.0 * power);
            return (0..=5).map(|count| step * f64::from(count)).filter(|mark| *mark <= self.most).collect();
        }
        let (from, to) = (self.least.log10().ceil() as i32, self.most.log10().floor() as i32);
        let mut marks: Vec<f64> = (from..=to).map(|power| 10_f64.powi(power)).collect();
        if marks.len() < 2 {
            marks = vec![self.least, self.most];
        }
        marks
    }
}

/// A number with as many places as it takes to tell it from its neighbours.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size.is_nan() => "-".to_owned(),
        size if size >= 10_000.0 => {
            let digits = format!("{value:.0}");
            let head = digits.len() % 3;
            let groups = digits.as_bytes()[head..].chunks(3).map(|group| String::from_utf8_lossy(group));
            let mut all: Vec<_> = groups.collect();
            if head > 0 {
                all.insert(0, digits[..head].into());
            }
            all.join(",")
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Adds a line of markup.
fn add(svg: &mut String, markup: &str) {
    svg.push_str(markup);
    svg.push('\n');
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Chart {
    /// The drawing, with its own light ground: it is looked at outside of any page.
    pub(crate) fn svg(&self) -> String {
        let count = self.panels.len() as f64;
        let height = TOP + count * PANEL_HEIGHT + (count - 1.0) * PANEL_GAP + BOTTOM;
        let points = self.panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
        let across = Scale::of(points.map(|(x, _)| *x), self.by_powers);
        let x = |value: f64| LEFT + across.place(value) * (WIDTH - LEFT - RIGHT);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\">{STYLE}\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
        );
        for (index, panel) in self.panels.iter().enumerate() {
            let top = TOP + index as f64 * (PANEL_HEIGHT + PANEL_GAP);
            panel.draw(&mut svg, top, &x);
            for mark in across.marks() {
                let (at, bottom) = (x(mark), top + PANEL_HEIGHT);
                add(
                    &mut svg,
                    &format!(
                        "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                        bottom + 15.0,
                        number(mark)
                    ),
                );
            }
        }
        add(
            &mut svg,
            &format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n</svg>",
                f64::midpoint(LEFT, WIDTH - RIGHT),
                height - 6.0,
                escape(&self.axis)
            ),
        );
        svg
    }
}

impl Panel {
    fn draw(&self, svg: &mut String, top: f64, x: &impl Fn(f64) -> f64) {
        let values = self.lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
        let levels = self.levels.iter().map(|(level, _)| *level);
        let scale = Scale::of(values.chain(levels), self.by_powers);
        let y = |value: f64| top + PANEL_HEIGHT * (1.0 - scale.place(value));
        let (right, bottom) = (WIDTH - RIGHT, top + PANEL_HEIGHT);
        add(
            svg,
            &format!(
                "<text class=\"t\" x=\"{LEFT}\" y=\"{:.1}\">{}</text>\
             <line class=\"a\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>",
                top - 10.0,
                escape(&self.title)
            ),
        );
        for mark in scale.marks() {
            let at = y(mark);
            add(
                svg,
                &format!(
                    "<line class=\"g\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    LEFT - 6.0,
                    at + 4.0,
                    number(mark)
                ),
            );
        }
        for (level, name) in &self.levels {
            let at = y(*level);
            add(
                svg,
                &format!(
                    "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#b8303b\" stroke-dasharray=\"4 3\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" style=\"fill:#b8303b\">{}</text>",
                    right,
                    at - 4.0,
                    escape(name)
                ),
            );
        }
        for (index, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let points: Vec<String> = line
                .points
                .iter()
                .filter(|(_, value)| value.is_finite())
                .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)))
                .collect();
            add(svg, &format!("<polyline stroke=\"{colour}\" points=\"{}\"/>", points.join(" ")));
            if self.lines.len() > 1 {
                add(
                    svg,
                    &format!(
                        "<text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:{colour}\">{}</text>",
                        LEFT + 8.0,
                        top + 12.0 + 14.0 * index as f64,
                        escape(&line.name)
                    ),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_of_powers_puts_decades_at_equal_distances() {
        let scale = Scale::of([1.0, 1_000.0].into_iter(), true);
        assert!((scale.place(10.0) - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(scale.marks().len(), 4);
        let scale = Scale::of([5.0, 23.0].into_iter(), false);
        assert!((scale.place(5.0) - 5.0 / 23.0).abs() < 1e-9, "from zero");
        assert_eq!(scale.marks(), [0.0, 5.0, 10.0, 15.0, 20.0]);
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [0.0, 0.004, 1.5, 1_234.0, 1_234_567.0].map(number),
            ["0", "0.0040", "1.50", "1234", "1,234,567"]
        );
    }
}
