//! Queries over made-up results, and what can't be asked.

use super::super::tests::{Folder, filled};
use super::super::{Format, NoteKind};
use super::*;

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn parse(conditions: &[&str], group_by: &[&str], select: &[&str], sort: Option<&str>) -> Result<Query, String> {
    let (conditions, group_by, select) = (texts(conditions), texts(group_by), texts(select));
    let text = QueryText { conditions: &conditions, group_by: &group_by, select: &select, sort, limit: None };
    Query::parse(&text).map_err(|error| error.to_string())
}

/// The lines of an answer, cells between bars.
fn answer(store: &Store, query: Result<Query, String>) -> Vec<String> {
    let mut lines = Vec::new();
    let take = |values: &[Value]| {
        lines.push(values.iter().map(Value::to_string).collect::<Vec<_>>().join("|"));
        Ok::<(), StoreError>(())
    };
    store.query(&query.unwrap(), take).unwrap();
    lines
}

#[test]
fn filters() {
    let folder = Folder::new();
    let (store, name) = filled(&folder);
    let ask = |conditions: &[&str], select: &[&str]| answer(&store, parse(conditions, &[], select, None));
    assert_eq!(ask(&[], &["key"]).len(), 24);
    assert_eq!(
        ask(&["task=sums", "plan=none", "loss>2.2"], &["prompt", "loss"]),
        ["prompt 2|2.175", "prompt 4|2.3", "prompt 6|2.425"][1..]
    );
    assert_eq!(ask(&["plan = '0..2'", "loss=NaN"], &["task", "example", "nll", "non_finite"]), ["capitals|2|NaN|1"]);
    assert_eq!(ask(&["nll=inf"], &["plan", "example"]), ["0..2|3"]);
    assert_eq!(ask(&["loss!=NaN"], &["key"]).len(), 23);
    assert_eq!(ask(&["nll>1e300"], &["key"]).len(), 1, "infinity is more");
    assert_eq!(ask(&["nll!=inf"], &["key"]).len(), 23, "NaN is not infinity");
    assert_eq!(ask(&["correct=true"], &["plan"]), ["0..4"; 8]);
    assert_eq!(ask(&["prompt~mpt 3", "rank>=10"], &["plan", "rank"]).len(), 2);
    assert_eq!(ask(&["prompt!~mpt 3"], &["plan"]).len(), 21);
    assert_eq!(ask(&[&format!("experiment={name}")], &["key"]).len(), 24);
    assert_eq!(ask(&["experiment=none"], &["key"]).len(), 0);
    assert_eq!(ask(&["completion~x"], &["key"]).len(), 0);
    assert_eq!(ask(&["isa=avx2", "threads=2", "model=toy", "numerics=1", "blocks<3"], &["key"]).len(), 16);
    assert_eq!(ask(&["delta>1.999", "delta<2.001", "example=0"], &["plan"]), ["none", "none"]);
    assert_eq!(ask(&["delta=NaN"], &["plan", "example"]), ["0..2|2"]);
    // What looks like SQL is a value.
    assert_eq!(ask(&["task=' OR 1=1 --"], &["key"]).len(), 0);
    assert_eq!(ask(&["task=x'); DROP TABLE results; --"], &["key"]).len(), 0);
    assert_eq!(ask(&[], &["key"]).len(), 24);
}

#[test]
fn groups() {
    let folder = Folder::new();
    let (store, _) = filled(&folder);
    let ask = |conditions: &[&str], group_by: &[&str], select: &[&str], sort: Option<&str>| {
        answer(&store, parse(conditions, group_by, select, sort))
    };
    let loss = |plan: f64| (0.1 + plan * 2.0 + 3.5 / 8.0) / 2.0;
    let by_plan = ask(&[], &["plan"], &["count", "loss", "correct", "min(rank)"], None);
    assert_eq!(by_plan[0], "0..2|8|NaN|0|10", "NaN is not hidden");
    assert_eq!(by_plan[2], "none|8|2.26875|0|20");
    assert!((loss(2.0) - 2.26875).abs() < 1e-12);
    let finite = ask(&["loss!=NaN"], &["plan"], &["loss", "max(nll)", "min(nll)"], None);
    assert!(finite[0].starts_with("0..2|inf|inf|2.1"), "{finite:?}");
    let sorted = ask(&["plan!=0..2"], &["task", "plan"], &["sum(nll)"], Some("-sum(nll)"));
    let first: Vec<&str> = sorted.iter().map(|line| line.rsplit_once('|').unwrap().0).collect();
    assert_eq!(first, ["capitals|none", "sums|none", "capitals|0..4", "sums|0..4"]);
    assert_eq!(
        ask(&["plan=none"], &["task"], &["prompt", "isa"], None),
        ["capitals|(4 different)|avx2", "sums|(4 different)|avx2"]
    );
    assert_eq!(ask(&["plan=none"], &[], &["count", "mean(loss)"], None), ["8|2.26875"], "one group of all");
    assert_eq!(ask(&[], &["experiment"], &["count"], None).len(), 1);
}

