//! Who else may read the secrets, and change what the configuration and the people map say.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Findings, State};
use crate::cli::Place;
use crate::config::{SecretRef, Settings, UrlRef, default_file};

/// What everybody may do who isn't the owner or in the group.
const WORLD_READS: u32 = 0o004;
const WORLD_WRITES: u32 = 0o002;
/// What only the owner may do with a secret. A group may read it: that is how services are handed secrets.
const OWNERS_ALONE: u32 = 0o027;

pub(super) fn check(settings: &Settings, place: &Place, findings: &mut Findings) {
    if let Some(file) = place.config.clone().or_else(default_file) {
        let has_password = [&settings.broker.url, &settings.ledger.url].into_iter().flatten().any(holds_password);
        match mode(&file) {
            Some(mode) if mode & WORLD_WRITES != 0 => {
                findings.add("configuration", State::Warning, changed(&file, mode))
            }
            Some(mode) if mode & WORLD_READS != 0 && has_password => {
                let what = format!(
                    "{} holds a password and can be read by everybody on this machine (mode {mode:03o}); keep the address \
                     as a secret, {{ file = \"PATH\" }}, or let its owner alone read it (chmod 600)",
                    file.display()
                );
                findings.add("configuration", State::Warning, what);
            }
            _ => {}
        }
    }
    if let Some(file) = &settings.people.file
        && let Some(mode) = mode(file).filter(|mode| mode & WORLD_WRITES != 0)
    {
        findings.add("people map", State::Warning, changed(file, mode));
    }
    if let Some(mode) = mode(&settings.data_dir).filter(|mode| mode & WORLD_WRITES != 0) {
        let what = format!(
            "{} can be written by everybody on this machine (mode {mode:03o}); let its owner alone write it (chmod 700)",
            settings.data_dir.display()
        );
        findings.add("data_dir", State::Warning, what);
    }
    for (key, secret) in secrets(settings) {
        if let SecretRef::File(file) = secret
            && let Some(mode) = mode(file).filter(|mode| mode & OWNERS_ALONE != 0)
        {
            let what = format!(
                "the secret {secret} is open to others than its owner and group (mode {mode:03o}); let nobody else read it \
                 (chmod 600, or 640)"
            );
            findings.add(&key, State::Warning, what);
        }
    }
}

fn changed(file: &Path, mode: u32) -> String {
    format!(
        "{} can be changed by everybody on this machine (mode {mode:03o}); let its owner alone write it (chmod go-w)",
        file.display()
    )
}

/// The mode of what is there in the end, behind links: secrets are often mounted that way.
fn mode(file: &Path) -> Option<u32> {
    std::fs::metadata(file).ok().map(|metadata| metadata.permissions().mode() & 0o777)
}

fn holds_password(url: &UrlRef) -> bool {
    matches!(url, UrlRef::Plain(url) if url.password().is_some())
}

/// Every secret that the configuration names, and the part that it belongs to.
fn secrets(settings: &Settings) -> Vec<(String, &SecretRef)> {
    let mut secrets: Vec<(String, &SecretRef)> = Vec::new();
    secrets.extend(kept(settings.broker.url.as_ref()).map(|secret| ("broker".to_owned(), secret)));
    secrets.extend(kept(settings.ledger.url.as_ref()).map(|secret| ("ledger".to_owned(), secret)));
    secrets.extend(settings.drata.api_key.as_ref().map(|secret| ("drata".to_owned(), secret)));
    for source in &settings.sources {
        let part = format!("source {}", source.settings.name);
        secrets.extend(source.secrets.iter().chain(&source.api_token).map(|secret| (part.clone(), secret)));
    }
    secrets
}

/// Where an address is kept that isn't written out.
const fn kept(url: Option<&UrlRef>) -> Option<&SecretRef> {
    match url {
        Some(UrlRef::Secret(secret)) => Some(secret),
        _ => None,
    }
}
