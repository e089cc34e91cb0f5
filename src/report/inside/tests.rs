//! Views made up by hand: what their captions say is what their numbers are.

use super::*;
use crate::report::plot::{Drawing, Ink, Width};
use serde_json::json;

fn read(objects: &[Value]) -> Result<Vec<View>, ViewError> {
    let lines: Vec<String> = objects.iter().map(Value::to_string).collect();
    read_views(&lines.join("\n"))
}

fn one_of(objects: &[Value]) -> View {
    let views = read(objects).unwrap();
    assert_eq!(views.len(), 1);
    views[0].clone()
}

fn figures(objects: &[Value]) -> Vec<InsideFigure> {
    one_of(objects).figures(&Shown::default())
}

fn lens(plan: &str, steps: usize, position: usize, likeliest: u32) -> Value {
    let step = ["embed", "0", "1"][steps];
    json!({
        "view": "lens", "model": "m", "plan": plan, "steps": steps, "step": step, "position": position,
        "token": format!(" t{position}"), "token_id": position, "next": null, "next_id": null, "nll": null, "rank": null,
        "entropy": 0.5, "likeliest": format!(" l{likeliest}"), "likeliest_id": likeliest, "likeliest_probability": 0.25, "kl": "inf",
    })
}

#[test]
fn a_lens_says_from_which_step_on_its_last_word_stands() {
    // Behind the first place the last word is there from step 0 on; behind the second it was there, went, and came back.
    let said = [[7, 3], [5, 4], [5, 3]];
    let grid = |plan: &str| -> Vec<Value> {
        (0..3)
            .flat_map(|steps| (0..2).map(move |at| (steps, at)))
            .map(|(s, at)| lens(plan, s, at, said[s][at]))
            .collect()
    };
    let figure = &figures(&grid("0,1"))[0];
    let Drawing::Words(words) = &figure.plot.drawing else { panic!("{figure:?}") };
    assert_eq!(words.down.1, ["1", "0", "embed"]);
    assert_eq!(words.line.as_ref().unwrap().0, [2, 1]);
    assert!(
        figure.caption.contains(
            "Behind the last token \" l3\" is said in the end (25\u{a0}%), and without a break from step 1 on."
        )
    );
    assert!(figure.caption.contains("Half of the 2 places have their last word behind step 0."), "{}", figure.caption);
    // Two plans are two views, and so is the same grid again.
    assert_eq!(read(&[grid("0,1"), grid("0"), grid("0")].concat()).unwrap().len(), 3);
    let mut short = grid("0,1");
    short.remove(3);
    assert!(matches!(read(&short), Err(ViewError::Broken { first: 1, last: 5, .. })));
}

fn cell(layer: usize, column: usize, score: Value) -> Value {
    json!({
        "view": "patch", "plan": "p", "address": format!("steps.{layer}"), "layer": layer, "occurrence": 0, "position": null,
        "head": column, "value": score, "score": score,
    })
}

fn patch_summary(direction: &str) -> Value {
    let run = json!({ "plan": "0..2", "ids": [1, 2], "value": 1.0 });
    json!({
        "view": "patch", "model": "m", "site": "attn.hook_z", "direction": direction, "answer": { "text": " a" }, "other": null,
        "clean": run, "corrupted": run, "noise_floor": 0.002, "resolved": true, "cells": 4,
    })
}

#[test]
fn grids_name_the_cells_that_are_furthest_from_the_run_that_is_patched() {
    let scores = [json!(1.0), json!(0.5), json!("NaN"), json!(0.98)];
    let cells = |direction: &str| {
        let mut cells: Vec<Value> = (0..4).map(|i| cell(i / 2, i % 2, scores[i].clone())).collect();
        cells.push(patch_summary(direction));
        cells
    };
    let caption = |direction: &str| figures(&cells(direction))[0].caption.clone();
    let denoised = caption("clean into corrupted");
    assert!(
        denoised.contains("Furthest from the corrupted run: 0 h0 with +1.00, 1 h1 with +0.98, 0 h1 with +0.50."),
        "{denoised}"
    );
    assert!(denoised.contains(" 0 of 4 cells move it by less than 0.05."), "{denoised}");
    let noised = caption("corrupted into clean");
    assert!(noised.contains("Furthest from the clean run: 0 h1 with +0.50. 2 of 4 cells move"), "{noised}");
    // NaN is a value.
    let svg = figures(&cells("clean into corrupted"))[0].plot.svg(Width::Column, Ink::Paper);
    assert!(svg.contains(">NaN</text>"), "{svg}");
    // One that is of a position among heads, or out of order.
    let mut odd = cells("clean into corrupted");
    odd[1]["position"] = json!(3);
    assert!(read(&odd).is_err());
    let mut odd = cells("clean into corrupted");
    odd.swap(0, 1);
    assert!(read(&odd).is_err());
}

