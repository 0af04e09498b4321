//! The page `docs/configuration.md`, written from the table.

use super::destinations::{own_settings, variable};
use super::kind::Setting;
use super::settings::SETTINGS;

const HEAD: &str = "# Configuration

<!-- Written from the table in src/config/settings.rs. `OUTLAST_BLESS=1 cargo test --lib configuration` rewrites it. -->

Every setting is an environment variable of the function. Only an endpoint is needed; everything else has a default.

- Durations take a unit: `250ms`, `1.5s`, `2m`, `1h`. Sizes take a unit (`64MiB`, `500kB`) or are plain bytes.
- An empty value counts as not set.
- Where OpenTelemetry has a standard variable it is honoured; ours wins. A standard variable for one signal wins over the general one.
- A wrong value never stops the function. All problems are written to stderr at the start, each naming the variable, the
  value (never a secret one) and what is accepted, and the default is used. A wrong value of ours does not bring the
  standard variable back: telemetry and credentials never go anywhere that was not meant.
- Without a usable endpoint the extension idles: it costs nothing and collects nothing.
- `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are honoured for backends that are not on the loopback interface.
- TLS trusts the certificate authorities of Mozilla's list, as built in.

";

const DESTINATIONS_HEAD: &str = "
## Further destinations

What may be set for each name in [`OUTLAST_DESTINATIONS`](#outlast_destinations); here for `audit`. It means what the main setting means, has the
same default, and never takes over what is set for the main one. There are no standard variables for it.

| variable | default | as |
|---|---|---|
";

/// The destination that the page has for an example.
const EXAMPLE: &str = "audit";

/// The whole page, Markdown.
pub fn reference() -> String {
    let rows = SETTINGS.iter().map(row);
    let sections = SETTINGS.iter().map(section);
    let head = [HEAD, "| variable | default |\n|---|---|\n"].into_iter().map(str::to_owned);
    let own = own_settings().map(|setting| {
        let default =
            if setting.default.is_empty() { "none".to_owned() } else { format!("`{}`", setting.default) };
        let (own, main) = (variable(EXAMPLE, setting.name), setting.name);
        format!("| `{own}` | {default} | [`{main}`](#{}) |\n", main.to_lowercase())
    });
    let destinations = std::iter::once(DESTINATIONS_HEAD.to_owned()).chain(own);
    head.chain(rows).chain(sections).chain(destinations).collect()
}

fn row(setting: &Setting) -> String {
    let anchor = setting.name.to_lowercase();
    format!("| [`{}`](#{anchor}) | {} |\n", setting.name, default(setting))
}

fn default(setting: &Setting) -> String {
    match (setting.default, setting.standard.first()) {
        ("", None) => "none".to_owned(),
        ("", Some(standard)) => format!("`{}`", standard.name),
        (default, _) => format!("`{default}`"),
    }
}

fn section(setting: &Setting) -> String {
    let why = setting.kind.why().map(|why| format!(". {why}")).unwrap_or_default();
    let items = [
        ("Default", default(setting)),
        ("Accepted", format!("{}{why}", setting.kind.accepted())),
        ("Example", format!("`{}={}`", setting.name, setting.example)),
    ];
    let standards = setting
        .standard
        .iter()
        .map(|standard| ("Standard", format!("`{}`, {}", standard.name, standard.kind.accepted())));
    let head = format!("\n## `{}`\n\n{}\n\n", setting.name, setting.meaning);
    let items = items.into_iter().chain(standards).map(|(what, text)| format!("- {what}: {text}\n"));
    std::iter::once(head).chain(items).collect()
}
