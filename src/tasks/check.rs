//! What is odd about tasks although they can be run: findings, each about one example.

use std::collections::HashMap;
use std::fmt;

use super::{Question, Task};
use crate::measure::{Answered, MeasureError};
use crate::model::Tokenizer;

/// Something odd about an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The task's name.
    pub task: String,
    /// The example's number, from 0.
    pub example: usize,
    /// What it is.
    pub kind: FindingKind,
}

/// What is odd.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindingKind {
    /// Prompt and answer of an earlier example.
    Duplicate {
        /// Its number.
        of: usize,
    },
    /// The prompt of an earlier example, with another answer.
    Contradiction {
        /// Its number.
        of: usize,
    },
    /// White space ends the prompt and begins the join, or ends the join and begins the answer, so that there are two.
    DoubleSpace,
    /// A token would span the join: prompt and answer are encoded apart, as the model would not see them in a text.
    Merge {
        /// The answer or alternative, with its join.
        answer: String,
    },
    /// Answer and alternative have different numbers of tokens, so that sums of losses favour the shorter.
    Lengths {
        /// Tokens of the answer.
        answer: usize,
        /// The alternative.
        alternative: String,
        /// Its tokens.
        tokens: usize,
    },
    /// The corrupted prompt has another number of tokens, so that positions don't correspond.
    Shifted {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the corrupted one.
        corrupted: usize,
    },
    /// It does not fit the model's context.
    TooLong {
        /// Tokens with BOS.
        tokens: usize,
        /// The context.
        context: usize,
    },
}

impl FindingKind {
    /// Its name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            FindingKind::Duplicate { .. } => "duplicate",
            FindingKind::Contradiction { .. } => "contradiction",
            FindingKind::DoubleSpace => "double-space",
            FindingKind::Merge { .. } => "merge",
            FindingKind::Lengths { .. } => "lengths",
            FindingKind::Shifted { .. } => "shifted",
            FindingKind::TooLong { .. } => "too-long",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FindingKind::Duplicate { of } => write!(f, "the same as example {of}"),
            FindingKind::Contradiction { of } => write!(f, "the prompt of example {of} with another answer"),
            FindingKind::DoubleSpace => {
                f.write_str("white space on both sides of a join: there are two where one is meant")
            }
            FindingKind::Merge { answer } => {
                write!(f, "a token spans the join before {answer:?}: they are encoded apart")
            }
            FindingKind::Lengths { answer, alternative, tokens } => {
                write!(f, "the answer has {}, alternative {alternative:?} has {tokens}", counted(*answer))
            }
            FindingKind::Shifted { prompt, corrupted } => {
                write!(f, "the prompt has {}, the corrupted one {corrupted}", counted(*prompt))
            }
            FindingKind::TooLong { tokens, context } => {
                write!(f, "{tokens} tokens with BOS do not fit the context of {context}")
            }
        }
    }
}

fn counted(tokens: usize) -> String {
    format!("{tokens} token{}", if tokens == 1 { "" } else { "s" })
}

/// What is odd about these tasks for a model with this tokenizer and context (in tokens), in the order of examples.
///
/// # Errors
/// A text that the tokenizer can't encode.
pub fn check(tasks: &[Task], tokenizer: &Tokenizer, context: usize) -> Result<Vec<Finding>, MeasureError> {
    let mut findings = Vec::new();
    for task in tasks {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (number, example) in task.examples.iter().enumerate() {
            let mut kinds = Vec::new();
            let of = *seen.entry(&example.prompt).or_insert(number);
            if of < number && task.question(of) == task.question(number) {
                kinds.push(FindingKind::Duplicate { of });
            } else if of < number {
                kinds.push(FindingKind::Contradiction { of });
            }
            if task.question(number).is_some_and(|question| question.doubles_space()) {
                kinds.push(FindingKind::DoubleSpace);
            }
            tokens(task, number, tokenizer, context, &mut kinds)?;
            let finding = |kind| Finding { task: task.name.clone(), example: number, kind };
            findings.extend(kinds.into_iter().map(finding));
        }
    }
    Ok(findings)
}

