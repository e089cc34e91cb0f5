//! Tasks that grow: what a draft brings is merged by name, checked, and kept where it is new.
//!
//! Two examples of a task are the same if their prompts are the same words: letters and digits in lower case, every other
//! sign a word of its own, but for white space, `. , ; : ! ? ' "` and the articles a, an and the, which do not count. They
//! are nearly the same if their answers are, and at least 9 of 10 of the different words of the two prompts, which have 10 or
//! more of them, are in both (their Jaccard index).

use std::collections::BTreeSet;

use super::super::read::fault;
use super::super::{Example, JOIN, Task};
use super::Draft;

/// Different words from which on prompts can be nearly the same.
const LONG: usize = 10;

/// Tasks, and how many examples each had at first.
#[derive(Clone, Debug)]
pub struct Pool {
    tasks: Vec<Task>,
    /// By task; none for those that came with a draft.
    first: Vec<Option<usize>>,
}

/// What became of a draft.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// The task that it went to.
    pub task: Option<String>,
    /// Examples that are new.
    pub new: usize,
    /// Examples that were there.
    pub same: usize,
    /// Examples that were nearly there.
    pub near: usize,
    /// Examples beyond the number that was wanted.
    pub beyond: usize,
    /// What can't be used: why not.
    pub refused: Vec<String>,
}

impl Pool {
    /// Begins with these tasks.
    pub fn new(tasks: Vec<Task>) -> Pool {
        let first = tasks.iter().map(|task| Some(task.examples.len())).collect();
        Pool { tasks, first }
    }

    /// The tasks as they are now.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// How many tasks came with drafts.
    pub fn new_tasks(&self) -> usize {
        self.first.iter().filter(|first| first.is_none()).count()
    }

    /// How many examples of a task came with drafts.
    pub fn new_examples(&self, task: usize) -> usize {
        self.tasks[task].examples.len() - self.first[task].unwrap_or(0)
    }

    /// Takes what is new in a draft, up to `wanted` new examples of its task. `task` is the task that was asked about;
    /// without one the draft names its own, which is merged with the task of that name if there is one.
    pub fn add(&mut self, draft: Draft, task: Option<&str>, wanted: usize) -> Added {
        let mut added = Added { refused: draft.refused, ..Added::default() };
        let Some(name) = task.map(str::to_owned).or(draft.name) else {
            added.refused.push("the task has no name".to_owned());
            return added;
        };
        let known = self.tasks.iter().position(|task| task.name == name);
        let mut task = match known {
            Some(known) => self.tasks[known].clone(),
            None => Task {
                name: name.clone(),
                description: draft.description.unwrap_or_default(),
                join: JOIN.to_owned(),
                examples: Vec::new(),
                eval_questions: draft.eval_questions,
            },
        };
        let first = known.map_or(Some(0), |known| self.first[known]).unwrap_or(0);
        for example in draft.examples {
            let example = trimmed(example, &task.join);
            if example.prompt.trim().is_empty() {
                added.refused.push("an example has no prompt".to_owned());
            } else if let Some((field, problem)) = fault(&name, task.examples.len(), &example) {
                added.refused.push(format!("{field}: {problem}"));
            } else {
                match likeness(&task.examples, &example) {
                    Likeness::Same => added.same += 1,
                    Likeness::Near => added.near += 1,
                    Likeness::None if task.examples.len() - first >= wanted => added.beyond += 1,
                    Likeness::None => {
                        task.examples.push(example);
                        added.new += 1;
                    }
                }
            }
        }
        match known {
            Some(known) => self.tasks[known] = task,
            None if task.examples.is_empty() => return added,
            None => {
                self.tasks.push(task);
                self.first.push(None);
            }
        }
        added.task = Some(name);
        added
    }
}

