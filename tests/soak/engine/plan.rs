//! What a run does, as a function of its seed: episodes, each with settings of its own and a list of steps.
//!
//! An episode goes on from the disk that the one before it left, and ends balanced. What a machine cannot do (mount,
//! shift a clock) is planned all the same and left out when it is played, so that the rest is the same everywhere.

use std::time::Duration;

use fastrand::Rng;
use outlast_simulator::ShutdownReason;

/// The function's time limit: long enough for every pause below.
pub(crate) const FUNCTION_TIMEOUT: Duration = Duration::from_millis(2_500);
/// An odd number, so that neighbouring episodes share nothing.
const EPISODE_STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;
/// Steps of one episode: some 40 s.
const STEPS: std::ops::Range<usize> = 14..26;

/// What the backend is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Weather {
    Healthy,
    Refused,
    Unaccepted,
    Unreachable,
    ResetBeforeBody,
    ResetWithin(usize),
    ResetAfter {
        kept: bool,
    },
    Hang {
        kept: bool,
    },
    Status(u16),
    RetryAfter(u16, u64),
    Flaky(u16, f64),
    /// 413 above so many plain bytes.
    TooLarge(usize),
    /// 400 for every request with a poisonous record.
    Poison,
    /// So many records of each request are said to be rejected.
    Partial(u64),
    Garbage,
    NoGzip,
    Slow(Duration),
    Trickle(Duration),
    Redirect,
}

impl Weather {
    fn draw(rng: &mut Rng) -> Self {
        match rng.u8(..24) {
            0..4 => Self::Healthy,
            4 => Self::Refused,
            5 => Self::Unaccepted,
            6 => Self::Unreachable,
            7 => Self::ResetBeforeBody,
            8 => Self::ResetWithin(rng.usize(1..2_000)),
            9 => Self::ResetAfter { kept: rng.bool() },
            10 | 11 => Self::Hang { kept: rng.bool() },
            12 => Self::Status(*pick(rng, &[408, 429, 502, 503, 504])),
            13 => Self::Status(500),
            14 => Self::Status(*pick(rng, &[401, 403, 404, 410])),
            15 => Self::RetryAfter(*pick(rng, &[429, 503]), rng.u64(0..3)),
            16 | 17 => Self::Flaky(*pick(rng, &[500, 503, 503, 429]), 0.2 + 0.6 * rng.f64()),
            18 => Self::TooLarge(rng.usize(4_000..100_000)),
            19 => Self::Poison,
            20 => Self::Partial(rng.u64(1..4)),
            21 => *pick(rng, &[Self::Garbage, Self::NoGzip, Self::Redirect]),
            22 => Self::Slow(Duration::from_millis(rng.u64(20..900))),
            _ => Self::Trickle(Duration::from_millis(rng.u64(1..20))),
        }
    }

    /// What a second backend is like in an episode: well, more often than not.
    fn of_another(rng: &mut Rng) -> Self {
        match rng.u8(..8) {
            0..4 => Self::Healthy,
            4 => Self::Refused,
            5 => Self::Status(*pick(rng, &[401, 429, 503])),
            6 => Self::Flaky(503, 0.2 + 0.6 * rng.f64()),
            _ => Self::Slow(Duration::from_millis(rng.u64(20..400))),
        }
    }

    /// Whether it answers 500, after which two neighbours may change places.
    pub(crate) fn has_500s(self) -> bool {
        matches!(self, Self::Status(500) | Self::Flaky(500, _))
    }
}

/// How Lambda delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivering {
    Plain,
    RepeatedAfterAnswer(u32),
    AnswerLost(u32),
    Pieces(usize),
    NewConnections,
    Late(Duration),
    CutOver(usize),
    WithoutRuntimeDone,
    ReportLate(Duration),
    WithoutReport,
}

