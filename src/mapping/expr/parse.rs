//! Text of an expression → syntax tree, with the place of every part of it.
//!
//! The parser is `sqlparser` with PostgreSQL's dialect. Its trees carry only some places, so the tokens are kept and the
//! rest is found in them: the brackets around an expression, the end of a call, the word before a bracket.

use crate::mapping::toml_reader::SpannedText;
use sqlparser::ast::{CastKind, Expr, Spanned as _};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, Tokenizer};
use std::ops::Range;

/// Bounds on one expression: what a person writes stays far below, and what lies above would only exhaust the stack.
const MAX_TOKENS: usize = 2000;
const MAX_DEPTH: usize = 60;

/// A parsed expression.
pub(crate) struct Parsed {
    pub expr: Expr,
    pub source: SpannedText,
    tokens: Vec<Tok>,
    lines: Lines,
}

struct Tok {
    range: Range<usize>,
    kind: TokKind,
}

#[derive(PartialEq, Eq)]
enum TokKind {
    Open,
    Close,
    Word(String),
    Other,
}

/// What is wrong with a text that is no expression, and where in it.
pub(crate) struct SyntaxError {
    pub message: String,
    pub range: Range<usize>,
}

impl Parsed {
    /// Parses the whole text as one expression.
    pub(crate) fn new(source: SpannedText) -> Result<Parsed, SyntaxError> {
        let text = source.text.clone();
        let lines = Lines::new(&text);
        let whole = 0..text.len();
        let fail = |message: &str, range: Range<usize>| SyntaxError { message: message.to_owned(), range };
        if text.trim().is_empty() {
            return Err(fail("the expression is empty", whole));
        }
        let dialect = PostgreSqlDialect {};
        let tokens = Tokenizer::new(&dialect, &text).tokenize_with_location().map_err(|e| {
            let at = lines.offset(&text, e.location);
            fail(&lower_first(&e.message), at..text.len())
        })?;
        let kept: Vec<Tok> = tokens
            .iter()
            .filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF))
            .map(|t| Tok { range: lines.range(&text, t.span), kind: kind(&t.token) })
            .collect();
        if kept.len() > MAX_TOKENS {
            return Err(fail("the expression is too long", whole));
        }
        let mut parser = Parser::new(&dialect).with_recursion_limit(MAX_DEPTH).with_tokens_with_locations(tokens);
        let parsed = parser.parse_expr();
        let next = parser.peek_token_ref();
        let next_range = match next.token {
            Token::EOF => text.trim_end().len()..text.len(),
            _ => lines.range(&text, next.span),
        };
        let expr = match parsed {
            Ok(expr) if next.token == Token::EOF => expr,
            Ok(_) => {
                let rest = next_range.start..text.trim_end().len();
                return Err(fail("the expression ends before this", rest));
            }
            Err(ParserError::RecursionLimitExceeded) => return Err(fail("the expression is nested too deeply", whole)),
            Err(ParserError::ParserError(message) | ParserError::TokenizerError(message)) => {
                let (message, at) = split_location(&message);
                if let Some(wanted) = message.strip_suffix(", found: EOF") {
                    let wanted = wanted.trim_start_matches("Expected: ");
                    let end = text.trim_end().len();
                    return Err(fail(&format!("the expression ends where {wanted} is expected"), end..end));
                }
                let range = at.map_or(next_range, |location| {
                    let at = lines.offset(&text, location);
                    kept.iter().map(|t| &t.range).find(|r| r.contains(&at)).cloned().unwrap_or(at..text.len())
                });
                return Err(fail(&lower_first(message), range));
            }
        };
        Ok(Parsed { expr, source, tokens: kept, lines })
    }

    /// Bytes of the file that hold `expr`, which must be a part of this expression.
    pub(crate) fn place(&self, expr: &Expr) -> Range<usize> {
        self.source.place(self.range(expr))
    }

    /// The text of `expr`, as written.
    pub(crate) fn text(&self, expr: &Expr) -> &str {
        self.source.text.get(self.range(expr)).unwrap_or_default()
    }

    /// Bytes of the file that hold what the parser marked with `span`.
    pub(crate) fn place_of(&self, span: Span) -> Range<usize> {
        self.source.place(self.lines.range(&self.source.text, span))
    }

    /// Bytes of the text that hold `expr`.
    fn range(&self, expr: &Expr) -> Range<usize> {
        match expr {
            Expr::Nested(inner) => self.in_brackets(&self.range(inner), false),
            Expr::Function(f) => {
                let name = self.lines.range(&self.source.text, f.name.span());
                let open = self.tokens.iter().position(|t| t.range.start >= name.end && t.kind == TokKind::Open);
                name.start..open.map_or(name.end, |open| self.closing(open))
            }
            Expr::Cast { kind: CastKind::DoubleColon, expr, .. } => {
                let inner = self.range(expr);
                let mut after = self.tokens.iter().enumerate().filter(|(_, t)| t.range.start >= inner.end).skip(1);
                let mut end = after.next().map_or(inner.end, |(_, t)| t.range.end);
                if let Some((n, _)) = after.next().filter(|(_, t)| t.kind == TokKind::Open) {
                    end = self.closing(n);
                }
                inner.start..end
            }
            Expr::Cast { expr, .. }
            | Expr::Extract { expr, .. }
            | Expr::Substring { expr, .. }
            | Expr::Trim { expr, .. }
            | Expr::Position { expr, .. }
            | Expr::Ceil { expr, .. }
            | Expr::Floor { expr, .. } => self.in_brackets(&self.range(expr), true),
            Expr::IsNull(e)
            | Expr::IsNotNull(e)
            | Expr::IsTrue(e)
            | Expr::IsNotTrue(e)
            | Expr::IsFalse(e)
            | Expr::IsNotFalse(e)
            | Expr::IsUnknown(e)
            | Expr::IsNotUnknown(e) => self.with_words_after(&self.range(e)),
            Expr::In { expr, .. } => {
                let inner = self.range(expr);
                let open = self.tokens.iter().position(|t| t.range.start >= inner.end && t.kind == TokKind::Open);
                inner.start..open.map_or(inner.end, |open| self.closing(open))
            }
            Expr::UnaryOp { expr, .. } => {
                let inner = self.range(expr);
                self.before(&inner).map_or(inner.start, |t| t.range.start)..inner.end
            }
            Expr::TypedString(_) => {
                let value = self.spanned(expr);
                self.before(&value).map_or(value.start, |t| t.range.start)..value.end
            }
            Expr::BinaryOp { left, right, .. } => {
                // A long chain leans to the left: it is walked, not recursed into.
                let mut first = &**left;
                while let Expr::BinaryOp { left, .. } = first {
                    first = left;
                }
                self.range(first).start..self.range(right).end
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.range(left).start..self.range(right).end
            }
            Expr::Between { expr, high, .. } => self.range(expr).start..self.range(high).end,
            Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => {
                self.range(expr).start..self.range(pattern).end
            }
            Expr::AtTimeZone { timestamp, time_zone } => self.range(timestamp).start..self.range(time_zone).end,
            _ => self.spanned(expr),
        }
    }

    fn spanned(&self, expr: &Expr) -> Range<usize> {
        let span = expr.span();
        if span == Span::empty() { 0..self.source.text.len() } else { self.lines.range(&self.source.text, span) }
    }

    fn before(&self, range: &Range<usize>) -> Option<&Tok> {
        self.tokens.iter().rev().find(|t| t.range.end <= range.start)
    }

    /// End of the bracket that opens at token `open`.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0;
        for token in &self.tokens[open..] {
            match token.kind {
                TokKind::Open => depth += 1,
                TokKind::Close => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return token.range.end;
            }
        }
        self.source.text.len()
    }

    /// The innermost brackets around `inner`, with the word before them if `call`.
    fn in_brackets(&self, inner: &Range<usize>, call: bool) -> Range<usize> {
        let mut depth = 0;
        for (n, token) in self.tokens.iter().enumerate().rev().filter(|(_, t)| t.range.end <= inner.start) {
            match token.kind {
                TokKind::Close => depth += 1,
                TokKind::Open if depth == 0 => {
                    let start = if call { n.saturating_sub(1) } else { n };
                    return self.tokens[start].range.start..self.closing(n);
                }
                TokKind::Open => depth -= 1,
                _ => {}
            }
        }
        inner.clone()
    }

    /// `inner` with the words of `is [not] null` and the like after it.
    fn with_words_after(&self, inner: &Range<usize>) -> Range<usize> {
        let words = ["is", "not", "null", "true", "false", "unknown", "isnull", "notnull"];
        let is_word = |t: &&Tok| matches!(&t.kind, TokKind::Word(w) if words.contains(&w.as_str()));
        let after = self.tokens.iter().filter(|t| t.range.start >= inner.end);
        inner.start..after.take_while(is_word).last().map_or(inner.end, |t| t.range.end)
    }
}

