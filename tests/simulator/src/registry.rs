//! The extensions of one environment and the states they go through, after the state machine of AWS's own emulator:
//!
//! ```text
//! Started --register--> Registered --next--> Ready (blocked) --event--> Running --next--> Ready ...
//! Registered --init/error--> InitError       Registered | Ready | Running --exit/error--> ExitError
//! Started --exec failed--> LaunchError       any --process gone--> Exited
//! ```
//!
//! Two consequences surprise extensions and are kept exactly: a second `next` while one is pending is refused, and an
//! event released to a poll whose client has gone is lost. No I/O happens here: a pending poll is a channel.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::answer::Answer;
use crate::clock;
use crate::options::{FunctionOptions, InitializationType};

/// Internal and external extensions together (Lambda quotas).
pub(crate) const EXTENSIONS_MAX: usize = 10;

/// The states of an extension, by the names that error messages use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Process started, not yet registered.
    Started,
    /// Registered, never asked for an event.
    Registered,
    /// Waits in `next`.
    Ready,
    /// Has an event and has not asked for the next one.
    Running,
    /// Called `init/error`.
    InitError,
    /// Called `exit/error`.
    ExitError,
    /// The process could not be started.
    LaunchError,
    /// The process is gone.
    Exited,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Started => "Started",
            Self::Registered => "Registered",
            Self::Ready => "Ready",
            Self::Running => "Running",
            Self::InitError => "InitError",
            Self::ExitError => "ExitError",
            Self::LaunchError => "LaunchError",
            Self::Exited => "Exited",
        }
    }
}

/// The events an extension can subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    Invoke,
    Shutdown,
}

impl Lifecycle {
    fn name(self) -> &'static str {
        match self {
            Self::Invoke => "INVOKE",
            Self::Shutdown => "SHUTDOWN",
        }
    }
}

/// Which of the two error calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorCall {
    Init,
    Exit,
}

/// Gate 4, which an invocation must pass to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvokeGate {
    /// An extension subscribed to INVOKE is still at work.
    Closed,
    /// All have asked for the next event, the last one then; `None` where none is subscribed.
    Open(Option<Instant>),
}

/// What `next` leads to.
#[derive(Debug)]
pub(crate) enum Next {
    Answer(Answer),
    Wait(oneshot::Receiver<Answer>),
}

/// One extension as the platform sees it.
#[derive(Debug)]
pub(crate) struct Extension {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) external: bool,
    pub(crate) events: Vec<Lifecycle>,
    pub(crate) state: State,
    /// Error type given with `init/error` or `exit/error`; the first one counts.
    pub(crate) error_type: Option<String>,
    /// When it last asked for an event.
    pub(crate) ready_at: Option<Instant>,
    poll: Option<oneshot::Sender<Answer>>,
    /// A release that found it busy.
    held: Option<(Lifecycle, Answer)>,
    /// It has been told that the environment ends.
    is_leaving: bool,
    /// How often it asked for a further event after that.
    pub(crate) asked_while_leaving: u32,
}

impl Extension {
    fn new(name: &str, external: bool) -> Self {
        Self {
            name: name.to_owned(),
            id: clock::uuid(),
            external,
            events: Vec::new(),
            state: State::Started,
            error_type: None,
            ready_at: None,
            poll: None,
            held: None,
            is_leaving: false,
            asked_while_leaving: 0,
        }
    }

    pub(crate) fn subscribed(&self, event: Lifecycle) -> bool {
        self.events.contains(&event)
    }

    fn refuse(&self, to: State, called: &str) -> Answer {
        Answer::refusal(
            "Extension.InvalidExtensionState",
            format!(
                "State transition from {} to {} failed for extension {called}. Error: State transition is not allowed",
                self.state.name(),
                to.name()
            ),
        )
    }

    /// It has an event to work on now.
    fn gets(&mut self, kind: Lifecycle) {
        self.state = State::Running;
        self.is_leaving |= kind == Lifecycle::Shutdown;
    }

