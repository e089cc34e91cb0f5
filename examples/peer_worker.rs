//! `lesion`'s side of `benches/peers`: `peer_worker PEER MODELS TOKENS THREADS`, PEER being `lesion-f32`, `lesion-f16`,
//! `lesion-bf16` (the type of the weights, products in f32) or `lesion-bf16-compute` (products in bf16, too). `limits` as
//! PEER measures the machine at each line instead.
//!
//! Speaks JSON lines, as `benches/peers/worker.py` does: a line about itself after the first logits; then, for each
//! `{"work": "A", "times": 3}` on stdin, a line with `seconds`, the loss or the tokens, and the work counted.

use std::error::Error;
use std::io::BufRead;
use std::path::Path;
use std::time::{Duration, Instant};

use lesion::bench::Work;
use lesion::forward::{Cache, ForwardError, Precision, Session, SessionOptions};
use lesion::measure::token_losses;
use lesion::model::{Model, OpenOptions};
use lesion::plan::Plan;
use lesion_kernels::{Isa, Team};
use serde_json::{Value, json};

const STEPS: usize = 64;
const LIMIT_TIME: Duration = Duration::from_millis(250);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, models, tokens, threads] = &arguments[..] else { return Err("PEER MODELS TOKENS THREADS".into()) };
    let threads = threads.parse()?;
    if name == "limits" {
        return limits(threads);
    }
    let (dtype, precision) = match name.strip_prefix("lesion-") {
        Some("bf16-compute") => ("bf16", Precision::Bf16),
        Some(dtype @ ("f32" | "f16" | "bf16")) => (dtype, Precision::F32),
        _ => return Err("PEER: lesion-f32, lesion-f16, lesion-bf16 or lesion-bf16-compute".into()),
    };
    let model = Model::open_dir(&Path::new(models).join(format!("gpt2-{dtype}")), &OpenOptions::default())?;
    let mut session = Session::new(&model, SessionOptions { threads, precision, ..SessionOptions::default() })?;
    let tokens: Value = serde_json::from_str(&std::fs::read_to_string(tokens)?)?;
    let ids = |work: &str| serde_json::from_value::<Vec<Vec<u32>>>(tokens[work].clone());
    let short = ids("C")?;
    let plan = Plan::intact(model.config().n_layer);
    session.logits(&plan, &short[0])?;
    let version = format!("{} {}", env!("CARGO_PKG_VERSION"), session.isa());
    println!("{}", json!({"peer": name, "versions": {"lesion": version}}));

    for line in std::io::stdin().lock().lines() {
        let command: Value = serde_json::from_str(&line?)?;
        let work = command["work"].as_str().ok_or("no work")?;
        let ids = ids(work)?;
        let sequences: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        // Wakes threads and clocks.
        session.logits(&plan, &short[0])?;
        let (mut answer, mut seconds) = (json!({}), Vec::new());
        for _ in 0..command["times"].as_u64().ok_or("no times")? {
            if work == "D" {
                let (time, tokens) = decode(&mut session, &plan, sequences[0])?;
                answer["tokens"] = json!(tokens);
                seconds.push(time);
            } else {
                let start = Instant::now();
                let losses = token_losses(&mut session, &plan, &sequences)?.concat();
                answer["loss"] = json!(losses.iter().sum::<f64>() / losses.len() as f64);
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        answer["seconds"] = json!(seconds);
        answer["work"] = serde_json::to_value(count(&model, &plan, work, &sequences))?;
        println!("{answer}");
    }
    Ok(())
}

/// What the work takes, every row being scored: what others compute, too.
fn count(model: &Model, plan: &Plan, work: &str, sequences: &[&[u32]]) -> Work {
    let (n, tokens) = (sequences.len(), sequences[0].len());
    if work != "D" {
        return Work::of(model, plan, n, 0, tokens, n * tokens);
    }
    let mut steps = Work::default();
    (tokens..tokens + STEPS).for_each(|past| steps += Work::of(model, plan, 1, past, 1, 1));
    steps
}

/// Seconds of the steps behind the prompt, and the tokens: the prompt's and one of each step.
fn decode(session: &mut Session, plan: &Plan, prompt: &[u32]) -> Result<(f64, Vec<u32>), ForwardError> {
    let mut cache = Cache::new(session, plan, prompt.len() + STEPS)?;
    let mut tokens = vec![likeliest(session.extend(plan, &mut cache, prompt)?)];
    let start = Instant::now();
    for step in 0..STEPS {
        tokens.push(likeliest(session.extend(plan, &mut cache, &[tokens[step]])?));
    }
    Ok((start.elapsed().as_secs_f64(), tokens))
}

fn likeliest(logits: &[f32]) -> u32 {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(id, _)| id as u32)
}

/// Answers each line with FLOP/s of each instruction set's FMAs and products of bf16, and bytes/s of a streaming read.
fn limits(threads: usize) -> Result<(), Box<dyn Error>> {
    let mut teams = Isa::available().map(|isa| Team::new(isa, threads)).collect::<Result<Vec<_>, _>>()?;
    let memory = vec![1.0_f32; 128 << 20];
    println!("{}", json!({"peer": "limits"}));
    for line in std::io::stdin().lock().lines() {
        line?;
        let (mut fma, mut bf16) = (json!({}), json!({}));
        for team in &mut teams {
            fma[team.isa().name()] = json!(team.fma_rate(LIMIT_TIME));
            bf16[team.isa().name()] = json!(team.bf16_rate(LIMIT_TIME));
        }
        println!("{}", json!({"fma": fma, "bf16": bf16, "read": teams[0].read_rate(&memory, LIMIT_TIME)}));
    }
    Ok(())
}
