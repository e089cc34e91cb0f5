//! From what was written to what is meant: plans against a model's layers, prompts to token ids, engine settings to a
//! session. Every refusal of input that is syntactically fine is here.

use std::io::{ErrorKind, Read};
use std::path::Path;

use lesion::forward::{Bridges, Precision, Sampling, Session, SessionOptions};
use lesion::model::{Config, Model, TokenizerError, TokenizerProblem};
use lesion::plan::{Plan, PlanExpr, PlanShape};
use lesion_kernels::Isa;

use super::args::{Device, EngineArgs, IsaArg, PrecisionArg, PromptArgs, PromptText, SamplingArgs};
use super::bridges::bound;
use super::failure::{Exit, Failure, Result};
use super::model::{model_failure, shown_path};
use super::{forward_failure, signals};

/// A session for the model, with the threads, instruction set and precision that [`engine`] found.
pub(crate) fn session(model: &Model, engine: SessionOptions) -> Result<Session> {
    Session::new(model, engine).map_err(|error| forward_failure(&error))
}

/// Threads, instruction set and precision; what is not there is an error, never replaced by something else.
pub(crate) fn engine(args: &EngineArgs) -> Result<SessionOptions> {
    if args.device == Device::Cuda {
        return Err(Failure::new(Exit::Missing, "--device cuda: this version of lesion has no CUDA kernels")
            .with_help("`lesion doctor` shows what this machine and build offer"));
    }
    let precision = match args.precision {
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::Bf16 => Precision::Bf16,
        PrecisionArg::F64 => Precision::F64,
    };
    let isa = match (args.isa.map(available).transpose()?, precision) {
        (None | Some(Isa::Portable), Precision::F64) => Isa::Portable,
        (Some(isa), Precision::F64) => {
            return Err(Failure::usage(format!(
                "--isa {isa} with --precision f64: f64 is plain Rust, without kernels"
            )));
        }
        (asked, _) => asked.unwrap_or_else(Isa::best),
    };
    let threads = args.threads.map_or(SessionOptions::default().threads, |threads| threads as usize);
    Ok(SessionOptions { threads, isa, precision })
}

fn available(asked: IsaArg) -> Result<Isa> {
    let isa = match asked {
        IsaArg::Avx512 => Isa::Avx512,
        IsaArg::Avx2 => Isa::Avx2,
        IsaArg::Neon => Isa::Neon,
        IsaArg::Portable => Isa::Portable,
    };
    if isa.is_available() {
        return Ok(isa);
    }
    let here: Vec<_> = Isa::available().map(Isa::name).collect();
    Err(Failure::new(Exit::Missing, format!("instruction set {isa}: this processor has {}", here.join(", "))))
}

/// A plan, and how it is called in results.
pub(crate) struct NamedPlan {
    pub(crate) plan: Plan,
    /// The canonical text.
    pub(crate) text: String,
    pub(crate) intact: bool,
}

impl NamedPlan {
    pub(crate) fn new(plan: Plan, config: &Config) -> NamedPlan {
        let intact = plan == Plan::intact(config.n_layer);
        NamedPlan { text: plan.to_string(), plan, intact }
    }

    /// The text for people.
    pub(crate) fn label(&self) -> String {
        if self.intact { format!("{} (intact)", self.text) } else { self.text.clone() }
    }
}

/// The syntax of a plan: refused before any model is opened.
pub(crate) fn parse(text: &str) -> Result<PlanExpr> {
    text.parse().map_err(|error| Failure::plan(&error))
}

/// The syntax of several.
pub(crate) fn parse_all(texts: &[String]) -> Result<Vec<PlanExpr>> {
    texts.iter().map(|text| parse(text)).collect()
}

/// One expression against a model's layers and heads.
pub(crate) fn plan(parsed: &PlanExpr, shape: &PlanShape) -> Result<Plan> {
    parsed.resolve(shape).map_err(|error| Failure::plan(&error))
}

/// The plans of a command: the intact model if none is given, the one given, or the intact model and then those given,
/// each once. Their bridges are there.
pub(crate) fn plans(parsed: &[PlanExpr], model: &Model, bridges: &Bridges) -> Result<Vec<NamedPlan>> {
    let config = model.config();
    let intact = NamedPlan::new(Plan::intact(config.n_layer), config);
    let mut plans = if parsed.len() == 1 { Vec::new() } else { vec![intact] };
    for expression in parsed {
        let named = NamedPlan::new(bound(&plan(expression, &model.plan_shape())?, bridges)?, config);
        if !plans.iter().any(|other| other.plan == named.plan) {
            plans.push(named);
        }
    }
    Ok(plans)
}

