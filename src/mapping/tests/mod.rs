//! Tests of the station as a whole.

mod diagnostics;
mod expressions;
mod packs;
mod postgres;
mod properties;
mod related;
mod rows;

use super::*;
use crate::crm::{CrmSchema, EntitySchema, FieldKind, FieldSchema};
use std::sync::Arc;
use tidemark_contract::{Column, LogicalType, Row, RowBuilder, TableId, TableSchema, Value};

fn column(name: &str, logical: LogicalType, nullable: bool) -> Column {
    Column {
        name: name.into(),
        logical,
        native: logical.to_string().into(),
        nullable,
        max_length: None,
        may_be_unchanged: false,
        unlogged: false,
        labels: Vec::new(),
    }
}

/// `public.customers`, keyed by `customer_id`.
fn customers() -> TableSchema {
    use LogicalType::{Bool, Date, Decimal, Float, Int, Json, Text, Timestamp, TimestampTz, Uuid};
    let mut columns = vec![
        column("customer_id", Text, false),
        column("company_name", Text, false),
        column("contact_name", Text, true),
        column("country", Text, true),
        column("credit_limit", Decimal, true),
        column("orders", Int, true),
        column("rating", Float, true),
        column("active", Bool, false),
        column("born_on", Date, true),
        column("created_at", Timestamp, false),
        column("seen_at", TimestampTz, true),
        column("token", Uuid, true),
        column("extra", Json, true),
        column("notes", Text, true),
        column("computed", Int, true),
    ];
    columns[1].max_length = Some(40);
    columns[13].may_be_unchanged = true;
    (columns[14].may_be_unchanged, columns[14].unlogged) = (true, true);
    TableSchema { table: TableId::new("public", "customers"), columns, key: vec![0], full_before_image: false }
}

fn text(options: &[&str]) -> FieldKind {
    FieldKind::Text { max_length: None, format: None, options: options.iter().map(|o| (*o).into()).collect() }
}

fn formatted(format: &str) -> FieldKind {
    FieldKind::Text { max_length: None, format: Some(format.into()), options: Vec::new() }
}

fn field(kind: FieldKind) -> FieldSchema {
    FieldSchema { kind, required: false, nullable: true, read_only: false }
}

fn entity(fields: &[(&str, FieldSchema)]) -> EntitySchema {
    EntitySchema { fields: fields.iter().map(|(n, f)| ((*n).into(), f.clone())).collect(), open: false }
}

/// A CRM with `account` and `contact`.
fn crm() -> CrmSchema {
    let required = |kind| FieldSchema { required: true, nullable: false, ..field(kind) };
    let short = FieldKind::Text { max_length: Some(20), format: None, options: Vec::new() };
    let address = entity(&[("street", field(text(&[]))), ("city", required(text(&[])))]);
    let account = entity(&[
        ("name", required(text(&[]))),
        ("nickname", FieldSchema { nullable: false, ..field(text(&[])) }),
        ("code", field(short)),
        ("tier", field(text(&["bronze", "silver", "gold"]))),
        ("credit", field(FieldKind::Number)),
        ("orders", field(FieldKind::Integer)),
        ("active", field(FieldKind::Boolean)),
        ("born_on", field(formatted("date"))),
        ("created_at", field(formatted("date-time"))),
        ("address", field(FieldKind::Object(address))),
        ("owner", field(FieldKind::Reference("contact".into()))),
        ("score", FieldSchema { read_only: true, ..field(FieldKind::Number) }),
        ("anything", field(FieldKind::Any)),
    ]);
    let contact =
        entity(&[("full_name", field(text(&[]))), ("account", field(FieldKind::Reference("account".into())))]);
    CrmSchema { entities: [("account".into(), account), ("contact".into(), contact)].into(), open: false }
}

/// A pack with one record over `customers`; `fields` is the text after the header.
fn pack_text(head: &str, fields: &str) -> String {
    format!(
        "tidemark = 1\n[pack]\nname = \"t\"\nversion = \"1\"\n[record.account]\nfrom = \"customers as c\"\n\
         external_id = \"c.customer_id\"\n{head}\n[record.account.fields]\n{fields}\n"
    )
}

fn compiled(text: &str, crm: Option<&CrmSchema>, zone: Option<&str>) -> Result<(Mapping, String), String> {
    let pack = Pack::parse("t.toml", text, None, None).map_err(|d| d.to_string())?;
    let options = CompileOptions { time_zone: zone.map(|z| jiff::tz::TimeZone::get(z).expect("zone data")) };
    match compile(&pack, &[Arc::new(customers())], "public", crm, &options) {
        Ok((mapping, warnings)) => Ok((mapping, warnings.to_string())),
        Err(diagnostics) => Err(diagnostics.to_string()),
    }
}

/// The mapping of a pack that must compile.
fn mapping(text: &str) -> Mapping {
    compiled(text, None, None).unwrap_or_else(|e| panic!("{e}")).0
}

/// A row of `customers`: the named columns, everything else null.
fn row(values: &[(&str, Value<'_>)]) -> Row {
    let mut builder = RowBuilder::default();
    for column in &customers().columns {
        let value = values.iter().find(|(name, _)| *name == &*column.name).map_or(Value::Null, |(_, value)| *value);
        builder.push(value);
    }
    builder.finish()
}

fn apply(text: &str, values: &[(&str, Value<'_>)]) -> Applied {
    mapping(text).rules[0].bind(&customers()).expect("the same schema").apply(&row(values))
}

/// The document made of a row that must make one.
fn document(text: &str, values: &[(&str, Value<'_>)]) -> String {
    match apply(text, values) {
        Applied::Upsert { document, .. } => String::from_utf8(document.json().to_vec()).expect("UTF-8"),
        other => panic!("{other:?}"),
    }
}
