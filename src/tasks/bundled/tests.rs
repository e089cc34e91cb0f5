//! The suite as a whole: what every task must be, and that seeds keep their meaning.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::*;
use crate::tasks::{read_tasks, write_tasks};

#[test]
fn there_are_enough_tasks_of_enough_different_examples() {
    let tasks = tasks(SEED, EXAMPLES).unwrap();
    assert!(tasks.len() >= 20, "{}", tasks.len());
    for task in &tasks {
        assert_eq!(task.examples.len(), EXAMPLES, "{}", task.name);
        let prompts: HashSet<&str> = task.examples.iter().map(|example| example.prompt.as_str()).collect();
        assert_eq!(prompts.len(), EXAMPLES, "{}", task.name);
        assert!(!task.description.is_empty());
        assert!(task.majority() < 0.75, "{}: {}", task.name, task.majority());
    }
    assert_eq!(read_tasks(write_tasks(&tasks).as_bytes(), "suite").unwrap(), tasks);
}

#[test]
fn a_seed_keeps_its_meaning() {
    let hash = |seed| {
        let text = write_tasks(&tasks(seed, EXAMPLES).unwrap());
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(hash(SEED), "6cb25e8b23633aab42bf1c15dd8227d38c765ad010c4cfe592676a3cee700680");
    assert_eq!(hash(7), "84329cba21521605b41e2db0a05a1a5346bb8b865c14f651a11615a87634afff");
}

#[test]
fn fewer_examples_are_the_first_of_more() {
    for name in names() {
        let (few, many) = (task(name, 3, 5).unwrap(), task(name, 3, 20).unwrap());
        assert_eq!(few.examples, many.examples[..5], "{name}");
    }
}

#[test]
fn what_is_not_there_is_refused() {
    assert_eq!(task("sums", 0, 5).unwrap_err().to_string(), "no bundled task is called `sums`");
    assert_eq!(task("wars", 0, 0), Err(BundledError::None));
    let error = task("common phrases", 0, 60).unwrap_err();
    assert_eq!(error.to_string(), "task `common phrases` has 52 different examples, 60 were asked for");
}

/// Answers worked out again from the prompts, by rules of this test.
#[test]
fn sums_add_up_and_brackets_close() {
    for name in names()
        .filter(|name| ["addition", "subtraction", "multiplication", "division"].iter().any(|w| name.contains(w)))
    {
        for example in task(name, 5, EXAMPLES).unwrap().examples {
            let text = format!("{} {}", example.prompt, example.answer);
            for line in text.lines() {
                let words: Vec<&str> = line.split(' ').collect();
                let number = |at: usize| words[at].parse::<i64>().unwrap();
                let (a, b, c) = (number(0), number(2), number(4));
                let right = match words[1] {
                    "+" => a + b == c,
                    "-" => a - b == c && c >= 0,
                    "*" => a * b == c,
                    "/" => b * c == a,
                    other => panic!("{other}"),
                };
                assert!(right && words.len() == 5, "{line}");
            }
        }
    }
    for name in ["JSON to close", "JSON next key"] {
        let task = task(name, 5, EXAMPLES).unwrap();
        for question in (0..EXAMPLES).map(|i| task.question(i).unwrap()) {
            let end = if name == "JSON to close" { "" } else { " []}]" };
            let text = format!("{}{}{end}", question.prompt, question.answer);
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        }
    }
    for example in task("brackets", 5, EXAMPLES).unwrap().examples {
        let mut open = Vec::new();
        for bracket in example.prompt.split(' ') {
            match bracket {
                "(" => open.push(")"),
                "[" => open.push("]"),
                "{" => open.push("}"),
                closing => assert_eq!(open.pop(), Some(closing)),
            }
        }
        assert_eq!(open.pop(), Some(example.answer.as_str()));
        assert_eq!(example.alternatives.len(), 2);
    }
}

/// The other half of a pair asks for something that competes.
#[test]
fn pairs_and_alternatives_are_what_they_say() {
    for example in task("indirect object", 5, EXAMPLES).unwrap().examples {
        let corrupted = example.corrupted_prompt.unwrap();
        let last_name = |prompt: &str| {
            let name = prompt.split([' ', '.', ',']).rfind(|word| word.starts_with(char::is_uppercase));
            name.unwrap().to_owned()
        };
        assert_eq!(example.alternatives, [last_name(&example.prompt)]);
        assert_eq!(last_name(&corrupted), example.answer);
    }
    for example in task("greater-than years", 5, EXAMPLES).unwrap().examples {
        let year = |text: &str| text.parse::<u32>().unwrap();
        let words: Vec<&str> = example.prompt.split(' ').collect();
        let start = year(words[6]);
        assert!(year(&example.answer) > start && example.alternatives.iter().all(|wrong| year(wrong) < start));
    }
    for name in ["subject-verb agreement", "gendered pronouns", "possessive pronouns"] {
        for example in task(name, 5, EXAMPLES).unwrap().examples {
            assert!(example.corrupted_prompt.is_some() && example.alternatives.len() == 1, "{name}");
        }
    }
}

#[test]
fn every_task_has_its_scores() {
    let (tasks, scores) = (tasks(SEED, EXAMPLES).unwrap(), scores());
    assert_eq!(tasks.len(), scores.len());
    for (task, score) in tasks.iter().zip(scores) {
        let again = Score::new(task, score.intact.clone());
        assert_eq!(again, score, "measure again: lesion tasks measure --json > src/tasks/bundled/scores.jsonl");
        assert_eq!(score.choice_chance.is_some(), score.intact.choice_accuracy.is_some());
        assert!(score.intact.model == "mini" && score.intact.bos && score.intact.nll_per_token.0.is_finite());
    }
}

/// A part is measured again, by another way than the command's: one answer at a time.
#[cfg(feature = "mini")]
#[test]
fn scores_are_what_the_embedded_model_does() {
    use crate::forward::{Session, SessionOptions};
    use crate::measure::{Answered, answer_losses};
    use crate::model::Model;
    use crate::plan::Plan;

    let model = Model::mini().unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let mut session = Session::new(&model, SessionOptions::default()).unwrap();
    let plan = Plan::intact(model.config().n_layer);
    let mut sum = |question: &crate::tasks::Question| {
        let answered =
            Answered::encode(tokenizer, Some(model.bos().unwrap()), &question.prompt, &question.answer).unwrap();
        answer_losses(&mut session, &plan, &answered).unwrap()
    };
    for score in scores().iter().filter(|score| {
        ["1-digit addition", "indirect object", "brackets", "capital of a country"].contains(&score.task.as_str())
    }) {
        let task = task(&score.task, SEED, EXAMPLES).unwrap();
        let (mut nll, mut tokens, mut chosen) = (0.0, 0, 0);
        for i in 0..EXAMPLES {
            let losses = sum(&task.question(i).unwrap());
            let own: f64 = losses.iter().sum();
            (nll, tokens) = (nll + own, tokens + losses.len());
            chosen += usize::from(task.alternatives(i).iter().all(|wrong| own < sum(wrong).iter().sum()));
        }
        let found = nll / tokens as f64;
        assert!((found - score.intact.nll_per_token.0).abs() < 1e-4, "{}: {found}", score.task);
        if let Some(accuracy) = score.intact.choice_accuracy {
            assert!((chosen as f64 / EXAMPLES as f64 - accuracy).abs() < 0.021, "{}: {chosen}", score.task);
        }
    }
}
