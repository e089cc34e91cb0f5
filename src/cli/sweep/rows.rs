//! What a sweep prints for programs: a JSON object or a line of CSV for each plan and example.

use lesion::measure::Number;
use lesion::sweep::Row;
use serde::{Deserialize, Serialize};

use crate::cli::output::{SCHEMA_VERSION, numbers};

/// A plan on an example. Fields are never renamed. Nothing in it depends on the machine, the shard or the time.
#[derive(Serialize)]
pub(crate) struct RowRecord<'a> {
    schema_version: u32,
    plan: &'a str,
    task: &'a str,
    /// In its task or text.
    example: u64,
    /// Among all examples.
    index: u64,
    /// Nats, summed over the answer's tokens.
    answer_nll: Number,
    answer_tokens: u32,
    /// The intact model's.
    intact_nll: Number,
    /// Tokens that are the likeliest in their place.
    top1: u32,
    /// Whether all are.
    correct: bool,
    /// Tokens likelier than the answer's first.
    first_rank: u32,
    /// Nats, summed.
    entropy: Number,
    /// KL(intact ‖ plan): nats, summed.
    #[serde(skip_serializing_if = "Option::is_none")]
    kl: Option<Number>,
    /// Tokens whose loss is NaN or infinite.
    non_finite: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_nll: Option<Vec<Number>>,
}

impl<'a> RowRecord<'a> {
    pub(crate) fn new(plan: &'a str, task: &'a str, example: u64, row: &Row, intact_nll: f64) -> RowRecord<'a> {
        RowRecord {
            schema_version: SCHEMA_VERSION,
            plan,
            task,
            example,
            index: row.example,
            answer_nll: Number(row.nll),
            answer_tokens: row.tokens,
            intact_nll: Number(intact_nll),
            top1: row.top1,
            correct: row.is_correct(),
            first_rank: row.first_rank,
            entropy: Number(row.entropy),
            kl: row.divergence.map(Number),
            non_finite: row.non_finite,
            token_nll: (!row.token_nll.is_empty()).then(|| numbers(&row.token_nll)),
        }
    }

    /// The header of CSV.
    pub(crate) const CSV_HEADER: &'static str =
        "plan,task,example,index,answer_nll,answer_tokens,intact_nll,top1,correct,first_rank,entropy,kl,non_finite";

    /// A line of CSV; a missing divergence is empty.
    pub(crate) fn csv(&self) -> String {
        let number = |Number(value): Number| value.to_string();
        let cells = [
            quoted(self.plan),
            quoted(self.task),
            self.example.to_string(),
            self.index.to_string(),
            number(self.answer_nll),
            self.answer_tokens.to_string(),
            number(self.intact_nll),
            self.top1.to_string(),
            self.correct.to_string(),
            self.first_rank.to_string(),
            number(self.entropy),
            self.kl.map_or_else(String::new, number),
            self.non_finite.to_string(),
        ];
        cells.join(",")
    }
}

/// A cell of CSV (RFC 4180): quoted where it has to be.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// The last object: what was swept, and what it took.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct SummaryRecord {
    pub(crate) schema_version: u32,
    /// Stands for all that decides rows: weights, numerics, plans, examples and what they are called, measures.
    pub(crate) key: String,
    pub(crate) model: String,
    /// Rows are equal bit for bit within this.
    pub(crate) numerics: String,
    pub(crate) bos: bool,
    /// Plans that rows are of.
    pub(crate) plans: usize,
    /// Of the shard.
    pub(crate) examples: u64,
    /// Of all shards.
    pub(crate) all_examples: u64,
    /// On each example, the intact model's included.
    pub(crate) block_evaluations: f64,
    /// Plan by plan.
    pub(crate) naive_block_evaluations: f64,
    /// Tokens whose predictions are scored, over all plans and examples.
    pub(crate) scored_positions: u64,
    /// Rows that were computed now; the others were there.
    pub(crate) computed_rows: u64,
    /// That this took.
    pub(crate) seconds: f64,
    pub(crate) threads: usize,
    /// "0/1" is everything.
    pub(crate) shard: String,
    /// What the store calls it, where it is kept there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) experiment: Option<String>,
}

/// The last line.
#[derive(Serialize, Deserialize)]
pub(crate) struct SummaryLine {
    pub(crate) summary: SummaryRecord,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!([quoted("0..12"), quoted("0,1"), quoted("a \"b\"")], ["0..12", "\"0,1\"", "\"a \"\"b\"\"\""]);
        let row = Row {
            plan: 0,
            example: 7,
            tokens: 2,
            nll: f64::NAN,
            top1: 1,
            first_rank: 3,
            entropy: 0.5,
            divergence: None,
            non_finite: 1,
            token_nll: Vec::new(),
        };
        let record = RowRecord::new("0..3,4", "capitals", 5, &row, 0.25);
        assert_eq!(record.csv(), "\"0..3,4\",capitals,5,7,NaN,2,0.25,1,false,3,0.5,,1");
        assert_eq!(RowRecord::CSV_HEADER.split(',').count(), 13);
    }
}
