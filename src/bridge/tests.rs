//! Fits on the embedded model: whatever the threads and the grouping, and what they refuse.

use super::*;
use crate::forward::{LinearMap, Session, SessionOptions, Shortcuts};
use crate::model::Model;

fn session(threads: usize) -> Session {
    Session::new(&Model::mini().unwrap(), SessionOptions { threads, ..SessionOptions::default() }).unwrap()
}

fn samples(count: usize, tokens: usize) -> Vec<Sample> {
    let ids = |w: usize| (0..tokens).map(|i| ((i * 37 + w * 101 + 5) % 2000) as u32).collect();
    (0..count).map(|w| Sample::whole(ids(w))).collect()
}

fn fitted(threads: usize, samples: &[Sample]) -> Shortcuts {
    let mut session = session(threads);
    let mut fit = RidgeFit::new(&session, &[(3, 7), (3, 12), (6, 6)]).unwrap();
    for group in in_groups(samples) {
        fit.add(&mut session, group).unwrap();
    }
    assert_eq!(fit.rows(), samples.iter().map(|sample| sample.rows.len() as u64).sum::<u64>());
    fit.solve(1e-3).unwrap()
}

#[test]
fn threads_change_no_bit_of_a_map() {
    let samples = samples(9, 60);
    let one = fitted(1, &samples);
    assert_eq!(one, fitted(3, &samples));
    assert_eq!(one.iter().map(|(ends, _)| ends).collect::<Vec<_>>(), [(3, 7), (3, 12), (6, 6)]);
    // From a layer to itself the best map is the identity, but for the penalty.
    let own = one.get(6, 6).unwrap();
    let apart = own.weight().iter().zip(LinearMap::identity(128).weight()).map(|(a, i)| (a - i).powi(2)).sum::<f32>();
    assert!(apart.sqrt() < 0.5 * 128_f32.sqrt() && !own.is_identity(), "{apart}");
}

#[test]
fn a_lens_is_the_same_on_any_number_of_threads_and_comes_nearer() {
    let samples = samples(6, 40);
    let options = TunedOptions { steps: 6, rows: 100, rate: 2e-3, seed: 1 };
    let tuned = |threads: usize, options: TunedOptions| {
        let mut session = session(threads);
        let mut lens = TunedLens::new(&session, options).unwrap();
        let steps: Vec<Vec<f64>> = (0..options.steps).map(|_| lens.step(&mut session, &samples).unwrap()).collect();
        (steps, lens.shortcuts().unwrap())
    };
    let (steps, lens) = tuned(1, options);
    assert_eq!((&steps, &lens), (&tuned(3, options).0, &tuned(3, options).1));
    assert_ne!(lens, tuned(2, TunedOptions { seed: 2, ..options }).1);
    assert_eq!(lens.iter().map(|(ends, _)| ends).collect::<Vec<_>>(), (0..12).map(|l| (l, 12)).collect::<Vec<_>>());
    let sum = |step: &[f64]| step.iter().sum::<f64>();
    assert!(sum(&steps[5]) < sum(&steps[0]), "{steps:?}");
    // More steps than there are change nothing: the rate is 0.
    let mut session = session(2);
    let mut lens = TunedLens::new(&session, TunedOptions { steps: 1, ..options }).unwrap();
    lens.step(&mut session, &samples).unwrap();
    let before = lens.shortcuts().unwrap();
    lens.step(&mut session, &samples).unwrap();
    assert_eq!(lens.shortcuts().unwrap(), before);
}

