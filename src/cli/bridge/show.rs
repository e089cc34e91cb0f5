//! What maps are and how good they are, for people and programs.

use lesion::bridge::{PairReport, Reading};
use lesion::forward::{LinearMap, Shortcuts};
use lesion::measure::Number;
use lesion::model::Model;
use lesion::report::grouped;
use serde::Serialize;

use super::args::Show;
use crate::cli::failure::{Exit, Result};
use crate::cli::model::hex;
use crate::cli::output::{Output, SCHEMA_VERSION, escape_controls, shown, table};
use crate::cli::references::saved_failure;

/// A map on held-out text. Fields are never renamed.
#[derive(Serialize)]
struct ReportRecord<'a> {
    schema_version: u32,
    model: &'a str,
    from: usize,
    to: usize,
    /// Places that were read.
    rows: u64,
    intact_nll: Number,
    bridge: ReadingRecord,
    identity: ReadingRecord,
}

#[derive(Serialize)]
struct ReadingRecord {
    /// Without the first token of each sequence.
    r2: Number,
    r2_with_first: Number,
    precision_at_1: Number,
    precision_at_10: Number,
    /// KL(intact ‖ plan), nats.
    kl: Number,
    nll: Number,
}

impl From<&Reading> for ReadingRecord {
    fn from(reading: &Reading) -> ReadingRecord {
        ReadingRecord {
            r2: Number(reading.r2),
            r2_with_first: Number(reading.r2_with_first),
            precision_at_1: Number(reading.precision_at_1),
            precision_at_10: Number(reading.precision_at_10),
            kl: Number(reading.divergence),
            nll: Number(reading.nll),
        }
    }
}

/// A line a map, each measure beside that of A = I.
pub(super) fn reports(output: &mut Output, model: &Model, reports: &[PairReport], sequences: usize) -> Result<()> {
    if output.json {
        for report in reports {
            let PairReport { from, to, rows, intact_nll, bridge, identity } = report;
            output.object(&ReportRecord {
                schema_version: SCHEMA_VERSION,
                model: model.name(),
                from: *from,
                to: *to,
                rows: *rows,
                intact_nll: Number(*intact_nll),
                bridge: bridge.into(),
                identity: identity.into(),
            })?;
        }
        return Ok(());
    }
    let Some(PairReport { rows, intact_nll, .. }) = reports.first() else { return Ok(()) };
    let (rows, sequences, intact) = (grouped(*rows), grouped(sequences as u64), shown(*intact_nll));
    output.heading(&format!("{rows} places of {sequences} sequences; intact: {intact} nats per token"))?;
    let header = ["map", "r²", "A = I", "top-1 %", "A = I", "top-10 %", "A = I", "KL", "A = I", "nats/token", "A = I"];
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let row = |report: &PairReport| {
        let both = |value: &dyn Fn(&Reading) -> String| [value(&report.bridge), value(&report.identity)];
        let mut row = vec![format!("{}:{}", report.from, report.to)];
        row.extend(both(&|reading| format!("{:.3}", reading.r2)));
        row.extend(both(&|reading| percent(reading.precision_at_1)));
        row.extend(both(&|reading| percent(reading.precision_at_10)));
        row.extend(both(&|reading| format!("{:.3}", reading.divergence)));
        row.extend(both(&|reading| format!("{:.3}", reading.nll)));
        row
    };
    let rows: Vec<Vec<String>> = reports.iter().map(row).collect();
    output.text(&table(&header.map(str::to_owned), &rows, 1))?;
    output.line("r² of the state without first tokens; top-k: the intact model's likeliest token is among k; A = I leaves the layers out")
}

/// A map of a file. Fields are never renamed.
#[derive(Serialize)]
struct MapRecord<'a> {
    schema_version: u32,
    from: usize,
    to: usize,
    width: usize,
    /// ‖A − I‖ / ‖I‖, Frobenius norms.
    distance: Number,
    /// ‖b‖
    bias: Number,
    /// SHA-256 of its numbers.
    content: String,
    method: &'a str,
    settings: &'a str,
    model: &'a str,
    weights: &'a str,
    text: &'a str,
    tokens: &'a str,
    tokens_sha256: &'a str,
}

pub(super) fn run(args: &Show) -> Result<Exit> {
    let (shortcuts, fitted) = Shortcuts::read(&args.file).map_err(|error| saved_failure(&error))?;
    let mut output = Output::stdout(args.json);
    if output.json {
        for ((from, to), map) in shortcuts.iter() {
            output.object(&MapRecord {
                schema_version: SCHEMA_VERSION,
                from,
                to,
                width: map.width(),
                distance: Number(distance(map)),
                bias: Number(norm(map.bias())),
                content: hex(&map.content()),
                method: &fitted.method,
                settings: &fitted.settings,
                model: &fitted.model,
                weights: &fitted.weights,
                text: &fitted.text,
                tokens: &fitted.tokens,
                tokens_sha256: &fitted.tokens_sha256,
            })?;
        }
        output.finish()?;
        return Ok(Exit::Ok);
    }
    let said = |text: &str| if text.is_empty() { "not said".to_owned() } else { escape_controls(text) };
    for (what, text) in [
        ("method", &fitted.method),
        ("settings", &fitted.settings),
        ("model", &fitted.model),
        ("weights", &fitted.weights),
        ("text", &fitted.text),
        ("tokens", &fitted.tokens),
    ] {
        output.line(format!("{what:<9} {}", said(text)))?;
    }
    output.line("")?;
    let header = ["map", "width", "‖A − I‖ / ‖I‖", "‖b‖", "content"].map(str::to_owned);
    let row = |((from, to), map): ((usize, usize), &LinearMap)| {
        let content = hex(&map.content()[..6]);
        vec![format!("{from}:{to}"), map.width().to_string(), shown(distance(map)), shown(norm(map.bias())), content]
    };
    output.text(&table(&header, &shortcuts.iter().map(row).collect::<Vec<_>>(), 1))?;
    output.finish()?;
    Ok(Exit::Ok)
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

fn distance(map: &LinearMap) -> f64 {
    let identity = LinearMap::identity(map.width());
    let apart: Vec<f32> = map.weight().iter().zip(identity.weight()).map(|(a, i)| a - i).collect();
    norm(&apart) / (map.width() as f64).sqrt()
}
