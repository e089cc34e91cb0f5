//! Threads, instruction sets, devices, `lesion doctor`, colour.

use lesion_kernels::Isa;

use crate::run::{ended, floats, golden, lesion, object, ok, refused, with_stdin};

const SPAIN: &str = "The capital of Spain is";

#[test]
fn threads_are_bounded_and_change_nothing() {
    for threads in ["0", "100000", "-1", "two"] {
        refused(2, &["loss", "--threads", threads, SPAIN], &["--threads", threads]);
    }
    let nll = |threads: &str| object(&["loss", "--json", "--plan", "0..3,3*3,4..12", "--threads", threads, SPAIN]);
    let (one, three) = (nll("1"), nll("3"));
    assert_eq!((&one["threads"], &three["threads"]), (&1.into(), &3.into()));
    assert_eq!(one["nll"], three["nll"], "bit for bit");
}

#[test]
fn every_instruction_set_here_says_the_same() {
    let said = ok(&["complete", "--plan", "0..8", SPAIN]);
    for isa in Isa::available() {
        assert_eq!(said, ok(&["complete", "--isa", isa.name(), "--plan", "0..8", SPAIN]), "{isa}");
        let run = lesion().env("LESION_ISA", isa.name()).args(["loss", "--json", SPAIN]).output().unwrap();
        let found: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(found["isa"], isa.name(), "the one asked for ran");
    }
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        refused(4, &["loss", "--isa", isa.name(), SPAIN], &[isa.name()]);
    }
    refused(2, &["loss", "--isa", "avx1024", SPAIN], &["avx1024", "portable"]);
    let run = ended(lesion().env("LESION_ISA", "fastest").args(["loss", SPAIN]).output().unwrap());
    assert_eq!(run.code, Some(2), "a setting that does not parse is no default: {}", run.stderr);
}

#[test]
fn the_precision_is_the_one_asked_for() {
    let row = &golden("capital")[0];
    let with = |precision: &str| object(&["loss", "--json", "--precision", precision, SPAIN]);
    let error = |found: &serde_json::Value| {
        let pairs = floats(&found["nll"]).into_iter().zip(floats(&row["nll"]));
        pairs.map(|(found, truth)| (found - truth).abs()).fold(0.0, f64::max)
    };
    let (f32, bf16, f64) = (with("f32"), with("bf16"), with("f64"));
    assert_eq!(
        (&f32["precision"], &bf16["precision"], &f64["precision"]),
        (&"f32".into(), &"bf16".into(), &"f64".into())
    );
    assert_eq!(f64["isa"], "portable");
    assert!(error(&f64) < 1e-12 && error(&f32) > 1e-10 && error(&f32) < 1e-4);
    assert!(error(&bf16) > 1e-4 && error(&bf16) < 0.1, "{}", error(&bf16));
    assert_eq!(object(&["loss", "--json", SPAIN])["nll"], f32["nll"], "f32 unless told");
    for precision in ["bf16", "f64"] {
        let said = object(&["complete", "--json", "--precision", precision, "-n", "6", SPAIN]);
        assert_eq!(
            (&said["completion"], &said["precision"]),
            (&" Madrid. The capital of Japan".into(), &precision.into())
        );
        let chat = with_stdin(&["chat", "-n", "6", "--precision", precision], SPAIN.as_bytes());
        assert_eq!(chat.stdout, " Madrid. The capital of Japan\n");
    }
    let bench = ["bench", "--json", "--repeats", "1", "--prompt-tokens", "8", "--decode", "2", "--precision"];
    assert_eq!(object(&[&bench[..], &["bf16"]].concat())["precision"], "bf16");
    refused(2, &[&bench[..], &["f64"]].concat(), &["precision f64: it has no kernels"]);
    refused(2, &["verify", "--only", "mini", "--precision", "bf16"], &["--precision bf16", "rounding of f32"]);
    refused(2, &["loss", "--precision", "f64", "--isa", Isa::best().name(), SPAIN], &["--isa", "plain Rust"]);
    refused(2, &["loss", "--precision", "f16", SPAIN], &["f16", "bf16"]);
}

#[test]
fn cuda_is_an_error_never_the_cpu() {
    for command in [&["complete", SPAIN][..], &["loss", SPAIN], &["chat"], &["verify", "--only", "mini"], &["doctor"]] {
        refused(4, &[command, &["--device", "cuda"]].concat(), &["cuda", "no CUDA kernels"]);
    }
}

#[test]
fn doctor_tells_what_is_here_and_what_is_off() {
    let found = object(&["doctor", "--json"]);
    assert_eq!(found["schema_version"], 1);
    assert_eq!(found["isa"], Isa::best().name());
    let isas: Vec<&str> = found["isas"].as_array().unwrap().iter().map(|isa| isa.as_str().unwrap()).collect();
    assert_eq!(isas, Isa::available().map(Isa::name).collect::<Vec<_>>());
    assert_eq!(found["cuda"]["available"], false);
    assert!(found["cache"]["path"].as_str().unwrap().ends_with("hub"));
    assert_eq!(object(&["doctor", "--json", "--isa", "portable", "--threads", "3"])["threads"], 3);
    let text = ok(&["doctor"]);
    for part in ["instruction sets", "threads", "model cache", "cuda", "off: "] {
        assert!(text.contains(part), "{text}");
    }
    let run = ended(lesion().env("HF_HUB_OFFLINE", "perhaps").arg("doctor").output().unwrap());
    assert!(run.stdout.contains("HF_HUB_OFFLINE"), "a broken setting is shown: {}", run.stdout);
}

#[test]
fn colour_only_where_it_is_wanted() {
    let args = ["complete", "-n", "1", "--plan", "0..8", "--plan", "none", SPAIN];
    let with = |name: &str| ended(lesion().env(name, "1").args(args).output().unwrap()).stdout;
    assert!(!ok(&args).contains('\x1b'), "none in a pipe");
    assert!(with("CLICOLOR_FORCE").contains('\x1b'));
    assert!(!with("NO_COLOR").contains('\x1b'));
    let json = lesion().env("CLICOLOR_FORCE", "1").args(["loss", "--json", SPAIN]).output().unwrap();
    assert!(!json.stdout.contains(&0x1b), "never in JSON");
}
