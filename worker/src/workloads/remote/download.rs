//! Files: fetched into a part beside their place, gone on with where a connection broke, checked,
//! synced, renamed.

mod magic;
mod throttle;

pub(super) use throttle::Throttle;

use super::payload::Target;
use super::send::{Lane, chain};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Response;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderName, IF_RANGE, RANGE};
use rustix::fs::OFlags;
use shiftboss_provider::description::{Download, Method};
use shiftboss_provider::operation::{FileDone, FileError, Item};
use shiftboss_provider::request::{self, Request};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes that stay free on the disk.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// What is known of a part that was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// The entity tag that its bytes belong to: without one it is begun again.
    pub(super) etag: Option<String>,
}

/// One file to fetch.
pub(super) struct Errand {
    pub(super) lane: Lane,
    pub(super) item: Item,
    /// What is asked for in the place of the item's link, where the description says so.
    pub(super) url: Option<Request>,
    pub(super) target: Target,
    /// Its place among the files of its operation.
    pub(super) at: usize,
    pub(super) part: Part,
}

/// What came of it, and what the next try goes on with.
pub(super) type Fetched = (Result<FileDone, FileError>, Part);

impl Errand {
    pub(super) async fn run(self) -> Fetched {
        let mut part = self.part.clone();
        let done = self.fetch(&mut part).await;
        if done.is_ok() || matches!(done, Err(FileError::Final(_) | FileError::Expired(_))) {
            part = Part::default();
            let _ = std::fs::remove_file(self.part_path());
        }
        (done, part)
    }

    fn limits(&self) -> Download {
        self.lane.provider.download.clone().unwrap_or_default()
    }

    fn stem(&self) -> String {
        match self.at {
            0 => self.target.name.clone(),
            at => format!("{}-{}", self.target.name, at + 1),
        }
    }

    fn part_path(&self) -> PathBuf {
        self.target.dir.join(format!(".{}.part", self.stem()))
    }

    async fn fetch(&self, part: &mut Part) -> Result<FileDone, FileError> {
        let link = match &self.item {
            Item::Inline(text) => return self.write_inline(text).await,
            Item::Link(link) => &link.0,
        };
        let request = match &self.url {
            Some(request) => request.clone(),
            None => {
                request::at(&self.lane.provider, Method::Get, link).map_err(FileError::Final)?
            }
        };
        let mut file = self.open_part(part.etag.is_some())?;
        let mut had = file.seek(SeekFrom::End(0)).map_err(|error| self.disk(&error))?;
        let mut headers: Vec<(HeaderName, String)> = Vec::new();
        if let (Some(etag), true) = (&part.etag, had > 0) {
            headers.push((RANGE, format!("bytes={had}-")));
            headers.push((IF_RANGE, etag.clone()));
        }
        let response = self.lane.open(&request, &headers).await.map_err(|loss| match loss {
            loss if loss.is_final => {
                FileError::Final(format!("a link leads nowhere: {}", loss.why))
            }
            loss => FileError::Trouble(loss.why),
        })?;
        let is_rest = judge(&response, had)?;
        if !is_rest {
            had = 0;
            file.set_len(0).map_err(|error| self.disk(&error))?;
            file.rewind().map_err(|error| self.disk(&error))?;
        }
        // A weak tag says nothing of bytes.
        let etag = response.headers().get(ETAG).and_then(|value| value.to_str().ok());
        part.etag = etag.filter(|tag| !tag.starts_with("W/")).map(str::to_owned);
        self.check_size(&response, had)?;
        let bytes = self.write_body(response, &mut file, had).await?;
        self.keep(file, bytes).await
    }

    fn open_part(&self, goes_on: bool) -> Result<File, FileError> {
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(!goes_on).custom_flags(flags);
        options.open(self.part_path()).map_err(|error| self.disk(&error))
    }

    fn disk(&self, error: &std::io::Error) -> FileError {
        FileError::Trouble(format!("cannot write in {}: {error}", self.target.dir.display()))
    }

    fn check_size(&self, response: &Response, had: u64) -> Result<(), FileError> {
        let Some(rest) = response.content_length() else { return Ok(()) };
        let (bytes, most) = (had.saturating_add(rest), self.limits().max.0);
        if bytes > most {
            let text = format!("a file of {bytes} bytes, at most {most} are taken");
            return Err(FileError::Final(text));
        }
        let free = rustix::fs::statvfs(&self.target.dir)
            .map_or(u64::MAX, |facts| facts.f_bavail.saturating_mul(facts.f_frsize));
        if free < rest.saturating_add(FREE_BYTES_MIN) {
            let folder = self.target.dir.display();
            let text = format!("a file of {bytes} bytes, and {free} bytes are free in {folder}");
            return Err(FileError::Trouble(text));
        }
        Ok(())
    }

