//! The name of whoever runs a command, as the machine says it: nobody has proved it, so it may be anything.

use std::collections::BTreeMap;

/// The longest name that is kept, in characters.
const LONGEST: usize = 64;

/// Who runs the command, as far as the environment tells.
pub(super) fn of(env: &BTreeMap<String, String>) -> String {
    let names = ["SUDO_USER", "LOGNAME", "USER"];
    let mut known = names.iter().filter_map(|name| env.get(*name)).map(|name| shown(name));
    known.find(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// A name without what a terminal might obey or nobody sees.
fn shown(name: &str) -> String {
    let visible: String = name.chars().filter(|c| !is_invisible(*c)).collect();
    visible.trim().chars().take(LONGEST).collect()
}

/// Control characters, and marks that take no place or turn text around.
fn is_invisible(c: char) -> bool {
    const MARKS: [std::ops::RangeInclusive<char>; 5] = [
        '\u{61c}'..='\u{61c}',
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{2069}',
        '\u{feff}'..='\u{feff}',
    ];
    c.is_control() || MARKS.iter().any(|marks| marks.contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(names: &[(&str, &str)]) -> String {
        of(&names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn whoever_ran_sudo_comes_first_and_nobody_is_unknown() {
        assert_eq!(operator(&[("USER", "root"), ("LOGNAME", "root"), ("SUDO_USER", "ada")]), "ada");
        assert_eq!(operator(&[("USER", "ada"), ("SUDO_USER", " \u{200b}\n")]), "ada");
        assert_eq!(operator(&[]), "unknown");
    }

    #[test]
    fn a_name_has_nothing_that_a_terminal_obeys_and_an_end() {
        assert_eq!(operator(&[("USER", "a\u{1b}[31md\r\n\ta\0\u{202e}\u{9b}")]), "a[31mda");
        assert_eq!(operator(&[("USER", &"é".repeat(1000))]), "é".repeat(LONGEST));
    }
}
