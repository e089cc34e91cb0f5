//! Patched and traced runs in the store, as a sweep's results are. What a reference holds is part of the key of plans that take
//! values of it; the others, which nothing is patched into, are results like any.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Instant;

use lesion::forward::{References, Session};
use lesion::inside::Keep;
use lesion::model::Model;
use lesion::plan::Plan;
use lesion::report::grouped;
use lesion::store::{Recorder, Source, Wanted};
use lesion::sweep::{Example, Row};

use crate::cli::args::ModelArgs;
use crate::cli::failure::{Failure, Result};
use crate::cli::keep::{self, store_failure};
use crate::cli::model;
use crate::cli::output::note;
use crate::cli::store::args::StoreArgs;
use crate::cli::sweep::running::numerics;

/// A store that results go to and come from, and what became of it.
pub(super) struct Keeping<'a> {
    recorder: Recorder,
    model: Model,
    model_args: &'a ModelArgs,
    /// Whether each of the plans that are expected takes values of references, and how many examples are.
    takes: Vec<bool>,
    examples: u64,
    /// Why it was broken off.
    failure: Option<Failure>,
    /// Results that were there, and the instruction sets that computed them; those that were not.
    there: u64,
    isas: BTreeSet<String>,
    computed: u64,
}

impl<'a> Keeping<'a> {
    /// None where nothing is to be kept, or the user's own store can't be had.
    pub(super) fn open(args: &StoreArgs, model_args: &'a ModelArgs, session: &Session) -> Result<Option<Keeping<'a>>> {
        let Some(store) = keep::open_if_possible(args)? else { return Ok(None) };
        let recorder = keep::begin(store, session, model_args, &[], Wanted::default(), None, Instant::now())?;
        let model = session.model().clone();
        let (failure, isas) = (None, BTreeSet::new());
        let takes = Vec::new();
        Ok(Some(Keeping { recorder, model, model_args, takes, examples: 0, failure, there: 0, isas, computed: 0 }))
    }

    fn expected(&mut self, plans: &[Plan], examples: &[Example]) -> Result<Vec<Row>> {
        self.recorder.set_plans(plans).map_err(|error| store_failure(&error))?;
        let takes = |plan: &Plan| plan.any_modifier(|modifier| modifier.reference().is_some());
        (self.takes, self.examples) = (plans.iter().map(takes).collect(), examples.len() as u64);
        let mut there = Vec::new();
        for example in examples {
            // Without references it has a number of its own, behind those with them.
            let bare =
                Example { number: example.number + self.examples, references: References::NONE, ..example.clone() };
            for (kept, takes) in [(example, true), (&bare, false)] {
                if !self.takes.contains(&takes) {
                    continue;
                }
                let known = self.recorder.expect(kept, Source::default()).map_err(|error| store_failure(&error))?;
                for (row, isas) in known.into_iter().filter(|(row, _)| self.takes[row.plan] == takes) {
                    self.isas.extend(isas);
                    there.push(Row { example: example.number, ..row });
                }
            }
        }
        self.there += there.len() as u64;
        Ok(there)
    }

    fn appended(&mut self, rows: &[Row]) -> Result<()> {
        // What was computed from a file that has changed since is no result, and is not kept.
        model::check_unchanged(&self.model, self.model_args.read())?;
        self.computed += rows.len() as u64;
        let kept = |row: &Row| {
            let bare = if self.takes[row.plan] { 0 } else { self.examples };
            Row { example: row.example + bare, ..row.clone() }
        };
        let rows: Vec<Row> = rows.iter().map(kept).collect();
        self.recorder.append(&rows).map_err(|error| store_failure(&error))
    }

    /// Keeps why it failed.
    fn told<T>(&mut self, result: Result<T>) -> ControlFlow<(), T> {
        match result {
            Ok(value) => ControlFlow::Continue(value),
            Err(failure) => {
                self.failure.get_or_insert(failure);
                ControlFlow::Break(())
            }
        }
    }

    /// Ends an experiment that has failed: with why it was broken off here, or with what it says itself.
    pub(super) fn break_off(mut self, failure: Failure) -> Failure {
        let own = self.failure.take();
        // What has been computed stays, where the disk still takes it; that it does not is no news then.
        let _ = self.recorder.finish(None);
        own.unwrap_or(failure)
    }

    /// Everything is on the disk; what the results are equal within, bit for bit.
    pub(super) fn finish(self, session: &Session) -> Result<String> {
        let Keeping { recorder, there, isas, computed, .. } = self;
        recorder.finish(None).map_err(|error| store_failure(&error))?;
        match (there, computed) {
            (0, _) => {}
            (there, 0) => note(format!("all {} results were there, nothing was computed", grouped(there))),
            (there, new) => {
                let all = grouped(there + new);
                note(format!("{} of {all} results computed, the others were there", grouped(new)));
            }
        }
        Ok(numerics(session, computed, &isas))
    }
}

impl Keep for Keeping<'_> {
    fn expect(&mut self, plans: &[Plan], examples: &[Example]) -> ControlFlow<(), Vec<Row>> {
        let there = self.expected(plans, examples);
        self.told(there)
    }

    fn append(&mut self, rows: &[Row]) -> ControlFlow<()> {
        let kept = self.appended(rows);
        self.told(kept)
    }
}
