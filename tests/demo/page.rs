//! The page: the result, the timeline, the table. One file, nothing fetched, light and dark.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    chart::{self, escape, join},
    collector::Collected,
    invocation::{Shown, Span},
    spread::{mib, ms, thousands},
    story::{PhaseRow, Story},
    summary,
};

/// Written into the directory; gives the page's path.
pub(crate) fn write(story: &Story, directory: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("data.json"), serde_json::to_vec_pretty(story)?)?;
    let page = directory.join("index.html");
    fs::write(&page, html(story))?;
    Ok(page)
}

const STYLE: &str = "
:root { --paper: #fbfaf8; --ink: #23262b; --soft: #6c727b; --rule: #dcdad5; --outage: #f6e3dd; --fine: #eef2ec;
  --wait: #b5532f; --ack: #8a8f98; --done: #2f7a5d; --dot: #3d62a8; --mark: #8b2f5c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #e4e3df; --soft: #9a9fa8; --rule: #34373d; --outage: #33211d; --fine: #1b211d;
    --wait: #e08b62; --ack: #868c96; --done: #6cc3a0; --dot: #86a8ea; --mark: #e08bb5; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 66rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2.5rem 0 .75rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); } .bad { color: var(--bad); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; margin: 1.75rem 0;
  background: var(--rule); border: 1px solid var(--rule); }
.tiles div { background: var(--paper); padding: .8rem 1rem; } .tiles b { display: block; font-size: 1.45rem; font-weight: 600; }
.tiles span { color: var(--soft); font-size: .85rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .86rem; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 500; color: var(--soft); }
tr.outage td:first-child { box-shadow: inset 3px 0 var(--wait); } tr:last-child td { font-weight: 600; border: 0; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
svg .label { fill: var(--soft); } svg .title { font-weight: 600; } svg .phase { font-weight: 600; font-size: 12px; }
rect { stroke: var(--paper); } .outage { fill: var(--outage); } .fine { fill: var(--fine); } .axis { stroke: var(--soft); }
.grid { stroke: var(--rule); stroke-dasharray: 2 4; } polyline { fill: none; stroke-width: 1.75; }
.waiting { stroke: var(--wait); } .lost { stroke: var(--bad); } .waiting-area { fill: var(--wait); opacity: .22; }
.acknowledged { stroke: var(--ack); } svg .acknowledged-text { fill: var(--ack); }
.delivered { stroke: var(--done); } svg .delivered-text { fill: var(--done); } .memory { stroke: var(--dot); }
.dot { fill: var(--dot); opacity: .55; } .first { fill: none; stroke: var(--dot); opacity: .8; }
.mark { stroke: var(--mark); stroke-dasharray: 4 3; } svg .mark-text { fill: var(--mark); }
pre { overflow-x: auto; font-size: .8rem; color: var(--soft); }
.one { display: grid; grid-template-columns: minmax(0, 8fr) minmax(0, 5fr); gap: 1.5rem; align-items: start; margin-top: 1rem; }
.one th, .one td { text-align: left; } .one td { vertical-align: top; }
.one td:last-child { white-space: normal; overflow-wrap: anywhere; } .one tr:last-child td { font-weight: 400; }
tr.linked td:first-child { box-shadow: inset 3px 0 var(--done); }
.span { display: grid; grid-template-columns: 12rem 1fr; font-size: .86rem; padding: .1rem 0; }
.span i { display: block; height: .8rem; margin-top: .3rem; min-width: 2px; background: var(--done); } .span i.failed { background: var(--bad); }
.part { padding-left: 1rem; color: var(--soft); }
";

fn html(story: &Story) -> String {
    let verdict = if story.problems.is_empty() {
        "<p>Nothing that was acknowledged was lost.</p>".to_owned()
    } else {
        join(story.problems.iter().map(|problem| format!("<p class=bad>{}</p>", escape(problem))))
    };
    format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <title>outlast: telemetry through an outage</title>\n<style>{STYLE}</style>\n\
         <h1>Telemetry through an outage</h1>\n{verdict}\n<p class=soft>{}.</p>\n\
         {}\n{}\n<h2>Phase by phase</h2>\n{}\n{}\n{}{}<h2>How it was measured</h2>\n{}\n{}</html>\n",
        escape(&story.headline()),
        tiles(story),
        chart::svg(story),
        table(story),
        "<p class=soft>Added: from the end of the function until the extension asked for the next event, in \
         milliseconds; 0 where it had asked before. The first ten invocations of every environment, that is after the \
         start, the time-out and the SIGKILL, are counted apart. Lines belong to the phase of the invocation that logged \
         them; delivered, repeated, lost and misordered are as of the end.</p>",
        story.shown.as_ref().map(|shown| one(shown, story.collected.as_ref())).unwrap_or_default(),
        story.collected.as_ref().map(printed).unwrap_or_default(),
        method(story),
        said(story),
    )
}

