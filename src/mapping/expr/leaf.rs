//! The leaves of expressions: literals, variables, and names of columns and `let`s.

use super::convert::{Checked, Place, Reported, Scope, Typed, Why, type_of};
use super::ir::{Const, Node, Type};
use super::narrow::NotNull;
use super::parse::Parsed;
use crate::diagnostics::{Diagnostic, did_you_mean};
use crate::mapping::names::{Found, Name};
use sqlparser::ast::{Ident, Value};

impl Scope<'_> {
    pub(super) fn literal(&mut self, value: &Value, place: Place) -> Checked {
        let constant = |c: Const, ty| Ok(Typed::new(Node::Const(c), ty, place.clone()));
        match value {
            Value::Null => {
                let why = Why { place: place.clone(), text: "this is null".into(), through: Vec::new() };
                let typed = Typed::new(Node::Const(Const::Null), Type::Null, place.clone());
                Ok(Typed { null: Some(why), ..typed })
            }
            Value::Boolean(b) => constant(Const::Bool(*b), Type::Bool),
            Value::Number(digits, _) => match (digits.parse::<i64>(), super::decimal::Dec::parse(digits)) {
                (Ok(n), _) => constant(Const::Int(n), Type::Int),
                (Err(_), Some(d)) => constant(Const::Dec(d), Type::Decimal),
                (Err(_), None) => self.error("bad_literal", &place, format!("`{digits}` is not a number")),
            },
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) | Value::NationalStringLiteral(s) => {
                Ok(text_literal(s, place))
            }
            Value::DollarQuotedString(s) => Ok(text_literal(&s.value, place)),
            Value::Placeholder(name) => self.variable(name, place),
            _ => self.fail(
                Diagnostic::error("bad_literal", place.file, place.span, "this kind of literal is not supported")
                    .help("write texts in single quotes"),
            ),
        }
    }

    fn variable(&mut self, name: &str, place: Place) -> Checked {
        let wanted = name.trim_start_matches(['$', '?', ':', '@']);
        let variables = self.variables;
        if let Some(v) = variables.iter().find(|v| v.name == wanted) {
            self.used.insert(format!("var {wanted}"));
            let literal = match &v.value {
                Const::Text(s) => text_literal(s, place.clone()),
                _ => Typed::new(Node::Const(v.value.clone()), v.ty, place.clone()),
            };
            return Ok(Typed { literal: false, ..literal });
        }
        let near = did_you_mean(wanted, variables.iter().map(|v| v.name.as_str()))
            .map_or_else(|| "declare it in [pack] vars".to_owned(), |n| format!("did you mean `${n}`?"));
        self.fail(
            Diagnostic::error(
                "unknown_variable",
                place.file,
                place.span,
                format!("variable `${wanted}` does not exist"),
            )
            .help(near),
        )
    }

    /// A bare name: a `let` of the rule, else a column.
    pub(super) fn name(&mut self, ident: &Ident, place: Place) -> Checked {
        let name = Name { text: ident.value.clone(), quoted: ident.quote_style.is_some() };
        let found = self
            .lets
            .iter()
            .position(|l| if name.quoted { l.name == name.text } else { l.name.eq_ignore_ascii_case(&name.text) });
        if let Some(index) = found {
            return self.named(index, place);
        }
        self.column(&name, place)
    }

    fn named(&mut self, index: usize, place: Place) -> Checked {
        let Some(typed) = self.lets.get(index).and_then(|l| l.typed.clone()) else { return Err(Reported) };
        let name = self.lets[index].name.clone();
        let number = u16::try_from(index).unwrap_or(u16::MAX);
        let known = self.not_null.contains(&NotNull::Let(number));
        let null = typed.null.filter(|_| !known).map(|mut why| {
            why.through.insert(0, format!("`let {name}`"));
            why
        });
        Ok(Typed { node: Node::Let(number), place, null, literal: false, ..typed })
    }

    /// `alias.column`.
    pub(super) fn qualified(&mut self, parsed: &Parsed, parts: &[Ident], place: Place) -> Checked {
        let [table, column] = parts else {
            return self.error("unknown_column", &place, "a column is written `alias.column`");
        };
        let said = Name { text: table.value.clone(), quoted: table.quote_style.is_some() };
        if said.find(std::iter::once(self.alias.text.as_str())) != Found::One(0) {
            if self.other_aliases.iter().any(|a| a.eq_ignore_ascii_case(&said.text)) {
                return Err(Reported);
            }
            let span = parsed.place_of(table.span);
            let help = format!("this rule's table is called `{}`", self.alias);
            return self.fail(
                Diagnostic::error("unknown_alias", place.file, span, format!("there is no table `{said}` here"))
                    .help(help),
            );
        }
        let name = Name { text: column.value.clone(), quoted: column.quote_style.is_some() };
        let span = parsed.place_of(column.span);
        let typed = self.column(&name, Place { file: place.file, span })?;
        Ok(Typed { place, ..typed })
    }

    /// A column of the rule's table.
    fn column(&mut self, name: &Name, place: Place) -> Checked {
        let schema = self.schema;
        let names = schema.columns.iter().map(|c| &*c.name);
        let index = match name.find(names.clone()) {
            Found::One(index) => index,
            Found::Ambiguous => {
                let message = format!("`{name}` names several columns of {}, which differ in case only", schema.table);
                return self.fail(
                    Diagnostic::error("ambiguous_column", place.file, place.span, message)
                        .help("write the one you mean in double quotes, exactly"),
                );
            }
            Found::None => {
                let lets = self.lets.iter().map(|l| l.name.as_str());
                let near = did_you_mean(&name.text, names.chain(lets)).map(|n| format!("did you mean `{n}`?"));
                let message = format!("column `{name}` does not exist in {}", schema.table);
                let diagnostic = Diagnostic::error("unknown_column", place.file, place.span, message);
                return self.fail(diagnostic.label("no such column").maybe_help(near));
            }
        };
        let column = &schema.columns[index];
        let position = self.columns.iter().position(|c| *c == index).unwrap_or_else(|| {
            self.columns.push(index);
            self.columns.len() - 1
        });
        let number = u16::try_from(position).unwrap_or(u16::MAX);
        let is_key = schema.key.contains(&index);
        let nullable = column.nullable && !is_key && !self.not_null.contains(&NotNull::Column(number));
        let null = nullable.then(|| Why {
            place: place.clone(),
            text: format!("the column `{}` allows null", column.name),
            through: Vec::new(),
        });
        let values = (!column.labels.is_empty()).then(|| column.labels.clone());
        let typed = Typed::new(Node::Column(number), type_of(column.logical), place);
        Ok(Typed { null, values, max_length: column.max_length, columns: vec![number], ..typed })
    }
}

/// A text literal.
fn text_literal(s: &str, place: Place) -> Typed {
    let typed = Typed::new(Node::Const(Const::Text(s.into())), Type::Text, place);
    let max_length = u32::try_from(s.chars().count()).ok();
    Typed { literal: true, values: Some(vec![s.into()]), max_length, ..typed }
}
