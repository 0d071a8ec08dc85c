//! Rows with their related rows → records.
//!
//! All rows of a list are handed over, in any order: `where`, order, limit and aggregates are applied here, so that what
//! comes of them does not depend on who read the rows. The order is total (the child's key decides last), so the same
//! rows always give the same document.

use super::bind::{BoundChild, BoundRelated};
use super::{ChildProgram, ChildRows, Order, RelatedRows};
use crate::document::Document;
use crate::mapping::expr::eval::{Env, compare};
use crate::mapping::expr::value::{Fail, Val};
use crate::mapping::rule::BoundRule;
use crate::mapping::{Applied, ExternalId, Rejection};
use smallvec::SmallVec;
use std::cmp::Ordering;
use tidemark_contract::{Row, RowBuilder, Value};

/// The rows of a list that its `where` takes, in their order, ready to be evaluated. The limit is not applied yet.
pub(in crate::mapping) struct List<'a> {
    pub program: &'a ChildProgram,
    pub rows: Vec<Env<'a>>,
}

enum Stop {
    NeedsRow,
    Failed(Fail),
}

impl BoundRelated {
    /// What the rule makes of one row and its related rows, which must be those that `on` finds. A row that lacks a
    /// column by which related rows are found is answered with [`Applied::NeedsRow`].
    pub fn apply(&self, root: &Row, related: &RelatedRows) -> Applied {
        let program = &*self.root.program;
        let own = Env::new(root, &self.root.positions, &program.lets);
        let external_id = match self.root.decide(&own, self.root.is_partial(root)) {
            Ok(external_id) => external_id,
            Err(applied) => return applied,
        };
        if self.left.iter().any(|position| root.get(*position as usize).is_unchanged()) {
            return Applied::NeedsRow;
        }
        let rejected = |external_id, list: &str, fail, place| {
            Applied::Rejected(self.root.rejection(fail, place, Some(external_id), Some(list)))
        };
        let programs = &self.relations.program;
        let rows: Vec<&[ChildRows]> =
            (0..self.children.len()).map(|n| related.children.get(n).map_or(&[][..], Vec::as_slice)).collect();
        let composites: Vec<Vec<Row>> =
            self.children.iter().zip(&rows).map(|(child, rows)| child.composites(rows)).collect();
        let mut lists = Vec::with_capacity(self.children.len());
        for (n, program) in programs.children.iter().enumerate() {
            match List::new(program, &self.children[n], rows[n], &composites[n]) {
                Ok(list) => lists.push(list),
                Err(Stop::NeedsRow) => return Applied::NeedsRow,
                Err(Stop::Failed(fail)) => return rejected(external_id, &program.name, fail, 0),
            }
        }
        let mut aggregates = Vec::with_capacity(programs.aggregates.len());
        for aggregate in &programs.aggregates {
            let Some(list) = lists.get(usize::from(aggregate.child)) else { continue };
            match aggregate.over(&list.rows) {
                Ok(value) => aggregates.push(value),
                Err(fail) => return rejected(external_id, &list.program.name, fail, aggregate.place),
            }
        }
        let whole = self.composite.build(root, &related.joins, |n, out| match aggregates.get(usize::from(n)) {
            Some(value) => value.push_into(out),
            None => out.push(Value::Null),
        });
        let env = Env::new(&whole, &self.whole.positions, &program.lets);
        self.whole.upsert(&env, &lists, whole.is_partial(), external_id)
    }

    /// As [`BoundRule::external_id`]: the rule's own row is enough.
    pub fn external_id(&self, root: &Row) -> ExternalId {
        self.root.external_id(root)
    }

    /// As [`BoundRule::archive`]: the rule's own row is enough.
    pub fn archive(&self, root: &Row) -> Result<Document, Rejection> {
        self.root.archive(root)
    }

    /// The part that needs no related rows.
    pub fn own(&self) -> &BoundRule {
        &self.root
    }
}

impl BoundChild {
    /// Rows put together with those they point to, if they point to any.
    fn composites(&self, rows: &[ChildRows]) -> Vec<Row> {
        let Some(composite) = &self.composite else { return Vec::new() };
        let none = |_, out: &mut RowBuilder| out.push(Value::Null);
        rows.iter().map(|r| composite.build(&r.row, &r.joins, none)).collect()
    }
}

type SortKey<'a> = SmallVec<[Val<'a>; 2]>;

impl<'a> List<'a> {
    fn new(
        program: &'a ChildProgram,
        bound: &'a BoundChild,
        rows: &'a [ChildRows],
        composites: &'a [Row],
    ) -> Result<Self, Stop> {
        let mut taken: Vec<(SortKey<'a>, usize, Env<'a>)> = Vec::with_capacity(rows.len());
        for (n, child) in rows.iter().enumerate() {
            let row = composites.get(n).unwrap_or(&child.row);
            let lacks = |position: &u32| row.get(*position as usize).is_unchanged();
            if (row.is_partial() || row.len() < bound.positions.len()) && bound.positions.iter().any(lacks) {
                return Err(Stop::NeedsRow);
            }
            let env = Env::new(row, &bound.positions, &program.lets);
            if let Some(condition) = &program.condition
                && !env.is_true(&condition.node).map_err(|fail| placed(fail, condition.place))?
            {
                continue;
            }
            let mut keys = SortKey::with_capacity(program.order.len() + bound.key.len());
            for order in &program.order {
                keys.push(env.eval(&order.part.node).map_err(|fail| placed(fail, order.part.place))?);
            }
            for position in &bound.key {
                let read = Val::read(child.row.get(*position as usize));
                keys.push(read.map_err(|fault| Stop::Failed(Fail { fault, place: 0 }))?);
            }
            taken.push((keys, n, env));
        }
        if taken.len() > 1 {
            taken.sort_by(|a, b| in_order(&program.order, &a.0, &b.0).then(a.1.cmp(&b.1)));
        }
        Ok(List { program, rows: taken.into_iter().map(|(_, _, env)| env).collect() })
    }
}

fn placed(fail: Fail, fallback: u32) -> Stop {
    Stop::Failed(Fail { place: if fail.place == 0 { fallback } else { fail.place }, ..fail })
}

/// By the list's own order; what lies beyond it is the key, ascending.
fn in_order(order: &[Order], a: &[Val<'_>], b: &[Val<'_>]) -> Ordering {
    for (n, (a, b)) in a.iter().zip(b).enumerate() {
        let (descending, nulls_first) = order.get(n).map_or((false, false), |o| (o.descending, o.nulls_first));
        let decided = match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) if nulls_first => Ordering::Less,
            (true, false) => Ordering::Greater,
            (false, true) if nulls_first => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let order = compare(a, b).unwrap_or(Ordering::Equal);
                if descending { order.reverse() } else { order }
            }
        };
        if decided.is_ne() {
            return decided;
        }
    }
    Ordering::Equal
}
