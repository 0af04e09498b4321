//! What rules do to records, and that nothing of a secret is left anywhere.

use super::*;
use crate::encode::Protocol;
use crate::record::{Context, Event, Join, Piece, Resource, ResourceInputs, Split, join, salvage, split};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

const REQUEST: &str = "8c181f94-0f1e-4cdb-a46b-a8dbe7918715";

fn rules(text: &str) -> RuleSet {
    let (rules, problems) = RuleSet::parse(text);
    assert_eq!(problems, [], "{text}");
    rules
}

fn event(kind: &str, record: &Json) -> String {
    format!(r#"{{"time":"2026-10-08T07:30:27.768Z","type":"{kind}","record":{record}}}"#)
}

/// What becomes of an event: `None` if it is not sent.
fn becomes<'e>(rules: &mut RuleSet, event: &'e Event<'e>, tally: &mut Tally) -> Option<LogRecord<'e>> {
    let mut record = LogRecord::from_event(event, &Context { request_id: Some(REQUEST) }, 7, "uid-1");
    rules.apply(&mut record, false, tally).then_some(record)
}

fn plain(value: &Value<'_>) -> Json {
    match value {
        Value::Empty => Json::Null,
        Value::Bool(is) => (*is).into(),
        Value::Int(number) => (*number).into(),
        Value::Double(number) => (*number).into(),
        Value::Str(text) => text.as_ref().into(),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Map(fields) => {
            Json::Object(fields.iter().map(|(name, value)| (name.to_string(), plain(value))).collect())
        }
    }
}

/// What is sent of a record, in the form in which it was logged: the text, or an object with its message.
fn sent(rules: &mut RuleSet, kind: &str, record: &Json) -> Option<Json> {
    let raw = event(kind, record);
    let event = Event::parse(raw.as_bytes());
    let record = becomes(rules, &event, &mut Tally::default())?;
    let own = |name: &str| matches!(name, UID | INVOCATION_ID | crate::record::log::TELEMETRY_TYPE);
    let fields: Vec<_> = record.attributes.iter().filter(|(name, _)| !own(name)).collect();
    if fields.is_empty() {
        return Some(plain(&record.body));
    }
    let fields = fields.into_iter().map(|(name, value)| (name.to_string(), plain(value)));
    Some(Json::Object(std::iter::once(("message".to_owned(), plain(&record.body))).chain(fields).collect()))
}

fn line(rules: &mut RuleSet, text: &str) -> Option<String> {
    sent(rules, "function", &text.into()).map(|sent| sent.as_str().expect("a text").to_owned())
}

#[test]
fn a_line_of_json_is_redacted_by_what_its_escapes_mean_and_stays_json() {
    let mut rules = rules(concat!(
        "[[rule]]\nredact.detect = [\"card\", \"email\"]\nredact.keys = [\"password\"]\n",
        "redact.regex = [\"session=[a-z0-9]+\"]\n"
    ));
    for (given, sent) in [
        (r#"{"m":"n\u00ba4111111111111111"}"#, r#"{"m":"nº[REDACTED]"}"#),
        (r#"{"m":"session\u003da81bc9"}"#, r#"{"m":"[REDACTED]"}"#),
        (r#"{"pass\u0077ord":"x"}"#, r#"{"pass\u0077ord":"[REDACTED]"}"#),
        (r#"{"n":4111111111111111}"#, r#"{"n":"[REDACTED]"}"#),
        (r#"{"m":"caf\u00e9 bob@example.com"}"#, r#"{"m":"café [REDACTED]"}"#),
    ] {
        let got = line(&mut rules, given).unwrap();
        let read = |text: &str| serde_json::from_str::<Json>(text).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(read(&got), read(sent), "{given}");
    }
}

#[test]
fn json_behind_a_runtimes_prefix_is_redacted_by_what_its_escapes_mean() {
    let mut rules = rules("[[rule]]\nredact.detect = [\"cpf\", \"cnpj\", \"card\", \"bearer\", \"email\"]\n");
    let prefix = format!("[INFO]\t2026-10-08T07:30:27.768Z\t{REQUEST}\t");
    for secret in
        ["52998224725", "11222333000181", "4111111111111111", "Bearer s3cr3t-t0k3n", "bob@example.com"]
    {
        let digits = secret.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<Vec<_>>().concat();
        for (before, after) in
            [("", ""), (prefix.as_str(), ""), (prefix.as_str(), " took 5 ms"), ("a [b] {c} ", "")]
        {
            for json in [
                format!(r#"{{"m":"CPF n\u00ba{secret}"}}"#),
                format!(r#"{{"m":"{digits}"}}"#),
                format!(r#"[1,"n\u00ba{secret}"]"#),
                format!(r#"["{digits}"]"#),
                format!(r#"{{"m":"{{\"m\":\"n\\u00ba{secret}\"}}"}}"#),
            ] {
                let given = format!("{before}{json}{after}");
                let got = line(&mut rules, &given).unwrap();
                assert!(got.starts_with(before) && got.ends_with(after), "{got}");
                let walked = got.strip_prefix(before).and_then(|got| got.strip_suffix(after)).unwrap();
                let text =
                    serde_json::from_str::<Json>(walked).unwrap_or_else(|_| panic!("{walked}")).to_string();
                let hidden = secret.trim_start_matches("Bearer ");
                assert!(text.contains("[REDACTED]") && !text.contains(hidden), "{given}: {got}");
            }
        }
    }
}

#[test]
fn sensitive_names_within_one_another_that_never_end_are_gone_through_once() {
    let mut rules = rules("[[rule]]\nredact.keys = [\"password\"]\n");
    // To the end for each name, this would be 5 × 10¹⁰ bytes.
    let raw = "{\"password\":{".repeat(80_000);
    let event = Event::parse(raw.as_bytes());
    let record = becomes(&mut rules, &event, &mut Tally::default()).unwrap();
    assert!(
        record.body.as_str().is_some_and(|body| body.len() < 100),
        "the value goes, though it has no end"
    );
}

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let page = include_str!("../../docs/rules.md");
    let blocks: Vec<(&str, &str)> =
        page.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n')).collect();
    let mut tried = 0;
    for pair in blocks.windows(2).filter(|pair| pair[0].0 == "toml") {
        let mut rules = rules(pair[0].1);
        let mut lines = pair[1].1.lines().peekable();
        while let Some(given) = lines.next() {
            let given = given.strip_prefix("in:  ").unwrap_or_else(|| panic!("{given}"));
            let out = lines.next_if(|line| line.starts_with("out: ")).map(|line| &line[5..]);
            let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Json::from(text));
            assert_eq!(sent(&mut rules, "function", &read(given)), out.map(read), "{given}");
            tried += 1;
        }
    }
    assert_eq!(tried, 10);
    // And the one within a variable.
    let inline = blocks[0].1.split('\'').nth(1).unwrap();
    assert_eq!(line(&mut rules(inline), "GET /health"), None);
}

#[test]
fn a_keep_guards_from_later_decisions_and_not_from_redaction() {
    let mut rules = rules(
        r#"
        [[rule]]
        when.text = "first"
        drop = true
        [[rule]]
        when.text = "keep"
        keep = true
        [[rule]]
        drop = true
        [[rule]]
        redact.regex = "secret"
        "#,
    );
    assert_eq!(line(&mut rules, "keep first"), None, "what stands before");
    assert_eq!(line(&mut rules, "keep secret").as_deref(), Some("keep [REDACTED]"));
    assert_eq!(line(&mut rules, "other"), None);
}

#[test]
fn conditions_are_about_type_severity_text_and_attributes() {
    let platform = json!({"requestId": REQUEST, "status": "success"});
    for (when, kind, record, holds) in [
        (r#"type = "function""#, "function", json!("x"), true),
        (r#"type = "function""#, "extension", json!("x"), false),
        (r#"type = ["extension", "function"]"#, "extension", json!("x"), true),
        (r#"type = "platform""#, "platform.report", platform.clone(), true),
        (r#"type = "platform.report""#, "platform.report", platform.clone(), true),
        (r#"type = "platform.start""#, "platform.report", platform, false),
        (r#"severity = "warn""#, "function", json!("[WARN] x"), true),
        (r#"severity = "info""#, "function", json!({"level": "notice", "message": "x"}), true),
        (r#"severity = ">=warn""#, "function", json!("[ERROR] x"), true),
        (r#"severity = ">warn""#, "function", json!("[WARN] x"), false),
        (r#"severity = "<warn""#, "function", json!("[INFO] x"), true),
        (r#"severity = "<=warn""#, "function", json!("x"), false),
        (r#"severity = "unknown""#, "function", json!("x"), true),
        (r#"severity = ["debug", ">= error"]"#, "function", json!("[DEBUG] x"), true),
        (r#"text = "^b.d$""#, "function", json!("bad\n"), true),
        (r#"text = ["x", "y"]"#, "function", json!({"a": [1, {"b": "xyz"}]}), true),
        (r#"text = "404""#, "function", json!({"message": 404}), true),
        (r#"text = "message""#, "function", json!({"message": "x"}), false),
        (r"attribute.status = 404", "function", json!({"message": "x", "status": 404}), true),
        (r"attribute.status = 404", "function", json!({"message": "x", "status": 404.0}), true),
        (r#"attribute.status = "4..""#, "function", json!({"message": "x", "status": 404}), true),
        (r"attribute.status = 404", "function", json!({"message": "x", "status": "404"}), false),
        (r"attribute.up = true", "function", json!({"message": "x", "up": true}), true),
        (r#"attribute."http.route" = "^/h""#, "function", json!({"message": "x", "http.route": "/h"}), true),
        (
            r#"attribute."http.route" = "^/h""#,
            "function",
            json!({"message": "x", "http": {"route": "/h"}}),
            true,
        ),
        (r#"attribute."http.route" = "^/h""#, "function", json!({"http": {"route": "/h"}}), true),
        (r#"attribute = { a = "x", b = "y" }"#, "function", json!({"message": "m", "a": "x"}), false),
        (r#"attribute."faas.invocation_id" = "^8c18""#, "function", json!("x"), true),
    ] {
        let mut rules = rules(&format!("[[rule]]\ndrop = true\n[rule.when]\n{when}"));
        assert_eq!(sent(&mut rules, kind, &record).is_none(), holds, "{when} {record}");
    }
}

#[test]
fn all_lines_of_an_invocation_share_a_fate_and_errors_are_sent() {
    // The second takes the id out before it is asked for.
    for text in
        ["rule = [{ sample = 0.5 }]", r#"rule = [{ redact.regex = "[0-9a-f-]{36}" }, { sample = 0.5 }]"#]
    {
        let mut half = rules(text);
        let mut kept = 0;
        for number in 0..400_u32 {
            let id = format!("8c181f94-0f1e-4cdb-a46b-{number:012x}");
            let mut record = |level: u8, failed| {
                let mut record = LogRecord {
                    severity: crate::record::Severity { number: level, text: "".into() },
                    attributes: vec![(INVOCATION_ID.into(), Value::Str(id.clone().into()))],
                    ..LogRecord::default()
                };
                half.apply(&mut record, failed, &mut Tally::default())
            };
            let first = record(9, false);
            assert_eq!([record(9, false), record(0, false), record(16, false)], [first; 3]);
            assert!(record(18, false) && record(9, true));
            kept += u32::from(first);
        }
        // Not by chance: what is kept is the same in every process.
        assert_eq!(kept, 201, "{text}");
        assert!(half.apply(&mut LogRecord::default(), false, &mut Tally::default()), "it belongs to none");
    }
}

#[test]
fn by_trace_the_same_traces_are_kept_as_of_spans() {
    let mut rules = rules(r#"rule = [{ sample = { ratio = 0.25, by = "trace" } }]"#);
    let sampler = Sampler { parent_based: false, ratio: 0.25 };
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        let trace_id = random.u128(..).to_be_bytes();
        let mut record = LogRecord { trace_id: Some(trace_id), ..LogRecord::default() };
        assert_eq!(rules.apply(&mut record, false, &mut Tally::default()), sampler.keeps(trace_id, None));
    }
}

#[test]
fn a_name_that_is_taken_gets_a_number_and_a_set_one_is_overwritten() {
    let mut rules =
        rules(r#"rule = [{ rename = { a = "b", x = "y" } }, { set = { c = 1.5, "d.e" = "t", f = true } }]"#);
    assert_eq!(
        sent(&mut rules, "function", &json!({"message": "m", "a": 1, "b": 2, "c": 3})),
        Some(json!({"message": "m", "b": 1, "b.2": 2, "c": 1.5, "d.e": "t", "f": true}))
    );
    let raw = event("function", &json!({"x": 1}));
    let event = Event::parse(raw.as_bytes());
    let record = becomes(&mut rules, &event, &mut Tally::default()).unwrap();
    assert_eq!(plain(&record.body), json!({"y": 1}), "a field of the body");
}

#[test]
fn rules_count_what_was_kept() {
    let mut rules = rules(
        r#"rule = [{ name = "d", when.text = "d", drop = true }, { redact.regex = "r" }, { sample = 0 }]"#,
    );
    let mut turned_away = Tally::default();
    let mut tally = Tally::default();
    for text in ["d", "r", "r", "x"] {
        let raw = event("function", &text.into());
        let event = Event::parse(raw.as_bytes());
        becomes(&mut rules, &event, &mut turned_away);
        becomes(&mut rules, &event, &mut tally);
    }
    rules.count(&tally);
    let counts: Vec<_> = rules.counts().map(|rule| (rule.name, rule.done, rule.records)).collect();
    assert_eq!(
        counts,
        [("d".into(), "dropped", 1), ("2".into(), "redacted", 2), ("3".into(), "sampled out", 3)]
    );
}

#[test]
fn a_wrong_rule_is_told_with_its_line_and_the_others_work() {
    let text = r#"
[[rule]]
drop = true
keep = true

[[rule]]
name = "cards"
redact.detect = [
  "card",
  "crad",
]

[[rule]]
name = "right"
drop = true

[[rule]]
when.txet = "x"
drop = true

[[rule]]
when.text = "a(b"
drop = true

[[rule]]
sample = 1.5

[[rule]]
name = "not TOML"
when.severity = >=warn
drop = true

[[rule]]
redact.with = "x"

[[rule]]
set = { "log.record.uid" = "x" }

[[rule]]
when.severity = "grave"
keep = true

[[rule]]
name = "last"
rename = { a = "b" }

[other]
"#;
    let (rules, problems) = RuleSet::parse(text);
    assert_eq!(rules.counts().map(|rule| rule.name).collect::<Vec<_>>(), ["right", "last"]);
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let expected = [
        (4, "\"1\": a rule has one of", "not two"),
        (8, "\"cards\": `redact.detect` accepts card, cpf", ""),
        (18, "\"4\": `txet` is not known", "`severity`, `text`"),
        (22, "\"5\": `when.text`: `a(b`", "unclosed group"),
        (26, "\"6\": `sample` is the share", "from 0 to 1"),
        (30, "\"not TOML\": not TOML", ""),
        (34, "\"8\": `redact` has at least one of", ""),
        (37, "\"9\": an attribute may have any name but `log.record.uid`", ""),
        (40, "\"10\": `when.severity` accepts trace", ""),
        (47, "`other` is not known", "ignored"),
    ];
    for (line, begins, says) in expected {
        let found = told.iter().find(|told| told.starts_with(&format!("line {line}")));
        assert!(
            found.is_some_and(|told| told.contains(begins) && told.contains(says)),
            "{line} {begins}: {told:#?}"
        );
    }
    assert!(told.iter().all(|told| !told.contains('\n')), "{told:#?}");
}

#[test]
fn what_is_beyond_a_bound_is_left_out() {
    let many = "[[rule]]\ndrop = true\n".repeat(70);
    let (rules, problems) = RuleSet::parse(&many);
    assert_eq!(rules.counts().count(), 64);
    assert!(problems.len() == 1 && problems[0].line == 129, "{problems:?}");
    let (rules, problems) = RuleSet::parse(&format!("{many}#{}", "x".repeat(RULES_MAX_BYTES)));
    assert!(rules.is_empty() && problems.len() == 1);
}

/// A secret that detectors, names and expressions find, each by one rule of its own.
const REDACTING: &str = r#"
    [[rule]]
    redact.detect = ["card", "email", "aws-key"]
    [[rule]]
    redact.keys = ["password"]
    [[rule]]
    redact.regex = ['s3cr3t-\d+', 'pin=(\d+)']
"#;
const CARD: &str = "4111111111111111";
const SECRET: &str = "s3cr3t-2718281828";
const SECRETS: [&str; 3] = [CARD, SECRET, "AKIAIOSFODNN7EXAMPLE"];

fn redacting() -> RuleSet {
    rules(REDACTING)
}

/// A value of any shape with a secret somewhere in it.
fn with_a_secret() -> impl Strategy<Value = Json> {
    let secret = prop::sample::select(&SECRETS[..]);
    let text = ("[ -~é\n\t]{0,20}[ \n,;é]", secret, "[ \n,;é][ -~é\n\t]{0,20}");
    let leaf = prop_oneof![
        text.prop_map(|(before, secret, after)| Json::from(before + secret + &after)),
        Just(Json::from(4_111_111_111_111_111_i64)),
        Just(json!({"password": [SECRET, {"x": CARD}]})),
        Just(json!({"Pass_Word": 4_111_111_111_111_111_i64, "password": CARD})),
        Just(json!({SECRET: 1})),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(Json::from),
            ("[a-z.]{1,8}", inner.clone())
                .prop_map(|(name, value)| json!({name: value, "message": "m", "n": 1.5})),
            inner.clone().prop_map(|value| json!({"message": value})),
            inner.prop_map(|value| Json::from(value.to_string())),
        ]
    })
}

fn says_no_secret(bytes: &[u8]) -> Result<(), TestCaseError> {
    let text = String::from_utf8_lossy(bytes);
    for secret in SECRETS {
        prop_assert!(!text.contains(secret), "{text}");
    }
    Ok(())
}

/// The whole record as every destination gets it.
fn encoded(record: &LogRecord<'_>) -> Vec<u8> {
    let resource = Resource::build(&ResourceInputs::default());
    let mut bytes = Vec::new();
    for protocol in [
        Protocol::Otlp,
        Protocol::OtlpJson,
        Protocol::Ndjson,
        Protocol::Elasticsearch,
        Protocol::Loki,
        Protocol::Datadog,
    ] {
        protocol.wire().log(&resource, record, &mut bytes);
    }
    bytes
}

/// A body that ends in the middle of a record, as Lambda cuts it.
fn cut(body: &str, at: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    let envelope = body.get(1..body.find("\"record\":")? + 9)?;
    let (head, rest) = body.as_bytes().split_at(at);
    let head = [head, b"}]"].concat();
    let next = [b"[", envelope.as_bytes(), rest].concat();
    matches!(split(&head), Split::Cut(cut) if cut.open).then_some((head, next))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_of_a_secret_is_left_in_what_is_encoded(record in with_a_secret(), kind in prop::sample::select(vec!["function", "extension", "platform.fault", "platform.new"]), way in 0..4) {
        let mut raw = event(kind, &record);
        if way == 1 {
            // Not JSON any more.
            raw.truncate(raw.len() - 2);
        }
        let event = match way {
            0 | 1 => Event::parse(raw.as_bytes()),
            2 => Event::opaque(raw.as_bytes()),
            _ => Event::cut(raw.as_bytes()),
        };
        let record = becomes(&mut redacting(), &event, &mut Tally::default()).expect("sent");
        says_no_secret(&encoded(&record))?;
    }

    #[test]
    fn a_first_part_has_no_secret_on_disk_and_loses_nothing_by_waiting(before in "[a-z\"\\\\é ]{0,40}", record in with_a_secret(), padding in 0_usize..10_000, thousandth in 0_usize..1_000) {
        let padding = "x y".repeat(padding / 3);
        let records = [json!(format!("{before} {SECRET} {padding}")), record];
        let whole = event("function", &json!("whole"));
        let body = format!("[{},{}]", event("function", &json!({"a": records, "b": 1, "password": {"c": padding}})), whole);
        let end = body.find(&whole).unwrap() - 2;
        let start = body.find("\"record\":").unwrap() + 9;
        let at = start + (end - start) * thousandth / 1_000;
        let Some((head, next)) = cut(&body, at) else { return Ok(()) };
        let mut rules = redacting();
        let (stored, withheld) = rules.withhold(&salvage(&head));
        says_no_secret(&stored)?;
        for length in 6..CARD.len() {
            // Not even the beginning of one.
            prop_assert!(!stored.windows(length).any(|part| part == &CARD.as_bytes()[..length]));
        }
        prop_assert!(matches!(split(&stored), Split::Cut(cut) if cut.open), "{}", String::from_utf8_lossy(&stored));
        // In the same process nothing is missing.
        let restored = withheld.restore(&stored).expect("it is what was stored");
        let Join::Whole(joined) = join(&restored, &next) else {
            return Err(TestCaseError::fail(format!("{} and {}", String::from_utf8_lossy(&restored), String::from_utf8_lossy(&next))));
        };
        let Split::Events(events) = split(&joined) else { return Err(TestCaseError::fail("not whole")) };
        prop_assert_eq!(events.len(), 2);
        let waited = Event::parse(events[0]);
        let at_once = Event::parse(body.as_bytes().get(1..body.len() - whole.len() - 2).unwrap());
        let waited = becomes(&mut rules, &waited, &mut Tally::default()).unwrap();
        let at_once = becomes(&mut rules, &at_once, &mut Tally::default()).unwrap();
        prop_assert_eq!(plain(&waited.body), plain(&at_once.body));
        says_no_secret(&encoded(&waited))?;
        // In another process, and if the rest never comes, no secret comes of it either.
        for piece in salvage(&stored) {
            let Piece::Fragment(raw) = piece else { continue };
            let event = Event::cut(raw);
            let record = becomes(&mut rules, &event, &mut Tally::default()).unwrap();
            says_no_secret(&encoded(&record))?;
        }
    }

    #[test]
    fn no_text_of_rules_makes_it_fail(text in r#"(\[\[rule\]\]\n|when\.|text|severity|redact\.|regex|drop|sample|rename|set| = |true|"|'|\{|\}|\[|\]|\n|,|1|\PC){0,40}"#) {
        let (mut rules, problems) = RuleSet::parse(&text);
        for problem in problems {
            prop_assert!(!problem.to_string().contains('\n') || text.contains('\n'));
        }
        line(&mut rules, "some text");
    }
}
