//! Who is there at the start: a small invented company, or what files say.
//!
//! A file is a JSON array or CSV, told apart by its first character. CSV headers and JSON keys are the same: for people
//! `id,email,firstName,lastName,employmentStatus` (the last three may be missing), for identities
//! `id,identityId,username,email,connectionId,clientType,userId` (`email` and `userId` may be empty).

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::state::{Connection, Identity, Person};

/// A file of people or identities that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// It can't be read at all.
    #[error("can't read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It isn't what it should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where and what.
        why: String,
    },
}

/// Reads people from a file.
///
/// # Errors
/// If it can't be read, isn't the right JSON or CSV, or has an id twice.
pub fn people_from_file(path: &Path) -> Result<Vec<Person>, SeedError> {
    from_file(path, |person: &Person| person.id)
}

/// Reads identities from a file.
///
/// # Errors
/// If it can't be read, isn't the right JSON or CSV, or has an id twice.
pub fn identities_from_file(path: &Path) -> Result<Vec<Identity>, SeedError> {
    from_file(path, |identity: &Identity| identity.id)
}

fn from_file<T: DeserializeOwned>(path: &Path, id: fn(&T) -> i64) -> Result<Vec<T>, SeedError> {
    let bytes = std::fs::read(path).map_err(|source| SeedError::Read { path: path.to_owned(), source })?;
    let rows = parse(&bytes).map_err(|why| SeedError::Content { path: path.to_owned(), why })?;
    let mut ids: Vec<i64> = rows.iter().map(id).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(SeedError::Content { path: path.to_owned(), why: format!("id {} is there twice", pair[0]) }),
        None => Ok(rows),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>, String> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return serde_json::from_slice(bytes).map_err(|error| error.to_string());
    }
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(bytes);
    reader.deserialize().collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// The connections of the invented company. Its people come from the first.
pub(super) fn connections() -> Vec<Connection> {
    [(3, "GOOGLE", None), (12, "GITHUB", Some("acme on GitHub")), (13, "GITLAB", Some("acme on GitLab"))]
        .map(|(id, client_type, alias)| Connection {
            id,
            client_type: client_type.to_owned(),
            alias: alias.map(str::to_owned),
        })
        .into()
}

/// The people of the invented company.
pub(super) fn people() -> Vec<Person> {
    [
        (518, "maya.lindqvist@acme.example", "Maya", "Lindqvist", "CURRENT_EMPLOYEE"),
        (519, "tomas.rivas@acme.example", "Tomás", "Rivas", "CURRENT_EMPLOYEE"),
        (520, "priya.nair@acme.example", "Priya", "Nair", "CURRENT_EMPLOYEE"),
        (521, "jonas.weber@acme.example", "Jonas", "Weber", "FORMER_EMPLOYEE"),
        (522, "aiko.tanaka@acme.example", "Aiko", "Tanaka", "CURRENT_CONTRACTOR"),
        (523, "lena+git@acme.example", "Lena", "Okafor", "CURRENT_EMPLOYEE"),
    ]
    .map(|(id, email, first_name, last_name, status)| Person {
        id,
        email: email.to_owned(),
        first_name: first_name.to_owned(),
        last_name: last_name.to_owned(),
        employment_status: status.to_owned(),
    })
    .into()
}

/// The identities of the invented company: some linked, some not, one of a bot.
pub(super) fn identities() -> Vec<Identity> {
    [
        (9001, "7410001", "maya-l", None, 12, Some(518)),
        (9002, "7410002", "trivas", Some("tomas.rivas@acme.example"), 12, None),
        (9003, "7410003", "priyacodes", None, 12, None),
        (9004, "7410004", "jweber", Some("jonas.weber@acme.example"), 12, Some(521)),
        (9005, "7410005", "aiko-t", None, 12, None),
        (9006, "7410006", "acme-deploy-bot", None, 12, None),
        (9101, "51001", "maya", Some("maya.lindqvist@acme.example"), 13, Some(518)),
        (9102, "51002", "lena.okafor", None, 13, None),
    ]
    .map(|(id, identity_id, username, email, connection_id, user_id)| Identity {
        id,
        identity_id: identity_id.to_owned(),
        username: username.to_owned(),
        email: email.map(str::to_owned),
        connection_id,
        client_type: if connection_id == 12 { "GITHUB" } else { "GITLAB" }.to_owned(),
        user_id,
        ..Identity::default()
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn people_are_read_from_csv_and_json_alike() {
        let csv =
            file("id,email,firstName,lastName,employmentStatus\n1, ana@acme.example, Ana, Ruiz, FORMER_EMPLOYEE\n");
        let json = file(
            r#"[{"id":1,"email":"ana@acme.example","firstName":"Ana","lastName":"Ruiz","employmentStatus":"FORMER_EMPLOYEE"}]"#,
        );
        let people = people_from_file(csv.path()).unwrap();
        assert_eq!(people, people_from_file(json.path()).unwrap());
        assert_eq!((people[0].id, people[0].personnel_id()), (1, -6));
        assert_eq!(
            people_from_file(file("id,email\n2,b@acme.example\n").path()).unwrap()[0].employment_status,
            "CURRENT_EMPLOYEE"
        );
    }

    #[test]
    fn an_identity_may_have_no_email_and_no_person() {
        let csv = file(
            "id,identityId,username,email,connectionId,clientType,userId\n7,42,ana,,12,GITHUB,\n8,43,bo,,12,GITHUB,5\n",
        );
        let rows = identities_from_file(csv.path()).unwrap();
        assert_eq!((rows[0].email.as_deref(), rows[0].user_id, rows[1].user_id), (None, None, Some(5)));
    }

    #[test]
    fn a_file_that_is_wrong_says_where() {
        let twice = people_from_file(file("id,email\n2,b@acme.example\n2,c@acme.example\n").path()).unwrap_err();
        assert!(twice.to_string().ends_with("id 2 is there twice"), "{twice}");
        let wrong = people_from_file(file("id,email\nx,b@acme.example\n").path()).unwrap_err();
        assert!(wrong.to_string().contains("line: 2"), "{wrong}");
        assert!(people_from_file(Path::new("/nowhere/people.csv")).unwrap_err().to_string().contains("can't read"));
    }
}
