//! The messages of the replication stream (pgoutput, protocol version 1), parsed in place. Pure: any bytes give a message
//! or an error (R6).

use crate::error::undecodable;
use crate::position::Lsn;
use tidemark_contract::{Result, SourceError};

/// Microseconds between 1970-01-01 and PostgreSQL's epoch 2000-01-01.
pub(crate) const EPOCH: i64 = 946_684_800_000_000;

/// What a CopyData frame of the replication stream holds.
pub(crate) enum Frame<'a> {
    /// A piece of the log: one message of pgoutput.
    Data(&'a [u8]),
    /// The server's report of how far it has read and sent.
    Keepalive { end: Lsn, reply: bool },
}

/// One message of pgoutput.
pub(crate) enum Message<'a> {
    /// A transaction begins. All its messages follow before any other transaction's.
    Begin {
        /// Where its commit record begins.
        commit: Lsn,
        /// Commit time in microseconds since 1970.
        at: i64,
        /// The low half of its number.
        xid: u32,
    },
    /// It ends; `end` is where its commit record ends.
    Commit {
        end: Lsn,
    },
    Relation(Relation),
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    Update {
        relation: u32,
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        old: Old<'a>,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// Origin, type, logical message: nothing for us.
    Other,
}

/// The old version of a row.
#[derive(Clone, Copy)]
pub(crate) struct Old<'a> {
    /// Whether the tuple is the whole row; otherwise only the columns of the replica identity have values.
    pub(crate) whole: bool,
    pub(crate) tuple: Tuple<'a>,
}

/// What a table looks like from here on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    pub(crate) schema: Box<str>,
    pub(crate) name: Box<str>,
    /// `relreplident`: d, i, f or n.
    pub(crate) identity: u8,
    pub(crate) columns: Vec<RelationColumn>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RelationColumn {
    pub(crate) name: Box<str>,
    pub(crate) type_oid: u32,
    pub(crate) modifier: i32,
    /// Whether it belongs to the replica identity.
    pub(crate) identity: bool,
}

/// The columns of a row, not yet cut apart.
#[derive(Clone, Copy)]
pub(crate) struct Tuple<'a> {
    pub(crate) columns: usize,
    bytes: &'a [u8],
}

/// One column of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field<'a> {
    Null,
    /// Stored out of line and not changed: the log does not have it.
    Unchanged,
    Text(&'a [u8]),
}

fn malformed(what: &str) -> SourceError {
    undecodable(format!("the replication stream holds a malformed {what}"))
}

/// A cursor that takes fixed-size numbers and texts from the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }

    fn u16(&mut self) -> Option<usize> {
        self.take().map(|b| usize::from(u16::from_be_bytes(b)))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn lsn(&mut self) -> Option<Lsn> {
        self.take().map(|b| Lsn(u64::from_be_bytes(b)))
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    fn text(&mut self) -> Option<Box<str>> {
        let end = memchr::memchr(0, self.0)?;
        let text = str::from_utf8(&self.0[..end]).ok()?;
        self.0 = &self.0[end + 1..];
        Some(text.into())
    }

    /// A tuple and what follows it.
    fn tuple(&mut self) -> Option<Tuple<'a>> {
        let columns = self.u16()?;
        let mut tuple = Tuple { columns, bytes: self.0 };
        let all = self.0;
        for _ in 0..columns {
            tuple.next()?;
        }
        self.0 = tuple.bytes;
        Some(Tuple { columns, bytes: &all[..all.len() - tuple.bytes.len()] })
    }
}

impl<'a> Tuple<'a> {
    /// The next column; `None` if the bytes are not a column (or are used up).
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Field<'a>> {
        let (kind, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        match kind {
            b't' => {
                let (length, rest) = rest.split_first_chunk::<4>()?;
                let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
                self.bytes = rest;
                Some(Field::Text(text))
            }
            b'n' => Some(Field::Null),
            b'u' => Some(Field::Unchanged),
            _ => None,
        }
    }
}