impl Delivering {
    fn draw(rng: &mut Rng, cuts: bool) -> Self {
        match rng.u8(..12) {
            0..3 => Self::Plain,
            3 => Self::RepeatedAfterAnswer(rng.u32(1..3)),
            4 => Self::AnswerLost(rng.u32(1..3)),
            5 => Self::Pieces(rng.usize(100..2_000)),
            6 => Self::NewConnections,
            7 => Self::Late(Duration::from_millis(rng.u64(1..120))),
            8 if cuts => Self::CutOver(rng.usize(600..2_500)),
            9 => Self::WithoutRuntimeDone,
            10 => Self::ReportLate(Duration::from_millis(rng.u64(1..120))),
            _ => Self::WithoutReport,
        }
    }
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    Weather(Weather),
    Delivering(Delivering),
    /// So many invocations, one after the other.
    Busy {
        count: usize,
        run: Duration,
        lines: usize,
        line_bytes: usize,
        gap: Duration,
    },
    /// Nobody calls.
    Quiet(Duration),
    /// SIGSTOP in mid-invocation.
    Pause {
        after: Duration,
        length: Duration,
    },
    /// SIGKILL, so long after an invocation begins.
    Kill(Duration),
    /// SIGKILL, so long after the process of a new environment begins.
    KillAtStart(Duration),
    /// SIGKILL, so long after SHUTDOWN.
    KillAtShutdown(Duration),
    TimeOut,
    Crash,
    /// SHUTDOWN; the next invocation starts a new environment over the same disk.
    Shutdown(Reason),
    /// The wall clock is off by so many milliseconds for some invocations, then right again.
    Jump(i64),
    /// No room on disk for so many invocations.
    DiskFull {
        invocations: usize,
        line_bytes: usize,
    },
}

/// Why an environment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Spindown,
    Timeout,
    Failure,
}

impl From<Reason> for ShutdownReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Spindown => Self::Spindown,
            Reason::Timeout => Self::Timeout,
            Reason::Failure => Self::Failure,
        }
    }
}

impl Step {
    fn draw(rng: &mut Rng, settings: &Settings) -> Self {
        let micros = |rng: &mut Rng, most: u64| Duration::from_micros(rng.u64(..most));
        match rng.u8(..32) {
            0..8 => Self::Weather(Weather::draw(rng)),
            8..11 => Self::Delivering(Delivering::draw(rng, !settings.is_small())),
            11..17 => Self::Busy {
                count: rng.usize(3..25),
                run: Duration::from_millis(rng.u64(..60)),
                lines: rng.usize(..40),
                line_bytes: *pick(rng, &[20, 20, 100, 100, 100, 1_000, 3_000]),
                gap: micros(rng, 30_000),
            },
            17 => Self::Busy {
                count: rng.usize(1..4),
                run: Duration::ZERO,
                lines: rng.usize(500..4_000),
                line_bytes: rng.usize(20..600),
                gap: Duration::ZERO,
            },
            18..20 => Self::Quiet(Duration::from_millis(rng.u64(200..2_500))),
            20..22 => Self::Pause {
                after: micros(rng, 60_000),
                length: Duration::from_millis(*pick(rng, &[1, 20, 300, 1_100, 1_500])),
            },
            22..24 => Self::Kill(micros(rng, 90_000)),
            24 => Self::KillAtStart(micros(rng, 40_000)),
            25 => Self::KillAtShutdown(micros(rng, 60_000)),
            26 => *pick(rng, &[Self::TimeOut, Self::Crash, Self::Crash]),
            27..29 => Self::Shutdown(*pick(rng, &[Reason::Spindown, Reason::Timeout, Reason::Failure])),
            29 => Self::Jump(*pick(rng, &[-3_456_000_000, -3_600_000, -1_500, 250, 1_500, 3_600_000])),
            _ => Self::DiskFull { invocations: rng.usize(2..12), line_bytes: rng.usize(100..3_000) },
        }
    }
}

/// What an episode sets.
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) queue_max_bytes: u64,
    pub(crate) drop_newest: bool,
    pub(crate) batch_max_bytes: u64,
    pub(crate) max_delay: Duration,
    pub(crate) timeout: Duration,
    pub(crate) retry_max: Duration,
    pub(crate) gzip: bool,
    pub(crate) freezes: bool,
    pub(crate) shutdown_budget: Duration,
    /// Metrics and spans of every invocation, besides the logs.
    pub(crate) all_signals: bool,
    /// `OUTLAST_OVERFLOW=shed`, whatever `drop_newest` says.
    pub(crate) sheds: bool,
    /// A second backend as the fallback, and what it is like.
    pub(crate) fallback: Option<Weather>,
    /// A further destination, and what it is like.
    pub(crate) destination: Option<Weather>,
}

