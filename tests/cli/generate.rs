//! `lesion tasks generate` with a scripted server.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chat_server::{Answer, ChatServer, reply};
use crate::run::{Ended, ended, lesion};

const KEY: &str = "sk-secret-456";

/// A folder with a file of one task.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let task = json!([{"name": "capitals", "description": "d", "examples": [
            {"prompt": "The capital of Spain is", "answer": "Madrid"}, {"prompt": "The capital of Italy is", "answer": "Rome"}]}]);
        fs::write(folder.path().join("like.json"), task.to_string()).unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, server: &ChatServer, more: &[&str]) -> Ended {
        let mut command = lesion();
        command
            .args(["tasks", "generate", "--like"])
            .arg(self.path("like.json"))
            .arg("--output")
            .arg(self.path("out.json"));
        command.args(["--base-url", &server.base_url, "--model-name", "scripted", "--retries", "2"]).args(more);
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command.env("OPENAI_API_KEY", KEY);
        let ended = ended(command.output().unwrap());
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        assert!(!format!("{}{}", ended.stdout, ended.stderr).contains(KEY));
        ended
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The prompts of a task of the output.
    fn prompts(&self, task: &str) -> Vec<String> {
        let file: Value = serde_json::from_str(&self.read("out.json")).unwrap();
        let task = file["tasks"].as_array().unwrap().iter().find(|found| found["name"] == task).unwrap().clone();
        task["examples"].as_array().unwrap().iter().map(|e| e["prompt"].as_str().unwrap().to_owned()).collect()
    }
}

fn capital(country: &str, city: &str) -> Value {
    json!({"prompt": format!("The capital of {country} is"), "answer": city})
}

fn examples(examples: &[Value]) -> Answer {
    Answer::content(json!({ "examples": examples }).to_string())
}

fn no_key_in(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        assert!(!fs::read_to_string(entry.unwrap().path()).unwrap().contains(KEY));
    }
}

