//! A hub on 127.0.0.1: the listing of files, small files from the hub, large ones from another port as its CDN does, with the
//! headers, refusals and redirects of the real one, and faults on demand.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lnfree::hub::{Settings, Token};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::wire::{Answer, Request, hex, read};

/// The token that opens every door.
pub const GOOD_TOKEN: &str = "hf_good";
/// A token that the hub knows, of somebody who has accepted no conditions.
pub const OTHER_TOKEN: &str = "hf_other";

/// Who may read a repository.
#[derive(Clone, Copy, PartialEq)]
pub enum Access {
    Everybody,
    Gated,
    Private,
}

/// What goes wrong with a file, as often as the number says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fault {
    /// The connection is closed after so many bytes.
    Cut(usize),
    /// One bit of what is sent is another.
    Flip,
    /// So many bytes are sent, and no more, with the connection open.
    Stall(usize),
    /// The answer is always the whole file, with status 200.
    IgnoreRange,
    /// Sent in pieces, with pauses.
    Slow,
    /// More is sent than was announced.
    Longer,
    /// An answer with this status.
    Status(u16),
}

/// A repository of one commit.
#[derive(Clone)]
pub struct Repo {
    pub commit: String,
    pub access: Access,
    pub files: BTreeMap<String, Vec<u8>>,
    /// Bytes that large files are said to have; 0 for those that they do have.
    pub large: usize,
}

impl Repo {
    pub fn new(files: &[(&str, Vec<u8>)]) -> Repo {
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())).collect();
        let mut hash = Sha1::new();
        files.iter().for_each(|(name, bytes)| {
            hash.update(name);
            hash.update(bytes);
        });
        Repo { commit: hex(&hash.finalize()), access: Access::Everybody, files, large: 0 }
    }
}

struct State {
    repos: BTreeMap<String, Repo>,
    /// Old name → new name.
    renamed: BTreeMap<String, String>,
    faults: Mutex<BTreeMap<String, (Fault, usize)>>,
    log: Mutex<Vec<String>>,
    cdn: String,
}

/// The hub; its threads end with the process.
pub struct Server {
    pub endpoint: String,
    state: Arc<State>,
}

