//! Tokens to the syntax tree: one function for each rule of the grammar (see [the module](super)), each naming what
//! it expected where the text departs from it.

use std::ops::Range;

use super::error::{Fault, PlanProblem};
use super::lex::{Lexer, Token, clip};
use super::syntax::{Core, Edit, Expr, Item, LayerRange, Number, Sequence};
use super::words::{self, Verb};
use super::{MAX_DEPTH, Part};

/// The whole text as one expression.
pub(super) fn parse(text: &str) -> Result<Expr, Fault> {
    let mut parser = Parser { text, lexer: Lexer::new(text), token: Token::End, span: 0..0, end: 0, depth: 0 };
    parser.advance()?;
    parser.expr()
}

pub(super) struct Parser<'a> {
    text: &'a str,
    pub(super) lexer: Lexer<'a>,
    /// The token under consideration, and its bytes.
    pub(super) token: Token<'a>,
    pub(super) span: Range<usize>,
    /// Where the token before it ended.
    pub(super) end: usize,
    /// Parentheses open around it.
    depth: usize,
}

impl<'a> Parser<'a> {
    fn expr(&mut self) -> Result<Expr, Fault> {
        match self.token {
            Token::End => Ok(Expr::Plan(Vec::new())),
            Token::Word("none" | "par" | "bridge") | Token::Number(_) | Token::Symbol(_) => {
                let plan = self.plan()?;
                match self.token {
                    Token::End => Ok(Expr::Plan(plan)),
                    Token::Symbol(';') => Err(self.fault(
                        "an expression is either a plan or edits: `;` joins edits, and those start from the intact plan",
                    )),
                    Token::Symbol(')') => Err(self.fault("no `(` is open here")),
                    Token::Symbol('|') => Err(self.fault("`|` separates the branches of a group: write (4|5)")),
                    _ => Err(self.unexpected("`,` or the end")),
                }
            }
            Token::Word(_) => self.edits().map(Expr::Edits),
            Token::To | Token::ToInclusive => Err(self.fault("a range names both of its ends: 0..5")),
        }
    }

    /// `"none" | item { "," item }`
    fn plan(&mut self) -> Result<Sequence, Fault> {
        if self.token == Token::Word("none") {
            self.advance()?;
            return match self.token {
                Token::End | Token::Symbol('|' | ')' | ';') => Ok(Vec::new()),
                _ => Err(self.fault("`none` stands alone: it is the plan without steps")),
            };
        }
        let mut items = vec![self.item()?];
        while self.eat(',')? {
            items.push(self.item()?);
        }
        Ok(items)
    }

    /// `core [ "[" mod { "," mod } "]" ] [ "*" count ]`
    fn item(&mut self) -> Result<Item, Fault> {
        let start = self.span.start;
        let core = self.core()?;
        let mut changes = Vec::new();
        if self.eat('[')? {
            changes.push(self.change()?);
            while self.eat(',')? {
                changes.push(self.change()?);
            }
            self.expect(']', "`]`, or `,` and another modifier")?;
            if let Core::Bridge { .. } = core {
                return Err(Fault::new(start..self.end, PlanProblem::BridgeChanged));
            }
            if self.token == Token::Symbol('[') {
                return Err(self.fault("one pair of brackets holds all modifiers: 7[zero h3, zero h5]"));
            }
        }
        let mut count = None;
        if self.eat('*')? {
            count = Some(self.number("a count, as in 3*4")?);
            match self.token {
                Token::Symbol('[') => return Err(self.fault("modifiers stand before the count: 7[zero h3]*4")),
                Token::Symbol('*') => return Err(self.fault("one count to an item: (3*4)*2 repeats a repetition")),
                _ => {}
            }
        }
        Ok(Item { core, changes, count, span: start..self.end })
    }

    fn core(&mut self) -> Result<Core, Fault> {
        match self.token {
            Token::Number(_) => {
                let first = self.number("a layer")?;
                match self.range_after(first)? {
                    RangeOrLayer::Layer(layer) => Ok(Core::Layer(layer, self.part()?)),
                    RangeOrLayer::Range(range) => Ok(Core::Range(range, self.part()?)),
                }
            }
            Token::Symbol('(') => self.group(),
            Token::Word("par") => {
                self.advance()?;
                self.expect('(', "`(` and a range, as in par(4..8)")?;
                let range = self.range("a range, as in par(4..8)")?;
                if matches!(self.token, Token::Word(_)) {
                    return Err(self.fault("par takes whole layers: halves side by side are written (4a|5a)"));
                }
                self.expect(')', "`)`")?;
                self.no_half_of_group()?;
                Ok(Core::Parallel(range))
            }
            Token::Word("bridge") => self.bridge(),
            Token::Word("none") => Err(self.fault("`none` stands alone: it is the plan without steps")),
            Token::Word(word) => Err(self.fault(words::unknown_item(word))),
            Token::Symbol('|' | ')') if self.depth > 0 => {
                Err(self.fault("a layer or group is missing here: an empty branch is written none"))
            }
            Token::Symbol('[') => {
                Err(self.fault("brackets hold the modifiers of a layer: 7[zero h3]; a plan is written without them"))
            }
            Token::To | Token::ToInclusive => Err(self.fault("a range names both of its ends: 0..5")),
            _ => Err(self.unexpected("a layer (5), a range (0..5) or a group (4|5)")),
        }
    }

