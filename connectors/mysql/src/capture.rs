//! From a table map to the way a table's rows are read: what the log says, completed from the catalogue.
//!
//! # Names from the log
//!
//! Under `binlog_row_metadata=FULL` a table map names its columns and carries signs, collations, labels and the primary
//! key. Rows are then cut and named by the log alone; the catalogue adds only what decoding does not depend on, and only
//! for columns whose type in the log fits what it says.
//!
//! # Names from the catalogue
//!
//! Otherwise the catalogue has to lend its names, and it may be ahead of the log: after DROP and ADD of a column a row
//! would be taken for what it is not, without an error. So each reading of the catalogue is given its place in the log,
//! the head of the log right behind it, and is trusted under these rules:
//!
//! * A table whose columns differ from those at the position from which the stream goes on (their hash is part of the
//!   position) has been altered in between: until the log is read up to the head, rows of it without names are
//!   [`ErrorKind::PositionLost`].
//! * So are they if the stream itself meets a statement that alters the table at a place before the reading of the
//!   catalogue: the shape between that statement and the reading is not known.
//! * If rows were already decoded by a reading from behind such a statement, they may have been decoded wrongly: the
//!   position is lost too, and everything is read again.
//! * A statement met behind the reading makes the catalogue be read again before the next row.

use crate::MysqlConfig;
use crate::assemble::{Plan, Step};
use crate::catalog::{self, Image, Settings, Table, TableColumn, folded, is_wanted};
use crate::charset::Charset;
use crate::ddl::{Effect, is_ghost_of};
use crate::decode::{bit_count, fits};
use crate::error::{lost, setting_wrong};
use crate::event::{LogColumn, TableMap, code};
use crate::position::{Head, Shapes, numbered};
use crate::session::Session;
use crate::types::{Kind, ZeroPolicy};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tidemark_contract::{Column, ErrorKind, Result, SourceError, TableId, TableRequest, TableSchema};
use tidemark_login::Session as _;

/// A place in the log of the server at hand: number of the file, offset.
pub(crate) type Spot = (u64, u64);

/// A table as it was when the catalogue was last read.
struct Known {
    request: TableRequest,
    table: Option<Table>,
    /// The head of the log right behind that reading.
    read_at: Spot,
    /// Rows were decoded with names from that reading.
    lent_names: bool,
    /// The log before `read_at` may hold rows of another shape.
    uncertain: bool,
    /// A statement behind the reading altered the table.
    stale: bool,
    /// The work copy of an online schema tool took the table's place, and no row was read since.
    swapped: bool,
    /// The last table map and what was made of it.
    last: Option<(TableMap, Plan)>,
    /// The last schema announced or discovered.
    schema: Option<Arc<TableSchema>>,
}

impl Known {
    /// Whether one of these columns is asked for, or any if none is named.
    fn uses(&self, columns: &[String]) -> bool {
        let key: Vec<&str> = self.schema.iter().flat_map(|s| s.key.iter().map(|at| &*s.columns[*at].name)).collect();
        columns.is_empty() || columns.iter().any(|column| is_wanted(&self.request, &key, column))
    }
}

/// What a statement did to the tables of a stream.
pub(crate) struct Outcome {
    /// All their rows are gone.
    pub(crate) emptied: Vec<Arc<TableSchema>>,
    /// Values of their rows are others now, and the log does not tell which.
    pub(crate) rewritten: Vec<TableId>,
}

/// The tables of a stream, and its own SQL session for looking things up. (Not one of the pool: those may all be busy
/// with long reads, and the stream must not wait for them.)
pub(crate) struct Captures {
    config: Arc<MysqlConfig>,
    known: HashMap<TableId, Known>,
    settings: Settings,
    /// Character sets by the numbers of their collations.
    collations: HashMap<u32, Charset>,
    session: Option<(Session, Instant)>,
    rewritten: Vec<TableId>,
}

fn spot(head: &Head) -> Spot {
    (numbered(&head.file).map_or(0, |(_, number)| number), head.offset)
}

