//! The notation, example by example: what each text means, and where each wrong text is pointed at.

use super::*;

pub(super) const SHAPE: PlanShape = PlanShape::gpt2(12, 12);

fn read(text: &str) -> Result<Plan, PlanError> {
    text.parse::<PlanExpr>()?.resolve(&SHAPE)
}

/// The plan of a text that is right, for 12 layers of 12 heads.
pub(super) fn plan(text: &str) -> Plan {
    read(text).unwrap_or_else(|error| panic!("{error}"))
}

fn layers(layers: &[usize]) -> Plan {
    Plan::from_layers(layers.iter().copied()).unwrap()
}

fn one(layer: usize, part: Part, zero_heads: &[usize]) -> Step {
    let zeroed = (!zero_heads.is_empty()).then(|| Modifier::zero_heads(zero_heads.iter().copied()));
    Step::Block(Execution { layer, part, modifiers: Vec::from_iter(zeroed) })
}

fn whole(layer: usize) -> Step {
    Step::Block(Execution::block(layer))
}

#[test]
fn orders_of_whole_blocks() {
    let cases: [(&str, &[usize]); 24] = [
        ("0..12", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("0..8", &[0, 1, 2, 3, 4, 5, 6, 7]),
        ("0..5,6..12", &[0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]),
        ("0..3,3*4,4..12", &[0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("0..12,11", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11]),
        ("11..=0", &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ("(4..8)*2", &[4, 5, 6, 7, 4, 5, 6, 7]),
        ("4..8*2", &[4, 5, 6, 7, 4, 5, 6, 7]),
        ("none", &[]),
        ("", &[]),
        (" \t\n", &[]),
        ("(none)", &[]),
        ("(none),3", &[3]),
        ("4..4", &[]),
        ("12..12", &[]),
        ("4..=4", &[4]),
        ("4..=7", &[4, 5, 6, 7]),
        ("007", &[7]),
        ("3*0", &[]),
        ("3*1", &[3]),
        ("(none)*18446744073709551615", &[]),
        ("(5)", &[5]),
        ("((5,(6)),7)*2", &[5, 6, 7, 5, 6, 7]),
        ("  0 .. 3 , 3 * 4\n,\u{a0}4 ..= 5 ", &[0, 1, 2, 3, 3, 3, 3, 4, 5]),
    ];
    for (text, wanted) in cases {
        assert_eq!(plan(text), layers(wanted), "{text:?}");
    }
    assert_eq!(plan("0..12"), Plan::intact(12));
    assert_eq!(plan("none"), Plan::none());
    assert!(plan("").is_empty());
}

#[test]
fn groups() {
    let wide = Step::Group((4..8).map(|layer| vec![whole(layer)]).collect());
    let steps = |text| plan(text).steps().to_vec();
    for text in ["(4|5|6|7)", "par(4..8)", "par ( 4..=7 )", "((4|5|6|7))", "(none),(4 | 5 | 6 | 7)"] {
        assert_eq!(steps(text), std::slice::from_ref(&wide), "{text}");
    }
    assert_eq!(steps("0..4,(4|5|6|7),8..12").len(), 9);
    assert_eq!(steps("0..4,par(4..8)*3,8..12")[4..7], [wide.clone(), wide.clone(), wide]);
    // The order of branches is kept, and so are equal branches.
    assert_eq!(steps("par(5..=4)"), [Step::Group(vec![vec![whole(5)], vec![whole(4)]])]);
    assert_eq!(steps("(4|4)"), [Step::Group(vec![vec![whole(4)], vec![whole(4)]])]);
    // One branch is no group.
    assert_eq!(steps("par(4..5)"), [whole(4)]);
    assert_eq!(steps("(4,5)"), [whole(4), whole(5)]);
    // Branches of several steps, empty branches, groups in branches.
    let inner = Step::Group(vec![vec![], vec![whole(9)]]);
    assert_eq!(
        steps("(4,5*2|(none|9),1)"),
        [Step::Group(vec![vec![whole(4), whole(5), whole(5)], vec![inner, whole(1)]])]
    );
    assert_eq!(steps("(none|none)"), [Step::Group(vec![vec![], vec![]])]);
    assert_eq!(steps("(4..4|none)"), [Step::Group(vec![vec![], vec![]])]);
}

#[test]
fn halves_and_zeroed_heads() {
    let steps = |text| plan(text).steps().to_vec();
    assert_eq!(steps("7a,7 m"), [one(7, Part::Attention, &[]), one(7, Part::Mlp, &[])]);
    assert_eq!(steps("4..6a"), [one(4, Part::Attention, &[]), one(5, Part::Attention, &[])]);
    assert_eq!(steps("5..=4m*1"), [one(5, Part::Mlp, &[]), one(4, Part::Mlp, &[])]);
    assert_eq!(steps("7[zero h3 h5]"), [one(7, Part::Block, &[3, 5])]);
    assert_eq!(steps("7 [ zero h 5 h3 h5 , zero h0 ]"), [one(7, Part::Block, &[0, 3, 5])]);
    assert_eq!(steps("7a[zero h11]*2"), vec![one(7, Part::Attention, &[11]); 2]);
    assert_eq!(steps("4..6[zero h1]"), [one(4, Part::Block, &[1]), one(5, Part::Block, &[1])]);
    // On a group: every execution in it, besides its own.
    let branches =
        vec![vec![one(4, Part::Block, &[1, 2])], vec![one(5, Part::Attention, &[2]), whole_zeroed(6)], vec![]];
    assert_eq!(steps("(4[zero h1]|5a,6|none)[zero h2]"), [Step::Group(branches)]);
    assert_eq!(steps("par(6..8)[zero h2]"), [Step::Group(vec![vec![whole_zeroed(6)], vec![whole_zeroed(7)]])]);
    assert_eq!(steps("(none)[zero h2]"), []);
}

fn whole_zeroed(layer: usize) -> Step {
    one(layer, Part::Block, &[2])
}

#[test]
fn edits_mean_plans() {
    for (edits, wanted) in [
        ("keep-first 8", "0..8"),
        ("keep-first 0", "none"),
        ("keep-first 12", "0..12"),
        ("drop-last 4", "0..8"),
        ("drop-last 12", "none"),
        ("drop-first 1", "1..12"),
        ("skip 5", "0..5,6..12"),
        ("skip 5..8", "0..5,8..12"),
        ("skip 5..=8", "0..5,9..12"),
        ("skip 5..5", "0..12"),
        ("swap 3 7", "0..3,7,4..7,3,8..12"),
        ("swap 3 3", "0..12"),
        ("move 3 0", "3,0..3,4..12"),
        ("move 3 11", "0..3,4..12,3"),
        ("move 3 5", "0..3,4..6,3,6..12"),
        ("repeat 3 x4", "0..3,3*4,4..12"),
        ("repeat 3 x 1", "0..12"),
        ("repeat 3 x0", "0..3,4..12"),
        ("reverse 4..8", "0..4,7..=4,8..12"),
        ("reverse 0..12", "11..=0"),
        ("skip 5; skip 6", "0..5,7..12"),
        ("swap 0 1;swap 0 1", "0..12"),
        ("repeat 3 x2; drop-last 11", "0..2"),
        ("drop-last 10; move 0 1", "1,0"),
        // Numbers name layers, wherever they are: position 4 holds layer 7 after the swap.
        ("swap 4 7; skip 4", "0..4,7,5..7,8..12"),
        // Reverse and shuffle act on the positions that the layers hold.
        ("move 4 11; reverse 4..6", "0..4,4,6..12,5"),
        ("move 4 11; reverse 4..=6", "0..4,4,6,7..12,5"),
        ("shuffle 4..4 seed 1", "0..12"),
        ("shuffle 4..5 seed 1", "0..12"),
    ] {
        assert_eq!(plan(edits), plan(wanted), "{edits}");
    }
}

/// Against ChaCha8, PCG32 and the shuffle written down apart from this code and its crates. These values never change.
#[test]
fn shuffles_are_part_of_the_format() {
    for (text, wanted) in [
        ("shuffle 0..12 seed 0", [2, 1, 11, 9, 10, 4, 3, 7, 0, 6, 5, 8]),
        ("shuffle 0..12 seed 1", [8, 6, 9, 3, 10, 7, 11, 2, 1, 5, 0, 4]),
        ("shuffle 0..=11 seed 42", [7, 11, 0, 3, 9, 6, 1, 2, 5, 4, 10, 8]),
        ("shuffle 0..12 seed 18446744073709551615", [0, 11, 2, 6, 10, 1, 7, 5, 9, 3, 4, 8]),
        ("shuffle 4..8 seed 1", [0, 1, 2, 3, 6, 7, 4, 5, 8, 9, 10, 11]),
        ("shuffle 4..8 seed 42", [0, 1, 2, 3, 5, 4, 7, 6, 8, 9, 10, 11]),
    ] {
        assert_eq!(plan(text), layers(&wanted), "{text}");
    }
}

#[test]
fn canonical_text() {
    for (text, wanted) in [
        ("", "none"),
        ("0,1,2,3", "0..4"),
        ("5,6", "5..7"),
        ("5", "5"),
        ("11..=0", "11,10,9,8,7,6,5,4,3,2,1,0"),
        ("repeat 3 x4", "0..3,3*4,4..12"),
        ("3,3", "3*2"),
        ("0,1,1,2,2", "0,1*2,2*2"),
        ("0..12,11", "0..11,11*2"),
        ("(4..8)*2", "4..8,4..8"),
        ("0..4,par(4..8)*3,8..12", "0..4,(4|5|6|7)*3,8..12"),
        ("4a,5a,6m", "4..6a,6m"),
        ("4a,4m,5a,5m", "4a,4m,5a,5m"),
        ("4[zero h2],5[zero h2],6[zero h3]", "4..6[zero h2],6[zero h3]"),
        ("4..7a[zero h3 h1]", "4..7a[zero h1 h3]"),
        ("(4|5)[zero h0]", "(4[zero h0]|5[zero h0])"),
        ("7[zero h1]*2", "7[zero h1]*2"),
        ("(none|(4..5,5|6)*2)", "(none|(4..6|6)*2)"),
    ] {
        assert_eq!(plan(text).to_string(), wanted, "{text}");
        assert_eq!(plan(wanted), plan(text), "{text}");
        assert_eq!(plan(wanted).to_string(), wanted, "{text}");
    }
    let expr: PlanExpr = " 0 .. 2,(4) ".parse().unwrap();
    assert_eq!(expr.to_string(), " 0 .. 2,(4) ");
}

/// Text, what the carets underline, and part of the message. `«` marks the place, where the underlined text is empty or
/// occurs more than once: the caret is under the character after it.
#[test]
fn faults_are_pointed_at() {
    for (marked, underlined, message) in [
        // Layers, heads, ranges.
        ("12", "12", "layer 12 of 12: layers are 0..=11"),
        ("0..5,«12,3", "12", "layer 12 of 12: layers are 0..=11"),
        ("0..13", "13", "range end 13 of 12 layers: a range i..j ends at 12 at most, layers are 0..=11"),
        ("12..13", "12", "layer 12 of 12"),
        ("13..13", "13", "range end 13 of 12"),
        ("0..=«12", "12", "layer 12 of 12"),
        ("12..=0", "12", "layer 12 of 12"),
        ("99*0", "99", "layer 99 of 12"),
        ("(none|«12)", "12", "layer 12 of 12"),
        ("par(4..15)", "15", "range end 15 of 12"),
        ("8..4", "8..4", "8..4 runs backwards: write 4..8 to run upward, 8..=4 to run downward"),
        ("0,8 .. 4a", "8 .. 4", "runs backwards"),
        ("par(4..4)", "4..4", "no branches"),
        ("7[zero h3 h12]", "h12", "head 12 of 12: heads are h0..=h11"),
        ("(none)[zero h 99]", "h 99", "head 99 of 12"),
        ("7m[zero h3]", "zero h3", "z is not in 7m: an MLP half has pre, ln2, neurons, mlp and post"),
        ("(6|7m)[zero h3]", "zero h3", "z is not in 7m: an MLP half has pre, ln2, neurons, mlp and post"),
        ("par(4..8),4..6m[zero h3]", "zero h3", "z is not in 4m"),
        // Numbers and sizes.
        ("18446744073709551616", "18446744073709551616", "is too large"),
        ("0..99999999999999999999", "99999999999999999999", "is too large"),
        ("18446744073709551615", "18446744073709551615", "layer 18446744073709551615 of 12"),
        ("0*1000000000", "1000000000", "1000000000 block executions: a plan holds at most 65536"),
        ("0*65536,«1", "1", "65537 block executions: a plan holds at most 65536"),
        ("0*18446744073709551615", "18446744073709551615", "18446744073709551615 block executions"),
        ("(0..12)*18446744073709551615", "18446744073709551615", "221360928884514619380 block executions"),
        ("((0*1000)*«1000)*1000", "1000", "1000000 block executions: a plan holds at most 65536"),
        ("(none|none)*40000", "40000", "80000 block executions"),
        ("(0*40000|1*40000)", "(0*40000|1*40000)", "80000 block executions"),
        ("par(0..12)*6000", "6000", "72000 block executions"),
        ("repeat 3 x65536", "65536", "65547 block executions"),
        // Bridges.
        ("bridge", "", "expected `(`, as in bridge(6:11,name), found the end"),
        ("bridge(", "", "the layer that it leads from"),
        ("bridge(x:11,fit)", "x", "the layer that it leads from"),
        ("bridge(6..11,fit)", "..", "joined by a colon"),
        ("bridge(6,fit)", ",", "expected `:`"),
        ("bridge(6:,fit)", ",", "the layer that it leads to"),
        ("bridge(6:11)", ")", "expected `,` and the name of the map"),
        ("bridge(6:11,)", ")", "the name of a map"),
        ("bridge(6:11,fit", "", "expected `)`"),
        ("bridge(6:11,fit x)", "x", "expected `)`"),
        ("bridge(7:6,fit)", "7:6", "bridge 7:6 runs backwards"),
        ("0,bridge(6:13,fit)", "13", "bridge end 13 of 12 layers: a bridge i:j ends at 12 at most"),
        ("bridge(13:99,fit)", "13", "bridge end 13 of 12"),
        ("bridge(6:11,fit)a", "a", "a bridge has none"),
        ("bridge(6:11,fit)[zero h3]", "bridge(6:11,fit)[zero h3]", "a bridge has no sites to change"),
        ("(0,bridge(6:11,fit))[zero h3]", "zero h3", "a bridge has no sites to change"),
        ("brigde(6:11,fit)", "brigde", "`bridge`"),
        // Modifiers.
        ("7[mean mlp]", "]", "expected `from` and the name of a reference"),
        ("7[noise pre]", "pre", "expected a standard deviation"),
        ("7[noise -1 pre]", "noise -1 pre", "a standard deviation is not negative"),
        ("7[noise 1e400 pre]", "1e400", "not finite"),
        ("7[noise NaN pre]", "NaN", "expected a standard deviation"),
        ("7[zero h1,patch clean]", "clean", "unknown site `clean`"),
        ("7[patch z from]", "]", "the name of a reference"),
        ("7[zero h1 @5..2]", "5..2", "there are no positions 5..2"),
        ("7[zero h1 @2..=5]", "..=", "positions are half-open"),
        ("7[zero h1 @x]", "x", "expected a position"),
        ("7[zero n3072]", "n3072", "neuron 3072 of 3072: neurons are n0..=n3071"),
        ("7[zero ln1]", "zero ln1", "this can't be done at this site"),
        ("7[zero pattern]", "zero pattern", "this can't be done at this site"),
        ("7[steer 4 h3 from joy]", "steer 4 h3 from joy", "this can't be done at this site"),
        ("7a[zero mlp]", "zero mlp", "mlp is not in 7a: an attention half has"),
        ("7m[zero mid]", "zero mid", "mid is not in 7m"),
        ("7[knockout h3 2..4]", "2", "expected `keys`"),
        ("7[zeor h1]", "zeor", "did you mean `zero`?"),
        // Edits.
        ("skpi 5", "skpi", "unknown edit `skpi`: did you mean `skip`?"),
        ("skip 5; revers 4..8", "revers", "did you mean `reverse`?"),
        ("drop 4", "drop", "did you mean `drop-last` or `drop-first`?"),
        ("skip 12", "12", "layer 12 of 12"),
        ("skip 5..13", "13", "range end 13 of 12"),
        ("skip 8..5", "8..5", "runs backwards"),
        ("reverse 8..=5", "8..=5", "8..=5 runs downward: an edit names its layers upward, 5..=8"),
        ("skip 5; skip «5", "5", "layer 5 is not in the plan at this point"),
        ("skip 5; swap 4 «5", "5", "layer 5 is not in the plan"),
        ("skip 5; reverse 4..8", "4..8", "layer 5 is not in the plan"),
        ("repeat 3 x4; skip «3", "3", "layer 3 is in the plan 4 times at this point"),
        ("repeat 3 x2; shuffle 0..12 seed 1", "0..12", "layer 3 is in the plan 2 times"),
        ("keep-first 13", "13", "13 of 12 steps: 0..=12 are possible at this point"),
        ("drop-last 8; drop-first 5", "5", "5 of 4 steps: 0..=4 are possible"),
        ("move 3 12", "12", "position 12 of 12: positions at this point are 0..=11"),
        ("skip 0; move 3 11", "11", "position 11 of 11"),
        ("skip", "", "expected a number (skip i, or skip i..j), found the end"),
        ("swap 3,5", ",", "expected a number (swap i j), found `,`"),
        ("repeat 3 4", "4", "expected `x` and the number of times (repeat i xN), found `4`"),
        ("repeat 3*4", "*", "repeat i xN"),
        ("shuffle 4..8", "", "expected `seed` and a number (shuffle i..j seed S), found the end"),
        ("shuffle 4", "", "expected `..`"),
        ("shuffle 4..8 seed -1", "-", "unexpected '-'"),
        ("shuffle 4..8 seed 18446744073709551616", "18446744073709551616", "is too large"),
        ("skip 5, skip 6", ",", "edits are joined by `;`"),
        ("skip 5;", "", "expected an edit"),
        ("skip 5 6", "6", "expected `;` or the end"),
        ("skip 5; 0..12", "0", "either a plan or edits"),
        ("skip 5; none", "none", "either a plan or edits"),
        ("0..12; skip 5", ";", "either a plan or edits"),
        ("0..12,skip 5", "skip", "either a plan or edits"),
        ("none; skip 5", ";", "either a plan or edits"),
        // Grammar.
        ("(4|)", ")", "an empty branch is written none"),
        ("(|4)", "|", "an empty branch is written none"),
        ("(4||5)", "«|5", "an empty branch is written none"),
        ("()", ")", "an empty branch is written none"),
        ("(4,)", ")", "an empty branch is written none"),
        ("0,(4|(5|6)", "(4", "this `(` is never closed"),
        ("(4]", "]", "expected `,`, `|` or `)`, found `]`"),
        ("4)", ")", "no `(` is open"),
        ("4|5", "|", "write (4|5)"),
        ("none,4", ",", "`none` stands alone"),
        ("4,none", "none", "`none` stands alone"),
        ("0..4,", "", "expected a layer (5), a range (0..5) or a group (4|5), found the end"),
        ("0..4,,5", "«,5", "expected a layer"),
        ("4 5", "5", "expected `,` or the end, found `5`"),
        ("0...4", ".4", "a range is written i..j"),
        ("0-4", "-", "a range is written i..j"),
        ("0.4", ".", "a range is written i..j"),
        ("..4", "..", "both of its ends"),
        ("4..", "", "expected the end of the range, found the end"),
        ("0..4..8", "..8", "two ends"),
        ("[0,1]", "[", "a plan is written without them"),
        ("7b", "b", "unknown half `b`: a is the attention half, m the MLP half"),
        ("7A", "A", "unknown half `A`"),
        ("3x4", "x", "repetition is written 3*4"),
        ("3×4", "×", "repetition is written 3*4"),
        ("3*", "", "expected a count, as in 3*4, found the end"),
        ("3*-1", "-", "unexpected '-'"),
        ("3*2*2", "«*2", "one count to an item"),
        ("7*2[zero h3]", "[", "modifiers stand before the count"),
        ("7[zero h3][zero h4]", "[zero h4", "one pair of brackets"),
        ("(4|5)a", "a", "halves are of layers and ranges"),
        ("par(4..8)m", "m", "halves are of layers and ranges"),
        ("par(4..8a)", "«a", "(4a|5a)"),
        ("par(4)", ")", "expected `..` (a range, as in par(4..8)), found `)`"),
        ("par 4..8", "4", "expected `(` and a range"),
        ("7[]", "]", "expected a modifier"),
        ("7[zero]", "]", "expected a site, as in zero h3"),
        ("7[zero 3]", "3", "a head is written h3"),
        ("7[zero h]", "]", "expected the number of a head"),
        ("7[zero h3, h5]", "h5", "separated by spaces: zero h3 h5"),
        ("7[zero h3", "", "expected `]`"),
        ("7:4", ":", "expected `,` or the end"),
        ("intact", "intact", "the intact plan of 12 layers is written 0..12"),
        // Columns are characters: three bytes, four bytes, a combining mark, a line break before the fault.
        ("4,層", "層", "unexpected '層'"),
        ("4,🦀", "🦀", "unexpected '🦀'"),
        ("\u{3000}\u{a0}4,«12", "12", "layer 12 of 12"),
        ("4,\n12", "12", "layer 12 of 12"),
        ("4\u{1b}[31m", "\u{1b}", "unexpected '\\u{1b}'"),
        ("4\0", "\0", "unexpected '\\0'"),
    ] {
        let (text, start) = place(marked, underlined);
        let error = match text.parse::<PlanExpr>() {
            Err(error) => error,
            Ok(expr) => expr.resolve(&SHAPE).expect_err(&text),
        };
        assert!(error.problem().to_string().contains(message), "{text:?}: {error}");
        assert_eq!(error.text(), text);
        assert_eq!(error.span().start, start, "{text:?}: {error}");
        // The carets, counted in characters.
        let caret = error.caret();
        let (shown, carets) = caret.split_once('\n').unwrap();
        assert_eq!(shown.chars().count(), text.chars().count(), "{text:?}");
        assert!(shown.chars().all(|c| !c.is_control()), "{text:?}");
        assert_eq!(carets.find('^').unwrap(), text[..start].chars().count(), "{caret}");
        assert_eq!(carets.matches('^').count(), text[error.span()].chars().count().max(1), "{caret}");
        // One line, whatever the text.
        let line = error.to_string();
        assert!(!line.contains(char::is_control) && line.contains(&error.problem().to_string()), "{line}");
        assert!(line.contains(&format!("column {}", error.column() + 1)), "{line}");
    }
}

/// The text without its mark, and the byte at which `underlined` starts.
fn place(marked: &str, underlined: &str) -> (String, usize) {
    if let Some(at) = marked.find('«') {
        return (marked.replace('«', ""), at);
    }
    let start = match underlined.strip_prefix('«') {
        Some(last) => marked.rfind(last).unwrap(),
        None if underlined.is_empty() => marked.len(),
        None => marked.find(underlined).unwrap(),
    };
    (marked.to_owned(), start)
}

#[test]
fn hostile_texts() {
    // 100,000 parentheses, brackets, commas: an error at once, and no stack used up.
    for (text, message) in [
        ("(".repeat(100_000), "groups nested more than 32 deep"),
        ("(4|".repeat(100_000), "groups nested more than 32 deep"),
        (")".repeat(100_000), "expected a layer"),
        ("[".repeat(100_000), "brackets hold the modifiers"),
        (",".repeat(100_000), "expected a layer"),
        ("9".repeat(100_000), "(100000 characters) is too large"),
        ("x".repeat(100_000), "(100000 characters)`: the edits are"),
        (format!("4{}", "b".repeat(100_000)), "(100000 characters)`: a is"),
        (format!("0{}", ",0".repeat(70_000)), "65537 block executions"),
        (format!("({}0*60000)", "0*60000|".repeat(50_000)), "120000 block executions"),
        (format!("{}(0)*1000", "(0*60000),".repeat(2)), "120000 block executions"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.problem().to_string().contains(message), "{}", error.problem());
        assert!(error.to_string().chars().count() < 400, "{error}");
        assert!(error.caret().lines().all(|line| line.chars().count() <= 74), "{}", error.caret());
    }
    let deepest = format!("{}5{}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH));
    assert_eq!(plan(&deepest), plan("5"));
    assert_eq!(plan("0*65536").steps().len(), MAX_EXECUTIONS);
    assert!(plan("((0*256)*256)*0").is_empty());
}

/// Of a long text, the caret lines show the stretch around the fault.
#[test]
fn carets_of_long_texts() {
    for before in [0, 30, 36, 37, 70, 71, 72, 73, 500] {
        for after in [0, 1, 35, 36, 72, 500] {
            let text = format!("{}é{}", "0,".repeat(before), ",1".repeat(after));
            let error = read(&text).unwrap_err();
            let caret = error.caret();
            let (shown, carets) = caret.split_once('\n').unwrap();
            let column = carets.chars().position(|c| c == '^').unwrap();
            assert_eq!(shown.chars().nth(column), Some('é'), "{caret}");
            assert_eq!(error.column(), 2 * before);
        }
    }
    // Just past the end.
    let error = read(&"0,".repeat(100)).unwrap_err();
    assert_eq!(error.caret(), format!("…{}\n{}^", "0,".repeat(36), " ".repeat(73)));
}

#[test]
fn shapes() {
    let expr: PlanExpr = "0..5,6..12,3[zero h15]".parse().unwrap();
    assert!(expr.resolve(&PlanShape::gpt2(48, 25)).is_ok());
    assert_eq!(
        expr.resolve(&PlanShape::gpt2(6, 12)).unwrap_err().to_string(),
        "plan `0..5,6..12,3[zero h15]`, column 6: layer 6 of 6: layers are 0..=5"
    );
    assert!(expr.resolve(&SHAPE).unwrap_err().to_string().ends_with("head 15 of 12: heads are h0..=h11"));
    for (text, n_layer, n_head, message) in [
        ("0", 0, 1, "layer 0 of 0: the model has no layers"),
        ("1", 1, 1, "layer 1 of 1: the only layer is 0"),
        ("0[zero h1]", 1, 1, "head 1 of 1: the only head is h0"),
        ("keep-first 1", 0, 1, "1 of 0 steps: only 0 is possible"),
        ("skip 3", 100_000, 1, "100000 block executions"),
        ("0..70000", 100_000, 1, "70000 block executions"),
        ("par(0..70000)", usize::MAX, 1, "70000 block executions"),
        ("0..18446744073709551615", usize::MAX, 1, "18446744073709551615 block executions"),
        ("0..=18446744073709551615", usize::MAX, 1, "layer 18446744073709551615 of 18446744073709551615"),
    ] {
        let error = text.parse::<PlanExpr>().unwrap().resolve(&PlanShape::gpt2(n_layer, n_head)).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    assert_eq!("drop-last 0".parse::<PlanExpr>().unwrap().resolve(&PlanShape::gpt2(0, 0)), Ok(Plan::none()));
}

#[test]
fn steps_are_validated() {
    let smaller = PlanShape::gpt2(6, 4);
    for (text, message) in [
        ("0..12", "steps.6: layer 6 of 6: layers are 0..=5"),
        ("0,(1|2,(3|9))", "steps.1.1.1.1: layer 9 of 6: layers are 0..=5"),
        ("0,5a[zero h3 h4]", "steps.1: head 4 of 4: heads are h0..=h3"),
    ] {
        assert_eq!(plan(text).validate(&smaller).unwrap_err().to_string(), message);
        assert_eq!(plan(text).validate(&SHAPE), Ok(()));
    }
    let nested = (0..40).fold(whole(0), |step, _| Step::Group(vec![vec![step], vec![]]));
    assert!(Plan::new(vec![nested]).unwrap_err().to_string().contains("nested more than 32 deep"));
    let single = Step::Group(vec![vec![whole(0)]]);
    assert_eq!(
        Plan::new(vec![whole(0), Step::Group(vec![vec![], vec![single]])]).unwrap_err().to_string(),
        "steps.1.1: a group of 1 branches: a group has two or more"
    );
    assert_eq!(
        Plan::from_layers(std::iter::repeat_n(0, 65_537)).unwrap_err().to_string(),
        "steps: 65537 block executions: a plan holds at most 65536"
    );
}