/// What the model is given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Input {
    /// Token ids, BOS included where it was added.
    pub(crate) ids: Vec<u32>,
    /// Whether BOS was put before the text.
    pub(crate) bos: bool,
    /// The text, unless ids were given.
    pub(crate) text: Option<String>,
    /// The file it came from.
    pub(crate) file: Option<String>,
}

impl Input {
    /// The tokens of a text. Without BOS an empty text is an error: there is nothing to start from.
    pub(crate) fn text(model: &Model, text: String, bos: bool) -> Result<Input> {
        if text.is_empty() && !bos {
            return Err(Failure::usage("empty prompt with --no-bos: the model needs one token to start from"));
        }
        let ids = if bos {
            model.encode(&text).map_err(|error| model_failure(&error))?
        } else {
            let tokenizer = model.tokenizer().map_err(|error| model_failure(&error))?;
            tokenizer.encode(&text).map_err(|error| tokenizer_failure(&error))?
        };
        Ok(Input { ids, bos, text: Some(text), file: None })
    }

    /// The ids, taken as they are.
    pub(crate) fn ids(model: &Model, ids: &[u32]) -> Result<Input> {
        let vocab_size = model.config().vocab_size;
        match ids.iter().position(|&id| id as usize >= vocab_size) {
            Some(at) => Err(Failure::usage(format!(
                "--ids: id {} (number {at} from 0) of {vocab_size}: ids are 0..={}",
                ids[at],
                vocab_size - 1
            ))),
            None => Ok(Input { ids: ids.to_vec(), bos: false, text: None, file: None }),
        }
    }

    /// The prompt of a command line: a text, stdin, or ids.
    pub(crate) fn prompt(model: &Model, args: &PromptArgs) -> Result<Input> {
        match (&args.text.prompt, &args.text.ids) {
            (None, Some(ids)) => Input::ids(model, ids),
            (Some(text), None) => Input::text(model, given_or_stdin(text)?, args.bos.wanted()),
            _ => Err(no_prompt()),
        }
    }

    /// The text of a file.
    pub(crate) fn file(model: &Model, path: &Path, bos: bool) -> Result<Input> {
        let shown = shown_path(path);
        let bytes = std::fs::read(path).map_err(|error| Failure::io("read", &shown, &error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Failure::new(Exit::BadFile, format!("{shown}: not UTF-8 at byte {at}"))
        })?;
        Ok(Input { file: Some(shown), ..Input::text(model, text, bos)? })
    }

    /// Refuses more tokens than the model has positions: nothing is ever cut.
    pub(crate) fn within_context(&self, config: &Config) -> Result<()> {
        within_context(self.ids.len(), config)
    }
}

impl PromptText {
    /// Refuses a command line without a prompt.
    pub(crate) fn given(&self) -> Result<()> {
        if self.prompt.is_none() && self.ids.is_none() { Err(no_prompt()) } else { Ok(()) }
    }
}

fn no_prompt() -> Failure {
    Failure::usage("no prompt: give a TEXT, `-` for stdin, or --ids")
}

/// Refuses more tokens than the model has positions.
pub(crate) fn within_context(tokens: usize, config: &Config) -> Result<()> {
    if tokens > config.n_positions {
        let positions = config.n_positions;
        return Err(Failure::usage(format!("{tokens} tokens: the model's context is {positions} (n_positions)")));
    }
    Ok(())
}

/// `-` stands for all of stdin, byte for byte.
pub(crate) fn given_or_stdin(text: &str) -> Result<String> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    // Not `read_to_end`: it would go on waiting after Ctrl-C.
    let (mut bytes, mut part) = (Vec::new(), [0; 1 << 16]);
    let mut stdin = std::io::stdin().lock();
    loop {
        match stdin.read(&mut part) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::io("read", "stdin", &error)),
        }
        signals::check()?;
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!("stdin is not UTF-8 at byte {at}"))
    })
}

/// How completions are drawn.
pub(crate) fn sampling(args: &SamplingArgs) -> Result<Sampling> {
    let sampling = Sampling {
        max_tokens: args.max_tokens as usize,
        temperature: args.temperature,
        top_k: args.top_k.map(|k| k as usize),
        top_p: args.top_p,
        seed: args.seed,
        stop: args.stop.clone(),
        stop_at_end_of_text: args.stop_at_end_of_text,
        cache: !args.no_cache,
    };
    sampling.check().map_err(|error| forward_failure(&error))?;
    Ok(sampling)
}

/// A text that can't be encoded is the user's; anything else is the tokenizer's file.
pub(crate) fn tokenizer_failure(error: &TokenizerError) -> Failure {
    let exit = match error.problem {
        TokenizerProblem::NoTokenForByte { .. } => Exit::Usage,
        _ => Exit::BadFile,
    };
    Failure::new(exit, error.to_string())
}
