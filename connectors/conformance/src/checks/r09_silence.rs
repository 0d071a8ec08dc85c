//! R9: neither row values nor secrets appear in errors, `Debug` output or logs.
//!
//! Why this proves it: rows hold marked values (in key, text, number and large columns) that exist nowhere else, and the
//! fixture names its secrets. Everything a person could ever see is collected: the `Debug` form of every message, chunk,
//! row and key; findings; errors, with their hints and all their causes, provoked in as many ways as possible (keys and
//! cursors that do not fit, tables that are not there, a damaged or closed server, wrong passwords); and every `tracing`
//! event and span of the process at every level. None of it may hold a mark, a secret, or a secret's percent-encoded or
//! base64 form.

use super::{Outcome, Stop, ensure};
use crate::fixture::{Cell, ColumnKind, Fixture, Op, TableDef};
use crate::guard::guarded;
use crate::logs::LogWatch;
use crate::tail::{Tail, brief, last_position, within};
use base64::Engine;
use std::fmt::Debug;
use std::sync::{Arc, PoisonError};
use tidemark_contract::{
    Connector, Position, RowBuilder, RowKey, ScanCursor, SourceError, TableId, TableRequest, Value,
};
use tokio::sync::Mutex;

const TEXT: &str = "mark-plum-kettle-4711";
const KEY: &str = "mark-key-lantern-0815";
const NUMBER: i64 = 7_731_446_655_882_211;
const WRONG_KEY: &str = "mark-wrong-key-thistle";
const CURSOR: &str = "mark-cursor-bramble";

/// The process's logs can only be watched for one check at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Collects everything people might read.
#[derive(Clone, Default)]
struct Words(Arc<std::sync::Mutex<Vec<String>>>);

impl Words {
    fn add(&self, what: &str, thing: &dyn Debug) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{what}: {thing:?}"));
    }

    fn error(&self, what: &str, error: &SourceError) {
        self.add(what, error);
        let mut text = format!("{what}: {error} hint: {:?}", error.hint);
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text.push_str(&format!(" cause: {error} / {error:?}"));
            cause = error.source();
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn result<T: Debug>(&self, what: &str, result: Result<T, SourceError>) {
        match result {
            Ok(value) => self.add(what, &value),
            Err(error) => self.error(what, &error),
        }
    }
}

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    let _alone = ONE_AT_A_TIME.lock().await;
    let needles = needles(&*fixture);
    let watch = LogWatch::begin(&needles).map_err(Stop::NotRun)?;
    let words = Words::default();
    let outcome = provoke(&fixture, &words).await;
    let (hits, events) = watch.end();
    let errors = outcome?;
    let words = std::mem::take(&mut *words.0.lock().unwrap_or_else(PoisonError::into_inner));
    for text in &words {
        if let Some(needle) = needles.iter().find(|needle| text.contains(*needle)) {
            return Err(Stop::failed(format!("{:?} appears in: {}", needle, around(text, needle))));
        }
    }
    if let Some(hit) = hits.first() {
        return Err(Stop::failed(format!("a marked value or a secret was logged ({} times): {hit}", hits.len())));
    }
    ensure!(errors > 2, "only {errors} errors could be provoked: the check proved too little");
    Ok(format!("{} texts, {errors} of them errors, and {events} log events", words.len()))
}

fn needles(fixture: &dyn Fixture) -> Vec<String> {
    let number = NUMBER.to_string();
    let mut all: Vec<String> = [TEXT, KEY, &number, WRONG_KEY, CURSOR].map(str::to_owned).to_vec();
    // The head of the large value is enough to know it by.
    all.push(crate::fixture::filler(9, 40));
    for secret in fixture.secrets() {
        let percent: String = secret.bytes().map(|b| format!("%{b:02X}")).collect();
        let partly: String = secret
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        all.extend([base64::engine::general_purpose::STANDARD.encode(&secret), percent, partly, secret]);
    }
    all.sort();
    all.dedup();
    all
}

fn around(text: &str, needle: &str) -> String {
    let at = text.find(needle).unwrap_or(0);
    let from = text[..at].char_indices().rev().nth(80).map_or(0, |(i, _)| i);
    brief(&text[from..]).replace(needle, "<HERE>")
}

