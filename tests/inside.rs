//! Inside a block: modifiers and activations against an independent reference (transformers with hooks, in f64: see
//! `tests/data/golden_inside.py`), what must not change a bit, and sweeps against one pass each.

#![cfg(feature = "mini")]

use lesion::forward::{Activations, Batch, ForwardError, Precision, References, Session, SessionOptions, Tap, Target};
use lesion::model::Model;
use lesion::plan::{Plan, Site};
use lesion::sweep::{Event, Example, Row, Sweep, SweepOptions};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
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

/// All sites of all layers, as `plan` leaves them.
fn everything(session: &mut Session, plan: &Plan, ids: &[u32]) -> Arc<Activations> {
    let wanted: Vec<(usize, Site)> = (0..12).flat_map(|layer| Site::ALL.map(|site| (layer, site))).collect();
    let found = session.activations(plan, &Batch::new([ids]), &wanted).unwrap();
    Arc::new(found.into_iter().next().unwrap())
}

fn named(name: &str, activations: &Arc<Activations>) -> References {
    let mut references = References::default();
    references.insert(name, Arc::clone(activations));
    references
}

/// The bits of all scores of a plan, row by row.
fn scores(session: &mut Session, plan: &Plan, ids: &[u32], references: &References) -> Vec<[u64; 3]> {
    let batch = Batch::new([ids]).with_references([references.clone()]);
    let targets: Vec<Target> = (0..ids.len()).map(|row| Target { row, id: 7 }).collect();
    let scores = session.score(plan, &batch, &targets).unwrap();
    scores.iter().map(|s| [s.target_logit.to_bits(), s.log_sum_exp.to_bits(), s.entropy.to_bits()]).collect()
}

#[test]
fn what_changes_nothing_changes_no_bit() {
    let ids = ids(CLEAN);
    for precision in [Precision::F32, Precision::Bf16] {
        let mut session = session(precision);
        let intact = plan("0..12");
        let own = everything(&mut session, &intact, &ids);
        let references = named("own", &own);
        let expected = scores(&mut session, &intact, &ids, &References::default());
        let sites = ["pre", "ln1", "q", "k", "v", "pattern", "z", "attn", "mid", "ln2", "neurons", "mlp", "post"];
        for site in sites {
            let patched = plan(&format!("0..5,5[patch {site} from own],6..12"));
            assert_eq!(scores(&mut session, &patched, &ids, &references), expected, "{precision}: {site} of its own");
            if !["ln1", "ln2", "pattern"].contains(&site) {
                let noised = plan(&format!("0..5,5[noise 0 {site}],6..12"));
                assert_eq!(scores(&mut session, &noised, &ids, &references), expected, "{precision}: σ = 0 at {site}");
            }
        }
        let all = plan("(0..12)[patch h0 h1 h2 h3 h4 h5 h6 h7 from own,patch n0 n511 from own]");
        assert_eq!(scores(&mut session, &all, &ids, &references), expected);
        let steered = plan("0..5,5[steer 0 post from v],6..12");
        let mut direction = Activations::new(1);
        direction.set(5, Site::Post, vec![1.0; 128]);
        assert_eq!(scores(&mut session, &steered, &ids, &named("v", &Arc::new(direction))), expected);
    }
}

#[test]
fn the_clean_run_is_restored() {
    let (clean, corrupted) = (ids(CLEAN), ids(CORRUPTED));
    assert_eq!(clean.len(), corrupted.len());
    let mut session = session(Precision::F32);
    let intact = plan("0..12");
    let own = everything(&mut session, &intact, &clean);
    let references = named("clean", &own);
    let expected = scores(&mut session, &intact, &clean, &References::default());
    let broken = scores(&mut session, &intact, &corrupted, &References::default());
    assert_ne!(expected, broken);
    for text in [
        "0[patch pre from clean],1..12",
        "0..11,11[patch post from clean]",
        "(0..12)[patch q from clean,patch k from clean,patch v from clean,patch z from clean,patch attn from clean,\
         patch mid from clean,patch neurons from clean,patch mlp from clean,patch pre from clean,patch post from clean]",
    ] {
        assert_eq!(scores(&mut session, &plan(text), &corrupted, &references), expected, "{text}");
    }
    // A state at one position is that of the clean run from there on, and of the corrupted before.
    let only = scores(&mut session, &plan("0..6,6[patch pre from clean @14],7..12"), &corrupted, &references);
    assert_eq!(only[..14], broken[..14]);
    assert_ne!(only[14..], broken[14..]);
}

