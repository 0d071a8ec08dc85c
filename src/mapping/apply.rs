//! Rows → records.
//!
//! A row may lack columns that the log left out ([`tidemark_contract::Value::Unchanged`]). A field that reads that one column alone is left
//! out of the document, and the CRM keeps what it has. Anything else that would need the column cannot be computed:
//! a condition, an external id, a reference, a field that mixes it with other columns. Then the whole row is asked for
//! ([`Applied::NeedsRow`]); guessing a null would corrupt the CRM in silence.

use super::expr::eval::Env;
use super::expr::value::{Fail, Val, readable};
use super::expr::{cast, ir::Node};
use super::json::{write_text, write_val, write_value};
use super::related::{Item, List};
use super::rule::{BoundRule, FieldBody, FieldProgram, Part};
use super::{Applied, Reference, Rejection};
use crate::document::Document;
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::cell::RefCell;
use tidemark_contract::Row;

/// A record's external id, as far as one row tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExternalId {
    /// This one.
    Known(Box<str>),
    /// The row lacks a column that is needed.
    Unknown,
    /// Null or empty: the row has no record.
    Null,
    /// The expression failed.
    Rejected(Rejection),
}

thread_local! {
    /// Documents are built here and copied out at their exact size.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch buffer larger than this is given back.
const KEEP_SCRATCH: usize = 1 << 20;

/// What ended the writing of a document early.
enum Stop<'p> {
    NeedsRow,
    Failed(Cow<'p, str>, Fail),
}

impl Stop<'_> {
    fn owned(self) -> Stop<'static> {
        match self {
            Stop::NeedsRow => Stop::NeedsRow,
            Stop::Failed(field, fail) => Stop::Failed(Cow::Owned(field.into_owned()), fail),
        }
    }
}

impl BoundRule {
    /// What the rule makes of one row. Of a rule with relations only what its own row decides: [`Applied::Outside`],
    /// [`Applied::Rejected`], and [`Applied::NeedsRow`] where there is a record to be made.
    pub fn apply(&self, row: &Row) -> Applied {
        let env = Env::new(row, &self.positions, &self.program.lets);
        let partial = self.is_partial(row);
        match self.decide(&env, partial) {
            Ok(_) if self.needs_related => Applied::NeedsRow,
            // The log says nothing of what became of them.
            Ok(_) if partial && self.unlogged.iter().any(|p| row.get(*p as usize).is_unchanged()) => Applied::NeedsRow,
            Ok(external_id) => self.upsert(&env, &[], partial, external_id),
            Err(applied) => applied,
        }
    }

