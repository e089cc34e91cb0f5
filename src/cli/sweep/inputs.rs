//! Examples for sweeps: tasks and pairs, which are read whole, and texts, which stream.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use lesion::forward::References;
use lesion::measure::Answered;
use lesion::model::Model;
use lesion::store;
use lesion::sweep::{Example, ExampleDigest};
use lesion::tasks::{Question, Task, read_pairs};

use sha2::{Digest, Sha256};

use super::args::{ExampleArgs, Shard};
use super::text::TextWindows;
use crate::cli::failure::{Failure, Result};
use crate::cli::model::{model_failure, shown_path};
use crate::cli::output::note;
use crate::cli::references::ReferenceArgs;
use crate::cli::resolve::within_context;
use crate::cli::tasks::files as task_files;
use crate::cli::{measure_failure, signals};

/// An example and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed {
    /// Its task or text.
    pub(crate) group: usize,
    /// Its number there.
    pub(crate) index: u64,
    /// Its texts, unless it is a window of a text.
    pub(crate) text: Option<Question>,
    pub(crate) example: Example,
}

impl Placed {
    /// Where it comes from, as the store keeps it; `groups` are the names of tasks and texts.
    pub(crate) fn source(&self, groups: &[String]) -> store::Source {
        let text = self.text.as_ref();
        store::Source {
            task: Some(groups[self.group].clone()),
            number: self.index,
            prompt: text.map(|question| question.prompt.clone()),
            answer: text.map(|question| question.answer.clone()),
        }
    }
}

/// The examples that a command line asks for, in their order.
pub(crate) struct Inputs<'m> {
    model: &'m Model,
    bos: Option<u32>,
    sources: Vec<Source>,
    shard: Option<Shard>,
    limit: u64,
    /// The source that comes next, the number of the next example in it, and in all.
    source: usize,
    index: u64,
    number: u64,
    /// Of all examples so far, those of other shards included.
    hash: Sha256,
    /// What modifiers find by name.
    references: References,
}

struct Source {
    /// Of the task or text.
    name: String,
    /// Of its file.
    file: String,
    kind: Kind,
}

impl Source {
    /// Says what is certainly not meant, and would show in every number.
    fn warn(&self) {
        let Kind::Task(task) = &self.kind else { return };
        let doubled = |example: &usize| task.question(*example).is_some_and(|question| question.doubles_space());
        if let Some(first) = (0..task.examples.len()).find(doubled) {
            let name = self.name.escape_debug();
            note(format!(
                "warning: task `{name}`, example {first}: white space on both sides of a join, two spaces where one is meant; \
                 `lesion tasks check` lists all such"
            ));
        }
    }
}

enum Kind {
    Task(Task),
    Text(Box<TextWindows>),
}

/// Refuses files several of which are stdin.
pub(crate) fn stdin_once<'p>(files: impl IntoIterator<Item = &'p PathBuf>) -> Result<()> {
    match files.into_iter().filter(|path| is_stdin(path)).count() {
        0 | 1 => Ok(()),
        _ => Err(Failure::usage("stdin can be read once: `-` is given several times")),
    }
}

impl ExampleArgs {
    /// All files of examples.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.tasks.iter().chain(&self.pairs).chain(&self.text)
    }
}

