//! Looks at queues of `outlast`, and sends what was rescued of them.

use std::process::ExitCode;

fn main() -> ExitCode {
    match outlast::tool::run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
