//! What the documents say and a command can check.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ARCHITECTURE_MAX_LINES: usize = 300;
const MAIN_MAX_LINES: usize = 120;

/// Crates that are dependencies only to choose the version or a feature of what others bring.
const CHOSEN_FOR_OTHERS: [&str; 2] = ["idna_adapter", "tracing"];

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
        if ["main", "lib", "bin"].contains(&module.as_str()) {
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

/// The documents: those at the top and those in `docs/`, in every language.
fn documents() -> Vec<PathBuf> {
    let below = |dir: &str| fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    let found = below("").chain(below(".github")).chain(below("docs")).chain(below("docs/pt-BR"));
    found.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// Files of `layer/` that people read, copy or run.
fn layer_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root().join("layer")];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir()
                && !["node_modules", "built", "__pycache__"].contains(&name.as_str())
                && !name.starts_with('.')
            {
                left.push(path);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    found
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
        let chosen = CHOSEN_FOR_OTHERS.contains(&name.as_str());
        assert_ne!(source.contains(&path), chosen, "{name}: a dependency is used, or chosen for others");
    }
}

#[test]
fn the_readme_names_the_test_command() {
    assert!(read("README.md").contains("\ncargo test --workspace\n"));
}

/// Variables of the tests, which are no settings.
const TEST_VARIABLES: [&str; 4] =
    ["OUTLAST_BLESS", "OUTLAST_REQUIRE_PARTS", "OUTLAST_REQUIRE_ROOM", "OUTLAST_REQUIRE_TOOLS"];

/// Names of variables of ours and of OpenTelemetry in `text`, and whether it is only their beginning.
fn variables(text: &str) -> Vec<(&str, bool)> {
    let mut found = Vec::new();
    for prefix in ["OUTLAST_", "OTEL_"] {
        for (at, _) in text.match_indices(prefix) {
            let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            if text[..at].chars().next_back().is_some_and(is_name) {
                continue;
            }
            let rest = &text[at..];
            let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
            found.push((name, name.ends_with('_')));
        }
    }
    found
}

/// The setting of the example destination `audit` that `name` is for another, which `text` names.
fn of_the_example(text: &str, name: &str) -> Option<String> {
    let lists = text.split("OUTLAST_DESTINATIONS=").skip(1).filter_map(|rest| rest.lines().next());
    let mut named = lists.flat_map(|list| list.split(',')).map(|named| named.trim().to_uppercase());
    named.find_map(|named| {
        name.strip_prefix(&format!("OUTLAST_{named}_")).map(|own| format!("OUTLAST_AUDIT_{own}"))
    })
}

#[test]
fn every_variable_that_a_document_or_a_template_names_is_a_setting() {
    // Written from the table of settings, which another test sees to.
    let reference = read("docs/configuration.md");
    let settings: BTreeSet<&str> =
        variables(&reference).into_iter().filter(|(_, begun)| !begun).map(|(name, _)| name).collect();
    let mut checked = 0;
    for path in documents().into_iter().chain(layer_files()) {
        let text = read(&path);
        for (name, begun) in variables(&text) {
            let known = settings.contains(name)
                || TEST_VARIABLES.contains(&name)
                || of_the_example(&text, name).is_some_and(|own| settings.contains(own.as_str()));
            let begins = begun && settings.iter().any(|setting| setting.starts_with(name));
            assert!(known || begins, "{}: {name} is no setting", path.display());
            checked += 1;
        }
    }
    assert!(checked > 200, "only {checked} names were found");
}

/// Commands of documents that something runs: how they begin, and the file and words that show it.
const RUN_BY: [(&str, &str, &str); 4] = [
    ("cargo run --release --example demo", ".ci/run", "cargo run --release --example demo"),
    ("cargo test --workspace", ".ci/run", "cargo test --workspace"),
    ("layer/package.sh ", ".ci/run", "step 'layer' layer/package.sh"),
    ("layer/try.sh", "layer/check.sh", "layer/try.sh"),
];

/// Words that a command for an account has.
const ACCOUNT: [&str; 5] =
    ["aws ", "layer/publish.sh ", "sam deploy", "terraform apply", "outlast-tool replay s3://"];

/// Whether `line` is an instance of `told`, which has `…` where anything may stand.
fn is_told(told: &str, line: &str) -> bool {
    let mut pieces = told.split('…');
    let Some(mut rest) = pieces.next().and_then(|first| line.strip_prefix(first)) else { return false };
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        rest = if piece.is_empty() { "" } else { after };
    }
    rest.is_empty()
}

/// The texts of our own lines of the levels `WARN` and `ERROR` in the source, `…` in place of what is put in.
fn warnings_in_the_source() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for path in rust_files("src").into_iter().filter(|path| !is_test(path)) {
        let code = code(&path);
        let calls = ["log::warn!(", "log::error!("].into_iter().flat_map(|mark| code.split(mark).skip(1));
        for rest in calls {
            let literal = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            let Some(literal) = literal else { continue };
            let mut text = String::new();
            for part in literal.split('{') {
                match part.split_once('}') {
                    Some((_, after)) => text.extend(["…", after]),
                    None => text.push_str(part),
                }
            }
            // What is put in last may be nothing, as for whom it is.
            lines.insert(text.trim_end_matches('…').to_owned());
        }
    }
    lines
}

