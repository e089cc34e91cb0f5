//! Grammar and words: indirect objects, agreement, pronouns, antonyms, translation, definitions.

use super::words::{ANTONYMS, DEFINITIONS, FEMALE, FRENCH, MALE, PLACES, SINGULAR, THINGS};
use super::{Draw, Procedure};
use crate::tasks::Example;

pub(super) const PROCEDURES: &[Procedure] = &[
    Procedure::new(
        "indirect object",
        "Who is given something (Wang et al. 2022); the giver competes, and gives to the other in the corrupted prompt",
        indirect_object,
    ),
    Procedure::new(
        "subject-verb agreement",
        "is or are, behind a noun of the other number; the subject has the other number in the corrupted prompt",
        agreement,
    ),
    Procedure::new(
        "gendered pronouns",
        "he or she, by a name; one of the other gender in the corrupted prompt",
        pronoun,
    ),
    Procedure::new(
        "possessive pronouns",
        "his or her, by a name; one of the other gender in the corrupted prompt",
        possessive,
    ),
    Procedure::new("antonyms", "The opposite of a word, behind two other pairs", antonym),
    Procedure::new("English to French", "Words translated, behind two others", french),
    Procedure::new("definitions", "What a word means, behind another definition", definition)
        .joined("\n")
        .judged(&["Is the completion a concise and accurate definition of the word?"]),
];

fn indirect_object(draw: &mut Draw) -> Example {
    let [giver, receiver] = draw.sample(&[FEMALE, MALE].concat(), 2)[..] else { unreachable!("two were drawn") };
    let (first, second) = if draw.coin() { (giver, receiver) } else { (receiver, giver) };
    let (place, thing, template) = (draw.pick(&PLACES), draw.pick(&THINGS), draw.below(3));
    let prompt = |giver: &str| match template {
        0 => format!("When {first} and {second} went to the {place}, {giver} gave a {thing} to"),
        1 => format!("After {first} and {second} went to the {place}, {giver} gave a {thing} to"),
        _ => format!("Then, {first} and {second} were at the {place}. {giver} handed the {thing} to"),
    };
    Example {
        alternatives: vec![giver.to_owned()],
        corrupted_prompt: Some(prompt(receiver)),
        ..Example::new(prompt(giver), receiver)
    }
}

fn agreement(draw: &mut Draw) -> Example {
    let [subject, other] = draw.sample(&SINGULAR, 2)[..] else { unreachable!("two were drawn") };
    let plural = draw.coin();
    let number = |noun: &str, plural: bool| if plural { format!("{noun}s") } else { noun.to_owned() };
    let distractor = number(other, !plural);
    let prompt = |plural: bool| format!("The {} near the {distractor}", number(subject, plural));
    let (answer, wrong) = if plural { ("are", "is") } else { ("is", "are") };
    Example {
        alternatives: vec![wrong.to_owned()],
        corrupted_prompt: Some(prompt(!plural)),
        ..Example::new(prompt(plural), answer)
    }
}

/// By a name's gender, one word or the other, behind a text around the name.
fn by_gender(draw: &mut Draw, [she, he]: [&str; 2], text: impl Fn(&str) -> String) -> Example {
    let (female, woman, man) = (draw.coin(), draw.pick(&FEMALE), draw.pick(&MALE));
    let (name, other, answer, wrong) = if female { (woman, man, she, he) } else { (man, woman, he, she) };
    Example {
        alternatives: vec![wrong.to_owned()],
        corrupted_prompt: Some(text(other)),
        ..Example::new(text(name), answer)
    }
}

fn pronoun(draw: &mut Draw) -> Example {
    let said = draw.coin();
    by_gender(
        draw,
        ["she", "he"],
        |name| {
            if said { format!("{name} said that") } else { format!("{name} went home because") }
        },
    )
}

fn possessive(draw: &mut Draw) -> Example {
    let place = draw.pick(&PLACES);
    by_gender(draw, ["her", "his"], |name| format!("One day, {name} walked to the {place} with"))
}

fn antonym(draw: &mut Draw) -> Example {
    let mut pairs = draw.sample(&ANTONYMS, 3);
    for pair in &mut pairs {
        if draw.coin() {
            *pair = (pair.1, pair.0);
        }
    }
    Example::new(
        format!("{} -> {}\n{} -> {}\n{} ->", pairs[0].0, pairs[0].1, pairs[1].0, pairs[1].1, pairs[2].0),
        pairs[2].1,
    )
}

fn french(draw: &mut Draw) -> Example {
    let pairs = draw.sample(&FRENCH, 3);
    let lines: Vec<String> =
        pairs.iter().map(|(english, french)| format!("English: {english} French: {french}")).collect();
    Example::new(format!("{}\n{}\nEnglish: {} French:", lines[0], lines[1], pairs[2].0), pairs[2].1)
}

fn definition(draw: &mut Draw) -> Example {
    let [(shown, meaning), (word, answer)] = draw.sample(&DEFINITIONS, 2)[..] else { unreachable!("two were drawn") };
    Example::new(format!("Define: {shown}\n{meaning}.\nDefine: {word}"), format!("{answer}."))
}
