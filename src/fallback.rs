//! The fallback that the settings name, and what may go there.

use crate::PerSignal;
use crate::config::{self, Config};
use crate::deliver::fallback::{
    ENDPOINT_VARIABLE, Fallback, Http, OBJECT_MAX_PLAIN_BYTES, S3, SHUTDOWN_MAX_BYTES,
    STDOUT_BYTES_PER_SECOND_MAX, Stdout,
};
use crate::deliver::{Aws, AwsError, Vault};
use crate::drain::policy::{FallbackSettings, Meter};
use std::sync::Arc;

/// The fallback of `config`, ready for a first request; nothing is set up and nobody is connected to before that.
/// `None` if none is wanted, or after a line that says why it cannot be used.
pub fn open(config: &Config, vault: &Arc<Vault>) -> Option<(Fallback, FallbackSettings)> {
    let place = config.fallback.as_ref()?;
    let batch_max_bytes = config.batch_max_bytes as u64;
    // Objects and lines are gzip whatever the backend gets: nobody has to take them in as they come.
    let compressed = FallbackSettings { batch_max_bytes, gzip: true, meter: None };
    Some(match place {
        config::Fallback::S3 { bucket, prefix } => match open_s3(config, bucket, prefix) {
            Ok(s3) => {
                let batch_max_bytes = batch_max_bytes.max(OBJECT_MAX_PLAIN_BYTES);
                (Fallback::S3(s3), FallbackSettings { batch_max_bytes, ..compressed })
            }
            Err(error) => {
                log::warn!("OUTLAST_FALLBACK: {place} cannot be used: {error}; there is no fallback");
                return None;
            }
        },
        config::Fallback::Stdout => {
            let meter = Meter {
                bytes_per_second: STDOUT_BYTES_PER_SECOND_MAX,
                shutdown_max_bytes: SHUTDOWN_MAX_BYTES,
            };
            (Fallback::Stdout(Stdout::default()), FallbackSettings { meter: Some(meter), ..compressed })
        }
        config::Fallback::Http(base) => {
            let urls = PerSignal::from_fn(|signal| base.signal_url(config.protocol, signal));
            let http = Http::new(
                urls,
                config.fallback_headers.clone(),
                Arc::clone(vault),
                config.timeout,
                config.ca_file.clone(),
            );
            (Fallback::Http(http), FallbackSettings { gzip: config.gzip, ..compressed })
        }
    })
}

fn open_s3(config: &Config, bucket: &str, prefix: &str) -> Result<S3, AwsError> {
    let aws = Aws::from_variables(|name| std::env::var(name).ok(), ENDPOINT_VARIABLE)?;
    S3::new(aws, bucket, prefix, config.timeout, config.ca_file.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_of(variables: &[(&str, &str)]) -> Option<FallbackSettings> {
        let always = [("OUTLAST_ENDPOINT", "http://c"), ("OUTLAST_BATCH_MAX_BYTES", "64KiB")];
        let loaded = config::load(always.iter().chain(variables).map(|(name, value)| (*name, *value)));
        assert_eq!(loaded.problems, []);
        let vault = Arc::new(Vault::new(loaded.config.timeout, None, |_| None));
        open(&loaded.config, &vault).map(|(_, settings)| settings)
    }

    #[test]
    fn only_stdout_is_metered_and_only_a_second_backend_may_get_identity() {
        assert_eq!(settings_of(&[]), None);
        let http = settings_of(&[("OUTLAST_FALLBACK", "http://d"), ("OUTLAST_COMPRESSION", "none")]).unwrap();
        assert_eq!((http.gzip, http.meter, http.batch_max_bytes), (false, None, 64 << 10));
        let stdout = settings_of(&[("OUTLAST_FALLBACK", "stdout"), ("OUTLAST_COMPRESSION", "none")]).unwrap();
        assert!(stdout.gzip && stdout.meter.is_some());
    }
}
