//! Sums, differences, products and quotients, each behind two lines that show how.

use std::ops::RangeInclusive;

use super::{Draw, Procedure};
use crate::tasks::Example;

pub(super) const PROCEDURES: &[Procedure] = &[
    Procedure::new("1-digit addition", "Sums of two digits, behind two others", |draw| shots(draw, sum, 0..=9)),
    Procedure::new("addition up to 20", "Sums of numbers from 3 to 20, behind two others", |draw| {
        shots(draw, sum, 3..=20)
    }),
    Procedure::new("2-digit addition", "Sums of numbers of two digits, behind two others", |draw| {
        shots(draw, sum, 10..=99)
    }),
    Procedure::new("3-digit addition", "Sums of numbers of three digits, behind two others", |draw| {
        shots(draw, sum, 100..=999)
    }),
    Procedure::new("1-digit subtraction", "Differences of digits, behind two others", |draw| {
        shots(draw, difference, 0..=9)
    }),
    Procedure::new("subtraction up to 20", "Differences of numbers up to 20, behind two others", |draw| {
        shots(draw, difference, 0..=20)
    }),
    Procedure::new("2-digit subtraction", "Differences of numbers of two digits, behind two others", |draw| {
        shots(draw, difference, 10..=99)
    }),
    Procedure::new("1-digit multiplication", "Products of two digits, behind two others", |draw| {
        shots(draw, product, 1..=9)
    }),
    Procedure::new("division without remainder", "Quotients of products of digits, behind two others", |draw| {
        shots(draw, quotient, 1..=9)
    }),
];

/// The two sides of an equation.
type Sides = (String, usize);

/// Two equations, then the left side of a third.
fn shots(draw: &mut Draw, make: fn(usize, usize) -> Sides, range: RangeInclusive<usize>) -> Example {
    let mut side = || make(draw.within(range.clone()), draw.within(range.clone()));
    let [(first, one), (second, two), (asked, answer)] = [side(), side(), side()];
    Example::new(format!("{first} = {one}\n{second} = {two}\n{asked} ="), answer.to_string())
}

fn sum(a: usize, b: usize) -> Sides {
    (format!("{a} + {b}"), a + b)
}

fn difference(a: usize, b: usize) -> Sides {
    (format!("{} - {}", a.max(b), a.min(b)), a.abs_diff(b))
}

fn product(a: usize, b: usize) -> Sides {
    (format!("{a} * {b}"), a * b)
}

fn quotient(a: usize, b: usize) -> Sides {
    (format!("{} / {a}", a * b), b)
}
