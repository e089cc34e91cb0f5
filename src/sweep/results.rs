//! A file of rows that an interrupted sweep continues from: append-only, a line a row, each with a checksum.
//!
//! ```text
//! 1c5b0d2e {"lesion_results":1,"key":"9f…"}
//! 77e1a004 {"example":0,"digest":"83…","plan":0,"tokens":2,"nll":3.25,…}
//! ```
//!
//! The key stands for all that decides a row but the example: weights, numerics, plans, measures. A row carries the digest
//! of its example's tokens. A line counts if its checksum (the first 8 hex digits of the text's SHA-256) is right; what a
//! killed process left behind the last whole line is cut off. A wrong line with right ones behind it is no such remainder:
//! the file is damaged, and refused.
//!
//! Rows are acknowledged once they are on the disk: [`Results::sync`], and by itself after so many rows or so much time.

use super::{Example, Row};
use crate::hex::hex;
use crate::measure::Number;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

const VERSION: u32 = 1;

/// Rows that wait for the disk at most, their bytes, and for how long.
const ROWS: usize = 1_000;
const BYTES: usize = 1 << 20;
const TIME: Duration = Duration::from_millis(200);

/// Why a file of results can't be used.
#[derive(Debug, Error)]
pub enum ResultsError {
    /// The system refused.
    #[error("can't {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process writes to it.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{} holds no results of a sweep: line 1 is not their beginning", path.display())]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another sweep.
    #[error("{} belongs to another sweep: its key is {found}, this one's {expected}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The file's key.
        found: String,
        /// The sweep's.
        expected: String,
    },
    /// A line in its midst is wrong.
    #[error("{}, line {line}: damaged, with whole lines behind it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
}

/// Stands for an example's tokens and which of them are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExampleDigest([u8; 16]);

impl ExampleDigest {
    /// The digest of an example.
    pub fn of(example: &Example) -> ExampleDigest {
        let mut hash = Sha256::new();
        for number in [example.scored.start, example.scored.end] {
            hash.update((number as u64).to_le_bytes());
        }
        example.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        example.references.digest().iter().for_each(|references| hash.update(references));
        let hash: [u8; 32] = hash.finalize().into();
        ExampleDigest(std::array::from_fn(|i| hash[i]))
    }

    fn hex(&self) -> String {
        hex(&self.0)
    }

    fn from_hex(text: &str) -> Option<ExampleDigest> {
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(ExampleDigest(bytes))
    }
}

/// Takes rows that a file holds.
pub type Saved<'a> = dyn FnMut(ExampleDigest, Row, Range<u64>) + 'a;

/// The file, open for more.
pub struct Results {
    path: PathBuf,
    file: File,
    waiting: Vec<u8>,
    rows: usize,
    synced: Instant,
}

#[derive(Serialize, Deserialize)]
struct Header {
    lesion_results: u32,
    key: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    example: u64,
    digest: String,
    plan: usize,
    tokens: u32,
    nll: Number,
    top1: u32,
    first_rank: u32,
    entropy: Number,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    divergence: Option<Number>,
    non_finite: u32,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    token_nll: Vec<Number>,
}

impl Results {
    /// Opens a file of results of the sweep with this key, or begins one; gives the rows that it holds to `saved`, each with
    /// the bytes of the file at which it lies.
    ///
    /// # Errors
    /// Where the file is another's, in use, damaged, or can't be read and written.
    pub fn open(path: &Path, key: &str, saved: &mut Saved<'_>) -> Result<Results, ResultsError> {
        let failed = |operation| move |source| ResultsError::Io { operation, path: path.to_owned(), source };
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ResultsError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        let end = read(&file, path, key, saved)?;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(failed("cut"))?;
        let mut results = Results { path: path.to_owned(), file, waiting: Vec::new(), rows: 0, synced: Instant::now() };
        if end == 0 {
            results.line(&Header { lesion_results: VERSION, key: key.to_owned() });
            results.sync()?;
        }
        Ok(results)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the rows that lie at these bytes of the file, from one line's beginning to another's end, to `take`.
    ///
    /// # Errors
    /// Where the file can't be read, or is no longer what it was.
    pub fn rows(&mut self, lines: Range<u64>, take: &mut dyn FnMut(Row)) -> Result<(), ResultsError> {
        let failed = |source| ResultsError::Io { operation: "read", path: self.path.clone(), source };
        let mut file = &self.file;
        file.seek(SeekFrom::Start(lines.start)).map_err(failed)?;
        let mut reader = BufReader::new(file.take(lines.end - lines.start));
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(failed)? > 0 {
            let row = whole(&line).and_then(|json| serde_json::from_slice::<Line>(json).ok());
            take(row.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?.into_row());
            line.clear();
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(())
    }

    /// Adds rows of examples with these digests.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn append<'r>(&mut self, rows: impl IntoIterator<Item = (ExampleDigest, &'r Row)>) -> Result<(), ResultsError> {
        for (digest, row) in rows {
            self.line(&Line {
                example: row.example,
                digest: digest.hex(),
                plan: row.plan,
                tokens: row.tokens,
                nll: Number(row.nll),
                top1: row.top1,
                first_rank: row.first_rank,
                entropy: Number(row.entropy),
                divergence: row.divergence.map(Number),
                non_finite: row.non_finite,
                token_nll: row.token_nll.iter().copied().map(Number).collect(),
            });
            self.rows += 1;
            if self.rows >= ROWS || self.waiting.len() >= BYTES {
                self.sync()?;
            }
        }
        self.tick()
    }

    /// Puts on the disk what has waited long enough.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn tick(&mut self) -> Result<(), ResultsError> {
        if self.synced.elapsed() >= TIME { self.sync() } else { Ok(()) }
    }

