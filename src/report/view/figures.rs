//! Figures as the templates want them, in sections: of what was swept, and of what was found inside.

use serde::Serialize;

use super::visible;
use crate::report::data::{InsideFacts, Study};
use crate::report::figures::figures;
use crate::report::inside::{InsideTable, Shown};
use crate::report::plot::{Plot, unbroken};

#[derive(Serialize)]
pub(in crate::report) struct SectionView {
    pub(in crate::report) id: &'static str,
    pub(in crate::report) title: &'static str,
    pub(in crate::report) figures: Vec<FigureView>,
}

#[derive(Serialize)]
pub(in crate::report) struct FigureView {
    pub(in crate::report) number: usize,
    pub(in crate::report) id: String,
    pub(in crate::report) caption: String,
    pub(in crate::report) alt: String,
    /// Takes the whole width.
    pub(in crate::report) wide: bool,
    /// What makes it again.
    pub(in crate::report) commands: Vec<String>,
    pub(in crate::report) table: Option<InsideTable>,
    #[serde(skip)]
    pub(in crate::report) plot: Plot,
}

/// The sections that a study has.
pub(super) fn of_study(study: &Study) -> Vec<SectionView> {
    let mut commands = vec![visible(&study.command), visible(&study.report_command)];
    commands.dedup();
    let swept = figures(&study.results).into_iter().enumerate();
    let swept: Vec<FigureView> = swept
        .map(|(i, figure)| FigureView::new(i + 1, figure.id, figure.plot, &figure.caption, commands.clone(), None))
        .collect();
    let inside = of_views(&study.inside, &study.report_command, swept.len() + 1);
    let section = SectionView { id: "figures", title: "Figures", figures: swept };
    [section, inside].into_iter().filter(|section| !section.figures.is_empty()).collect()
}

/// What was found inside, the first figure having this number.
pub(super) fn of_views(inside: &[InsideFacts], command: &str, first: usize) -> SectionView {
    let mut drawn = Vec::new();
    for InsideFacts { file, view } in inside {
        for figure in view.figures(&Shown::default()) {
            let number = first + drawn.len();
            let (id, caption) = (format!("fig-{number}-{}", figure.view), format!("{} From {file}.", figure.caption));
            let commands = vec![visible(command)];
            drawn.push(FigureView::new(number, id, figure.plot, &caption, commands, figure.table));
        }
    }
    SectionView { id: "inside", title: "Looking inside", figures: drawn }
}

impl FigureView {
    fn new(
        number: usize,
        id: String,
        plot: Plot,
        caption: &str,
        commands: Vec<String>,
        table: Option<InsideTable>,
    ) -> FigureView {
        let all = |texts: Vec<String>| texts.iter().map(|text| visible(text)).collect();
        let table = table.map(|InsideTable { header, rows, numbers }| InsideTable {
            header: all(header),
            rows: rows.into_iter().map(all).collect(),
            numbers,
        });
        let alt = visible(&format!("{}; {}", plot.title, plot.measure));
        FigureView {
            number,
            id,
            caption: visible(&unbroken(caption)),
            alt,
            wide: plot.is_wide(),
            commands,
            table,
            plot,
        }
    }
}
