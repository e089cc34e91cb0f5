//! One file from the hub to the disk, in bounded time.
//!
//! hf-hub gives the addresses and the client with its TLS, user agent and token. Its own transfer isn't used: it has no
//! timeouts, appends whatever answer comes to a partial file, fails for good on one that is complete, and sends the
//! token to the host that a redirect names. This one, per attempt: ask for the bytes from where the partial file ends;
//! follow redirects by hand, because commit and ETag stand in the hub's own answer and not in that of the store behind
//! it; append only what the answer's `Content-Range` says begins there. No wait for the network lasts longer than
//! `stall_timeout`. A failure that may pass is retried; the partial file stays for the next time.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;

use hf_hub::api::sync::{Api, ApiRepo};
use hf_hub::{Repo, RepoType};
use ureq::http::{HeaderMap, Response, Uri, header};

use super::{Event, HubError, HubOptions, Observer, make_dir, remove};

const MAX_REDIRECTS: usize = 10;

/// One revision of one repository at the hub, and the folder for its partial files.
pub(super) struct Source<'a> {
    repo: ApiRepo,
    /// Scheme, host and port of the hub: only they get to see the token.
    hub: String,
    repository: String,
    revision: String,
    staging: PathBuf,
    options: &'a HubOptions,
}

/// A file that has arrived, not yet verified.
pub(super) struct Staged {
    pub(super) blob: PathBuf,
    /// The hub's name for the content, usable as a file name.
    pub(super) etag: String,
    /// Whether part of it comes from an earlier attempt.
    pub(super) resumed: bool,
}

/// Why an attempt failed, and whether the next one may succeed.
pub(super) enum Failure {
    Final(HubError),
    Passing { reason: String, received: u64 },
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Failure {
        Failure::Final(error)
    }
}

/// An answer of the hub, or of the store that it redirected to, with what the hub said on the way.
struct Answer {
    response: Response<ureq::Body>,
    commit: Option<String>,
    etag: Option<String>,
}

