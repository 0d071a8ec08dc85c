//! `children`: lists of rows that point to a record's row, and what of them is sent.

use super::Compiler;
use super::fields::{Destination, References, json_key, let_nodes};
use super::joins::{Around, Linked};
use super::relations::Columns;
use crate::crm::{FieldKind, FieldSchema};
use crate::diagnostics::{Diagnostic, did_you_mean};
use crate::mapping::check::Target;
use crate::mapping::expr::convert::{self, Checked, Place, Reported, Scope, ScopeTable, Typed};
use crate::mapping::expr::ir::Type;
use crate::mapping::expr::narrow;
use crate::mapping::pack::{Body, ChildDef, ItemDef, OrderDef, Record};
use crate::mapping::related::{Child, ChildProgram, Item, Order};
use crate::mapping::rule::FieldProgram;

/// A compiled list.
pub(super) struct Compiled<'c> {
    pub linked: Linked<'c>,
    pub program: ChildProgram,
    pub joins: Vec<crate::mapping::related::Join>,
    /// Columns of the child's own row.
    pub columns: Columns<'c>,
    /// As aggregates see it.
    pub list: convert::List,
    pub references: References,
}

impl Compiled<'_> {
    /// What the outside sees of it.
    pub(super) fn public(self, around: &Around<'_, '_>) -> (Child, ChildProgram) {
        let other = match self.linked.from.join() {
            None => around.root.1,
            Some(n) => around.joins.get(n).map_or(around.root.1, |j| j.schema),
        };
        let child = Child {
            name: self.program.name.clone(),
            table: self.linked.schema.table.clone(),
            from: self.linked.from,
            on: self.linked.pairs(other),
            columns: self.columns.named(),
            key: self.linked.key.declared.clone(),
            joins: self.joins,
            resend: self.linked.resend,
        };
        (child, self.program)
    }
}

