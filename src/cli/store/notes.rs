//! Notes and tags.

use lesion::store::{Experiment, RunKey};
use serde::Serialize;

use super::args::{Note as NoteArgs, Notes, Tag};
use super::{reading, writing};
use crate::cli::failure::{Exit, Result};
use crate::cli::output::{Output, SCHEMA_VERSION, note as tell};
use crate::cli::resolve::given_or_stdin;

/// A note in JSON.
#[derive(Serialize)]
pub(super) struct NoteRecord {
    schema_version: u32,
    note: i64,
    kind: &'static str,
    text: String,
    created: String,
    experiments: Vec<String>,
    runs: Vec<String>,
}

impl From<&lesion::store::Note> for NoteRecord {
    fn from(note: &lesion::store::Note) -> NoteRecord {
        NoteRecord {
            schema_version: SCHEMA_VERSION,
            note: note.id,
            kind: note.kind.name(),
            text: note.text.clone(),
            created: note.created.clone(),
            experiments: note.experiments.clone(),
            runs: note.runs.iter().map(RunKey::to_string).collect(),
        }
    }
}

pub(super) fn note(args: &NoteArgs) -> Result<Exit> {
    let store = writing(&args.at)?;
    if let Some(id) = args.remove {
        store.remove_note(id)?;
        tell(format!("note {id} is gone"));
        return Ok(Exit::Ok);
    }
    let text = given_or_stdin(args.text.as_deref().unwrap_or_default())?;
    let experiments = args.experiment.iter().map(|name| store.experiment(name));
    let experiments: Vec<Experiment> = experiments.collect::<std::result::Result<_, _>>()?;
    let runs = args.run.iter().map(|key| store.key(key));
    let runs: Vec<RunKey> = runs.collect::<std::result::Result<_, _>>()?;
    let id = store.add_note(args.kind, &text, &experiments, &runs)?;
    tell(format!("note {id}"));
    Ok(Exit::Ok)
}

pub(super) fn list(args: &Notes) -> Result<Exit> {
    let store = reading(&args.at)?;
    let mut output = Output::open(&args.output)?;
    let experiment = args.experiment.as_deref().map(|name| store.experiment(name)).transpose()?;
    for note in store.notes(experiment.as_ref())? {
        if output.json {
            output.object(&NoteRecord::from(&note))?;
        } else {
            show(&mut output, &note)?;
        }
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// A note for people: what it is, what it cites, its text.
pub(super) fn show(output: &mut Output, note: &lesion::store::Note) -> Result<()> {
    let runs = note.runs.iter().map(|run| run.to_string()[..12].to_owned());
    let cited: Vec<String> = note.experiments.iter().cloned().chain(runs).collect();
    let cited = if cited.is_empty() { String::new() } else { format!(" on {}", cited.join(", ")) };
    output.heading(&format!("note {}, {}{cited}, {}", note.id, note.kind, note.created))?;
    output.model_text(&note.text)?;
    output.line("")?;
    output.line("")
}

pub(super) fn tag(args: &Tag) -> Result<Exit> {
    let store = writing(&args.at)?;
    let experiment = store.experiment(&args.experiment)?;
    for tag in &args.tags {
        let changed = store.tag(&experiment, tag, !args.remove)?;
        match (changed, args.remove) {
            (true, false) => tell(format!("{} is tagged {tag}", experiment.name)),
            (true, true) => tell(format!("{} is no longer tagged {tag}", experiment.name)),
            (false, false) => tell(format!("{} was tagged {tag} already", experiment.name)),
            (false, true) => tell(format!("{} was not tagged {tag}", experiment.name)),
        }
    }
    Ok(Exit::Ok)
}
