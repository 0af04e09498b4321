//! The invocation that the page shows, as a collector has it that nobody here wrote: it gets the requests that brought it to
//! the backend, as they came, and what it prints of it must be what the backend decoded.

use std::{collections::BTreeSet, time::Duration};

use outlast_backend::{
    Record, Request,
    real::{Rotel, parts_are_required},
};

use crate::{
    invocation::{self, Invocation, Shown},
    printed,
};

/// Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The page stays light.
const SHOWN_MAX_LINES: usize = 600;

/// What the collector has.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) shown: Shown,
    /// Requests that it got for that.
    pub(crate) requests: usize,
    /// What it printed of the invocation, as it is.
    pub(crate) printed: String,
}

/// What the collector has of what the backend has as `shown`; `None` where there is no collector, and need not be one.
///
/// # Errors
/// In words, if it is missing and must not be, does not take the requests, or has something else.
pub(crate) async fn collected(
    shown: Option<&Shown>,
    records: &[Record],
    requests: &[Request],
) -> Result<Option<Collected>, String> {
    let rotel = Rotel::start_or_skip("demo, one invocation as a real collector has it").await;
    let Some(rotel) = rotel.map_err(|error| error.to_string())? else { return Ok(None) };
    let Some(shown) = shown else {
        let missing = "no invocation came with its trace, so the collector has none".to_owned();
        return if parts_are_required() { Err(missing) } else { Ok(None) };
    };
    let numbers = invocation::find(records, &shown.request_id).map(|found| found.requests());
    let numbers: BTreeSet<u64> = numbers.unwrap_or_default();
    for request in requests.iter().filter(|request| numbers.contains(&request.number)) {
        rotel.forward(request).await.map_err(|error| error.to_string())?;
    }
    // Each line may be the last one.
    let mut has = None;
    let same = |said: &str| {
        has = read(said, shown, numbers.len());
        has.as_ref().is_some_and(|has| has.shown.is_the_same_as(shown))
    };
    let agree = rotel.wait_for(same, PATIENCE).await;
    if let Some(has) = has.filter(|_| agree) {
        return Ok(Some(has));
    }
    let has = read(&rotel.said(), shown, numbers.len()).map(|has| has.shown);
    Err(format!("the collector has another invocation than the backend: {has:?} is not {shown:?}"))
}

/// The invocation in what the collector said.
fn read(said: &str, shown: &Shown, requests: usize) -> Option<Collected> {
    let (records, lines) = printed::read(said);
    let found: Invocation<'_> = invocation::find(&records, &shown.request_id)?;
    let lines = found.shown_records().filter_map(|record| lines.get(usize::try_from(record.request).ok()?));
    let lines: Vec<&str> = lines.flat_map(|lines| lines.lines()).collect();
    let printed = lines.get(..SHOWN_MAX_LINES.min(lines.len())).unwrap_or_default().join("\n");
    Some(Collected { shown: found.shown(&shown.request_id, &shown.phase), requests, printed })
}
