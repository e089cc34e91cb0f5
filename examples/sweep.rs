//! Every way to swap two layers, on the questions of a bundled task: which swaps cost the least?
//!
//!     cargo run --release --example sweep

use std::error::Error;
use std::ops::ControlFlow;

use lesion::forward::{Session, SessionOptions};
use lesion::measure::Answered;
use lesion::model::Model;
use lesion::plan::{Family, Plan};
use lesion::sweep::{Event, Example, Sweep, SweepOptions, Tally};
use lesion::tasks::bundled;

fn main() -> Result<(), Box<dyn Error>> {
    let model = Model::mini()?;
    let task = bundled::task("indirect object", 0, 20)?;
    let mut examples = Vec::new();
    for number in 0..task.examples.len() {
        let question = task.question(number).ok_or("no such example")?;
        let answered = Answered::encode(model.tokenizer()?, Some(model.bos()?), &question.prompt, &question.answer)?;
        examples.push(Example::new(number as u64, answered.ids, answered.answer));
    }

    let shape = model.plan_shape();
    let mut plans: Vec<Plan> =
        "swap-any".parse::<Family>()?.members(&shape)?.into_iter().map(|member| member.plan).collect();
    let intact = plans.len();
    plans.push(Plan::intact(shape.n_layer));

    let options = SweepOptions { memory: 256 << 20, divergence: true, token_losses: false };
    let sweep = Sweep::new(plans, &shape, options)?;
    let cost = sweep.cost();
    println!("{} block evaluations an example instead of {}", cost.shared.blocks(), cost.naive.blocks());

    let mut session = Session::new(&model, SessionOptions::default())?;
    let mut tally = Tally::new(sweep.plans().len(), [task.name.clone()]);
    sweep.run(&mut session, examples, &|_, _| false, &mut |event| {
        if let Event::Rows(rows) = event {
            rows.iter().for_each(|row| tally.add(0, row));
        }
        ControlFlow::Continue(())
    })?;

    let summaries = tally.summaries(None, Some(intact), 0);
    let mut order: Vec<usize> = (0..intact).collect();
    order.sort_by(|&a, &b| summaries[a].nll.value.total_cmp(&summaries[b].nll.value));
    for plan in order.into_iter().take(5) {
        let summary = &summaries[plan];
        let name = &sweep.plans()[plan];
        println!("{name:<20} {:.4} nats per token, KL {:.4}", summary.nll.value, summary.divergence);
    }
    Ok(())
}
