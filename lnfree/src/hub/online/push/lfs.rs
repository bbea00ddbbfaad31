//! Large files: asked for with git-lfs's batch request, sent whole or in parts to where it says, and
//! verified.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::files::LocalFile;
use super::writer::Writer;
use crate::hub::online::address::{origin, without_secrets};
use crate::hub::online::download::persist_with;
use crate::hub::online::failure::{Failure, Kind, one_line};
use crate::hub::online::progress::Progress;
use crate::hub::online::settings::ENDPOINT;

/// Where to send something, and with which headers; for parts these carry their size and addresses.
#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

/// How one file is sent.
struct Plan {
    upload: Action,
    verify: Option<Action>,
    /// Bytes of a part, and the address of each; none where the whole goes in one piece.
    parts: Option<(u64, Vec<String>)>,
}

/// One file on its way.
struct Upload<'a> {
    writer: &'a Writer<'a>,
    file: &'a LocalFile,
    progress: Progress,
    plan: Option<Plan>,
    /// What the store said of each part that it has.
    etags: Vec<String>,
    /// Most parts that it had so far.
    best: usize,
}

/// Sends a file unless the hub has its content already; true if it was sent.
pub(super) fn upload(writer: &Writer, file: &LocalFile) -> Result<bool, Failure> {
    let progress = Progress::new(&file.name, file.size);
    let mut upload = Upload { writer, file, progress, plan: None, etags: Vec::new(), best: 0 };
    let sent = persist_with(true, |moved| upload.attempt(moved))?;
    upload.progress.finish();
    Ok(sent)
}

/// Where the hub says that a file goes.
pub(super) fn ask_once(writer: &Writer, file: &LocalFile) -> Result<(), Failure> {
    let progress = Progress::new(&file.name, file.size);
    let upload = Upload { writer, file, progress, plan: None, etags: Vec::new(), best: 0 };
    upload.ask().map(drop)
}

