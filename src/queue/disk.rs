//! The handful of file operations the queue needs, behind a seam so that tests can make each of them fail.
//!
//! Nothing here syncs: what the kernel has survives the end of our process, and Lambda's `/tmp` does not
//! outlive the kernel.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Only we may read what the function logged.
pub(super) const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// stat(2): `st_blocks` counts units of 512 bytes.
const STAT_BLOCK_BYTES: u64 = 512;

/// An open file of the queue.
pub trait DiskFile: Send {
    /// Fills `buf` from `offset`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends the file to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Whether the file still has a name. Without one nothing written to it would be found again.
    fn is_linked(&self) -> io::Result<bool>;
}

/// A file system.
pub trait Disk: Send {
    /// Makes `dir` (mode 0700) if it is missing; refuses anything that is not a directory of its own.
    fn prepare(&self, dir: &Path) -> io::Result<()>;
    /// Names and lengths of the regular files in `dir`.
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>>;
    /// Makes a file (mode 0600) that must not exist yet.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading and writing, or for reading alone where it cannot be written; symbolic links are not followed.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Renames a file or directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes whatever is at `path`, a directory with all it holds.
    fn remove_all(&self, path: &Path) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn prepare(&self, dir: &Path) -> io::Result<()> {
        match fs::symlink_metadata(dir) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(io::Error::new(ErrorKind::NotADirectory, "not a directory of its own")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir)
            }
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A file may vanish between the two calls; it is then simply not there.
            let Ok(found) = entry.metadata() else { continue };
            if let (true, Ok(name)) = (found.is_file(), entry.file_name().into_string()) {
                files.push((name, found.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW);
        let file = match options.clone().write(true).open(path) {
            // What waits in it can be sent.
            Err(error)
                if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) =>
            {
                options.open(path)?
            }
            opened => opened?,
        };
        Ok(Box::new(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_all(&self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl DiskFile for File {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.metadata()?.nlink() > 0)
    }
}

/// Takes `dir` and all that is below it away from everybody else: sled makes its files readable for all. Links are not
/// followed.
pub(super) fn keep_private_below(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(found) = entry.metadata() else { continue };
        let mode = if found.is_dir() { DIRECTORY_MODE } else { FILE_MODE };
        if !found.is_symlink() && found.mode() & 0o777 != mode {
            // If that fails, the directory around it is private still.
            drop(fs::set_permissions(entry.path(), Permissions::from_mode(mode)));
        }
        if found.is_dir() {
            keep_private_below(&entry.path());
        }
    }
}

/// What the files below `dir` take on disk, in bytes, directories within included. Holes take nothing, and
/// what cannot be read counts as nothing.
pub(super) fn bytes_on_disk_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_on_disk_below(&entry.path()),
            Ok(found) => found.blocks() * STAT_BLOCK_BYTES,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    fn file(dir: &Path, name: &str, mode: u32, bytes: usize) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, vec![0xa5; bytes]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn all_below_is_made_private_and_nothing_that_a_link_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let (index, outside) = (dir.path().join("index"), dir.path().join("outside"));
        let within = index.join("within");
        fs::create_dir_all(&within).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::set_permissions(&within, Permissions::from_mode(0o755)).unwrap();
        let ours = [file(&index, "a", 0o644, 1), file(&within, "b", 0o666, 1), file(&index, "c", 0o600, 1)];
        let not_ours = file(&outside, "d", 0o644, 1);
        symlink(&not_ours, index.join("link")).unwrap();
        symlink(&outside, index.join("directory")).unwrap();
        keep_private_below(&index);
        assert_eq!(ours.map(|path| mode(&path)), [0o600; 3]);
        assert_eq!((mode(&within), mode(&not_ours)), (0o700, 0o644));
    }

    #[test]
    fn what_is_in_directories_within_counts_and_a_hole_does_not() {
        const LONG: usize = 256 << 10;
        let dir = tempfile::tempdir().unwrap();
        let within = dir.path().join("within");
        fs::create_dir(&within).unwrap();
        assert_eq!(bytes_on_disk_below(&dir.path().join("missing")), 0);
        file(dir.path(), "a", 0o600, LONG);
        let one = bytes_on_disk_below(dir.path());
        assert!((LONG as u64..2 * LONG as u64).contains(&one), "{one}");
        file(&within, "b", 0o600, LONG);
        File::create(dir.path().join("hole")).unwrap().set_len(16 * LONG as u64).unwrap();
        let two = bytes_on_disk_below(dir.path());
        assert!((2 * LONG as u64..3 * LONG as u64).contains(&two), "{two}");
    }

    /// Who is root may write it all the same.
    #[test]
    fn a_file_that_cannot_be_written_is_opened_for_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "a", 0o400, 3);
        let mut bytes = [0; 3];
        RealDisk.open(&path).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [0xa5; 3]);
        symlink(&path, dir.path().join("link")).unwrap();
        assert!(RealDisk.open(&dir.path().join("link")).is_err());
    }

    #[test]
    fn whatever_it_is_it_is_removed_and_what_is_not_there_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let kept = file(dir.path(), "kept", 0o600, 1);
        let (link, tree) = (dir.path().join("link"), dir.path().join("tree"));
        symlink(&kept, &link).unwrap();
        fs::create_dir(&tree).unwrap();
        file(&tree, "a", 0o600, 1);
        for path in [link, tree, file(dir.path(), "file", 0o600, 1), dir.path().join("missing")] {
            RealDisk.remove_all(&path).unwrap();
            assert!(fs::symlink_metadata(path).is_err());
        }
        assert!(RealDisk.remove_all(&kept.join("below a file")).is_err());
        assert!(kept.exists());
    }
}
