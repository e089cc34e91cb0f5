//! Reports and studies: what they print and write, what they refuse, and how a real browser shows the page.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::run::{ended, lesion, ok, refused};

/// A folder with a store of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A sweep in the store, of this name.
    fn swept(&self, name: &str, args: &[&str]) {
        let store = self.text("store.db");
        let own = ["sweep", "--task", "indirect object", "--limit", "4", "--store", &store, "--experiment", name];
        ok(&[&own, args].concat());
    }
}

#[test]
fn the_truncation_study_says_from_how_many_layers_on_answers_are_right() {
    let place = Place::new();
    let (store, page) = (place.text("store.db"), place.text("page.html"));
    let args = ["study", "truncation", "--examples", "5", "--store", &store, "--output", &page];
    let first = ended(lesion().args(args).output().unwrap());
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let right = first.stdout.split("From how many layers on the answers are right\n").nth(1).unwrap();
    for task in ["addition", "JSON", "distances", "elections"] {
        let line = right.lines().find(|line| line.starts_with(&format!("- {task}: "))).unwrap();
        assert!(line.contains(" is right with ") || line.contains("no "), "{line}");
        let said = first.stdout.split(&format!("\n{task}: right first with ")).nth(1).expect(task);
        let lines: Vec<&str> = said.lines().skip(2).take(13).collect();
        assert!(lines[0].starts_with(" 0 layers ·") && lines[12].starts_with("12 layers ✓"), "{lines:#?}");
    }
    assert!(first.stderr.contains("78 (6.5× fewer)") && first.stderr.contains("52 completions"), "{}", first.stderr);
    refused(2, &args, &["page.html", "--force"]);
    let again = ended(lesion().args(args).arg("--force").output().unwrap());
    assert_eq!((again.code, &again.stdout), (Some(0), &first.stdout), "{}", again.stderr);
    assert!(again.stderr.contains("nothing was computed"), "{}", again.stderr);
    assert!(fs::read_to_string(&page).unwrap().contains("From how many layers on"));
}

#[test]
fn a_report_is_a_page_or_a_folder() {
    let place = Place::new();
    place.swept("orders", &["--family", "skip-one", "--family", "swap-any", "--complete", "1"]);
    let store = place.text("store.db");
    let page = place.text("page.html");
    ok(&["report", "--store", &store, "ord", "--output", &page, "--title", "A <b>title</b>"]);
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("A &lt;b&gt;title"));
    assert!(html.contains("Two layers swapped") && html.contains("What the model said") && html.contains("Provenance"));
    assert!(!html.contains("<script") && !html.contains("http://") && !html.contains("https://"));

    let folder = place.text("folder");
    ok(&["report", "--store", &store, "orders", "--markdown", "--output", &folder]);
    let report = fs::read_to_string(place.path("folder/report.md")).unwrap();
    let figures: Vec<&str> = report.split("](figures/").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(figures.len() >= 4, "{figures:?}");
    for figure in figures {
        assert!(place.path("folder/figures").join(figure).is_file(), "{figure}");
    }
    refused(2, &["report", "--store", &store, "orders", "--markdown", "--output", &folder], &["folder", "--force"]);
    refused(2, &["report", "--store", &store, "nothing"], &["nothing"]);
    refused(4, &["report", "--store", &place.text("no.db"), "orders"], &["no.db"]);
}

#[test]
fn every_task_has_its_turn_to_speak() {
    let place = Place::new();
    let (store, page) = (place.text("store.db"), place.text("page.html"));
    let own = ["sweep", "--tasks", "bundled", "--limit", "2", "--complete", "2", "--no-kl", "--store", &store];
    ok(&[&own[..], &["--plan", "0..8", "--experiment", "all"]].concat());
    ok(&["report", "--store", &store, "all", "--output", &page]);
    let html = fs::read_to_string(&page).unwrap();
    let said = html.split("<section id=\"said\">").nth(1).unwrap().split("</section>").next().unwrap();
    let tasks: Vec<&str> = said.split("<h3>").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
    let listed = crate::run::objects(&["tasks", "ls", "--json"]);
    let listed: Vec<&str> = listed.iter().map(|task| task["task"].as_str().unwrap()).collect();
    assert_eq!(tasks, listed, "32 prompts are shown: one of each task");
}