    /// Gives an event. Returns false where the poll's client had gone, so that the event is lost.
    fn release(&mut self, kind: Lifecycle, event: Answer) -> bool {
        self.ready_at = None;
        if self.state != State::Ready {
            self.held = Some((kind, event));
            return true;
        }
        self.gets(kind);
        self.poll.take().is_none_or(|poll| poll.send(event).is_ok())
    }
}

/// All extensions of one environment.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) extensions: Vec<Extension>,
    /// False once the runtime has started to wait for its first invocation.
    pub(crate) open: bool,
    managed: bool,
    /// Events released into polls whose client had gone.
    pub(crate) lost_events: u64,
}

impl Registry {
    pub(crate) fn new(initialization: InitializationType) -> Self {
        Self {
            extensions: Vec::new(),
            open: true,
            managed: initialization == InitializationType::ManagedInstances,
            lost_events: 0,
        }
    }

    /// An extension process is about to start.
    pub(crate) fn launch(&mut self, name: &str) {
        self.extensions.push(Extension::new(name, true));
    }

    pub(crate) fn named(&mut self, name: &str) -> Option<&mut Extension> {
        self.extensions.iter_mut().find(|extension| extension.name == name)
    }

    /// Name of the extension with this identifier, or the refusal that a missing, malformed or unknown one gets.
    pub(crate) fn identify(&mut self, id: Option<&str>) -> Result<&mut Extension, Answer> {
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Err(Answer::refusal(
                "Extension.MissingExtensionIdentifier",
                "Missing Lambda-Extension-Identifier header".into(),
            ));
        };
        if !is_uuid(id) {
            return Err(Answer::refusal(
                "Extension.InvalidExtensionIdentifier",
                "Invalid Lambda-Extension-Identifier".into(),
            ));
        }
        self.extensions
            .iter_mut()
            .find(|extension| extension.state != State::Started && extension.id.eq_ignore_ascii_case(id))
            .ok_or_else(|| {
                Answer::refusal("Extension.UnknownExtensionIdentifier", format!("Unknown extension {id}"))
            })
    }

    /// `POST /extension/register`.
    pub(crate) fn register(
        &mut self,
        name: Option<&str>,
        features: &str,
        body: &[u8],
        function: &FunctionOptions,
    ) -> Answer {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Answer::refusal("Extension.InvalidExtensionName", "Empty extension name".into());
        };
        let wanted = match parse_register(body) {
            Ok(wanted) => wanted,
            Err(reason) => return Answer::refusal("InvalidRequestFormat", reason),
        };
        let external = self.extensions.iter().any(|extension| extension.external && extension.name == name);
        let events = match self.validate_events(&wanted, external) {
            Ok(events) => events,
            Err(refusal) => return refusal,
        };
        if !external {
            if let Some(refusal) = self.refuse_internal(name) {
                return refusal;
            }
            self.extensions.push(Extension::new(name, false));
        }
        let Some(extension) = self.named(name) else {
            return Answer::internal_error();
        };
        if extension.state != State::Started {
            return extension.refuse(State::Registered, name);
        }
        extension.state = State::Registered;
        extension.events = events;
        let mut reply = json!({
            "functionName": function.name,
            "functionVersion": function.version,
            "handler": function.handler,
        });
        if features.split(',').any(|feature| feature.trim() == "accountId")
            && let Some(reply) = reply.as_object_mut()
        {
            reply.insert("accountId".into(), Value::from(function.account_id.clone()));
        }
        Answer::json(200, reply.to_string()).header("Lambda-Extension-Identifier", extension.id.clone())
    }

    fn validate_events(&self, wanted: &[String], external: bool) -> Result<Vec<Lifecycle>, Answer> {
        let refuse = |event: &str, reason: &str| {
            Err(Answer::refusal("Extension.InvalidEventType", format!("{event}: {reason}")))
        };
        if self.managed && !external && !wanted.is_empty() {
            return Err(Answer::refusal(
                "Extension.InvalidEventType",
                "No events allowed for internal extensions".into(),
            ));
        }
        let mut events = Vec::with_capacity(wanted.len());
        for event in wanted {
            match event.as_str() {
                "INVOKE" if self.managed => return refuse(event, "ErrorInvalidEventType"),
                "INVOKE" => events.push(Lifecycle::Invoke),
                "SHUTDOWN" if external => events.push(Lifecycle::Shutdown),
                "SHUTDOWN" => return refuse(event, "ShutdownEventNotSupportedForInternalExtension"),
                _ => return refuse(event, "ErrorInvalidEventType"),
            }
        }
        Ok(events)
    }

    fn refuse_internal(&self, name: &str) -> Option<Answer> {
        if !self.open {
            return Some(Answer::refusal(
                "Extension.RegistrationClosed",
                "Extension registration closed already".into(),
            ));
        }
        if self.extensions.len() >= EXTENSIONS_MAX {
            return Some(Answer::refusal(
                "Extension.TooManyExtensions",
                format!("Extension limit ({EXTENSIONS_MAX}) reached"),
            ));
        }
        self.extensions.iter().any(|extension| extension.name == name).then(|| {
            Answer::refusal(
                "Extension.InvalidExtensionState",
                "Extension with this name already registered".into(),
            )
        })
    }

    /// `GET /extension/event/next`.
    pub(crate) fn next(&mut self, id: Option<&str>, now: Instant) -> Next {
        let extension = match self.identify(id) {
            Ok(extension) => extension,
            Err(refusal) => return Next::Answer(refusal),
        };
        if !matches!(extension.state, State::Registered | State::Running) {
            return Next::Answer(extension.refuse(State::Ready, &extension.id));
        }
        extension.asked_while_leaving += u32::from(extension.is_leaving);
        extension.ready_at = Some(now);
        if let Some((kind, event)) = extension.held.take() {
            extension.gets(kind);
            return Next::Answer(event);
        }
        let (poll, wait) = oneshot::channel();
        extension.state = State::Ready;
        extension.poll = Some(poll);
        Next::Wait(wait)
    }

    /// `POST /extension/init/error` and `/extension/exit/error`.
    pub(crate) fn error(&mut self, call: ErrorCall, id: Option<&str>, error_type: Option<&str>) -> Answer {
        if let Err(refusal) = self.identify(id)
            && refusal.error_type() != Some("Extension.UnknownExtensionIdentifier")
        {
            return refusal;
        }
        let Some(error_type) = error_type.filter(|text| !text.is_empty()) else {
            return Answer::refusal(
                "Extension.MissingHeader",
                "Lambda-Extension-Function-Error-Type not found".into(),
            );
        };
        let extension = match self.identify(id) {
            Ok(extension) => extension,
            Err(refusal) => return refusal,
        };
        let (to, allowed) = match call {
            ErrorCall::Init => (State::InitError, matches!(extension.state, State::Registered)),
            ErrorCall::Exit => (
                State::ExitError,
                matches!(extension.state, State::Registered | State::Ready | State::Running),
            ),
        };
        if allowed {
            extension.state = to;
            extension.error_type = Some(error_type.to_owned());
        } else if extension.state != to {
            return extension.refuse(to, &extension.id);
        }
        Answer::json(202, r#"{"status":"OK"}"#.to_owned())
    }

    /// Releases an event to everyone subscribed to it. One that is busy gets it with its next `next`.
    pub(crate) fn release(&mut self, event: Lifecycle, body: &Value) {
        for extension in &mut self.extensions {
            if !extension.subscribed(event) || matches!(extension.state, State::Exited | State::LaunchError) {
                continue;
            }
            let mut answer = Answer::json(200, body.to_string());
            answer = match event {
                Lifecycle::Invoke => answer.header("Lambda-Extension-Event-Identifier", clock::uuid()),
                // As the emulator sends it, lest anyone rely on the content type.
                Lifecycle::Shutdown => answer.header("Content-Type", "text/plain; charset=utf-8".into()),
            };
            if !extension.release(event, answer) {
                self.lost_events += 1;
            }
        }
    }

    /// Gate 2: every external extension has registered, so the runtime may start.
    pub(crate) fn all_registered(&self) -> bool {
        self.extensions.iter().filter(|extension| extension.external).all(|e| e.state != State::Started)
    }

    /// Gate 3: every registered extension waits for its first event.
    pub(crate) fn all_ready(&self) -> bool {
        self.extensions.iter().all(|extension| extension.state == State::Ready)
    }

    /// Gate 4: every extension subscribed to INVOKE asked for the next event; when the last one did.
    pub(crate) fn invoke_gate(&self) -> InvokeGate {
        let mut last = None;
        for extension in self.extensions.iter().filter(|e| e.subscribed(Lifecycle::Invoke)) {
            if extension.state != State::Ready {
                return InvokeGate::Closed;
            }
            last = last.max(extension.ready_at);
        }
        InvokeGate::Open(last)
    }

    /// The first extension that has failed, with Lambda's name for the failure.
    pub(crate) fn failed(&self) -> Option<(&Extension, &'static str)> {
        self.extensions.iter().find_map(|extension| match extension.state {
            State::InitError => Some((extension, "Extension.InitError")),
            State::ExitError => Some((extension, "Extension.ExitError")),
            State::LaunchError => Some((extension, "Extension.LaunchError")),
            State::Exited => Some((extension, "Extension.Crash")),
            State::Started | State::Registered | State::Ready | State::Running => None,
        })
    }

    /// Names and events, as `platform.extension` reports them.
    pub(crate) fn descriptions(&self) -> Vec<(String, Vec<&'static str>)> {
        self.extensions
            .iter()
            .map(|e| (e.name.clone(), e.events.iter().map(|event| event.name()).collect()))
            .collect()
    }
}

