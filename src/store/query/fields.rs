//! The fields that results can be filtered by, grouped by and shown with, and what each is in SQL.

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Bool,
    /// A number, and the SQL that is 1 where it is NaN.
    Real {
        nan: &'static str,
    },
}

/// A table that a field needs besides results and questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    Nothing,
    Number,
    Setting,
    Plan,
    Task,
    Observation,
    Example,
    Intact,
    Experiment,
    Tag,
}

/// A field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) sql: &'static str,
    /// What to group by: where rows are equal in this, they are equal in the field.
    pub(super) group: &'static str,
    pub(super) join: Join,
    pub(super) about: &'static str,
}

const fn field(
    name: &'static str,
    kind: Kind,
    sql: &'static str,
    group: &'static str,
    join: Join,
    about: &'static str,
) -> Field {
    Field { name, kind, sql, group, join, about }
}

const fn text(name: &'static str, sql: &'static str, group: &'static str, join: Join, about: &'static str) -> Field {
    field(name, Kind::Text, sql, group, join, about)
}

const fn integer(name: &'static str, sql: &'static str, join: Join, about: &'static str) -> Field {
    field(name, Kind::Integer, sql, sql, join, about)
}

const fn real(name: &'static str, sql: &'static str, nan: &'static str, join: Join, about: &'static str) -> Field {
    field(name, Kind::Real { nan }, sql, sql, join, about)
}

/// What a plan said behind the example's prompt: the first completion that was kept.
const COMPLETION: &str = "(SELECT c.text FROM completions c WHERE c.prompt = x.prompt AND c.plan = r.plan
    AND c.setting = r.setting ORDER BY c.id LIMIT 1)";

/// All of them, in the order that they are listed in.
pub(super) const FIELDS: [Field; 32] = [
    text("plan", "p.text", "r.plan", Join::Plan, "the plan, in its canonical form"),
    text("task", "t.name", "q.task", Join::Task, "the task or text"),
    integer(
        "example",
        "n.number",
        Join::Number,
        "the example's number in its task: in the experiment's, where one is named",
    ),
    text("prompt", "q.prompt", "q.prompt", Join::Nothing, "the prompt"),
    text("answer", "q.answer", "q.answer", Join::Nothing, "the answer"),
    text(
        "completion",
        COMPLETION,
        COMPLETION,
        Join::Example,
        "what the plan said behind the prompt, where it was asked",
    ),
    real("loss", "r.nll / r.tokens", "r.nll_class = 1", Join::Nothing, "nats per scored token"),
    real(
        "delta",
        "(r.nll - intact.nll) / r.tokens",
        "intact.plan IS NOT NULL AND r.nll - intact.nll IS NULL",
        Join::Intact,
        "loss more than the intact model's",
    ),
    real("nll", "r.nll", "r.nll_class = 1", Join::Nothing, "nats, summed over the scored tokens"),
    integer("tokens", "r.tokens", Join::Nothing, "scored tokens"),
    integer("top1", "r.top1", Join::Nothing, "scored tokens that are the likeliest in their place"),
    field("correct", Kind::Bool, "r.top1 = r.tokens", "r.top1 = r.tokens", Join::Nothing, "whether all are"),
    integer("rank", "r.first_rank", Join::Nothing, "tokens likelier than the first scored one"),
    real("entropy", "r.entropy", "r.entropy_class = 1", Join::Nothing, "nats, summed"),
    real("kl", "r.kl", "r.kl_class IS 1", Join::Nothing, "KL(intact ‖ plan): nats, summed"),
    integer("non_finite", "r.non_finite", Join::Nothing, "scored tokens whose loss is NaN or infinite"),
    real("blocks", "p.blocks", "0", Join::Plan, "block evaluations of the plan"),
    text("model", "m.name", "s.model", Join::Setting, "the model's name"),
    text("weights", "m.weights", "s.model", Join::Setting, "SHA-256 of configuration and weights"),
    text("tokenizer", "m.tokenizer", "s.model", Join::Setting, "SHA-256 of tokenizer.json"),
    text("arithmetic", "s.arithmetic", "s.arithmetic", Join::Setting, "f32, bf16, …"),
    integer("numerics", "s.numerics_version", Join::Setting, "the version of the bits"),
    text("isa", "o.isa", "o.isa", Join::Observation, "the instruction set"),
    integer("threads", "o.threads", Join::Observation, "threads"),
    text("host", "o.host", "o.host", Join::Observation, "the machine"),
    text("time", "o.started", "r.observation", Join::Observation, "when the process began: UTC"),
    text("version", "o.version", "o.version", Join::Observation, "the version of lesion"),
    text("commit", "o.git_commit", "o.git_commit", Join::Observation, "the git commit of its source"),
    text("steps", "p.steps", "r.plan", Join::Plan, "the plan's steps, as JSON"),
    text("key", "lower(hex(r.run_key))", "r.run_key", Join::Nothing, "the run key"),
    text("experiment", "e.name", "e.id", Join::Experiment, "the experiment: a result counts for each that it is of"),
    text("tag", "g.tag", "g.tag", Join::Tag, "a tag of the experiment: a result counts for each"),
];

pub(super) fn find(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.name == name)
}

/// A line for each field, for help.
pub(super) fn described() -> String {
    FIELDS.iter().map(|field| format!("  {:<12}{}\n", field.name, field.about)).collect()
}
