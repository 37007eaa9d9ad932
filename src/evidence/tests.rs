use super::platform::PlatformEvents;
use super::*;
use crate::ledger::show::sample::Sample;

fn minute(minutes: i64) -> Timestamp {
    "2026-11-24T08:00:00Z".parse::<Timestamp>().unwrap().plus_micros(minutes * 60_000_000)
}

async fn written(
    sample: &Sample,
    format: Format,
    (from, to): (i64, i64),
    account: Option<i64>,
    events: PlatformEvents,
) -> String {
    let ledger = &sample.ledger;
    let mut about = About {
        version: "0.0.0",
        made_at: minute(10),
        from: minute(from),
        to: minute(to),
        account: None,
        time_zone: "UTC",
        head: ledger.head().await.unwrap(),
        unsealed: ledger.unsealed().await.unwrap(),
        platform_events: events,
    };
    let mut out = Vec::new();
    let period = Period { from: minute(from), to: minute(to), account };
    write(ledger, period, &mut about, format, &mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn a_spreadsheet_has_a_line_for_every_change_and_says_why_there_was_no_effect() {
    let sample = Sample::new().await;
    let text = written(&sample, Format::Csv, (-60, 60), None, PlatformEvents::Left).await;
    insta::assert_snapshot!(text);
    let later = written(&sample, Format::Csv, (4, 7), None, PlatformEvents::Left).await;
    assert_eq!(later.lines().count(), 1 + 3, "--from is included and --to is not: {later}");
    let one = written(&sample, Format::Csv, (-60, 60), Some(1), PlatformEvents::Left).await;
    assert_eq!(one.lines().count(), 1 + 3, "{one}");
}

#[tokio::test]
async fn a_machine_gets_one_object_with_the_figures_and_the_platforms_own_entry() {
    let sample = Sample::new().await;
    let event = LinkEvent { id: "e-1".to_owned(), at: minute(1), identity: None };
    let events = PlatformEvents::read(Ok(vec![event]));
    let text = written(&sample, Format::Json, (-60, 60), None, events).await;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let changes = json["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 8);
    let told: Vec<_> = changes.iter().filter(|change| !change["told"].is_null()).collect();
    assert_eq!(told.len(), 1);
    let (delivery, delay) = (&told[0]["delivery"], &told[0]["told"]["delay_us"]);
    assert_eq!((delivery.as_str(), delay.as_i64()), (Some("join-1"), Some(60_000_000)));
    assert_eq!(told[0]["platform_event"]["id"], "e-1");
    assert_eq!(told[0]["by"], "delivery");
    let parked: Vec<_> = changes.iter().filter(|change| change["account"].is_null()).collect();
    assert_eq!((parked.len(), parked[0]["outcome"].as_str()), (1, Some("parked")));
    let summary = &json["summary"];
    assert_eq!((&summary["changes"], &summary["told"], &summary["evidenced"]), (&8.into(), &1.into(), &1.into()));
    assert_eq!(summary["delay"]["median"], 60_000_000);
    assert!(json["report"]["platform_events"].as_str().unwrap().contains("1 entries"), "{}", json["report"]);
}

#[tokio::test]
async fn an_empty_period_is_a_whole_report_all_the_same() {
    let sample = Sample::new().await;
    let text = written(&sample, Format::Json, (600, 700), None, PlatformEvents::Left).await;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["changes"], &json["actions"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert!(written(&sample, Format::Html, (600, 700), None, PlatformEvents::Left).await.ends_with("</html>\n"));
}

#[tokio::test]
async fn a_hostile_login_is_only_a_login_in_the_page_and_in_a_spreadsheet() {
    let sample = Sample::new().await;
    sample.call("583231", "<script>alert(1)</script>\" onload='x'").await;
    sample.call("7", "=HYPERLINK(\"http://x\")").await;
    sample.call("9", "\u{202e}gnp.exe&amp;").await;
    let page = written(&sample, Format::Html, (-60, 60), None, PlatformEvents::Left).await;
    assert!(!page.contains("<script") && !page.contains("onload='"), "{page}");
    assert!(page.contains("&#60;script&#62;alert(1)&#60;/script&#62;&#34; onload=&#39;x&#39;"), "{page}");
    assert!(page.contains("<bdi>\u{202e}gnp.exe&#38;amp;</bdi>"), "{page}");
    assert!(page.contains("Content-Security-Policy"));
    let sheet = written(&sample, Format::Csv, (-60, 60), None, PlatformEvents::Left).await;
    assert!(sheet.contains("\"'=HYPERLINK(\"\"http://x\"\")\""), "{sheet}");
    assert!(!sheet.contains(",=") && !sheet.contains("\"="), "{sheet}");
}
