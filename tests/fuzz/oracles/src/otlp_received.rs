//! What a function's own SDK sends, or anybody else who found the receiver: nothing is a panic, what is taken is a request
//! to `prost` too, its records are those that `prost` counts, and neither taking it apart nor completing it loses one.

use std::fmt::Debug;

use arbitrary::{Result, Unstructured};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use outlast::Signal;
use outlast::encode::otlp::received::{Media, REQUEST_MAX_BYTES, RequestError, complete, part, read, runs};
use outlast::record::{Resource, ResourceInputs};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A request as others read it.
trait Request: Message + Debug + Default + PartialEq + Serialize + DeserializeOwned {
    const SIGNAL: Signal;

    /// Its records, each with all that stands around it.
    fn records(&self) -> Vec<Self>;

    /// How many resources it names.
    fn resources(&self) -> usize;
}

macro_rules! request {
    ($request:ty, $signal:expr, $resources:ident, $scopes:ident, $records:ident) => {
        impl Request for $request {
            const SIGNAL: Signal = $signal;

            fn records(&self) -> Vec<Self> {
                let mut all = Vec::new();
                for resource in &self.$resources {
                    for scope in &resource.$scopes {
                        for record in &scope.$records {
                            let mut scope = scope.clone();
                            scope.$records = vec![record.clone()];
                            let mut resource = resource.clone();
                            resource.$scopes = vec![scope];
                            all.push(Self { $resources: vec![resource] });
                        }
                    }
                }
                all
            }

            fn resources(&self) -> usize {
                self.$resources.len()
            }
        }
    };
}

request!(ExportLogsServiceRequest, Signal::Logs, resource_logs, scope_logs, log_records);
request!(ExportMetricsServiceRequest, Signal::Metrics, resource_metrics, scope_metrics, metrics);
request!(ExportTraceServiceRequest, Signal::Traces, resource_spans, scope_spans, spans);

/// Checks one request. Its first byte says for which signal it is and how it is written.
pub fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let kind = input.arbitrary::<u8>().unwrap_or_default();
    // The end of the input is no finding.
    let checked = match kind % 3 {
        0 => any::<ExportLogsServiceRequest>(kind, &mut input),
        1 => any::<ExportMetricsServiceRequest>(kind, &mut input),
        _ => any::<ExportTraceServiceRequest>(kind, &mut input),
    };
    checked.unwrap_or_default();
}

fn any<R: Request>(kind: u8, input: &mut Unstructured<'_>) -> Result<()> {
    let (cut, small) = (input.arbitrary::<u8>()?, input.arbitrary::<u8>()?);
    let body = crate::rest(input);
    match kind / 3 % 3 {
        0 => in_protobuf::<R>(body, cut, small),
        1 => in_json::<R>(body, cut, small),
        _ => from_protobuf_to_json::<R>(body),
    }
    Ok(())
}

fn in_protobuf<R: Request>(body: &[u8], cut: u8, small: u8) {
    let theirs = R::decode(body).ok();
    match read(R::SIGNAL, Media::Protobuf, body) {
        Ok(received) => {
            assert_eq!(&*received.plain, body, "protobuf is kept as it came");
            taken::<R>(body, received.records, theirs.as_ref(), cut, small);
        }
        Err(RequestError::Structure(_) | RequestError::TooMany | RequestError::Foreign) => {
            // What prost would write in the same bytes is a request beyond doubt.
            let certain = theirs.is_some_and(|theirs| theirs.encode_to_vec() == body);
            assert!(!certain, "refused, and it is a request");
        }
        Err(other) => panic!("{other} of {} bytes of protobuf", body.len()),
    }
}

fn in_json<R: Request>(body: &[u8], cut: u8, small: u8) {
    let Ok(received) = read(R::SIGNAL, Media::Json, body) else { return };
    assert!(received.plain.len() <= REQUEST_MAX_BYTES);
    let theirs = R::decode(&*received.plain).expect("what is made of JSON is a request");
    taken::<R>(&received.plain, received.records, Some(&theirs), cut, small);
}

/// A request that another writes in JSON and reads again is the same to us.
fn from_protobuf_to_json<R: Request>(body: &[u8]) {
    let Ok(request) = R::decode(body) else { return };
    let Ok(text) = serde_json::to_string(&request) else { return };
    if serde_json::from_str::<R>(&text).is_ok_and(|again| again == request) && request.resources() > 0 {
        let received = read(R::SIGNAL, Media::Json, text.as_bytes()).expect("a request in JSON");
        let ours = R::decode(&*received.plain).expect("a request");
        assert!(ours == request, "{text}\n{ours:?}\n{request:?}");
    }
}

/// `plain` was taken, with so many records.
fn taken<R: Request>(plain: &[u8], records: u32, theirs: Option<&R>, cut: u8, small: u8) {
    let all = records as usize;
    let expected = theirs.map(R::records);
    if let Some(expected) = &expected {
        assert_eq!(expected.len(), all, "records");
    }
    let at = usize::from(cut) % (all + 1);
    let parts = [0..at, at..all].map(|run| part(plain, &run).expect("a part"));
    let counts = parts.each_ref().map(|part| count::<R>(part));
    assert_eq!(counts, [at, all - at], "cut at {at} of {all}");
    if let Some(expected) = &expected {
        let got = parts.iter().flat_map(|part| R::decode(&part[..]).expect("a part is a request").records());
        // As bytes: what is no number is not equal to itself.
        let again = |one: &R| R::decode(&*one.encode_to_vec()).expect("itself").encode_to_vec();
        assert!(got.map(|one| one.encode_to_vec()).eq(expected.iter().map(again)));
    }
    if let Some(runs) = runs(plain, 16 + usize::from(small)).expect("runs") {
        let ends: Vec<_> = runs.iter().flat_map(|run| [run.start, run.end]).collect();
        assert!(
            ends.first() == Some(&0) && ends.last() == Some(&all) && ends.is_sorted(),
            "{runs:?} of {all}"
        );
        assert!(runs.windows(2).all(|pair| pair[0].end == pair[1].start), "{runs:?}");
    }
    let resource = Resource::build(&ResourceInputs { function_name: Some("f"), ..ResourceInputs::default() });
    let Ok(completed) = complete(plain, &resource) else { return };
    assert_eq!(count::<R>(&completed), all, "completing costs a record");
    assert_eq!(
        complete(&completed, &resource).expect("again"),
        completed,
        "completing twice changes nothing"
    );
    if let Some(theirs) = theirs {
        let completed = R::decode(&*completed).expect("what is completed is a request");
        assert_eq!(completed.resources(), theirs.resources());
    }
}

/// Records as we read them; a part may be empty or name resources only.
fn count<R: Request>(plain: &[u8]) -> usize {
    match read(R::SIGNAL, Media::Protobuf, plain) {
        Ok(received) => received.records as usize,
        Err(RequestError::Foreign) => 0,
        Err(other) => panic!("{other}"),
    }
}
