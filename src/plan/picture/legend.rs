//! What a picture's marks stand for, listed by layer: the legend below it.

use std::collections::BTreeMap;

use super::super::{Bridge, Execution, Plan};
use super::PictureStyle;

/// What happens to each layer.
pub(super) struct Tally {
    /// By layer: executions of its attention half and of its MLP half. (Layers past the model's have entries too.)
    runs: BTreeMap<usize, [usize; 2]>,
    /// Layers by what is changed inside them.
    changed: BTreeMap<String, Vec<usize>>,
    /// What bridges lead over, each once.
    bridged: Vec<String>,
    pub(super) moved: Vec<bool>,
    n_layer: usize,
}

impl Tally {
    pub(super) fn new(plan: &Plan, n_layer: usize) -> Tally {
        let mut runs: BTreeMap<usize, [usize; 2]> = (0..n_layer).map(|layer| (layer, [0, 0])).collect();
        let mut changed: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for Execution { layer, part, modifiers } in plan.executions().map(|placed| placed.execution) {
            let runs = runs.entry(*layer).or_default();
            (0..2).for_each(|half| runs[half] += usize::from(part.halves()[half]));
            for modifier in modifiers {
                changed.entry(modifier.to_string()).or_default().push(*layer);
            }
        }
        changed.values_mut().for_each(|layers| {
            layers.sort_unstable();
            layers.dedup();
        });
        let mut bridged = Vec::new();
        for Bridge { from, to, name, .. } in plan.bridges() {
            let text = format!("{from}:{to} by {name}");
            if !bridged.contains(&text) {
                bridged.push(text);
            }
        }
        Tally { runs, changed, bridged, moved: vec![false; n_layer], n_layer }
    }

    pub(super) fn legend(&self, grouped: bool, style: PictureStyle, lines: &mut Vec<String>) {
        let layers = |wanted: &dyn Fn(&[usize; 2]) -> bool| -> Vec<usize> {
            self.runs.iter().filter(|(_, runs)| wanted(runs)).map(|(layer, _)| *layer).collect()
        };
        let mut repeated: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (layer, [attention, mlp]) in &self.runs {
            repeated.entry(*attention.max(mlp)).or_default().push(*layer);
        }
        let repeated = repeated.range(2..).flat_map(|(times, layers)| {
            ranges(layers).into_iter().map(move |range| format!("{range}{}{times}", style.times()))
        });
        let moved: Vec<usize> = (0..self.n_layer).filter(|layer| self.moved[*layer]).collect();
        let changed = self.changed.iter().map(|(text, layers)| format!("{text} in {}", ranges(layers).join(" ")));
        let entries: [(String, &str, Vec<String>); 8] = [
            (style.skipped().to_string(), "skipped", ranges(&layers(&|runs| *runs == [0, 0]))),
            ("+".to_owned(), "repeated", repeated.collect()),
            ("~".to_owned(), "moved", ranges(&moved)),
            ("a".to_owned(), "attention only", ranges(&layers(&|[attention, mlp]| *attention > 0 && *mlp == 0))),
            ("m".to_owned(), "MLP only", ranges(&layers(&|[attention, mlp]| *attention == 0 && *mlp > 0))),
            ("!".to_owned(), "changed", changed.collect()),
            (style.bridged().to_string(), "bridged", self.bridged.clone()),
            ("(|)".to_owned(), "side by side, their updates averaged", Vec::new()),
        ];
        let start = lines.len();
        for (mark, name, items) in &entries {
            match items.is_empty() {
                true if mark != "(|)" || !grouped => {}
                true => lines.push(format!("{mark:<4}{name}")),
                false => wrap(&format!("{mark:<4}{name:<16}"), items, style.width, lines),
            }
        }
        if lines.len() == start && self.n_layer > 0 {
            lines.push("the intact order".to_owned());
        }
    }
}

/// Ascending layers as `5`, `24..48`.
fn ranges(layers: &[usize]) -> Vec<String> {
    let runs = layers.chunk_by(|a, b| a + 1 == *b);
    runs.map(|run| match run {
        [only] => only.to_string(),
        [first, .., last] => format!("{first}..{}", last + 1),
        [] => String::new(),
    })
    .collect()
}

/// `head` and the items, joined by commas, on lines of `width` with a hanging indent.
fn wrap(head: &str, items: &[String], width: usize, lines: &mut Vec<String>) {
    let indent = head.chars().count();
    let (mut line, mut used) = (head.to_owned(), indent);
    for word in items.join(", ").split(' ') {
        let needed = word.chars().count();
        if used > indent && used + needed > width {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            used = indent;
        }
        line.push_str(word);
        line.push(' ');
        used += needed + 1;
    }
    lines.push(line);
}
