//! The tables of the documentation are what the code says. `ROLLCALL_BLESS=1 cargo test --test it docs -- --test-threads=1`
//! writes them anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use rollcall::broker::rabbitmq;
use rollcall::broker::rabbitmq::definitions::{Limits, definitions};
use rollcall::config;
use rollcall::demo::story::Story;
use rollcall::ledger::outcome::Outcome;
use rollcall::provider::{Description, EventRow, REGISTRY};
use rollcall::telemetry::metrics::METRICS;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_readme_lists_every_key_of_the_configuration() {
    let mut table = "| key | default | meaning |\n|---|---|---|\n".to_owned();
    for key in config::keys() {
        let default = key.default.map_or_else(String::new, |default| format!("`{default}`"));
        writeln!(table, "| `{}` | {default} | {} |", key.path(), key.meaning).unwrap();
    }
    hold("README.md", "configuration", &table);
}

#[test]
fn the_readme_lists_every_provider() {
    let mut table = "| provider | name | a delivery is verified by | it tells of |\n|---|---|---|---|\n".to_owned();
    for provider in REGISTRY {
        let told =
            |word: &str| provider.events.iter().any(|row| row.change.split_whitespace().any(|told| told == word));
        let kinds = [
            ("gained", "joins"),
            ("lost", "leaves"),
            ("renamed", "renames"),
            ("scope_lost", "deleted groups and repositories"),
            ("seen", "activity, which shows that an account has access"),
        ];
        let tells: Vec<&str> = kinds.iter().filter(|(word, _)| told(word)).map(|(_, tells)| *tells).collect();
        let Description { title, name, verification, .. } = provider;
        writeln!(table, "| {title} | `{name}` | {verification} | {} |", tells.join("; ")).unwrap();
    }
    hold("README.md", "providers", &table);
}

#[test]
fn the_rustdoc_of_each_provider_has_its_truth_table() {
    let files: Vec<PathBuf> = sources(Path::new("src/provider"));
    for provider in REGISTRY {
        let mut table = "| event | change | meaning |\n|---|---|---|\n".to_owned();
        for EventRow { event, change, meaning } in provider.events {
            writeln!(table, "| `{event}` | {change} | {meaning} |").unwrap();
        }
        let table: String = table.lines().map(|line| format!("//! {line}\n")).collect();
        // Providers of one family share a table.
        let held = files.iter().find_map(|file| {
            let text = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
            let marks = text.lines().filter_map(|line| line.strip_prefix("//! <!-- events of ")?.strip_suffix(" -->"));
            let mark = marks.into_iter().find(|names| names.split(' ').any(|name| name == provider.name))?;
            Some((file.clone(), mark.to_owned()))
        });
        let (file, mark) = held.unwrap_or_else(|| panic!("no rustdoc has <!-- events of {} -->", provider.name));
        let open = format!("//! <!-- events of {mark} -->\n");
        hold_between(file.to_str().unwrap(), &open, "//! <!-- /events -->", &table);
    }
}

/// All Rust files of a folder and those below it.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        if Path::new(ROOT).join(&path).is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn the_readme_tells_what_each_outcome_means() {
    let mut table = "| outcome | meaning |\n|---|---|\n".to_owned();
    for outcome in Outcome::ALL {
        writeln!(table, "| `{outcome}` | {} |", outcome.meaning()).unwrap();
    }
    hold("README.md", "outcomes", &table);
}

#[test]
fn the_stories_are_told_as_they_are_tested() {
    let mut table = "| what happens | in the end | because |\n|---|---|---|\n".to_owned();
    for story in Story::all().unwrap() {
        writeln!(table, "| {} | {} | {} |", story.title, story.expect.as_str(), story.because).unwrap();
    }
    hold("deploy/docs/decisions.md", "stories", &table);
}

#[test]
fn every_metric_is_listed() {
    let mut table = "| metric | kind | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = format!("{:?}", metric.kind).to_lowercase();
        writeln!(table, "| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.meaning).unwrap();
    }
    hold("deploy/docs/metrics.md", "metrics", &table);
}

#[test]
fn what_rabbitmqs_owner_imports_is_what_rollcall_prints() {
    let settings = rabbitmq::Settings::new("amqp://broker.example/rollcall".into());
    for (file, limits) in [("definitions", Limits::Arguments), ("policies", Limits::Policies)] {
        let printed = serde_json::to_string_pretty(&definitions(&settings, limits).unwrap()).unwrap() + "\n";
        hold_whole(&format!("deploy/rabbitmq/{file}.json"), &printed);
    }
}

/// Holds a file to what it should be.
fn hold_whole(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("ROLLCALL_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    } else {
        let held = std::fs::read_to_string(&path).unwrap();
        assert_eq!(held, text, "{file} isn't what the code says; ROLLCALL_BLESS=1 writes it anew");
    }
}

/// Holds the part of a file between two marks to what it should be.
fn hold(file: &str, mark: &str, table: &str) {
    hold_between(file, &format!("<!-- {mark} -->\n"), &format!("<!-- /{mark} -->"), table);
}

fn hold_between(file: &str, open: &str, close: &str, table: &str) {
    let path = Path::new(ROOT).join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(open).expect("the opening mark");
    let (held, after) = rest.split_once(close).expect("the closing mark");
    if std::env::var_os("ROLLCALL_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{open}{table}{close}{after}")).unwrap();
    } else {
        let mark = open.trim();
        assert_eq!(held, table, "{file}: the table {mark} isn't what the code says; ROLLCALL_BLESS=1 writes it anew");
    }
}
