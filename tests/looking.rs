//! Attribution, attention patterns and cosines: against transformers with hooks (see `tests/data/golden_inside.py`), and what
//! must hold under any plan.

#![cfg(feature = "mini")]

use lesion::forward::{Activations, Batch, ForwardError, Precision, References, Session, SessionOptions};
use lesion::measure::{
    Attributed, Attribution, HeadSummary, LogitSource, MAX_STATES, MeasureError, Repeated, Similarity,
    attention_pattern, attribute, head_summaries, induction_scores, logit_lens,
};
use lesion::model::Model;
use lesion::plan::{Plan, Site};
use serde_json::Value;
use std::sync::Arc;

const CLEAN: &str = "When Tom and Jack went to the market, Tom gave a lamp to";
const CORRUPTED: &str = "When Tom and Jack went to the market, Jack gave a lamp to";

fn session(precision: Precision) -> Session {
    let options = SessionOptions { threads: 2, precision, ..SessionOptions::default() };
    Session::new(&Model::mini().unwrap(), options).unwrap()
}

fn ids(text: &str) -> Vec<u32> {
    Model::mini().unwrap().encode(text).unwrap()
}

fn plan(text: &str) -> Plan {
    Model::mini().unwrap().plan(text).unwrap()
}

fn golden() -> Value {
    serde_json::from_str(include_str!("data/golden_inside.json")).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// " Jack" against " Tom", behind the last token.
fn names(ids: &[u32]) -> Attributed {
    Attributed { position: ids.len() - 1, answer: 826, other: Some(817) }
}

/// Names what the clean run left `clean`, and a direction at each layer's end `joy`.
fn name_references(session: &mut Session) {
    let wanted: Vec<(usize, Site)> = (0..12).flat_map(|layer| Site::ALL.map(|site| (layer, site))).collect();
    let clean = ids(CLEAN);
    let found = session.activations(&plan("0..12"), &Batch::new([&clean[..]]), &wanted).unwrap().remove(0);
    let mut joy = Activations::new(1);
    let v: Vec<f32> = (0..128).map(|i| ((i * 37) % 11 - 5) as f32 / 10.0).collect();
    (0..12).for_each(|layer| joy.set(layer, Site::Post, v.clone()));
    let mut references = References::default();
    references.insert("clean", Arc::new(found));
    references.insert("joy", Arc::new(joy));
    session.set_references(references);
}

fn of(found: &Attribution, execution: usize, source: LogitSource) -> Option<f64> {
    found.parts.iter().find(|part| part.execution == Some(execution) && part.source == source).map(|part| part.value)
}

#[test]
fn parts_agree_with_transformers() {
    let golden = &golden()["attribution"];
    let ids = ids(CLEAN);
    assert_eq!((&golden["a"], &golden["b"], &golden["position"]), (&826.into(), &817.into(), &(ids.len() - 1).into()));
    for (precision, gate) in [(Precision::F64, 1e-5), (Precision::F32, 1e-4)] {
        let mut session = session(precision);
        let found = attribute(&mut session, &plan("0..12"), &ids, names(&ids)).unwrap();
        assert_eq!(found.parts.len(), 1 + 12 * (8 + 1 + 1));
        let close = |a: f64, b: &Value| assert!((a - number(b)).abs() <= gate, "{precision}: {a} {b}");
        close(found.scale, &golden["scale"]);
        close(found.constant, &golden["constant"]);
        close(found.value, &golden["logit_difference"]);
        close(found.sum(), &golden["sum"]);
        assert_eq!(found.parts[0].source, LogitSource::Embedding);
        close(found.parts[0].value, &golden["embedding"]);
        for layer in 0..12 {
            for head in 0..8 {
                close(of(&found, layer, LogitSource::Head(head)).unwrap(), &golden["heads"][layer][head]);
            }
            close(of(&found, layer, LogitSource::AttentionBias).unwrap(), &golden["attn_bias"][layer]);
            close(of(&found, layer, LogitSource::Mlp).unwrap(), &golden["mlp"][layer]);
        }
    }
}

#[test]
fn parts_add_up_under_any_plan() {
    let ids = ids(CORRUPTED);
    let plans = [
        "none",
        "0..12",
        "skip 5",
        "repeat 3 x4",
        "11..=0",
        "7a,7m,3m*2",
        "0..5,5[zero h1 h2,zero mlp],6..12",
        "0..5,5[zero attn],6..12",
        "0..5,5[noise 0.5 attn @3..20,noise 1 neurons],6..12",
        "0..5,5[zero pre @14],6..12",
        "0..5,5[patch mid from clean,patch z h3 from clean],6..12",
        "0..11,11[patch post from clean]",
        "0..6,6[steer 4 post from joy],7..12",
        "0..5,5[mean mlp from clean,patch ln1 from clean,patch pattern h2 from clean],6..12",
        "0..5,5[knockout h3 keys 2..4 @9],6..12",
        "0..4,(4[zero h1]|5[zero pre @14]),6..12",
        "0..4,((4|5,6)|none|7a[steer 2 post from joy]),8..12",
        "0..2,par(2..10)*2,10..12",
    ];
    for (precision, gate) in [(Precision::F64, 1e-6), (Precision::F32, 1e-4)] {
        let mut session = session(precision);
        name_references(&mut session);
        for text in plans {
            for other in [None, Some(817)] {
                let asked = Attributed { other, ..names(&ids) };
                let found = attribute(&mut session, &plan(text), &ids, asked).unwrap();
                let (sum, value) = (found.sum(), found.value);
                assert!((sum - value).abs() <= gate, "{precision} {text}: {sum} {value}");
            }
        }
    }
}

#[test]
fn parts_show_what_modifiers_did() {
    let ids = ids(CLEAN);
    let mut session = session(Precision::F32);
    name_references(&mut session);
    let mut parts = |text: &str| attribute(&mut session, &plan(text), &ids, names(&ids)).unwrap();

    let intact = parts("0..12");
    let zeroed = parts("0..5,5[zero h1,zero mlp],6..12");
    assert_eq!(of(&zeroed, 5, LogitSource::Head(1)), Some(0.0));
    assert_eq!(of(&zeroed, 5, LogitSource::Mlp), Some(0.0));
    assert!(of(&intact, 5, LogitSource::Head(1)) != Some(0.0) && of(&intact, 5, LogitSource::Mlp) != Some(0.0));

    // An attention whose output is changed is one part, where it is changed.
    let whole = parts("0..5,5[zero attn],6..12");
    assert_eq!(of(&whole, 5, LogitSource::Attention), Some(0.0));
    assert!(of(&whole, 5, LogitSource::Head(1)).is_none() && of(&whole, 5, LogitSource::AttentionBias).is_none());
    let elsewhere = parts("0..5,5[zero attn @3],6..12");
    assert!(of(&elsewhere, 5, LogitSource::Attention).is_none() && of(&elsewhere, 5, LogitSource::Head(1)).is_some());

    // A stream that is zeroed takes back all that was before: what is left is what comes behind.
    let emptied = parts("0..11,11[zero pre]");
    let change = of(&emptied, 11, LogitSource::Change(Site::Pre)).unwrap();
    let before: f64 =
        emptied.parts.iter().filter(|part| part.execution.is_none_or(|e| e < 11)).map(|part| part.value).sum();
    assert!((before + change).abs() < 1e-4, "{before} {change}");
    assert!(intact.parts.iter().all(|part| !matches!(part.source, LogitSource::Change(_) | LogitSource::Attention)));

    // Branches count by their share, in groups within groups too: equal branches are one.
    let branches = parts("0..4,(4|(4|4)),5..12");
    for source in [LogitSource::Head(1), LogitSource::Mlp, LogitSource::AttentionBias] {
        let [half, quarter] = [4, 5].map(|execution| of(&branches, execution, source).unwrap());
        let one = of(&intact, 4, source).unwrap();
        assert!(
            (half - one / 2.0).abs() < 1e-4 && (quarter - one / 4.0).abs() < 1e-4,
            "{source:?}: {half} {quarter} {one}"
        );
    }
}

#[test]
fn the_lens_agrees_with_transformers() {
    let golden = golden();
    let ids = ids(CLEAN);
    for (precision, gate) in [(Precision::F64, 1e-5), (Precision::F32, 1e-4)] {
        let grid = logit_lens(&mut session(precision), &plan("0..12"), &ids).unwrap();
        let rows = golden["lens"]["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 26);
        for row in rows {
            let at = |name: &str| row[name].as_u64().unwrap() as usize;
            let cell = grid[at("state")][at("position")];
            assert_eq!(cell.prediction.likeliest as usize, at("top1"), "{precision}: {row}");
            assert!((cell.probability - number(&row["probability"])).abs() <= gate, "{precision}: {cell:?} {row}");
            assert!((cell.divergence - number(&row["kl"])).abs() <= gate * (1.0 + cell.divergence), "{cell:?} {row}");
        }
    }
}

#[test]
fn patterns_agree_with_transformers() {
    let (golden, ids) = (golden(), ids(CLEAN));
    let mut session = session(Precision::F32);
    let sites = golden["sites"].as_array().unwrap();
    let mut compared = 0;
    for case in sites.iter().filter(|case| case["site"] == "attn.hook_pattern") {
        let name = format!("blocks.{}", case["layer"]);
        for (head, keep) in [(0, "first"), (7, "last")] {
            let found = attention_pattern(&mut session, &plan("0..12"), &ids, &name, head).unwrap();
            assert_eq!(found.len(), ids.len() * ids.len());
            for row in case["rows"].as_array().unwrap() {
                let query = row["position"].as_u64().unwrap() as usize;
                let keys = &found[query * ids.len()..(query + 1) * ids.len()];
                // The first keys of the first head, the last of the last.
                let expected = row[keep].as_array().unwrap();
                let keys = if head == 0 { &keys[..expected.len()] } else { &keys[ids.len() - expected.len()..] };
                assert!(
                    keys.iter().zip(expected).all(|(p, e)| (f64::from(*p) - number(e)).abs() < 1e-5),
                    "{name} {head}"
                );
                compared += keys.len();
            }
        }
    }
    assert_eq!(compared, 3 * 3 * (5 + 3));
}

#[test]
fn summaries_are_those_of_the_patterns() {
    let ids = ids(CLEAN);
    let n = ids.len();
    let mut session = session(Precision::F32);
    // The MLP half has no attention; layer 3 runs twice.
    let changed = plan("0..3,3*2,4m,5[knockout keys 0 @2..15],6..12");
    let found = head_summaries(&mut session, &changed, &ids).unwrap();
    assert_eq!(found.len(), 12 * 8);
    for &HeadSummary { execution, head, entropy, first, previous } in found.iter().step_by(5) {
        let name = changed.executions().nth(execution).unwrap().address.to_string();
        let pattern = attention_pattern(&mut session, &changed, &ids, &name, head).unwrap();
        let p = |q: usize, k: usize| f64::from(pattern[q * n + k]);
        let mean = |of: &dyn Fn(usize) -> f64| (2..n).map(of).sum::<f64>() / (n - 2) as f64;
        let bits = |q: usize| (0..=q).map(|k| p(q, k)).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum::<f64>();
        assert!((mean(&bits) - entropy).abs() < 1e-9 && (mean(&|q| p(q, 0)) - first).abs() < 1e-9, "{name} {head}");
        assert!((mean(&|q| p(q, q - 1)) - previous).abs() < 1e-9, "{name} {head}");
    }
    let knocked: Vec<&HeadSummary> = found.iter().filter(|summary| summary.execution == 6).collect();
    assert!(knocked.len() == 8 && knocked.iter().all(|summary| summary.first == 0.0));
    let short = head_summaries(&mut session, &plan("0..12"), &ids[..2]).unwrap();
    assert!(short.len() == 96 && short.iter().all(|summary| summary.entropy.is_nan() && summary.first.is_nan()));
}

#[test]
fn induction_is_told_on_repeated_random_tokens() {
    let model = Model::mini().unwrap();
    let mut session = session(Precision::F32);
    let repeated = Repeated::draw(&model, 50, 0);
    assert_eq!((repeated.ids.len(), repeated.period), (101, 50));
    assert_eq!(repeated.ids[1..51], repeated.ids[51..]);
    let mut once = repeated.ids[..51].to_vec();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), 51, "all different, BOS among them once");
    assert_ne!(Repeated::draw(&model, 50, 1), repeated);
    assert_eq!(Repeated::draw(&model, 1_000_000, 0).ids.len(), 255, "as many as fit");

    let intact = plan("0..12");
    let scores = induction_scores(&mut session, &intact, &repeated).unwrap();
    assert_eq!(scores.len(), 96);
    let best = (0..96).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
    let name = format!("blocks.{}", best / 8);
    let ids = &repeated.ids;
    let pattern = attention_pattern(&mut session, &intact, ids, &name, best % 8).unwrap();
    let by_hand = (51..101).map(|q| f64::from(pattern[q * 101 + q - 49])).sum::<f64>() / 50.0;
    assert!((scores[best] - by_hand).abs() < 1e-9);
    for text in ["0..5,5[zero h1 @3],6..12", "0..5,5[knockout keys 0],6..12", "0..5,5[patch z from clean],6..12"] {
        assert!(matches!(induction_scores(&mut session, &plan(text), &repeated), Err(MeasureError::OwnText)), "{text}");
    }
    assert_eq!(induction_scores(&mut session, &plan("0..5,5[zero h1],6..12"), &repeated).unwrap().len(), 96);
}