/// Collects words and returns how many errors there were among them.
async fn provoke(fixture: &Arc<dyn Fixture>, words: &Words) -> Result<usize, Stop> {
    let table = TableDef::new(
        "silence",
        1,
        &[
            ("name", ColumnKind::Text),
            ("number", ColumnKind::Int),
            ("note", ColumnKind::Text),
            ("large", ColumnKind::Big),
        ],
    );
    let by_number = TableDef::new("silence_number", 1, &[("id", ColumnKind::Int), ("note", ColumnKind::Text)]);
    let tables = [table.clone(), by_number.clone()];
    fixture.reset(&tables).await?;
    let row = |name: &str| {
        Op::insert(
            "silence",
            &[Cell::text(name), Cell::Int(NUMBER), Cell::text(TEXT), Cell::Filler { seed: 9, len: 4_000 }],
        )
    };
    let more = [row(KEY), row("another"), Op::insert("silence_number", &[Cell::Int(NUMBER), Cell::text(TEXT)])];
    fixture.apply(&more).await?;

    let request = fixture.request(&table);
    let numbered = fixture.request(&by_number);
    let requests = [request.clone(), numbered.clone()];
    let connector = fixture.connector();
    words.result("preflight", connector.preflight(&requests).await);
    words.result("discover", connector.discover(&requests).await);
    let mut messages = Vec::new();
    let mut tail = Tail::open(&**fixture, connector.clone(), &requests, None, &mut messages).await?;
    for limit in [1, 100] {
        for request in &requests {
            let chunk = within(fixture.patience(), "a chunk", connector.snapshot_chunk(request, None, limit)).await?;
            if let Ok(chunk) = &chunk {
                let keys: Vec<_> = chunk.rows.iter().filter_map(|row| RowKey::of(row, &chunk.schema.key)).collect();
                words.add("keys", &keys);
                words.result("fetch_rows", connector.fetch_rows(request, &keys).await);
            }
            words.result("snapshot_chunk", chunk);
        }
    }
    fixture.apply(&[Op::update("silence", &[Cell::text(KEY)], &[("number", Cell::Int(NUMBER))]), row("third")]).await?;
    fixture.apply(&[Op::delete("silence", &[Cell::text(KEY)])]).await?;
    tail.drain_into(&mut messages).await?;
    words.add("messages", &messages);
    let position = last_position(&messages).unwrap_or_else(|| tail.start.clone());
    words.add("position", &position);
    words.result("acknowledge", tail.stream.acknowledge(&position).await);
    tail.close().await?;

    ask_wrongly(&*connector, words, &request, &numbered, &position).await;
    fixture.apply(&[Op::DropColumn { table: "silence_number".into(), column: "note".into() }]).await?;
    let gone = TableRequest { columns: Some(vec!["id".into(), "note".into()]), ..numbered.clone() };
    words.result("a dropped column", connector.snapshot_chunk(&gone, None, 10).await);

    for (label, broken) in fixture.broken().await? {
        words.result(&label, broken.discover(&requests).await);
        words.result(&label, broken.preflight(&requests).await);
        words.result(&label, broken.open_stream(&requests, None).await.map(|_| "opened"));
        words.result(&label, broken.release().await);
    }
    for seed in 0..fixture.hostile_seeds().min(8) {
        let Some(hostile) = fixture.hostile(seed).await? else { break };
        let (words, request) = (words.clone(), request.clone());
        // Panics are R6's business.
        let _ = guarded(fixture.patience(), async move {
            words.result("damaged discover", hostile.connector.discover(std::slice::from_ref(&request)).await);
            words.result("damaged chunk", hostile.connector.snapshot_chunk(&request, None, 10).await);
        })
        .await;
    }
    let all = words.0.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(all.iter().filter(|text| text.contains("SourceError {")).count())
}

/// Keys, cursors, positions and tables that do not fit; the values in them are row values too.
async fn ask_wrongly(
    connector: &dyn Connector,
    words: &Words,
    request: &TableRequest,
    numbered: &TableRequest,
    position: &Position,
) {
    let key = |values: &[Value<'_>]| {
        let mut row = RowBuilder::default();
        values.iter().for_each(|v| row.push(*v));
        RowKey::of(&row.finish(), &(0..values.len()).collect::<Vec<_>>())
    };
    let keys = [
        key(&[Value::Text(WRONG_KEY)]),
        key(&[Value::Int(NUMBER), Value::Text(WRONG_KEY)]),
        key(&[Value::Bytes(WRONG_KEY.as_bytes())]),
        key(&[]),
    ];
    for key in keys.into_iter().flatten() {
        words.result("a key of another type", connector.fetch_rows(numbered, &[key]).await);
    }
    for cursor in [CURSOR, "", "{\"", "[\"mark-cursor-bramble\",null]"] {
        let cursor = ScanCursor(cursor.into());
        words.result("a damaged cursor", connector.snapshot_chunk(numbered, Some(&cursor), 10).await);
        words.result("a damaged cursor", connector.snapshot_chunk(request, Some(&cursor), 10).await);
    }
    let missing = TableRequest { table: TableId::new(&*request.table.schema, "no_such_table"), ..request.clone() };
    words.result("a missing table", connector.discover(std::slice::from_ref(&missing)).await);
    words.result("a missing table", connector.snapshot_chunk(&missing, None, 10).await);
    words
        .result("a missing table", connector.open_stream(std::slice::from_ref(&missing), None).await.map(|_| "opened"));
    for place in ["", "nonsense", "0/0/0/0"] {
        let wrong = Position { log: position.log.clone(), place: place.into() };
        words.result("a damaged position", connector.covers(&wrong, position));
        let tables = std::slice::from_ref(request);
        words.result("a damaged position", connector.open_stream(tables, Some(&wrong)).await.map(|_| "opened"));
    }
    let foreign = Position { log: "another log".into(), place: position.place.clone() };
    words.result("another log", connector.covers(&foreign, position));
}
