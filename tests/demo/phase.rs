//! The phases of the story, and what each does to the backend.

use std::time::Duration;

use outlast_backend::{Answer, Backend, BackendError, Behaviour, Condition, Door, Fate, Reset};

/// What `Retry-After` says in a phase with a status. Long enough to be seen to be obeyed.
const RETRY_AFTER_SECONDS: u64 = 2;
/// Enough of a body that the request has begun, and less than any request has.
const RESET_AFTER_BYTES: usize = 64;
/// How slow a slow backend is: slower than an invocation, faster than any time-out.
const SLOW: Duration = Duration::from_millis(400);
const FLAKY_PROBABILITY: f64 = 0.5;

/// What the backend is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backdrop {
    Healthy,
    Refused,
    Unreachable,
    Reset,
    ResetKept,
    Hung,
    Status(u16),
    Slow,
    Flaky,
    Recovery,
}

/// A stretch of time with one backdrop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) backdrop: Backdrop,
    pub(crate) length: Duration,
    /// In its middle the function runs into its time limit, and the environment is reset.
    pub(crate) times_out: bool,
    /// In its middle the extension is killed during an invocation.
    pub(crate) kill: bool,
}

impl Phase {
    /// For people.
    pub(crate) fn what(&self) -> String {
        match self.backdrop {
            Backdrop::Healthy => "the backend answers 200".to_owned(),
            Backdrop::Refused => "nobody listens: connection refused".to_owned(),
            Backdrop::Unreachable => "the network swallows every packet".to_owned(),
            Backdrop::Reset => "the backend resets the connection inside the request".to_owned(),
            Backdrop::ResetKept => {
                "the backend takes the request, then resets instead of answering".to_owned()
            }
            Backdrop::Hung => "the backend reads the request, never answers".to_owned(),
            Backdrop::Status(status) => {
                format!("the backend answers {status}, Retry-After: {RETRY_AFTER_SECONDS}")
            }
            Backdrop::Slow => format!("the backend answers 200 after {} ms", SLOW.as_millis()),
            Backdrop::Flaky => "the backend answers 503 to every other request or so".to_owned(),
            Backdrop::Recovery => "the backend is back: answers 200".to_owned(),
        }
    }

    /// Whether the backend takes nothing in.
    pub(crate) fn is_outage(&self) -> bool {
        !matches!(self.backdrop, Backdrop::Healthy | Backdrop::Recovery | Backdrop::Slow | Backdrop::Flaky)
    }

    /// Makes the backend so. Requests under way keep the fate they had.
    pub(crate) async fn begin(&self, backend: &Backend, seed: u64) -> Result<(), BackendError> {
        let behaviour = match self.backdrop {
            Backdrop::Refused => return backend.set_door(Door::Refused).await,
            Backdrop::Unreachable => return backend.set_door(Door::Unreachable).await,
            Backdrop::Healthy | Backdrop::Recovery => Behaviour::healthy(),
            Backdrop::Reset => Behaviour::Reset(Reset::AfterBytes(RESET_AFTER_BYTES)),
            Backdrop::ResetKept => Behaviour::Reset(Reset::AfterBody(Fate::Kept)),
            Backdrop::Hung => Behaviour::hang(),
            Backdrop::Status(status) => {
                Behaviour::answer(Answer::new(status).retry_after_seconds(RETRY_AFTER_SECONDS))
            }
            Backdrop::Slow => Behaviour::healthy().after(SLOW),
            Backdrop::Flaky => Behaviour::status(503).when(Condition::chance(FLAKY_PROBABILITY, seed)),
        };
        backend.behave(behaviour);
        backend.set_door(Door::Open).await
    }
}

/// Reads `NAME[:SECONDS][+timeout][+kill],…`.
pub(crate) fn parse_list(text: &str, length: Duration) -> Result<Vec<Phase>, String> {
    text.split(',').map(|item| parse(item.trim(), length)).collect()
}

fn parse(item: &str, length: Duration) -> Result<Phase, String> {
    let mut parts = item.split('+');
    let head = parts.next().unwrap_or_default();
    let (name, seconds) = head.split_once(':').map_or((head, None), |(name, rest)| (name, Some(rest)));
    let backdrop = match name {
        "healthy" => Backdrop::Healthy,
        "refused" => Backdrop::Refused,
        "unreachable" => Backdrop::Unreachable,
        "reset" => Backdrop::Reset,
        "reset-kept" => Backdrop::ResetKept,
        "hung" => Backdrop::Hung,
        "slow" => Backdrop::Slow,
        "flaky" => Backdrop::Flaky,
        "recovery" => Backdrop::Recovery,
        status => match status.parse() {
            Ok(status @ 400..=599) => Backdrop::Status(status),
            _ => return Err(format!("{name:?} is no phase")),
        },
    };
    let length = seconds
        .map(|seconds| {
            let number = seconds.parse().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
            number.ok_or_else(|| format!("{seconds:?} is no number of seconds"))
        })
        .transpose()?
        .unwrap_or(length);
    let mut phase = Phase { name: name.to_owned(), backdrop, length, times_out: false, kill: false };
    for incident in parts {
        match incident {
            "timeout" => phase.times_out = true,
            "kill" => phase.kill = true,
            _ => return Err(format!("{incident:?} is neither timeout nor kill")),
        }
    }
    Ok(phase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_phases_is_read() {
        let phases =
            parse_list("healthy, hung:2.5+timeout,503+kill+timeout", Duration::from_secs(9)).unwrap();
        let [healthy, hung, status] = phases.as_slice() else { panic!("{phases:?}") };
        assert_eq!((healthy.backdrop, healthy.length), (Backdrop::Healthy, Duration::from_secs(9)));
        assert_eq!((hung.length, hung.times_out, hung.kill), (Duration::from_millis(2500), true, false));
        assert_eq!((status.backdrop, status.kill), (Backdrop::Status(503), true));
        assert!(status.is_outage() && !healthy.is_outage());
    }

    #[test]
    fn nonsense_is_named() {
        for (list, part) in [("nap", "nap"), ("200", "200"), ("hung:x", "\"x\""), ("hung+nap", "nap")] {
            assert!(parse_list(list, Duration::ZERO).unwrap_err().contains(part), "{list}");
        }
    }
}
