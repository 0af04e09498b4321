//! What a run is told as: a table for people, and a drawing.

use crate::backend::SECOND;
use crate::measure::{Figures, Wave};
use crate::plot::{Chart, Line, Panel, number};
use crate::simulation::{OUTAGE_FROM, Scenario};

/// Seconds of each point of a drawing.
const STEP: usize = 5;

pub(crate) fn tell(scenario: &Scenario, figures: &Figures) {
    let Figures { steady, capacity, outage_mean, outage_peak, peak, peak_of_work, turned_away, .. } = figures;
    println!("\n{}: {}", scenario.name, scenario.what);
    println!("  before: {} requests a second; the backend can take {}", number(*steady), number(*capacity));
    println!("  in the outage: {} in the mean, {outage_peak} in the busiest second", number(*outage_mean));
    println!(
        "  after it: {peak} requests in the busiest second ({:.2} of what it can take), {:.2} of its work in the busiest \
         10 s, {:.1} % turned away",
        f64::from(*peak) / capacity,
        peak_of_work,
        100.0 * turned_away
    );
    let seconds = |time: std::time::Duration| format!("{:.0} s", time.as_secs_f64());
    println!(
        "  99 % of the backlog delivered after {}; oldest telemetry ever waiting {}; dropped {} bytes, repeated {:.3} %",
        figures.drained.map_or("never".to_owned(), seconds),
        seconds(figures.oldest),
        figures.dropped,
        100.0 * figures.repeated
    );
    let fairness = &figures.fairness;
    println!(
        "  environments had caught up after {} (median, 90 %, 99 %, last); by volume {}; Jain's index {:.2}",
        fairness.caught_up.map(seconds).join(", "),
        fairness.by_volume.map(seconds).join(", "),
        fairness.jain
    );
    let wave = |Wave { seconds, amplitude, chance }: Wave| {
        format!(
            "{:.1} % of the rate at {seconds:.1} s (chance alone: {:.1} %)",
            100.0 * amplitude,
            100.0 * chance
        )
    };
    println!("  strongest wave in the outage {}", wave(figures.wave_in_outage));
    println!("  strongest wave after it {}", wave(figures.wave_after));
}

pub(crate) fn charts(figures: &Figures) -> [Chart; 2] {
    [course(figures), correlation(figures)]
}

/// Rates and backlog over time.
fn course(figures: &Figures) -> Chart {
    let seconds: Vec<_> = figures.seconds.chunks(STEP).collect();
    let from = (OUTAGE_FROM / SECOND) as f64;
    let line = |name: &str, of: &dyn Fn(&crate::measure::Second) -> f64| Line {
        name: name.to_owned(),
        points: seconds
            .iter()
            .enumerate()
            .map(|(at, step)| {
                let mean = step.iter().map(of).sum::<f64>() / step.len() as f64;
                (((at * STEP) as f64 - from) / 60.0, mean)
            })
            .collect(),
    };
    let panel = |title: &str, lines: Vec<Line>, levels: Vec<(f64, String)>| Panel {
        title: title.to_owned(),
        lines,
        levels,
        by_powers: false,
    };
    Chart {
        axis: "minutes since the beginning of the outage".to_owned(),
        by_powers: false,
        panels: vec![
            panel(
                "requests a second",
                vec![
                    line("arriving", &|second| f64::from(second.requests)),
                    line("taken", &|second| f64::from(second.taken)),
                ],
                vec![(figures.capacity, "what the backend can take".to_owned())],
            ),
            panel(
                "work asked of the backend, in backends",
                vec![line("", &|second| second.work / SECOND as f64)],
                vec![(1.0, "what it can do".to_owned()), (2.0, "twice that".to_owned())],
            ),
            panel(
                "waiting in the fleet, MB",
                vec![line("", &|second| second.waiting as f64 / 1e6)],
                Vec::new(),
            ),
            panel(
                "age of the oldest telemetry, minutes",
                vec![line("", &|second| second.oldest as f64 / SECOND as f64 / 60.0)],
                Vec::new(),
            ),
        ],
    }
}

fn correlation(figures: &Figures) -> Chart {
    let line = |name: &str, values: &[f64]| Line {
        name: name.to_owned(),
        points: values
            .iter()
            .enumerate()
            .skip(1)
            .map(|(lag, value)| (lag as f64 / 4.0, value.abs()))
            .collect(),
    };
    Chart {
        axis: "seconds apart".to_owned(),
        by_powers: false,
        panels: vec![Panel {
            title: "how much arrivals repeat (autocorrelation without the trend, absolute)".to_owned(),
            lines: vec![
                line("in the outage", &figures.correlation_in_outage),
                line("while it drains", &figures.correlation),
            ],
            levels: vec![(1.0, "a fleet in step".to_owned())],
            by_powers: false,
        }],
    }
}
