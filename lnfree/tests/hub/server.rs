//! A hub on 127.0.0.1: the listing of files, small files from the hub, large ones from another port as its
//! CDN does, with the headers, refusals and redirects of the real one, and faults on demand.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lnfree::hub::{Settings, Token};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::faults::Fault;
use super::repo::{Access, GOOD_TOKEN, OTHER_TOKEN, Repo, is_large};
use super::uploads::Store;
use super::wire::{Answer, Request, hex, read};

/// What all connections share.
pub struct State {
    pub repos: Mutex<BTreeMap<String, Repo>>,
    pub store: Mutex<Store>,
    /// Old name → new name.
    pub renamed: BTreeMap<String, String>,
    pub faults: Mutex<BTreeMap<String, (Fault, usize)>>,
    log: Mutex<Vec<String>>,
    pub cdn: String,
    /// What an address of the CDN has to carry; older ones are refused.
    pub signature: AtomicUsize,
}

/// The hub; its threads end with the process.
pub struct Server {
    pub endpoint: String,
    pub state: Arc<State>,
}

impl Server {
    pub fn start(repos: &[(&str, Repo)]) -> Server {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let cdn = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            repos: Mutex::new(repos.iter().map(|(id, repo)| (id.to_string(), repo.clone())).collect()),
            renamed: [("old/name".to_string(), "some/tiny".to_string())].into(),
            store: Mutex::default(),
            faults: Mutex::default(),
            log: Mutex::default(),
            cdn: address(&cdn),
            signature: AtomicUsize::new(1),
        });
        let endpoint = address(&hub);
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let state = state.clone();
                    std::thread::spawn(move || state.serve(stream.unwrap(), is_cdn));
                }
            });
        }
        Server { endpoint, state }
    }

    /// Settings for this hub, with a cache in `home`.
    pub fn settings(&self, home: &std::path::Path) -> Settings {
        Settings {
            endpoint: self.endpoint.clone(),
            cache: home.join("hub"),
            token: None,
            offline: false,
            timeout: Duration::from_secs(20),
        }
    }

    /// The next `times` downloads of `file` go wrong, or steps of an upload.
    pub fn fault(&self, file: &str, fault: Fault, times: usize) {
        self.state.faults.lock().unwrap().insert(file.into(), (fault, times));
    }

    /// From now on the addresses that the hub has given hold no longer.
    pub fn expire(&self) {
        self.state.signature.fetch_add(1, Ordering::Relaxed);
    }

    /// Another content under the same commit, which no honest hub has.
    pub fn replace(&self, id: &str, file: &str, bytes: &[u8]) {
        self.state.repos.lock().unwrap().get_mut(id).unwrap().files.insert(file.into(), bytes.into());
    }

    /// The requests since the last call: `METHOD hub|cdn PATH [range] [auth]`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.log.lock().unwrap())
    }
}

pub fn token(value: &str) -> Option<Token> {
    Some(Token::new(value, "HF_TOKEN"))
}

