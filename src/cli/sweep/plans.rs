//! The plans of a sweep: families, single plans and files of them, each plan once.

use std::collections::HashMap;

use lesion::forward::Bridges;
use lesion::plan::{Family, FamilyError, MAX_PLANS, Plan, PlanExpr, PlanShape};
use lesion::report::FamilyFacts;

use super::args::SweptPlans;
use super::inputs::{name, read};
use crate::cli::bridges::bound;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::resolve;

/// What a sweep runs.
pub(crate) struct Plans {
    pub(crate) plans: Vec<Plan>,
    /// Their canonical texts.
    pub(crate) texts: Vec<String>,
    pub(crate) families: Vec<Members>,
    /// The number of the intact model.
    pub(crate) intact: Option<usize>,
}

/// A family's plans.
pub(crate) struct Members {
    pub(crate) family: Family,
    /// For each member, its plan's number and its place on the axes.
    pub(crate) members: Vec<(usize, Vec<u64>)>,
}

impl Members {
    /// As reports take it.
    pub(crate) fn facts(&self) -> FamilyFacts {
        FamilyFacts::new(&self.family, self.members.clone())
    }
}

/// Syntax alone: what can be refused before a model is opened.
pub(crate) struct Parsed {
    families: Vec<Family>,
    plans: Vec<PlanExpr>,
    files: Vec<(String, Vec<u8>)>,
}

impl Parsed {
    pub(crate) fn new(args: &SweptPlans) -> Result<Parsed> {
        let families = args.family.iter().map(|text| text.parse().map_err(|error| family_failure(&error)));
        let files = args.plans.iter().map(|path| Ok((name(path), read(path)?)));
        let parsed = Parsed {
            families: families.collect::<Result<_>>()?,
            plans: resolve::parse_all(&args.plan)?,
            files: files.collect::<Result<_>>()?,
        };
        if args.family.is_empty() && args.plan.is_empty() && args.plans.is_empty() {
            return Err(Failure::usage("no plans: give --family, --plan or --plans"));
        }
        Ok(parsed)
    }

    /// All plans for a model of this shape: counted first. Bridges are there.
    pub(crate) fn resolve(self, shape: &PlanShape, bridges: &Bridges) -> Result<Plans> {
        let mut count = self.plans.len() as u128;
        for family in &self.families {
            count = count.saturating_add(family.count(shape).map_err(|error| family_failure(&error))?);
        }
        if self.families.len() > 1 && count > MAX_PLANS {
            return Err(Failure::usage(format!("{count} plans in all; {MAX_PLANS} are possible")));
        }
        let mut list = List::default();
        let mut families = Vec::with_capacity(self.families.len());
        for family in self.families {
            let members = family.members(shape).map_err(|error| family_failure(&error))?;
            let members = members.into_iter().map(|member| (list.add(member.plan), member.at)).collect();
            families.push(Members { family, members });
        }
        for plan in &self.plans {
            list.add(bound(&resolve::plan(plan, shape)?, bridges)?);
        }
        for (name, bytes) in &self.files {
            of_file(name, bytes, shape, bridges, &mut list)?;
        }
        if list.plans.len() as u128 > MAX_PLANS {
            return Err(Failure::usage(format!("{} plans in all; {MAX_PLANS} are possible", list.plans.len())));
        }
        let intact = list.known.get(&Plan::intact(shape.n_layer)).copied();
        let texts = list.plans.iter().map(Plan::to_string).collect();
        Ok(Plans { plans: list.plans, texts, families, intact })
    }
}

#[derive(Default)]
struct List {
    plans: Vec<Plan>,
    known: HashMap<Plan, usize>,
}

impl List {
    /// A plan's number.
    fn add(&mut self, plan: Plan) -> usize {
        if let Some(&known) = self.known.get(&plan) {
            return known;
        }
        self.known.insert(plan.clone(), self.plans.len());
        self.plans.push(plan);
        self.plans.len() - 1
    }
}

/// One plan a line, as text or as JSON; blank lines and lines that begin with `#` aside.
fn of_file(name: &str, bytes: &[u8], shape: &PlanShape, bridges: &Bridges, list: &mut List) -> Result<()> {
    let text = std::str::from_utf8(bytes)
        .map_err(|bad| Failure::new(Exit::BadFile, format!("{name}: not UTF-8 at byte {}", bad.valid_up_to())))?;
    let mut plans = 0;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let here = format!("{name}, line {}", number + 1);
        let at = |failure: Failure| failure.about(&here).with_exit(Exit::BadFile);
        let plan = if line.starts_with('[') {
            let plan: Plan = serde_json::from_str(line).map_err(|error| at(Failure::usage(error.to_string())))?;
            plan.validate(shape).map_err(|error| at(Failure::usage(error.to_string())))?;
            plan
        } else {
            resolve::parse(line).and_then(|parsed| resolve::plan(&parsed, shape)).map_err(at)?
        };
        // A file that is not given is no fault of this one.
        list.add(bound(&plan, bridges).map_err(|failure| failure.about(&here))?);
        plans += 1;
    }
    if plans == 0 { Err(Failure::new(Exit::BadFile, format!("{name}: no plans"))) } else { Ok(()) }
}

fn family_failure(error: &FamilyError) -> Failure {
    Failure::usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: PlanShape = PlanShape::gpt2(4, 2);

    fn resolved(families: &[&str], plans: &[&str], file: &str) -> Result<Plans> {
        let parsed = Parsed {
            families: families.iter().map(|text| text.parse().unwrap()).collect(),
            plans: plans.iter().map(|text| text.parse().unwrap()).collect(),
            files: if file.is_empty() { Vec::new() } else { vec![("f.txt".to_owned(), file.as_bytes().to_vec())] },
        };
        parsed.resolve(&SHAPE, &Bridges::NONE)
    }

    #[test]
    fn each_plan_is_there_once() {
        let plans = resolved(&["skip-one", "keep-first"], &["0..3", "3..=0"], "").unwrap();
        assert_eq!(plans.texts, ["1..4", "0,2..4", "0..2,3", "0..3", "none", "0", "0..2", "0..4", "3,2,1,0"]);
        assert_eq!(plans.intact, Some(7));
        let members: Vec<usize> = plans.families[1].members.iter().map(|(plan, _)| *plan).collect();
        assert_eq!(members, [4, 5, 6, 3, 7], "members keep their places");
    }

    #[test]
    fn files_hold_text_or_json() {
        let plans = resolved(
            &[],
            &[],
            "# what breaks\n0..2\n\n  skip 1; swap 2 3\n[{\"layer\":3},{\"layer\":0,\"part\":\"mlp\"}]\n",
        );
        assert_eq!(plans.unwrap().texts, ["0..2", "0,3,2", "3,0m"]);
        let refused = |file: &str| resolved(&[], &[], file).err().unwrap();
        let error = refused("0..2\n0..9\n");
        assert!(error.to_string().starts_with("f.txt, line 2: plan, column 4: "), "{error}");
        assert_eq!(error.exit, Exit::BadFile);
        assert!(refused("[{\"layer\":9}]").to_string().contains("layer 9 of 4"));
        assert!(refused("[{\"lay\":9}]").to_string().contains("unknown field `lay`"));
        assert_eq!(refused("# nothing\n").to_string(), "f.txt: no plans");
    }

    #[test]
    fn all_of_them_are_counted() {
        let error =
            resolved(&["shuffle-window seeds 0..200000", "shuffle-window seeds 5..200000"], &[], "").err().unwrap();
        assert_eq!(error.to_string(), "399995 plans in all; 262144 are possible");
    }
}
