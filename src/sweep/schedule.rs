//! In which order the half-steps of a [`Graph`] run, and which of them together: decided beforehand, on paper, so that
//! the memory that states take is known before any is computed, and kept.
//!
//! Work is done in *jobs*: a node (a half-step, a bridge), or an attention half with the MLP half behind it where nothing else needs what lies
//! between. Jobs of one kind (layer, halves, rows) may run as one batch, whatever plans they belong to. The order is greedy:
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

use super::graph::{Changed, Graph, NodeId, Op, ROOT};
use crate::forward::{Attention, Passage, Rows};
use crate::plan::Bridge;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// What a job does: jobs of equal work may run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Work {
    /// A layer, or a part of it.
    Pass(Passage),
    /// The mean of the ends of a group's branches.
    Mean(Rows),
    /// What modifiers do to the residual stream.
    Change(Rows),
    /// A linear shortcut.
    Bridge(Rows),
}

/// A unit of work: what a state, or several, become.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    /// The state (the states that are averaged).
    pub(super) from: Vec<NodeId>,
    /// The heads' outputs, where it begins with them.
    pub(super) heads: Option<NodeId>,
    /// The layer.
    pub(super) layer: usize,
    /// What changes.
    pub(super) changed: Changed,
    /// The shortcut.
    pub(super) bridge: Option<Bridge>,
    /// What it gives.
    pub(super) to: NodeId,
    /// Whether other jobs need that.
    pub(super) stored: bool,
    /// Jobs before it on the longest way from the embedding.
    depth: u32,
}

impl Job {
    fn inputs(&self) -> impl Iterator<Item = NodeId> {
        self.from.iter().copied().chain(self.heads)
    }
}

/// The jobs of a graph.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    pub(super) jobs: Vec<Job>,
    /// For each node, the jobs that need it.
    users: Vec<Vec<u32>>,
    /// For each node, the job that gives it.
    giver: Vec<Option<u32>>,
    /// For each node, which rows are kept of it.
    pub(super) rows: Vec<Rows>,
}

