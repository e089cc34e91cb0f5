//! SQL that people write, answered without writing.

use super::error::StoreError;
use super::open::Store;
use super::query::Value;
use rusqlite::ErrorCode;
use rusqlite::types::ValueRef;

impl Store {
    /// Answers one statement: its columns' names first, then line by line. Bytes are hexadecimal digits, and what SQLite
    /// keeps as NULL (a NaN among them: see its class column) is none.
    ///
    /// # Errors
    /// Where the statement is none that only reads; whatever `take` returns.
    pub fn sql<E: From<StoreError>>(
        &self,
        sql: &str,
        mut take: impl FnMut(&[String], &[Value]) -> Result<(), E>,
    ) -> Result<Vec<String>, E> {
        let failed = self.failed("query");
        self.connection.pragma_update(None, "query_only", 1).map_err(&failed)?;
        // What is wrong with the file is not the statement's fault.
        let refused = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure) => failed(error),
            _ => StoreError::Query(error.to_string()),
        };
        let mut select = self.connection.prepare(sql).map_err(&refused)?;
        if !select.readonly() || select.column_count() == 0 {
            return Err(StoreError::Query("a statement that reads is expected, as SELECT".to_owned()).into());
        }
        let names: Vec<String> = select.column_names().map(str::to_owned).collect();
        let mut rows = select.query([]).map_err(&refused)?;
        let mut line = Vec::with_capacity(names.len());
        while let Some(row) = rows.next().map_err(&refused)? {
            line.clear();
            for column in 0..names.len() {
                line.push(match row.get_ref(column).map_err(&refused)? {
                    ValueRef::Null => Value::None,
                    ValueRef::Integer(number) => Value::Integer(number),
                    ValueRef::Real(number) => Value::Number(number),
                    ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                    ValueRef::Blob(bytes) => Value::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
                });
            }
            take(&names, &line)?;
        }
        Ok(names)
    }
}
