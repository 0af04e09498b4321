//! What is counted, second by second, and what becomes of it.

use std::time::Duration;

use crate::backend::{Micros, SECOND};
use crate::simulation::OUTAGE_FROM;

/// Arrivals are counted this finely, to see waves.
const FINE: Micros = SECOND / 4;
/// Waves are looked for between these periods. Shorter ones even out in any server's queue; longer ones are the course of
/// the recovery itself.
const WAVE_MIN_SECONDS: usize = 2;
const WAVE_MAX_SECONDS: usize = 90;
/// The course of things, which is no wave: a mean over so many seconds around.
const COURSE_SECONDS: usize = 60;
/// Work is looked at over so many seconds: a request of a megabyte is much of a small backend's second.
const WORK_SECONDS: usize = 10;
/// What follows the beginning of an outage or its end at once is its edge.
const EDGE: Micros = 30 * SECOND;

/// Of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Second {
    pub(crate) requests: u32,
    pub(crate) taken: u32,
    /// Bytes offered, those of requests that failed included.
    pub(crate) offered: u64,
    /// Microseconds of work that the backend was asked for.
    pub(crate) work: f64,
    /// Bytes waiting in the fleet at the end of it.
    pub(crate) waiting: u64,
    pub(crate) oldest: Micros,
}

#[derive(Debug, Default)]
pub(crate) struct Series {
    pub(crate) seconds: Vec<Second>,
    fine: Vec<u32>,
    pub(crate) dropped: u64,
    repeated: u64,
    delivered: u64,
}

/// In the mean, a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) requests: f64,
    pub(crate) bytes: f64,
}

fn at<T: Default + Clone>(series: &mut Vec<T>, index: u64) -> &mut T {
    let index = index as usize;
    if series.len() <= index {
        series.resize(index + 1, T::default());
    }
    &mut series[index]
}

impl Series {
    pub(crate) fn request(&mut self, now: Micros, bytes: u64, work: f64, taken: bool) {
        *at(&mut self.fine, now / FINE) += 1;
        let second = at(&mut self.seconds, now / SECOND);
        second.requests += 1;
        second.taken += u32::from(taken);
        second.offered += bytes;
        second.work += work;
    }

    pub(crate) fn delivered(&mut self, bytes: u64, again: bool) {
        self.delivered += bytes;
        if again {
            self.repeated += bytes;
        }
    }

    /// A look at the fleet at the end of a second.
    pub(crate) fn look(&mut self, now: Micros, waiting: u64, oldest: Micros) {
        let second = at(&mut self.seconds, now / SECOND - 1);
        second.waiting = waiting;
        second.oldest = oldest;
    }

    fn between(&self, from: Micros, to: Micros) -> &[Second] {
        let end = (to / SECOND) as usize;
        &self.seconds[((from / SECOND) as usize).min(end)..end.min(self.seconds.len())]
    }

    pub(crate) fn rate(&self, from: Micros, to: Micros) -> Rate {
        let seconds = self.between(from, to);
        let count = seconds.len() as f64;
        Rate {
            requests: seconds.iter().map(|second| f64::from(second.requests)).sum::<f64>() / count,
            bytes: seconds.iter().map(|second| second.offered as f64).sum::<f64>() / count,
        }
    }

