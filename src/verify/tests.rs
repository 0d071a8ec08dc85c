//! Both sides in memory: each way a record can be wrong, and what moves while we look.

use super::*;
use crate::crm::{self, CrmSchema, Outcome, WriteRecord};
use crate::mapping::{CompileOptions, Pack, compile};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tidemark_contract::{
    Capabilities, ChangeStream, Column, FetchedRows, Finding, Lag, LogicalType, Position, Row, RowBuilder, ScanCursor,
    SnapshotChunk, SourceError, TableId, TableRequest, TableSchema,
};

const PACK: &str = r#"
tidemark = 1
[pack]
name = "shop"
version = "1"
[lookup.tier]
values = { "g" = "gold", "s" = "silver" }
unknown = "reject"
[record.account]
from = "customers as c"
external_id = "concat('c-', c.id)"
where = "c.name <> 'hidden'"
[record.account.fields]
name = "c.name"
tier = "lookup('tier', c.tier)"
parent = { ref = "account", external_id = "'c-' || c.parent", missing = "null" }
"#;

type RowOf = (i64, &'static str, &'static str, Option<i64>);

struct Shop {
    rows: Mutex<Vec<RowOf>>,
    schema: Arc<TableSchema>,
}

impl Shop {
    fn new(rows: &[RowOf]) -> Self {
        let column = |name: &str, logical, nullable| Column {
            name: name.into(),
            logical,
            native: "x".into(),
            nullable,
            max_length: None,
            may_be_unchanged: false,
            unlogged: false,
            labels: Vec::new(),
        };
        let schema = TableSchema {
            table: TableId::new("public", "customers"),
            columns: vec![
                column("id", LogicalType::Int, false),
                column("name", LogicalType::Text, false),
                column("tier", LogicalType::Text, false),
                column("parent", LogicalType::Int, true),
            ],
            key: vec![0],
            full_before_image: false,
        };
        Self { rows: Mutex::new(rows.to_vec()), schema: Arc::new(schema) }
    }

    fn row(of: &RowOf) -> Row {
        let mut row = RowBuilder::default();
        use tidemark_contract::Value as V;
        row.push(V::Int(of.0));
        row.push(V::Text(of.1));
        row.push(V::Text(of.2));
        row.push(of.3.map_or(V::Null, V::Int));
        row.finish()
    }

    fn barrier() -> Position {
        Position { log: "log".into(), place: "1".into() }
    }
}

#[async_trait]
impl Connector for Shop {
    fn name(&self) -> &'static str {
        "shop"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
    async fn preflight(&self, _: &[TableRequest]) -> Result<Vec<Finding>, SourceError> {
        Ok(Vec::new())
    }
    async fn discover(&self, _: &[TableRequest]) -> Result<Vec<Arc<TableSchema>>, SourceError> {
        Ok(vec![self.schema.clone()])
    }
    async fn estimate_rows(&self, _: &TableId) -> Result<Option<u64>, SourceError> {
        Ok(None)
    }
    async fn open_stream(
        &self,
        _: &[TableRequest],
        _: Option<&Position>,
    ) -> Result<Box<dyn ChangeStream>, SourceError> {
        panic!("a comparison opens no stream")
    }
    fn covers(&self, _: &Position, _: &Position) -> Result<bool, SourceError> {
        Ok(true)
    }
    async fn snapshot_chunk(
        &self,
        _: &TableRequest,
        after: Option<&ScanCursor>,
        limit: usize,
    ) -> Result<SnapshotChunk, SourceError> {
        let after: i64 = after.map_or(i64::MIN, |c| c.0.parse().expect("ours"));
        let rows = self.rows.lock().expect("not poisoned");
        let page: Vec<&RowOf> = rows.iter().filter(|r| r.0 > after).take(limit).collect();
        let next = page.last().filter(|_| page.len() == limit).map(|r| ScanCursor(r.0.to_string().into()));
        Ok(SnapshotChunk {
            schema: self.schema.clone(),
            rows: page.into_iter().map(Self::row).collect(),
            next,
            barrier: Self::barrier(),
        })
    }
    async fn fetch_rows(&self, _: &TableRequest, keys: &[RowKey]) -> Result<FetchedRows, SourceError> {
        let rows = self.rows.lock().expect("not poisoned");
        let find = |key: &RowKey| rows.iter().map(Self::row).find(|r| RowKey::of(r, &[0]).as_ref() == Some(key));
        Ok(FetchedRows { schema: self.schema.clone(), rows: keys.iter().map(find).collect(), barrier: Self::barrier() })
    }
    async fn find_rows(
        &self,
        _: &TableRequest,
        _: &[Box<str>],
        _: &[RowKey],
        _: Option<&ScanCursor>,
        _: usize,
    ) -> Result<SnapshotChunk, SourceError> {
        panic!("no rule of these tests has related rows")
    }
    async fn lag(&self, _: Option<&Position>) -> Result<Lag, SourceError> {
        Ok(Lag::default())
    }
    async fn release(&self) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }
}

