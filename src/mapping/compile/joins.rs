//! `join`: rows that a row points to, and the `on` of joins and lists.

use super::{Compiler, Key, replica_identity};
use crate::diagnostics::{Diagnostic, Diagnostics, did_you_mean};
use crate::mapping::expr::convert::Place;
use crate::mapping::expr::parse::Parsed;
use crate::mapping::names::{Found, Name};
use crate::mapping::pack::{JoinDef, Link};
use crate::mapping::related::{OnPair, Slot};
use sqlparser::ast::{BinaryOperator, Expr, Ident};
use std::ops::Range;
use std::sync::Arc;
use tidemark_contract::TableSchema;

/// A table that expressions see, and how it is found.
#[derive(Clone)]
pub(super) struct Linked<'c> {
    pub alias: Name,
    pub schema: &'c Arc<TableSchema>,
    pub from: Slot,
    /// Positions of the columns that are equal: in the table it is found from, and in this one.
    pub on: Vec<(usize, usize)>,
    pub key: Key,
    pub resend: bool,
    /// Whether `on` covers the key.
    pub by_key: bool,
}

/// The tables that a join or list may begin at.
pub(super) struct Around<'a, 'c> {
    pub root: (&'a Name, &'c Arc<TableSchema>),
    pub joins: &'a [Linked<'c>],
    /// Aliases whose errors have been reported.
    pub broken: &'a [String],
}

/// `on`, read: the alias that the other side names, and pairs of columns (other, own).
struct On {
    other: (Name, Range<usize>),
    pairs: Vec<(Side, Side)>,
}

struct Side {
    alias: Name,
    alias_span: Range<usize>,
    column: Name,
    column_span: Range<usize>,
}

impl<'c> Compiler<'c> {
    /// The joins of a record or list, each after what it builds on, and the aliases of those that are wrong.
    pub(super) fn joins(
        &self,
        diagnostics: &mut Diagnostics,
        root: (&Name, &'c Arc<TableSchema>),
        defs: &[JoinDef],
    ) -> (Vec<Linked<'c>>, Vec<String>) {
        let mut broken = Vec::new();
        let mut waiting = Vec::new();
        for (n, def) in defs.iter().enumerate() {
            let taken = defs[..n].iter().map(|d| &d.alias).chain([root.0]).any(|a| same(a, &def.alias));
            if taken {
                duplicate(diagnostics, &def.link, &def.alias);
                continue;
            }
            let known: Vec<&Name> = defs.iter().map(|d| &d.alias).chain([root.0]).collect();
            let schema = self.table(diagnostics, def.link.file, &def.link.from_span, &def.link.from.table);
            match (schema, on(diagnostics, &def.link, &def.alias, &known)) {
                (Some(schema), Some(on)) => waiting.push((def, schema, on)),
                _ => broken.push(def.alias.text.clone()),
            }
        }
        let mut done: Vec<Linked<'c>> = Vec::new();
        // File order, but each after the one it builds on.
        loop {
            let ready = waiting
                .iter()
                .position(|(_, _, on)| same(&on.other.0, root.0) || done.iter().any(|d| same(&d.alias, &on.other.0)));
            let Some(ready) = ready else { break };
            let (def, schema, on) = waiting.remove(ready);
            let around = Around { root, joins: &done, broken: &broken };
            let linked = self.linked(diagnostics, &def.link, &def.alias, schema, &on, &around);
            match linked.filter(|linked| one_row(diagnostics, def, linked)) {
                Some(linked) => done.push(linked),
                None => broken.push(def.alias.text.clone()),
            }
        }
        let mut told: Vec<String> = Vec::new();
        for (def, _, on) in &waiting {
            let names = circle(&def.alias, &waiting);
            let closes = names.len() > 1 && names.last().is_some_and(|last| last.eq_ignore_ascii_case(&def.alias.text));
            let is_new = !told.iter().any(|name| name.eq_ignore_ascii_case(&def.alias.text));
            if closes && is_new {
                let message = format!("the join `{}` is found by way of itself: {}", def.alias, names.join(" → "));
                diagnostics.push(
                    Diagnostic::error("circular_join", def.link.file, on.other.1.clone(), message)
                        .help(format!("let one of them begin at `{}`", root.0)),
                );
                told.extend(names);
            }
            broken.push(def.alias.text.clone());
        }
        (done, broken)
    }

    /// A list's table and how it is found.
    pub(super) fn child_link(
        &self,
        diagnostics: &mut Diagnostics,
        link: &Link,
        alias: &Name,
        around: &Around<'_, 'c>,
    ) -> Option<Linked<'c>> {
        let mut known: Vec<&Name> = around.joins.iter().map(|j| &j.alias).chain([around.root.0]).collect();
        if known.iter().any(|a| same(a, alias)) {
            duplicate(diagnostics, link, alias);
            return None;
        }
        let broken: Vec<Name> = around.broken.iter().map(|b| Name { text: b.clone(), quoted: false }).collect();
        known.extend(&broken);
        let schema = self.table(diagnostics, link.file, &link.from_span, &link.from.table);
        let on = on(diagnostics, link, alias, &known);
        let (schema, on) = (schema?, on?);
        self.linked(diagnostics, link, alias, schema, &on, around)
    }

