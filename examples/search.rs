//! Which layers does a capability need? All 4,096 subsets of the layers, on a few questions, at the price of a few passes.
//!
//!     cargo run --release --example search

use std::error::Error;
use std::ops::ControlFlow;

use lesion::forward::{Session, SessionOptions};
use lesion::measure::Answered;
use lesion::model::Model;
use lesion::plan::Plan;
use lesion::sweep::{Event, Example, Goal, Measured, Method, Search, Sweep, SweepOptions, Threshold};
use lesion::tasks::bundled;

fn main() -> Result<(), Box<dyn Error>> {
    let model = Model::mini()?;
    let task = bundled::task("gendered pronouns", 0, 10)?;
    let mut examples = Vec::new();
    for number in 0..task.examples.len() {
        let question = task.question(number).ok_or("no such example")?;
        let answered = Answered::encode(model.tokenizer()?, Some(model.bos()?), &question.prompt, &question.answer)?;
        examples.push(Example::new(number as u64, answered.ids, answered.answer));
    }

    let shape = model.plan_shape();
    let mut session = Session::new(&model, SessionOptions::default())?;
    let options = SweepOptions { memory: 256 << 20, divergence: false, token_losses: false };
    // How well each plan does on all questions: what the search asks for, many plans at a time.
    let mut measure = |plans: &[Plan]| -> Result<Vec<Measured>, Box<dyn Error>> {
        let sweep = Sweep::new(plans.to_vec(), &shape, options)?;
        let mut sums = vec![(0.0, 0, 0); plans.len()];
        sweep.run(&mut session, examples.iter().cloned(), &|_, _| false, &mut |event| {
            if let Event::Rows(rows) = event {
                for row in rows {
                    let (nll, tokens, correct) = &mut sums[row.plan];
                    *nll += row.nll;
                    *tokens += row.tokens;
                    *correct += usize::from(row.is_correct());
                }
            }
            ControlFlow::Continue(())
        })?;
        let measured = |(nll, tokens, correct): (f64, u32, usize)| Measured {
            nll: nll / f64::from(tokens),
            accuracy: correct as f64 / examples.len() as f64,
        };
        Ok(sums.into_iter().map(measured).collect())
    };

    let search =
        Search { n_layer: shape.n_layer, goal: Goal::Keep, threshold: Threshold::Accuracy(0.9), method: Method::Exact };
    let found = search.run(&mut measure)?;
    println!("{} sets of layers were tried; the smallest that keep 90 % of the right answers:", found.tried);
    for set in &found.smallest {
        println!("layers {:?}: {:.0} % right", set.layers, 100.0 * set.measured.accuracy);
    }
    Ok(())
}
