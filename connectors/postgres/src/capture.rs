//! From a Relation message to the way a table's rows are read: what the log says, completed from the catalogue.

use crate::PostgresConfig;
use crate::assemble::{Captured, Step};
use crate::catalog::{self, Table, is_wanted, refused};
use crate::pgoutput::{Relation, RelationColumn};
use crate::position::{Tables, lost};
use crate::session::{Head, Session};
use crate::sql::Queries;
use crate::types::{Types, max_length};
use crate::wire::literal;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tidemark_contract::{Column, ErrorKind, Result, SourceError, TableId, TableRequest, TableSchema};
use tidemark_login::Session as _;

/// The tables of a stream, and its own SQL session for looking things up. (Not one of the pool: those may all be busy
/// with long reads, and the stream must not wait for them.)
pub(crate) struct Captures {
    config: Arc<PostgresConfig>,
    requests: HashMap<TableId, TableRequest>,
    tables: HashMap<TableId, Table>,
    /// The OIDs that the tables had when the stream was opened.
    opened: Tables,
    types: Types,
    session: Option<(Session, Instant)>,
}

impl Captures {
    pub(crate) fn new(
        config: Arc<PostgresConfig>,
        requests: &[TableRequest],
        tables: HashMap<TableId, Table>,
        types: Types,
    ) -> Self {
        let requests = requests.iter().map(|r| (r.table.clone(), r.clone())).collect();
        let opened = Tables::new(tables.iter().map(|(name, table)| (name, table.oid)));
        Self { config, requests, tables, opened, types, session: None }
    }

    async fn session(&mut self) -> Result<Session> {
        if let Some((mut session, since)) = self.session.take()
            && session.still_answers(since).await
        {
            return Ok(session);
        }
        Session::open(&self.config).await
    }

    fn keep(&mut self, session: Session) {
        self.session = Some((session, Instant::now()));
    }

    /// Where the log's head is now.
    pub(crate) async fn head(&mut self) -> Result<Head> {
        let mut session = self.session().await?;
        let head = session.head().await?;
        self.keep(session);
        Ok(head)
    }

    /// The captured tables that the publication does not publish now.
    pub(crate) async fn unpublished(&mut self) -> Result<Vec<TableId>> {
        let mut session = self.session().await?;
        let sql = format!(
            "SELECT t.schemaname, t.tablename, c.oid FROM pg_publication_tables t JOIN pg_namespace n ON n.nspname = t.schemaname
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename WHERE t.pubname = {}",
            literal(&self.config.publication)
        );
        let rows = session.connection.rows("checking the publication", &sql).await?;
        self.keep(session);
        let published: HashMap<TableId, u32> = rows
            .into_iter()
            .filter_map(|row| match &row[..] {
                [Some(schema), Some(name), Some(oid)] => {
                    Some((TableId::new(schema.as_str(), name.as_str()), oid.parse().ok()?))
                }
                _ => None,
            })
            .collect();
        // Under the same name, and the same table: renaming and making anew are gaps too.
        let is_published =
            |table: &&TableId| published.get(table).is_some_and(|oid| self.opened.oid(table) == Some(*oid));
        Ok(self.requests.keys().filter(|table| !is_published(table)).cloned().collect())
    }

    /// How rows of `relation` are read; `None` if nobody asked for that table.
    pub(crate) async fn resolve(&mut self, relation: &Relation) -> Result<Option<Captured>> {
        let id = TableId::new(relation.schema.clone(), relation.name.clone());
        let Some(request) = self.requests.get(&id).cloned() else { return Ok(None) };
        if self.opened.oid(&id) != Some(relation.oid) {
            return Err(lost(format!(
                "{id} is another table now: it was dropped and made again, or replaced by renaming"
            ))
            .hint("the log does not tell which rows that removed or brought: everything must be read again"));
        }
        let mut natives = HashMap::new();
        if !self.tables.get(&id).is_some_and(|table| agrees(table, relation)) {
            natives = self.look_up(&id, relation).await?;
        }
        let table = self.tables.get(&id).filter(|table| table.oid == relation.oid);
        capture(&request, relation, table, &self.types, &natives)
            .map(Some)
            .map_err(|reason| SourceError { kind: ErrorKind::SchemaChanged, ..refused(&id, &reason) })
    }

