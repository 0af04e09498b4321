"""A function that uses the OpenTelemetry SDK for Python, in three signals over OTLP/HTTP.

Reads from stdin how many spans to make, one number a line; makes a log record with each span and a metric point after
each few; prints `exported` for each request that was accepted and `done` when all were. At the end of stdin it prints
what was accepted, as one JSON object.

A request that the SDK gives up is given to it again, as a function would that must not lose any: what matters here is
that a request which is sent more often arrives once.
"""

import json
import logging
import sys
import threading
import time

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry._logs import SeverityNumber

REQUEST_RECORDS = 5
saying = threading.Lock()
accepted = {"spans": [], "logs": [], "points": []}


def say(text):
    # Three threads export, and `print` writes text and line end apart.
    with saying:
        print(text, flush=True)


def persistent(exporter, success, kind, names):
    """Makes `export` go on until a request is accepted, and notes what was in it."""
    export = exporter.export

    def until_accepted(data, *arguments, **options):
        while export(data, *arguments, **options) != success:
            time.sleep(0.02)
        accepted[kind] += names(data)
        say("exported")
        return success

    exporter.export = until_accepted
    return exporter


def span_ids(spans):
    return [format(span.context.span_id, "016x") for span in spans]


def bodies(records):
    return [record.log_record.body for record in records]


def point_times(data):
    return [
        f"{metric.name} {point.time_unix_nano}"
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


url, compression = sys.argv[1], Compression(sys.argv[2])
logging.disable(logging.CRITICAL)  # of the SDK itself, about requests that failed

options = {"compression": compression, "timeout": 10}
span_exporter = persistent(
    OTLPSpanExporter(f"{url}/v1/traces", **options), SpanExportResult.SUCCESS, "spans", span_ids
)
log_exporter = persistent(OTLPLogExporter(f"{url}/v1/logs", **options), LogRecordExportResult.SUCCESS, "logs", bodies)
metric_exporter = persistent(
    OTLPMetricExporter(f"{url}/v1/metrics", **options), MetricExportResult.SUCCESS, "points", point_times
)

tracers = TracerProvider()
tracers.add_span_processor(
    BatchSpanProcessor(span_exporter, max_export_batch_size=REQUEST_RECORDS, schedule_delay_millis=60_000)
)
loggers = LoggerProvider()
loggers.add_log_record_processor(
    BatchLogRecordProcessor(log_exporter, max_export_batch_size=REQUEST_RECORDS, schedule_delay_millis=60_000)
)
reader = PeriodicExportingMetricReader(metric_exporter, export_interval_millis=3_600_000)
meters = MeterProvider(metric_readers=[reader])

tracer = tracers.get_tracer("tests")
logger = loggers.get_logger("tests")
counter = meters.get_meter("tests").create_counter("made", unit="{span}")
histogram = meters.get_meter("tests").create_histogram("sizes", unit="By")

number = 0
for line in sys.stdin:
    for _ in range(int(line)):
        with tracer.start_as_current_span(f"span {number}", attributes={"number": number}) as span:
            span.add_event("made")
            logger.emit(
                timestamp=time.time_ns(), severity_number=SeverityNumber.INFO, body=f"python log {number}"
            )
            counter.add(1)
            histogram.record(number)
        number += 1
        if number % (2 * REQUEST_RECORDS) == 0:
            tracers.force_flush()
            loggers.force_flush()
            meters.force_flush()
    say("done")
for provider in (tracers, loggers, meters):
    provider.shutdown()
say(json.dumps(accepted))
