//! An experiment of the store as a study: the one place where reports meet it.

use super::data::{Conversation, FamilyFacts, Group, ModelFacts, NoteFacts, PlanFacts, Process, Results, Said, Study};
use super::number::counted;
use crate::plan::{Family, Plan, PlanShape};
use crate::store::{Experiment, Question, Store, StoreError, StoredCompletion};
use crate::sweep::{Row, Tally};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// Prompts whose completions are reported.
const PROMPTS: usize = 32;

/// An experiment, with everything that a report says of it; `seed` is that of the intervals' resamples.
///
/// # Errors
/// Where the store can't be read.
pub fn of_store(store: &Store, experiment: &Experiment, seed: u64) -> Result<Study, StoreError> {
    let notes = store.notes(Some(experiment))?;
    Ok(Study {
        title: experiment.name.clone(),
        about: about(experiment),
        command: command_line(&experiment.command),
        report_command: command_line(&["report".to_owned(), experiment.name.clone()]),
        model: ModelFacts {
            name: experiment.model.clone(),
            weights: experiment.weights.clone(),
            tokenizer: experiment.tokenizer.clone(),
        },
        numerics: format!("{}, version {} of the bits", experiment.arithmetic, experiment.numerics_version),
        processes: experiment.observations.iter().map(process).collect(),
        expected_examples: experiment.expected_examples,
        conversations: conversations(store, experiment)?,
        notes: notes
            .into_iter()
            .map(|note| NoteFacts {
                kind: note.kind.name().to_owned(),
                created: short_time(&note.created),
                text: note.text,
                runs: note.runs.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        inside: Vec::new(),
        results: results(store, experiment, seed)?,
    })
}

fn about(experiment: &Experiment) -> String {
    let examples: u64 = experiment.tasks.iter().map(|task| task.examples).sum();
    format!(
        "{} of the {} layers of {} on {} of {}.",
        counted(experiment.plans.len() as u64, "plan"),
        experiment.n_layer,
        experiment.model,
        counted(examples, "example"),
        counted(experiment.tasks.len() as u64, "task")
    )
}

fn process(observation: &crate::store::Observation) -> Process {
    Process {
        started: short_time(&observation.started),
        seconds: observation.seconds,
        host: observation.host.clone(),
        version: observation.version.clone(),
        commit: observation.commit.clone(),
        isa: observation.isa.clone(),
        threads: observation.threads,
        command: command_line(&observation.command),
    }
}

/// `2026-01-02 03:04:05`
fn short_time(time: &str) -> String {
    time.split('.').next().unwrap_or(time).trim_end_matches('Z').replace('T', " ")
}

/// A command line of lesion, as a shell reads it.
pub fn command_line(arguments: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    let quoted = |argument: &String| match !argument.is_empty() && argument.chars().all(plain) {
        true => argument.clone(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    };
    std::iter::once("lesion".to_owned()).chain(arguments.iter().map(quoted)).collect::<Vec<_>>().join(" ")
}

fn results(store: &Store, experiment: &Experiment, seed: u64) -> Result<Results, StoreError> {
    let plans: Vec<PlanFacts> =
        experiment.plans.iter().map(|plan| PlanFacts { text: plan.text.clone(), plan: plan.plan.clone() }).collect();
    let place = plans.iter().position(|facts| facts.plan == experiment.intact.plan);
    // The intact model has a column of its own where it is not one of the plans.
    let (intact, columns) = (place.unwrap_or(plans.len()), plans.len() + usize::from(place.is_none()));
    let mut tally = Tally::new(columns, experiment.tasks.iter().map(|task| task.name.clone()));
    store.results(experiment, |stored| {
        let row = Row { plan: stored.plan.unwrap_or(intact), example: stored.example, ..stored.row };
        tally.add(stored.task, &row);
        Ok::<(), StoreError>(())
    })?;
    let group = |name: &str, group: Option<usize>| {
        let mut summaries = tally.summaries(group, Some(intact), seed);
        let own = summaries[intact].clone();
        summaries.truncate(plans.len());
        Group { name: name.to_owned(), intact: own, plans: summaries }
    };
    let tasks: Vec<Group> = experiment.tasks.iter().enumerate().map(|(i, task)| group(&task.name, Some(i))).collect();
    let all = match &tasks[..] {
        [only] => only.clone(),
        _ => group("all tasks", None),
    };
    Ok(Results {
        n_layer: experiment.n_layer,
        uniform: (experiment.vocab_size as f64).ln(),
        families: families(experiment, &plans),
        plans,
        all,
        tasks,
    })
}

/// The families that the experiment names; those that this version doesn't know are left out, their plans stand alone.
fn families(experiment: &Experiment, plans: &[PlanFacts]) -> Vec<FamilyFacts> {
    let shape = PlanShape::gpt2(experiment.n_layer, experiment.n_head);
    let places: HashMap<&Plan, usize> = plans.iter().enumerate().map(|(place, facts)| (&facts.plan, place)).collect();
    let texts = experiment.spec["families"].as_array().map_or(&[][..], Vec::as_slice);
    let family = |text: &str| -> Option<FamilyFacts> {
        let family: Family = text.parse().ok()?;
        let members = family.members(&shape).ok()?;
        let members = members.into_iter().filter_map(|member| Some((*places.get(&member.plan)?, member.at))).collect();
        Some(FamilyFacts::new(&family, members))
    };
    texts.iter().filter_map(|text| family(text.as_str()?)).collect()
}

/// What plans said behind prompts: of each task the prompts behind which most plans spoke come first, and of all prompts as many
/// as there is room for, task by task in turn.
fn conversations(store: &Store, experiment: &Experiment) -> Result<Vec<Conversation>, StoreError> {
    // By example, then by plan: the greedy one, and of several the longest.
    let mut by_example: BTreeMap<u64, BTreeMap<Option<usize>, StoredCompletion>> = BTreeMap::new();
    for completion in store.completions(experiment)? {
        let said = by_example.entry(completion.example).or_default();
        let rank = |completion: &StoredCompletion| (completion.sampling["temperature"] == 0.0, completion.ids.len());
        match said.get(&completion.plan) {
            Some(other) if rank(other) >= rank(&completion) => {}
            _ => {
                said.insert(completion.plan, completion);
            }
        }
    }
    if by_example.is_empty() {
        return Ok(Vec::new());
    }
    let mut by_task: BTreeMap<usize, Vec<Conversation>> = BTreeMap::new();
    store.questions(experiment, |question| {
        if let Some(said) = by_example.remove(&question.example) {
            by_task.entry(question.task).or_default().extend(conversation(experiment, question, said));
        }
        Ok::<(), StoreError>(())
    })?;
    let in_turn = |(task, mut of_task): (usize, Vec<Conversation>)| {
        of_task.sort_by_key(|conversation| Reverse(conversation.said.len()));
        of_task.into_iter().enumerate().map(move |(turn, conversation)| (turn, task, conversation))
    };
    let mut shown: Vec<(usize, usize, Conversation)> = by_task.into_iter().flat_map(in_turn).collect();
    shown.sort_by_key(|(turn, task, _)| (*turn, *task));
    shown.truncate(PROMPTS);
    shown.sort_by_key(|(turn, task, _)| (*task, *turn));
    Ok(shown.into_iter().map(|(_, _, conversation)| conversation).collect())
}

/// What plans said behind a question's prompt; none where its text is not known.
fn conversation(
    experiment: &Experiment,
    question: Question,
    said: BTreeMap<Option<usize>, StoredCompletion>,
) -> Option<Conversation> {
    let prompt = question.prompt.or_else(|| said.values().find_map(|said| said.prompt.clone()))?;
    let task = experiment.tasks.get(question.task).map_or_else(String::new, |task| task.name.clone());
    let said = said.into_iter().filter_map(|(plan, said)| Some(Said { plan, text: said.text?, finish: said.finish }));
    Some(Conversation { task, prompt, answer: question.answer, said: said.collect() })
}