    fn linked(
        &self,
        diagnostics: &mut Diagnostics,
        link: &Link,
        alias: &Name,
        schema: &'c Arc<TableSchema>,
        on: &On,
        around: &Around<'_, 'c>,
    ) -> Option<Linked<'c>> {
        let (from, other) = if same(&on.other.0, around.root.0) {
            (Slot::Root, around.root.1)
        } else {
            let index = around.joins.iter().position(|j| same(&j.alias, &on.other.0))?;
            (Slot::Join(index), around.joins[index].schema)
        };
        let key = self.key(diagnostics, schema, link.file, link.key.as_deref());
        let mut pairs = Vec::new();
        for (left, right) in &on.pairs {
            let found = (column(diagnostics, link, other, left), column(diagnostics, link, schema, right));
            let (Some(l), Some(r)) = found else { continue };
            let (left_type, right_type) = (other.columns[l].logical, schema.columns[r].logical);
            if left_type != right_type {
                let span =
                    left.alias_span.start.min(right.alias_span.start)..left.column_span.end.max(right.column_span.end);
                diagnostics.push(
                    Diagnostic::error(
                        "type_mismatch",
                        link.file,
                        span,
                        format!("`{}` is {left_type}, `{}` is {right_type}", left.column, right.column),
                    )
                    .help("rows are found by values of one type: the columns must have the same type in the database"),
                );
                continue;
            }
            pairs.push((l, r));
        }
        if pairs.len() < on.pairs.len() {
            return None;
        }
        let right: Vec<usize> = pairs.iter().map(|(_, r)| *r).collect();
        let by_key = key.columns.iter().all(|k| right.contains(k));
        self.traceable(diagnostics, link, schema, &key, &right)?;
        Some(Linked { alias: alias.clone(), schema, from, on: pairs, key, resend: link.resend, by_key })
    }

    /// A deleted or moved row must tell which records showed it.
    fn traceable(
        &self,
        diagnostics: &mut Diagnostics,
        link: &Link,
        schema: &TableSchema,
        key: &Key,
        right: &[usize],
    ) -> Option<()> {
        let outside = right.iter().find(|r| !key.columns.contains(r));
        let (Some(outside), true, false, false) =
            (outside, link.resend, schema.full_before_image, key.columns.is_empty())
        else {
            return Some(());
        };
        let name = &schema.columns[*outside].name;
        let key_names = key.columns.iter().map(|c| &*schema.columns[*c].name).collect::<Vec<_>>().join(", ");
        diagnostics.push(
            Diagnostic::error(
                "untraceable",
                link.file,
                link.on.inner(),
                format!(
                    "a row of {} that is deleted or moved could not be traced to the records that show it",
                    schema.table
                ),
            )
            .label(format!("`{name}` is not in the key ({key_names})"))
            .help(format!(
                "let the log carry whole old rows: {}; or give up such changes: on_change = \"ignore\"",
                replica_identity(&schema.table)
            ))
            .note("the log of a delete carries the key only"),
        );
        None
    }
}

/// A join finds at most one row.
fn one_row(diagnostics: &mut Diagnostics, def: &JoinDef, linked: &Linked<'_>) -> bool {
    if linked.by_key || def.unique {
        return true;
    }
    let schema = linked.schema;
    let key_names = linked.key.columns.iter().map(|c| &*schema.columns[*c].name).collect::<Vec<_>>().join(", ");
    diagnostics.push(
        Diagnostic::error(
            "many_rows",
            def.link.file,
            def.link.on.inner(),
            format!("this can find many rows of {}, and a join shows one", schema.table),
        )
        .label(format!("does not cover the key ({key_names})"))
        .help("list the rows with [... children.NAME]; or, if the columns are unique in that table, say unique = true"),
    );
    false
}

impl Linked<'_> {
    /// The columns of `on` by their names.
    pub(super) fn pairs(&self, other: &TableSchema) -> Vec<OnPair> {
        let name = |schema: &TableSchema, n: usize| schema.columns[n].name.clone();
        self.on.iter().map(|(l, r)| OnPair { left: name(other, *l), right: name(self.schema, *r) }).collect()
    }
}

pub(super) fn same(a: &Name, b: &Name) -> bool {
    a.text.eq_ignore_ascii_case(&b.text)
}

fn duplicate(diagnostics: &mut Diagnostics, link: &Link, alias: &Name) {
    let message = format!("`{alias}` is the name of another table here");
    diagnostics.push(
        Diagnostic::error("duplicate_alias", link.file, link.from_span.clone(), message)
            .help("give it a name of its own: from = \"table as name\""),
    );
}