impl<'a> Source<'a> {
    pub(super) fn new(api: &Api, repository: &str, revision: &str, staging: &Path, options: &'a HubOptions) -> Self {
        let repo = api.repo(Repo::with_revision(repository.into(), RepoType::Model, revision.into()));
        let hub = origin(&repo.url("")).unwrap_or_default();
        let staging = staging.join(revision);
        Source { repo, hub, repository: repository.into(), revision: revision.into(), staging, options }
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    pub(super) fn url(&self, path: &str) -> String {
        self.repo.url(path)
    }

    /// The address of the revision's description, file sizes and large files' hashes included.
    pub(super) fn listing_url(&self) -> String {
        let request = self.repo.info_request();
        format!("{}?blobs=true", request.uri_ref().map(Uri::to_string).unwrap_or_default())
    }

    /// The text at `url`, of at most `limit` bytes.
    pub(super) fn text(&self, url: &str, limit: u64, observe: Observer<'_>) -> Result<String, HubError> {
        self.retrying(url, url, observe, |_| {
            let mut answer = self.open(url, None)?;
            self.accept(url, &answer, 0)?;
            let body = answer.response.body_mut().with_config().limit(limit);
            body.read_to_string().map_err(|error| self.failed(url, error, 0))
        })
    }

    /// Brings the file at `path`, `size` bytes long, into the staging folder.
    pub(super) fn download(&self, path: &str, size: u64, observe: Observer<'_>) -> Result<Staged, HubError> {
        let url = self.url(path);
        let blob = self.staging.join(path);
        observe(Event::Download { file: path, url: &url, size });
        let mut resumed = false;
        let etag = self.retrying(path, &url, observe, |observe| {
            let io_error = |operation| {
                let path = blob.clone();
                move |source| HubError::Io { operation, path, source }
            };
            let have = match fs::metadata(&blob) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                found => found.map_err(io_error("look into"))?.len(),
            };
            // The last byte is always asked for: a complete file needs an answer, too, for its ETag, and a range that
            // begins at the end of the file would be refused.
            let mut done = if have > size { 0 } else { have.min(size.saturating_sub(1)) };

            let answer = self.open(&url, Some(done))?;
            self.accept(&url, &answer, have).inspect_err(|_| {
                if answer.response.status().as_u16() == 416 {
                    let _ = fs::remove_file(&blob);
                }
            })?;
            let etag = self.check_answer(&url, &answer, size, &mut done)?;
            resumed = done > 0;
            // Nothing is written before the hub has answered.
            make_dir(blob.parent().expect("a file in a folder"))?;
            let mut file =
                File::options().write(true).create(true).truncate(false).open(&blob).map_err(io_error("open"))?;
            file.set_len(done).map_err(io_error("write"))?;
            file.seek(SeekFrom::Start(done)).map_err(io_error("write"))?;
            observe(Event::Received { file: path, done, size });

            let mut body = answer.response.into_body().into_reader();
            let mut buffer = vec![0; 1 << 16];
            while done < size {
                let wanted = buffer.len().min(usize::try_from(size - done).unwrap_or(usize::MAX));
                match body.read(&mut buffer[..wanted]) {
                    Ok(0) => {
                        let reason = format!("truncated: {done} of {size} bytes came");
                        return Err(Failure::Passing { reason, received: done });
                    }
                    Ok(count) => {
                        file.write_all(&buffer[..count]).map_err(io_error("write"))?;
                        done += count as u64;
                        observe(Event::Received { file: path, done, size });
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(self.failed(&url, error.into(), done)),
                }
            }
            Ok(etag)
        })?;
        Ok(Staged { blob, etag, resumed })
    }

    /// Deletes what has arrived of a file.
    pub(super) fn discard(&self, staged: &Staged) -> Result<(), HubError> {
        remove(&staged.blob)
    }

    /// Sends one request, with a `Range` from `start` to the end if given, and follows redirects.
    fn open(&self, url: &str, start: Option<u64>) -> Result<Answer, Failure> {
        let (mut address, mut commit, mut etag) = (url.to_string(), None, None);
        for _ in 0..=MAX_REDIRECTS {
            let at_hub = origin(&address).as_deref() == Some(&self.hub);
            let mut request =
                self.repo.info_request().uri(address.as_str()).header(header::ACCEPT_ENCODING, "identity");
            if let Some(start) = start {
                request = request.header(header::RANGE, format!("bytes={start}-"));
            }
            if !at_hub && let Some(headers) = request.headers_mut() {
                headers.remove(header::AUTHORIZATION);
            }
            let wait = Some(self.options.stall_timeout);
            let request = request.config().http_status_as_error(false).max_redirects(0).timeout_resolve(wait);
            let request = request.timeout_connect(wait).timeout_per_read(wait).timeout_per_write(wait).build();
            let response = request.call().map_err(|error| self.failed(url, error, start.unwrap_or(0)))?;
            if at_hub {
                let headers = response.headers();
                commit = commit.or_else(|| text_of(headers, "x-repo-commit"));
                etag = etag.or_else(|| text_of(headers, "x-linked-etag")).or_else(|| text_of(headers, "etag"));
            }
            match response.headers().get(header::LOCATION) {
                Some(location) if response.status().is_redirection() => {
                    let location = String::from_utf8_lossy(location.as_bytes());
                    address = redirected(&address, &location)
                        .ok_or_else(|| self.odd(url, "redirect", &location, "an address as safe as the one before"))?;
                }
                _ => return Ok(Answer { response, commit, etag }),
            }
        }
        Err(self.odd(url, "redirect", "one more", "ten at most").into())
    }

    /// Whether the answer carries what was asked for.
    fn accept(&self, url: &str, answer: &Answer, received: u64) -> Result<(), Failure> {
        let url = url.to_string();
        match answer.response.status().as_u16() {
            200 | 206 => Ok(()),
            status @ (401 | 403) => {
                let advice = match self.options.token {
                    None => "the repository is private or gated, or doesn't exist: set HF_TOKEN",
                    Some(_) => "the token has no access to it: it is private, or its terms aren't accepted yet",
                };
                Err(HubError::Denied { url, status, advice }.into())
            }
            status @ (404 | 410) => Err(HubError::NotFound { url, status }.into()),
            status @ (408 | 416 | 429 | 500 | 502 | 503 | 504) => {
                let received = if status == 416 { 0 } else { received };
                Err(Failure::Passing { reason: format!("HTTP {status}"), received })
            }
            status => Err(self.odd(&url, "status", status, "200 or 206").into()),
        }
    }

    /// Compares the answer with the request: commit, ETag, and size and place of the bytes. An answer that begins at
    /// the file's first byte sets `start` to 0. Returns the ETag.
    fn check_answer(&self, url: &str, answer: &Answer, size: u64, start: &mut u64) -> Result<String, Failure> {
        let Some(commit) = &answer.commit else {
            return Err(self.odd(url, "X-Repo-Commit", "missing", &self.revision).into());
        };
        if *commit != self.revision {
            return Err(self.odd(url, "X-Repo-Commit", commit, &self.revision).into());
        }
        let etag = answer.etag.as_deref().unwrap_or_default().trim_start_matches("W/").trim_matches('"');
        if etag.is_empty() || !etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(self.odd(url, "ETag", format!("{etag:?}"), "letters and digits").into());
        }
        let headers = answer.response.headers();
        let total = if answer.response.status().as_u16() == 206 {
            let range = text_of(headers, "content-range").unwrap_or_default();
            let Some((first, total)) = content_range(&range) else {
                return Err(self.odd(url, "Content-Range", format!("{range:?}"), "bytes FIRST-LAST/SIZE").into());
            };
            if first != *start {
                return Err(self.odd(url, "Content-Range", first, start).into());
            }
            Some(total)
        } else {
            *start = 0;
            text_of(headers, "content-length").and_then(|length| length.parse().ok())
        };
        match total {
            Some(total) if total != size => Err(self.odd(url, "file size", total, size).into()),
            _ => Ok(etag.to_string()),
        }
    }