#[test]
fn watching_changes_no_bit_and_sees_what_flows() {
    let ids = ids(CLEAN);
    for precision in [Precision::F32, Precision::Bf16, Precision::F64] {
        let mut session = session(precision);
        let changed = plan("0..5,5[zero h1,noise 0.5 seed 3 mlp],6..12");
        let before = scores(&mut session, &changed, &ids, &References::default());
        let seen = everything(&mut session, &changed, &ids);
        assert_eq!(scores(&mut session, &changed, &ids, &References::default()), before, "{precision}");
        let z = seen.at(5, Site::Z).unwrap();
        assert!(z.chunks(128).all(|row| row[16..32].iter().all(|z| *z == 0.0)), "what modifiers did is seen");
        let pattern = seen.at(3, Site::Pattern).unwrap();
        for (query, row) in pattern.chunks(8 * ids.len()).enumerate() {
            for head in row.chunks(ids.len()) {
                assert!((head.iter().sum::<f32>() - 1.0).abs() < 1e-5 && head[query + 1..].iter().all(|p| *p == 0.0));
            }
        }
        for layer in 0..11 {
            assert_eq!(seen.at(layer, Site::Post), seen.at(layer + 1, Site::Pre), "{precision} {layer}");
        }
    }
}

#[test]
fn noise_depends_on_what_it_is_keyed_by_alone() {
    let ids = ids(CLEAN);
    let mut session = session(Precision::F32);
    let none = References::default();
    let noised = |text: &str, session: &mut Session, ids: &[u32]| scores(session, &plan(text), ids, &none);
    let first = noised("0..5,5[noise 0.5 pre],6..12", &mut session, &ids);
    assert_eq!(noised("0..5,5[noise 0.5 pre],6..12", &mut session, &ids), first);
    assert_ne!(noised("0..5,5[noise 0.5 seed 1 pre],6..12", &mut session, &ids), first);
    // Tokens behind do not reach back.
    assert_eq!(noised("0..5,5[noise 0.5 pre],6..12", &mut session, &ids[..9])[..], first[..9]);
    // Another execution of the layer is another draw.
    let seen = |text: &str, session: &mut Session| {
        let mut states = Vec::new();
        let batch = Batch::new([&ids[..]]);
        session.residuals(&plan(text), &batch, |residual| states.push(residual.hidden.to_vec())).unwrap();
        states
    };
    let twice = seen("5[zero attn,zero mlp,noise 1 post]*2", &mut session);
    let drawn = |i: usize| -> Vec<f32> { twice[i + 1].iter().zip(&twice[i]).map(|(a, b)| a - b).collect() };
    assert_ne!(drawn(0), drawn(1));
    let all = [drawn(0), drawn(1)].concat();
    let n = all.len() as f32;
    let mean = all.iter().sum::<f32>() / n;
    let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
    assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
}