#[test]
fn cosines_are_those_of_the_states() {
    let texts = [ids(CLEAN), ids("The capital of Spain is"), ids("")];
    let mut session = session(Precision::F32);
    let repeated = plan("0..3,3*2,5[zero attn,zero mlp],6..12");
    let mut similarity = Similarity::new(&repeated).unwrap();
    let mut sums = [[0.0; 2]; 2];
    for text in &texts {
        similarity.add(&mut session, &repeated, text).unwrap();
        let mut states = Vec::new();
        let batch = Batch::new([&text[..]]);
        session.residuals(&repeated, &batch, |residual| states.push(residual.hidden.to_vec())).unwrap();
        for (i, (a, b)) in [(0, 12), (4, 5)].into_iter().enumerate() {
            for (position, (a, b)) in states[a].chunks(128).zip(states[b].chunks(128)).enumerate() {
                let dot =
                    |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let cosine = dot(a, b) / dot(a, a).sqrt() / dot(b, b).sqrt();
                sums[i][0] += cosine;
                sums[i][1] += if position > 0 { cosine } else { 0.0 };
            }
        }
    }
    // Every token counts alike, whichever text it stands in.
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let Similarity { all, without_first } = &similarity;
    assert_eq!((all.states(), all.tokens(), without_first.tokens()), (13, tokens as u64, (tokens - 3) as u64));
    for (i, (a, b)) in [(0, 12), (4, 5)].into_iter().enumerate() {
        assert!((all.cosine(a, b) - sums[i][0] / tokens as f64).abs() < 1e-12);
        assert!((without_first.cosine(b, a) - sums[i][1] / (tokens - 3) as f64).abs() < 1e-12);
    }
    let influence = all.block_influence();
    assert_eq!(influence.len(), 12);
    assert_eq!(influence[5], 0.0, "a step that changes nothing");
    assert!((influence[4] - (1.0 - all.cosine(4, 5))).abs() < 1e-15);
    assert!((0..13).all(|state| all.cosine(state, state) == 1.0));
    // A zeroed state has no direction.
    let emptied = plan("0..12,0[zero post]");
    let mut similarity = Similarity::new(&emptied).unwrap();
    similarity.add(&mut session, &emptied, &texts[0]).unwrap();
    assert!(similarity.all.block_influence()[12].is_nan() && similarity.all.block_influence()[11] > 0.0);
}

