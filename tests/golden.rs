//! Parity with Hugging Face transformers in f64: the embedded model and the full 124M shape, intact and corrupted, on
//! every instruction set.

#![cfg(feature = "mini")]

use lesion::forward::{Batch, Precision, Sampling, Session, SessionOptions, Target, complete};
use lesion::measure::{Answered, answer_losses, token_losses};
use lesion::model::{Model, OpenOptions};
use lesion::plan::Plan;
use lesion_kernels::{Dtype, Isa};
use serde::Deserialize;
use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::path::Path;

mod reference_model;

#[derive(Deserialize)]
struct Golden {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    prompt: String,
    text: Option<String>,
    ids: Vec<u32>,
    plan_name: String,
    plan: Vec<usize>,
    nll: Vec<f64>,
    last_entropy: f64,
    last_top5: Vec<u32>,
    last_top5_logprob: Vec<f64>,
    residual_norms: Vec<f64>,
    answer: Option<String>,
    greedy_ids: Option<Vec<u32>>,
    hf_f32_nll_max_abs_error: Option<f64>,
    answer_ids: Option<Vec<u32>>,
    answer_nll: Option<Vec<f64>>,
}

fn sessions(model: &Model) -> impl Iterator<Item = Session> {
    Isa::available()
        .map(|isa| Session::new(model, SessionOptions { isa, threads: 2, ..SessionOptions::default() }).unwrap())
}

fn load(text: &str) -> Vec<Row> {
    serde_json::from_str::<Golden>(text).unwrap().rows
}

fn mini_rows() -> Vec<Row> {
    load(include_str!("data/golden_mini.json"))
}

fn synthetic_rows() -> Vec<Row> {
    load(include_str!("data/golden_synthetic.json"))
}

fn plan_of(row: &Row) -> Plan {
    Plan::from_layers(row.plan.iter().copied()).unwrap()
}

/// Collects what is out of bounds, so that one run shows all of it.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn close(&mut self, what: &str, ours: f64, theirs: f64, bound: f64) {
        // A NaN on either side is a failure.
        if (ours - theirs).abs().partial_cmp(&bound).is_none_or(Ordering::is_gt) {
            self.0.push(format!("{what}: {ours} against {theirs}, allowed {bound:e}"));
        }
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, ours: &T, theirs: &T) {
        if ours != theirs {
            self.0.push(format!("{what}: {ours:?} against {theirs:?}"));
        }
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{} failures:\n{}", self.0.len(), self.0.join("\n"));
        }
    }
}

/// Losses against f64: single tokens within 1e-3, means within 1e-5; `check_tail` wants 99.9 % of the tokens within 1e-4.
fn compare_losses(failures: &mut Failures, errors: &mut Vec<f64>, at: &str, ours: &[f64], theirs: &[f64]) {
    failures.equal(&format!("{at}: losses"), &ours.len(), &theirs.len());
    for (i, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        failures.close(&format!("{at}: nll[{i}]"), *ours, *theirs, 1e-3);
        errors.push((ours - theirs).abs());
    }
    if !theirs.is_empty() {
        let mean = |nll: &[f64]| nll.iter().sum::<f64>() / nll.len() as f64;
        let theirs = mean(theirs);
        failures.close(&format!("{at}: mean nll"), mean(ours), theirs, 1e-5);
    }
}

fn check_tail(failures: &mut Failures, mut errors: Vec<f64>) {
    errors.sort_by(f64::total_cmp);
    failures.close("99.9th percentile of |Δ nll|", errors[errors.len() * 999 / 1000], 0.0, 1e-4);
}

#[test]
fn mini_losses() {
    let model = Model::mini().unwrap();
    let mut failures = Failures::default();
    for mut session in sessions(&model) {
        let mut errors = Vec::new();
        for row in mini_rows() {
            let at = format!("{} {} {}", session.isa(), row.prompt, row.plan_name);
            let nll = token_losses(&mut session, &plan_of(&row), &[&row.ids]).unwrap().concat();
            compare_losses(&mut failures, &mut errors, &at, &nll, &row.nll);
        }
        check_tail(&mut failures, errors);
    }
}

#[test]
fn mini_residual_streams_and_last_distributions() {
    let model = Model::mini().unwrap();
    let mut failures = Failures::default();
    for mut session in sessions(&model) {
        for row in mini_rows() {
            compare_streams(&mut failures, &mut session, &row);
        }
    }
}