fn parse_register(body: &[u8]) -> Result<Vec<String>, String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Register {
        #[serde(default)]
        events: Option<Vec<String>>,
        #[serde(default)]
        configuration_keys: Option<Vec<String>>,
    }
    let register: Register = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if register.configuration_keys.is_some_and(|keys| !keys.is_empty()) {
        return Err("configurationKeys are deprecated; use environment variables instead".into());
    }
    Ok(register.events.unwrap_or_default())
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered() -> (Registry, String) {
        let mut registry = Registry::new(InitializationType::OnDemand);
        registry.launch("probe");
        let answer = registry.register(
            Some("probe"),
            "",
            br#"{"events":["INVOKE","SHUTDOWN"]}"#,
            &FunctionOptions::default(),
        );
        assert_eq!(answer.status, 200);
        let id = registry.extensions[0].id.clone();
        (registry, id)
    }

    #[test]
    fn an_event_released_to_a_dropped_poll_is_lost_and_next_works_again() {
        let (mut registry, id) = registered();
        let Next::Wait(poll) = registry.next(Some(&id), Instant::now()) else { panic!("must wait") };
        drop(poll);
        let Next::Answer(second) = registry.next(Some(&id), Instant::now()) else { panic!("must refuse") };
        assert_eq!(second.error_type(), Some("Extension.InvalidExtensionState"));
        registry.release(Lifecycle::Invoke, &json!({"eventType":"INVOKE"}));
        assert_eq!(registry.lost_events, 1);
        assert!(matches!(registry.next(Some(&id), Instant::now()), Next::Wait(_)));
    }

    #[test]
    fn a_busy_extension_gets_shutdown_with_its_next_call() {
        let (mut registry, id) = registered();
        let Next::Wait(mut poll) = registry.next(Some(&id), Instant::now()) else { panic!("must wait") };
        registry.release(Lifecycle::Invoke, &json!({"eventType":"INVOKE"}));
        assert_eq!(poll.try_recv().unwrap().status, 200);
        registry.release(Lifecycle::Shutdown, &json!({"eventType":"SHUTDOWN"}));
        let Next::Answer(event) = registry.next(Some(&id), Instant::now()) else { panic!("must answer") };
        assert!(event.body.contains("SHUTDOWN"));
    }

    #[test]
    fn an_unknown_identifier_without_error_type_is_told_of_the_missing_header_first() {
        let (mut registry, _) = registered();
        let stranger = clock::uuid();
        let answer = registry.error(ErrorCall::Init, Some(&stranger), None);
        assert_eq!(answer.error_type(), Some("Extension.MissingHeader"));
        let answer = registry.error(ErrorCall::Init, Some(&stranger), Some("Extension.X"));
        assert_eq!(answer.error_type(), Some("Extension.UnknownExtensionIdentifier"));
    }
}
