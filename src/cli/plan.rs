//! `lesion plan`: what a plan means, without running it.

use lesion::plan::picture::{PictureStyle, picture};
use lesion::plan::{Plan, PlanShape};
use serde::Serialize;

use super::args::PlanCommand;
use super::failure::{Exit, Result};
use super::output::{Output, SCHEMA_VERSION};
use super::{model, resolve};

/// Columns of a picture.
const WIDTH: usize = 100;

#[derive(Serialize)]
struct PlanRecord {
    schema_version: u32,
    /// As it was written.
    expression: String,
    /// The canonical text.
    plan: String,
    steps: Plan,
    /// Block evaluations: a whole block 1, its attention half 1/3, its MLP half 2/3.
    cost_blocks: f64,
    n_layer: usize,
    n_head: usize,
}

pub(crate) fn run(args: &PlanCommand) -> Result<Exit> {
    let parsed = resolve::parse_all(&args.plans)?;
    let mut output = Output::open(&args.output)?;
    let shape = match (args.layers, args.heads) {
        (Some(layers), Some(heads)) => PlanShape::gpt2(layers as usize, heads as usize),
        _ => model::shape(&args.model, &args.lock)?,
    };
    for (index, (text, parsed)) in args.plans.iter().zip(&parsed).enumerate() {
        let plan = resolve::plan(parsed, &shape)?;
        if output.json {
            output.object(&PlanRecord {
                schema_version: SCHEMA_VERSION,
                expression: text.clone(),
                plan: plan.to_string(),
                cost_blocks: plan.cost().blocks(),
                steps: plan,
                n_layer: shape.n_layer,
                n_head: shape.n_head,
            })?;
            continue;
        }
        if index > 0 {
            output.line("")?;
        }
        output.heading(&plan.to_string())?;
        output.line(format!("{} block evaluations; the intact model's are {}", plan.cost(), shape.n_layer))?;
        output.text(&picture(&plan, shape.n_layer, PictureStyle { ascii: false, width: WIDTH }))?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}
