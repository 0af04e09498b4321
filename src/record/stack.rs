//! Stack traces that come line by line, which is how Lambda delivers what a custom runtime prints.
//!
//! A line goes on with the ones before it only where its form leaves little doubt:
//!
//! | line | goes on with |
//! |---|---|
//! | begins with a space or a tab | anything but a gap |
//! | `at f (file:1:2)`, `Caused by: …`, `Suppressed: …`, `... 7 more`, `--- End of …` | anything but a gap |
//! | `}`, `})`, `]` | lines of which one ended with an opening bracket |
//! | `Traceback (most recent call last):` | the message before it |
//! | `SomeError: text`, and what tells of one exception leading to another | Python's traceback |
//! | `goroutine 1 [running]:`, `[signal …`, and calls that an indented line follows | Go's panic |
//! | the message, `stack backtrace:`, `note: …` | Rust's panic |
//!
//! An empty line is a gap. It counts only if the trace goes on after it.

use std::borrow::Cow;

use super::event::Event;
use super::line::Line;
use super::reading::without_newline;
use super::split::Piece;
use super::value::Value;

/// Attribute: how many lines a record was joined from.
pub const LINES: &str = "outlast.lines";
/// Lines of one record, at most. Java prints up to 1,024 frames; what is longer is printed by mistake.
pub const LINES_MAX: u32 = 1_100;
/// Bytes of one record, at most: as many lines of the length that frames have.
pub const BYTES_MAX: usize = 128 << 10;

/// Lines that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The lines, with a newline between each two.
    pub text: String,
    /// How many there are: two or more.
    pub lines: u32,
}

/// The line of `event` with those of `after` that go on with it. `None` if none does.
///
/// Lines are joined that are of one type and next to one another in a delivery, so that nothing else happened between
/// them: neither an invocation's end nor another's start.
pub fn join_lines(event: &Event<'_>, after: &[Piece<'_>]) -> Option<Joined> {
    let head = line_of(event)?;
    let mut trace = Trace::begin(&head)?;
    let mut text = String::new();
    let (mut lines, mut kept_len, mut kept_lines) = (1, 0, 1);
    for piece in after {
        let Piece::Whole(raw) = piece else { break };
        let next = Event::parse(raw);
        let Some(line) = line_of(&next).filter(|_| next.kind == event.kind) else { break };
        let goes = trace.goes(&line);
        if goes == Goes::Not || lines == LINES_MAX || text.len().max(head.len()) + line.len() >= BYTES_MAX {
            break;
        }
        if lines == 1 {
            text.push_str(&head);
        }
        text.push('\n');
        text.push_str(&line);
        lines += 1;
        if goes == Goes::On {
            (kept_len, kept_lines) = (text.len(), lines);
        }
    }
    text.truncate(kept_len);
    (kept_lines > 1).then_some(Joined { text, lines: kept_lines })
}

/// The text of an event that is one line and nothing else.
fn line_of<'a>(event: &Event<'a>) -> Option<Cow<'a, str>> {
    if !event.kind.is_logged() || !event.record.starts_with(b"\"") || !event.extra.is_empty() {
        return None;
    }
    match Value::parse(event.record)? {
        Value::Str(text) => Some(without_newline(text)).filter(|text| !text.contains('\n')),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// The line goes on with those before it.
    On,
    /// It does if a later one does.
    Maybe,
    Not,
}

/// Whose trace it is, as far as that is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Anybodys,
    /// Frames follow, and then the exception.
    Pythons,
    /// The exception was told. Another traceback is another matter, unless it is said to be the same.
    PythonsEnd,
    Gos,
    Rusts,
    /// The next line is the message, whatever it looks like.
    RustsHead,
}

struct Trace {
    whose: Whose,
    /// An empty line came last.
    gap: bool,
    /// A line ended with an opening bracket.
    is_open: bool,
    /// A line came last that belongs to the trace only if an indented one follows.
    awaits_indent: bool,
}

const TRACEBACK: &str = "Traceback (most recent call last):";
/// What Python says between two tracebacks.
const LED_TO: [&str; 2] = [
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
];
/// What only ever begins a line within a trace.
const WITHIN: [&str; 3] = ["Caused by: ", "Suppressed: ", "--- End of "];

