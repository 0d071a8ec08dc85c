//! A hash of everything that changes what a rule makes of a row.

use super::Compiler;
use crate::mapping::expr::cast::to_text;
use crate::mapping::expr::convert::Scope;
use crate::mapping::expr::ir::Const;
use crate::mapping::expr::value::Val;
use crate::mapping::pack::{Body, ChildDef, Field, Record};
use crate::mapping::related::{ChildProgram, Item, Relations};
use crate::mapping::rule::{FieldBody, FieldProgram, Program};
use std::fmt::Write as _;
use tidemark_contract::LogicalType;

/// Raised whenever the evaluator gives another result for the same pack and row.
const EVALUATOR: u32 = 1;

impl Compiler<'_> {
    /// The same for the same rule in every release, and another one as soon as some row may give another record.
    pub(super) fn fingerprint(
        &self,
        scope: &Scope<'_>,
        record: &Record,
        program: &Program,
        columns: &[(Box<str>, LogicalType)],
        relations: Option<&Relations>,
    ) -> u64 {
        let mut text = format!("{EVALUATOR}\0{}\0{}\0", record.entity, scope.tables[0].schema.table);
        let _ = write!(text, "{:?}\0{:?}\0", record.on_delete, record.on_leave);
        for (name, expression) in &record.lets {
            let _ = write!(text, "let {name}\0{}\0", expression.text);
        }
        let condition = record.condition.as_ref().map(|c| &c.text);
        let _ = write!(text, "{condition:?}\0{}\0{columns:?}\0", record.external_id.text);
        describe(&record.fields, &program.fields, &mut text);
        describe(&record.archive, &program.archive, &mut text);
        if let Some(relations) = relations {
            // Tables, links and columns print themselves; the expressions are what the pack says.
            let _ = write!(text, "{:?}\0", relations);
            for (def, child) in record.children.iter().zip(&relations.program.children) {
                describe_list(def, child, &mut text);
            }
        }
        for variable in self.pack.variables.iter().filter(|v| scope.used.contains(&format!("var {}", v.name))) {
            // Constants print their value, unlike rows: a variable is part of the mapping.
            let secret = variable.secret.as_ref().map(|s| s.expose());
            let value = secret.map_or_else(|| shown(&variable.value), str::to_owned);
            let _ = write!(text, "${}\0{value:?}\0", variable.name);
        }
        for lookup in self.pack.lookups.iter().filter(|l| scope.used.contains(&format!("lookup {}", l.name))) {
            let _ =
                write!(text, "{}\0{}\0{:?}\0{:?}\0", lookup.name, lookup.ignore_case, lookup.unknown, lookup.pairs());
        }
        // Timestamps without zone are written in the zone wherever they stand.
        if let Some(zone) = &self.options.time_zone {
            let _ = write!(text, "{:?}\0", zone.iana_name());
        }
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }
}

fn shown(constant: &Const) -> String {
    match constant.val() {
        Val::Null => String::new(),
        val => to_text(val).map(std::borrow::Cow::into_owned).unwrap_or_default(),
    }
}

fn describe(fields: &[Field], programs: &[FieldProgram], text: &mut String) {
    for (field, program) in fields.iter().zip(programs) {
        let _ = write!(text, "{}\0", field.name);
        match (&field.body, &program.body) {
            (Body::Expr(expression), FieldBody::Value { output, .. }) => {
                let _ = write!(text, "{}\0{output:?}\0", expression.text);
            }
            (Body::Object(inner), FieldBody::Object(programs)) => {
                text.push('{');
                describe(inner, programs, text);
                text.push('}');
            }
            (Body::Ref { entity, external_id, missing, .. }, _) => {
                let _ = write!(text, "ref {entity}\0{}\0{missing:?}\0", external_id.text);
            }
            _ => {}
        }
    }
}

fn describe_list(def: &ChildDef, program: &ChildProgram, text: &mut String) {
    let condition = def.condition.as_ref().map(|c| &c.text);
    let _ = write!(text, "{}\0{condition:?}\0{:?}\0{}\0", def.name, def.limit, def.emit);
    for (name, expression) in &def.lets {
        let _ = write!(text, "let {name}\0{}\0", expression.text);
    }
    for order in &def.order {
        let _ = write!(text, "{}\0{}\0{}\0", order.text.text, order.descending, order.nulls_first);
    }
    let programs = match &program.item {
        Item::Object(fields) => fields,
        Item::Value(field) => std::slice::from_ref(&**field),
    };
    describe(def.item.fields(), programs, text);
}