impl Server {
    pub fn start(repos: &[(&str, Repo)]) -> Server {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let cdn = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            repos: repos.iter().map(|(id, repo)| (id.to_string(), repo.clone())).collect(),
            renamed: [("old/name".to_string(), "some/tiny".to_string())].into(),
            faults: Mutex::default(),
            log: Mutex::default(),
            cdn: address(&cdn),
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

    /// The next `times` downloads of `file` go wrong.
    pub fn fault(&self, file: &str, fault: Fault, times: usize) {
        self.state.faults.lock().unwrap().insert(file.into(), (fault, times));
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
            let range = request.range.map_or(String::new(), |start| format!(" range={start}"));
            let auth = if request.token.is_some() { " auth" } else { "" };
            let line = format!("{} {place} {}{range}{auth}", request.method, request.path);
            self.log.lock().unwrap().push(line);
            let answer = if is_cdn { self.cdn(&request) } else { self.hub(&request) };
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
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match parts[..] {
            ["api", "models", org, name, "revision", revision] => {
                self.listing(request, &format!("{org}/{name}"), revision)
            }
            ["api", "models", name, "revision", revision] => self.listing(request, name, revision),
            // Where the real hub sends for small files.
            ["api", "resolve-cache", "models", org, name, _, file] => {
                self.small(&self.repos[&format!("{org}/{name}")], file)
            }
            [org, name, "resolve", revision, file] => {
                self.resolve(request, &format!("{org}/{name}"), revision, file)
            }
            _ => Answer::error(404, "", "Not Found"),
        }
    }

    /// The repository, if this request may see it.
    fn repo(&self, request: &Request, id: &str) -> Result<&Repo, Answer> {
        let known = [GOOD_TOKEN, OTHER_TOKEN];
        if request.token.as_ref().is_some_and(|token| !known.contains(&token.as_str())) {
            return Err(Answer::error(401, "", "Invalid credentials in Authorization header"));
        }
        let good = request.token.as_deref() == Some(GOOD_TOKEN);
        match self.repos.get(id) {
            Some(repo) if good || repo.access != Access::Private => Ok(repo),
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
        let Some(bytes) = repo.files.get(file) else {
            return Answer::error(404, "EntryNotFound", "Entry not found");
        };
        assert_eq!(revision, repo.commit, "files are asked for by commit");
        let commit = ("X-Repo-Commit", repo.commit.clone());
        if !is_large(file) {
            let location = format!("/api/resolve-cache/models/{id}/{}/{file}", repo.commit);
            return Answer::new(307, vec![commit, ("Location", location)]);
        }
        let sha = hex(&Sha256::digest(bytes));
        Answer::new(
            302,
            vec![
                commit,
                ("Location", format!("{}/{id}/{file}?signature=1", self.cdn)),
                ("X-Linked-Etag", format!("\"{sha}\"")),
                ("X-Linked-Size", if repo.large > 0 { repo.large } else { bytes.len() }.to_string()),
                ("ETag", "\"of the redirect\"".into()),
            ],
        )
    }

    fn small(&self, repo: &Repo, file: &str) -> Answer {
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
        let path = request.path.split('?').next().unwrap().trim_start_matches('/');
        let (id, file) = path.rsplit_once('/').unwrap();
        let body = self.repos[id].files[file].clone();
        Answer { body, file: Some(file.into()), ..Answer::new(200, vec![("ETag", "\"of the cdn\"".into())]) }
    }

    fn take_fault(&self, request: &Request, answer: &Answer) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let (fault, left) = faults.get_mut(answer.file.as_ref()?)?;
        let counts = request.method == "GET" && *left > 0;
        counts.then(|| {
            *left -= 1;
            *fault
        })
    }

    /// None when the connection is over.
    fn send(&self, stream: &mut TcpStream, request: &Request, mut answer: Answer) -> Option<()> {
        let fault = self.take_fault(request, &answer);
        if let Some(Fault::Status(status)) = fault {
            answer = Answer::error(status, "", "trouble");
        }
        let total = answer.body.len();
        let start = request.range.filter(|_| answer.status == 200 && fault != Some(Fault::IgnoreRange));
        let mut headers = format!("Content-Length: {}\r\n", total - start.unwrap_or(0).min(total));
        if let Some(start) = start {
            answer.status = if start < total { 206 } else { 416 };
            headers += &format!("Content-Range: bytes {start}-{}/{total}\r\n", total.saturating_sub(1));
        }
        if fault == Some(Fault::Longer) {
            headers = String::from("Transfer-Encoding: chunked\r\n");
            answer.body =
                format!("{:x}\r\n{}x\r\n0\r\n\r\n", total + 1, String::from_utf8_lossy(&answer.body)).into();
        }
        for (name, value) in &answer.headers {
            headers += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("HTTP/1.1 {} x\r\n{headers}\r\n", answer.status).as_bytes()).ok()?;
        if request.method == "HEAD" {
            return Some(());
        }
        let mut body = answer.body.get(start.unwrap_or(0)..).unwrap_or_default().to_vec();
        match fault {
            Some(Fault::Cut(n)) => {
                stream.write_all(&body[..n.min(body.len())]).ok()?;
                return None;
            }
            Some(Fault::Stall(n)) => {
                stream.write_all(&body[..n.min(body.len())]).ok()?;
                std::thread::sleep(Duration::from_secs(30));
                return None;
            }
            Some(Fault::Slow) => {
                for piece in body.chunks(body.len() / 20 + 1) {
                    stream.write_all(piece).ok()?;
                    std::thread::sleep(Duration::from_millis(40));
                }
                return Some(());
            }
            Some(Fault::Flip) => *body.last_mut().unwrap() ^= 1,
            _ => {}
        }
        stream.write_all(&body).ok()
    }
}

/// What git keeps outside of itself.
fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".bin")
}