#[test]
fn tags_and_completions_are_fields() {
    let folder = Folder::new();
    let (store, name) = filled(&folder);
    let experiment = store.experiment(&name).unwrap();
    store.tag(&experiment, "a", true).unwrap();
    store.tag(&experiment, "b", true).unwrap();
    let tags = answer(&store, parse(&[], &["tag"], &["count"], None));
    assert_eq!(tags, ["a|24", "b|24"]);
    store.add_note(NoteKind::Task, "x", &[], &[]).unwrap();
    assert_eq!(answer(&store, parse(&["completion=x"], &[], &["count"], None)), ["0"]);
}

#[test]
fn what_can_not_be_meant_is_refused() {
    let refused = |conditions: &[&str], group_by: &[&str], select: &[&str]| {
        parse(conditions, group_by, select, Some("-loss")).unwrap_err()
    };
    assert!(refused(&["tsk=1"], &[], &[]).starts_with("--where: no field `tsk`: there are plan, task, example"));
    assert_eq!(refused(&["loss"], &[], &[]), "--where 'loss': expected FIELD=VALUE, or != < <= > >= ~ !~ for =");
    assert_eq!(refused(&["loss>x"], &[], &[]), "--where 'loss>x': loss is a number");
    assert_eq!(refused(&["loss>NaN"], &[], &[]), "--where 'loss>NaN': nothing is more or less than NaN");
    assert_eq!(refused(&["tokens=1.5"], &[], &[]), "--where 'tokens=1.5': tokens is a whole number");
    assert_eq!(refused(&["correct=maybe"], &[], &[]), "--where 'correct=maybe': correct is true or false");
    assert_eq!(
        refused(&["tokens~1"], &[], &[]),
        "--where 'tokens~1': tokens is no text, which could contain something"
    );
    assert_eq!(refused(&["loss!5"], &[], &[]), "--where 'loss!5': there are = != < <= > >= ~ !~");
    assert_eq!(refused(&[], &["loss"], &[]), "--group-by loss: a measured number makes no groups");
    assert_eq!(refused(&[], &["plan"], &["mode(loss)"]), "--select mode(loss): there are mean, min, max, sum");
    assert_eq!(refused(&[], &["plan"], &["max(task)"]), "--select max(task): task is a text");
    assert_eq!(refused(&[], &["plan"], &["count"]), "--sort loss: the columns are plan, count");
}

#[test]
fn answers_for_other_programs() {
    let folder = Folder::new();
    let (store, _) = filled(&folder);
    let query =
        parse(&["task=capitals", "plan=0..2"], &[], &["plan", "example", "loss", "kl", "correct"], None).unwrap();
    let mut bytes = Vec::new();
    let lines = store.export(&query, Format::Csv, &mut bytes, "x.csv".as_ref()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(lines, 4);
    assert_eq!(text.lines().nth(3), Some("0..2,2,NaN,0.25,false"), "{text}");
    let mut bytes = Vec::new();
    store.export(&query, Format::JsonLines, &mut bytes, "x.jsonl".as_ref()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let line = r#"{"plan":"0..2","example":2,"loss":"NaN","kl":0.25,"correct":false}"#;
    assert_eq!(text.lines().nth(2), Some(line), "{text}");
}

/// Read back by the crate's own reader; that pandas and DuckDB read it too, `tests/store_export.rs` shows.
#[test]
fn parquet_holds_the_same() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    let folder = Folder::new();
    let (store, _) = filled(&folder);
    let select = ["prompt", "example", "nll", "correct", "completion"];
    let query = parse(&[], &[], &select, None).unwrap();
    let path = folder.file().with_extension("parquet");
    let mut file = std::fs::File::create(&path).unwrap();
    assert_eq!(store.export(&query, Format::Parquet, &mut file, &path).unwrap(), 24);
    let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let mut lines = Vec::new();
    let take = |values: &[Value]| {
        lines.push(values.to_vec());
        Ok::<(), StoreError>(())
    };
    store.query(&query, take).unwrap();
    let mut rows = 0;
    for (row, want) in reader.get_row_iter(None).unwrap().zip(&lines) {
        let got: Vec<Field> = row.unwrap().into_columns().into_iter().map(|(_, field)| field).collect();
        for (got, want) in got.iter().zip(want) {
            let same = match (got, want) {
                (Field::Null, Value::None) => true,
                (Field::Str(got), Value::Text(want)) => got == want,
                (Field::Long(got), Value::Integer(want)) => got == want,
                (Field::Double(got), Value::Number(want)) => got == want || got.is_nan() && want.is_nan(),
                (Field::Bool(got), Value::Bool(want)) => got == want,
                _ => false,
            };
            assert!(same, "{got:?} {want:?}");
        }
        rows += 1;
    }
    assert_eq!(rows, 24);
}
