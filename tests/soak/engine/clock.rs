//! A wall clock of the extension's own, which jumps when it is told to: `shift.c`, built with the C compiler that Rust
//! links with, and preloaded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use outlast_simulator::Builder;

/// The shift, and the library that applies it.
#[derive(Debug)]
pub(crate) struct ShiftedClock {
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl ShiftedClock {
    /// Builds the library in `dir`; `None` without a C compiler.
    pub(crate) fn build(dir: &Path) -> io::Result<Option<Self>> {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/soak/engine/shift.c");
        let library = dir.join("shift.so");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let built = Command::new(compiler)
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(source)
            .status()
            .is_ok_and(|status| status.success());
        if !built {
            return Ok(None);
        }
        let path = dir.join("shift");
        std::fs::write(&path, 0_i64.to_ne_bytes())?;
        let file = File::options().write(true).open(&path)?;
        Ok(Some(Self { library, path, file }))
    }

    /// The extension of this sandbox goes by this clock.
    pub(crate) fn applied_to(&self, builder: Builder) -> Builder {
        builder.env("LD_PRELOAD", self.library.display()).env("OUTLAST_TEST_CLOCK", self.path.display())
    }

    /// The wall clock is `millis` ahead of the true one from now on, or behind it.
    pub(crate) fn set(&self, millis: i64) -> io::Result<()> {
        self.file.write_all_at(&millis.saturating_mul(1_000_000).to_ne_bytes(), 0)
    }
}
