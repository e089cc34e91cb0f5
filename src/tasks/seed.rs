//! The four kinds of prompt of the study that this project began with: what is left of addition, JSON, distances and elections
//! when the last layers are gone?

use super::bundled::{self, BundledError};
use super::{Example, Task};

/// The first example of each kind is the seed study's own prompt, the others are those of the bundled task of its kind.
///
/// Its JSON ends in the middle of a list that may go on with anything; here the list goes on, so that there is a right answer.
///
/// # Errors
/// Where the bundled tasks do not have so many examples.
pub fn seed_tasks(examples: usize) -> Result<Vec<Task>, BundledError> {
    const JSON: &str = r#"[{"name": "James", "age": 34, "skills": ["Python", "git"]}, {"name": "Alan", "age": 28, "skills": ["MS Office", "Python", "git"#;
    let glued = Example { join: Some(String::new()), ..Example::new(JSON, r#""]}"#) };
    let kinds = [
        ("addition", "1-digit addition", Example::new("1 + 3 = 4 \n4 + 5 = 9\n2 + 3 =", "5")),
        ("JSON", "JSON to close", glued),
        ("distances", "distances", Example::new("The distance between Rome and Paris is approximately", "1100 km")),
        ("elections", "elections", Example::new("Obama was elected in the year", "2008")),
    ];
    kinds
        .into_iter()
        .map(|(name, of, first)| {
            let mut task = bundled::task(of, bundled::SEED, examples)?;
            task.name = name.to_owned();
            task.examples.retain(|example| example.prompt != first.prompt);
            task.examples.insert(0, first);
            Ok(task)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_prompt_of_each_kind_is_the_seed_s() {
        let tasks = seed_tasks(5).unwrap();
        let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!(names, ["addition", "JSON", "distances", "elections"]);
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/seed_gpt2_layer_orders.json")).unwrap();
        for task in &tasks {
            let prompt = &task.examples[0].prompt;
            let own =
                |row: &serde_json::Value| row["prompt"].as_str().is_some_and(|recorded| prompt.starts_with(recorded));
            assert_eq!(
                recorded["rows"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|row| row["kind"] == "keep_first" && own(row))
                    .count(),
                13,
                "{prompt}"
            );
            assert!(task.examples.len() >= 5);
        }
        assert_eq!(tasks[1].question(0).unwrap().answer, "\"]}");
        assert_eq!(tasks[3].question(0).unwrap().answer, " 2008");
        assert!(seed_tasks(0).is_err());
    }
}
