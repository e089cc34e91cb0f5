//! Filters and groups over any field. What users write is parsed here and reaches SQLite as bound parameters; SQL itself is
//! put together from constants alone.
//!
//! A line is a result and a task that its example is of. Grouped, a number is its mean (or what is asked for:
//! `min(loss)`), a text is itself where the group has only one, and what is NaN in one row of a group is NaN in its mean.

mod fields;
mod parse;
#[cfg(test)]
mod tests;

use super::error::StoreError;
use super::open::Store;
use crate::measure::Number;
use fields::{Field, Join, Kind};
use rusqlite::types::Value as Bound;
use serde::{Serialize, Serializer};
use std::fmt;

/// A question about results.
#[derive(Clone, Debug)]
pub struct Query {
    conditions: Vec<Condition>,
    group_by: Vec<&'static Field>,
    items: Vec<Item>,
    /// A column, and whether the largest comes first.
    order: Option<(usize, bool)>,
    limit: Option<u64>,
}

/// What users write.
#[derive(Clone, Debug, Default)]
pub struct QueryText<'a> {
    /// `FIELD OP VALUE`, all of which must hold.
    pub conditions: &'a [String],
    /// Fields.
    pub group_by: &'a [String],
    /// Fields, or `mean(FIELD)`, `min`, `max`, `sum`, and `count`.
    pub select: &'a [String],
    /// A column; with a minus in front of it the largest first.
    pub sort: Option<&'a str>,
    /// Lines at most.
    pub limit: Option<u64>,
}

#[derive(Clone, Debug)]
struct Condition {
    field: &'static Field,
    test: Test,
    value: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    /// `=`, `<>`, `<`, …
    Compare(&'static str),
    Contains(bool),
    IsNan(bool),
}

/// A column of the answer.
#[derive(Clone, Debug)]
struct Item {
    name: String,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// As it is in each row, or in each group.
    Plain(&'static Field),
    /// Of the rows of a group.
    Folded(Fold, &'static Field),
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fold {
    Mean,
    Min,
    Max,
    Sum,
    /// The one value, or how many.
    Only,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What its values are, where there are any.
    pub kind: ColumnKind,
}

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// [`Value::Text`], or [`Value::Several`].
    Text,
    /// [`Value::Integer`]
    Integer,
    /// [`Value::Number`]
    Number,
    /// [`Value::Bool`]
    Bool,
}

/// A value in an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// There is none.
    None,
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A measured number.
    Number(f64),
    /// Yes or no.
    Bool(bool),
    /// So many different ones, in a group.
    Several(u64),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Several {
            different: u64,
        }
        match self {
            Value::None => serializer.serialize_none(),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Integer(number) => serializer.serialize_i64(*number),
            Value::Number(number) => Number(*number).serialize(serializer),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Several(different) => Several { different: *different }.serialize(serializer),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => Ok(()),
            Value::Text(text) => f.write_str(text),
            Value::Integer(number) => number.fmt(f),
            Value::Number(number) => number.fmt(f),
            Value::Bool(value) => value.fmt(f),
            Value::Several(different) => write!(f, "({different} different)"),
        }
    }
}

impl Query {
    /// Reads what users write.
    ///
    /// # Errors
    /// [`StoreError::Query`] names the part that can't be meant.
    pub fn parse(text: &QueryText<'_>) -> Result<Query, StoreError> {
        parse::query(text).map_err(StoreError::Query)
    }

    /// The fields that there are, a line each.
    pub fn fields() -> String {
        fields::described()
    }

    /// The columns of the answer.
    pub fn columns(&self) -> Vec<Column> {
        let column = |item: &Item| {
            let kind = match item.what {
                What::Plain(Field { kind: Kind::Text, .. }) | What::Folded(Fold::Only, _) => ColumnKind::Text,
                What::Plain(Field { kind: Kind::Bool, .. }) => ColumnKind::Bool,
                What::Plain(Field { kind: Kind::Integer, .. }) | What::Count => ColumnKind::Integer,
                What::Plain(_) | What::Folded(..) => ColumnKind::Number,
            };
            Column { name: item.name.clone(), kind }
        };
        self.items.iter().map(column).collect()
    }

