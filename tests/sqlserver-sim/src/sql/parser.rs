//! The parser's own machinery: looking at tokens, names, the errors.

use super::ast::{Expr, Name, Query, Statement, TypeName};
use super::lexer::{Kind, Token, lex};
use crate::error::{Result, SqlError};

/// Position in the tokens of one batch.
pub struct Parser<'a> {
    pub text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

/// "Reserved keywords (Transact-SQL)", those that end an expression or a table reference. They cannot be an alias
/// without quotes.
const RESERVED: &[&str] = &[
    "add",
    "all",
    "alter",
    "and",
    "any",
    "as",
    "asc",
    "begin",
    "between",
    "by",
    "case",
    "check",
    "checkpoint",
    "collate",
    "commit",
    "constraint",
    "convert",
    "create",
    "cross",
    "declare",
    "default",
    "delete",
    "deny",
    "desc",
    "distinct",
    "drop",
    "else",
    "end",
    "except",
    "exec",
    "execute",
    "exists",
    "fetch",
    "for",
    "foreign",
    "from",
    "full",
    "go",
    "grant",
    "group",
    "having",
    "if",
    "in",
    "inner",
    "insert",
    "intersect",
    "into",
    "is",
    "join",
    "key",
    "kill",
    "left",
    "like",
    "merge",
    "not",
    "null",
    "of",
    "off",
    "on",
    "open",
    "option",
    "or",
    "order",
    "outer",
    "over",
    "percent",
    "pivot",
    "primary",
    "print",
    "procedure",
    "raiserror",
    "references",
    "return",
    "revoke",
    "right",
    "rollback",
    "save",
    "select",
    "set",
    "some",
    "table",
    "tablesample",
    "then",
    "to",
    "top",
    "tran",
    "transaction",
    "truncate",
    "try_convert",
    "union",
    "unique",
    "unpivot",
    "update",
    "use",
    "values",
    "view",
    "waitfor",
    "when",
    "where",
    "while",
    "with",
    "output",
];

/// Parses a whole batch.
pub fn parse_batch(text: &str) -> Result<Vec<Statement>> {
    let mut p = Parser::new(text)?;
    let mut out = Vec::new();
    loop {
        while p.op(";") {}
        if p.end() {
            return Ok(out);
        }
        out.push(p.statement()?);
    }
}

/// Parses the text of a view.
pub(crate) fn parse_query_text(text: &str) -> Result<Query> {
    let mut p = Parser::new(text)?;
    let q = p.query()?;
    p.op(";");
    if p.end() { Ok(q) } else { Err(p.unexpected()) }
}

/// Parses the text of a check constraint.
pub(crate) fn parse_condition_text(text: &str) -> Result<Expr> {
    let mut p = Parser::new(text)?;
    let e = p.condition()?;
    if p.end() { Ok(e) } else { Err(p.unexpected()) }
}

/// Parses the text of a default or a computed column.
pub(crate) fn parse_expr_text(text: &str) -> Result<Expr> {
    let mut p = Parser::new(text)?;
    let e = p.expr()?;
    if p.end() { Ok(e) } else { Err(p.unexpected()) }
}

impl<'a> Parser<'a> {
    pub fn new(text: &'a str) -> Result<Self> {
        Ok(Self { text, tokens: lex(text)?, at: 0, depth: 0 })
    }