    async fn write_body(
        &self,
        mut response: Response,
        file: &mut File,
        had: u64,
    ) -> Result<u64, FileError> {
        let limits = self.limits();
        let mut bytes = had;
        loop {
            let chunk = tokio::time::timeout(limits.stall.0, response.chunk()).await;
            let chunk = chunk.map_err(|_| {
                let seconds = limits.stall.0.as_secs();
                FileError::Trouble(format!("not a byte within {seconds} s, {bytes} are there"))
            })?;
            let chunk = chunk.map_err(|error| {
                FileError::Trouble(format!("broke off at {bytes} bytes: {}", chain(&error)))
            })?;
            let Some(chunk) = chunk else { return Ok(bytes) };
            bytes += chunk.len() as u64;
            if bytes > limits.max.0 {
                let text = format!("a file of more than {} bytes, which is the most", limits.max.0);
                return Err(FileError::Final(text));
            }
            file.write_all(&chunk).map_err(|error| self.disk(&error))?;
            if let Some(free_at) = self.lane.throttle.take(chunk.len() as u64, Instant::now()) {
                tokio::time::sleep_until(free_at.into()).await;
            }
        }
    }

    async fn write_inline(&self, text: &str) -> Result<FileDone, FileError> {
        let bytes = STANDARD.decode(text.trim());
        let bytes = bytes.map_err(|_| FileError::Final("a file in no base64".to_owned()))?;
        let mut file = self.open_part(false)?;
        file.write_all(&bytes).map_err(|error| self.disk(&error))?;
        let most = self.limits().max.0;
        if bytes.len() as u64 > most {
            let text = format!("a file of {} bytes, at most {most} are taken", bytes.len());
            return Err(FileError::Final(text));
        }
        self.keep(file, bytes.len() as u64).await
    }

    /// Checks what was written, makes it durable and gives it its name.
    async fn keep(&self, mut file: File, bytes: u64) -> Result<FileDone, FileError> {
        let limits = self.limits();
        if bytes < limits.min.0 {
            let text = format!("a file of {bytes} bytes, at least {} are expected", limits.min.0);
            return Err(FileError::Final(text));
        }
        let mut start = Vec::new();
        file.rewind().map_err(|error| self.disk(&error))?;
        let read = Read::by_ref(&mut file).take(magic::BYTES as u64).read_to_end(&mut start);
        read.map_err(|error| self.disk(&error))?;
        let ending = magic::ending(limits.kind, &start).map_err(FileError::Final)?;
        let path = self.target.dir.join(format!("{}.{ending}", self.stem()));
        let (part, to) = (self.part_path(), path.clone());
        // Disks may take seconds to sync, and this thread has others to look after.
        let kept = tokio::task::spawn_blocking(move || rename_durably(&file, &part, &to)).await;
        let kept = kept.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        kept.map_err(|error| self.disk(&error))?;
        Ok(FileDone { path: path.display().to_string(), bytes })
    }
}

fn rename_durably(file: &File, part: &Path, to: &Path) -> std::io::Result<()> {
    file.sync_all()?;
    std::fs::rename(part, to)?;
    match to.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Whether the answer holds the rest of a part of `had` bytes, or the whole.
fn judge(response: &Response, had: u64) -> Result<bool, FileError> {
    let status = response.status().as_u16();
    match status {
        200 => Ok(false),
        206 => {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let start = range.and_then(|text| text.strip_prefix("bytes ")?.split_once('-'));
            let start = start.and_then(|(start, _)| start.parse::<u64>().ok());
            if start == Some(had) && had > 0 {
                Ok(true)
            } else {
                Err(FileError::Trouble("another part of the file than was asked for".to_owned()))
            }
        }
        401 | 403 | 404 | 410 => {
            Err(FileError::Expired(format!("a link is refused, status {status}")))
        }
        408 | 416 | 425 | 429 | 500..=599 => Err(FileError::Trouble(format!("status {status}"))),
        _ => Err(FileError::Final(format!("a link is answered with status {status}"))),
    }
}
