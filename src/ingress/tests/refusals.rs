//! What is counted, logged and told in checkpoints.

use std::io::Write;
use std::sync::LazyLock;

use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::telemetry::metrics::recorder;

#[derive(Clone, Default)]
pub(super) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Captured {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// While `tracing` knows a single subscriber, it asks the thread that comes first to a log line whether anybody wants
/// it, and remembers the answer for all threads: a test without a subscriber would silence the others. So there is
/// always a second one.
static SECOND: LazyLock<tracing::Dispatch> =
    LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish()));

pub(super) fn capture(level: tracing::Level) -> (Captured, tracing::subscriber::DefaultGuard) {
    LazyLock::force(&SECOND);
    let captured = Captured::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(captured.clone()).finish();
    (captured, tracing::subscriber::set_default(subscriber))
}

fn forged() -> Request<Body> {
    let mut forged = request("{\"private\":\"payload\"}");
    forged.headers_mut().insert("x-test-signature", signature(b"another body").parse().unwrap());
    forged.headers_mut().insert("authorization", "Bearer confidential".parse().unwrap());
    forged
}

#[tokio::test]
async fn the_log_names_headers_and_never_has_values() {
    let (captured, _guard) = capture(tracing::Level::TRACE);
    let (ingress, _broker) = ingress();
    assert_eq!(send(&ingress, forged()).await.status(), 401);
    assert_eq!(send(&ingress, request("{\"private\":\"payload\"}")).await.status(), 202);
    let log = captured.text();
    assert!(log.contains("x-test-signature doesn't fit the body"), "{log}");
    assert!(log.contains("source=\"acme\" status=401 reason=\"unverified\""), "{log}");
    assert!(log.contains("accepted source=acme id=d-1"), "{log}");
    for value in [signature(b"another body").as_str(), "confidential", "payload", "hush-hush"] {
        assert!(!log.contains(value), "{value} in {log}");
    }
}

#[tokio::test]
async fn a_request_that_nearly_names_a_source_is_logged_once_with_the_nearest() {
    let (captured, _guard) = capture(tracing::Level::INFO);
    let (ingress, _broker) = ingress();
    for path in ["/webhooks/ACME", "//webhooks/acme", "/webhooks//acme", "/webhooks/acne", "/webhooks/robots.txt"] {
        for _ in 0..3 {
            let mut lost = request("{}");
            *lost.uri_mut() = path.parse().unwrap();
            assert_eq!(send(&ingress, lost).await.status(), 404);
        }
    }
    let log = captured.text();
    for path in ["/webhooks/ACME", "//webhooks/acme", "/webhooks//acme", "/webhooks/acne"] {
        assert_eq!(log.matches(&format!("path=\"{path}\" nearest=\"acme\"")).count(), 1, "{path} in {log}");
    }
    assert!(!log.contains("robots.txt"), "it is nobody's slip, and refusals of one kind are told now and then: {log}");
}

#[tokio::test]
async fn a_flood_of_refusals_is_one_warning() {
    let (captured, _guard) = capture(tracing::Level::INFO);
    let (ingress, _broker) = ingress();
    for _ in 0..50 {
        assert_eq!(send(&ingress, forged()).await.status(), 401);
    }
    assert_eq!(captured.text().lines().count(), 1, "{}", captured.text());
}

#[test]
fn a_flood_is_summed_up_when_the_quiet_is_over() {
    let (captured, _guard) = capture(tracing::Level::INFO);
    let refusals = Refusals::new("acme");
    let refused = refusal::Refused::new(problem::Problem::Unverified, "forged");
    let said = refusal::Said::of(&HeaderMap::new());
    for second in [0, 1, 2, 11] {
        refusals.record(&refused, &said, Timestamp(second * 1_000_000));
    }
    let log = captured.text();
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.lines().last().unwrap().contains("unlogged=2"), "{log}");
}

#[tokio::test]
async fn every_answer_is_counted() {
    let (recorder, metrics) = recorder().unwrap();
    let (ingress, broker) = metrics::with_local_recorder(&recorder, ingress);
    assert_eq!(send(&ingress, request("{}")).await.status(), 202);
    assert_eq!(send(&ingress, forged()).await.status(), 401);
    let mut nowhere = request("{}");
    *nowhere.uri_mut() = "/webhooks/other".parse().unwrap();
    assert_eq!(send(&ingress, nowhere).await.status(), 404);
    broker.is(Mood::Fails);
    assert_eq!(send(&ingress, request("{}")).await.status(), 503);
    let text = metrics.render();
    for line in [
        "rollcall_accepted_total{source=\"acme\"} 1",
        "rollcall_refused_total{source=\"acme\",reason=\"unverified\"} 1",
        "rollcall_refused_total{source=\"acme\",reason=\"unavailable\"} 1",
        "rollcall_refused_total{source=\"-\",reason=\"not-found\"} 1",
        "rollcall_ingress_seconds_count 3",
        "rollcall_in_flight 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn a_failed_publish_is_a_void_in_the_next_checkpoint() {
    let (ingress, broker) = ingress();
    ingress.checkpoint().await;
    assert_eq!(broker.take_checkpoints(), [], "nothing to tell yet");
    send(&ingress, request("{}")).await;
    broker.is(Mood::Fails);
    send(&ingress, request("{}")).await;
    ingress.checkpoint().await;
    broker.is(Mood::Takes);
    send(&ingress, request("{}")).await;
    ingress.checkpoint().await;
    assert_eq!(broker.take_checkpoints(), [(3, vec![2])], "told once it can be told");
    ingress.checkpoint().await;
    assert_eq!(broker.take_checkpoints(), [], "and only once");
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_a_void_and_no_hole() {
    let (ingress, broker) = ingress();
    broker.is(Mood::Waits);
    let tasks = Tasks::new();
    let hanging = {
        let ingress = ingress.clone();
        tasks.short_lived("test", async move { send(&ingress, request("{}")).await })
    };
    broker.one_has_begun().await;
    ingress.checkpoint().await;
    assert_eq!(broker.take_checkpoints(), [], "a number in work isn't told");
    hanging.abort();
    assert!(soon(hanging).await.unwrap_err().is_cancelled());
    ingress.checkpoint().await;
    assert_eq!(broker.take_checkpoints(), [(1, vec![1])]);
}
