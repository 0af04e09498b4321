//! What `layer/` has beside the extension: scripts, and templates that name what the extension says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `directory`, but what is built or installed there.
fn files(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root().join(directory)];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match (path.is_dir(), name.as_str()) {
                (true, "node_modules" | "built" | ".terraform" | ".serverless" | "__pycache__") => {}
                (true, _) => left.push(path),
                (false, _) => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn script(name: &str) -> Command {
    Command::new(root().join("layer").join(name))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory to put before `PATH`, with a program `name` in it.
fn stand_in(name: &str, program: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{program}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let search = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    (directory, search)
}

// --- package.sh ------------------------------------------------------------------------------------------------------

#[test]
fn packaging_for_an_architecture_that_lambda_has_not_is_wrong_usage() {
    let output = script("package.sh").arg("riscv64").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("usage: package.sh x86_64 | arm64"), "{}", text(&output.stderr));
}

#[test]
fn packaging_without_the_standard_library_of_the_architecture_says_what_to_do() {
    let (_directory, path) = stand_in("rustc", "echo /nowhere");
    let output = script("package.sh").arg("arm64").env("PATH", path).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stderr);
    assert!(said.contains("rustup target add aarch64-unknown-linux-gnu"), "{said}");
    assert!(
        said.contains(".github/workflows/release.yml")
            && root().join(".github/workflows/release.yml").exists(),
        "{said}"
    );
}

// --- try.sh ----------------------------------------------------------------------------------------------------------

#[test]
fn where_the_emulator_cannot_run_the_demo_does() {
    let (directory, path) = stand_in("cargo", "echo cargo \"$@\"");
    let tools = directory.path().join("tools");
    fs::create_dir(&tools).unwrap();
    // All but `ip`.
    for tool in ["bash", "dirname", "env", "id", "uname", "unshare", "curl", "python3"] {
        let found = path.split(':').map(|folder| Path::new(folder).join(tool)).find(|found| found.exists());
        if let Some(found) = found {
            std::os::unix::fs::symlink(found, tools.join(tool)).unwrap();
        }
    }
    let search = format!("{}:{}", directory.path().display(), tools.display());
    let output = script("try.sh").env("PATH", search).output().unwrap();
    assert_eq!(text(&output.stdout), "cargo run --release --example demo -- --quick\n");
    let said = text(&output.stderr);
    assert!(said.starts_with("try.sh: there is no ") && said.contains("the demo runs instead"), "{said}");
}

// --- the gate ---------------------------------------------------------------------------------------------------------

#[test]
fn what_cannot_be_checked_is_skipped_and_a_failure_where_tools_are_required() {
    let nothing = tempfile::tempdir().unwrap();
    let run = |required: &str| {
        let mut check = script("check.sh");
        check.arg("zip").env("CARGO_TARGET_DIR", nothing.path()).env("OUTLAST_REQUIRE_TOOLS", required);
        let output = check.output().unwrap();
        (output.status.code(), text(&output.stdout))
    };
    let (code, said) = run("");
    assert!(code == Some(0) && said.contains("skipped  the zip"), "{said}");
    let (code, said) = run("1");
    assert!(code == Some(1) && said.contains("FAILED   the zip"), "{said}");
}

#[test]
fn the_workflow_runs_the_gate_as_root_and_lets_nothing_be_skipped() {
    // The emulator's namespaces need root, and .ci/run requires the tests that use them once the emulator is there.
    let workflow = fs::read_to_string(root().join(".github/workflows/ci.yml")).unwrap();
    let gate = workflow.lines().find(|line| line.ends_with(" .ci/run")).expect("a step that runs the gate");
    assert!(gate.contains("sudo -E ") && gate.contains("OUTLAST_REQUIRE_TOOLS=1"), "{gate}");
}

// --- publish.sh ------------------------------------------------------------------------------------------------------

/// An AWS CLI that notes its arguments in `$CALLS`, knows version 6 of every layer with the hash `$KNOWN`, and publishes version 7 with `$HASH`.
const AWS: &str = r#"
printf '%s\n' "$*" >>"$CALLS"
while [ "$1" != --region ]; do last=$1; shift; done
arn=arn:aws:lambda:$2:123456789012:layer:$4
case $last in
list-layer-versions) [ -n "$KNOWN" ] && echo 6 || echo None ;;
get-layer-version) printf '%s:6\t%s\n' "$arn" "$KNOWN" ;;
publish-layer-version) printf '%s:7\t7\t%s\n' "$arn" "$HASH" ;;
add-layer-version-permission) [ -z "$REFUSES" ] || { echo "An error occurred ($REFUSES) when calling AddLayerVersionPermission" >&2; exit 254; } ;;
*) exit 9 ;;
esac"#;

