//! What `/health` says of a source whose deliveries are refused.

use http::{HeaderName, HeaderValue, Method};

use super::*;
use crate::telemetry::metrics::recorder;

#[tokio::test]
async fn a_source_of_which_every_delivery_is_refused_for_its_signature_is_degraded() {
    let (ingress, _broker) = ingress();
    let parts = ingress.parts();
    let [part] = parts.as_slice() else { panic!("{parts:?}") };
    assert_eq!((part.name.as_str(), part.needed), ("source:acme", Needed::No));
    let state = || (part.health)().state;
    let mut unsigned = request("{}");
    unsigned.headers_mut().remove("x-test-signature");
    assert_eq!(send(&ingress, unsigned).await.status(), 401);
    for _ in 0..3 {
        assert_eq!(state(), State::Ok);
        // Another fault is no sign of a wrong secret.
        let mut get = request("{}");
        *get.method_mut() = Method::GET;
        assert_eq!(send(&ingress, get).await.status(), 405);
    }
    for _ in 0..3 {
        let mut forged = request("{}");
        *forged.body_mut() = Body::from("{ }");
        assert_eq!(send(&ingress, forged).await.status(), 401);
    }
    let health = (part.health)();
    assert_eq!(health.state, State::Degraded);
    let reason = health.reason.unwrap();
    assert_eq!(reason, "refused 4 of 4 deliveries for their signature: is the secret right?");
    // Verified is enough: what it says may be nonsense.
    assert_eq!(send(&ingress, request("not JSON")).await.status(), 400);
    assert_eq!(state(), State::Ok);
}

#[tokio::test]
async fn a_hook_without_a_secret_is_told_and_what_scans_for_servers_is_not() {
    let (ingress, _broker) = ingress();
    let parts = ingress.parts();
    let health = || (parts[0].health)();
    let scan = |signature: Option<&'static str>| {
        let mut scan = request("{}");
        for name in ["x-test-signature", "x-test-event", "x-test-delivery"] {
            scan.headers_mut().remove(name);
        }
        scan.headers_mut().extend(
            signature.map(|value| (HeaderName::from_static("x-test-signature"), HeaderValue::from_static(value))),
        );
        scan
    };
    for signature in [None, Some(""), Some("malformed")].into_iter().cycle().take(30) {
        assert_eq!(send(&ingress, scan(signature)).await.status(), 401);
    }
    assert_eq!(health().state, State::Ok);
    for _ in 0..3 {
        let mut unsigned = request("{}");
        unsigned.headers_mut().remove("x-test-signature");
        assert_eq!(send(&ingress, unsigned).await.status(), 401);
    }
    let reason = "refused 3 of 3 deliveries because they bear no signature: is a secret set at the provider?";
    assert_eq!((health().state, health().reason.as_deref()), (State::Degraded, Some(reason)));
}

#[tokio::test]
async fn a_source_of_which_no_delivery_comes_from_an_allowed_address_is_degraded() {
    let allow_from = Some("192.0.2.0/24".parse::<Network>().into_iter().collect());
    let (recorder, metrics) = recorder().unwrap();
    let (ingress, _broker) = metrics::with_local_recorder(&recorder, || {
        ingress_for(settings(), IngressSource { allow_from, ..source(Encodings::JsonOrForm) })
    });
    let parts = ingress.parts();
    let health = || (parts[0].health)();
    for _ in 0..3 {
        let mut scan = request("{}");
        scan.headers_mut().remove("x-test-signature");
        scan.headers_mut().remove("x-test-event");
        assert_eq!(send(&ingress, scan).await.status(), 403);
    }
    assert_eq!(health().state, State::Ok);
    for _ in 0..3 {
        assert_eq!(send(&ingress, request("{}")).await.status(), 403);
    }
    let reason =
        "refused 3 of 3 deliveries because of their address: is allow_from right (and ingress.trusted_proxies)?";
    assert_eq!((health().state, health().reason.as_deref()), (State::Degraded, Some(reason)));
    let text = metrics.render();
    for line in [
        "rollcall_refused_total{source=\"acme\",reason=\"forbidden\"} 6",
        "rollcall_refused_deliveries_total{source=\"acme\",cause=\"address\"} 3",
        "rollcall_refused_deliveries_total{source=\"acme\",cause=\"signature\"} 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