    /// `"(" plan { "|" plan } ")"`
    fn group(&mut self) -> Result<Core, Fault> {
        let open = self.span.clone();
        if self.depth == MAX_DEPTH {
            return Err(Fault::new(open, PlanProblem::TooDeep));
        }
        self.depth += 1;
        self.advance()?;
        let mut branches = vec![self.plan()?];
        while self.eat('|')? {
            branches.push(self.plan()?);
        }
        match self.token {
            Token::Symbol(')') => self.advance()?,
            Token::End => return Err(Fault::syntax(open, "this `(` is never closed")),
            Token::Symbol(';') => return Err(self.fault("`;` joins edits: the steps of a plan are joined by `,`")),
            _ => return Err(self.unexpected("`,`, `|` or `)`")),
        }
        self.depth -= 1;
        self.no_half_of_group()?;
        Ok(Core::Group(branches))
    }

    /// `"bridge(" i ":" j "," name ")"`
    fn bridge(&mut self) -> Result<Core, Fault> {
        const FORM: &str = "bridge(6:11,name)";
        self.advance()?;
        self.expect('(', &format!("`(`, as in {FORM}"))?;
        let from = self.number(&format!("the layer that it leads from, as in {FORM}"))?;
        if matches!(self.token, Token::To | Token::ToInclusive) {
            return Err(self.fault(format!("a bridge's ends are joined by a colon: {FORM}")));
        }
        self.expect(':', &format!("`:`, as in {FORM}"))?;
        let to = self.number(&format!("the layer that it leads to, as in {FORM}"))?;
        if from.value > to.value {
            let (span, from, to) = (from.span.start..to.span.end, from.value, to.value);
            return Err(Fault::new(span, PlanProblem::BridgeBackwards { from, to }));
        }
        if self.token != Token::Symbol(',') {
            return Err(self.unexpected_in("`,` and the name of the map", FORM));
        }
        let Some((name, span)) = self.lexer.name() else {
            self.advance()?;
            return Err(self.unexpected("the name of a map: letters, digits, `-`, `_` and `.`, 64 at most"));
        };
        let name = name.to_owned();
        self.span = span;
        self.advance()?;
        self.expect(')', "`)`")?;
        if let Token::Word("a" | "m") = self.token {
            return Err(self.fault("halves are of layers and ranges: a bridge has none"));
        }
        Ok(Core::Bridge { from, to, name })
    }

    fn no_half_of_group(&self) -> Result<(), Fault> {
        match self.token {
            Token::Word("a" | "m") => Err(self.fault("halves are of layers and ranges: (4a|5a)")),
            _ => Ok(()),
        }
    }

    /// What follows a layer or range: `a`, `m` or nothing, for a whole block.
    fn part(&mut self) -> Result<Part, Fault> {
        let part = match self.token {
            Token::Word("a") => Part::Attention,
            Token::Word("m") => Part::Mlp,
            Token::Word("x") => return Err(self.fault("in a plan, repetition is written 3*4")),
            Token::Word(word) if self.span.start == self.end => {
                let message = format!("unknown half `{}`: a is the attention half, m the MLP half", clip(word));
                return Err(self.fault(message));
            }
            _ => return Ok(Part::Block),
        };
        self.advance()?;
        Ok(part)
    }

    fn edits(&mut self) -> Result<Vec<Edit>, Fault> {
        let mut edits = vec![self.edit()?];
        while self.eat(';')? {
            edits.push(self.edit()?);
        }
        match self.token {
            Token::End => Ok(edits),
            Token::Symbol(',') => Err(self.fault("edits are joined by `;`: skip 5; skip 6")),
            _ => Err(self.unexpected("`;` or the end")),
        }
    }

