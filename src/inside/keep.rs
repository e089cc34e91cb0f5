//! Results of experiments, kept: what is there is not computed again.

use crate::plan::Plan;
use crate::sweep::{Example, Row};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Where the rows of an experiment's plans are kept. A break ends the experiment as [`super::InsideError::Cancelled`]; whoever
/// keeps knows why.
pub trait Keep {
    /// These plans will run on these examples, rows being numbered so: the rows that are there.
    fn expect(&mut self, plans: &[Plan], examples: &[Example]) -> ControlFlow<(), Vec<Row>>;

    /// New rows of the plans and examples that were expected last.
    fn append(&mut self, rows: &[Row]) -> ControlFlow<()>;
}

/// The losses of plans on examples, and which of them were there.
pub(super) struct Losses {
    /// By plan, then by example.
    pub(super) nll: Vec<Vec<f64>>,
    there: HashMap<(usize, u64), f64>,
}

impl Losses {
    /// Of so many plans on so many examples, with what is there.
    pub(super) fn new(plans: usize, examples: usize, there: &[Row]) -> Losses {
        let there = there.iter().map(|row| ((row.plan, row.example), row.nll)).collect();
        let mut losses = Losses { nll: vec![vec![f64::NAN; examples]; plans], there };
        for ((plan, example), nll) in &losses.there {
            losses.nll[*plan][*example as usize] = *nll;
        }
        losses
    }

    pub(super) fn is_there(&self, plan: usize, example: u64) -> bool {
        self.there.contains_key(&(plan, example))
    }

    /// Takes rows, and gives those back that were not there.
    pub(super) fn take(&mut self, rows: &[Row]) -> Vec<Row> {
        // Rows that are there come again where another plan or example of their chunk lacks them.
        let new: Vec<Row> = rows.iter().filter(|row| !self.is_there(row.plan, row.example)).cloned().collect();
        new.iter().for_each(|row| self.nll[row.plan][row.example as usize] = row.nll);
        new
    }
}
