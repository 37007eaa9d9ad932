//! An own, modest pace of requests that change something, so that a provider needn't refuse them.

use std::collections::VecDeque;

use tokio::time::{Instant, sleep_until};

use crate::provider::recover::Pace;

/// When requests went out lately.
#[derive(Debug)]
pub(super) struct Paced {
    pace: Pace,
    sent: VecDeque<Instant>,
}

impl Paced {
    pub(super) const fn new(pace: Pace) -> Self {
        Self { pace, sent: VecDeque::new() }
    }

    /// Waits until another request may go out.
    pub(super) async fn turn(&mut self) {
        if self.sent.len() >= self.pace.requests
            && let Some(first) = self.sent.pop_front()
        {
            sleep_until(first + self.pace.per).await;
        }
        self.sent.push_back(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_go_out_in_any_such_time() {
        let mut paced = Paced::new(Pace { requests: 3, per: Duration::from_secs(60) });
        let began = Instant::now();
        let mut at = Vec::new();
        for _ in 0..7 {
            paced.turn().await;
            at.push(began.elapsed().as_secs());
        }
        assert_eq!(at, [0, 0, 0, 60, 60, 60, 120]);
    }
}
