//! Answers requests: `/metrics`, `/healthz` and `/readyz`.

use std::sync::Arc;

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
};

use super::{
    encode::Format,
    flow_counts::Cache,
    health,
    queries::{Query, Reading, RunLoop},
    registry,
    snapshot::Snapshot,
};
use crate::net::interface::Interfaces;

type Answer = Response<Full<Bytes>>;

/// What the pages need to answer.
pub(super) struct Pages {
    pub run_loop: RunLoop,
    pub kernel: Interfaces,
    pub flow_counts: Arc<Cache>,
}

impl Pages {
    pub async fn answer(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
            let text = "not found; the pages are /metrics, /healthz and /readyz\n";
            return plain(StatusCode::NOT_FOUND, text);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(ALLOW, allowed);
            return answer;
        }
        let answer = match path {
            "/metrics" => self.metrics(request).await,
            "/healthz" => self.healthy().await,
            _ => self.ready().await,
        };
        answer.unwrap_or_else(|| {
            let text = "the router's run loop does not answer\n";
            plain(StatusCode::SERVICE_UNAVAILABLE, text)
        })
    }

    async fn metrics(&self, request: &Request<Incoming>) -> Option<Answer> {
        let accept = request.headers().get(ACCEPT);
        let format = Format::accepted(accept.and_then(|it| it.to_str().ok()));
        let text = match self.run_loop.ask(Query::Metrics).await? {
            Ok(Reading { snapshot, tables }) => {
                let snapshot = Snapshot {
                    flow_counts: self.flow_counts.get(tables).await,
                    ..snapshot
                };
                registry::encode(snapshot, format).map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        Some(match text {
            Ok(text) => respond(StatusCode::OK, format.content_type(), text),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error + "\n"),
        })
    }

    async fn healthy(&self) -> Option<Answer> {
        self.run_loop.ask(Query::State).await?;
        Some(plain(StatusCode::OK, "ok\n"))
    }

    async fn ready(&self) -> Option<Answer> {
        let state = self.run_loop.ask(Query::State).await?;
        let reasons = health::reasons(&state, &self.kernel).await;
        Some(if reasons.is_empty() {
            plain(StatusCode::OK, "ready\n")
        } else {
            plain(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
        })
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}
