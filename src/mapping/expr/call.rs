//! Calls of functions: those in the table by their signatures, the others by name.

use super::convert::{Checked, Place, Reported, Scope, Typed, Why};
use super::ir::{Const, Node, Type};
use super::lower::{all_values, longest};
use super::parse::Parsed;
use super::parts::{DATE_PARTS, TRUNC_UNITS, unit};
use super::regexp::RegexReplace;
use super::template::DateTemplate;
use crate::diagnostics::{Diagnostic, did_you_mean};
use crate::mapping::functions::{self, AGGREGATES, Arg, FOREIGN, Function, Kind, Signature};
use crate::mapping::lookup::Unknown;
use jiff::tz::TimeZone;
use sqlparser::ast::{self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned as _};
use std::sync::Arc;

impl Scope<'_> {
    /// A call as the parser has it.
    pub(crate) fn function(&mut self, parsed: &Parsed, expr: &Expr, call: &ast::Function, place: Place) -> Checked {
        let name = call.name.to_string().to_lowercase();
        let name_place = Place { file: place.file, span: parsed.place_of(call.name.span()) };
        if AGGREGATES.contains(&name.as_str()) {
            return self.aggregate(parsed, expr, &name, name_place, call, place);
        }
        let plain = call.over.is_none()
            && call.filter.is_none()
            && call.within_group.is_empty()
            && call.null_treatment.is_none();
        let args: Option<Vec<&Expr>> = match &call.args {
            FunctionArguments::None => Some(Vec::new()),
            FunctionArguments::List(list) if list.clauses.is_empty() && list.duplicate_treatment.is_none() => list
                .args
                .iter()
                .map(|a| match a {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        let (Some(args), true) = (args, plain) else {
            return self.error("unsupported", &place, format!("this form of `{name}` is not supported"));
        };
        match name.as_str() {
            "coalesce" => self.coalesce(parsed, args, place),
            "nullif" => self.nullif(parsed, args, place),
            "greatest" | "least" => self.extreme(parsed, args, name == "greatest", place),
            "lookup" => self.lookup(parsed, expr, args, place),
            "extract" | "date_part" => self.date_part(parsed, expr, args, place),
            "date_trunc" => self.date_trunc(parsed, expr, args, place),
            "to_char" => self.date_text(parsed, args, place),
            "regexp_substr" => self.regexp_substr(parsed, expr, args, place),
            "hmac_sha256" => self.hmac(parsed, expr, args, place),
            "regexp_replace" => self.regexp_replace(parsed, expr, args, place),
            "timezone" => {
                let mut parts = self.all(parsed, args)?;
                parts.reverse();
                self.at_time_zone(parsed, expr, parts, place)
            }
            _ => match functions::find(&name) {
                Some(Function { kind: Kind::Plain(_), .. }) => self.call_plain(parsed, expr, &name, args, place),
                _ => self.unknown_function(&name, name_place),
            },
        }
    }

    fn unknown_function(&mut self, name: &str, place: Place) -> Checked {
        let foreign = FOREIGN.iter().find(|(foreign, _)| *foreign == name).map(|(_, hint)| (*hint).to_owned());
        let near = || did_you_mean(name, functions::names()).map(|n| format!("did you mean `{n}`?"));
        self.fail(
            Diagnostic::error("unknown_function", place.file, place.span, format!("function `{name}` does not exist"))
                .label("unknown function")
                .maybe_help(foreign.or_else(near)),
        )
    }

    pub(super) fn arity(&mut self, place: &Place, name: &str, found: usize) -> Checked {
        let usage = functions::find(name).map(|f| f.usage);
        let plural = if found == 1 { "" } else { "s" };
        self.fail(
            Diagnostic::error(
                "wrong_arguments",
                place.file,
                place.span.clone(),
                format!("`{name}` does not take {found} argument{plural}"),
            )
            .maybe_help(usage.map(|u| format!("write {u}"))),
        )
    }

    /// Calls a function of the table.
    pub(crate) fn call_plain<'e>(
        &mut self,
        parsed: &Parsed,
        expr: &Expr,
        name: &str,
        args: impl IntoIterator<Item = &'e Expr>,
        place: Place,
    ) -> Checked {
        let args = self.all(parsed, args)?;
        let Some(Function { kind: Kind::Plain(signatures), .. }) = functions::find(name) else {
            return self.unknown_function(name, place);
        };
        let fitting: Vec<&Signature> = signatures.iter().filter(|s| s.takes(args.len())).collect();
        if fitting.is_empty() {
            return self.arity(&place, name, args.len());
        }
        let matches = |s: &&&Signature| args.iter().enumerate().all(|(n, a)| self.accepts(s.arg(n), a));
        // Among overloads, one that takes the types as they are comes before one that converts.
        let exact = |s: &&&Signature| {
            args.iter().enumerate().all(|(n, a)| matches!(s.arg(n), Arg::Any) || s.arg(n) == Arg::Of(a.ty))
        };
        let Some(signature) = fitting.iter().find(exact).or_else(|| fitting.iter().find(matches)) else {
            return self.wrong_argument(name, &fitting, &args);
        };
        let mut converted = Vec::with_capacity(args.len());
        for (n, arg) in args.into_iter().enumerate() {
            converted.push(match signature.arg(n) {
                Arg::Of(ty) => self.convert(arg, ty)?,
                Arg::Any => self.shown(arg),
            });
        }
        let max_length = result_length(name, &converted);
        let mark = self.mark(&place, parsed.text(expr));
        let mut typed = Typed::new(Node::Const(Const::Null), signature.returns, place).reads(&converted);
        if signature.strict {
            typed = typed.null_with(&converted);
        } else if name == "concat_ws" {
            typed = typed.null_with(converted.first());
        }
        if let Some(why) = signature.gives_null {
            typed.null = Some(Why { place: typed.place.clone(), text: why.to_owned(), through: Vec::new() });
        }
        let node = Node::Call {
            eval: signature.eval,
            strict: signature.strict,
            args: converted.into_iter().map(|a| a.node).collect(),
            place: mark,
        };
        Ok(Typed { node, max_length, ..typed })
    }

    fn accepts(&self, wanted: Arg, arg: &Typed) -> bool {
        match wanted {
            Arg::Any => true,
            Arg::Of(ty) => self.converts(arg, ty),
        }
    }

    fn wrong_argument(&mut self, name: &str, signatures: &[&Signature], args: &[Typed]) -> Checked {
        // The argument that spoils most signatures is the one to talk about.
        let worst = (0..args.len())
            .max_by_key(|n| {
                (signatures.iter().filter(|s| !self.accepts(s.arg(*n), &args[*n])).count(), std::cmp::Reverse(*n))
            })
            .unwrap_or_default();
        let Some(arg) = args.get(worst) else { return Err(Reported) };
        let mut wanted: Vec<&str> = signatures
            .iter()
            .filter_map(|s| match s.arg(worst) {
                Arg::Of(ty) => Some(ty.name()),
                Arg::Any => None,
            })
            .collect();
        wanted.dedup();
        let help = match (wanted.first(), arg.ty) {
            (Some(&"text"), _) => Some("convert it: cast(... as text)"),
            (Some(_), Type::Text | Type::Float) if wanted.contains(&"decimal") => {
                Some("convert it: cast(... as decimal)")
            }
            (Some(&"integer"), _) => Some("convert it: cast(... as integer)"),
            _ => None,
        };
        let message = format!("`{name}` takes {} here", wanted.join(" or "));
        let diagnostic = Diagnostic::error("wrong_type", arg.place.file, arg.place.span.clone(), message)
            .label(format!("this is {}", arg.ty.name()))
            .maybe_help(help);
        self.fail(diagnostic)
    }

    fn coalesce(&mut self, parsed: &Parsed, args: Vec<&Expr>, place: Place) -> Checked {
        if args.is_empty() {
            return self.arity(&place, "coalesce", 0);
        }
        let parts = self.all(parsed, args)?;
        let (ty, parts) = self.unify("the values of `coalesce`", parts)?;
        // Null only if all are; the last one's reason is the one to mend.
        let null =
            if parts.iter().all(|p| p.null.is_some()) { parts.last().and_then(|p| p.null.clone()) } else { None };
        let typed = Typed::new(Node::Const(Const::Null), ty, place).reads(&parts);
        let (values, max_length) = (all_values(&parts), longest(&parts));
        let node = Node::Coalesce(parts.into_iter().map(|p| p.node).collect());
        Ok(Typed { node, null, values, max_length, ..typed })
    }

    fn nullif(&mut self, parsed: &Parsed, args: Vec<&Expr>, place: Place) -> Checked {
        if args.len() != 2 {
            return self.arity(&place, "nullif", args.len());
        }
        let parts = self.all(parsed, args)?;
        let (ty, parts) = self.unify("the values compared", parts)?;
        let why =
            Why { place: place.clone(), text: "`nullif` gives null where both are equal".into(), through: Vec::new() };
        let typed = Typed::new(Node::Const(Const::Null), ty, place).reads(&parts);
        let (values, max_length) = parts.first().map(|p| (p.values.clone(), p.max_length)).unwrap_or_default();
        let mut nodes = parts.into_iter().map(|p| Box::new(p.node));
        match (nodes.next(), nodes.next()) {
            (Some(a), Some(b)) => Ok(Typed { node: Node::NullIf(a, b), null: Some(why), values, max_length, ..typed }),
            _ => Err(Reported),
        }
    }

    fn extreme(&mut self, parsed: &Parsed, args: Vec<&Expr>, greatest: bool, place: Place) -> Checked {
        if args.is_empty() {
            return self.arity(&place, if greatest { "greatest" } else { "least" }, 0);
        }
        let parts = self.all(parsed, args)?;
        let (ty, parts) = self.unify("the values compared", parts)?;
        if matches!(ty, Type::Json | Type::List) {
            return self.error("wrong_type", &place, format!("{} values cannot be compared", ty.name()));
        }
        let null =
            if parts.iter().all(|p| p.null.is_some()) { parts.last().and_then(|p| p.null.clone()) } else { None };
        let (values, max_length) = (all_values(&parts), longest(&parts));
        let typed = Typed::new(Node::Const(Const::Null), ty, place).reads(&parts);
        let node = Node::Extreme { greatest, args: parts.into_iter().map(|p| p.node).collect() };
        Ok(Typed { node, null, values, max_length, ..typed })
    }

    fn lookup(&mut self, parsed: &Parsed, expr: &Expr, args: Vec<&Expr>, place: Place) -> Checked {
        let [table, arg] = args[..] else { return self.arity(&place, "lookup", args.len()) };
        let parts = self.all(parsed, [table, arg])?;
        let [table, arg] = <[Typed; 2]>::try_from(parts).map_err(|_| Reported)?;
        let Some(name) = table.constant_text() else {
            return self.error("wrong_arguments", &table.place, "the table of a lookup is named by a literal text");
        };
        let lookups = self.lookups;
        let Some(found) = lookups.iter().find(|l| &*l.name == name) else {
            let near = did_you_mean(name, lookups.iter().map(|l| &*l.name)).map(|n| format!("did you mean '{n}'?"));
            let message = format!("lookup table '{name}' does not exist");
            let diagnostic = Diagnostic::error("unknown_lookup", table.place.file, table.place.span.clone(), message);
            return self.fail(diagnostic.help(near.unwrap_or_else(|| "declare it as [lookup.NAME]".into())));
        };
        if matches!(arg.ty, Type::Json | Type::List | Type::Bytes) {
            let message = format!("a lookup translates texts, not {}", arg.ty.name());
            return self.error("wrong_type", &arg.place, message);
        }
        self.used.insert(format!("lookup {name}"));
        let null = match found.unknown {
            Unknown::Null => Some(Why {
                place: place.clone(),
                text: format!("lookup '{name}' gives null for values it does not list"),
                through: Vec::new(),
            }),
            _ => arg.null.clone(),
        };
        let results: Vec<Box<str>> = found.results().into_iter().map(Into::into).collect();
        let longest_result = results.iter().map(|r| r.chars().count()).max().and_then(|n| u32::try_from(n).ok());
        let (values, max_length) = match found.unknown {
            Unknown::Keep => (None, arg.max_length.zip(longest_result).map(|(a, b)| a.max(b))),
            _ => (Some(results), longest_result),
        };
        let mark = self.mark(&place, parsed.text(expr));
        let typed = Typed::new(Node::Const(Const::Null), Type::Text, place).reads([&arg]);
        let node = Node::Lookup { table: Arc::clone(found), arg: Box::new(arg.node), place: mark };
        Ok(Typed { node, null, values, max_length, ..typed })
    }

    fn date_part(&mut self, parsed: &Parsed, expr: &Expr, args: Vec<&Expr>, place: Place) -> Checked {
        let [part, arg] = args[..] else { return self.arity(&place, "date_part", args.len()) };
        let parts = self.all(parsed, [part, arg])?;
        let [part, arg] = <[Typed; 2]>::try_from(parts).map_err(|_| Reported)?;
        match part.constant_text().map(str::to_owned) {
            Some(name) => self.extract(parsed, expr, &name, arg, place),
            None => self.error("wrong_arguments", &part.place, "the part is named by a literal text"),
        }
    }

    /// `extract(part from x)`.
    pub(crate) fn extract(&mut self, parsed: &Parsed, expr: &Expr, part: &str, arg: Typed, place: Place) -> Checked {
        let part = part.trim_matches('\'');
        let Some(found) = unit(DATE_PARTS, part) else {
            let near = did_you_mean(part, DATE_PARTS.iter().map(|(n, _)| *n)).map(|n| format!("did you mean `{n}`?"));
            let all = || DATE_PARTS.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
            return self.fail(
                Diagnostic::error("wrong_arguments", place.file, place.span, format!("a date has no part `{part}`"))
                    .help(near.unwrap_or_else(|| format!("parts: {}", all()))),
            );
        };
        let arg = if arg.literal { self.convert(arg, Type::Timestamp)? } else { arg };
        let fits = match arg.ty {
            Type::Timestamp | Type::TimestampTz | Type::Null => true,
            Type::Date => !found.needs_time(),
            Type::Time => !found.needs_date(),
            _ => false,
        };
        if !fits {
            return self.error("wrong_type", &arg.place.clone(), format!("{} has no part `{part}`", arg.ty.name()));
        }
        let is_epoch = part.eq_ignore_ascii_case("epoch");
        let arg = if arg.ty == Type::TimestampTz && !is_epoch {
            self.in_zone(arg, "a part of a timestamp with time zone")?
        } else {
            arg
        };
        let mark = self.mark(&place, parsed.text(expr));
        let ty = if found.is_fractional() { Type::Decimal } else { Type::Int };
        let mut typed = Typed::new(Node::Const(Const::Null), ty, place).reads([&arg]).null_with([&arg]);
        typed.node = Node::Extract { part: found, arg: Box::new(arg.node), place: mark };
        Ok(typed)
    }

    /// A timestamp with time zone as the local time of the tenant's zone.
    fn in_zone(&mut self, arg: Typed, why: &str) -> Checked {
        let zone = self.need_zone(&arg.place, why)?;
        let mark = self.mark(&arg.place.clone(), "");
        let typed =
            Typed::new(Node::Const(Const::Null), Type::Timestamp, arg.place.clone()).reads([&arg]).null_with([&arg]);
        Ok(Typed { node: Node::AtZone { zone: Box::new(zone), arg: Box::new(arg.node), place: mark }, ..typed })
    }

    /// A time zone named by a literal.
    fn zone_named(&mut self, typed: &Typed) -> Checked<TimeZone> {
        let Some(name) = typed.constant_text() else {
            return self.error("wrong_arguments", &typed.place, "a time zone is named by a literal text");
        };
        match TimeZone::get(name) {
            Ok(zone) => Ok(zone),
            Err(_) => {
                let place = typed.place.clone();
                let known: Vec<String> = jiff::tz::db().available().map(|n| n.to_string()).collect();
                let near = did_you_mean(name, known.iter().map(String::as_str)).map_or_else(
                    || "use a name such as 'Europe/Berlin' or 'UTC'".to_owned(),
                    |n| format!("did you mean '{n}'?"),
                );
                let message = format!("time zone '{name}' does not exist");
                self.fail(Diagnostic::error("unknown_time_zone", place.file, place.span, message).help(near))
            }
        }
    }

    /// `x at time zone 'zone'`; `parts` are the timestamp and the zone.
    pub(crate) fn at_time_zone(&mut self, parsed: &Parsed, expr: &Expr, parts: Vec<Typed>, place: Place) -> Checked {
        let [arg, zone] = <[Typed; 2]>::try_from(parts).map_err(|_| Reported)?;
        let zone = self.zone_named(&zone)?;
        let arg = if arg.literal { self.convert(arg, Type::Timestamp)? } else { arg };
        let ty = match arg.ty {
            Type::Timestamp | Type::Null => Type::TimestampTz,
            Type::TimestampTz => Type::Timestamp,
            _ => {
                let help = (arg.ty == Type::Date).then_some("convert it: cast(... as timestamp)");
                let at = arg.place;
                return self.fail(
                    Diagnostic::error("wrong_type", at.file, at.span, "`at time zone` takes a timestamp")
                        .label(format!("this is {}", arg.ty.name()))
                        .maybe_help(help),
                );
            }
        };
        let mark = self.mark(&place, parsed.text(expr));
        let typed = Typed::new(Node::Const(Const::Null), ty, place).reads([&arg]).null_with([&arg]);
        Ok(Typed { node: Node::AtZone { zone: Box::new(zone), arg: Box::new(arg.node), place: mark }, ..typed })
    }

    fn date_trunc(&mut self, parsed: &Parsed, expr: &Expr, args: Vec<&Expr>, place: Place) -> Checked {
        if !(2..=3).contains(&args.len()) {
            return self.arity(&place, "date_trunc", args.len());
        }
        let mut parts = self.all(parsed, args)?;
        let named = if parts.len() == 3 { parts.pop() } else { None };
        let [what, arg] = <[Typed; 2]>::try_from(parts).map_err(|_| Reported)?;
        let found = what.constant_text().and_then(|name| unit(TRUNC_UNITS, name));
        let Some(found) = found else {
            let all = TRUNC_UNITS.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
            let at = what.place;
            return self.fail(
                Diagnostic::error("wrong_arguments", at.file, at.span, "`date_trunc` needs a unit as a literal text")
                    .help(format!("units: {all}")),
            );
        };
        let arg = if arg.literal { self.convert(arg, Type::Timestamp)? } else { arg };
        let (ty, zone) = match (arg.ty, named) {
            (Type::TimestampTz, Some(zone)) => (Type::TimestampTz, Some(self.zone_named(&zone)?)),
            (Type::TimestampTz, None) => (Type::TimestampTz, Some(self.need_zone(&arg.place, "the start of a day")?)),
            (Type::Date | Type::Timestamp | Type::Null, None) => (Type::Timestamp, None),
            _ => {
                let at = arg.place;
                return self.fail(
                    Diagnostic::error(
                        "wrong_type",
                        at.file,
                        at.span,
                        "`date_trunc` takes a date or timestamp (a zone only with a timestamp with time zone)",
                    )
                    .label(format!("this is {}", arg.ty.name())),
                );
            }
        };
        let mark = self.mark(&place, parsed.text(expr));
        let typed = Typed::new(Node::Const(Const::Null), ty, place).reads([&arg]).null_with([&arg]);
        let node = Node::Trunc { unit: found, zone: zone.map(Box::new), arg: Box::new(arg.node), place: mark };
        Ok(Typed { node, ..typed })
    }

    fn date_text(&mut self, parsed: &Parsed, args: Vec<&Expr>, place: Place) -> Checked {
        let [arg, template] = args[..] else { return self.arity(&place, "to_char", args.len()) };
        let parts = self.all(parsed, [arg, template])?;
        let [arg, template] = <[Typed; 2]>::try_from(parts).map_err(|_| Reported)?;
        let arg = match arg.ty {
            Type::Date | Type::Timestamp | Type::Null => arg,
            Type::TimestampTz => self.in_zone(arg, "the text of a timestamp with time zone")?,
            _ => {
                let at = arg.place;
                return self.fail(
                    Diagnostic::error("wrong_type", at.file, at.span, "`to_char` takes a date or timestamp here")
                        .label(format!("this is {}", arg.ty.name()))
                        .help("numbers become text by cast(... as text), with `round` before and `lpad` after"),
                );
            }
        };
        let parsed_template = match template.constant_text() {
            Some(text) => DateTemplate::parse(text),
            None => return self.error("wrong_arguments", &template.place, "the template is a literal text"),
        };
        let parsed_template = match parsed_template {
            Ok(t) => t,
            Err(word) => {
                let at = template.place;
                return self.fail(
                    Diagnostic::error(
                        "wrong_arguments",
                        at.file,
                        at.span,
                        format!("`{word}` is no pattern of `to_char`"),
                    )
                    .help("put text that is to be copied in double quotes: 'YYYY\"-Q\"Q'"),
                );
            }
        };
        let typed = Typed::new(Node::Const(Const::Null), Type::Text, place).reads([&arg]).null_with([&arg]);
        let node = Node::ToChar { template: Arc::new(parsed_template), zone: None, arg: Box::new(arg.node) };
        Ok(Typed { node, ..typed })
    }

    fn regexp_replace(&mut self, parsed: &Parsed, expr: &Expr, args: Vec<&Expr>, place: Place) -> Checked {
        if !(3..=4).contains(&args.len()) {
            return self.arity(&place, "regexp_replace", args.len());
        }
        let parts = self.all(parsed, args)?;
        let mut texts = Vec::new();
        for part in &parts[1..] {
            match part.constant_text() {
                Some(text) => texts.push(text.to_owned()),
                None => {
                    let message = "pattern, replacement and flags are literal texts";
                    return self.error("wrong_arguments", &part.place.clone(), message);
                }
            }
        }
        let [pattern, replacement, flags] = [0, 1, 2].map(|n| texts.get(n).map_or("", String::as_str));
        let with = match RegexReplace::parse(pattern, replacement, flags) {
            Ok(with) => with,
            Err(message) => {
                let at = parts.get(1).map_or(place, |p| p.place.clone());
                return self.error("bad_pattern", &at, format!("the pattern cannot be used: {message}"));
            }
        };
        let Some(arg) = parts.into_iter().next() else { return Err(Reported) };
        if !self.converts(&arg, Type::Text) {
            let at = arg.place;
            return self.fail(
                Diagnostic::error("wrong_type", at.file, at.span, "`regexp_replace` takes text here")
                    .label(format!("this is {}", arg.ty.name()))
                    .help("convert it: cast(... as text)"),
            );
        }
        let arg = self.convert(arg, Type::Text)?;
        let mark = self.mark(&place, parsed.text(expr));
        let typed = Typed::new(Node::Const(Const::Null), Type::Text, place).reads([&arg]).null_with([&arg]);
        Ok(Typed { node: Node::RegexReplace { with: Arc::new(with), arg: Box::new(arg.node), place: mark }, ..typed })
    }
}

impl Signature {
    fn takes(&self, count: usize) -> bool {
        count + self.optional >= self.args.len() && (count <= self.args.len() || self.rest.is_some())
    }

    fn arg(&self, n: usize) -> Arg {
        self.args.get(n).copied().or(self.rest).unwrap_or(Arg::Any)
    }
}

/// The longest result of a text function, in characters, where it can be told.
fn result_length(name: &str, args: &[Typed]) -> Option<u32> {
    let length = |n: usize| args.get(n).and_then(|a| a.max_length);
    let constant = |n: usize| match args.get(n).and_then(Typed::constant) {
        Some(Const::Int(k)) => u32::try_from(*k).ok(),
        _ => None,
    };
    match name {
        "trim" | "btrim" | "ltrim" | "rtrim" | "lower" | "upper" | "initcap" | "reverse" | "translate"
        | "split_part" => length(0),
        "substring" | "substr" => match (length(0), constant(2)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        },
        "left" | "right" => match (length(0), constant(1)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        },
        "lpad" | "rpad" => constant(1),
        "concat" => args.iter().map(|a| a.max_length).try_fold(0_u32, |sum, n| n.map(|n| sum.saturating_add(n))),
        "sha256" => Some(64),
        "phone_e164" => Some(16),
        "country_code" => Some(2),
        "email_address" => length(0),
        _ => None,
    }
}