/// What shows only in tokens.
fn tokens(
    task: &Task,
    number: usize,
    tokenizer: &Tokenizer,
    context: usize,
    kinds: &mut Vec<FindingKind>,
) -> Result<(), MeasureError> {
    // Whichever token is BOS: here it only counts.
    const BOS: Option<u32> = Some(0);
    let mut answer_tokens = None;
    let mut longest = 0;
    for Question { prompt, answer } in task.question(number).into_iter().chain(task.alternatives(number)) {
        let encoded = Answered::encode(tokenizer, BOS, &prompt, &answer)?;
        longest = longest.max(encoded.ids.len());
        let (expected, tokens) = (*answer_tokens.get_or_insert(encoded.answer.len()), encoded.answer.len());
        if tokens != expected {
            kinds.push(FindingKind::Lengths { answer: expected, alternative: answer.clone(), tokens });
        }
        if !encoded.joint {
            kinds.push(FindingKind::Merge { answer });
        }
    }
    if longest > context {
        kinds.push(FindingKind::TooLong { tokens: longest, context });
    }
    if let Some(corrupted) = &task.examples[number].corrupted_prompt {
        let prompt = tokenizer.encode(&task.examples[number].prompt)?.len();
        let corrupted = tokenizer.encode(corrupted)?.len();
        if prompt != corrupted {
            kinds.push(FindingKind::Shifted { prompt, corrupted });
        }
    }
    Ok(())
}

#[cfg(all(test, feature = "mini"))]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::tasks::read_tasks;

    fn found(examples: &str) -> Vec<(usize, &'static str)> {
        let json = format!("[{{\"name\": \"t\", \"examples\": [{examples}]}}]");
        let tasks = read_tasks(json.as_bytes(), "t").unwrap();
        let findings = check(&tasks, Model::mini().unwrap().tokenizer().unwrap(), 256).unwrap();
        findings.iter().map(|finding| (finding.example, finding.kind.name())).collect()
    }

    #[test]
    fn what_is_odd_is_found_and_nothing_else() {
        let spain = r#"{"prompt": "The capital of Spain is", "answer": "Madrid", "alternatives": ["Rome"]}"#;
        assert_eq!(found(spain), []);
        assert_eq!(found(&format!("{spain}, {spain}")), [(1, "duplicate")]);
        let other = r#"{"prompt": "The capital of Spain is", "answer": "Rome"}"#;
        assert_eq!(found(&format!("{spain}, {other}")), [(1, "contradiction")]);
        assert_eq!(found(r#"{"prompt": "Spain is ", "answer": "Madrid"}"#), [(0, "double-space")]);
        assert_eq!(found(r#"{"prompt": "Spain is", "answer": " Madrid"}"#), [(0, "double-space")]);
        assert_eq!(found(r#"{"prompt": "Spain is ", "answer": "Madrid", "join": ""}"#), [(0, "merge")]);
        assert_eq!(
            found(r#"{"prompt": "p", "answer": "Madrid", "alternatives": ["Rome and Paris"]}"#),
            [(0, "lengths")]
        );
        assert_eq!(found(r#"{"prompt": "Spain", "answer": "x", "corrupted_prompt": "Spain is"}"#), [(0, "shifted")]);
        let long = "a b ".repeat(200);
        assert_eq!(found(&format!(r#"{{"prompt": "{}", "answer": "x"}}"#, long.trim())), [(0, "too-long")]);
    }

    #[test]
    fn findings_say_what_they_found() {
        let kind = FindingKind::Lengths { answer: 1, alternative: " a b".into(), tokens: 2 };
        assert_eq!(kind.to_string(), "the answer has 1 token, alternative \" a b\" has 2");
        assert_eq!(
            FindingKind::TooLong { tokens: 300, context: 256 }.to_string(),
            "300 tokens with BOS do not fit the context of 256"
        );
    }
}
