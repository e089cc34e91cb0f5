//! What is drawn of results whose numbers are known.

use super::*;
use crate::report::tests::{results, summary};
use crate::sweep::Estimate;

/// Results of a family, where each plan loses what `loss` says of its place.
fn losing(family: &str, n_layer: usize, loss: impl Fn(usize) -> f64) -> Results {
    let mut results = results(&[family], n_layer);
    let around = |value: f64| Estimate { value, low: value - 0.5, high: value + 0.5 };
    for (place, summary) in results.all.plans.iter_mut().enumerate() {
        (summary.nll, summary.delta) = (around(loss(place)), Some(around(loss(place))));
    }
    results.tasks.truncate(1);
    results
}

fn curves(figure: &Figure) -> &Curves {
    match &figure.plot.drawing {
        Drawing::Curves(curves) => curves,
        other => panic!("{other:?}"),
    }
}

/// Where a curve goes: quantity, low end, value, high end.
fn points(series: &Series) -> Vec<[f64; 4]> {
    series.points.iter().map(|(at, e)| [*at, e.low, e.value, e.high]).collect()
}

#[test]
fn the_lattice_is_its_best_median_and_worst() {
    // Of three layers: none, then those of one, of two, and all; the loss is 10 for the layer 0 missing, and 1 for each other.
    let results = losing("subsets", 3, |_| 0.0);
    let facts: Vec<Vec<usize>> = results.plans.iter().map(|facts| layers(facts).unwrap()).collect();
    let missing = |place: usize| {
        (0..3).filter(|layer| !facts[place].contains(layer)).map(|layer| if layer == 0 { 10.0 } else { 1.0 }).sum()
    };
    let drawn = figures(&losing("subsets", 3, missing));
    let lattice = curves(&drawn[0]);
    assert_eq!(lattice.reference, Some((7.6, "uniform, ln V".to_owned())));
    let [best, median, worst] = &lattice.series[..] else { panic!("{lattice:?}") };
    let values = |series: &Series| series.points.iter().map(|(size, e)| (*size, e.value)).collect::<Vec<_>>();
    assert_eq!(values(best), [(0.0, 12.0), (1.0, 2.0), (2.0, 1.0), (3.0, 0.0)]);
    assert_eq!(values(worst), [(0.0, 12.0), (1.0, 11.0), (2.0, 10.0), (3.0, 0.0)]);
    assert_eq!(points(median)[1], [1.0, 11.0, 11.0, 11.0]);
    assert!(drawn[0].caption.ends_with("the band holds the middle half. 10 examples, 20 scored tokens."));
    let Drawing::Sets(sets) = &drawn[1].plot.drawing else { panic!("{:?}", drawn[1]) };
    let best: Vec<(&str, &[usize], &str)> =
        sets.rows.iter().map(|(size, layers, said)| (size.as_str(), &layers[..], said.as_str())).collect();
    assert_eq!(best[1].1, [0]);
    assert_eq!((best[2].0, best[2].1), ("2", &[0, 1][..]), "of two that lose the same, the first");
    assert!(best[3].2.starts_with("0.00 · "), "{best:?}");
}

#[test]
fn many_subsets_are_counted_in_thousands() {
    let drawn = figures(&results(&["subsets"], 10));
    assert!(drawn[0].plot.title.starts_with("All 1,024 subsets of layers"), "{}", drawn[0].plot.title);
    let minimal = drawn.iter().find(|figure| figure.plot.title.starts_with("Minimal sets")).unwrap();
    assert!(minimal.caption.contains("among all 1,024 subsets"), "{}", minimal.caption);
    assert!(minimal.caption.contains("keep 90\u{a0}% of the intact model's right answers (90\u{a0}%)"));
}