    /// Asks the catalogue about a table that looks other than we knew it; gives the names of types that the catalogue's
    /// table does not have.
    async fn look_up(&mut self, id: &TableId, relation: &Relation) -> Result<HashMap<(u32, i32), Box<str>>> {
        let mut session = self.session().await?;
        let found = catalog::describe(&mut session.connection, &mut self.types, std::slice::from_ref(id)).await?;
        let oids: Vec<u32> = relation.columns.iter().map(|c| c.type_oid).collect();
        self.types.learn(&mut session.connection, &oids).await?;
        let list: Vec<String> = relation.columns.iter().map(|c| format!("({}, {})", c.type_oid, c.modifier)).collect();
        let mut natives = HashMap::new();
        if !list.is_empty() {
            let sql = format!("SELECT t, m, format_type(t::oid, m) FROM (VALUES {}) AS v (t, m)", list.join(", "));
            for row in session.connection.rows("naming types", &sql).await? {
                if let [Some(oid), Some(modifier), Some(name)] = &row[..]
                    && let (Ok(oid), Ok(modifier)) = (oid.parse(), modifier.parse())
                {
                    natives.insert((oid, modifier), name.as_str().into());
                }
            }
        }
        self.keep(session);
        self.tables.remove(id);
        self.tables.extend(found);
        Ok(natives)
    }
}

/// Whether the catalogue, as we know it, describes exactly what the log describes. Types that can change without the
/// table (enumerations, composite types) are trusted only if the table has just been looked up, so tables with
/// user-defined types never agree.
fn agrees(table: &Table, relation: &Relation) -> bool {
    const FIRST_USER_OID: u32 = 16_384;
    let in_log = table.columns().iter().filter(|c| !c.generated || relation.columns.iter().any(|r| r.name == c.name));
    let same = |(c, r): (&catalog::TableColumn, &RelationColumn)| {
        c.name == r.name && c.type_oid == r.type_oid && c.modifier == r.modifier && r.type_oid < FIRST_USER_OID
    };
    let identity = char::from(relation.identity);
    table.oid == relation.oid
        && in_log.clone().count() == relation.columns.len()
        && in_log.zip(&relation.columns).all(same)
        && (table.kind == 'p' || table.identities.iter().flatten().all(|i| i.kind == identity))
}

fn capture(
    request: &TableRequest,
    relation: &Relation,
    table: Option<&Table>,
    types: &Types,
    natives: &HashMap<(u32, i32), Box<str>>,
) -> Result<Captured, String> {
    let key = key_names(request, relation, table)?;
    let key: Vec<&str> = key.iter().map(|k| &**k).collect();
    let partitioned = table.is_some_and(|t| t.kind == 'p');
    let whole = relation.identity == b'f' && (!partitioned || table.is_some_and(Table::is_full_identity));
    let mut columns = Vec::new();
    let mut steps = Vec::new();
    for item in in_table_order(relation, table) {
        match item {
            Item::Logged(logged) if !is_wanted(request, &key, &logged.name) => steps.push(Step::Skip),
            Item::Logged(logged) => {
                let kind = types.get(logged.type_oid).kind;
                // For a partitioned table only the key can be relied on in an old row that is not whole.
                let old = if partitioned { key.contains(&&*logged.name) } else { logged.identity };
                columns.push(column(logged, table, types, natives, whole));
                steps.push(Step::Take { kind, old });
            }
            Item::Generated(generated) if is_wanted(request, &key, &generated.name) => {
                columns.push(generated.described(types, whole, false));
                steps.push(Step::Absent);
            }
            Item::Generated(_) => {}
        }
    }
    let mut positions = Vec::with_capacity(key.len());
    for name in &key {
        let at = columns.iter().position(|c: &Column| *c.name == **name);
        positions.push(at.ok_or_else(|| format!("column {name} of its key is not in the log any more"))?);
    }
    positions.sort_unstable();
    let identified = partitioned
        || relation.identity == b'f'
        || key.iter().all(|k| relation.columns.iter().any(|c| c.identity && *c.name == **k));
    let identities: Option<bool> =
        table.filter(|_| partitioned).map(|t| t.identities.iter().flatten().all(|i| i.covers(&key)));
    let unidentified = (!identified || identities == Some(false)).then(|| {
        format!(
            "its replica identity does not include its key ({}), so the log does not tell which row changed",
            key.join(", ")
        )
    });
    let schema = TableSchema { table: request.table.clone(), columns, key: positions, full_before_image: whole };
    Ok(Captured {
        schema: Arc::new(schema),
        steps,
        fields: relation.columns.len(),
        whole_old_rows: whole,
        unidentified,
    })
}

