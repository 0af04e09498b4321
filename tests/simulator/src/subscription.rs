//! Telemetry subscriptions: what `PUT /2022-07-01/telemetry` accepts (Telemetry API reference; the ranges are those of
//! the JSON schema that AWS's emulator validates with).

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use crate::options::Schema;

const MAX_ITEMS: RangeInclusive<u64> = 1_000..=10_000;
const MAX_BYTES: RangeInclusive<u64> = 262_144..=1_048_576;
const TIMEOUT_MS: RangeInclusive<u64> = 25..=30_000;

/// Which telemetry a subscriber wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Types {
    pub(crate) platform: bool,
    pub(crate) function: bool,
    pub(crate) extension: bool,
}

impl Types {
    /// Whether an event of this type is wanted.
    pub(crate) fn want(self, kind: &str) -> bool {
        match kind {
            "function" => self.function,
            "extension" => self.extension,
            _ => self.platform,
        }
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self {
            platform: self.platform || other.platform,
            function: self.function || other.function,
            extension: self.extension || other.extension,
        }
    }
}

/// When a batch is due: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffering {
    pub(crate) max_items: usize,
    pub(crate) max_bytes: usize,
    pub(crate) timeout: Duration,
}

impl Default for Buffering {
    fn default() -> Self {
        Self { max_items: 10_000, max_bytes: 262_144, timeout: Duration::from_secs(1) }
    }
}

/// Where batches go. The host name always means the sandbox itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Http { host: String, port: u16, path: String },
    Tcp { port: u16 },
}

/// A valid subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) schema: Schema,
    pub(crate) types: Types,
    pub(crate) type_names: Vec<String>,
    pub(crate) buffering: Buffering,
    pub(crate) destination: Destination,
}

/// Validates a request body; the error is the text of the `ValidationError`.
pub(crate) fn parse(body: &[u8], oldest: Schema, newest: Schema) -> Result<Subscription, String> {
    let request: Value =
        serde_json::from_slice(body).map_err(|error| format!("failed to parse JSON: {error}"))?;
    let Some(request) = request.as_object() else {
        return Err("schema validation error: expected object".into());
    };
    for required in ["schemaVersion", "types", "destination"] {
        if !request.contains_key(required) {
            return Err(format!("schema validation error: missing properties: '{required}'"));
        }
    }
    let (types, type_names) = parse_types(request.get("types"))?;
    Ok(Subscription {
        schema: parse_schema(request.get("schemaVersion"), oldest, newest)?,
        types,
        type_names,
        buffering: parse_buffering(request.get("buffering"))?,
        destination: parse_destination(request.get("destination"))?,
    })
}

fn parse_schema(value: Option<&Value>, oldest: Schema, newest: Schema) -> Result<Schema, String> {
    let accepted: Vec<Schema> =
        Schema::ALL.into_iter().filter(|schema| (oldest..=newest).contains(schema)).collect();
    let text = value.and_then(Value::as_str).unwrap_or_default();
    accepted.iter().copied().find(|schema| schema.as_str() == text).ok_or_else(|| {
        let names: Vec<&str> = accepted.iter().map(|schema| schema.as_str()).collect();
        format!("schema validation error: '/schemaVersion' value must be one of {}", names.join(", "))
    })
}

fn parse_types(value: Option<&Value>) -> Result<(Types, Vec<String>), String> {
    let list = value
        .and_then(Value::as_array)
        .filter(|list| !list.is_empty())
        .ok_or("schema validation error: '/types' minimum 1 items required")?;
    let (mut types, mut names) = (Types::default(), Vec::new());
    for name in list {
        match name.as_str() {
            Some("platform") => types.platform = true,
            Some("function") => types.function = true,
            Some("extension") => types.extension = true,
            _ => {
                return Err(format!(
                    "schema validation error: '/types' {name} must be one of platform, function, extension"
                ));
            }
        }
        names.push(name.as_str().unwrap_or_default().to_owned());
    }
    Ok((types, names))
}

fn parse_buffering(value: Option<&Value>) -> Result<Buffering, String> {
    let mut buffering = Buffering::default();
    let Some(value) = value else { return Ok(buffering) };
    let Some(fields) = value.as_object() else {
        return Err("schema validation error: '/buffering' expected object".into());
    };
    let limit = |name: &str, range: RangeInclusive<u64>| match fields.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            format!(
                "schema validation error: '/buffering/{name}' must be {} to {}",
                range.start(),
                range.end()
            )
        }),
    };
    if let Some(items) = limit("maxItems", MAX_ITEMS)? {
        buffering.max_items = items as usize;
    }
    if let Some(bytes) = limit("maxBytes", MAX_BYTES)? {
        buffering.max_bytes = bytes as usize;
    }
    if let Some(timeout) = limit("timeoutMs", TIMEOUT_MS)? {
        buffering.timeout = Duration::from_millis(timeout);
    }
    Ok(buffering)
}

