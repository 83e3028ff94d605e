//! `/livez`, `/readyz` and `/metrics`.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{lease::Standing, metrics::Metrics};

/// From the first byte of a request to the end of its head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may live: probes and scrapes are short.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections at once.
const MAX_CONNECTIONS: usize = 64;

/// The admin port.
pub struct Admin {
    listener: TcpListener,
    metrics: Metrics,
    standing: watch::Receiver<Standing>,
}

impl Admin {
    /// Binds the port.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn bind(
        address: SocketAddr,
        metrics: Metrics,
        standing: watch::Receiver<Standing>,
    ) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, metrics, standing })
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: trying again at once would spin.
                    tracing::warn!(%error, "a connection to the admin port was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (metrics, standing) = (self.metrics.clone(), self.standing.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.method(), request.uri().path(), &metrics, *standing.borrow());
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                // How a probe's connection ends is nobody's news.
                let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
                drop(place);
            });
        }
    }
}

fn answer(method: &Method, path: &str, metrics: &Metrics, standing: Standing) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
    }
    match path {
        "/livez" => text(StatusCode::OK, "ok\n".into()),
        // A standby is ready too: it has spoken to the API server and takes over when it has to.
        "/readyz" if standing == Standing::Unknown => {
            text(StatusCode::SERVICE_UNAVAILABLE, "the lease has not been read yet\n".into())
        }
        "/readyz" => text(StatusCode::OK, "ok\n".into()),
        "/metrics" => match metrics.text() {
            Ok(body) => text(StatusCode::OK, body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".into()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_the_lease_was_read_and_a_standby_is_ready() {
        let metrics = Metrics::new().unwrap();
        let status = |path: &str, standing| answer(&Method::GET, path, &metrics, standing).status().as_u16();
        assert_eq!(status("/readyz", Standing::Unknown), 503);
        assert_eq!(status("/readyz", Standing::Standby), 200);
        assert_eq!(status("/readyz", Standing::Leader), 200);
        assert_eq!(status("/livez", Standing::Unknown), 200);
        assert_eq!(status("/else", Standing::Leader), 404);
        assert_eq!(answer(&Method::POST, "/livez", &metrics, Standing::Leader).status().as_u16(), 405);
    }

    #[test]
    fn metrics_speak_of_kinds_and_never_of_objects() {
        let metrics = Metrics::new().unwrap();
        metrics.reconcile("MCPServer", "success", 0.1);
        metrics.leader(true);
        let text = metrics.text().unwrap();
        assert!(text.contains(r#"portolan_operator_reconcile_total{kind="MCPServer",outcome="success"} 1"#), "{text}");
        assert!(text.contains("portolan_operator_leader 1"), "{text}");
    }
}
