//! The real disk, but for what a test forbids.

use outlast::queue::{Disk, DiskFile, RealDisk};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is done to a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Prepare,
    List,
    Create,
    Open,
    Read,
    /// Over what is there already.
    Overwrite,
    Write,
    Truncate,
    Remove,
    Rename,
}

type Law = dyn Fn(Op, &Path) -> io::Result<()> + Send + Sync;

/// Asks before it does anything.
#[derive(Clone)]
pub struct LawfulDisk(Arc<Law>);

impl LawfulDisk {
    #[expect(clippy::unnecessary_box_returns, reason = "a queue takes a disk boxed")]
    pub fn new(law: impl Fn(Op, &Path) -> io::Result<()> + Send + Sync + 'static) -> Box<Self> {
        Box::new(Self(Arc::new(law)))
    }

    fn file(&self, file: Box<dyn DiskFile>, path: &Path) -> Box<dyn DiskFile> {
        Box::new(LawfulFile { law: Arc::clone(&self.0), path: path.to_path_buf(), file })
    }
}

struct LawfulFile {
    law: Arc<Law>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl DiskFile for LawfulFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (self.law)(Op::Read, &self.path)?;
        self.file.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let inside = self.file.read_exact_at(&mut vec![0; buf.len()], offset).is_ok();
        (self.law)(if inside { Op::Overwrite } else { Op::Write }, &self.path)?;
        self.file.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        (self.law)(Op::Truncate, &self.path)?;
        self.file.set_len(len)
    }
    fn is_linked(&self) -> io::Result<bool> {
        self.file.is_linked()
    }
}

impl Disk for LawfulDisk {
    fn prepare(&self, dir: &Path) -> io::Result<()> {
        (self.0)(Op::Prepare, dir)?;
        RealDisk.prepare(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        (self.0)(Op::List, dir)?;
        RealDisk.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        (self.0)(Op::Create, path)?;
        Ok(self.file(RealDisk.create(path)?, path))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        (self.0)(Op::Open, path)?;
        Ok(self.file(RealDisk.open(path)?, path))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.0)(Op::Remove, path)?;
        RealDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.0)(Op::Rename, from)?;
        RealDisk.rename(from, to)
    }
    fn remove_all(&self, path: &Path) -> io::Result<()> {
        (self.0)(Op::Remove, path)?;
        RealDisk.remove_all(path)
    }
}

/// The disk is full.
pub fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

/// The disk is broken.
pub fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}
