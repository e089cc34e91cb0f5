//! `lesion complete`.

use std::process::Stdio;

use serde_json::json;

use crate::run::{
    assert_refused, ended, fields, golden, ids, lesion, mini_in, object, objects, ok, plan_of, refused, run, with_stdin,
};

const SPAIN: &str = "The capital of Spain is";
const SPAIN_IDS: &str = "0,275,325,303,1216,292";

#[test]
fn every_recorded_order_speaks_as_recorded() {
    for row in golden("capital") {
        let plan = plan_of(&row);
        assert_eq!(
            ok(&["complete", "--plan", &plan, SPAIN]),
            format!("{}\n", row["greedy_text"].as_str().unwrap()),
            "{plan}"
        );
    }
}

#[test]
fn json_has_the_agreed_fields() {
    let spoken = object(&["complete", "--json", "--plan", "drop-last 4", "-n", "4", SPAIN]);
    assert_eq!(spoken["schema_version"], 1);
    assert_eq!(spoken["model"], "mini");
    assert_eq!(spoken["plan"], "0..8");
    assert_eq!(spoken["bos"], true);
    assert_eq!(spoken["prompt_ids"], json!([0, 275, 325, 303, 1216, 292]));
    assert_eq!(spoken["completion_ids"], json!([1017, 14, 305, 325]));
    assert_eq!(spoken["completion"], " Madrid. The capital");
    assert_eq!(spoken["finish"], "length");
    assert_eq!(spoken["prompt_nll"].as_array().unwrap().len(), 5);
    assert_eq!(
        fields(&spoken),
        [
            "bos",
            "completion",
            "completion_ids",
            "finish",
            "isa",
            "model",
            "nan_logits",
            "plan",
            "position",
            "precision",
            "prompt_ids",
            "prompt_mean_nll",
            "prompt_nll",
            "sampling",
            "schema_version",
            "threads"
        ]
    );
}

