//! The reader of events for the fuzz targets (`tests/fuzz`). Behind the feature `fuzzing`, which changes nothing else.

use super::LambdaEvent;

/// Reads an answer to `GET /event/next`; `None` if it is not a JSON object.
pub fn parse_event(body: &[u8]) -> Option<LambdaEvent> {
    LambdaEvent::parse(body)
}