/// Without the white space that a join of white space stands for.
fn trimmed(example: Example, join: &str) -> Example {
    if !join.starts_with(char::is_whitespace) {
        return example;
    }
    let trim = |text: String| text.trim().to_owned();
    Example {
        prompt: example.prompt.trim_end().to_owned(),
        answer: trim(example.answer),
        alternatives: example.alternatives.into_iter().map(trim).collect(),
        ..example
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Likeness {
    Same,
    Near,
    None,
}

fn likeness(there: &[Example], example: &Example) -> Likeness {
    let (prompt, answer) = (words(&example.prompt), words(&example.answer));
    let mut found = Likeness::None;
    for other in there {
        let other_prompt = words(&other.prompt);
        if other_prompt == prompt {
            return Likeness::Same;
        }
        if words(&other.answer) == answer && nearly_equal(&prompt, &other_prompt) {
            found = Likeness::Near;
        }
    }
    found
}

fn nearly_equal(a: &[String], b: &[String]) -> bool {
    let [a, b]: [BTreeSet<&String>; 2] = [a.iter().collect(), b.iter().collect()];
    let (common, all) = (a.intersection(&b).count(), a.union(&b).count());
    a.len().min(b.len()) >= LONG && common * 10 >= all * 9
}

/// The words of a text, as the module's page says.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut within = false;
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            if !within {
                words.push(String::new());
            }
            words.last_mut().expect("it was just pushed").push(c);
        } else if !c.is_whitespace() && !".,;:!?'\"".contains(c) {
            words.push(c.to_string());
        }
        within = c.is_alphanumeric();
    }
    words.retain(|word| !["a", "an", "the"].contains(&word.as_str()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(examples: &[(&str, &str)]) -> Draft {
        Draft {
            examples: examples.iter().map(|(prompt, answer)| Example::new(*prompt, *answer)).collect(),
            ..Draft::default()
        }
    }

    fn pool(examples: &[(&str, &str)]) -> Pool {
        let Draft { examples, .. } = draft(examples);
        let (description, join) = (String::new(), JOIN.to_owned());
        Pool::new(vec![Task { name: "t".into(), description, join, examples, eval_questions: Vec::new() }])
    }

    fn counts(added: &Added) -> [usize; 5] {
        [added.new, added.same, added.near, added.beyond, added.refused.len()]
    }

    #[test]
    fn only_what_is_new_is_taken() {
        let mut pool = pool(&[("The capital of Spain is", "Madrid"), ("2 + 3 =", "5")]);
        let drafted = draft(&[
            ("the capital of  Spain is:", "Madrid"),
            ("Capital of Spain is", "Rome"),
            ("The capital of Italy is ", " Rome"),
            ("2 - 3 =", "-1"),
            ("3 + 2 =", "5"),
            ("p", ""),
            (" ", "x"),
        ]);
        let added = pool.add(drafted, Some("t"), 10);
        assert_eq!(counts(&added), [3, 2, 0, 0, 2], "{added:?}");
        assert_eq!(pool.tasks()[0].examples[2], Example::new("The capital of Italy is", "Rome"));
        assert_eq!(pool.new_examples(0), 3);
    }

    #[test]
    fn long_prompts_are_near_where_a_word_in_ten_differs() {
        let long = "When Mary and John went to the big store on Monday morning, John gave a cold drink to";
        let mut pool = pool(&[(long, "Mary")]);
        let one_word_less = long.replace("cold ", "");
        let another_answer = long.replace("John gave", "Mary gave");
        let added = pool.add(draft(&[(&one_word_less, "Mary"), (&another_answer, "John")]), Some("t"), 10);
        assert_eq!(counts(&added), [1, 0, 1, 0, 0]);
        let short =
            pool.add(draft(&[("The keys near the dog", "are"), ("The keys near the cat", "are")]), Some("t"), 10);
        assert_eq!(counts(&short), [2, 0, 0, 0, 0], "short prompts of one pattern differ in what is asked");
    }

    #[test]
    fn tasks_are_merged_by_name_and_no_more_is_taken_than_wanted() {
        let mut pool = pool(&[("p", "a")]);
        let named = |name: &str, examples: &[(&str, &str)]| Draft { name: Some(name.into()), ..draft(examples) };
        assert_eq!(counts(&pool.add(named("t", &[("q", "b"), ("r", "c"), ("s", "d")]), None, 2)), [2, 0, 0, 1, 0]);
        assert_eq!(counts(&pool.add(named("u", &[("q", "b")]), None, 2)), [1, 0, 0, 0, 0]);
        assert_eq!((pool.tasks().len(), pool.new_tasks(), pool.new_examples(0), pool.new_examples(1)), (2, 1, 2, 1));
        assert_eq!(counts(&pool.add(named("u", &[("q!", "b"), ("v", "w"), ("x", "y")]), None, 2)), [1, 1, 0, 1, 0]);
        assert_eq!(pool.add(draft(&[("q", "b")]), None, 2).refused, ["the task has no name"]);
        assert_eq!(pool.add(named("empty", &[]), None, 2).task, None);
        assert_eq!(pool.tasks().len(), 2);
    }

    #[test]
    fn white_space_stays_where_nothing_joins() {
        let mut pool = pool(&[("p", "a")]);
        pool.tasks[0].join = String::new();
        pool.add(draft(&[("{\"a\": ", " 1}")]), Some("t"), 10);
        assert_eq!(pool.tasks()[0].examples[1], Example::new("{\"a\": ", " 1}"));
    }
}
