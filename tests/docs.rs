//! What the documents say and a command can check.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ARCHITECTURE_MAX_LINES: usize = 300;
const MAIN_MAX_LINES: usize = 120;

/// Crates that could be replaced one day.
const NAMED_ONCE: [&str; 3] = ["sled", "bincode", "backoff"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn architecture() -> String {
    read("docs/architecture.md")
}

/// Rust files below `dir`, relative to the root.
fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root().join(dir)];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// The code of a file: no comments, and nothing from its unit tests on.
fn code(path: &Path) -> String {
    let text = read(path);
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<&str> = shipped.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    lines.join("\n")
}

fn is_test(path: &Path) -> bool {
    path.iter().any(|part| ["tests", "tests.rs", "testing.rs"].iter().any(|name| part == *name))
}

/// Cells of the table rows in `text`, without heads and rules.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_row = |line: &&&str| line.starts_with('|') && !line.starts_with("|---");
    let is_head = |at: usize| lines.get(at + 1).is_some_and(|next| next.starts_with("|---"));
    let rows = lines.iter().enumerate().filter(|(at, line)| is_row(line) && !is_head(*at));
    rows.map(|(_, line)| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn section<'a>(text: &'a str, title: &str) -> &'a str {
    let start = text.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    let rest = &text[start + 4..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// Identifiers that follow `prefix` in `code`, those in braces one by one.
fn names_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let first = |text: &'a str| {
        let text = text.trim_start();
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
        text[..end].trim_end_matches(':')
    };
    let names = code.split(prefix).skip(1).map(|rest| match rest.strip_prefix('{') {
        Some(list) => list.split_once('}').expect("a closed brace").0.split(',').map(first).collect(),
        None => vec![first(rest)],
    });
    names.flatten().filter(|name| !name.is_empty()).collect()
}

#[test]
fn the_map_and_main_stay_short_enough_to_be_read() {
    assert!(architecture().lines().count() <= ARCHITECTURE_MAX_LINES);
    let main = read("src/main.rs");
    let shipped = main.split("#[cfg(test)]").next().unwrap_or_default();
    assert!(shipped.lines().count() <= MAIN_MAX_LINES);
}

/// The module a file belongs to, as the map names it.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix("src").unwrap().with_extension("");
    let mut parts = inside.iter().map(|part| part.to_str().unwrap());
    match (parts.next().unwrap(), parts.next()) {
        ("drain", Some("executor")) => "drain::executor".to_owned(),
        (top, _) => top.to_owned(),
    }
}

/// The module of the map that `crate::name` leads to.
fn module_behind(name: &str) -> String {
    let mut parts = name.split("::");
    match (parts.next().unwrap(), parts.next()) {
        ("Signal" | "PerSignal", _) => "signal".to_owned(),
        ("drain", Some("executor")) => "drain::executor".to_owned(),
        (top, _) => top.to_owned(),
    }
}

#[test]
fn the_module_map_names_every_module_and_whom_it_knows_and_goes_in_one_direction() {
    let text = architecture();
    let mut said = BTreeMap::new();
    for row in rows(section(&text, "Modules")) {
        let [module, _, knows] = row[..] else { panic!("{row:?}") };
        let module = quoted(module).next().expect("a module").to_owned();
        let knows: BTreeSet<String> = quoted(knows).map(str::to_owned).collect();
        for known in &knows {
            assert!(said.contains_key(known), "{module} knows {known}, which does not stand above it");
        }
        said.insert(module, knows);
    }

    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in rust_files("src").into_iter().filter(|path| !is_test(path)) {
        let module = module_of(&path);
        if module == "main" || module == "lib" {
            continue;
        }
        let code = code(&path);
        let names = names_after(&code, "crate::").into_iter().map(module_behind);
        let knows = found.entry(module.clone()).or_default();
        knows.extend(names.filter(|name| *name != module));
        // A part with a row of its own reaches the rest of its module by `super`.
        if let Some((parent, _)) = module.split_once("::")
            && code.contains("super::")
        {
            knows.insert(parent.to_owned());
        }
    }
    assert_eq!(said, found, "the map (left) and the source (right)");
}

#[test]
fn crates_that_could_be_replaced_are_named_by_one_file_each() {
    for name in NAMED_ONCE {
        let names = |path: &PathBuf| {
            let code = code(path);
            // `use name::…` or `name::…`, but not a module of ours of the same name.
            code.match_indices(&format!("{name}::")).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
            })
        };
        let files: Vec<PathBuf> = rust_files("src").into_iter().filter(names).collect();
        assert_eq!(files.len(), 1, "{name} is named by {files:?}");
    }
}

#[test]
fn every_row_of_the_decision_table_names_tests_that_exist() {
    let source: String = rust_files("src").iter().map(read).collect();
    let text = read("docs/decisions.md");
    let decisions = rows(&text);
    assert!(decisions.len() > 30, "{} rows", decisions.len());
    for row in decisions {
        let tests: Vec<&str> = quoted(row.last().unwrap()).collect();
        assert!(!tests.is_empty(), "no test for {row:?}");
        for test in tests {
            assert!(source.contains(&format!("fn {test}(")), "there is no test {test}");
        }
    }
}

/// The documents: those at the top and those in `docs/`.
fn documents() -> Vec<PathBuf> {
    let below = |dir: &str| fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    let found = below("").chain(below("docs"));
    found.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut checked = 0;
    for document in documents() {
        let text = read(&document);
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if target.starts_with("https://") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { document.clone() } else { document.with_file_name(path) };
            assert!(path.exists(), "{}: {target} is not there", document.display());
            let found = fragment.is_empty() || anchors(&read(&path)).iter().any(|known| known == fragment);
            assert!(found, "{}: {target} has no such heading", document.display());
            checked += 1;
        }
    }
    assert!(checked > 10, "only {checked} links were found");
}

#[test]
fn files_that_documents_name_are_there() {
    let mut checked = 0;
    for document in documents() {
        let text = read(&document);
        let prose: String = text.split("```").step_by(2).collect();
        for name in quoted(&prose).filter(|name| name.starts_with("tests/") || name.starts_with("src/")) {
            let path = name.split(' ').next().unwrap();
            assert!(root().join(path).exists(), "{}: there is no {path}", document.display());
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} names were found");
}

#[test]
fn every_dependency_is_accounted_for_and_used() {
    let manifest = read("Cargo.toml");
    let listed = |title: &str| {
        let rest = manifest.split(&format!("\n[{title}]\n")).nth(1).expect("a section");
        let lines = rest.lines().take_while(|line| !line.starts_with('['));
        lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    };
    let text = read("docs/dependencies.md");
    let told: BTreeSet<&str> = quoted(&text).collect();
    for name in [listed("dependencies"), listed("dev-dependencies")].concat() {
        assert!(told.contains(name.as_str()), "{name} is not in docs/dependencies.md");
    }
    let source: String = rust_files("src").iter().map(|path| code(path)).collect();
    for name in listed("dependencies") {
        let path = format!("{}::", name.replace('-', "_"));
        assert!(source.contains(&path), "{name} is not used");
    }
}

#[test]
fn the_readme_names_the_test_command() {
    assert!(read("README.md").contains("\ncargo test --workspace\n"));
}
