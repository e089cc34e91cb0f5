//! The precisions beside f32: f64 against Hugging Face's f64, f32 and bf16 against f64.

#![cfg(feature = "mini")]

use lesion::forward::{Batch, Precision, Session, SessionOptions, Target};
use lesion::measure::token_losses;
use lesion::model::{Model, OpenOptions};
use lesion::plan::Plan;
use lesion_kernels::Isa;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Golden {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    prompt: String,
    ids: Vec<u32>,
    plan: Vec<usize>,
    nll: Vec<f64>,
    last_entropy: f64,
    last_top5: Vec<u32>,
    last_top5_logprob: Vec<f64>,
    residual_norms: Vec<f64>,
}

fn rows() -> Vec<Row> {
    serde_json::from_str::<Golden>(include_str!("data/golden_mini.json")).unwrap().rows
}

/// Each input once.
fn inputs() -> Vec<Vec<u32>> {
    rows().into_iter().map(|row| (row.prompt, row.ids)).collect::<BTreeMap<_, _>>().into_values().collect()
}

fn session(model: &Model, isa: Isa, precision: Precision) -> Session {
    Session::new(model, SessionOptions { isa, precision, threads: 2 }).unwrap()
}

fn exact(model: &Model) -> Session {
    session(model, Isa::Portable, Precision::F64)
}

/// The intact model, layers dropped, repeated and re-ordered, and all else that a plan can say.
const PLANS: [&str; 8] = [
    "0..12",
    "0..8",
    "0..5,6..12",
    "0..3,3*4,4..12",
    "swap 3 7",
    "0..4,(4|5|6,6|none),8..12",
    "0..4,((4|5),6|7a),8..12",
    "0..6,6a,7m,7[zero h1 h7],8..12",
];

/// The largest difference; NaN where one is NaN or the lengths differ.
fn distance<'a>(a: impl IntoIterator<Item = &'a f64>, b: impl IntoIterator<Item = &'a f64>) -> f64 {
    let (a, b): (Vec<_>, Vec<_>) = (a.into_iter().collect(), b.into_iter().collect());
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (*a - b).abs()).fold(0.0, |m: f64, d| if d > m || d.is_nan() { d } else { m })
}

#[test]
fn threads_of_f64_are_bounded_as_those_of_kernels() {
    let model = Model::mini().unwrap();
    for threads in [0, 1025] {
        let refused = |precision| {
            let options = SessionOptions { threads, precision, ..SessionOptions::default() };
            Session::new(&model, options).err().unwrap().to_string()
        };
        assert_eq!(refused(Precision::F64), format!("{threads} threads: from 1 to 1024 are possible"));
        assert_eq!(refused(Precision::F64), refused(Precision::F32));
    }
}

/// Every golden value: two f64 implementations differ by the order of their sums.
#[test]
fn f64_is_hugging_face_s_f64() {
    let model = Model::mini().unwrap();
    let mut session = exact(&model);
    let (mut worst, mut worst_norm) = (0.0_f64, 0.0_f64);
    for row in rows() {
        let plan = Plan::from_layers(row.plan.iter().copied()).unwrap();
        let nll = token_losses(&mut session, &plan, &[&row.ids]).unwrap().concat();
        let batch = Batch::new([&row.ids[..]]);
        let last = row.ids.len() - 1;
        let targets: Vec<_> = row.last_top5.iter().map(|&id| Target { row: last, id }).collect();
        let scores = session.score(&plan, &batch, &targets).unwrap();
        let log_probabilities: Vec<f64> = scores.iter().map(|score| -score.nll()).collect();
        let error = distance(&nll, &row.nll)
            .max(distance(&log_probabilities, &row.last_top5_logprob))
            .max(distance([&scores[0].entropy], [&row.last_entropy]));
        assert!(error <= 1e-10, "{} {:?}: {error:e}", row.prompt, row.plan);
        worst = worst.max(error);
        assert_eq!(scores.iter().map(|score| score.rank).collect::<Vec<_>>(), [0, 1, 2, 3, 4], "{}", row.prompt);
        let mut norms = Vec::new();
        let last_state = |hidden: &[f32]| hidden[last * model.config().n_embd..].to_vec();
        session
            .residuals(&plan, &batch, |residual| {
                norms.push(last_state(residual.hidden).iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt());
            })
            .unwrap();
        // A tap sees f32.
        let relative: Vec<f64> = norms.iter().zip(&row.residual_norms).map(|(ours, theirs)| ours / theirs).collect();
        let error = distance(&relative, &vec![1.0; row.residual_norms.len()]);
        assert!(error <= 1e-7, "{} {:?}: norms {error:e}", row.prompt, row.plan);
        worst_norm = worst_norm.max(error);
    }
    println!("f64 against Hugging Face's f64: {worst:e}; norms of states in f32: {worst_norm:e}");
}

