//! Properties over random plans, edits and mutated texts.

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::tests::SHAPE;
use super::*;

fn execution() -> impl Strategy<Value = Execution> {
    let part = prop_oneof![3 => Just(Part::Block), 1 => Just(Part::Attention), 1 => Just(Part::Mlp)];
    let modifiers = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(modifier(), 1..4)];
    (0..12_usize, part, modifiers).prop_map(|(layer, part, mut modifiers)| {
        modifiers.retain(|modifier| modifier.check(layer, part).is_ok());
        Execution { layer, part, modifiers: modifier::canonical(modifiers) }
    })
}

/// Of every kind, at every site; not all of them make sense.
fn modifier() -> impl Strategy<Value = Modifier> {
    let name = || prop_oneof![Just("clean".to_owned()), Just("wiki-2.x".to_owned()), Just("0_".to_owned())];
    let amount = || {
        prop_oneof![Just(0.0), Just(0.1), Just(1e-300), Just(12345678.9), -1e9..1e9_f64]
            .prop_filter_map("finite", Finite::new)
    };
    let range = || (0..30_usize, 1..5_usize).prop_map(|(start, len)| start..start + len);
    let action = prop_oneof![
        Just(Action::Zero),
        name().prop_map(|from| Action::Mean { from }),
        name().prop_map(|from| Action::Patch { from }),
        (amount(), prop_oneof![Just(0), any::<u64>()]).prop_map(|(sigma, seed)| Action::Noise { sigma, seed }),
        (amount(), name()).prop_map(|(times, from)| Action::Steer { times, from }),
        range().prop_map(|keys| Action::Knockout { keys }),
    ];
    let units = prop_oneof![Just(vec![]), prop::collection::btree_set(0..12_usize, 1..4).prop_map(Vec::from_iter)];
    let parts = (action, prop::sample::select(Site::CHANGED.to_vec()), units, prop::option::of(range()));
    parts.prop_map(|(action, site, units, positions)| Modifier { action, site, units, positions })
}

/// Runs up, equal runs and single steps, so that every rule of the canonical text is met.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let run = (execution(), 1..5_usize, any::<bool>()).prop_map(|(first, len, up)| {
        let step = |i| Execution { layer: if up { (first.layer + i) % 12 } else { first.layer }, ..first.clone() };
        (0..len).map(|i| Step::Block(step(i))).collect::<Vec<_>>()
    });
    let name = prop_oneof![Just("fit".to_owned()), Just("0-a.b_".to_owned())];
    let bridge = (0..13_usize, 0..13_usize, name, 1..3_usize).prop_map(|(a, b, name, times)| {
        vec![Step::Bridge(Bridge { from: a.min(b), to: a.max(b), name, content: None }); times]
    });
    let run = prop_oneof![4 => run, 1 => bridge];
    let steps = prop::collection::vec(run, 0..4).prop_map(|runs| runs.concat());
    steps.prop_recursive(3, 64, 4, |steps| {
        let group = (prop::collection::vec(steps.clone(), 2..4), 1..3_usize)
            .prop_map(|(branches, times)| vec![Step::Group(branches); times]);
        prop::collection::vec(prop_oneof![group, steps], 0..3).prop_map(|parts| parts.concat())
    })
}

