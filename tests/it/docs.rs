//! The tables of the documentation are what the code says. `ROLLCALL_BLESS=1 cargo test --test it docs -- --test-threads=1`
//! writes them anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use rollcall::broker::embedded::MOST_HELD;
use rollcall::broker::rabbitmq;
use rollcall::broker::rabbitmq::INITIAL_PREFETCH;
use rollcall::broker::rabbitmq::definitions::{Limits, definitions};
use rollcall::config;
use rollcall::demo::story::Story;
use rollcall::ingress::admin::{MAX_CONNECTIONS, MAX_PER_PEER};
use rollcall::ingress::problem::Problem;
use rollcall::ingress::{IDLE_BEFORE_ROOM, MAX_BUFFER, MAX_HEADER_BYTES, MAX_HEADERS};
use rollcall::ledger::outcome::Outcome;
use rollcall::provider::{Description, EventRow, REGISTRY};
use rollcall::telemetry::metrics::{
    BODY_BYTES, CONNECTIONS, CONNECTIONS_CUT, METRICS, OPEN_DELIVERIES, REFUSED, TARGET_REQUESTS,
};
use rollcall::worker::TRIES;

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

/// What a limit's default is.
enum Default {
    /// That of this key.
    Of(&'static str),
    /// It can't be changed.
    Always(String),
}

#[test]
fn every_limit_is_listed_with_its_default_and_its_metric() {
    use Default::{Always, Of};
    let refused = |problem: Problem| {
        let again = if problem.status() == 503 { " with `Retry-After`" } else { "" };
        let metric = format!("`{REFUSED}{{reason=\"{}\"}}`", problem.slug());
        (format!("{}{again}", problem.status().as_u16()), metric)
    };
    let cut = |seen: &str, reason: &str| (seen.to_owned(), format!("`{CONNECTIONS_CUT}{{reason=\"{reason}\"}}`"));
    let open = |seen: &str, listener: &str| (seen.to_owned(), format!("`{CONNECTIONS}{{listener=\"{listener}\"}}`"));
    let waits = |listener: &str| open("waits for its turn", listener);
    let closed = |listener: &str| open("is closed", listener);
    let last = |listener: &str| open("is closed with an answer", listener);
    let nothing = |metric: &str| ("nothing".to_owned(), format!("`{metric}`"));
    let inside = || ("nothing".to_owned(), "-".to_owned());
    let rows = [
        ("one body", Of("ingress.max_body"), refused(Problem::TooLarge)),
        ("one message, as it travels", Of("broker.max_message"), refused(Problem::TooLarge)),
        ("all bodies and their copies", Of("ingress.body_budget"), refused(Problem::Busy)),
        ("the part of it for small bodies alone", Of("ingress.small_reserve"), nothing(BODY_BYTES)),
        ("requests in work", Of("ingress.max_in_flight"), refused(Problem::Busy)),
        ("time for a body", Of("ingress.body_timeout"), refused(Problem::TooSlow)),
        ("bytes a second of a body, after 2 s", Of("ingress.least_rate"), refused(Problem::TooSlow)),
        ("time for a whole request", Of("ingress.request_timeout"), refused(Problem::Unavailable)),
        ("bytes in the spool", Of("spool.max_bytes"), refused(Problem::Unavailable)),
        ("age of the oldest in the spool", Of("spool.max_age"), refused(Problem::Unavailable)),
        ("what the spool leaves free of its disk", Of("spool.min_free"), refused(Problem::Unavailable)),
        ("connections", Of("ingress.max_connections"), waits("webhooks")),
        ("part of the connections for one peer", Of("ingress.peer_share"), cut("503 with `Retry-After`", "peer-share")),
        ("part of the requests in work for one client of a proxy", Of("ingress.peer_share"), refused(Problem::Busy)),
        ("part of the memory for incomplete bodies of one client", Of("ingress.peer_share"), refused(Problem::Busy)),
        ("time that an idle connection is kept", Of("ingress.keep_alive"), closed("webhooks")),
        (
            "time that it is kept while others wait for a place",
            Always(format!("{IDLE_BEFORE_ROOM:?}")),
            cut("is closed", "made-room"),
        ),
        (
            "time that a body may stall while others wait for a place",
            Always(format!("{IDLE_BEFORE_ROOM:?}")),
            refused(Problem::Busy),
        ),
        ("age of a connection", Of("ingress.max_connection_age"), last("webhooks")),
        ("requests over one connection", Of("ingress.max_connection_requests"), last("webhooks")),
        ("time for a head", Of("ingress.header_timeout"), cut("is closed", "slow-headers")),
        ("time to take some of an answer", Of("ingress.header_timeout"), cut("is closed", "stalled")),
        ("bytes of a head", Always(MAX_HEADER_BYTES.to_string()), cut("431", "headers-too-large")),
        ("headers", Always(MAX_HEADERS.to_string()), cut("431", "headers-too-large")),
        ("bytes that a connection buffers", Always(MAX_BUFFER.to_string()), inside()),
        ("connections to the admin listener", Always(MAX_CONNECTIONS.to_string()), waits("admin")),
        (
            "connections to it from one peer",
            Always(MAX_PER_PEER.to_string()),
            cut("503 with `Retry-After`", "peer-share"),
        ),
        ("messages that a worker holds", Of("broker.prefetch"), inside()),
        ("messages that it holds until one comes that is new", Always(INITIAL_PREFETCH.to_string()), inside()),
        ("bytes of bodies that a worker decompresses at a time", Of("broker.max_batch"), inside()),
        ("bytes that the embedded queue holds in memory", Always(MOST_HELD.to_string()), inside()),
        (
            "tries of a message that kills workers",
            Always(TRIES.to_string()),
            nothing(&format!("{OPEN_DELIVERIES}{{outcome=\"parked\"}}")),
        ),
        ("time for a statement at PostgreSQL", Of("ledger.timeout"), inside()),
        ("time for a call to Drata", Of("drata.timeout"), nothing(TARGET_REQUESTS)),
        ("calls to Drata a minute", Of("drata.requests_per_minute"), nothing(TARGET_REQUESTS)),
    ];
    let keys = config::keys();
    let mut table =
        "| what | default | key | what the sender sees beyond it | metric |\n|---|---|---|---|---|\n".to_owned();
    for (what, default, (seen, metric)) in rows {
        let name = metric.trim_matches('`').split('{').next().unwrap();
        assert!(name == "-" || METRICS.iter().any(|known| known.name == name), "{name} is no metric");
        let (default, key) = match default {
            Always(value) => (value, "-".to_owned()),
            Of(path) => {
                let key = keys.iter().find(|key| key.path() == path).expect("a key of the configuration");
                (key.default.expect("a default").trim_matches('"').to_owned(), format!("`{path}`"))
            }
        };
        writeln!(table, "| {what} | {default} | {key} | {seen} | {metric} |").unwrap();
    }
    hold("deploy/docs/limits.md", "limits", &table);
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
