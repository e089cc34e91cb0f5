//! What many plans share. Every plan is a path of half-steps from the embedding; plans that begin alike share their path
//! as far as they do, so that the paths form a trie. Branches of a group are paths too, from the state in which the group
//! begins, and share what they can with any other path; where they join, the trie becomes an acyclic graph.
//!
//! A node is the state behind its half-step, or behind a bridge. Its identity is the state it comes from and everything that
//! was done: the layer, the half, the modifiers (and which execution of the layer it is, where noise is drawn by it). Attention
//! halves that differ from the heads' outputs on alone share all up to them. What modifiers do to the residual stream is a node
//! of its own.
//!
//! A modifier of some positions leaves those before them as they are. A node whose only difference from another one are such
//! modifiers, its own or those of its ancestors, knows the first position at which it may differ, and where the rest is: see
//! [`Common`].

use crate::plan::{Action, Bridge, Execution, Modifier, Part, Plan, Site, Step};
use std::collections::HashMap;

/// The number of a node. Parents come before their children.
pub(super) type NodeId = u32;

/// The state before any step.
pub(super) const ROOT: NodeId = 0;

/// What makes a node of the nodes it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// The embedding.
    Embed,
    /// A whole attention half.
    Attention { from: NodeId, layer: usize, changed: Changed },
    /// An attention half up to the heads' outputs.
    Heads { from: NodeId, layer: usize, changed: Changed },
    /// An attention half from the heads' outputs on.
    Projection { from: NodeId, heads: NodeId, layer: usize, changed: Changed },
    /// An MLP half.
    Mlp { from: NodeId, layer: usize, changed: Changed },
    /// A change of the residual stream.
    Change { from: NodeId, layer: usize, changed: Changed },
    /// The mean of the ends of a group's branches, in their order.
    Mean { from: Vec<NodeId> },
    /// A linear shortcut.
    Bridge { from: NodeId, bridge: Bridge },
}

/// Modifiers, and which execution of the layer it is, where noise is drawn by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Changed {
    pub(super) modifiers: Vec<Modifier>,
    pub(super) occurrence: Option<usize>,
}

/// No change.
static NOTHING: Changed = Changed { modifiers: Vec::new(), occurrence: None };

impl Changed {
    /// Those modifiers that stand at such sites.
    fn of(modifiers: &[Modifier], occurrence: Option<usize>, is_here: impl Fn(Site) -> bool) -> Changed {
        let modifiers = modifiers.iter().filter(|modifier| is_here(modifier.site)).cloned().collect();
        Changed { modifiers, occurrence }.drawn()
    }

    /// What is done before the heads' outputs are there, and from them on.
    fn at_heads(&self) -> (Changed, Changed) {
        let early = |site| site < Site::Z;
        let of = |is_here: &dyn Fn(Site) -> bool| Changed::of(&self.modifiers, self.occurrence, is_here);
        (of(&early), of(&|site| !early(site)))
    }

    /// Both, one behind the other, unless they belong to different executions and draw noise.
    pub(super) fn joined(&self, behind: &Changed) -> Option<Changed> {
        if let (Some(here), Some(there)) = (self.occurrence, behind.occurrence)
            && here != there
        {
            return None;
        }
        let modifiers = self.modifiers.iter().chain(&behind.modifiers).cloned().collect();
        Some(Changed { modifiers, occurrence: self.occurrence.or(behind.occurrence) })
    }

    /// Whether it takes whole sequences: keys, values or patterns change.
    pub(super) fn takes_all_rows(&self) -> bool {
        self.modifiers.iter().any(|modifier| modifier.site < Site::Z)
    }

    /// Without the modifiers of some positions alone, and the first of those positions.
    fn before_positions(&self) -> Option<(Changed, usize)> {
        let first = self.modifiers.iter().filter_map(|modifier| Some(modifier.positions.as_ref()?.start)).min()?;
        let everywhere = self.modifiers.iter().filter(|modifier| modifier.positions.is_none()).cloned().collect();
        Some((Changed { modifiers: everywhere, occurrence: self.occurrence }.drawn(), first))
    }

    /// Where no noise is drawn, it doesn't matter which execution it is.
    fn drawn(mut self) -> Changed {
        let drawn = self.modifiers.iter().any(|modifier| matches!(modifier.action, Action::Noise { .. }));
        self.occurrence = self.occurrence.filter(|_| drawn);
        self
    }
}

