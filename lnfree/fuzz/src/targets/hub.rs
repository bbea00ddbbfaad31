//! Answers of a hub, over a connection of this machine: raw ones, or the body of one that succeeds.

use std::cell::OnceCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lnfree::hub::Settings;
use lnfree::hub::answers::Answers;
use lnfree::{Error, Result};

use super::USUAL;
use crate::parts::parts;
use crate::{Scratch, Target};

pub(super) const TARGETS: &[Target] = &[
    Target { name: "hub_listing", read: listing, words: WORDS, limits: USUAL },
    Target { name: "hub_head", read: head, words: WORDS, limits: USUAL },
    Target { name: "hub_part", read: part, words: WORDS, limits: USUAL },
    Target { name: "hub_upload", read: upload, words: WORDS, limits: USUAL },
    Target { name: "hub_index", read: index, words: WORDS, limits: USUAL },
];

const WORDS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 302 Found\r\n",
    "HTTP/1.1 206 Partial Content\r\n",
    "HTTP/1.1 416 \r\n",
    "HTTP/1.1 401 \r\n",
    "HTTP/1.1 404 \r\n",
    "HTTP/1.1 503 \r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "Content-Length: 2\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Content-Encoding: gzip\r\n",
    "Location: /x\r\n",
    "Location: http://127.0.0.1:1/\r\n",
    "X-Linked-Etag: \"e\"\r\n",
    "X-Linked-Size: 8\r\n",
    "ETag: W/\"e\"\r\n",
    "Content-Range: bytes 0-7/8\r\n",
    "X-Error-Code: GatedRepo\r\n",
    "X-Error-Message: no\r\n",
    "Retry-After: 1\r\n",
    "\r\n\r\n",
    "\"sha\":",
    "\"siblings\":[",
    "{\"rfilename\":\"config.json\"}",
    "\"files\":[",
    "\"uploadMode\":\"lfs\"",
    "\"path\":\"config.json\"",
    "\"oid\":",
    "\"objects\":[",
    "\"actions\":{\"upload\":{\"href\":",
    "\"header\":{\"chunk_size\":\"1\"",
    "\"error\":{\"code\":1,\"message\":",
    "\"weight_map\":{",
];

/// The most answers that one input holds.
const MOST: usize = 4;

/// A hub that gives the answers of the input at hand, each once and to whatever is asked.
struct Server {
    answers: Answers,
    next: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Server {
    fn start(scratch: &Scratch) -> Result<Server> {
        let at = scratch.file("hub");
        let listener = TcpListener::bind("127.0.0.1:0").map_err(Error::io(&at))?;
        let address = listener.local_addr().map_err(Error::io(&at))?;
        let next = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let answers = next.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = answers.lock().ok().and_then(|mut answers| answers.pop()).unwrap_or_default();
                // The other end may have gone already.
                let _ = serve(stream, &answer);
            }
        });
        let settings = Settings {
            endpoint: format!("http://{address}"),
            cache: scratch.file("cache"),
            token: None,
            offline: false,
            timeout: Duration::from_secs(5),
        };
        Ok(Server { answers: Answers::new(&settings)?, next })
    }
}

/// Reads a request to its end, sends the answer, and hangs up.
fn serve(stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    (&stream).write_all(answer)
}

thread_local!(static SERVER: OnceCell<Server> = const { OnceCell::new() });

/// Asks a hub that answers with `input`.
fn asked(scratch: &Scratch, input: &[u8], ask: impl FnOnce(&Answers) -> Result<()>) -> Result<()> {
    SERVER.with(|server| {
        if server.get().is_none() {
            let _ = server.set(Server::start(scratch)?);
        }
        let Some(server) = server.get() else { return Err(Error::invalid("no server")) };
        let parts: [&[u8]; MOST] = parts(input);
        let answers = parts.iter().rev().filter(|part| !part.is_empty()).map(|part| whole(part)).collect();
        if let Ok(mut next) = server.next.lock() {
            *next = answers;
        }
        ask(&server.answers)
    })
}

/// The answer itself, or one that succeeds and has this body.
fn whole(part: &[u8]) -> Vec<u8> {
    if part.starts_with(b"HTTP/") {
        return part.to_vec();
    }
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", part.len());
    [head.as_bytes(), part].concat()
}

fn listing(scratch: &Scratch, input: &[u8]) -> Result<()> {
    asked(scratch, input, |hub| hub.listing().map(drop))
}

fn head(scratch: &Scratch, input: &[u8]) -> Result<()> {
    asked(scratch, input, |hub| hub.head("model.safetensors").map(drop))
}

/// 4 of the 8 bytes of a file.
fn part(scratch: &Scratch, input: &[u8]) -> Result<()> {
    asked(scratch, input, |hub| hub.part(8, 2, 6).map(|bytes| assert!(bytes.len() <= 4)))
}

/// How files are to be sent, and then where.
fn upload(scratch: &Scratch, input: &[u8]) -> Result<()> {
    scratch.once("push/config.json", || b"{}".to_vec());
    let folder = scratch.file("push");
    asked(scratch, input, |hub| hub.upload(&folder))
}

/// An index of shards that has come from a hub.
fn index(scratch: &Scratch, input: &[u8]) -> Result<()> {
    Answers::shards(&scratch.write("index.json", input)).map(drop)
}