fn parse_destination(value: Option<&Value>) -> Result<Destination, String> {
    let field = |name: &str| value.and_then(|value| value.get(name));
    match field("protocol").and_then(Value::as_str) {
        Some("HTTP") => parse_uri(field("URI").and_then(Value::as_str).unwrap_or_default()),
        Some("TCP") => field("port")
            .and_then(Value::as_u64)
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .map(|port| Destination::Tcp { port })
            .ok_or_else(|| "schema validation error: '/destination/port' must be 1 to 65535".into()),
        _ => Err("schema validation error: '/destination/protocol' must be one of HTTP, TCP".into()),
    }
}

/// `http://sandbox.localdomain:PORT/PATH`, with the host names that Lambda resolves to the sandbox.
fn parse_uri(uri: &str) -> Result<Destination, String> {
    let invalid = |reason: &str| format!("Invalid destination: {uri}: {reason}");
    let rest = uri.strip_prefix("http://").ok_or_else(|| invalid("must begin with http://"))?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (host, port) = authority.rsplit_once(':').ok_or_else(|| invalid("a port is required"))?;
    if !matches!(host, "sandbox.localdomain" | "sandbox") {
        return Err(invalid("the host must be sandbox.localdomain"));
    }
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| invalid("invalid port"))?;
    Ok(Destination::Http { host: authority.to_owned(), port, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(name: &str, value: Value) -> Result<Subscription, String> {
        let mut body = json!({
            "schemaVersion": "2022-12-13",
            "types": ["platform", "function"],
            "buffering": {"maxItems": 1000, "maxBytes": 262_144, "timeoutMs": 25},
            "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:8080/telemetry"},
        });
        if !name.is_empty() {
            body[name] = value;
        }
        parse(body.to_string().as_bytes(), Schema::V20220701, Schema::V20250129)
    }

    #[test]
    fn a_subscription_is_understood() {
        let subscription = with("", Value::Null).unwrap();
        assert_eq!(subscription.schema, Schema::V20221213);
        assert_eq!(subscription.types, Types { platform: true, function: true, extension: false });
        assert_eq!(subscription.buffering.timeout, Duration::from_millis(25));
        assert_eq!(
            subscription.destination,
            Destination::Http {
                host: "sandbox.localdomain:8080".into(),
                port: 8080,
                path: "/telemetry".into()
            }
        );
        let tcp = with("destination", json!({"protocol": "TCP", "port": 9})).unwrap();
        assert_eq!(tcp.destination, Destination::Tcp { port: 9 });
    }

    #[test]
    fn every_field_has_its_bounds() {
        for (name, value) in [
            ("schemaVersion", json!("2021-03-18")),
            ("schemaVersion", json!(1)),
            ("types", json!([])),
            ("types", json!(["platform", "everything"])),
            ("buffering", json!({"maxItems": 999})),
            ("buffering", json!({"maxItems": 10_001})),
            ("buffering", json!({"maxBytes": 262_143})),
            ("buffering", json!({"maxBytes": 1_048_577})),
            ("buffering", json!({"timeoutMs": 24})),
            ("buffering", json!({"timeoutMs": 30_001})),
            ("buffering", json!({"timeoutMs": "25"})),
            ("destination", json!({"protocol": "UDP"})),
            ("destination", json!({"protocol": "HTTP"})),
            ("destination", json!({"protocol": "HTTP", "URI": "https://sandbox.localdomain:1"})),
            ("destination", json!({"protocol": "HTTP", "URI": "http://sandbox.localdomain"})),
            ("destination", json!({"protocol": "HTTP", "URI": "http://example.com:80"})),
            ("destination", json!({"protocol": "TCP", "port": 0})),
        ] {
            assert!(with(name, value.clone()).is_err(), "{name} {value}");
        }
        assert!(parse(b"[]", Schema::V20220701, Schema::V20250129).is_err());
        assert!(parse(b"{", Schema::V20220701, Schema::V20250129).is_err());
        assert!(parse(b"{}", Schema::V20220701, Schema::V20250129).is_err());
    }
}