/// The names of the key's columns at this place of the log.
fn key_names(request: &TableRequest, relation: &Relation, table: Option<&Table>) -> Result<Vec<Box<str>>, String> {
    if let Some(declared) = &request.key {
        return Ok(declared.clone());
    }
    // Under the default identity the log itself marks the primary key's columns, by the names they have here.
    let marked: Vec<Box<str>> = relation.columns.iter().filter(|c| c.identity).map(|c| c.name.clone()).collect();
    if relation.identity == b'd' && !marked.is_empty() {
        return Ok(marked);
    }
    match table {
        Some(table) => Ok(table.key(None)?.into_iter().map(Into::into).collect()),
        None => Err("it no longer exists under this name, and the log does not mark its key".into()),
    }
}

enum Item<'a> {
    Logged(&'a RelationColumn),
    /// In the catalogue, but never in the log.
    Generated(&'a catalog::TableColumn),
}

/// The logged columns with the generated ones among them, in the order of the table.
fn in_table_order<'a>(relation: &'a Relation, table: Option<&'a Table>) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    let mut logged = relation.columns.iter();
    for column in table.map(Table::columns).unwrap_or_default() {
        let in_log = relation.columns.iter().any(|c| c.name == column.name);
        if column.generated && !in_log {
            items.push(Item::Generated(column));
        } else if in_log {
            for next in logged.by_ref() {
                items.push(Item::Logged(next));
                if next.name == column.name {
                    break;
                }
            }
        }
    }
    items.extend(logged.map(Item::Logged));
    items
}

