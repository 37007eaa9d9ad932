//! Who sends a request: the address at the other end of the connection, or, if that is a trusted proxy's, the address that
//! the proxy names in `Forwarded` or `X-Forwarded-For`.
//!
//! A client may write what it likes into these headers, and a proxy adds to the right of it. So the client is the rightmost
//! address that isn't a trusted proxy's. If both headers are there they must agree: a proxy writes one of them and passes
//! the other on as the client wrote it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::network::Networks;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address at the other end of a request's connection, as an extension of the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

impl Peer {
    /// The peer of a request that didn't come over a connection of ours: an address that no network contains that anybody
    /// would name.
    pub(super) const NONE: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
}

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// Whoever is at the other end of the connection.
    Direct(IpAddr),
    /// Whom the trusted proxy there names.
    Forwarded(IpAddr),
    /// Somebody behind that proxy, whose headers contradict each other or can't be read.
    Unknown(IpAddr),
}

impl Client {
    pub(super) fn of(peer: Peer, headers: &HeaderMap, trusted: &Networks) -> Self {
        let Peer(peer) = peer;
        let peer = peer.to_canonical();
        if !trusted.contains(peer) {
            return Self::Direct(peer);
        }
        let named = |header: &HeaderName, read: Read| {
            headers.contains_key(header).then(|| rightmost(headers.get_all(header).iter().rev(), read, trusted))
        };
        match (named(&FORWARDED, forwarded), named(&X_FORWARDED_FOR, x_forwarded_for)) {
            (None, None) => Self::Direct(peer),
            (Some(named), None) | (None, Some(named)) => named.map_or(Self::Unknown(peer), Self::Forwarded),
            (Some(one), Some(other)) => match one.filter(|_| one == other) {
                Some(named) => Self::Forwarded(named),
                None => Self::Unknown(peer),
            },
        }
    }

    /// The client's own address, if it is known.
    pub(super) const fn address(self) -> Option<IpAddr> {
        match self {
            Self::Direct(address) | Self::Forwarded(address) => Some(address),
            Self::Unknown(_) => None,
        }
    }

    /// The address by which its bodies are counted, unless they are of many clients: of `unshared`, of which none is named.
    pub(super) fn budgeted_as(self, unshared: &Networks) -> Option<IpAddr> {
        match self {
            Self::Direct(address) => Some(address).filter(|address| !unshared.contains(*address)),
            Self::Forwarded(address) | Self::Unknown(address) => Some(address),
        }
    }

    /// The address by which its requests are counted, if a proxy stands between: without one, its connections are.
    pub(super) const fn counted_as(self) -> Option<IpAddr> {
        match self {
            Self::Direct(_) => None,
            Self::Forwarded(address) | Self::Unknown(address) => Some(address),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) | Self::Forwarded(address) => write!(f, "{address}"),
            Self::Unknown(proxy) => write!(f, "unknown, behind {proxy}"),
        }
    }
}

/// The rightmost address that isn't a trusted proxy's, of lines from the last to the first; if all are, the leftmost. None
/// if an element on the way can't be read.
fn rightmost<'a>(lines: impl Iterator<Item = &'a HeaderValue>, read: Read, trusted: &Networks) -> Option<IpAddr> {
    let mut leftmost = None;
    for line in lines {
        for address in read(line.to_str().ok()?).into_iter().rev() {
            let address = address?;
            if !trusted.contains(address) {
                return Some(address);
            }
            leftmost = Some(address);
        }
    }
    leftmost
}

/// The elements of a header's line, from left to right; none for one that can't be read.
type Read = fn(&str) -> Vec<Option<IpAddr>>;

/// `203.0.113.9, 10.0.0.2`.
fn x_forwarded_for(line: &str) -> Vec<Option<IpAddr>> {
    line.split(',').map(str::trim).filter(|element| !element.is_empty()).map(node).collect()
}

/// RFC 7239: `for=203.0.113.9;proto=https, for="[2001:db8::1]:4711"`. A line that breaks its grammar is worth nothing: a
/// client's open quotation mark could swallow what the proxy has added.
fn forwarded(line: &str) -> Vec<Option<IpAddr>> {
    let named = |element: &str| {
        let mut named = pieces(element, ';')?.into_iter().filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim().eq_ignore_ascii_case("for").then_some(value)
        });
        // One `for` in an element, no more.
        let value = named.next().filter(|_| named.next().is_none())?;
        node(value.strip_prefix('"').map_or(Some(value), |quoted| quoted.strip_suffix('"'))?)
    };
    pieces(line, ',').map_or_else(|| vec![None], |elements| elements.into_iter().map(named).collect())
}

/// The pieces between separators that aren't within quotation marks. None if a quotation isn't closed.
fn pieces(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut pieces, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == separator && !quoted => {
                pieces.push(text.get(from..at)?.trim());
                from = at + c.len_utf8();
            }
            _ => {}
        }
    }
    pieces.push(text.get(from..)?.trim());
    (!quoted).then_some(pieces)
}

