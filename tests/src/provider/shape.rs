//! How each provider speaks: where requests go, and what the answers look like.

mod told;

use super::tokens::google::TOKEN;
use serde_json::{Value, json};

const VEO_SUBMIT: &str =
    "v1/projects/p/locations/us-central1/publishers/google/models/veo-x:predictLongRunning";
const VEO_POLL: &str =
    "v1/projects/p/locations/us-central1/publishers/google/models/veo-x:fetchPredictOperation";

/// A provider's way of speaking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the providers' names")]
pub enum Shape {
    Generic,
    Replicate,
    Fal,
    Gemini,
    Runway,
    Kling,
    OpenAi,
    Leonardo,
    Bria,
    Seedance,
    /// Speaks TLS alone, and wants a token of a service account: not among [`Shape::ALL`].
    Veo,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Submit,
    Lookup,
    Poll(String),
    Result(String),
    Cancel(String),
    File(String),
    /// Of an account.
    Token,
    Unknown,
}

impl Route {
    /// Whose limit a request of it is under.
    pub(super) const fn class(&self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Lookup | Self::Poll(_) | Self::Result(_) => "poll",
            Self::Cancel(_) => "cancel",
            Self::File(_) => "download",
            Self::Token => "token",
            Self::Unknown => "unknown",
        }
    }
}

/// How an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

/// Paths of a provider; `ID` stands for an operation. Method and path of each request.
struct Paths {
    submit: (&'static str, &'static str),
    poll: &'static str,
    cancel: (&'static str, &'static str),
}

impl Shape {
    /// All that take a secret as it is.
    pub const ALL: [Self; 10] = [
        Self::Generic,
        Self::Replicate,
        Self::Fal,
        Self::Gemini,
        Self::Runway,
        Self::Kling,
        Self::OpenAi,
        Self::Leonardo,
        Self::Bria,
        Self::Seedance,
    ];