impl Captures {
    /// Reads the catalogue. `stored` are the hashes of the tables' columns at the position from which the stream goes on.
    pub(crate) async fn open(
        config: Arc<MysqlConfig>,
        requests: &[TableRequest],
        mut session: Session,
        stored: Option<&Shapes>,
    ) -> Result<Self> {
        let settings = catalog::settings(&mut session.connection).await?;
        let names: Vec<TableId> = requests.iter().map(|r| r.table.clone()).collect();
        let mut found = catalog::describe(&mut session.connection, &names, settings.fold).await?;
        let read_at = spot(&session.head().await?);
        let collations = collations(&mut session).await?;
        let mut known = HashMap::new();
        for request in requests {
            let table = found.remove(&request.table).ok_or_else(|| catalog::missing_table(&request.table))?;
            let shape = table.shape(request, &config, settings.image);
            let shape = shape.map_err(|reason| catalog::refused(&request.table, &reason))?;
            let before = stored.and_then(|s| s.get(&request.table));
            let entry = Known {
                request: request.clone(),
                uncertain: before.is_some_and(|hash| hash != table.shape_hash()),
                table: Some(table),
                read_at,
                lent_names: false,
                stale: false,
                swapped: false,
                last: None,
                schema: Some(shape.schema),
            };
            known.insert(folded(&request.table, settings.fold), entry);
        }
        Ok(Self {
            config,
            known,
            settings,
            collations,
            session: Some((session, Instant::now())),
            rewritten: Vec::new(),
        })
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

    /// Ends another connection of ours.
    pub(crate) async fn kill(&mut self, id: u32) -> Result<()> {
        let mut session = self.session().await?;
        session.connection.run("ending the stream's connection", &format!("KILL {id}")).await?;
        session.connection.quit().await;
        Ok(())
    }

    fn fold(&self, schema: &str, name: &str) -> TableId {
        folded(&TableId::new(schema, name), self.settings.fold)
    }

    /// Whether somebody asked for that table.
    pub(crate) fn is_wanted(&self, schema: &str, name: &str) -> bool {
        self.known.contains_key(&self.fold(schema, name))
    }

    /// Whether a table map that was resolved before can be relied on without another look.
    pub(crate) fn is_settled(&self, schema: &str, name: &str) -> bool {
        let known = self.known.get(&self.fold(schema, name));
        known.is_some_and(|known| {
            !known.stale && known.last.as_ref().is_some_and(|(_, plan)| plan.named || !known.uncertain)
        })
    }

    /// Hashes of the tables' columns as they are taken to be at the place that was reached.
    pub(crate) fn shapes(&self) -> Shapes {
        let mut shapes = Shapes::default();
        for known in self.known.values() {
            if let Some(table) = &known.table {
                shapes.set(&known.request.table, table.shape_hash());
            }
        }
        shapes
    }

    /// Takes notice of a statement in the log, at `at`.
    pub(crate) fn statement(&mut self, effects: &[Effect], at: Spot) -> Result<Outcome> {
        let mut emptied = Vec::new();
        let mut rewritten = Vec::new();
        let fold = self.settings.fold;
        for effect in effects {
            match effect {
                Effect::Altered(table) => self.altered(table, at)?,
                Effect::Rewritten(table, columns) => {
                    if let Some(known) = self.known.get(&folded(table, fold))
                        && known.uses(columns)
                    {
                        rewritten.push(known.request.table.clone());
                    }
                }
                Effect::Emptied(table) => {
                    if let Some(known) = self.known.get(&folded(table, fold)) {
                        emptied.extend(known.schema.clone());
                    }
                }
                Effect::DatabaseGone(database) => {
                    let same = |t: &TableId| {
                        if fold { t.schema.eq_ignore_ascii_case(database) } else { t.schema == *database }
                    };
                    let gone = self.known.iter().filter(|(table, _)| same(table));
                    emptied.extend(gone.filter_map(|(_, known)| known.schema.clone()));
                }
                Effect::PartlyReplaced(table) => {
                    if self.known.contains_key(&folded(table, fold)) {
                        return Err(lost(format!(
                            "a partition of table {table} was dropped, emptied or exchanged: the log does not tell which \
                             rows that removed or brought"
                        ))
                        .hint("everything must be read again"));
                    }
                }
                Effect::Renamed(from, to) => {
                    let replaces = self.known.contains_key(&folded(to, fold));
                    // What an online schema tool puts in a table's place holds the same rows.
                    if replaces && !is_ghost_of(&folded(from, fold), &folded(to, fold)) {
                        return Err(lost(format!(
                            "table {to} was replaced by renaming {from}: the log does not tell which rows it holds now"
                        ))
                        .hint("everything must be read again"));
                    }
                    if replaces {
                        self.altered(to, at)?;
                        if let Some(known) = self.known.get_mut(&folded(to, fold)) {
                            known.swapped = true;
                        }
                    } else if let Some(known) = self.known.get(&folded(from, fold)) {
                        tracing::warn!(table = %known.request.table, now = %to, "the table was renamed");
                    }
                }
                Effect::Statement(names) => {
                    if let Some(name) = names.iter().find(|n| self.known.contains_key(&folded(n, fold))) {
                        return Err(setting_wrong(format!(
                            "rows of table {name} were changed by a statement that is in the log itself, without its rows"
                        ))
                        .hint(
                            "SET GLOBAL binlog_format = 'ROW', end the sessions that still use another format, and read \
                             the table again (tidemark resync)",
                        ));
                    }
                }
            }
        }
        Ok(Outcome { emptied, rewritten })
    }

    /// Tables whose work copy, put in their place, turned out to hold columns of other types.
    pub(crate) fn take_rewritten(&mut self) -> Vec<TableId> {
        std::mem::take(&mut self.rewritten)
    }

    fn altered(&mut self, table: &TableId, at: Spot) -> Result<()> {
        let Some(known) = self.known.get_mut(&folded(table, self.settings.fold)) else { return Ok(()) };
        if at > known.read_at {
            known.stale = true;
            return Ok(());
        }
        if known.lent_names {
            return Err(uncertain_names(&known.request.table));
        }
        known.uncertain = true;
        Ok(())
    }

    /// How rows of a table are read; `None` if nobody asked for it. `at` is where the table map lies.
    pub(crate) async fn resolve(&mut self, map: &TableMap, at: Spot) -> Result<Option<Plan>> {
        let id = self.fold(&map.schema, &map.name);
        let Some(known) = self.known.get(&id) else { return Ok(None) };
        let same = |last: &TableMap| last.columns == map.columns && last.key == map.key;
        if let Some((last, plan)) = &known.last
            && !known.stale
            && same(last)
            && (plan.named || !known.uncertain || at > known.read_at)
        {
            return Ok(Some(plan.clone()));
        }
        let agrees = known.table.as_ref().is_some_and(|table| self.agrees(table, map));
        if known.stale || !agrees {
            self.look_up(&id).await?;
        }
        let Some(known) = self.known.get_mut(&id) else { return Ok(None) };
        let named = map.columns.iter().all(|c| c.name.is_some());
        if !named && known.uncertain && at <= known.read_at {
            return Err(uncertain_names(&known.request.table));
        }
        let plan =
            build(&self.config, &known.request, map, known.table.as_ref(), self.settings.image, &self.collations)
                .map_err(|reason| {
                    let refused = catalog::refused(&known.request.table, &reason);
                    SourceError { kind: ErrorKind::SchemaChanged, ..refused }
                })?;
        known.lent_names |= !named;
        let mut plan = plan;
        if std::mem::take(&mut known.swapped)
            && let Some(before) = &known.schema
            && plan
                .schema
                .columns
                .iter()
                .any(|c| before.columns.iter().any(|b| b.name == c.name && b.native != c.native))
        {
            self.rewritten.push(known.request.table.clone());
        }
        match &known.schema {
            Some(schema) if **schema == *plan.schema => plan.schema = schema.clone(),
            _ => known.schema = Some(plan.schema.clone()),
        }
        known.last = Some((map.clone(), plan.clone()));
        Ok(Some(plan))
    }

    /// Whether the catalogue describes exactly what the log describes.
    fn agrees(&self, table: &Table, map: &TableMap) -> bool {
        let id = table.id();
        let same = |(logged, column): (&LogColumn, &TableColumn)| {
            logged.name.as_ref().is_none_or(|name| *name == column.name)
                && column.kind(&self.config, &id).is_ok_and(|kind| fits(logged, &kind) && labels_agree(logged, &kind))
        };
        table.columns.len() == map.columns.len() && map.columns.iter().zip(&table.columns).all(same)
    }

    /// Reads the catalogue's description of one table again.
    async fn look_up(&mut self, id: &TableId) -> Result<()> {
        let Some(request) = self.known.get(id).map(|known| known.request.clone()) else { return Ok(()) };
        let mut session = self.session().await?;
        let names = std::slice::from_ref(&request.table);
        let mut found = catalog::describe(&mut session.connection, names, self.settings.fold).await?;
        self.settings = catalog::settings(&mut session.connection).await?;
        let read_at = spot(&session.head().await?);
        self.collations = collations(&mut session).await?;
        self.keep(session);
        if let Some(known) = self.known.get_mut(id) {
            known.table = found.remove(&request.table);
            known.read_at = read_at;
            known.stale = false;
            known.lent_names = false;
            known.last = None;
        }
        Ok(())
    }
}

fn uncertain_names(table: &TableId) -> SourceError {
    lost(format!(
        "table {table} was altered, and the log does not name the columns of rows written before or after that: which value \
         belongs to which column cannot be told"
    ))
    .hint("SET GLOBAL binlog_row_metadata = 'FULL', so that the log names its columns; now everything must be read again")
}

fn labels_agree(logged: &LogColumn, kind: &Kind) -> bool {
    match (kind, &logged.labels) {
        (Kind::Enum(labels, charset) | Kind::Set(labels, charset), Some(bytes)) => {
            labels.len() == bytes.len() && labels.iter().zip(bytes).all(|(label, b)| *label == charset.text(b))
        }
        _ => true,
    }
}

async fn collations(session: &mut Session) -> Result<HashMap<u32, Charset>> {
    // MariaDB's newer collations serve several character sets, under a number for each.
    let sql = if session.connection.is_mariadb && session.server.version >= (10, 10) {
        "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"
    } else {
        "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS"
    };
    let rows = session.connection.rows("reading the collations", sql).await?;
    let pair = |row: Vec<Option<String>>| match &row[..] {
        [Some(id), Some(name)] => Some((id.parse().ok()?, Charset::named(name))),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(pair).collect())
}

/// What a column is by the log alone.
fn kind_of(
    config: &MysqlConfig,
    table: &TableId,
    column: &LogColumn,
    collations: &HashMap<u32, Charset>,
) -> Result<(Kind, &'static str), String> {
    let name = column.name.as_deref().unwrap_or("?");
    let zero = || Arc::new(ZeroPolicy::of(config, table, name));
    let unsigned = column.unsigned.unwrap_or(false);
    let charset = match column.collation {
        Some(63) | None => Charset::Binary,
        Some(id) => collations.get(&id).copied().unwrap_or(Charset::Other),
    };
    let labels = || -> Arc<[Box<str>]> {
        column.labels.iter().flatten().map(|bytes| charset.text(bytes)).collect::<Vec<_>>().into()
    };
    let int = Kind::Int { unsigned };
    Ok(match column.code {
        code::TINY => (int, "tinyint"),
        code::SHORT => (int, "smallint"),
        code::INT24 => (int, "mediumint"),
        code::LONG => (int, "int"),
        code::LONGLONG => (int, "bigint"),
        code::FLOAT => (Kind::Float, "float"),
        code::DOUBLE => (Kind::Double, "double"),
        code::NEWDECIMAL => (Kind::Decimal, "decimal"),
        code::YEAR => (Kind::Year, "year"),
        code::BIT => (Kind::Bit(bit_count(column)), "bit"),
        code::DATE | code::NEWDATE => (Kind::Date(zero()), "date"),
        code::TIME | code::TIME2 => (Kind::Time, "time"),
        code::DATETIME | code::DATETIME2 => (Kind::DateTime(zero()), "datetime"),
        code::TIMESTAMP | code::TIMESTAMP2 => (Kind::Timestamp(zero()), "timestamp"),
        code::STRING if charset == Charset::Binary => (Kind::Text(charset, Some(u32::from(column.meta))), "binary"),
        code::STRING => (Kind::Text(charset, None), "char"),
        code::VARCHAR | code::VAR_STRING | code::VARCHAR_COMPRESSED if charset == Charset::Binary => {
            (Kind::Text(charset, None), "varbinary")
        }
        code::VARCHAR | code::VAR_STRING | code::VARCHAR_COMPRESSED => (Kind::Text(charset, None), "varchar"),
        code::BLOB | code::TINY_BLOB | code::MEDIUM_BLOB | code::LONG_BLOB | code::BLOB_COMPRESSED => {
            (Kind::Text(charset, None), if charset == Charset::Binary { "blob" } else { "text" })
        }
        code::ENUM => (Kind::Enum(labels(), charset), "enum"),
        code::SET => (Kind::Set(labels(), charset), "set"),
        code::JSON => (Kind::Json, "json"),
        code::GEOMETRY => (Kind::Geometry, "geometry"),
        code::VECTOR => (Kind::Vector, "vector"),
        other => return Err(format!("column {name} has the type number {other} in the log, which is not known here")),
    })
}

/// The kind of a column that the catalogue knows, corrected by what the log carries.
fn corrected(kind: Kind, column: &LogColumn, collations: &HashMap<u32, Charset>) -> Kind {
    let logged = match column.collation {
        Some(63) => Some(Charset::Binary),
        Some(id) => collations.get(&id).copied(),
        None => None,
    };
    let labels = |charset: Charset| -> Option<Arc<[Box<str>]>> {
        let bytes = column.labels.as_ref()?;
        Some(bytes.iter().map(|b| charset.text(b)).collect::<Vec<_>>().into())
    };
    match kind {
        Kind::Text(charset, _) => {
            let charset = logged.unwrap_or(charset);
            // BINARY: the width is the one that the row was written in.
            let is_padded = charset == Charset::Binary && column.code == code::STRING;
            Kind::Text(charset, is_padded.then(|| u32::from(column.meta)))
        }
        Kind::JsonText(charset) => Kind::JsonText(logged.unwrap_or(charset)),
        Kind::Enum(known, charset) => {
            let charset = logged.unwrap_or(charset);
            Kind::Enum(labels(charset).unwrap_or(known), charset)
        }
        Kind::Set(known, charset) => {
            let charset = logged.unwrap_or(charset);
            Kind::Set(labels(charset).unwrap_or(known), charset)
        }
        other => other,
    }
}

fn build(
    config: &MysqlConfig,
    request: &TableRequest,
    map: &TableMap,
    table: Option<&Table>,
    image: Image,
    collations: &HashMap<u32, Charset>,
) -> Result<Plan, String> {
    let named = map.columns.iter().all(|c| c.name.is_some());
    let catalogued = || table.map_or(&[][..], |t| &t.columns[..]);
    if !named && catalogued().len() != map.columns.len() {
        return Err(format!(
            "its rows in the log have {} columns without names, and the catalogue knows {}; \
             SET GLOBAL binlog_row_metadata = 'FULL'",
            map.columns.len(),
            catalogued().len()
        ));
    }
    let name_at = |at: usize| match &map.columns[at].name {
        Some(name) => &**name,
        None => catalogued().get(at).map_or("", |c| &*c.name),
    };
    let key: Vec<&str> = match (&request.key, &map.key) {
        (Some(declared), _) => declared.iter().map(|k| &**k).collect(),
        (None, Some(positions)) if positions.iter().all(|at| *at < map.columns.len()) => {
            positions.iter().map(|at| name_at(*at)).collect()
        }
        _ => match table {
            Some(table) => table.key(None)?.into_iter().map(|c| &*c.name).collect(),
            None => return Err("it no longer exists, and the log does not name its key".into()),
        },
    };
    let mut columns = Vec::new();
    let mut steps = Vec::new();
    for (at, logged) in map.columns.iter().enumerate() {
        let name = name_at(at);
        if !is_wanted(request, &key, name) {
            steps.push(Step { column: logged.clone(), kind: None });
            continue;
        }
        let is_key = key.iter().any(|k| k.eq_ignore_ascii_case(name));
        let known = table.and_then(|t| t.column(name));
        let kind = known.and_then(|c| Some((c, c.kind(config, &request.table).ok()?)));
        let (kind, column) = match kind {
            Some((column, kind)) if fits(logged, &kind) => {
                let kind = corrected(kind, logged, collations);
                let described = column.described(&kind, image, is_key);
                (kind, described)
            }
            _ if !named => {
                return Err(format!(
                    "column {name} is another in the log than in the catalogue, and the log has no names"
                ));
            }
            _ => {
                let (kind, native) = kind_of(config, &request.table, logged, collations)?;
                let labels = match &kind {
                    Kind::Enum(labels, _) | Kind::Set(labels, _) => labels.to_vec(),
                    _ => Vec::new(),
                };
                let described = Column {
                    name: name.into(),
                    logical: kind.logical(),
                    native: native.into(),
                    nullable: logged.nullable,
                    max_length: None,
                    may_be_unchanged: image != Image::Full && !is_key,
                    unlogged: false,
                    labels,
                };
                (kind, described)
            }
        };
        columns.push(column);
        let kind = if is_key { kind.in_key() } else { kind };
        steps.push(Step { column: logged.clone(), kind: Some(kind) });
    }
    let mut positions = Vec::with_capacity(key.len());
    for name in &key {
        let at = columns.iter().position(|c: &Column| c.name.eq_ignore_ascii_case(name));
        positions.push(at.ok_or_else(|| format!("column {name} of its key is not in the log any more"))?);
    }
    positions.sort_unstable();
    let full_before_image = image == Image::Full;
    let schema = TableSchema { table: request.table.clone(), columns, key: positions, full_before_image };
    Ok(Plan { schema: Arc::new(schema), steps, named })
}
