//! `lesion bridge`: linear shortcuts and tuned lenses, fitted to a text, judged on what of it is held out, and shown.

pub(crate) mod args;
mod show;

use std::fs;
use std::path::{Path, PathBuf};

use lesion::bridge::{BridgeError, Evaluation, RidgeFit, Sample, TunedLens, TunedOptions, held_out, in_groups};
use lesion::forward::{Fitted, Session, Shortcuts};
use lesion::model::Model;
use sha2::{Digest, Sha256};

use self::args::{Bridge, BridgeCommand, Eval, Fit, Pair, TextArgs, ToArgs, Tune};
use super::bridges::shortcuts;
use super::failure::{Exit, Failure, Result};
use super::model::shown_path;
use super::output::{Output, note, size};
use super::references::{ReferenceArgs, saved_failure};
use super::sweep::args::MemorySize;
use super::sweep::inputs::{Inputs, name, stdin_once};
use super::sweep::memory::memory_for;
use super::{forward_failure, model, resolve, signals};

pub(crate) fn run(args: &Bridge) -> Result<Exit> {
    match &args.command {
        BridgeCommand::Fit(args) => fit(args),
        BridgeCommand::Tune(args) => tune(args),
        BridgeCommand::Eval(args) => eval(args),
        BridgeCommand::Show(args) => show::run(args),
    }
}

fn fit(args: &Fit) -> Result<Exit> {
    stdin_once(args.text.tasks.iter().chain(&args.text.text))?;
    let engine = resolve::engine(&args.engine)?;
    is_free(&args.to)?;
    let model = model::open(&args.model)?;
    let mut pairs: Vec<(usize, usize)> = args.pairs.iter().map(|Pair(from, to)| (*from, *to)).collect();
    let n_layer = model.config().n_layer;
    pairs.extend((0..n_layer).map(|layer| (layer, n_layer)).filter(|_| args.to_end));
    within_memory(args.text.memory, RidgeFit::bytes(model.config().n_embd, pairs.len()))?;
    let mut session = resolve::session(&model, engine)?;
    let mut fit = RidgeFit::new(&session, &pairs).map_err(|error| bridge_failure(&error))?;
    let text = Text::read(&args.text, args.to.held_out, &model)?;
    for group in in_groups(&text.fitted) {
        signals::check()?;
        fit.add(&mut session, group).map_err(|error| bridge_failure(&error))?;
    }
    let shortcuts = fit.solve(args.ridge).map_err(|error| bridge_failure(&error))?;
    model::check_unchanged(&model, args.model.read())?;
    let fitted = text.fitted("ridge", format!("ridge {:e}", args.ridge), &model)?;
    keep(shortcuts, &fitted, &text, &args.to, &mut session)
}

fn tune(args: &Tune) -> Result<Exit> {
    stdin_once(args.text.tasks.iter().chain(&args.text.text))?;
    let engine = resolve::engine(&args.engine)?;
    is_free(&args.to)?;
    let model = model::open(&args.model)?;
    let mut session = resolve::session(&model, engine)?;
    let Tune { steps, rows, rate, seed, .. } = *args;
    let options = TunedOptions { steps: u64::from(steps), rows: rows as usize, rate, seed };
    within_memory(args.text.memory, TunedLens::bytes(model.config(), session.threads(), options.rows))?;
    let mut lens = TunedLens::new(&session, options).map_err(|error| bridge_failure(&error))?;
    let text = Text::read(&args.text, args.to.held_out, &model)?;
    let mean = |divergences: &[f64]| divergences.iter().sum::<f64>() / divergences.len().max(1) as f64;
    for step in 0..options.steps {
        signals::check()?;
        let divergences = lens.step(&mut session, &text.fitted).map_err(|error| bridge_failure(&error))?;
        if step == 0 || (step + 1).is_multiple_of(100) {
            note(format!(
                "step {}: {:.4} nats from the final reading, the mean of all layers",
                step + 1,
                mean(&divergences)
            ));
        }
    }
    let shortcuts = lens.shortcuts().map_err(|error| bridge_failure(&error))?;
    model::check_unchanged(&model, args.model.read())?;
    let settings = format!("{steps} steps of {rows} rows, rate {rate:e}, seed {seed}");
    let fitted = text.fitted("tuned", settings, &model)?;
    keep(shortcuts, &fitted, &text, &args.to, &mut session)
}

fn eval(args: &Eval) -> Result<Exit> {
    stdin_once(args.text.tasks.iter().chain(&args.text.text))?;
    let engine = resolve::engine(&args.engine)?;
    let model = model::open(&args.model)?;
    let shortcuts = shortcuts(&args.file, &model)?;
    let text = Text::read(&args.text, 0.0, &model)?;
    let mut session = resolve::session(&model, engine)?;
    let mut output = Output::stdout(args.json);
    judge(shortcuts, &text.fitted, &mut session, &mut output)?;
    model::check_unchanged(&model, args.model.read())?;
    output.finish()?;
    Ok(Exit::Ok)
}