    fn sql(&self) -> String {
        let grouped = !self.group_by.is_empty();
        let columns: Vec<String> = self.items.iter().flat_map(|item| item.columns()).collect();
        let used = self.group_by.iter().copied().chain(self.conditions.iter().map(|condition| condition.field));
        let joins: Vec<Join> = used.chain(self.items.iter().filter_map(Item::field)).map(|field| field.join).collect();
        let mut sql = format!("SELECT {} FROM {}", columns.join(", "), joined(&joins));
        for (number, condition) in self.conditions.iter().enumerate() {
            sql.push_str(if number == 0 { " WHERE " } else { " AND " });
            sql.push_str(&condition.sql(number + 1));
        }
        if grouped {
            let by: Vec<&str> = self.group_by.iter().map(|field| field.group).collect();
            sql.push_str(&format!(" GROUP BY {}", by.join(", ")));
        }
        let mut order = Vec::new();
        if let Some((item, largest)) = self.order {
            let first = self.items[..item].iter().map(|item| item.columns().len()).sum::<usize>() + 1;
            order.push(format!("{first} {} NULLS LAST", if largest { "DESC" } else { "ASC" }));
        }
        if grouped {
            order.extend(self.group_by.iter().map(|field| field.sql.to_owned()));
        } else if !self.items.iter().any(|item| matches!(item.what, What::Folded(..) | What::Count)) {
            order.push("r.setting, r.example, r.plan, q.id".to_owned());
        }
        if !order.is_empty() {
            sql.push_str(&format!(" ORDER BY {}", order.join(", ")));
        }
        if let Some(limit) = self.limit {
            sql.push_str(&format!(" LIMIT {limit}"));
        }
        sql
    }
}

/// The tables that fields need.
fn joined(joins: &[Join]) -> String {
    let needs = |join: Join| joins.contains(&join);
    let experiments = needs(Join::Experiment) || needs(Join::Tag);
    let mut sql = String::new();
    if experiments {
        sql.push_str(
            // In this order: SQLite's own guesses take six times as long on a million results.
            "experiments e CROSS JOIN experiment_examples n ON n.experiment = e.id
             CROSS JOIN questions q ON q.id = n.question
             CROSS JOIN results r ON r.setting = e.setting AND r.example = q.example
             CROSS JOIN experiment_plans ep ON ep.experiment = e.id AND ep.plan = r.plan",
        );
    } else {
        sql.push_str("results r LEFT JOIN questions q ON q.example = r.example");
        if needs(Join::Number) {
            sql.push_str(" LEFT JOIN questions n ON n.id = q.id");
        }
    }
    if needs(Join::Tag) {
        sql.push_str(" JOIN tags g ON g.experiment = e.id");
    }
    if needs(Join::Setting) || needs(Join::Intact) {
        sql.push_str(" JOIN settings s ON s.id = r.setting JOIN models m ON m.id = s.model");
    }
    for (join, table) in [
        (Join::Plan, " JOIN plans p ON p.id = r.plan"),
        (Join::Task, " LEFT JOIN tasks t ON t.id = q.task"),
        (Join::Observation, " JOIN observations o ON o.id = r.observation"),
        (Join::Example, " JOIN examples x ON x.id = r.example"),
        (
            Join::Intact,
            " LEFT JOIN plans whole ON whole.text = iif(m.n_layer = 1, '0', '0..' || m.n_layer)
             LEFT JOIN results intact ON intact.setting = r.setting AND intact.example = r.example AND intact.plan = whole.id",
        ),
    ] {
        if needs(join) {
            sql.push_str(table);
        }
    }
    sql
}

impl Condition {
    /// The value is parameter `number`.
    fn sql(&self, number: usize) -> String {
        let field = self.field;
        match (self.test, field.kind) {
            (Test::IsNan(wanted), Kind::Real { nan }) => {
                format!("(?{number} AND {}({nan}))", if wanted { "" } else { "NOT " })
            }
            (Test::Contains(wanted), _) => {
                format!("(instr({}, ?{number}) > 0) IS {}", field.sql, if wanted { "TRUE" } else { "FALSE" })
            }
            // What differs from a number may be NaN.
            (Test::Compare("<>"), Kind::Real { nan }) => format!("({} <> ?{number} OR {nan})", field.sql),
            (Test::Compare(operator), _) => format!("({}) {operator} ?{number}", field.sql),
            (Test::IsNan(_), _) => unreachable!("only numbers are NaN"),
        }
    }
}

/// Columns of a fold: the value, NaNs, infinities of either sign.
const FOLDED: usize = 4;

impl Item {
    fn field(&self) -> Option<&'static Field> {
        match self.what {
            What::Plain(field) | What::Folded(_, field) => Some(field),
            What::Count => None,
        }
    }

