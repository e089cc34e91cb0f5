//! The measuring, round by round.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use lesion_kernels::{Isa, Team, TeamError};
use serde::Serialize;
use thiserror::Error;

use super::{Spread, Work};
use crate::forward::{Batch, Cache, ForwardError, Precision, Session, Target};
use crate::plan::Plan;

/// Bytes that the read rate is measured on: many times the last cache of most machines.
const READ_BYTES: usize = 256 << 20;

/// Time of one measurement of a limit.
const LIMIT_TIME: Duration = Duration::from_millis(60);

/// A measurement of work repeats it until this much time has passed: small models take microseconds.
const WORK_TIME: Duration = Duration::from_millis(20);

/// The shape of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Sequences of the prefill.
    pub batch: usize,
    /// Tokens of each of them, and of the prompt that decoding goes on from.
    pub prompt_tokens: usize,
    /// Tokens decoded, one by one, in one sequence; 0 leaves decoding out.
    pub decode_tokens: usize,
    /// Rounds.
    pub repeats: usize,
}

/// Why nothing was measured.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A number that has to be at least one is zero.
    #[error("{what} is 0: at least 1 is needed")]
    Zero {
        /// Which.
        what: &'static str,
    },
    /// Prompt and decoded tokens do not fit the model.
    #[error("{prompt_tokens} prompt tokens and {decode_tokens} decoded: the model's context is {n_positions}")]
    TooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens to decode.
        decode_tokens: usize,
        /// The model's context.
        n_positions: usize,
    },
    /// f64 is plain Rust: there are no kernels to compare with the machine's limits.
    #[error("precision f64: it has no kernels whose speed could be measured")]
    NoKernels,
    /// The caller broke off.
    #[error("cancelled after {rounds} of {repeats} rounds")]
    Cancelled {
        /// Finished rounds.
        rounds: usize,
        /// Rounds asked for.
        repeats: usize,
    },
    /// The forward pass refuses.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Threads to measure the machine with are not to be had.
    #[error(transparent)]
    Team(#[from] TeamError),
}

/// What the machine can do at most, with as many threads as the session.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// The instruction set with the highest FMA rate.
    pub fma_isa: &'static str,
    /// FLOP/s of f32 FMAs on registers.
    pub fma: Spread,
    /// The instruction set with the highest rate of bf16 products.
    pub bf16_isa: &'static str,
    /// FLOP/s of bf16 products, summed in f32, on registers: [`Limits::fma`] where no instruction is faster.
    pub bf16: Spread,
    /// Bytes/s of a streaming read.
    pub read: Spread,
}

/// One kind of work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Tokens that one repetition takes in (prefill) or gives out (decode).
    pub tokens: usize,
    /// What one repetition must do at least.
    pub work: Work,
    /// Seconds of one repetition.
    pub seconds: Spread,
    /// Tokens per second.
    pub tokens_per_second: Spread,
    /// FLOP/s, by [`Work::flop`].
    pub flop_per_second: f64,
    /// Bytes/s, by [`Work::bytes`].
    pub bytes_per_second: f64,
    /// FLOP/s as a share of the precision's peak: [`Limits::fma`] in f32, [`Limits::bf16`] in bf16.
    pub share_of_peak: f64,
    /// FLOP/s as a share of [`Limits::fma`] in any precision: bf16 may pass 1.
    pub share_of_fma: f64,
    /// Bytes/s as a share of [`Limits::read`]. A model that fits the caches may pass 1.
    pub share_of_read: f64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// The plan, in canonical text.
    pub plan: String,
    /// The session's instruction set.
    pub isa: &'static str,
    /// The session's precision.
    pub precision: &'static str,
    /// The session's threads.
    pub threads: usize,
    /// The shape asked for.
    pub shape: Shape,
    /// The machine's limits.
    pub limits: Limits,
    /// Every sequence up to the logits of its last token.
    pub prefill: Measured,
    /// Every sequence with the loss of every predicted token; none where a sequence has one token.
    pub prefill_loss: Option<Measured>,
    /// Token by token behind the prompt; the figures are of all steps together.
    pub decode: Option<Measured>,
}