impl Settings {
    fn draw(rng: &mut Rng) -> Self {
        let millis = |rng: &mut Rng, choices: &[u64]| Duration::from_millis(*pick(rng, choices));
        Self {
            queue_max_bytes: *pick(rng, &[1 << 20, 4 << 20, 16 << 20, 16 << 20]),
            drop_newest: rng.u8(..5) == 0,
            batch_max_bytes: *pick(rng, &[64 << 10, 256 << 10, 1 << 20]),
            max_delay: millis(rng, &[0, 200, 400, 10_000]),
            timeout: millis(rng, &[700, 1_000, 2_000]),
            retry_max: millis(rng, &[100, 400, 1_500]),
            gzip: rng.u8(..5) > 0,
            freezes: rng.u8(..4) > 0,
            shutdown_budget: millis(rng, &[1_400, 1_400, 900, 500]),
            all_signals: false,
            sheds: false,
            fallback: None,
            destination: None,
        }
    }

    /// What goes when the queue is full.
    pub(crate) fn overflow(&self) -> &'static str {
        match (self.sheds, self.drop_newest) {
            (true, _) => "shed",
            (false, true) => "drop-newest",
            (false, false) => "drop-oldest",
        }
    }

    /// So small that an outage overflows it.
    pub(crate) fn is_small(&self) -> bool {
        self.queue_max_bytes <= 1 << 20
    }
}

/// A stretch that ends balanced.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Episode {
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    pub(crate) steps: Vec<Step>,
}

impl Episode {
    /// The episode of this number.
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        let seed = seed ^ number.wrapping_mul(EPISODE_STRIDE);
        let mut rng = Rng::with_seed(seed);
        let mut settings = Settings::draw(&mut rng);
        // Drawn apart, so that the rest of an episode is what it was before there was this.
        let mut apart = Rng::with_seed(!seed);
        settings.all_signals = apart.bool();
        settings.sheds = apart.u8(..3) == 0;
        settings.fallback = (apart.u8(..3) == 0).then(|| Weather::of_another(&mut apart));
        settings.destination = (apart.u8(..3) == 0).then(|| Weather::of_another(&mut apart));
        let count = rng.usize(STEPS);
        let steps = (0..count).map(|_| Step::draw(&mut rng, &settings)).collect();
        Self { seed, settings, steps }
    }

    /// Whether two neighbours may change places in it.
    pub(crate) fn has_500s(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Weather(weather) if weather.has_500s()))
    }
}

fn pick<'a, T>(rng: &mut Rng, choices: &'a [T]) -> &'a T {
    &choices[rng.usize(..choices.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_same_seed_plans_the_same() {
        for number in 0..20 {
            assert_eq!(Episode::of(7, number), Episode::of(7, number));
        }
        assert_ne!(Episode::of(7, 0), Episode::of(7, 1));
        assert_ne!(Episode::of(7, 0), Episode::of(8, 0));
    }

    #[test]
    fn an_hour_has_every_kind_of_step_and_weather() {
        let kind = |step: &Step| {
            let text = format!("{step:?}");
            text.split(['{', '.', '1', '2', '3']).next().unwrap().to_owned()
        };
        let kinds: HashSet<String> =
            (0..60).flat_map(|number| Episode::of(1, number).steps).map(|step| kind(&step)).collect();
        for expected in ["Pause", "Kill(", "KillAtStart(", "KillAtShutdown(", "TimeOut", "Crash", "Quiet("] {
            assert!(kinds.iter().any(|kind| kind.starts_with(expected)), "{expected}: {kinds:?}");
        }
        for expected in ["Jump(", "DiskFull", "Shutdown(Spindown", "Weather(Partial", "Weather(Unreachable"] {
            assert!(kinds.iter().any(|kind| kind.starts_with(expected)), "{expected}: {kinds:?}");
        }
    }
}
