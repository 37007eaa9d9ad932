//! Nothing that anybody makes up verifies; whatever the provider signs does; and nothing panics.
//!
//! The input: a byte that chooses the source, a byte of flags, then lines of headers up to an empty line, then the body.

#![no_main]

mod sources;

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use rollcall::delivery::{Encoding, Timestamp, Unverified};
use rollcall::provider::{Draft, Signer, Verifier};

use sources::{Source, sources};

const NOW: Timestamp = Timestamp(1_790_000_000_000_000);

static SIDES: LazyLock<Vec<(Source, Box<dyn Verifier>, Box<dyn Signer>)>> = LazyLock::new(|| {
    let sides = |source: Source| {
        let verifier = (source.provider.verifier)(&source.settings, vec![source.secret.clone()]).unwrap();
        let signer = (source.provider.signer)(&source.settings, source.secret.clone()).unwrap();
        (source, verifier, signer)
    };
    sources().into_iter().map(sides).collect()
});

fuzz_target!(|data: &[u8]| {
    let [choice, flags, rest @ ..] = data else { return };
    let (source, verifier, signer) = &SIDES[usize::from(*choice) % SIDES.len()];
    let encodings = source.provider.encodings;
    let form = flags & 1 != 0 && encodings.include(Encoding::Form);
    let encoding = if form { Encoding::Form } else { Encoding::Json };
    let (head, body) = match rest.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&rest[..at], &rest[at + 2..]),
        None => (&[][..], rest),
    };

    let draft = Draft { id: "d-1".into(), event: "push".into(), encoding, json: body.to_vec() };
    let good = signer.sign(&draft, NOW).unwrap();
    let good_body = Bytes::from(good.body);
    let request = Unverified::new(&good.headers, &good_body, encodings);
    verifier.precheck(&good.headers).unwrap();
    let verified = verifier.verify(request, NOW).unwrap();
    let _ = verifier.name(&good.headers, &verified);

    // Some of the made-up requests begin with the good headers, so that single ones of them are replaced.
    let mut headers = if flags & 2 == 0 { HeaderMap::new() } else { good.headers.clone() };
    let mut replaced = false;
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]))
        else {
            continue;
        };
        replaced |= good.headers.contains_key(&name);
        if flags & 4 == 0 {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
    let body = Bytes::copy_from_slice(body);
    let made_up = verifier
        .precheck(&headers)
        .and_then(|()| verifier.verify(Unverified::new(&headers, &body, encodings), NOW));
    match made_up {
        Ok(verified) => {
            let _ = verifier.name(&headers, &verified);
            // Without any of the good headers nobody can have known the secret.
            assert!(flags & 2 != 0, "{headers:?}");
        }
        Err(_) => assert!(flags & 2 == 0 || replaced || !head.is_empty() || body != good_body, "{headers:?}"),
    }
});