    /// Puts everything on the disk.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn sync(&mut self) -> Result<(), ResultsError> {
        if !self.waiting.is_empty() {
            let written = self.file.write_all(&self.waiting).and_then(|()| self.file.sync_data());
            written.map_err(|source| ResultsError::Io { operation: "write", path: self.path.clone(), source })?;
            self.waiting.clear();
        }
        self.rows = 0;
        self.synced = Instant::now();
        Ok(())
    }

    fn line(&mut self, line: &impl Serialize) {
        let json = serde_json::to_string(line).expect("lines have string keys and no failing serializer");
        self.waiting.extend_from_slice(format!("{} {json}\n", checksum(json.as_bytes())).as_bytes());
    }
}

/// Reads whole lines; returns where they end.
fn read(file: &File, path: &Path, key: &str, saved: &mut Saved<'_>) -> Result<u64, ResultsError> {
    let mut reader = BufReader::new(file);
    let (mut line, mut end, mut number, mut wrong) = (Vec::new(), 0_u64, 0, None);
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line);
        let length = length.map_err(|source| ResultsError::Io { operation: "read", path: path.to_owned(), source })?;
        if length == 0 {
            break;
        }
        number += 1;
        let Some(json) = whole(&line) else {
            if number == 1 && !is_begun_header(&line) {
                return Err(ResultsError::Other { path: path.to_owned() });
            }
            wrong.get_or_insert(number);
            continue;
        };
        if let Some(line) = wrong {
            return Err(ResultsError::Damaged { path: path.to_owned(), line });
        }
        if number == 1 {
            let header: Header =
                serde_json::from_slice(json).map_err(|_| ResultsError::Other { path: path.to_owned() })?;
            if header.lesion_results != VERSION || header.key != key {
                let (found, expected) = (header.key, key.to_owned());
                return Err(ResultsError::Key { path: path.to_owned(), found, expected });
            }
        } else {
            let damaged = || ResultsError::Damaged { path: path.to_owned(), line: number };
            let row: Line = serde_json::from_slice(json).map_err(|_| damaged())?;
            let digest = ExampleDigest::from_hex(&row.digest).ok_or_else(damaged)?;
            saved(digest, row.into_row(), end..end + length as u64);
        }
        end += length as u64;
    }
    Ok(end)
}

/// The text of a line that was written whole.
fn whole(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = line.split_at_checked(9)?;
    (sum[8] == b' ' && sum[..8] == *checksum(json).as_bytes()).then_some(json)
}

/// Whether a killed process may have left this of its first line.
fn is_begun_header(line: &[u8]) -> bool {
    let begins = b"{\"lesion_results\":";
    let (sum, json) = line.split_at(line.len().min(9));
    let text = sum.iter().take(8).all(u8::is_ascii_hexdigit);
    text && json.iter().zip(begins).all(|(a, b)| a == b) && !line.ends_with(b"\n")
}

impl Line {
    fn into_row(self) -> Row {
        Row {
            plan: self.plan,
            example: self.example,
            tokens: self.tokens,
            nll: self.nll.0,
            top1: self.top1,
            first_rank: self.first_rank,
            entropy: self.entropy.0,
            divergence: self.divergence.map(|number| number.0),
            non_finite: self.non_finite,
            token_nll: self.token_nll.into_iter().map(|number| number.0).collect(),
        }
    }
}

