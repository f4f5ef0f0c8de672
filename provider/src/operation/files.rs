//! Results: what an answer holds, and the files behind its links.

use super::{Call, Ending, Now, Operation, Step};
use serde_json::{Map, Value, json};

/// Most items of one result; more are left out.
const ITEMS_MAX: usize = 256;

/// Largest part of an answer that is kept in a job's result, bytes.
const VALUE_BYTES_MAX: usize = 256 << 10;

/// One item of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A link to a file.
    Link(Link),
    /// The file itself, in base64.
    Inline(String),
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link(pub String);

/// A file that was downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDone {
    /// Where it is.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// The link has expired: another poll may bring a new one.
    Expired(String),
    /// Another try may succeed.
    Trouble(String),
    /// No other try would.
    Final(String),
}

impl Operation {
    /// An answer that says what came of it.
    pub(super) fn on_result(&mut self, now: Now, body: &Value, out: &mut Vec<Step>) {
        let result = &self.provider.result;
        let found = match result.items.as_ref().and_then(|pointer| pointer.find(body)) {
            Some(Value::Array(items)) => items.iter().take(ITEMS_MAX).collect(),
            Some(one) => vec![one],
            None => Vec::new(),
        };
        let items: Vec<Item> = found.into_iter().filter_map(|item| self.item_of(item)).collect();
        if items.len() < result.require as usize {
            let reason = result.reason.iter().find_map(|pointer| pointer.find(body));
            let reason = reason.map_or_else(|| "no reason is given".to_owned(), Value::to_string);
            let (has, wants) = (items.len(), result.require);
            let text = format!(
                "{} says that it is done, with {has} results where {wants} were wanted: {}",
                self.provider.name,
                super::cut(&reason, super::TEXT_BYTES_MAX)
            );
            return self.fail_for_good(text, out);
        }
        let value = result.value.as_ref().and_then(|pointer| pointer.find(body)).cloned();
        if let Some(value) = &value {
            let bytes = value.to_string().len();
            if bytes > VALUE_BYTES_MAX {
                let text = format!("a result of {bytes} bytes, at most {VALUE_BYTES_MAX} are kept");
                return self.fail(text, out);
            }
        }
        self.cost = result.cost.as_ref().and_then(|pointer| pointer.find(body)).cloned();
        self.value = value;
        self.items = items;
        self.tries = 0;
        // After a renewal the files that are there stay.
        self.next_file(now, out);
    }

    fn item_of(&self, item: &Value) -> Option<Item> {
        let result = &self.provider.result;
        if let Some(url) = result.url.find(item).and_then(Value::as_str) {
            return Some(Item::Link(Link(url.to_owned())));
        }
        let inline = result.inline.as_ref()?.find(item)?.as_str()?;
        Some(Item::Inline(inline.to_owned()))
    }

    fn next_file(&mut self, now: Now, out: &mut Vec<Step>) {
        let at = self.files.len();
        let downloads = self.wants_files && self.provider.download.is_some();
        if downloads && at < self.items.len() {
            self.wait(Call::Download(at), now.at, out);
        } else {
            let result = self.result();
            self.finish(Ending::Done(result), out);
        }
    }

    pub(super) fn on_downloaded(
        &mut self,
        now: Now,
        at: usize,
        done: Result<FileDone, FileError>,
        out: &mut Vec<Step>,
    ) {
        let limits = self.provider.download.clone().unwrap_or_default();
        match done {
            Ok(file) => {
                self.files.push(file);
                self.tries = 0;
                self.last_error.clear();
                self.next_file(now, out);
            }
            Err(FileError::Final(why)) => self.fail(why, out),
            Err(FileError::Expired(why)) if self.provider.poll.is_some() => {
                self.renewals += 1;
                self.last_error.clone_from(&why);
                if self.renewals > limits.renewals {
                    self.fail(format!("its links expired {} times: {why}", self.renewals), out);
                } else {
                    self.wait(Call::Poll, now.at, out);
                }
            }
            Err(FileError::Expired(why) | FileError::Trouble(why)) => {
                self.tries += 1;
                self.last_error.clone_from(&why);
                if self.tries >= limits.attempts {
                    let message = format!("cannot download after {} tries: {why}", self.tries);
                    // The next attempt polls and downloads again; it pays nothing.
                    self.finish(Ending::Failed { permanent: false, message }, out);
                } else {
                    let delay = self.delay(self.tries);
                    self.wait(Call::Download(at), now.at + delay, out);
                }
            }
        }
    }

    fn result(&self) -> Value {
        let mut result = Map::new();
        result.insert("provider".to_owned(), json!(self.provider.name));
        if let Some(id) = self.record.known.get("id") {
            result.insert("operation".to_owned(), json!(id));
        }
        result.insert("polls".to_owned(), json!(self.polls));
        let files = self.files.iter().map(|file| json!({"path": file.path, "bytes": file.bytes}));
        let files: Vec<Value> = files.collect();
        if !files.is_empty() {
            result.insert("files".to_owned(), Value::Array(files));
        }
        let links = self.items.iter().filter_map(|item| match item {
            Item::Link(Link(url)) => Some(json!(url)),
            Item::Inline(_) => None,
        });
        let links: Vec<Value> = links.collect();
        if !links.is_empty() {
            result.insert("links".to_owned(), Value::Array(links));
        }
        let others = [("value", &self.value), ("cost", &self.cost)];
        for (name, value) in others {
            if let Some(value) = value {
                result.insert(name.to_owned(), value.clone());
            }
        }
        Value::Object(result)
    }
}
