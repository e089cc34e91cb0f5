//! Gathering pieces into a matrix and scattering ranges of one: every element arrives, nothing else is touched.

mod common;

use common::*;
use std::ops::Range;

/// Sizes of pieces: nothing, little, and enough that threads share the work.
fn lengths(rng: &mut Rng) -> Vec<usize> {
    let most = if cfg!(miri) { 20 } else { 20_000 };
    (0..rng.below(12)).map(|_| if rng.below(5) == 0 { 0 } else { rng.size(most) }).collect()
}

#[test]
fn what_was_gathered_scatters_back() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(71));
    for round in 0..if cfg!(miri) { 3 } else { 60_usize.div_ceil(thin()) } {
        let lengths = lengths(&mut rng);
        let pieces: Vec<Vec<f32>> = lengths.iter().map(|&len| rng.normals(len)).collect();
        let want = pieces.concat();
        // The pieces' places, in another order, with gaps before, between and behind them.
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        (1..order.len()).for_each(|i| order.swap(i, rng.below(i + 1)));
        let mut places = vec![0..0; pieces.len()];
        let mut end = rng.below(5);
        for &i in &order {
            places[i] = end..end + lengths[i];
            end = places[i].end + rng.below(3);
        }
        let mut start = 0;
        let copies: Vec<(Range<usize>, Range<usize>)> = (places.iter())
            .map(|to| {
                start += to.len();
                (start - to.len()..start, to.clone())
            })
            .collect();
        for team in &mut teams {
            let what = format!("round {round}: {lengths:?}, {} {} threads", team.isa(), team.threads());
            let mut gathered = vec![f32::NAN; want.len()];
            let mut scattered = vec![7.5; end];
            team.enter(|kernels| {
                let pieces: Vec<&[f32]> = pieces.iter().map(Vec::as_slice).collect();
                kernels.gather(&pieces, &mut gathered);
                kernels.scatter(&gathered, &mut scattered, &copies);
            });
            failures.same(&gathered, &want, format_args!("{what}: gathered"));
            let mut expected = vec![7.5; end];
            places.iter().zip(&pieces).for_each(|(to, piece)| expected[to.clone()].copy_from_slice(piece));
            failures.same(&scattered, &expected, format_args!("{what}: scattered"));
        }
    }
    failures.report();
}

#[test]
fn one_range_may_go_to_many_places() {
    for team in &mut teams() {
        let mut into = [0.0; 7];
        team.enter(|kernels| kernels.scatter(&[1.0, 2.0, 3.0], &mut into, &[(1..3, 5..7), (0..2, 0..2), (1..3, 2..4)]));
        assert_eq!(into, [1.0, 2.0, 2.0, 3.0, 0.0, 2.0, 3.0]);
    }
}

#[test]
fn empty_pieces_and_places_are_nothing() {
    for team in &mut teams() {
        team.enter(|kernels| {
            kernels.gather(&[], &mut []);
            kernels.gather(&[&[], &[]], &mut []);
            kernels.scatter(&[], &mut [], &[]);
            let mut into = [0.0; 4];
            // Where a place begins, where one ends, and at the end of all; whatever their order.
            kernels.scatter(&[9.0], &mut into, &[(0..1, 1..2), (0..0, 1..1), (1..1, 2..2), (0..0, 4..4)]);
            assert_eq!(into, [0.0, 9.0, 0.0, 0.0]);
            kernels.scatter(&[8.0], &mut into, &[(0..0, 1..1), (0..1, 1..2)]);
            assert_eq!(into, [0.0, 8.0, 0.0, 0.0]);
        });
    }
}
