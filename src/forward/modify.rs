//! What modifiers do to activations, for either precision: row by row, in the order in which they are written.

use super::batch::Batch;
use super::references::References;
use crate::plan::{Action, Modifier, Site};
use lesion_kernels::KvSpan;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::f64::consts::TAU;
use std::ops::{AddAssign, Range};

/// f32 or f64.
pub(super) trait Real: Copy + From<f32> + AddAssign {
    /// Rounded to it.
    fn of(value: f64) -> Self;
}

impl Real for f32 {
    fn of(value: f64) -> f32 {
        value as f32
    }
}

impl Real for f64 {
    fn of(value: f64) -> f64 {
        value
    }
}

/// A site's values among others: `columns` of rows of `stride` elements, in as many units as it has heads or neurons.
pub(super) struct View<'x, T> {
    pub(super) x: &'x mut [T],
    pub(super) stride: usize,
    pub(super) columns: Range<usize>,
    pub(super) units: usize,
}

impl<'x, T> View<'x, T> {
    /// Whole rows.
    pub(super) fn rows(x: &'x mut [T], width: usize, units: usize) -> View<'x, T> {
        View { x, stride: width, columns: 0..width, units }
    }
}

/// The modifiers of some rows of a pass.
#[derive(Clone, Copy)]
pub(super) struct Changes<'a> {
    /// Where the rows begin.
    pub(super) first_row: usize,
    /// The sequences that they belong to; rows are counted from the first.
    pub(super) spans: &'a [KvSpan],
    /// The whole sequences: their tokens and references.
    pub(super) source: &'a Batch,
    /// What sequences find by name that have nothing of their own.
    pub(super) all: &'a References,
    pub(super) layer: usize,
    /// Executions of the layer before this one.
    pub(super) occurrence: usize,
    pub(super) modifiers: &'a [Modifier],
}

/// A row, and where it stands.
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) sequence: usize,
    pub(super) position: usize,
}

impl<'a> Changes<'a> {
    /// Whether something changes at a site.
    pub(super) fn touch(&self, site: Site) -> bool {
        self.modifiers.iter().any(|modifier| modifier.site == site)
    }

