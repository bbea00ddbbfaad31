//! What the hub on 127.0.0.1 does with uploads: repositories made, large files stored whole or in parts,
//! commits.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::faults::Fault;
use super::repo::{Access, GOOD_TOKEN, OTHER_TOKEN, Repo, commit_of, is_large};
use super::server::{Server, State};
use super::wire::{Answer, Request, body, hex};

/// Large files on their way.
#[derive(Default)]
pub struct Store {
    /// Bytes of a part; 0 for whole files.
    part_size: usize,
    parts: BTreeMap<(String, usize), Vec<u8>>,
    objects: BTreeMap<String, Vec<u8>>,
    verified: BTreeSet<String>,
    samples: BTreeMap<String, String>,
    /// The header of each commit.
    commits: Vec<Value>,
}

impl Server {
    /// From now on large files are to be sent in parts of this size.
    pub fn in_parts_of(&self, bytes: usize) {
        self.state.store.lock().unwrap().part_size = bytes;
    }

    /// The files that a repository has now.
    pub fn files(&self, id: &str) -> BTreeMap<String, Vec<u8>> {
        self.state.repos.lock().unwrap()[id].files.clone()
    }

    /// Summaries and descriptions of the commits.
    pub fn commits(&self) -> Vec<Value> {
        self.state.store.lock().unwrap().commits.clone()
    }
}

impl State {
    /// A request with a body; None when the connection is to be closed.
    pub fn write(
        &self,
        request: &Request,
        reader: &mut BufReader<TcpStream>,
        is_cdn: bool,
    ) -> Option<Answer> {
        let path = request.path.split('?').next().unwrap();
        let step = step(path, is_cdn);
        let fault = self.fault_of(&step);
        let length = request.length.expect("stores take no body without its length");
        if let Some(Fault::Cut(n)) = fault {
            body(reader, n.min(length));
            return None;
        }
        let body = body(reader, length)?;
        if let Some(Fault::Status(status)) = fault {
            return Some(Answer::new(status, vec![]));
        }
        let answer = match is_cdn {
            true => self.store(request, body),
            false => self.act(request, path, &step, &body).unwrap_or_else(|refusal| refusal),
        };
        if fault == Some(Fault::Slow) {
            std::thread::sleep(Duration::from_secs(2));
        }
        (fault != Some(Fault::Mute)).then_some(answer)
    }

    fn act(&self, request: &Request, path: &str, step: &str, body: &[u8]) -> Result<Answer, Answer> {
        if step == "complete" {
            return self.complete(request, body);
        }
        let lines: Vec<Value> =
            serde_json::Deserializer::from_slice(body).into_iter().collect::<Result<_, _>>().unwrap();
        if step == "create" {
            let id = format!("{}/{}", text(&lines[0]["organization"]), text(&lines[0]["name"]));
            return self.create(request, &id, &lines[0]);
        }
        let inner = path.strip_prefix("/api/models").unwrap_or(path).trim_start_matches('/');
        let id = inner.split(".git/").next().unwrap().splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
        if let Some(new) = self.renamed.get(&id) {
            return Err(Answer::new(307, vec![("Location", path.replacen(&id, new, 1))]));
        }
        self.writer(request, &id)?;
        if !self.repos.lock().unwrap().contains_key(&id) {
            return Err(Answer::error(404, "RepoNotFound", "Repository not found"));
        }
        if path.starts_with("/api/") && path.rsplit('/').next() != Some("main") {
            return Err(Answer::error(404, "RevisionNotFound", "Invalid rev id"));
        }
        match step {
            "preupload" => Ok(self.modes(&id, &lines[0])),
            "batch" => Ok(self.batch(&id, &lines[0])),
            "verify" => self.verify(&lines[0]),
            "commit" => self.commit(&id, &lines),
            _ => Err(Answer::error(404, "", "Not Found")),
        }
    }

