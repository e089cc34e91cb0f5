//! Reports of a live sweep on the embedded model, and of made-up results.

use super::*;
use crate::plan::{Family, PlanShape};
use crate::sweep::{Estimate, Summary};

/// A plan's summary: loss and share of right answers.
pub(super) fn summary(plan: usize, nll: f64, correct: f64) -> Summary {
    let around = |value: f64| Estimate { value, low: value - 0.05, high: value + 0.05 };
    Summary {
        plan,
        examples: 10,
        tokens: 20,
        nll: around(nll),
        delta: Some(around(nll - 0.1)),
        correct,
        top1: correct,
        entropy: 0.5,
        divergence: f64::NAN,
        non_finite: 0,
    }
}

/// Results of families for a model of so many layers; each plan's loss is its number over ten.
pub(super) fn results(families: &[&str], n_layer: usize) -> Results {
    let shape = PlanShape::gpt2(n_layer, 2);
    let mut results = Results {
        n_layer,
        uniform: 7.6,
        plans: Vec::new(),
        families: Vec::new(),
        all: Group { name: "all tasks".into(), intact: summary(0, 0.1, 0.9), plans: Vec::new() },
        tasks: Vec::new(),
    };
    for text in families {
        let family: Family = text.parse().unwrap();
        let members = family.members(&shape).unwrap().into_iter().map(|member| {
            let place = results.plans.iter().position(|facts: &PlanFacts| facts.plan == member.plan);
            let place = place.unwrap_or(results.plans.len());
            if place == results.plans.len() {
                results.plans.push(PlanFacts { text: member.plan.to_string(), plan: member.plan });
            }
            (place, member.at)
        });
        let members = members.collect();
        results.families.push(FamilyFacts::new(&family, members));
    }
    let count = results.plans.len();
    results.all.plans =
        (0..count).map(|plan| summary(plan, plan as f64 / 10.0, 1.0 - plan as f64 / count as f64)).collect();
    for name in ["sums", "capitals <b>"] {
        results.tasks.push(Group { name: name.into(), ..results.all.clone() });
    }
    results
}

pub(super) fn study(results: Results) -> Study {
    Study {
        title: "A <title> & more".into(),
        about: "What was run.".into(),
        command: "lesion sweep --family 'keep-first' <x>".into(),
        report_command: "lesion report it".into(),
        model: ModelFacts { name: "mini".into(), weights: "ab".repeat(32), tokenizer: None },
        numerics: "f32, version 1".into(),
        processes: vec![Process {
            started: "2026-01-02T03:04:05Z".into(),
            seconds: Some(1.5),
            host: "here".into(),
            version: "0.1.0".into(),
            commit: Some("0123456789abcdef-changed".into()),
            isa: "avx2".into(),
            threads: 2,
            command: "lesion sweep".into(),
        }],
        expected_examples: Some(10),
        conversations: vec![Conversation {
            task: "sums".into(),
            prompt: "1 + 1 =".into(),
            answer: Some(" 2".into()),
            said: vec![
                Said { plan: Some(1), text: " 2\n</table><script>".into(), finish: "length".into() },
                Said { plan: Some(0), text: " three\u{1b}".into(), finish: "not-a-number".into() },
            ],
        }],
        notes: vec![NoteFacts {
            kind: "hypothesis".into(),
            created: "2026-01-02".into(),
            text: "The *last* layers <img src=x> sharpen.".into(),
            runs: vec!["00112233445566778899".into()],
        }],
        inside: Vec::new(),
        results,
    }
}

const FAMILIES: [&str; 10] = [
    "keep-first",
    "skip-one",
    "swap-any",
    "repeat-one x2..5",
    "skip-window",
    "parallel",
    "looped-parallel x2..4",
    "shuffle-window seeds 0..6",
    "delete 1 seeds 0..3",
    "subsets",
];

