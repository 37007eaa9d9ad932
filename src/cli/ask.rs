//! Questions to the operator, on a terminal; nobody is asked anywhere else.

use std::io::{IsTerminal, Write};

use super::exit::Misuse;

/// Shows what is at stake and asks. `unasked` says what to do where nobody can be asked.
pub(super) fn confirmed(
    unasked: &str,
    question: &str,
    show: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let mut err = std::io::stderr();
    if !std::io::stdin().is_terminal() || !err.is_terminal() {
        return Err(Misuse(unasked.to_owned()).into());
    }
    show(&mut err)?;
    write!(err, "\n{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
