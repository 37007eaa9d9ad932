//! `[people]`: which person an account belongs to.

use std::path::PathBuf;

use super::layers::Layers;

/// The section's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct People {
    /// The people map, if there is one.
    pub file: Option<PathBuf>,
}

impl People {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        Some(Self { file: layers.optional("people.file")? })
    }
}
