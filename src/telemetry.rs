//! What the server says of itself: its log (set up here, once), how its requests fare ([`Requests`]), and the
//! text that Prometheus reads ([`Exposition`]).

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::config::{LogFormat, Telemetry};
use crate::error::{Error, Result};

/// Sets up the log on stderr. A second call in one process changes nothing.
pub fn start_log(config: &Telemetry) -> Result<()> {
    let level: LevelFilter = config.log.parse().map_err(|_| {
        Error::bad_request(format!("telemetry.log: {:?} is not a level", config.log)).hint("error, warn, info, debug or trace")
    })?;
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    let _already = match config.log_format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    Ok(())
}

/// Upper bounds of the latency buckets, in microseconds.
const BUCKETS: [u64; 12] = [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000];

/// Requests answered, by class of status, and how long they took.
#[derive(Default)]
pub struct Requests {
    by_class: [AtomicU64; 5],
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Requests {
    pub fn answered(&self, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.by_class[class].fetch_add(1, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BUCKETS.partition_point(|&bound| bound < micros)].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    pub fn expose(&self, to: &mut Exposition) {
        to.family("tenantry_http_requests_total", "counter", "Requests answered, by class of status.");
        for (class, count) in (1..).zip(&self.by_class) {
            to.sample("tenantry_http_requests_total", &format!("{{class=\"{class}xx\"}}"), count.load(Relaxed));
        }
        let name = "tenantry_http_request_seconds";
        to.family(name, "histogram", "Time from a request's head to its answer.");
        let mut sum = 0;
        for (bound, count) in BUCKETS.iter().zip(&self.buckets) {
            sum += count.load(Relaxed);
            to.sample(&format!("{name}_bucket"), &format!("{{le=\"{}\"}}", *bound as f64 / 1e6), sum);
        }
        sum += self.buckets[BUCKETS.len()].load(Relaxed);
        to.sample(&format!("{name}_bucket"), "{le=\"+Inf\"}", sum);
        to.sample(&format!("{name}_sum"), "", self.micros.load(Relaxed) as f64 / 1e6);
        to.sample(&format!("{name}_count"), "", sum);
    }
}

/// Prometheus' text format, being written.
#[derive(Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// `labels` with their braces, or empty.
    pub fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    /// A family of one sample.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let requests = Requests::default();
        requests.answered(200, Duration::from_micros(250));
        requests.answered(404, Duration::from_millis(3));
        requests.answered(503, Duration::from_secs(60));
        let mut exposition = Exposition::default();
        requests.expose(&mut exposition);
        let text = exposition.into_text();
        for line in [
            "tenantry_http_requests_total{class=\"4xx\"} 1",
            "tenantry_http_request_seconds_bucket{le=\"0.00025\"} 1",
            "tenantry_http_request_seconds_bucket{le=\"0.005\"} 2",
            "tenantry_http_request_seconds_bucket{le=\"+Inf\"} 3",
            "tenantry_http_request_seconds_count 3",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
