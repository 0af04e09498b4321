//! Which invocations become spans: the samplers of the OpenTelemetry SDK specification.

use crate::record::trace_context::TraceId;

/// A sampler (OpenTelemetry specification, "Trace SDK", "Built-in samplers").
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether a caller's decision is followed, where it has made one.
    pub parent_based: bool,
    /// The share of other traces that is kept, from 0 to 1.
    pub ratio: f64,
}

impl Default for Sampler {
    /// `parentbased_always_on`, the specification's default.
    fn default() -> Self {
        Self { parent_based: true, ratio: 1.0 }
    }
}

impl Sampler {
    /// Whether the trace is kept. `decided` is what the caller says of it.
    ///
    /// The share is taken by the lowest 56 bits of the trace id (W3C Trace Context level 2, "Random trace id flag"), and kept
    /// is what is not below the threshold, so that everyone with the same share keeps the same traces, and with a smaller
    /// share some of them (OpenTelemetry specification, "`TraceState`: Probability Sampling").
    #[expect(
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "shares are from 0 to 1, and 2^56 is exact"
    )]
    pub fn keeps(&self, trace_id: TraceId, decided: Option<bool>) -> bool {
        if let (true, Some(decided)) = (self.parent_based, decided) {
            return decided;
        }
        let random = u128::from_be_bytes(trace_id) & (RANDOM_END - 1);
        let threshold = RANDOM_END - (self.ratio * RANDOM_END as f64) as u128;
        random >= threshold
    }
}

const RANDOM_END: u128 = 1 << 56;

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(low: u64) -> TraceId {
        (u128::from(low) | 7 << 64).to_be_bytes()
    }

    #[test]
    fn a_callers_decision_is_followed_if_that_is_asked_for() {
        let sampler = Sampler::default();
        assert!(!sampler.keeps(trace(1), Some(false)));
        assert!(sampler.keeps(trace(1), None));
        let always = Sampler { parent_based: false, ratio: 1.0 };
        assert!(always.keeps(trace(u64::MAX), Some(false)));
        let never = Sampler { parent_based: true, ratio: 0.0 };
        assert!(!never.keeps(trace(u64::MAX), None));
        assert!(never.keeps(trace(0), Some(true)));
    }

    #[test]
    fn a_share_is_taken_by_the_trace_id() {
        let quarter = Sampler { parent_based: false, ratio: 0.25 };
        assert!(quarter.keeps(trace(3 << 54), None));
        assert!(!quarter.keeps(trace((3 << 54) - 1), None));
        assert!(!quarter.keeps(trace(0), None));
        let mut random = fastrand::Rng::with_seed(3);
        let kept = (0..10_000).filter(|_| quarter.keeps(trace(random.u64(..)), None)).count();
        assert!((2_200..2_800).contains(&kept), "{kept}");
    }
}
