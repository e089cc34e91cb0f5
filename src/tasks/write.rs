//! Task files, written: what [`read_tasks`](super::read_tasks) reads back equal.

use serde::Serialize;

use super::{Example, FORMAT_VERSION, JOIN, Task};

#[derive(Serialize)]
struct FileExample<'a> {
    prompt: &'a str,
    answer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    join: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    alternatives: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    corrupted_prompt: Option<&'a str>,
}

/// A task file with these tasks: an example a line.
pub fn write_tasks(tasks: &[Task]) -> String {
    let tasks: Vec<String> = tasks.iter().map(write_task).collect();
    format!("{{\"version\": {FORMAT_VERSION}, \"tasks\": [\n{}\n]}}\n", tasks.join(",\n"))
}

/// A task as it stands in a task file's list.
pub fn write_task(task: &Task) -> String {
    let mut fields = vec![format!("\"name\": {}", json(&task.name))];
    if !task.description.is_empty() {
        fields.push(format!("\"description\": {}", json(&task.description)));
    }
    if task.join != JOIN {
        fields.push(format!("\"join\": {}", json(&task.join)));
    }
    let examples: Vec<String> =
        task.examples.iter().map(|example| format!("    {}", json(&written(example)))).collect();
    fields.push(format!("\"examples\": [\n{}\n  ]", examples.join(",\n")));
    if !task.eval_questions.is_empty() {
        fields.push(format!("\"eval_questions\": {}", json(&task.eval_questions)));
    }
    format!("  {{{}}}", fields.join(", "))
}

fn written(example: &Example) -> FileExample<'_> {
    FileExample {
        prompt: &example.prompt,
        answer: &example.answer,
        join: example.join.as_deref(),
        alternatives: &example.alternatives,
        corrupted_prompt: example.corrupted_prompt.as_deref(),
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("texts are always JSON")
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::tasks::{read_any, read_tasks};

    prop_compose! {
        fn example()(
            prompt in ".*",
            wrong in btree_set("(?s).{1,6}", 0..4),
            answer in "(?s).{1,8}",
            join in option::of("(?s).{0,2}"),
            corrupted in option::of("(?s).{0,9}"),
        ) -> Example {
            let alternatives = wrong.into_iter().filter(|wrong| *wrong != answer).collect();
            let corrupted_prompt = corrupted.filter(|corrupted| *corrupted != prompt);
            Example { prompt, answer, join, alternatives, corrupted_prompt }
        }
    }

    prop_compose! {
        fn tasks()(
            names in btree_set("(?s).{1,9}", 1..4),
            rest in vec((".*", option::of("(?s).{0,3}"), vec(example(), 1..5), vec(".*", 0..3)), 4),
        ) -> Vec<Task> {
            names.into_iter().zip(rest).map(|(name, (description, join, examples, eval_questions))| {
                let join = join.unwrap_or_else(|| JOIN.to_owned());
                Task { name, description, join, examples, eval_questions }
            }).collect()
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_equal(tasks in tasks()) {
            let text = write_tasks(&tasks);
            prop_assert_eq!(&read_tasks(text.as_bytes(), "t").unwrap(), &tasks);
            prop_assert_eq!(&read_any(text.as_bytes(), "t", "lines").unwrap(), &tasks);
        }
    }

    #[test]
    fn what_needs_no_saying_is_not_said() {
        let task = Task {
            name: "t".into(),
            description: String::new(),
            join: JOIN.into(),
            examples: vec![Example::new("p", "a"), Example { join: Some(String::new()), ..Example::new("q", "b") }],
            eval_questions: Vec::new(),
        };
        let expected = "{\"version\": 1, \"tasks\": [\n  {\"name\": \"t\", \"examples\": [\n    {\"prompt\":\"p\",\"answer\":\"a\"},\n    {\"prompt\":\"q\",\"answer\":\"b\",\"join\":\"\"}\n  ]}\n]}\n";
        assert_eq!(write_tasks(&[task]), expected);
    }
}
