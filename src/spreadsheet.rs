//! Cells of CSV files that no spreadsheet takes for a formula: <https://owasp.org/www-community/attacks/CSV_Injection>.

use std::borrow::Cow;

/// What spreadsheets take for the beginning of a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// A cell that is shown as it is: what would be a formula has an apostrophe before it. [`read`] takes it away again.
#[must_use]
pub fn guarded(cell: &str) -> Cow<'_, str> {
    if is_formula(cell) { format!("'{cell}").into() } else { cell.into() }
}

/// What was written as a guarded cell.
#[must_use]
pub fn read(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|rest| is_formula(rest)).unwrap_or(cell)
}

/// Whether it is a formula, or one with apostrophes before it already: those have to come back, too.
fn is_formula(cell: &str) -> bool {
    cell.trim_start_matches('\'').starts_with(FORMULA)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formulas_are_guarded_and_nothing_else_is_changed() {
        for (cell, expected) in [
            ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
            ("+1@acme.example", "'+1@acme.example"),
            ("-2", "'-2"),
            ("@SUM(1)", "'@SUM(1)"),
            ("\t=1", "'\t=1"),
            ("'=1", "''=1"),
            ("ada@acme.example", "ada@acme.example"),
            ("'quoted'", "'quoted'"),
            ("", ""),
        ] {
            assert_eq!(guarded(cell), expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_guarded_is_read_back(cell in "['=+@\t\r-]{0,4}[ -~]{0,8}") {
            let guarded = guarded(&cell).into_owned();
            prop_assert!(!guarded.starts_with(FORMULA), "{guarded}");
            prop_assert_eq!(read(&guarded), cell);
        }
    }
}
