//! Interpreters are total: any bytes under any event's name give an answer or an error, never a panic.
//!
//! The input: a byte that chooses the source, a byte that chooses the event, then the body.

#![no_main]

mod sources;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rollcall::delivery::{Delivery, Timestamp};
use rollcall::provider::Interpreter;

use sources::{Source, sources};

static SIDES: LazyLock<Vec<(Source, Box<dyn Interpreter>)>> = LazyLock::new(|| {
    let side = |source: Source| {
        let interpreter = (source.provider.interpreter)(&source.settings).unwrap();
        (source, interpreter)
    };
    sources().into_iter().map(side).collect()
});

fuzz_target!(|data: &[u8]| {
    let [choice, event, body @ ..] = data else { return };
    let (source, interpreter) = &SIDES[usize::from(*choice) % SIDES.len()];
    let events = source.provider.events;
    let event = events[usize::from(*event) % events.len()].event.replace('*', "created");
    // As it is, and as a form: how it is read follows from its bytes.
    for start in [&b""[..], b"payload="] {
        let meaning = interpreter.interpret(&Delivery {
            source: source.settings.name.clone(),
            provider: source.provider.name.to_owned(),
            id: "d-1".parse().unwrap(),
            event: event.parse().unwrap(),
            received_at: Timestamp(1_790_000_000_000_000),
            secret: source.secret.name.clone(),
            stamp: None,
            replay: None,
            body: [start, body].concat().into(),
        });
        // What is said of a fault is for logs and people: nothing of the body may be in it, so it is short.
        if let Err(misshapen) = meaning {
            assert!(misshapen.path.len() < 200 && misshapen.message.len() < 200, "{misshapen}");
        }
    }
});
