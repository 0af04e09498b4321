//! A file system in memory: a directory of the queue costs a fuzzer microseconds.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use outlast::queue::{Disk, DiskFile};

type Content = Arc<Mutex<Vec<u8>>>;

/// Clones are the same file system.
#[derive(Clone, Default)]
pub(crate) struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<PathBuf, Content>>>,
}

struct MemoryFile {
    content: Content,
    path: PathBuf,
    disk: MemoryDisk,
}

/// The queue's directory in it.
pub(crate) fn directory() -> &'static Path {
    Path::new("/queue")
}

impl MemoryDisk {
    /// The queue's files by name.
    pub(crate) fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.files.lock().unwrap();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        files.iter().map(|(path, content)| (name(path), content.lock().unwrap().clone())).collect()
    }

    /// A file system with these files in the queue's directory.
    pub(crate) fn with(contents: &BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::default();
        for (name, bytes) in contents {
            let content = Arc::new(Mutex::new(bytes.clone()));
            disk.files.lock().unwrap().insert(directory().join(name), content);
        }
        disk
    }

    fn file(&self, path: &Path, content: Content) -> Box<dyn DiskFile> {
        Box::new(MemoryFile { content, path: path.to_path_buf(), disk: self.clone() })
    }
}

impl Disk for MemoryDisk {
    fn prepare(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        assert_eq!(dir, directory());
        Ok(self.contents().into_iter().map(|(name, bytes)| (name, bytes.len() as u64)).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let content = Content::default();
        let mut files = self.files.lock().unwrap();
        if files.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        files.insert(path.to_path_buf(), content.clone());
        Ok(self.file(path, content))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let content = self.files.lock().unwrap().get(path).cloned().ok_or(ErrorKind::NotFound)?;
        Ok(self.file(path, content))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.files.lock().unwrap().remove(path);
        removed.map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let content = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_path_buf(), content);
        Ok(())
    }

    fn remove_all(&self, path: &Path) -> io::Result<()> {
        self.files.lock().unwrap().retain(|name, _| !name.starts_with(path));
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.content.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let found = content.get(start..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut content = self.content.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let end = start + buf.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(buf);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.content.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn is_linked(&self) -> io::Result<bool> {
        let files = self.disk.files.lock().unwrap();
        Ok(files.get(&self.path).is_some_and(|content| Arc::ptr_eq(content, &self.content)))
    }
}
