//! The pieces of the extension, each beside a reference in the same run. See `docs/benchmarks.md`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a bench fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

mod work;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use outlast::Signal;
use outlast::drain::policy::{Action, Backlog, Event as Told, Head, Outcome, Policy, Sent, Settings};
use outlast::encode::{Otlp, Protocol};
use outlast::queue::{Deflater, Encoding, Queue, Request};
use outlast::record::{Split, split};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use work::{
    Form, PlainLog, batch, block, deflate_once, delivery, each_record, noise, open, plain_block, resource,
    with_prost,
};

/// Records per delivery: at 25 ms each, 40 times as many per second.
const RECORDS: usize = 500;
/// Words of a record: some 250 bytes in all.
const WORDS: usize = 20;
/// Sizes of what is appended: a quiet function's delivery, a busy one's, and a block that is full.
const APPENDED_BYTES: [usize; 3] = [2 << 10, 64 << 10, 256 << 10];
/// Blocks of 64 KiB that make a backlog of 64 MiB, less what the heads of segments take.
const BACKLOG_BLOCKS: u128 = 960;

/// From the bytes of a delivery to log records. The reference reads the same bytes with `serde_json`, and makes nothing
/// of them.
fn mapping(c: &mut Criterion) {
    let mut group = c.benchmark_group("mapping");
    for form in Form::ALL {
        let body = delivery(form, RECORDS, WORDS);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("ours", form.name()), |b| {
            b.iter(|| {
                each_record(black_box(&body), |record| {
                    black_box(record.time_unix_nanos);
                })
            });
        });
        group.bench_function(BenchmarkId::new("serde_json", form.name()), |b| {
            b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&body)).unwrap());
        });
    }
    let body = delivery(Form::Node, RECORDS, WORDS);
    group.bench_function("split", |b| b.iter(|| matches!(split(black_box(&body)), Split::Events(_))));
    group.finish();
}

/// From the bytes of a delivery to those of a block, by protocol. The reference for OTLP is `prost`.
fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("encoding");
    let resource = resource();
    for form in [Form::Node, Form::Object] {
        let body = delivery(form, RECORDS, WORDS);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("ours", form.name()), |b| {
            b.iter(|| plain_block(black_box(&body), &Otlp, &resource));
        });
        group.bench_function(BenchmarkId::new("prost", form.name()), |b| {
            b.iter(|| with_prost(black_box(&body), &resource));
        });
    }
    let body = delivery(Form::Node, RECORDS, WORDS);
    for protocol in Protocol::ALL {
        let wire = protocol.wire();
        group.bench_function(BenchmarkId::new("protocol", protocol.name()), |b| {
            b.iter(|| plain_block(black_box(&body), wire.as_ref(), &resource));
        });
    }
    group.finish();
}

/// Deflating blocks. The reference is one deflate of the same bytes by `flate2`, at the same level.
fn deflating(c: &mut Criterion) {
    let mut group = c.benchmark_group("deflating");
    let resource = resource();
    for records in [1, 8, RECORDS, 900] {
        let (plain, _) = plain_block(&delivery(Form::Node, records, WORDS), &Otlp, &resource);
        group.throughput(Throughput::Bytes(plain.len() as u64));
        let mut deflater = Deflater::default();
        group.bench_function(BenchmarkId::new("ours", records), |b| {
            b.iter(|| deflater.deflate(black_box(&plain)).unwrap());
        });
        let mut room = Vec::new();
        group.bench_function(BenchmarkId::new("flate2", records), |b| {
            b.iter(|| deflate_once(black_box(&plain), &mut room));
        });
    }
    group.finish();
}

/// Putting a request of 1 MiB together from stored blocks. The reference deflates the same bytes when they are sent.
fn assembling(c: &mut Criterion) {
    let mut group = c.benchmark_group("assembling");
    let (resource, mut deflater) = (resource(), Deflater::default());
    let (plain, records) = plain_block(&delivery(Form::Node, 600, WORDS), &Otlp, &resource);
    let dir = TempDir::new().unwrap();
    let mut queue = open(dir.path());
    for number in 0..8 {
        queue.append(&batch(number, vec![block(&plain, records, &Otlp, &mut deflater)])).unwrap();
    }
    let request = take(&mut queue, Encoding::Gzip).unwrap();
    let whole = plain.repeat(usize::try_from(request.0).unwrap());
    group.throughput(Throughput::Bytes(whole.len() as u64));
    for (name, encoding) in [("ours", Encoding::Gzip), ("ours, uncompressed", Encoding::Identity)] {
        group.bench_function(name, |b| b.iter(|| take(&mut queue, encoding).unwrap()));
    }
    let mut room = Vec::new();
    group.bench_function("flate2", |b| b.iter(|| deflate_once(black_box(&whole), &mut room)));
    group.finish();
}