/// Judges maps on what is held out, writes them, and tells of it.
fn keep(shortcuts: Shortcuts, fitted: &Fitted, text: &Text, to: &ToArgs, session: &mut Session) -> Result<Exit> {
    save(&shortcuts, fitted, &to.output)?;
    let (maps, rows) = (shortcuts.iter().count(), rows(&text.fitted));
    let maps = if maps == 1 { "1 map".to_owned() } else { format!("{maps} maps") };
    note(format!("{}: {maps} by {}, {}, of {rows} places", shown_path(&to.output), fitted.method, fitted.settings));
    let mut output = Output::stdout(to.json);
    if !text.held_out.is_empty() {
        judge(shortcuts, &text.held_out, session, &mut output)?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn judge(shortcuts: Shortcuts, samples: &[Sample], session: &mut Session, output: &mut Output) -> Result<()> {
    let mut evaluation = Evaluation::new(session, shortcuts).map_err(|error| bridge_failure(&error))?;
    for group in in_groups(samples) {
        signals::check()?;
        evaluation.add(session, group).map_err(|error| bridge_failure(&error))?;
    }
    let reports = evaluation.finish().map_err(|error| bridge_failure(&error))?;
    show::reports(output, session.model(), &reports, samples.len())
}

/// What maps are fitted to, and what they are judged on.
struct Text {
    names: Vec<String>,
    fitted: Vec<Sample>,
    held_out: Vec<Sample>,
}

impl Text {
    fn read(args: &TextArgs, share: f64, model: &Model) -> Result<Text> {
        if args.text.is_empty() && args.tasks.is_empty() && args.task.is_empty() {
            return Err(Failure::usage("no text: give --text, --tasks or --task")
                .with_help("`lesion tasks ls` lists the bundled tasks"));
        }
        let examples = args.examples(model.config().n_positions);
        let mut inputs = Inputs::open(&examples, &ReferenceArgs::default(), None, model)?;
        let mut text = Text { names: inputs.names(), fitted: Vec::new(), held_out: Vec::new() };
        let mut number = 0;
        while let Some(placed) = inputs.next()? {
            let ids = placed.example.ids;
            // An example's prompt is as good a text as its answer.
            let sample = match placed.text {
                Some(_) => Sample::whole(ids),
                None => Sample { rows: placed.example.scored.start - 1..placed.example.scored.end - 1, ids },
            };
            let to = if held_out(number, share) { &mut text.held_out } else { &mut text.fitted };
            to.push(sample);
            number += 1;
        }
        if text.fitted.is_empty() {
            return Err(Failure::usage("there is no text to fit to"));
        }
        if share > 0.0 && text.held_out.is_empty() {
            let message = format!("--held-out {share} of {number} windows or examples is none of them");
            return Err(Failure::usage(message).with_help("--held-out 0 judges nothing; --window cuts a text smaller"));
        }
        Ok(text)
    }

    fn fitted(&self, method: &str, settings: String, model: &Model) -> Result<Fitted> {
        let mut hash = Sha256::new();
        for sample in &self.fitted {
            hash.update((sample.ids.len() as u64).to_le_bytes());
            sample.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        }
        Ok(Fitted {
            method: method.to_owned(),
            settings,
            model: model.name().to_owned(),
            weights: model::identity(model)?,
            text: self.names.join(", "),
            tokens_sha256: model::hex(&hash.finalize()),
            tokens: self.fitted.iter().map(|sample| sample.ids.len()).sum::<usize>().to_string(),
        })
    }
}

fn rows(samples: &[Sample]) -> usize {
    samples.iter().map(|sample| sample.rows.len()).sum()
}

/// Refuses a file that exists, before any work is done.
fn is_free(to: &ToArgs) -> Result<()> {
    match to.output.exists() && !to.force {
        true => Err(Failure::usage(format!("{} exists", name(&to.output))).with_help("--force replaces it")),
        false => Ok(()),
    }
}

/// Under a temporary name, then its own.
fn save(shortcuts: &Shortcuts, fitted: &Fitted, path: &Path) -> Result<()> {
    let mut partial = path.to_owned().into_os_string();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let saved = shortcuts.save(&partial, fitted).map_err(|error| saved_failure(&error));
    let renamed = saved
        .and_then(|()| fs::rename(&partial, path).map_err(|error| Failure::io("write", &shown_path(path), &error)));
    renamed.inspect_err(|_| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&partial);
    })
}

fn within_memory(asked: Option<MemorySize>, bytes: usize) -> Result<()> {
    let allowed = memory_for(asked, 0)?;
    match bytes > allowed {
        true => {
            let message = format!("the fit takes {}, {} are allowed", size(bytes as u64), size(allowed as u64));
            Err(Failure::new(Exit::Missing, message).with_help("fewer maps at a time, or --memory"))
        }
        false => Ok(()),
    }
}

fn bridge_failure(error: &BridgeError) -> Failure {
    match error {
        BridgeError::Forward(error) => forward_failure(error),
        _ => Failure::usage(error.to_string()),
    }
}
