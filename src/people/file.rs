//! `people.csv`: the header `account,person`, then one account a line with the person whose it is.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::access::AccountPattern;
use crate::spreadsheet;
use crate::target::{InvalidPerson, PersonRef};

/// What stands for nobody where a person is expected.
pub const NOBODY: &str = "nobody";

/// How many bytes a people map may have. It is read whole.
const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// How many rows a people map may have.
const MOST_ROWS: usize = 100_000;
/// How many rows that are wrong are told.
const MOST_TOLD: usize = 100;

/// The people map can't be read.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The file can't be opened or isn't CSV.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: csv::Error,
    },
    /// The file is larger than any people map.
    #[error("{path}: has more than {} MiB; split it into several files", MOST_BYTES / 1024 / 1024)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file has more rows than any people map.
    #[error("{path}: has more than {MOST_ROWS} rows; split it into several files")]
    TooManyRows {
        /// The file.
        path: PathBuf,
    },
    /// The header isn't `account,person`.
    #[error("{path}: the first line must be the header account,person")]
    Header {
        /// The file.
        path: PathBuf,
    },
    /// Rows can't be understood.
    #[error("{}", told(path, rows))]
    Rows {
        /// The file.
        path: PathBuf,
        /// Each with its line, what is wrong with it, and the way out.
        rows: Vec<(u64, String)>,
    },
}

/// Each on a line of its own, as compilers tell it, and not more than anybody reads.
fn told(path: &Path, rows: &[(u64, String)]) -> String {
    let told = rows.iter().take(MOST_TOLD).map(|(line, message)| format!("{}:{line}: {message}", path.display()));
    let more = rows.len().saturating_sub(MOST_TOLD);
    let more = (more > 0).then(|| format!("{}: and {more} more rows are wrong", path.display()));
    told.chain(more).collect::<Vec<_>>().join("\n")
}

/// A line as it is written.
#[derive(Debug, Deserialize)]
struct Line {
    account: String,
    person: String,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The line that it is on.
    pub line: u64,
    /// The account; its provider is always there.
    pub account: AccountPattern,
    /// The person; none for nobody.
    pub person: Option<PersonRef>,
}

/// Reads a file.
///
/// # Errors
/// If it can't be read, or any row can't be understood; then all that is wrong is told by line.
pub fn read(path: &Path) -> Result<Vec<Row>, PeopleError> {
    let file = |source| PeopleError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).map_err(|error| file(error.into()))?;
    opened.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| file(error.into()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MOST_BYTES) {
        return Err(PeopleError::TooLarge { path: path.to_owned() });
    }
    // A record's own position is where the blank lines and comments before it begin.
    let is_skipped = |line: &[u8]| matches!(line, [] | [b'\r'] | [b'#', ..]);
    let lines: Vec<u64> =
        (1..).zip(bytes.split(|b| *b == b'\n')).filter(|(_, line)| !is_skipped(line)).map(|(n, _)| n).collect();
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(bytes.as_slice());
    if reader.headers().map_err(file)?.iter().ne(["account", "person"]) {
        return Err(PeopleError::Header { path: path.to_owned() });
    }
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for (record, n) in reader.records().zip(1..) {
        if n > MOST_ROWS {
            return Err(PeopleError::TooManyRows { path: path.to_owned() });
        }
        let line = lines.get(n).copied().unwrap_or_default();
        let read = match record {
            Ok(record) => row(line, &record),
            Err(error) => match error.kind() {
                csv::ErrorKind::UnequalLengths { len, .. } => Err(format!("has {len} columns; write account,person")),
                csv::ErrorKind::Utf8 { .. } => Err("isn't UTF-8".to_owned()),
                _ => return Err(file(error)),
            },
        };
        match read {
            Ok(row) => rows.push(row),
            Err(message) => wrong.push((line, message)),
        }
    }
    if wrong.is_empty() { Ok(rows) } else { Err(PeopleError::Rows { path: path.to_owned(), rows: wrong }) }
}

fn row(line: u64, record: &csv::StringRecord) -> Result<Row, String> {
    let Line { account, person } = record.deserialize(None).map_err(|error| error.to_string())?;
    // Where a spreadsheet would see formulas, an export has guarded them.
    let (text, person) = (spreadsheet::read(&account), spreadsheet::read(&person));
    let account: AccountPattern = text.parse().map_err(|error| format!("{error}"))?;
    if account.provider.is_none() {
        return Err(format!("account {text:?} names no provider; write github:{text}"));
    }
    Ok(Row { line, account, person: person_or_nobody(person)? })
}

