//! Losses as drawings: a bar a plan, a curve a plan over the tokens.

use lesion::measure::LossSummary;
use lesion::model::Model;
use lesion::report::plot::{Bars, Curves, Drawing, Plot, Series};
use lesion::sweep::Estimate;

use super::{Scored, of_answer, uniform};
use crate::cli::failure::Result;
use crate::cli::output::Output;
use crate::cli::resolve::NamedPlan;

pub(super) fn show(
    output: &mut Output,
    model: &Model,
    plans: &[NamedPlan],
    scored: &Scored,
    losses: &[Vec<f64>],
    tokens: bool,
) -> Result<()> {
    let certain = |value: f64| Estimate { value, low: f64::NAN, high: f64::NAN };
    let reference = || Some((uniform(model), "uniform, ln V".to_owned()));
    let of = |nll: &[f64]| match &scored.answer {
        Some(answer) => LossSummary::from_iter(of_answer(answer, nll)).mean(),
        None => LossSummary::from_iter(nll).mean(),
    };
    let bars = plans.iter().zip(losses).map(|(plan, nll)| (plan.label(), certain(of(nll).unwrap_or(f64::NAN))));
    let what = if scored.answer.is_some() { "Loss of the answer" } else { "Loss" };
    let drawing =
        Drawing::Bars(Bars { axis: String::new(), bars: bars.collect(), difference: false, reference: reference() });
    output.line("")?;
    output.plot(&Plot { title: what.to_owned(), measure: "nats per token".to_owned(), drawing })?;
    if tokens && losses.iter().any(|nll| nll.len() > 1) {
        let first = scored.input.ids.len() - losses[0].len();
        let series = plans.iter().zip(losses).map(|(plan, nll)| Series {
            name: plan.label(),
            points: nll.iter().enumerate().map(|(i, nll)| ((first + i) as f64, certain(*nll))).collect(),
            line: true,
        });
        let axis = "token".to_owned();
        let drawing = Drawing::Curves(Curves { axis, series: series.collect(), shares: false, reference: reference() });
        output.line("")?;
        output.plot(&Plot { title: "Loss of each token".to_owned(), measure: "nats".to_owned(), drawing })?;
    }
    Ok(())
}
