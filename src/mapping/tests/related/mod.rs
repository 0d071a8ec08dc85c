//! Related rows: a small shop, its packs, and what comes of its rows.

mod diagnostics;
mod postgres;
mod rows;

use super::*;
use crate::mapping::pack::offline::Database;
use tidemark_contract::LogicalType::{Bool, Date, Decimal, Float, Int, Json, Text};

fn shop_table(name: &str, key: &[usize], columns: &[(&str, LogicalType)]) -> Arc<TableSchema> {
    let columns = columns
        .iter()
        .enumerate()
        .map(|(n, (name, ty))| match name.strip_suffix('!') {
            Some(name) => column(name, *ty, false),
            None => column(name, *ty, !key.contains(&n)),
        })
        .collect();
    Arc::new(TableSchema { table: TableId::new("public", name), columns, key: key.into(), full_before_image: false })
}

/// The shop's tables; a name with `!` is never null.
fn shop() -> Vec<Arc<TableSchema>> {
    vec![
        shop_table("cities", &[0], &[("city_id", Int), ("name!", Text)]),
        shop_table("clients", &[0], &[("client_id", Text), ("name!", Text), ("city_id", Int)]),
        shop_table("shippers", &[0], &[("shipper_id", Int), ("company_name!", Text), ("rating", Float)]),
        shop_table("products", &[0], &[("product_id", Int), ("name!", Text), ("sku", Text), ("extra", Json)]),
        shop_table(
            "orders",
            &[0],
            &[
                ("order_id", Int),
                ("client_id", Text),
                ("ship_via", Int),
                ("ordered_on", Date),
                ("is_open!", Bool),
                ("remark", Text),
            ],
        ),
        shop_table(
            "lines",
            &[0, 1],
            &[
                ("order_id", Int),
                ("product_id", Int),
                ("price!", Decimal),
                ("quantity!", Int),
                ("discount", Float),
                ("gift", Bool),
            ],
        ),
        shop_table("staff", &[0], &[("staff_id", Int), ("name!", Text), ("boss_id", Int)]),
        shop_table("notes", &[0], &[("note_id", Int), ("order_id", Int), ("body", Text)]),
        shop_table("tags", &[0], &[("tag_id", Int), ("label!", Text)]),
        shop_table("order_tags", &[0, 1], &[("order_id", Int), ("tag_id", Int)]),
        shop_table("barcodes", &[0], &[("id", Int), ("sku!", Text), ("code", Text)]),
    ]
}

fn schema_of(table: &str) -> Arc<TableSchema> {
    shop().into_iter().find(|s| &*s.table.name == table).expect("a table of the shop")
}

/// Rows from lines of values between `|`; `~` is null.
fn parse_rows(schema: &TableSchema, lines: &str) -> Vec<Row> {
    let value = |ty: LogicalType, text: &str, out: &mut RowBuilder| match (text, ty) {
        ("~", _) => out.push(Value::Null),
        ("?", _) => out.push(Value::Unchanged),
        (text, Int) => out.push(Value::Int(text.parse().expect("an integer"))),
        (text, Float) => out.push(Value::Float(text.parse().expect("a float"))),
        (text, Bool) => out.push(Value::Bool(matches!(text, "t" | "true"))),
        (text, Decimal) => out.push(Value::Decimal(text)),
        (text, Date) => out.push(Value::Date(text)),
        (text, Json) => out.push(Value::Json(text)),
        (text, _) => out.push(Value::Text(text)),
    };
    let row = |line: &str| {
        let mut out = RowBuilder::default();
        let cells: Vec<&str> = line.split('|').collect();
        assert_eq!(cells.len(), schema.columns.len(), "{line}");
        cells.iter().zip(&schema.columns).for_each(|(text, column)| value(column.logical, text, &mut out));
        out.finish()
    };
    lines.lines().map(str::trim).filter(|l| !l.is_empty()).map(row).collect()
}

/// The rows that most tests use.
const ROWS: &[(&str, &str)] = &[
    ("cities", "1|Berlin\n2|Paris"),
    ("clients", "A|Alfreds|1\nB|Blondel|2\nC|Chop-suey|~\nD|Drachen|9"),
    ("shippers", "1|Speedy|4.5\n2|United|~"),
    ("products", "11|Queso|Q-11|{\"a\":1}\n42|Hokkien|H-42|~\n72|Mozzarella|M-72|~"),
    ("orders", "1|A|1|2024-01-05|t|first\n2|B|~|2024-02-05|f|~\n3|C|9|~|t|~\n4|D|2|~|t|~"),
    ("lines", "1|42|9.80|10|0|f\n1|11|14.00|12|0.05|~\n1|72|34.80|5|0|t\n2|11|14.00|1|~|f\n3|99|1.005|3|0|f"),
    ("staff", "1|Nancy|2\n2|Andrew|~\n3|Janet|2\n4|Own|4"),
    ("notes", "7|1|late\n8|1|~\n9|2|ok"),
    ("tags", "1|red\n2|urgent\n3|blue"),
    ("order_tags", "1|2\n1|1\n2|9"),
    ("barcodes", "1|Q-11|4711\n2|H-42|~"),
];

fn shop_mapping(text: &str) -> Mapping {
    let pack = Pack::parse("t.toml", text, None, None).unwrap_or_else(|d| panic!("{d}"));
    let compiled = compile(&pack, &shop(), "public", None, &CompileOptions::default());
    compiled.unwrap_or_else(|d| panic!("{d}")).0
}

/// A pack with one record over `from`.
fn shop_pack(from: &str, external_id: &str, rest: &str) -> String {
    format!("tidemark = 1\n[record.r]\nfrom = \"{from}\"\nexternal_id = \"{external_id}\"\n{rest}\n")
}

/// What the first rule of a pack makes of every row of its table; `data` stands beside [`ROWS`] and before them.
fn all_applied(text: &str, data: &[(&str, &str)]) -> Vec<Applied> {
    let mapping = shop_mapping(text);
    let rule = &mapping.rules[0];
    let tables: Vec<(Arc<TableSchema>, Vec<Row>)> = shop()
        .into_iter()
        .map(|schema| {
            let lines = data.iter().chain(ROWS).find(|(name, _)| *name == &*schema.table.name).map_or("", |(_, l)| *l);
            let rows = parse_rows(&schema, lines);
            (schema, rows)
        })
        .collect();
    let mut found = |table: &TableId| tables.iter().find(|(s, _)| s.table == *table).map(|(s, _)| s.clone());
    let bound = rule.bind_related(&mut found).expect("the same schemas");
    let none = Relations::none();
    let relations = rule.relations.as_deref().unwrap_or(&none);
    let (schema, rows) = tables.iter().find(|(s, _)| s.table == rule.table).expect("its table");
    let database = Database { tables: &tables };
    rows.iter()
        .map(|row| {
            let related = database.related(schema, row, relations).unwrap_or_else(|w| panic!("{}", w.message));
            bound.apply(row, &related)
        })
        .collect()
}

/// The documents of the rows that make a record, each with its external id before it.
fn documents(text: &str, data: &[(&str, &str)]) -> Vec<String> {
    let shown = |applied| match applied {
        Applied::Upsert { external_id, document, .. } => {
            Some(format!("{external_id} {}", std::str::from_utf8(document.json()).expect("UTF-8")))
        }
        Applied::Outside { .. } => None,
        other => panic!("{other:?}"),
    };
    all_applied(text, data).into_iter().filter_map(shown).collect()
}
