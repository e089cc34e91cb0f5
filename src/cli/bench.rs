//! `lesion bench`: how fast a plan runs here, beside what the machine could do at most.

use std::ops::ControlFlow;

use lesion::bench::{self, BenchError, Measured, Report, Shape};
use lesion::forward::Precision;
use lesion::plan::Plan;
use serde::Serialize;

use super::args::Bench;
use super::failure::{Exit, Failure, Result};
use super::output::{Output, SCHEMA_VERSION, table};
use super::{forward_failure, model, resolve, signals};

/// Tokens decoded unless told otherwise.
const DECODE: usize = 32;

#[derive(Serialize)]
struct BenchRecord<'a> {
    schema_version: u32,
    version: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

pub(crate) fn run(args: &Bench) -> Result<Exit> {
    let engine = resolve::engine(&args.engine)?;
    if engine.precision == Precision::F64 {
        return Err(bench_failure(&BenchError::NoKernels));
    }
    let expression = args.plan.as_deref().map(resolve::parse).transpose()?;
    let mut output = Output::open(&args.output)?;
    let model = model::open(&args.model)?;
    let config = model.config();
    let plan = match &expression {
        Some(expression) => resolve::plan(expression, &model.plan_shape())?,
        None => Plan::intact(config.n_layer),
    };
    let shape = Shape {
        batch: args.batch as usize,
        prompt_tokens: args.prompt_tokens.map_or(config.n_positions / 2, |tokens| tokens as usize),
        decode_tokens: args.decode.map_or(DECODE.min(config.n_positions / 4), |tokens| tokens as usize),
        repeats: args.repeats as usize,
    };
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(args.bridges.read(&model)?);
    let report = bench::run(&mut session, &plan, shape, &mut |_| match signals::interrupted() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    let report = report.map_err(|error| bench_failure(&error))?;
    if output.json {
        output.object(&BenchRecord {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION"),
            report: &report,
        })?;
    } else {
        show(&mut output, &report)?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn show(output: &mut Output, report: &Report) -> Result<()> {
    let Report { model, plan, isa, precision, threads, shape, limits, .. } = report;
    let Shape { batch, prompt_tokens, repeats, .. } = shape;
    output.heading(&format!("{model}, plan {plan}, {isa}, {precision}, {threads} threads"))?;
    let of_peak = if *precision == Precision::Bf16.name() { "of bf16 peak" } else { "of FMA peak" };
    let header = ["", "tokens/s", "± iqr/2", "ms", "GFLOP/s", of_peak, "GB/s", "of read peak"].map(str::to_owned);
    let prefill = format!("{batch} x {prompt_tokens}");
    let mut rows = vec![row(&format!("prefill {prefill}"), &report.prefill)];
    rows.extend(report.prefill_loss.as_ref().map(|measured| row(&format!("loss {prefill}"), measured)));
    rows.extend(
        report.decode.as_ref().map(|measured| row(&format!("decode {prompt_tokens} + {}", measured.tokens), measured)),
    );
    output.text(&table(&header, &rows, 1))?;
    let spread = |spread: &bench::Spread, digits: usize| {
        format!("{:.digits$} ± {:.digits$}", spread.median / 1e9, spread.half_width() / 1e9)
    };
    output.line(format!(
        "peaks: {} GFLOP/s ({} f32 FMA on registers), {} GFLOP/s ({} bf16 products on registers), {} GB/s (streaming read)",
        spread(&limits.fma, 1),
        limits.fma_isa,
        spread(&limits.bf16, 1),
        limits.bf16_isa,
        spread(&limits.read, 1)
    ))?;
    output.line(format!("medians of {repeats} rounds, the peaks measured in each; ± is half the interquartile range"))
}

fn row(name: &str, measured: &Measured) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    vec![
        name.to_owned(),
        format!("{:.1}", measured.tokens_per_second.median),
        format!("{:.1}", measured.tokens_per_second.half_width()),
        format!("{:.2}", 1e3 * measured.seconds.median),
        format!("{:.1}", measured.flop_per_second / 1e9),
        percent(measured.share_of_peak),
        format!("{:.2}", measured.bytes_per_second / 1e9),
        percent(measured.share_of_read),
    ]
}

fn bench_failure(error: &BenchError) -> Failure {
    match error {
        BenchError::Forward(error) => forward_failure(error),
        BenchError::Team(_) => Failure::new(Exit::Missing, error.to_string()),
        BenchError::Cancelled { .. } => Failure::new(Exit::Interrupted, error.to_string()),
        BenchError::Zero { .. } | BenchError::TooLong { .. } | BenchError::NoKernels => {
            Failure::usage(error.to_string())
        }
    }
}