    /// Modifiers of a site.
    pub(super) fn at(&self, site: Site) -> impl Iterator<Item = &'a Modifier> {
        self.modifiers.iter().filter(move |modifier| modifier.site == site)
    }

    /// All rows.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        let first_row = self.first_row;
        self.spans.iter().enumerate().flat_map(move |(sequence, span)| {
            (0..span.rows).map(move |i| Place {
                row: first_row + span.first_row + i,
                sequence,
                position: span.past + i,
            })
        })
    }

    fn references(&self, sequence: usize) -> &'a References {
        self.source.references(sequence, self.all)
    }

    /// Changes what stands at a site.
    pub(super) fn apply<T: Real>(&self, site: Site, view: &mut View<'_, T>) {
        let View { x, stride, columns, units } = view;
        for modifier in self.at(site) {
            let unit = columns.len() / *units;
            // Rows come sequence after sequence.
            let mut mean: Option<(usize, Vec<f32>)> = None;
            for Place { row, sequence, position } in self.places().filter(|place| is_at(modifier, place.position)) {
                let x = &mut x[row * *stride + columns.start..row * *stride + columns.end];
                let elements = elements(&modifier.units, unit, columns.len());
                let named = modifier.reference().and_then(|name| self.references(sequence).get(name));
                match &modifier.action {
                    Action::Zero => elements.for_each(|range| x[range].fill(T::from(0.0))),
                    Action::Mean { .. } => {
                        let known = mean.take().filter(|(of, _)| *of == sequence).or_else(|| {
                            named.and_then(|found| found.mean(self.layer, site)).map(|mean| (sequence, mean))
                        });
                        let (_, values) = mean.insert(known.expect("references are checked"));
                        elements.for_each(|range| set(&mut x[range.clone()], &values[range]));
                    }
                    Action::Patch { .. } => {
                        let from = named.and_then(|found| found.row(self.layer, site, position));
                        let from = from.expect("references are checked");
                        elements.for_each(|range| set(&mut x[range.clone()], &from[range]));
                    }
                    Action::Noise { sigma, seed } if sigma.get() != 0.0 => {
                        let noise = self.noise(*seed, site, sequence, position, columns.len());
                        elements.for_each(|range| {
                            x[range.clone()]
                                .iter_mut()
                                .zip(&noise[range])
                                .for_each(|(x, z)| *x += T::of(sigma.get() * z));
                        });
                    }
                    // Adding 0 would turn −0 into 0.
                    Action::Noise { .. } => {}
                    Action::Steer { times, .. } if times.get() != 0.0 => {
                        let along = named.and_then(|found| found.row(self.layer, site, 0));
                        let along = along.expect("references are checked");
                        x.iter_mut().zip(along).for_each(|(x, v)| *x += T::of(times.get() * f64::from(*v)));
                    }
                    Action::Steer { .. } | Action::Knockout { .. } => {}
                }
            }
        }
    }

    /// A row of independent standard normal numbers, whatever else is drawn: the key is the seed, the tokens up to the row's,
    /// layer, occurrence, site and position; each element has its place in the stream (Box and Muller 1958).
    fn noise(&self, seed: u64, site: Site, sequence: usize, position: usize, len: usize) -> Vec<f64> {
        let span = &self.source.spans[sequence];
        let ids = &self.source.ids[span.first_row..=span.first_row + position - span.past];
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&fingerprint(ids).to_le_bytes());
        key[16..20].copy_from_slice(&(self.layer as u32).to_le_bytes());
        key[20..24].copy_from_slice(&(self.occurrence as u32).to_le_bytes());
        let site = Site::CHANGED.iter().position(|known| *known == site).map_or(u32::MAX, |at| at as u32);
        key[24..28].copy_from_slice(&site.to_le_bytes());
        key[28..].copy_from_slice(&(position as u32).to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        // In (0, 1]: the logarithm of 0 is infinite.
        let mut uniform = || ((random.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        let mut noise = Vec::with_capacity(len + 1);
        while noise.len() < len {
            let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), TAU * uniform());
            noise.extend([radius * angle.cos(), radius * angle.sin()]);
        }
        noise.truncate(len);
        noise
    }

    /// Whether a head's pattern changes for a query.
    pub(super) fn touch_pattern(&self, head: usize, position: usize) -> bool {
        self.at(Site::Pattern).any(|modifier| is_at(modifier, position) && has_unit(modifier, head))
    }

    /// What changes the pattern of one query and head.
    fn touching(&self, head: usize, place: &Place) -> impl Iterator<Item = &'a Modifier> {
        let position = place.position;
        self.at(Site::Pattern).filter(move |modifier| is_at(modifier, position) && has_unit(modifier, head))
    }

    /// The scores of one query and head, `[keys up to it]`, −∞ where it is not to look.
    pub(super) fn knock_out(&self, scores: &mut [f64], head: usize, place: &Place) {
        for modifier in self.touching(head, place) {
            if let Action::Knockout { keys } = &modifier.action {
                let keys = keys.start.min(scores.len())..keys.end.min(scores.len());
                scores[keys].fill(f64::NEG_INFINITY);
            }
        }
    }

    /// The attention probabilities of one query and head, of its scores behind [`Changes::knock_out`].
    pub(super) fn pattern(&self, scores: &[f64], head: usize, place: &Place) -> Vec<f64> {
        let mut pattern = lesion_kernels::reference::softmax(scores);
        for modifier in self.touching(head, place) {
            if let (Action::Patch { .. }, Some(name)) = (&modifier.action, modifier.reference()) {
                let found = self.references(place.sequence).get(name).expect("references are checked");
                let row = found.row(self.layer, Site::Pattern, place.position).expect("references are checked");
                let row = &row[head * found.tokens()..][..pattern.len()];
                pattern.iter_mut().zip(row).for_each(|(p, frozen)| *p = f64::from(*frozen));
            }
        }
        pattern
    }

    /// The frozen scale of a LayerNorm for a row.
    pub(super) fn scale(&self, site: Site, place: &Place) -> Option<f64> {
        let modifier = self.at(site).filter(|modifier| is_at(modifier, place.position)).last()?;
        let found = self.references(place.sequence).get(modifier.reference()?)?;
        found.row(self.layer, site, place.position).map(|row| f64::from(row[0]))
    }
}

/// A LayerNorm whose scale is given: `(x − mean) / scale · weight + bias`.
pub(super) fn scaled<T: Real + Into<f64>>(x: &[T], weight: &[f32], bias: &[f32], scale: f64, out: &mut [T]) {
    let mean = x.iter().map(|&x| x.into()).sum::<f64>() / x.len() as f64;
    for ((out, &x), (&w, &b)) in out.iter_mut().zip(x).zip(weight.iter().zip(bias)) {
        *out = T::of((x.into() - mean) / scale * f64::from(w) + f64::from(b));
    }
}

fn is_at(modifier: &Modifier, position: usize) -> bool {
    modifier.positions.as_ref().is_none_or(|positions| positions.contains(&position))
}

fn has_unit(modifier: &Modifier, unit: usize) -> bool {
    modifier.units.is_empty() || modifier.units.binary_search(&unit).is_ok()
}

/// The elements of these units, `width` each; all `len` where none is named.
fn elements(units: &[usize], width: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    let all = units.is_empty().then_some(0..len);
    all.into_iter().chain(units.iter().map(move |&unit| unit * width..(unit + 1) * width))
}

fn set<T: Real>(to: &mut [T], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = T::from(from));
}

/// A number for a beginning of a text: FNV-1a over its ids.
fn fingerprint(ids: &[u32]) -> u64 {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