#[test]
fn every_line_that_warns_is_in_the_table_of_lines() {
    let page = read("docs/operations.md");
    let table = rows(section(&page, "Lines"));
    // A number is `N` there; a backend or a fallback is named by its role.
    let told: Vec<String> = table
        .iter()
        .flat_map(|row| quoted(row[0]))
        .map(|text| text.split(' ').map(numbers_as_dots).collect::<Vec<_>>().join(" "))
        .collect();
    let (mut checked, mut missing) = (0, Vec::new());
    for line in warnings_in_the_source() {
        if !line.chars().any(char::is_alphabetic) {
            continue; // What is put in is the whole line.
        }
        let line = line.strip_prefix("…: ").map_or_else(|| line.clone(), |rest| format!("backend: {rest}"));
        if !told.iter().any(|text| is_told(text, &line)) {
            missing.push(line);
        }
        checked += 1;
    }
    assert!(missing.is_empty(), "docs/operations.md has no row for {missing:#?}\nbut for {told:#?}");
    assert!(checked > 40, "only {checked} lines were found");
}

/// `N` alone in a word, as `N` or `(N`, is a number.
fn numbers_as_dots(word: &str) -> String {
    let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
    if bare == "N" { word.replace('N', "…") } else { word.to_owned() }
}

#[test]
fn every_reason_of_a_drop_is_in_operations() {
    let ledger = read("src/queue/ledger.rs");
    let page = read("docs/operations.md");
    let names = ledger.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \""));
    let names: Vec<&str> = names.map(|(_, rest)| rest.split('"').next().unwrap()).collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "docs/operations.md lacks {name}");
    }
}

/// Blocks of code in `text`: what stands behind the fence, and the content.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some((info.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some((_, content))) => {
                content.push_str(line);
                content.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block without an end");
    found
}

/// A dry run, in a folder with the scripts and a layer that is none.
fn runs_dry(command: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("layer"), folder.path().join("layer")).unwrap();
    let built = folder.path().join("target/layer");
    fs::create_dir_all(&built).unwrap();
    let prepare =
        "printf layer > outlast-x86_64.zip && sha256sum outlast-x86_64.zip > outlast-x86_64.zip.sha256";
    let prepared = Command::new("bash").args(["-ec", prepare]).current_dir(&built).status().unwrap();
    assert!(prepared.success());
    let output = Command::new("bash").args(["-ec", command]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_command_in_a_document_is_run_somewhere_or_needs_an_account() {
    let mut ran = 0;
    for document in documents() {
        for (info, content) in blocks(&read(&document)) {
            let at = format!("{}: ```{info}\n{content}", document.display());
            let lines = || {
                content
                    .lines()
                    .map(|line| line.split('#').next().unwrap().trim())
                    .filter(|line| !line.is_empty())
            };
            match info.as_str() {
                // Settings, a line each.
                "sh" => assert!(
                    lines().all(|line| line.split('=').next().is_some_and(|name| variables(name).len() == 1)),
                    "{at}"
                ),
                "sh account" => assert!(ACCOUNT.iter().any(|word| content.contains(word)), "{at}"),
                "sh run" => {
                    for command in lines() {
                        if command.contains("--dry-run") {
                            runs_dry(command);
                        } else {
                            let shown = |(begins, file, words): &(&str, &str, &str)| {
                                command.starts_with(begins) && read(file).contains(words)
                            };
                            assert!(RUN_BY.iter().any(shown), "nothing runs {command}: {at}");
                        }
                        ran += 1;
                    }
                }
                other => assert!(
                    !["bash", "shell", "console", "zsh"].contains(&other.split(' ').next().unwrap()),
                    "{at}"
                ),
            }
        }
    }
    assert!(ran >= 5, "only {ran} commands were found");
}

#[test]
fn what_documents_run_in_passing_is_there() {
    let manifest = read("Cargo.toml");
    let named = |kind: &str, name: &str| manifest.contains(&format!("[[{kind}]]\nname = \"{name}\""));
    let mut checked = 0;
    for document in documents() {
        let text = read(&document);
        let prose: String = text.split("```").step_by(2).collect();
        for command in quoted(&prose) {
            let at = format!("{}: `{command}`", document.display());
            let words: Vec<&str> = command.split_whitespace().collect();
            for pair in words.windows(2).filter(|_| command.contains("cargo ")) {
                match *pair {
                    ["--example", name] => assert!(named("example", name), "{at}"),
                    ["--bench", name] => assert!(named("bench", name), "{at}"),
                    ["--test", name] => {
                        let there = named("test", name) || root().join(format!("tests/{name}.rs")).exists();
                        assert!(there, "{at}");
                    }
                    _ => continue,
                }
                checked += 1;
            }
            // A script, by the path that it is started with.
            for word in words {
                let folders = ["layer/", "tests/", "benches/", "docs/", ".ci/", ".github/"];
                let ending = word.rsplit_once('.').map_or("", |(_, ending)| ending);
                let is_script = ["sh", "py"].contains(&ending) || word == ".ci/run";
                if is_script && folders.iter().any(|folder| word.starts_with(folder)) {
                    assert!(root().join(word).is_file(), "{at}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 30, "only {checked} were found");
}

#[test]
fn only_what_belongs_there_is_at_the_top() {
    let known = "Cargo.toml Cargo.lock src layer benches tests docs README.md LICENSE CHANGELOG.md target";
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let generated = name.starts_with("mutants.out") || name.starts_with("rustc-ice");
        assert!(name.starts_with('.') || generated || known.split(' ').any(|known| known == name), "{name}");
    }
}

#[test]
fn the_book_has_every_document() {
    let summary = read("docs/SUMMARY.md");
    for document in documents() {
        let inside = document.strip_prefix(root().join("docs")).ok().and_then(Path::to_str);
        if let Some(name) = inside.filter(|name| *name != "SUMMARY.md") {
            assert!(summary.contains(&format!("]({name})")), "docs/SUMMARY.md lacks {name}");
        }
    }
}