#[test]
fn every_family_has_its_figures() {
    let results = results(&FAMILIES, 4);
    let drawn = figures(&results);
    let of = |name: &str| drawn.iter().filter(|figure| figure.id.ends_with(name)).count();
    assert_eq!([of("keep-first"), of("skip-one"), of("swap-any"), of("repeat-one")], [2, 2, 1, 1]);
    assert_eq!([of("skip-window"), of("parallel"), of("window-size"), of("shuffle-window")], [1, 1, 1, 1]);
    assert_eq!([of("delete"), of("subsets"), of("plans")], [1, 4, 0]);
    let ids: std::collections::HashSet<&str> = drawn.iter().map(|figure| figure.id.as_str()).collect();
    assert_eq!(ids.len(), drawn.len());
    // A plan of no family stands by itself.
    let mut alone = self::results(&[], 4);
    alone.plans.push(PlanFacts { text: "3,2,1,0".into(), plan: crate::plan::Plan::from_layers([3, 2, 1, 0]).unwrap() });
    for group in std::iter::once(&mut alone.all).chain(&mut alone.tasks) {
        group.plans.push(summary(0, 2.0, 0.0));
    }
    assert_eq!(figures(&alone).len(), 1);
}

#[test]
fn the_page_holds_everything_and_loads_nothing() {
    let page = html(&study(results(&FAMILIES, 4))).unwrap();
    assert!(page.contains("A &lt;title&gt; &amp; more"), "titles are text");
    for part in [
        "<svg",
        "default-src 'none'; style-src 'sha256-",
        "right first with 1 layer",
        "ended by NaN",
        "(0123456789ab, changed)",
        "<p>The <em>last</em> layers &lt;img src=x&gt; sharpen.</p>",
        "hypothesis, 2026-01-02 · run <code>0011223344556677</code>",
        "<code>lesion sweep --family &#x27;keep-first&#x27; &lt;x&gt;</code><code>lesion report it</code>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for part in ["<script", "<img", "http://", "https://", "url(", "@import", " style=", " onload", "<b>s", "\u{1b}"] {
        assert!(!page.contains(part), "{part}");
    }
    assert!(
        page.contains("&lt;script&gt;") && page.contains("capitals &lt;b&gt;"),
        "what models and files say is text"
    );
    assert_eq!(page, html(&study(results(&FAMILIES, 4))).unwrap(), "equal studies, equal bytes");
}

#[test]
fn the_policy_allows_the_page_s_own_style() {
    use base64::Engine as _;
    use sha2::Digest as _;
    let page = html(&study(results(&["skip-one"], 3))).unwrap();
    let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(style.as_bytes()));
    assert!(page.contains(&format!("style-src 'sha256-{hash}'")));
}

#[test]
fn what_is_missing_is_said() {
    let mut partial = study(results(&["keep-first"], 3));
    partial.expected_examples = Some(12);
    partial.results.all.plans[0].non_finite = 3;
    let text = text(&partial);
    assert!(text.contains("10 of 12 examples") && text.contains("3 losses of single tokens"), "{text}");
    assert!(
        text.contains(" 1 layer ✓  2⏎</table><script>") && text.contains("0 layers ·  three\\u{1b} (ended by NaN)"),
        "{text}"
    );
    assert!(text.contains("sums: the first of 10 answers is right with 0 layers"), "{text}");
}

#[test]
fn of_many_plans_the_best_are_listed_and_nan_is_not_one() {
    let mut many = study(results(&["subsets"], 6));
    many.results.all.plans[0].nll.value = -f64::NAN;
    many.results.all.plans[1].nll.value = 1234.5;
    let page = html(&many).unwrap();
    let table = page.split("<summary>all tasks</summary>").nth(1).unwrap().split("</details>").next().unwrap();
    assert_eq!(table.matches("<tr").count(), 1 + 1 + 40, "the header, the intact model and the best");
    assert!(!table.contains("NaN") && !table.contains("1234.5"), "{table}");
    assert!(table.contains("The best 40; 24 plans more are in the store."), "{table}");
}

