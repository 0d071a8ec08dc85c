//! `[[test]]`: a row, and the record that must come of it. Tests run without a database and without a CRM: the columns
//! are those that the tests and the expressions name, with types that are declared in `[columns.TABLE]` or told by use.

use super::infer::infer;
use super::{Pack, Record};
use crate::diagnostics::{Diagnostic, Diagnostics, did_you_mean};
use crate::mapping::compile::{CompileOptions, compile};
use crate::mapping::expr::cast::cast;
use crate::mapping::expr::convert::type_of;
use crate::mapping::expr::ir::{Target, Type};
use crate::mapping::expr::value::Val;
use crate::mapping::names::{Found, Name};
use crate::mapping::toml_reader::{Reader, Table};
use crate::mapping::{Applied, expr::value::Fault};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tidemark_contract::{Column, LogicalType, Row, RowBuilder, TableSchema, Value};
use toml::de::{DeArray, DeValue};

/// One `[[test]]`.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    record: String,
    file: usize,
    span: Range<usize>,
    row: Vec<Cell>,
    expect: Expect,
}

/// One column of a test's row.
#[derive(Clone, Debug)]
struct Cell {
    name: String,
    span: Range<usize>,
    value: CellValue,
}

#[derive(Clone, Debug)]
enum CellValue {
    Bool(bool),
    Integer(String),
    Float(String),
    Text(String),
    /// A TOML date or time, and the type it is of.
    Temporal(String, LogicalType),
}

#[derive(Clone, Debug)]
enum Expect {
    /// These fields have these values; others may have any.
    Fields(Vec<(String, Range<usize>, Json)>),
    /// The row is outside the rule's `where`.
    Outside,
    /// The row is set aside with this code.
    Rejected(String),
}

/// How a pack's tests went.
#[derive(Clone, Debug)]
pub struct TestReport {
    /// Number of tests.
    pub total: usize,
    /// Number of tests that failed.
    pub failed: usize,
    /// What was wrong, with its place.
    pub diagnostics: Diagnostics,
}

const TYPES: &[(&str, LogicalType)] = &[
    ("boolean", LogicalType::Bool),
    ("integer", LogicalType::Int),
    ("float", LogicalType::Float),
    ("decimal", LogicalType::Decimal),
    ("text", LogicalType::Text),
    ("date", LogicalType::Date),
    ("time", LogicalType::Time),
    ("timestamp", LogicalType::Timestamp),
    ("timestamptz", LogicalType::TimestampTz),
    ("uuid", LogicalType::Uuid),
    ("json", LogicalType::Json),
];

/// Column types declared for tests: table (as a record's `from` names it) → column → type.
pub(crate) type Declared = BTreeMap<String, Vec<(String, LogicalType)>>;

/// Reads `[columns.TABLE]`.
pub(super) fn read_columns(reader: &mut Reader<'_>, root: &mut Table<'_>, records: &[Record]) -> Declared {
    let mut declared = Declared::new();
    let Some(tables) = root.take_table(reader, "columns") else { return declared };
    let known: Vec<&str> = records.iter().map(|r| r.from.table.name.text.as_str()).collect();
    for (key, value) in tables.entries() {
        let name = key.get_ref().to_string();
        if !known.iter().any(|k| k.eq_ignore_ascii_case(&name)) {
            let near = did_you_mean(&name, known.iter().copied()).map(|n| format!("did you mean `{n}`?"));
            let message = format!("no record reads a table `{name}`");
            reader.push(Diagnostic::error("unknown_table", reader.file, key.span(), message).maybe_help(near));
        }
        let Some(columns) = reader.table(&format!("columns of `{name}`"), key.span(), value) else { continue };
        let types = columns
            .entries()
            .into_iter()
            .filter_map(|(column, ty)| Some((column.get_ref().to_string(), reader.word(column.get_ref(), ty, TYPES)?)))
            .collect();
        declared.insert(name.to_lowercase(), types);
    }
    declared
}

/// Reads `[[test]]`.
pub(super) fn read(reader: &mut Reader<'_>, root: &mut Table<'_>, records: &[Record]) -> Vec<Test> {
    let Some((key, value)) = root.take("test") else { return Vec::new() };
    let Some(list) = value.get_ref().as_array() else {
        reader.error("wrong_type", key.span(), "tests are written as [[test]]");
        return Vec::new();
    };
    list.iter().filter_map(|item| read_one(reader, item, records)).collect()
}

