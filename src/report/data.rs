//! What a report is made of: plain data. Losses are in nats per token, shares between 0 and 1, layers count from 0.

use super::inside::View;
use crate::plan::{Family, Plan};
use crate::sweep::Summary;

/// An experiment as it is reported.
#[derive(Clone, Debug)]
pub struct Study {
    /// Its title.
    pub title: String,
    /// What was run, in a sentence or two.
    pub about: String,
    /// The command line that measures it again.
    pub command: String,
    /// The command line that writes this report from what was measured.
    pub report_command: String,
    /// The model.
    pub model: ModelFacts,
    /// How it was computed: rows are equal bit for bit within this and an instruction set.
    pub numerics: String,
    /// The processes that computed it, the oldest first.
    pub processes: Vec<Process>,
    /// Examples that are there of those that were asked for, where their number is known.
    pub expected_examples: Option<u64>,
    /// What was measured.
    pub results: Results,
    /// What plans said behind prompts.
    pub conversations: Vec<Conversation>,
    /// Notes that cite it.
    pub notes: Vec<NoteFacts>,
    /// What was found inside the model, in the order in which it is shown.
    pub inside: Vec<InsideFacts>,
}

/// What was found inside models, reported by itself.
#[derive(Clone, Debug)]
pub struct Views {
    /// Its title.
    pub title: String,
    /// What it is, in a sentence or two.
    pub about: String,
    /// The command line that writes this report.
    pub report_command: String,
    /// What was found, in the order in which it is shown.
    pub inside: Vec<InsideFacts>,
}

/// What one command found inside a model.
#[derive(Clone, Debug)]
pub struct InsideFacts {
    /// The file that it was read from.
    pub file: String,
    /// What was found.
    pub view: View,
}

/// A model.
#[derive(Clone, Debug)]
pub struct ModelFacts {
    /// Its name.
    pub name: String,
    /// SHA-256 of configuration and weights, hex.
    pub weights: String,
    /// SHA-256 of the tokenizer's file, hex, where it has one.
    pub tokenizer: Option<String>,
}

/// What plans made of examples.
#[derive(Clone, Debug)]
pub struct Results {
    /// The model's layers.
    pub n_layer: usize,
    /// What a model that knows nothing loses: ln V, nats per token.
    pub uniform: f64,
    /// The plans, in their order.
    pub plans: Vec<PlanFacts>,
    /// Families that plans belong to.
    pub families: Vec<FamilyFacts>,
    /// All examples together.
    pub all: Group,
    /// Task by task.
    pub tasks: Vec<Group>,
}

/// A process that computed results.
#[derive(Clone, Debug)]
pub struct Process {
    /// When it began: UTC, ISO 8601.
    pub started: String,
    /// How long it took; none where it has not ended.
    pub seconds: Option<f64>,
    /// The machine's name.
    pub host: String,
    /// The version of lesion.
    pub version: String,
    /// The commit of its source, where that was known.
    pub commit: Option<String>,
    /// The instruction set.
    pub isa: String,
    /// Threads.
    pub threads: usize,
    /// Its command line.
    pub command: String,
}

/// A plan.
#[derive(Clone, Debug)]
pub struct PlanFacts {
    /// The canonical text.
    pub text: String,
    /// Its steps.
    pub plan: Plan,
}

/// A family of plans.
#[derive(Clone, Debug)]
pub struct FamilyFacts {
    /// As it was written: `repeat-one x2..8`.
    pub text: String,
    /// Its name: `repeat-one`.
    pub name: String,
    /// What its plans differ in.
    pub axes: Vec<String>,
    /// Each member's plan, and where it stands on the axes.
    pub members: Vec<(usize, Vec<u64>)>,
}

impl FamilyFacts {
    /// A family and where its members are among the plans.
    pub fn new(family: &Family, members: Vec<(usize, Vec<u64>)>) -> FamilyFacts {
        let axes = family.axes().iter().map(|axis| (*axis).to_owned()).collect();
        FamilyFacts { text: family.to_string(), name: family.name().to_owned(), axes, members }
    }
}

/// What plans made of the examples of a task, or of all.
#[derive(Clone, Debug)]
pub struct Group {
    /// The task's name.
    pub name: String,
    /// The intact model.
    pub intact: Summary,
    /// By plan.
    pub plans: Vec<Summary>,
}

/// What plans said behind one prompt.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// The task.
    pub task: String,
    /// The prompt.
    pub prompt: String,
    /// The answer as it goes on behind the prompt, where there is a right one.
    pub answer: Option<String>,
    /// What was said, by plan.
    pub said: Vec<Said>,
}

/// A completion.
#[derive(Clone, Debug)]
pub struct Said {
    /// The plan's place; none for the intact model where it is not one of the plans.
    pub plan: Option<usize>,
    /// The text, as the model made it.
    pub text: String,
    /// Why it ended: `length`, `stop`, `context`, `end-of-text`, `not-a-number`.
    pub finish: String,
}

impl Conversation {
    /// Whether a completion begins with the answer, and with no longer word or number; none where there is no answer.
    pub fn is_right(&self, said: &Said) -> Option<bool> {
        let answer = self.answer.as_deref()?;
        let Some(rest) = said.text.strip_prefix(answer) else { return Some(false) };
        let goes_on = answer.ends_with(char::is_alphanumeric) && rest.starts_with(char::is_alphanumeric);
        Some(!goes_on)
    }
}

/// A note.
#[derive(Clone, Debug)]
pub struct NoteFacts {
    /// What it is about.
    pub kind: String,
    /// When it was written: UTC, ISO 8601.
    pub created: String,
    /// Its text: Markdown of anybody's making.
    pub text: String,
    /// The keys of runs that it cites.
    pub runs: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_right_as_a_whole_word() {
        let conversation = |answer: Option<&str>| Conversation {
            task: "t".into(),
            prompt: "p".into(),
            answer: answer.map(str::to_owned),
            said: Vec::new(),
        };
        let said = |text: &str| Said { plan: None, text: text.into(), finish: "length".into() };
        let right = |answer: &str, text: &str| conversation(Some(answer)).is_right(&said(text));
        assert_eq!(right(" 5", " 5\n6 + 1"), Some(true));
        assert_eq!(right(" 5", " 50"), Some(false));
        assert_eq!(right(" 5", "5"), Some(false));
        assert_eq!(right("\"]}]", "\"]}]x"), Some(true));
        assert_eq!(conversation(None).is_right(&said(" 5")), None);
    }
}
