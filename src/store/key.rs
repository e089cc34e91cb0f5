//! Run keys: SHA-256 over canonical JSON of all that decides a result, and of nothing else.
//!
//! ```text
//! {"ids":[0,275,325],"measure":"scores","numerics":{"arithmetic":"f32","version":1},"plan":[{"layer":0}],"scored":[1,3],
//!  "spec":1,"tokenizer":"9b…","weights":"83…"}
//! ```
//!
//! Canonical: fields in the order of the alphabet, no white space, plans as [`crate::plan`] writes them. BOS is among the ids.
//! A completion has its `sampling` in the place of `scored`. Threads, instruction set, time, host and paths are no part of
//! it: they stand in the observation beside the result.

use crate::forward::Sampling;
use crate::hex::hex;
use crate::plan::Plan;
use crate::sweep::Example;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// The version of the text that is hashed.
pub const SPEC_VERSION: u32 = 1;

/// Stands for a run: a plan on an example (or a completion of a prompt) under a setting.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunKey(pub(super) [u8; 32]);

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunKey {
    type Err = String;

    fn from_str(text: &str) -> Result<RunKey, String> {
        let digit = |byte: u8| (byte as char).to_digit(16);
        let mut key = [0; 32];
        if text.len() != 64 {
            return Err(format!("{} characters: a run key has 64", text.chars().count()));
        }
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return Err("a run key has hexadecimal digits only".to_owned());
            };
            *byte = (16 * high + low) as u8;
        }
        Ok(RunKey(key))
    }
}

/// What is measured: the sums of a [`crate::sweep::Row`], or what the model says.
const SCORES: &str = "scores";
const COMPLETION: &str = "completion";

/// A model, by what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelIdentity {
    /// SHA-256 of configuration and weights, hex.
    pub weights: String,
    /// SHA-256 of `tokenizer.json`, hex; none where it has none.
    pub tokenizer: Option<String>,
    /// What it is called: no part of keys.
    pub name: String,
    /// Layers, which follow from the weights.
    pub n_layer: usize,
    /// Heads of a layer.
    pub n_head: usize,
    /// Tokens that there are.
    pub vocab_size: usize,
}

/// What decides results besides plans and tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The model.
    pub model: ModelIdentity,
    /// How products are computed: [`crate::forward::Session::arithmetic`].
    pub arithmetic: String,
    /// [`crate::forward::NUMERICS_VERSION`] when it was computed.
    pub numerics_version: u32,
}

#[derive(Serialize)]
struct Numerics<'a> {
    arithmetic: &'a str,
    version: u32,
}

impl Setting {
    /// The key of a plan's scores on an example.
    pub fn run_key(&self, plan: &Plan, example: &Example) -> RunKey {
        ExampleKey::new(self, example).of(plan)
    }

    /// The key of what a plan says behind a prompt.
    pub fn completion_key(&self, plan: &Plan, prompt: &[u32], sampling: &Sampling) -> RunKey {
        let sampling = format!("\"sampling\":{}", sampling_json(sampling));
        ExampleKey { before: self.before(prompt, COMPLETION), behind: self.behind(&sampling) }.of(plan)
    }

    fn before(&self, ids: &[u32], measure: &str) -> Sha256 {
        let numerics = Numerics { arithmetic: &self.arithmetic, version: self.numerics_version };
        let (ids, measure, numerics) = (json(&ids), json(&measure), json(&numerics));
        Sha256::new_with_prefix(format!("{{\"ids\":{ids},\"measure\":{measure},\"numerics\":{numerics},\"plan\":"))
    }

    fn behind(&self, own: &str) -> String {
        let (tokenizer, weights) = (json(&self.model.tokenizer), json(&self.model.weights));
        format!(",{own},\"spec\":{SPEC_VERSION},\"tokenizer\":{tokenizer},\"weights\":{weights}}}")
    }
}

/// The keys of an example, with all hashed that stands before the plan.
pub(super) struct ExampleKey {
    before: Sha256,
    behind: String,
}

impl ExampleKey {
    pub(super) fn new(setting: &Setting, example: &Example) -> ExampleKey {
        ExampleKey::named(setting, example, example.references.digest())
    }

    /// Of an example whose references have this digest, which is all that keys know of them.
    pub(super) fn named(setting: &Setting, example: &Example, references: Option<[u8; 32]>) -> ExampleKey {
        let mut scored = format!("\"scored\":[{},{}]", example.scored.start, example.scored.end);
        if let Some(references) = references {
            scored.insert_str(0, &format!("\"references\":{},", json(&hex(&references))));
        }
        ExampleKey { before: setting.before(&example.ids, SCORES), behind: setting.behind(&scored) }
    }

    pub(super) fn of(&self, plan: &Plan) -> RunKey {
        let mut hash = self.before.clone();
        hash.update(json(plan));
        hash.update(&self.behind);
        RunKey(hash.finalize().into())
    }
}

/// How a completion is drawn, in canonical JSON.
#[derive(Serialize, Deserialize)]
struct Drawn {
    cache: bool,
    max_tokens: usize,
    seed: u64,
    stop: Vec<String>,
    stop_at_end_of_text: bool,
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
}

