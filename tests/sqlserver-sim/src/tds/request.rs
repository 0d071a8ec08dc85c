//! Requests: "[MS-TDS] 2.2.6.7 SQLBatch", "2.2.6.6 RPC Request", "2.2.6.9 Transaction Manager Request".

use super::packet::{BATCH, Message, RPC, Reader, Short, TRANSACTION, utf16};
use super::types::parameter;
use crate::engine::procedures::Arguments;
use crate::engine::session::{Output, Session};
use crate::engine::transaction::Isolation;
use crate::error::{Result, SqlError};
use crate::types::SqlType;
use rusqlite::types::Value;

/// A procedure call.
struct Call {
    name: String,
    arguments: Vec<(Option<String>, SqlType, Value)>,
    outputs: Vec<String>,
}

/// Runs one request.
pub fn run(session: &mut Session, m: &Message, out: &mut dyn Output) {
    // The variables of a batch end with it.
    session.variables.clear();
    // RESETCONNECTION: "2.2.3.1.2 Status".
    if m.status & 0x18 != 0 {
        reset(session, out);
    }
    match m.kind {
        BATCH => match batch_text(&m.body) {
            Ok(text) => {
                session.batch(&text, out);
            }
            Err(Short) => fail(&broken(), out),
        },
        RPC => match read_call(&m.body) {
            Ok(Ok(call)) => {
                if let Err(e) = execute(session, call, out) {
                    session.last_error = e.number;
                    if matches!(e.number, 1205 | 3960 | 3961) && session.transaction.is_some() {
                        session.rollback_all(out);
                    }
                    fail(&e, out);
                }
            }
            Ok(Err(e)) => fail(&e, out),
            Err(Short) => fail(&broken(), out),
        },
        TRANSACTION => match read_transaction(&m.body) {
            Ok(request) => {
                if let Err(e) = transaction(session, &request, out) {
                    fail(&e, out);
                }
            }
            Err(Short) => fail(&broken(), out),
        },
        _ => fail(&SqlError::unmodelled("bulk load and other kinds of requests"), out),
    }
}

fn fail(e: &SqlError, out: &mut dyn Output) {
    out.error(e);
    out.done(None, false);
}

fn broken() -> SqlError {
    SqlError::new(
        4002,
        16,
        1,
        "The incoming tabular data stream (TDS) protocol stream is incorrect. The stream ended unexpectedly.",
    )
}

fn reset(session: &mut Session, out: &mut dyn Output) {
    if session.transaction.is_some() {
        session.rollback_all(out);
    }
    session.isolation = Isolation::ReadCommitted;
    session.lock_timeout = None;
    session.identity_insert = None;
    session.nocount = false;
    session.xact_abort = false;
    session.context = None;
}

/// The text of a batch.
fn batch_text(body: &[u8]) -> std::result::Result<String, Short> {
    let mut r = Reader::new(body);
    r.skip_headers()?;
    Ok(utf16(r.rest()))
}

fn read_call(body: &[u8]) -> std::result::Result<Result<Call>, Short> {
    let mut r = Reader::new(body);
    r.skip_headers()?;
    let n = r.u16()?;
    let name = if n == 0xFFFF {
        // Procedures by number.
        match r.u16()? {
            10 => "sp_executesql".into(),
            11 => "sp_prepare".into(),
            12 => "sp_execute".into(),
            13 => "sp_prepexec".into(),
            15 => "sp_unprepare".into(),
            2 => "sp_cursoropen".into(),
            7 => "sp_cursorfetch".into(),
            9 => "sp_cursorclose".into(),
            other => format!("number {other}"),
        }
    } else {
        r.ucs2(usize::from(n))?
    };
    r.u16()?;
    let mut call = Call { name, arguments: Vec::new(), outputs: Vec::new() };
    while !r.done() {
        let length = r.u8()?;
        // 0xFF and 0x80 begin another call in the same message.
        if length == 0xFF || (length == 0x80 && !call.arguments.is_empty()) {
            return Ok(Err(SqlError::unmodelled("several procedure calls in one request")));
        }
        let name = r.ucs2(usize::from(length))?;
        let status = r.u8()?;
        match parameter(&mut r) {
            Ok((ty, value)) => {
                if status & 1 == 1 {
                    call.outputs.push(name.clone());
                }
                call.arguments.push(((!name.is_empty()).then_some(name), ty, value));
            }
            Err(e) => return Ok(Err(e)),
        }
    }
    Ok(Ok(call))
}

fn execute(session: &mut Session, call: Call, out: &mut dyn Output) -> Result<()> {
    let name: Vec<String> = call.name.split('.').map(|p| p.trim_matches(['[', ']']).to_owned()).collect();
    let last = name.last().map(|n| n.to_ascii_lowercase()).unwrap_or_default();
    if last == "sp_executesql" {
        if let Some((_, _, Value::Text(t))) = call.arguments.first() {
            session.server.note_batch(t)?;
        }
        let after = session.execute_sql(Arguments::new(call.arguments), out)?;
        for output in call.outputs {
            if let Some((n, ty, v)) = after.iter().find(|(n, ..)| n.eq_ignore_ascii_case(&output)) {
                out.return_value(n, *ty, v);
            }
        }
        return Ok(());
    }
    session.server.note_batch(&call.name)?;
    session.procedure(&last, &name, Arguments::new(call.arguments), out)
}

/// A transaction manager request.
struct Request {
    kind: u16,
    isolation: u8,
    /// TM_COMMIT and TM_ROLLBACK may begin the next transaction at once.
    again: bool,
}

fn read_transaction(body: &[u8]) -> std::result::Result<Request, Short> {
    let mut r = Reader::new(body);
    r.skip_headers()?;
    let kind = r.u16()?;
    let mut request = Request { kind, isolation: 0, again: false };
    match kind {
        5 => request.isolation = r.u8()?,
        7 | 8 => {
            let n = r.u8()?;
            r.ucs2(usize::from(n) / 2)?;
            if !r.done() && r.u8()? & 1 == 1 {
                request.again = true;
                request.isolation = r.u8()?;
            }
        }
        _ => {}
    }
    Ok(request)
}

fn isolate(session: &mut Session, level: u8) {
    match level {
        1 | 2 => session.isolation = Isolation::ReadCommitted,
        3 | 4 => session.isolation = Isolation::Locking,
        5 => session.isolation = Isolation::Snapshot,
        _ => {}
    }
}

fn transaction(session: &mut Session, request: &Request, out: &mut dyn Output) -> Result<()> {
    match request.kind {
        5 => {
            isolate(session, request.isolation);
            session.begin(out)?;
        }
        7 => session.commit(out)?,
        8 => session.rollback(None, out)?,
        other => return Err(SqlError::unmodelled(format!("transaction manager request {other}"))),
    }
    if request.again {
        isolate(session, request.isolation);
        session.begin(out)?;
    }
    out.done(None, false);
    Ok(())
}