impl<'a> Frame<'a> {
    /// Reads the body of a CopyData message.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self> {
        let mut input = Input(body);
        let frame = match input.u8() {
            // Start of the data, end of the log, clock: the messages themselves tell what is needed.
            Some(b'w') => input.take::<24>().map(|_| Frame::Data(input.0)),
            Some(b'k') => (|| {
                let end = input.lsn()?;
                input.i64()?;
                Some(Frame::Keepalive { end, reply: input.u8()? != 0 })
            })(),
            _ => None,
        };
        frame.ok_or_else(|| malformed("frame"))
    }
}

impl<'a> Message<'a> {
    /// Reads one message.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut input = Input(bytes);
        let tag = input.u8().ok_or_else(|| malformed("message"))?;
        let (what, message) = match tag {
            b'I' => ("insert", insert(&mut input)),
            b'U' => ("update", update(&mut input)),
            b'D' => ("delete", delete(&mut input)),
            b'B' => ("begin", begin(&mut input)),
            b'C' => ("commit", commit(&mut input)),
            b'R' => ("relation", relation(&mut input)),
            b'T' => ("truncate", truncate(&mut input)),
            b'O' | b'Y' | b'M' => return Ok(Message::Other),
            // An unknown message may be a change of a row: skipping it could lose one (P5).
            other => {
                return Err(undecodable(format!(
                    "the replication stream holds a message of the unknown type {:?}",
                    char::from(other)
                )));
            }
        };
        message.ok_or_else(|| malformed(what))
    }
}

fn begin<'a>(input: &mut Input<'a>) -> Option<Message<'a>> {
    let commit = input.lsn()?;
    Some(Message::Begin { commit, at: input.i64()?.saturating_add(EPOCH), xid: input.u32()? })
}

fn commit<'a>(input: &mut Input<'a>) -> Option<Message<'a>> {
    input.u8()?;
    input.lsn()?;
    Some(Message::Commit { end: input.lsn()? })
}

fn insert<'a>(input: &mut Input<'a>) -> Option<Message<'a>> {
    let relation = input.u32()?;
    let b'N' = input.u8()? else { return None };
    Some(Message::Insert { relation, new: input.tuple()? })
}

fn update<'a>(input: &mut Input<'a>) -> Option<Message<'a>> {
    let relation = input.u32()?;
    let mut tag = input.u8()?;
    let mut old = None;
    if matches!(tag, b'K' | b'O') {
        old = Some(Old { whole: tag == b'O', tuple: input.tuple()? });
        tag = input.u8()?;
    }
    let b'N' = tag else { return None };
    Some(Message::Update { relation, old, new: input.tuple()? })
}

fn delete<'a>(input: &mut Input<'a>) -> Option<Message<'a>> {
    let relation = input.u32()?;
    let tag @ (b'K' | b'O') = input.u8()? else { return None };
    Some(Message::Delete { relation, old: Old { whole: tag == b'O', tuple: input.tuple()? } })
}

fn truncate<'a>(input: &mut Input<'a>) -> Option<Message<'a>> {
    let count = input.u32()?;
    input.u8()?;
    let relations = (0..count).map(|_| input.u32()).collect::<Option<Vec<u32>>>()?;
    Some(Message::Truncate { relations })
}

