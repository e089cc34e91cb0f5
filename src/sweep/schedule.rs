//! In which order the half-steps of a [`Graph`] run, and which of them together: decided beforehand, on paper, so that
//! the memory that states take is known before any is computed, and kept.
//!
//! Work is done in *jobs*: a node (a half-step, a bridge), or an attention half with the MLP half behind it where nothing else
//! needs what lies between. Jobs of one kind (layer, halves, rows) may run as one batch, whatever plans they belong to; bridges
//! run one by one. The order is greedy:
//!
//! - the deepest full batch first, which soon frees memory;
//! - else a kind whose jobs are all ready, since waiting would add none (this runs the subsets of 12 layers layer by layer);
//! - else the largest batch there is.
//!
//! A batch is taken only where the states that it leaves, and what it then takes at most to finish any of them depth first,
//! have room. Where no batch has, the deepest job runs alone: depth first, which always ends.
//!
//! Memory is counted in slots, each of which holds a state of whole sequences. A batch's inputs are copied to the workspace
//! before its outputs are stored, so that the last use of a state makes room for what becomes of it.

use super::graph::{NodeId, ROOT};
use super::jobs::{Job, Jobs, Work};
use crate::forward::{Attention, Passage, Rows};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Rows of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Size {
    /// Of whole sequences.
    pub(super) all: usize,
    /// Of the scored rows alone.
    pub(super) scored: usize,
}

/// Jobs that run together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) work: Work,
    pub(super) jobs: Vec<u32>,
}

/// An order of all jobs.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) batches: Vec<Batch>,
    /// Where each node's state is kept.
    pub(super) slots: Vec<u32>,
    /// Slots that are needed.
    pub(super) peak: usize,
}

/// The limits of a schedule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Slots for states.
    pub(super) slots: usize,
    /// Rows of one batch, which has one job at least.
    pub(super) batch: usize,
    /// Jobs of one batch at most: as many as can wait to be scored.
    pub(super) plans: usize,
}

/// There are too few slots for any order that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl Schedule {
    /// An order within bounds. The jobs of `first` run before all others, one by one.
    pub(super) fn new(jobs: &Jobs, size: Size, bounds: Bounds, first: &[u32]) -> Result<Schedule, NoRoom> {
        let mut planner = Planner::new(jobs, size, bounds);
        for &job in first {
            planner.take_alone(job);
        }
        while planner.left > 0 {
            if !planner.take_batch() && !planner.take_deepest() {
                return Err(NoRoom);
            }
        }
        let Planner { batches, slots, peak, .. } = planner;
        if peak > bounds.slots { Err(NoRoom) } else { Ok(Schedule { batches, slots, peak }) }
    }
}

struct Planner<'a> {
    jobs: &'a Jobs,
    size: Size,
    bounds: Bounds,
    heights: Vec<usize>,
    /// Uses of each node that are to come.
    uses: Vec<u32>,
    /// Inputs of each job that are to come.
    awaited: Vec<u32>,
    ready: BTreeMap<Work, Kind>,
    /// Heights of the states that are held.
    held_heights: BTreeMap<usize, u32>,
    held: usize,
    /// Whether others have rows of a node.
    is_base: Vec<bool>,
    /// Nodes that others have rows of and that are not there yet: their slots are kept free.
    bases_to_come: usize,
    peak: usize,
    left: usize,
    slots: Vec<u32>,
    free_slots: BinaryHeap<Reverse<u32>>,
    batches: Vec<Batch>,
}

#[derive(Default)]
struct Kind {
    /// The deepest on top; of equals the first.
    ready: BinaryHeap<(u32, Reverse<u32>)>,
    /// Jobs that are to come, ready or not.
    left: usize,
}

