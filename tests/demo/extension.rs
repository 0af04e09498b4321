//! The real binary: found, or built by the cargo that runs the demo.

use std::{env, io, path::PathBuf, process::Stdio};

use tokio::process::Command;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExtensionError {
    #[error("{0} is not a file")]
    Missing(PathBuf),
    #[error("cannot run cargo: {0}")]
    Cargo(#[from] io::Error),
    #[error("cargo could not build the extension")]
    Build,
    #[error("cargo built the extension and did not say where")]
    Nowhere,
}

/// The extension to run: the one that was named, or `outlast` in the release profile.
pub(crate) async fn find(named: Option<PathBuf>) -> Result<PathBuf, ExtensionError> {
    match named {
        Some(path) if path.is_file() => Ok(path),
        Some(path) => Err(ExtensionError::Missing(path)),
        None => build().await,
    }
}

async fn build() -> Result<PathBuf, ExtensionError> {
    eprintln!("building the extension (release profile)");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--bin", "outlast", "--message-format=json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await?;
    if !output.status.success() {
        return Err(ExtensionError::Build);
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(executable)
        .next_back()
        .ok_or(ExtensionError::Nowhere)
}

/// The `executable` of a `compiler-artifact` message of cargo's.
fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message.get("executable")?.as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_read_from_what_cargo_says() {
        let said = r#"{"reason":"compiler-artifact","executable":"/x/target/release/outlast"}"#;
        assert_eq!(executable(said), Some(PathBuf::from("/x/target/release/outlast")));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","executable":null}"#), None);
        assert_eq!(executable("warning"), None);
    }
}
