//! The world that the embedded model's corpus tells of: capitals, elections, distances, years.

use super::words::{CAPITALS, Capital, ELECTED, EVENTS};
use super::{Draw, Procedure};
use crate::tasks::Example;

pub(super) const PROCEDURES: &[Procedure] = &[
    Procedure::new(
        "capital of a country",
        "Which city a country's capital is, behind another fact",
        capital_of_country,
    ),
    Procedure::new(
        "country of a capital",
        "Which country a city is the capital of, behind another fact",
        country_of_capital,
    ),
    Procedure::new("elections", "The year a president of the United States was elected, behind another fact", election),
    Procedure::new("distances", "Great-circle distances between capitals, rounded to 100 km", distance),
    Procedure::new(
        "greater-than years",
        "Something lasted from a year to a later one of the century; earlier ones compete. Many answers are right: \
         look at the choice, not at the greedy answer",
        greater_than,
    ),
];

/// A sentence about none of these.
fn other_fact(draw: &mut Draw, not: &[&str]) -> String {
    loop {
        let (city, country, ..) = draw.pick(&CAPITALS);
        let (who, year) = draw.pick(&ELECTED);
        let (named, fact) = match draw.below(3) {
            0 => ([city, country], format!("The capital of {country} is {city}.")),
            1 => ([city, country], format!("{city} is the capital of {country}.")),
            _ => ([who, who], format!("{who} was elected in the year {year}.")),
        };
        if !named.iter().any(|name| not.contains(name)) {
            return fact;
        }
    }
}

fn capital_of_country(draw: &mut Draw) -> Example {
    let (city, country, ..) = draw.pick(&CAPITALS);
    let before = other_fact(draw, &[city, country]);
    let (_, corrupted, ..) = another_capital(draw, city);
    let prompt = |country: &str| format!("{before} The capital of {country} is");
    Example { corrupted_prompt: Some(prompt(corrupted)), ..Example::new(prompt(country), city) }
}

fn country_of_capital(draw: &mut Draw) -> Example {
    let (city, country, ..) = draw.pick(&CAPITALS);
    let before = other_fact(draw, &[city, country]);
    let (corrupted, ..) = another_capital(draw, city);
    let prompt = |city: &str| format!("{before} {city} is the capital of");
    Example { corrupted_prompt: Some(prompt(corrupted)), ..Example::new(prompt(city), country) }
}

fn another_capital(draw: &mut Draw, city: &str) -> Capital {
    let others: Vec<Capital> = CAPITALS.into_iter().filter(|capital| capital.0 != city).collect();
    draw.pick(&others)
}

fn election(draw: &mut Draw) -> Example {
    let (who, year) = draw.pick(&ELECTED);
    let before = other_fact(draw, &[who]);
    Example::new(format!("{before} {who} was elected in the year"), year.to_string())
}

fn distance(draw: &mut Draw) -> Example {
    let [a, b] = draw.sample(&CAPITALS, 2)[..] else { unreachable!("two were drawn") };
    let answer = format!("{} km", rounded_km(a, b));
    Example::new(format!("The distance between {} and {} is approximately", a.0, b.0), answer)
}

/// The great-circle distance by the haversine formula on a sphere of 6371 km, rounded to 100 km, 100 at least.
fn rounded_km(a: Capital, b: Capital) -> u32 {
    let [from, to] = [a.2, b.2].map(f64::to_radians);
    let (along, across) = ((to - from) / 2.0, (b.3 - a.3).to_radians() / 2.0);
    let half_chord = along.sin().powi(2) + from.cos() * to.cos() * across.sin().powi(2);
    let km = 2.0 * 6371.0 * half_chord.sqrt().asin();
    ((km / 100.0).round() as u32 * 100).max(100)
}

fn greater_than(draw: &mut Draw) -> Example {
    let century = draw.within(11..=19);
    let start = draw.within(2..=97);
    let end = draw.within(start + 1..=99);
    let year = |of: usize| format!("{century}{of:02}");
    let earlier: Vec<usize> = (0..start).collect();
    let alternatives = draw.sample(&earlier, 2).into_iter().map(year).collect();
    let prompt = format!("The {} lasted from the year {} to the year", draw.pick(&EVENTS), year(start));
    Example { alternatives, ..Example::new(prompt, year(end)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against great-circle distances as atlases print them.
    #[test]
    fn distances_are_right() {
        let between = |a: &str, b: &str| {
            let find = |city: &str| CAPITALS.into_iter().find(|capital| capital.0 == city).unwrap();
            rounded_km(find(a), find(b))
        };
        assert_eq!(
            [between("Paris", "Rome"), between("London", "Paris"), between("Tokyo", "Lima")],
            [1100, 300, 15500]
        );
        assert_eq!(between("Rome", "Paris"), between("Paris", "Rome"));
    }
}
