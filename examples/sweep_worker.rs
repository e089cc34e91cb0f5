//! `lesion`'s side of `benches/peers/sweep.py` and `grid.py`: `sweep_worker PEER MODELS EXAMPLES THREADS`, PEER being `lesion-f32` or
//! `lesion-bf16-compute` (weights in bf16, products in bf16). EXAMPLES is a file of sets of examples by name:
//! `{"S": [{"ids": [...], "scored": [11, 13]}, ...], ...}`.
//!
//! Speaks JSON lines: a line about itself after the first logits, then an answer to each of these, plans being lists of
//! layers:
//!
//! ```text
//! {"work": "families", "families": ["drop-last", ...]}              the plans of each
//! {"work": "sweep", "examples": "S", "plans": [[0, 1], ...],
//!  "losses": [0, ...], "memory": BYTES, "times": 1}                 seconds, the losses of those plans, what it cost
//! {"work": "truncations", "examples": "S", "memory": BYTES,
//!  "times": 3}                                                      seconds of the sweep and of what it is made of
//! {"work": "grid", "pair": {"clean": [...], "corrupted": [...],
//!  "answer": 3, "other": 7}, "memory": BYTES, "times": 1}           seconds and values of a patch grid, for grid.py
//! ```

use std::error::Error;
use std::io::BufRead;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::Instant;

use lesion::forward::{Batch, ForwardError, Precision, Session, SessionOptions, Target};
use lesion::inside::{Cells, Direction, Grid, Limits, Metric, PatchGrid, Run};
use lesion::model::{Model, OpenOptions};
use lesion::plan::{Family, Plan, Site};
use lesion::sweep::{Event, Example, Sweep, SweepOptions};
use serde::Deserialize;
use serde_json::{Value, json};

type Failure = Box<dyn Error>;

#[derive(Deserialize)]
#[serde(tag = "work", rename_all = "lowercase")]
enum Command {
    Families { families: Vec<String> },
    Sweep { examples: String, plans: Vec<Vec<usize>>, losses: Vec<usize>, memory: usize, times: usize },
    Truncations { examples: String, memory: usize, times: usize },
    Grid { pair: Pair, memory: usize, times: usize },
}

#[derive(Deserialize)]
struct Pair {
    clean: Vec<u32>,
    corrupted: Vec<u32>,
    answer: u32,
    other: u32,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, models, examples, threads] = &arguments[..] else {
        return Err("PEER MODELS EXAMPLES THREADS".into());
    };
    let (dtype, precision) = match &name[..] {
        "lesion-f32" => ("f32", Precision::F32),
        "lesion-bf16-compute" => ("bf16", Precision::Bf16),
        _ => return Err("PEER: lesion-f32 or lesion-bf16-compute".into()),
    };
    let model = Model::open_dir(&Path::new(models).join(format!("gpt2-{dtype}")), &OpenOptions::default())?;
    let options = SessionOptions { threads: threads.parse()?, precision, ..SessionOptions::default() };
    let mut session = Session::new(&model, options)?;
    let sets: Value = serde_json::from_str(&std::fs::read_to_string(examples)?)?;
    let intact = Plan::intact(model.config().n_layer);
    session.logits(&intact, &[0; 16])?;
    let version = format!("{} {}", env!("CARGO_PKG_VERSION"), session.numerics());
    println!("{}", json!({"peer": name, "versions": {"lesion": version}}));

    for line in std::io::stdin().lock().lines() {
        // Wakes threads and clocks.
        session.logits(&intact, &[0; 16])?;
        let answer = match serde_json::from_str(&line?)? {
            Command::Families { families } => members(&model, &families)?,
            Command::Sweep { examples, plans, losses, memory, times } => {
                let plans = plans.into_iter().map(Plan::from_layers).collect::<Result<Vec<_>, _>>()?;
                sweep(&mut session, &plans, &named(&sets, &examples)?, &losses, memory, times)?
            }
            Command::Truncations { examples, memory, times } => {
                truncations(&mut session, &named(&sets, &examples)?, memory, times)?
            }
            Command::Grid { pair, memory, times } => grid(&mut session, &pair, memory, times)?,
        };
        println!("{answer}");
    }
    Ok(())
}

/// A set of examples.
fn named(sets: &Value, name: &str) -> Result<Vec<Example>, Failure> {
    #[derive(Deserialize)]
    struct Given {
        ids: Vec<u32>,
        scored: (usize, usize),
    }
    let given: Vec<Given> = serde_json::from_value(sets[name].clone())?;
    let example = |(number, Given { ids, scored: (from, to) })| Example::new(number, ids, from..to);
    Ok((0..).zip(given).map(example).collect())
}

/// The plans of families, as lists of layers.
fn members(model: &Model, families: &[String]) -> Result<Value, Failure> {
    let layers = |plan: &Plan| -> Vec<usize> { plan.executions().map(|placed| placed.execution.layer).collect() };
    let mut plans: Vec<Vec<Vec<usize>>> = Vec::new();
    for family in families {
        let members = family.parse::<Family>()?.members(&model.plan_shape())?;
        plans.push(members.iter().map(|member| layers(&member.plan)).collect());
    }
    Ok(json!({ "plans": plans }))
}

