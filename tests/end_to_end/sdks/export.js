// A function that uses the OpenTelemetry SDK for Node.js, spans over OTLP/HTTP.
//
// The same conversation as export.py has: reads numbers of spans to make, prints `exported` for each request that was
// accepted, `done` when all were, and at the end of stdin what was accepted.
"use strict";

const readline = require("node:readline");
const { setTimeout: pause } = require("node:timers/promises");
const { NodeSDK, tracing } = require("@opentelemetry/sdk-node");
const { trace } = require("@opentelemetry/api");

const REQUEST_RECORDS = 5;
const [url, format, compression] = process.argv.slice(2);
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${format}`);

const accepted = { spans: [], logs: [], points: [] };
const exporter = new OTLPTraceExporter({ url: `${url}/v1/traces`, compression, timeoutMillis: 10_000 });
const once = exporter.export.bind(exporter);
// Goes on until a request is accepted, as export.py does.
exporter.export = (spans, done) =>
  once(spans, async (result) => {
    if (result.code !== 0) {
      await pause(20);
      return exporter.export(spans, done);
    }
    accepted.spans.push(...spans.map((span) => span.spanContext().spanId));
    console.log("exported");
    done(result);
  });

const processor = new tracing.BatchSpanProcessor(exporter, {
  maxExportBatchSize: REQUEST_RECORDS,
  scheduledDelayMillis: 60_000,
  exportTimeoutMillis: 60_000,
});
const sdk = new NodeSDK({ spanProcessors: [processor], serviceName: "node-tests", autoDetectResources: false });
sdk.start();
const tracer = trace.getTracer("tests");

async function main() {
  let number = 0;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    for (let left = Number(line); left > 0; left -= 1) {
      tracer.startActiveSpan(`span ${number}`, { attributes: { number, list: ["a", "b"], share: 0.5 } }, (span) => {
        span.addEvent("made", { bool: true });
        span.setStatus({ code: 2, message: "ü" });
        span.end();
      });
      number += 1;
      if (number % (2 * REQUEST_RECORDS) === 0) {
        await processor.forceFlush();
      }
    }
    await processor.forceFlush();
    console.log("done");
  }
  await sdk.shutdown();
  console.log(JSON.stringify(accepted));
}

main();