impl Jobs {
    pub(super) fn new(graph: &Graph, intact: Option<NodeId>) -> Jobs {
        let nodes = &graph.nodes;
        let mut consumers = vec![Vec::new(); nodes.len()];
        for (id, op) in nodes.iter().enumerate() {
            op.inputs().iter().for_each(|&input| consumers[input as usize].push(id));
        }
        let mut ends = vec![false; nodes.len()];
        graph.ends.iter().chain(&intact).for_each(|&end| ends[end as usize] = true);

        // Keys and values are those of all rows; a row's MLP needs nothing but the row.
        let mut rows = vec![Rows::Scored; nodes.len()];
        rows[ROOT as usize] = Rows::All;
        for id in (0..nodes.len()).rev() {
            let attends = |c: &usize| matches!(nodes[*c], Op::Attention { .. } | Op::Heads { .. });
            let is_whole = match &nodes[id] {
                Op::Attention { changed, .. } | Op::Heads { changed, .. } => changed.takes_all_rows(),
                _ => false,
            };
            if is_whole || consumers[id].iter().any(|c| attends(c) || rows[*c] == Rows::All) {
                rows[id] = Rows::All;
            }
        }

        // An attention half that only the MLP half of its layer needs becomes one job with it.
        let joined = |id: usize| match (&nodes[id], &consumers[id][..]) {
            (Op::Attention { layer, changed, .. } | Op::Projection { layer, changed, .. }, &[only])
                if !ends[id] && rows[id] == rows[only] =>
            {
                match &nodes[only] {
                    Op::Mlp { layer: same, changed: behind, .. } if layer == same => {
                        Some((only, changed.joined(behind)?))
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        let joined: Vec<Option<(usize, Changed)>> = (0..nodes.len()).map(joined).collect();

        let mut jobs =
            Jobs { jobs: Vec::new(), users: vec![Vec::new(); nodes.len()], giver: vec![None; nodes.len()], rows };
        for id in 1..nodes.len() {
            if joined[id].is_some() {
                continue;
            }
            // An MLP half takes the attention half before it along.
            let before = match &nodes[id] {
                Op::Mlp { from, .. } => joined[*from as usize].as_ref().map(|(_, changed)| (*from, changed)),
                _ => None,
            };
            let (op, mlp) = before.map_or((&nodes[id], false), |(from, _)| (&nodes[from as usize], true));
            let rows = jobs.rows[id];
            let passage = |layer, attention, mlp| Work::Pass(Passage { layer, attention, mlp, rows });
            let (work, from, heads, layer, changed) = match op {
                Op::Attention { from, layer, changed } => {
                    (passage(*layer, Attention::Whole, mlp), vec![*from], None, *layer, changed.clone())
                }
                Op::Heads { from, layer, changed } => {
                    (passage(*layer, Attention::ToHeads, false), vec![*from], None, *layer, changed.clone())
                }
                Op::Projection { from, heads, layer, changed } => {
                    (passage(*layer, Attention::FromHeads, mlp), vec![*from], Some(*heads), *layer, changed.clone())
                }
                Op::Mlp { from, layer, changed } => {
                    (passage(*layer, Attention::None, true), vec![*from], None, *layer, changed.clone())
                }
                Op::Change { from, layer, changed } => (Work::Change(rows), vec![*from], None, *layer, changed.clone()),
                Op::Mean { from } => (Work::Mean(rows), from.clone(), None, 0, Changed::default()),
                Op::Bridge { from, .. } => (Work::Bridge(rows), vec![*from], None, 0, Changed::default()),
                Op::Embed => unreachable!("only the root is an embedding"),
            };
            let changed = before.map_or(changed, |(_, both)| both.clone());
            let stored = !consumers[id].is_empty();
            let bridge = if let Op::Bridge { bridge, .. } = op { Some(bridge.clone()) } else { None };
            jobs.push(Job { work, from, heads, layer, changed, bridge, to: id as NodeId, stored, depth: 0 });
        }
        jobs
    }

    fn push(&mut self, mut job: Job) {
        let id = self.jobs.len() as u32;
        let before = job.inputs().filter_map(|input| self.giver[input as usize]);
        job.depth = before.map(|giver| self.jobs[giver as usize].depth + 1).max().unwrap_or(0);
        for input in job.inputs() {
            let users = &mut self.users[input as usize];
            // A group may name an end twice.
            if users.last() != Some(&id) {
                users.push(id);
            }
        }
        self.giver[job.to as usize] = Some(id);
        self.jobs.push(job);
    }

    /// The jobs on the way to a node, in their order.
    pub(super) fn path(&self, node: NodeId) -> Vec<u32> {
        let mut path = Vec::new();
        let mut waiting: Vec<u32> = self.giver[node as usize].into_iter().collect();
        while let Some(job) = waiting.pop() {
            if !path.contains(&job) {
                path.push(job);
                waiting.extend(self.jobs[job as usize].inputs().filter_map(|input| self.giver[input as usize]));
            }
        }
        path.sort_unstable();
        path
    }

    /// Slots that it takes at most, beside a node's own, to finish all that comes of it depth first.
    fn heights(&self) -> Vec<usize> {
        let mut heights = vec![0; self.users.len()];
        for node in (0..self.users.len()).rev() {
            let behind = |&job: &u32| {
                let job = &self.jobs[job as usize];
                let kept = if job.stored { 1 + heights[job.to as usize] } else { 0 };
                // The other ends of a group wait, too.
                kept + job.inputs().filter(|&input| input as usize != node).count()
            };
            heights[node] = match &self.users[node][..] {
                // Its last use makes room.
                [only] => behind(only).saturating_sub(1),
                users => users.iter().map(behind).max().unwrap_or(0),
            };
        }
        heights
    }

    /// Slots with which a depth-first run certainly ends.
    pub(super) fn slots(&self) -> usize {
        1 + self.heights()[ROOT as usize]
    }
}

/// Rows of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Size {
    /// Of whole sequences.
    pub(super) all: usize,
    /// Of the scored rows alone.
    pub(super) scored: usize,
}

impl Size {
    pub(super) fn of(&self, rows: Rows) -> usize {
        match rows {
            Rows::All => self.all,
            Rows::Scored => self.scored,
        }
    }
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
            peak: 0,
            left: jobs.jobs.len(),
            slots: vec![0; jobs.users.len()],
            free_slots: BinaryHeap::new(),
            batches: Vec::new(),
        };
        planner.store(ROOT);
        planner
    }

    /// A state is there: jobs that wait for nothing else are ready.
    fn store(&mut self, node: NodeId) {
        let Reverse(slot) = self.free_slots.pop().unwrap_or(Reverse(self.held as u32));
        self.slots[node as usize] = slot;
        self.held += 1;
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
            Work::Pass(Passage { rows, .. }) => self.size.of(rows),
        };
        (self.bounds.batch / rows.max(1)).max(1)
    }

    /// Slots held behind a batch, and the greatest height among the states that are held then.
    fn outcome(&self, jobs: &[u32]) -> (usize, usize) {
        let mut used: BTreeMap<NodeId, u32> = BTreeMap::new();
        let (mut held, mut height) = (self.held, 0);
        for &job in jobs {
            self.inputs(job).into_iter().for_each(|node| *used.entry(node).or_default() += 1);
            let Job { to, stored, .. } = self.jobs.jobs[job as usize];
            if stored {
                held += 1;
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
