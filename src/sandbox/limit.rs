//! The rate limit: a leaky bucket, as people who met Drata's describe it.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

#[derive(Debug)]
pub(super) struct Limit {
    bucket: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Limit {
    /// So many requests at once, leaking away evenly over a minute.
    pub(super) fn per_minute(requests: NonZeroU32) -> Self {
        Self { bucket: RateLimiter::direct(Quota::per_minute(requests)), clock: DefaultClock::default() }
    }

    /// Lets a request in, or says how long until one would be.
    pub(super) fn admit(&self) -> Result<(), Duration> {
        self.bucket.check().map_err(|until| until.wait_time_from(self.clock.now()))
    }
}