/// What stands in for a layer, and its SHA-256 as `sha256sum` and as Lambda write it.
const CONTENT: &str = "a layer";
const SUM: &str = "e28d98ac666afd34f089b971a663264d54d67a60ddc82996d48d8f3c204eb75f";
const HASH: &str = "4o2YrGZq/TTwiblxpmMmTVTWemDdyCmW1I2PPCBOt18=";

/// The hash of something else.
const OTHER: &str = "b3RoZXI=";

struct Publication {
    output: Output,
    calls: Vec<String>,
}

impl Publication {
    /// Runs publish.sh where the newest version has the hash `known`, if there is one, and a new one gets `told`.
    fn run(arguments: &[&str], known: &str, told: &str) -> Self {
        Self::run_where_sharing(arguments, known, told, "")
    }

    /// The same where sharing a version fails as `refuses` says.
    fn run_where_sharing(arguments: &[&str], known: &str, told: &str, refuses: &str) -> Self {
        let (directory, path) = stand_in("aws", AWS);
        let at = |name: &str| directory.path().join(name);
        fs::write(at("outlast-arm64.zip"), CONTENT).unwrap();
        fs::write(at("outlast-arm64.zip.sha256"), format!("{SUM}  outlast-arm64.zip\n")).unwrap();
        let output = script("publish.sh")
            .args(arguments)
            .arg(at("outlast-arm64.zip"))
            .env("PATH", path)
            .env("CALLS", at("calls"))
            .env("KNOWN", known)
            .env("HASH", told)
            .env("REFUSES", refuses)
            .output()
            .unwrap();
        let calls = fs::read_to_string(at("calls")).unwrap_or_default().lines().map(str::to_owned).collect();
        Self { output, calls }
    }

    fn calls_of(&self, what: &str) -> Vec<&String> {
        self.calls.iter().filter(|call| call.starts_with(&format!("lambda {what} "))).collect()
    }

    fn printed(&self) -> String {
        text(&self.output.stdout)
    }
}

#[test]
fn a_dry_run_of_publishing_says_every_change_and_makes_none() {
    let arguments = ["--regions", "eu-central-1,us-east-1", "--public", "--dry-run"];
    let run = Publication::run(&arguments, "", HASH);
    assert!(run.output.status.success(), "{}", text(&run.output.stderr));
    assert!(run.calls.is_empty(), "{:?}", run.calls);
    let said = text(&run.output.stderr);
    for region in ["eu-central-1", "us-east-1"] {
        for change in ["publish-layer-version", "add-layer-version-permission"] {
            let expected =
                format!("would run: aws lambda {change} --region {region} --layer-name outlast-arm64");
            assert!(said.contains(&expected), "{expected}\n{said}");
        }
    }
    assert_eq!(run.printed(), "");
}

#[test]
fn publishing_makes_a_version_in_each_region_and_shares_it_as_told() {
    let arguments = ["--regions", "eu-central-1,us-east-1", "--name", "telemetry", "--organization", "o-abc"];
    let run = Publication::run(&arguments, "", HASH);
    assert!(run.output.status.success(), "{}", text(&run.output.stderr));
    let arn = |region| format!("arn:aws:lambda:{region}:123456789012:layer:telemetry-arm64:7\n");
    assert_eq!(run.printed(), arn("eu-central-1") + &arn("us-east-1"));
    assert_eq!(run.calls_of("publish-layer-version").len(), 2);
    assert!(
        run.calls_of("publish-layer-version")
            .iter()
            .all(|call| call.contains("--compatible-architectures arm64"))
    );
    let shared = run.calls_of("add-layer-version-permission");
    assert_eq!(shared.len(), 2);
    assert!(
        shared.iter().all(|call| call.contains("--version-number 7")
            && call.contains("--principal * --organization-id o-abc")),
        "{shared:?}"
    );
}

