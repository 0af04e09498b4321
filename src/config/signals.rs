//! What is made of telemetry and what is left out: signals, samplers, prices, silenced events. And what is told about the
//! extension itself.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::kind::{Flaw, shown};
use super::{Config, units};
use crate::observe::Price;
use crate::record::Platform;
use crate::{PerSignal, Signal};

/// What a list of signals must be.
pub(super) const SIGNALS_ACCEPTED: &str = "a comma-separated list of `logs`, `metrics`, `traces`";
/// What a list of platform events must be.
pub(super) const SILENCE_ACCEPTED: &str =
    "a comma-separated list of platform event types that Lambda documents, such as `platform.start`";
/// What a price must be.
pub(super) const PRICE_ACCEPTED: &str = "a number of at least 0, in any currency";
/// What a sampler must be.
pub(super) const SAMPLER_ACCEPTED: &str = "`always_on`, `always_off`, `traceidratio`, `parentbased_always_on`, `parentbased_always_off`, `parentbased_traceidratio`";
/// What a share must be.
pub(super) const RATIO_ACCEPTED: &str = "a number from 0 to 1";

/// What a duration that may be off must be.
pub(super) const OFF_OR_DURATION_ACCEPTED: &str =
    "`off`, or a duration with a unit (ms, s, m, h) from 1s to 24h";

/// Nothing is done more often than this, nor waited for longer: no environment lives for a day.
const OFF_OR_DURATION: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

fn refused(value: &str, accepted: &str) -> Vec<Flaw> {
    vec![Flaw { value: Some(shown(value)), accepted: format!("accepts {accepted}"), consequence: None }]
}

fn off_or_duration(setting: &mut Option<Duration>, value: &str) -> Vec<Flaw> {
    if value.eq_ignore_ascii_case("off") || value == "0" {
        *setting = None;
        return Vec::new();
    }
    match units::parse_duration(value) {
        Some(duration) if OFF_OR_DURATION.contains(&duration) => *setting = Some(duration),
        _ => return refused(value, OFF_OR_DURATION_ACCEPTED),
    }
    Vec::new()
}

pub(super) fn self_metrics(config: &mut Config, value: &str) -> Vec<Flaw> {
    off_or_duration(&mut config.self_metrics, value)
}

pub(super) fn outage_alert_after(config: &mut Config, value: &str) -> Vec<Flaw> {
    off_or_duration(&mut config.outage_alert_after, value)
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty())
}

pub(super) fn signals(config: &mut Config, value: &str) -> Vec<Flaw> {
    let mut signals = PerSignal::<bool>::default();
    for word in words(value) {
        let Some(signal) = Signal::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(word))
        else {
            return refused(value, SIGNALS_ACCEPTED);
        };
        *signals.get_mut(signal) = true;
    }
    if signals == PerSignal::default() {
        return refused(value, SIGNALS_ACCEPTED);
    }
    config.signals = signals;
    Vec::new()
}

/// Takes the types it knows; what it does not know is never silenced, so that nothing new is missed.
pub(super) fn silence(config: &mut Config, value: &str) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let mut types = Vec::new();
    for word in words(value) {
        match Platform::name_of_known(word) {
            Some(name) if types.iter().any(|known| known == name) => {}
            Some(name) => types.push(name.to_owned()),
            None => flaws.push(Flaw {
                value: Some(shown(word)),
                accepted: format!("accepts {SILENCE_ACCEPTED}"),
                consequence: Some("not silenced".to_owned()),
            }),
        }
    }
    config.silenced = types;
    flaws
}

pub(super) fn price_per_gb_second(config: &mut Config, value: &str) -> Vec<Flaw> {
    price(config, value, |price, number| price.gb_second = number)
}

pub(super) fn price_per_request(config: &mut Config, value: &str) -> Vec<Flaw> {
    price(config, value, |price, number| price.request = number)
}

fn price(config: &mut Config, value: &str, set: impl FnOnce(&mut Price, f64)) -> Vec<Flaw> {
    match value.parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => {
            set(config.price.get_or_insert_default(), number);
            Vec::new()
        }
        _ => refused(value, PRICE_ACCEPTED),
    }
}

pub(super) fn sampler(config: &mut Config, value: &str) -> Vec<Flaw> {
    let word = value.to_ascii_lowercase();
    let root = word.strip_prefix("parentbased_");
    let ratio = match root.unwrap_or(&word) {
        "always_on" => Some(1.0),
        "always_off" => Some(0.0),
        "traceidratio" => None,
        _ => return refused(value, SAMPLER_ACCEPTED),
    };
    config.sampler.parent_based = root.is_some();
    // The share comes with a variable of its own, and is everything if that is not set.
    config.sampler.ratio = ratio.unwrap_or(1.0);
    config.sampler_takes_ratio = ratio.is_none();
    Vec::new()
}

/// Only of use to a sampler that takes a share; for others the variable belongs to somebody else's sampler.
pub(super) fn sampler_ratio(config: &mut Config, value: &str) -> Vec<Flaw> {
    if !config.sampler_takes_ratio {
        return Vec::new();
    }
    match value.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => {
            config.sampler.ratio = ratio;
            Vec::new()
        }
        _ => refused(value, RATIO_ACCEPTED),
    }
}
