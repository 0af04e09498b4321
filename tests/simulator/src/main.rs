//! Tries an extension in the simulated sandbox: a plain scenario, then figures per invocation.

#![allow(clippy::disallowed_methods)] // a program about time

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use outlast_simulator::{
    Builder, Freeze, InitializationType, Invocation, Invoked, LogFormat, Sandbox, SandboxError,
    ShutdownReason,
};

const USAGE: &str = "\
Runs a Lambda extension in a simulated sandbox and shows what it adds to each invocation.

usage: outlast-simulator --extension PATH [options]

  --extension PATH    the extension's executable; its file name is its name; may be repeated
  --invocations N     how many (10)
  --run-ms MS         how long the function runs (20)
  --logs N            lines that each invocation logs (10)
  --pad BYTES         padding of each line (0)
  --gap-ms MS         pause between invocations (0)
  --env NAME=VALUE    a variable for the extension; may be repeated
  --timeout-ms MS     the function's time limit (3000)
  --json              the function logs JSON
  --managed           Managed Instances: no freeze, SHUTDOWN only
  --no-freeze         leave the extension running between invocations
  --scenario NAME     plain (default); reset: every 5th invocation times out; crash: every 5th exits;
                      kill: SIGKILL before every 5th; quiet: the function logs nothing
  --output            print what the extension writes, at the end
";

#[allow(clippy::struct_excessive_bools, reason = "the switches of a command line")]
struct Arguments {
    extensions: Vec<PathBuf>,
    invocations: u32,
    run: Duration,
    logs: usize,
    pad: usize,
    gap: Duration,
    timeout: Duration,
    env: Vec<(String, String)>,
    scenario: Scenario,
    json: bool,
    managed: bool,
    freeze: bool,
    output: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scenario {
    Plain,
    Reset,
    Crash,
    Kill,
    Quiet,
}

/// Every so many invocations a scenario strikes.
const STRIKES_EVERY: u32 = 5;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        extensions: Vec::new(),
        invocations: 10,
        run: Duration::from_millis(20),
        logs: 10,
        pad: 0,
        gap: Duration::ZERO,
        timeout: Duration::from_secs(3),
        env: Vec::new(),
        scenario: Scenario::Plain,
        json: false,
        managed: false,
        freeze: true,
        output: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is not a number"));
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--extension" => arguments.extensions.push(value()?.into()),
            "--invocations" => arguments.invocations = number(value()?)?.try_into().unwrap_or(u32::MAX),
            "--run-ms" => arguments.run = Duration::from_millis(number(value()?)?),
            "--logs" => arguments.logs = number(value()?)? as usize,
            "--pad" => arguments.pad = number(value()?)? as usize,
            "--gap-ms" => arguments.gap = Duration::from_millis(number(value()?)?),
            "--timeout-ms" => arguments.timeout = Duration::from_millis(number(value()?)?),
            "--env" => {
                let pair = value()?;
                let (name, text) = pair.split_once('=').ok_or(format!("{pair} is not NAME=VALUE"))?;
                arguments.env.push((name.to_owned(), text.to_owned()));
            }
            "--scenario" => {
                arguments.scenario = match value()?.as_str() {
                    "plain" => Scenario::Plain,
                    "reset" => Scenario::Reset,
                    "crash" => Scenario::Crash,
                    "kill" => Scenario::Kill,
                    "quiet" => Scenario::Quiet,
                    other => return Err(format!("{other} is no scenario")),
                };
            }
            "--json" => arguments.json = true,
            "--managed" => arguments.managed = true,
            "--no-freeze" => arguments.freeze = false,
            "--output" => arguments.output = true,
            other => return Err(format!("{other} is no option")),
        }
    }
    if arguments.extensions.is_empty() {
        return Err("--extension PATH is required".into());
    }
    Ok(Some(arguments))
}

fn builder(arguments: &Arguments) -> Option<Builder> {
    let (first, others) = arguments.extensions.split_first()?;
    let mut builder = Sandbox::builder(first).timeout(arguments.timeout);
    builder = others.iter().fold(builder, Builder::extension);
    builder = arguments.env.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
    if arguments.json {
        builder = builder.log_format(LogFormat::Json);
    }
    if arguments.managed {
        builder = builder.initialization(InitializationType::ManagedInstances);
    }
    if !arguments.freeze {
        builder = builder.freeze(Freeze::Off);
    }
    Some(builder)
}

/// Returns whether the extension behaved: no crash, and it left by itself.
async fn run(arguments: &Arguments) -> Result<bool, SandboxError> {
    let Some(builder) = builder(arguments) else { return Ok(false) };
    let lambda = builder.start().await?;
    if let Some(times) = lambda.init_times() {
        println!(
            "registered after {:.2?}, ready for events after {:.2?}",
            times.registered, times.extensions_ready
        );
    }
    let mut added = Vec::new();
    for number in 1..=arguments.invocations {
        let strikes = number % STRIKES_EVERY == 0;
        if strikes && arguments.scenario == Scenario::Kill {
            lambda.kill().await;
        }
        let invoked = lambda.invoke(invocation(arguments, strikes)).await?;
        print_invocation(&invoked);
        added.push(invoked.added);
        tokio::time::sleep(arguments.gap).await;
    }
    let end = lambda.shutdown(ShutdownReason::Spindown).await;
    for extension in &end.extensions {
        match extension.left {
            Some(left) => println!(
                "{} left by itself after {:.1?}, {left:.0?} before the deadline",
                extension.name, extension.took
            ),
            None => println!("{} was killed", extension.name),
        }
    }
    added.sort_unstable();
    let at = |percent: usize| added.get((added.len() * percent / 100).min(added.len().saturating_sub(1)));
    let milliseconds = |time: Option<&Duration>| time.map_or(0.0, |time: &Duration| time.as_secs_f64() * 1e3);
    println!(
        "added per invocation: median {:.2} ms, 99th percentile {:.2} ms, most {:.2} ms",
        milliseconds(at(50)),
        milliseconds(at(99)),
        milliseconds(added.last())
    );
    println!(
        "telemetry: {} events acknowledged in {} requests, {} lost to the extension",
        lambda.acknowledged_count(),
        lambda.deliveries().len(),
        lambda.dropped()
    );
    for crash in lambda.crashes() {
        println!("{} crashed: {:?}", crash.extension, crash.exit);
    }
    if arguments.output {
        lambda.extension_output().iter().for_each(|line| println!("{}: {}", line.extension, line.text));
    }
    Ok(end.exited_by_itself() && lambda.crashes().is_empty())
}

fn invocation(arguments: &Arguments, strikes: bool) -> Invocation {
    let logs = if arguments.scenario == Scenario::Quiet { 0 } else { arguments.logs };
    let invocation = Invocation::new().runs_for(arguments.run).logs(logs).padded(arguments.pad);
    match arguments.scenario {
        Scenario::Reset if strikes => invocation.times_out(),
        Scenario::Crash if strikes => invocation.exits(1),
        _ => invocation,
    }
}

fn print_invocation(invoked: &Invoked) {
    let outcome = invoked.error_type().unwrap_or("ok");
    let start = if invoked.cold { "cold" } else { "warm" };
    println!(
        "{:>5}  {start}  function {:>8.2?}  added {:>8.2?}  {outcome}",
        invoked.number, invoked.function, invoked.added
    );
}
