//! A hub on 127.0.0.1 that answers like the real one, and misbehaves on request.
//!
//! `/{repo}/resolve/{revision}/{path}`: large files redirect (302, absolute) to `/cdn/{sha256}`, small ones (307,
//! relative) to `/api/resolve-cache/…`; both stores serve ranges. `/api/models/{repo}/revision/{revision}` lists files.
//! Every request is recorded. Faults are scripted per file and used up one by one, by requests to the stores.

#![allow(dead_code)] // each test file uses its part

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lesion::weights::{CheckMode, HubCache, HubError, HubOptions, LockedFile, LockedModel, Records, resolve};
use sha2::{Digest, Sha256};

pub(crate) const REPOSITORY: &str = "someone/tiny-gpt2";
pub(crate) const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

pub(crate) const CONFIG: &[u8] = br#"{"model_type": "gpt2", "n_layer": 1}"#;
pub(crate) const TOKENIZER: &[u8] = br#"{"version": "1.0", "model": {"type": "BPE"}}"#;

/// One misbehaviour, for one request of a file's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Announce everything, send this many bytes, close.
    Truncate(usize),
    /// Announce and send only this many bytes, with a range that fits.
    Short(usize),
    /// Send this many bytes, reset the connection.
    Reset(usize),
    /// Send this many bytes, then nothing, keeping the connection.
    Stall(usize),
    /// Flip the lowest bit of this byte of the file.
    Flip(usize),
    /// Answer with this status.
    Status(u16),
    /// Send the whole file with 200, whatever range was asked for.
    IgnoreRange,
    /// Send the range that begins this many bytes later.
    ShiftRange(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

struct HubFile {
    bytes: Vec<u8>,
    lfs: bool,
}

#[derive(Default)]
struct State {
    files: HashMap<String, HubFile>,
    faults: HashMap<String, VecDeque<Fault>>,
    requests: Vec<Request>,
    token: Option<String>,
    /// Host and port of the store behind the hub, when it is another server.
    store: Option<SocketAddr>,
    commit: String,
    etag: Option<String>,
}

pub(crate) struct MockHub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    closing: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl MockHub {
    /// A hub with a small model: configuration, tokenizer and 300,000 bytes of weights, which aren't safetensors.
    pub(crate) fn start() -> MockHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { commit: REVISION.into(), ..State::default() }));
        let closing = Arc::new(AtomicBool::new(false));
        let server = {
            let (state, closing) = (state.clone(), closing.clone());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if closing.load(Ordering::SeqCst) {
                        break;
                    }
                    let (state, closing) = (state.clone(), closing.clone());
                    thread::spawn(move || serve(stream.unwrap(), address, &state, &closing));
                }
            })
        };
        let hub = MockHub { address, state, closing, server: Some(server) };
        hub.put("config.json", CONFIG, false);
        hub.put("tokenizer.json", TOKENIZER, false);
        hub.put("model.safetensors", &weights(), true);
        hub
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn put(&self, path: &str, bytes: &[u8], lfs: bool) {
        self.state.lock().unwrap().files.insert(path.into(), HubFile { bytes: bytes.into(), lfs });
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.lock().unwrap().files.remove(path);
    }

    pub(crate) fn fault(&self, path: &str, fault: Fault) {
        self.state.lock().unwrap().faults.entry(path.into()).or_default().push_back(fault);
    }

    /// Answers 401 without this token, 403 with another.
    pub(crate) fn require_token(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.into());
    }

    /// Redirects large files to another server.
    pub(crate) fn store_at(&self, store: &MockHub) {
        self.state.lock().unwrap().store = Some(store.address);
    }

    /// Claims another commit in `X-Repo-Commit`.
    pub(crate) fn claim_commit(&self, commit: &str) {
        self.state.lock().unwrap().commit = commit.into();
    }

    pub(crate) fn claim_etag(&self, etag: &str) {
        self.state.lock().unwrap().etag = Some(etag.into());
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The ranges asked for at the store of large files.
    pub(crate) fn store_ranges(&self) -> Vec<String> {
        self.requests().into_iter().filter(|r| r.path.starts_with("/cdn/")).filter_map(|r| r.range).collect()
    }
}

