//! Metrics in the Prometheus text format: the catalogue of their names, and the recorder that collects them.
//!
//! Parts that count on a hot path ask for their handles once, when they are built, and keep them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio_util::sync::CancellationToken;

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only goes up.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It counts observations in buckets.
    Histogram,
}

/// One metric of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// The unit of its value.
    pub unit: Unit,
    /// The labels that it may have.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub meaning: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, labels, meaning }
}

const fn gauge(name: &'static str, unit: Unit, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels, meaning }
}

const fn seconds(name: &'static str, labels: &'static [&'static str], meaning: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit: Unit::Seconds, labels, meaning }
}

/// Deliveries that were accepted: durable, and answered with 202.
pub const ACCEPTED: &str = "rollcall_accepted_total";
/// Requests that were refused.
pub const REFUSED: &str = "rollcall_refused_total";
/// Refused requests that are the provider's by their headers.
pub const REFUSED_DELIVERIES: &str = "rollcall_refused_deliveries_total";
/// How long a request took at the ingress.
pub const INGRESS_SECONDS: &str = "rollcall_ingress_seconds";
/// Requests in work at the ingress.
pub const IN_FLIGHT: &str = "rollcall_in_flight";
/// What bodies hold of their budget.
pub const BODY_BYTES: &str = "rollcall_body_bytes";
/// Connections that are open.
pub const CONNECTIONS: &str = "rollcall_connections";
/// Connections that were ended for what their client did or didn't.
pub const CONNECTIONS_CUT: &str = "rollcall_connections_cut_total";
/// How long a publish took.
pub const PUBLISH_SECONDS: &str = "rollcall_broker_publish_seconds";
/// Publishes that failed.
pub const PUBLISH_FAILURES: &str = "rollcall_broker_publish_failures_total";
/// Times that the connection to the broker was rebuilt.
pub const RECONNECTS: &str = "rollcall_broker_reconnects_total";
/// Acks that came too late.
pub const STALE_ACKS: &str = "rollcall_broker_stale_acks_total";
/// Calls to the platform.
pub const TARGET_REQUESTS: &str = "rollcall_target_requests_total";
/// How long calls to the platform took.
pub const TARGET_SECONDS: &str = "rollcall_target_request_seconds";
/// Rows of the platform's lists that can't be read.
pub const ROWS_SKIPPED: &str = "rollcall_target_rows_skipped_total";
/// Requests to providers' own APIs.
pub const PROVIDER_API_REQUESTS: &str = "rollcall_provider_api_requests_total";
/// Statuses that a late request had overtaken.
pub const OVERTAKEN: &str = "rollcall_overtaken_total";
/// Whether calls to the platform stand still.
pub const HALTED: &str = "rollcall_halted";
/// Probes while they do.
pub const PROBES: &str = "rollcall_probes_total";
/// From the receipt of a change to its confirmation by the platform.
pub const RECEIPT_TO_TARGET_SECONDS: &str = "rollcall_receipt_to_target_seconds";
/// Transactions of the embedded broker.
pub const EMBEDDED_COMMITS: &str = "rollcall_broker_embedded_commits_total";
/// Deliveries that the spool holds.
pub const SPOOL_DELIVERIES: &str = "rollcall_spool_deliveries";
/// What the spool holds takes so many bytes.
pub const SPOOL_BYTES: &str = "rollcall_spool_bytes";
/// The age of the oldest delivery that the spool holds.
pub const SPOOL_OLDEST: &str = "rollcall_spool_oldest_seconds";
/// Deliveries that the spool has set aside.
pub const SPOOL_ASIDE: &str = "rollcall_spool_set_aside";
/// Deliveries that were made durable in the spool.
pub const SPOOL_STORED: &str = "rollcall_spool_stored_total";
/// Deliveries that the spool has handed to the broker.
pub const SPOOL_FORWARDED: &str = "rollcall_spool_forwarded_total";
/// Deliveries that the spool refused.
pub const SPOOL_REFUSED: &str = "rollcall_spool_refused_total";
/// For how long nothing has been recorded.
pub const RECORDING_PAUSED: &str = "rollcall_recording_paused_seconds";
/// The age of the oldest delivery that waits in a worker to be recorded.
pub const OLDEST_UNRECORDED: &str = "rollcall_oldest_unrecorded_seconds";
/// Outcomes of deliveries.
pub const OUTCOMES: &str = "rollcall_outcomes_total";
/// Accounts that are due.
pub const DUE_ACCOUNTS: &str = "rollcall_due_accounts";
/// Accounts that wait.
pub const WAITING_ACCOUNTS: &str = "rollcall_waiting_accounts";
/// Accounts that are parked.
pub const PARKED_ACCOUNTS: &str = "rollcall_parked_accounts";
/// Accounts that a dry run would have changed.
pub const WOULD_APPLY_ACCOUNTS: &str = "rollcall_would_apply_accounts";
/// Accounts whose status somebody has changed at the platform.
pub const DRIFTED_ACCOUNTS: &str = "rollcall_drifted_accounts";
/// Sweeps.
pub const SWEEPS: &str = "rollcall_sweeps_total";
/// What sweeps found.
pub const SWEEP_FINDINGS: &str = "rollcall_sweep_findings_total";
/// Messages that can't be read.
pub const UNREADABLE_MESSAGES: &str = "rollcall_unreadable_messages";
/// Deliveries that aren't done.
pub const OPEN_DELIVERIES: &str = "rollcall_open_deliveries";
/// Accepted deliveries that haven't arrived.
pub const MISSING_DELIVERIES: &str = "rollcall_missing_deliveries";
/// How often providers were asked to deliver again.
pub const RECOVER_REQUESTED: &str = "rollcall_recover_requested";
/// Deliveries that arrived after that.
pub const RECOVER_RECOVERED: &str = "rollcall_recover_recovered";
/// Deliveries that failed and haven't arrived.
pub const RECOVER_MISSING: &str = "rollcall_recover_missing";
/// The age of the oldest change that isn't applied.
pub const OLDEST_UNAPPLIED: &str = "rollcall_oldest_unapplied_seconds";

/// Readings of rosters.
pub const ROSTER_READINGS: &str = "rollcall_roster_readings_total";
/// What rosters added to the ledger.
pub const ROSTER_CHANGES: &str = "rollcall_roster_changes_total";
/// How old the last whole reading of a roster is.
pub const ROSTER_AGE: &str = "rollcall_roster_age_seconds";
/// What a roster contradicts the ledger in.
pub const ROSTER_PENDING: &str = "rollcall_roster_pending_differences";
/// The latest seal over the ledger's history.
pub const SEALS: &str = "rollcall_seals";
/// How its hash begins.
pub const SEAL_HEAD: &str = "rollcall_seal_head";

/// When a job succeeded last.
pub const JOB_SUCCEEDED: &str = "rollcall_job_last_success_timestamp_seconds";
/// When a job failed last.
pub const JOB_FAILED: &str = "rollcall_job_last_failure_timestamp_seconds";
/// Whether a job hasn't succeeded for too long.
pub const JOB_OVERDUE: &str = "rollcall_job_overdue";
/// Panics.
pub const PANICS: &str = "rollcall_panics_total";
/// Lines of the log that weren't written.
pub const LOG_LINES_DROPPED: &str = "rollcall_log_lines_dropped_total";

/// Every metric. Documentation is written from this table, and nothing may be recorded that isn't in it.
pub const METRICS: &[Metric] = &[
    counter(ACCEPTED, &["source"], "Deliveries that were accepted: durable in the broker and answered with 202."),
    counter(REFUSED, &["source", "reason"], "Requests that were refused; source is - if there is no such source."),
    counter(
        REFUSED_DELIVERIES,
        &["source", "cause"],
        "Refused requests that are the provider's by their headers, so that scanners aren't among them: their signature is wrong (signature), they bear none (unsigned), or allow_from lacks their address (address).",
    ),
    seconds(INGRESS_SECONDS, &[], "How long a webhook request took, from its headers to its answer."),
    gauge(IN_FLIGHT, Unit::Count, &[], "Webhook requests that are in work, each from when its body is complete."),
    gauge(BODY_BYTES, Unit::Bytes, &[], "What the bodies of all requests hold of ingress.body_budget."),
    gauge(
        CONNECTIONS,
        Unit::Count,
        &["listener"],
        "Connections that are open: at webhooks at most ingress.max_connections.",
    ),
    counter(
        CONNECTIONS_CUT,
        &["listener", "reason"],
        "Connections that were ended because their headers came too slowly (slow-headers), were too many or too large (headers-too-large) or no HTTP (malformed), because their answers weren't taken (stalled), because they did nothing while others waited for a place (made-room), or that were refused because their peer had its share (peer-share).",
    ),
    seconds(PUBLISH_SECONDS, &[], "How long it took until the broker had confirmed a delivery."),
    counter(PUBLISH_FAILURES, &["reason"], "Publishes that the broker didn't confirm."),
    counter(RECONNECTS, &["role"], "Times that the connection to the broker was rebuilt."),
    counter(STALE_ACKS, &[], "Acks that came after their session had ended; those messages come again."),
    counter(TARGET_REQUESTS, &["target", "operation", "status"], "Calls to the compliance platform, by answer."),
    seconds(TARGET_SECONDS, &["target", "operation"], "How long calls to the compliance platform took."),
    counter(
        ROWS_SKIPPED,
        &["target"],
        "Rows of the compliance platform's lists that couldn't be read and were left out.",
    ),
    counter(PROVIDER_API_REQUESTS, &["status"], "Requests to Git providers' own APIs, by answer."),
    counter(OVERTAKEN, &[], "Statuses that an earlier, unanswered call had overtaken late, and that were corrected."),
    gauge(
        HALTED,
        Unit::Count,
        &["kind"],
        "1 while calls to the platform stand still: refused (401, 402, 403, 412), or failing (the circuit breaker is open).",
    ),
    counter(PROBES, &["result"], "Accounts that went ahead in a halt, to show if it can end."),
    seconds(
        RECEIPT_TO_TARGET_SECONDS,
        &[],
        "From the receipt of the oldest change that was owed for an account to the platform's confirmation.",
    ),
    counter(EMBEDDED_COMMITS, &[], "Transactions of the embedded broker; publishes and acks share them."),
    gauge(SPOOL_DELIVERIES, Unit::Count, &[], "Accepted deliveries that wait in the ingress's spool for RabbitMQ."),
    gauge(SPOOL_BYTES, Unit::Bytes, &[], "How much of spool.max_bytes is taken."),
    gauge(
        SPOOL_OLDEST,
        Unit::Seconds,
        &[],
        "How long ago the oldest delivery in the spool was received; 0 if it is empty.",
    ),
    gauge(
        SPOOL_ASIDE,
        Unit::Count,
        &[],
        "Accepted deliveries that the spool could not read, or that RabbitMQ refuses for good; they are kept.",
    ),
    counter(SPOOL_STORED, &[], "Deliveries that RabbitMQ did not take and that were made durable in the spool."),
    counter(SPOOL_FORWARDED, &[], "Deliveries from the spool that RabbitMQ has confirmed."),
    counter(SPOOL_REFUSED, &["reason"], "Deliveries that the spool could not take either, by reason."),
    gauge(
        RECORDING_PAUSED,
        Unit::Seconds,
        &[],
        "For how long this worker has recorded nothing, because the ledger refuses whatever comes; 0 if it records. The part recording of /health says why.",
    ),
    gauge(
        OLDEST_UNRECORDED,
        Unit::Seconds,
        &[],
        "How long ago the oldest delivery was received that this worker has in hand and hasn't recorded; 0 if it has none.",
    ),
    counter(OUTCOMES, &["outcome"], "Deliveries by what became of them."),
    gauge(DUE_ACCOUNTS, Unit::Count, &[], "Accounts whose status is to be brought up to date now."),
    gauge(WAITING_ACCOUNTS, Unit::Count, &[], "Accounts that wait for their identity or their person."),
    gauge(PARKED_ACCOUNTS, Unit::Count, &[], "Accounts that were given up on and need an operator."),
    gauge(
        WOULD_APPLY_ACCOUNTS,
        Unit::Count,
        &[],
        "Accounts that a dry run would have changed; they are among those that wait.",
    ),
    gauge(
        DRIFTED_ACCOUNTS,
        Unit::Count,
        &[],
        "Accounts that somebody has linked otherwise at the platform than rollcall had, and that are left so (drift = \"report\"); `rollcall accounts --drifted` lists them.",
    ),
    counter(SWEEPS, &["result"], "Sweeps on the schedule, by whether they were done or failed in the end."),
    counter(SWEEP_FINDINGS, &["finding"], "What sweeps on the schedule have found of accounts."),
    gauge(
        UNREADABLE_MESSAGES,
        Unit::Count,
        &[],
        "Messages that aren't rollcall's or can't be read, each counted once until a replay has read it again; `rollcall deliveries unreadable` lists them.",
    ),
    gauge(
        OPEN_DELIVERIES,
        Unit::Count,
        &["source", "outcome"],
        "Deliveries that are pending, waiting, held or parked.",
    ),
    gauge(
        OLDEST_UNAPPLIED,
        Unit::Seconds,
        &["source", "outcome"],
        "The age of the oldest change that hasn't reached the platform: pending is rollcall's to do, waiting is for an identity or a person to appear.",
    ),
    gauge(
        MISSING_DELIVERIES,
        Unit::Count,
        &["source"],
        "Accepted deliveries that should have been recorded by now and aren't.",
    ),
    gauge(
        RECOVER_REQUESTED,
        Unit::Count,
        &["source"],
        "How often providers were asked to deliver again what had failed, in all.",
    ),
    gauge(RECOVER_RECOVERED, Unit::Count, &["source"], "Deliveries that arrived after that, in all."),
    gauge(
        RECOVER_MISSING,
        Unit::Count,
        &["source"],
        "Deliveries that matter, failed at the provider and haven't arrived; `rollcall gaps` names them.",
    ),
    counter(
        ROSTER_READINGS,
        &["source", "result"],
        "Readings of rosters from providers' own APIs: whole, or failed; a failed one changes nothing.",
    ),
    counter(
        ROSTER_CHANGES,
        &["source", "access"],
        "Access that was recorded as gained or lost because rosters showed it.",
    ),
    gauge(ROSTER_AGE, Unit::Seconds, &["source", "root"], "How long ago the last whole reading of a roster began."),
    gauge(
        ROSTER_PENDING,
        Unit::Count,
        &["source", "root"],
        "Differences between a roster and the ledger that must show in another reading, or wait for an operator's yes.",
    ),
    gauge(SEALS, Unit::Count, &[], "The number of the latest seal over the ledger's history."),
    gauge(
        SEAL_HEAD,
        Unit::Count,
        &[],
        "The first 13 hexadecimal digits of that seal's hash, as a number: a record of it that isn't in the ledger itself.",
    ),
    gauge(
        JOB_SUCCEEDED,
        Unit::Seconds,
        &["job"],
        "When a job last succeeded, on whichever worker, in seconds since 1970; 0 if this process knows of no success.",
    ),
    gauge(
        JOB_FAILED,
        Unit::Seconds,
        &["job"],
        "When a job last failed, on whichever worker, in seconds since 1970; 0 if this process knows of no failure.",
    ),
    gauge(
        JOB_OVERDUE,
        Unit::Count,
        &["job"],
        "1 if a job hasn't succeeded for more than three times its interval and five minutes, else 0.",
    ),
    counter(
        PANICS,
        &["task"],
        "Panics, by the task that panicked. One of an essential task ends the process; one while an account is reconciled counts as a failed attempt of that account.",
    ),
    counter(
        LOG_LINES_DROPPED,
        &["reason"],
        "Log lines that were not written: nobody reads them (queue-full, broken-pipe), the disk is full (disk-full), writing failed otherwise (failed), or the same line was written often enough (repeated; the log tells how many).",
    ),
];

/// From half a millisecond (a publish on a quiet machine) to ten seconds (where providers hang up).
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// From a tenth of a second to a day: an outage of the platform lasts as long as it lasts.
const LONG_BUCKETS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0];

