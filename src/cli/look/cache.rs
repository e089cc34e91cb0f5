//! `lesion cache`: the activations at sites of layers, as a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lesion::forward::{Activations, Batch, Provenance, site_width};
use lesion::model::Config;
use lesion::plan::Site;

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
        None => lesion::plan::Plan::intact(shape.n_layer),
    };
    let wanted = wanted(&args.site, config.n_layer)?;
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
    if inputs.len() > 1 && wanted.iter().any(|(_, site)| *site == Site::Pattern) {
        return Err(Failure::usage("--lines with patterns: those of several prompts have no common width"));
    }
    within_memory(args, config, &wanted, tokens)?;
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    session.set_references(args.references.read()?);
    let mut all: Option<Activations> = None;
    for input in &inputs {
        signals::check()?;
        let found = session.activations(&plan, &Batch::new([&input.ids[..]]), &wanted);
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
fn within_memory(args: &Cache, config: &Config, wanted: &[(usize, Site)], tokens: usize) -> Result<()> {
    let width: usize = wanted.iter().map(|(_, site)| site_width(config, *site, tokens)).sum();
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

/// The sites that names stand for: `blocks.5.attn.hook_z`, `blocks.*.hook_resid_post`, `*`.
fn wanted(names: &[String], n_layer: usize) -> Result<Vec<(usize, Site)>> {
    let mut wanted = Vec::new();
    for name in names {
        let unknown = || {
            let known = Site::ALL.map(Site::hook).join(", ");
            Failure::usage(format!("--site {}: no such site", name.escape_debug()))
                .with_help(format!("blocks.5.HOOK, blocks.*.HOOK or *; the hooks are {known}"))
        };
        let (layers, hook) = match name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
            Some(("*", hook)) => (0..n_layer, hook),
            Some((layer, hook)) => {
                let layer: usize = layer.parse().map_err(|_| unknown())?;
                if layer >= n_layer {
                    return Err(Failure::usage(format!(
                        "--site {name}: layer {layer} of {n_layer}: layers are 0..={}",
                        n_layer - 1
                    )));
                }
                (layer..layer + 1, hook)
            }
            None if name == "*" => (0..n_layer, "*"),
            None => return Err(unknown()),
        };
        let sites: Vec<Site> = Site::ALL.into_iter().filter(|site| hook == "*" || site.hook() == hook).collect();
        if sites.is_empty() {
            return Err(unknown());
        }
        wanted.extend(layers.flat_map(|layer| sites.iter().map(move |site| (layer, *site))));
    }
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}
