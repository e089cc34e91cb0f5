//! The canonical text of a plan. Left to right: an equal run of two steps or more is `l*n`; otherwise the longest
//! ascending run (same part, same modifiers) that stops before the next equal run is `i..j`; a layer alone is `5`.
//! Reading it back gives the same plan.

use std::fmt;

use super::{Bridge, Execution, Part, Plan, Step};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        sequence(self.steps(), f)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Block(execution) => execution.fmt(f),
            Step::Group(branches) => {
                for (index, branch) in branches.iter().enumerate() {
                    f.write_str(if index == 0 { "(" } else { "|" })?;
                    sequence(branch, f)?;
                }
                f.write_str(")")
            }
            Step::Bridge(bridge) => bridge.fmt(f),
        }
    }
}

impl fmt::Display for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bridge { from, to, name, content: _ } = self;
        write!(f, "bridge({from}:{to},{name})")
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layer)?;
        self.suffix(f)
    }
}

impl Execution {
    /// What follows the layer or range: half and modifiers.
    fn suffix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.part.letter())?;
        for (index, modifier) in self.modifiers.iter().enumerate() {
            write!(f, "{}{modifier}", if index == 0 { "[" } else { "," })?;
        }
        f.write_str(if self.modifiers.is_empty() { "" } else { "]" })
    }

    /// Whether `next` continues a range that ends with `self`.
    fn precedes(&self, next: &Execution) -> bool {
        self.layer.checked_add(1) == Some(next.layer) && self.part == next.part && self.modifiers == next.modifiers
    }
}

impl Part {
    /// Its letter after a layer: none for a whole block.
    pub(super) fn letter(self) -> &'static str {
        match self {
            Part::Block => "",
            Part::Attention => "a",
            Part::Mlp => "m",
        }
    }
}

fn sequence(steps: &[Step], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if steps.is_empty() {
        return f.write_str("none");
    }
    let mut at = 0;
    while at < steps.len() {
        if at > 0 {
            f.write_str(",")?;
        }
        let run = equal_run(&steps[at..]);
        if run > 1 {
            write!(f, "{}*{run}", steps[at])?;
            at += run;
            continue;
        }
        match ascending_run(&steps[at..]) {
            Some((first, last, len)) if len > 1 && last.layer < usize::MAX => {
                write!(f, "{}..{}", first.layer, last.layer + 1)?;
                first.suffix(f)?;
                at += len;
            }
            _ => {
                write!(f, "{}", steps[at])?;
                at += 1;
            }
        }
    }
    Ok(())
}

/// Steps at the start of `steps` that equal the first. `steps` is not empty.
pub(super) fn equal_run(steps: &[Step]) -> usize {
    steps.iter().take_while(|step| **step == steps[0]).count()
}

/// The first and last execution of the ascending run at the start of `steps`, and its length: it stops before a step
/// that equals the one after it, which starts an equal run.
fn ascending_run(steps: &[Step]) -> Option<(&Execution, &Execution, usize)> {
    let Step::Block(first) = &steps[0] else { return None };
    let (mut last, mut len) = (first, 1);
    while let Some(Step::Block(next)) = steps.get(len)
        && last.precedes(next)
        && steps.get(len + 1) != Some(&steps[len])
    {
        last = next;
        len += 1;
    }
    Some((first, last, len))
}