    /// Runs `attempt` until it succeeds, fails for good, or has been retried often enough; `what` names it to the user.
    fn retrying<T>(
        &self,
        what: &str,
        url: &str,
        observe: Observer<'_>,
        mut attempt: impl FnMut(Observer<'_>) -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let (mut left, mut pause) = (self.options.retries, self.options.retry_pause);
        loop {
            match attempt(observe) {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { reason, received }) if left == 0 => {
                    return Err(HubError::Transfer { url: url.into(), reason, received });
                }
                Err(Failure::Passing { reason, .. }) => observe(Event::Retry { what, reason: &reason, pause }),
            }
            thread::sleep(pause);
            (left, pause) = (left - 1, pause.saturating_mul(2));
        }
    }

    /// Sorts the client's errors: a connection that broke is worth another attempt; one that stalled has waited long
    /// enough, and one that never came about (no network, wrong address, TLS) won't by asking again.
    fn failed(&self, url: &str, error: ureq::Error, received: u64) -> Failure {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let broke = match &error {
            ureq::Error::Timeout(_) => {
                let waited = self.options.stall_timeout;
                return HubError::Stalled { url: url.into(), waited, received }.into();
            }
            ureq::Error::Io(e) => matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof),
            ureq::Error::Protocol(_) => true,
            _ => false,
        };
        let reason = error.to_string();
        if broke {
            Failure::Passing { reason, received }
        } else {
            HubError::Transfer { url: url.into(), reason, received }.into()
        }
    }

    fn odd(&self, url: &str, what: &'static str, found: impl ToString, expected: impl ToString) -> HubError {
        HubError::Answer { url: url.into(), what, found: found.to_string(), expected: expected.to_string() }
    }
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_string)
}

/// Scheme, host and port.
fn origin(address: &str) -> Option<String> {
    let uri: Uri = address.parse().ok()?;
    Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?.as_str().to_ascii_lowercase()))
}

/// Where a redirect leads: an absolute address, though never from https down to http, or a path on the same host.
fn redirected(from: &str, location: &str) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(origin(from)? + location);
    }
    let down = from.starts_with("https:") && !location.starts_with("https:");
    (origin(location).is_some() && !down).then(|| location.to_string())
}

/// First byte and whole size of `bytes FIRST-LAST/SIZE`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, size.parse().ok()?))
}