#[test]
fn what_can_not_be_looked_at_is_named() {
    let ids = ids(CLEAN);
    let mut session = session(Precision::F32);
    let asked = names(&ids);
    let mut said =
        |text: &str, asked: Attributed| attribute(&mut session, &plan(text), &ids, asked).unwrap_err().to_string();
    assert_eq!(said("0..12", Attributed { position: 15, ..asked }), "position 15 of 15 tokens: positions count from 0");
    assert!(said("0..12", Attributed { answer: 2048, ..asked }).contains("token id 2048"));
    assert!(said("0..12", Attributed { other: Some(9999), ..asked }).contains("token id 9999"));
    assert!(said("0..5,5[patch z from clean],6..12", asked).ends_with("there is no reference clean"));
    let mut said = |text: &str, name: &str, head: usize| {
        attention_pattern(&mut session, &plan(text), &ids, name, head).unwrap_err().to_string()
    };
    assert_eq!(said("0..12", "blocks.5", 8), "head 8 of 8: heads are 0..=7");
    assert!(said("5*2", "blocks.5", 0).contains("layer 5 runs 2 times: blocks.5@0..=blocks.5@1"));
    assert!(said("0..12", "blocks.12", 0).contains("no execution has it"));
    assert_eq!(
        said("0..5,5m", "steps.5", 0),
        "steps.5: only the MLP half of layer 5 runs there, which has no attention pattern"
    );
    let long = plan("3*1024");
    assert!(matches!(Similarity::new(&long), Err(MeasureError::States { states: 1025, limit: MAX_STATES })));
    let mut similarity = Similarity::new(&plan("0..12")).unwrap();
    let empty = similarity.add(&mut session, &plan("0..12"), &[]).unwrap_err();
    assert!(matches!(empty, MeasureError::Forward(ForwardError::Empty { .. })), "{empty}");
    assert_eq!(similarity.all.tokens(), 0);
    assert!(similarity.all.cosine(0, 1).is_nan());
}
