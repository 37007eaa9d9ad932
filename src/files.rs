//! Files that rollcall makes: readable by its own user alone, whatever was there before, and never behind a symbolic link.
//!
//! Bodies are other people's data, and so is what a ledger or a queue holds of them.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The mode of a private file.
const PRIVATE: u32 = 0o600;
/// What others may do with a file.
const OTHERS: u32 = 0o077;

/// Makes every file that this process creates from now on private, also those that a library creates.
pub fn make_new_files_private() {
    rustix::process::umask(Mode::from_raw_mode(OTHERS));
}

/// Creates a folder if need be. What exists keeps its mode.
///
/// # Errors
/// If it can't be created.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Opens a file to read and write it, as it is; creates it if need be. It is private afterwards.
///
/// # Errors
/// If it is a symbolic link or no file, or can't be opened or made private.
pub fn open_private(file: &Path) -> io::Result<File> {
    // A named pipe would keep whoever opens it waiting.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .custom_flags(flags)
        .open(file);
    let opened = opened.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => wrong(file, LINK),
        _ => error,
    })?;
    let metadata = opened.metadata()?;
    if !metadata.is_file() {
        return Err(wrong(file, NO_FILE));
    }
    if metadata.permissions().mode() & OTHERS != 0 {
        opened.set_permissions(Permissions::from_mode(PRIVATE))?;
    }
    Ok(opened)
}

/// Makes the file of a SQLite database ready to be opened: it exists, and it is private, as are those beside it. SQLite
/// gives the files that it creates the mode of the database's.
///
/// None that exists is opened: closing it would end the locks that this process holds on it by another connection
/// (<https://www.sqlite.org/howtocorrupt.html>, 2.2).
///
/// # Errors
/// If any of them is a symbolic link or no file, or can't be created or made private.
pub fn prepare_database(file: &Path) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        create_folder(folder)?;
    }
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut beside = file.as_os_str().to_owned();
        beside.push(suffix);
        match make_private(&PathBuf::from(beside)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            private => private?,
        }
    }
    match make_private(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        private => return private,
    }
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(file) {
        // Another process was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => make_private(file),
        created => created.map(drop),
    }
}

/// Makes a file that exists private, without opening it.
fn make_private(file: &Path) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(file)?;
    if metadata.is_symlink() {
        return Err(wrong(file, LINK));
    }
    if !metadata.is_file() {
        return Err(wrong(file, NO_FILE));
    }
    if metadata.permissions().mode() & OTHERS != 0 {
        std::fs::set_permissions(file, Permissions::from_mode(PRIVATE))?;
    }
    Ok(())
}

const LINK: &str = "is a symbolic link, which rollcall doesn't write through; put the file itself there";
const NO_FILE: &str = "isn't a file";

fn wrong(file: &Path, why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("{}: {why}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(file: &Path) -> u32 {
        std::fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_opened_is_private_afterwards_and_keeps_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        std::fs::write(&old, "content").unwrap();
        std::fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
        let database = folder.path().join("ledger.db");
        for file in [&old, &new, &database] {
            drop(open_private(file).unwrap());
            assert_eq!(mode(file), 0o600, "{}", file.display());
        }
        let wal = folder.path().join("ledger.db-wal");
        for file in [&wal, &database] {
            std::fs::write(file, "content").unwrap();
            std::fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        }
        prepare_database(&database).unwrap();
        assert_eq!((mode(&database), mode(&wal)), (0o600, 0o600));
        std::fs::remove_file(&wal).unwrap();
        std::fs::remove_file(&database).unwrap();
        prepare_database(&database).unwrap();
        assert_eq!((mode(&database), wal.exists()), (0o600, false));
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "content");
    }

    #[test]
    fn nothing_behind_a_symbolic_link_is_opened_or_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("ledger.db"));
        std::fs::write(&target, "content").unwrap();
        std::fs::set_permissions(&target, Permissions::from_mode(0o644)).unwrap();
        symlink(&target, &link).unwrap();
        let error = prepare_database(&link).unwrap_err().to_string();
        assert!(error.contains("ledger.db: is a symbolic link"), "{error}");
        std::fs::remove_file(&link).unwrap();
        symlink(&target, folder.path().join("ledger.db-wal")).unwrap();
        assert!(prepare_database(&link).unwrap_err().to_string().contains("ledger.db-wal: is a symbolic link"));
        assert_eq!((std::fs::read_to_string(&target).unwrap().as_str(), mode(&target)), ("content", 0o644));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open_private(folder.path()).is_err());
        assert!(open_private(&folder.path().join("missing/file")).is_err());
    }
}
