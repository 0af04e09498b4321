//! `OTEL_RESOURCE_ATTRIBUTES` (OpenTelemetry resource SDK specification, "Specifying resource information via an
//! environment variable").

use super::headers::strictly_decoded;

/// Reads `key=value,key2=value2`, keys and values percent-encoded. As the specification says, one error
/// discards the whole; an empty item is not an error, for a trailing comma is common.
pub(super) fn parse(text: &str) -> Option<Vec<(String, String)>> {
    let mut attributes: Vec<(String, String)> = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=')?;
        let (key, value) = (strictly_decoded(key.trim())?, strictly_decoded(value.trim())?);
        if key.is_empty() {
            return None;
        }
        attributes.retain(|(known, _)| *known != key);
        attributes.push((key, value));
    }
    Some(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_decoded_and_the_last_of_a_key_counts() {
        let attributes = parse("deployment.environment=prod, team=a%2Cb ,x=1,x=2,").unwrap();
        let expected = [("deployment.environment", "prod"), ("team", "a,b"), ("x", "2")];
        assert_eq!(attributes, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn one_error_discards_the_whole() {
        for text in ["a=1,b", "=1", "a=%zz", "a=%ff"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