impl Trace {
    /// `None` if nothing can go on with this line.
    fn begin(head: &str) -> Option<Self> {
        let is_whole_object = head.starts_with('{') && head.ends_with('}') && head.len() > 2;
        if head.trim().is_empty() || is_whole_object {
            return None;
        }
        let whose = if head.ends_with(TRACEBACK) {
            Whose::Pythons
        } else if head.starts_with("panic: ") || head.starts_with("fatal error: ") {
            Whose::Gos
        } else if head.starts_with("thread '") && head.contains(" panicked at ") {
            if head.ends_with(':') { Whose::RustsHead } else { Whose::Rusts }
        } else {
            Whose::Anybodys
        };
        Some(Self { whose, gap: false, is_open: is_opening(head), awaits_indent: false })
    }

    fn goes(&mut self, line: &str) -> Goes {
        let was_head = self.whose == Whose::RustsHead;
        let goes = self.judge(line);
        if was_head {
            self.whose = Whose::Rusts;
        }
        self.gap = line.trim().is_empty();
        self.awaits_indent = goes == Goes::Maybe && !self.gap;
        self.is_open |= goes == Goes::On && is_opening(line);
        goes
    }

    fn judge(&mut self, line: &str) -> Goes {
        let on = |goes: bool| if goes { Goes::On } else { Goes::Not };
        if line.trim().is_empty() {
            return if self.awaits_indent { Goes::Not } else { Goes::Maybe };
        }
        let is_indented = line.starts_with([' ', '\t']);
        if self.awaits_indent || is_indented {
            return on(is_indented && (!self.gap || self.whose == Whose::Rusts));
        }
        if line == TRACEBACK && self.whose != Whose::RustsHead {
            let is_next = self.whose == Whose::Pythons || !self.gap && self.whose == Whose::Anybodys;
            self.whose = Whose::Pythons;
            return on(is_next);
        }
        match self.whose {
            Whose::Pythons if is_exception(line) && !self.gap => {
                self.whose = Whose::PythonsEnd;
                return Goes::On;
            }
            Whose::PythonsEnd if LED_TO.contains(&line) => {
                self.whose = Whose::Pythons;
                return Goes::On;
            }
            Whose::Gos if is_goroutine(line) || line.starts_with("[signal ") => return Goes::On,
            Whose::Gos if is_call(line) => return Goes::Maybe,
            Whose::RustsHead => return Goes::On,
            Whose::Rusts if line == "stack backtrace:" || line.starts_with("note: ") => return Goes::On,
            _ => {}
        }
        on(!self.gap
            && (WITHIN.iter().any(|word| line.starts_with(word))
                || is_frame(line)
                || is_more(line)
                || self.is_open && is_closing(line)))
    }
}

fn is_opening(line: &str) -> bool {
    line.ends_with(['{', '[', '('])
}

/// Closing brackets and what may follow them.
fn is_closing(line: &str) -> bool {
    line.starts_with(['}', ']', ')']) && line.chars().all(|char| matches!(char, '}' | ']' | ')' | ',' | ';'))
}

/// `at f (file:1:2)`, `at file:1:2`: a line of prose that begins with "at" ends otherwise.
fn is_frame(line: &str) -> bool {
    line.strip_prefix("at ").is_some_and(|place| {
        let digit = |text: &str| text.ends_with(|char: char| char.is_ascii_digit());
        place.strip_suffix(')').map_or_else(|| digit(place) && place.contains(':'), |call| call.contains('('))
    })
}