#[test]
fn a_sweep_of_changes_equals_one_pass_each() {
    let (clean, corrupted) = (ids(CLEAN), ids(CORRUPTED));
    let texts = [
        "0..12",
        "0..5,5[zero h1],6..12",
        "0..5,5[zero h1 h2,zero mlp],6..12",
        "0..5,5[patch z from clean @7],6..12",
        "0..5,5[patch q h1 from clean,zero h3],6..12",
        "0..5,5[patch q h1 from clean,zero h4],6..12",
        "0..5,5[knockout h3 keys 2..4 @9],6..12",
        "0..5,5[noise 0.5 pre @2..5],6..12",
        "0..5,5[noise 0.5 attn,noise 0.5 mlp],6..12",
        "0..5,5a[noise 0.5 attn],5m[noise 0.5 mlp],6..12",
        "0..11,11[zero neurons @13]",
        "0..11,11[noise 0.3 post]",
        "0..11,11[knockout keys 0]",
        "0..11,11[patch mid from clean @13]",
        "0..3,3[mean mlp from clean],4..12",
        "0..4,(4[zero h1]|5[zero pre @3]),6..12",
        "0..5,5[patch ln1 from clean,patch pattern h2 from clean],6..12",
        "5[noise 1 post]*2,6..12",
        "0[patch pre from clean @4]",
    ];
    let plans: Vec<Plan> = texts.iter().map(|text| plan(text)).collect();
    for precision in [Precision::F32, Precision::Bf16] {
        let mut session = session(precision);
        let references = named("clean", &everything(&mut session, &plan("0..12"), &clean));
        let last = corrupted.len();
        let examples: Vec<Example> = [(corrupted.clone(), 1..last), (clean.clone(), last - 2..last)]
            .into_iter()
            .zip(0..)
            .map(|((ids, scored), number)| Example {
                references: references.clone(),
                ..Example::new(number, ids, scored)
            })
            .collect();
        for memory in [3_000_000, 200_000_000] {
            let options = SweepOptions { memory, divergence: true, token_losses: true };
            let sweep = Sweep::new(plans.clone(), &Model::mini().unwrap().plan_shape(), options).unwrap();
            let mut rows: Vec<Row> = Vec::new();
            let tell = &mut |event: Event<'_>| {
                if let Event::Rows(new) = event {
                    rows.extend_from_slice(new);
                }
                ControlFlow::Continue(())
            };
            sweep.run(&mut session, examples.clone(), &|_, _| false, tell).unwrap();
            assert_eq!(rows.len(), plans.len() * examples.len());
            for row in &rows {
                let example = &examples[row.example as usize];
                let batch = Batch::new([&example.ids[..]]).with_references([references.clone()]);
                let targets: Vec<Target> =
                    example.scored.clone().map(|i| Target { row: i - 1, id: example.ids[i] }).collect();
                let alone = session.score(&plans[row.plan], &batch, &targets).unwrap();
                let alone: Vec<u64> = alone.iter().map(|score| score.nll().to_bits()).collect();
                let swept: Vec<u64> = row.token_nll.iter().map(|loss| loss.to_bits()).collect();
                assert_eq!(swept, alone, "{precision}, {memory}: {}", texts[row.plan]);
            }
        }
    }
}

/// A case of the reference.
#[derive(serde::Deserialize)]
struct Case {
    plan: String,
    prompt: String,
    references: BTreeMap<String, Named>,
    nll: Vec<f64>,
    logits: Vec<f64>,
    f32_references_max_abs_error: f64,
}

/// What a modifier's name stands for.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Named {
    Run { prompt: String, plan: String },
    Vector { vector: String },
}

#[derive(serde::Deserialize)]
struct SiteCase {
    layer: usize,
    site: String,
    shape: [usize; 2],
    rows: Vec<SiteRow>,
}

#[derive(serde::Deserialize)]
struct SiteRow {
    position: usize,
    first: Vec<f64>,
    last: Vec<f64>,
    sum: f64,
    sum_of_squares: f64,
}

#[derive(serde::Deserialize)]
struct Golden {
    prompts: BTreeMap<String, Vec<u32>>,
    logit_ids: Vec<usize>,
    sites: Vec<SiteCase>,
    cases: Vec<Case>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("data/golden_inside.json")).unwrap()
}

/// The references of a case: each where the plan's modifiers look for it.
fn bound(session: &mut Session, golden: &Golden, case: &Case) -> References {
    let plan = plan(&case.plan);
    let mut references = References::default();
    for (name, named) in &case.references {
        let modifiers = plan.executions().flat_map(|placed| {
            let layer = placed.execution.layer;
            placed.execution.modifiers.iter().map(move |modifier| (layer, modifier))
        });
        let sites: Vec<(usize, Site)> = modifiers
            .filter(|(_, modifier)| modifier.reference() == Some(name))
            .map(|(layer, modifier)| (layer, modifier.site))
            .collect();
        let activations = match named {
            Named::Run { prompt, plan } => {
                let batch = Batch::new([&golden.prompts[prompt][..]]);
                let model = Model::mini().unwrap();
                session.activations(&model.plan(plan).unwrap(), &batch, &sites).unwrap().remove(0)
            }
            Named::Vector { vector } => {
                assert_eq!(vector, "v[i] = ((i * 37) % 11 - 5) / 10");
                let mut direction = Activations::new(1);
                let v: Vec<f32> = (0..128).map(|i| ((i * 37) % 11 - 5) as f32 / 10.0).collect();
                sites.iter().for_each(|&(layer, site)| direction.set(layer, site, v.clone()));
                direction
            }
        };
        references.insert(name, Arc::new(activations));
    }
    references
}