#[test]
fn one_plan_is_one_object_and_several_put_the_intact_model_first() {
    let plans = |args: &[&str]| -> Vec<String> {
        let args = [&["complete", "--json", "-n", "1", SPAIN], args].concat();
        objects(&args).iter().map(|spoken| spoken["plan"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(plans(&[]), ["0..12"]);
    assert_eq!(plans(&["--plan", "0..8"]), ["0..8"]);
    assert_eq!(plans(&["--plan", "0..8", "--plan", "none"]), ["0..12", "0..8", "none"]);
    assert_eq!(plans(&["--plan", "0..8", "--plan", "0..12"]), ["0..12", "0..8"], "the intact model once");
    assert_eq!(plans(&["--plan", "0..8", "--plan", "keep-first 8"]), ["0..12", "0..8"], "equal plans once");
}

#[test]
fn several_plans_are_blocks() {
    let text = ok(&["complete", "-n", "3", "--plan", "0..8", "--plan", "none", SPAIN]);
    assert_eq!(
        text,
        "0..12 (intact): 12 blocks; prompt 1.3243 nats per token\n Madrid. The\n\n\
         0..8: 8 blocks (12 intact); prompt 1.6997 nats per token\n Madrid. The\n\n\
         none: 0 blocks (12 intact); prompt 18.3906 nats per token\n is is is\n\n\
         uniform baseline ln V: 7.6246 nats per token\n"
    );
}

#[test]
fn the_cache_changes_nothing() {
    for plan in
        ["0..12", "0..3,3*4,4..12", "11..=0", "0..4,(4|5|6|7),8..12", "0..7,7[zero h3 h5],8..12", "none", "(2..6)*2"]
    {
        let args = ["complete", "-n", "24", "--plan", plan, SPAIN];
        let cached = ok(&args);
        assert_eq!(cached, ok(&[&args[..], &["--no-cache"]].concat()), "{plan}");
        let spoken = object(&[&args[..], &["--json"]].concat());
        assert_eq!(cached, format!("{}\n", spoken["completion"].as_str().unwrap()), "streamed and whole: {plan}");
    }
}

#[test]
fn ids_are_taken_verbatim() {
    let from_text = object(&["complete", "--json", SPAIN]);
    let from_ids = object(&["complete", "--json", "--ids", SPAIN_IDS]);
    assert_eq!(from_text["completion_ids"], from_ids["completion_ids"]);
    assert_eq!(from_ids["prompt_ids"], from_text["prompt_ids"]);
    assert_eq!((&from_text["bos"], &from_ids["bos"]), (&json!(true), &json!(false)));
    refused(2, &["complete", "--ids", "5,2048"], &["2048", "0..=2047"]);
    refused(2, &["complete", "--ids", "5,-1"], &["-1"]);
    refused(2, &["complete", "--ids", ""], &["--ids"]);
}

#[test]
fn without_a_tokenizer_ids_work_and_text_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    std::fs::remove_file(model.join("tokenizer.json")).unwrap();
    let model = model.to_str().unwrap();
    let spoken = object(&["complete", "--json", "--model", model, "-n", "2", "--ids", SPAIN_IDS]);
    assert_eq!(ids(&spoken["completion_ids"]), [1017, 14]);
    assert_eq!(ok(&["complete", "--model", model, "-n", "2", "--ids", SPAIN_IDS]), "1017,14\n");
    refused(3, &["complete", "--model", model, SPAIN], &["tokenizer.json"]);
}

#[test]
fn stdin_is_taken_byte_for_byte() {
    let said = with_stdin(&["complete", "-"], SPAIN.as_bytes());
    assert_eq!((said.code, said.stdout), (Some(0), ok(&["complete", SPAIN])));
    let with_line_break = with_stdin(&["complete", "--json", "-n", "1", "-"], format!("{SPAIN}\n").as_bytes());
    let spoken: serde_json::Value = serde_json::from_str(&with_line_break.stdout).unwrap();
    assert_eq!(spoken["prompt_ids"].as_array().unwrap().len(), 7);
    assert_refused(with_stdin(&["complete", "-"], b"The \xff"), 2, &["stdin", "UTF-8", "byte 4"]);
}

#[test]
fn an_empty_prompt_is_bos_alone_or_an_error() {
    let spoken = object(&["complete", "--json", "-n", "2", ""]);
    assert_eq!(spoken["prompt_ids"], json!([0]));
    assert_eq!((&spoken["prompt_nll"], &spoken["prompt_mean_nll"]), (&json!([]), &json!(null)));
    refused(2, &["complete", "--no-bos", ""], &["empty prompt", "--no-bos"]);
    refused(2, &["complete"], &["no prompt"]);
    let spoken = object(&["complete", "--json", "--no-bos", "-n", "1", SPAIN]);
    assert_eq!((&spoken["bos"], spoken["prompt_ids"].as_array().unwrap().len()), (&json!(false), 5));
}

#[test]
fn a_prompt_is_never_cut() {
    let tokens = |count: usize| vec!["5"; count].join(",");
    refused(2, &["complete", "--ids", &tokens(257)], &["257 tokens", "256"]);
    let spoken = object(&["complete", "--json", "-n", "9", "--ids", &tokens(255)]);
    assert_eq!(spoken["finish"], "context");
    // GPT-2's own context, at its own size.
    refused(2, &["complete", "--ids", &tokens(1025)], &["1025 tokens"]);
}

#[cfg(unix)]
#[test]
fn a_prompt_that_is_not_utf8_is_a_usage_error() {
    use std::os::unix::ffi::OsStrExt;
    let prompt = std::ffi::OsStr::from_bytes(b"The \xff");
    assert_refused(ended(lesion().arg("complete").arg(prompt).output().unwrap()), 2, &["UTF-8"]);
}

#[test]
fn sampling_follows_its_seed() {
    let say = |args: &[&str]| ok(&[&["complete", "--temperature", "1.5", "One day, Anna"], args].concat());
    assert_eq!(say(&["--seed", "7"]), say(&["--seed", "7"]));
    assert_ne!(say(&["--seed", "7"]), say(&["--seed", "8"]));
    assert_eq!(say(&["--seed", "7", "--top-k", "1"]), ok(&["complete", "One day, Anna"]), "the likeliest alone");
    assert_eq!(say(&["--seed", "7", "--top-p", "1e-9"]), ok(&["complete", "One day, Anna"]));
    assert_eq!(ok(&["complete", "--temperature", "1e-3", SPAIN]), ok(&["complete", SPAIN]));
    let stopped = object(&["complete", "--json", "--stop", " capital", SPAIN]);
    assert_eq!((&stopped["completion"], &stopped["finish"]), (&json!(" Madrid. The"), &json!("stop")));
    let ended = object(&["complete", "--json", "--stop-at-end-of-text", "-n", "40", SPAIN]);
    assert_eq!(ended["finish"], "end-of-text");
}

#[test]
fn settings_out_of_range_are_usage_errors() {
    for (args, parts) in [
        (&["--temperature", "-1"][..], &["temperature"][..]),
        (&["--temperature", "NaN"], &["temperature NaN"]),
        (&["--temperature", "1e400"], &["temperature inf"]),
        (&["--top-p", "0"], &["top-p 0"]),
        (&["--top-p", "1.5"], &["top-p 1.5"]),
        (&["--top-k", "0"], &["--top-k"]),
        (&["--stop", ""], &["stop"]),
        (&["-n", "0"], &["--max-tokens"]),
        (&["--max-tokens", "-3"], &["-3"]),
        (&["--nonsense"], &["--nonsense"]),
        (&["another"], &["another"]),
    ] {
        refused(2, &[&["complete", SPAIN], args].concat(), parts);
    }
}

#[test]
fn output_goes_to_a_file_that_is_not_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("said.txt");
    let file = path.to_str().unwrap();
    let said = ok(&["complete", SPAIN]);
    assert_eq!(ok(&["complete", "--output", file, SPAIN]), "");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), said);
    refused(2, &["complete", "--output", file, "--plan", "none", SPAIN], &["said.txt exists", "--force"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), said, "the old one is untouched");
    ok(&["complete", "--output", file, "--force", "--plan", "none", SPAIN]);
    assert!(std::fs::read_to_string(&path).unwrap().starts_with(" is is"));
    refused(2, &["complete", "--force", SPAIN], &["--output"]);
    let ended = run(&["complete", "--output", "no/such/folder/x", SPAIN]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
}