#[test]
fn the_folder_s_figures_are_the_ones_it_names() {
    let files = folder(&study(results(&["skip-one", "skip-pairs"], 3))).unwrap();
    let report = String::from_utf8(files[0].1.clone()).unwrap();
    let named: Vec<&str> = report.split("](figures/").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert_eq!(named.len(), 6);
    for name in named {
        assert!(files.iter().any(|(path, _)| *path == format!("figures/{name}")), "{name}");
    }
    for (path, bytes) in &files[1..] {
        match path.rsplit('.').next() {
            Some("png") => assert_eq!(&bytes[1..4], b"PNG", "{path}"),
            _ => assert!(bytes.starts_with(b"<svg xmlns"), "{path}"),
        }
    }
    assert!(report.contains("# A \\<title\\> \\& more") && !report.replace("\\<", "").contains("<img"), "{report}");
    assert!(report.contains("```sh\nlesion sweep --family 'keep-first' <x>\nlesion report it\n```"), "{report}");
    assert!(report.contains("\n> The \\*last\\* layers \\<img src=x\\> sharpen.\n"), "{report}");
    assert!(report.contains("\n### capitals \\<b\\>\n"), "{report}");
    // 85 mm at 300 dots per inch.
    let png = &files.iter().find(|(path, _)| path.ends_with("85mm.png")).unwrap().1;
    assert_eq!(u32::from_be_bytes(png[16..20].try_into().unwrap()), (85.0_f64 / 25.4 * 300.0).ceil() as u32);
}

/// A picture holds ink where the plot has text: its font is there.
#[test]
fn pictures_have_text() {
    let plot = |title: &str| plot::Plot {
        title: title.into(),
        measure: String::new(),
        drawing: plot::Drawing::Sets(plot::Sets { n_layer: 1, axis: String::new(), said: String::new(), rows: vec![] }),
    };
    let size = |title: &str| png(&plot(title).svg(plot::Width::Column, plot::Ink::Paper)).unwrap().len();
    assert!(size("Δ loss ≥ 0 − ∞ τ Ж é") > size("") + 500, "{} {}", size("Δ loss"), size(""));
    assert!(png("no picture").is_err());
}

/// A live sweep: from the embedded model's rows to a page.
#[cfg(feature = "mini")]
#[test]
fn a_live_sweep_is_reported() {
    use crate::forward::{Session, SessionOptions};
    use crate::measure::Answered;
    use crate::model::Model;
    use crate::sweep::{Event, Example, Sweep, SweepOptions, Tally};
    use std::ops::ControlFlow;

    let model = Model::mini().unwrap();
    let mut results = results(&["keep-first", "skip-one"], 12);
    let prompts =
        [("The capital of Spain is", " Madrid"), ("The capital of Italy is", " Rome"), ("1 + 1 = 2\n2 + 3 =", " 5")];
    let examples = prompts.iter().enumerate().map(|(number, (prompt, answer))| {
        let answered =
            Answered::encode(model.tokenizer().unwrap(), Some(model.bos().unwrap()), prompt, answer).unwrap();
        Example::new(number as u64, answered.ids, answered.answer)
    });
    let plans: Vec<_> = results.plans.iter().map(|facts| facts.plan.clone()).collect();
    let options = SweepOptions { memory: 64 << 20, divergence: true, token_losses: false };
    let sweep = Sweep::new(plans.clone(), &model.plan_shape(), options).unwrap();
    let mut tally = Tally::new(plans.len(), ["capitals".to_owned(), "sums".to_owned()]);
    let mut session = Session::new(&model, SessionOptions { threads: 1, ..SessionOptions::default() }).unwrap();
    let mut tell = |event: Event<'_>| {
        if let Event::Rows(rows) = event {
            rows.iter().for_each(|row| tally.add(usize::from(row.example == 2), row));
        }
        ControlFlow::Continue(())
    };
    sweep.run(&mut session, examples, &|_, _| false, &mut tell).unwrap();
    let intact = plans.iter().position(|plan| *plan == crate::plan::Plan::intact(12)).unwrap();
    let group = |name: &str, group| {
        let plans = tally.summaries(group, Some(intact), 0);
        Group { name: name.into(), intact: plans[intact].clone(), plans }
    };
    results.all = group("all tasks", None);
    results.tasks = vec![group("capitals", Some(0)), group("sums", Some(1))];
    let truncations = Truncations::of(&results).unwrap();
    let found = truncations.first_right(&results.tasks[0]);
    // `lesion complete --plan 0..8 'The capital of Spain is'` gives Madrid.
    assert!(found.half.is_some_and(|layers| (3..=8).contains(&layers)), "{found:?}");
    assert_eq!((found.intact, found.examples), (1.0, 2));
    let page = html(&study(results)).unwrap();
    assert!(page.contains(&format!("half of them are with {} layers", found.half.unwrap())), "the page says so");
}