/// The gradient of all layers' maps at once, as a step takes it, against torch.autograd: see `tests/data/golden_bridge.py`.
#[test]
fn the_gradient_is_that_of_autograd() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/data/golden_bridge.json")).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let tuned = &golden["tuned"];
    let layer = tuned["layer"].as_u64().unwrap() as usize;
    let width = 128;
    let map: Vec<f64> = (0..width * width)
        .map(|at| {
            let (i, j) = (at / width, at % width);
            f64::from((((31 * i + 17 * j) % 13) as f32 - 6.0) / 200.0 + if i == j { 1.0 } else { 0.0 })
        })
        .chain((0..width).map(|i| f64::from((((37 * i) % 11) as f32 - 5.0) / 20.0)))
        .collect();
    let options = SessionOptions { threads: 2, precision: crate::forward::Precision::F64, ..SessionOptions::default() };
    let mut session = Session::new(&Model::mini().unwrap(), options).unwrap();
    let mut lens = TunedLens::new(&session, TunedOptions::default()).unwrap();
    lens.set_map(layer, map);
    let (divergences, gradients) = lens.gradients_of(&mut session, &samples(2, 64)).unwrap();
    let close = |a: f64, b: f64| (a - b).abs() <= 2e-6 + 2e-5 * b.abs();
    assert!(close(divergences[layer], number(&tuned["divergence"])), "{} {tuned}", divergences[layer]);
    let (by_weight, by_bias) = gradients[layer].split_at(width * width);
    let norm = by_weight.iter().map(|g| g * g).sum::<f64>().sqrt();
    assert!(close(norm, number(&tuned["by_weight_norm"])), "{norm}");
    for (n, at) in golden["at"].as_array().unwrap().iter().enumerate() {
        let [i, j] = [0, 1].map(|k| at[k].as_u64().unwrap() as usize);
        let (a, b) = (by_weight[i * width + j], by_bias[i]);
        let (want_a, want_b) = (number(&tuned["by_weight"][n]), number(&tuned["by_bias"][n]));
        assert!(close(a, want_a) && close(b, want_b), "[{i}, {j}]: {a} {want_a}, {b} {want_b}");
    }
}

#[test]
fn what_can_not_be_fitted_is_refused() {
    let mut session = session(1);
    let new = |pairs: &[(usize, usize)], session: &Session| RidgeFit::new(session, pairs).err().unwrap().to_string();
    assert_eq!(new(&[], &session), "there are no pairs of layers to fit to");
    assert!(new(&[(3, 13)], &session).starts_with("3:13: a bridge leads from a layer"));
    assert!(new(&[(3, 4), (5, 4)], &session).starts_with("5:4: "));
    let mut fit = RidgeFit::new(&session, &[(3, 7)]).unwrap();
    assert_eq!(fit.solve(1e-3).unwrap_err().to_string(), "there are no rows of text to fit to");
    fit.add(&mut session, &samples(1, 20)).unwrap();
    for lambda in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(fit.solve(lambda), Err(BridgeError::Setting { setting: "ridge", .. })), "{lambda}");
    }
    assert!(matches!(fit.solve(0.0), Err(BridgeError::Singular { rows: 19, .. })), "19 rows for 128 elements");
    assert!(fit.solve(1e-3).is_ok());
    let bad = Sample { ids: vec![1, 2], rows: 0..2 };
    assert!(matches!(fit.add(&mut session, &[bad]), Err(BridgeError::Rows { .. })));
    let long = samples(1, 300);
    assert!(matches!(fit.add(&mut session, &long), Err(BridgeError::Forward(_))));
    for options in [
        TunedOptions { steps: 0, ..TunedOptions::default() },
        TunedOptions { rows: 0, ..TunedOptions::default() },
        TunedOptions { rate: f64::NAN, ..TunedOptions::default() },
    ] {
        assert!(matches!(TunedLens::new(&session, options), Err(BridgeError::Setting { .. })), "{options:?}");
    }
    let mut lens = TunedLens::new(&session, TunedOptions::default()).unwrap();
    assert!(matches!(lens.step(&mut session, &[]), Err(BridgeError::Nothing { .. })));
    assert!(Evaluation::new(&session, Shortcuts::default()).is_err());
    let mut narrow = Shortcuts::default();
    narrow.insert(3, 7, LinearMap::identity(64));
    let mut evaluation = Evaluation::new(&session, narrow).unwrap();
    let refused = evaluation.add(&mut session, &samples(1, 5)).unwrap_err().to_string();
    assert_eq!(refused, "bridge(3:7,bridge): its map is 64 wide, the model 128");
    assert!(evaluation.finish().is_err());
}