fn relation<'a>(input: &mut Input<'a>) -> Option<Message<'a>> {
    let oid = input.u32()?;
    let schema = input.text()?;
    let name = input.text()?;
    let identity = input.u8()?;
    let count = input.u16()?;
    let mut column = || {
        let flags = input.u8()?;
        let name = input.text()?;
        Some(RelationColumn { name, type_oid: input.u32()?, modifier: input.i32()?, identity: flags & 1 != 0 })
    };
    let columns = (0..count).map(|_| column()).collect::<Option<Vec<_>>>()?;
    // An empty name stands for pg_catalog.
    let schema = if schema.is_empty() { "pg_catalog".into() } else { schema };
    Some(Message::Relation(Relation { oid, schema, name, identity, columns }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames of a small, valid stream, for mutation.
    pub(crate) fn samples() -> Vec<Vec<u8>> {
        let tuple = |fields: &[&str]| {
            let mut out = u16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
            for field in fields {
                match *field {
                    "NULL" => out.push(b'n'),
                    "TOAST" => out.push(b'u'),
                    text => {
                        out.push(b't');
                        out.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                        out.extend_from_slice(text.as_bytes());
                    }
                }
            }
            out
        };
        let join = |parts: &[&[u8]]| parts.concat();
        let id = 7_u32.to_be_bytes();
        let lsn = |n: u64| n.to_be_bytes();
        let mut relation = join(&[b"R", &id, b"public\0t\0d", &[0, 2]]);
        for (flags, name, oid) in [(1_u8, "id", 23_u32), (0, "name", 25)] {
            relation.push(flags);
            relation.extend_from_slice(name.as_bytes());
            relation.push(0);
            relation.extend_from_slice(&oid.to_be_bytes());
            relation.extend_from_slice(&(-1_i32).to_be_bytes());
        }
        vec![
            join(&[b"B", &lsn(100), &lsn(0), &[0; 4]]),
            relation,
            join(&[b"I", &id, b"N", &tuple(&["1", "a"])]),
            join(&[b"U", &id, b"N", &tuple(&["1", "TOAST"])]),
            join(&[b"U", &id, b"K", &tuple(&["1", "NULL"]), b"N", &tuple(&["2", "b"])]),
            join(&[b"U", &id, b"O", &tuple(&["2", "b"]), b"N", &tuple(&["2", "NULL"])]),
            join(&[b"D", &id, b"K", &tuple(&["2", "NULL"])]),
            join(&[b"T", &1_u32.to_be_bytes(), &[0], &id]),
            join(&[b"C", &[0], &lsn(100), &lsn(130), &lsn(0)]),
            b"Mwhatever".to_vec(),
        ]
    }

    #[test]
    fn messages_are_read_and_every_cut_is_noticed() {
        for sample in samples() {
            assert!(Message::parse(&sample).is_ok());
            if sample[0] == b'M' {
                continue;
            }
            // The transaction number and the commit's clock at the end are not read.
            let unread = match sample[0] {
                b'B' => 4,
                b'C' => 8,
                _ => 0,
            };
            for cut in 0..sample.len() - unread {
                assert!(Message::parse(&sample[..cut]).is_err(), "{:?} cut at {cut}", char::from(sample[0]));
            }
        }
        assert!(Message::parse(b"S").is_err(), "an unknown message is an error, not a skip");
    }

    #[test]
    fn fields_keep_null_and_unchanged_apart() {
        let samples = samples();
        let Ok(Message::Update { old: None, mut new, .. }) = Message::parse(&samples[3]) else { panic!("update") };
        assert_eq!(new.next(), Some(Field::Text(b"1")));
        assert_eq!(new.next(), Some(Field::Unchanged));
        assert_eq!(new.next(), None);
        let Ok(Message::Update { old: Some(mut old), .. }) = Message::parse(&samples[4]) else { panic!("update") };
        assert!(!old.whole);
        old.tuple.next();
        assert_eq!(old.tuple.next(), Some(Field::Null));
    }

    #[test]
    fn frames() {
        let mut data = vec![b'w'];
        data.extend_from_slice(&[0; 24]);
        data.extend_from_slice(b"xyz");
        assert!(matches!(Frame::parse(&data), Ok(Frame::Data(b"xyz"))));
        let mut keepalive = vec![b'k'];
        keepalive.extend_from_slice(&77_u64.to_be_bytes());
        keepalive.extend_from_slice(&[0; 8]);
        keepalive.push(1);
        assert!(matches!(Frame::parse(&keepalive), Ok(Frame::Keepalive { end: Lsn(77), reply: true })));
        assert!(Frame::parse(&keepalive[..17]).is_err());
        assert!(Frame::parse(b"z").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Frame::parse(&bytes);
            let _ = Message::parse(&bytes);
        }
    }
}