fn read_one<'t>(reader: &mut Reader<'_>, item: &'t toml::Spanned<DeValue<'t>>, records: &[Record]) -> Option<Test> {
    let mut table = reader.table("test", item.span(), item)?;
    let (_, record) = table.require(reader, "record", "the record under test: record = \"customer_account\"")?;
    let record = reader.text("record", record)?;
    if !records.iter().any(|r| r.name == record.text) && !reader.diagnostics.has_errors() {
        let near = did_you_mean(&record.text, records.iter().map(|r| r.name.as_str()))
            .map(|n| format!("did you mean \"{n}\"?"));
        let message = format!("the pack has no record `{}`", record.text);
        reader.push(Diagnostic::error("unknown_record", reader.file, record.inner(), message).maybe_help(near));
    }
    let mut row = Vec::new();
    if let Some(columns) = table.take_table(reader, "row") {
        for (name, value) in columns.entries() {
            match cell(value.get_ref()) {
                Some(v) => row.push(Cell { name: name.get_ref().to_string(), span: value.span(), value: v }),
                None => reader.error(
                    "wrong_type",
                    value.span(),
                    "a column's value is a text, a number, a boolean or a date",
                ),
            }
        }
    }
    let expect = expectation(reader, &mut table);
    table.finish(reader);
    Some(Test { span: record.span.clone(), record: record.text, file: reader.file, row, expect: expect? })
}