/// An address, with its port or without.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn client(peer: &str, lines: &[(&'static str, &str)]) -> Client {
        let trusted = ["10.0.0.0/8", "fd00::/8"].iter().map(|text| text.parse().unwrap()).collect();
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        Client::of(Peer(peer.parse().unwrap()), &headers, &trusted)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let lines = [(XFF, "192.30.252.1"), ("forwarded", "for=192.30.252.1")];
        assert_eq!(client("203.0.113.9", &lines), Client::Direct(ip("203.0.113.9")));
        assert_eq!(client("::ffff:203.0.113.9", &lines), Client::Direct(ip("203.0.113.9")));
        assert_eq!(client("10.0.0.1", &lines), Client::Forwarded(ip("192.30.252.1")));
        assert_eq!(client("::ffff:10.0.0.1", &lines), Client::Forwarded(ip("192.30.252.1")));
        assert_eq!(client("10.0.0.1", &[]), Client::Direct(ip("10.0.0.1")));
    }

    #[test]
    fn bodies_count_for_whoever_sends_them_unless_that_is_many() {
        let unshared = Networks::this_machine().and(&["10.0.0.0/8"].iter().map(|text| text.parse().unwrap()).collect());
        let budgeted = |peer: &str, lines: &[(&'static str, &str)]| client(peer, lines).budgeted_as(&unshared);
        assert_eq!(budgeted("203.0.113.9", &[]), Some(ip("203.0.113.9")));
        assert_eq!(budgeted("127.0.0.1", &[]), None);
        assert_eq!(budgeted("10.0.0.1", &[]), None, "it names nobody");
        assert_eq!(budgeted("10.0.0.1", &[(XFF, "203.0.113.9")]), Some(ip("203.0.113.9")));
        assert_eq!(budgeted("10.0.0.1", &[(XFF, "unknown")]), Some(ip("10.0.0.1")));
    }

    #[rstest]
    #[case::alone("203.0.113.9", "203.0.113.9")]
    #[case::forged_on_the_left("192.30.252.1, 203.0.113.9", "203.0.113.9")]
    #[case::rubbish_on_the_left("\"x, 203.0.113.9", "203.0.113.9")]
    #[case::two_proxies("192.30.252.1,203.0.113.9, 10.1.1.1 ,10.2.2.2", "203.0.113.9")]
    #[case::with_a_port("203.0.113.9:4711", "203.0.113.9")]
    #[case::ipv6("2001:db8::1", "2001:db8::1")]
    #[case::ipv6_with_a_port("[2001:db8::1]:4711", "2001:db8::1")]
    #[case::mapped("::ffff:203.0.113.9", "203.0.113.9")]
    #[case::from_inside("10.3.3.3, 10.2.2.2", "10.3.3.3")]
    fn the_rightmost_untrusted_address_is_the_client(#[case] line: &str, #[case] expected: &str) {
        assert_eq!(client("10.0.0.1", &[(XFF, line)]), Client::Forwarded(ip(expected)));
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [(XFF, "192.30.252.1"), (XFF, "203.0.113.9"), (XFF, "10.2.2.2")];
        assert_eq!(client("10.0.0.1", &lines), Client::Forwarded(ip("203.0.113.9")));
    }

    #[rstest]
    #[case::plain("for=203.0.113.9", "203.0.113.9")]
    #[case::all_of_it("For=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1", "2001:db8::1")]
    #[case::forged_on_the_left("for=192.30.252.1, for=203.0.113.9;host=\"a, for=192.30.252.1\"", "203.0.113.9")]
    #[case::obfuscated_on_the_left("for=_hidden, for=203.0.113.9, for=10.2.2.2", "203.0.113.9")]
    fn forwarded_is_read_by_its_grammar(#[case] line: &str, #[case] expected: &str) {
        assert_eq!(client("10.0.0.1", &[("forwarded", line)]), Client::Forwarded(ip(expected)));
    }

    #[rstest]
    #[case::they_differ(&[(XFF, "192.30.252.1"), ("forwarded", "for=203.0.113.9")])]
    #[case::one_says_nothing(&[(XFF, "192.30.252.1"), ("forwarded", "proto=https")])]
    #[case::rubbish(&[(XFF, "192.30.252.1, unknown")])]
    #[case::rubbish_before_a_proxy(&[(XFF, "192.30.252.1, unknown, 10.2.2.2")])]
    #[case::empty(&[(XFF, "")])]
    #[case::an_open_quotation(&[("forwarded", "for=\"x, for=203.0.113.9;host=\"a.example\"")])]
    #[case::two_of_them(&[("forwarded", "for=192.30.252.1;for=203.0.113.9")])]
    #[case::obfuscated(&[("forwarded", "for=192.30.252.1, for=_hidden")])]
    fn whose_headers_say_nothing_certain_is_unknown(#[case] lines: &[(&'static str, &str)]) {
        let unknown = client("10.0.0.1", lines);
        assert_eq!(unknown, Client::Unknown(ip("10.0.0.1")));
        assert_eq!((unknown.address(), unknown.counted_as()), (None, Some(ip("10.0.0.1"))));
        assert_eq!(unknown.to_string(), "unknown, behind 10.0.0.1");
    }
}