impl Upload<'_> {
    /// Sends what is missing by the plan, or by a new one if that holds no longer.
    fn attempt(&mut self, moved: &mut bool) -> Result<bool, Failure> {
        let plan = match self.plan.take() {
            Some(plan) => plan,
            None => {
                self.etags.clear();
                match self.ask()? {
                    Some(plan) => plan,
                    // It may have arrived, and the word of it was lost.
                    None => return Ok(self.best > 0),
                }
            }
        };
        let sent = self.send(&plan, moved);
        // Signed addresses hold for some hours; a fruitless one is asked for anew.
        if sent.as_ref().is_err_and(|(_, keep)| *keep) {
            self.plan = Some(plan);
        }
        sent.map(|()| true).map_err(|(failure, _)| failure)
    }

    /// Asks where the file goes; None if the hub has it.
    fn ask(&self) -> Result<Option<Plan>, Failure> {
        let (writer, file) = (self.writer, self.file);
        let endpoint = &writer.client.settings.endpoint;
        let url = format!("{endpoint}/{}.git/info/lfs/objects/batch", writer.id.id);
        let asked = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": [{ "oid": file.sha256, "size": file.size }],
            "hash_algo": "sha256",
            "ref": { "name": writer.id.revision },
        });
        let batch: Batch = writer.read("a large file", writer.post_lfs(&url, &[], true, &asked)?)?;
        let object = batch.objects.into_iter().find(|object| object.oid == file.sha256);
        let object = object.ok_or_else(|| self.failure(Kind::Final, "does not say where it goes"))?;
        if let Some(refusal) = object.error {
            let kind = if refusal.code >= 500 { Kind::Transient } else { Kind::Final };
            let why = format!("is refused: {} {}", refusal.code, one_line(&refusal.message));
            return Err(self.failure(kind, &why));
        }
        let Some(Actions { upload: Some(mut upload), verify }) = object.actions else { return Ok(None) };
        upload.href = self.on_the_mirror(&upload.href);
        let verify = verify.map(|verify| Action { href: self.on_the_mirror(&verify.href), ..verify });
        let parts = self.parts(&upload)?;
        Ok(Some(Plan { upload, verify, parts }))
    }

    /// Size and addresses of the parts, which stand between the headers of the action under their numbers.
    fn parts(&self, action: &Action) -> Result<Option<(u64, Vec<String>)>, Failure> {
        let Some(size) = action.header.get("chunk_size") else { return Ok(None) };
        let size = size.as_u64().or_else(|| size.as_str()?.parse().ok()).filter(|size| *size > 0);
        let mut parts: Vec<(u64, String)> = action
            .header
            .iter()
            .filter_map(|(name, url)| Some((name.parse().ok()?, url.as_str()?.to_string())))
            .collect();
        parts.sort();
        match size {
            Some(size) if parts.len() as u64 == self.file.size.div_ceil(size) => {
                Ok(Some((size, parts.into_iter().map(|(_, url)| url).collect())))
            }
            _ => Err(self.failure(Kind::Final, "is to be sent in parts that do not make the whole")),
        }
    }

    /// Sends by the plan. A failure says whether the plan still holds.
    fn send(&mut self, plan: &Plan, moved: &mut bool) -> Result<(), (Failure, bool)> {
        let whole = (self.file.size, vec![plan.upload.href.clone()]);
        let (size, urls) = plan.parts.as_ref().unwrap_or(&whole);
        let headers = if plan.parts.is_some() { Vec::new() } else { headers(&plan.upload) };
        self.progress.start(self.etags.len() as u64 * size);
        for url in &urls[self.etags.len()..] {
            let start = self.etags.len() as u64 * size;
            let response =
                self.put(url, &headers, start, (*size).min(self.file.size - start)).map_err(|f| (f, true))?;
            let etag = response.headers().get("etag").and_then(|v| v.to_str().ok()).unwrap_or_default();
            self.etags.push(self.stored(url, &response).map(|()| etag.to_string())?);
            *moved |= self.etags.len() > self.best;
            self.best = self.best.max(self.etags.len());
        }
        if plan.parts.is_some() {
            self.complete(&plan.upload.href)?;
        }
        plan.verify.as_ref().map_or(Ok(()), |action| self.verify(action)).map_err(|f| (f, true))
    }

    /// Sends `length` bytes of the file from `start` on.
    fn put(
        &mut self,
        url: &str,
        headers: &[(String, String)],
        start: u64,
        length: u64,
    ) -> Result<Response<Body>, Failure> {
        let opened =
            File::open(&self.file.path).and_then(|mut file| file.seek(SeekFrom::Start(start)).map(|_| file));
        let file =
            opened.map_err(|e| Failure::new(Kind::Final, format!("{}: {e}", self.file.path.display())))?;
        let mut counted = Counted { bytes: file.take(length), progress: &mut self.progress };
        self.writer.put(url, headers, length, &mut counted)
    }

    /// Whether the store took a part; else whether the same address may take it in a moment.
    fn stored(&self, url: &str, response: &Response<Body>) -> Result<(), (Failure, bool)> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let why = format!("cannot be sent: {} answers {status}", without_secrets(origin(url)));
        Err((self.failure(Kind::Transient, &why), passing(status)))
    }

    /// Says that all parts are there. A failure says whether to say so again.
    fn complete(&self, url: &str) -> Result<(), (Failure, bool)> {
        let parts: Vec<_> = self
            .etags
            .iter()
            .enumerate()
            .map(|(i, etag)| json!({ "partNumber": i + 1, "etag": etag }))
            .collect();
        let said = json!({ "oid": self.file.sha256, "parts": parts });
        let response = self.writer.post_lfs(url, &[], false, &said).map_err(|f| (f, true))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let (_, words) = self.writer.said(response);
        let why = format!("was sent in parts that the hub does not put together: {status} {words}");
        Err((self.failure(Kind::Transient, why.trim_end()), passing(status)))
    }

    /// Asks the hub to look at what has come.
    fn verify(&self, action: &Action) -> Result<(), Failure> {
        let said = json!({ "oid": self.file.sha256, "size": self.file.size });
        let response = self.writer.post_lfs(&action.href, &headers(action), true, &said)?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(self.writer.refused("a large file", response))
        }
    }

    /// A mirror hands out the hub's own addresses.
    fn on_the_mirror(&self, url: &str) -> String {
        match url.strip_prefix(ENDPOINT) {
            Some(rest) if rest.starts_with('/') => format!("{}{rest}", self.writer.client.settings.endpoint),
            _ => url.to_string(),
        }
    }

    fn failure(&self, kind: Kind, why: &str) -> Failure {
        Failure::new(kind, format!("{}: {} {why}; push again later", self.writer.id.id, self.file.name))
    }
}

/// Whether the same request may succeed in a moment.
fn passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500..=599)
}

/// The headers of an action that are meant to be sent.
fn headers(action: &Action) -> Vec<(String, String)> {
    let sent = |name: &str| !["content-length", "transfer-encoding", "host"].contains(&&*name.to_lowercase());
    let texts =
        action.header.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_string())));
    texts.filter(|(name, _)| sent(name)).collect()
}

/// A reader whose bytes are counted on their way.
struct Counted<'a, R> {
    bytes: R,
    progress: &'a mut Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.progress.add(n as u64);
        Ok(n)
    }
}
