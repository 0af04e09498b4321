//! A disk of its own for a process and its children: a small tmpfs in a mount namespace, which needs no privileges where
//! user namespaces are allowed, and goes with the process.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set in a process that has such a disk: where it is mounted.
const MOUNTED: &str = "OUTLAST_TEST_ROOM";
/// What fills the disk up.
const FILLER: &str = "filler";
const FILL_STEP_BYTES: usize = 64 << 10;

/// A mounted disk.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    dir: PathBuf,
}

/// Whether this machine lets us mount.
pub(crate) fn is_possible() -> bool {
    let tried = Command::new("unshare")
        .args(["-rm", "mount", "-t", "tmpfs", "outlast", "/mnt"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// A command that runs this executable again with a tmpfs of `bytes` mounted on `dir`.
pub(crate) fn command(dir: &Path, bytes: u64) -> io::Result<Command> {
    let mut command = Command::new("unshare");
    let script = r#"mount -t tmpfs -o "size=$1" outlast "$2" && shift 2 && exec "$@""#;
    command.args(["-rm", "sh", "-ec", script, "sh"]).arg(bytes.to_string()).arg(dir);
    command.arg(std::env::current_exe()?).env(MOUNTED, dir);
    Ok(command)
}

impl Room {
    /// The disk of this process, if it has one.
    pub(crate) fn mine() -> Option<Self> {
        std::env::var_os(MOUNTED).map(|dir| Self { dir: dir.into() })
    }

    /// Where it is mounted.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves no room at all.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.dir.join(FILLER))?;
        let mut step = vec![b'f'; FILL_STEP_BYTES];
        while !step.is_empty() {
            match filler.write(&step) {
                // The last pages: a file takes whole ones.
                Ok(0) => step.truncate(step.len() / 2),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => step.truncate(step.len() / 2),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the room back.
    pub(crate) fn free(&self) -> io::Result<()> {
        match fs::remove_file(self.dir.join(FILLER)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives a part of the room back.
    pub(crate) fn free_bytes(&self, bytes: u64) -> io::Result<()> {
        let filler = File::options().write(true).open(self.dir.join(FILLER))?;
        let length = filler.metadata()?.len();
        filler.set_len(length.saturating_sub(bytes))
    }

    /// Mounts it anew with other options, `ro` or `rw`. Fails while a process has a file open to write.
    pub(crate) fn remount(&self, options: &str) -> io::Result<()> {
        let status =
            Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.dir).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other("mount failed")) }
    }
}

/// Names and lengths of the files in `dir`.
pub(crate) fn files_in(dir: &Path) -> Vec<(String, u64)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let told = |entry: fs::DirEntry| {
        Some((entry.file_name().to_string_lossy().into_owned(), entry.metadata().ok()?.len()))
    };
    entries.flatten().filter_map(told).collect()
}

/// Bytes that the files below `dir` take on their disk.
pub(crate) fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    const STAT_BLOCK_BYTES: u64 = 512; // stat(2), st_blocks
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.blocks() * STAT_BLOCK_BYTES,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