fn read(text: &str) -> Result<Plan, PlanError> {
    text.parse::<PlanExpr>()?.resolve(&SHAPE)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn text_and_json_give_the_plan_back(steps in steps()) {
        let plan = Plan::new(steps).unwrap();
        let text = plan.to_string();
        let again = read(&text).unwrap();
        prop_assert_eq!(&again, &plan, "{}", text);
        prop_assert_eq!(again.to_string(), text.as_str());
        // What bridges hold stands in JSON alone.
        let bound = plan.with_contents(|bridge| Ok::<_, ()>([bridge.from as u8; 32])).unwrap();
        prop_assert_eq!(bound.to_string(), text);
        prop_assert_eq!(bound == plan, plan.bridges().next().is_none());
        for plan in [plan, bound] {
            let json = serde_json::to_string(&plan).unwrap();
            let back: Plan = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(serde_json::to_string(&back).unwrap(), json);
            prop_assert_eq!(back, plan);
        }
    }

    #[test]
    fn every_execution_has_one_address_and_one_alias(steps in steps()) {
        let plan = Plan::new(steps).unwrap();
        let mut names = std::collections::HashSet::new();
        for placed in plan.executions() {
            prop_assert!(names.insert(placed.address.to_string()) && names.insert(placed.alias()));
            prop_assert_eq!(placed.address.to_string().parse::<Address>().unwrap(), placed.address.clone());
            // The address leads there by the rule of the module, followed step by step.
            prop_assert_eq!(follow(plan.steps(), placed.address.path()), Some(placed.execution));
        }
        let blocks: u64 = plan.executions().map(|placed| Cost::of(placed.execution.part).twelfths()).sum();
        prop_assert_eq!(plan.cost().twelfths(), blocks + plan.bridges().count() as u64);
    }

    #[test]
    fn edits_equal_their_definition(
        first in 0..12_usize, second in 0..12_usize, count in 0..6_usize, seed: u64, skipped in 0..12_usize,
    ) {
        let (start, end) = (first.min(second), first.max(second) + 1);
        let intact: Vec<usize> = (0..12).collect();
        let window: Vec<usize> = (start..end).collect();
        let around = |middle: Vec<usize>| [&intact[..start], &middle, &intact[end..]].concat();
        let swapped = |layer| if layer == first { second } else if layer == second { first } else { layer };
        let mut moved = intact.clone();
        moved.retain(|layer| *layer != first);
        moved.insert(second, first);

        for (text, wanted) in [
            (format!("keep-first {first}"), intact[..first].to_vec()),
            (format!("drop-last {first}"), intact[..12 - first].to_vec()),
            (format!("drop-first {first}"), intact[first..].to_vec()),
            (format!("skip {start}..{end}"), around(vec![])),
            (format!("swap {first} {second}"), intact.iter().copied().map(swapped).collect()),
            (format!("move {first} {second}"), moved),
            (
                format!("repeat {first} x{count}"),
                [&intact[..first], &vec![first; count], &intact[first + 1..]].concat(),
            ),
            (format!("reverse {start}..{end}"), around(window.iter().rev().copied().collect())),
            (format!("skip {skipped}"), intact.iter().copied().filter(|layer| *layer != skipped).collect()),
        ] {
            prop_assert_eq!(read(&text).unwrap(), Plan::from_layers(wanted).unwrap(), "{}", text);
        }

        let shuffled = read(&format!("shuffle {start}..{end} seed {seed}")).unwrap();
        let order: Vec<usize> = shuffled.executions().map(|placed| placed.execution.layer).collect();
        let mut sorted = order[start..end].to_vec();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, window);
        prop_assert_eq!(around(order[start..end].to_vec()), order);

        // In a chain, the second edit works on what the first left.
        let chain = read(&format!("swap {first} {second}; skip {skipped}")).unwrap();
        let wanted = intact.iter().copied().map(swapped).filter(|layer| *layer != skipped);
        prop_assert_eq!(chain, Plan::from_layers(wanted).unwrap());
    }

    #[test]
    fn pictures_show_the_intact_order_and_the_plan(steps in steps(), ascii: bool, width in 48..160_usize) {
        let plan = Plan::new(steps).unwrap();
        let picture = picture::picture(&plan, 12, picture::PictureStyle { ascii, width });
        prop_assert!(!ascii || picture.is_ascii(), "{}", picture);
        prop_assert!(picture.lines().all(|line| line.chars().count() <= width), "{}", picture);
        let numbers = |row: &str| -> Vec<usize> {
            let rows = picture.lines().filter_map(|line| line.strip_prefix(row));
            let cells = rows.flat_map(|row| row.split([' ', '(', '|', ')', 'a', 'm', '!']));
            cells.filter_map(|cell| cell.split(['×', 'x']).next()?.parse().ok()).collect()
        };
        prop_assert_eq!(numbers("intact "), Vec::from_iter(0..12), "{}", picture);
        let mut layers: Vec<usize> = numbers("plan   ");
        layers.sort_unstable();
        layers.dedup();
        let runs: std::collections::BTreeSet<usize> = plan.executions().map(|placed| placed.execution.layer).collect();
        prop_assert_eq!(layers, Vec::from_iter(runs), "{}", picture);
    }

    #[test]
    fn any_text_is_a_plan_or_an_error_on_one_line(text: String) {
        settles(&text);
    }
}