#[test]
fn a_store_that_can_only_be_read_can_be_reported() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.swept("orders", &["--family", "skip-one"]);
    let locked = place.path("locked");
    fs::create_dir(&locked).unwrap();
    fs::rename(place.path("store.db"), locked.join("store.db")).unwrap();
    fs::set_permissions(locked.join("store.db"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    ok(&["report", "--store", &place.text("locked/store.db"), "orders", "--output", &place.text("page.html")]);
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn plots_are_drawn_as_text() {
    let sweep = ["sweep", "--no-store", "--task", "indirect object", "--limit", "4", "--plot"];
    let bars = ok(&[&sweep[..], &["--family", "skip-one"]].concat());
    assert!(bars.starts_with("One layer skipped: indirect object") && bars.contains('█'), "{bars}");
    assert_eq!(bars.lines().filter(|line| line.contains(" … ")).count(), 12, "a bar a layer: {bars}");
    let map = ok(&[&sweep[..], &["--family", "swap-any"]].concat());
    assert!(map.contains("first layer ↓") && map.contains("→ second layer"), "{map}");
    let curves = ok(&[&sweep[..], &["--family", "keep-first"]].concat());
    assert!(curves.contains('┤') && curves.contains("layers kept"), "{curves}");
    assert!(![&bars, &map, &curves].iter().any(|text| text.contains('\u{1b}')));

    let loss = ok(&["loss", "--no-store", "--plot", "--plan", "skip 5", "The capital of Spain is Madrid."]);
    assert!(loss.contains("uniform, ln V") && loss.contains('█'), "{loss}");
}

/// A file with what a command prints with `--json`.
fn found(place: &Place, name: &str, args: &[&str]) -> String {
    let path = place.text(name);
    ok(&[args, &["--json", "--output", &path]].concat());
    path
}

const NAMES: &str = "When Tom and Jack went to the market, Tom gave a lamp to";

/// One file of each view.
fn views(place: &Place) -> Vec<String> {
    let corrupted = NAMES.replace("market, Tom", "market, Jack");
    let patch = ["patch", NAMES, "--corrupted", &corrupted, "--answer", " Jack", "--other", " Tom"];
    let spain = "The capital of Spain is";
    vec![
        found(
            place,
            "tokens.jsonl",
            &["tokens", "--plan", "0..8", "The capital of Spain is Madrid.\nOne day, <b>Anna"],
        ),
        found(place, "lens.jsonl", &["lens", NAMES]),
        found(place, "attribute.jsonl", &["attribute", "--answer", " Jack", "--other", " Tom", NAMES]),
        found(place, "pattern.jsonl", &["attention", "--layer", "10", "--head", "1", NAMES]),
        found(place, "heads.jsonl", &["attention", NAMES]),
        found(place, "similarity.jsonl", &["similarity", NAMES]),
        found(place, "heads-patch.jsonl", &patch),
        found(place, "patch.jsonl", &[&patch[..], &["--site", "pre"]].concat()),
        found(place, "trace.jsonl", &["trace", spain, "--subject", "Spain", "--answer", " Madrid", "--seeds", "4"]),
    ]
}

#[test]
fn what_was_found_inside_is_reported() {
    let place = Place::new();
    let files = views(&place);
    let mut args = vec!["report", "--output"];
    let page = place.text("page.html");
    args.push(&page);
    files.iter().for_each(|file| args.extend(["--view", file]));
    ok(&args);
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("Looking inside") && html.contains("<title>Inside mini</title>"));
    assert!(!html.contains("<script") && !html.contains("http://") && !html.contains("https://"));
    assert!(!html.contains("<section id=\"results\">"), "nothing was swept");
    for said in [
        " tokens that were the likeliest, ",
        "Behind the last token &quot;\u{a0}Jack&quot; is said in the end (98\u{a0}%), and without a break from step 10 on.",
        "the largest part is 10 h1: +7.65",
        "looks most at &quot;\u{a0}Tom&quot; (position 10)",
        "How much each head of 0..12 attends to position 0, on average over the text, its first 2 tokens left out. The most: ",
        "(block influence, Men et al. 2024). Most: step 0, 0.71;",
        "Furthest from the corrupted run: 10 h1 with +1.00. 95 of 96 cells move it by less than 0.05.",
        "Intervals are 95\u{a0}% bootstraps over seeds;",
        "&lt;</text>",
    ] {
        assert!(html.contains(said), "{said}");
    }
    // All of one file, one behind the other, are the same views.
    let all: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let together = place.text("all.jsonl");
    fs::write(&together, &all).unwrap();
    let second = place.text("second.html");
    ok(&["report", "--view", &together, "--output", &second]);
    let figures = |html: &str| html.matches("<figure ").count();
    assert_eq!(figures(&fs::read_to_string(&second).unwrap()), figures(&html));
    let folder = place.text("folder");
    ok(&["report", "--view", &together, "--markdown", "--output", &folder, "--title", "What *I* found"]);
    let report = fs::read_to_string(place.path("folder/report.md")).unwrap();
    assert!(report.starts_with("# What \\*I\\* found\n") && report.contains("| next | intact | plan |"), "{report}");
    assert!(place.path("folder/figures/fig-2-lens-170mm.png").is_file());
    // Beside an experiment, behind its own figures.
    place.swept("orders", &["--family", "skip-one"]);
    let both = place.text("both.html");
    ok(&["report", "--store", &place.text("store.db"), "orders", "--view", &files[1], "--output", &both]);
    let html = fs::read_to_string(&both).unwrap();
    assert!(html.contains("<section id=\"figures\">") && html.contains("<section id=\"inside\">"));
    assert!(
        html.contains("<figure id=\"fig-1-skip-one\"") && html.contains("<figure id=\"fig-2-lens\" class=\"wide\"")
    );
}

#[test]
fn files_that_hold_no_view_are_refused() {
    let place = Place::new();
    let page = place.text("page.html");
    let refuses = |code: i32, bytes: &[u8], parts: &[&str]| {
        fs::write(place.path("view.jsonl"), bytes).unwrap();
        let file = place.text("view.jsonl");
        refused(code, &["report", "--view", &file, "--output", &page], parts);
    };
    refuses(3, b"", &["view.jsonl: there is no view in it"]);
    refuses(3, b"\xff", &["not UTF-8 at byte 0"]);
    refuses(3, b"{", &["view.jsonl: line 1: "]);
    refuses(3, b"[1, 2]", &["line 1: no view"]);
    refuses(3, b"{\"view\": \"sweep\"}", &["line 1: no view"]);
    refuses(3, b"{\"view\": 7}", &["line 1: no view"]);
    for view in ["tokens", "lens", "attribute", "attention", "similarity", "patch", "trace"] {
        refuses(3, format!("{{\"view\": \"{view}\"}}").as_bytes(), &[&format!("lesion {view} in lines 1..=1: ")]);
    }
    let lens = fs::read_to_string(found(&place, "lens.jsonl", &["lens", "The capital of Spain is"])).unwrap();
    let without = |line: usize| {
        let kept = lens.lines().enumerate().filter(|(i, _)| *i != line).map(|(_, line)| format!("{line}\n"));
        kept.collect::<String>()
    };
    let lines = lens.lines().count();
    for line in [0, 1, 20, lines - 1] {
        refuses(3, without(line).as_bytes(), &["lesion lens"]);
    }
    // Numbers that a file names are no sizes of anything.
    let huge = lens.replace("\"position\":0,", "\"position\":18446744073709551615,");
    refuses(3, huge.as_bytes(), &["lesion lens"]);
    let huge = lens.replace("\"steps\":0,", "\"steps\":18446744073709551615,");
    refuses(3, huge.as_bytes(), &["a step is missing"]);
    refuses(3, lens.replace("\"steps\":", "\"steps\":-").as_bytes(), &["lesion lens"]);
    let trace = found(&place, "trace.jsonl", &["trace", "Paris is in", "--subject", "Paris", "--answer", " France"]);
    let trace = fs::read_to_string(trace).unwrap();
    let cells: Vec<&str> = trace.lines().collect();
    refuses(3, cells[..cells.len() - 1].join("\n").as_bytes(), &["the summary behind the cells is missing"]);
    refuses(3, cells[cells.len() - 1].as_bytes(), &["there are no cells"]);
    refuses(3, [&cells[1..], &cells[..1]].concat().join("\n").as_bytes(), &["lesion trace"]);
    let similarity = fs::read_to_string(found(&place, "similarity.jsonl", &["similarity", NAMES])).unwrap();
    refuses(3, similarity.replace("\"embed\",", "").as_bytes(), &["12 states by 12"]);
    let pattern = found(&place, "pattern.jsonl", &["attention", "--layer", "10", "--head", "1", NAMES]);
    let pattern = fs::read_to_string(pattern).unwrap();
    refuses(3, pattern.replace("\"pattern\":[[", "\"pattern\":[[0.5,").as_bytes(), &["does not fit its 15 tokens"]);
    // Half of a view, NaN in it and a terminal's escapes: text is text, and NaN a value.
    let odd = lens.replace("\"likeliest_probability\":0", "\"likeliest_probability\":\"NaN\",\"x\":0");
    let odd = odd.replace("\"likeliest\":\" ", "\"likeliest\":\"\\u001b[2J</svg><script>\\u202e");
    fs::write(place.path("odd.jsonl"), odd).unwrap();
    ok(&["report", "--view", &place.text("odd.jsonl"), "--output", &page]);
    let html = fs::read_to_string(&page).unwrap();
    assert!(!html.contains("<script") && !html.contains('\u{1b}') && !html.contains('\u{202e}'));
    refused(2, &["report"], &["EXPERIMENT"]);
    refused(3, &["report", "--view", "nowhere.jsonl"], &["nowhere.jsonl"]);
    refused(2, &["report", "--view", "-", "--view", "-"], &["stdin"]);
}

#[test]
fn a_browser_shows_what_was_found_inside() {
    let place = Place::new();
    let page = place.text("page.html");
    let files = views(&place);
    let mut args = vec!["report", "--output", &page];
    files.iter().for_each(|file| args.extend(["--view", file]));
    ok(&args);
    let html = fs::read_to_string(Path::new(&page)).unwrap();
    let widths = [360, 768, 1280];
    let Some(Shown { overflow, asked, console }) = shown(&html, &widths) else {
        eprintln!("skipped: no Chromium here");
        return;
    };
    assert_eq!(overflow, widths.map(|width| (width, 0)));
    assert_eq!((asked, console), (vec![], vec![]));
}

/// What a browser made of a page.
struct Shown {
    /// How far the page is wider than the window, at each width.
    overflow: Vec<(u32, i64)>,
    /// What was asked for, besides the page and the frame around it.
    asked: Vec<String>,
    console: Vec<String>,
}

/// Opens a page in frames of these widths in headless Chromium; none where there is none.
fn shown(page: &str, widths: &[u32]) -> Option<Shown> {
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    })?;
    let frames: String = widths
        .iter()
        .map(|width| format!("<iframe src='/page.html' style='width:{width}px;height:900px;border:0'></iframe>"))
        .collect();
    let measure = "addEventListener('load', () => { document.title = [...document.querySelectorAll('iframe')].map(f => \
                   f.contentDocument.documentElement).map(root => root.scrollWidth - root.clientWidth).join(' ') })";
    let frame = format!("<!DOCTYPE html><link rel=icon href='data:,'><script>{measure}</script>{frames}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    std::thread::spawn({
        let (page, asked) = (page.to_owned(), asked.clone());
        move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &frame, &page, &asked);
            }
        }
    });
    let profile = tempfile::tempdir().unwrap();
    let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
                 --disable-component-update --disable-sync --enable-logging=stderr --dump-dom --virtual-time-budget=5000";
    let output = Command::new(browser)
        .args(flags.split_whitespace())
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{address}/"))
        .output()
        .unwrap();
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap_or_default();
    let overflow: Vec<i64> = title.split(' ').map(|width| width.parse().expect(&dom)).collect();
    assert_eq!(overflow.len(), widths.len(), "{dom}");
    let asked =
        asked.lock().unwrap().iter().filter(|path| !["/", "/page.html"].contains(&path.as_str())).cloned().collect();
    Some(Shown {
        overflow: widths.iter().copied().zip(overflow).collect(),
        asked,
        console: log.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect(),
    })
}

