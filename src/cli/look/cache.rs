//! `lesion cache`: the activations at sites of layers, as a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lesion::forward::{Activations, Batch, End, Provenance, Tap, TapError, site_width};
use lesion::model::Config;
use lesion::plan::{ExecutionName, Plan, Site};

use super::args::Cache;
use super::not_empty;
use crate::cli::bridges::bound;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::model::shown_path;
use crate::cli::output::{note, size};
use crate::cli::references::saved_failure;
use crate::cli::resolve::{self, Input};
use crate::cli::sweep::memory::memory_for;
use crate::cli::{forward_failure, model, signals};

pub(crate) fn run(args: &Cache) -> Result<Exit> {
    if args.lines.is_none() {
        args.prompt.text.given()?;
    }
    let parsed = resolve::parse_all(&args.plan.clone().into_iter().collect::<Vec<_>>())?;
    let engine = resolve::engine(&args.engine)?;
    if args.output.exists() && !args.force {
        let message = format!("{} exists", shown_path(&args.output));
        return Err(Failure::usage(message).with_help("--force replaces it"));
    }
    let model = model::open(&args.model)?;
    let (config, shape) = (model.config(), model.plan_shape());
    let bridges = args.bridges.read(&model)?;
    let plan = match parsed.first() {
        Some(parsed) => bound(&resolve::plan(parsed, &shape)?, &bridges)?,
        None => Plan::intact(shape.n_layer),
    };
    let wanted = wanted(&args.site, &plan, config.n_layer)?;
    let inputs = match &args.lines {
        None => vec![Input::prompt(&model, &args.prompt)?],
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| Failure::io("read", &shown_path(path), &error))?;
            let lines = text.lines().filter(|line| !line.is_empty());
            let bos = args.prompt.bos.wanted();
            lines.map(|line| Input::text(&model, line.to_owned(), bos)).collect::<Result<Vec<_>>>()?
        }
    };
    let tokens: usize = inputs.iter().map(|input| input.ids.len()).sum();
    for input in &inputs {
        not_empty(input)?;
        resolve::within_context(input.ids.len(), config)?;
    }
    if tokens == 0 {
        return Err(Failure::usage("--lines: there is no line with text"));
    }
    let is_square = |tap: &Tap| matches!(tap, Tap::At(_, Site::Scores | Site::Pattern));
    if inputs.len() > 1 && wanted.iter().any(is_square) {
        return Err(Failure::usage("--lines with scores or patterns: those of several prompts have no common width"));
    }
    within_memory(args, config, &wanted, tokens)?;
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    session.set_references(args.references.read()?);
    let mut all: Option<Activations> = None;
    for input in &inputs {
        signals::check()?;
        let found = session.tapped(&plan, &Batch::new([&input.ids[..]]), &wanted);
        for found in found.map_err(|error| forward_failure(&error))? {
            match &mut all {
                None => all = Some(found),
                Some(all) => all.append(&found),
            }
        }
    }
    model::check_unchanged(&model, args.model.read())?;
    let ids = inputs.iter().flat_map(|input| &input.ids).copied().collect();
    let provenance = Provenance { ids, plan: plan.to_string(), model: model.name().to_owned() };
    save(&all.unwrap_or_default(), &args.output, &provenance)?;
    let sites = if wanted.len() == 1 { "1 site".to_owned() } else { format!("{} sites", wanted.len()) };
    note(format!("{sites} of {tokens} tokens: {}", shown_path(&args.output)));
    Ok(Exit::Ok)
}

/// Under a temporary name, then its own.
fn save(activations: &Activations, path: &Path, provenance: &Provenance) -> Result<()> {
    let mut partial = path.to_owned().into_os_string();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let saved = activations.save(&partial, provenance).map_err(|error| saved_failure(&error));
    let renamed = saved.and_then(|()| {
        fs::rename(&partial, path).map_err(|error: io::Error| Failure::io("write", &shown_path(path), &error))
    });
    renamed.inspect_err(|_| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&partial);
    })
}

