//! How much room there is in `/tmp`.

use crate::observe::Space;

/// The one directory that a function can write to (Lambda developer guide, "Ephemeral storage").
const TMP: &str = "/tmp";

/// Asks the file system: one call, which waits for no disk. `None` if it does not say.
pub(super) fn space() -> Option<Space> {
    let stats = fs2::statvfs(TMP).ok()?;
    Some(Space {
        used: stats.total_space().saturating_sub(stats.free_space()),
        free: stats.available_space(),
    })
}