impl<'m> Inputs<'m> {
    /// Reads tasks and pairs, opens texts.
    pub(crate) fn open(
        args: &ExampleArgs,
        references: &ReferenceArgs,
        shard: Option<Shard>,
        model: &'m Model,
    ) -> Result<Inputs<'m>> {
        let ExampleArgs { tasks, pairs, text, task: wanted, limit, window, stride, bos } = args;
        let bos_id = bos.wanted().then(|| model.bos()).transpose().map_err(|error| model_failure(&error))?;
        let mut sources: Vec<Source> = Vec::new();
        let mut add = |source: Source| match sources.iter().any(|other| other.name == source.name) {
            true => Err(Failure::usage(format!("`{}` is given twice", source.name.escape_debug()))),
            false => {
                sources.push(source);
                Ok(())
            }
        };
        // Without any file, names are those of bundled tasks.
        let named = if tasks.is_empty() && pairs.is_empty() && text.is_empty() { &wanted[..] } else { &[] };
        let files = tasks.iter().map(|path| (task_files::tasks_of(path), name(path)));
        for (found, file) in files.chain(named.iter().map(|name| (task_files::bundled(name), "bundled".to_owned()))) {
            for task in found? {
                add(Source { name: task.name.clone(), file: file.clone(), kind: Kind::Task(task) })?;
            }
        }
        for path in pairs {
            let found = read_pairs(&read(path)?, &name(path), &stem(path));
            for task in found.map_err(|error| task_files::task_failure(&error))? {
                add(Source { name: task.name.clone(), file: name(path), kind: Kind::Task(task) })?;
            }
        }
        for path in text {
            let windows = TextWindows::open(path, &name(path), model, bos_id, *window, *stride)?;
            add(Source { name: name(path), file: name(path), kind: Kind::Text(Box::new(windows)) })?;
        }
        if sources.is_empty() {
            return Err(Failure::usage("no examples: give --tasks, --task, --pairs or --text")
                .with_help("`lesion tasks ls` lists the bundled tasks"));
        }
        for task in wanted {
            if !sources.iter().any(|source| source.name == *task) {
                let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
                let message = format!("--task {}: there are {}", task.escape_debug(), names.join(", "));
                return Err(Failure::usage(message));
            }
        }
        if !wanted.is_empty() {
            sources.retain(|source| wanted.contains(&source.name));
        }
        sources.iter().for_each(Source::warn);
        let limit = limit.map_or(u64::MAX, u64::from);
        let references = references.read()?;
        let hash = Sha256::new();
        Ok(Inputs { model, bos: bos_id, sources, shard, limit, source: 0, index: 0, number: 0, hash, references })
    }

    /// These tasks, behind BOS.
    pub(crate) fn of_tasks(tasks: Vec<Task>, model: &'m Model) -> Result<Inputs<'m>> {
        let bos = Some(model.bos().map_err(|error| model_failure(&error))?);
        let file = "bundled";
        let source = |task: Task| Source { name: task.name.clone(), file: file.to_owned(), kind: Kind::Task(task) };
        let sources = tasks.into_iter().map(source).collect();
        let limit = u64::MAX;
        let (hash, references) = (Sha256::new(), References::NONE);
        Ok(Inputs { model, bos, sources, shard: None, limit, source: 0, index: 0, number: 0, hash, references })
    }

    /// The names of tasks and texts.
    pub(crate) fn names(&self) -> Vec<String> {
        self.sources.iter().map(|source| source.name.clone()).collect()
    }

    /// Whether everything is in memory already: then the examples can be counted before they are run.
    pub(crate) fn are_read(&self) -> bool {
        self.sources.iter().all(|source| matches!(source.kind, Kind::Task(_)))
    }

    /// How many examples there were so far, those of other shards included, and what stands for them.
    pub(crate) fn seen(&self) -> (u64, String) {
        let hash = self.hash.clone().finalize();
        (self.number, hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The next example of the shard.
    pub(crate) fn next(&mut self) -> Result<Option<Placed>> {
        loop {
            signals::check()?;
            let Some(placed) = self.next_of_all()? else { return Ok(None) };
            let number = placed.example.number;
            if self.shard.is_none_or(|shard| number % shard.count == shard.index) {
                return Ok(Some(placed));
            }
        }
    }

    fn next_of_all(&mut self) -> Result<Option<Placed>> {
        loop {
            let Some(source) = self.sources.get_mut(self.source) else { return Ok(None) };
            let (index, number) = (self.index, self.number);
            let tokens = if index >= self.limit {
                None
            } else {
                match &mut source.kind {
                    Kind::Task(task) => match task.question(index as usize) {
                        None => None,
                        Some(question) => {
                            let tokenizer = self.model.tokenizer().map_err(|error| model_failure(&error))?;
                            let answered = Answered::encode(tokenizer, self.bos, &question.prompt, &question.answer);
                            let answered = answered.map_err(|error| measure_failure(&error)).and_then(|answered| {
                                within_context(answered.ids.len(), self.model.config()).map(|()| answered)
                            });
                            let answered = answered.map_err(|failure| {
                                let (file, task) = (&source.file, source.name.escape_debug());
                                failure.about(&format!("{file}, task `{task}`, example {index}"))
                            })?;
                            Some((answered.ids, answered.answer, Some(question.clone())))
                        }
                    },
                    Kind::Text(text) => text.next()?.map(|(ids, scored)| (ids, scored, None)),
                }
            };
            match tokens {
                Some((ids, scored, text)) => {
                    self.index += 1;
                    self.number += 1;
                    let references = self.references.clone();
                    let example = Example { references, ..Example::new(number, ids, scored) };
                    self.hash.update(format!("{:?}", ExampleDigest::of(&example)));
                    return Ok(Some(Placed { group: self.source, index, text, example }));
                }
                None => {
                    self.source += 1;
                    self.index = 0;
                }
            }
        }
    }
}

pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

pub(crate) fn name(path: &Path) -> String {
    if is_stdin(path) { "stdin".to_owned() } else { shown_path(path) }
}

/// What pairs without a task's name are called: the file without its ending.
pub(crate) fn stem(path: &Path) -> String {
    match path.file_stem() {
        Some(stem) if !is_stdin(path) => shown_path(Path::new(stem)),
        _ => name(path),
    }
}

/// A file, or stdin.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>> {
    if is_stdin(path) {
        return Ok(Box::new(io::stdin()));
    }
    File::open(path)
        .map(|file| Box::new(file) as Box<dyn Read>)
        .map_err(|error| Failure::io("open", &shown_path(path), &error))
}

/// All of a file, or of stdin.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    // Not `read_to_end`: on a pipe it would go on waiting after Ctrl-C.
    let (mut bytes, mut part, mut file) = (Vec::new(), vec![0; 1 << 16], open(path)?);
    loop {
        match file.read(&mut part) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::io("read", &name(path), &error)),
        }
        signals::check()?;
    }
}
