//! The least that the crate `lambda-extension` makes: telemetry is subscribed to, answered, and thrown away.

use lambda_extension::{Error, Extension, LambdaTelemetry, SharedService, service_fn};

async fn forget(events: Vec<LambdaTelemetry>) -> Result<(), Error> {
    drop(events);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let processor = SharedService::new(service_fn(forget));
    Extension::new().with_telemetry_processor(processor).run().await
}