fn answer(mut stream: TcpStream, frame: &str, page: &str, asked: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let Some(path) = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)) else { return };
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let body = match path.as_str() {
        "/" => frame,
        "/page.html" => page,
        _ => "",
    };
    asked.lock().unwrap().push(path);
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n", body.len());
    let _ = write!(stream, "{head}Connection: close\r\n\r\n{body}");
}

#[test]
fn a_browser_shows_the_page_whole_and_asks_for_nothing() {
    let place = Place::new();
    let families = ["--family", "skip-one", "--family", "swap-any", "--family", "keep-first", "--complete", "1"];
    place.swept("orders", &families);
    let page = place.text("page.html");
    ok(&["report", "--store", &place.text("store.db"), "orders", "--output", &page]);
    let html = fs::read_to_string(Path::new(&page)).unwrap();
    let widths = [360, 768, 1280];
    let Some(Shown { overflow, asked, console }) = shown(&html, &widths) else {
        eprintln!("skipped: no Chromium here");
        return;
    };
    assert_eq!(overflow, widths.map(|width| (width, 0)));
    assert_eq!((asked, console), (vec![], vec![]));
    // The measure sees what is too wide, what is asked for and what is complained of.
    let broken = "<body style='margin:0'><img src='/missing.png'><div style='width:500px'>wide</div>\
                  <script>console.error('no')</script>";
    let broken = shown(broken, &widths).unwrap();
    assert_eq!(broken.overflow, [(360, 140), (768, 0), (1280, 0)]);
    assert!(broken.asked.contains(&"/missing.png".to_owned()) && !broken.console.is_empty());
}
