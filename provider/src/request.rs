//! A request as it would be sent, without the credential: the sender adds it, and only when the
//! request goes to the host that it belongs to.

use crate::description::{Dedupe, Encoding, Method, Provider};
use crate::operation::Call;
use crate::template::{Into, Scope};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use url::Url;

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// Headers besides the credential; they may hold secrets.
    pub headers: Vec<(String, String)>,
    /// Body and its type.
    pub body: Option<(String, Vec<u8>)>,
    /// Whether the credential belongs to this host.
    pub to_provider: bool,
}

/// Headers may hold secrets.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("host", &self.url.host_str())
            .finish_non_exhaustive()
    }
}

/// The request of this call. `{base}` and the like must be in `scope.known`.
///
/// # Errors
/// A sentence: which name is missing, or that there is no URL.
pub fn build(provider: &Provider, call: Call, scope: Scope<'_>) -> Result<Request, String> {
    let submit = &provider.submit;
    let (method, url, body, encoding) = match call {
        Call::Submit => (submit.method, Some(&submit.url), submit.body.as_ref(), submit.encoding),
        Call::Lookup => {
            let url = submit.lookup.as_ref().map(|lookup| &lookup.url);
            (Method::Get, url, None, Encoding::Json)
        }
        Call::Poll => {
            let poll = provider.poll.as_ref();
            let method = poll.map_or(Method::Get, |poll| poll.method);
            let body = poll.and_then(|poll| poll.body.as_ref());
            (method, poll.map(|poll| &poll.url), body, Encoding::Json)
        }
        Call::Fetch => (Method::Get, provider.result.fetch.as_ref(), None, Encoding::Json),
        Call::Cancel => {
            let cancel = provider.cancel.as_ref();
            let method = cancel.map_or(Method::Post, |cancel| cancel.method);
            (method, cancel.map(|cancel| &cancel.url), None, Encoding::Json)
        }
        Call::Download(_) => {
            let url = provider.download.as_ref().and_then(|download| download.url.as_ref());
            (Method::Get, url, None, Encoding::Json)
        }
    };
    let url = url.ok_or("the description has no such request")?.text(scope, Into::Path)?;
    let mut request = at(provider, method, &url)?;
    if request.to_provider {
        add_headers(provider, call, scope, &mut request)?;
    }
    if let Some(body) = body.map(|body| body.value(scope)).transpose()?.flatten() {
        request.body = Some(encode(encoding, &body, scope)?);
    }
    Ok(request)
}

/// A request for what a provider has named itself, such as the link of a file.
///
/// # Errors
/// A sentence: it is no URL of http or https.
pub fn at(provider: &Provider, method: Method, url: &str) -> Result<Request, String> {
    let url = parse_url(url)?;
    let to_provider = is_of_provider(provider, &url);
    Ok(Request { method, url, headers: Vec::new(), body: None, to_provider })
}

/// A URL that may be asked for.
///
/// # Errors
/// A sentence that tells its scheme and nothing else of it: a link may hold a signature.
pub fn parse_url(text: &str) -> Result<Url, String> {
    const BYTES_MAX: usize = 8 << 10;
    if text.len() > BYTES_MAX {
        return Err(format!("a URL of {} bytes, at most {BYTES_MAX} are taken", text.len()));
    }
    let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
    let scheme = url.scheme();
    if !matches!(scheme, "http" | "https") {
        return Err(format!("a URL of scheme {scheme:?}, only https and http are asked for"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("a URL without a host".to_owned());
    }
    Ok(url)
}

/// Whether the credential of `provider` may be sent with a request to `url`: to the same scheme,
/// host and port as its base, or by https to a host that it names.
#[must_use]
pub fn is_of_provider(provider: &Provider, url: &Url) -> bool {
    let Ok(base) = Url::parse(&provider.base) else { return false };
    let named = provider.hosts.iter().any(|host| url.host_str() == Some(host.as_str()));
    let is_base = base.scheme() == url.scheme()
        && base.host_str() == url.host_str()
        && base.port_or_known_default() == url.port_or_known_default();
    is_base || (named && url.scheme() == "https")
}

fn add_headers(
    provider: &Provider,
    call: Call,
    scope: Scope<'_>,
    request: &mut Request,
) -> Result<(), String> {
    for (name, template) in &provider.headers {
        request.headers.push((name.clone(), template.text(scope, Into::Text)?));
    }
    if call != Call::Submit {
        return Ok(());
    }
    for (name, template) in &provider.submit.headers {
        request.headers.push((name.clone(), template.text(scope, Into::Text)?));
    }
    if let Dedupe::Header { name } = &provider.submit.dedupe {
        let key = scope.known.get("key").cloned().unwrap_or_default();
        request.headers.push((name.clone(), key));
    }
    Ok(())
}

fn encode(encoding: Encoding, body: &Value, scope: Scope<'_>) -> Result<(String, Vec<u8>), String> {
    match encoding {
        Encoding::Json => Ok(("application/json".to_owned(), body.to_string().into_bytes())),
        Encoding::Multipart => {
            let members = body.as_object().ok_or("a multipart body must be a table")?;
            // The key is random, so that no value holds it but one that was made to.
            let boundary = scope.known.get("key").map_or("part", String::as_str);
            let mut text = String::new();
            for (name, value) in members {
                let value = crate::template::plain_text(value).unwrap_or_else(|| value.to_string());
                if value.contains(boundary) || name.contains(['"', '\r', '\n']) {
                    return Err("a part of a multipart body cannot be sent as it is".to_owned());
                }
                let _ = write!(
                    text,
                    "--{boundary}\r\nContent-Disposition: form-data; \
                     name=\"{name}\"\r\n\r\n{value}\r\n"
                );
            }
            let _ = write!(text, "--{boundary}--\r\n");
            Ok((format!("multipart/form-data; boundary={boundary}"), text.into_bytes()))
        }
    }
}

impl Request {
    /// SHA-256 of what is asked for and sent, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.method.as_str());
        hasher.update(self.url.as_str());
        hasher.update(self.body.as_ref().map_or(&[][..], |(_, bytes)| bytes));
        let mut text = String::new();
        for byte in hasher.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}