/// How often observations are moved into their buckets. They pile up until then, or until somebody reads them.
const UPKEEP: Duration = Duration::from_secs(5);

/// Reads what was recorded.
#[derive(Clone)]
pub struct Metrics {
    handle: Arc<PrometheusHandle>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Everything, in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Keeps the recorder's memory bounded. Ends on the token.
    pub async fn upkeep(self, token: CancellationToken) {
        let mut tick = tokio::time::interval(UPKEEP);
        while token.run_until_cancelled(tick.tick()).await.is_some() {
            self.handle.run_upkeep();
        }
    }
}

/// Builds a recorder that isn't installed, and its reader: for tests that want their own numbers.
///
/// # Errors
/// If the buckets are refused.
pub fn recorder() -> Result<(PrometheusRecorder, Metrics), BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Histogram) {
        let buckets: &[f64] = if metric.name == RECEIPT_TO_TARGET_SECONDS { &LONG_BUCKETS } else { &BUCKETS };
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
    }
    let recorder = builder.build_recorder();
    let metrics = Metrics { handle: Arc::new(recorder.handle()) };
    metrics::with_local_recorder(&recorder, describe);
    Ok((recorder, metrics))
}

/// Starts recording, once for the whole process. A further call gives the same reader.
///
/// # Errors
/// If the buckets are refused.
pub fn install() -> Result<Metrics, BuildError> {
    static INSTALLED: OnceLock<Metrics> = OnceLock::new();
    if let Some(metrics) = INSTALLED.get() {
        return Ok(metrics.clone());
    }
    let (recorder, metrics) = recorder()?;
    let installed = INSTALLED.get_or_init(|| {
        // It can only have failed if somebody else's recorder is installed; ours then stays empty.
        let _other_recorder = metrics::set_global_recorder(recorder);
        metrics
    });
    Ok(installed.clone())
}

fn describe() {
    for Metric { name, kind, unit, meaning, .. } in METRICS.iter().copied() {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, meaning),
            Kind::Gauge => metrics::describe_gauge!(name, unit, meaning),
            Kind::Histogram => metrics::describe_histogram!(name, unit, meaning),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_their_kind() {
        let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert!(metric.name.starts_with("rollcall_"));
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.kind != Kind::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
        }
    }

    #[test]
    fn what_is_recorded_is_rendered_with_its_meaning() {
        let (recorder, metrics) = recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!(ACCEPTED, "source" => "acme").increment(2);
            metrics::histogram!(INGRESS_SECONDS).record(0.003);
        });
        let text = metrics.render();
        assert!(text.contains("# HELP rollcall_accepted_total Deliveries that were accepted"), "{text}");
        assert!(text.contains("rollcall_accepted_total{source=\"acme\"} 2"), "{text}");
        assert!(text.contains("rollcall_ingress_seconds_bucket{le=\"0.005\"} 1"), "{text}");
    }

    #[test]
    fn installing_twice_gives_the_same_reader() {
        let first = install().unwrap();
        let second = install().unwrap();
        assert!(Arc::ptr_eq(&first.handle, &second.handle));
    }
}