    /// Whether there is a record, and which; if not, what there is instead.
    #[inline]
    pub(super) fn decide<'p>(&'p self, env: &Env<'p>, partial: bool) -> Result<Box<str>, Applied> {
        let program = &*self.program;
        if let Some(condition) = &program.condition {
            if partial && lacks(env, &condition.columns) {
                return Err(Applied::NeedsRow);
            }
            match env.is_true(&condition.node) {
                Ok(true) => {}
                Ok(false) => {
                    let external_id = match self.id_from(env, partial) {
                        ExternalId::Known(id) => Some(id),
                        _ => None,
                    };
                    return Err(Applied::Outside { external_id });
                }
                Err(fail) => return Err(Applied::Rejected(self.rejection(fail, condition.place, None, None))),
            }
        }
        match self.id_from(env, partial) {
            ExternalId::Known(id) => Ok(id),
            ExternalId::Unknown => Err(Applied::NeedsRow),
            ExternalId::Rejected(rejection) => Err(Applied::Rejected(rejection)),
            ExternalId::Null => Err(Applied::Rejected(Rejection {
                external_id: None,
                field: None,
                code: "null_external_id",
                message: format!("the external id is null or empty ({})", self.place(program.external_id.place)),
            })),
        }
    }

    /// The record with its fields, and the lists of its children.
    #[inline]
    pub(super) fn upsert<'p>(
        &'p self,
        env: &Env<'p>,
        lists: &[List<'_>],
        partial: bool,
        external_id: Box<str>,
    ) -> Applied {
        let mut references = Vec::new();
        match self.document(env, &self.program.fields, lists, partial, &mut references) {
            Ok(document) => Applied::Upsert { external_id, document, references },
            Err(Stop::NeedsRow) => Applied::NeedsRow,
            Err(Stop::Failed(field, fail)) => {
                Applied::Rejected(self.rejection(fail, 0, Some(external_id), Some(&field)))
            }
        }
    }

    /// The external id of a row's record: for deletes, whose rows may hold nothing but the key.
    pub fn external_id(&self, row: &Row) -> ExternalId {
        let env = Env::new(row, &self.positions, &self.program.lets);
        self.id_from(&env, self.is_partial(row))
    }

    /// What "archive" writes for a row. Fields that need a column which the row lacks are left out.
    pub fn archive(&self, row: &Row) -> Result<Document, Rejection> {
        let env = Env::new(row, &self.positions, &self.program.lets);
        let mut references = Vec::new();
        let known: Vec<&FieldProgram> = self.program.archive.iter().filter(|f| !lacks(&env, &f.columns)).collect();
        match self.document(&env, known, &[], false, &mut references) {
            Ok(document) => Ok(document),
            Err(Stop::Failed(field, fail)) => Err(self.rejection(fail, 0, None, Some(&field))),
            Err(Stop::NeedsRow) => Ok(Document::new(b"{}".as_slice().into(), false)),
        }
    }

    /// Whether the row lacks a column that the rule uses.
    pub(super) fn is_partial(&self, row: &Row) -> bool {
        // Nearly every row is whole, and seen to be so without reading a value.
        let narrower = || self.positions.iter().any(|p| *p as usize >= row.len());
        (row.is_partial() || narrower()) && self.positions.iter().any(|p| row.get(*p as usize).is_unchanged())
    }

    fn id_from<'p>(&'p self, env: &Env<'p>, partial: bool) -> ExternalId {
        let part = &self.program.external_id;
        if partial && lacks(env, &part.columns) {
            return ExternalId::Unknown;
        }
        match evaluate_text(env, part) {
            Ok(Some(text)) if !text.is_empty() => ExternalId::Known(text),
            Ok(_) => ExternalId::Null,
            Err(fail) => ExternalId::Rejected(self.rejection(fail, part.place, None, None)),
        }
    }

    fn document<'p>(
        &self,
        env: &Env<'p>,
        fields: impl IntoIterator<Item = &'p FieldProgram>,
        lists: &[List<'_>],
        partial: bool,
        references: &mut Vec<Reference>,
    ) -> Result<Document, Stop<'p>> {
        SCRATCH.with_borrow_mut(|out| {
            out.clear();
            let zone = self.program.zone.as_ref();
            let mut writer = Writer { env, zone, partial, left_out: false, within: None, references };
            writer.object(out, fields)?;
            writer.lists(out, lists)?;
            let document = Document::new(out.as_slice().into(), writer.left_out);
            if out.capacity() > KEEP_SCRATCH {
                *out = Vec::new();
            }
            Ok(document)
        })
    }

    fn place(&self, place: u32) -> &str {
        self.program.places.get(place as usize).map_or("", |p| p)
    }

    pub(super) fn rejection(
        &self,
        fail: Fail,
        fallback: u32,
        external_id: Option<Box<str>>,
        field: Option<&str>,
    ) -> Rejection {
        let place = if fail.place == 0 { fallback } else { fail.place };
        let message = format!("{} ({})", fail.fault.what, self.place(place));
        Rejection { external_id, field: field.map(Into::into), code: fail.fault.code, message }
    }
}

/// Whether the row lacks one of `columns`.
fn lacks(env: &Env<'_>, columns: &[u16]) -> bool {
    columns.iter().any(|c| env.column(*c).is_unchanged())
}

/// A text for use as an external id.
fn evaluate_text<'p>(env: &Env<'p>, part: &'p Part) -> Result<Option<Box<str>>, Fail> {
    match env.eval(&part.node)? {
        Val::Null => Ok(None),
        Val::Text(s) => Ok(Some(s.into())),
        other => match cast::to_text(other) {
            Ok(s) => Ok(Some(s.into())),
            Err(fault) => Err(Fail { fault, place: part.place }),
        },
    }
}

