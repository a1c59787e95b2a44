//! Counts what is open per network, so that no client can take so much that others get nothing.
//! What counts as one network: an IPv4 address, the first 64 bits of an IPv6 address.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Parts of the table, each with a lock of its own: two requests rarely meet at one.
const SHARDS: usize = 64;

/// Counts by network. Shared by all workers.
pub struct OpenCounts(Vec<Mutex<HashMap<u128, Arc<AtomicUsize>>>>);

/// Something that is open, until it is dropped.
pub struct OpenGuard(Arc<AtomicUsize>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Default for OpenCounts {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

/// The number of a network.
fn network(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip) >> 64 << 64,
    }
}

impl OpenCounts {
    /// Entries of one shard beyond which unused ones are dropped.
    const MAX_ENTRIES: usize = 1000;

    /// Counts one more; `None` if the network has `most` open already.
    pub fn open(&self, ip: IpAddr, most: usize) -> Option<OpenGuard> {
        let network = network(ip);
        // Fibonacci hashing of both halves: the shard is the product's upper six bits.
        let mixed = (network ^ (network >> 64)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let shard = usize::try_from((mixed >> 58) & 63).unwrap_or(0);
        let mut counts = self.0.get(shard)?.lock();
        if counts.len() >= Self::MAX_ENTRIES {
            counts.retain(|_, count| count.load(Ordering::Acquire) > 0);
        }
        let count = counts.entry(network).or_default();
        if count.fetch_add(1, Ordering::AcqRel) >= most {
            count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(OpenGuard(Arc::clone(count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_is_limited_and_others_are_not() {
        let counts = OpenCounts::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let held: Vec<_> = (0..3)
            .map(|_| counts.open(ip("192.0.2.1"), 3).unwrap())
            .collect();
        assert!(counts.open(ip("192.0.2.1"), 3).is_none());
        assert!(counts.open(ip("::ffff:192.0.2.1"), 3).is_none());
        assert!(counts.open(ip("192.0.2.2"), 3).is_some());
        drop(held);
        assert!(counts.open(ip("192.0.2.1"), 3).is_some());
        let _one = counts.open(ip("2001:db8::1"), 1).unwrap();
        assert!(counts.open(ip("2001:db8::2"), 1).is_none(), "the same /64");
        assert!(counts.open(ip("2001:db8:0:1::1"), 1).is_some());
    }

    #[test]
    fn networks_that_left_are_forgotten() {
        let counts = OpenCounts::default();
        for number in 0..200_000_u32 {
            drop(counts.open(IpAddr::from(number.to_be_bytes()), 1));
        }
        let kept: usize = counts.0.iter().map(|shard| shard.lock().len()).sum();
        assert!(kept <= SHARDS * OpenCounts::MAX_ENTRIES, "{kept}");
    }
}