/// Reads a person, or [`NOBODY`].
///
/// # Errors
/// What is wrong, and the way out.
pub fn person_or_nobody(text: &str) -> Result<Option<PersonRef>, String> {
    if text == NOBODY {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: InvalidPerson| format!("{error}, nor {NOBODY:?}"))
}

/// Writes rows that [`read`] reads back.
///
/// # Errors
/// If `out` fails.
pub fn write<'a>(
    rows: impl IntoIterator<Item = (&'a str, Option<&'a PersonRef>)>,
    out: &mut dyn Write,
) -> Result<(), csv::Error> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(["account", "person"])?;
    for (account, person) in rows {
        let person = person.map_or_else(|| NOBODY.to_owned(), ToString::to_string);
        writer.write_record([spreadsheet::guarded(account).as_ref(), spreadsheet::guarded(&person).as_ref()])?;
    }
    Ok(writer.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::AccountName;
    use crate::target::PersonId;

    fn rows(text: &str) -> Result<Vec<Row>, PeopleError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn rows_name_accounts_and_persons() {
        let rows = rows(
            "account,person\ngithub:octocat, Ada@Acme.example\ngithub:#583231,user:518\n# a comment\ngithub:bot,nobody\n",
        )
        .unwrap();
        assert_eq!(rows[0].person, Some(PersonRef::Email("ada@acme.example".into())));
        assert_eq!(rows[1].account.name, AccountName::Id("583231".into()));
        assert_eq!(rows[1].person, Some(PersonRef::Id(PersonId(518))));
        assert_eq!((rows[2].person.clone(), rows[2].line), (None, 5));
    }

    #[test]
    fn every_bad_row_is_named_by_its_line() {
        let error = rows(
            "account,person\ngithub:octocat,ada@acme.example\ngithub:mona,mona\noctocat,a@b\ngithub:x\ngithub:y,user:x\n",
        )
        .unwrap_err()
        .to_string();
        let lines: Vec<&str> =
            error.lines().map(|line| line.split_once(".tmp").map_or(line, |(_, rest)| rest)).collect();
        assert_eq!(lines.len(), 4, "{error}");
        for (line, expected) in lines.iter().zip([
            ":3: person \"mona\" is neither an e-mail address nor user:518, nor \"nobody\"",
            ":4: account \"octocat\" names no provider; write github:octocat",
            ":5: has 1 columns; write account,person",
            ":6: person \"user:x\" isn't user: and a number",
        ]) {
            assert!(line.contains(expected), "{line}");
        }
        assert!(rows("who,what\n").unwrap_err().to_string().contains("account,person"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let person = PersonRef::Email("ada@acme.example".into());
        let mut text = Vec::new();
        let written = [("github@github.com:#583231", Some(&person)), ("github@github.com:bot", None)];
        write(written, &mut text).unwrap();
        let read = rows(std::str::from_utf8(&text).unwrap()).unwrap();
        let read: Vec<_> = read.iter().map(|row| (row.account.to_string(), row.person.as_ref())).collect();
        assert_eq!(read, written.map(|(account, person)| (account.to_owned(), person)));
    }

    #[test]
    fn what_a_spreadsheet_would_take_for_a_formula_is_guarded_and_read_back() {
        let people =
            ["=1+1@acme.example", "+ada@acme.example", "-x@acme.example", "'=y@acme.example", "mona@acme.example"];
        let people = people.map(|email| PersonRef::Email(email.into()));
        let accounts = ["github@github.com:#1", "github@github.com:bot", "github:octo", "github:a", "github:b"];
        let written = || accounts.into_iter().zip(people.iter().map(Some));
        let mut text = Vec::new();
        write(written(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(",'=1+1@acme.example\n") && text.contains(",''=y@acme.example\n"), "{text}");
        let read = rows(&text).unwrap();
        let read: Vec<_> = read.iter().map(|row| (row.account.to_string(), row.person.as_ref())).collect();
        assert_eq!(read, written().map(|(account, person)| (account.to_owned(), person)).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_is_no_people_map_is_not_read_whole() {
        let many = format!("account,person\n{}", "github:#1,user:1\n".repeat(MOST_ROWS + 1));
        assert!(
            rows(&many).unwrap_err().to_string().ends_with(": has more than 100000 rows; split it into several files")
        );
        let large = format!("account,person\n{}", "# a comment\n".repeat(16 * 1024 * 1024 / 12));
        assert!(rows(&large).unwrap_err().to_string().ends_with(": has more than 16 MiB; split it into several files"));
        let wrong = rows(&format!("account,person\n{}", "x,y\n".repeat(150))).unwrap_err().to_string();
        assert_eq!(wrong.lines().count(), MOST_TOLD + 1);
        assert!(wrong.ends_with(": and 50 more rows are wrong"), "{wrong}");
    }
}
