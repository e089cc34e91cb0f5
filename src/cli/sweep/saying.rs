//! What the plans of a sweep say behind its first prompts: kept in the store, for reports.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use lesion::forward::{Sampling, Session};
use lesion::plan::Plan;
use lesion::store::{NewCompletion, Wanted};

use super::inputs::{Inputs, Placed};
use crate::cli::args::ModelArgs;
use crate::cli::complete::{finish, speak};
use crate::cli::failure::Result;
use crate::cli::resolve::{Input, NamedPlan};
use crate::cli::{keep, model, signals};

/// The first prompts of each task.
pub(crate) fn prompts(inputs: &mut Inputs<'_>, count: u64) -> Result<Vec<Placed>> {
    let mut prompts = Vec::new();
    let mut seen: HashMap<usize, u64> = HashMap::new();
    while let Some(placed) = inputs.next()? {
        let seen = seen.entry(placed.group).or_default();
        if *seen < count && placed.text.is_some() {
            *seen += 1;
            prompts.push(placed);
        }
    }
    Ok(prompts)
}

/// Lets every plan, the intact one too, continue each prompt greedily; what the store has already is not said again. How many
/// completions were new.
pub(crate) fn say(
    store: &Path,
    session: &mut Session,
    model_args: &ModelArgs,
    plans: &[Plan],
    prompts: &[Placed],
    max_tokens: u32,
) -> Result<usize> {
    let model = session.model().clone();
    let mut plans = plans.to_vec();
    let intact = Plan::intact(model.config().n_layer);
    if !plans.contains(&intact) {
        plans.push(intact);
    }
    let sampling = Sampling::greedy(max_tokens as usize);
    let mut recorder =
        keep::begin(keep::open(store)?, session, model_args, &plans, Wanted::default(), None, Instant::now())?;
    let named: Vec<NamedPlan> = plans.into_iter().map(|plan| NamedPlan::new(plan, model.config())).collect();
    let mut new = 0;
    for Placed { text, example, .. } in prompts {
        let prompt = example.ids[..example.scored.start].to_vec();
        let text = text.as_ref().map(|question| question.prompt.clone());
        let input = Input { ids: prompt.clone(), bos: false, text: text.clone(), file: None };
        for (plan, named) in named.iter().enumerate() {
            if recorder.said(plan, &prompt, &sampling)?.is_some() {
                continue;
            }
            let said = speak(session, named, &input, &sampling, &mut |_, _| Ok(()))?;
            model::check_unchanged(&model, model_args.read())?;
            signals::check()?;
            recorder.complete(NewCompletion {
                plan,
                prompt: prompt.clone(),
                prompt_text: text.clone(),
                sampling: sampling.clone(),
                ids: said.ids,
                text: said.text,
                finish: finish(said.finish),
            })?;
            new += 1;
        }
    }
    recorder.finish(None)?;
    Ok(new)
}
