//! Networks of IP addresses: who may post to a source, and which proxies are believed.
//!
//! An IPv4 address that an IPv6 socket shows as `::ffff:192.0.2.1` is the IPv4 address, in networks as in clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// One network, such as `192.30.252.0/22`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// The text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// It has no such form.
    #[error("must be a network such as \"192.30.252.0/22\" or \"2606:50c0::/32\", or a single IP address")]
    Form,
    /// The address has more bits than the prefix takes in, so that one of them is a mistake.
    #[error("{0} isn't the first address of its network, which is {1}; write that, or another prefix length")]
    HostBits(IpNet, IpNet),
}

/// How many bits of an IPv4-mapped IPv6 address come before the IPv4 address.
const MAPPED: u8 = 96;

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let network = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
            (Ok(network), _) => network,
            (_, Ok(address)) => IpNet::from(address),
            _ => return Err(InvalidNetwork::Form),
        };
        let network = match network {
            IpNet::V6(v6) => v6.addr().to_ipv4_mapped().map_or(Ok(network), |v4| {
                let length = v6.prefix_len().checked_sub(MAPPED).ok_or(InvalidNetwork::Form)?;
                Ipv4Net::new(v4, length).map(IpNet::V4).map_err(|_| InvalidNetwork::Form)
            })?,
            IpNet::V4(_) => network,
        };
        if network.trunc() != network {
            return Err(InvalidNetwork::HostBits(network, network.trunc()));
        }
        Ok(Self(network))
    }
}

/// A set of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// The addresses from which a proxy on this machine connects.
    #[must_use]
    pub fn this_machine() -> Self {
        Self([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(|ip| Network(ip.into())).into())
    }

    /// Whether it has no network.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any network contains the address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.0.contains(&address))
    }

    /// Whether a network contains every address of its kind.
    #[must_use]
    pub fn contains_everybody(&self) -> bool {
        self.0.iter().any(|network| network.0.prefix_len() == 0)
    }

    /// The networks of both.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        self.0.extend_from_slice(&others.0);
        self
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        texts.iter().map(|text| text.parse::<Network>().unwrap()).collect()
    }

    #[test]
    fn addresses_are_matched_by_prefix_and_mapped_ones_are_ipv4() {
        let github = networks(&["192.30.252.0/22", "2606:50c0::/32", "198.51.100.7"]);
        for inside in ["192.30.252.0", "192.30.255.255", "::ffff:192.30.253.1", "2606:50c0::1", "198.51.100.7"] {
            assert!(github.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["192.31.0.0", "198.51.100.8", "2606:50c1::1", "::ffff:198.51.100.8", "::192.30.252.1"] {
            assert!(!github.contains(outside.parse().unwrap()), "{outside}");
        }
        let mapped = networks(&["::ffff:192.0.2.0/120"]);
        assert_eq!(mapped, networks(&["192.0.2.0/24"]));
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_right_one() {
        for text in ["", "github.com", "192.30.252.0/33", "192.30.252/22", "::ffff:0.0.0.0/90", "192.30.252.0/22 "] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork::Form), "{text}");
        }
        let error = "192.30.253.5/22".parse::<Network>().unwrap_err().to_string();
        assert!(error.contains("which is 192.30.252.0/22"), "{error}");
    }

    #[test]
    fn a_network_of_everybody_is_known() {
        assert!(networks(&["192.0.2.0/24", "0.0.0.0/0"]).contains_everybody());
        assert!(!networks(&["10.0.0.0/8"]).contains_everybody());
    }
}
