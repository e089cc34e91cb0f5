//! `lesion chat`: prompts line by line, from a person or a pipe, with the plan changed between them.

use std::io::{self, BufRead, IsTerminal, Write};

use lesion::forward::{Sampling, Session};
use lesion::measure::LossSummary;
use lesion::plan::Plan;
use lesion::weights::ReadMode;

use super::args::{Chat, SamplingArgs};
use super::bridges::bound;
use super::complete::{cost, prompt_nll, record, speak, speak_aloud, summary};
use super::failure::{Exit, Failure, Result};
use super::loss::{Scored, losses_of};
use super::output::{Output, note, prose_table, shown, table};
use super::resolve::{self, Input, NamedPlan};
use super::{loss, model, signals};

const HELP: &str = "\
TEXT                a prompt: continued under the current plan
:plan EXPR          change the plan (`:plan skip 5`, `:plan 0..8`); alone, show it; `:plan intact` restores the model
:diff [TEXT]        continue the last prompt, or TEXT, with the intact and the corrupted model, side by side
:loss [TEXT]        the loss of the last prompt, or TEXT, under both
:max-tokens N · :temperature T · :top-k K · :top-p P · :seed S · :stop TEXT · :bos on|off
                    change a setting; `off` where it can be; alone, show all settings
:help               this list
:quit               leave, as the end of the input does";

/// Where `:diff` wraps its columns.
const WIDTH: u16 = 100;

struct Conversation {
    session: Session,
    read: ReadMode,
    intact: NamedPlan,
    plan: NamedPlan,
    sampling: SamplingArgs,
    bos: bool,
    last: Option<String>,
    output: Output,
}

pub(crate) fn run(args: &Chat) -> Result<Exit> {
    resolve::sampling(&args.sampling)?;
    let plan = args.plan.as_deref().map(resolve::parse).transpose()?;
    let engine = resolve::engine(&args.engine)?;
    let model = model::open(&args.model)?;
    let config = model.config();
    let intact = NamedPlan::new(Plan::intact(config.n_layer), config);
    let bridges = args.bridges.read(&model)?;
    let plan = match &plan {
        Some(plan) => NamedPlan::new(bound(&resolve::plan(plan, &model.plan_shape())?, &bridges)?, config),
        None => NamedPlan::new(Plan::intact(config.n_layer), config),
    };
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    let mut conversation = Conversation {
        session,
        read: args.model.read(),
        intact,
        plan,
        sampling: args.sampling.clone(),
        bos: args.bos.wanted(),
        last: None,
        output: Output::stdout(args.json),
    };
    let terminal = io::stdin().is_terminal();
    if terminal {
        note(format!("{}: a prompt a line; :help lists what else there is", model.name()));
    }
    loop {
        if terminal {
            // A prompt that can't be shown stops nobody from typing.
            let _ = write!(io::stderr(), "{}> ", conversation.plan.text).and_then(|()| io::stderr().flush());
        }
        signals::check()?;
        let Some(line) = read_line()? else { break };
        match conversation.turn(&line) {
            Ok(true) => {}
            Ok(false) => break,
            // In a pipe nobody sees the error before the old plan has answered for the new one.
            Err(failure) if !terminal && line.split_whitespace().next() == Some(":plan") => return Err(failure),
            // Any other mistake ends no conversation; a lost output or an interrupt does.
            Err(failure) if failure.exit == Exit::Usage => note(format!("error: {failure}")),
            Err(failure) => return Err(failure),
        }
    }
    Ok(Exit::Ok)
}

/// A line without its line break; none at the end of the input.
fn read_line() -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let mut stdin = io::stdin().lock();
    loop {
        // Not `read_until`: it would go on waiting after Ctrl-C.
        let here = match stdin.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                signals::check()?;
                continue;
            }
            here => here.map_err(|error| Failure::io("read", "stdin", &error))?,
        };
        if here.is_empty() {
            if bytes.is_empty() {
                return Ok(None);
            }
            break;
        }
        let end = here.iter().position(|&byte| byte == b'\n');
        let line = &here[..end.unwrap_or(here.len())];
        bytes.extend_from_slice(line);
        let used = line.len() + usize::from(end.is_some());
        stdin.consume(used);
        if end.is_some() {
            break;
        }
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map(Some).map_err(|_| Failure::usage("a line of stdin is not UTF-8"))
}

impl Conversation {
    /// One line: whether the conversation goes on.
    fn turn(&mut self, line: &str) -> Result<bool> {
        let Some(command) = line.strip_prefix(':') else {
            if !line.is_empty() {
                self.last = Some(line.to_owned());
                self.speak(line)?;
            }
            return Ok(true);
        };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let value = rest.trim();
        match name {
            "quit" | "q" | "exit" => return Ok(false),
            // Objects alone on stdout.
            "help" if self.output.json => note(HELP),
            "help" => self.output.line(HELP)?,
            "plan" => self.change_plan(value)?,
            // The text of a prompt is taken as written after the one space.
            "diff" => self.diff(rest)?,
            "loss" => self.loss(rest)?,
            _ => self.set(name, value)?,
        }
        Ok(true)
    }

    fn speak(&mut self, text: &str) -> Result<()> {
        let input = self.input(text)?;
        let sampling = resolve::sampling(&self.sampling)?;
        let nll = prompt_nll(&mut self.session, &self.plan, &input)?;
        if self.output.json {
            let completion = speak(&mut self.session, &self.plan, &input, &sampling, &mut |_, _| Ok(()))?;
            self.check_unchanged()?;
            self.output.object(&record(&self.session, &self.plan, &input, &sampling, &nll, &completion))?;
            return self.output.flush();
        }
        speak_aloud(&mut self.session, &self.plan, &input, &sampling, &mut self.output)?;
        self.check_unchanged()?;
        note(summary(&self.session, &self.plan, &nll));
        self.output.flush()
    }

