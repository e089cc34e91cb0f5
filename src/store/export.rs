//! Answers for other programs: Parquet, CSV, JSON lines; and the whole store as an SQLite file of its own.

use super::error::StoreError;
use super::open::Store;
use super::query::{Column, ColumnKind, Query, Value};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Lines of a row group of Parquet.
const GROUP: usize = 1 << 16;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated (RFC 4180), with a header; what is not there is empty, and NaN is `NaN`.
    Csv,
    /// An object a line; NaN and infinities are texts.
    JsonLines,
    /// Snappy-compressed, every column optional.
    Parquet,
}

impl Store {
    /// Writes a query's answer. `path` names the destination in errors.
    ///
    /// # Errors
    /// Where the store can't be read or `into` can't be written to.
    pub fn export(
        &self,
        query: &Query,
        format: Format,
        into: &mut (dyn Write + Send),
        path: &Path,
    ) -> Result<u64, StoreError> {
        let columns = query.columns();
        let io = |source| StoreError::Io { operation: "write", path: path.to_owned(), source };
        let mut lines = 0;
        match format {
            Format::JsonLines => self.query(query, |values| {
                lines += 1;
                let line = serde_json::to_string(&Object(&columns, values)).expect("no keys but texts");
                writeln!(into, "{line}").map_err(io)
            })?,
            Format::Csv => {
                let csv = |error: csv::Error| StoreError::Export { path: path.to_owned(), problem: error.to_string() };
                let mut writer = csv::WriterBuilder::new().from_writer(into);
                writer.write_record(columns.iter().map(|column| &column.name)).map_err(csv)?;
                self.query(query, |values| {
                    lines += 1;
                    writer.write_record(values.iter().map(Value::to_string)).map_err(csv)
                })?;
                writer.flush().map_err(io)?;
            }
            Format::Parquet => {
                let failed =
                    |error: ParquetError| StoreError::Export { path: path.to_owned(), problem: error.to_string() };
                let mut parquet = Parquet::begin(&columns, into).map_err(failed)?;
                self.query(query, |values| {
                    lines += 1;
                    parquet.add(values).map_err(failed)
                })?;
                parquet.end().map_err(failed)?;
            }
        }
        Ok(lines)
    }

    /// Copies the whole store, as it is now, to a new file, which needs no log and opens read-only anywhere.
    ///
    /// # Errors
    /// Where the file exists or can't be written.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let exists = || {
            let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            StoreError::Io { operation: "write", path: path.to_owned(), source }
        };
        let Some(name) = path.to_str() else {
            let problem = "SQLite takes names in UTF-8 only".to_owned();
            return Err(StoreError::Export { path: path.to_owned(), problem });
        };
        if path.exists() {
            return Err(exists());
        }
        let copied = self.connection.execute("VACUUM INTO ?1", [name]);
        copied.map(|_| ()).map_err(|source| StoreError::sqlite("write", path, source))
    }
}

/// A line as a JSON object.
struct Object<'a>(&'a [Column], &'a [Value]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.0.len()))?;
        for (column, value) in self.0.iter().zip(self.1) {
            object.serialize_entry(&column.name, value)?;
        }
        object.end()
    }
}

/// A Parquet file on its way: lines are gathered into groups, column by column.
struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<Gathered>,
    lines: usize,
}

/// A column's values that are there, and which lines have one.
struct Gathered {
    values: Values,
    there: Vec<i16>,
}

enum Values {
    Text(Vec<ByteArray>),
    Integer(Vec<i64>),
    Number(Vec<f64>),
    Bool(Vec<bool>),
}

impl<W: Write + Send> Parquet<W> {
    fn begin(columns: &[Column], into: W) -> Result<Parquet<W>, ParquetError> {
        let fields = columns.iter().map(|column| {
            let physical = match column.kind {
                ColumnKind::Text => Physical::BYTE_ARRAY,
                ColumnKind::Integer => Physical::INT64,
                ColumnKind::Number => Physical::DOUBLE,
                ColumnKind::Bool => Physical::BOOLEAN,
            };
            let logical = (column.kind == ColumnKind::Text).then_some(LogicalType::String);
            let builder = Type::primitive_type_builder(&column.name, physical);
            builder.with_repetition(Repetition::OPTIONAL).with_logical_type(logical).build().map(Arc::new)
        });
        let schema = Type::group_type_builder("rows").with_fields(fields.collect::<Result<_, _>>()?).build()?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(into, Arc::new(schema), Arc::new(properties))?;
        let columns = columns.iter().map(|column| Gathered::new(column.kind)).collect();
        Ok(Parquet { writer, columns, lines: 0 })
    }

    fn add(&mut self, values: &[Value]) -> Result<(), ParquetError> {
        self.columns.iter_mut().zip(values).for_each(|(column, value)| column.add(value));
        self.lines += 1;
        if self.lines == GROUP { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        let mut columns = self.columns.iter_mut();
        while let (Some(mut writer), Some(column)) = (group.next_column()?, columns.next()) {
            column.write(writer.untyped())?;
            writer.close()?;
        }
        group.close()?;
        self.lines = 0;
        Ok(())
    }

    fn end(mut self) -> Result<(), ParquetError> {
        if self.lines > 0 {
            self.write_group()?;
        }
        self.writer.close().map(|_| ())
    }
}

impl Gathered {
    fn new(kind: ColumnKind) -> Gathered {
        let values = match kind {
            ColumnKind::Text => Values::Text(Vec::new()),
            ColumnKind::Integer => Values::Integer(Vec::new()),
            ColumnKind::Number => Values::Number(Vec::new()),
            ColumnKind::Bool => Values::Bool(Vec::new()),
        };
        Gathered { values, there: Vec::new() }
    }

    fn add(&mut self, value: &Value) {
        let there = match (&mut self.values, value) {
            (_, Value::None) => false,
            (Values::Text(values), value) => {
                values.push(value.to_string().into_bytes().into());
                true
            }
            (Values::Integer(values), Value::Integer(value)) => {
                values.push(*value);
                true
            }
            (Values::Number(values), Value::Number(value)) => {
                values.push(*value);
                true
            }
            (Values::Bool(values), Value::Bool(value)) => {
                values.push(*value);
                true
            }
            _ => unreachable!("columns hold what their kind says"),
        };
        self.there.push(i16::from(there));
    }

    fn write(&mut self, writer: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let there = Some(&self.there[..]);
        match (&mut self.values, writer) {
            (Values::Text(values), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                writer.write_batch(values, there, None)?;
                values.clear();
            }
            (Values::Integer(values), ColumnWriter::Int64ColumnWriter(writer)) => {
                writer.write_batch(values, there, None)?;
                values.clear();
            }
            (Values::Number(values), ColumnWriter::DoubleColumnWriter(writer)) => {
                writer.write_batch(values, there, None)?;
                values.clear();
            }
            (Values::Bool(values), ColumnWriter::BoolColumnWriter(writer)) => {
                writer.write_batch(values, there, None)?;
                values.clear();
            }
            _ => unreachable!("the schema has the columns' kinds"),
        }
        self.there.clear();
        Ok(())
    }
}