#[test]
fn window_sizes_are_means_between_the_least_and_the_most() {
    // Windows of 4 layers in order: 0..1, 0..2, 0..3, 0..4, 1..2, 1..3, 1..4, 2..3, 2..4, 3..4.
    let drawn = figures(&losing("skip-window", 4, |place| if place == 9 { 9.0 } else { place as f64 }));
    let sizes = curves(drawn.last().unwrap());
    assert_eq!((sizes.axis.as_str(), sizes.series.len()), ("layers in the window", 1));
    assert_eq!(
        points(&sizes.series[0]),
        [[1.0, 0.0, 5.0, 9.0], [2.0, 1.0, 14.0 / 3.0, 8.0], [3.0, 2.0, 4.0, 6.0], [4.0, 3.0, 3.0, 3.0]]
    );
    // One that is NaN makes the mean NaN, and no band hides it.
    let broken = figures(&losing("skip-window", 4, |place| if place == 1 { -f64::NAN } else { 1.0 }));
    let (_, pairs) = curves(broken.last().unwrap()).series[0].points[1];
    assert!(pairs.value.is_nan() && pairs.low.is_nan() && pairs.high.is_nan());
    // Loops are curves of their own; windows of a single size have no other figure.
    let looped = figures(&losing("looped-parallel x2..4 w2", 4, |place| place as f64));
    let names: Vec<&str> = curves(&looped[0]).series.iter().map(|series| series.name.as_str()).collect();
    assert_eq!((looped.len(), names), (1, vec!["looped-parallel ×2", "looped-parallel ×3"]));
    assert!(figures(&losing("skip-window w2", 4, |_| 1.0)).iter().all(|figure| !figure.id.ends_with("window-size")));
}

#[test]
fn orders_stand_where_kendall_puts_them() {
    let drawn = figures(&losing("permutations 0..3", 3, |place| place as f64));
    assert_eq!((drawn.len(), curves(&drawn[0]).axis.as_str()), (1, "Kendall's τ to the intact order"));
    let taus: Vec<f64> = curves(&drawn[0]).series[0].points.iter().map(|(tau, _)| *tau).collect();
    assert_eq!(taus, [-1.0, -1.0 / 3.0, -1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 1.0]);
    let results = losing("permutations 0..3", 3, |place| place as f64);
    let intact = results.plans.iter().position(|facts| facts.text == "0..3").unwrap();
    let (_, of_intact) = curves(&drawn[0]).series[0].points[5];
    assert_eq!(of_intact.value, intact as f64);
    assert!(drawn[0].caption.starts_with("6 orders (permutations 0..3): "), "{}", drawn[0].caption);
}

#[test]
fn what_is_nan_is_the_worst_and_is_drawn() {
    let drawn = figures(&losing("skip-one", 3, |place| [5.0, -f64::NAN, 7.0][place]));
    assert!(drawn[0].caption.contains("The most is lost at layer 1: NaN nats per token."), "{}", drawn[0].caption);
    let svg = drawn[0].plot.svg(crate::report::plot::Width::Column, crate::report::plot::Ink::Paper);
    assert!(svg.contains(">NaN</text>"), "{svg}");
    let truncated = figures(&losing("keep-first", 3, |place| if place == 1 { f64::NAN } else { 1.0 }));
    let plot = &truncated[0].plot;
    // The tasks are drawn there: one, with losses of its own.
    assert_eq!(curves(&truncated[0]).series.len(), 1);
    let Drawing::Curves(mut broken) = plot.drawing.clone() else { unreachable!("it was just that") };
    broken.series[0].points[1].1 = NONE;
    let plot = Plot { drawing: Drawing::Curves(broken), ..plot.clone() };
    let svg = plot.svg(crate::report::plot::Width::Column, crate::report::plot::Ink::Paper);
    assert_eq!((svg.matches("NaN").count(), svg.matches("<circle").count()), (1, 3), "{svg}");
    let text = crate::report::plot::text::draw(&plot, &|_, text| text.to_owned());
    assert!(text.contains("? NaN") && text.matches('?').count() == 2, "{text}");
}

#[test]
fn families_of_a_kind_say_which_they_are() {
    let drawn = figures(&results(&["shuffle-window 0..2 seeds 0..3", "shuffle-window 0..4 seeds 0..3"], 4));
    let titles: Vec<&str> = drawn.iter().map(|figure| figure.plot.title.as_str()).collect();
    assert!(titles[0].starts_with("Layers in other orders (shuffle-window 0..2 seeds 0..3): "), "{titles:?}");
    assert!(titles[1].starts_with("Layers in other orders (shuffle-window 0..4 seeds 0..3): "), "{titles:?}");
    assert!(figures(&results(&["skip-one"], 4))[0].plot.title.starts_with("One layer skipped: "));
}

#[test]
fn intervals_are_called_paired_where_they_are() {
    let drawn = figures(&results(&["keep-first", "swap-any"], 3));
    assert!(drawn[0].caption.ends_with("20 scored tokens; bands are 95\u{a0}% bootstraps over examples."));
    assert!(drawn[2].caption.ends_with("paired with the intact model."), "{}", drawn[2].caption);
    let mut single = results(&["swap-any"], 3);
    single.all.intact = Summary { examples: 1, tokens: 1, ..summary(0, 1.0, 1.0) };
    assert!(figures(&single)[0].caption.ends_with(" 1 example, 1 scored token."));
}
