//! A source of every provider, in every way to verify: what both targets choose from.

use rollcall::delivery::SecretName;
use rollcall::provider::{Description, REGISTRY, Secret, SourceSettings};

const WHSEC: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const RULES: &str = r#"
[[rules]]
event = "push"
change = "lost"
account = "/data/user/id"
login = "/data/0/login"
scope = "/data/organization/id"
scope_name = "/a~1b"
at = "/time"
"#;

/// A source and its secret.
pub struct Source {
    pub provider: &'static Description,
    pub settings: SourceSettings,
    pub secret: Secret,
}

/// All of them.
pub fn sources() -> Vec<Source> {
    let ways = |provider: &Description| -> &[(Option<&str>, &str)] {
        match provider.name {
            "gitlab" => &[(Some("signature"), WHSEC), (Some("token"), "a plain token of some length")],
            "azure-devops" => &[(Some("basic"), "user:a password"), (Some("header"), "a secret of some length")],
            "standard-webhooks" => &[(None, WHSEC)],
            _ => &[(None, "a secret of some length")],
        }
    };
    let source = |provider: &&'static Description, (verify, secret): &(Option<&str>, &str)| Source {
        provider,
        settings: SourceSettings {
            name: "fuzz".parse().unwrap(),
            host: "git.larkspur.example".to_owned(),
            roots: Vec::new(),
            sightings: true,
            verify: verify.map(str::to_owned),
            header: (*verify == Some("header")).then(|| "X-Hook-Secret".to_owned()),
            own: if provider.name == "standard-webhooks" { RULES.parse().unwrap() } else { toml::Table::new() },
        },
        secret: Secret { name: SecretName("fuzz".into()), value: (*secret).into() },
    };
    REGISTRY.iter().flat_map(|provider| ways(provider).iter().map(move |way| source(provider, way))).collect()
}
