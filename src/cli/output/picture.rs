//! Results as a drawing: `--output` with a name that ends in `.svg` or `.png`, of what is printed with `--json`. The drawing is the
//! report's of the same objects.

use lesion::report::inside::{InsideFigure, MAX_CELLS, Shown, ViewError, views_of};
use lesion::report::plot::{Ink, Plot, Width, sheet};
use lesion::report::png;
use serde::Serialize;
use serde_json::Value;

use crate::cli::args::OutputArgs;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::resolve::NamedPlan;

/// A drawing under way.
pub(super) struct Picture {
    is_png: bool,
    objects: Vec<Value>,
    shown: Shown,
}

impl Picture {
    /// By the output file's name: no JSON goes there.
    pub(super) fn wanted(args: &OutputArgs) -> Result<Option<Picture>> {
        let ending = args.output.as_ref().and_then(|path| path.extension()).and_then(|ending| ending.to_str());
        let is_png = match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("svg") => false,
            Some("png") => true,
            _ => return Ok(None),
        };
        match args.json {
            true => Err(Failure::usage("--json: the name of the output file asks for a drawing")),
            false => Ok(Some(Picture { is_png, objects: Vec::new(), shown: Shown::default() })),
        }
    }

    /// Refuses, before anything runs, what a drawing does not hold: more than one plan, or more cells than can be seen.
    pub(super) fn check(
        &mut self,
        plans: &[NamedPlan],
        cells: &dyn Fn(&NamedPlan) -> usize,
        shown: Shown,
    ) -> Result<()> {
        let [plan] = plans else {
            return Err(Failure::usage(format!("{} plans: a drawing shows one", plans.len()))
                .with_help("two plans or more are compared with the intact one: give one --plan, or none"));
        };
        match cells(plan) {
            0 => return Err(Failure::usage("there is nothing to draw")),
            1..=MAX_CELLS => {}
            cells => return Err(Failure::usage(format!("{cells} cells: a drawing shows {MAX_CELLS} at most"))),
        }
        self.shown = Shown { plan: Some(plan.label()), ..shown };
        Ok(())
    }

    pub(super) fn push(&mut self, object: &impl Serialize) {
        self.objects.push(value(object));
    }

    /// The file's bytes.
    pub(super) fn draw(self) -> Result<Vec<u8>> {
        let views = views_of(self.objects).map_err(|error| view_failure(&error))?;
        let plots: Vec<Plot> =
            views.iter().flat_map(|view| view.figures(&self.shown)).map(|figure| figure.plot).collect();
        let width = if plots.iter().any(Plot::is_wide) { Width::Full } else { Width::Column };
        let svg = sheet(&plots, width, Ink::Paper);
        match self.is_png {
            false => Ok(svg.into_bytes()),
            true => png(&svg).map_err(|error| Failure::new(Exit::Missing, error.to_string())),
        }
    }
}

/// What a drawing of an object shows: for terminals.
pub(crate) fn figures_of(object: &impl Serialize, shown: &Shown) -> Result<Vec<InsideFigure>> {
    let views = views_of(vec![value(object)]).map_err(|error| view_failure(&error))?;
    Ok(views.iter().flat_map(|view| view.figures(shown)).collect())
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("records have string keys and no failing serializer")
}

/// An error of what is read as a view.
pub(crate) fn view_failure(error: &ViewError) -> Failure {
    Failure::new(Exit::BadFile, error.to_string())
}
