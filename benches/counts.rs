//! One hot path, so many times, and nothing else: what `benches/count.py` runs under callgrind. Instructions are what a
//! noisy machine cannot change. `counts PATH ROUNDS`; without both it names the paths, one a line.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a bench fails by panicking")]

mod work;

use outlast::Signal;
use outlast::encode::Otlp;
use outlast::keeper::fuzzing::Keeping;
use outlast::queue::{Deflater, Encoding};
use std::hint::black_box;
use std::process::ExitCode;
use tempfile::TempDir;
use work::{
    Form, RECEIVED, batch, block, delivery, each_record, invocation, noise, open, plain_block, resource,
};

/// Records of a delivery, and the words of each: some 250 bytes in all.
const RECORDS: usize = 200;
const WORDS: usize = 20;
/// What is appended: one block of a busy function.
const APPENDED_BYTES: usize = 16 << 10;
/// Blocks in a request.
const BLOCKS: u128 = 8;

/// A path: it is prepared, then run so many times.
type Run = fn(u32);

const PATHS: [(&str, Run); 10] = [
    ("mapping-text", |rounds| mapping(Form::Text, rounds)),
    ("mapping-object", |rounds| mapping(Form::Object, rounds)),
    ("encode", encode),
    ("deflate", |rounds| deflate(RECORDS, rounds)),
    ("deflate-small", |rounds| deflate(4, rounds)),
    ("append", append),
    ("assemble", assemble),
    ("keep-node", |rounds| keep(&delivery(Form::Node, RECORDS, WORDS), rounds)),
    ("keep-object", |rounds| keep(&delivery(Form::Object, RECORDS, WORDS), rounds)),
    ("keep-invocation", |rounds| keep(&invocation(4, WORDS), rounds)),
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (name, rounds) =
        (words.next().unwrap_or_default(), words.next().and_then(|count| count.parse().ok()));
    match (PATHS.iter().find(|(path, _)| *path == name), rounds) {
        (Some((_, run)), Some(rounds)) => run(rounds),
        _ => PATHS.iter().for_each(|(path, _)| println!("{path}")),
    }
    ExitCode::SUCCESS
}

/// A delivery, to log records.
fn mapping(form: Form, rounds: u32) {
    let body = delivery(form, RECORDS, WORDS);
    for _ in 0..rounds {
        each_record(black_box(&body), |record| {
            black_box(record.time_unix_nanos);
        });
    }
}

/// A delivery, to the plain bytes of a block.
fn encode(rounds: u32) {
    let (body, resource) = (delivery(Form::Node, RECORDS, WORDS), resource());
    for _ in 0..rounds {
        drop(black_box(plain_block(black_box(&body), &Otlp, &resource)));
    }
}

/// A block's plain bytes, to its payload.
fn deflate(records: usize, rounds: u32) {
    let (plain, _) = plain_block(&delivery(Form::Node, records, WORDS), &Otlp, &resource());
    let mut deflater = Deflater::default();
    for _ in 0..rounds {
        drop(black_box(deflater.deflate(black_box(&plain)).unwrap()));
    }
}

/// A delivery of one block, to disk.
fn append(rounds: u32) {
    let dir = TempDir::new().unwrap();
    let (mut queue, new) = (open(dir.path()), noise(APPENDED_BYTES, &Otlp));
    for number in 0..rounds {
        queue.append(&batch(u128::from(number), vec![new.clone()])).unwrap();
    }
}

/// Stored blocks, to a request.
fn assemble(rounds: u32) {
    let dir = TempDir::new().unwrap();
    let (mut queue, mut deflater) = (open(dir.path()), Deflater::default());
    let (plain, records) = plain_block(&delivery(Form::Node, RECORDS, WORDS), &Otlp, &resource());
    for number in 0..BLOCKS {
        queue.append(&batch(number, vec![block(&plain, records, &Otlp, &mut deflater)])).unwrap();
    }
    for _ in 0..rounds {
        let request = queue.assemble(Signal::Logs, &Otlp, Encoding::Gzip, 1 << 20, 1000).unwrap();
        drop(black_box(request));
        queue.keep(Signal::Logs);
    }
}

/// The whole way of a delivery that came, to disk.
fn keep(body: &[u8], rounds: u32) {
    let dir = TempDir::new().unwrap();
    let (mut keeping, mut body) = (Keeping::by_default(open(dir.path())), body.to_vec());
    // The last digit of the second of the first time: no two of a few rounds are the same delivery.
    let digit = body.iter().position(|byte| *byte == b'T').unwrap() + 8;
    let tens = digit - 1;
    for number in 0..rounds {
        (body[tens], body[digit]) = (b'0' + (number / 10 % 6) as u8, b'0' + (number % 10) as u8);
        black_box(keeping.take(black_box(&body), RECEIVED));
    }
}