    /// Everything that is told of a run.
    pub(crate) fn figures(
        self,
        steady: Rate,
        capacity: f64,
        back_at: Micros,
        drained: Option<Micros>,
        fairness: Fairness,
    ) -> Figures {
        let end = self.seconds.len() as Micros * SECOND;
        let outage = self.between(OUTAGE_FROM, back_at);
        let after = self.between(back_at, end);
        let peak =
            |seconds: &[Second]| seconds.iter().map(|second| second.requests).max().unwrap_or_default();
        let load = |seconds: &[Second]| {
            seconds.iter().map(|second| second.work / SECOND as f64).sum::<f64>() / seconds.len() as f64
        };
        let peak_of_work = after.windows(WORK_SECONDS).map(load).fold(0.0, f64::max);
        let turned_away = after.iter().map(|second| u64::from(second.requests - second.taken)).sum::<u64>();
        let fine = |from: Micros, to: Micros| {
            let end = ((to / FINE) as usize).min(self.fine.len());
            &self.fine[((from / FINE) as usize).min(end)..end]
        };
        let drained_at = drained.map_or(end, |drained| back_at + drained);
        Figures {
            steady: steady.requests,
            capacity,
            outage_mean: outage.iter().map(|second| f64::from(second.requests)).sum::<f64>()
                / outage.len() as f64,
            outage_peak: peak(outage),
            peak: peak(after),
            peak_of_work,
            drained: drained.map(Duration::from_micros),
            oldest: Duration::from_micros(
                self.seconds.iter().map(|second| second.oldest).max().unwrap_or_default(),
            ),
            turned_away: turned_away as f64
                / after.iter().map(|second| f64::from(second.requests)).sum::<f64>(),
            dropped: self.dropped,
            repeated: self.repeated as f64 / self.delivered as f64,
            wave_in_outage: Wave::strongest(fine(OUTAGE_FROM + EDGE, back_at)),
            wave_after: Wave::strongest(fine(back_at + EDGE, drained_at.max(back_at + 4 * EDGE))),
            correlation: autocorrelation(fine(back_at + EDGE, drained_at.max(back_at + 4 * EDGE))),
            correlation_in_outage: autocorrelation(fine(OUTAGE_FROM + EDGE, back_at)),
            fairness,
            seconds: self.seconds,
        }
    }
}

/// What is told of a run.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Requests a second before the outage.
    pub(crate) steady: f64,
    /// Requests a second of the usual size that the backend can take.
    pub(crate) capacity: f64,
    pub(crate) outage_mean: f64,
    pub(crate) outage_peak: u32,
    /// The most requests of any second after the outage.
    pub(crate) peak: u32,
    /// The most work that the backend was asked for after the outage, as a multiple of what it can do, over [`WORK_SECONDS`].
    pub(crate) peak_of_work: f64,
    /// From the end of the outage until the fleet has no more waiting than usual.
    pub(crate) drained: Option<Duration>,
    pub(crate) oldest: Duration,
    /// The share of requests after the outage that the backend turned away.
    pub(crate) turned_away: f64,
    pub(crate) dropped: u64,
    /// The share of bytes that were taken twice.
    pub(crate) repeated: f64,
    pub(crate) wave_in_outage: Wave,
    pub(crate) wave_after: Wave,
    pub(crate) correlation: Vec<f64>,
    pub(crate) correlation_in_outage: Vec<f64>,
    pub(crate) fairness: Fairness,
    pub(crate) seconds: Vec<Second>,
}

/// How evenly the backend was shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fairness {
    /// When the environments had caught up: median, 90th, 99th percentile, the last.
    pub(crate) caught_up: [Duration; 4],
    /// The same median for the third of them that says least, the middle one, and the one that says most.
    pub(crate) by_volume: [Duration; 3],
    /// Jain's index of the shares that environments had got rid of when the fleet had got rid of half: 1 is even.
    pub(crate) jain: f64,
}

impl Fairness {
    /// Of pairs: bytes a second, and when it had caught up.
    pub(crate) fn of(mut environments: Vec<(f64, Micros)>, shares: &[f64]) -> Self {
        environments.sort_by(|a, b| a.0.total_cmp(&b.0));
        let median_of = |part: &[(f64, Micros)]| {
            let mut times: Vec<Micros> = part.iter().map(|(_, at)| *at).collect();
            times.sort_unstable();
            percentile(&times, 50)
        };
        let third = environments.len().div_ceil(3).max(1);
        let mut thirds = environments.chunks(third).map(median_of);
        let by_volume = std::array::from_fn(|_| thirds.next().unwrap_or_default());
        let mut times: Vec<Micros> = environments.iter().map(|(_, at)| *at).collect();
        times.sort_unstable();
        let sum: f64 = shares.iter().sum();
        let squares: f64 = shares.iter().map(|share| share * share).sum();
        Self {
            caught_up: [50, 90, 99, 100].map(|percent| percentile(&times, percent)),
            by_volume,
            jain: sum * sum / (shares.len() as f64 * squares),
        }
    }
}

fn percentile(sorted: &[Micros], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    Duration::from_micros(sorted.get(rank).copied().unwrap_or_default())
}

