//! `[[test]]`: a row, and the record that must come of it. Tests run without a database and without a CRM: the columns
//! are those that the tests and the expressions name, with types that are declared in `[columns.TABLE]` or told by use.

use super::offline::Offline;
use super::{Pack, Record};
use crate::diagnostics::{Diagnostic, Diagnostics, did_you_mean};
use crate::mapping::Applied;
use crate::mapping::compile::CompileOptions;
use crate::mapping::toml_reader::{Reader, Table};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::ops::Range;
use tidemark_contract::LogicalType;
use toml::de::{DeArray, DeValue};

/// One `[[test]]`.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    pub(in crate::mapping) record: String,
    file: usize,
    span: Range<usize>,
    pub(super) row: Vec<Cell>,
    /// Rows of other tables.
    pub(super) related: Vec<TestTable>,
    expect: Expect,
}

/// Rows of one table in a test.
#[derive(Clone, Debug)]
pub(super) struct TestTable {
    pub name: String,
    pub rows: Vec<Vec<Cell>>,
}

/// One column of a test's row.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub name: String,
    pub span: Range<usize>,
    pub value: CellValue,
}

#[derive(Clone, Debug)]
pub(super) enum CellValue {
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
    let known: Vec<&str> = records.iter().flat_map(Record::froms).map(|f| f.table.name.text.as_str()).collect();
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
    let row = table.take_table(reader, "row").map(|columns| cells(reader, &columns)).unwrap_or_default();
    let related = table.take_table(reader, "related").map(|tables| read_related(reader, &tables, records));
    let expect = expectation(reader, &mut table);
    table.finish(reader);
    let related = related.unwrap_or_default();
    Some(Test { span: record.span.clone(), record: record.text, file: reader.file, row, related, expect: expect? })
}

fn cells(reader: &mut Reader<'_>, columns: &Table<'_>) -> Vec<Cell> {
    let mut row = Vec::new();
    for (name, value) in columns.entries() {
        match cell(value.get_ref()) {
            Some(v) => row.push(Cell { name: name.get_ref().to_string(), span: value.span(), value: v }),
            None => {
                reader.error("wrong_type", value.span(), "a column's value is a text, a number, a boolean or a date");
            }
        }
    }
    row
}

/// `related = { order_details = [ { ... }, ... ] }`
fn read_related(reader: &mut Reader<'_>, tables: &Table<'_>, records: &[Record]) -> Vec<TestTable> {
    let known: Vec<&str> = records.iter().flat_map(Record::froms).map(|f| f.table.name.text.as_str()).collect();
    let mut all = Vec::new();
    for (key, value) in tables.entries() {
        let name = key.get_ref().to_string();
        if !known.iter().any(|k| k.eq_ignore_ascii_case(&name)) {
            let near = did_you_mean(&name, known.iter().copied()).map(|n| format!("did you mean `{n}`?"));
            let message = format!("no record reads a table `{name}`");
            reader.push(Diagnostic::error("unknown_table", reader.file, key.span(), message).maybe_help(near));
        }
        let Some(list) = value.get_ref().as_array() else {
            reader.error("wrong_type", value.span(), format!("the rows of `{name}` are a list: [ {{ ... }}, ... ]"));
            continue;
        };
        let rows = list.iter().filter_map(|row| {
            let columns = reader.table(&format!("a row of `{name}`"), row.span(), row)?;
            Some(cells(reader, &columns))
        });
        all.push(TestTable { rows: rows.collect(), name });
    }
    all
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
        let test = pack.tests.iter().find(|t| t.record == record.name);
        let (row, related) = test.map_or((&[][..], &[][..]), |t| (&t.row, &t.related));
        Offline::new(pack, record, row, related, options)?;
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
    let offline = Offline::new(pack, record, &test.row, &test.related, options)?;
    let applied = match offline.apply(&test.row, &test.related) {
        Ok(applied) => applied,
        Err(wrong) => {
            diagnostics.push(Diagnostic::error(
                "test_row",
                test.file,
                wrong.span.unwrap_or(test.span.clone()),
                wrong.message,
            ));
            return Ok(());
        }
    };
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
