//! HTTP as far as a hub needs it.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

/// A request, as far as the hub cares.
pub struct Request {
    pub method: String,
    pub path: String,
    /// First byte, and the one after the last if that is given.
    pub range: Option<(usize, Option<usize>)>,
    pub token: Option<String>,
    /// Bytes of its body that are announced.
    pub length: Option<usize>,
}

/// An answer; HEAD and ranges leave of the body out what they do not ask for.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// The body's name, by which faults know it.
    pub file: Option<String>,
}

impl Answer {
    pub fn new(status: u16, headers: Vec<(&'static str, String)>) -> Answer {
        Answer { status, headers, body: Vec::new(), file: None }
    }

    /// A refusal with the headers that the hub gives it.
    pub fn error(status: u16, code: &str, message: &str) -> Answer {
        let headers = vec![("X-Error-Code", code.to_string()), ("X-Error-Message", message.to_string())];
        Answer { body: format!("{{\"error\":\"{message}\"}}").into(), ..Answer::new(status, headers) }
    }
}

/// The next request of a connection; None at its end.
pub fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace().map(String::from);
    let mut request =
        Request { method: words.next()?, path: words.next()?, range: None, token: None, length: None };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { return Some(request) };
        match name.to_lowercase().as_str() {
            "range" => {
                let (start, last) = value.strip_prefix("bytes=")?.split_once('-')?;
                let end = last.parse().ok().map(|last: usize| last + 1);
                request.range = Some((start.parse().ok()?, end));
            }
            "content-length" => request.length = value.parse().ok(),
            "authorization" => request.token = value.strip_prefix("Bearer ").map(String::from),
            "accept-encoding" if request.path.contains("/resolve/") => assert_eq!(value, "identity"),
            _ => {}
        }
    }
}

/// So many bytes of a request's body; None if the connection ends before.
pub fn body(reader: &mut BufReader<TcpStream>, length: usize) -> Option<Vec<u8>> {
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok().map(|()| body)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
