//! How each provider speaks: where requests go, and what the answers look like.

use serde_json::{Value, json};

/// A provider's way of speaking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the providers' names")]
pub enum Shape {
    Generic,
    Replicate,
    Fal,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Submit,
    Poll(String),
    Result(String),
    Cancel(String),
    File(String),
    Unknown,
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

impl Shape {
    /// All.
    pub const ALL: [Self; 3] = [Self::Generic, Self::Replicate, Self::Fal];

    /// Its word, that of its description.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Replicate => "replicate",
            Self::Fal => "fal",
        }
    }

    /// The shape of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }

    /// The input of a job that carries `tag` and `mode`.
    #[must_use]
    pub fn input(self, tag: &str, mode: &str) -> Value {
        let params = json!({ "tag": tag, "mode": mode, "prompt": "a cat" });
        match self {
            Self::Generic => params,
            Self::Replicate => json!({ "model": "acme/film", "params": params }),
            Self::Fal => json!({ "app": "fal-ai/film", "params": params }),
        }
    }

    /// The names of the secrets that its description asks for.
    #[must_use]
    pub const fn secret(self) -> &'static str {
        match self {
            Self::Generic => "GENERIC_API_KEY",
            Self::Replicate => "REPLICATE_API_TOKEN",
            Self::Fal => "FAL_KEY",
        }
    }

    /// Whether these headers prove who asks; the secret is always `sk-simulated`.
    pub(super) fn is_proved(self, authorization: &str) -> bool {
        match self {
            Self::Generic | Self::Replicate => authorization == "Bearer sk-simulated",
            Self::Fal => authorization == "Key sk-simulated",
        }
    }

    pub(super) fn route(self, method: &str, path: &str) -> Route {
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let id = |text: &str| text.to_owned();
        match (self, method, words.as_slice()) {
            (_, "GET", ["files", name]) => Route::File(id(name)),
            (Self::Generic, "POST", ["v1", "operations"])
            | (Self::Replicate, "POST", ["v1", "models", "acme", "film", "predictions"])
            | (Self::Fal, "POST", ["fal-ai", "film"]) => Route::Submit,
            (Self::Generic, "GET", ["v1", "operations", one])
            | (Self::Replicate, "GET", ["v1", "predictions", one])
            | (Self::Fal, "GET", ["fal-ai", "film", "requests", one, "status"]) => {
                Route::Poll(id(one))
            }
            (Self::Generic, "DELETE", ["v1", "operations", one])
            | (Self::Replicate, "POST", ["v1", "predictions", one, "cancel"])
            | (Self::Fal, "PUT", ["fal-ai", "film", "requests", one, "cancel"]) => {
                Route::Cancel(id(one))
            }
            (Self::Fal, "GET", ["fal-ai", "film", "requests", one]) => Route::Result(id(one)),
            _ => Route::Unknown,
        }
    }

    /// The job's parameters in the body of a submission.
    pub(super) fn params(self, body: &Value) -> &Value {
        match self {
            Self::Generic | Self::Replicate => &body["input"],
            Self::Fal => body,
        }
    }

    pub(super) fn accepted(self, base: &str, id: &str) -> (u16, Value) {
        match self {
            Self::Generic => (202, json!({ "id": id, "status": "queued" })),
            Self::Replicate => (
                201,
                json!({ "id": id, "status": "starting", "urls": {
                    "get": format!("{base}/v1/predictions/{id}"),
                    "cancel": format!("{base}/v1/predictions/{id}/cancel"),
                } }),
            ),
            Self::Fal => {
                let at = format!("{base}/fal-ai/film/requests/{id}");
                let body = json!({
                    "request_id": id, "response_url": at, "status_url": format!("{at}/status"),
                    "cancel_url": format!("{at}/cancel"), "queue_position": 0,
                });
                (200, body)
            }
        }
    }

    /// The answer to a poll; `links` are the files of one that is done.
    pub(super) fn state(self, id: &str, state: State, links: &[String]) -> Value {
        let word = self.word(state);
        match self {
            Self::Generic => {
                let files: Vec<_> = links.iter().map(|url| json!({ "url": url })).collect();
                json!({ "id": id, "status": word, "files": files, "progress": 0.5, "cost": 0.07 })
            }
            Self::Replicate => {
                let output = if links.is_empty() { Value::Null } else { json!(links) };
                let error = if state == State::Failed { json!("out of luck") } else { Value::Null };
                json!({ "id": id, "status": word, "output": output, "error": error })
            }
            Self::Fal if state == State::Failed => {
                json!({ "status": word, "error": "out of luck", "error_type": "internal" })
            }
            Self::Fal => json!({ "status": word, "queue_position": 0 }),
        }
    }

    /// The answer to a request for the result.
    pub(super) fn result(self, links: &[String]) -> Value {
        let images: Vec<_> = links.iter().map(|url| json!({ "url": url })).collect();
        json!({ "images": images, "seed": 7 })
    }

    fn word(self, state: State) -> &'static str {
        match (self, state) {
            (Self::Generic, State::Queued) => "queued",
            (Self::Generic, State::Running) => "running",
            (Self::Generic, State::Done) => "done",
            (Self::Generic | Self::Replicate, State::Failed) => "failed",
            (Self::Generic, State::Cancelled) => "cancelled",
            (Self::Replicate, State::Queued) => "starting",
            (Self::Replicate, State::Running) => "processing",
            (Self::Replicate, State::Done) => "succeeded",
            (Self::Replicate, State::Cancelled) => "canceled",
            (Self::Fal, State::Queued) => "IN_QUEUE",
            (Self::Fal, State::Running) => "IN_PROGRESS",
            (Self::Fal, State::Done | State::Failed | State::Cancelled) => "COMPLETED",
        }
    }
}
