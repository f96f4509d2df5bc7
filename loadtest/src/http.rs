//! One HTTP/1.1 call over one connection, blocking: enough for signalling, and nothing to warm up or to pool.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Error;

/// How long one answer may take. A loaded relay commits its ledger within milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer's size; an SDP answer or a receipt is a few kilobytes.
const ANSWER_MAX: u64 = 1 << 20;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The first header of this name, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The answer if its status is this one; otherwise an error that quotes it.
    pub fn expect(self, status: u16, what: &str) -> Result<Answer, Error> {
        if self.status == status {
            return Ok(self);
        }
        Err(format!(
            "{what}: the relay answered {} instead of {status}: {}",
            self.status, self.body
        )
        .into())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value, Error> {
        Ok(serde_json::from_str(&self.body)?)
    }
}

/// Calls `path` (or a whole URL on the same server) under `base`, "http://host:port". Answers of 429 are waited out.
pub fn call(
    base: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, Error> {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = call_once(base, method, path, headers, body)
            .map_err(|error| format!("{method} {base}{path}: {error}"))?;
        if answer.status != 429 || Instant::now() > end {
            return Ok(answer);
        }
        sleep(Duration::from_millis(100));
    }
}

/// The same, once.
pub fn call_once(
    base: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, Error> {
    let authority = base
        .strip_prefix("http://")
        .ok_or("only http:// is spoken here")?
        .trim_end_matches('/');
    let path = path.strip_prefix(base.trim_end_matches('/')).unwrap_or(path);
    let mut stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(body);
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| "an answer that is not HTTP".into())
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..split]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let body = &bytes[split + 4..];
    let chunked = headers
        .iter()
        .any(|(n, v)| n == "transfer-encoding" && v.eq_ignore_ascii_case("chunked"));
    let body = if chunked { unchunk(body)? } else { body.to_vec() };
    Some(Answer {
        status,
        headers,
        body: String::from_utf8(body).ok()?,
    })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = str::from_utf8(&rest[..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        rest = rest.get(line + 2..)?;
        body.extend(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split_into_status_headers_and_body() {
        let answer = parse(b"HTTP/1.1 201 Created\r\nLocation: /r/1\r\ncontent-length: 2\r\n\r\nhi").unwrap();
        assert_eq!(
            (answer.status, answer.header("location"), &answer.body[..]),
            (201, Some("/r/1"), "hi")
        );
    }

    #[test]
    fn chunks_are_joined() {
        let answer = parse(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        );
        assert_eq!(answer.unwrap().body, "hello");
    }

    #[test]
    fn noise_is_no_answer() {
        assert!(parse(b"").is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort").is_none());
    }
}