/// A request that is put together and not delivered: blocks in it, and its bytes.
fn take(queue: &mut Queue, encoding: Encoding) -> Option<(u32, usize)> {
    let request = queue.assemble(Signal::Logs, &Otlp, encoding, 1 << 20, 1000)?;
    queue.keep(Signal::Logs);
    Some((request.blocks, request.body.len()))
}

/// Appending to the queue, and append, take and forget in turn. The reference is a plain log.
fn queueing(c: &mut Criterion) {
    let mut group = c.benchmark_group("queueing");
    for bytes in APPENDED_BYTES {
        let kib = bytes >> 10;
        let new = noise(bytes, &Otlp);
        group.throughput(Throughput::Bytes(bytes as u64));
        let dir = TempDir::new().unwrap();
        let mut queue = open(dir.path());
        let mut number = 0;
        group.bench_function(BenchmarkId::new("append", kib), |b| {
            b.iter_batched(
                || {
                    number += 1;
                    batch(number, vec![new.clone()])
                },
                |batch| queue.append(&batch).unwrap(),
                BatchSize::SmallInput,
            );
        });
        let mut log = PlainLog::open(&dir.path().join("plain"));
        group.bench_function(BenchmarkId::new("append, plain log", kib), |b| {
            b.iter_batched(
                || log_payload(&new.payload),
                |payload| {
                    log.bound();
                    log.append(&payload);
                },
                BatchSize::SmallInput,
            );
        });
        let dir = TempDir::new().unwrap();
        let mut queue = open(dir.path());
        queue.attach_index(dir.path());
        group.bench_function(BenchmarkId::new("churn", kib), |b| {
            b.iter_batched(
                || {
                    number += 1;
                    batch(number, vec![new.clone()])
                },
                |batch| {
                    queue.append(&batch).unwrap();
                    acknowledge(&mut queue)
                },
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("peek", kib), |b| {
            number += 1;
            queue.append(&batch(number, vec![new.clone()])).unwrap();
            b.iter(|| {
                let body = request(&mut queue).body;
                queue.keep(Signal::Logs);
                body
            });
            acknowledge(&mut queue);
        });
        group.bench_function(BenchmarkId::new("acknowledge", kib), |b| {
            b.iter_custom(|times| {
                let mut taken = Duration::ZERO;
                for _ in 0..times {
                    number += 1;
                    queue.append(&batch(number, vec![new.clone()])).unwrap();
                    let to = request(&mut queue).to;
                    let began = Instant::now();
                    queue.done(Signal::Logs, to);
                    taken += began.elapsed();
                }
                taken
            });
        });
        let mut log = PlainLog::open(&dir.path().join("plain"));
        group.bench_function(BenchmarkId::new("peek, plain log", kib), |b| {
            log.append(&log_payload(&new.payload));
            b.iter(|| log.last(new.payload.len()));
        });
        group.bench_function(BenchmarkId::new("churn, plain log", kib), |b| {
            b.iter_batched(
                || log_payload(&new.payload),
                |payload| {
                    log.bound();
                    log.append(&payload);
                    log.last(payload.len())
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn log_payload(payload: &[u8]) -> Vec<u8> {
    payload.to_vec()
}

fn request(queue: &mut Queue) -> Request {
    queue.assemble(Signal::Logs, &Otlp, Encoding::Gzip, 1 << 20, 1000).unwrap()
}

/// What waits is taken, and delivered.
fn acknowledge(queue: &mut Queue) -> usize {
    let request = request(queue);
    queue.done(Signal::Logs, request.to);
    request.body.len()
}

/// Opening a queue: a new one, one with 64 MiB waiting, and that one until everything is counted, with and without the
/// index that saves it the counting.
fn opening(c: &mut Criterion) {
    let mut group = c.benchmark_group("opening");
    group.sample_size(20);
    group.bench_function("empty", |b| {
        b.iter_batched(|| TempDir::new().unwrap(), |dir| (open(dir.path()), dir), BatchSize::PerIteration);
    });
    let dir = TempDir::new().unwrap();
    backlog(dir.path());
    group.bench_function("64 MiB, first request", |b| {
        b.iter_with_large_drop(|| {
            let mut queue = open(dir.path());
            let oldest = queue.oldest(Signal::Logs).unwrap();
            (queue, oldest)
        });
    });
    group.bench_function("64 MiB, all counted from the segments", |b| {
        b.iter_with_large_drop(|| {
            let mut queue = open(dir.path());
            while queue.count_one() {}
            assert!(queue.waiting(Signal::Logs).blocks > 900);
            queue
        });
    });
    group.bench_function("64 MiB, the index made anew", |b| {
        b.iter_batched(
            || drop(std::fs::remove_dir_all(dir.path().join("index"))),
            |()| {
                let mut queue = open(dir.path());
                queue.attach_index(dir.path());
                queue.consult_index_within(Duration::from_secs(5));
                while queue.count_one() {}
                queue
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn backlog(dir: &Path) {
    let new = noise(64 << 10, &Otlp);
    let mut queue = open(dir);
    for number in 0..BACKLOG_BLOCKS {
        queue.append(&batch(number, vec![new.clone()])).unwrap();
    }
}

/// What the policy takes to decide: a delivery is told, a request sent, its answer judged, and when to wake asked for.
/// Beside a backend that works: one that is away, where most rounds find that there is nothing to do yet, and one that
/// refuses a record, which is searched for.
fn deciding(c: &mut Criterion) {
    let mut group = c.benchmark_group("deciding");
    let away = Outcome::Retry { after: None, fate_unknown: false };
    for (name, outcome) in [("delivered", Outcome::Delivered), ("away", away), ("refused", Outcome::Refused)]
    {
        let (mut policy, mut now, mut sequence) = (Policy::new(settings(), 1), Duration::ZERO, 0);
        policy.on(now, Told::Started);
        group.bench_function(BenchmarkId::new("round", name), |b| {
            b.iter(|| {
                now += Duration::from_millis(40);
                sequence += 1;
                round(&mut policy, now, sequence, outcome)
            });
        });
    }
    group.finish();
}

fn settings() -> Settings {
    Settings {
        batch_max_bytes: 1 << 20,
        gzip: true,
        max_delay: Duration::from_secs(10),
        hold_max: Duration::from_millis(150),
        retry_initial: Duration::from_millis(200),
        retry_max: Duration::from_secs(30),
        request_timeout: Duration::from_secs(5),
        shutdown_reserve: Duration::from_millis(150),
        continuous: false,
        can_hold: true,
        bytes_per_second: None,
        fallback: None,
    }
}

/// Something waits; everything that is to be done about it is done, with this outcome. How much that was.
fn round(policy: &mut Policy, now: Duration, sequence: u64, outcome: Outcome) -> u32 {
    let head = Head { sequence, records: 10, bytes: 2_500 };
    let level = Backlog {
        blocks: 1,
        bytes: 1 << 20,
        oldest: Some(now),
        head: Some(head),
        crowded: false,
        brimming: false,
    };
    policy.on(now, Told::Backlog { signal: Signal::Logs, level });
    let mut done = 0;
    while let Some(action) = policy.next(now) {
        done += 1;
        match action {
            Action::Send { signal, attempt, .. } => {
                let sent =
                    Sent { head: sequence, blocks: 1, records: 10, plain_bytes: 2_500, wire_bytes: 500 };
                let left = if outcome == Outcome::Delivered { Backlog::default() } else { level };
                policy.on(now, Told::Answer { signal, attempt, sent, outcome, left });
            }
            Action::Settle { signal, .. } => policy.on(now, Told::Settled { signal, left: level }),
            _ => {}
        }
    }
    black_box(policy.wake_at());
    done
}

criterion_group!(benches, mapping, encoding, deflating, assembling, queueing, opening, deciding);
criterion_main!(benches);