#[test]
fn a_layer_is_shared_with_nobody_unless_told() {
    let run = Publication::run(&["--regions", "eu-central-1"], "", HASH);
    assert!(run.output.status.success(), "{}", text(&run.output.stderr));
    assert!(run.calls_of("add-layer-version-permission").is_empty());
}

#[test]
fn what_is_the_newest_version_already_is_not_published_again() {
    let run = Publication::run(&["--regions", "eu-central-1"], HASH, HASH);
    assert_eq!(run.printed(), "arn:aws:lambda:eu-central-1:123456789012:layer:outlast-arm64:6\n");
    assert!(run.calls_of("publish-layer-version").is_empty());
    let other = Publication::run(&["--regions", "eu-central-1"], OTHER, HASH);
    assert_eq!(other.calls_of("publish-layer-version").len(), 1);
}

#[test]
fn what_is_published_already_is_shared_as_told_and_what_is_shared_already_stays_so() {
    let arguments = ["--regions", "eu-central-1", "--accounts", "111122223333,444455556666"];
    for refuses in ["", "ResourceConflictException"] {
        let run = Publication::run_where_sharing(&arguments, HASH, HASH, refuses);
        assert!(run.output.status.success(), "{}", text(&run.output.stderr));
        let shared = run.calls_of("add-layer-version-permission");
        assert_eq!(shared.len(), 2, "{shared:?}");
        assert!(shared.iter().all(|call| call.contains("--version-number 6")), "{shared:?}");
        assert_eq!(run.printed(), "arn:aws:lambda:eu-central-1:123456789012:layer:outlast-arm64:6\n");
    }
    let denied = Publication::run_where_sharing(&arguments, HASH, HASH, "AccessDeniedException");
    assert_eq!(denied.output.status.code(), Some(1));
    assert!(text(&denied.output.stderr).contains("AccessDeniedException"));
    assert_eq!(denied.printed(), "");
}

#[test]
fn a_version_that_is_not_the_zip_is_not_shared() {
    let run = Publication::run(&["--regions", "eu-central-1", "--public"], "", OTHER);
    assert_eq!(run.output.status.code(), Some(1));
    assert!(run.calls_of("add-layer-version-permission").is_empty());
    assert_eq!(run.printed(), "");
}

#[test]
fn publishing_without_regions_or_zips_or_with_a_changed_zip_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let zip = directory.path().join("outlast-x86_64.zip");
    fs::write(&zip, "changed").unwrap();
    let sum = format!("{}  outlast-x86_64.zip\n", "0".repeat(64));
    fs::write(directory.path().join("outlast-x86_64.zip.sha256"), sum).unwrap();
    let (_aws, path) = stand_in("aws", "exit 9");
    let code = |arguments: &[&str]| {
        script("publish.sh").args(arguments).env("PATH", &path).output().unwrap().status.code()
    };
    assert_eq!(code(&["--regions", "eu-central-1"]), Some(2));
    assert_eq!(code(&[zip.to_str().unwrap()]), Some(2));
    assert_eq!(code(&["--regions", "eu-central-1", zip.to_str().unwrap()]), Some(1));
    assert_eq!(code(&["--regions", "eu-central-1", "--accounts", "me", zip.to_str().unwrap()]), Some(1));
}

// --- alarms ----------------------------------------------------------------------------------------------------------

/// Lines of the extension as it may print them: `outlast LEVEL text`, with `7` in place of what is put in.
fn lines_in_the_source() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for path in files("src").iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
        let code = fs::read_to_string(path).unwrap();
        for (mark, level) in [("log::warn!(", "WARN"), ("log::error!(", "ERROR"), ("log::info!(", "INFO")] {
            for rest in code.split(mark).skip(1) {
                let Some(literal) =
                    rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next())
                else {
                    continue;
                };
                let mut text = String::new();
                let mut depth = 0;
                for c in literal.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' => {
                            depth -= 1;
                            text.push('7');
                        }
                        _ if depth == 0 => text.push(c),
                        _ => {}
                    }
                }
                lines.insert(format!("outlast {level} {text}"));
            }
        }
    }
    assert!(lines.len() > 30, "{lines:?}");
    lines
}