fn follow<'a>(steps: &'a [Step], path: &[usize]) -> Option<&'a Execution> {
    fn within<'a>(steps: &'a [Step], path: &[usize]) -> Option<&'a Execution> {
        match steps {
            [only] => at(only, path),
            _ => at(steps.get(*path.first()?)?, &path[1..]),
        }
    }
    fn at<'a>(step: &'a Step, path: &[usize]) -> Option<&'a Execution> {
        match step {
            Step::Block(execution) => path.is_empty().then_some(execution),
            Step::Group(branches) => within(branches.get(*path.first()?)?, &path[1..]),
            Step::Bridge(_) => None,
        }
    }
    at(steps.get(*path.first()?)?, &path[1..])
}

/// A valid plan that reads back from its own text, or an error that prints.
fn settles(text: &str) {
    match read(text) {
        Ok(plan) => {
            assert_eq!(read(&plan.to_string()).as_ref(), Ok(&plan), "{text:?}");
            assert_eq!(plan.validate(&SHAPE), Ok(()), "{text:?}");
        }
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{text:?}");
            assert_eq!(error.caret().lines().count(), 2, "{text:?}");
            assert!(error.text().get(error.span()).is_some(), "{text:?}");
        }
    }
}

#[test]
fn ten_thousand_mutated_texts() {
    const SEEDS: [&str; 12] = [
        "0..5,6..12",
        "0..3,3*4,4..12",
        "11..=0",
        "0..4,(4|5|6|7),8..12",
        "0..4,par(4..8)*3,8..12",
        "(4..8)*2,7a,7m",
        "7[zero h3 h5],(4,5|none|(6|7m))[zero h1]",
        "keep-first 8; skip 5..7; swap 0 1",
        "repeat 3 x4; reverse 4..8; move 2 9",
        "shuffle 4..8 seed 18446744073709551615",
        "0..6,bridge(6:11,name),11[noise 0.1 pre @2..5]",
        "none",
    ];
    const PIECES: [&str; 31] = [
        "(",
        ")",
        "|",
        "[",
        "]",
        ",",
        ";",
        "*",
        "..",
        "..=",
        "@",
        ":",
        "-",
        "0",
        "12",
        "99999999999999999999",
        "65537",
        "none",
        "par(",
        "bridge(",
        "zero h",
        "a",
        "m",
        "x",
        "skip ",
        "seed ",
        " ",
        "\n",
        "é",
        "🦀",
        "\u{202e}",
    ];
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut below = |bound: usize| (random.next_u32() as usize) % bound;
    let (mut plans, mut errors) = (0, 0);
    for _ in 0..10_000 {
        let mut text: Vec<char> = SEEDS[below(SEEDS.len())].chars().collect();
        for _ in 0..=below(3) {
            let at = below(text.len() + 1);
            match below(4) {
                0 if at < text.len() => drop(text.remove(at)),
                1 => drop(text.splice(at..at, PIECES[below(PIECES.len())].chars())),
                2 => {
                    let end = at + below(text.len() - at + 1);
                    let copy = text[at..end].to_vec();
                    let to = below(text.len() + 1);
                    drop(text.splice(to..to, copy));
                }
                _ if at < text.len() => text[at] = char::from(b' ' + below(95) as u8),
                _ => text.truncate(at),
            }
        }
        let text: String = text.into_iter().collect();
        settles(&text);
        if read(&text).is_ok() { plans += 1 } else { errors += 1 }
    }
    // The mutations reach both sides.
    assert!(plans > 500 && errors > 3_000, "{plans} plans, {errors} errors");
}