/// Whatever a plan says, f32 stays within its gate of f64; so both read the plan in the same way.
#[test]
fn f32_is_close_to_f64() {
    for inverse in [false, true] {
        let model = if inverse { inverse_layer_model() } else { Model::mini().unwrap() };
        let inputs = inputs();
        let inputs: Vec<&[u32]> = inputs.iter().map(Vec::as_slice).collect();
        for text in PLANS {
            let plan = model.plan(text).unwrap();
            let truth = token_losses(&mut exact(&model), &plan, &inputs).unwrap().concat();
            for isa in Isa::available() {
                let ours = token_losses(&mut session(&model, isa, Precision::F32), &plan, &inputs).unwrap().concat();
                let mean = |nll: &[f64]| nll.iter().sum::<f64>() / nll.len() as f64;
                let (worst, of_mean) = (distance(&ours, &truth), (mean(&ours) - mean(&truth)).abs());
                println!("{isa} {text}: worst {worst:e}, mean {of_mean:e}");
                assert!(worst <= 1e-3 && of_mean <= 1e-5, "{isa} {text}: worst {worst:e}, mean {of_mean:e}");
            }
        }
    }
}

/// The embedded model as if it had been trained with `scale_attn_by_inverse_layer_idx`.
fn inverse_layer_model() -> Model {
    let directory = tempfile::tempdir().unwrap();
    let mut config: serde_json::Value = serde_json::from_str(include_str!("../models/mini/config.json")).unwrap();
    config["scale_attn_by_inverse_layer_idx"] = true.into();
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(directory.path().join("model.safetensors"), include_bytes!("../models/mini/model.safetensors"))
        .unwrap();
    let model = Model::open_dir(directory.path(), &OpenOptions::default()).unwrap();
    assert_eq!(model.config().attention_scale(3), 1.0 / 16.0);
    model
}

/// The gate of bf16: mean loss within 0.02 nats, mean KL within 0.01, the likeliest token the same for 98 % of the
/// positions where it leads by 0.05 or more.
#[test]
fn bf16_is_within_its_gate_of_f64() {
    let model = Model::mini().unwrap();
    let inputs = inputs();
    for text in PLANS {
        let plan = model.plan(text).unwrap();
        let mut session_f64 = exact(&model);
        let truth: Vec<Distribution> =
            inputs.iter().flat_map(|ids| distributions(&mut session_f64, &plan, ids)).collect();
        for isa in Isa::available() {
            let mut session = session(&model, isa, Precision::Bf16);
            let ours: Vec<Distribution> =
                inputs.iter().flat_map(|ids| distributions(&mut session, &plan, ids)).collect();
            let pairs = || ours.iter().zip(&truth);
            let losses: Vec<f64> = pairs().filter_map(|(a, b)| Some(a.nll? - b.nll?)).collect();
            let loss = losses.iter().sum::<f64>() / losses.len() as f64;
            let kl = pairs().map(|(ours, truth)| truth.divergence(ours)).sum::<f64>() / truth.len() as f64;
            let clear: Vec<_> = pairs().filter(|(_, truth)| truth.lead() >= 0.05).collect();
            let same = clear.iter().filter(|(a, b)| a.likeliest() == b.likeliest()).count() as f64 / clear.len() as f64;
            println!("{isa} {text}: Δ nll {loss:.5}, KL {kl:.6}, top 1 {:.2} % of {}", 100.0 * same, clear.len());
            assert!(loss.abs() <= 0.02 && kl <= 0.01 && same >= 0.98, "{isa} {text}: {loss} {kl} {same}");
            assert!(kl > 1e-9, "{isa} {text}: bf16 was not used");
        }
    }
}

/// What follows one position.
struct Distribution {
    /// `ln p`
    log: Vec<f64>,
    /// The loss of the token that follows, where one does.
    nll: Option<f64>,
}

fn distributions(session: &mut Session, plan: &Plan, ids: &[u32]) -> Vec<Distribution> {
    let vocab_size = session.model().config().vocab_size;
    let logits = session.all_logits(plan, ids).unwrap().chunks_exact(vocab_size);
    let log_softmax = |logits: &[f32]| -> Vec<f64> {
        let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
        logits.iter().map(|&logit| f64::from(logit) - max - sum.ln()).collect()
    };
    logits
        .enumerate()
        .map(|(i, logits)| {
            let log = log_softmax(logits);
            Distribution { nll: ids.get(i + 1).map(|&id| -log[id as usize]), log }
        })
        .collect()
}

impl Distribution {
    fn likeliest(&self) -> usize {
        (0..self.log.len()).max_by(|&a, &b| self.log[a].total_cmp(&self.log[b])).unwrap()
    }

    /// How far the likeliest token is ahead of the next, in logits.
    fn lead(&self) -> f64 {
        let mut log = self.log.clone();
        log.sort_by(|a, b| b.total_cmp(a));
        log[0] - log[1]
    }

    /// `KL(self ‖ other)`, nats.
    fn divergence(&self, other: &Distribution) -> f64 {
        self.log.iter().zip(&other.log).map(|(p, q)| p.exp() * (p - q)).sum()
    }
}