/// Measures `plan` on `session`, telling `progress` the number of each finished round; it may break off. The ids are
/// made up: speed does not depend on them.
///
/// # Errors
/// Where shape or plan do not fit the model, or the caller breaks off.
pub fn run(
    session: &mut Session,
    plan: &Plan,
    shape: Shape,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Report, BenchError> {
    check(session, shape)?;
    let mut teams = Vec::new();
    for isa in Isa::available() {
        teams.push(Team::new(isa, session.threads())?);
    }
    let memory = vec![1.0_f32; READ_BYTES / size_of::<f32>()];
    let prompts = prompts(session, shape);
    let batch = Batch::new(prompts.iter().map(Vec::as_slice));
    let (last, predicted) = targets(&batch, &prompts);

    let (mut fma, mut bf16) = (vec![Vec::new(); teams.len()], vec![Vec::new(); teams.len()]);
    let (mut read, mut prefill, mut loss, mut decode) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // The first round warms up.
    for round in 0..=shape.repeats {
        if round == 1 {
            let once = [&mut read, &mut prefill, &mut loss, &mut decode];
            once.into_iter().chain(&mut fma).chain(&mut bf16).for_each(Vec::clear);
        }
        for ((team, fma), bf16) in teams.iter_mut().zip(&mut fma).zip(&mut bf16) {
            fma.push(team.fma_rate(LIMIT_TIME));
            bf16.push(team.bf16_rate(LIMIT_TIME));
        }
        prefill.push(seconds(|| session.score(plan, &batch, &last).map(|_| ()))?);
        if !predicted.is_empty() {
            loss.push(seconds(|| session.score(plan, &batch, &predicted).map(|_| ()))?);
        }
        read.push(teams[0].read_rate(&memory, LIMIT_TIME));
        if shape.decode_tokens > 0 {
            decode.push(decode_seconds(session, plan, &prompts[0], shape.decode_tokens)?);
        }
        if round > 0 && progress(round).is_break() && round < shape.repeats {
            return Err(BenchError::Cancelled { rounds: round, repeats: shape.repeats });
        }
    }

    let limits = limits(&teams, &fma, &bf16, &read);
    let peak = if session.precision() == Precision::Bf16 { limits.bf16 } else { limits.fma };
    let model = session.model();
    let Shape { batch: sequences, prompt_tokens, decode_tokens, .. } = shape;
    let passes = |scored: &[Target]| Work::of(model, plan, sequences, 0, prompt_tokens, scored.len());
    let mut steps = Work::default();
    (0..decode_tokens).for_each(|step| steps += Work::of(model, plan, 1, prompt_tokens + step, 1, 1));
    Ok(Report {
        model: model.name().to_owned(),
        plan: plan.to_string(),
        isa: session.isa().name(),
        precision: session.precision().name(),
        threads: session.threads(),
        shape,
        prefill: measured(&prefill, batch.rows(), passes(&last), peak, &limits),
        prefill_loss: (!loss.is_empty()).then(|| measured(&loss, batch.rows(), passes(&predicted), peak, &limits)),
        decode: (!decode.is_empty()).then(|| measured(&decode, decode_tokens, steps, peak, &limits)),
        limits,
    })
}

fn check(session: &Session, shape: Shape) -> Result<(), BenchError> {
    let Shape { batch, prompt_tokens, decode_tokens, repeats } = shape;
    for (what, number) in [("the batch", batch), ("the number of prompt tokens", prompt_tokens), ("repeats", repeats)] {
        if number == 0 {
            return Err(BenchError::Zero { what });
        }
    }
    if session.precision() == Precision::F64 {
        return Err(BenchError::NoKernels);
    }
    let n_positions = session.model().config().n_positions;
    if prompt_tokens.saturating_add(decode_tokens) > n_positions {
        return Err(BenchError::TooLong { prompt_tokens, decode_tokens, n_positions });
    }
    Ok(())
}

/// Ids spread over the vocabulary, so that the embedding's rows are not all in the cache.
fn prompts(session: &Session, shape: Shape) -> Vec<Vec<u32>> {
    let vocab_size = session.model().config().vocab_size as u64;
    let id = |i: usize| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % vocab_size) as u32;
    let sequence = |s: usize| (0..shape.prompt_tokens).map(|i| id(s * shape.prompt_tokens + i)).collect();
    (0..shape.batch).map(sequence).collect()
}

