//! Losses and the store: what is there is taken, what is computed is kept.
//!
//! A loss is kept as the results that a sweep would have: one for the whole of an input (each window of it, where it is longer
//! than the context), with the loss of every token, and one for the answer alone. What references hold is part of the key of
//! plans that take values of them, and of no other's.

use std::collections::HashMap;
use std::ops::Range;

use lesion::forward::{Batch, References, Session, Target};
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
    /// The examples of that input: those that make it up, and the answer's; for plans that take values of references, and for
    /// those that don't.
    parts: Vec<For>,
    answer: Vec<For>,
    /// Examples so far.
    number: u64,
    /// What plans find by name.
    references: References,
}

/// An example, and which plans it is for: whether those that take values of references.
type For = (bool, Example);

/// Whether a plan takes values of references.
fn takes(plan: &Plan) -> bool {
    plan.any_modifier(|modifier| modifier.reference().is_some())
}

impl<'a> Keeping<'a> {
    pub(super) fn new(recorder: Recorder, model_args: &'a ModelArgs, references: References) -> Keeping<'a> {
        let (known, parts, answer) = (HashMap::new(), Vec::new(), Vec::new());
        Keeping { recorder, model_args, known, parts, answer, number: 0, references }
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
            let source = Source {
                task: scored.input.file.clone(),
                number: index as u64,
                prompt: text.as_ref().map(|_| String::new()),
                answer: text.clone(),
            };
            let parts = self.add(ids, here, &source)?;
            self.parts.extend(parts);
        }
        self.answer = match &scored.answer {
            None => Vec::new(),
            Some(answer) => {
                let prompt = scored.input.text.clone();
                let source = Source { prompt, answer: Some(answer.text.clone()), ..Source::default() };
                self.add(ids.clone(), answer.span.clone(), &source)?
            }
        };
        Ok(())
    }

    /// The next example, with references too, where there are some.
    fn add(&mut self, ids: Vec<u32>, scored: Range<usize>, source: &Source) -> Result<Vec<For>> {
        let bare = (false, References::NONE);
        let with = (true, self.references.clone());
        let variants = if self.references.is_empty() { vec![bare] } else { vec![bare, with] };
        let mut added = Vec::new();
        for (takes, references) in variants {
            let example = Example { references, ..Example::new(self.number, ids.clone(), scored.clone()) };
            let known = self.recorder.expect(&example, source.clone()).map_err(|error| store_failure(&error))?;
            self.known.extend(known.into_iter().map(|(row, isas)| ((row.plan, example.number), (row, isas))));
            self.number += 1;
            added.push((takes, example));
        }
        Ok(added)
    }

    /// The losses of that input under a plan of this number.
    pub(super) fn losses(&mut self, session: &mut Session, number: usize, plan: &NamedPlan) -> Result<Losses> {
        let mut losses = Losses { nll: Vec::new(), isa: None };
        let mut new = Vec::new();
        // One that lacks its references is refused when it runs.
        let takes = takes(&plan.plan) && !self.references.is_empty();
        for (_, example) in self.parts.iter().filter(|(of, _)| *of == takes) {
            if let Some((row, isas)) = self.known.get(&(number, example.number)) {
                losses.nll.extend(&row.token_nll);
                losses.isa = Some(isas.join("+"));
            } else {
                let row = computed(session, number, &plan.plan, example)?;
                losses.nll.extend(&row.token_nll);
                new.push(row);
            }
        }
        let answers = self.answer.iter().filter(|(of, _)| *of == takes).map(|(_, answer)| answer);
        for answer in answers.filter(|answer| !self.known.contains_key(&(number, answer.number))) {
            new.push(computed(session, number, &plan.plan, answer)?);
        }
        model::check_unchanged(session.model(), self.model_args.read())?;
        self.recorder.append(&new).map_err(|error| store_failure(&error))?;
        Ok(losses)
    }

    /// The input is done.
    pub(super) fn finish_input(&mut self) -> Result<()> {
        self.recorder.sync().map_err(|error| store_failure(&error))?;
        self.parts.iter().chain(&self.answer).for_each(|(_, example)| self.recorder.forget(example.number));
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
    let batch = Batch::new([&example.ids[..]]).with_references([example.references.clone()]);
    let scores = session.score(plan, &batch, &targets);
    Ok(Row::new(number, example.number, scores.map_err(|error| forward_failure(&error))?, None, true))
}
