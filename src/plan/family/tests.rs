//! Families against what they are said to be: members by hand, counts, refusals, print and parse.

use super::*;
use crate::plan::PlanExpr;

const SHAPE: PlanShape = PlanShape::gpt2(6, 3);

fn members(text: &str) -> Vec<Member> {
    text.parse::<Family>().unwrap().members(&SHAPE).unwrap()
}

/// A family's plans as edits or explicit plans, in its order, with their places.
fn is(text: &str, want: &[(&str, &[u64])]) {
    let members = members(text);
    let resolve = |text: &str| text.parse::<PlanExpr>().unwrap().resolve(&SHAPE).unwrap();
    assert_eq!(members.len(), want.len(), "{text}");
    for (member, (plan, at)) in members.iter().zip(want) {
        assert_eq!((&member.plan, &member.at[..]), (&resolve(plan), *at), "{text}: {plan}");
    }
}

#[test]
fn truncations_and_skips() {
    is(
        "keep-first",
        &[
            ("none", &[0]),
            ("keep-first 1", &[1]),
            ("keep-first 2", &[2]),
            ("0..3", &[3]),
            ("0..4", &[4]),
            ("0..5", &[5]),
            ("0..6", &[6]),
        ],
    );
    assert_eq!(
        members("drop-last").iter().rev().map(|m| &m.plan).collect::<Vec<_>>(),
        members("keep-first").iter().map(|m| &m.plan).collect::<Vec<_>>()
    );
    assert_eq!(members("drop-first")[2].plan.to_string(), "2..6");
    is("skip-one 1..3", &[("skip 1", &[1]), ("skip 2", &[2])]);
    is("skip-pairs 0..=2", &[("skip 0; skip 1", &[0, 1]), ("skip 0; skip 2", &[0, 2]), ("skip 1; skip 2", &[1, 2])]);
    is("skip-window w2 1..5", &[("skip 1..3", &[1, 3]), ("skip 2..4", &[2, 4]), ("skip 3..5", &[3, 5])]);
    is("skip-attention 4..6", &[("0..4,4m,5", &[4]), ("0..5,5m", &[5])]);
    is("skip-mlp 0..1", &[("0a,1..6", &[0])]);
    is(
        "zero-head 2..3",
        &[("0..2,2[zero h0],3..6", &[2, 0]), ("0..2,2[zero h1],3..6", &[2, 1]), ("0..2,2[zero h2],3..6", &[2, 2])],
    );
}

#[test]
fn exchanges_and_moves() {
    is("swap-adjacent 0..3", &[("swap 0 1", &[0]), ("swap 1 2", &[1])]);
    is("swap-any 1..4", &[("swap 1 2", &[1, 2]), ("swap 1 3", &[1, 3]), ("swap 2 3", &[2, 3])]);
    is("move 1..3", &[("move 1 2", &[1, 2]), ("move 2 1", &[2, 1])]);
    assert_eq!(members("move").len(), 30);
    for member in members("move") {
        let edit = format!("move {} {}", member.at[0], member.at[1]);
        assert_eq!(member.plan, edit.parse::<PlanExpr>().unwrap().resolve(&SHAPE).unwrap(), "{edit}");
    }
}

#[test]
fn repeats_and_windows() {
    is("repeat-one x0..3 5..6", &[("skip 5", &[5, 0]), ("0..6", &[5, 1]), ("repeat 5 x2", &[5, 2])]);
    is("repeat-window w2 3..5", &[("0..5,3..6", &[3, 5])]);
    is("reverse-window 0..3", &[("reverse 0..2", &[0, 2]), ("reverse 0..3", &[0, 3]), ("reverse 1..3", &[1, 3])]);
    is("middle-repeat w3..=4 1..5", &[("0,2*3,4..6", &[1, 4]), ("0,3*4,5", &[1, 5]), ("0,1,3*3,5", &[2, 5])]);
    is("parallel w2..4 2..5", &[("0,1,(2|3),4,5", &[2, 4]), ("0,1,par(2..5),5", &[2, 5]), ("0..3,(3|4),5", &[3, 5])]);
    is("looped-parallel x2 2..4", &[("0,1,(2|3)*2,4,5", &[2, 4, 2])]);
    is("parallel w1 0..1", &[("0..6", &[0, 1])]);
}

#[test]
fn draws_are_those_of_the_notation() {
    is("shuffle-window 1..5 seeds 3..5", &[("shuffle 1..5 seed 3", &[3]), ("shuffle 1..5 seed 4", &[4])]);
    for member in members("delete 2 1..6 seeds 0..9") {
        let order = members(&format!("shuffle-window 1..6 seeds {}", member.at[0]))[0].plan.clone();
        let layers =
            |plan: &crate::plan::Plan| -> Vec<usize> { plan.executions().map(|e| e.execution.layer).collect() };
        let deleted = &layers(&order)[1..3];
        assert_eq!(layers(&member.plan), (0..6).filter(|layer| !deleted.contains(layer)).collect::<Vec<_>>());
    }
}