/// The last row of each sequence, whose target is of no interest; and all predicted tokens.
fn targets(batch: &Batch, prompts: &[Vec<u32>]) -> (Vec<Target>, Vec<Target>) {
    let row = |sequence, position, id| Target { row: batch.row(sequence, position), id };
    let sequences = || prompts.iter().enumerate();
    let last = sequences().map(|(s, ids)| row(s, ids.len() - 1, ids[0])).collect();
    let predicted = sequences().flat_map(|(s, ids)| (1..ids.len()).map(move |i| row(s, i - 1, ids[i])));
    (last, predicted.collect())
}

/// Seconds of one `work`.
fn seconds(mut work: impl FnMut() -> Result<(), ForwardError>) -> Result<f64, ForwardError> {
    let start = Instant::now();
    let mut times = 0;
    loop {
        work()?;
        times += 1;
        let passed = start.elapsed();
        if passed >= WORK_TIME {
            return Ok(passed.as_secs_f64() / f64::from(times));
        }
    }
}

/// Seconds of `tokens` greedy steps behind the prompt.
fn decode_seconds(session: &mut Session, plan: &Plan, prompt: &[u32], tokens: usize) -> Result<f64, ForwardError> {
    let mut cache = Cache::new(session, plan, prompt.len() + tokens)?;
    let mut next = likeliest(session.extend(plan, &mut cache, prompt)?);
    let start = Instant::now();
    for _ in 0..tokens {
        next = likeliest(session.extend(plan, &mut cache, &[next])?);
    }
    Ok(start.elapsed().as_secs_f64())
}

fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(id, _)| id as u32)
}

fn limits(teams: &[Team], fma: &[Vec<f64>], bf16: &[Vec<f64>], read: &[f64]) -> Limits {
    let best = |rates: &[Vec<f64>]| {
        let rates = teams.iter().zip(rates).map(|(team, rates)| (team.isa().name(), Spread::of(rates)));
        let best = rates.max_by(|a, b| a.1.median.total_cmp(&b.1.median));
        best.expect("the portable instruction set is always there")
    };
    let (fma, bf16) = (best(fma), best(bf16));
    // An f32 FMA multiplies bf16, too.
    let bf16 = if bf16.1.median < fma.1.median { fma } else { bf16 };
    Limits { fma_isa: fma.0, fma: fma.1, bf16_isa: bf16.0, bf16: bf16.1, read: Spread::of(read) }
}

/// `peak`: FLOP/s of the precision.
fn measured(times: &[f64], tokens: usize, work: Work, peak: Spread, limits: &Limits) -> Measured {
    let seconds = Spread::of(times);
    let flop_per_second = work.flop as f64 / seconds.median;
    let bytes_per_second = work.bytes as f64 / seconds.median;
    Measured {
        tokens,
        work,
        seconds,
        tokens_per_second: seconds.rate(tokens as f64),
        flop_per_second,
        bytes_per_second,
        share_of_peak: flop_per_second / peak.median,
        share_of_fma: flop_per_second / limits.fma.median,
        share_of_read: bytes_per_second / limits.read.median,
    }
}

#[cfg(all(test, feature = "mini"))]
mod tests {
    use super::*;
    use crate::forward::SessionOptions;
    use crate::model::Model;

