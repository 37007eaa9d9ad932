//! How many of something each address has: one address may only have its share.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many bits of an IPv6 address are its network's: whoever has one of its addresses has all of them.
const NETWORK_BITS: u32 = 64;

/// The counts of all addresses that have any.
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Shares {
    pub(super) fn new(most: usize) -> Self {
        Self { most, counts: Mutex::default() }
    }

    /// The most that one address may have.
    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// Counts one more for the address, unless it has its share.
    pub(super) fn take(&self, address: IpAddr) -> Option<Share<'_>> {
        let taken = self.add(address, 1, self.most);
        taken.then_some(Share { shares: self, address })
    }

    /// Counts so many more for the address, unless it had more than `most` then. They must be
    /// [given back](Self::give_back).
    pub(super) fn add(&self, address: IpAddr, more: usize, most: usize) -> bool {
        let mut counts = self.counts();
        let holder = holder(address);
        let has = counts.get(&holder).copied().unwrap_or(0);
        let will_have = has.checked_add(more).filter(|count| *count <= most);
        if let Some(count) = will_have {
            counts.insert(holder, count);
        }
        will_have.is_some()
    }

    pub(super) fn give_back(&self, address: IpAddr, less: usize) {
        let mut counts = self.counts();
        let holder = holder(address);
        if let Some(count) = counts.get_mut(&holder) {
            *count = count.saturating_sub(less);
            if *count == 0 {
                counts.remove(&holder);
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Held for a few instructions that can't panic, so a poisoned lock holds sound data.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that is counted for an address until it is dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    shares: &'a Shares,
    address: IpAddr,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.shares.give_back(self.address, 1);
    }
}

/// Whom an address belongs to: itself, or the network of an IPv6 address.
pub(super) fn holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) >> (Ipv6Addr::BITS - NETWORK_BITS) << (Ipv6Addr::BITS - NETWORK_BITS);
            IpAddr::V6(network.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_gets_its_share_and_no_more_until_it_gives_back() {
        let shares = Shares::new(2);
        let first = shares.take(ip("192.0.2.1")).unwrap();
        let _second = shares.take(ip("::ffff:192.0.2.1")).unwrap();
        assert!(shares.take(ip("192.0.2.1")).is_none());
        assert!(shares.take(ip("192.0.2.2")).is_some(), "another one has its own");
        drop(first);
        assert!(shares.take(ip("192.0.2.1")).is_some());
        drop(_second);
        assert!(!shares.add(ip("192.0.2.3"), 3, 2));
        assert!(shares.counts().is_empty(), "who has none isn't kept");
    }

    #[test]
    fn an_ipv6_network_is_one_holder() {
        let shares = Shares::new(1);
        let _one = shares.take(ip("2001:db8:0:1::1")).unwrap();
        assert!(shares.take(ip("2001:db8:0:1:ffff::2")).is_none());
        assert!(shares.take(ip("2001:db8:0:2::1")).is_some());
    }
}
