//! What each provider answers, and what it reads of a submission.

use super::{Shape, State};
use serde_json::{Value, json};

const VEO_OPERATIONS: &str =
    "projects/p/locations/us-central1/publishers/google/models/veo-x/operations/";

/// The operation that a poll of Veo's is about.
pub(super) fn veo_operation(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(body["operationName"].as_str()?.strip_prefix(VEO_OPERATIONS)?.to_owned())
}

/// What a submission says.
#[derive(Debug, Default)]
pub(in crate::provider) struct Asked {
    pub(in crate::provider) tag: String,
    pub(in crate::provider) mode: String,
    /// Names the operation to the provider, where it knows such keys.
    pub(in crate::provider) key: String,
}

impl Shape {
    /// Reads the body of a submission.
    pub(in crate::provider) fn read(self, body: &[u8], idempotency_key: &str) -> Asked {
        let key = idempotency_key.to_owned();
        if self == Self::OpenAi {
            let text = String::from_utf8_lossy(body);
            let part = |name: &str| {
                let rest = text.split(&format!("name=\"{name}\"\r\n\r\n")).nth(1);
                rest.and_then(|rest| rest.split("\r\n").next()).unwrap_or_default().to_owned()
            };
            return Asked { tag: part("tag"), mode: part("mode"), key };
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if self == Self::Kling {
            let prompt = body["prompt"].as_str().unwrap_or_default();
            let (tag, mode) = prompt.split_once(' ').unwrap_or((prompt, ""));
            let key = body["external_task_id"].as_str().unwrap_or_default().to_owned();
            return Asked { tag: tag.to_owned(), mode: mode.to_owned(), key };
        }
        let params = match self {
            Self::Generic | Self::Replicate => &body["input"],
            Self::Gemini | Self::Veo => &body["instances"][0],
            _ => &body,
        };
        let text = |name: &str| params[name].as_str().unwrap_or_default().to_owned();
        Asked { tag: text("tag"), mode: text("mode"), key }
    }

    pub(in crate::provider) fn accepted(self, base: &str, id: &str) -> (u16, Value) {
        let body = match self {
            Self::Generic => return (202, json!({ "id": id, "status": "queued" })),
            Self::Replicate => return (201, json!({ "id": id, "status": "starting" })),
            Self::Fal => {
                let at = format!("{base}/fal-ai/film/requests/{id}");
                json!({
                    "request_id": id, "response_url": at, "status_url": format!("{at}/status"),
                    "cancel_url": format!("{at}/cancel"), "queue_position": 0,
                })
            }
            Self::Gemini => json!({ "name": format!("models/veo-x/operations/{id}") }),
            Self::Veo => json!({ "name": format!("{VEO_OPERATIONS}{id}") }),
            Self::Kling => json!({ "code": 0, "data": { "task_id": id } }),
            Self::Leonardo => json!({ "sdGenerationJob": { "generationId": id } }),
            Self::Bria => return (202, json!({ "request_id": id })),
            Self::Runway | Self::OpenAi | Self::Seedance => json!({ "id": id }),
        };
        (200, body)
    }

    /// The answer to a poll; `links` are the files of one that is done.
    pub(in crate::provider) fn state(self, id: &str, state: State, links: &[String]) -> Value {
        let word = self.word(state);
        let failed = state == State::Failed;
        let reason = if failed { json!({ "message": "out of luck" }) } else { Value::Null };
        let first = links.first();
        let urls: Vec<_> = links.iter().map(|url| json!({ "url": url })).collect();
        match self {
            Self::Generic => {
                json!({ "id": id, "status": word, "files": urls, "progress": 0.5, "cost": 0.07,
                    "error": reason })
            }
            Self::Replicate => {
                let output = if links.is_empty() { Value::Null } else { json!(links) };
                let error = if failed { json!("out of luck") } else { Value::Null };
                json!({ "id": id, "status": word, "output": output, "error": error })
            }
            Self::Fal if failed => json!({ "status": word, "error": "out of luck" }),
            Self::Fal => json!({ "status": word, "queue_position": 0 }),
            Self::Gemini | Self::Veo if failed => {
                json!({ "done": true, "error": { "code": 13, "message": "out of luck" } })
            }
            Self::Gemini if state == State::Done => {
                let samples: Vec<_> =
                    links.iter().map(|uri| json!({ "video": { "uri": uri } })).collect();
                let answer = json!({ "generateVideoResponse": { "generatedSamples": samples } });
                json!({ "done": true, "response": answer })
            }
            Self::Veo if state == State::Done => {
                let video = |url: &String| {
                    let name = url.rsplit('/').next().unwrap_or_default();
                    json!({ "gcsUri": format!("gs://files/{name}"), "mimeType": "video/mp4" })
                };
                let videos: Vec<_> = links.iter().map(video).collect();
                json!({ "name": id, "done": true, "response": { "videos": videos } })
            }
            Self::Gemini | Self::Veo => json!({ "name": id }),
            Self::Runway => json!({ "id": id, "status": word, "progress": 0.5, "output": links,
                "failure": if failed { json!("out of luck") } else { Value::Null } }),
            Self::Kling => json!({ "code": 0, "message": "SUCCEED", "data": {
                "task_id": id, "task_status": word, "task_status_msg": "out of luck",
                "task_result": { "videos": urls } } }),
            Self::OpenAi => json!({ "id": id, "status": word, "progress": 50, "error": reason }),
            Self::Leonardo => json!({ "generations_by_pk": {
                "id": id, "status": word, "generated_images": urls, "apiCreditCost": 3 } }),
            Self::Bria => {
                json!({ "status": word, "result": { "image_url": first }, "error": reason })
            }
            Self::Seedance => json!({ "id": id, "status": word, "content": { "video_url": first },
                "usage": { "total_tokens": 9 }, "error": reason }),
        }
    }

    /// The answer to a request for the result.
    pub(in crate::provider) fn result(self, links: &[String]) -> Value {
        let images: Vec<_> = links.iter().map(|url| json!({ "url": url })).collect();
        json!({ "images": images, "seed": 7 })
    }

    /// The answer to a request for all operations, each with its key.
    pub(in crate::provider) fn list(self, all: &[(String, String)]) -> Value {
        let item = |(id, key): &(String, String)| json!({ "task_id": id, "task_info": { "external_task_id": key } });
        json!({ "code": 0, "data": all.iter().map(item).collect::<Vec<_>>() })
    }

    /// Its words for queued, running, done, failed and cancelled.
    fn word(self, state: State) -> &'static str {
        let words = match self {
            Self::Generic => ["queued", "running", "done", "failed", "cancelled"],
            Self::Replicate => ["starting", "processing", "succeeded", "failed", "canceled"],
            Self::Fal => ["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "COMPLETED", "COMPLETED"],
            Self::Gemini | Self::Veo => ["", "", "", "", ""],
            Self::Runway => ["THROTTLED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"],
            Self::Kling => ["submitted", "processing", "succeed", "failed", "failed"],
            Self::OpenAi => ["queued", "in_progress", "completed", "failed", "cancelled"],
            Self::Leonardo => ["PENDING", "PENDING", "COMPLETE", "FAILED", "FAILED"],
            Self::Bria => ["IN_PROGRESS", "IN_PROGRESS", "COMPLETED", "ERROR", "ERROR"],
            Self::Seedance => ["queued", "running", "succeeded", "failed", "cancelled"],
        };
        match state {
            State::Queued => words[0],
            State::Running => words[1],
            State::Done => words[2],
            State::Failed => words[3],
            State::Cancelled => words[4],
        }
    }
}
