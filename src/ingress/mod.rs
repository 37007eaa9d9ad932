//! Ingress.

/// X
#[derive(Clone, Debug)]
pub struct Settings {
    pub max_body: usize,
    pub body_budget: usize,
    pub small_reserve: usize,
    pub max_in_flight: usize,
    pub max_connections: usize,
    pub header_timeout: std::time::Duration,
    pub body_timeout: std::time::Duration,
    pub least_rate: usize,
    pub request_timeout: std::time::Duration,
    pub shutdown_grace: std::time::Duration,
}
