//! A small file system of a process's own, which can be filled. It takes user namespaces (`unshare`).

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::process::Process;

/// A file system that a process sees in the place of a folder.
pub(crate) struct SmallDisk {
    folder: PathBuf,
    mount: String,
}

impl SmallDisk {
    /// One of that size (`2m`), to be seen in the place of this folder.
    pub(crate) fn new(folder: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let mount = format!("mount -t tmpfs -o size={size} none '{}' && exec \"$0\" \"$@\"", folder.display());
        Self { folder, mount }
    }

    /// The program under which a process has it.
    pub(crate) fn under(&self) -> [&str; 7] {
        ["unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c", &self.mount]
    }

    /// The same folder, as the process sees it.
    pub(crate) fn inside(&self, process: &Process) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", process.id().unwrap()));
        root.join(self.folder.strip_prefix("/").unwrap())
    }

    /// Fills it but for less than a page. Returns the file to remove when there is to be room again.
    pub(crate) fn fill(&self, process: &Process) -> PathBuf {
        let filler = self.inside(process).join("filler");
        fill(&filler);
        filler
    }
}

fn fill(file: &Path) {
    let mut filler = std::fs::File::create(file).unwrap();
    for size in [64 * 1024, 4096, 512] {
        while filler.write_all(&vec![0; size]).is_ok() {}
    }
}