impl<'a> Planner<'a> {
    fn new(jobs: &'a Jobs, size: Size, bounds: Bounds) -> Planner<'a> {
        let mut ready: BTreeMap<Work, Kind> = BTreeMap::new();
        for job in &jobs.jobs {
            ready.entry(job.work).or_default().left += 1;
        }
        let distinct = |job: &Job| {
            let mut inputs: Vec<NodeId> = job.inputs().collect();
            inputs.sort_unstable();
            inputs.dedup();
            inputs.len() as u32
        };
        let mut planner = Planner {
            jobs,
            size,
            bounds,
            heights: jobs.heights(),
            uses: jobs.users.iter().map(|users| users.len() as u32).collect(),
            awaited: jobs.jobs.iter().map(distinct).collect(),
            ready,
            held_heights: BTreeMap::new(),
            held: 0,
            is_base: vec![false; jobs.users.len()],
            bases_to_come: jobs.bases.len(),
            peak: 0,
            left: jobs.jobs.len(),
            slots: vec![0; jobs.users.len()],
            free_slots: BinaryHeap::new(),
            batches: Vec::new(),
        };
        jobs.bases.iter().for_each(|&base| planner.is_base[base as usize] = true);
        planner.store(ROOT);
        planner
    }

    /// A state is there: jobs that wait for nothing else are ready.
    fn store(&mut self, node: NodeId) {
        let Reverse(slot) = self.free_slots.pop().unwrap_or(Reverse(self.held as u32));
        self.slots[node as usize] = slot;
        self.held += 1;
        self.bases_to_come -= usize::from(self.is_base[node as usize]);
        self.peak = self.peak.max(self.held);
        *self.held_heights.entry(self.heights[node as usize]).or_default() += 1;
        for &user in &self.jobs.users[node as usize] {
            self.awaited[user as usize] -= 1;
            if self.awaited[user as usize] == 0 {
                let job = &self.jobs.jobs[user as usize];
                self.ready.entry(job.work).or_default().ready.push((job.depth, Reverse(user)));
            }
        }
    }

    fn free(&mut self, node: NodeId) {
        self.held -= 1;
        self.free_slots.push(Reverse(self.slots[node as usize]));
        let height = self.heights[node as usize];
        if let Some(count) = self.held_heights.get_mut(&height) {
            *count -= 1;
            if *count == 0 {
                self.held_heights.remove(&height);
            }
        }
    }

    /// Takes jobs off their heap and runs them, on paper.
    fn run(&mut self, work: Work, jobs: Vec<u32>) {
        for &job in &jobs {
            for node in self.inputs(job) {
                self.uses[node as usize] -= 1;
                if self.uses[node as usize] == 0 {
                    self.free(node);
                }
            }
        }
        for &job in &jobs {
            let Job { to, stored, .. } = self.jobs.jobs[job as usize];
            if stored {
                self.store(to);
            }
        }
        // What nobody needs is scored at once.
        for &job in &jobs {
            let Job { to, stored, .. } = self.jobs.jobs[job as usize];
            if stored && self.uses[to as usize] == 0 {
                self.free(to);
            }
        }
        self.left -= jobs.len();
        self.ready.entry(work).or_default().left -= jobs.len();
        self.batches.push(Batch { work, jobs });
    }

    /// The nodes that a job needs, each once.
    fn inputs(&self, job: u32) -> Vec<NodeId> {
        let mut inputs: Vec<NodeId> = self.jobs.jobs[job as usize].inputs().collect();
        inputs.sort_unstable();
        inputs.dedup();
        inputs
    }

    /// How many jobs of this work a batch may hold.
    fn capacity(&self, work: Work) -> usize {
        let rows = match work {
            Work::Mean(_) | Work::Change(_) | Work::Bridge(_) => return 1,
            Work::Pass(Passage { attention: Attention::Whole | Attention::ToHeads, .. }) => self.size.all,
            Work::Pass(Passage { rows: Rows::All, .. }) => self.size.all,
            Work::Pass(Passage { rows: Rows::Scored, .. }) => self.size.scored,
        };
        (self.bounds.batch / rows.max(1)).min(self.bounds.plans).max(1)
    }

    /// Slots held behind a batch or kept free for bases, and the greatest height among the states that are held then.
    fn outcome(&self, jobs: &[u32]) -> (usize, usize) {
        let mut used: BTreeMap<NodeId, u32> = BTreeMap::new();
        let (mut held, mut height) = (self.held + self.bases_to_come, 0);
        for &job in jobs {
            self.inputs(job).into_iter().for_each(|node| *used.entry(node).or_default() += 1);
            let Job { to, stored, .. } = self.jobs.jobs[job as usize];
            if stored {
                held += usize::from(!self.is_base[to as usize]);
                height = height.max(self.heights[to as usize]);
            }
        }
        let mut freed: BTreeMap<usize, u32> = BTreeMap::new();
        for (node, times) in used {
            if self.uses[node as usize] == times {
                held -= 1;
                *freed.entry(self.heights[node as usize]).or_default() += 1;
            }
        }
        let kept = self.held_heights.iter().rev().find(|(height, count)| freed.get(height) != Some(count));
        (held, height.max(kept.map_or(0, |(height, _)| *height)))
    }

    /// The best batch that leaves room to go on depth first from any state; false if there is none.
    fn take_batch(&mut self) -> bool {
        // Full batches by depth, complete kinds, then what has most rows.
        let mut candidates: Vec<_> = self
            .ready
            .iter()
            .filter(|(_, kind)| !kind.ready.is_empty())
            .map(|(&work, kind)| {
                let (ready, capacity) = (kind.ready.len(), self.capacity(work));
                let depth = kind.ready.peek().map_or(0, |(depth, _)| *depth);
                let order = if ready >= capacity {
                    (2, depth as usize, 0)
                } else if ready == kind.left {
                    (1, usize::MAX - depth as usize, 0)
                } else {
                    (0, ready, depth as usize)
                };
                (order, work, ready.min(capacity))
            })
            .collect();
        candidates.sort_unstable_by_key(|&(order, work, _)| (Reverse(order), work));
        for (_, work, most) in candidates {
            let mut jobs = self.pop(work, most);
            loop {
                let (held, height) = self.outcome(&jobs);
                if held + height <= self.bounds.slots {
                    self.run(work, jobs);
                    return true;
                }
                let half = jobs.len() / 2;
                self.push_back(work, jobs.split_off(half));
                if jobs.is_empty() {
                    break;
                }
            }
        }
        false
    }

    /// The deepest job that has room, alone.
    fn take_deepest(&mut self) -> bool {
        let mut tops: Vec<(u32, Work)> =
            self.ready.iter().filter_map(|(&work, kind)| Some((kind.ready.peek()?.0, work))).collect();
        tops.sort_unstable_by_key(|&(depth, work)| (Reverse(depth), work));
        for (_, work) in tops {
            let jobs = self.pop(work, 1);
            if self.outcome(&jobs).0 <= self.bounds.slots {
                self.run(work, jobs);
                return true;
            }
            self.push_back(work, jobs);
        }
        false
    }

    /// A job that is ready, wherever it stands.
    fn take_alone(&mut self, job: u32) {
        let work = self.jobs.jobs[job as usize].work;
        let kind = self.ready.entry(work).or_default();
        kind.ready.retain(|(_, Reverse(ready))| *ready != job);
        self.run(work, vec![job]);
    }

    fn pop(&mut self, work: Work, count: usize) -> Vec<u32> {
        let ready = &mut self.ready.entry(work).or_default().ready;
        (0..count).filter_map(|_| ready.pop()).map(|(_, Reverse(job))| job).collect()
    }

    fn push_back(&mut self, work: Work, jobs: Vec<u32>) {
        let depths = jobs.into_iter().map(|job| (self.jobs.jobs[job as usize].depth, Reverse(job)));
        self.ready.entry(work).or_default().ready.extend(depths);
    }
}