fn compare_streams(failures: &mut Failures, session: &mut Session, row: &Row) {
    let at = format!("{} {} {}", session.isa(), row.prompt, row.plan_name);
    let (plan, batch, width) = (plan_of(row), Batch::new([&row.ids[..]]), session.model().config().n_embd);
    let mut norms = Vec::new();
    let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    session
        .residuals(&plan, &batch, |residual| {
            assert_eq!(residual.steps, norms.len());
            norms.push(norm(&residual.hidden[residual.hidden.len() - width..]));
        })
        .unwrap();
    failures.equal(&format!("{at}: residual streams"), &norms.len(), &row.residual_norms.len());
    for (k, (ours, theirs)) in norms.iter().zip(&row.residual_norms).enumerate() {
        failures.close(&format!("{at}: |h| after {k} steps"), *ours, *theirs, 1e-5 * theirs);
    }
    let last = row.ids.len() - 1;
    let targets: Vec<_> = row.last_top5.iter().map(|&id| Target { row: last, id }).collect();
    for (k, (score, theirs)) in
        session.score(&plan, &batch, &targets).unwrap().iter().zip(&row.last_top5_logprob).enumerate()
    {
        failures.close(&format!("{at}: top {k}"), -score.nll(), *theirs, 1e-4);
        failures.close(&format!("{at}: entropy"), score.entropy, row.last_entropy, 1e-4);
        let runner_up = if k == 0 { row.last_top5_logprob[0] - row.last_top5_logprob[1] } else { 0.0 };
        if runner_up >= 2e-3 {
            failures.equal(&format!("{at}: rank of the most likely"), &score.rank, &0);
        }
    }
}

#[test]
fn mini_answers() {
    let model = Model::mini().unwrap();
    let mut failures = Failures::default();
    for mut session in sessions(&model) {
        for row in mini_rows() {
            let (Some(text), Some(answer), Some(theirs)) = (&row.text, &row.answer, &row.answer_nll) else { continue };
            let at = format!("{} {} {}", session.isa(), row.prompt, row.plan_name);
            let bos = model.config().bos_token_id;
            let answered = Answered::encode(model.tokenizer().unwrap(), bos, text, answer).unwrap();
            failures.equal(&at, &answered.ids[..answered.answer.start].to_vec(), &row.ids);
            failures.equal(&at, &Some(answered.ids[answered.answer.clone()].to_vec()), &row.answer_ids);
            let nll = answer_losses(&mut session, &plan_of(&row), &answered).unwrap();
            failures.equal(&at, &nll.len(), &theirs.len());
            for (ours, theirs) in nll.iter().zip(theirs) {
                failures.close(&format!("{at}: answer"), *ours, *theirs, 1e-4);
            }
        }
    }
}

/// With the cache and without, on every instruction set. Where two tokens are within 2e-3 either is right, and what
/// follows is not compared.
#[test]
fn mini_greedy_completions() {
    let model = Model::mini().unwrap();
    let mut failures = Failures::default();
    for (mut session, cache) in sessions(&model).map(|s| (s, true)).chain(sessions(&model).map(|s| (s, false))) {
        for row in mini_rows() {
            let Some(theirs) = &row.greedy_ids else { continue };
            // Recomputing long prompts for every token takes minutes and shows nothing that short ones don't.
            if !cache && row.ids.len() > 64 {
                continue;
            }
            let plan = plan_of(&row);
            let sampling = Sampling { cache, ..Sampling::greedy(theirs.len()) };
            let ours = complete(&mut session, &plan, &row.ids, &sampling, None, &mut |_, _| ControlFlow::Continue(()))
                .unwrap();
            let Some(i) = ours.ids.iter().zip(theirs).position(|(a, b)| a != b) else {
                failures.equal(&row.prompt, &ours.ids.len(), &theirs.len());
                continue;
            };
            let ids = [&row.ids, &theirs[..i]].concat();
            let logits = session.logits(&plan, &ids).unwrap();
            let margin = f64::from(logits[ours.ids[i] as usize]) - f64::from(logits[theirs[i] as usize]);
            let at = format!("{} {} {}, cache {cache}: token {i}", session.isa(), row.prompt, row.plan_name);
            failures.close(&at, margin, 0.0, 2e-3);
        }
    }
}

#[test]
fn reference_model_agrees_with_hugging_face() {
    let model = Model::mini().unwrap();
    let mut failures = Failures::default();
    for row in mini_rows().iter().filter(|row| row.ids.len() < 64) {
        let nll = reference_model::token_losses(&model, &row.plan, &row.ids);
        for (ours, theirs) in nll.iter().zip(&row.nll) {
            failures.close(&format!("{} {}", row.prompt, row.plan_name), *ours, *theirs, 1e-10);
        }
    }
}

/// The mini model re-written as f32, f16 (its own type) and bf16, without the prefix of its names, against the f64 model on the same file.
#[test]
fn every_element_type_agrees_with_f64_on_the_same_file() {
    let (mut failures, mut errors) = (Failures::default(), Vec::new());
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let directory = tempfile::tempdir().unwrap();
        rewrite_mini(directory.path(), dtype);
        let model = Model::open_dir(directory.path(), &OpenOptions::default()).unwrap();
        assert_eq!(model.parameters().wte.dtype(), dtype);
        for row in mini_rows().iter().filter(|row| row.ids.len() > 1 && row.ids.len() < 20) {
            let theirs = reference_model::token_losses(&model, &row.plan, &row.ids);
            for mut session in sessions(&model) {
                let at = format!("{} {} {} {}", dtype.name(), session.isa(), row.prompt, row.plan_name);
                let nll = token_losses(&mut session, &plan_of(row), &[&row.ids]).unwrap().concat();
                compare_losses(&mut failures, &mut errors, &at, &nll, &theirs);
            }
        }
    }
    check_tail(&mut failures, errors);
}