fn kind(token: &Token) -> TokKind {
    match token {
        Token::LParen => TokKind::Open,
        Token::RParen => TokKind::Close,
        Token::Word(w) => TokKind::Word(w.value.to_lowercase()),
        _ => TokKind::Other,
    }
}

/// Cuts ` at Line: 1, Column: 5` off a message.
fn split_location(message: &str) -> (&str, Option<Location>) {
    let Some((text, place)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let location = place.split_once(", Column: ").and_then(|(line, column)| {
        Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
    });
    (text, location.filter(|l| l.line > 0 && l.column > 0))
}

fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

/// Lines and columns (both from 1, columns in characters) → bytes.
struct Lines {
    starts: Vec<usize>,
    /// Whether characters are bytes.
    ascii: bool,
}

impl Lines {
    fn new(text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(n, _)| n + 1)).collect();
        Self { starts, ascii: text.is_ascii() }
    }

    fn offset(&self, text: &str, location: Location) -> usize {
        let line = usize::try_from(location.line.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(start) = self.starts.get(line) else { return text.len() };
        let column = usize::try_from(location.column.saturating_sub(1)).unwrap_or(usize::MAX);
        let rest = &text[*start..];
        if self.ascii {
            return (*start + column).min(text.len());
        }
        rest.char_indices().nth(column).map_or(text.len(), |(n, _)| start + n)
    }

    fn range(&self, text: &str, span: Span) -> Range<usize> {
        let start = self.offset(text, span.start);
        start..self.offset(text, span.end).max(start)
    }
}
