//! What earlier versions accepted as settings is accepted by this one: `tests/data/settings-VERSION`, which are never changed but by what is new in
//! that version.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use outlast::config::load;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ENDPOINT: (&str, &str) = ("OUTLAST_ENDPOINT", "https://otlp.example.com:4318");

/// The kept files.
fn kept() -> Vec<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let found = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    found.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("settings-")).collect()
}

/// An environment of a line.
fn variables(line: &str) -> Vec<(&str, &str)> {
    line.split('\t').map(|pair| pair.split_once('=').expect("NAME=value")).collect()
}

#[test]
fn every_setting_and_value_that_an_earlier_version_accepted_is_accepted() {
    let (mut checked, mut refused) = (0, Vec::new());
    for path in kept() {
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let own = variables(line);
            let endpoint = own.iter().all(|(name, _)| *name != ENDPOINT.0).then_some(ENDPOINT);
            let loaded = load(endpoint.into_iter().chain(own));
            refused.extend(
                loaded.problems.iter().map(|problem| format!("{}: {line}: {problem}", path.display())),
            );
            checked += 1;
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(checked > 100, "only {checked} environments");
}

#[test]
fn every_setting_is_kept_for_later_versions() {
    let texts: Vec<String> = kept().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#'));
    let known: BTreeSet<&str> = lines.flat_map(variables).map(|(name, _)| name).collect();
    // Written from the table of settings, which another test sees to.
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    let settings =
        page.lines().filter_map(|line| line.strip_prefix("## `")).map(|rest| rest.trim_end_matches('`'));
    for name in settings {
        assert!(known.contains(name), "{name} is in no tests/data/settings-VERSION");
    }
}
