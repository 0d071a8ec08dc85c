//! Records that show rows of other tables: joins over two steps, a table joined to itself, lists, aggregates, and a link
//! table. The oracle is a query over all of them.

use crate::scene;
use crate::support::{Scene, seconds, seed};
use serde_json::json;
use tidemark_conformance::Rng;
use tokio_postgres::Client;

const TABLES: &str = "
    CREATE TABLE regions (id int PRIMARY KEY, name text);
    CREATE TABLE cities (id int PRIMARY KEY, region_id int, name text);
    CREATE TABLE customers (id int PRIMARY KEY, city_id int, boss_id int, name text, remark text);
    CREATE TABLE tags (id int PRIMARY KEY, name text);
    CREATE TABLE customer_tags (customer_id int, tag_id int, PRIMARY KEY (customer_id, tag_id));
    CREATE TABLE orders (id int PRIMARY KEY, customer_id int, placed date);
    CREATE TABLE lines (id int PRIMARY KEY, order_id int, sku text, qty int, price numeric(10,2));
    CREATE INDEX ON customers (city_id); CREATE INDEX ON lines (order_id);
    ALTER TABLE lines REPLICA IDENTITY FULL;
    INSERT INTO regions SELECT n, 'region ' || n FROM generate_series(1, 3) n;
    INSERT INTO cities SELECT n, 1 + n % 3, 'city ' || n FROM generate_series(1, 12) n;
    INSERT INTO tags SELECT n, 'tag ' || n FROM generate_series(1, 6) n;
    INSERT INTO customers SELECT n, 1 + n % 12, nullif(n / 4, 0), 'customer ' || n FROM generate_series(1, 300) n;
    INSERT INTO customer_tags SELECT n, 1 + n % 6 FROM generate_series(1, 300) n;
    INSERT INTO orders SELECT n, 1 + n % 300, '2026-01-01'::date + n % 300 FROM generate_series(1, 500) n;
    INSERT INTO lines SELECT n, 1 + n % 500, 'sku ' || n % 7, 1 + n % 5, (n % 100) * 1.25 FROM generate_series(1, 1500) n;
    ANALYZE";

const MAPPING: &str = r#"tidemark = 1
[pack]
name = "related"
version = "1.0.0"

[record.customer]
from = "customers as c"
external_id = "c.id"
[record.customer.join.ci]
from = "cities as ci"
on = "ci.id = c.city_id"
[record.customer.join.re]
from = "regions as re"
on = "re.id = ci.region_id"
[record.customer.join.boss]
from = "customers as boss"
on = "boss.id = c.boss_id"
[record.customer.children.tags]
from = "customer_tags as ct"
on = "ct.customer_id = c.id"
order_by = "ct.tag_id desc"
[record.customer.children.tags.join.t]
from = "tags as t"
on = "t.id = ct.tag_id"
[record.customer.children.tags.fields]
name = "t.name"
[record.customer.fields]
name = "c.name"
city = "ci.name"
region = "re.name"
boss = "boss.name"
tag_count = "count(tags)"

[record.order]
from = "orders as o"
external_id = "o.id"
on_delete = "delete"
[record.order.join.c]
from = "customers as c"
on = "c.id = o.customer_id"
[record.order.children.lines]
from = "lines as l"
on = "l.order_id = o.id"
order_by = "l.sku, l.id"
[record.order.children.lines.fields]
sku = "l.sku"
amount = "round(l.qty * l.price, 2)"
[record.order.fields]
placed = "o.placed"
customer = "c.name"
total = "sum(lines.amount)"
"#;