/// Refuses what would not fit, before anything runs.
fn within_memory(args: &Cache, config: &Config, wanted: &[Tap], tokens: usize) -> Result<()> {
    let width: usize = wanted.iter().map(|tap| width(tap, config, tokens)).sum();
    // They are held once, and once more as the bytes of the file.
    let bytes = [2, width, tokens, size_of::<f32>()].into_iter().fold(1, usize::saturating_mul);
    let allowed = memory_for(args.memory, 0)?;
    if bytes > allowed {
        let (bytes, allowed) = (size(bytes as u64), size(allowed as u64));
        let message = format!(
            "the activations of {} sites and {tokens} tokens take {bytes}, {allowed} are allowed",
            wanted.len()
        );
        return Err(Failure::new(Exit::Missing, message).with_help("fewer sites, fewer tokens, or --memory"));
    }
    Ok(())
}

/// The taps that names stand for: `blocks.5.attn.hook_z`, `steps.6.hook_resid_post`, `blocks.*.hook_resid_post`, `*`.
fn wanted(names: &[String], plan: &Plan, n_layer: usize) -> Result<Vec<Tap>> {
    let known = || {
        let hooks = Site::ALL.map(Site::hook).join(", ");
        let ends = End::ALL.map(End::hook).join(", ");
        format!("*, {ends}, and blocks.5.HOOK, blocks.5@1.HOOK, steps.6.HOOK or blocks.*.HOOK; the hooks are {hooks}")
    };
    let mut wanted = Vec::new();
    for name in names {
        let failed = |error: &dyn std::fmt::Display| Failure::usage(format!("--site {error}")).with_help(known());
        let unknown = || failed(&TapError::Hook(name.clone()));
        if name == "*" {
            wanted.extend(End::ALL.map(Tap::End));
            wanted.extend(everywhere(plan, None, "*"));
        } else if let Some(hook) = name.strip_prefix("blocks.*.") {
            if hook != "*" && Site::ALL.iter().all(|site| site.hook() != hook) {
                return Err(unknown());
            }
            wanted.extend(everywhere(plan, None, hook));
        } else if let Some(layer) = name.strip_prefix("blocks.").and_then(|rest| rest.strip_suffix(".*")) {
            wanted.extend(everywhere(plan, Some(layer.parse().map_err(|_| unknown())?), "*"));
        } else {
            wanted.push(name.parse().map_err(|error: TapError| failed(&error))?);
        }
    }
    if wanted.is_empty() {
        return Err(Failure::usage(format!("--site {}: nothing in plan {plan} passes there", names.join(", "))));
    }
    for tap in &wanted {
        if let Tap::At(ExecutionName::Layer(layer), _) = tap
            && *layer >= n_layer
        {
            let message = format!("--site {tap}: layer {layer} of {n_layer}: layers are 0..={}", n_layer - 1);
            return Err(Failure::usage(message));
        }
        if let Tap::At(name, site) = tap {
            let placed = plan.find(name).map_err(|error| Failure::usage(format!("--site {tap}: {error}")))?;
            if !site.is_in(placed.execution.part) {
                return Err(Failure::usage(format!("--site {tap}: half of the block runs in plan {plan}, without it")));
            }
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}

/// A hook, or all (`*`), of all executions, or those of a layer.
fn everywhere(plan: &Plan, of: Option<usize>, hook: &str) -> Vec<Tap> {
    let mut taps = Vec::new();
    let times = |layer: usize| plan.executions().filter(|placed| placed.execution.layer == layer).count();
    for placed in plan.executions() {
        let layer = placed.execution.layer;
        if of.is_some_and(|wanted| wanted != layer) {
            continue;
        }
        let name = match times(layer) {
            1 => ExecutionName::Layer(layer),
            _ => ExecutionName::Occurrence(layer, placed.occurrence),
        };
        let sites = Site::ALL.into_iter().filter(|site| site.is_in(placed.execution.part));
        let sites = sites.filter(|site| hook == "*" || site.hook() == hook);
        taps.extend(sites.map(|site| Tap::At(name.clone(), site)));
    }
    taps
}

/// Elements of a token.
fn width(tap: &Tap, config: &Config, tokens: usize) -> usize {
    match tap {
        Tap::At(_, site) => site_width(config, *site, tokens),
        Tap::End(end) => end.width(config),
    }
}
