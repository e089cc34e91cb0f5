//! What users write of a query.

use super::fields::{FIELDS, Field, Kind, find};
use super::{Condition, Fold, Item, Query, QueryText, Test, What};
use rusqlite::types::Value as Bound;

/// What is shown unless something is asked for: of rows, and of groups besides what they are grouped by.
const ROW_COLUMNS: [&str; 6] = ["plan", "task", "example", "loss", "correct", "rank"];
const GROUP_COLUMNS: [&str; 3] = ["count", "loss", "correct"];

pub(super) fn query(text: &QueryText<'_>) -> Result<Query, String> {
    let conditions = text.conditions.iter().map(|condition| self::condition(condition)).collect::<Result<_, _>>()?;
    let group_by: Vec<&Field> =
        listed(text.group_by).map(|name| field(name, "--group-by")).collect::<Result<_, _>>()?;
    if let Some(field) = group_by.iter().find(|field| matches!(field.kind, Kind::Real { .. })) {
        return Err(format!("--group-by {}: a measured number makes no groups", field.name));
    }
    let grouped = !group_by.is_empty();
    let mut items: Vec<Item> = Vec::new();
    if grouped {
        items.extend(group_by.iter().map(|field| Item { name: field.name.to_owned(), what: What::Plain(field) }));
    }
    let asked: Vec<&str> = listed(text.select).collect();
    let wanted = match (asked.is_empty(), grouped) {
        (false, _) => asked,
        (true, false) => ROW_COLUMNS.to_vec(),
        (true, true) => GROUP_COLUMNS.to_vec(),
    };
    for name in wanted {
        let item = item(name, &group_by)?;
        if !items.iter().any(|known| known.name == item.name) {
            items.push(item);
        }
    }
    if !grouped && items.iter().any(|item| !matches!(item.what, What::Plain(_))) {
        // One group of all.
        for item in &mut items {
            if let What::Plain(field) = item.what {
                item.what = folded(field);
            }
        }
    }
    let order = text.sort.map(|sort| order(sort, &items)).transpose()?;
    Ok(Query { conditions, group_by, items, order, limit: text.limit })
}

/// Commas separate, and options may be repeated.
fn listed(texts: &[String]) -> impl Iterator<Item = &str> {
    texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

fn field(name: &str, option: &str) -> Result<&'static Field, String> {
    find(name).ok_or_else(|| {
        let names: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
        format!("{option}: no field `{}`: there are {}", name.escape_debug(), names.join(", "))
    })
}

fn item(text: &str, group_by: &[&'static Field]) -> Result<Item, String> {
    let item = |what| Ok(Item { name: text.to_owned(), what });
    if text == "count" {
        return item(What::Count);
    }
    if let Some((fold, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let fold = match fold {
            "mean" => Fold::Mean,
            "min" => Fold::Min,
            "max" => Fold::Max,
            "sum" => Fold::Sum,
            _ => return Err(format!("--select {}: there are mean, min, max, sum", text.escape_debug())),
        };
        let field = field(inner.trim(), "--select")?;
        if field.kind == Kind::Text {
            return Err(format!("--select {}: {} is a text", text.escape_debug(), field.name));
        }
        return item(What::Folded(fold, field));
    }
    let field = field(text, "--select")?;
    let plain = group_by.is_empty() || group_by.iter().any(|by| by.name == field.name);
    item(if plain { What::Plain(field) } else { folded(field) })
}

/// What a field of several rows is, unless something else is asked for.
fn folded(field: &'static Field) -> What {
    What::Folded(if field.kind == Kind::Text { Fold::Only } else { Fold::Mean }, field)
}

fn order(text: &str, items: &[Item]) -> Result<(usize, bool), String> {
    let (name, largest) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
    let at = items.iter().position(|item| item.name == name).ok_or_else(|| {
        let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
        format!("--sort {}: the columns are {}", name.escape_debug(), names.join(", "))
    })?;
    Ok((at, largest))
}

fn condition(text: &str) -> Result<Condition, String> {
    let at = |problem: String| format!("--where '{}': {problem}", text.escape_debug());
    let end = text.find(['=', '<', '>', '!', '~']);
    let end = end.ok_or_else(|| at("expected FIELD=VALUE, or != < <= > >= ~ !~ for =".to_owned()))?;
    let name = text[..end].trim();
    let rest = &text[end..];
    let operators = ["!=", "<=", ">=", "!~", "=", "<", ">", "~"];
    let operator = operators.into_iter().find(|operator| rest.starts_with(operator));
    let operator = operator.ok_or_else(|| at("there are = != < <= > >= ~ !~".to_owned()))?;
    let value = unquoted(rest[operator.len()..].trim());
    let field = field(name, "--where")?;
    let (test, value) = match (field.kind, operator) {
        (Kind::Text, "~" | "!~") => (Test::Contains(operator == "~"), Bound::Text(value.to_owned())),
        (_, "~" | "!~") => return Err(at(format!("{} is no text, which could contain something", field.name))),
        (Kind::Text, _) => (Test::Compare(compared(operator)), Bound::Text(value.to_owned())),
        (Kind::Bool, "=" | "!=") => match value {
            "true" | "1" => (Test::Compare(compared(operator)), Bound::Integer(1)),
            "false" | "0" => (Test::Compare(compared(operator)), Bound::Integer(0)),
            _ => return Err(at(format!("{} is true or false", field.name))),
        },
        (Kind::Bool, _) => return Err(at(format!("{} is true or false, not more or less", field.name))),
        (Kind::Integer, _) => {
            let number = value.parse().map_err(|_| at(format!("{} is a whole number", field.name)))?;
            (Test::Compare(compared(operator)), Bound::Integer(number))
        }
        (Kind::Real { .. }, _) => {
            let number: f64 = value.parse().map_err(|_| at(format!("{} is a number", field.name)))?;
            match operator {
                "=" | "!=" if number.is_nan() => (Test::IsNan(operator == "="), Bound::Integer(1)),
                _ if number.is_nan() => return Err(at("nothing is more or less than NaN".to_owned())),
                _ => (Test::Compare(compared(operator)), Bound::Real(number)),
            }
        }
    };
    Ok(Condition { field, test, value })
}

/// The operator in SQL.
fn compared(operator: &str) -> &'static str {
    match operator {
        "=" => "=",
        "!=" => "<>",
        "<" => "<",
        "<=" => "<=",
        ">" => ">",
        _ => ">=",
    }
}

/// A value may stand in quotes, which a shell has not taken off.
fn unquoted(value: &str) -> &str {
    let inner = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('\'').or_else(|| inner('"')).unwrap_or(value)
}