    fn check_unchanged(&self) -> Result<()> {
        model::check_unchanged(self.session.model(), self.read)
    }

    fn input(&self, text: &str) -> Result<Input> {
        let model = self.session.model();
        let input = Input::text(model, text.to_owned(), self.bos)?;
        input.within_context(model.config())?;
        Ok(input)
    }

    fn change_plan(&mut self, text: &str) -> Result<()> {
        let model = self.session.model();
        let config = model.config();
        let plan = match text {
            "" => None,
            "intact" => Some(Plan::intact(config.n_layer)),
            text => {
                let plan = resolve::plan(&resolve::parse(text)?, &model.plan_shape())?;
                Some(bound(&plan, self.session.bridges())?)
            }
        };
        if let Some(plan) = plan {
            self.plan = NamedPlan::new(plan, config);
        }
        note(format!("{}: {}", self.plan.label(), cost(&self.session, &self.plan)));
        Ok(())
    }

    /// The text given, or the last prompt.
    fn subject(&mut self, text: &str) -> Result<String> {
        if !text.is_empty() {
            self.last = Some(text.to_owned());
        }
        self.last.clone().ok_or_else(|| Failure::usage("there is no prompt yet"))
    }

    fn diff(&mut self, text: &str) -> Result<()> {
        let text = self.subject(text)?;
        let input = self.input(&text)?;
        let sampling: Sampling = resolve::sampling(&self.sampling)?;
        let mut columns = Vec::new();
        for plan in [&self.intact, &self.plan] {
            let completion = speak(&mut self.session, plan, &input, &sampling, &mut |_, _| Ok(()))?;
            model::check_unchanged(self.session.model(), self.read)?;
            if self.output.json {
                let nll = prompt_nll(&mut self.session, plan, &input)?;
                self.output.object(&record(&self.session, plan, &input, &sampling, &nll, &completion))?;
            }
            columns.push((plan.label(), completion.text.unwrap_or_default()));
            signals::check()?;
        }
        if self.output.json {
            return self.output.flush();
        }
        let (header, texts): (Vec<String>, Vec<String>) = columns.into_iter().unzip();
        self.output.text(&prose_table(&header, &[texts], WIDTH))?;
        self.output.flush()
    }

    fn loss(&mut self, text: &str) -> Result<()> {
        let text = self.subject(text)?;
        let scored = Scored::whole(self.input(&text)?);
        let mut rows = Vec::new();
        let mut plans = vec![&self.intact];
        if !self.plan.intact {
            plans.push(&self.plan);
        }
        for plan in plans {
            let nll = losses_of(&mut self.session, plan, &scored)?;
            model::check_unchanged(self.session.model(), self.read)?;
            if self.output.json {
                self.output.object(&loss::record(&self.session, plan, &scored, &nll))?;
            }
            let summary = LossSummary::from_iter(&nll);
            let cell = |value: Option<f64>| value.map_or("none".to_owned(), shown);
            rows.push(vec![plan.label(), cell(summary.mean()), cell(summary.perplexity())]);
        }
        if self.output.json {
            return self.output.flush();
        }
        let uniform = self.session.model().config().vocab_size as f64;
        rows.push(vec!["uniform".to_owned(), shown(uniform.ln()), shown(uniform)]);
        let header = ["plan", "nats per token", "perplexity"].map(str::to_owned);
        self.output.text(&table(&header, &rows, 1))?;
        self.output.flush()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let mut changed = self.sampling.clone();
        let off = value == "off";
        match name {
            _ if value.is_empty() && SETTINGS.contains(&name) => {}
            "max-tokens" => changed.max_tokens = positive(name, value)?,
            "temperature" => changed.temperature = number(name, value)?,
            "top-k" => changed.top_k = if off { None } else { Some(positive(name, value)?) },
            "top-p" => changed.top_p = if off { None } else { Some(number(name, value)?) },
            "seed" => changed.seed = number(name, value)?,
            "stop" => changed.stop = if off { Vec::new() } else { vec![value.to_owned()] },
            "bos" => match value {
                "on" => self.bos = true,
                "off" => self.bos = false,
                _ => return Err(Failure::usage(format!(":bos {}: on or off", value.escape_debug()))),
            },
            _ => {
                let name = name.escape_debug();
                return Err(Failure::usage(format!("no command `:{name}`; :help lists them")));
            }
        }
        resolve::sampling(&changed)?;
        self.sampling = changed;
        let SamplingArgs { max_tokens, temperature, top_k, top_p, seed, stop, .. } = &self.sampling;
        let or_off = |value: Option<String>| value.unwrap_or_else(|| "off".to_owned());
        note(format!(
            "max-tokens {max_tokens} · temperature {temperature} · top-k {} · top-p {} · seed {seed} · stop {} · bos {}",
            or_off(top_k.map(|k| k.to_string())),
            or_off(top_p.map(|p| p.to_string())),
            or_off(stop.first().map(|stop| format!("{stop:?}"))),
            if self.bos { "on" } else { "off" }
        ));
        Ok(())
    }
}

const SETTINGS: [&str; 7] = ["max-tokens", "temperature", "top-k", "top-p", "seed", "stop", "bos"];

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Failure::usage(format!(":{name} {}: not a number it can be", value.escape_debug())))
}

fn positive(name: &str, value: &str) -> Result<u32> {
    match number(name, value)? {
        0 => Err(Failure::usage(format!(":{name} 0: 1 or more"))),
        value => Ok(value),
    }
}
