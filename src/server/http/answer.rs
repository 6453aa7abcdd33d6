//! From a request to its answer.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use subtle::ConstantTimeEq;
use tokio::sync::OwnedSemaphorePermit;

use super::body::Body;
use super::negotiate::{self, Media};
use super::{Settings, page, parameters};
use crate::connections::{Query, QueryError};
use crate::exposition::{HealthReport, connections, json, openmetrics, text};
use crate::sampler::{ConnectionsError, SampleError};
use crate::server::Context;
use crate::snapshot::Snapshot;

/// What there is beside the metrics, whose path is configured.
pub(super) const FIXED_PATHS: [(&str, Page); 7] = [
    ("/", Page::Index),
    ("/health", Page::Probe(|report| report.ready)),
    ("/readiness", Page::Probe(|report| report.ready)),
    ("/liveness", Page::Probe(|report| report.alive)),
    ("/api/v1/stats", Page::Stats),
    ("/api/v1/connections", Page::Connections),
    ("/api/v1/modules", Page::Modules),
];

#[derive(Debug, Clone, Copy)]
pub(super) enum Page {
    Index,
    Metrics,
    Stats,
    Connections,
    Modules,
    /// Health in full; the function says whether the answer is 200.
    Probe(fn(&HealthReport) -> bool),
}

/// What a body can be written as.
#[derive(Debug, Clone, Copy)]
enum Format {
    Html,
    Text,
    OpenMetrics,
    Json,
}

const HTML: (Media, Format) = (Media { kind: "text", subtype: "html", version: None }, Format::Html);
const TEXT: (Media, Format) = (Media { kind: "text", subtype: "plain", version: Some("0.0.4") }, Format::Text);
const OPEN_METRICS: (Media, Format) =
    (Media { kind: "application", subtype: "openmetrics-text", version: Some("1.0.0") }, Format::OpenMetrics);
const JSON: (Media, Format) = (Media { kind: "application", subtype: "json", version: None }, Format::Json);

impl Page {
    /// The first is for those who do not mind.
    fn formats(self) -> &'static [(Media, Format)] {
        match self {
            Page::Index => &[HTML],
            Page::Metrics => &[TEXT, OPEN_METRICS],
            Page::Stats | Page::Connections | Page::Modules | Page::Probe(_) => &[JSON],
        }
    }
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Format::Html => "text/html; charset=utf-8",
            Format::Text => text::CONTENT_TYPE,
            Format::OpenMetrics => openmetrics::CONTENT_TYPE,
            Format::Json => json::CONTENT_TYPE,
        }
    }
}

/// An answer that is not what was asked for.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: String,
    header: Option<(hyper::header::HeaderName, &'static str)>,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Refusal {
        Refusal { status, error: error.into(), header: None }
    }
}

impl From<SampleError> for Refusal {
    fn from(error: SampleError) -> Self {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<ConnectionsError> for Refusal {
    fn from(error: ConnectionsError) -> Self {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

/// What all connections share.
pub(super) struct Server {
    pub(super) settings: Settings,
    pub(super) context: Arc<Context>,
}

impl Server {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let mut response = self.respond(&request).await.unwrap_or_else(refuse);
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Labels may hold whatever a process calls itself; no browser shall take it for a script.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(response)
    }

    async fn respond(&self, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Refusal> {
        let (uri, headers) = (request.uri(), request.headers());
        let page = self.page(uri.path())?;
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let error = format!("{} is not possible here", request.method());
            let header = Some((ALLOW, "GET, HEAD"));
            return Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, error, header });
        }
        if !matches!(page, Page::Probe(_)) {
            self.authorize(headers)?;
        }
        let parameters = uri.query().unwrap_or("");
        let query = match page {
            Page::Connections => Some(parameters::query(parameters)?),
            _ => no_parameters(parameters).map(|()| None)?,
        };
        let Some(&format) = negotiate::media(headers, page.formats()) else {
            let offers: Vec<_> = page.formats().iter().map(|(_, format)| format.content_type()).collect();
            let error = format!("Accept allows none of: {}", offers.join("; or "));
            return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, error));
        };
        let gzip = negotiate::gzip(headers);
        let (status, bytes, packed) = match query {
            Some(query) => self.connections(query, gzip).await?,
            None => self.content(page, format, gzip).await?,
        };

        let mut response = Response::new(Full::new(bytes));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if packed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }

    fn page(&self, path: &str) -> Result<Page, Refusal> {
        if path == self.settings.metrics_path {
            return Ok(Page::Metrics);
        }
        let fixed = FIXED_PATHS.iter().find(|(known, _)| *known == path);
        fixed.map(|(_, page)| *page).ok_or_else(|| {
            let error = format!("there is no {path:?}; / lists what there is");
            Refusal::new(StatusCode::NOT_FOUND, error)
        })
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.settings.token else { return Ok(()) };
        let shown = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
        if shown.is_some_and(|shown| bool::from(shown.ct_eq(&token.0))) {
            return Ok(());
        }
        let error = "the request needs the bearer token".to_owned();
        Err(Refusal { status: StatusCode::UNAUTHORIZED, error, header: Some((WWW_AUTHENTICATE, "Bearer")) })
    }

    /// Status, bytes, and whether they are compressed.
    async fn content(&self, page: Page, format: Format, gzip: bool) -> Result<Content, Refusal> {
        if let Page::Probe(passes) = page {
            let report = self.context.probe.report().await;
            let status = if passes(&report) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let mut body = Body::new(gzip);
            json::health(&report, &mut body)?;
            let (bytes, packed) = body.finish()?;
            return Ok((status, bytes.into(), packed));
        }
        let snapshot = self.context.snapshot().await?;
        let metrics_path = self.settings.metrics_path.clone();
        let encoder = move |snapshot: &Arc<Snapshot>| -> io::Result<_> {
            let mut body = Body::new(gzip);
            match (page, format) {
                (Page::Index, _) => page::write(snapshot, &metrics_path, &mut body),
                (Page::Stats, _) => json::stats(snapshot, &mut body),
                (Page::Modules, _) => json::modules(snapshot, &mut body),
                (_, Format::OpenMetrics) => openmetrics::encode(snapshot, &mut body),
                (_, _) => text::encode(snapshot, &mut body),
            }?;
            body.finish()
        };
        let (bytes, packed) = self.context.encode(snapshot, encoder).await?;
        Ok((StatusCode::OK, bytes.into(), packed))
    }

    async fn connections(&self, query: Query, gzip: bool) -> Result<Content, Refusal> {
        let (listing, room) = self.context.connections(query).await?;
        let (bytes, packed) = self
            .context
            .encode_listing(listing, move |listing| {
                let mut body = Body::new(gzip);
                connections::json(listing, &mut body)?;
                body.finish()
            })
            .await
            .map_err(Refusal::from)?;
        // What takes room takes it until it is sent.
        Ok((StatusCode::OK, Bytes::from_owner(Held { bytes, _room: room }), packed))
    }
}

/// Status, bytes, and whether they are compressed.
type Content = (StatusCode, Bytes, bool);

/// Bytes that count against a bound for as long as they are there.
struct Held {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn no_parameters(query: &str) -> Result<(), Refusal> {
    match query.split(['&', '=']).next() {
        None | Some("") if query.is_empty() => Ok(()),
        name => {
            let error = format!("there is no parameter {:?} here", name.unwrap_or_default());
            Err(Refusal::new(StatusCode::BAD_REQUEST, error))
        }
    }
}

fn refuse(Refusal { status, error, header }: Refusal) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": error }).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(json::CONTENT_TYPE));
    if let Some((name, value)) = header {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
