//! Tokens of a response: "[MS-TDS] 2.2.7 Packet Data Token Stream Definition".

use super::types::{long_text, short_text, type_info, value};
use crate::engine::session::{Meta, Output};
use crate::error::SqlError;
use crate::options::Quirks;
use crate::types::{Kind, SqlType};
use rusqlite::types::Value;
use tokio::sync::mpsc::Sender;

const MORE: u16 = 1;
const ERROR: u16 = 2;
const COUNT: u16 = 0x10;
const ATTENTION: u16 = 0x20;

/// Bytes after which a part of the response is handed on.
const PART: usize = 32 << 10;

/// Writes tokens and hands them on in parts.
pub struct Tokens {
    out: Vec<u8>,
    sink: Option<Sender<Vec<u8>>>,
    rpc: bool,
    server: String,
    database: String,
    quirks: Quirks,
    /// A DONE that waits to learn whether more follows.
    pending: Option<(u16, u64, bool)>,
    status: Option<i32>,
    failed: bool,
}

impl Tokens {
    /// For a batch, or for a procedure call (`rpc`), whose statements end in DONEINPROC.
    pub fn new(server: &str, database: &str, quirks: Quirks, rpc: bool, sink: Option<Sender<Vec<u8>>>) -> Self {
        Self {
            out: Vec::new(),
            sink,
            rpc,
            server: server.into(),
            database: database.into(),
            quirks,
            pending: None,
            status: None,
            failed: false,
        }
    }

    /// The bytes so far, at the end.
    pub fn finish(mut self) -> Vec<u8> {
        if self.rpc {
            self.settle();
            self.out.push(0x79);
            self.out.extend(self.status.unwrap_or(0).to_le_bytes());
            self.done_token(0xFE, if self.failed { ERROR } else { 0 }, 0, false);
        } else {
            let (status, rows, select) = self.pending.take().unwrap_or((if self.failed { ERROR } else { 0 }, 0, false));
            self.done_token(0xFD, status, rows, select);
        }
        self.out
    }

    fn settle(&mut self) {
        if let Some((status, rows, select)) = self.pending.take() {
            self.done_token(if self.rpc { 0xFF } else { 0xFD }, status | MORE, rows, select);
        }
    }

    fn done_token(&mut self, token: u8, status: u16, rows: u64, select: bool) {
        self.out.push(token);
        self.out.extend(status.to_le_bytes());
        self.out.extend((if select { 0xC1u16 } else { 0xC3 }).to_le_bytes());
        self.out.extend(rows.to_le_bytes());
    }

    fn hand_on(&mut self) {
        if self.out.len() >= PART
            && let Some(sink) = &self.sink
        {
            // A receiver that is gone means that the client is; the statement runs to its end all the same.
            let _ = sink.blocking_send(std::mem::take(&mut self.out));
        }
    }

    fn message(&mut self, token: u8, e: &SqlError) {
        let mut body = e.number.to_le_bytes().to_vec();
        body.extend([e.state, e.class]);
        long_text(&e.message, &mut body);
        short_text(&self.server.clone(), &mut body);
        short_text("", &mut body);
        body.extend(1u32.to_le_bytes());
        self.out.push(token);
        self.out.extend((body.len() as u16).to_le_bytes());
        self.out.extend(body);
    }

    /// ENVCHANGE with text values.
    pub fn environment(&mut self, kind: u8, new: &str, old: &str) {
        let mut body = vec![kind];
        short_text(new, &mut body);
        short_text(old, &mut body);
        self.raw_environment(&body);
    }

    /// ENVCHANGE with bytes.
    pub fn raw_environment(&mut self, body: &[u8]) {
        self.settle();
        self.out.push(0xE3);
        self.out.extend((body.len() as u16).to_le_bytes());
        self.out.extend(body);
    }

    /// Bytes that are a token already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.settle();
        self.out.extend(bytes);
    }
}

/// The acknowledgement of an attention.
pub fn attention() -> Vec<u8> {
    let mut out = vec![0xFD];
    out.extend(ATTENTION.to_le_bytes());
    out.extend([0; 10]);
    out
}

impl Output for Tokens {
    fn columns(&mut self, columns: &[Meta]) {
        self.settle();
        self.out.push(0x81);
        self.out.extend((columns.len() as u16).to_le_bytes());
        for c in columns {
            let user_type: u32 = if c.ty.kind == Kind::RowVersion { 80 } else { 0 };
            self.out.extend(user_type.to_le_bytes());
            let updatable = if c.column { 2u16 } else { 0 };
            let flags = u16::from(c.nullable)
                | updatable << 2
                | u16::from(c.identity) << 4
                | u16::from(!c.column && !c.identity) << 5;
            self.out.extend(flags.to_le_bytes());
            type_info(c.ty, c.nullable, &self.database, &mut self.out);
            if c.ty.is_old_lob() {
                // TableName: no parts.
                self.out.push(0);
            }
            short_text(&c.name, &mut self.out);
        }
    }

    fn row(&mut self, columns: &[Meta], row: &[Value]) {
        let threshold = self.quirks.null_bitmap_from;
        let compressed = threshold > 0 && columns.len() >= threshold && row.contains(&Value::Null);
        if compressed {
            self.out.push(0xD2);
            let mut bitmap = vec![0u8; columns.len().div_ceil(8)];
            for (i, v) in row.iter().enumerate() {
                bitmap[i / 8] |= u8::from(*v == Value::Null) << (i % 8);
            }
            self.out.extend(bitmap);
        } else {
            self.out.push(0xD1);
        }
        for (c, v) in columns.iter().zip(row) {
            if !(compressed && *v == Value::Null) {
                value(v, c.ty, c.nullable, &mut self.out);
            }
        }
        self.hand_on();
    }

    fn done(&mut self, rows: Option<u64>, select: bool) {
        self.settle();
        let failed = if std::mem::take(&mut self.failed) { ERROR } else { 0 };
        if self.rpc && failed != 0 {
            self.failed = true;
        }
        self.pending = Some((failed | if rows.is_some() { COUNT } else { 0 }, rows.unwrap_or(0), select));
        self.hand_on();
    }

    fn info(&mut self, message: &SqlError) {
        self.settle();
        self.message(0xAB, message);
    }

    fn error(&mut self, error: &SqlError) {
        self.settle();
        self.message(0xAA, error);
        self.failed = true;
    }

    fn transaction(&mut self, id: i64, begun: Option<bool>) {
        let descriptor = id.to_le_bytes();
        let mut body = vec![match begun {
            Some(true) => 8,
            Some(false) => 9,
            None => 10,
        }];
        if begun == Some(true) {
            body.push(8);
            body.extend(descriptor);
            body.push(0);
        } else {
            body.push(0);
            body.push(8);
            body.extend(descriptor);
        }
        self.raw_environment(&body);
    }

    fn database(&mut self, old: &str, new: &str) {
        self.environment(1, new, old);
        self.database = new.into();
        self.info(&SqlError::new(5701, 0, 2, format!("Changed database context to '{new}'.")));
    }

    fn return_value(&mut self, name: &str, ty: SqlType, v: &Value) {
        self.settle();
        self.out.push(0xAC);
        self.out.extend(0u16.to_le_bytes());
        short_text(name, &mut self.out);
        self.out.push(1);
        self.out.extend([0; 6]);
        type_info(ty, true, &self.database, &mut self.out);
        value(v, ty, true, &mut self.out);
    }

    fn return_status(&mut self, status: i32) {
        self.status = Some(status);
    }
}
