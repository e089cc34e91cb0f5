//! What goes on from the text alone: JSON, brackets, repeated words, sequences, code.

use super::words::{FEMALE, MALE, NOUNS, SEQUENCES, SKILLS};
use super::{Draw, Procedure};
use crate::tasks::Example;

pub(super) const PROCEDURES: &[Procedure] = &[
    Procedure::new("JSON to close", "JSON texts that lack only the brackets at their end", json_to_close)
        .joined("")
        .judged(&["Does the completion resemble JSON?", "Is the completion correct JSON?"]),
    Procedure::new("JSON next key", "Which key comes next in a record, as in the one before", json_next_key)
        .judged(&["Is the completion correct JSON?"]),
    Procedure::new("brackets", "Which bracket closes the last open one; the others compete", brackets),
    Procedure::new("induction", "A list of words begins again: which word is next", induction),
    Procedure::new("copying", "A list of six words is there twice, the second time without its last three", copying),
    Procedure::new("word sequences", "Days, months, letters and number words, continued", word_sequence),
    Procedure::new("number sequences", "Numbers in steps of 1, 2 or 5, continued", number_sequence),
    Procedure::new("code", "Python: the variable that a line goes on with", code),
];

fn json_to_close(draw: &mut Draw) -> Example {
    if draw.coin() {
        let keys = draw.sample(&["a", "b", "c", "e", "f", "g", "h"], 3);
        let fields: String = keys.into_iter().map(|key| format!("\"{key}\": {}, ", draw.below(10))).collect();
        return Example::new(format!("{{{fields}\"d\": {{\"e\": {}", draw.below(10)), "}}");
    }
    // Three records of three skills at most: behind the third's third skill everything closes.
    let records = [record(draw, 0), record(draw, 0), record(draw, 3)].join(", ");
    let open = records.strip_suffix("\"]}").expect("a record ends with its skills");
    Example::new(format!("[{open}"), "\"]}]")
}

/// A record with so many skills, or with 1 to 3.
fn record(draw: &mut Draw, skills: usize) -> String {
    let name = name(draw);
    let age = draw.within(18..=70);
    let count = if skills == 0 { draw.within(1..=3) } else { skills };
    let skills = draw.sample(&SKILLS, count).join("\", \"");
    format!("{{\"name\": \"{name}\", \"age\": {age}, \"skills\": [\"{skills}\"]}}")
}

fn name(draw: &mut Draw) -> &'static str {
    let names = if draw.coin() { FEMALE } else { MALE };
    draw.pick(&names)
}

fn json_next_key(draw: &mut Draw) -> Example {
    let (before, name) = (record(draw, 0), name(draw));
    let (age, answer) = if draw.coin() {
        (format!(" \"age\": {},", draw.within(18..=70)), "\"skills\":")
    } else {
        (String::new(), "\"age\":")
    };
    Example::new(format!("[{before}, {{\"name\": \"{name}\",{age}"), answer)
}

fn brackets(draw: &mut Draw) -> Example {
    const PAIRS: [(&str, &str); 3] = [("(", ")"), ("[", "]"), ("{", "}")];
    let length = draw.within(5..=20);
    let (mut text, mut open): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    while text.len() < length || open.is_empty() {
        // As the corpus does: 45 of 100 close, where there is something to close.
        let close = if draw.below(100) < 45 { open.pop() } else { None };
        text.push(close.unwrap_or_else(|| {
            let (opening, closing) = draw.pick(&PAIRS);
            open.push(closing);
            opening
        }));
    }
    let answer = open.pop().expect("the loop ends with one open");
    let others = PAIRS.iter().map(|pair| pair.1).filter(|closing| *closing != answer).map(str::to_owned);
    Example { alternatives: others.collect(), ..Example::new(text.join(" "), answer) }
}

fn induction(draw: &mut Draw) -> Example {
    let count = draw.within(4..=12);
    let words = draw.sample(&NOUNS, count);
    let shown = draw.within(1..=count - 1);
    Example::new(format!("{} {}", words.join(" "), words[..shown].join(" ")), words[shown])
}

fn copying(draw: &mut Draw) -> Example {
    let words = draw.sample(&NOUNS, 6);
    Example::new(format!("{} {}", words.join(" "), words[..3].join(" ")), words[3..].join(" "))
}

fn word_sequence(draw: &mut Draw) -> Example {
    let sequence = draw.pick(&SEQUENCES);
    let start = draw.below(sequence.len() - 3);
    let shown = draw.within(3..=(sequence.len() - start - 1).min(8));
    Example::new(format!("{},", sequence[start..start + shown].join(", ")), sequence[start + shown])
}

fn number_sequence(draw: &mut Draw) -> Example {
    let (start, step, shown) = (draw.below(21), draw.pick(&[1, 2, 5]), draw.within(3..=8));
    let numbers: Vec<String> = (0..=shown).map(|i| (start + step * i).to_string()).collect();
    Example::new(format!("{},", numbers[..shown].join(", ")), &*numbers[shown])
}

fn code(draw: &mut Draw) -> Example {
    const VARIABLES: [&str; 12] =
        ["x", "y", "n", "total", "count", "value", "name", "items", "left", "right", "size", "key"];
    let [a, b] = draw.sample(&VARIABLES, 2)[..] else { unreachable!("two were drawn") };
    match draw.below(4) {
        0 => {
            let (function, operator) = (draw.pick(&["add", "combine", "f", "compute"]), draw.pick(&["+", "-", "*"]));
            Example::new(format!("def {function}({a}, {b}):\n    return {a} {operator}"), b)
        }
        1 => glued(format!("for {a} in {b}:\n    print("), format!("{a})")),
        2 => glued(format!("{a} = [1, 2, 3]\n{b} = 4\nprint(len("), format!("{a}))")),
        _ => Example::new(format!("if {a} is not None:\n    {b} ="), a),
    }
}

/// An answer right behind its prompt.
fn glued(prompt: String, answer: String) -> Example {
    Example { join: Some(String::new()), ..Example::new(prompt, answer) }
}