/// A CRM that holds these records, in the order in which they are listed.
#[derive(Default)]
struct Records(Mutex<Vec<StoredRecord>>);

impl Records {
    fn new(records: &[(&str, Value)]) -> Self {
        Self(Mutex::new(records.iter().map(|(id, fields)| record(id, fields)).collect()))
    }
}

fn record(id: &str, fields: &Value) -> StoredRecord {
    StoredRecord {
        external_id: id.into(),
        version: None,
        fields: Json::fields(fields.to_string().as_bytes()).expect("an object"),
    }
}

#[async_trait]
impl Crm for Records {
    async fn check(&self) -> crm::Result<()> {
        Ok(())
    }
    async fn discover(&self) -> crm::Result<CrmSchema> {
        Ok(CrmSchema::default())
    }
    async fn upsert(&self, _: &str, _: &[WriteRecord<'_>]) -> crm::Result<Vec<Outcome>> {
        panic!("a comparison writes nothing")
    }
    async fn delete(&self, _: &str, _: &[WriteRecord<'_>]) -> crm::Result<Vec<Outcome>> {
        panic!("a comparison writes nothing")
    }
    async fn list(&self, _: &str, after: Option<&str>, limit: usize) -> crm::Result<Page> {
        let all = self.0.lock().expect("not poisoned");
        let mut records: Vec<StoredRecord> =
            all.iter().filter(|r| after.is_none_or(|after| *r.external_id > *after)).cloned().collect();
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|r| r.external_id.clone());
        Ok(Page { records, next })
    }
}

/// Changes something when it hears that differences are looked at again.
struct Hook<F: Fn(usize) + Sync>(F);

impl<F: Fn(usize) + Sync> Progress for Hook<F> {
    fn reading(&self, _: &str, _: u64, _: Option<u64>) {}
    fn comparing(&self, _: &str, _: u64) {}
    fn looking_again(&self, _: &str, left: usize) {
        self.0(left);
    }
}

fn mapping(shop: &Shop, pack: &str) -> Mapping {
    let pack = Pack::parse("shop/mapping.toml", pack, None, None).expect("a pack");
    let (mapping, _) =
        compile(&pack, std::slice::from_ref(&shop.schema), "public", None, &CompileOptions::default()).expect("fits");
    mapping
}

async fn compare(shop: &Shop, crm: &Records, looks: u32, hook: impl Fn(usize) + Sync) -> Result<EntityReport> {
    let mapping = mapping(shop, PACK);
    let side = Side { connector: shop, crm, mapping: &mapping, chunk_rows: 2, daemon: None };
    let options = Options {
        entities: Vec::new(),
        samples: 5,
        show_values: false,
        looks,
        wait: Duration::ZERO,
        dir: std::env::temp_dir(),
        memory: 300,
    };
    let report = verify(&side, &options, &Hook(hook)).await?;
    assert_eq!(report.equal, report.entities[0].is_equal());
    let repairs = report.repairs.len() as u64;
    let e = report.entities.into_iter().next().expect("one entity");
    assert_eq!(repairs, e.missing + e.different + e.extra + e.unmappable, "{e:?}");
    Ok(e)
}

fn account(name: &str, tier: &str) -> Value {
    json!({"name": name, "tier": tier, "parent": null, "owner": "not ours"})
}

#[tokio::test]
async fn equal_sides_are_equal() {
    // Keys in the table's order are not in the order of external ids: 10 sorts before 9.
    let rows: Vec<RowOf> = (1..=25).map(|n| (n, "A", "g", None)).chain([(26, "hidden", "g", None)]).collect();
    let mut records: Vec<(String, Value)> = (1..=25).map(|n| (format!("c-{n}"), account("A", "gold"))).collect();
    records.sort_by(|a, b| a.0.cmp(&b.0));
    let records: Vec<(&str, Value)> = records.iter().map(|(id, v)| (id.as_str(), v.clone())).collect();
    let report = compare(&Shop::new(&rows), &Records::new(&records), 1, |_| {}).await.expect("compared");
    assert!(report.is_equal(), "{report:?}");
    assert_eq!((report.expected, report.found, report.equal, report.settled), (25, 25, 25, 0));
}

#[tokio::test]
async fn every_way_to_be_wrong_is_told_apart() {
    let shop = Shop::new(&[
        (1, "right", "g", None),
        (2, "missing", "s", None),
        (3, "different", "g", None),
        (4, "unmappable", "?", None),
        (5, "child of nobody", "g", Some(99)),
        (6, "child of one", "g", Some(1)),
    ]);
    let crm = Records::new(&[
        ("c-1", account("right", "gold")),
        ("c-3", account("different", "silver")),
        ("c-5", account("child of nobody", "gold")),
        ("c-6", account("child of one", "gold")),
        ("zzz", account("extra", "gold")),
    ]);
    let report = compare(&shop, &crm, 1, |_| {}).await.expect("compared");
    let kinds: Vec<(Kind, Option<&str>, &[String])> =
        report.samples.iter().map(|s| (s.kind, s.external_id.as_deref(), &s.fields[..])).collect();
    assert_eq!(
        kinds,
        [
            (Kind::Missing, Some("c-2"), &[][..]),
            (Kind::Different, Some("c-3"), &["tier".to_owned()][..]),
            (Kind::Unmappable, Some("c-4"), &["lookup_unknown".to_owned()][..]),
            (Kind::Different, Some("c-6"), &["parent".to_owned()][..]),
            (Kind::Extra, Some("zzz"), &[][..]),
        ],
        "c-5 is right as null: its parent is not in the CRM"
    );
    assert_eq!(report.equal, 2);
    assert!(report.samples.iter().all(|s| s.expected.is_none() && s.found.is_none()), "no values unless asked for");
}

#[tokio::test]
async fn what_the_daemon_brings_while_we_look_is_no_difference() {
    let shop = Shop::new(&[(1, "late", "g", None), (2, "leaves", "g", None), (3, "moves", "g", None)]);
    let crm = Records::new(&[
        ("c-2", account("leaves", "gold")),
        ("c-3", account("moved", "gold")),
        ("c-4", account("new", "gold")),
    ]);
    let looks = std::sync::atomic::AtomicUsize::new(0);
    let report = compare(&shop, &crm, 4, |_| {
        let mut records = crm.0.lock().expect("not poisoned");
        let mut rows = shop.rows.lock().expect("not poisoned");
        match looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            // 3 changed at the source, 4 is new there: the CRM had both before we listed it.
            0 => {
                rows[2].1 = "moved";
                rows.push((4, "new", "g", None));
            }
            // 2 is deleted at the source, and the CRM follows later.
            1 => drop(rows.remove(1)),
            2 => {
                records.retain(|r| *r.external_id != *"c-2");
                records.insert(0, record("c-1", &account("late", "gold")));
            }
            _ => {}
        }
    })
    .await
    .expect("compared");
    assert!(report.is_equal(), "{report:?}");
    assert_eq!(report.settled, 3, "{report:?}");
}