/// The full 124M shape, weights rebuilt from the formula, against Hugging Face's f64 on the f32 file.
#[test]
fn full_shape_losses() {
    let model = synthetic(Dtype::F32);
    let mut failures = Failures::default();
    for mut session in sessions(&model) {
        let mut errors = Vec::new();
        let (mut own, mut theirs) = (0.0, 0.0);
        // Without SIMD the full shape is slow: the short prompts say enough.
        let longest = if session.isa() == Isa::Portable { 64 } else { 1024 };
        for row in synthetic_rows().iter().filter(|row| row.ids.len() <= longest) {
            let at = format!("{} {} {}", session.isa(), row.prompt, row.plan_name);
            let nll = token_losses(&mut session, &plan_of(row), &[&row.ids]).unwrap().concat();
            compare_losses(&mut failures, &mut errors, &at, &nll, &row.nll);
            compare_streams(&mut failures, &mut session, row);
            let worst = nll.iter().zip(&row.nll).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            own += worst.powi(2);
            theirs += row.hf_f32_nll_max_abs_error.unwrap().powi(2);
        }
        // The rounding error may be twice that of Hugging Face's own f32, root mean square over the rows.
        println!("{}: {:.2} times", session.isa(), (own / theirs).sqrt());
        failures.close(&format!("{}: rounding error", session.isa()), own.sqrt(), 0.0, 2.0 * theirs.sqrt());
        check_tail(&mut failures, errors);
    }
    let options = SessionOptions { threads: 2, precision: Precision::F64, ..SessionOptions::default() };
    let mut exact = Session::new(&model, options).unwrap();
    for row in synthetic_rows().iter().filter(|row| row.ids.len() <= 64) {
        let nll = token_losses(&mut exact, &plan_of(row), &[&row.ids]).unwrap().concat();
        failures.equal("f64: losses", &nll.len(), &row.nll.len());
        for (ours, theirs) in nll.iter().zip(&row.nll) {
            failures.close(&format!("f64 {} {}", row.prompt, row.plan_name), *ours, *theirs, 1e-10);
        }
    }
}

/// The same shape from 16-bit files, against the f64 model on the same file.
#[test]
fn full_shape_from_16_bit_files() {
    let mut failures = Failures::default();
    for dtype in [Dtype::F16, Dtype::Bf16] {
        let mut errors = Vec::new();
        let model = synthetic(dtype);
        for row in synthetic_rows().iter().filter(|row| row.prompt == "rome" && row.plan_name != "repeat_3_x3") {
            let theirs = reference_model::token_losses(&model, &row.plan, &row.ids);
            for mut session in sessions(&model) {
                let at = format!("{} {} {}", dtype.name(), session.isa(), row.plan_name);
                let nll = token_losses(&mut session, &plan_of(row), &[&row.ids]).unwrap().concat();
                compare_losses(&mut failures, &mut errors, &at, &nll, &theirs);
            }
        }
        check_tail(&mut failures, errors);
    }
}

/// A model of GPT-2 small's shape; its files are gone from the directory tree, but mapped.
fn synthetic(dtype: Dtype) -> Model {
    let directory = tempfile::tempdir().unwrap();
    lesion::model::synthetic::write_model(directory.path(), 12, dtype).unwrap();
    Model::open_dir(directory.path(), &OpenOptions::default()).unwrap()
}

/// Writes the mini model as a checkpoint of `dtype`, its tensors named as OpenAI's files have them.
fn rewrite_mini(directory: &Path, dtype: Dtype) {
    let mini = Model::mini().unwrap();
    let source = safetensors::SafeTensors::deserialize(include_bytes!("../models/mini/model.safetensors")).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = source
        .iter()
        .map(|(name, view)| {
            let tensor = mini.checkpoint().tensor(name, view.shape()).unwrap();
            let mut values = vec![0.0; view.shape().iter().product()];
            tensor.data().widen_into(0, &mut values);
            let bytes = values.iter().flat_map(|&x| match dtype {
                Dtype::F32 => x.to_le_bytes().to_vec(),
                Dtype::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
                Dtype::Bf16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
            });
            (name.trim_start_matches("transformer.").to_owned(), view.shape().to_vec(), bytes.collect())
        })
        .collect();
    let kind = match dtype {
        Dtype::F32 => safetensors::Dtype::F32,
        Dtype::F16 => safetensors::Dtype::F16,
        Dtype::Bf16 => safetensors::Dtype::BF16,
    };
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, safetensors::tensor::TensorView::new(kind, shape.clone(), bytes).unwrap()));
    std::fs::write(directory.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    std::fs::write(directory.join("config.json"), include_bytes!("../models/mini/config.json")).unwrap();
}