    /// Its word, that of its description.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Replicate => "replicate",
            Self::Fal => "fal",
            Self::Gemini => "gemini",
            Self::Runway => "runway",
            Self::Kling => "kling",
            Self::OpenAi => "openai",
            Self::Leonardo => "leonardo",
            Self::Bria => "bria",
            Self::Seedance => "seedance",
            Self::Veo => "veo",
        }
    }

    /// The shape of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Veo]).find(|shape| shape.name() == name)
    }

    /// The input of a job that carries `tag` and `mode`.
    #[must_use]
    pub fn input(self, tag: &str, mode: &str) -> Value {
        let params = json!({ "tag": tag, "mode": mode, "prompt": "a cat" });
        let prompt = json!({ "prompt": format!("{tag} {mode}") });
        match self {
            Self::Generic | Self::OpenAi | Self::Leonardo | Self::Bria | Self::Seedance => params,
            Self::Replicate => json!({ "model": "acme/film", "params": params }),
            Self::Fal => json!({ "app": "fal-ai/film", "params": params }),
            Self::Gemini => json!({ "model": "veo-x", "instances": [params] }),
            Self::Veo => json!({ "project": "p", "model": "veo-x", "instances": [params] }),
            Self::Runway => json!({ "endpoint": "text_to_video", "params": params }),
            Self::Kling => json!({ "task": "text2video", "params": prompt }),
        }
    }

    /// The names of the secrets that its description asks for.
    #[must_use]
    pub const fn secrets(self) -> &'static [&'static str] {
        match self {
            Self::Generic => &["GENERIC_API_KEY"],
            Self::Replicate => &["REPLICATE_API_TOKEN"],
            Self::Fal => &["FAL_KEY"],
            Self::Gemini => &["GEMINI_API_KEY"],
            Self::Runway => &["RUNWAYML_API_SECRET"],
            Self::Kling => &["KLING_ACCESS_KEY", "KLING_SECRET_KEY"],
            Self::OpenAi => &["OPENAI_API_KEY"],
            Self::Leonardo => &["LEONARDO_API_KEY"],
            Self::Bria => &["BRIA_API_TOKEN"],
            Self::Seedance => &["ARK_API_KEY"],
            Self::Veo => &["GOOGLE_SERVICE_ACCOUNT"],
        }
    }

    /// Whether a header proves who asks; the secret is always `sk-simulated`.
    pub(super) fn is_proved<'a>(self, header: impl Fn(&str) -> &'a str) -> bool {
        let bearer = header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        match self {
            Self::Fal => header("authorization") == "Key sk-simulated",
            Self::Gemini => header("x-goog-api-key") == "sk-simulated",
            Self::Bria => header("api_token") == "sk-simulated",
            Self::Runway => bearer == "sk-simulated" && header("x-runway-version") == "2024-11-06",
            // A token of three parts; that its signature is right is the worker's own test.
            Self::Kling => bearer.split('.').count() == 3,
            Self::Veo => bearer.starts_with(TOKEN),
            Self::Generic | Self::Replicate | Self::OpenAi | Self::Leonardo | Self::Seedance => {
                bearer == "sk-simulated"
            }
        }
    }

    const fn paths(self) -> Paths {
        const NONE: (&str, &str) = ("-", "-");
        let (submit, poll, cancel) = match self {
            Self::Generic => {
                let one = "v1/operations/ID";
                (("POST", "v1/operations"), one, ("DELETE", one))
            }
            Self::Replicate => (
                ("POST", "v1/models/acme/film/predictions"),
                "v1/predictions/ID",
                ("POST", "v1/predictions/ID/cancel"),
            ),
            Self::Fal => (
                ("POST", "fal-ai/film"),
                "fal-ai/film/requests/ID/status",
                ("PUT", "fal-ai/film/requests/ID/cancel"),
            ),
            Self::Gemini => (
                ("POST", "v1beta/models/veo-x:predictLongRunning"),
                "v1beta/models/veo-x/operations/ID",
                NONE,
            ),
            // Polled by a POST that names the operation in its body.
            Self::Veo => (("POST", VEO_SUBMIT), "-", NONE),
            Self::Runway => {
                (("POST", "v1/text_to_video"), "v1/tasks/ID", ("DELETE", "v1/tasks/ID"))
            }
            Self::Kling => (("POST", "v1/videos/text2video"), "v1/videos/text2video/ID", NONE),
            Self::OpenAi => (("POST", "v1/videos"), "v1/videos/ID", ("DELETE", "v1/videos/ID")),
            Self::Leonardo => (("POST", "generations"), "generations/ID", NONE),
            Self::Bria => (("POST", "v2/image/edit/remove_background"), "v2/status/ID", NONE),
            Self::Seedance => {
                let one = "contents/generations/tasks/ID";
                (("POST", "contents/generations/tasks"), one, ("DELETE", one))
            }
        };
        Paths { submit, poll, cancel }
    }

    pub(super) fn route(self, method: &str, path: &str, body: &[u8]) -> Route {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let paths = self.paths();
        let path = path.trim_start_matches('/');
        let is = |wanted: (&str, &str)| method == wanted.0 && path == wanted.1;
        let id_in = |wanted: &str| {
            let (before, after) = wanted.split_once("ID")?;
            let id = path.strip_prefix(before)?.strip_suffix(after)?;
            (!id.is_empty() && !id.contains('/')).then(|| id.to_owned())
        };
        if let Some(name) = path.strip_prefix("files/").filter(|_| method == "GET") {
            return Route::File(name.to_owned());
        }
        if let Some(id) = id_in("v1/videos/ID/content").filter(|_| self == Self::OpenAi) {
            return Route::File(id);
        }
        if is(paths.submit) {
            return Route::Submit;
        }
        if self == Self::Veo {
            return match path {
                VEO_POLL if method == "POST" => told::veo_operation(body).map(Route::Poll),
                "token" if method == "POST" => Some(Route::Token),
                _ => None,
            }
            .unwrap_or(Route::Unknown);
        }
        if self == Self::Kling && is(("GET", paths.submit.1)) && !query.is_empty() {
            return Route::Lookup;
        }
        if method == paths.cancel.0
            && let Some(id) = id_in(paths.cancel.1)
        {
            return Route::Cancel(id);
        }
        if method == "GET" {
            let result = id_in("fal-ai/film/requests/ID").filter(|_| self == Self::Fal);
            let poll = || id_in(paths.poll).map(Route::Poll);
            return result.map(Route::Result).or_else(poll).unwrap_or(Route::Unknown);
        }
        Route::Unknown
    }
}
