//! The leaves of expressions: literals, variables, and names of columns and `let`s.

use super::convert::{Checked, Origin, Place, Reported, Scope, ScopeTable, Typed, Why, type_of};
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
            if v.secret.is_some() {
                let message = format!("`${wanted}` is a secret");
                return self.fail(
                    Diagnostic::error("secret", place.file, place.span, message)
                        .help("secrets are keys only: hmac_sha256(x, $key)"),
                );
            }
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
        if self.own_row_only.is_some() && typed.columns.iter().any(|c| !self.is_own(*c)) {
            return self.own_row_only(&place, &format!("`let {name}` reads other rows"));
        }
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
        let span = parsed.place_of(table.span);
        let index = match said.find(self.tables.iter().map(|t| t.alias.text.as_str())) {
            Found::One(index) => index,
            _ => return self.unknown_alias(&said, Place { file: place.file, span }),
        };
        let name = Name { text: column.value.clone(), quoted: column.quote_style.is_some() };
        let span = parsed.place_of(column.span);
        let typed = self.column_of(index, &name, Place { file: place.file, span })?;
        Ok(Typed { place, ..typed })
    }

    fn unknown_alias(&mut self, said: &Name, place: Place) -> Checked {
        if self.broken_aliases.iter().any(|a| a.eq_ignore_ascii_case(&said.text)) {
            return Err(Reported);
        }
        let is = |name: &str| name.eq_ignore_ascii_case(&said.text);
        let diagnostic =
            Diagnostic::error("unknown_alias", place.file, place.span, format!("there is no table `{said}` here"));
        if let Some(list) = self.lists.iter().find(|l| is(&l.name) || is(&l.alias.text)) {
            let member = list.members.first().map_or("field", |(name, _)| name.as_str());
            let help = format!("read a list with an aggregate: count({0}), sum({0}.{member})", list.name);
            return self.fail(diagnostic.label("a list of rows, not one row").help(help));
        }
        let aliases = || self.tables.iter().map(|t| t.alias.text.as_str());
        if self.outer_aliases.iter().any(|a| is(a)) {
            let help = format!(
                "an item is made of the list's row and its joins: {}",
                aliases().collect::<Vec<_>>().join(", ")
            );
            return self.fail(diagnostic.label("the record's row").help(help));
        }
        let help = match (did_you_mean(&said.text, aliases()), &self.tables[..]) {
            (_, [only]) => format!("this rule's table is called `{}`", only.alias),
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, _) => format!("tables here: {}", aliases().collect::<Vec<_>>().join(", ")),
        };
        self.fail(diagnostic.help(help))
    }

    /// A bare name: a column of whichever table has it, which must be one.
    fn column(&mut self, name: &Name, place: Place) -> Checked {
        let has = |t: &ScopeTable<'_>| name.find(t.schema.columns.iter().map(|c| &*c.name)) != Found::None;
        let having: Vec<usize> = (0..self.tables.len()).filter(|n| has(&self.tables[*n])).collect();
        match having[..] {
            [index] => self.column_of(index, name, place),
            [] => self.unknown_column(name, 0..self.tables.len(), place),
            [..] => {
                let ways: Vec<String> = having.iter().map(|n| format!("`{}.{name}`", self.tables[*n].alias)).collect();
                self.fail(
                    Diagnostic::error(
                        "ambiguous_column",
                        place.file,
                        place.span,
                        format!("`{name}` is a column of several tables here"),
                    )
                    .help(format!("write {}", ways.join(" or "))),
                )
            }
        }
    }

    fn unknown_column(&mut self, name: &Name, tables: std::ops::Range<usize>, place: Place) -> Checked {
        let tables = &self.tables[tables];
        let lets = self.lets.iter().map(|l| l.name.as_str());
        let names = tables.iter().flat_map(|t| t.schema.columns.iter().map(|c| &*c.name)).chain(lets);
        let near = did_you_mean(&name.text, names).map(|n| format!("did you mean `{n}`?"));
        let message = match tables {
            [only] => format!("column `{name}` does not exist in {}", only.schema.table),
            all => {
                let names = all.iter().map(|t| t.schema.table.to_string()).collect::<Vec<_>>().join(", ");
                format!("column `{name}` does not exist in any of {names}")
            }
        };
        let diagnostic = Diagnostic::error("unknown_column", place.file, place.span, message);
        self.fail(diagnostic.label("no such column").maybe_help(near))
    }

    /// A column of one of the tables.
    fn column_of(&mut self, table: usize, name: &Name, place: Place) -> Checked {
        let ScopeTable { schema, optional, alias } = self.tables[table].clone();
        let index = match name.find(schema.columns.iter().map(|c| &*c.name)) {
            Found::One(index) => index,
            Found::Ambiguous => {
                let message = format!("`{name}` names several columns of {}, which differ in case only", schema.table);
                return self.fail(
                    Diagnostic::error("ambiguous_column", place.file, place.span, message)
                        .help("write the one you mean in double quotes, exactly"),
                );
            }
            Found::None => return self.unknown_column(name, table..table + 1, place),
        };
        if table > 0 && self.own_row_only.is_some() {
            return self.own_row_only(&place, &format!("a column of the join `{alias}`"));
        }
        let column = &schema.columns[index];
        // One value of a row that is known not to be null: the row is there.
        let is_there = |fact: &NotNull| match fact {
            NotNull::Column(n) => {
                matches!(self.columns.get(usize::from(*n)), Some(Origin::Column { table: t, .. }) if *t == table)
            }
            NotNull::Let(_) => false,
        };
        let optional = optional && !self.not_null.iter().any(is_there);
        let number = self.number(Origin::Column { table, index });
        let is_key = schema.key.contains(&index);
        let nullable = (optional || column.nullable && !is_key) && !self.not_null.contains(&NotNull::Column(number));
        let null = nullable.then(|| Why {
            place: place.clone(),
            text: if optional {
                format!("null where `{alias}` has no row")
            } else {
                format!("the column `{}` allows null", column.name)
            },
            through: Vec::new(),
        });
        let values = (!column.labels.is_empty()).then(|| column.labels.clone());
        let ty = type_of(column.logical);
        let node = if ty == Type::Bytes { Node::Binary(number) } else { Node::Column(number) };
        let typed = Typed::new(node, ty, place);
        Ok(Typed { null, values, max_length: column.max_length, columns: vec![number], ..typed })
    }
}

/// A text literal.
fn text_literal(s: &str, place: Place) -> Typed {
    let typed = Typed::new(Node::Const(Const::Text(s.into())), Type::Text, place);
    let max_length = u32::try_from(s.chars().count()).ok();
    Typed { literal: true, values: Some(vec![s.into()]), max_length, ..typed }
}
