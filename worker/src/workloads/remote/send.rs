//! Requests and their answers: one HTTP client per provider, every answer bounded in bytes and
//! time, every address checked, every redirection followed by hand.

use super::credential::{Credentials, Mint, Proof};
use super::download::Throttle;
use super::guard::Guard;
use super::providers::{Providers, tls};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Response};
use shiftboss_provider::description::{Method, Provider};
use shiftboss_provider::hint;
use shiftboss_provider::operation::{Answer, Loss};
use shiftboss_provider::request::{Request, is_of_provider, parse_url};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use url::Url;

/// Longest time for a connection with its handshakes.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Connections that are kept for the next request, and for how long.
const IDLE_MAX: usize = 256;
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Redirections of one request that are followed.
const REDIRECTIONS_MAX: usize = 5;

/// Start of an answer that is no JSON, told to people, bytes.
const SHOWN_BYTES_MAX: usize = 200;

/// How to speak to one provider.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) provider: Arc<Provider>,
    credentials: Arc<Credentials>,
    mint: Mint,
    guard: Guard,
    /// For the downloads of all operations.
    pub(super) throttle: Arc<Throttle>,
}

/// Bounds of one answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes_max: usize,
    pub(super) time_max: Duration,
}

impl Lane {
    pub(super) fn new(
        provider: &Arc<Provider>,
        providers: &Arc<Providers>,
        credentials: &Arc<Credentials>,
    ) -> Result<Self, String> {
        let tls = providers.tls.of(provider)?;
        let guard = Guard::of(provider);
        let rate = provider.download.as_ref().map_or(0, |download| download.rate.0);
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(guard.clone()))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_FOR)
            .user_agent(concat!("shiftboss/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("cannot make an HTTP client: {error}"))?;
        let mint =
            Mint { provider: Arc::clone(provider), providers: Arc::clone(providers), client };
        Ok(Self {
            provider: Arc::clone(provider),
            credentials: Arc::clone(credentials),
            mint,
            guard,
            throttle: Arc::new(Throttle::new(rate)),
        })
    }

    /// Sends a request and reads its answer.
    pub(super) async fn ask(&self, request: Request, bounds: Bounds) -> Result<Answer, Loss> {
        // First: a request that waits for its token in vain was surely not sent.
        let proof = self.proof(&request.url).await?;
        let answered =
            tokio::time::timeout(bounds.time_max, self.ask_on(&request, &proof, bounds.bytes_max));
        answered.await.unwrap_or_else(|_| {
            let why = format!("no whole answer within {} s", bounds.time_max.as_secs());
            Err(Loss { may_have_arrived: true, is_final: false, why })
        })
    }

    /// What proves to this URL's host who asks; nothing where it is not the provider's.
    async fn proof(&self, url: &Url) -> Result<Option<Proof>, Loss> {
        if !is_of_provider(&self.provider, url) {
            return Ok(None);
        }
        let proof = self.credentials.proof(&self.mint).await;
        proof.map_err(|why| Loss { may_have_arrived: false, is_final: false, why })
    }

    async fn ask_on(
        &self,
        request: &Request,
        proof: &Option<Proof>,
        bytes_max: usize,
    ) -> Result<Answer, Loss> {
        let mut response = self.follow(request, &[], proof).await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let find = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let is_refusal = matches!(status, 429 | 503);
        let hint = hint::read(find, is_refusal, SystemTime::now());
        let lost = |error: &reqwest::Error| Loss {
            may_have_arrived: true,
            is_final: false,
            why: format!("the answer broke off: {}", chain(error)),
        };
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error))? {
            if bytes.len() + chunk.len() > bytes_max {
                let unreadable = format!("its body is larger than {bytes_max} bytes");
                return Ok(Answer { status, hint, body: None, unreadable });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(match serde_json::from_slice(&bytes) {
            Ok(body) => Answer { status, hint, body: Some(body), unreadable: String::new() },
            Err(_) => {
                let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
                let unreadable = format!("no JSON: {}", String::from_utf8_lossy(shown).trim());
                Answer { status, hint, body: None, unreadable }
            }
        })
    }

    /// Sends a request, follows where a GET is sent on to, and returns the answer's head.
    pub(super) async fn open(
        &self,
        request: &Request,
        headers: &[(HeaderName, String)],
    ) -> Result<Response, Loss> {
        let proof = self.proof(&request.url).await?;
        self.follow(request, headers, &proof).await
    }

    async fn follow(
        &self,
        request: &Request,
        headers: &[(HeaderName, String)],
        proof: &Option<Proof>,
    ) -> Result<Response, Loss> {
        let never = |why: String| Loss { may_have_arrived: false, is_final: true, why };
        let mut url = request.url.clone();
        for _ in 0..=REDIRECTIONS_MAX {
            self.guard.check(&url).map_err(never)?;
            let response = self.send(request, url.clone(), headers, proof).await?;
            let next = response
                .headers()
                .get(LOCATION)
                .filter(|_| request.method == Method::Get && response.status().is_redirection());
            let Some(next) = next else { return Ok(response) };
            let text = next.to_str().map_err(|_| never("a redirection to no URL".to_owned()))?;
            let next = url.join(text).map_err(|_| never("a redirection to no URL".to_owned()))?;
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err(never("a redirection from https to http".to_owned()));
            }
            url = parse_url(next.as_str()).map_err(|why| never(format!("a redirection: {why}")))?;
        }
        Err(never(format!("more than {REDIRECTIONS_MAX} redirections")))
    }

    async fn send(
        &self,
        request: &Request,
        url: Url,
        headers: &[(HeaderName, String)],
        proof: &Option<Proof>,
    ) -> Result<Response, Loss> {
        let unsent = |is_final: bool, why: String| Loss { may_have_arrived: false, is_final, why };
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut map = HeaderMap::new();
        let of_provider = is_of_provider(&self.provider, &url);
        let fresh = match proof {
            // A redirection has come back to the provider.
            None => self.proof(&url).await?,
            Some(_) => None,
        };
        let proof = proof.as_ref().or(fresh.as_ref()).filter(|_| of_provider);
        // What a description says of headers is for its provider: a redirection may lead away.
        if of_provider {
            for (name, value) in &request.headers {
                put(&mut map, name, value).map_err(|why| unsent(true, why))?;
            }
            if let Some(proof) = proof {
                put(&mut map, &proof.name, &proof.value).map_err(|why| unsent(true, why))?;
            }
        }
        for (name, value) in headers {
            put(&mut map, name.as_str(), value).map_err(|why| unsent(true, why))?;
        }
        let mut building = self.mint.client.request(method, url).headers(map);
        if let Some((kind, bytes)) = &request.body {
            building = building.header("content-type", kind).body(bytes.clone());
        }
        let response = building.send().await.map_err(|error| Loss {
            may_have_arrived: !(error.is_connect() || error.is_builder()),
            is_final: error.is_builder(),
            why: chain(&error),
        })?;
        if let Some(token) = proof.and_then(|proof| proof.token.as_ref()) {
            match response.status().as_u16() {
                401 => self.credentials.refused(&self.provider, token),
                _ => self.credentials.worked(&self.provider, token),
            }
        }
        Ok(response)
    }
}

/// The error and its causes, without the URL: it may hold a signature.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "timed out".to_owned(),
        (false, true) => "cannot connect".to_owned(),
        (false, false) => "the connection failed".to_owned(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    match tls::advice(error) {
        Some(advice) => format!("{text}; {advice}"),
        None => text,
    }
}

fn put(map: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let wrong = || format!("header {name} cannot be sent: its name or value is none of HTTP");
    let key = HeaderName::try_from(name).map_err(|_| wrong())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
    value.set_sensitive(true);
    map.insert(key, value);
    Ok(())
}