struct Writer<'w, 'p> {
    env: &'w Env<'p>,
    zone: Option<&'w TimeZone>,
    partial: bool,
    /// Whether a field was left out.
    left_out: bool,
    /// The list and the place in it of the item that is written.
    within: Option<(&'p str, usize)>,
    references: &'w mut Vec<Reference>,
}

impl<'p> Writer<'_, 'p> {
    /// The lists of children, as further fields of the object that was just written.
    fn lists(&mut self, out: &mut Vec<u8>, lists: &[List<'_>]) -> Result<(), Stop<'p>> {
        for list in lists {
            let Some(json_key) = &list.program.json_key else { continue };
            out.pop();
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(json_key);
            out.push(b'[');
            for (n, env) in list.rows.iter().take(list.program.limit.unwrap_or(usize::MAX)).enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                let mut item = Writer {
                    env,
                    zone: self.zone,
                    partial: false,
                    left_out: false,
                    within: Some((&list.program.name, n)),
                    references: &mut *self.references,
                };
                let written = match &list.program.item {
                    Item::Object(fields) => item.object(out, fields),
                    Item::Value(field) => item.field(out, field),
                };
                written.map_err(Stop::owned)?;
            }
            out.extend_from_slice(b"]}");
        }
        Ok(())
    }

    fn object(
        &mut self,
        out: &mut Vec<u8>,
        fields: impl IntoIterator<Item = &'p FieldProgram>,
    ) -> Result<(), Stop<'p>> {
        out.push(b'{');
        let mut first = true;
        for field in fields {
            if self.partial && lacks(self.env, &field.columns) {
                let alone = field.columns.len() == 1 && !matches!(field.body, FieldBody::Ref { .. });
                if !alone {
                    return Err(Stop::NeedsRow);
                }
                self.left_out = true;
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(&field.json_key);
            self.field(out, field)?;
        }
        out.push(b'}');
        Ok(())
    }

    fn field(&mut self, out: &mut Vec<u8>, field: &'p FieldProgram) -> Result<(), Stop<'p>> {
        match &field.body {
            FieldBody::Value { part, output } => {
                let zone = self.zone;
                let written = match &part.node {
                    Node::Column(n) => readable(self.env.column(*n)).and_then(|v| write_value(out, v, *output, zone)),
                    node => match self.env.eval(node) {
                        Ok(val) => write_val(out, &val, *output, zone),
                        Err(fail) => return Err(self.failed(field, fail, part.place)),
                    },
                };
                written.map_err(|fault| self.failed(field, Fail { fault, place: part.place }, part.place))
            }
            FieldBody::Object(fields) => self.object(out, fields),
            FieldBody::Ref { part, entity, missing } => {
                match evaluate_text(self.env, part).map_err(|fail| self.failed(field, fail, part.place))? {
                    Some(external_id) if !external_id.is_empty() => {
                        out.extend_from_slice(b"{\"external_id\":");
                        write_text(out, &external_id);
                        out.push(b'}');
                        let field = match self.within {
                            None => field.path.clone(),
                            Some((list, n)) if field.path.is_empty() => format!("{list}[{n}]").into(),
                            Some((list, n)) => format!("{list}[{n}].{}", field.path).into(),
                        };
                        let entity = entity.clone();
                        self.references.push(Reference { field, entity, external_id, missing: *missing });
                    }
                    _ => out.extend_from_slice(b"null"),
                }
                Ok(())
            }
        }
    }

    fn failed(&self, field: &'p FieldProgram, fail: Fail, fallback: u32) -> Stop<'p> {
        let fail = Fail { place: if fail.place == 0 { fallback } else { fail.place }, ..fail };
        let path = match self.within {
            None => Cow::Borrowed(&*field.path),
            Some((list, _)) if field.path.is_empty() => Cow::Borrowed(list),
            Some((list, _)) => Cow::Owned(format!("{list}.{}", field.path)),
        };
        Stop::Failed(path, fail)
    }
}
