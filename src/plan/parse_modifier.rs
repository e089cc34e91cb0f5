//! The grammar of modifiers, what stands in brackets behind a layer: `7[zero h3 h5, noise 0.1 pre @2..5]`.

use std::ops::Range;

use super::error::Fault;
use super::lex::{Token, clip};
use super::parse::Parser;
use super::syntax::{Change, Number};
use super::words;
use super::{Action, Finite, Site};

impl Parser<'_> {
    /// `change [ "@" positions ]`
    pub(super) fn change(&mut self) -> Result<Change, Fault> {
        let start = self.span.start;
        let Token::Word(verb) = self.token else { return Err(self.unexpected("a modifier, as in 7[zero h3]")) };
        let (action, site, units) = match verb {
            "zero" => {
                self.advance()?;
                let (site, units) = self.site()?;
                (Action::Zero, site, units)
            }
            "mean" | "patch" => {
                self.advance()?;
                let (site, units) = self.site()?;
                let from = self.reference()?;
                (if verb == "mean" { Action::Mean { from } } else { Action::Patch { from } }, site, units)
            }
            "noise" => {
                let sigma = self.amount("a standard deviation, as in noise 0.1 pre")?;
                let seed = self.seed()?;
                let (site, units) = self.site()?;
                (Action::Noise { sigma, seed }, site, units)
            }
            "steer" => {
                let times = self.amount("how many times, as in steer 4 post from joy")?;
                let (site, units) = self.site()?;
                (Action::Steer { times, from: self.reference()? }, site, units)
            }
            "knockout" => {
                self.advance()?;
                let heads = self.units('h')?;
                if self.token != Token::Word("keys") {
                    return Err(self.unexpected("`keys` and positions, as in knockout h3 keys 2..4 @9"));
                }
                self.advance()?;
                (Action::Knockout { keys: self.positions()? }, Site::Pattern, heads)
            }
            "h" => return Err(self.fault("heads follow a verb and are separated by spaces: zero h3 h5")),
            word => return Err(self.fault(words::unknown_modifier(word))),
        };
        let positions = if self.token == Token::Symbol('@') {
            self.advance()?;
            Some(self.positions()?)
        } else {
            None
        };
        Ok(Change { action, site, units, positions, span: start..self.end })
    }

    fn site(&mut self) -> Result<(Site, Vec<Number>), Fault> {
        match self.token {
            Token::Word("h") => Ok((Site::Z, self.units('h')?)),
            Token::Word("n") => Ok((Site::Neurons, self.units('n')?)),
            Token::Word("ln") => {
                self.advance()?;
                let site = match self.token {
                    Token::Number(1) => Site::Ln1,
                    Token::Number(2) => Site::Ln2,
                    _ => return Err(self.unexpected("ln1 or ln2")),
                };
                self.advance()?;
                Ok((site, Vec::new()))
            }
            Token::Number(head) => Err(self.fault(format!("a head is written h{head}, a neuron n{head}"))),
            Token::Word("heads" | "head") => Err(self.fault("heads are written h3 h5")),
            Token::Word(word) => match Site::CHANGED.into_iter().find(|site| site.word() == word) {
                Some(site) => {
                    self.advance()?;
                    let units = if site.letter() == Some('h') { self.units('h')? } else { Vec::new() };
                    Ok((site, units))
                }
                None => {
                    let known = Site::CHANGED.map(Site::word).join(", ");
                    Err(self.fault(format!("unknown site `{}`: heads (h3), neurons (n17), {known}", clip(word))))
                }
            },
            _ => Err(self.unexpected("a site, as in zero h3 or zero mlp")),
        }
    }

    /// `h3 h5`: each its letter and number.
    fn units(&mut self, letter: char) -> Result<Vec<Number>, Fault> {
        let (word, wanted) = match letter {
            'n' => ("n", "the number of a neuron, as in n17"),
            _ => ("h", "the number of a head, as in h3"),
        };
        let mut units = Vec::new();
        while self.token == Token::Word(word) {
            let start = self.span.start;
            self.advance()?;
            let mut unit = self.number(wanted)?;
            unit.span.start = start;
            units.push(unit);
        }
        Ok(units)
    }

    /// The decimal behind the verb.
    fn amount(&mut self, wanted: &str) -> Result<Finite, Fault> {
        let Some((value, span)) = self.lexer.decimal() else {
            self.advance()?;
            return Err(self.unexpected(wanted));
        };
        self.span = span.clone();
        self.advance()?;
        Finite::new(value).ok_or_else(|| Fault::syntax(span, "this number is not finite"))
    }

    /// `seed S`, or seed 0.
    fn seed(&mut self) -> Result<u64, Fault> {
        if self.token != Token::Word("seed") {
            return Ok(0);
        }
        self.advance()?;
        Ok(self.number("a seed")?.value)
    }

    /// `from name`
    fn reference(&mut self) -> Result<String, Fault> {
        if self.token != Token::Word("from") {
            return Err(self.unexpected("`from` and the name of a reference"));
        }
        let Some((name, span)) = self.lexer.name() else {
            self.advance()?;
            return Err(self.unexpected("the name of a reference: letters, digits, `-`, `_` and `.`"));
        };
        self.span = span;
        self.advance()?;
        Ok(name.to_owned())
    }

    /// `i`, or `i..j`.
    fn positions(&mut self) -> Result<Range<usize>, Fault> {
        let first = self.number("a position, as in @3 or @2..5")?;
        let mut span = first.span.clone();
        let last = match self.token {
            Token::To => {
                self.advance()?;
                let end = self.number("the end of the positions")?;
                span.end = end.span.end;
                end.value
            }
            Token::ToInclusive => return Err(self.fault("positions are half-open: i..j")),
            _ => first.value.saturating_add(1),
        };
        match (usize::try_from(first.value), usize::try_from(last)) {
            (Ok(start), Ok(end)) if start < end => Ok(start..end),
            _ => Err(Fault::syntax(span, format!("there are no positions {}..{last}", first.value))),
        }
    }
}