#[test]
fn what_is_new_is_merged_whatever_shape_it_comes_in() {
    let place = Place::new();
    let server = ChatServer::start([
        // Fenced, with one that is there already, one that differs in case alone, and one broken.
        Answer::content(format!(
            "Sure!\n```json\n{}\n```",
            json!({"examples": [capital("Spain", "Madrid"), capital("france", "Paris"), capital("France", "Paris"), {"prompt": "x"}]})
        )),
        // Cut off: the whole ones count; its cost is not told.
        Answer::Body({
            let mut body = reply(
                r#"{"examples": [{"prompt": "The capital of Peru is ", "answer": " Lima"}, {"prompt": "The"#.into(),
            );
            body["choices"][0]["finish_reason"] = "length".into();
            body.as_object_mut().unwrap().remove("usage");
            body.to_string()
        }),
        examples(&[capital("Cuba", "Havana"), capital("Kenya", "Nairobi")]),
    ]);
    let ended = place.run(&server, &["--count", "3", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let prompts: Vec<String> = place.prompts("capitals");
    let countries: Vec<&str> = prompts.iter().map(|prompt| prompt.split(' ').nth(3).unwrap()).collect();
    assert_eq!(countries, ["Spain", "Italy", "france", "Peru", "Cuba"]);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(summary["tasks"], json!([{"task": "capitals", "examples": 5, "new": 3}]));
    assert_eq!((&summary["replies"], &summary["replies_without_usage"]), (&json!(3), &json!(1)));
    assert_eq!(summary["usage"], json!({"prompt_tokens": 20, "completion_tokens": 10}));
    for part in ["1 new, 2 there already, 1 refused", "1 beyond the count", "no usage", "1 without usage"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    let requests = server.requests();
    assert_eq!(requests[0].format(), Some("json_schema"));
    assert!(requests[2].said().contains("The capital of Peru is"), "what is there is told");
    assert!(requests[2].said().contains("Write 1 more"), "{}", requests[2].said());
    assert_eq!(place.read("out.json.journal").lines().count(), 3);
    no_key_in(place.folder.path());
}

#[test]
fn bad_replies_are_kept_told_and_given_up_on_and_nothing_is_paid_for_twice() {
    let place = Place::new();
    let bad = || Answer::content("I'd rather not.");
    let server = ChatServer::start([examples(&[capital("Peru", "Lima")]), bad(), Answer::content(""), bad()]);
    let ended = place.run(&server, &["--count", "2"]);
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("task `capitals` has 1 of 2 new examples; the last 3 replies brought nothing new"));
    assert!(ended.stderr.contains("the same command goes on from there"), "{}", ended.stderr);
    assert!(!place.path("out.json").exists());
    let requests = server.requests();
    assert!(requests[2].said().contains("I'd rather not.") && requests[2].said().contains("That can't be used"));
    assert!(requests[3].said().contains("it was empty"));
    assert_eq!(place.read("out.json.journal").lines().count(), 4);

    // It goes on: with what the journal has, and one reply more.
    let server = ChatServer::start([examples(&[capital("Cuba", "Havana")])]);
    let ended = place.run(&server, &["--count", "2"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("had 4 replies: 40 tokens sent and 20 received"), "{}", ended.stderr);
    assert_eq!((place.prompts("capitals").len(), server.left()), (4, 0));

    // All is there: nothing is asked. A line that was cut off is taken away; one that is broken is not passed over.
    let journal = place.path("out.json.journal");
    fs::write(&journal, place.read("out.json.journal") + "{\"schema_ver").unwrap();
    let server = ChatServer::start([]);
    let before = place.read("out.json");
    let ended = place.run(&server, &["--count", "2", "--force"]);
    assert_eq!((ended.code, server.requests().len()), (Some(0), 0), "{}", ended.stderr);
    assert_eq!((place.read("out.json"), place.read("out.json.journal").lines().count()), (before, 5));
    fs::write(&journal, format!("7\n{}", place.read("out.json.journal"))).unwrap();
    let ended = place.run(&server, &["--count", "2", "--force"]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("out.json.journal, line 1"), "{}", ended.stderr);
}

#[test]
fn servers_without_formats_and_with_passing_trouble_are_got_along_with() {
    let place = Place::new();
    let refusal = || Answer::Status(400, "", "{\"error\": {\"message\": \"no response_format\"}}".to_owned());
    let server = ChatServer::start([
        Answer::Status(429, "retry-after: 0\r\n", String::new()),
        refusal(),
        refusal(),
        Answer::Close,
        examples(&[capital("Peru", "Lima")]),
        Answer::Status(503, "retry-after: 0.01\r\n", "busy".to_owned()),
        Answer::content(
            json!({"name": "opposites", "description": "o", "examples": [{"prompt": "hot is not", "answer": "cold"}],
                   "eval_questions": ["Is it the opposite?"]})
            .to_string(),
        ),
    ]);
    let ended = place.run(&server, &["--count", "1", "--new-tasks", "1"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!((place.prompts("capitals").len(), place.prompts("opposites")), (3, vec!["hot is not".to_owned()]));
    assert!(place.read("out.json").contains("\"eval_questions\": [\"Is it the opposite?\"]"));
    let formats: Vec<Option<String>> = server.requests().iter().map(|r| r.format().map(str::to_owned)).collect();
    assert!(formats[4..].iter().all(Option::is_none), "{formats:?}");
    assert!(ended.stderr.contains("HTTP 503: busy; asked again"), "{}", ended.stderr);
}

#[test]
fn refusals_say_what_to_do() {
    let place = Place::new();
    let server =
        ChatServer::start([Answer::Status(401, "", format!("{{\"error\": {{\"message\": \"wrong {KEY}\"}}}}"))]);
    let refused = place.run(&server, &["--count", "1"]);
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("HTTP 401: wrong [key] (the key comes from $OPENAI_API_KEY)"),
        "{}",
        refused.stderr
    );
    let server = ChatServer::start([]);
    for (args, code, part) in [
        (&["--count", "0"][..], 2, "--count"),
        (&["--count", "1", "--base-url", "ftp://x"], 2, "base URL"),
        (&["--count", "1", "--base-url", "http://10.1.2.3/v1"], 2, "in the clear"),
        (&["--count", "1", "--like", "no-such-file.json"], 3, "no-such-file.json"),
    ] {
        let mut args = args.to_vec();
        let mut command = lesion();
        if !args.contains(&"--like") {
            args.extend(["--like", "antonyms"]);
        }
        if !args.contains(&"--base-url") {
            args.extend(["--base-url", &server.base_url]);
        }
        command.args(["tasks", "generate", "--model-name", "m", "--output"]).arg(place.path("other.json")).args(&args);
        let found = ended(command.env("OPENAI_API_KEY", KEY).output().unwrap());
        assert_eq!(found.code, Some(code), "{args:?}: {}", found.stderr);
        assert!(found.stderr.contains(part), "{args:?}: {}", found.stderr);
    }
    assert!(server.requests().is_empty() && !place.path("other.json").exists());
    fs::write(place.path("out.json"), "").unwrap();
    let ended = place.run(&server, &["--count", "1"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--force"), "{}", ended.stderr);
}