#[tokio::test]
async fn a_crm_that_sorts_otherwise_is_told_so() {
    let crm = Records::new(&[("c-9", account("A", "gold")), ("c-10", account("A", "gold"))]);
    let error = compare(&Shop::new(&[]), &crm, 1, |_| {}).await.expect_err("is not in order");
    assert!(error.to_string().contains("byte order"), "{error}");
}

#[tokio::test]
async fn records_that_the_mapping_keeps_are_not_extra() {
    let shop = Shop::new(&[]);
    let crm = Records::new(&[("c-1", account("gone", "gold"))]);
    let mapping = mapping(&shop, &PACK.replace("[record.account]\n", "[record.account]\non_delete = \"ignore\"\n"));
    let side = Side { connector: &shop, crm: &crm, mapping: &mapping, chunk_rows: 10, daemon: None };
    let options = Options {
        entities: vec!["account".into()],
        samples: 5,
        show_values: true,
        looks: 1,
        wait: Duration::ZERO,
        dir: std::env::temp_dir(),
        memory: 1 << 20,
    };
    let report = verify(&side, &options, &Hook(|_| {})).await.expect("compared");
    assert!(report.equal && report.repairs.is_empty());
    assert_eq!(report.entities[0].left_behind, 1);
    let wrong = Options { entities: vec!["acount".into()], ..options };
    assert!(verify(&side, &wrong, &Hook(|_| {})).await.is_err());
}
