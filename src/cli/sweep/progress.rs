//! What a sweep tells beforehand and on its way: what it costs, how long it takes.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lesion::report::{counted, grouped};

use super::plans::Plans;
use crate::cli::output::{note, shown};

/// How often progress is told where no bar can be drawn.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// What is going to happen, and what it costs: block evaluations on each example, shared and plan by plan.
pub(crate) fn announcement(
    plans: &Plans,
    shared: f64,
    naive: f64,
    examples: Option<usize>,
    seconds: Option<f64>,
) -> String {
    let intact = if plans.intact.is_some() { "" } else { " and the intact model" };
    let each = examples.map_or_else(|| "a text".to_owned(), |examples| counted(examples as u64, "example"));
    let saving = naive / shared.max(1e-9);
    let time = seconds.map_or(String::new(), |seconds| format!(", about {}", duration(seconds)));
    format!(
        "{}{intact} on {each}: {} block evaluations each instead of {} ({saving:.1}× fewer){time}",
        counted(plans.plans.len() as u64, "plan"),
        blocks(shared),
        blocks(naive),
    )
}

/// A number of block evaluations.
pub(crate) fn blocks(blocks: f64) -> String {
    if blocks.fract() == 0.0 { grouped(blocks as u64) } else { shown(blocks) }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "a second".to_owned(),
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6_000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

/// Progress by the FLOP that are done: a bar on a terminal, a line now and then elsewhere.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    total: Option<u64>,
    done: u64,
    start: Instant,
    told: Instant,
}

impl Progress {
    pub(crate) fn new(total: Option<u64>) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = total.map_or_else(ProgressBar::no_length, |total| ProgressBar::new(total / 1_000_000));
            let style = if total.is_some() { "{wide_bar} {percent} % {eta} left" } else { "{spinner} {elapsed}" };
            bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
            bar
        });
        Progress { bar, total, done: 0, start: Instant::now(), told: Instant::now() }
    }

    pub(crate) fn advance(&mut self, flop: u64) {
        self.done += flop;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done / 1_000_000);
        } else if self.told.elapsed() >= LOG_EVERY {
            self.told = Instant::now();
            let passed = self.start.elapsed().as_secs_f64();
            note(match self.total {
                Some(total) => {
                    let share = self.done as f64 / total.max(1) as f64;
                    let left = passed * (1.0 - share).max(0.0) / share.max(1e-9);
                    format!("{:.0} % done, about {} left", 100.0 * share, duration(left))
                }
                None => format!("{:.1} TFLOP done in {}", self.done as f64 / 1e12, duration(passed)),
            });
        }
    }

    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            [duration(0.2), duration(89.6), duration(150.0), duration(7_200.0)],
            ["a second", "90 s", "2 min", "2.0 h"]
        );
        assert_eq!([blocks(4095.0), blocks(7.5)], ["4,095", "7.5000"]);
    }
}
