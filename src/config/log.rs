//! `[log]`: how and what is logged.

use super::layers::Layers;
use crate::telemetry::logs::{self, Format, Settings};

pub(super) fn read(layers: &mut Layers) -> Option<Settings> {
    let format = layers.required::<String>("log.format");
    let filter = layers.required::<String>("log.filter");
    let format = format.and_then(|format| {
        let read = Format::ALL.into_iter().find(|known| known.as_str() == format);
        if read.is_none() {
            layers.blame_value("log.format", "must be \"auto\", \"text\" or \"json\"");
        }
        read
    });
    let settings = Settings { format: format?, filter: filter? };
    if logs::filter(&settings.filter).is_err() {
        layers.blame_value(
            "log.filter",
            "must be a level (\"info\") or levels by module (\"info,rollcall::ingress=debug\")",
        );
    }
    Some(settings)
}
