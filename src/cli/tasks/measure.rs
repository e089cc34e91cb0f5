//! `lesion tasks measure`: answers and alternatives scored by an intact model.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lesion::forward::Session;
use lesion::measure::{Answered, Number};
use lesion::model::Model;
use lesion::plan::Plan;
use lesion::sweep::{Ended, Event, Example, Row, Sweep, SweepOptions};
use lesion::tasks::Task;
use lesion::tasks::bundled::{IntactScore, Score};

use super::files::{self, named};
use super::{ScoreRecord, score_table};
use crate::cli::args::{EngineArgs, ModelArgs, OutputArgs};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::output::{Output, SCHEMA_VERSION};
use crate::cli::sweep::memory::memory_for;
use crate::cli::sweep::running::sweep_failure;
use crate::cli::{measure_failure, model, resolve, signals};

pub(super) fn run(
    paths: &[PathBuf],
    bos: bool,
    model_args: &ModelArgs,
    engine: &EngineArgs,
    args: &OutputArgs,
) -> Result<Exit> {
    let engine = resolve::engine(engine)?;
    let mut output = Output::open(args)?;
    let all = [PathBuf::from(files::BUNDLED)];
    let paths = if paths.is_empty() { &all[..] } else { paths };
    let tasks: Vec<Vec<Task>> = paths.iter().map(|path: &PathBuf| named(Path::new(path))).collect::<Result<_>>()?;
    let model = model::open(model_args)?;
    let mut session = resolve::session(&model, engine)?;
    let mut scores = Vec::new();
    for task in tasks.iter().flatten() {
        signals::check()?;
        let score = Score::new(task, measured(&mut session, task, bos)?);
        model::check_unchanged(&model, model_args.read())?;
        if output.json {
            output.object(&ScoreRecord { schema_version: SCHEMA_VERSION, description: None, score: &score })?;
            output.flush()?;
        }
        scores.push(score);
    }
    if !output.json {
        output.text(&score_table(&scores))?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// What the intact model makes of a task: one batch of all its answers and alternatives.
fn measured(session: &mut Session, task: &Task, bos: bool) -> Result<IntactScore> {
    let model = session.model().clone();
    let mut examples = Vec::new();
    // For each question, where its answer and then its alternatives are.
    let mut starts = Vec::new();
    for number in 0..task.examples.len() {
        starts.push(examples.len());
        for question in task.question(number).into_iter().chain(task.alternatives(number)) {
            let answered = encoded(&model, bos, &question)
                .map_err(|failure| failure.about(&format!("task {}, example {number}", task.name.escape_debug())))?;
            examples.push(Example::new(examples.len() as u64, answered.ids, answered.answer));
        }
    }
    starts.push(examples.len());
    let rows = scored(session, &model, examples)?;
    let (mut nll, mut tokens, mut correct, mut chosen) = (0.0, 0, 0, 0);
    for span in starts.windows(2) {
        let (answer, alternatives) = rows[span[0]..span[1]].split_first().expect("an answer is always there");
        nll += answer.nll;
        tokens += answer.tokens;
        correct += usize::from(answer.is_correct());
        // Written so that NaN is not chosen.
        chosen += usize::from(alternatives.iter().all(|wrong| answer.nll < wrong.nll));
    }
    let share = |count: usize| count as f64 / task.examples.len() as f64;
    Ok(IntactScore {
        model: model.name().to_owned(),
        bos,
        accuracy: share(correct),
        nll_per_token: Number(nll / f64::from(tokens)),
        choice_accuracy: task.choice_chance().map(|_| share(chosen)),
    })
}

fn encoded(model: &Model, bos: bool, question: &lesion::tasks::Question) -> Result<Answered> {
    let tokenizer = model.tokenizer().map_err(|error| model::model_failure(&error))?;
    let bos = bos.then(|| model.bos()).transpose().map_err(|error| model::model_failure(&error))?;
    Answered::encode(tokenizer, bos, &question.prompt, &question.answer).map_err(|error| measure_failure(&error))
}

/// A row for each example, by its number.
fn scored(session: &mut Session, model: &Model, examples: Vec<Example>) -> Result<Vec<Row>> {
    let shape = model.plan_shape();
    let memory = memory_for(None, 0)?;
    let options = SweepOptions { memory, divergence: false, token_losses: false };
    let sweep =
        Sweep::new(vec![Plan::intact(shape.n_layer)], &shape, options).map_err(|error| sweep_failure(&error))?;
    let mut rows = Vec::new();
    let ended = sweep.run(session, examples, &|_, _| false, &mut |event| {
        if let Event::Rows(found) = event {
            rows.extend_from_slice(found);
        }
        if signals::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match ended.map_err(|error| sweep_failure(&error))? {
        Ended::Cancelled => Err(Failure::new(Exit::Interrupted, "interrupted")),
        Ended::Complete => {
            rows.sort_by_key(|row: &Row| row.example);
            Ok(rows)
        }
    }
}