fn checksum(text: &[u8]) -> String {
    hex(&Sha256::digest(text)[..4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn example(number: u64) -> Example {
        Example::new(number, vec![1, 2, number as u32], 1..3)
    }

    fn row(plan: usize, example: u64) -> Row {
        let nll = [0.1 + 0.2, f64::NAN, f64::INFINITY][plan % 3];
        Row {
            plan,
            example,
            tokens: 2,
            nll,
            top1: 1,
            first_rank: 17,
            entropy: 1.5,
            divergence: plan.is_multiple_of(2).then_some(-1e-9),
            non_finite: u32::from(!nll.is_finite()),
            token_nll: if plan == 0 { vec![nll, f64::NEG_INFINITY] } else { Vec::new() },
        }
    }

    fn rows() -> Vec<Row> {
        (0..4).flat_map(|e| (0..5).map(move |p| row(p, e))).collect()
    }

    fn write(path: &Path) {
        let mut results = Results::open(path, "key", &mut |_, _, _| panic!("new")).unwrap();
        let rows = rows();
        results.append(rows.iter().map(|row| (ExampleDigest::of(&example(row.example)), row))).unwrap();
        results.sync().unwrap();
    }

    fn saved(path: &Path) -> Result<Vec<Row>, ResultsError> {
        let mut rows = Vec::new();
        Results::open(path, "key", &mut |digest, row, _| {
            assert_eq!(digest, ExampleDigest::of(&example(row.example)));
            rows.push(row);
        })?;
        Ok(rows)
    }

    /// NaN is equal to itself here.
    fn same(a: &[Row], b: &[Row]) -> bool {
        format!("{a:?}") == format!("{b:?}")
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        write(&path);
        assert!(same(&saved(&path).unwrap(), &rows()));
    }

    /// Every length that a killed process may have left: all whole lines count, and more can be written behind them.
    #[test]
    fn a_file_cut_anywhere_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        write(&path);
        let bytes = fs::read(&path).unwrap();
        for cut in (0..bytes.len()).step_by(7).chain(bytes.len() - 3..bytes.len()) {
            fs::write(&path, &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|b| **b == b'\n').count().saturating_sub(1);
            let found = saved(&path).unwrap();
            assert!(same(&found, &rows()[..whole]), "cut at {cut}");
            let mut results = Results::open(&path, "key", &mut |_, _, _| ()).unwrap();
            let rest = &rows()[whole..];
            results.append(rest.iter().map(|row| (ExampleDigest::of(&example(row.example)), row))).unwrap();
            results.sync().unwrap();
            drop(results);
            assert_eq!(fs::read(&path).unwrap(), bytes, "cut at {cut}");
        }
    }

    #[test]
    fn rows_are_read_again_from_where_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        write(&path);
        let mut places = Vec::new();
        let mut results = Results::open(&path, "key", &mut |_, _, lines| places.push(lines)).unwrap();
        assert!(places.windows(2).all(|pair| pair[0].end == pair[1].start));
        let again = |results: &mut Results, lines: Range<u64>| {
            let mut rows = Vec::new();
            results.rows(lines, &mut |row| rows.push(row)).unwrap();
            rows
        };
        assert!(same(&again(&mut results, places[3].start..places[7].end), &rows()[3..8]));
        // More can be written behind them all the same.
        let more = row(4, 9);
        results.append([(ExampleDigest::of(&example(9)), &more)]).unwrap();
        results.sync().unwrap();
        assert!(same(&again(&mut results, places[19].clone()), &rows()[19..]));
        drop(results);
        let mut last = None;
        Results::open(&path, "key", &mut |_, row, _| last = Some(row)).unwrap();
        assert!(same(&[last.unwrap()], &[more]));
    }

    #[test]
    fn damage_in_the_midst_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        write(&path);
        let bytes = fs::read(&path).unwrap();
        let third = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(1).unwrap().0 + 30;
        for flipped in [third, 30] {
            let mut bytes = bytes.clone();
            bytes[flipped] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let refused = saved(&path).unwrap_err();
            assert!(matches!(refused, ResultsError::Damaged { line: 3, .. } | ResultsError::Other { .. }), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "a refused file is left as it is");
        }
    }

    #[test]
    fn other_files_and_other_sweeps_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        for other in ["hello\n", "notes without an end", "{\"plan\": 1}\n"] {
            fs::write(&path, other).unwrap();
            assert!(matches!(saved(&path), Err(ResultsError::Other { .. })), "{other}");
            assert_eq!(fs::read_to_string(&path).unwrap(), other);
        }
        fs::remove_file(&path).unwrap();
        write(&path);
        let refused = Results::open(&path, "another", &mut |_, _, _| ()).err().unwrap();
        assert!(refused.to_string().ends_with("its key is key, this one's another"), "{refused}");
        let held = Results::open(&path, "key", &mut |_, _, _| ()).unwrap();
        assert!(matches!(saved(&path), Err(ResultsError::InUse { .. })));
        drop(held);
        assert!(matches!(saved(folder.path()), Err(ResultsError::Io { .. })));
    }
}
