//! The name under which the extension registers.

use std::ffi::OsStr;
use std::path::Path;

/// What is registered when the process cannot learn its own file name.
const FALLBACK_NAME: &str = "outlast";

/// The extension's name: the file name of the executable that Lambda started.
///
/// `Lambda-Extension-Name` must be the name of a file in `/opt/extensions`. Any other name registers an
/// *internal* extension, to which Lambda refuses SHUTDOWN, and the external one that Lambda started is
/// waited for in vain until initialization times out.
///
/// `argument_zero` goes before `executable` because Lambda puts there the path it executed, while the
/// executable's path has symbolic links resolved (on Linux it is read from `/proc/self/exe`).
pub fn extension_name(argument_zero: Option<&OsStr>, executable: Option<&Path>) -> String {
    [argument_zero.map(Path::new), executable]
        .into_iter()
        .flatten()
        .filter_map(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| FALLBACK_NAME.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(argument_zero: Option<&str>, executable: Option<&str>) -> String {
        extension_name(argument_zero.map(OsStr::new), executable.map(Path::new))
    }

    #[test]
    fn it_is_the_file_name_lambda_executed() {
        assert_eq!(name(Some("/opt/extensions/outlast"), None), "outlast");
        assert_eq!(name(Some("/opt/extensions/my-copy"), Some("/opt/bin/outlast")), "my-copy");
        assert_eq!(name(Some("renamed.sh"), None), "renamed.sh");
    }

    #[test]
    fn without_an_argument_zero_it_is_the_executables() {
        assert_eq!(name(None, Some("/opt/extensions/other")), "other");
        assert_eq!(name(Some(""), Some("/opt/extensions/other")), "other");
        assert_eq!(name(Some("/"), Some("/opt/extensions/other")), "other");
    }

    #[test]
    fn without_either_it_is_the_project_s() {
        assert_eq!(name(None, None), "outlast");
    }
}
