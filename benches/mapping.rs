//! How many records a second one core maps: `cargo bench --bench mapping`.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use tidemark::mapping::{Applied, BoundRule, CompileOptions, Pack, compile};
use tidemark_contract::{Column, LogicalType, Row, RowBuilder, TableId, TableSchema, Value};

/// Twelve fields as vendors' packs have them: joined and cut texts, a translation, a choice by a decimal, dates.
const COMPUTED: &str = r#"
tidemark = 1
[lookup.country]
values = { "Germany" = "DE", "UK" = "GB", "USA" = "US", "Mexico" = "MX", "France" = "FR", "Spain" = "ES" }
unknown = "null"
[record.account]
from = "customers as c"
where = "c.company_name is not null"
external_id = "'northwind:' || trim(c.customer_id)"
[record.account.fields]
name = "trim(c.company_name)"
first_name = "split_part(c.contact_name, ' ', 1)"
last_name = "split_part(c.contact_name, ' ', 2)"
email = "lower(trim(c.email))"
phone = "replace(c.phone, '-', '')"
street = "c.address || ', ' || c.city || ' ' || c.postal_code"
region = "coalesce(c.region, 'n/a')"
country = "lookup('country', c.country)"
tier = "case when c.credit_limit >= 50000 then 'gold' when c.credit_limit >= 10000 then 'silver' else 'bronze' end"
created_on = "cast(c.created_at as date)"
status = "case when c.active then 'Active' else 'Inactive' end"
credit = "round(c.credit_limit, 2)"
"#;

/// Twelve columns as they are.
const COPIED: &str = r#"
tidemark = 1
[record.account]
from = "customers as c"
external_id = "c.customer_id"
[record.account.fields]
name = "c.company_name"
contact = "c.contact_name"
email = "c.email"
phone = "c.phone"
address = "c.address"
city = "c.city"
postal_code = "c.postal_code"
region = "c.region"
country = "c.country"
credit = "c.credit_limit"
created_at = "c.created_at"
active = "c.active"
"#;

fn schema() -> TableSchema {
    use LogicalType::{Bool, Decimal, Text, Timestamp};
    let columns = [
        ("customer_id", Text),
        ("company_name", Text),
        ("contact_name", Text),
        ("email", Text),
        ("phone", Text),
        ("address", Text),
        ("city", Text),
        ("postal_code", Text),
        ("region", Text),
        ("country", Text),
        ("credit_limit", Decimal),
        ("created_at", Timestamp),
        ("active", Bool),
    ];
    let column = |(name, logical): (&str, LogicalType)| Column {
        name: name.into(),
        logical,
        native: "".into(),
        nullable: name != "customer_id",
        max_length: None,
        may_be_unchanged: false,
        labels: Vec::new(),
    };
    TableSchema {
        table: TableId::new("public", "customers"),
        columns: columns.map(column).into(),
        key: vec![0],
        full_before_image: false,
    }
}

fn rows() -> Vec<Row> {
    let row = |n: usize| {
        let mut b = RowBuilder::default();
        b.push(Value::Text(&format!("C{n:05}")));
        b.push(Value::Text(&format!(" Alfreds Futterkiste GmbH & Co {n} ")));
        b.push(Value::Text("Maria Anders"));
        b.push(Value::Text(&format!("Maria.Anders{n}@Example.com ")));
        b.push(Value::Text("030-0074-321"));
        b.push(Value::Text("Obere Straße 57"));
        b.push(Value::Text("Berlin"));
        b.push(Value::Text("12209"));
        b.push(if n.is_multiple_of(3) { Value::Text("BE") } else { Value::Null });
        b.push(Value::Text(["Germany", "UK", "Mexico", "Peru"][n % 4]));
        b.push(Value::Decimal(&format!("{}.50", n * 1000)));
        b.push(Value::Timestamp("1996-07-04T10:20:30"));
        b.push(Value::Bool(n.is_multiple_of(2)));
        b.finish()
    };
    (0..64).map(row).collect()
}

fn bound(text: &str) -> BoundRule {
    let pack = Pack::parse("bench.toml", text, None, None).expect("a pack");
    let catalogue = [Arc::new(schema())];
    let (mapping, _) = compile(&pack, &catalogue, "public", None, &CompileOptions::default()).expect("it compiles");
    mapping.rules[0].bind(&schema()).expect("the same schema")
}

fn mapping(c: &mut Criterion) {
    let rows = rows();
    let mut group = c.benchmark_group("mapping");
    group.throughput(Throughput::Elements(rows.len() as u64));
    for (name, text) in [("12 computed fields", COMPUTED), ("12 copied columns", COPIED)] {
        let rule = bound(text);
        for row in &rows {
            assert!(matches!(rule.apply(row), Applied::Upsert { .. }));
        }
        group.bench_function(name, |b| {
            b.iter(|| {
                for row in &rows {
                    black_box(rule.apply(black_box(row)));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, mapping);
criterion_main!(benches);
