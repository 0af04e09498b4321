//! The extension of the crate `opentelemetry-lambda-extension`, as its own `main` starts it, without its log.

use opentelemetry_lambda_extension::{Config, ExtensionRuntime, Result};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    ExtensionRuntime::new(Config::load()?).run().await
}
