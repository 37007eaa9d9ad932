//! Requests to a provider's own API, as values: what is asked, what came back, and where a provider's API is. Pure;
//! [`crate::api`] is the one that sends them.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::de::DeserializeOwned;
use url::Url;

/// Where a provider's API is and how a token travels to it.
#[derive(Debug)]
pub struct ApiDescription {
    /// The address of the API of that host, without a slash at the end.
    pub base: fn(host: &str) -> String,
    /// How the token travels.
    pub token: TokenPlace,
    /// Headers that each request carries, and their values.
    pub headers: &'static [(&'static str, &'static str)],
}

/// How a token travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// `Authorization: Bearer TOKEN`.
    Bearer,
    /// `Authorization: token TOKEN`.
    AuthorizationToken,
    /// In a header of that name.
    Header(&'static str),
    /// As the password of an empty user: `Authorization: Basic`.
    Password,
    /// `user:password` as `Authorization: Basic`, anything without a colon as `Bearer`.
    BasicOrBearer,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// `GET` for whatever only reads.
    pub method: Method,
    /// To where.
    pub to: To,
}

/// Where a request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// To a path below the API's base, each segment of which is escaped, with a query.
    Below {
        /// The segments.
        path: Vec<String>,
        /// The query.
        query: Vec<(String, String)>,
    },
    /// To an address that an answer named. It is refused if it isn't at the API's own origin and below its base: the token
    /// must not travel elsewhere.
    Named(Url),
}

impl Ask {
    /// Reads what is below that path.
    #[must_use]
    pub fn get(path: &[&str]) -> Self {
        Self::below(Method::GET, path)
    }

    /// Posts nothing to that path.
    #[must_use]
    pub fn post(path: &[&str]) -> Self {
        Self::below(Method::POST, path)
    }

    /// Reads what an answer named.
    #[must_use]
    pub const fn named(url: Url) -> Self {
        Self { method: Method::GET, to: To::Named(url) }
    }

    fn below(method: Method, path: &[&str]) -> Self {
        Self { method, to: To::Below { path: path.iter().map(|&part| part.to_owned()).collect(), query: Vec::new() } }
    }

    /// With that in the query. An address that an answer named has its own.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        if let To::Below { query, .. } = &mut self.to {
            query.push((key.to_owned(), value.to_string()));
        }
        self
    }
}

/// A 2xx answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// An answer isn't what the provider documents. Says nothing of its content but where it went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer can't be read: {0}")]
pub struct UnreadableAnswer(pub String);

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// If it isn't of that shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, UnreadableAnswer> {
        let mut json = serde_json::Deserializer::from_slice(&self.body);
        serde_path_to_error::deserialize(&mut json).map_err(|error| {
            // What serde says may quote the body.
            let what = if error.inner().is_data() { "isn't of the expected shape" } else { "isn't JSON" };
            match error.path().to_string().as_str() {
                "." => UnreadableAnswer(format!("it {what}")),
                path => UnreadableAnswer(format!("it {what} at {path}")),
            }
        })
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
    }

    /// The next page, as [RFC 8288](https://www.rfc-editor.org/rfc/rfc8288) has it: `Link: <URL>; rel="next"`.
    #[must_use]
    pub fn next_link(&self) -> Option<Url> {
        let links = self.headers.get_all(http::header::LINK).iter().filter_map(|value| value.to_str().ok());
        links.flat_map(links_of).find(|(_, is_next)| *is_next).and_then(|(url, _)| url.parse().ok())
    }
}

/// The links of one header and whether each says that it is the next page. A comma or a semicolon within `<…>` parts nothing.
fn links_of(value: &str) -> Vec<(&str, bool)> {
    let mut links = Vec::new();
    let mut rest = value;
    while let Some((_, opened)) = rest.split_once('<') {
        let Some((url, after)) = opened.split_once('>') else { break };
        let (parameters, following) = after.split_at(after.find('<').unwrap_or(after.len()));
        let is_next = parameters.split([';', ',']).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split_ascii_whitespace()
                        .any(|rel| rel.eq_ignore_ascii_case("next"))
            })
        });
        links.push((url, is_next));
        rest = following;
    }
    links
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn answer(link: &str) -> Answer {
        let headers = HeaderMap::from_iter([(http::header::LINK, link.parse().unwrap())]);
        Answer { headers, body: Bytes::from_static(b"[{\"id\":\"Zoe\"}]") }
    }

    #[rstest]
    #[case(
        "<https://api.example/a?page=2>; rel=\"next\", <https://api.example/a?page=9>; rel=\"last\"",
        Some("page=2")
    )]
    #[case(
        "<https://api.example/a?page=1>; rel=\"prev\", <https://api.example/a?ids=1,2;3&page=3>; rel=next",
        Some("ids=1,2;3&page=3")
    )]
    #[case("<https://api.example/a?page=2>; title=\"next\"; rel=\"prev first\"", None)]
    #[case("<https://api.example/a?page=2>; rel=\"last NEXT\"", Some("page=2"))]
    #[case("<not a url>; rel=\"next\"", None)]
    #[case("<https://api.example/a", None)]
    #[case("", None)]
    fn the_next_page_is_the_one_that_says_so(#[case] link: &str, #[case] query: Option<&str>) {
        assert_eq!(answer(link).next_link().as_ref().and_then(Url::query), query);
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_place_and_not_quoted() {
        #[derive(Debug, serde::Deserialize)]
        struct Row {
            #[expect(dead_code, reason = "it is never read")]
            id: u64,
        }
        let error = answer("").json::<Vec<Row>>().unwrap_err().to_string();
        assert!(error.contains("[0].id") && !error.contains("Zoe"), "{error}");
    }
}