/// All plans on all examples. The time is that of everything: finding out what they share, and in which order to run it,
/// included.
fn sweep(
    session: &mut Session,
    plans: &[Plan],
    examples: &[Example],
    losses: &[usize],
    memory: usize,
    times: usize,
) -> Result<Value, Failure> {
    let model = session.model().clone();
    let options = SweepOptions { memory, divergence: false, token_losses: false };
    let mut nll = vec![f64::NAN; plans.len() * examples.len()];
    let mut seconds = Vec::new();
    let mut counted = None;
    for _ in 0..times {
        let (plans, given) = (plans.to_vec(), examples.to_vec());
        let start = Instant::now();
        let sweep = Sweep::new(plans, &model.plan_shape(), options)?;
        sweep.run(session, given, &|_, _| false, &mut |event| {
            if let Event::Rows(rows) = event {
                rows.iter().for_each(|row| nll[row.plan * examples.len() + row.example as usize] = row.nll);
            }
            ControlFlow::Continue(())
        })?;
        seconds.push(start.elapsed().as_secs_f64());
        counted = Some((sweep.cost(), sweep.flop(&model, examples)?));
    }
    let (cost, flop) = counted.ok_or("no times")?;
    let losses: Vec<&[f64]> = losses.iter().map(|plan| &nll[plan * examples.len()..][..examples.len()]).collect();
    Ok(json!({
        "seconds": seconds,
        "losses": losses,
        "blocks": cost.shared.blocks(),
        "naive_blocks": cost.naive.blocks(),
        "flop": flop,
    }))
}

/// All truncations of the model, and their parts: the intact pass with its unembedding, and the unembeddings of the other
/// truncations, one after another (`apart`) and in one (`together`).
fn truncations(session: &mut Session, examples: &[Example], memory: usize, times: usize) -> Result<Value, Failure> {
    let model = session.model().clone();
    let n_layer = model.config().n_layer;
    let plans: Vec<Plan> =
        "drop-last".parse::<Family>()?.members(&model.plan_shape())?.into_iter().map(|member| member.plan).collect();
    let (whole, scored) = (Scored::of(examples, 1, false), Scored::of(examples, 1, true));
    let others = Scored::of(examples, n_layer, true);
    let timed = |session: &mut Session, plan: &Plan, scored: &Scored| -> Result<f64, ForwardError> {
        let start = Instant::now();
        session.score(plan, &scored.batch, &scored.targets)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let [mut pass, mut apart, mut together] = [const { Vec::new() }; 3];
    let mut swept = Value::Null;
    let mut seconds: Vec<Value> = Vec::new();
    for _ in 0..times {
        swept = sweep(session, &plans, examples, &[], memory, 1)?;
        seconds.push(swept["seconds"][0].take());
        pass.push(timed(session, &Plan::intact(n_layer), &whole)?);
        together.push(timed(session, &Plan::none(), &others)?);
        apart.push((0..n_layer).map(|_| timed(session, &Plan::none(), &scored)).sum::<Result<f64, _>>()?);
    }
    let (blocks, flop) = (&swept["blocks"], &swept["flop"]);
    Ok(json!({
        "seconds": seconds, "pass": pass, "apart": apart, "together": together, "blocks": blocks, "flop": flop,
        "plans": plans.len(),
    }))
}

/// The residual stream before each layer at each position, patched from the clean run into the corrupted one. The time is that
/// of everything, both runs included.
fn grid(session: &mut Session, pair: &Pair, memory: usize, times: usize) -> Result<Value, Failure> {
    let plan = Plan::intact(session.model().config().n_layer);
    let metric = Metric::LogitDifference { answer: pair.answer, other: pair.other };
    let (mut seconds, mut found) = (Vec::new(), None);
    for _ in 0..times {
        let start = Instant::now();
        let run = |ids: &[u32]| Run::new(ids.to_vec(), plan.clone());
        let cells = Cells::Positions(0..pair.clean.len());
        let grid = PatchGrid::new(run(&pair.clean), run(&pair.corrupted), Site::Pre, cells, Direction::Denoise)?;
        found = Some(grid.run(session, &metric, Limits { memory, stop: &|| false, keep: None })?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let Grid { values, cost, .. } = found.ok_or("no times")?;
    Ok(json!({
        "seconds": seconds, "values": values, "blocks": cost.shared.blocks(), "naive_blocks": cost.naive.blocks(),
    }))
}

/// Sequences, and their rows that are scored.
struct Scored {
    batch: Batch,
    targets: Vec<Target>,
}

impl Scored {
    /// All examples so many times: of each, the tokens up to the last that predicts, or `only` those that do.
    fn of(examples: &[Example], copies: usize, only: bool) -> Scored {
        let kept = |example: &Example| -> Range<usize> {
            let Range { start, end } = example.scored;
            (if only { start - 1 } else { 0 })..end - 1
        };
        let all = || (0..copies).flat_map(|_| examples);
        let batch = Batch::new(all().map(|example| &example.ids[kept(example)]));
        let mut targets = Vec::new();
        for (sequence, example) in all().enumerate() {
            let first = kept(example).start;
            let target = |i: usize| Target { row: batch.row(sequence, i - 1 - first), id: example.ids[i] };
            targets.extend(example.scored.clone().map(target));
        }
        Scored { batch, targets }
    }
}