impl Op {
    /// The nodes it comes from.
    pub(super) fn inputs(&self) -> Vec<NodeId> {
        match self {
            Op::Embed => Vec::new(),
            Op::Attention { from, .. }
            | Op::Heads { from, .. }
            | Op::Mlp { from, .. }
            | Op::Change { from, .. }
            | Op::Bridge { from, .. } => vec![*from],
            Op::Projection { from, heads, .. } => vec![*from, *heads],
            Op::Mean { from } => from.clone(),
        }
    }

    /// The same with other inputs and changes, where it is a half-step of one state.
    fn of(&self, from: NodeId, changed: Changed) -> Option<Op> {
        match *self {
            Op::Bridge { ref bridge, .. } => Some(Op::Bridge { from, bridge: bridge.clone() }),
            Op::Attention { layer, .. } => Some(Op::Attention { from, layer, changed }),
            Op::Mlp { layer, .. } => Some(Op::Mlp { from, layer, changed }),
            Op::Change { layer, .. } => Some(Op::Change { from, layer, changed }),
            Op::Embed | Op::Heads { .. } | Op::Projection { .. } | Op::Mean { .. } => None,
        }
    }

    /// What modifies it.
    fn changed(&self) -> Option<&Changed> {
        match self {
            Op::Attention { changed, .. }
            | Op::Heads { changed, .. }
            | Op::Projection { changed, .. }
            | Op::Mlp { changed, .. }
            | Op::Change { changed, .. } => Some(changed),
            Op::Bridge { .. } => Some(&NOTHING),
            Op::Embed | Op::Mean { .. } => None,
        }
    }

    /// What it costs, in twelfths of a block evaluation: the shares of a block's multiply-adds.
    pub(super) fn twelfths(&self) -> u64 {
        match self {
            Op::Embed | Op::Mean { .. } | Op::Change { .. } => 0,
            Op::Heads { .. } => 3,
            Op::Projection { .. } | Op::Bridge { .. } => 1,
            Op::Attention { .. } => 4,
            Op::Mlp { .. } => 8,
        }
    }
}

/// What a state has in common with another one: all rows before a position, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Common {
    /// The first position at which they may differ: above 0.
    pub(super) before: usize,
    /// The other, which comes earlier and has all of its rows itself.
    pub(super) with: NodeId,
}

/// The half-steps of all plans, each once.
#[derive(Clone, Debug)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Op>,
    /// What nodes have in common with others.
    pub(super) common: Vec<Option<Common>>,
    /// Where each plan ends.
    pub(super) ends: Vec<NodeId>,
}

impl Graph {
    pub(super) fn new<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> Graph {
        let mut builder = Builder { nodes: vec![Op::Embed], known: HashMap::new(), occurrences: HashMap::new() };
        let mut plans: Vec<(usize, &Plan)> = plans.into_iter().enumerate().collect();
        // What others have their rows of comes before them.
        plans.sort_by_key(|(_, plan)| modifiers_of_positions(plan));
        let mut ends = vec![ROOT; plans.len()];
        for (i, plan) in plans {
            builder.occurrences.clear();
            ends[i] = builder.sequence(ROOT, plan.steps());
        }
        let common = builder.common();
        share_heads(builder.nodes, common, ends)
    }

    /// In twelfths of a block evaluation.
    pub(super) fn twelfths(&self) -> u64 {
        self.nodes.iter().map(Op::twelfths).sum()
    }
}

/// How many modifiers of a plan are those of some positions.
fn modifiers_of_positions(plan: &Plan) -> usize {
    let modifiers = plan.executions().flat_map(|placed| &placed.execution.modifiers);
    modifiers.filter(|modifier| modifier.positions.is_some()).count()
}

struct Builder {
    nodes: Vec<Op>,
    known: HashMap<Op, NodeId>,
    /// Executions of each layer so far, in the plan under way.
    occurrences: HashMap<usize, usize>,
}

impl Builder {
    fn node(&mut self, op: Op) -> NodeId {
        if let Some(&known) = self.known.get(&op) {
            return known;
        }
        let id = self.nodes.len() as NodeId;
        self.known.insert(op.clone(), id);
        self.nodes.push(op);
        id
    }

    fn sequence(&mut self, from: NodeId, steps: &[Step]) -> NodeId {
        steps.iter().fold(from, |from, step| match step {
            Step::Block(execution) => self.execution(from, execution),
            Step::Group(branches) => {
                let ends = branches.iter().map(|branch| self.sequence(from, branch)).collect();
                self.node(Op::Mean { from: ends })
            }
            Step::Bridge(bridge) => self.node(Op::Bridge { from, bridge: bridge.clone() }),
        })
    }