    fn edit(&mut self) -> Result<Edit, Fault> {
        let Token::Word(word) = self.token else {
            return Err(match self.token {
                Token::Number(_) | Token::Symbol('(') => {
                    self.fault("an expression is either a plan or edits: edits start from the intact plan")
                }
                _ => self.unexpected("an edit, as in skip 5"),
            });
        };
        let Some((verb, form)) = words::edit(word) else {
            return Err(self.fault(match word {
                "none" | "par" | "bridge" => "an expression is either a plan or edits".to_owned(),
                _ => words::unknown_edit(word),
            }));
        };
        self.advance()?;
        Ok(match verb {
            Verb::KeepFirst => Edit::KeepFirst(self.argument(form)?),
            Verb::DropLast => Edit::DropLast(self.argument(form)?),
            Verb::DropFirst => Edit::DropFirst(self.argument(form)?),
            Verb::Skip => {
                let first = self.argument(form)?;
                match self.range_after(first)? {
                    RangeOrLayer::Layer(layer) => Edit::SkipOne(layer),
                    RangeOrLayer::Range(window) => Edit::SkipRange(upward(window)?),
                }
            }
            Verb::Swap => Edit::Swap(self.argument(form)?, self.argument(form)?),
            Verb::Move => Edit::Move { layer: self.argument(form)?, position: self.argument(form)? },
            Verb::Repeat => {
                let layer = self.argument(form)?;
                if self.token != Token::Word("x") {
                    return Err(self.unexpected_in("`x` and the number of times", form));
                }
                self.advance()?;
                Edit::Repeat { layer, count: self.argument(form)? }
            }
            Verb::Reverse => Edit::Reverse(upward(self.range(form)?)?),
            Verb::Shuffle => {
                let window = upward(self.range(form)?)?;
                if self.token != Token::Word("seed") {
                    return Err(self.unexpected_in("`seed` and a number", form));
                }
                self.advance()?;
                Edit::Shuffle { window, seed: self.argument(form)? }
            }
        })
    }

    /// A number of an edit whose form is `wanted`.
    fn argument(&mut self, wanted: &str) -> Result<Number, Fault> {
        match self.token {
            Token::Number(_) => self.number(wanted),
            _ => Err(self.unexpected_in("a number", wanted)),
        }
    }

    fn range(&mut self, wanted: &str) -> Result<LayerRange, Fault> {
        let first = self.number(wanted)?;
        match self.range_after(first)? {
            RangeOrLayer::Range(range) => Ok(range),
            RangeOrLayer::Layer(_) => Err(self.unexpected_in("`..`", wanted)),
        }
    }

    /// `..j` or `..=j` after the number `start`, where there is one.
    fn range_after(&mut self, start: Number) -> Result<RangeOrLayer, Fault> {
        let inclusive = match self.token {
            Token::To => false,
            Token::ToInclusive => true,
            _ => return Ok(RangeOrLayer::Layer(start)),
        };
        self.advance()?;
        let end = self.number("the end of the range")?;
        let range = LayerRange { start, end, inclusive };
        if !inclusive && range.start.value > range.end.value {
            let (start, end) = (range.start.value, range.end.value);
            return Err(Fault::new(range.span(), PlanProblem::Backwards { start, end }));
        }
        if matches!(self.token, Token::To | Token::ToInclusive) {
            return Err(self.fault("a range has two ends: i..j"));
        }
        Ok(RangeOrLayer::Range(range))
    }

    pub(super) fn number(&mut self, wanted: &str) -> Result<Number, Fault> {
        let Token::Number(value) = self.token else { return Err(self.unexpected(wanted)) };
        let span = self.span.clone();
        self.advance()?;
        Ok(Number { value, span })
    }

    pub(super) fn advance(&mut self) -> Result<(), Fault> {
        self.end = self.span.end;
        (self.token, self.span) = self.lexer.next()?;
        Ok(())
    }

    fn eat(&mut self, symbol: char) -> Result<bool, Fault> {
        let found = self.token == Token::Symbol(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, symbol: char, wanted: &str) -> Result<(), Fault> {
        if self.eat(symbol)? { Ok(()) } else { Err(self.unexpected(wanted)) }
    }

    /// A fault at the token under consideration.
    pub(super) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::syntax(self.span.clone(), message)
    }

    pub(super) fn unexpected(&self, wanted: &str) -> Fault {
        self.fault(format!("expected {wanted}, found {}", self.token.describe(&self.text[self.span.clone()])))
    }

    fn unexpected_in(&self, wanted: &str, form: &str) -> Fault {
        self.unexpected(&format!("{wanted} ({form})"))
    }
}

enum RangeOrLayer {
    Layer(Number),
    Range(LayerRange),
}

/// The window of an edit.
fn upward(window: LayerRange) -> Result<LayerRange, Fault> {
    let (start, end) = (window.start.value, window.end.value);
    if start > end {
        return Err(Fault::new(window.span(), PlanProblem::DownwardWindow { start, end }));
    }
    Ok(window)
}
