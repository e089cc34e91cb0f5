//! Two experiments side by side: what they share, plan by plan.

use super::error::StoreError;
use super::open::Store;
use super::read::{Experiment, StoredRow};
use std::collections::{HashMap, HashSet};

/// What differs between two experiments.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Settings that differ: what, in the first, in the second.
    pub settings: Vec<(&'static str, String, String)>,
    /// The plans that both have, in the first one's order.
    pub plans: Vec<PlanDifference>,
    /// Plans that only one of them has.
    pub only: [Vec<String>; 2],
    /// Questions that both have, and those that only one of them has.
    pub questions: u64,
    /// As above.
    pub only_questions: [u64; 2],
}

/// A plan, on the questions that both experiments have results of.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanDifference {
    /// The plan's text.
    pub plan: String,
    /// Questions.
    pub examples: u64,
    /// In either experiment.
    pub sides: [Side; 2],
    /// Questions whose loss is the same bit for bit.
    pub identical: u64,
}

/// A plan in one experiment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Side {
    /// Nats, summed.
    pub nll: f64,
    /// Scored tokens.
    pub tokens: u64,
    /// Questions that were answered right.
    pub correct: u64,
}

impl Side {
    /// Nats per token.
    pub fn loss(&self) -> f64 {
        self.nll / self.tokens as f64
    }

    fn add(&mut self, row: &Outcome) {
        self.nll += row.nll;
        self.tokens += u64::from(row.tokens);
        self.correct += u64::from(row.correct);
    }
}

/// What a question is in both: its text, or for a window of a text its tokens.
#[derive(PartialEq, Eq, Hash)]
enum Asked {
    Text { task: String, prompt: String, answer: Option<String> },
    Ids { task: String, prompt: Vec<u32>, answer: Vec<u32> },
}

/// What counts of a result.
#[derive(Clone, Copy)]
struct Outcome {
    nll: f64,
    tokens: u32,
    correct: bool,
}

impl Outcome {
    fn of(stored: &StoredRow) -> Outcome {
        Outcome { nll: stored.row.nll, tokens: stored.row.tokens, correct: stored.row.is_correct() }
    }
}

impl Store {
    /// Compares two experiments on the plans and questions that they share. Questions are the same if task, prompt and
    /// answer are, whatever the model makes of them.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn diff(&self, first: &Experiment, second: &Experiment) -> Result<Difference, StoreError> {
        let mut asked: HashMap<Asked, u32> = HashMap::new();
        let mut numbers = [HashMap::new(), HashMap::new()];
        for (experiment, numbers) in [first, second].into_iter().zip(&mut numbers) {
            self.questions(experiment, |question| {
                let task = experiment.tasks.get(question.task).map_or_else(String::new, |task| task.name.clone());
                let asked_now = match question.prompt {
                    Some(prompt) => Asked::Text { task, prompt, answer: question.answer },
                    None => Asked::Ids { task, prompt: question.prompt_ids, answer: question.answer_ids },
                };
                let next = asked.len() as u32;
                numbers.insert(question.example, *asked.entry(asked_now).or_insert(next));
                Ok::<(), StoreError>(())
            })?;
        }
        drop(asked);
        let sets = numbers.each_ref().map(|numbers| numbers.values().copied().collect::<HashSet<u32>>());
        let questions = sets[0].intersection(&sets[1]).count() as u64;
        let places: HashMap<&str, usize> =
            second.plans.iter().enumerate().map(|(place, plan)| (plan.text.as_str(), place)).collect();
        // By the second experiment's plan.
        let mut outcomes: HashMap<(usize, u32), Outcome> = HashMap::new();
        self.results(second, |stored| {
            if let Some(plan) = stored.plan {
                outcomes.insert((plan, numbers[1][&stored.example]), Outcome::of(&stored));
            }
            Ok::<(), StoreError>(())
        })?;
        let none = |plan: String| PlanDifference { plan, examples: 0, sides: [Side::default(); 2], identical: 0 };
        let mut plans: Vec<Option<PlanDifference>> =
            first.plans.iter().map(|plan| places.contains_key(&*plan.text).then(|| none(plan.text.clone()))).collect();
        self.results(first, |stored| {
            let Some(plan) = stored.plan else { return Ok::<(), StoreError>(()) };
            let Some(difference) = &mut plans[plan] else { return Ok(()) };
            let other = outcomes.get(&(places[&*first.plans[plan].text], numbers[0][&stored.example]));
            if let Some(other) = other {
                let own = Outcome::of(&stored);
                difference.examples += 1;
                difference.sides[0].add(&own);
                difference.sides[1].add(other);
                let both_nan = own.nll.is_nan() && other.nll.is_nan();
                difference.identical += u64::from(own.nll.to_bits() == other.nll.to_bits() || both_nan);
            }
            Ok(())
        })?;
        let shared: HashSet<&str> = first.plans.iter().map(|plan| plan.text.as_str()).collect();
        Ok(Difference {
            settings: settings(first, second),
            plans: plans.into_iter().flatten().collect(),
            only: [
                first
                    .plans
                    .iter()
                    .filter(|plan| !places.contains_key(&*plan.text))
                    .map(|plan| plan.text.clone())
                    .collect(),
                second
                    .plans
                    .iter()
                    .filter(|plan| !shared.contains(&*plan.text))
                    .map(|plan| plan.text.clone())
                    .collect(),
            ],
            questions,
            only_questions: [sets[0].len() as u64 - questions, sets[1].len() as u64 - questions],
        })
    }
}

fn settings(first: &Experiment, second: &Experiment) -> Vec<(&'static str, String, String)> {
    let isa = |experiment: &Experiment| {
        let mut all: Vec<&str> = experiment.observations.iter().map(|observation| observation.isa.as_str()).collect();
        all.sort_unstable();
        all.dedup();
        all.join(", ")
    };
    let of = |experiment: &Experiment| {
        [
            ("model", experiment.model.clone()),
            ("weights", experiment.weights.clone()),
            ("tokenizer", experiment.tokenizer.clone().unwrap_or_default()),
            ("arithmetic", experiment.arithmetic.clone()),
            ("numerics version", experiment.numerics_version.to_string()),
            ("instruction set", isa(experiment)),
            ("spec", experiment.spec.to_string()),
        ]
    };
    let pairs = of(first).into_iter().zip(of(second));
    pairs.filter(|(a, b)| a.1 != b.1).map(|((what, a), (_, b))| (what, a, b)).collect()
}