impl Drop for MockHub {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.server.take().unwrap().join();
    }
}

pub(crate) fn weights() -> Vec<u8> {
    (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

pub(crate) fn locked(path: &str, bytes: &[u8]) -> LockedFile {
    LockedFile { path: path.into(), size: bytes.len() as u64, sha256: sha256(bytes) }
}

/// The lock entry of the mock's model.
pub(crate) fn model() -> LockedModel {
    let files = vec![
        locked("config.json", CONFIG),
        locked("tokenizer.json", TOKENIZER),
        locked("model.safetensors", &weights()),
    ];
    LockedModel::new("tiny", REPOSITORY, REVISION, files).unwrap()
}

/// A fresh cache and quick patience; the folder lives as long as the handle.
pub(crate) fn options(hub: &MockHub) -> (tempfile::TempDir, HubOptions) {
    let directory = tempfile::tempdir().unwrap();
    let cache = HubCache::new(directory.path().join("hub"));
    let mut options = HubOptions::new(cache, Records::at(directory.path().join("records")));
    options.endpoint = Some(hub.endpoint());
    options.stall_timeout = Duration::from_secs(20);
    options.retries = 2;
    options.retry_pause = Duration::from_millis(5);
    (directory, options)
}

pub(crate) fn fetch(options: &HubOptions) -> Result<std::path::PathBuf, HubError> {
    resolve(&model(), options, CheckMode::Remembered, &mut |_| {})
}

fn serve(mut stream: TcpStream, address: SocketAddr, state: &Mutex<State>, closing: &AtomicBool) {
    // The last byte of the request stays unread, so that dropping the stream resets it; normal ends read it first.
    let Some(head) = read_head(&mut stream) else { return };
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_string();
    let header = |name: &str| {
        head.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    let value = |name: &str| header(name).map(|(_, value)| value.trim().to_string());
    let request = Request { path: path.clone(), range: value("range"), authorization: value("authorization") };
    let mut locked = state.lock().unwrap();
    locked.requests.push(request.clone());

    let is_store = path.starts_with("/cdn/");
    if let (Some(token), false) = (&locked.token, is_store) {
        let status = match &request.authorization {
            None => 401,
            Some(sent) if *sent != format!("Bearer {token}") => 403,
            Some(_) => 200,
        };
        if status != 200 {
            drop(locked);
            return finish(stream, status, "", b"refused");
        }
    }

    let common = |state: &State, file: &HubFile| {
        let etag = state.etag.clone().unwrap_or_else(|| sha256(&file.bytes)[..40].to_string());
        format!("X-Repo-Commit: {}\r\nETag: \"{etag}\"\r\n", state.commit)
    };
    let resolve_prefix = format!("/{REPOSITORY}/resolve/{REVISION}/");
    let api_prefix = format!("/api/resolve-cache/models/{REPOSITORY}/{REVISION}/");
    if let Some(name) = path.strip_prefix(&resolve_prefix) {
        let Some(file) = locked.files.get(name) else {
            drop(locked);
            return finish(stream, 404, "", b"Entry not found");
        };
        let mut headers = common(&locked, file);
        if file.lfs {
            let sha = sha256(&file.bytes);
            let store = locked.store.unwrap_or(address);
            headers += &format!("X-Linked-Size: {}\r\nX-Linked-ETag: \"{sha}\"\r\n", file.bytes.len());
            headers += &format!("Location: http://{store}/cdn/{sha}?signature=abc\r\n");
            drop(locked);
            return finish(stream, 302, &headers, b"");
        }
        headers += &format!("Location: {api_prefix}{name}\r\n");
        drop(locked);
        return finish(stream, 307, &headers, b"");
    }
    if let Some(rest) = path.strip_prefix("/api/models/") {
        drop(locked);
        return serve_listing(stream, rest, state);
    }
    let name = match (path.strip_prefix("/cdn/"), path.strip_prefix(&api_prefix)) {
        (Some(rest), _) => {
            let sha = rest.split('?').next().unwrap();
            locked.files.iter().find(|(_, file)| sha256(&file.bytes) == sha).map(|(name, _)| name.clone())
        }
        (None, Some(name)) => Some(name.to_string()),
        _ => None,
    };
    let Some(name) = name else {
        drop(locked);
        return finish(stream, 404, "", b"Revision not found");
    };
    let fault = locked.faults.get_mut(&name).and_then(VecDeque::pop_front);
    let file = &locked.files[&name];
    // The store behind the hub knows nothing of commits, and its ETag is its own.
    let headers = if is_store { "ETag: \"store\"\r\n".to_string() } else { common(&locked, file) };
    let bytes = file.bytes.clone();
    drop(locked);
    serve_bytes(stream, &bytes, &headers, request.range.as_deref(), fault, closing);
}

fn serve_bytes(
    mut stream: TcpStream,
    bytes: &[u8],
    headers: &str,
    range: Option<&str>,
    fault: Option<Fault>,
    closing: &AtomicBool,
) {
    let mut bytes = bytes.to_vec();
    let size = bytes.len();
    let mut start: usize = match range {
        Some(range) => range.trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap(),
        None => 0,
    };
    let mut partial = range.is_some();
    match fault {
        Some(Fault::Status(status)) => return finish(stream, status, "", b"trouble"),
        Some(Fault::Flip(at)) => bytes[at] ^= 1,
        Some(Fault::IgnoreRange) => (start, partial) = (0, false),
        Some(Fault::ShiftRange(by)) => start += by,
        _ => {}
    }
    if start >= size {
        return finish(stream, 416, &format!("Content-Range: bytes */{size}\r\n"), b"");
    }
    let body = &bytes[start..];
    let (announced, sent) = match fault {
        Some(Fault::Short(n)) => (n.min(body.len()), n.min(body.len())),
        Some(Fault::Truncate(n) | Fault::Reset(n) | Fault::Stall(n)) => (body.len(), n.min(body.len())),
        _ => (body.len(), body.len()),
    };
    let status = if partial { "206 Partial Content" } else { "200 OK" };
    let mut head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {announced}\r\nConnection: close\r\n");
    if partial {
        head += &format!("Content-Range: bytes {start}-{}/{size}\r\n", start + announced - 1);
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(&body[..sent]);
    let _ = stream.flush();
    match fault {
        Some(Fault::Reset(_)) => {
            // Time for the client to take what was sent; the reset then discards nothing of it.
            thread::sleep(Duration::from_millis(100));
        }
        Some(Fault::Stall(_)) => {
            while !closing.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(10));
            }
        }
        _ => {
            let _ = stream.read(&mut [0]);
        }
    }
}

/// The description of a revision: `main` and its commit are known.
fn serve_listing(stream: TcpStream, rest: &str, state: &Mutex<State>) {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    assert_eq!(query, "blobs=true", "sizes and hashes come only with blobs=true");
    // A repository under its old name.
    if let Some(revision) = path.strip_prefix("tiny-gpt2/revision/") {
        let location = format!("Location: /api/models/{REPOSITORY}/revision/{revision}?{query}\r\n");
        return finish(stream, 307, &location, b"");
    }
    let known = ["main", REVISION].iter().any(|revision| path == format!("{REPOSITORY}/revision/{revision}"));
    if !known {
        return finish(stream, 404, "", b"{\"error\": \"Invalid rev id\"}");
    }
    let state = state.lock().unwrap();
    let siblings: Vec<_> = state
        .files
        .iter()
        .map(|(path, file)| {
            let mut entry = serde_json::json!({"rfilename": path, "size": file.bytes.len(), "blobId": "0".repeat(40)});
            if file.lfs {
                entry["lfs"] = serde_json::json!(
                    {"sha256": sha256(&file.bytes), "size": file.bytes.len(), "pointerSize": 134});
            }
            entry
        })
        .collect();
    let listing = serde_json::json!(
        {"id": REPOSITORY, "sha": REVISION, "private": false, "gated": false, "siblings": siblings});
    drop(state);
    finish(stream, 200, "Content-Type: application/json\r\n", listing.to_string().as_bytes());
}

fn finish(mut stream: TcpStream, status: u16, headers: &str, body: &[u8]) {
    let head =
        format!("HTTP/1.1 {status} Mock\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
    let _ = stream.read(&mut [0]);
}

/// Reads a request's head but for its last byte.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}