/// Logs, metrics and trace of one invocation: as the real collector has it, if there is one.
fn one(shown: &Shown, collected: Option<&Collected>) -> String {
    let shown = collected.map_or(shown, |collected| &collected.shown);
    let (whose, source) = match collected {
        Some(Collected { requests, .. }) => (
            "as a real collector got it",
            format!(
                "The {requests} requests that brought it to the demo's backend went on to <b>rotel</b>, an OpenTelemetry \
                 collector, byte for byte. Trace, log records and data points are what rotel printed; the backend, which decodes \
                 with opentelemetry-proto, has the same."
            ),
        ),
        None => (
            "as the demo's backend got it",
            "It was decoded with opentelemetry-proto. Where <b>rotel</b> is installed (<code>tests/parts/get.sh rotel</code>), \
             this is what that real collector printed."
                .to_owned(),
        ),
    };
    let logs = join(shown.logs.iter().map(|log| {
        let linked = if log.linked { " class=linked" } else { "" };
        format!(
            "<tr{linked}><td>{} ms<td>{}<td>{}\n",
            millis(log.at_us),
            escape(&log.kind),
            escape(&log.text)
        )
    }));
    let points = join(shown.points.iter().map(|point| {
        format!("<tr><td>{}<td>{} {}\n", escape(&point.name), escape(&point.value), escape(&point.unit))
    }));
    let more =
        if shown.more > 0 { format!(" {} more records are not shown.", shown.more) } else { String::new() };
    format!(
        "<h2>One invocation {whose}: logs, metrics and trace</h2>\n<p>Request <code>{}</code>, in the phase {}, trace \
         <code>{}</code>.</p>\n<p class=soft>{source} Times are from its start; what has a green edge carries the trace and span id of the invocation. A data point is for a delivery: it may hold \
         the invocation before.{more}</p>\n{}<div class=\"one scroll\"><table>\n<tr><th>log record<th>type<th>body\n{logs}\
         </table><table>\n<tr><th>data point<th>value\n{points}</table></div>\n",
        escape(&shown.request_id),
        escape(&shown.phase),
        escape(&shown.trace_id),
        trace(&shown.spans),
    )
}

/// Spans as bars on one axis.
fn trace(spans: &[Span]) -> String {
    let end_us = |span: &Span| span.from_us.saturating_add_unsigned(span.took_us);
    let from = spans.iter().map(|span| span.from_us).min().unwrap_or_default();
    let until = spans.iter().map(end_us).max().unwrap_or_default();
    let whole = until.saturating_sub(from).max(1);
    let percent = |us: i64| us.saturating_mul(1000).saturating_div(whole).clamp(0, 1000);
    join(spans.iter().map(|span| {
        let (at, long) =
            (percent(span.from_us.saturating_sub(from)), percent(end_us(span).saturating_sub(span.from_us)));
        let part = if span.root { "" } else { " class=part" };
        let failed = if span.failed { " class=failed" } else { "" };
        format!(
            "<div class=span title=\"{} ms, from {} ms on\"><span{part}>{}</span>\
             <i{failed} style=\"margin-left:{}.{}%;width:{}.{}%\"></i></div>\n",
            ms(span.took_us),
            millis(span.from_us),
            escape(&span.name),
            at / 10,
            at % 10,
            long / 10,
            long % 10,
        )
    }))
}

/// Microseconds as milliseconds, which may be before the start.
fn millis(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    format!("{sign}{}", ms(us.unsigned_abs()))
}

/// What the real collector printed, as it is.
fn printed(collected: &Collected) -> String {
    format!(
        "<details><summary>The same, as rotel printed it</summary>\n<pre>{}</pre></details>\n",
        escape(&collected.printed)
    )
}

fn tiles(story: &Story) -> String {
    let start = story.starts.first().map_or_else(|| "-".to_owned(), |start| ms(start.first_next_us));
    let first = story.first_acknowledgement_us.map_or_else(|| "-".to_owned(), ms);
    let caught_up =
        story.caught_up_ms.and_then(|at| usize::try_from(at).ok()).map_or_else(|| "-".to_owned(), thousands);
    let tiles = [
        (format!("{} ms", ms(story.added.median_us)), "added per invocation, median"),
        (format!("{} ms", ms(story.added.p99_us)), "added per invocation, 99th percentile"),
        (thousands(story.totals.lost), "log lines lost"),
        (thousands(story.totals.repeated), "log lines repeated"),
        (format!("{caught_up} ms"), "from the backend's return until the backlog was gone"),
        (format!("{start} ms"), "from start to first next"),
        (format!("{first} ms"), "from first telemetry to its 200"),
        (format!("{} MiB", mib(story.memory.most_rss_kib)), "memory at most (VmHWM)"),
    ];
    let tiles =
        join(tiles.iter().map(|(figure, what)| format!("<div><b>{figure}</b><span>{what}</span></div>\n")));
    format!("<div class=tiles>\n{tiles}</div>")
}

