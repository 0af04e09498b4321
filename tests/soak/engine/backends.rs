//! The backends of a run, and what the weather makes of them.

use outlast_backend::{Answer, Backend, Behaviour, Condition, Door, Fate, Reset};

use super::plan::Weather;

/// What a poisonous line contains.
pub(crate) const POISON: &str = "poison";

/// A backend that can be shown in a failing test.
pub(crate) struct BackendHandle(pub(crate) Backend);

impl std::fmt::Debug for BackendHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.url())
    }
}

impl BackendHandle {
    /// Makes it so.
    pub(crate) async fn make(&self, weather: Weather, seed: u64) {
        let behaviour = match weather {
            Weather::Healthy => Behaviour::healthy(),
            Weather::Refused => return self.set_door(Door::Refused).await.unwrap(),
            Weather::Unaccepted => return self.set_door(Door::Unaccepted).await.unwrap(),
            Weather::Unreachable => return self.set_door(Door::Unreachable).await.unwrap(),
            Weather::ResetBeforeBody => Behaviour::Reset(Reset::BeforeBody),
            Weather::ResetWithin(bytes) => Behaviour::Reset(Reset::AfterBytes(bytes)),
            Weather::ResetAfter { kept } => Behaviour::Reset(Reset::AfterBody(fate(kept))),
            Weather::Hang { kept } => Behaviour::Hang(fate(kept)),
            Weather::Status(status) => Behaviour::status(status),
            Weather::RetryAfter(status, seconds) => {
                Behaviour::answer(Answer::new(status).retry_after_seconds(seconds))
            }
            Weather::Flaky(status, probability) => {
                Behaviour::status(status).when(Condition::chance(probability, seed))
            }
            Weather::TooLarge(bytes) => Behaviour::too_large_above_plain(bytes),
            Weather::Poison => Behaviour::poisoned_by(|record| record.text.contains(POISON)),
            Weather::Partial(rejected) => Behaviour::partial(rejected, "not all of them"),
            Weather::Garbage => Behaviour::garbage("<html>welcome</html>"),
            Weather::NoGzip => Behaviour::no_gzip(),
            Weather::Slow(delay) => Behaviour::healthy().after(delay),
            Weather::Trickle(pause) => Behaviour::healthy().trickled(pause),
            Weather::Redirect => Behaviour::redirect(302, self.url()),
        };
        self.behave(behaviour);
        self.set_door(Door::Open).await.unwrap();
    }
}

impl std::ops::Deref for BackendHandle {
    type Target = Backend;
    fn deref(&self) -> &Backend {
        &self.0
    }
}

fn fate(kept: bool) -> Fate {
    if kept { Fate::Kept } else { Fate::Lost }
}