/// Canonical JSON of how a completion is drawn.
pub(super) fn sampling_json(sampling: &Sampling) -> String {
    let Sampling { max_tokens, temperature, top_k, top_p, seed, stop, stop_at_end_of_text, cache } = sampling.clone();
    // The most likely token is among the first k, and draws nothing.
    let greedy = temperature == 0.0;
    json(&Drawn {
        cache,
        max_tokens,
        seed: if greedy { 0 } else { seed },
        stop,
        stop_at_end_of_text,
        temperature: if greedy { 0.0 } else { temperature },
        top_k: top_k.filter(|_| !greedy),
        top_p: top_p.filter(|_| !greedy),
    })
}

/// And back.
pub(super) fn sampling_of(text: &str) -> serde_json::Result<Sampling> {
    let Drawn { cache, max_tokens, seed, stop, stop_at_end_of_text, temperature, top_k, top_p } =
        serde_json::from_str(text)?;
    Ok(Sampling { max_tokens, temperature, top_k, top_p, seed, stop, stop_at_end_of_text, cache })
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("no map with keys that are not text, no failing serializer")
}

/// SHA-256 of ids.
pub(super) fn ids_hash(ids: &[u32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    hash.finalize().into()
}

/// SHA-256 of an example: which of its tokens are scored, and all of them; the references, where it has some.
pub(super) fn example_hash(example: &Example) -> [u8; 32] {
    let mut hash = Sha256::new();
    for number in [example.scored.start, example.scored.end] {
        hash.update((number as u64).to_le_bytes());
    }
    example.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    example.references.digest().iter().for_each(|references| hash.update(references));
    hash.finalize().into()
}

/// SHA-256 of a text.
pub(super) fn text_hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlanShape;

    fn setting() -> Setting {
        Setting {
            model: ModelIdentity {
                weights: "83".repeat(32),
                tokenizer: Some("9b".repeat(32)),
                name: "mini".to_owned(),
                n_layer: 12,
                n_head: 4,
                vocab_size: 2048,
            },
            arithmetic: "f32".to_owned(),
            numerics_version: 1,
        }
    }

    fn plan(text: &str) -> Plan {
        text.parse::<crate::plan::PlanExpr>().unwrap().resolve(&PlanShape::gpt2(12, 4)).unwrap()
    }

    fn example() -> Example {
        Example::new(7, vec![0, 275, 325], 1..3)
    }

    /// The key is the hash of exactly this text.
    #[test]
    fn a_key_hashes_canonical_json() {
        let text = format!(
            "{{\"ids\":[0,275,325],\"measure\":\"scores\",\"numerics\":{{\"arithmetic\":\"f32\",\"version\":1}},\
             \"plan\":[{{\"layer\":3}},{{\"layer\":5,\"part\":\"mlp\"}}],\"scored\":[1,3],\"spec\":1,\
             \"tokenizer\":\"{}\",\"weights\":\"{}\"}}",
            "9b".repeat(32),
            "83".repeat(32)
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let names: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(setting().run_key(&plan("3,5m"), &example()).0, text_hash(&text));
    }

    #[test]
    fn whatever_decides_a_result_changes_its_key() {
        let mut keys = vec![setting().run_key(&plan("0..12"), &example())];
        let mut other = |change: &dyn Fn(&mut Setting, &mut Plan, &mut Example)| {
            let (mut setting, mut plan, mut example) = (setting(), plan("0..12"), example());
            change(&mut setting, &mut plan, &mut example);
            keys.push(setting.run_key(&plan, &example));
        };
        other(&|s, _, _| s.model.weights.replace_range(0..1, "9"));
        other(&|s, _, _| s.model.tokenizer = None);
        other(&|s, _, _| s.arithmetic = "bf16".to_owned());
        other(&|s, _, _| s.numerics_version = 2);
        other(&|_, p, _| *p = plan("0..11"));
        other(&|_, p, _| *p = plan("0..7,7[zero h3],8..12"));
        other(&|_, _, e| e.ids[0] = 1);
        other(&|_, _, e| e.scored = 2..3);
        // Without BOS: other ids.
        other(&|_, _, e| *e = Example::new(7, vec![275, 325], 1..2));
        keys.push(setting().completion_key(&plan("0..12"), &example().ids, &Sampling::greedy(1)));
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn whatever_decides_nothing_does_not() {
        let key = setting().run_key(&plan("0..12"), &example());
        let mut renamed = setting();
        renamed.model.name = "other".to_owned();
        assert_eq!(renamed.run_key(&plan("0..5,5..12"), &Example { number: 9, ..example() }), key);
        let greedy = |seed| Sampling { seed, ..Sampling::greedy(5) };
        let of = |sampling: &Sampling| setting().completion_key(&plan("0..12"), &[0, 1], sampling);
        assert_eq!(of(&greedy(1)), of(&greedy(2)));
        let limited = Sampling { top_k: Some(3), top_p: Some(0.5), temperature: -0.0, ..greedy(1) };
        assert_eq!(of(&greedy(1)), of(&limited));
        let drawn = |seed| Sampling { temperature: 1.0, ..greedy(seed) };
        assert_ne!(of(&drawn(1)), of(&Sampling { top_k: Some(3), ..drawn(1) }));
        assert_ne!(of(&drawn(1)), of(&drawn(2)));
        assert_ne!(of(&greedy(1)), of(&Sampling::greedy(6)));
    }

    #[test]
    fn keys_are_written_and_read() {
        let key = setting().run_key(&plan("none"), &example());
        assert_eq!(key.to_string().parse(), Ok(key));
        let long = "é".repeat(32);
        for bad in ["", "12", &"g".repeat(64), &long] {
            assert!(bad.parse::<RunKey>().is_err(), "{bad}");
        }
    }
}