fn table(story: &Story) -> String {
    let heads = [
        "phase",
        "invocations",
        "added median",
        "p99",
        "max",
        "first 10 median",
        "max",
        "acknowledged",
        "delivered",
        "repeated",
        "lost",
        "misordered",
        "waiting at its end",
    ];
    let heads = join(heads.iter().map(|head| format!("<th>{head}")));
    let rows = join(story.phases.iter().map(row));
    format!("<div class=scroll><table>\n<tr>{heads}\n{rows}{}</table></div>", row(&story.total()))
}

fn row(phase: &PhaseRow) -> String {
    let cells = summary::row(phase);
    let cells = join(cells.iter().skip(1).map(|cell| format!("<td>{cell}")));
    let class = if phase.outage { " class=outage" } else { "" };
    let (name, what) = (escape(&phase.name), escape(&phase.what));
    format!("<tr{class}><td title=\"{what}\">{name}{cells}\n")
}

fn method(story: &Story) -> String {
    let settings = &story.settings;
    let variables: Vec<_> = settings
        .variables
        .iter()
        .map(|(name, value)| format!("<code>{}={}</code>", escape(name), escape(value)))
        .collect();
    let shutdown = match story.shutdown.left_us {
        Some(left) => format!(
            "At SHUTDOWN {} lines were waiting; the extension was gone by itself {} ms after it, {} ms before the deadline.",
            thousands(story.shutdown.waiting_before),
            ms(story.shutdown.took_us),
            ms(left),
        ),
        None => "At SHUTDOWN the extension had to be killed at the deadline.".to_owned(),
    };
    format!(
        "<p>A simulated Lambda environment ran the real extension process: the function took {} ms and logged {} lines in \
         each of {} invocations, {} ms apart, {}{}. Of every line the environment knows whether the extension acknowledged \
         it, and the backend whether it came: all figures are computed from these two lists and from the times at which the \
         extension asked for its next event. {shutdown} The machine has {} cores, which the environment, the backend and \
         the extension share.</p>\n<p class=soft>Settings of the extension: {}. Data: <a href=data.json>data.json</a>.</p>",
        settings.run_ms,
        settings.logs,
        thousands(story.invocations.len()),
        settings.gap_ms,
        if settings.freeze { "stopped in between" } else { "running in between" },
        if settings.cut_idle { " with its idle connections reset" } else { "" },
        settings.cores,
        variables.join(" "),
    )
}

fn said(story: &Story) -> String {
    if story.said.is_empty() {
        return String::new();
    }
    format!("<h2>What the extension said</h2>\n<pre>{}</pre>\n", escape(&story.said.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::{Log, Point};

    #[test]
    fn an_invocation_is_shown_with_logs_points_and_spans_to_scale_and_nothing_it_says_is_markup() {
        let span = |name: &str, from_us, took_us, root| Span {
            name: name.to_owned(),
            from_us,
            took_us,
            root,
            failed: !root,
        };
        let shown = Shown {
            request_id: "r".to_owned(),
            trace_id: "t".to_owned(),
            phase: "503".to_owned(),
            logs: vec![Log {
                at_us: 1_500,
                kind: "function".to_owned(),
                text: "<b>".to_owned(),
                linked: true,
            }],
            points: vec![Point {
                name: "faas.invocations".to_owned(),
                value: "1".to_owned(),
                unit: "{i}".to_owned(),
            }],
            spans: vec![span("f", 0, 3_000, true), span("init", -1_000, 500, false)],
            more: 2,
        };
        let html = one(&shown, None);
        for part in [
            "<tr class=linked><td>1.50 ms<td>function<td>&lt;b&gt;",
            "<tr><td>faas.invocations<td>1 {i}",
            "style=\"margin-left:25.0%;width:75.0%\"",
            "<i class=failed style=\"margin-left:0.0%;width:12.5%\"",
            "2 more records",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(html.contains("as the demo's backend got it") && !html.contains("<td><b>"));

        let has = Shown { request_id: "as rotel has it".to_owned(), ..shown.clone() };
        let collected = Collected { shown: has, requests: 3, printed: "Body: Str(<b>)".to_owned() };
        let html = one(&shown, Some(&collected));
        assert!(html.contains("as a real collector got it") && html.contains("The 3 requests"));
        assert!(html.contains("<code>as rotel has it</code>") && html.contains("<tr><td>faas.invocations"));
        assert!(printed(&collected).contains("<pre>Body: Str(&lt;b&gt;)</pre>"));
    }
}