    fn execution(&mut self, mut from: NodeId, execution: &Execution) -> NodeId {
        let Execution { layer, part, modifiers } = execution;
        let layer = *layer;
        let times = self.occurrences.entry(layer).or_default();
        let occurrence = Some(*times);
        *times += 1;
        let changed = |is_here: &dyn Fn(Site) -> bool| Changed::of(modifiers, occurrence, is_here);
        from = self.change(from, layer, changed(&|site| site == Site::Pre));
        if *part != Part::Mlp {
            let changed = changed(&|site| site > Site::Pre && site < Site::Mid);
            from = self.node(Op::Attention { from, layer, changed });
        }
        from = self.change(from, layer, changed(&|site| site == Site::Mid));
        if *part != Part::Attention {
            let changed = changed(&|site| site > Site::Mid && site < Site::Post);
            from = self.node(Op::Mlp { from, layer, changed });
        }
        self.change(from, layer, changed(&|site| site == Site::Post))
    }

    /// What each node has in common with one before it.
    fn common(&self) -> Vec<Option<Common>> {
        let mut common: Vec<Option<Common>> = vec![None; self.nodes.len()];
        for (id, op) in self.nodes.iter().enumerate() {
            let (Some(changed), &[from]) = (op.changed(), &op.inputs()[..]) else { continue };
            let inherited = common[from as usize];
            let with = inherited.map_or(from, |common| common.with);
            let before = inherited.map_or(usize::MAX, |common| common.before);
            let same = inherited.map(|_| (changed.clone(), usize::MAX));
            let found = same.into_iter().chain(changed.before_positions()).find_map(|(rest, first)| {
                let known = match op {
                    Op::Change { .. } if rest.modifiers.is_empty() => Some(with),
                    _ => self.known.get(&op.of(with, rest.clone())?).copied(),
                };
                // Keys and values of the rows before are what the layer makes of them.
                let is_plain = !rest.takes_all_rows() && changed.modifiers.iter().all(|m| m.site != Site::Pattern);
                let known = known.filter(|&known| is_plain && (known as usize) < id)?;
                Some(Common { before: before.min(first), with: known })
            });
            // What the other has in common with a third is there.
            common[id] = found
                .map(|Common { before, with }| match common[with as usize] {
                    Some(third) => Common { before: before.min(third.before), with: third.with },
                    None => Common { before, with },
                })
                .filter(|common| common.before > 0);
        }
        common
    }

    fn change(&mut self, from: NodeId, layer: usize, changed: Changed) -> NodeId {
        match changed.modifiers.is_empty() {
            true => from,
            false => self.node(Op::Change { from, layer, changed }),
        }
    }
}

