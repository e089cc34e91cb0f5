//! What a plan changes, token by token: the text, and a table of what became more and less likely.

use serde::Deserialize;

use super::{InsideTable, Shown, Token, check_size};
use crate::measure::Number;
use crate::report::number::{counted, plain, signed};
use crate::report::plot::{Drawing, Passage, Plot, Spoken};

#[derive(Clone, Debug)]
pub(super) struct Tokens(Vec<Place>);

/// What is predicted behind a token.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Place {
    model: String,
    plan: String,
    token: String,
    token_id: u32,
    next: Option<String>,
    next_id: Option<u32>,
    intact: Prediction,
    corrupted: Prediction,
    kl: Number,
    gained: Vec<Change>,
    lost: Vec<Change>,
}

#[derive(Clone, Debug, Deserialize)]
struct Prediction {
    nll: Option<Number>,
    rank: Option<u32>,
    entropy: Number,
}

#[derive(Clone, Debug, Deserialize)]
struct Change {
    token: String,
    token_id: u32,
    probability: [Number; 2],
}

impl Place {
    fn next(&self) -> Option<Token<'_>> {
        self.next_id.map(|id| Token(self.next.as_deref(), id))
    }

    /// Nats, of the intact model and of the plan; none where the text ends.
    fn losses(&self) -> Option<[f64; 2]> {
        Some([self.intact.nll?.0, self.corrupted.nll?.0])
    }

    fn delta(&self) -> Option<f64> {
        self.losses().map(|[intact, plan]| plan - intact)
    }

    fn ranks(&self) -> String {
        let rank = |rank: Option<u32>| rank.map_or("–".to_owned(), |rank| rank.to_string());
        format!("{}→{}", rank(self.intact.rank), rank(self.corrupted.rank))
    }
}

fn changes(changes: &[Change]) -> String {
    let shown = |change: &Change| {
        let [before, after] = change.probability.map(|p| plain(100.0 * p.0, 0));
        format!("{} {before}→{after} %", Token(Some(&change.token), change.token_id).quoted())
    };
    changes.iter().map(shown).collect::<Vec<_>>().join(", ")
}

impl Tokens {
    pub(super) fn new(places: Vec<Place>) -> Result<Tokens, String> {
        check_size(places.len())?;
        match places.iter().any(|place| place.next_id.is_some() && place.losses().is_none()) {
            true => Err("a token that is predicted has no loss".to_owned()),
            false => Ok(Tokens(places)),
        }
    }

    pub(super) fn model(&self) -> &str {
        &self.0[0].model
    }

    pub(super) fn draw(&self, shown: &Shown) -> (Plot, String, InsideTable) {
        let (first, plan) = (&self.0[0], shown.plan(&self.0[0].plan));
        let begin = Token(Some(&first.token), first.token_id);
        let begin = Spoken {
            text: begin.cell(),
            value: None,
            ends_line: first.token.ends_with('\n'),
            hover: format!("{}: the text begins", begin.quoted()),
        };
        let spoken = self.0.iter().filter_map(|place| {
            let next = place.next()?;
            Some(Spoken {
                text: next.cell(),
                value: place.delta(),
                ends_line: place.next.as_ref().is_some_and(|text| text.ends_with('\n')),
                hover: place.said(next),
            })
        });
        let plot = Plot {
            title: format!("{plan}: what each token costs more than intact"),
            measure: "Δ loss to intact, nats, of the token it stands below".to_owned(),
            drawing: Drawing::Passage(Passage { tokens: std::iter::once(begin).chain(spoken).collect() }),
        };
        (plot, self.caption(plan), self.table())
    }

    fn caption(&self, plan: &str) -> String {
        let predicted: Vec<(&Place, [f64; 2])> =
            self.0.iter().filter_map(|place| place.losses().map(|losses| (place, losses))).collect();
        let sums = predicted.iter().fold([0.0, 0.0], |[a, b], (_, [intact, plan])| [a + intact, b + plan]);
        let mut caption = format!(
            "What {plan} changes, token by token: over {} the intact model loses {} nats, the plan {}.",
            counted(predicted.len() as u64, "token"),
            plain(sums[0], 2),
            plain(sums[1], 2)
        );
        let delta = |losses: &[f64; 2]| losses[1] - losses[0];
        let finite = predicted.iter().filter(|(_, losses)| delta(losses).is_finite());
        let worst = finite.max_by(|a, b| delta(&a.1).total_cmp(&delta(&b.1)));
        if let Some((place, losses)) = worst.filter(|(_, losses)| delta(losses) > 0.0) {
            let next = place.next().map(Token::quoted).unwrap_or_default();
            let (lost, ranks) = (signed(delta(losses), 2), place.ranks());
            caption.push_str(&format!(" The most is lost on {next}: {lost} nats, its rank going {ranks}."));
        }
        let fallen =
            predicted.iter().filter(|(place, _)| place.intact.rank == Some(0) && place.corrupted.rank != Some(0));
        let right = predicted.iter().filter(|(place, _)| place.intact.rank == Some(0)).count();
        let tokens = counted(right as u64, "token");
        caption.push_str(&match (right, fallen.count()) {
            (0, _) => " None was the likeliest.".to_owned(),
            (1, 0) => " The one that was the likeliest still is.".to_owned(),
            (1, _) => " The one that was the likeliest no longer is.".to_owned(),
            (_, 0) => format!(" All {tokens} that were the likeliest still are."),
            (_, 1) => format!(" Of {tokens} that were the likeliest, 1 no longer is."),
            (_, fallen) => format!(" Of {tokens} that were the likeliest, {fallen} no longer are."),
        });
        caption
    }

    fn table(&self) -> InsideTable {
        let header = ["next", "intact", "plan", "Δ", "rank", "entropy", "KL", "more likely", "less likely"];
        let rows = self.0.iter().map(|place| {
            let known = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
            vec![
                place.next().map_or_else(|| "(the end)".to_owned(), Token::quoted),
                known(place.losses().map(|[intact, _]| plain(intact, 4))),
                known(place.losses().map(|[_, plan]| plain(plan, 4))),
                known(place.delta().map(|delta| signed(delta, 4))),
                place.ranks(),
                format!("{}→{}", plain(place.intact.entropy.0, 2), plain(place.corrupted.entropy.0, 2)),
                plain(place.kl.0, 4),
                changes(&place.gained),
                changes(&place.lost),
            ]
        });
        InsideTable { header: header.map(str::to_owned).to_vec(), rows: rows.collect(), numbers: (1, 7) }
    }
}

impl Place {
    fn said(&self, next: Token<'_>) -> String {
        let [intact, plan] = self.losses().unwrap_or([f64::NAN; 2]);
        let mut said =
            format!("{}: {} → {} nats, rank {}", next.quoted(), plain(intact, 4), plain(plan, 4), self.ranks());
        for (what, changed) in [("more likely", &self.gained), ("less likely", &self.lost)] {
            if !changed.is_empty() {
                said.push_str(&format!("; {what}: {}", changes(changed)));
            }
        }
        said
    }
}
