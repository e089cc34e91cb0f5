//! The work that a [`Graph`] asks for: which half-steps run as one, which rows of each state are computed, and what each
//! piece of work needs.
//!
//! A row is computed where something looks at it: keys and values are those of all rows, a plan's last step gives only those
//! that are scored, and what a state has in common with another one is the other's (see [`Common`]).

use super::graph::{Changed, Common, Graph, NodeId, Op, ROOT};
use crate::forward::{Attention, Passage, Rows};
use crate::plan::Bridge;

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
    /// The states that have rows of theirs, where those are looked at.
    bases: Vec<NodeId>,
    /// The heads' outputs, where it begins with them.
    pub(super) heads: Option<NodeId>,
    /// The layer.
    pub(super) layer: usize,
    /// What changes.
    pub(super) changed: Changed,
    /// The shortcut.
    pub(super) bridge: Option<Box<Bridge>>,
    /// What it gives.
    pub(super) to: NodeId,
    /// The first position whose rows it gives; of scored rows alone it gives all.
    pub(super) start: usize,
    /// Whether other jobs need that.
    pub(super) stored: bool,
    /// Jobs before it on the longest way from the embedding.
    pub(super) depth: u32,
}

impl Job {
    /// The states that it takes further.
    fn own_inputs(&self) -> impl Iterator<Item = NodeId> {
        self.from.iter().copied().chain(self.heads)
    }

    /// All states that it looks at, some of them twice.
    pub(super) fn inputs(&self) -> impl Iterator<Item = NodeId> {
        self.own_inputs().chain(self.bases.iter().copied())
    }
}

/// Whether keys and values of all rows are made.
fn attends(op: &Op) -> bool {
    matches!(op, Op::Attention { .. } | Op::Heads { .. })
}