const ORACLE: &str = "
    SELECT 'customer', c.id::text, jsonb_build_object('name', c.name, 'city', ci.name, 'region', re.name,
        'boss', boss.name,
        'tag_count', (SELECT count(*) FROM customer_tags ct WHERE ct.customer_id = c.id),
        'tags', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', t.name) ORDER BY ct.tag_id DESC), '[]')
                 FROM customer_tags ct LEFT JOIN tags t ON t.id = ct.tag_id WHERE ct.customer_id = c.id))::text
    FROM customers c LEFT JOIN cities ci ON ci.id = c.city_id LEFT JOIN regions re ON re.id = ci.region_id
    LEFT JOIN customers boss ON boss.id = c.boss_id
    UNION ALL
    SELECT 'order', o.id::text, jsonb_build_object('placed', o.placed, 'customer', c.name,
        'total', (SELECT sum(round(l.qty * l.price, 2))::text FROM lines l WHERE l.order_id = o.id),
        'lines', (SELECT coalesce(jsonb_agg(jsonb_build_object('sku', l.sku, 'amount', round(l.qty * l.price, 2)::text)
                     ORDER BY l.sku COLLATE \"C\", l.id), '[]') FROM lines l WHERE l.order_id = o.id))::text
    FROM orders o LEFT JOIN customers c ON c.id = o.customer_id";

async fn related() -> Option<Scene> {
    let text = json!({"type": ["string", "null"]});
    let list = |fields: serde_json::Value| json!({"type": "array", "items": {"type": "object", "properties": fields}});
    let model = json!({
        "customer": {"type": "object", "properties": {"name": text, "city": text, "region": text, "boss": text,
            "tag_count": {"type": "integer"}, "tags": list(json!({"name": text}))}},
        "order": {"type": "object", "properties": {"placed": {"type": ["string", "null"], "format": "date"},
            "customer": text, "total": text, "lines": list(json!({"sku": text, "amount": text}))}},
    });
    Scene::of_tables(TABLES, MAPPING, model, ORACLE).await
}

/// Random changes in every table that takes part.
struct Changes {
    rng: Rng,
    client: Client,
    next: u64,
}

impl Changes {
    async fn new(scene: &Scene, seed: u64) -> Self {
        Self { rng: Rng::new(seed), client: scene.source.connect().await, next: 10_000 }
    }

    async fn run(&mut self, transactions: u32) {
        for _ in 0..transactions {
            let size = 1 + self.rng.below(4);
            let statements: Vec<String> = (0..size).map(|_| self.statement()).collect();
            let end = if self.rng.one_in(10) { "ROLLBACK" } else { "COMMIT" };
            let sql = format!("BEGIN; {}; {end}", statements.join("; "));
            if let Err(error) = self.client.batch_execute(&sql).await {
                assert!(error.code().is_some_and(|c| c.code().starts_with("23")), "{error:?}\n{sql}");
                self.client.batch_execute("ROLLBACK").await.expect("rolls back");
            }
        }
    }

    fn statement(&mut self) -> String {
        let mut below = |n: u64| self.rng.below(n);
        let (n, customer, order) = (below(1_000_000), 1 + below(300), 1 + below(500));
        self.next += 1;
        let next = self.next;
        let mut below = |n: u64| self.rng.below(n);
        match below(20) {
            0 => format!("UPDATE regions SET name = 'region {n}' WHERE id = {}", 1 + below(3)),
            1 => format!("UPDATE cities SET name = 'city {n}' WHERE id = {}", 1 + below(12)),
            2 => format!("UPDATE cities SET region_id = {} WHERE id = {}", 1 + below(4), 1 + below(12)),
            3 => format!("UPDATE customers SET city_id = {} WHERE id = {customer}", 1 + below(13)),
            4 => format!("UPDATE customers SET name = 'customer {n}' WHERE id = {customer}"),
            5 => format!("UPDATE customers SET boss_id = nullif({}, 0) WHERE id = {customer}", below(40)),
            6 => format!("UPDATE customers SET remark = '{n}' WHERE id = {customer}"),
            7 => format!("UPDATE tags SET name = 'tag {n}' WHERE id = {}", 1 + below(6)),
            8 => format!("INSERT INTO customer_tags VALUES ({customer}, {}) ON CONFLICT DO NOTHING", 1 + below(6)),
            9 => format!("DELETE FROM customer_tags WHERE customer_id = {customer}"),
            10 => {
                format!("UPDATE customer_tags SET tag_id = 10 + tag_id WHERE customer_id = {customer} AND tag_id < 10")
            }
            11 => format!("INSERT INTO orders VALUES ({next}, {customer}, '2026-02-03')"),
            12 => format!("DELETE FROM orders WHERE id = {order}"),
            13 => format!("UPDATE orders SET id = {next} WHERE id = {order}"),
            14 => format!("UPDATE orders SET customer_id = {customer} WHERE id = {order}"),
            15 => format!("INSERT INTO lines VALUES ({next}, {order}, 'sku {}', 2, {}.5)", n % 9, n % 50),
            16 => format!("UPDATE lines SET order_id = {order} WHERE id = {}", 1 + below(1500)),
            17 => format!("UPDATE lines SET qty = qty + 1, price = price + 0.01 WHERE order_id = {order}"),
            18 => format!("DELETE FROM lines WHERE id = {}", 1 + below(1500)),
            _ => format!("DELETE FROM customers WHERE id = {customer}"),
        }
    }
}

/// Random changes in every table while the snapshot runs and afterwards, the daemon killed in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_follow_every_row_they_show() {
    let mut scene = scene!(related());
    scene.tenant.chunk_rows = 50;
    let mut changes = Changes::new(&scene, seed("records_follow_every_row_they_show")).await;
    changes.run(100).await;
    let mut daemon = scene.start();
    changes.run(150).await;
    for _ in 0..3 {
        tokio::time::sleep(seconds(1)).await;
        daemon.kill();
        changes.run(60).await;
        daemon = scene.start();
        changes.run(60).await;
    }
    scene.equal(&mut daemon, seconds(90)).await;
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
}

/// One name that many records show: each of them is sent once, and a change that no record shows costs nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_shared_row_refreshes_its_records_once() {
    let scene = scene!(related());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    let before = scene.crm.history().len();
    scene.source.psql("UPDATE regions SET name = 'the north' WHERE id = 1");
    scene.equal(&mut daemon, seconds(30)).await;
    scene.quiet().await;
    let sent = scene.crm.history().len();
    assert_eq!(sent - before, 100, "a hundred customers live in the region");
    scene.source.psql("UPDATE customers SET remark = 'x'; UPDATE lines SET sku = sku");
    scene.source.psql("UPDATE regions SET name = 'the north' WHERE id = 1");
    tokio::time::sleep(seconds(2)).await;
    scene.quiet().await;
    assert_eq!(scene.crm.history().len(), sent, "nothing that a record shows has changed");
    daemon.stop(seconds(10)).await;
}

/// All rows of a related table vanish at once; a second start with nothing changed sends nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_related_table_empties_the_lists() {
    let scene = scene!(related());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.source.psql("TRUNCATE lines");
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    daemon.stop(seconds(10)).await;
    let writes = scene.crm.writes();
    let mut daemon = scene.start();
    scene.tenant.done(&["resync", "--all"]).await;
    tokio::time::sleep(seconds(3)).await;
    scene.quiet().await;
    assert_eq!(scene.crm.writes(), writes, "nothing has changed");
    scene.equal(&mut daemon, seconds(10)).await;
    daemon.stop(seconds(10)).await;
}
