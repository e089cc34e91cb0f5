//! Losses and the store: what is there is taken, what is computed is kept.
//!
//! A loss is kept as the results that a sweep would have: one for the whole of an input (each window of it, where it is longer
//! than the context), with the loss of every token, and one for the answer alone.

use std::collections::HashMap;

use lesion::forward::{Batch, Session, Target};
use lesion::measure::Window;
use lesion::plan::Plan;
use lesion::store::{Recorder, Source};
use lesion::sweep::{Example, Row};

use super::Scored;
use crate::cli::args::ModelArgs;
use crate::cli::failure::Result;
use crate::cli::keep::store_failure;
use crate::cli::resolve::NamedPlan;
use crate::cli::{forward_failure, measure_failure, model};

/// The losses of an input under a plan.
pub(crate) struct Losses {
    /// Nats, one per predicted position.
    pub(crate) nll: Vec<f64>,
    /// The instruction set that computed them; this session's where there is none.
    pub(crate) isa: Option<String>,
}

/// A store that losses go to and come from.
pub(super) struct Keeping<'a> {
    recorder: Recorder,
    model_args: &'a ModelArgs,
    /// Of the input that is under way, by plan and example.
    known: HashMap<(usize, u64), (Row, Vec<String>)>,
    /// The examples of that input: those that make it up, then the answer's.
    parts: Vec<Example>,
    answer: Option<Example>,
    /// Examples so far.
    number: u64,
}

impl<'a> Keeping<'a> {
    pub(super) fn new(recorder: Recorder, model_args: &'a ModelArgs) -> Keeping<'a> {
        Keeping { recorder, model_args, known: HashMap::new(), parts: Vec::new(), answer: None, number: 0 }
    }

    /// The next input.
    pub(super) fn expect(&mut self, scored: &Scored, n_positions: usize) -> Result<()> {
        let ids = &scored.input.ids;
        self.known.clear();
        self.parts.clear();
        let bos = scored.input.bos.then(|| ids[0]);
        let windows = match scored.windows {
            Some(windows) => windows.over(ids, bos, n_positions).map_err(|error| measure_failure(&error))?,
            None => vec![Window { ids: ids.clone(), scored: 1..ids.len() }],
        };
        // A file's text is its file's, and a window is no text.
        let text = scored.input.text.as_ref().filter(|_| scored.windows.is_none() && scored.input.file.is_none());
        let answer = scored.answer.as_ref().map_or("", |answer| answer.text.as_str());
        let text = text.map(|text| format!("{text}{answer}"));
        let windows = windows.into_iter().filter(|window| !window.scored.is_empty());
        for (index, Window { ids, scored: here }) in windows.enumerate() {
            let example = Example::new(self.number, ids, here);
            let source = Source {
                task: scored.input.file.clone(),
                number: index as u64,
                prompt: text.as_ref().map(|_| String::new()),
                answer: text.clone(),
            };
            self.add(&example, source)?;
            self.parts.push(example);
        }
        self.answer = match &scored.answer {
            None => None,
            Some(answer) => {
                let example = Example::new(self.number, ids.clone(), answer.span.clone());
                let prompt = scored.input.text.clone();
                self.add(&example, Source { prompt, answer: Some(answer.text.clone()), ..Source::default() })?;
                Some(example)
            }
        };
        Ok(())
    }

    fn add(&mut self, example: &Example, source: Source) -> Result<()> {
        let known = self.recorder.expect(example, source).map_err(|error| store_failure(&error))?;
        self.known.extend(known.into_iter().map(|(row, isas)| ((row.plan, example.number), (row, isas))));
        self.number += 1;
        Ok(())
    }

    /// The losses of that input under a plan of this number.
    pub(super) fn losses(&mut self, session: &mut Session, number: usize, plan: &NamedPlan) -> Result<Losses> {
        let mut losses = Losses { nll: Vec::new(), isa: None };
        let mut new = Vec::new();
        for example in &self.parts {
            if let Some((row, isas)) = self.known.get(&(number, example.number)) {
                losses.nll.extend(&row.token_nll);
                losses.isa = Some(isas.join("+"));
            } else {
                let row = computed(session, number, &plan.plan, example)?;
                losses.nll.extend(&row.token_nll);
                new.push(row);
            }
        }
        if let Some(answer) = self.answer.as_ref().filter(|answer| !self.known.contains_key(&(number, answer.number))) {
            new.push(computed(session, number, &plan.plan, answer)?);
        }
        model::check_unchanged(session.model(), self.model_args.read())?;
        self.recorder.append(&new).map_err(|error| store_failure(&error))?;
        Ok(losses)
    }

    /// The input is done.
    pub(super) fn finish_input(&mut self) -> Result<()> {
        self.recorder.sync().map_err(|error| store_failure(&error))?;
        self.parts.iter().chain(&self.answer).for_each(|example| self.recorder.forget(example.number));
        Ok(())
    }

    /// All inputs are.
    pub(super) fn finish(self) -> Result<()> {
        self.recorder.finish(None).map(|_| ()).map_err(|error| store_failure(&error))
    }
}

/// A plan on an example, with the losses of its tokens.
fn computed(session: &mut Session, number: usize, plan: &Plan, example: &Example) -> Result<Row> {
    let targets: Vec<Target> = example.scored.clone().map(|i| Target { row: i - 1, id: example.ids[i] }).collect();
    let scores = session.score(plan, &Batch::new([&example.ids[..]]), &targets);
    Ok(Row::new(number, example.number, scores.map_err(|error| forward_failure(&error))?, None, true))
}
