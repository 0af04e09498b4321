//! Every input that is kept, through the oracle of its target: what was found once is not found again, with a stable
//! toolchain and without `cargo fuzz`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use outlast_fuzz_oracles::TARGETS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/fuzz")
}

/// Deliveries that Lambda made.
fn samples() -> Vec<PathBuf> {
    let directory = root().parent().unwrap().join("telemetry");
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The inputs that are kept for a target.
fn inputs(target: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if target == "telemetry" {
        found.extend(samples());
    }
    for kept in ["corpora", "seeds"] {
        let Ok(entries) = fs::read_dir(root().join(kept).join(target)) else { continue };
        found.extend(entries.map(|entry| entry.unwrap().path()));
    }
    found.sort();
    found
}

#[test]
fn every_kept_input_satisfies_its_oracle() {
    for (target, check) in TARGETS {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "nothing is kept for {target}");
        for path in inputs {
            let input = fs::read(&path).unwrap();
            let checked = catch_unwind(AssertUnwindSafe(|| check(&input)));
            assert!(checked.is_ok(), "{} is a finding", path.display());
        }
    }
}

/// Inputs made up by chance for each target; `FUZZ_CASES` says how many, `FUZZ_SEED` which, `FUZZ_TARGET` for which only.
const CASES: u64 = 40;

#[test]
fn inputs_made_up_by_chance_satisfy_the_oracles() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (cases, seed) = (number("FUZZ_CASES").unwrap_or(CASES), number("FUZZ_SEED").unwrap_or(1));
    let only = std::env::var("FUZZ_TARGET").ok();
    for (target, check) in
        TARGETS.into_iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name))
    {
        let kept: Vec<Vec<u8>> = inputs(target).iter().map(|path| fs::read(path).unwrap()).collect();
        for case in 0..cases {
            let mut random = fastrand::Rng::with_seed(seed << 32 | case);
            let input = match random.choice(&kept) {
                Some(known) if case % 2 == 0 => changed(known.clone(), &mut random),
                _ => (0..random.usize(..700)).map(|_| random.u8(..)).collect(),
            };
            let checked = catch_unwind(AssertUnwindSafe(|| check(&input)));
            if checked.is_err() {
                let kept = std::env::temp_dir().join(format!("{target}-{seed}-{case}"));
                fs::write(&kept, &input).unwrap();
                panic!("{} is a finding", kept.display());
            }
        }
    }
}

/// An input with a few bytes replaced, put in, taken out or put behind it.
fn changed(mut input: Vec<u8>, random: &mut fastrand::Rng) -> Vec<u8> {
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=input.len());
        match random.u8(..4) {
            0 if at < input.len() => input[at] = random.u8(..),
            1 => input.insert(at, random.u8(..)),
            2 if at < input.len() => drop(input.remove(at)),
            _ => input.extend((0..random.usize(..8)).map(|_| random.u8(..))),
        }
    }
    input
}

#[test]
fn recorded_deliveries_satisfy_the_oracles_of_telemetry() {
    let samples = samples();
    assert!(samples.len() > 10, "only {samples:?} were found");
    for (number, path) in samples.iter().enumerate() {
        let mut delivery = fs::read(path).unwrap();
        outlast_fuzz_oracles::telemetry::check(&delivery);
        // And cut, in other places for each.
        delivery.extend([0xff, number as u8, 7 * number as u8, 0, 100, 0]);
        outlast_fuzz_oracles::telemetry::check(&delivery);
    }
}

#[test]
fn every_target_of_the_fuzzer_is_an_oracle_that_is_tried_here() {
    let mut targets: Vec<String> = fs::read_dir(root().join("targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    targets.sort();
    assert_eq!(targets, TARGETS.map(|(name, _)| name));
}
