//! Aggregates over a rule's child lists: `sum(items.amount)`, `count(items)`.

use super::convert::{Checked, Origin, Place, Reported, Scope, Typed, Why};
use super::ir::{Node, Type};
use super::parse::Parsed;
use crate::diagnostics::{Diagnostic, did_you_mean};
use crate::mapping::names::{Found, Name};
use crate::mapping::related::{Aggregate, AggregateKind};
use sqlparser::ast::{self, DuplicateTreatment, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident};

const KINDS: &[(&str, AggregateKind)] = &[
    ("count", AggregateKind::Count),
    ("sum", AggregateKind::Sum),
    ("avg", AggregateKind::Avg),
    ("min", AggregateKind::Min),
    ("max", AggregateKind::Max),
];

impl Scope<'_> {
    /// A call of an aggregate. In the compiled form it is one more column of the row.
    pub(super) fn aggregate(
        &mut self,
        parsed: &Parsed,
        expr: &Expr,
        name: &str,
        name_place: Place,
        call: &ast::Function,
        place: Place,
    ) -> Checked {
        let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == name) else {
            let help = "aggregates: count, sum, avg, min, max; a list itself is sent by `children`";
            return self.fail(
                Diagnostic::error("unsupported", place.file, name_place.span, format!("`{name}` is not supported"))
                    .help(help),
            );
        };
        if self.own_row_only.is_some() {
            return self.own_row_only(&place, "an aggregate over other rows");
        }
        let argument = argument(call);
        if let Some((_, [list, ..])) = argument
            && self.broken_aliases.iter().any(|a| a.eq_ignore_ascii_case(&list.value))
        {
            return Err(Reported);
        }
        if self.lists.is_empty() {
            return self.fail(
                Diagnostic::error(
                    "no_list",
                    place.file,
                    name_place.span,
                    format!("`{name}` needs a list of rows, and there is none here"),
                )
                .label("an aggregate")
                .help(
                    "declare one: [record.NAME.children.items] with `from`, `on` and `fields`, then sum(items.amount)",
                ),
            );
        }
        let Some((distinct, path)) = argument else { return self.form(name, &place) };
        let (list, member) = match path {
            [list] => (list, None),
            [list, member] => (list, Some(member)),
            _ => return self.form(name, &place),
        };
        let index = self.list(parsed, list, &place)?;
        let child = u16::try_from(index).unwrap_or(u16::MAX);
        let (typed, over) = match member {
            None if *kind == AggregateKind::Count && !distinct => (None, String::new()),
            None => return self.form(name, &place),
            Some(member) => {
                let typed = self.member(parsed, index, member, &place)?;
                (Some(typed), member.value.to_lowercase())
            }
        };
        let ty = match &typed {
            None => Type::Int,
            Some(typed) => self.result(name, *kind, distinct, typed, &place)?,
        };
        let mark = self.mark(&place, parsed.text(expr));
        let arg = typed.as_ref().map(|t| t.node.clone());
        let aggregate = Aggregate { child, kind: *kind, arg, distinct, place: mark };
        let same =
            |(a, what): &(Aggregate, String)| (a.child, a.kind, a.distinct, what) == (child, *kind, distinct, &over);
        let number = self.aggregates.iter().position(same).unwrap_or_else(|| {
            self.aggregates.push((aggregate, over.clone()));
            self.aggregates.len() - 1
        });
        let column = self.number(Origin::Aggregate(number));
        let null = (*kind != AggregateKind::Count).then(|| Why {
            place: place.clone(),
            text: format!("`{name}` of no rows is null"),
            through: Vec::new(),
        });
        let (values, max_length) = match (*kind, &typed) {
            (AggregateKind::Min | AggregateKind::Max, Some(t)) => (t.values.clone(), t.max_length),
            _ => (None, None),
        };
        let node = if ty == Type::Bytes { Node::Binary(column) } else { Node::Column(column) };
        let typed = Typed::new(node, ty, place);
        Ok(Typed { null, values, max_length, columns: vec![column], ..typed })
    }

    fn form(&mut self, name: &str, place: &Place) -> Checked {
        let list = self.lists.first().map_or("items", |l| l.name.as_str());
        let member = self.lists.first().and_then(|l| l.members.first()).map_or("amount", |(m, _)| m.as_str());
        let help = match name {
            "count" => format!("write count({list}), count({list}.{member}) or count(distinct {list}.{member})"),
            _ => format!("write {name}({list}.{member}); what is to be computed first stands in the list's `let`"),
        };
        let message = format!("`{name}` takes a field of a list");
        self.fail(Diagnostic::error("wrong_arguments", place.file, place.span.clone(), message).help(help))
    }

    fn list(&mut self, parsed: &Parsed, ident: &Ident, place: &Place) -> Checked<usize> {
        let said = Name { text: ident.value.clone(), quoted: ident.quote_style.is_some() };
        if let Found::One(index) = said.find(self.lists.iter().map(|l| l.name.as_str())) {
            return Ok(index);
        }
        let names = || self.lists.iter().map(|l| l.name.as_str());
        let by_alias = self.lists.iter().find(|l| l.alias.text.eq_ignore_ascii_case(&said.text));
        let near = by_alias.map(|l| l.name.as_str()).or_else(|| did_you_mean(&said.text, names()));
        let help = near.map_or_else(
            || format!("lists: {}", names().collect::<Vec<_>>().join(", ")),
            |n| format!("did you mean `{n}`?"),
        );
        let span = parsed.place_of(ident.span);
        let message = format!("there is no list `{said}` here");
        self.fail(Diagnostic::error("unknown_list", place.file, span, message).help(help))
    }

    fn member(&mut self, parsed: &Parsed, list: usize, ident: &Ident, place: &Place) -> Checked {
        let said = Name { text: ident.value.clone(), quoted: ident.quote_style.is_some() };
        let members = &self.lists[list].members;
        if let Found::One(index) = said.find(members.iter().map(|(name, _)| name.as_str())) {
            return members[index].1.clone().ok_or(Reported);
        }
        let names = members.iter().map(|(name, _)| name.as_str());
        let near = did_you_mean(&said.text, names).map(|n| format!("did you mean `{n}`?"));
        let name = self.lists[list].name.clone();
        let help = near.unwrap_or_else(|| {
            format!(
                "aggregates read the list's fields and its `let`s: add {said} = \"...\" to [... children.{name}.let]"
            )
        });
        let span = parsed.place_of(ident.span);
        let message = format!("the list `{name}` has no field `{said}`");
        self.fail(Diagnostic::error("unknown_field", place.file, span, message).help(help))
    }

    fn result(
        &mut self,
        name: &str,
        kind: AggregateKind,
        distinct: bool,
        typed: &Typed,
        place: &Place,
    ) -> Checked<Type> {
        let ordered = !matches!(typed.ty, Type::Json | Type::List);
        let ty = match (kind, typed.ty) {
            (AggregateKind::Count, _) if ordered || !distinct => Some(Type::Int),
            (AggregateKind::Sum, ty) if ty.is_number() => Some(ty),
            (AggregateKind::Avg, Type::Float) => Some(Type::Float),
            (AggregateKind::Avg, Type::Int | Type::Decimal) => Some(Type::Decimal),
            (AggregateKind::Min | AggregateKind::Max, ty) if ordered && !matches!(ty, Type::Bool | Type::Bytes) => {
                Some(ty)
            }
            (_, Type::Null) => Some(Type::Null),
            _ => None,
        };
        match ty {
            Some(ty) => Ok(ty),
            None => self.fail(
                Diagnostic::error(
                    "wrong_type",
                    place.file,
                    place.span.clone(),
                    format!("`{name}` does not take {}", typed.ty.name()),
                )
                .maybe_help((typed.ty == Type::Text).then_some("convert it in the list: cast(... as decimal)")),
            ),
        }
    }
}

/// Whether it is over distinct values, and the names of its only argument.
fn argument(call: &ast::Function) -> Option<(bool, &[Ident])> {
    let plain =
        call.over.is_none() && call.filter.is_none() && call.within_group.is_empty() && call.null_treatment.is_none();
    let FunctionArguments::List(list) = &call.args else { return None };
    if !plain || !list.clauses.is_empty() {
        return None;
    }
    let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    match &list.args[..] {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(ident)))] => {
            Some((distinct, std::slice::from_ref(ident)))
        }
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(idents)))] => Some((distinct, idents)),
        _ => None,
    }
}
