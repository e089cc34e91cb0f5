//! Experiments and runs, for people and for programs.

use lesion::measure::Number;
use lesion::report::command_line;
use lesion::store::{Experiment, ExperimentSummary, Note, Observation, Run, Said, Store, StoreError};
use serde::Serialize;
use serde_json::Value;

use super::args::{Ls, Show};
use super::notes::{self, NoteRecord};
use super::reading;
use crate::cli::complete::SamplingRecord;
use crate::cli::failure::{Exit, Result};
use crate::cli::output::{Output, SCHEMA_VERSION, numbers, shown, table};

#[derive(Serialize)]
struct SummaryRecord<'a> {
    schema_version: u32,
    experiment: &'a str,
    kind: &'a str,
    model: &'a str,
    created: &'a str,
    plans: u64,
    examples: u64,
    /// In all; null until all have been seen.
    expected_examples: Option<u64>,
    /// Whether its last process ended by itself.
    ended: bool,
    /// Whether all of it has been run.
    complete: bool,
    tags: &'a [String],
    notes: u64,
}

pub(super) fn ls(args: &Ls) -> Result<Exit> {
    let store = reading(&args.at)?;
    let mut output = Output::open(&args.output)?;
    let mut all = store.experiments()?;
    if let Some(tag) = &args.tag {
        all.retain(|experiment| experiment.tags.contains(tag));
    }
    if output.json {
        for experiment in &all {
            let ExperimentSummary {
                name,
                kind,
                model,
                created,
                plans,
                examples,
                expected_examples,
                ended,
                tags,
                notes,
            } = experiment;
            output.object(&SummaryRecord {
                schema_version: SCHEMA_VERSION,
                experiment: name,
                kind,
                model,
                created,
                plans: *plans,
                examples: *examples,
                expected_examples: *expected_examples,
                ended: *ended,
                complete: experiment.is_complete(),
                tags,
                notes: *notes,
            })?;
        }
    } else {
        let header =
            ["experiment", "model", "begun (UTC)", "tags", "plans", "examples", "notes", ""].map(str::to_owned);
        let rows: Vec<Vec<String>> = all.iter().map(line).collect();
        output.text(&table(&header, &rows, 4))?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn line(experiment: &ExperimentSummary) -> Vec<String> {
    let ExperimentSummary { name, model, created, plans, examples, expected_examples, tags, notes, .. } = experiment;
    let of = expected_examples.filter(|all| all != examples).map_or(String::new(), |all| format!(" of {all}"));
    vec![
        name.clone(),
        model.clone(),
        created.split('.').next().unwrap_or(created).replace('T', " "),
        tags.join(", "),
        plans.to_string(),
        format!("{examples}{of}"),
        notes.to_string(),
        if experiment.is_complete() { String::new() } else { "unfinished".to_owned() },
    ]
}

#[derive(Serialize)]
struct ExperimentRecord<'a> {
    schema_version: u32,
    experiment: &'a str,
    kind: &'a str,
    model: &'a str,
    weights: &'a str,
    tokenizer: Option<&'a str>,
    arithmetic: &'a str,
    numerics_version: u32,
    created: &'a str,
    command: &'a [String],
    spec: &'a Value,
    plans: Vec<&'a str>,
    intact: &'a str,
    tasks: Vec<TaskRecord<'a>>,
    expected_examples: Option<u64>,
    /// Of plans and examples; those of the intact model apart, where it is not one of the plans.
    results: u64,
    completions: u64,
    observations: Vec<ObservationRecord<'a>>,
    tags: &'a [String],
    notes: Vec<NoteRecord>,
}

#[derive(Serialize)]
struct TaskRecord<'a> {
    task: &'a str,
    examples: u64,
}

#[derive(Serialize)]
struct ObservationRecord<'a> {
    started: &'a str,
    seconds: Option<f64>,
    host: &'a str,
    version: &'a str,
    commit: Option<&'a str>,
    isa: &'a str,
    threads: usize,
    model: &'a str,
    command: &'a [String],
}

impl<'a> From<&'a Observation> for ObservationRecord<'a> {
    fn from(observation: &'a Observation) -> ObservationRecord<'a> {
        let Observation { started, seconds, host, version, commit, isa, threads, model, command } = observation;
        ObservationRecord {
            started,
            seconds: *seconds,
            host,
            version,
            commit: commit.as_deref(),
            isa,
            threads: *threads,
            model,
            command,
        }
    }
}