    /// Whether whoever asks may write there.
    fn writer(&self, request: &Request, id: &str) -> Result<(), Answer> {
        match request.token.as_deref() {
            None => Err(Answer::error(401, "", "Invalid username or password.")),
            Some(GOOD_TOKEN) if !id.starts_with("theirs/") => Ok(()),
            Some(GOOD_TOKEN | OTHER_TOKEN) => Err(Answer::error(403, "", "You need the role write")),
            Some(_) => Err(Answer::error(401, "", "Invalid credentials in Authorization header")),
        }
    }

    fn create(&self, request: &Request, id: &str, asked: &Value) -> Result<Answer, Answer> {
        self.writer(request, id)?;
        let mut repos = self.repos.lock().unwrap();
        if repos.contains_key(id) {
            let error = "You already created this model repo";
            let body = json!({ "error": error, "url": format!("/{id}") }).to_string().into();
            return Err(Answer { body, ..Answer::new(409, vec![]) });
        }
        let access = if asked["private"] == true { Access::Private } else { Access::Everybody };
        repos.insert(id.into(), Repo { access, ..Repo::new(&[(".gitattributes", b"*.bin lfs".to_vec())]) });
        Ok(json_answer(json!({ "url": format!("/{id}") })))
    }

    fn modes(&self, id: &str, asked: &Value) -> Answer {
        let repo = self.repos.lock().unwrap()[id].clone();
        let files = asked["files"].as_array().unwrap().iter().map(|file| {
            let path = text(&file["path"]);
            self.store.lock().unwrap().samples.insert(path.clone(), text(&file["sample"]));
            let large = is_large(&path);
            let oid = repo.files.get(&path).map(|bytes| match large {
                true => hex(&Sha256::digest(bytes)),
                false => git_hash(bytes),
            });
            let mode = if large { "lfs" } else { "regular" };
            json!({ "path": path, "uploadMode": mode, "shouldIgnore": path.ends_with(".log"), "oid": oid })
        });
        json_answer(json!({ "files": files.collect::<Vec<_>>() }))
    }

    fn batch(&self, id: &str, asked: &Value) -> Answer {
        assert_eq!((&asked["operation"], &asked["hash_algo"]), (&json!("upload"), &json!("sha256")));
        let store = self.store.lock().unwrap();
        let objects = asked["objects"].as_array().unwrap().iter().map(|object| {
            let (oid, size) = (text(&object["oid"]), object["size"].as_u64().unwrap() as usize);
            let mut answer = json!({ "oid": oid, "size": size });
            if store.verified.contains(&oid) {
                return answer;
            }
            let signature = self.signature.load(Ordering::Relaxed);
            let address = |part: &str| format!("{}/lfs/{oid}{part}?signature={signature}", self.cdn);
            let upload = match store.part_size {
                0 => json!({ "href": address(""), "header": { "x-store": "yes" } }),
                part_size => {
                    let mut header = json!({ "chunk_size": part_size.to_string() });
                    for part in 1..=size.div_ceil(part_size) {
                        header[format!("{part:05}")] = json!(address(&format!("/{part}")));
                    }
                    // A mirror passes on what the hub says, its address too.
                    json!({ "href": format!("https://huggingface.co/api/complete_multipart?uploadId={oid}"), "header": header })
                }
            };
            let verify = json!({ "href": format!("https://huggingface.co/{id}.git/info/lfs/objects/verify") });
            answer["actions"] = json!({ "upload": upload, "verify": verify });
            answer
        });
        json_answer(json!({ "transfer": "basic", "objects": objects.collect::<Vec<_>>() }))
    }

