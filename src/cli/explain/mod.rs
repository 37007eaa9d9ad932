//! `rollcall explain`: why an account's status is what it is, or what became of a delivery, in plain sentences.

mod account;
mod delivery;
mod page;

use std::io::Write;
use std::time::Duration;

use super::deliveries::{not_found, one};
use super::named::{not_known, one_account};
use super::table::{Width, json};
use crate::access::AccountPattern;
use crate::ledger::Ledger;
use crate::ledger::show::deliveries::DeliveryName;
use crate::ledger::view::RootsOf;

const EXAMPLES: &str = "\
Examples:
  rollcall explain octocat                          a login, if only one account was ever seen with it
  rollcall explain github:octocat
  rollcall explain 'github:#583231'                 the stable id, which no other account ever has
  rollcall explain github@git.acme.example:octocat  the account of that login on that host
  rollcall explain --delivery 7b7c0d1e-…            what became of a delivery, and what it waits for
  rollcall explain octocat --html > octocat.html    one page, to read and to print

It shows what the ledger holds and asks neither the provider nor the platform.

With --json: for an account an object with account, login, kind, logins, connections (state, desired, actual, known, \
access, grants, roots, due_at …), deliveries, happened and now; for a delivery what `deliveries show --json` has, with \
waits_for and happened besides. Each thing in happened has at and what: delivery, outcome, replay, action or call.";

/// Explain an account: what its status is, what it should be and why, and how it came about; or a delivery
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The account: octocat, github:octocat, github:#583231, github@git.acme.example:octocat
    #[arg(value_name = "ACCOUNT", required_unless_present = "delivery")]
    account: Option<AccountPattern>,
    /// A delivery instead: the provider's id, or # and its row
    #[arg(long, value_name = "ID", conflicts_with = "account")]
    delivery: Option<DeliveryName>,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
    /// Write one page of HTML that needs nothing else
    #[arg(long, conflicts_with = "json")]
    html: bool,
    #[command(flatten)]
    width: Width,
}

/// Explains one account or delivery. `roots` tells the configured roots of a connection, `deadline` how long an account may
/// wait.
///
/// # Errors
/// [`super::named::NameError`] if it names nothing or several, and whatever the ledger or `out` fails with.
pub async fn run(
    args: &Args,
    ledger: &Ledger,
    roots: RootsOf<'_>,
    deadline: Duration,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let page = match (&args.account, &args.delivery) {
        (Some(pattern), _) => {
            let row = one_account(pattern, ledger).await?;
            let dossier =
                ledger.dossier(row, roots).await?.ok_or_else(|| not_known(pattern))?.waiting_at_most(deadline);
            if args.json {
                return json(out, &dossier);
            }
            account::page(&dossier)
        }
        (None, Some(name)) => {
            let row = one(ledger, name, None).await?.row;
            let explanation = ledger.explanation(row).await?.ok_or_else(|| not_found(name))?.waiting_at_most(deadline);
            if args.json {
                return json(out, &explanation);
            }
            delivery::page(&explanation, ledger.now().await?)
        }
        (None, None) => return Ok(()),
    };
    if args.html { page.html(out) } else { page.text(args.width, out) }
}
