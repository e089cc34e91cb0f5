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
