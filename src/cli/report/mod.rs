//! `lesion report` and `lesion study`: experiments of the store as pages and folders.

pub(crate) mod args;
pub(crate) mod study;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lesion::report::inside::{View, read_views};
use lesion::report::{self, InsideFacts, ReportError, Views};
use lesion::store::Store;

use self::args::{Report as ReportArgs, ReportTo};
use super::args::OutputArgs;
use super::failure::{Exit, Failure, Result};
use super::keep;
use super::model::shown_path;
use super::output::{Output, note, view_failure};
use super::sweep::inputs;

/// What a folder holds that is a report.
const INDEX: &str = "report.md";

pub(crate) fn run(args: &ReportArgs) -> Result<Exit> {
    let inside = views(&args.view)?;
    let report_command = report::command_line(&keep::command());
    let Some(experiment) = &args.experiment else {
        let target = Target::new(&args.to, "inside")?;
        let views = of_views(args, inside, report_command);
        return target.write(&|| report::html_of_views(&views), &|| report::folder_of_views(&views)).map(|()| Exit::Ok);
    };
    let path = args.at.store.clone().map_or_else(keep::default_path, Ok)?;
    let store = Store::read(&path)?;
    let experiment = store.experiment(experiment)?;
    let target = Target::new(&args.to, &experiment.name)?;
    let mut study = report::of_store(&store, &experiment, args.seed)?;
    drop(store);
    if study.expected_examples.is_none() {
        note("warning: the experiment has not ended: examples may be missing");
    }
    if let Some(title) = &args.title {
        study.title.clone_from(title);
    }
    study.report_command = report_command;
    study.inside = inside;
    target.write(&|| report::html(&study), &|| report::folder(&study))?;
    Ok(Exit::Ok)
}

/// What files hold of views.
fn views(files: &[PathBuf]) -> Result<Vec<InsideFacts>> {
    inputs::stdin_once(files)?;
    let mut inside = Vec::new();
    for path in files {
        let file = inputs::name(path);
        let text = String::from_utf8(inputs::read(path)?).map_err(|error| {
            Failure::new(Exit::BadFile, format!("{file}: not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
        })?;
        let found = read_views(&text).map_err(|error| view_failure(&error).about(&file))?;
        inside.extend(found.into_iter().map(|view| InsideFacts { file: file.clone(), view }));
    }
    Ok(inside)
}

/// A report of views alone.
fn of_views(args: &ReportArgs, inside: Vec<InsideFacts>, report_command: String) -> Views {
    let distinct = |of: &dyn Fn(&View) -> String| {
        let mut names: Vec<String> = Vec::new();
        for name in inside.iter().map(|facts| of(&facts.view)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(", ")
    };
    let models = distinct(&|view| view.model().to_owned());
    let kinds = distinct(&|view| view.command().to_owned());
    let title = args.title.clone().unwrap_or_else(|| format!("Inside {models}"));
    let views = report::counted(inside.len() as u64, "view");
    let about = format!("{views} of what happens inside {models}: {kinds}.");
    Views { title, about, report_command, inside }
}

/// Makes a page.
type Page<'a> = dyn Fn() -> std::result::Result<String, ReportError> + 'a;

/// Makes the files of a folder.
type Folder<'a> = dyn Fn() -> std::result::Result<Vec<(String, Vec<u8>)>, ReportError> + 'a;

/// Where a report is going to be: refused before any work, if it can't be there.
pub(crate) struct Target {
    path: PathBuf,
    markdown: bool,
    force: bool,
}

impl Target {
    /// `name` is what it is called unless the command line says.
    pub(crate) fn new(to: &ReportTo, name: &str) -> Result<Target> {
        let ReportTo { output, markdown, force } = to;
        let default = || PathBuf::from(if *markdown { file_name(name) } else { format!("{}.html", file_name(name)) });
        let path = output.clone().unwrap_or_else(default);
        let target = Target { path, markdown: *markdown, force: *force };
        if *markdown {
            target.check_folder()?;
        } else {
            // It says what is wrong with a file.
            Output::open(&target.file())?;
        }
        Ok(target)
    }

    fn file(&self) -> OutputArgs {
        OutputArgs { json: false, output: Some(self.path.clone()), force: self.force }
    }

    /// Writes the report, and says where it is.
    pub(crate) fn write(&self, page: &Page<'_>, folder: &Folder<'_>) -> Result<()> {
        if self.markdown {
            self.write_folder(&folder().map_err(|error| report_failure(&error))?)?;
        } else {
            let mut output = Output::open(&self.file())?;
            output.text(&page().map_err(|error| report_failure(&error))?)?;
            output.finish()?;
        }
        note(format!("written to {}", shown_path(&self.path)));
        Ok(())
    }

    /// A folder that is there is replaced if it is asked for, and only if it is a report.
    fn check_folder(&self) -> Result<()> {
        match fs::symlink_metadata(&self.path) {
            Err(_) => Ok(()),
            Ok(_) if !self.force => {
                let message = format!("{} exists", shown_path(&self.path));
                Err(Failure::usage(message).with_help("--force replaces it"))
            }
            Ok(found) if found.is_dir() && self.path.join(INDEX).is_file() => Ok(()),
            Ok(_) => Err(Failure::usage(format!(
                "{} is no report: it has no {INDEX}, and is not replaced",
                shown_path(&self.path)
            ))),
        }
    }

    /// Whole under a temporary name beside it, then under its own.
    fn write_folder(&self, files: &[(String, Vec<u8>)]) -> Result<()> {
        let beside = |suffix: &str| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{}.{suffix}", std::process::id()));
            PathBuf::from(name)
        };
        let (partial, old) = (beside("partial"), beside("old"));
        self.check_folder()?;
        let written = write_all(&partial, files).and_then(|()| {
            let replaced = fs::symlink_metadata(&self.path).is_ok();
            if replaced {
                fs::rename(&self.path, &old)?;
            }
            fs::rename(&partial, &self.path).inspect_err(|_| {
                if replaced {
                    // Back to its name; that the new one failed is the error to tell.
                    let _ = fs::rename(&old, &self.path);
                }
            })?;
            if replaced { fs::remove_dir_all(&old) } else { Ok(()) }
        });
        written.map_err(|error| {
            // The first error is the one to tell; the partial folder is ours.
            let _ = fs::remove_dir_all(&partial);
            Failure::io("write", &shown_path(&self.path), &error)
        })
    }
}

fn write_all(folder: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    fs::create_dir(folder)?;
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(&path, bytes)?;
    }
    Ok(())
}

/// An experiment's name as that of a file.
fn file_name(name: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    name.chars().map(kept).collect::<String>().trim_start_matches('.').to_owned()
}

fn report_failure(error: &ReportError) -> Failure {
    Failure::new(Exit::BadFile, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_experiments_are_no_paths() {
        assert_eq!(file_name("../a b/c"), "-a-b-c");
        assert_eq!(file_name("truncation-mini_1.2"), "truncation-mini_1.2");
    }
}