#[test]
fn subsets_and_permutations_are_all_there_once() {
    let subsets = members("subsets");
    assert_eq!(
        (subsets.len(), subsets[0].plan.to_string(), subsets[63].plan.to_string()),
        (64, "none".into(), "0..6".into())
    );
    assert_eq!(subsets[0b101001].plan.to_string(), "0,3,5");
    is("subsets 2..4", &[("0,1,4,5", &[0]), ("0..3,4,5", &[1]), ("0,1,3..6", &[2]), ("0..6", &[3])]);
    let orders = members("permutations 1..5");
    assert_eq!(
        (orders.len(), orders[0].plan.to_string(), orders[23].plan.to_string()),
        (24, "0..6".into(), "0,4,3,2,1,5".into())
    );
    let different: std::collections::HashSet<_> = orders.iter().chain(&subsets).map(|member| &member.plan).collect();
    // The intact order is in both.
    assert_eq!(different.len(), 24 + 64 - 1);
}

#[test]
fn counts_are_those_of_the_members() {
    for (_, name) in Kind::ALL {
        for arguments in
            ["", "x1..4", "seeds 0..7", "2 seeds 0..7", "1..5", "1..4 w1..3", "x2 0..6", "x3 1..6 w2..4", "3..3"]
        {
            let Ok(family) = format!("{name} {arguments}").parse::<Family>() else { continue };
            let members = family.members(&SHAPE).unwrap();
            assert_eq!(family.count(&SHAPE).unwrap(), members.len() as u128, "{family}");
            assert!(members.iter().all(|member| member.at.len() == family.axes().len()), "{family}");
            assert!(members.windows(2).all(|pair| pair[0].at < pair[1].at), "{family}: in the order of its axes");
        }
    }
}

#[test]
fn huge_families_are_counted_and_refused() {
    let refused = |text: &str, shape: &PlanShape| {
        let family: Family = text.parse().unwrap();
        (family.count(shape).unwrap(), family.members(shape).unwrap_err().problem)
    };
    let deep = PlanShape::gpt2(48, 25);
    assert_eq!(refused("subsets", &deep), (1 << 48, FamilyProblem::TooMany { count: 1 << 48 }));
    assert_eq!(refused("shuffle-window seeds 0..1000000000000", &SHAPE).0, 1_000_000_000_000);
    assert_eq!(refused("permutations 0..48", &deep).0, u128::MAX);
    assert_eq!(refused("subsets", &PlanShape::gpt2(200, 1)).0, u128::MAX);
    assert_eq!(refused("repeat-one x1000000000000", &SHAPE), (6, FamilyProblem::TooLarge));
    assert_eq!(refused("looped-parallel x70000", &SHAPE).1, FamilyProblem::TooLarge);
}

#[test]
fn what_is_wrong_is_said() {
    let problem = |text: &str| text.parse::<Family>().unwrap_err().to_string();
    assert!(
        problem("skip-on")
            .starts_with("family `skip-on`: no family is called `skip-on`: there are keep-first, drop-last,")
    );
    assert!(problem("").contains("no family is called ``"));
    assert_eq!(problem("skip-one x2"), "family `skip-one x2`: `x2`: this family takes a window i..j, each once");
    assert_eq!(
        problem("repeat-one x2 x3"),
        "family `repeat-one x2 x3`: `x3`: this family takes a window i..j and xR, each once"
    );
    assert_eq!(problem("repeat-one"), "family `repeat-one`: it needs how often: x2..8");
    assert_eq!(problem("repeat-one x4..4"), "family `repeat-one x4..4`: `x4..4` is empty");
    assert_eq!(
        problem("repeat-one xx"),
        "family `repeat-one xx`: argument `xx`: expected a window i..j, xR, wR or seeds R, where R is n, n..m or n..=m"
    );
    for text in [
        "delete seeds 0..3",
        "shuffle-window",
        "permutations",
        "delete 1",
        "shuffle-window seeds",
        "skip-one -1..2",
        "delete +1 seeds 0..2",
        "skip-one 1..",
        "skip-one 1..99999999999999999999",
    ] {
        assert!(text.parse::<Family>().is_err(), "{text}");
    }
    let unfit = |text: &str| text.parse::<Family>().unwrap().members(&SHAPE).unwrap_err().to_string();
    assert_eq!(unfit("skip-one 4..7"), "family `skip-one 4..7`: window 4..7: the model has layers 0..=5");
    assert_eq!(unfit("delete 7 seeds 0..1"), "family `delete 7 seeds 0..1`: 7 layers of 6 are to be deleted");
}
