//! Opening a store: nothing is written to a file that is not ours, or newer than this program.

use super::error::StoreError;
use super::schema;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a transaction waits for another process's. Theirs take milliseconds: this is for machines that stand still.
const PATIENCE: Duration = Duration::from_secs(60);

/// KiB of pages that a connection keeps in memory.
const CACHE_KIB: i64 = 8 << 10;

/// Pages (of 4 KiB) of the log from which on it is worked into the file.
const LOG_PAGES: i64 = 16_000;

/// A store, open. One connection: for one thread at a time.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
}

impl Store {
    /// Opens a store to read and write; makes one where there is none, and brings an older one up to date.
    ///
    /// # Errors
    /// Where the file is something else, newer than this program, damaged, or can't be written to. It is left as it is.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let failed = |source| StoreError::sqlite("open", path, source);
        // Looked at first by a connection that can't write.
        let version = if is_empty(path)? { None } else { schema::version(&reading(path)?, path)? };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(PATIENCE).map_err(failed)?;
        // SQLite opens what can't be written to all the same.
        if connection.is_readonly("main").map_err(failed)? {
            let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
            return Err(StoreError::Io { operation: "write to", path: path.to_owned(), source });
        }
        let log = || connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        let mode = patiently(log).map_err(failed)?;
        if mode != "wal" {
            let problem = format!("the file system allows no write-ahead log (journal mode {mode})");
            let source = std::io::Error::new(std::io::ErrorKind::Unsupported, problem);
            return Err(StoreError::Io { operation: "open", path: path.to_owned(), source });
        }
        for (pragma, value) in [
            ("synchronous", 2), // FULL
            ("foreign_keys", 1),
            ("cache_size", -CACHE_KIB),
            ("wal_autocheckpoint", LOG_PAGES),
            ("journal_size_limit", LOG_PAGES * 4096),
        ] {
            connection.pragma_update(None, pragma, value).map_err(failed)?;
        }
        if version.is_none_or(|version| version < schema::VERSION) {
            schema::migrate(&mut connection, path)?;
        }
        Ok(Store { connection, path: path.to_owned() })
    }

    /// Opens a store only to read it, also where its folder can't be written to. (One of an older version is brought up to
    /// date first, where it can be.)
    ///
    /// # Errors
    /// Where there is none, it is something else, newer than this program, or damaged.
    pub fn read(path: &Path) -> Result<Store, StoreError> {
        if is_empty(path)? {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        let connection = reading(path)?;
        match schema::version(&connection, path)? {
            None => return Err(StoreError::Missing { path: path.to_owned() }),
            Some(version) if version < schema::VERSION => {
                drop(connection);
                let older = |_| StoreError::Older { path: path.to_owned(), found: version, known: schema::VERSION };
                Store::open(path).map_err(older)?;
                return Store::read(path);
            }
            Some(_) => {}
        }
        let failed = |source| StoreError::sqlite("open", path, source);
        connection.pragma_update(None, "cache_size", -4 * CACHE_KIB).map_err(failed)?;
        Ok(Store { connection, path: path.to_owned() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SQLite's own check of the whole file.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the first thing that is wrong.
    pub fn check_integrity(&self) -> Result<(), StoreError> {
        for pragma in ["integrity_check(1)", "foreign_key_check"] {
            let found = self.connection.prepare(&format!("PRAGMA {pragma}")).and_then(|mut statement| {
                let mut rows = statement.query([])?;
                rows.next()?.map(|row| row.get::<_, String>(0)).transpose()
            });
            match found.map_err(|source| StoreError::sqlite("check", &self.path, source))? {
                Some(problem) if problem != "ok" => {
                    let what = format!("{pragma}: {problem}");
                    return Err(StoreError::Damaged { path: self.path.clone(), what });
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn failed(&self, operation: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
        move |source| StoreError::sqlite(operation, &self.path, source)
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what: what.into() }
    }
}

/// Whether there is no file, or one without a byte: what another process has just begun to write.
fn is_empty(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let source = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            Err(StoreError::Io { operation: "open", path: path.to_owned(), source })
        }
        Ok(found) => Ok(found.len() == 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(StoreError::Io { operation: "look at", path: path.to_owned(), source }),
    }
}

/// A connection that can't write.
fn reading(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::sqlite("open", path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(PATIENCE).map_err(failed)?;
    let probe = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    match probe {
        Ok(()) => Ok(connection),
        // The index of the log can't be made beside it: the folder can't be written to.
        Err(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)) => {
            let mut log = path.as_os_str().to_owned();
            log.push("-wal");
            if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
                return Err(StoreError::Log { path: path.to_owned() });
            }
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(immutable(path), flags).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The address of a file that nobody changes.
fn immutable(path: &Path) -> String {
    let mut address = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => address.push(*byte as char),
            _ => write!(address, "%{byte:02X}").expect("a String takes any text"),
        }
    }
    address.push_str("?immutable=1");
    address
}

/// Tries again while another process is in the way, where SQLite itself does not wait.
fn patiently<T>(mut attempt: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}
