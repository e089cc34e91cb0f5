//! `lesion study`: what this project began with, as one command.

use lesion::forward::Bridges;
use lesion::report;
use lesion::store::Store;
use lesion::sweep::SweepOptions;
use lesion::tasks::seed_tasks;

use super::Target;
use super::args::{Studies, Study as StudyArgs, Truncation};
use crate::cli::failure::{Exit, Result};
use crate::cli::output::Output;
use crate::cli::store::args::{At, StoreArgs};
use crate::cli::sweep::args::{ExampleArgs, SweptPlans};
use crate::cli::sweep::inputs::Inputs;
use crate::cli::sweep::plans::Parsed;
use crate::cli::sweep::running::{Keep, Running};
use crate::cli::sweep::{saying, tell};
use crate::cli::{keep, model, resolve, tasks};

pub(crate) fn run(args: &StudyArgs) -> Result<Exit> {
    match &args.study {
        Studies::Truncation(args) => truncation(args),
    }
}

/// The first n layers on four kinds of prompt, for all n.
fn truncation(args: &Truncation) -> Result<Exit> {
    let engine = resolve::engine(&args.engine)?;
    let At { store } = &args.at;
    let path = keep::place(&StoreArgs { store: store.clone(), no_store: false })?.unwrap_or_default();
    let tasks = seed_tasks(args.examples as usize).map_err(|error| tasks::files::bundled_failure(&error))?;
    let families = SweptPlans { family: vec!["keep-first".to_owned()], ..SweptPlans::default() };
    let model_name = args.model.model.to_string_lossy();
    let model_name = model_name.rsplit('/').next().unwrap_or("model");
    let target = Target::new(&args.to, args.experiment.as_deref().unwrap_or(&format!("truncation-{model_name}")))?;
    let model = model::open(&args.model)?;
    let plans = Parsed::new(&families)?.resolve(&model.plan_shape(), &Bridges::NONE)?;
    let examples = ExampleArgs::none();
    let prompts = saying::prompts(&mut Inputs::of_tasks(tasks.clone(), &model)?, 1)?;
    let running = Running {
        plans: &plans,
        options: SweepOptions { memory: 0, divergence: true, token_losses: false },
        memory: None,
        examples: &examples,
        held: 0,
        shard: None,
        keep: Keep::Store { path: path.clone(), name: args.experiment.as_deref() },
    };
    let inputs = Inputs::of_tasks(tasks, &model)?;
    let outcome = running.run(resolve::session(&model, engine.clone())?, inputs, &args.model, &mut |_| Ok(()))?;
    let mut session = resolve::session(&model, engine)?;
    let new = saying::say(&path, &mut session, &args.model, &plans.plans, &prompts, args.max_tokens)?;
    tell(&outcome, Some(new));
    let store = Store::read(&path)?;
    let experiment = store.experiment(outcome.summary.experiment.as_deref().unwrap_or_default())?;
    let mut study = report::of_store(&store, &experiment, 0)?;
    study.title = format!("Removing the last n layers: {}", model.name());
    study.about = format!(
        "The first n of the {} layers of {} on four kinds of prompt, for all n: {} examples, and what each of them says behind \
         the first prompt of each kind.",
        experiment.n_layer,
        model.name(),
        study.results.all.intact.examples
    );
    study.report_command = report::command_line(&keep::command());
    let mut output = Output::stdout(false);
    output.model_text(&report::text(&study))?;
    output.finish()?;
    target.write(&|| report::html(&study), &|| report::folder(&study))?;
    Ok(Exit::Ok)
}