    const SHAPE: Shape = Shape { batch: 2, prompt_tokens: 7, decode_tokens: 3, repeats: 2 };

    fn bench(
        layers: usize,
        shape: Shape,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Report, BenchError> {
        let mut session = Session::new(&Model::mini().unwrap(), SessionOptions::default()).unwrap();
        run(&mut session, &Plan::intact(layers), shape, progress)
    }

    #[test]
    fn a_report_counts_what_it_measured() {
        let mut rounds = Vec::new();
        let report = bench(12, SHAPE, &mut |round| {
            rounds.push(round);
            ControlFlow::Continue(())
        });
        let Report { prefill, prefill_loss: Some(loss), decode: Some(decode), limits, .. } = report.unwrap() else {
            panic!("loss and decode were asked for")
        };
        assert_eq!(rounds, [1, 2]);
        assert_eq!((prefill.tokens, loss.tokens, decode.tokens), (14, 14, 3));
        // 12 predicted tokens against 2 last ones: 10 rows more through the unembedding, 2048 × 128.
        assert_eq!(loss.work.flop - prefill.work.flop, 10 * 2 * 2048 * 128);
        for measured in [prefill, loss, decode] {
            let rate = measured.tokens as f64 / measured.seconds.median;
            assert_eq!(measured.tokens_per_second.median, rate);
            assert_eq!(measured.share_of_fma, measured.flop_per_second / limits.fma.median);
            assert_eq!(measured.share_of_peak, measured.share_of_fma);
            assert!(measured.share_of_fma > 0.0 && measured.share_of_read > 0.0, "{measured:?}");
        }
    }

    #[test]
    fn the_peak_of_bf16_is_its_own() {
        let options = SessionOptions { precision: Precision::Bf16, ..SessionOptions::default() };
        let mut session = Session::new(&Model::mini().unwrap(), options).unwrap();
        let report = run(&mut session, &Plan::intact(12), SHAPE, &mut |_| ControlFlow::Continue(())).unwrap();
        let Report { precision: "bf16", prefill, limits, .. } = report else { panic!("{report:?}") };
        assert!(limits.bf16.median >= limits.fma.median, "{limits:?}");
        assert_eq!(prefill.share_of_peak, prefill.flop_per_second / limits.bf16.median);
        assert_eq!(prefill.share_of_fma, prefill.flop_per_second / limits.fma.median);
    }

    #[test]
    fn one_token_predicts_nothing_and_decoding_may_be_left_out() {
        let shape = Shape { batch: 1, prompt_tokens: 1, decode_tokens: 0, repeats: 1 };
        let report = bench(3, shape, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((report.plan.as_str(), report.prefill_loss, report.decode), ("0..3", None, None));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let refused = |shape| bench(12, shape, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
        assert_eq!(refused(Shape { batch: 0, ..SHAPE }), "the batch is 0: at least 1 is needed");
        assert_eq!(refused(Shape { repeats: 0, ..SHAPE }), "repeats is 0: at least 1 is needed");
        assert_eq!(
            refused(Shape { prompt_tokens: 250, decode_tokens: 7, ..SHAPE }),
            "250 prompt tokens and 7 decoded: the model's context is 256"
        );
        assert_eq!(
            bench(13, SHAPE, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string(),
            "plan: steps.12: layer 12 of 12: layers are 0..=11"
        );
    }

    #[test]
    fn f64_is_not_measured() {
        let options = SessionOptions { precision: Precision::F64, ..SessionOptions::default() };
        let mut session = Session::new(&Model::mini().unwrap(), options).unwrap();
        let refused = run(&mut session, &Plan::intact(12), SHAPE, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(refused, BenchError::NoKernels), "{refused}");
    }

    #[test]
    fn the_caller_may_break_off() {
        let cancelled = bench(1, SHAPE, &mut |_| ControlFlow::Break(())).unwrap_err();
        assert_eq!(cancelled.to_string(), "cancelled after 1 of 2 rounds");
    }
}
