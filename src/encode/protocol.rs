//! The protocols a user can choose, by name.

use super::{Datadog, Elasticsearch, Json, Loki, Ndjson, NewRelic, Otlp, OtlpJson, SplunkHec, WireFormat};

/// How a destination is spoken to: the format of requests, and how its answers are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/HTTP in protobuf.
    #[default]
    Otlp,
    /// OTLP/HTTP in JSON.
    OtlpJson,
    /// Lines of JSON, to any HTTP intake.
    Ndjson,
    /// An array of JSON objects, to any HTTP intake.
    Json,
    /// The bulk API of Elasticsearch and `OpenSearch`.
    Elasticsearch,
    /// The push API of Grafana Loki.
    Loki,
    /// The HTTP Event Collector of Splunk.
    SplunkHec,
    /// The logs intake of Datadog, and its API for metrics.
    Datadog,
    /// The Log API and the Metric API of New Relic.
    NewRelic,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Otlp,
        Self::OtlpJson,
        Self::Ndjson,
        Self::Json,
        Self::Elasticsearch,
        Self::Loki,
        Self::SplunkHec,
        Self::Datadog,
        Self::NewRelic,
    ];

    /// The word in the setting.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Otlp => "otlp",
            Self::OtlpJson => "otlp-json",
            Self::Ndjson => "ndjson",
            Self::Json => "json",
            Self::Elasticsearch => "elasticsearch",
            Self::Loki => "loki",
            Self::SplunkHec => "splunk-hec",
            Self::Datadog => "datadog",
            Self::NewRelic => "newrelic",
        }
    }

    /// The format of its requests.
    pub fn wire(self) -> Box<dyn WireFormat> {
        match self {
            Self::Otlp => Box::new(Otlp),
            Self::OtlpJson => Box::new(OtlpJson),
            Self::Ndjson => Box::new(Ndjson),
            Self::Json => Box::new(Json),
            Self::Elasticsearch => Box::new(Elasticsearch),
            Self::Loki => Box::new(Loki),
            Self::SplunkHec => Box::new(SplunkHec),
            Self::Datadog => Box::new(Datadog::default()),
            Self::NewRelic => Box::new(NewRelic),
        }
    }

    /// Whether the standard variables for OTLP exporters speak of it.
    pub const fn is_otlp(self) -> bool {
        matches!(self, Self::Otlp | Self::OtlpJson)
    }

    /// The protocol whose blocks carry `id`.
    pub fn of_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.wire().id() == id)
    }
}
