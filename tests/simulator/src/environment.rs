//! The environment variables that Lambda gives to an external extension (AWS developer guide, "Defined runtime
//! environment variables"; the list of those withheld from extensions is in the Extensions API page).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::options::{FunctionOptions, InitializationType, LogFormat};

/// Defined for the function, withheld from extensions.
const WITHHELD: [&str; 7] = [
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
];

/// The whole environment of an extension process: nothing is inherited from the caller's own. The caller's
/// `customer` variables override, as a function's configuration does; those that begin with `_` are not passed on.
pub(crate) fn variables(
    api: SocketAddr,
    function: &FunctionOptions,
    initialization: InitializationType,
    customer: &[(String, String)],
) -> BTreeMap<String, String> {
    let log_format = match function.log_format {
        LogFormat::Text => "Text",
        LogFormat::Json => "JSON",
    };
    let own = [
        ("AWS_LAMBDA_RUNTIME_API", api.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", function.name.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", function.version.clone()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory_mb.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", initialization.as_str().to_owned()),
        ("AWS_LAMBDA_LOG_FORMAT", log_format.to_owned()),
        ("AWS_LAMBDA_LOG_LEVEL", "INFO".to_owned()),
        ("AWS_REGION", function.region.clone()),
        ("AWS_DEFAULT_REGION", function.region.clone()),
        ("AWS_ACCESS_KEY_ID", "AKIDSIMULATED".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "simulated-secret".to_owned()),
        ("AWS_SESSION_TOKEN", "simulated-token".to_owned()),
        ("TZ", ":UTC".to_owned()),
        ("LANG", "en_US.UTF-8".to_owned()),
        ("PATH", "/usr/local/bin:/usr/bin/:/bin:/opt/bin".to_owned()),
        ("LD_LIBRARY_PATH", "/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/opt/lib".to_owned()),
    ];
    let mut all: BTreeMap<String, String> =
        own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    all.extend(customer.iter().cloned());
    all.retain(|name, _| !name.starts_with('_') && !WITHHELD.contains(&name.as_str()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customer_variables_pass_and_withheld_names_do_not() {
        let customer =
            [("A", "1"), ("_HANDLER", "x"), ("_X", "y"), ("LAMBDA_TASK_ROOT", "/var/task"), ("TZ", "CET")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let api = "127.0.0.1:9001".parse().unwrap();
        let all =
            variables(api, &FunctionOptions::default(), InitializationType::ManagedInstances, &customer);
        assert_eq!(all["A"], "1");
        assert_eq!(all["TZ"], "CET");
        assert_eq!(all["AWS_LAMBDA_RUNTIME_API"], "127.0.0.1:9001");
        assert_eq!(all["AWS_LAMBDA_INITIALIZATION_TYPE"], "lambda-managed-instances");
        for absent in ["_HANDLER", "_X", "LAMBDA_TASK_ROOT", "AWS_EXECUTION_ENV", "HOME"] {
            assert!(!all.contains_key(absent), "{absent}");
        }
    }
}