/// Whether CloudWatch Logs would find `line` with `pattern`, of whose regular expressions the templates use alternatives, `^`, one class, and `.*`
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html>).
fn finds(pattern: &str, line: &str) -> bool {
    let inner =
        pattern.strip_prefix('%').and_then(|rest| rest.strip_suffix('%')).expect("a regular expression");
    inner.split('|').any(|alternative| {
        let literal =
            alternative.strip_prefix('^').expect("an anchor: a function's own lines must not match");
        let (head, tail) =
            literal.split_once("[EW].*").map_or((literal, None), |(head, tail)| (head, Some(tail)));
        let allowed = |c: char| c.is_ascii_alphanumeric() || " :_#=@/;,-".contains(c);
        assert!(head.chars().chain(tail.unwrap_or_default().chars()).all(allowed), "{alternative}");
        line.strip_prefix(head)
            .is_some_and(|rest| tail.is_none_or(|tail| rest.starts_with(['E', 'W']) && rest.contains(tail)))
    })
}

/// The patterns that `path` names, by what their metric is called.
fn patterns() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for path in files("layer/templates") {
        let Ok(content) = fs::read_to_string(&path) else { continue };
        let quoted = content.split(['"', '\'']);
        found.extend(
            quoted.filter(|part| part.starts_with("%^outlast")).map(|part| (path.clone(), part.to_owned())),
        );
    }
    found
}

#[test]
fn the_alarm_on_drops_finds_every_line_that_tells_of_a_drop_and_no_other() {
    let patterns = patterns();
    let drops: BTreeSet<&str> =
        patterns.iter().map(|(_, p)| p.as_str()).filter(|p| p.contains("dropped")).collect();
    let [pattern] = *drops.iter().copied().collect::<Vec<_>>() else {
        panic!("one pattern in all templates: {drops:?}")
    };
    let told = |line: &str| {
        // What is found damaged is counted, and told as dropped, once its turn comes.
        let words = ["dropped", "given up", "rejected", "are damaged or were removed", "counted and left"];
        !line.contains(" INFO ") && words.iter().any(|word| line.contains(word))
    };
    let lines = lines_in_the_source();
    for line in &lines {
        assert_eq!(finds(pattern, line), told(line), "{line}");
    }
    assert!(lines.iter().filter(|line| finds(pattern, line)).count() >= 9);
    assert!(
        !finds(pattern, "outlast INFO shutdown: 7 records received, 7 delivered, 0 left on disk, 7 dropped"),
        "it is told already"
    );
    assert!(!finds(pattern, "the order was dropped"));
}

#[test]
fn the_alarm_on_a_backend_that_is_away_finds_its_lines() {
    let patterns = patterns();
    let away: BTreeSet<&str> =
        patterns.iter().map(|(_, p)| p.as_str()).filter(|p| !p.contains("dropped")).collect();
    let [pattern] = *away.iter().copied().collect::<Vec<_>>() else {
        panic!("one pattern in all templates: {away:?}")
    };
    // As src/health.rs words them.
    let source = fs::read_to_string(root().join("src/health.rs")).unwrap();
    for words in [
        "\"away ({cause}); {blocks} blocks wait\"",
        "\"answers {status}: endpoint",
        "\"away (not asked, {cause}); {blocks} blocks wait\"",
        "Self::of(\"backend\")",
        "\"{}: {}\"",
    ] {
        assert!(source.contains(words), "{words}");
    }
    assert!(finds(pattern, "outlast WARN backend: away (connection refused); 3 blocks wait"));
    assert!(finds(
        pattern,
        "outlast WARN backend: answers 401: endpoint, path or credentials are wrong; the data waits"
    ));
    assert!(finds(
        pattern,
        "outlast WARN backend: away (not asked, its credentials cannot be had); 3 blocks wait"
    ));
    assert!(!finds(pattern, "outlast WARN backend: takes data again after 3.0 s and 7 attempts"));
}

#[test]
fn every_template_alarms_on_drops_and_on_a_backend_that_is_away() {
    let patterns = patterns();
    for tool in ["sam", "cloudformation", "terraform", "cdk", "serverless"] {
        let directory = root().join("layer/templates").join(tool);
        let of: Vec<_> = patterns.iter().filter(|(path, _)| path.starts_with(&directory)).collect();
        assert!(of.iter().any(|(_, p)| p.contains("dropped")), "{tool}");
        assert!(of.iter().any(|(_, p)| p.contains("away")), "{tool}");
    }
}