#[test]
fn traces_say_which_effects_are_resolved() {
    let cell = |layer: usize, position: usize, [mean, low, high]: [f64; 3]| {
        json!({
            "view": "trace", "address": format!("steps.{layer}"), "layer": layer, "position": position, "token": " x",
            "token_id": 9, "restored": 0.5, "effect": { "mean": mean, "low": low, "high": high },
        })
    };
    let total = json!({ "mean": 0.6, "low": 0.5, "high": 0.7 });
    let summary = json!({
        "view": "trace", "model": "m", "plan": "0..2", "answer": { "text": " a" }, "subject": [1, 2], "site": "hook_resid_post",
        "window": 1, "sigma": 0.5, "seeds": 3, "clean": 0.9, "noised": total, "total_effect": total, "cells": 4,
    });
    let cells = [
        cell(0, 1, [0.4, 0.3, 0.5]),
        cell(0, 2, [0.1, -0.1, 0.2]),
        cell(1, 1, [-0.2, -0.3, -0.1]),
        cell(1, 2, [0.0, 0.0, 0.0]),
    ];
    let figure = &figures(&[&cells[..], &[summary]].concat())[0];
    for said in [
        "while \" x\" is noised (σ 0.500, 3 seeds)",
        "noise takes 0.60 (0.50 … 0.70) from it",
        "Most comes back at layer 0, position 1 (\" x\"): +0.40 (+0.30 … +0.50).",
        "2 of 4 cells' hold 0: no effect is resolved there.",
    ] {
        assert!(figure.caption.contains(said), "{said}: {}", figure.caption);
    }
    let Drawing::Map(map) = &figure.plot.drawing else { panic!("{figure:?}") };
    assert_eq!(map.across.1, ["1*\n·x", "2\n·x"]);
    assert_eq!(map.hover[0][1], "steps.0 @2 \" x\": +0.10 (−0.10 … +0.20), p = 0.5000");
}

#[test]
fn tokens_say_what_is_lost_and_what_is_no_longer_likeliest() {
    let place = |position: u32, next: Option<&str>, losses: [Value; 2], ranks: [u32; 2]| {
        let side = |nll: &Value, rank: u32| json!({ "nll": nll, "rank": rank, "entropy": 1.0 });
        json!({
            "view": "tokens", "model": "m", "plan": "0", "position": position, "token": "a", "token_id": position, "next": next,
            "next_id": next.map(|_| 7), "kl": 0.1, "gained": [], "lost": [], "intact": side(&losses[0], ranks[0]),
            "corrupted": side(&losses[1], ranks[1]),
        })
    };
    let figure = &figures(&[
        place(0, Some("\n"), [json!(1.0), json!(3.5)], [0, 4]),
        place(1, Some(" c"), [json!(2.0), json!(1.0)], [0, 0]),
        place(2, None, [Value::Null, Value::Null], [0, 0]),
    ])[0];
    for said in [
        "over 2 tokens the intact model loses 3.00 nats, the plan 4.50.",
        "The most is lost on \"\\n\": +2.50 nats, its rank going 0→4.",
        "Of 2 tokens that were the likeliest, 1 no longer is.",
    ] {
        assert!(figure.caption.contains(said), "{said}: {}", figure.caption);
    }
    let Drawing::Passage(passage) = &figure.plot.drawing else { panic!("{figure:?}") };
    assert_eq!(passage.tokens.iter().map(|token| token.ends_line).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(figure.table.as_ref().unwrap().rows[2][0], "(the end)");
}

#[test]
fn sizes_are_bounded() {
    let many: Vec<Value> = (0..MAX_CELLS + 1).map(|at| cell(0, at, json!(0.0))).chain([patch_summary("")]).collect();
    let error = read(&many).unwrap_err().to_string();
    assert!(error.contains("40001 cells"), "{error}");
}
