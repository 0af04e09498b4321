use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

const HEAD: &[u8] = include_bytes!("../../../tests/telemetry/15-split-payload-part1.invalid-json.txt");
const TAIL: &[u8] = include_bytes!("../../../tests/telemetry/15-split-payload-part2.invalid-json.txt");
const ENVELOPE: &str = r#"{"time":"2026-09-03T14:29:52.929Z","type":"function","record":"#;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn events(body: &[u8]) -> Vec<&str> {
    match split(body) {
        Split::Events(events) => events.into_iter().map(text).collect(),
        other => panic!("{other:?}"),
    }
}

/// A part of a body as Lambda frames it.
fn part(before: &[&str], envelope: &str, record: &[u8], after: &[&str]) -> Vec<u8> {
    let mut body = b"[".to_vec();
    for event in before {
        body.extend_from_slice(event.as_bytes());
        body.push(b',');
    }
    body.extend_from_slice(envelope.as_bytes());
    body.extend_from_slice(record);
    body.push(b'}');
    for event in after {
        body.push(b',');
        body.extend_from_slice(event.as_bytes());
    }
    body.push(b']');
    body
}

#[test]
fn an_array_splits_into_its_elements() {
    assert_eq!(events(b"[]"), [""; 0]);
    assert_eq!(events(b"\xef\xbb\xbf \n[ ] \n"), [""; 0]);
    assert_eq!(events(br#" [ {"a":"]}\"["} ,{"b":[{}]}] "#), [r#"{"a":"]}\"["}"#, r#"{"b":[{}]}"#]);
    assert_eq!(events(br#"[1,"a",null,[2]]"#), ["1", r#""a""#, "null", "[2]"]);
}

#[test]
fn an_element_that_is_not_json_costs_its_neighbours_nothing() {
    assert_eq!(
        events(br#"[{"a":1},{"b":},{c},{"d":[}},{"e":2}]"#),
        [r#"{"a":1}"#, r#"{"b":}"#, "{c}", r#"{"d":[}}"#, r#"{"e":2}"#]
    );
}

#[test]
fn what_is_no_array_is_unreadable() {
    for body in [&b""[..], b" ", b"[", b"{}", b"\"a\"", b"hello", b"]", b"[garbage", b"\xff\xfe[\0", b"[{"] {
        assert_eq!(split(body), Split::Unreadable, "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn events_before_trailing_garbage_are_kept() {
    let Split::Cut(cut) = split(br#"[{"a":1},{"b":2}] x"#) else { panic!("damaged") };
    assert!(!cut.open);
    assert_eq!(cut.pieces[..2], [Piece::Whole(br#"{"a":1}"#), Piece::Whole(br#"{"b":2}"#)]);
}

#[test]
fn the_recorded_split_payload_joins() {
    let Split::Cut(cut) = split(HEAD) else { panic!("a head") };
    assert!(cut.open);
    let Join::Whole(body) = join(HEAD, TAIL) else { panic!("they belong together") };
    let joined: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let expected: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/telemetry/15-split-payload-joined.json"))
            .expect("JSON");
    assert_eq!(joined, expected);
    assert_eq!(events(&body).len(), 2);
}

#[test]
fn a_head_alone_keeps_its_whole_events_and_its_text() {
    let head = part(&[r#"{"a":1}"#], ENVELOPE, br#"{"message":"AA"#, &[]);
    let fragment = format!(r#"{ENVELOPE}{{"message":"AA"#);
    assert_eq!(salvage(&head), [Piece::Whole(br#"{"a":1}"#), Piece::Fragment(fragment.as_bytes())]);
}

#[test]
fn a_tail_alone_keeps_the_events_after_it() {
    let Split::Cut(cut) = split(TAIL) else { panic!("a tail: {:?}", split(TAIL)) };
    assert!(!cut.open);
    let [Piece::Fragment(lost), Piece::Whole(done)] = cut.pieces.as_slice() else {
        panic!("{:?}", cut.pieces)
    };
    assert_eq!(text(lost), format!(r#"{ENVELOPE}BBBB"}}}}"#));
    assert!(text(done).starts_with(r#"{"time":"2026-09-03T14:29:52.930Z","type":"platform.runtimeDone""#));
}

#[test]
fn a_tail_alone_whose_batch_ends_in_another_cut_record_waits_for_that_one() {
    let next = r#"{"time":"2026-09-03T14:29:53.000Z","type":"function","record":"#;
    let body = format!(r#"[{ENVELOPE}BBBB"}}}},{next}{{"c":1}}]"#);
    let Split::Cut(cut) = split(body.as_bytes()) else { panic!("cut") };
    assert!(cut.open);
    assert_eq!(cut.pieces.last(), Some(&Piece::Fragment(format!(r#"{next}{{"c":1"#).as_bytes())));
    let Join::Whole(joined) = join(body.as_bytes(), format!("[{next}2}}}}]").as_bytes()) else {
        panic!("joins")
    };
    assert_eq!(salvage(&joined).last(), Some(&Piece::Whole(format!(r#"{next}{{"c":12}}}}"#).as_bytes())));
}

#[test]
fn a_nested_time_in_a_cut_record_is_not_taken_for_an_event() {
    let head = part(&[], ENVELOPE, br#"{"list":[{"time":"a"},{"time":"b""#, &[]);
    let Split::Cut(cut) = split(&head) else { panic!("cut") };
    assert!(cut.open);
    assert_eq!(cut.pieces.len(), 1);
}

#[test]
fn bodies_that_do_not_belong_together_are_not_joined() {
    let head = part(&[], ENVELOPE, br#"{"message":"AA"#, &[]);
    let other_time = ENVELOPE.replace("929Z", "930Z");
    for next in [
        part(&[], ENVELOPE, br#"{"message":"a whole record of the same time"}"#, &[]),
        part(&[], ENVELOPE, br#""a whole string of the same time""#, &[]),
        part(&[], &other_time, br#"BB"}"#, &[]),
        b"[]".to_vec(),
        b"garbage".to_vec(),
        Vec::new(),
    ] {
        assert_eq!(join(&head, &next), Join::Unrelated, "{}", text(&next));
    }
    let whole = part(&[], ENVELOPE, br#""whole""#, &[]);
    assert_eq!(join(&whole, TAIL), Join::Unrelated);
}

#[test]
fn a_space_at_the_cut_belongs_to_the_record() {
    let head = part(&[], ENVELOPE, br#"  "two words"#, &[]);
    let Join::Whole(body) = join(&head, &part(&[], ENVELOPE, br#"  more""#, &[])) else { panic!("joins") };
    assert_eq!(events(&body), [format!(r#"{ENVELOPE}  "two words  more"}}"#)]);

    let spaced = r#"{"time": "T", "type": "function", "record": "#;
    let head = part(&[], spaced, br#""two"#, &[]);
    let Join::Whole(body) = join(&head, &part(&[], spaced, br#" words""#, &[])) else { panic!("joins") };
    assert_eq!(events(&body), [format!(r#"{spaced}"two words"}}"#)]);
}

/// Text as a record would hold it: quotes, backslashes, braces and characters of every length.
fn nasty_text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            Just("\"".to_owned()),
            Just("\\".to_owned()),
            Just("}]".to_owned()),
            Just("},{\"time\":\"x\",\"type\":\"function\",\"record\":".to_owned()),
            Just("\u{1f600}é\n\u{1}".to_owned()),
            Just("1.5e-7".to_owned()),
            "[a-z ]{0,5}",
        ],
        0..8,
    )
    .prop_map(|parts| parts.concat())
}

fn nested() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        nasty_text().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(nasty_text(), inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A record as Lambda has them: a string or an object, as text.
fn record() -> impl Strategy<Value = String> {
    let object = prop::collection::btree_map(nasty_text(), nested(), 0..4)
        .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()));
    (prop_oneof![nasty_text().prop_map(Into::into), object], any::<bool>()).prop_map(|(value, pretty)| {
        if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap()
    })
}

fn event() -> impl Strategy<Value = String> {
    (0..1000, record()).prop_map(|(millis, record)| {
        format!(r#"{{"time":"2026-09-03T14:29:51.{millis:03}Z","type":"function","record":{record}}}"#)
    })
}

proptest! {
    #[test]
    fn a_line_in_the_usual_form_ends_where_its_structure_ends(
        record in prop_oneof![record(), r#""[a"\\{}]{0,9}""#, r#"[{}"a,]{0,9}"#],
        rest in prop_oneof![Just("}".to_owned()), r#"[}\],"\\ ]{0,4}"#],
    ) {
        let element = [ENVELOPE, &record, &rest].concat();
        let mut cursor = Cursor::new(element.as_bytes(), 0);
        if let Some(line) = usual_line(&mut cursor) {
            let mut by_structure = Cursor::new(element.as_bytes(), 0);
            prop_assert_eq!(Some(line), by_structure.skip());
            prop_assert_eq!(cursor.at(), by_structure.at());
        } else {
            prop_assert_eq!(cursor.at(), 0);
        }
    }

    #[test]
    fn a_valid_array_splits_as_serde_json_splits_it(values in prop::collection::vec(nested(), 0..6), pretty: bool) {
        let array = serde_json::Value::Array(values);
        let body = if pretty { serde_json::to_string_pretty(&array) } else { serde_json::to_string(&array) }.unwrap();
        let expected: Vec<&RawValue> = serde_json::from_str(&body).unwrap();
        let expected: Vec<_> = expected.into_iter().map(RawValue::get).collect();
        prop_assert_eq!(events(body.as_bytes()), expected);
    }

    #[test]
    fn a_record_cut_anywhere_joins_to_the_same_events(
        before in prop::collection::vec(event(), 0..3),
        record in record(),
        after in prop::collection::vec(event(), 0..3),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let before: Vec<_> = before.iter().map(String::as_str).collect();
        let after: Vec<_> = after.iter().map(String::as_str).collect();
        let whole = part(&before, ENVELOPE, record.as_bytes(), &after);
        // Between the first and the last byte of the record, each part holding at least one byte.
        let mut at: Vec<_> = cuts.iter().map(|cut| 1 + cut.index(record.len() - 1)).collect();
        at.sort_unstable();
        at.dedup();
        at.push(record.len());

        let mut joined = part(&before, ENVELOPE, &record.as_bytes()[..at[0]], &[]);
        for bounds in at.windows(2) {
            let Split::Cut(cut) = split(&joined) else {
                return Err(TestCaseError::fail(format!("not cut: {}", String::from_utf8_lossy(&joined))));
            };
            prop_assert!(cut.open);
            let whole_so_far: Vec<_> = cut.pieces[..cut.pieces.len() - 1].to_vec();
            prop_assert_eq!(whole_so_far, before.iter().map(|e| Piece::Whole(e.as_bytes())).collect::<Vec<_>>());
            let last = bounds[1] == record.len();
            let next = part(&[], ENVELOPE, &record.as_bytes()[bounds[0]..bounds[1]], if last { &after } else { &[] });
            joined = match join(&joined, &next) {
                Join::Whole(body) if last => body,
                Join::StillCut(body) if !last => body,
                other => return Err(TestCaseError::fail(format!("{other:?} from {}", String::from_utf8_lossy(&next)))),
            };
        }
        prop_assert_eq!(String::from_utf8_lossy(&joined), String::from_utf8_lossy(&whole));
        prop_assert_eq!(events(&joined).len(), before.len() + 1 + after.len());
    }

    #[test]
    fn nothing_of_a_body_is_lost_however_damaged(
        events in prop::collection::vec(event(), 1..4),
        damage in any::<prop::sample::Index>(),
        byte in prop_oneof![Just(b'"'), Just(b'}'), Just(b'{'), Just(b','), Just(b'\\'), any::<u8>()],
    ) {
        let mut body = format!("[{}]", events.join(",")).into_bytes();
        let at = damage.index(body.len());
        body[at] = byte;
        let visible = |text: &[u8]| text.iter().filter(|byte| !byte.is_ascii_whitespace()).count();
        let pieces = salvage(&body);
        let kept: usize = pieces.iter().map(|piece| match piece { Piece::Whole(text) | Piece::Fragment(text) | Piece::Opaque(text) => visible(text) }).sum();
        // What goes is white space, the array's brackets, the commas between elements, and the framing of a
        // cut record.
        prop_assert!(kept + pieces.len() + 3 > visible(&body), "kept {kept} of {}", visible(&body));
    }

    #[test]
    fn no_body_makes_it_fail_badly(body in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b','), any::<u8>()], 0..60), next in prop::collection::vec(any::<u8>(), 0..30)) {
        let _ = salvage(&body);
        let _ = join(&body, &next);
    }
}