    /// Bytes to keep, whole or a part of a file.
    fn store(&self, request: &Request, bytes: Vec<u8>) -> Answer {
        assert_eq!((request.method.as_str(), &request.token), ("PUT", &None));
        let (path, query) = request.path.split_once('?').unwrap();
        if query != format!("signature={}", self.signature.load(Ordering::Relaxed)) {
            return Answer::new(403, vec![]);
        }
        let mut store = self.store.lock().unwrap();
        let etag = format!("\"{}\"", hex(&Sha1::digest(&bytes)));
        match path.strip_prefix("/lfs/").unwrap().split_once('/') {
            Some((oid, part)) => {
                store.parts.insert((oid.into(), part.parse().unwrap()), bytes);
            }
            None => {
                store.objects.insert(path["/lfs/".len()..].into(), bytes);
            }
        }
        Answer::new(200, vec![("ETag", etag)])
    }

    fn complete(&self, request: &Request, body: &[u8]) -> Result<Answer, Answer> {
        assert_eq!(request.token, None, "the address is signed");
        let said: Value = serde_json::from_slice(body).unwrap();
        let oid = text(&said["oid"]);
        let mut store = self.store.lock().unwrap();
        let mut whole = Vec::new();
        for (i, part) in said["parts"].as_array().unwrap().iter().enumerate() {
            assert_eq!(part["partNumber"], i + 1);
            let bytes = &store.parts[&(oid.clone(), i + 1)];
            assert_eq!(text(&part["etag"]), format!("\"{}\"", hex(&Sha1::digest(bytes))));
            whole.extend(bytes);
        }
        store.objects.insert(oid, whole);
        Ok(json_answer(json!({ "success": true })))
    }

    fn verify(&self, said: &Value) -> Result<Answer, Answer> {
        let mut store = self.store.lock().unwrap();
        let oid = text(&said["oid"]);
        let whole = store.objects.get(&oid).is_some_and(|bytes| {
            hex(&Sha256::digest(bytes)) == oid && bytes.len() as u64 == said["size"].as_u64().unwrap()
        });
        if !whole {
            return Err(Answer::error(422, "", "the object is not whole"));
        }
        store.verified.insert(oid);
        Ok(json_answer(json!({})))
    }

    fn commit(&self, id: &str, lines: &[Value]) -> Result<Answer, Answer> {
        let mut store = self.store.lock().unwrap();
        let mut repos = self.repos.lock().unwrap();
        let repo = repos.get_mut(id).unwrap();
        let mut files = repo.files.clone();
        assert_eq!(lines[0]["key"], "header");
        for line in &lines[1..] {
            let value = &line["value"];
            let path = text(&value["path"]);
            let bytes = match line["key"].as_str().unwrap() {
                "file" => STANDARD.decode(text(&value["content"])).unwrap(),
                "lfsFile" if store.verified.contains(&text(&value["oid"])) => {
                    store.objects[&text(&value["oid"])].clone()
                }
                _ => return Err(Answer::error(400, "", "LFS object is not there")),
            };
            assert_eq!(store.samples[&path], STANDARD.encode(&bytes[..bytes.len().min(512)]));
            if path == "README.md" && !bytes.starts_with(b"---\n") {
                return Err(Answer::error(400, "", "Invalid metadata in README.md"));
            }
            files.insert(path, bytes);
        }
        store.commits.push(lines[0]["value"].clone());
        (repo.commit, repo.files) = (commit_of(&files), files);
        Ok(json_answer(json!({ "success": true, "commitOid": repo.commit, "commitUrl": format!("/{id}") })))
    }
}

/// The name by which faults know a step.
fn step(path: &str, is_cdn: bool) -> String {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["lfs", _] if is_cdn => "upload".into(),
        ["lfs", _, part] if is_cdn => format!("part {part}"),
        ["api", "repos", "create"] => "create".into(),
        ["api", "complete_multipart"] => "complete".into(),
        ["api", "models", _, _, step, _] => step.into(),
        [_, _, "info", "lfs", "objects", step] => step.into(),
        _ => "nothing".into(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().into()
}

fn json_answer(value: Value) -> Answer {
    Answer { body: value.to_string().into(), ..Answer::new(200, vec![]) }
}

fn git_hash(bytes: &[u8]) -> String {
    hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}
