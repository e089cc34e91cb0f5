//! Path patching on the command line: where `lesion patch --to` leads.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use lesion::inside::{Receiver, Through};
use lesion::plan::Site;

/// `logits`, or heads of one layer: `10.1`, `10.1,10.5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    Logits,
    Heads { layer: usize, heads: Vec<usize> },
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<To, String> {
        if text == "logits" {
            return Ok(To::Logits);
        }
        let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let head = |text: &str| text.split_once('.').and_then(|(layer, head)| number(layer).zip(number(head)));
        let wrong = || "expected logits, or heads of one layer, as in 10.1 or 10.1,10.5".to_owned();
        let found = text.split(',').map(head).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        let (layer, _) = *found.first().ok_or_else(wrong)?;
        if found.iter().any(|(other, _)| *other != layer) {
            return Err("heads that receive are of one layer".to_owned());
        }
        let mut heads: Vec<usize> = found.iter().map(|(_, head)| *head as usize).collect();
        heads.sort_unstable();
        heads.dedup();
        Ok(To::Heads { layer: layer as usize, heads })
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let To::Heads { layer, heads } = self else { return f.write_str("logits") };
        let heads: Vec<String> = heads.iter().map(|head| format!("{layer}.{head}")).collect();
        f.write_str(&heads.join(","))
    }
}

/// What heads take in.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputArg {
    /// Their queries: where they look from
    Q,
    /// Their keys: what they look at
    K,
    /// Their values: what they pass on
    V,
}

impl InputArg {
    fn site(self) -> Site {
        match self {
            InputArg::Q => Site::Q,
            InputArg::K => Site::K,
            InputArg::V => Site::V,
        }
    }
}

/// Paths, as they were asked for.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) receiver: Receiver,
    pub(super) through: Through,
    /// `logits`, `queries of 10.1`
    pub(super) receiver_text: String,
}

impl Paths {
    pub(super) fn new(to: &To, input: InputArg, through_mlps: bool) -> Paths {
        let (receiver, receiver_text) = match to {
            To::Logits => (Receiver::Logits, to.to_string()),
            To::Heads { layer, heads } => {
                let site = input.site();
                let what = match input {
                    InputArg::Q => "queries",
                    InputArg::K => "keys",
                    InputArg::V => "values",
                };
                (Receiver::Heads { layer: *layer, site, heads: heads.clone() }, format!("{what} of {to}"))
            }
        };
        let through = if through_mlps { Through::Mlps } else { Through::Nothing };
        Paths { receiver, through, receiver_text }
    }

    pub(super) fn through_text(&self) -> &'static str {
        match self.through {
            Through::Nothing => "the residual stream",
            Through::Mlps => "the residual stream and MLPs",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_read_as_they_are_printed() {
        assert_eq!("logits".parse(), Ok(To::Logits));
        assert_eq!("10.5,10.1,10.5".parse::<To>().unwrap().to_string(), "10.1,10.5");
        for text in ["", "10", "10.", ".1", "10.1,", "10.1,9.1", "-1.2", "+1.2", "logit", "10.1.2"] {
            assert!(text.parse::<To>().is_err(), "{text}");
        }
    }
}
