//! Compiling what is made ready once: pattern operators, JSON paths, keyed hashes.

use super::convert::{Checked, Place, Reported, Scope, Typed, Why};
use super::ir::{Const, Node, Type};
use super::parse::Parsed;
use super::prepared::{Prepared, Step, parse_path};
use super::regexp::pattern;
use crate::diagnostics::{Diagnostic, did_you_mean};
use sqlparser::ast::{BinaryOperator, Expr, Value};
use std::sync::Arc;

impl Scope<'_> {
    /// `x ~ 'pattern'` and its kin.
    pub(super) fn matches(
        &mut self,
        parsed: &Parsed,
        expr: &Expr,
        (left, op, right): (&Expr, &BinaryOperator, &Expr),
        place: Place,
    ) -> Checked {
        use BinaryOperator::{PGRegexIMatch, PGRegexMatch, PGRegexNotIMatch, PGRegexNotMatch};
        let parts = self.all(parsed, [left, right])?;
        let [arg, with] = <[Typed; 2]>::try_from(parts).map_err(|_| Reported)?;
        let flags = if matches!(op, PGRegexIMatch | PGRegexNotIMatch) { "i" } else { "" };
        debug_assert!(matches!(op, PGRegexMatch | PGRegexIMatch | PGRegexNotMatch | PGRegexNotIMatch));
        let regex = self.pattern_of(&with, flags)?;
        let arg = self.text_for(arg, "a pattern")?;
        let negated = matches!(op, PGRegexNotMatch | PGRegexNotIMatch);
        let null = arg.null.clone();
        self.prepared(parsed, expr, Prepared::Matches { regex, negated }, arg, (Type::Bool, null), place)
    }

    /// `regexp_substr(x, 'pattern' [, 'flags'])`.
    pub(super) fn regexp_substr(&mut self, parsed: &Parsed, expr: &Expr, args: Vec<&Expr>, place: Place) -> Checked {
        if !(2..=3).contains(&args.len()) {
            return self.arity(&place, "regexp_substr", args.len());
        }
        let parts = self.all(parsed, args)?;
        let flags = match parts.get(2).map(|flags| flags.constant_text().map(str::to_owned)) {
            None => String::new(),
            Some(Some(flags)) => flags,
            Some(None) => return self.error("wrong_arguments", &place, "the flags are a literal text"),
        };
        let regex = self.pattern_of(&parts[1], &flags)?;
        let Some(arg) = parts.into_iter().next() else { return Err(Reported) };
        let arg = self.text_for(arg, "`regexp_substr`")?;
        let max_length = arg.max_length;
        let text = "null where the pattern does not match".to_owned();
        let null = Some(Why { place: place.clone(), text, through: Vec::new() });
        let typed = self.prepared(parsed, expr, Prepared::Substring(regex), arg, (Type::Text, null), place)?;
        Ok(Typed { max_length, ..typed })
    }

    fn pattern_of(&mut self, with: &Typed, flags: &str) -> Checked<regex::Regex> {
        let Some(text) = with.constant_text() else {
            return self.error("wrong_arguments", &with.place.clone(), "the pattern is a literal text");
        };
        pattern(text, flags).or_else(|message| {
            self.error("bad_pattern", &with.place.clone(), format!("the pattern cannot be used: {message}"))
        })
    }

    /// An argument that must be text.
    fn text_for(&mut self, arg: Typed, what: &str) -> Checked {
        if self.converts(&arg, Type::Text) {
            return self.convert(arg, Type::Text);
        }
        let at = arg.place;
        self.fail(
            Diagnostic::error("wrong_type", at.file, at.span, format!("{what} takes text here"))
                .label(format!("this is {}", arg.ty.name()))
                .help("convert it: cast(... as text)"),
        )
    }

    /// `x -> 'key'`, `x ->> 0`, `x #>> '{a,b}'`. Steps that follow one another are one path.
    pub(super) fn json_path(
        &mut self,
        parsed: &Parsed,
        expr: &Expr,
        (left, op, right): (&Expr, &BinaryOperator, &Expr),
        place: Place,
    ) -> Checked {
        let parts = self.all(parsed, [left, right])?;
        let [arg, step] = <[Typed; 2]>::try_from(parts).map_err(|_| Reported)?;
        let is_path = matches!(op, BinaryOperator::HashArrow | BinaryOperator::HashLongArrow);
        let as_text = matches!(op, BinaryOperator::LongArrow | BinaryOperator::HashLongArrow);
        let steps = match (step.constant(), is_path) {
            (Some(Const::Text(key)), false) => Some(vec![Step::Key(key.to_string())]),
            (Some(Const::Int(index)), false) => Some(vec![Step::Index(*index)]),
            (Some(Const::Text(path)), true) => parse_path(path),
            _ => None,
        };
        let Some(mut steps) = steps else {
            let help = if is_path {
                "write a path: x #>> '{address,0,city}'"
            } else {
                "write a name or a number: x ->> 'city', x -> 0"
            };
            let at = step.place;
            return self
                .fail(Diagnostic::error("wrong_arguments", at.file, at.span, "this is no step into JSON").help(help));
        };
        if !matches!(arg.ty, Type::Json | Type::List | Type::Null) {
            let at = arg.place;
            return self.fail(
                Diagnostic::error("wrong_type", at.file, at.span, format!("`{op}` takes JSON"))
                    .label(format!("this is {}", arg.ty.name()))
                    .maybe_help((arg.ty == Type::Text).then_some("convert it: cast(... as json)")),
            );
        }
        let ty = if as_text { Type::Text } else { Type::Json };
        let text = "null where the document has no such part".to_owned();
        let null = Some(Why { place: place.clone(), text, through: Vec::new() });
        let arg = match &arg.node {
            Node::Prepared { with, arg: inner, .. } => match &**with {
                Prepared::Json { steps: before, as_text: false } => {
                    steps.splice(0..0, before.iter().cloned());
                    Typed { node: (**inner).clone(), ..arg }
                }
                _ => arg,
            },
            _ => arg,
        };
        self.prepared(parsed, expr, Prepared::Json { steps: steps.into(), as_text }, arg, (ty, null), place)
    }

    /// `hmac_sha256(x, $key)`: the only use of a secret.
    pub(super) fn hmac(&mut self, parsed: &Parsed, expr: &Expr, args: Vec<&Expr>, place: Place) -> Checked {
        let [arg, key] = args[..] else { return self.arity(&place, "hmac_sha256", args.len()) };
        let key_place = self.place(parsed, key);
        let name = match key {
            Expr::Value(value) => match &value.value {
                Value::Placeholder(name) => name.trim_start_matches('$'),
                _ => "",
            },
            _ => "",
        };
        let variables = self.variables;
        let found = variables.iter().find(|v| v.name == name);
        let Some(secret) = found.and_then(|v| v.secret.as_ref()) else {
            let near = did_you_mean(name, variables.iter().filter(|v| v.secret.is_some()).map(|v| v.name.as_str()));
            let help = near.map_or_else(
                || "declare it: vars = { key = { type = \"secret\" } }, and say in the tenant file where it is: [mapping.vars] key = { env = \"NAME\" }".to_owned(),
                |n| format!("did you mean `${n}`?"),
            );
            return self.fail(
                Diagnostic::error(
                    "wrong_arguments",
                    key_place.file,
                    key_place.span,
                    "the key is a variable of type secret",
                )
                .help(help),
            );
        };
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.expose().as_bytes());
        self.used.insert(format!("var {name}"));
        let arg = self.lower(parsed, arg)?;
        let arg = if arg.ty == Type::Bytes { arg } else { self.text_for(arg, "`hmac_sha256`")? };
        let null = arg.null.clone();
        let typed = self.prepared(parsed, expr, Prepared::Hmac(key), arg, (Type::Text, null), place)?;
        Ok(Typed { max_length: Some(64), ..typed })
    }

    fn prepared(
        &mut self,
        parsed: &Parsed,
        expr: &Expr,
        with: Prepared,
        arg: Typed,
        (ty, null): (Type, Option<Why>),
        place: Place,
    ) -> Checked {
        let mark = self.mark(&place, parsed.text(expr));
        let typed = Typed::new(Node::Const(Const::Null), ty, place).reads([&arg]);
        let node = Node::Prepared { with: Arc::new(with), arg: Box::new(arg.node), place: mark };
        Ok(Typed { node, null, ..typed })
    }
}