fn expectation(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Option<Expect> {
    let fields = table.take_table(reader, "expect");
    let nulls = table.take("expect_null");
    let outside = table.take_bool(reader, "outside").unwrap_or(false);
    let rejected = table.take_text(reader, "rejected");
    match (fields.is_some() || nulls.is_some(), outside, rejected) {
        (true, false, None) => {
            let mut wanted = Vec::new();
            for (name, value) in fields.iter().flat_map(Table::entries) {
                wanted.push((name.get_ref().to_string(), value.span(), json(value.get_ref())));
            }
            for name in nulls.into_iter().flat_map(|(_, v)| v.get_ref().as_array().into_iter().flatten()) {
                let text = reader.text("expect_null", name)?;
                wanted.push((text.text.clone(), text.span, Json::Null));
            }
            Some(Expect::Fields(wanted))
        }
        (false, true, None) => Some(Expect::Outside),
        (false, false, Some(code)) => Some(Expect::Rejected(code.text)),
        _ => {
            reader.push(
                Diagnostic::error("missing_key", reader.file, table.span.clone(), "a test says one thing that must come of its row")
                    .help("expect = { external_id = \"...\", field = ... }, expect_null = [\"field\"], outside = true, or rejected = \"code\""),
            );
            None
        }
    }
}

fn cell(value: &DeValue<'_>) -> Option<CellValue> {
    Some(match value {
        DeValue::String(s) => CellValue::Text(s.to_string()),
        DeValue::Integer(n) => CellValue::Integer(n.to_string()),
        DeValue::Float(n) => CellValue::Float(n.as_str().replace('_', "")),
        DeValue::Boolean(b) => CellValue::Bool(*b),
        DeValue::Datetime(d) => {
            let ty = match (d.date.is_some(), d.time.is_some(), d.offset.is_some()) {
                (true, true, true) => LogicalType::TimestampTz,
                (true, true, false) => LogicalType::Timestamp,
                (true, false, _) => LogicalType::Date,
                _ => LogicalType::Time,
            };
            CellValue::Temporal(d.to_string(), ty)
        }
        DeValue::Array(_) | DeValue::Table(_) => return None,
    })
}

fn json(value: &DeValue<'_>) -> Json {
    let list = |a: &DeArray<'_>| a.iter().map(|v| json(v.get_ref())).collect();
    match value {
        DeValue::String(s) => Json::from(s.as_ref()),
        DeValue::Integer(n) => n.to_string().parse::<i64>().map_or(Json::Null, Json::from),
        DeValue::Float(n) => n.as_str().replace('_', "").parse::<f64>().map_or(Json::Null, Json::from),
        DeValue::Boolean(b) => Json::from(*b),
        DeValue::Datetime(d) => Json::from(d.to_string()),
        DeValue::Array(a) => list(a),
        DeValue::Table(t) => t.iter().map(|(k, v)| (k.get_ref().to_string(), json(v.get_ref()))).collect(),
    }
}

/// Runs the pack's own tests. An error means that the pack does not compile.
pub fn run_pack_tests(pack: &Pack, options: &CompileOptions) -> Result<TestReport, Diagnostics> {
    let mut report = TestReport { total: pack.tests.len(), failed: 0, diagnostics: pack.diagnostics.clone() };
    // A pack without tests is compiled too: its expressions are worth checking.
    for record in &pack.records {
        let none = Vec::new();
        let rows = pack.tests.iter().find(|t| t.record == record.name).map_or(&none, |t| &t.row);
        compile_for(pack, record, rows, options)?;
    }
    for test in &pack.tests {
        let before = report.diagnostics.counts().0;
        run(pack, test, options, &mut report.diagnostics)?;
        report.failed += usize::from(report.diagnostics.counts().0 > before);
    }
    Ok(report)
}

fn run(pack: &Pack, test: &Test, options: &CompileOptions, diagnostics: &mut Diagnostics) -> Result<(), Diagnostics> {
    let Some(record) = pack.records.iter().find(|r| r.name == test.record) else { return Ok(()) };
    let (schema, rule) = compile_for(pack, record, &test.row, options)?;
    let row = match build_row(&schema, &test.row) {
        Ok(row) => row,
        Err((cell, fault)) => {
            let message = format!("column `{}`: {}", cell.name, fault.what);
            diagnostics.push(Diagnostic::error("test_row", test.file, cell.span.clone(), message));
            return Ok(());
        }
    };
    let applied = rule.apply(&row);
    let fail =
        |span: &Range<usize>, message: String| Diagnostic::error("test_failed", test.file, span.clone(), message);
    match (&test.expect, applied) {
        (Expect::Outside, Applied::Outside { .. }) => {}
        (Expect::Rejected(code), Applied::Rejected(rejection)) if *code == rejection.code => {}
        (Expect::Fields(wanted), Applied::Upsert { external_id, document, .. }) => {
            let found: Json = serde_json::from_slice(document.json()).unwrap_or_default();
            for (name, span, value) in wanted {
                let actual =
                    if name == "external_id" { Json::from(&*external_id) } else { found[name.as_str()].clone() };
                let known = name == "external_id" || found.get(name).is_some();
                if !known {
                    let message = format!("record `{}` has no field `{name}`", record.name);
                    diagnostics.push(fail(span, message));
                } else if !same(value, &actual) {
                    let message = format!("`{}.{name}` is {actual}", record.name);
                    diagnostics.push(fail(span, message).label(format!("expected {value}")));
                }
            }
        }
        (_, Applied::Rejected(rejection)) => {
            let field = rejection.field.map(|f| format!(" in field `{f}`")).unwrap_or_default();
            let message = format!("the row is rejected{field}: {}: {}", rejection.code, rejection.message);
            diagnostics.push(fail(&test.span, message));
        }
        (_, Applied::Outside { .. }) => {
            diagnostics.push(fail(&test.span, format!("the row is outside the `where` of record `{}`", record.name)));
        }
        (_, Applied::Upsert { .. } | Applied::NeedsRow) => {
            diagnostics.push(fail(&test.span, format!("the row makes a record of `{}`", record.name)));
        }
    }
    Ok(())
}

/// Equal as JSON; numbers by value, also where one side is a decimal's text.
fn same(wanted: &Json, actual: &Json) -> bool {
    let number = |v: &Json| match v {
        Json::Number(n) => n.as_f64(),
        Json::String(s) => s.parse::<f64>().ok(),
        _ => None,
    };
    match (wanted, actual) {
        (Json::Number(_), Json::Number(_) | Json::String(_)) => number(wanted) == number(actual),
        (Json::Object(w), Json::Object(a)) => w.iter().all(|(k, v)| a.get(k).is_some_and(|x| same(v, x))),
        (Json::Array(w), Json::Array(a)) => w.len() == a.len() && w.iter().zip(a).all(|(w, a)| same(w, a)),
        _ => wanted == actual,
    }
}

/// Compiles one record against a table that has just what its expressions and the row need.
fn compile_for(
    pack: &Pack,
    record: &Record,
    row: &[Cell],
    options: &CompileOptions,
) -> Result<(TableSchema, crate::mapping::BoundRule), Diagnostics> {
    let schema = synthetic(pack, record, row);
    let alone = Pack { records: vec![record.clone()], ..pack.clone() };
    let catalogue = [Arc::new(schema.clone())];
    let (mapping, _) = compile(&alone, &catalogue, &schema.table.schema, None, options)?;
    let bound = mapping.rules.first().and_then(|rule| rule.bind(&schema).ok());
    bound.map(|bound| (schema, bound)).ok_or_else(|| pack.diagnostics.clone())
}

fn synthetic(pack: &Pack, record: &Record, row: &[Cell]) -> TableSchema {
    let used = infer(record);
    let table = &record.from.table;
    let none = Vec::new();
    let declared = pack.columns.get(&table.name.text.to_lowercase()).unwrap_or(&none);
    let mut names: Vec<Name> = used.iter().map(|(name, _)| name.clone()).collect();
    for text in row.iter().map(|c| &c.name).chain(declared.iter().map(|(n, _)| n)) {
        let name = Name { text: text.clone(), quoted: true };
        if name.find(names.iter().map(|n| n.text.as_str())) == Found::None {
            names.push(name);
        }
    }
    let columns = names
        .into_iter()
        .map(|name| {
            let is = |text: &str| name.text.eq_ignore_ascii_case(text);
            let by_use = used.iter().find(|(n, _)| *n == name).and_then(|(_, ty)| *ty);
            let by_value = row.iter().find(|c| is(&c.name)).map(|c| c.value.logical(by_use));
            let logical = declared.iter().find(|(n, _)| is(n)).map(|(_, ty)| *ty).or(by_value).or(by_use);
            Column {
                name: name.text.into(),
                logical: logical.unwrap_or(LogicalType::Text),
                native: "declared by tests".into(),
                // The pack cannot know what a database forbids; required fields are checked against the real one.
                nullable: false,
                max_length: None,
                may_be_unchanged: false,
                labels: Vec::new(),
            }
        })
        .collect();
    TableSchema { table: table.as_written("tests"), columns, key: Vec::new(), full_before_image: true }
}

impl CellValue {
    fn logical(&self, by_use: Option<LogicalType>) -> LogicalType {
        match self {
            CellValue::Bool(_) => LogicalType::Bool,
            CellValue::Integer(_) => match by_use {
                Some(ty @ (LogicalType::Float | LogicalType::Decimal)) => ty,
                _ => LogicalType::Int,
            },
            CellValue::Float(_) => by_use.filter(|ty| *ty == LogicalType::Float).unwrap_or(LogicalType::Decimal),
            CellValue::Text(_) => by_use.unwrap_or(LogicalType::Text),
            CellValue::Temporal(_, ty) => *ty,
        }
    }

    fn text(&self) -> String {
        match self {
            CellValue::Bool(b) => b.to_string(),
            CellValue::Integer(s) | CellValue::Float(s) | CellValue::Text(s) | CellValue::Temporal(s, _) => s.clone(),
        }
    }
}

fn build_row<'c>(schema: &TableSchema, cells: &'c [Cell]) -> Result<Row, (&'c Cell, Fault)> {
    let mut builder = RowBuilder::default();
    for column in &schema.columns {
        let Some(cell) = cells.iter().find(|c| c.name.eq_ignore_ascii_case(&column.name)) else {
            builder.push(Value::Null);
            continue;
        };
        push(&mut builder, column.logical, &cell.value.text()).map_err(|fault| (cell, fault))?;
    }
    Ok(builder.finish())
}

/// Pushes a text as a value of a type, in the connectors' canonical form.
fn push(builder: &mut RowBuilder, logical: LogicalType, text: &str) -> Result<(), Fault> {
    let target = match type_of(logical) {
        Type::Bool => Target::Bool,
        Type::Int => Target::Int(64),
        Type::Float => Target::Float,
        Type::Decimal => Target::Decimal(None),
        Type::Date => Target::Date,
        Type::Time => Target::Time,
        Type::Timestamp => Target::Timestamp(6),
        Type::TimestampTz => Target::TimestampTz(6),
        Type::Uuid => Target::Uuid,
        Type::Json => Target::Json,
        Type::Text | Type::Bytes | Type::List | Type::Null => Target::Text(None),
    };
    match cast(&target, Val::text(text))? {
        Val::Bytes(_) | Val::List(_) => builder.push(Value::Null),
        val => val.push_into(builder),
    }
    Ok(())
}