impl State {
    fn serve(&self, mut stream: TcpStream, is_cdn: bool) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = read(&mut reader) {
            let place = if is_cdn { "cdn" } else { "hub" };
            let range = match request.range {
                Some((start, Some(end))) => format!(" range={start}-{end}"),
                Some((start, None)) => format!(" range={start}"),
                None => String::new(),
            };
            let auth = if request.token.is_some() { " auth" } else { "" };
            let line = format!("{} {place} {}{range}{auth}", request.method, request.path);
            self.log.lock().unwrap().push(line);
            let answer = match request.method.as_str() {
                "POST" | "PUT" => match self.write(&request, &mut reader, is_cdn) {
                    Some(answer) => answer,
                    None => return,
                },
                _ if is_cdn => self.cdn(&request),
                _ => self.hub(&request),
            };
            if self.send(&mut stream, &request, answer).is_none() {
                return;
            }
        }
    }

    fn hub(&self, request: &Request) -> Answer {
        let path = request.path.split('?').next().unwrap();
        if let Some(rest) = path.strip_prefix("/loop") {
            return Answer::new(307, vec![("Location", format!("/loop{rest}"))]);
        }
        if path.starts_with("/portal") {
            return Answer { body: b"<html>please log in</html>".to_vec(), ..Answer::new(200, vec![]) };
        }
        for (old, new) in &self.renamed {
            if path.contains(old.as_str()) {
                return Answer::new(307, vec![("Location", path.replacen(old.as_str(), new, 1))]);
            }
        }
        // Where the real hub sends for small files.
        if let Some((id, file)) = path.strip_prefix("/api/resolve-cache/").and_then(|rest| self.split(rest)) {
            return self.small(&id, &file);
        }
        if let Some((id, rest)) = path.strip_prefix("/api/").and_then(|p| p.split_once("/revision/")) {
            let id = id.strip_prefix("models/").unwrap_or(id);
            return self.listing(request, id, rest);
        }
        match path.trim_start_matches('/').split_once("/resolve/").zip(path.split("/resolve/").nth(1)) {
            Some(((id, _), rest)) if rest.contains('/') => {
                let (revision, file) = rest.split_once('/').unwrap();
                self.resolve(request, id, revision, file)
            }
            _ => Answer::error(404, "", "Not Found"),
        }
    }

    /// `datasets/org/name/folder/file` → the repository, and the file in it.
    fn split(&self, path: &str) -> Option<(String, String)> {
        let path = decoded(path);
        let repos = self.repos.lock().unwrap();
        repos.keys().find_map(|id| Some((id.clone(), path.strip_prefix(id)?.strip_prefix('/')?.to_string())))
    }

    /// The repository, if this request may see it.
    fn repo(&self, request: &Request, id: &str) -> Result<Repo, Answer> {
        let known = [GOOD_TOKEN, OTHER_TOKEN];
        if request.token.as_ref().is_some_and(|token| !known.contains(&token.as_str())) {
            return Err(Answer::error(401, "", "Invalid credentials in Authorization header"));
        }
        let good = request.token.as_deref() == Some(GOOD_TOKEN);
        match self.repos.lock().unwrap().get(id) {
            Some(repo) if good || repo.access != Access::Private => Ok(repo.clone()),
            // The hub tells nobody without a token what it does not have.
            _ if request.token.is_none() => {
                Err(Answer::error(401, "RepoNotFound", "Invalid username or password."))
            }
            _ => Err(Answer::error(404, "RepoNotFound", "Repository not found")),
        }
    }

    fn listing(&self, request: &Request, id: &str, revision: &str) -> Answer {
        let repo = match self.repo(request, id) {
            Ok(repo) => repo,
            Err(answer) => return answer,
        };
        if ![repo.commit.as_str(), "main", "v1"].contains(&revision) {
            return Answer::error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}"));
        }
        let siblings: Vec<_> =
            repo.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body =
            serde_json::json!({ "id": id, "sha": repo.commit, "siblings": siblings, "private": false });
        Answer { body: body.to_string().into(), file: Some("listing".into()), ..Answer::new(200, vec![]) }
    }

    fn resolve(&self, request: &Request, id: &str, revision: &str, file: &str) -> Answer {
        let repo = match self.repo(request, id) {
            Ok(repo) => repo,
            Err(answer) => return answer,
        };
        if repo.access == Access::Gated && request.token.as_deref() != Some(GOOD_TOKEN) {
            let status = if request.token.is_some() { 403 } else { 401 };
            return Answer::error(status, "GatedRepo", &format!("Access to model {id} is restricted."));
        }
        let Some(bytes) = repo.files.get(&decoded(file)) else {
            return Answer::error(404, "EntryNotFound", "Entry not found");
        };
        assert_eq!(revision, repo.commit, "files are asked for by commit");
        let commit = ("X-Repo-Commit", repo.commit.clone());
        if !is_large(file) {
            let location = format!("/api/resolve-cache/{id}/{file}");
            return Answer::new(307, vec![commit, ("Location", location)]);
        }
        let sha = hex(&Sha256::digest(bytes));
        Answer::new(
            302,
            vec![
                commit,
                (
                    "Location",
                    format!("{}/{id}/{file}?signature={}", self.cdn, self.signature.load(Ordering::Relaxed)),
                ),
                ("X-Linked-Etag", format!("\"{sha}\"")),
                ("X-Linked-Size", if repo.large > 0 { repo.large } else { bytes.len() }.to_string()),
                ("ETag", "\"of the redirect\"".into()),
            ],
        )
    }

    fn small(&self, id: &str, file: &str) -> Answer {
        let repo = self.repos.lock().unwrap()[id].clone();
        let body = repo.files[file].clone();
        let etag =
            hex(&Sha1::new_with_prefix(format!("blob {}\0", body.len())).chain_update(&body).finalize());
        let headers = vec![("X-Repo-Commit", repo.commit.clone()), ("ETag", format!("W/\"{etag}\""))];
        Answer { body, file: Some(file.into()), ..Answer::new(200, headers) }
    }

    fn cdn(&self, request: &Request) -> Answer {
        // As the real one does: its addresses are signed, and a token beside the signature is an error.
        if request.token.is_some() {
            return Answer::error(400, "", "Only one auth mechanism allowed");
        }
        let (path, query) = request.path.split_once('?').unwrap();
        if query != format!("signature={}", self.signature.load(Ordering::Relaxed)) {
            return Answer::new(403, vec![]);
        }
        let (id, file) = self.split(path.trim_start_matches('/')).unwrap();
        let body = self.repos.lock().unwrap()[&id].files[&file].clone();
        let etag = format!("\"of the cdn {}\"", hex(&Sha1::digest(&body)));
        Answer { body, file: Some(file), ..Answer::new(200, vec![("ETag", etag)]) }
    }
}

/// A path with its `%20`s resolved.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}