/// Describes a logged column: as the catalogue does, if it still has this very column, else from the log alone.
fn column(
    logged: &RelationColumn,
    table: Option<&Table>,
    types: &Types,
    natives: &HashMap<(u32, i32), Box<str>>,
    full: bool,
) -> Column {
    let same = table
        .and_then(|t| t.column(&logged.name))
        .filter(|c| c.type_oid == logged.type_oid && c.modifier == logged.modifier);
    if let Some(same) = same {
        // A generated column that is in the log after all (PostgreSQL 18 can do that) is like any other.
        return same.described(types, full, true);
    }
    let info = types.get(logged.type_oid);
    Column {
        name: logged.name.clone(),
        logical: info.kind.logical(),
        native: natives
            .get(&(logged.type_oid, logged.modifier))
            .cloned()
            .unwrap_or_else(|| format!("type {}", logged.type_oid).into()),
        nullable: true,
        max_length: max_length(&info, logged.modifier),
        may_be_unchanged: !full,
        unlogged: false,
        labels: info.labels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Kind;

    fn relation(identity: u8, columns: &[(&str, bool)]) -> Relation {
        let column = |(name, identity): &(&str, bool)| RelationColumn {
            name: (*name).into(),
            type_oid: 23,
            modifier: -1,
            identity: *identity,
        };
        Relation {
            oid: 1,
            schema: "s".into(),
            name: "t".into(),
            identity,
            columns: columns.iter().map(column).collect(),
        }
    }

    fn table(kind: char, identity: char) -> Table {
        let column = |name: &str, generated: bool| {
            format!(
                r#"{{"name":"{name}","type_oid":23,"modifier":-1,"native":"integer","not_null":true,
                    "generated":{generated},"toastable":false}}"#
            )
        };
        serde_json::from_str(&format!(
            r#"{{"schema":"s","name":"t","oid":1,"kind":"{kind}","persistence":"p","is_partition":false,
                "has_children":false,"is_secured":false,"may_select":true,
                "identities":[{{"kind":"{identity}","columns":["id"]}}],"columns":[{},{},{}],
                "unique":[{{"primary":true,"columns":["id"]}}]}}"#,
            column("g", true),
            column("id", false),
            column("x", false),
        ))
        .unwrap()
    }

    fn request() -> TableRequest {
        TableRequest { table: TableId::new("s", "t"), columns: None, key: None }
    }

    fn captured(relation: &Relation, table: Option<&Table>) -> Result<Captured, String> {
        capture(&request(), relation, table, &Types::default(), &HashMap::new())
    }

    fn names(captured: &Captured) -> Vec<&str> {
        captured.schema.columns.iter().map(|c| &*c.name).collect()
    }

    #[test]
    fn generated_columns_keep_their_place_and_are_never_in_a_tuple() {
        let table = table('r', 'd');
        let relation = relation(b'd', &[("id", true), ("x", false)]);
        assert!(agrees(&table, &relation));
        let captured = captured(&relation, Some(&table)).unwrap();
        assert_eq!(names(&captured), ["g", "id", "x"]);
        assert_eq!(captured.steps[0], Step::Absent);
        assert_eq!((captured.fields, &captured.schema.key[..]), (2, &[1][..]));
        assert!(captured.schema.columns[0].may_be_unchanged);
    }

    #[test]
    fn the_log_is_believed_about_columns_that_the_catalogue_no_longer_has() {
        let table = table('r', 'd');
        let before_rename = relation(b'd', &[("old_id", true), ("x", false), ("dropped", false)]);
        assert!(!agrees(&table, &before_rename));
        let captured = captured(&before_rename, Some(&table)).unwrap();
        assert_eq!(names(&captured), ["g", "old_id", "x", "dropped"]);
        assert_eq!(captured.schema.key, [1]);
    }

    #[test]
    fn an_identity_without_the_key_is_noticed() {
        let table = table('r', 'i');
        let by_x = relation(b'i', &[("id", false), ("x", true)]);
        assert!(captured(&by_x, Some(&table)).unwrap().unidentified.is_some());
        let full = relation(b'f', &[("id", true), ("x", true)]);
        assert!(captured(&full, Some(&table)).unwrap().unidentified.is_none());
        assert!(captured(&by_x, None).is_err(), "no key to be had");
    }

    #[test]
    fn partitions_decide_whether_old_rows_are_whole() {
        let full = relation(b'f', &[("id", true), ("x", true)]);
        let mixed = captured(&full, Some(&table('p', 'd'))).unwrap();
        assert!(!mixed.whole_old_rows && mixed.unidentified.is_none());
        assert_eq!(mixed.steps[2], Step::Take { kind: Kind::Int, old: false });
        assert!(captured(&full, Some(&table('p', 'f'))).unwrap().whole_old_rows);
        let mut nothing = table('p', 'd');
        nothing.identities = serde_json::from_str(r#"[{"kind":"n"}]"#).unwrap();
        assert!(captured(&full, Some(&nothing)).unwrap().unidentified.is_some());
    }
}