impl<'c> Compiler<'c> {
    /// One list of a record. `outer` is the record's scope, whose places and diagnostics are shared.
    pub(super) fn child(
        &self,
        outer: &mut Scope<'_>,
        record: &Record,
        def: &ChildDef,
        around: &Around<'_, 'c>,
        target: Option<Target<'_>>,
    ) -> Checked<Compiled<'c>> {
        let linked = self.child_link(outer.diagnostics, &def.link, &def.alias, around).ok_or(Reported);
        let place = Place { file: def.link.file, span: def.link.span.clone() };
        if let Some(field) = record.fields.iter().find(|f| f.name == def.name && def.emit) {
            let message = format!("`{}` is given twice: as a field and as a list", def.name);
            outer.diagnostics.push(Diagnostic::error("duplicate_field", place.file, place.span.clone(), message).note(
                format!(
                    "the field stands in line {}",
                    line(outer, &Place { file: field.file, span: field.span.clone() })
                ),
            ));
        }
        let shown = format!("{}.{}", record.entity, def.name);
        // Whatever the CRM says, the list is still worth checking against the source.
        let items = if def.emit { self.items(outer, def, target, &shown, &place) } else { Ok(None) };
        let linked = linked?;
        let (joins, broken) = self.joins(outer.diagnostics, (&def.alias, linked.schema), &def.joins);
        let mut tables = vec![ScopeTable { alias: def.alias.clone(), schema: linked.schema, optional: false }];
        tables.extend(joins.iter().map(|j| ScopeTable { alias: j.alias.clone(), schema: j.schema, optional: true }));
        let is_whole = broken.is_empty();
        let (places, used) = (std::mem::take(&mut outer.places), std::mem::take(&mut outer.used));
        let mut scope = self.scope(&mut *outer.diagnostics, tables, broken);
        (scope.places, scope.used) = (places, used);
        scope.outer_aliases = outer.tables.iter().map(|t| t.alias.text.clone()).collect();
        let compiled = self.inside(&mut scope, def, (&linked, &joins), items, target, &shown);
        let Scope { places, used, .. } = scope;
        (outer.places, outer.used) = (places, used);
        compiled.and_then(|compiled| if is_whole { Ok(compiled) } else { Err(Reported) })
    }

    /// What the CRM says of the list's items; `None` if it does not say.
    fn items<'t>(
        &self,
        scope: &mut Scope<'_>,
        def: &ChildDef,
        target: Option<Target<'t>>,
        shown: &str,
        place: &Place,
    ) -> Checked<Option<&'t FieldKind>> {
        let Some(target) = target else { return Ok(None) };
        if !target.schema.open && !target.schema.fields.contains_key(&*def.name) {
            let near = did_you_mean(&def.name, target.schema.fields.keys().map(|k| &**k));
            let near = near.map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
            let message = format!("CRM entity `{}` has no field `{}`", target.name, def.name);
            return scope.fail(
                Diagnostic::error("unknown_field", place.file, place.span.clone(), message)
                    .label("unknown CRM field")
                    .help(format!("{near}a list that aggregates alone read says emit = false")),
            );
        }
        let Some(field) = target.field(scope, &def.name, place)? else { return Ok(None) };
        let items = match &field.kind {
            FieldKind::Any => return Ok(None),
            FieldKind::List(items) => &**items,
            _ => {
                return scope.fail(
                    Diagnostic::error(
                        "field_type",
                        place.file,
                        place.span.clone(),
                        format!("`{shown}` is no list in the CRM"),
                    )
                    .help("map it in `fields`; a list that aggregates alone read says emit = false"),
                );
            }
        };
        let wanted = match (items, &def.item) {
            (FieldKind::Any, _) => return Ok(None),
            (FieldKind::Object(_), ItemDef::Fields(_)) => return Ok(Some(items)),
            (FieldKind::Object(_), ItemDef::Value(field)) if !matches!(field.body, Body::Object(_)) => {
                "its items are objects: write `fields`"
            }
            (_, ItemDef::Fields(_)) => "its items are bare values: write `value` instead of `fields`",
            _ => return Ok(Some(items)),
        };
        let place = Place { file: def.link.file, span: def.item_span.clone() };
        scope.fail(
            Diagnostic::error(
                "field_type",
                place.file,
                place.span,
                format!("these are no items of `{shown}` in the CRM"),
            )
            .help(wanted),
        )
    }

    fn inside(
        &self,
        scope: &mut Scope<'_>,
        def: &ChildDef,
        (linked, joins): (&Linked<'c>, &[Linked<'c>]),
        items: Checked<Option<&FieldKind>>,
        target: Option<Target<'_>>,
        shown: &str,
    ) -> Checked<Compiled<'c>> {
        self.lets(scope, &def.lets);
        let condition = def.condition.as_ref().map(|text| self.condition(scope, text)).transpose();
        if let Ok(Some(part)) = &condition {
            scope.not_null = narrow::if_true(&part.node);
        }
        let members = self.members(scope, def);
        let mut references = References::new();
        let item = self.item(scope, def, items, target, shown, &mut references);
        let order: Vec<Checked<Order>> = def.order.iter().map(|part| self.order(scope, part)).collect();
        let order = order.into_iter().collect::<Checked<Box<[Order]>>>();
        let (condition, item, order) = (condition?, item?, order?);
        let mut own = Columns::new(linked.schema);
        let mut others: Vec<Columns<'c>> = joins.iter().map(|j| Columns::new(j.schema)).collect();
        let sources = super::relations::sources(&scope.columns, &mut own, &mut others);
        super::relations::add_links(joins, &mut own, &mut others);
        for (_, right) in &linked.on {
            own.add(*right);
        }
        let key = linked.key.columns.iter().map(|k| own.add(*k)).collect();
        let program = ChildProgram {
            name: def.name.as_str().into(),
            json_key: def.emit.then(|| json_key(&def.name)),
            sources,
            lets: let_nodes(scope),
            condition,
            item,
            order,
            key,
            limit: def.limit,
        };
        let joins = super::relations::public(joins, others, linked.schema);
        let list = convert::List { name: def.name.clone(), alias: def.alias.clone(), members };
        Ok(Compiled { linked: linked.clone(), program, joins, columns: own, list, references })
    }

    /// What aggregates can read: fields that are expressions, then `let`s.
    fn members(&self, scope: &mut Scope<'_>, def: &ChildDef) -> Vec<(String, Option<Typed>)> {
        let mut members = Vec::new();
        for field in def.item.fields() {
            if let (Body::Expr(text), false) = (&field.body, field.name.is_empty()) {
                members.push((field.name.clone(), self.expression(scope, text).ok()));
            }
        }
        let lets: Vec<_> = scope.lets.iter().map(|l| (l.name.clone(), l.typed.clone())).collect();
        members.extend(lets);
        members
    }

    fn item(
        &self,
        scope: &mut Scope<'_>,
        def: &ChildDef,
        items: Checked<Option<&FieldKind>>,
        target: Option<Target<'_>>,
        shown: &str,
        references: &mut References,
    ) -> Checked<Item> {
        let known = items.ok().flatten();
        let place = Place { file: def.link.file, span: def.item_span.clone() };
        let compiled = match &def.item {
            ItemDef::Fields(fields) => {
                let inner = match (target, known) {
                    (Some(around), Some(FieldKind::Object(entity))) => {
                        Some(Target { crm: around.crm, name: shown, schema: entity })
                    }
                    _ => None,
                };
                let to = Destination { target: inner, shown: shown.to_owned(), path: String::new() };
                let compiled: Checked<Box<[FieldProgram]>> = self.fields(scope, fields, &to, references);
                if let Some(target) = inner {
                    let mapped: Vec<&str> = fields.iter().map(|f| f.name.as_str()).collect();
                    target.required(scope, &mapped, &place);
                }
                Item::Object(compiled?)
            }
            ItemDef::Value(field) => {
                let schema = known.map(|kind| FieldSchema {
                    kind: kind.clone(),
                    required: false,
                    nullable: false,
                    read_only: false,
                });
                let to = Destination { target, shown: shown.to_owned(), path: String::new() };
                Item::Value(Box::new(self.field(scope, field, Ok(schema.as_ref()), &to, references)?))
            }
        };
        items.map(|_| compiled)
    }

    fn order(&self, scope: &mut Scope<'_>, def: &OrderDef) -> Checked<Order> {
        let typed = self.expression(scope, &def.text)?;
        if matches!(typed.ty, Type::Json | Type::List) {
            let message = format!("{} values have no order", typed.ty.name());
            return scope.error("wrong_type", &typed.place.clone(), message);
        }
        let part = self.part(scope, &def.text, typed);
        Ok(Order { part, descending: def.descending, nulls_first: def.nulls_first })
    }
}

fn line(scope: &Scope<'_>, place: &Place) -> usize {
    scope.diagnostics.place(place.file, place.span.start).map_or(0, |(line, _)| line)
}
