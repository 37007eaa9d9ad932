//! Files in `data_dir`: for rollcall's user alone, whatever was there before, and never behind a symbolic link.

use std::fs::{Permissions, create_dir_all, metadata, read_dir, read_to_string, set_permissions, write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rollcall::ledger::outcome::Outcome;
use rstest::rstest;

use crate::harness::github::Account;
use crate::harness::site::{Carrier, Site, becomes};
use crate::harness::until;

fn mode(file: &Path) -> u32 {
    metadata(file).unwrap().permissions().mode() & 0o777
}

/// Every file in a folder and those below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[rstest]
#[case::embedded(Carrier::Embedded, &["ledger.db", "lock", "queue.db", "replays.db"])]
#[case::rabbitmq(Carrier::RabbitMq, &["ledger.db", "lock", "spool/lock", "spool/queue.db"])]
#[tokio::test]
async fn every_file_is_private_also_in_a_folder_that_was_there_before(
    #[case] carrier: Carrier,
    #[case] expected: &[&str],
) {
    let site = Site::new(carrier, 1).await;
    let data = site.data();
    create_dir_all(data.join("spool")).unwrap();
    for folder in [data.clone(), data.join("spool")] {
        set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    }
    // What an older version has left open.
    for file in ["ledger.db", "lock", "queue.db", "spool/lock"] {
        write(data.join(file), "").unwrap();
        set_permissions(data.join(file), Permissions::from_mode(0o644)).unwrap();
    }
    let (process, at) = site.serve().await;
    until("it is ready", async || site.ask(&at, "/ready").await.0 == 200).await;
    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    becomes(&site.ledger().await, &join.id, Outcome::Applied).await;
    let found = files(&data);
    for file in expected {
        assert!(found.contains(&data.join(file)), "{file} in {found:?}");
    }
    let beside = |suffix: &str| found.iter().any(|file| file.to_string_lossy().ends_with(suffix));
    assert!(beside("-wal") && beside("-shm"), "{found:?}");
    let unused: &[&str] = if let Carrier::Embedded = carrier { &["spool/lock"] } else { &["queue.db"] };
    for file in found.iter().filter(|file| !unused.iter().any(|unused| **file == data.join(unused))) {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert_eq!(process.stop().await.code, Some(0));
}

#[rstest]
#[case("lock")]
#[case("ledger.db")]
#[case("queue.db")]
#[case("queue.db-wal")]
#[tokio::test]
async fn nothing_is_written_behind_a_symbolic_link(#[case] name: &str) {
    let site = Site::new(Carrier::Embedded, 0).await;
    let (data, target) = (site.data(), site.config_file().with_file_name("precious"));
    create_dir_all(&data).unwrap();
    write(&target, "precious").unwrap();
    set_permissions(&target, Permissions::from_mode(0o644)).unwrap();
    symlink(&target, data.join(name)).unwrap();

    let environment =
        [("GITHUB_WEBHOOK_SECRET", "long enough not to be guessed".to_owned()), ("DRATA_API_KEY", "a key".to_owned())];
    let checked = site.run_in(&["check"], &environment).ended().await;
    if name == "lock" {
        assert!(checked.output.contains("is a symbolic link"), "{checked:?}");
    }
    let ended = site.start().ended().await;
    assert_ne!(ended.code, Some(0));
    assert!(ended.log.contains(&format!("{name}: is a symbolic link")), "{ended:?}");
    assert_eq!((read_to_string(&target).unwrap().as_str(), mode(&target)), ("precious", 0o644));
}