#[test]
fn every_change_agrees_with_transformers() {
    let golden = golden();
    assert!(golden.cases.len() > 90);
    for (precision, nll_gate, logit_gate) in [(Precision::F64, 1e-9, 1e-6), (Precision::F32, 1e-4, 1e-3)] {
        let mut session = session(precision);
        for case in &golden.cases {
            let ids = &golden.prompts[&case.prompt];
            let (plan, references) = (plan(&case.plan), bound(&mut session, &golden, case));
            let batch = Batch::new([&ids[..]]).with_references([references]);
            // The loss of each token, and at the last one's row some of the logits.
            let next = (0..ids.len() - 1).map(|row| Target { row, id: ids[row + 1] });
            let last = golden.logit_ids.iter().map(|&id| Target { row: ids.len() - 1, id: id as u32 });
            let targets: Vec<Target> = next.chain(last).collect();
            let scores = session.score(&plan, &batch, &targets).unwrap();
            let (losses, logits) = scores.split_at(ids.len() - 1);
            let nll = losses.iter().map(|score| score.nll()).zip(&case.nll).map(|(a, b)| (a - b).abs());
            let logit = logits.iter().map(|score| score.target_logit).zip(&case.logits).map(|(a, b)| (a - b).abs());
            let worst = |errors: &mut dyn Iterator<Item = f64>| errors.fold(0.0_f64, |a, b| if b <= a { a } else { b });
            let (nll, logit) = (worst(&mut { nll }), worst(&mut { logit }));
            let allowed = 2.0 * case.f32_references_max_abs_error;
            assert!(
                nll <= nll_gate + allowed && logit <= logit_gate + allowed,
                "{precision} {}: {nll} {logit}",
                case.plan
            );
        }
    }
}

#[test]
fn every_site_agrees_with_transformers() {
    let golden = golden();
    let ids = &golden.prompts["clean"];
    for (precision, gate) in [(Precision::F64, 1e-6), (Precision::F32, 1e-4)] {
        let mut session = session(precision);
        let found = everything(&mut session, &plan("0..12"), ids);
        assert_eq!(golden.sites.len(), 3 * Site::CHANGED.len());
        for case in &golden.sites {
            let site = Site::ALL.into_iter().find(|site| site.hook() == case.site).unwrap();
            let values = found.at(case.layer, site).unwrap();
            assert_eq!(values.len(), case.shape[0] * case.shape[1], "{}", case.site);
            for row in &case.rows {
                let values: Vec<f64> =
                    values[row.position * case.shape[1]..][..case.shape[1]].iter().map(|x| f64::from(*x)).collect();
                let close = |a: f64, b: f64| (a - b).abs() <= gate * (1.0 + b.abs());
                let at = format!("{precision} blocks.{}.{} {}", case.layer, case.site, row.position);
                assert!(values.iter().zip(&row.first).all(|(a, b)| close(*a, *b)), "{at}: the first");
                assert!(values.iter().rev().zip(row.last.iter().rev()).all(|(a, b)| close(*a, *b)), "{at}: the last");
                assert!(close(values.iter().sum(), row.sum), "{at}: {} {}", values.iter().sum::<f64>(), row.sum);
                assert!(close(values.iter().map(|x| x * x).sum(), row.sum_of_squares), "{at}: squares");
            }
        }
    }
}

