//! What a gateway counts, as Prometheus would read it.

use std::net::SocketAddr;

use crate::mcp;

/// The metrics of a gateway at one moment.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Reads them at an address; `None` where something else is served there.
    pub async fn read(address: SocketAddr) -> Option<Self> {
        let answer = mcp::http().get(format!("http://{address}/metrics")).send().await.ok()?;
        let text = answer.text().await.ok()?;
        text.contains("portolan_gateway_connections").then_some(Self(text))
    }

    /// The value of one series, which is its name with all of its labels; 0 where it is not there.
    ///
    /// # Panics
    /// It is no number.
    #[must_use]
    pub fn value(&self, series: &str) -> f64 {
        self.values(|name| name == series).next().unwrap_or_default()
    }

    /// How often a bound was hit.
    #[must_use]
    pub fn hits(&self, bound: &str) -> f64 {
        self.value(&format!(r#"portolan_gateway_bound_hits_total{{bound="{bound}"}}"#))
    }

    /// Clients that are connected.
    #[must_use]
    pub fn connections(&self) -> f64 {
        self.value(r#"portolan_gateway_connections{listener="http"}"#)
    }

    /// Sessions that were opened, at any server.
    #[must_use]
    pub fn sessions_opened(&self) -> f64 {
        self.values(|name| name.starts_with("portolan_gateway_sessions_opened_total{")).sum()
    }

    /// Requests that have ended, of those whose series has all of these labels.
    #[must_use]
    pub fn requests(&self, labels: &[&str]) -> f64 {
        let wanted = |name: &str| {
            name.starts_with("portolan_gateway_requests_total{") && labels.iter().all(|label| name.contains(label))
        };
        self.values(wanted).sum()
    }

    fn values(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = f64> {
        let series = self.0.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        series.filter(move |(name, _)| wanted(name)).map(|(_, value)| value.parse().expect("a number"))
    }
}