/// A period at which arrivals repeat.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wave {
    pub(crate) seconds: f64,
    /// Its amplitude as a share of the mean rate: 1 is a fleet that comes all at once and then not at all.
    pub(crate) amplitude: f64,
    /// The same for arrivals that are independent of each other, at 99.9 % of the periods.
    pub(crate) chance: f64,
}

impl Wave {
    /// The strongest component of the spectrum of arrivals.
    pub(crate) fn strongest(fine: &[u32]) -> Self {
        let flat = without_course(fine);
        let mean = mean_of(fine);
        let count = flat.len() as f64;
        if flat.len() < 2 || mean <= 0.0 {
            return Self::default();
        }
        let per_second = (SECOND / FINE) as f64;
        let least = (count / (WAVE_MAX_SECONDS as f64 * per_second)).ceil().max(1.0) as usize;
        let most = (count / (WAVE_MIN_SECONDS as f64 * per_second)) as usize;
        let mut strongest = Self::default();
        for cycles in least..=most {
            let step = std::f64::consts::TAU * cycles as f64 / count;
            let (mut re, mut im) = (0.0, 0.0);
            for (index, value) in flat.iter().enumerate() {
                let (sin, cos) = (step * index as f64).sin_cos();
                re += value * cos;
                im += value * sin;
            }
            let amplitude = 2.0 * re.hypot(im) / count / mean;
            if amplitude > strongest.amplitude {
                strongest = Self { seconds: count / per_second / cycles as f64, amplitude, chance: 0.0 };
            }
        }
        // For noise of this variance the power of a component is distributed exponentially: P(> x) = e^(-x).
        strongest.chance = 2.0 * (1_000.0_f64.ln() / (count * mean)).sqrt();
        strongest
    }
}

/// How much the arrivals of a moment say about those so many quarters of a second later, without the course of things.
pub(crate) fn autocorrelation(fine: &[u32]) -> Vec<f64> {
    let flat = without_course(fine);
    let power: f64 = flat.iter().map(|value| value * value).sum();
    let lags = (WAVE_MAX_SECONDS * (SECOND / FINE) as usize).min(flat.len());
    let at_lag = |lag: usize| {
        let products = flat.iter().zip(flat.iter().skip(lag)).map(|(a, b)| a * b);
        if power > 0.0 { products.sum::<f64>() / power } else { 0.0 }
    };
    (0..lags).map(at_lag).collect()
}

fn mean_of(fine: &[u32]) -> f64 {
    fine.iter().map(|count| f64::from(*count)).sum::<f64>() / fine.len().max(1) as f64
}

/// The arrivals less their mean over the time around.
fn without_course(fine: &[u32]) -> Vec<f64> {
    let half = COURSE_SECONDS * (SECOND / FINE) as usize / 2;
    let mut sums = vec![0.0];
    for count in fine {
        sums.push(sums[sums.len() - 1] + f64::from(*count));
    }
    let around = |index: usize| {
        let (from, to) = (index.saturating_sub(half), (index + half + 1).min(fine.len()));
        (sums[to] - sums[from]) / (to - from) as f64
    };
    fine.iter().enumerate().map(|(index, count)| f64::from(*count) - around(index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_found_with_its_period_and_noise_is_not_taken_for_one() {
        let mut random = fastrand::Rng::with_seed(7);
        let waves: Vec<u32> = (0..1_200).map(|at| if at % 80 < 8 { 100 } else { 0 }).collect();
        let wave = Wave::strongest(&waves);
        assert!((wave.seconds - 20.0).abs() < 0.5 && wave.amplitude > 1.0, "{wave:?}");
        assert!(autocorrelation(&waves)[80] > 0.8);
        let noise: Vec<u32> =
            (0..1_200).map(|_| (0..200).filter(|_| random.f64() < 0.5).count() as u32).collect();
        let wave = Wave::strongest(&noise);
        assert!(wave.amplitude < wave.chance, "{wave:?}");
    }

    #[test]
    fn an_even_share_has_the_index_one_and_one_that_takes_all_has_its_share_of_the_fleet() {
        assert!((Fairness::of(vec![(1.0, 1)], &[0.5; 10]).jain - 1.0).abs() < 1e-9);
        let mut shares = [0.0; 10];
        shares[0] = 1.0;
        assert!((Fairness::of(vec![(1.0, 1)], &shares).jain - 0.1).abs() < 1e-9);
    }
}