    /// Its columns in SQL.
    fn columns(&self) -> Vec<String> {
        match self.what {
            What::Count => vec!["count(*)".to_owned()],
            What::Plain(field) => match field.kind {
                Kind::Real { nan } => vec![field.sql.to_owned(), nan.to_owned()],
                _ => vec![field.sql.to_owned()],
            },
            What::Folded(Fold::Only, field) => {
                vec![
                    format!("min({})", field.sql),
                    format!("count(DISTINCT {})", field.sql),
                    format!("sum(({}) IS NULL)", field.sql),
                ]
            }
            What::Folded(fold, field) => {
                let sql = format!("({})", field.sql);
                let finite = format!("FILTER (WHERE abs{sql} < 9e999)");
                let value = match fold {
                    Fold::Mean => format!("avg{sql} {finite}"),
                    Fold::Sum => format!("sum{sql} {finite}"),
                    Fold::Min => format!("min{sql}"),
                    Fold::Max | Fold::Only => format!("max{sql}"),
                };
                let nan = match field.kind {
                    Kind::Real { nan } => format!("total({nan})"),
                    _ => "0.0".to_owned(),
                };
                vec![value, nan, format!("total({sql} = 9e999)"), format!("total({sql} = -9e999)")]
            }
        }
    }

    /// Its value from its columns, the first of which is `at`; moves `at` behind them.
    fn value(&self, row: &rusqlite::Row<'_>, at: &mut usize) -> rusqlite::Result<Value> {
        let first = *at;
        *at += match self.what {
            What::Count => 1,
            What::Plain(Field { kind: Kind::Real { .. }, .. }) => 2,
            What::Plain(_) => 1,
            What::Folded(Fold::Only, _) => 3,
            What::Folded(..) => FOLDED,
        };
        match self.what {
            What::Count => Ok(Value::Integer(row.get(first)?)),
            What::Plain(field) => plain(row, first, field),
            What::Folded(Fold::Only, field) => {
                let (different, none): (i64, i64) = (row.get(first + 1)?, row.get(first + 2)?);
                match (different, none) {
                    (0, _) => Ok(Value::None),
                    (1, 0) => plain(row, first, field),
                    _ => Ok(Value::Several(different as u64 + u64::from(none > 0))),
                }
            }
            What::Folded(fold, _) => {
                let value: Option<f64> = row.get(first)?;
                let [nan, above, below] = [1, 2, 3].map(|column| row.get::<_, f64>(first + column));
                let (nan, above, below) = (nan? > 0.0, above? > 0.0, below? > 0.0);
                Ok(match (fold, value) {
                    _ if nan => Value::Number(f64::NAN),
                    (Fold::Mean | Fold::Sum, _) if above && below => Value::Number(f64::NAN),
                    (Fold::Mean | Fold::Sum, _) if above => Value::Number(f64::INFINITY),
                    (Fold::Mean | Fold::Sum, _) if below => Value::Number(f64::NEG_INFINITY),
                    (_, Some(value)) => Value::Number(value),
                    (_, None) => Value::None,
                })
            }
        }
    }
}

/// A field's value in a row.
fn plain(row: &rusqlite::Row<'_>, at: usize, field: &Field) -> rusqlite::Result<Value> {
    Ok(match field.kind {
        Kind::Text => row.get::<_, Option<String>>(at)?.map_or(Value::None, Value::Text),
        Kind::Integer => row.get::<_, Option<i64>>(at)?.map_or(Value::None, Value::Integer),
        Kind::Bool => row.get::<_, Option<bool>>(at)?.map_or(Value::None, Value::Bool),
        Kind::Real { .. } => match (row.get::<_, Option<f64>>(at)?, row.get::<_, Option<bool>>(at + 1)?) {
            (_, Some(true)) => Value::Number(f64::NAN),
            (value, _) => value.map_or(Value::None, Value::Number),
        },
    })
}

impl Store {
    /// Answers a query line by line.
    ///
    /// # Errors
    /// Where the store can't be read; whatever `take` returns.
    pub fn query<E: From<StoreError>>(
        &self,
        query: &Query,
        mut take: impl FnMut(&[Value]) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = self.failed("query");
        let mut select = self.connection.prepare(&query.sql()).map_err(&failed)?;
        let values = query.conditions.iter().map(|condition| &condition.value);
        let mut rows = select.query(rusqlite::params_from_iter(values)).map_err(&failed)?;
        let mut line = Vec::with_capacity(query.items.len());
        while let Some(row) = rows.next().map_err(&failed)? {
            line.clear();
            let mut at = 0;
            for item in &query.items {
                line.push(item.value(row, &mut at).map_err(&failed)?);
            }
            take(&line)?;
        }
        Ok(())
    }
}
