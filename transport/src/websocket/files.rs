//! Files for browsers, beside a WebSocket: what the path of a request finds, and how it is answered.
//!
//! It is *not* a file server: whoever starts the transport has read all of it, and a path is looked up as it is, so that none
//! leads anywhere else. One request is answered on a connection (RFC 9112, section 9.6), parts of a file are not asked for
//! (RFC 9110, section 14.2), and nothing of a request is repeated.
//!
//! ```
//! use sol_transport::Files;
//!
//! let mut files = Files::default();
//! files.insert(b"/index.html", "text/html; charset=utf-8", b"<h1>Hello</h1>".to_vec());
//! assert_eq!((files.count(), files.bytes()), (1, 14));
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use super::handshake::{Headers, say};

/// What stands for a directory.
const INDEX: &[u8] = b"index.html";
/// Headers of every answer that has a file: it is asked for again each time, and is what it is said to be.
const OF_A_FILE: &str = "Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n";

/// Files by the path that a request has for them.
#[derive(Default)]
pub struct Files {
    entries: HashMap<Box<[u8]>, Entry>,
    count: usize,
    bytes: usize,
}

enum Entry {
    File(Arc<File>),
    /// A directory without the slash behind it, below which no link of its page would be right; and with it, as it stands
    /// in a header.
    Directory(Box<str>),
}

/// One file, and what is said of it.
pub(crate) struct File {
    content_type: &'static str,
    /// In quotes, as it stands in headers.
    tag: Box<str>,
    body: Vec<u8>,
}

impl Files {
    /// Adds a file. Its path begins with a slash; one that ends with `/index.html` stands for its directory too.
    pub fn insert(&mut self, path: &[u8], content_type: &'static str, body: Vec<u8>) {
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(body.len());
        let file = Arc::new(File {
            content_type,
            tag: tag(&body),
            body,
        });
        if let Some(directory) = path.strip_suffix(INDEX)
            && let Some(bare) = directory.strip_suffix(b"/")
        {
            self.entries.insert(directory.into(), Entry::File(Arc::clone(&file)));
            if !bare.is_empty() {
                self.entries.insert(bare.into(), Entry::Directory(escape(directory)));
            }
        }
        self.entries.insert(path.into(), Entry::File(file));
    }

    #[cfg(test)]
    pub(crate) fn file(&self, path: &[u8]) -> Option<Arc<File>> {
        match self.entries.get(path)? {
            Entry::File(file) => Some(Arc::clone(file)),
            Entry::Directory(_) => None,
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// How long they are together.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Answers a request that asks for no WebSocket, all but the file that it is to get.
    pub(super) fn answer(&self, request: &httparse::Request<'_, '_>, out: &mut Vec<u8>) -> Option<Arc<File>> {
        let headers = Headers(request.headers);
        let has_body = request.method != Some("HEAD");
        let mut refuse = |status, more, sentence| {
            say(out, status, more, sentence, has_body);
            None
        };
        if !matches!(request.method, Some("GET" | "HEAD")) {
            let allow = "Allow: GET, HEAD\r\nConnection: close\r\n";
            return refuse("405 Method Not Allowed", allow, "Files are asked for with GET.");
        }
        if headers.values("Host").count() > 1 || request.version == Some(1) && headers.only("Host").is_none() {
            return refuse(
                "400 Bad Request",
                "Connection: close\r\n",
                "The request needs one Host header.",
            );
        }
        match decode(request.path.unwrap_or_default()).and_then(|path| self.entries.get(&*path)) {
            None => refuse(
                "404 Not Found",
                "Cache-Control: no-cache\r\nConnection: close\r\n",
                "There is no such file.",
            ),
            Some(Entry::Directory(path)) => {
                let more = format!("Location: {path}\r\nCache-Control: no-cache\r\nConnection: close\r\n");
                refuse("301 Moved Permanently", &more, "This is a directory.")
            }
            Some(Entry::File(file)) => {
                let is_known = headers.elements("If-None-Match").any(|known| file.is_named(known));
                file.head(is_known, out);
                (has_body && !is_known).then(|| Arc::clone(file))
            }
        }
    }
}

impl File {
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether a header names it; or any file at all (RFC 9110, sections 8.8.3.2 and 13.1.2).
    fn is_named(&self, name: &[u8]) -> bool {
        name == b"*" || name.strip_prefix(b"W/").unwrap_or(name) == self.tag.as_bytes()
    }

    /// What stands in front of it, or instead of it where the peer has it.
    fn head(&self, is_known: bool, out: &mut Vec<u8>) {
        let tag = ["ETag: ", &self.tag, "\r\n", OF_A_FILE, "\r\n"];
        let len = self.body.len().to_string();
        let parts: &[&str] = if is_known {
            &["HTTP/1.1 304 Not Modified\r\n"]
        } else {
            &[
                "HTTP/1.1 200 OK\r\nContent-Type: ",
                self.content_type,
                "\r\nContent-Length: ",
                &len,
                "\r\n",
            ]
        };
        for part in parts.iter().chain(&tag) {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files")
            .field("count", &self.count)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("tag", &self.tag).finish_non_exhaustive()
    }
}

/// Tells a content from every other one.
fn tag(body: &[u8]) -> Box<str> {
    let digest: [u8; 20] = Sha1::digest(body).into();
    let mut tag = String::from("\"");
    for byte in digest {
        push_hex(&mut tag, byte);
    }
    tag.push('"');
    tag.into()
}

fn push_hex(text: &mut String, byte: u8) {
    for digit in [byte >> 4, byte & 0x0f] {
        text.extend(char::from_digit(u32::from(digit), 16));
    }
}

/// The path that a request asks for, without its query. `None`: an escape that is none.
fn decode(target: &str) -> Option<Vec<u8>> {
    let mut rest = path_of(target).bytes();
    let mut path = Vec::with_capacity(target.len());
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    while let Some(byte) = rest.next() {
        path.push(if byte == b'%' {
            digit(rest.next()?)? << 4 | digit(rest.next()?)?
        } else {
            byte
        });
    }
    Some(path)
}

/// The path of a request's target, which may have a host in front (RFC 9112, section 3.2.2).
fn path_of(target: &str) -> &str {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let scheme = ["http://", "https://"].into_iter().find(|scheme| {
        let front = path.get(..scheme.len());
        front.is_some_and(|front| front.eq_ignore_ascii_case(scheme))
    });
    let Some(behind) = scheme.and_then(|scheme| path.get(scheme.len()..)) else {
        return path;
    };
    let path = behind.find('/').and_then(|at| behind.get(at..));
    path.unwrap_or("/")
}

/// A path as it stands in a header (RFC 3986, section 3.3).
fn escape(path: &[u8]) -> Box<str> {
    let mut text = String::new();
    for &byte in path {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push('%');
            push_hex(&mut text, byte);
        }
    }
    text.into()
}
