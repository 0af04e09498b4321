//! How cost grows, and what a small function pays: `cargo run --release --example growth`, `-- --help` for the rest.
//!
//! The release binary between the simulated Lambda and the scripted backend. Figures, not judgements: the machine is shared
//! with these two, and with whatever else runs on it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // it fails by panicking
#![allow(clippy::disallowed_methods, reason = "the world around the extension keeps real time")]
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "figures for people")]

#[path = "../demo/extension.rs"]
mod extension;
mod gauge;
mod options;
#[path = "../common/plot.rs"]
mod plot;
mod small;
mod sweep;
#[path = "../common/usage.rs"]
mod usage;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::options::Options;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("growth: {error}; see --help");
            return ExitCode::from(2);
        }
    };
    if let Some(seconds) = options.spin {
        small::spin(Duration::from_secs(seconds));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match runtime.block_on(run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("growth: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let extension = extension::find(options.extension.clone()).await?;
    if options.small {
        return small::run(&extension).await;
    }
    for sweep in sweep::ALL.iter().filter(|sweep| options.takes(sweep.name)) {
        println!("\n{}: {}", sweep.name, sweep::HEADS.join(" "));
        let mut rows = Vec::new();
        for value in sweep.values {
            let row = sweep.measure(&extension, *value).await;
            println!("{row}");
            rows.push(row);
            // After each, for the last ones take long.
            write(&options.out, sweep.name, "csv", &sweep::csv(&rows))?;
            write(&options.out, sweep.name, "svg", &sweep.chart(&rows).svg())?;
        }
    }
    Ok(())
}

fn write(dir: &Path, name: &str, kind: &str, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join(format!("growth-{name}.{kind}")), text)
}
