//! Patch grids: a run with one activation of another run, for each layer and position, or each layer and head.

use super::{InsideError, Limits, Measured, Metric, Run, check_size, measure, noise_floor};
use crate::forward::{Activations, Batch, Session};
use crate::plan::{Action, Address, Modifier, Part, Placed, Site};
use crate::sweep::SweepCost;
use std::ops::Range;

/// Which run receives activations of which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The corrupted run gets the clean run's: what suffices?
    Denoise,
    /// The clean run gets the corrupted run's: what is needed?
    Noise,
}

/// What the columns of a grid are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cells {
    /// These positions, from 0: the whole site is patched at one of them.
    Positions(Range<usize>),
    /// All heads: one of them is patched, at all positions or at these.
    Heads {
        /// The positions.
        positions: Option<Range<usize>>,
    },
}

/// A grid of patches between two runs of equally many tokens.
#[derive(Clone, Debug)]
pub struct PatchGrid {
    clean: Run,
    corrupted: Run,
    site: Site,
    cells: Cells,
    direction: Direction,
}

/// What a patched run says, cell by cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// The executions of the patched plan that pass the site and whose layer runs exactly once in the other run.
    pub rows: Vec<GridRow>,
    /// Positions or heads.
    pub columns: Range<usize>,
    /// The metric of the clean run.
    pub clean: f64,
    /// And of the corrupted one.
    pub corrupted: f64,
    /// And of the patched runs, by row, by column.
    pub values: Vec<Vec<f64>>,
    /// Differences below this are rounding (see [`noise_floor`]).
    pub noise_floor: f64,
    /// Block evaluations of the patched plans, were each state computed at all positions; the run that is patched from comes on top, once.
    pub cost: SweepCost,
}

/// An execution that has a row.
#[derive(Clone, Debug, PartialEq)]
pub struct GridRow {
    /// Its number among the plan's executions.
    pub index: usize,
    /// Its address.
    pub address: Address,
    /// Its layer.
    pub layer: usize,
    /// Executions of the layer before it.
    pub occurrence: usize,
    /// What of the block runs.
    pub part: Part,
}

impl GridRow {
    pub(super) fn new(placed: &Placed<'_>) -> GridRow {
        GridRow {
            index: placed.index,
            address: placed.address.clone(),
            layer: placed.execution.layer,
            occurrence: placed.occurrence,
            part: placed.execution.part,
        }
    }
}

impl Grid {
    /// The patch score of a value, `(value − corrupted) / (clean − corrupted)`: 0 is the corrupted run, 1 the clean one, whichever
    /// was patched. NaN where the runs differ by rounding alone.
    pub fn score(&self, value: f64) -> f64 {
        if self.is_resolved() { (value - self.corrupted) / (self.clean - self.corrupted) } else { f64::NAN }
    }

    /// Whether the runs differ by more than rounding.
    pub fn is_resolved(&self) -> bool {
        (self.clean - self.corrupted).abs() > self.noise_floor
    }
}

impl PatchGrid {
    /// A grid at a site.
    ///
    /// # Errors
    /// Where the runs have unequally many tokens or none, or there are no such positions or heads.
    pub fn new(
        clean: Run,
        corrupted: Run,
        site: Site,
        cells: Cells,
        direction: Direction,
    ) -> Result<PatchGrid, InsideError> {
        let tokens = clean.ids.len();
        if tokens != corrupted.ids.len() {
            return Err(InsideError::Lengths { clean: tokens, corrupted: corrupted.ids.len() });
        }
        if tokens == 0 {
            return Err(InsideError::NoTokens);
        }
        let positions = match &cells {
            Cells::Positions(positions) => positions.clone(),
            Cells::Heads { positions } => positions.clone().unwrap_or(0..tokens),
        };
        if positions.is_empty() || positions.end > tokens {
            return Err(InsideError::Positions { positions, tokens });
        }
        let has_heads = matches!(site, Site::Q | Site::K | Site::V | Site::Pattern | Site::Z);
        if matches!(cells, Cells::Heads { .. }) && !has_heads {
            return Err(InsideError::NoHeads { site });
        }
        Ok(PatchGrid { clean, corrupted, site, cells, direction })
    }