#[test]
fn the_summary_is_on_stderr_and_data_alone_on_stdout() {
    let ended = run(&["complete", "--plan", "0..8", SPAIN]);
    assert!(!ended.stdout.contains("uniform"));
    assert_eq!(
        ended.stderr,
        "0..8: 8 blocks (12 intact); prompt 1.6997 nats per token\nuniform baseline ln V: 7.6246 nats per token\n"
    );
}

#[test]
fn a_reader_that_leaves_ends_it_cleanly() {
    use std::io::Read;
    let mut child = lesion()
        .args(["complete", "-n", "200", "--no-cache", "--plan", "0..8", "--plan", "none", SPAIN])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 8]).unwrap();
    drop(stdout);
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("error") && !ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn ids_never_load_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    std::fs::write(model.join("tokenizer.json"), b"{ broken").unwrap();
    let model = model.to_str().unwrap();
    let spoken = object(&["complete", "--json", "--model", model, "-n", "2", "--ids", SPAIN_IDS]);
    assert_eq!((ids(&spoken["completion_ids"]), &spoken["completion"]), (vec![1017, 14], &json!(null)));
    assert_eq!(object(&["loss", "--json", "--model", model, "--ids", SPAIN_IDS])["nll"].as_array().unwrap().len(), 5);
    refused(3, &["complete", "--model", model, SPAIN], &["tokenizer.json"]);
    refused(2, &["complete", "--model", "no-such-model", "--ids", SPAIN_IDS, "--stop", "."], &["--stop", "--ids"]);
}

#[test]
fn a_request_is_refused_before_its_model_is_looked_for() {
    refused(2, &["complete", "--model", "gpt2", "--plan", "0..", SPAIN], &["plan, column"]);
    refused(2, &["loss", "--model", "gpt2", "--plan", "wobble", SPAIN], &["plan, column"]);
    refused(2, &["chat", "--model", "gpt2", "--plan", "wobble"], &["plan, column"]);
    refused(4, &["complete", "--model", "no-such-model", "--device", "cuda", SPAIN], &["cuda"]);
    refused(2, &["complete", "--model", "gpt2"], &["no prompt"]);
    let folder = tempfile::tempdir().unwrap();
    refused(2, &["complete", "--model", "gpt2", "-o", folder.path().to_str().unwrap(), SPAIN], &["is a directory"]);
}

#[cfg(target_os = "linux")]
#[test]
fn devices_are_written_in_place_and_links_followed() {
    ok(&["complete", "-n", "1", "--output", "/dev/null", "--force", SPAIN]);
    use std::os::unix::fs::FileTypeExt;
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    refused(4, &["complete", "-n", "1", "--output", "/dev/full", SPAIN], &["/dev/full"]);
    let folder = tempfile::tempdir().unwrap();
    let (link, target) = (folder.path().join("link"), folder.path().join("target"));
    std::os::unix::fs::symlink("target", &link).unwrap();
    ok(&["complete", "-n", "1", "--output", link.to_str().unwrap(), SPAIN]);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), " Madrid\n");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink(), "the link stays");
    refused(2, &["complete", "--output", link.to_str().unwrap(), SPAIN], &["exists"]);
    ok(&["complete", "-n", "2", "--force", "--output", link.to_str().unwrap(), SPAIN]);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), " Madrid.\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no partial file");
    // Nobody can be told anything: that is no reason to panic.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = ended(lesion().args(["complete", "-n", "1", SPAIN]).stderr(full).output().unwrap());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), " Madrid\n"));
}

#[test]
fn a_model_without_bos_and_eos_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    let path = model.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for field in ["bos_token_id", "eos_token_id"] {
        config.as_object_mut().unwrap().remove(field).unwrap();
    }
    std::fs::write(&path, config.to_string()).unwrap();
    let model = model.to_str().unwrap();
    let no_bos = ["no bos_token_id", "help: --no-bos"];
    refused(2, &["complete", "--model", model, "--bos", SPAIN], &no_bos);
    refused(2, &["complete", "--model", model, SPAIN], &no_bos);
    refused(2, &["loss", "--model", model, "--answer", " Madrid", SPAIN], &no_bos);
    refused(2, &["loss", "--model", model, "--measure", "seed-compat", "--answer", "Madrid", SPAIN], &no_bos);
    let bare = ["complete", "--no-bos", "-n", "40", SPAIN];
    assert_eq!(ok(&[&bare[..], &["--model", model, "--stop-at-end-of-text"]].concat()), ok(&bare));
}
