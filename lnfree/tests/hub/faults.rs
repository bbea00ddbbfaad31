//! How answers leave the hub: whole or in part, and with what faults on the way.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::server::State;
use super::wire::{Answer, Request};

/// What goes wrong with a file, as often as the number says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fault {
    /// The connection is closed after so many bytes, of an answer or of an upload.
    Cut(usize),
    /// One bit of what is sent is another.
    Flip,
    /// So many bytes are sent, and no more, with the connection open.
    Stall(usize),
    /// The answer is always the whole file, with status 200.
    IgnoreRange,
    /// Sent in pieces, with pauses; of an upload, answered after a while.
    Slow,
    /// More is sent than was announced.
    Longer,
    /// An answer with this status.
    Status(u16),
    /// What is asked is done, and the connection closed without an answer.
    Mute,
}

impl State {
    fn take_fault(&self, request: &Request, answer: &Answer) -> Option<Fault> {
        if request.method == "GET" { self.fault_of(answer.file.as_ref()?) } else { None }
    }

    /// What goes wrong this time.
    pub fn fault_of(&self, what: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let (fault, left) = faults.get_mut(what)?;
        *left = left.checked_sub(1)?;
        Some(*fault)
    }

    /// None when the connection is over.
    pub fn send(&self, stream: &mut TcpStream, request: &Request, mut answer: Answer) -> Option<()> {
        let fault = self.take_fault(request, &answer);
        if let Some(Fault::Status(status)) = fault {
            answer = Answer::new(status, vec![]);
        }
        let total = answer.body.len();
        let range = request.range.filter(|_| answer.status == 200 && fault != Some(Fault::IgnoreRange));
        let end = range.and_then(|(_, end)| end).map_or(total, |end| end.min(total));
        let start = range.map_or(0, |(start, _)| start.min(end));
        let mut headers = format!("Content-Length: {}\r\n", end - start);
        if range.is_some() {
            answer.status = if start < end { 206 } else { 416 };
            headers += &format!("Content-Range: bytes {start}-{}/{total}\r\n", end.saturating_sub(1));
        }
        let mut body = answer.body.get(start..end).unwrap_or_default().to_vec();
        if fault == Some(Fault::Longer) {
            headers = String::from("Transfer-Encoding: chunked\r\n");
            body = format!("{:x}\r\n{}x\r\n0\r\n\r\n", body.len() + 1, String::from_utf8_lossy(&body)).into();
        }
        for (name, value) in &answer.headers {
            headers += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("HTTP/1.1 {} x\r\n{headers}\r\n", answer.status).as_bytes()).ok()?;
        if request.method == "HEAD" {
            return Some(());
        }
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