pub(super) fn show(args: &Show) -> Result<Exit> {
    let store = reading(&args.at)?;
    let mut output = Output::open(&args.output)?;
    match store.experiment(&args.what) {
        Ok(experiment) => show_experiment(&store, &mut output, &experiment)?,
        // What names no experiment may be a key.
        Err(StoreError::Unknown { .. }) if is_key(&args.what) => {
            let key = store.key(&args.what)?;
            match store.said(key)? {
                Some(said) => show_said(&mut output, &said)?,
                None => show_run(&mut output, &store.run(key)?)?,
            }
        }
        Err(error) => return Err(error.into()),
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn is_key(text: &str) -> bool {
    text.len() >= 6 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn show_experiment(store: &Store, output: &mut Output, experiment: &Experiment) -> Result<()> {
    let mut results = 0_u64;
    store.results(experiment, |row| {
        results += u64::from(row.plan.is_some());
        Ok::<(), StoreError>(())
    })?;
    let completions = store.completions(experiment)?.len() as u64;
    let notes = store.notes(Some(experiment))?;
    if output.json {
        return output.object(&ExperimentRecord {
            schema_version: SCHEMA_VERSION,
            experiment: &experiment.name,
            kind: &experiment.kind,
            model: &experiment.model,
            weights: &experiment.weights,
            tokenizer: experiment.tokenizer.as_deref(),
            arithmetic: &experiment.arithmetic,
            numerics_version: experiment.numerics_version,
            created: &experiment.created,
            command: &experiment.command,
            spec: &experiment.spec,
            plans: experiment.plans.iter().map(|plan| plan.text.as_str()).collect(),
            intact: &experiment.intact.text,
            tasks: (experiment.tasks.iter())
                .map(|task| TaskRecord { task: &task.name, examples: task.examples })
                .collect(),
            expected_examples: experiment.expected_examples,
            results,
            completions,
            observations: experiment.observations.iter().map(ObservationRecord::from).collect(),
            tags: &experiment.tags,
            notes: notes.iter().map(NoteRecord::from).collect(),
        });
    }
    let fields = fields(experiment, results, completions);
    output.heading(&format!("{}: {}", experiment.name, experiment.kind))?;
    output.text(&table(&[], &fields, 2))?;
    output.line("")?;
    let header = ["begun (UTC)", "host", "version", "commit", "set", "threads", "seconds"].map(str::to_owned);
    let rows: Vec<Vec<String>> = experiment.observations.iter().map(observed).collect();
    output.text(&table(&header, &rows, 5))?;
    for note in &notes {
        output.line("")?;
        show_note(output, note)?;
    }
    Ok(())
}

fn show_note(output: &mut Output, note: &Note) -> Result<()> {
    notes::show(output, note)
}

fn fields(experiment: &Experiment, results: u64, completions: u64) -> Vec<Vec<String>> {
    let examples: u64 = experiment.tasks.iter().map(|task| task.examples).sum();
    let of = experiment.expected_examples.map_or("not all seen yet".to_owned(), |all| format!("of {all}"));
    let expected = experiment.plans.len() as u64 * experiment.expected_examples.unwrap_or(examples);
    let families = experiment.spec["families"]
        .as_array()
        .map_or(String::new(), |families| families.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
    let tasks: Vec<String> = experiment.tasks.iter().map(|task| format!("{} ({})", task.name, task.examples)).collect();
    let mut fields = vec![
        ("model", format!("{}, {} layers", experiment.model, experiment.n_layer)),
        ("weights", experiment.weights.clone()),
        ("tokenizer", experiment.tokenizer.clone().unwrap_or_else(|| "none".to_owned())),
        ("arithmetic", format!("{}, version {}", experiment.arithmetic, experiment.numerics_version)),
        ("begun (UTC)", experiment.created.clone()),
        ("command", command_line(&experiment.command)),
        ("families", families),
        ("plans", experiment.plans.len().to_string()),
        ("examples", format!("{examples} {of}")),
        ("tasks", tasks.join(" · ")),
        ("results", format!("{results} of {expected}")),
        ("completions", completions.to_string()),
        ("tags", experiment.tags.join(", ")),
    ];
    fields.retain(|(_, value)| !value.is_empty());
    fields.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
}

fn observed(observation: &Observation) -> Vec<String> {
    let Observation { started, seconds, host, version, commit, isa, threads, .. } = observation;
    vec![
        started.split('.').next().unwrap_or(started).replace('T', " "),
        host.clone(),
        version.clone(),
        commit.as_ref().map_or(String::new(), |commit| commit.chars().take(12).collect()),
        isa.clone(),
        threads.to_string(),
        seconds.map_or("did not end".to_owned(), |seconds| format!("{seconds:.1}")),
    ]
}

#[derive(Serialize)]
struct RunRecord<'a> {
    schema_version: u32,
    key: String,
    model: &'a str,
    weights: &'a str,
    tokenizer: Option<&'a str>,
    arithmetic: &'a str,
    numerics_version: u32,
    plan: String,
    token_ids: &'a [u32],
    /// Those that are scored: from, to.
    scored: [usize; 2],
    nll: Number,
    tokens: u32,
    top1: u32,
    correct: bool,
    first_rank: u32,
    entropy: Number,
    kl: Option<Number>,
    non_finite: u32,
    token_nll: Option<Vec<Number>>,
    questions: Vec<AskedRecord<'a>>,
    experiments: &'a [String],
    observation: ObservationRecord<'a>,
}

#[derive(Serialize)]
struct AskedRecord<'a> {
    task: Option<&'a str>,
    example: u64,
    prompt: Option<&'a str>,
    answer: Option<&'a str>,
}

fn show_run(output: &mut Output, run: &Run) -> Result<()> {
    let Run { key, setting, plan, example, references: _, row, observation, gained: _, questions, experiments } = run;
    if output.json {
        return output.object(&RunRecord {
            schema_version: SCHEMA_VERSION,
            key: key.to_string(),
            model: &setting.model.name,
            weights: &setting.model.weights,
            tokenizer: setting.model.tokenizer.as_deref(),
            arithmetic: &setting.arithmetic,
            numerics_version: setting.numerics_version,
            plan: plan.to_string(),
            token_ids: &example.ids,
            scored: [example.scored.start, example.scored.end],
            nll: Number(row.nll),
            tokens: row.tokens,
            top1: row.top1,
            correct: row.is_correct(),
            first_rank: row.first_rank,
            entropy: Number(row.entropy),
            kl: row.divergence.map(Number),
            non_finite: row.non_finite,
            token_nll: (!row.token_nll.is_empty()).then(|| numbers(&row.token_nll)),
            questions: (questions.iter())
                .map(|asked| AskedRecord {
                    task: asked.task.as_deref(),
                    example: asked.number,
                    prompt: asked.prompt.as_deref(),
                    answer: asked.answer.as_deref(),
                })
                .collect(),
            experiments,
            observation: ObservationRecord::from(observation),
        });
    }
    output.heading(&format!("run {key}"))?;
    let mut fields = vec![
        ("model", setting.model.name.clone()),
        ("weights", setting.model.weights.clone()),
        ("arithmetic", format!("{}, version {}, {}", setting.arithmetic, setting.numerics_version, observation.isa)),
        ("plan", plan.to_string()),
        ("tokens", format!("{} of {} scored", row.tokens, example.ids.len())),
    ];
    for asked in questions {
        let text = |text: &Option<String>| text.as_ref().map_or(String::new(), |text| format!(" {text:?}"));
        let task = asked.task.as_ref().map_or(String::new(), |task| format!("{task}, {}:", asked.number));
        fields.push(("question", format!("{task}{}{}", text(&asked.prompt), text(&asked.answer))));
    }
    fields.extend([
        ("loss", format!("{} nats per token", shown(row.nll / f64::from(row.tokens)))),
        ("likeliest", format!("{} of {} tokens", row.top1, row.tokens)),
        ("rank of the first", row.first_rank.to_string()),
        ("entropy", format!("{} nats in all", shown(row.entropy))),
        ("KL to intact", row.divergence.map_or(String::new(), |kl| format!("{} nats in all", shown(kl)))),
        ("experiments", experiments.join(", ")),
        ("computed (UTC)", format!("{} on {}, version {}", observation.started, observation.host, observation.version)),
    ]);
    fields.retain(|(_, value)| !value.is_empty());
    let rows: Vec<Vec<String>> = fields.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    output.text(&table(&[], &rows, 2))
}

#[derive(Serialize)]
struct SaidRecord<'a> {
    schema_version: u32,
    key: String,
    model: &'a str,
    weights: &'a str,
    tokenizer: Option<&'a str>,
    arithmetic: &'a str,
    numerics_version: u32,
    plan: String,
    prompt: Option<&'a str>,
    prompt_ids: &'a [u32],
    completion: Option<&'a str>,
    completion_ids: &'a [u32],
    finish: &'a str,
    sampling: SamplingRecord<'a>,
    observation: ObservationRecord<'a>,
}

fn show_said(output: &mut Output, said: &Said) -> Result<()> {
    let Said { key, setting, plan, prompt_ids, prompt, sampling, ids, text, finish, observation } = said;
    if output.json {
        return output.object(&SaidRecord {
            schema_version: SCHEMA_VERSION,
            key: key.to_string(),
            model: &setting.model.name,
            weights: &setting.model.weights,
            tokenizer: setting.model.tokenizer.as_deref(),
            arithmetic: &setting.arithmetic,
            numerics_version: setting.numerics_version,
            plan: plan.to_string(),
            prompt: prompt.as_deref(),
            prompt_ids,
            completion: text.as_deref(),
            completion_ids: ids,
            finish,
            sampling: SamplingRecord::from(sampling),
            observation: ObservationRecord::from(observation),
        });
    }
    output.heading(&format!("completion {key}"))?;
    let drawn = serde_json::to_string(&SamplingRecord::from(sampling)).expect("plain data");
    let mut fields = vec![
        ("model", setting.model.name.clone()),
        ("weights", setting.model.weights.clone()),
        ("arithmetic", format!("{}, version {}, {}", setting.arithmetic, setting.numerics_version, observation.isa)),
        ("plan", plan.to_string()),
        ("sampling", drawn),
        ("ended by", finish.clone()),
    ];
    if let Some(prompt) = prompt {
        fields.push(("prompt", format!("{prompt:?}")));
    }
    fields.push(("said", text.as_ref().map_or_else(|| format!("{ids:?}"), |text| format!("{text:?}"))));
    let when = format!("{} on {}, version {}", observation.started, observation.host, observation.version);
    fields.push(("computed (UTC)", when));
    let rows: Vec<Vec<String>> = fields.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    output.text(&table(&[], &rows, 2))
}