/// `... 7 more`
fn is_more(line: &str) -> bool {
    line.strip_prefix("... ").and_then(|rest| rest.strip_suffix(" more")).is_some_and(|count| {
        let count = count.strip_suffix(" common frames omitted").unwrap_or(count);
        !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// `package.SomeError: text`, or without the text. A line that a logger wrote is none.
fn is_exception(line: &str) -> bool {
    let name = line.split_once(": ").map_or(line, |(name, _)| name).trim_end_matches(':');
    let is_name = name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'));
    is_name && Line::read(line) == Line::default()
}

/// `goroutine 1 [running]:`
fn is_goroutine(line: &str) -> bool {
    line.strip_prefix("goroutine ")
        .is_some_and(|rest| rest.starts_with(|char: char| char.is_ascii_digit()) && rest.ends_with("]:"))
}

/// `main.f(0x1, 0x2)`, `created by main.f in goroutine 1`.
fn is_call(line: &str) -> bool {
    line.starts_with("created by ") || line.ends_with(')') && line.contains('(')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(line: &str) -> String {
        serde_json::json!({"type": "function", "record": format!("{line}\n")}).to_string()
    }

    /// What the lines become, with joining.
    fn joined(lines: &[&str]) -> Vec<String> {
        let events: Vec<String> = lines.iter().map(|line| event(line)).collect();
        let pieces: Vec<Piece<'_>> = events.iter().map(|event| Piece::Whole(event.as_bytes())).collect();
        let mut records = Vec::new();
        let mut rest = &pieces[..];
        while let Some((Piece::Whole(first), after)) = rest.split_first() {
            let first = Event::parse(first);
            let (text, more) = match join_lines(&first, after) {
                Some(Joined { text, lines }) => (text, lines as usize - 1),
                None => (lines[lines.len() - rest.len()].to_owned(), 0),
            };
            records.push(text);
            rest = &after[more..];
        }
        records
    }

    /// The text stays together, and away from what comes before and after it.
    #[track_caller]
    fn stays_together(trace: &str) {
        let lines: Vec<&str> = ["before"].into_iter().chain(trace.lines()).chain(["after"]).collect();
        assert_eq!(joined(&lines[1..]), [trace, "after"]);
        assert_eq!(joined(&lines[1..lines.len() - 1]), [trace]);
        if !trace.starts_with("Traceback") {
            assert_eq!(joined(&lines), ["before", trace, "after"]);
        }
        // Two of them are two, unless the second goes on with the first by its own account.
        let twice: Vec<&str> = trace.lines().chain(trace.lines()).collect();
        assert_eq!(joined(&twice), [trace, trace]);
    }

    #[test]
    fn traces_of_every_runtime_stay_together() {
        stays_together(
            "Error: no table\n    at load (/var/task/index.js:3:9)\n    at async Runtime.handler (file:///var/task/index.mjs:9:3) {\n  code: 'ENOENT',\n  [cause]: { a: 1 }\n}",
        );
        stays_together("Error: no table\nat load (/var/task/index.js:3:9)\nat /var/task/index.js:9:1");
        stays_together(
            "Traceback (most recent call last):\n  File \"/var/task/app.py\", line 3, in handler\n    load()\nbotocore.exceptions.ClientError: An error occurred: no table",
        );
        stays_together(
            "Traceback (most recent call last):\n  File \"a.py\", line 3, in f\n    g()\nKeyError: 'a'\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 5, in f\n    h()\nValueError",
        );
        stays_together(
            "Exception in thread \"main\" java.lang.IllegalStateException: no table\n\tat com.example.App.load(App.java:12)\n\t... 23 more\nCaused by: java.io.IOException: refused\n\tat com.example.Db.open(Db.java:7)\n\tSuppressed: java.lang.Exception: x\n... 7 more",
        );
        stays_together(
            "Unhandled exception. System.InvalidOperationException: no table\n ---> System.Exception: refused\n   at App.Load() in /src/App.cs:line 12\n   --- End of inner exception stack trace ---\n--- End of stack trace from previous location ---\n   at App.Main()",
        );
        stays_together(
            "/var/task/app.rb:3:in `load': no table (RuntimeError)\n\tfrom /var/task/app.rb:9:in `handler'",
        );
        stays_together(
            "panic: runtime error: index out of range [5] with length 3\n[signal SIGSEGV: segmentation violation code=0x1]\n\ngoroutine 1 [running]:\nmain.load(0x5, {0x0, 0x0})\n\t/src/main.go:8 +0x1d\nmain.main()\n\t/src/main.go:12 +0x20\n\ngoroutine 7 [select]:\nnet/http.(*conn).serve(0xc000)\n\t/usr/go/server.go:1 +0x1\ncreated by net/http.(*Server).Serve in goroutine 1\n\t/usr/go/server.go:2 +0x2",
        );
        stays_together(
            "thread 'main' panicked at src/main.rs:2:5:\nno table\nstack backtrace:\n   0: rust_begin_unwind\n             at /rustc/x/library/std/src/panicking.rs:5\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
        );
        stays_together("{\n  \"a\": [\n    1\n  ]\n}");
    }

    #[test]
    fn a_traceback_goes_on_with_the_message_before_it() {
        let trace = ["the load failed", TRACEBACK, "  File \"a.py\", line 1", "ValueError: no"];
        assert_eq!(joined(&trace), [trace.join("\n")]);
        // What the function says after it is not the exception's.
        let (with, after) = ("ERROR:root:gave up", "It: goes on");
        assert_eq!(
            joined(&[TRACEBACK, "  File \"a.py\"", with]),
            [&format!("{TRACEBACK}\n  File \"a.py\""), with]
        );
        assert_eq!(joined(&[&trace[..], &[after]].concat()), [&trace.join("\n"), after]);
    }

    #[test]
    fn lines_that_go_on_with_nothing_stay_alone() {
        for lines in [
            &["one", "two"][..],
            &["one", "", "two"],
            &["one", "", "  two"],
            &["", "  one"],
            &["one", "at noon the job begins", "at 12:00 it (the job) ends"],
            &["one", "}", "})"],
            &["one", "... and 7 more", "..."],
            &["one", "goroutine 1 [running]:"],
            &["one", "created by hand", "\u{a0}two"],
            &["{\"a\":1}", "  {\"b\":2}"],
            &["one", "Caused by hand", "note: two", "ValueError: three"],
            &["panic: one", "main.f()", "two"],
            &["panic: one", "main.f()", "", "two"],
        ] {
            assert_eq!(joined(lines), lines, "{lines:?}");
        }
    }

    #[test]
    fn only_lines_of_one_type_that_nothing_stands_between_are_joined() {
        let first = event("Error: x");
        let first = Event::parse(first.as_bytes());
        for next in [
            r#"{"type":"extension","record":"  at x"}"#,
            r#"{"type":"platform.report","record":"  at x"}"#,
            r#"{"type":"function","record":{"a":"  at x"}}"#,
            r#"{"type":"function","record":"  at x","added":1}"#,
            r#"{"type":"function","record":"  at x\n  at y\n"}"#,
        ] {
            let after =
                [Piece::Whole(next.as_bytes()), Piece::Whole(br#"{"type":"function","record":"  at z"}"#)];
            assert_eq!(join_lines(&first, &after), None, "{next}");
        }
        let frame = event("  at x");
        assert_eq!(join_lines(&first, &[Piece::Opaque(frame.as_bytes())]), None);
        assert_eq!(join_lines(&first, &[]), None);
    }

    #[test]
    fn a_record_has_its_bounds() {
        let frames = vec!["  at x"; LINES_MAX as usize + 10];
        let records = joined(&[&["Error: x"], &frames[..]].concat());
        assert_eq!(
            records.iter().map(|text| text.lines().count()).collect::<Vec<_>>(),
            [LINES_MAX as usize, 11]
        );
        let long = format!("  {}", "x".repeat(BYTES_MAX / 3));
        let records = joined(&["Error: x", &long, &long, &long]);
        assert_eq!(records.iter().map(|text| text.lines().count()).collect::<Vec<_>>(), [3, 1]);
        assert!(records.iter().all(|text| text.len() <= BYTES_MAX));
        // A line that is too long itself stays as it is.
        let endless = format!("Error: {}", "x".repeat(BYTES_MAX));
        assert_eq!(joined(&[&endless, "  at x"]), [endless.as_str(), "  at x"]);
    }

    fn lines() -> impl Strategy<Value = Vec<String>> {
        let known = prop::sample::select(vec![
            "",
            "  at x",
            "\tat y",
            "Error: x",
            "ValueError: y",
            TRACEBACK,
            LED_TO[0],
            "panic: z",
            "{",
            "}",
            "main.f()",
            "goroutine 1 [running]:",
            "thread 'main' panicked at x:1:1:",
            "stack backtrace:",
            "Caused by: x",
            "plain",
        ]);
        prop::collection::vec(prop_oneof![4 => known.prop_map(str::to_owned), 1 => "[^\n\r]{0,9}"], 0..30)
    }

    proptest! {
        #[test]
        fn what_is_joined_splits_back_into_the_lines(lines in lines()) {
            let given: Vec<&str> = lines.iter().map(String::as_str).collect();
            let records = joined(&given);
            let back: Vec<&str> = records.iter().flat_map(|text| text.split('\n')).collect();
            prop_assert_eq!(back, given);
        }
    }
}