    /// Guards the stack against deep nesting, error 191 of the product.
    pub fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > 200 {
            let text = "Some part of your SQL statement is nested too deeply. Rewrite the query or break it up into smaller queries.";
            return Err(SqlError::new(191, 15, 1, text));
        }
        let out = inner(self);
        self.depth -= 1;
        out
    }

    pub fn peek(&self) -> &Kind {
        self.peek_at(0)
    }

    pub fn peek_at(&self, ahead: usize) -> &Kind {
        self.tokens.get(self.at + ahead).map_or(&Kind::End, |t| &t.kind)
    }

    pub fn next(&mut self) -> Kind {
        let kind = self.peek().clone();
        self.at += 1;
        kind
    }

    pub fn mark(&self) -> usize {
        self.at
    }

    pub fn reset(&mut self, mark: usize) {
        self.at = mark;
    }

    /// Byte at which the next token begins.
    pub fn offset(&self) -> usize {
        self.tokens.get(self.at).map_or(self.text.len(), |t| t.start)
    }

    /// Byte behind the token before.
    pub fn last_end(&self) -> usize {
        self.at.checked_sub(1).and_then(|i| self.tokens.get(i)).map_or(0, |t| t.end)
    }

    pub fn end(&self) -> bool {
        *self.peek() == Kind::End
    }

    pub fn skip_to_end(&mut self) {
        self.at = self.tokens.len();
    }

    pub fn is(&self, word: &str) -> bool {
        self.is_at(0, word)
    }

    pub fn is_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek_at(ahead), Kind::Word(w) if w.eq_ignore_ascii_case(word))
    }

    /// Takes the keyword if it is next.
    pub fn word(&mut self, word: &str) -> bool {
        let hit = self.is(word);
        self.at += usize::from(hit);
        hit
    }

    /// Takes all keywords if they are next.
    pub fn words(&mut self, words: &[&str]) -> bool {
        let hit = words.iter().enumerate().all(|(i, w)| self.is_at(i, w));
        if hit {
            self.at += words.len();
        }
        hit
    }

    pub fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Kind::Op(o) if *o == op)
    }

    /// Takes the operator if it is next.
    pub fn op(&mut self, op: &str) -> bool {
        let hit = self.is_op(op);
        self.at += usize::from(hit);
        hit
    }

    pub fn expect(&mut self, op: &str) -> Result<()> {
        if self.op(op) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.word(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// The error for the next token: 156 for a keyword, 102 for everything else.
    pub fn unexpected(&self) -> SqlError {
        match self.peek() {
            Kind::Word(w) if reserved(w) => {
                SqlError::new(156, 15, 1, format!("Incorrect syntax near the keyword '{w}'."))
            }
            Kind::Word(w) | Kind::Quoted(w) | Kind::Str(w, _) | Kind::Number(w) => SqlError::syntax(w),
            Kind::Op(o) => SqlError::syntax(o),
            Kind::Hex(_) => SqlError::syntax("0x"),
            Kind::End => SqlError::syntax(self.text.split_whitespace().next_back().unwrap_or("")),
        }
    }

    /// An identifier. Reserved words need quotes.
    pub fn ident(&mut self) -> Result<String> {
        match self.peek() {
            Kind::Word(w) if !w.starts_with('@') && !reserved(w) => {}
            Kind::Quoted(_) => {}
            _ => return Err(self.unexpected()),
        }
        match self.next() {
            Kind::Word(w) | Kind::Quoted(w) => Ok(w),
            _ => Err(self.unexpected()),
        }
    }

    /// A variable, with its `@`.
    pub fn variable(&mut self) -> Option<String> {
        match self.peek() {
            Kind::Word(w) if w.starts_with('@') && !w.starts_with("@@") => {
                let w = w.clone();
                self.at += 1;
                Some(w)
            }
            _ => None,
        }
    }

    /// A name of up to four parts.
    pub fn name(&mut self) -> Result<Name> {
        let mut parts = vec![self.ident()?];
        while self.op(".") {
            if self.is_op(".") {
                parts.push(String::new());
            } else {
                // Behind a point every word is an identifier.
                match self.next() {
                    Kind::Word(w) | Kind::Quoted(w) => parts.push(w),
                    _ => {
                        self.at -= 1;
                        return Err(self.unexpected());
                    }
                }
            }
        }
        if parts.len() > 4 {
            return Err(SqlError::new(
                117,
                15,
                1,
                "The object name contains more than the maximum number of prefixes. The maximum is 3.",
            ));
        }
        Ok(parts)
    }

    /// `name` or `(name, name, …)`.
    pub fn ident_list(&mut self) -> Result<Vec<String>> {
        self.expect("(")?;
        let list = self.list(Self::ident)?;
        self.expect(")")?;
        Ok(list)
    }

    /// One or more, with commas between.
    pub fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut out = vec![one(self)?];
        while self.op(",") {
            out.push(one(self)?);
        }
        Ok(out)
    }

    /// An optional `AS alias`.
    pub fn alias(&mut self) -> Result<Option<String>> {
        if self.word("as") {
            if let Kind::Str(s, _) = self.peek().clone() {
                self.at += 1;
                return Ok(Some(s));
            }
            return self.ident().map(Some);
        }
        match self.peek() {
            Kind::Quoted(_) => self.ident().map(Some),
            Kind::Word(w) if !w.starts_with('@') && !reserved(w) => {
                // A statement may begin right here, without any separator.
                if STARTS.iter().any(|s| w.eq_ignore_ascii_case(s)) { Ok(None) } else { self.ident().map(Some) }
            }
            _ => Ok(None),
        }
    }

    /// A whole number with an optional sign.
    pub fn integer(&mut self) -> Result<i64> {
        let negative = self.op("-");
        match self.peek().clone() {
            Kind::Number(n) => {
                self.at += 1;
                let v: i64 = n.parse().map_err(|_| SqlError::syntax(&n))?;
                Ok(if negative { -v } else { v })
            }
            _ => Err(self.unexpected()),
        }
    }

    /// A character constant.
    pub fn string(&mut self) -> Result<String> {
        match self.peek().clone() {
            Kind::Str(s, _) => {
                self.at += 1;
                Ok(s)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// `ON` or `OFF`.
    pub fn on_off(&mut self) -> Result<bool> {
        if self.word("on") {
            Ok(true)
        } else if self.word("off") {
            Ok(false)
        } else {
            Err(self.unexpected())
        }
    }

    /// A data type as it is written.
    pub fn type_name(&mut self) -> Result<TypeName> {
        let mut parts = self.name()?;
        let mut name = parts.pop().unwrap_or_default();
        if parts.first().is_some_and(|s| !s.eq_ignore_ascii_case("sys") && !s.eq_ignore_ascii_case("dbo")) {
            return Err(SqlError::unmodelled("types of users"));
        }
        if name.eq_ignore_ascii_case("double") && self.word("precision") {
            name = "float".into();
        }
        if self.word("varying") {
            name = format!("var{name}");
        }
        let mut args = Vec::new();
        if self.op("(") {
            args = self.list(|p| match p.next() {
                Kind::Number(n) => Ok(n),
                Kind::Word(w) if w.eq_ignore_ascii_case("max") => Ok("max".into()),
                _ => Err(p.unexpected()),
            })?;
            self.expect(")")?;
        }
        Ok(TypeName { name, args })
    }
}

/// Words that begin a statement and are not reserved words already.
const STARTS: &[&str] = &["throw", "offset"];

pub fn reserved(word: &str) -> bool {
    RESERVED.iter().any(|r| word.eq_ignore_ascii_case(r))
}
