//! Requests as a strict receiver reads them.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use outlast::queue::{Encoding, Request};
use outlast_backend::gzip;
use prost::Message;

/// The plain bytes of a request.
pub(crate) fn plain(request: &Request) -> Vec<u8> {
    match request.encoding {
        Encoding::Gzip => gzip::decode(&request.body).expect("one gzip member"),
        Encoding::Identity => request.body.clone(),
    }
}

/// The log records of an `ExportLogsServiceRequest`.
pub(crate) fn log_records(body: &[u8]) -> Vec<LogRecord> {
    let request = ExportLogsServiceRequest::decode(body).expect("OTLP");
    let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
    scopes.flat_map(|scope| scope.log_records).collect()
}

/// The text of a value, if it is one.
pub(crate) fn text(value: Option<&AnyValue>) -> Option<&str> {
    match value?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