/// See `tests/data/golden_taps.py`.
#[test]
fn every_tap_agrees_with_transformers_and_changes_no_bit() {
    #[derive(serde::Deserialize)]
    struct Taps {
        taps: Vec<Tapped>,
    }
    #[derive(serde::Deserialize)]
    struct Tapped {
        name: String,
        shape: [usize; 2],
        rows: Vec<TappedRow>,
    }
    #[derive(serde::Deserialize)]
    struct TappedRow {
        position: usize,
        first: Vec<f64>,
        finite: usize,
        sum: f64,
        sum_of_squares: f64,
    }
    let Taps { taps: golden } = serde_json::from_str(include_str!("data/golden_taps.json")).unwrap();
    let ids = &self::golden().prompts["clean"];
    let names: Vec<Tap> = golden.iter().map(|tap| tap.name.parse().unwrap()).collect();
    for (precision, gate) in [(Precision::F64, 1e-6), (Precision::F32, 1e-4)] {
        let mut session = session(precision);
        let before = session.all_logits(&plan("0..12"), ids).unwrap().to_vec();
        let batch = Batch::new([&ids[..5], &ids[..]]);
        let found = session.tapped(&plan("0..12"), &batch, &names).unwrap().remove(1);
        for (tap, name) in golden.iter().zip(&names) {
            let values = found.at_tap(name).unwrap();
            assert_eq!(values.len(), tap.shape[0] * tap.shape[1], "{name}");
            for row in &tap.rows {
                let all = &values[row.position * tap.shape[1]..][..tap.shape[1]];
                let finite: Vec<f64> = all.iter().filter(|x| x.is_finite()).map(|x| f64::from(*x)).collect();
                assert_eq!(finite.len(), row.finite, "{name}");
                let close = |a: f64, b: f64| (a - b).abs() <= gate * (1.0 + b.abs());
                let at = format!("{precision} {name} {}", row.position);
                assert!(finite.iter().zip(&row.first).all(|(a, b)| close(*a, *b)), "{at}: the first");
                assert!((finite.iter().sum::<f64>() - row.sum).abs() <= 10.0 * gate * (1.0 + row.sum.abs()), "{at}");
                assert!(close(finite.iter().map(|x| x * x).sum(), row.sum_of_squares), "{at}: squares");
            }
        }
        let everything: Vec<Tap> = Site::ALL.map(|site| Tap::At("steps.5".parse().unwrap(), site)).to_vec();
        session.tapped(&plan("0..12"), &Batch::new([&ids[..]]), &everything).unwrap();
        let after = session.all_logits(&plan("0..12"), ids).unwrap();
        assert!(before.iter().zip(after).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn executions_are_tapped_by_their_addresses() {
    let ids = ids(CLEAN);
    let mut session = session(Precision::F32);
    let looped = plan("0..5,5*2,(6|7),8..12");
    let taps: Vec<Tap> = [
        "steps.5.attn.hook_z",
        "steps.6.attn.hook_z",
        "blocks.5@1.attn.hook_z",
        "steps.7.1.hook_resid_post",
        "blocks.7.hook_resid_post",
    ]
    .map(|name| name.parse().unwrap())
    .to_vec();
    let found = session.tapped(&looped, &Batch::new([&ids[..]]), &taps).unwrap().remove(0);
    let at = |i: usize| found.at_tap(&taps[i]).unwrap();
    assert!(at(0) != at(1) && at(1) == at(2) && at(3) == at(4));
    let twice = session.tapped(&looped, &Batch::new([&ids[..]]), &["blocks.5.hook_resid_pre".parse().unwrap()]);
    assert!(twice.unwrap_err().to_string().contains("runs 2 times"));
    // What is read alone can't be changed.
    for text in ["5[zero scores]", "5[patch normal1 from a]", "5[zero inner]"] {
        assert!(text.parse::<lesion::plan::PlanExpr>().is_err(), "{text}");
    }
    let json = r#"[{"layer":5,"modifiers":[{"verb":"zero","site":"inner"}]}]"#;
    let refused = serde_json::from_str::<Plan>(json).map_err(|error| error.to_string());
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn what_is_missing_is_named() {
    let ids = ids(CLEAN);
    let mut session = session(Precision::F32);
    let own = everything(&mut session, &plan("0..12"), &ids[..5]);
    let mut some = Activations::new(5);
    some.set(5, Site::Post, vec![0.0; 5 * 64]);
    let mut references = named("short", &own);
    references.insert("thin", Arc::new(some));
    for (text, wanted) in [
        ("0..5,5[patch z from clean],6..12", "steps.5, patch z from clean, sequence 0: there is no reference clean"),
        ("0..5,5[patch z from short],6..12", "reference short has 5 tokens, position 14 is patched"),
        ("0..5,5[zero z @99],6..12", "steps.5, zero z @99, sequence 0: it has 15 tokens"),
        ("0..5,5[mean z from thin],6..12", "reference thin has no blocks.5.attn.hook_z"),
        ("0..5,5[mean post from thin],6..12", "reference thin has 320 elements for 5 tokens of 128"),
        ("0..5,5[steer 1 post from short],6..12", "reference short has 5 rows: a direction has one"),
    ] {
        let batch = Batch::new([&ids[..]]).with_references([references.clone()]);
        let error = session.score(&plan(text), &batch, &[]).unwrap_err().to_string();
        assert!(error.ends_with(wanted), "{text}: {error}");
    }
    let twice = session.activations(&plan("5,5"), &Batch::new([&ids[..]]), &[(5, Site::Z)]).unwrap_err();
    assert!(matches!(&twice, ForwardError::Address(_)) && twice.to_string().contains("runs 2 times"), "{twice}");
}