    /// Runs it: the run that is patched from once, with its activations kept, then all cells as one sweep.
    ///
    /// # Errors
    /// Where runs or metric do not fit the model, nothing can be patched, or the caller broke off.
    pub fn run(&self, session: &mut Session, metric: &Metric, limits: Limits<'_>) -> Result<Grid, InsideError> {
        metric.check()?;
        let (from, to, name) = match self.direction {
            Direction::Denoise => (&self.clean, &self.corrupted, "clean"),
            Direction::Noise => (&self.corrupted, &self.clean, "corrupted"),
        };
        let shape = session.model().plan_shape();
        for run in [from, to] {
            run.plan.validate(&shape)?;
        }
        let rows = self.rows(from, to)?;
        let columns = match &self.cells {
            Cells::Positions(positions) => positions.clone(),
            Cells::Heads { .. } => 0..shape.n_head,
        };
        check_size((rows.len() * columns.len() + 1) as u128, to.plan.executions().count())?;
        let references = to.with_reference(name, activations(session, from, metric, &rows, self.site)?)?;
        let own = measure(session, vec![from.plan.clone()], &from.ids, &from.references, metric, limits)?;
        let mut plans = vec![to.plan.clone()];
        for row in &rows {
            for column in columns.clone() {
                plans.push(to.plan.with_modifiers(&[(row.index, self.patch(name, column))])?);
            }
        }
        let Measured { values, cost } = measure(session, plans, &to.ids, &references, metric, limits)?;
        let (clean, corrupted) = match self.direction {
            Direction::Denoise => (own.values[0], values[0]),
            Direction::Noise => (values[0], own.values[0]),
        };
        Ok(Grid {
            rows,
            clean,
            corrupted,
            values: values[1..].chunks(columns.len()).map(<[f64]>::to_vec).collect(),
            columns,
            noise_floor: noise_floor(session.precision()),
            cost,
        })
    }

    /// What can be patched.
    fn rows(&self, from: &Run, to: &Run) -> Result<Vec<GridRow>, InsideError> {
        let there = |placed: &Placed<'_>| {
            let source = from.plan.locate(&format!("blocks.{}", placed.execution.layer));
            source.is_ok_and(|source| self.site.is_in(source.execution.part)) && self.site.is_in(placed.execution.part)
        };
        let rows: Vec<GridRow> = to.plan.executions().filter(there).map(|placed| GridRow::new(&placed)).collect();
        if rows.is_empty() {
            let (plan, other) = (to.plan.clone(), from.plan.clone());
            return Err(InsideError::NoRows { plan, other, site: self.site });
        }
        Ok(rows)
    }

    /// The change of a cell.
    fn patch(&self, name: &str, column: usize) -> Modifier {
        let (units, positions) = match &self.cells {
            Cells::Positions(_) => (Vec::new(), Some(column..column + 1)),
            Cells::Heads { positions } => (vec![column], positions.clone()),
        };
        Modifier { action: Action::Patch { from: name.to_owned() }, site: self.site, units, positions }
    }
}

/// What a run leaves at a site of some layers.
pub(super) fn activations(
    session: &mut Session,
    run: &Run,
    metric: &Metric,
    rows: &[GridRow],
    site: Site,
) -> Result<Activations, InsideError> {
    let ids = [&run.ids, metric.behind()].concat();
    let wanted: Vec<(usize, Site)> = rows.iter().map(|row| (row.layer, site)).collect();
    let batch = Batch::new([&ids[..]]).with_references([run.references.clone()]);
    Ok(session.activations(&run.plan, &batch, &wanted)?.remove(0))
}