/// The jobs of a graph.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    pub(super) jobs: Vec<Job>,
    /// For each node, the jobs that need it.
    pub(super) users: Vec<Vec<u32>>,
    /// For each node, the job that gives it.
    giver: Vec<Option<u32>>,
    /// For each node, which rows are kept of it.
    pub(super) rows: Vec<Rows>,
    /// For each node of whole sequences, the first position whose rows it has itself.
    pub(super) starts: Vec<usize>,
    /// For each node, where the rows before that are.
    common: Vec<Option<Common>>,
    /// The nodes that others have rows of.
    pub(super) bases: Vec<NodeId>,
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
            let is_whole = match &nodes[id] {
                Op::Attention { changed, .. } | Op::Heads { changed, .. } => changed.takes_all_rows(),
                _ => false,
            };
            if is_whole || consumers[id].iter().any(|&c| attends(&nodes[c]) || rows[c] == Rows::All) {
                rows[id] = Rows::All;
            }
            if rows[id] == Rows::All
                && !ends[id]
                && let Some(common) = graph.common[id]
            {
                rows[common.with as usize] = Rows::All;
            }
        }
        // A plan's end is scored as soon as it is there, whether the other is or not.
        let in_common = |id: usize| graph.common[id].filter(|_| rows[id] == Rows::All && !ends[id]);
        let common: Vec<Option<Common>> = (0..nodes.len()).map(in_common).collect();
        let mut starts: Vec<usize> = common.iter().map(|common| common.map_or(0, |common| common.before)).collect();
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
        let mut joined: Vec<Option<(usize, Changed)>> = (0..nodes.len()).map(joined).collect();
        for id in 0..nodes.len() {
            // Of the heads' outputs nobody has more than what is projected, with the MLP half that goes along.
            if let Op::Heads { .. } = nodes[id] {
                let wanted = consumers[id].iter().map(|&c| {
                    let end = joined[c].as_ref().map_or(c, |(mlp, _)| *mlp);
                    if rows[end] == Rows::All { starts[end] } else { 0 }
                });
                starts[id] = if rows[id] == Rows::All { wanted.min().unwrap_or(0) } else { 0 };
            }
        }
        // Unless others have rows of it.
        let mut is_base = vec![false; nodes.len()];
        for (id, common) in common.iter().enumerate() {
            let Some(common) = common else { continue };
            let apart = consumers[id].iter().filter(|&&c| joined[id].as_ref().is_none_or(|(with, _)| *with != c));
            let mut looked_at = apart.map(|&c| attends(&nodes[c]) || starts[c] < starts[id] || rows[c] == Rows::Scored);
            is_base[common.with as usize] |= looked_at.any(|looks| looks);
        }
        joined.iter_mut().zip(&is_base).filter(|(_, is_base)| **is_base).for_each(|(joined, _)| *joined = None);

        let (users, giver) = (vec![Vec::new(); nodes.len()], vec![None; nodes.len()]);
        let mut jobs = Jobs { jobs: Vec::new(), users, giver, rows, starts, common, bases: Vec::new() };
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
            let start = jobs.starts[id];
            let bases = jobs.bases_of(work, start, &from);
            // Only scored rows go straight to those that wait to be scored.
            let stored = !consumers[id].is_empty() || is_base[id] || rows == Rows::All;
            let bridge = if let Op::Bridge { bridge, .. } = op { Some(Box::new(bridge.clone())) } else { None };
            let to = id as NodeId;
            jobs.push(Job { work, from, bases, heads, layer, changed, bridge, to, start, stored, depth: 0 });
        }
        jobs.bases = jobs.jobs.iter().flat_map(|job| &job.bases).copied().collect();
        jobs.bases.sort_unstable();
        jobs.bases.dedup();
        jobs
    }

    /// Where rows before the first that states have themselves are, if such work looks at those.
    fn bases_of(&self, work: Work, start: usize, from: &[NodeId]) -> Vec<NodeId> {
        let all = match work {
            Work::Pass(Passage { attention: Attention::Whole | Attention::ToHeads, .. }) => true,
            Work::Pass(Passage { rows, .. }) | Work::Mean(rows) | Work::Change(rows) | Work::Bridge(rows) => {
                rows == Rows::Scored
            }
        };
        let needed = |node: &&NodeId| all || start < self.starts[**node as usize];
        from.iter().filter(needed).filter_map(|&node| Some(self.common[node as usize]?.with)).collect()
    }

    /// Where the rows of a node that come before its own are.
    pub(super) fn base(&self, node: NodeId) -> Option<NodeId> {
        self.common[node as usize].map(|common| common.with)
    }

    fn push(&mut self, mut job: Job) {
        let id = self.jobs.len() as u32;
        let before = job.inputs().filter_map(|input| self.giver[input as usize]);
        job.depth = before.map(|giver| self.jobs[giver as usize].depth + 1).max().unwrap_or(0);
        for input in job.inputs() {
            let users = &mut self.users[input as usize];
            // A group may name an end twice, and two states have the same base.
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

    /// Slots that it takes at most, beside a node's own, to finish all that comes of it depth first; those of bases aside.
    pub(super) fn heights(&self) -> Vec<usize> {
        let mut heights = vec![0; self.users.len()];
        for node in (0..self.users.len()).rev() {
            let behind = |&job: &u32| {
                let job = &self.jobs[job as usize];
                let kept = if job.stored { 1 + heights[job.to as usize] } else { 0 };
                // The other ends of a group wait, too.
                kept + job.own_inputs().filter(|&input| input as usize != node).count()
            };
            let takes_further = |job: &&u32| self.jobs[**job as usize].own_inputs().any(|input| input as usize == node);
            heights[node] = match &self.users[node][..] {
                // Its last use makes room.
                [only] => behind(only).saturating_sub(1),
                users => users.iter().filter(takes_further).map(behind).max().unwrap_or(0),
            };
        }
        heights
    }

    /// Slots with which a depth-first run that has all bases certainly ends.
    pub(super) fn slots(&self) -> usize {
        1 + self.heights()[ROOT as usize] + self.bases.len()
    }
}
