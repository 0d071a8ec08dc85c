//! How many records a second one core maps: `cargo bench --bench mapping`.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use tidemark::mapping::{Applied, BoundRelated, BoundRule, ChildRows, CompileOptions, Pack, RelatedRows, compile};
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

/// An order with its carrier, three lines with their products, and two aggregates.
const ORDER: &str = r#"
tidemark = 1
[record.order]
from = "orders as o"
external_id = "o.order_id"
[record.order.join.ship]
from = "shippers as sh"
on = "sh.shipper_id = o.ship_via"
[record.order.fields]
number = "'NW-' || lpad(cast(o.order_id as text), 6, '0')"
carrier = "sh.company_name"
city = "upper(o.city)"
total = "sum(items.amount)"
lines = "count(items)"
[record.order.children.items]
from = "lines as d"
on = "d.order_id = o.order_id"
order_by = "d.product_id"
[record.order.children.items.fields]
sku = "p.name"
quantity = "d.quantity"
amount = "round(d.price * d.quantity * (1 - d.discount), 2)"
[record.order.children.items.join.p]
from = "products as p"
on = "p.product_id = d.product_id"
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
    table("customers", 1, &columns)
}

fn table(name: &str, key: usize, columns: &[(&str, LogicalType)]) -> TableSchema {
    let column = |(n, (name, logical)): (usize, &(&str, LogicalType))| Column {
        name: (*name).into(),
        logical: *logical,
        native: "".into(),
        nullable: n >= key,
        max_length: None,
        may_be_unchanged: false,
        unlogged: false,
        labels: Vec::new(),
    };
    TableSchema {
        table: TableId::new("public", name),
        columns: columns.iter().enumerate().map(column).collect(),
        key: (0..key).collect(),
        full_before_image: false,
    }
}

fn row(values: &[Value<'_>]) -> Row {
    let mut b = RowBuilder::default();
    values.iter().for_each(|v| b.push(*v));
    b.finish()
}

/// Orders with their related rows, and the rule that maps them.
fn orders() -> (BoundRelated, Vec<(Row, RelatedRows)>) {
    use LogicalType::{Decimal, Int, Text};
    let tables = [
        table("orders", 1, &[("order_id", Int), ("ship_via", Int), ("city", Text)]),
        table("shippers", 1, &[("shipper_id", Int), ("company_name", Text)]),
        table("products", 1, &[("product_id", Int), ("name", Text)]),
        table(
            "lines",
            2,
            &[("order_id", Int), ("product_id", Int), ("price", Decimal), ("quantity", Int), ("discount", Decimal)],
        ),
    ]
    .map(Arc::new);
    let pack = Pack::parse("bench.toml", ORDER, None, None).expect("a pack");
    let (mapping, _) = compile(&pack, &tables, "public", None, &CompileOptions::default()).expect("it compiles");
    let mut found = |id: &TableId| tables.iter().find(|t| t.table == *id).cloned();
    let rule = mapping.rules[0].bind_related(&mut found).expect("the same schemas");
    let order = |n: i64| {
        let line = |product: i64| ChildRows {
            row: row(&[
                Value::Int(n),
                Value::Int(product),
                Value::Decimal("14.00"),
                Value::Int(12),
                Value::Decimal("0.15"),
            ]),
            joins: vec![Some(row(&[Value::Int(product), Value::Text("Singaporean Hokkien Fried Mee")]))],
        };
        let shipper = row(&[Value::Int(3), Value::Text("Federal Shipping")]);
        let own = row(&[Value::Int(n), Value::Int(3), Value::Text("Reims")]);
        (own, RelatedRows { joins: vec![Some(shipper)], children: vec![vec![line(72), line(11), line(42)]] })
    };
    (rule, (0..64).map(order).collect())
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
    let (rule, orders) = orders();
    for (own, related) in &orders {
        assert!(matches!(rule.apply(own, related), Applied::Upsert { .. }));
    }
    group.bench_function("an order with three lines", |b| {
        b.iter(|| {
            for (own, related) in &orders {
                black_box(rule.apply(black_box(own), black_box(related)));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, mapping);
criterion_main!(benches);