/// The aliases from one join to what it builds on, and so on, until one comes again.
fn circle(start: &Name, waiting: &[(&JoinDef, &Arc<TableSchema>, On)]) -> Vec<String> {
    let mut names = vec![start.text.clone()];
    let mut at = start;
    while let Some((_, _, on)) = waiting.iter().find(|(def, _, _)| same(&def.alias, at)) {
        at = &on.other.0;
        let again = names.iter().any(|n| n.eq_ignore_ascii_case(&at.text));
        names.push(at.text.clone());
        if again {
            break;
        }
    }
    names
}

/// Reads `on` of the table `own`; `known` are all aliases there are.
fn on(diagnostics: &mut Diagnostics, link: &Link, own: &Name, known: &[&Name]) -> Option<On> {
    let text = &link.on;
    let help = format!("write columns that are equal, joined by `and`: {own}.column = {}.column", known.last()?);
    let parsed = match Parsed::new(text.clone()) {
        Ok(parsed) => parsed,
        Err(e) => {
            diagnostics.push(Diagnostic::error("syntax", text.file, text.place(e.range), e.message).help(help));
            return None;
        }
    };
    let mut equalities = Vec::new();
    flatten(&parsed.expr, &mut equalities);
    let mut pairs = Vec::new();
    let mut other: Option<(Name, Range<usize>)> = None;
    for equality in equalities {
        let place = Place { file: text.file, span: parsed.place(equality) };
        let wrong = |message: String| Diagnostic::error("bad_on", place.file, place.span.clone(), message);
        let sides = match equality {
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => side(&parsed, left).zip(side(&parsed, right)),
            _ => None,
        };
        let Some((a, b)) = sides else {
            let message = "`on` compares columns with columns, each written alias.column".to_owned();
            diagnostics.push(wrong(message).label("this is something else").help(help));
            return None;
        };
        for side in [&a, &b] {
            if !known.iter().chain([&own]).any(|name| same(name, &side.alias)) {
                let others = known.iter().filter(|n| !same(n, own));
                let names = others.chain([&own]).map(|n| n.text.as_str());
                let near = did_you_mean(&side.alias.text, names.clone()).map(|n| format!("did you mean `{n}`?"));
                let help = near.unwrap_or_else(|| format!("tables here: {}", names.collect::<Vec<_>>().join(", ")));
                let message = format!("there is no table `{}` here", side.alias);
                diagnostics
                    .push(Diagnostic::error("unknown_alias", text.file, side.alias_span.clone(), message).help(help));
                return None;
            }
        }
        let (theirs, ours) = match (same(&a.alias, own), same(&b.alias, own)) {
            (false, true) => (a, b),
            (true, false) => (b, a),
            _ => {
                let message = format!("one side must be a column of `{own}`, the other one of another table");
                diagnostics.push(wrong(message).help(help));
                return None;
            }
        };
        match &other {
            Some((name, _)) if !same(name, &theirs.alias) => {
                let message = format!("`{own}` is found from one table, here from `{name}` and `{}`", theirs.alias);
                diagnostics.push(wrong(message).help("compare with columns of one of them"));
                return None;
            }
            Some(_) => {}
            None => other = Some((theirs.alias.clone(), theirs.alias_span.clone())),
        }
        pairs.push((theirs, ours));
    }
    Some(On { other: other?, pairs })
}

fn flatten<'e>(expr: &'e Expr, out: &mut Vec<&'e Expr>) {
    let mut rights = Vec::new();
    let mut rest = expr;
    loop {
        match rest {
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                rights.push(&**right);
                rest = left;
            }
            Expr::Nested(inner) => rest = inner,
            _ => break out.push(rest),
        }
    }
    for right in rights.into_iter().rev() {
        flatten(right, out);
    }
}

fn side(parsed: &Parsed, expr: &Expr) -> Option<Side> {
    let name = |ident: &Ident| Name { text: ident.value.clone(), quoted: ident.quote_style.is_some() };
    match expr {
        Expr::Nested(inner) => side(parsed, inner),
        Expr::CompoundIdentifier(parts) => {
            let [alias, column] = &parts[..] else { return None };
            let (alias_span, column_span) = (parsed.place_of(alias.span), parsed.place_of(column.span));
            Some(Side { alias: name(alias), alias_span, column: name(column), column_span })
        }
        _ => None,
    }
}

fn column(diagnostics: &mut Diagnostics, link: &Link, schema: &TableSchema, side: &Side) -> Option<usize> {
    let names = schema.columns.iter().map(|c| &*c.name);
    match side.column.find(names.clone()) {
        Found::One(index) => Some(index),
        _ => {
            let near = did_you_mean(&side.column.text, names).map(|n| format!("did you mean `{n}`?"));
            let message = format!("column `{}` does not exist in {}", side.column, schema.table);
            diagnostics.push(
                Diagnostic::error("unknown_column", link.file, side.column_span.clone(), message)
                    .label("no such column")
                    .maybe_help(near),
            );
            None
        }
    }
}