/// Divides attention halves of one state and layer that are the same up to the heads' outputs.
fn share_heads(nodes: Vec<Op>, common: Vec<Option<Common>>, ends: Vec<NodeId>) -> Graph {
    let early = |op: &Op| match op {
        Op::Attention { from, layer, changed } => Some((*from, *layer, changed.at_heads().0)),
        _ => None,
    };
    let mut times: HashMap<(NodeId, usize, Changed), usize> = HashMap::new();
    nodes.iter().filter_map(early).for_each(|key| *times.entry(key).or_default() += 1);
    let mut graph = Graph { nodes: Vec::with_capacity(nodes.len()), common: Vec::new(), ends };
    let mut renamed: Vec<NodeId> = Vec::with_capacity(nodes.len());
    let mut heads: HashMap<(NodeId, usize, Changed), NodeId> = HashMap::new();
    for (op, common) in nodes.into_iter().zip(common) {
        let shared = early(&op).filter(|key| times[key] > 1);
        let name = |id: &NodeId| renamed[*id as usize];
        let op = match op {
            Op::Embed => Op::Embed,
            Op::Attention { from, layer, changed } => match shared {
                None => Op::Attention { from: name(&from), layer, changed },
                Some(key) => {
                    let from = name(&from);
                    let (before, behind) = changed.at_heads();
                    let heads = *heads.entry(key).or_insert_with(|| {
                        graph.nodes.push(Op::Heads { from, layer, changed: before });
                        graph.common.push(None);
                        (graph.nodes.len() - 1) as NodeId
                    });
                    Op::Projection { from, heads, layer, changed: behind }
                }
            },
            Op::Mlp { from, layer, changed } => Op::Mlp { from: name(&from), layer, changed },
            Op::Change { from, layer, changed } => Op::Change { from: name(&from), layer, changed },
            Op::Mean { from } => Op::Mean { from: from.iter().map(name).collect() },
            Op::Bridge { from, bridge } => Op::Bridge { from: name(&from), bridge },
            Op::Heads { .. } | Op::Projection { .. } => unreachable!("only made here"),
        };
        let common = common.map(|common| Common { with: name(&common.with), ..common });
        renamed.push(graph.nodes.len() as NodeId);
        graph.nodes.push(op);
        graph.common.push(common);
    }
    graph.ends.iter_mut().for_each(|end| *end = renamed[*end as usize]);
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PlanExpr, PlanShape};

    fn graph(plans: &[&str]) -> Graph {
        let shape = PlanShape::gpt2(12, 12);
        let plans: Vec<Plan> =
            plans.iter().map(|text| text.parse::<PlanExpr>().unwrap().resolve(&shape).unwrap()).collect();
        Graph::new(&plans)
    }

    fn blocks(plans: &[&str]) -> f64 {
        graph(plans).twelfths() as f64 / 12.0
    }

    #[test]
    fn a_common_beginning_runs_once() {
        assert_eq!(blocks(&["0..12", "0..8", "0..5", "none"]), 12.0);
        assert_eq!(blocks(&["0..12", "0..5,6..12"]), 12.0 + 6.0);
        assert_eq!(blocks(&["0..12", "0..12"]), 12.0);
        let all: Vec<String> = (0..12).map(|n| format!("drop-last {n}")).collect();
        assert_eq!(blocks(&all.iter().map(String::as_str).collect::<Vec<_>>()), 12.0);
    }

    #[test]
    fn halves_are_shared_as_halves() {
        // Without the MLP of layer 3: its attention is the intact one's.
        assert_eq!(blocks(&["0..12", "0..3,3a,4..12"]), 12.0 + 8.0);
        assert_eq!(blocks(&["3a,3m", "3"]), 1.0);
        let graph = graph(&["3a,3m", "3"]);
        assert_eq!(graph.ends[0], graph.ends[1]);
    }

    #[test]
    fn zeroed_heads_share_all_up_to_the_heads() {
        let plans: Vec<String> = (0..12).map(|head| format!("0..5,5[zero h{head}],6..12")).collect();
        let mut plans: Vec<&str> = plans.iter().map(String::as_str).collect();
        // Five blocks, the heads of layer 5, then from the projection on twelve times.
        assert_eq!(graph(&plans).twelfths(), 5 * 12 + 3 + 12 * (1 + 8 + 6 * 12));
        plans.push("0..12");
        assert_eq!(graph(&plans).twelfths(), 5 * 12 + 3 + 13 * (1 + 8 + 6 * 12));
        // One alone is a whole half.
        assert!(graph(&plans[..1]).nodes.iter().all(|op| !matches!(op, Op::Heads { .. } | Op::Projection { .. })));
    }

    #[test]
    fn branches_share_with_other_paths() {
        // The branches of layers 4 and 5 behind 0..4: layer 4's is the intact path's.
        assert_eq!(blocks(&["0..12", "0..4,(4|5)"]), 12.0 + 1.0);
        assert_eq!(blocks(&["0..2,(2|3)", "0..2,(2|3|4)", "0..2,(3|2)"]), 2.0 + 3.0);
        let graph = graph(&["(none|0)", "(0|none)", "0"]);
        assert_eq!(
            graph.nodes.iter().filter(|op| matches!(op, Op::Mean { .. })).count(),
            2,
            "their order of sums differs"
        );
    }

    #[test]
    fn bridges_share_what_lies_before_them_and_behind() {
        let bridged = ["0..6,bridge(6:11,fit),11", "0..6,bridge(6:11,fit)", "0..6,bridge(6:11,other),11"];
        // Six blocks, two bridges, and layer 11 behind each.
        assert_eq!(graph(&bridged).twelfths(), 6 * 12 + 2 + 2 * 12);
        let graph = graph(&bridged);
        assert_eq!(graph.nodes.iter().filter(|op| matches!(op, Op::Bridge { .. })).count(), 2);
    }

    #[test]
    fn parents_come_first() {
        let graph = graph(&[
            "0..2,bridge(2:4,fit),5",
            "0..12",
            "0..4,((4|5),6|7a),8..12",
            "0..5,5[zero h1],6..12",
            "0..5,5[zero h2 h3],6..12",
        ]);
        for (id, op) in graph.nodes.iter().enumerate() {
            assert!(op.inputs().iter().all(|&input| (input as usize) < id), "{op:?}");
        }
    }
}
