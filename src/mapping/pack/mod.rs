//! Mapping packs: the file format, read into types, with every mistake told at once.
//!
//! Reading knows no database and no CRM. What a pack means against them is [`crate::mapping::compile()`]'s business.

mod fields;
mod infer;
mod lookups;
pub(super) mod offline;
mod overlay;
mod record;
mod relations;
pub(crate) mod testing;
mod variables;

use super::Missing;
use super::expr::convert::Variable;
use super::lookup::LookupTable;
use super::names::{From, Name, TableName};
use super::toml_reader::{Reader, SpannedText, Table};
use crate::diagnostics::{Diagnostic, Diagnostics};
pub use overlay::Overlay;
pub(crate) use relations::{ChildDef, ItemDef, JoinDef, Link, OrderDef};
use std::ops::Range;
use std::sync::Arc;

/// The format version this program reads.
const FORMAT: &str = "1";

/// Reads a file that a pack names, relative to the pack: its path for messages and its text, or why it cannot be read.
/// Reading packs from the disk is the business of [`crate::packs`]; nothing here does I/O.
pub type ReadBeside<'f> = &'f dyn Fn(&str) -> Result<(String, String), String>;

/// A pack, read and found well formed.
#[derive(Clone, Debug)]
pub struct Pack {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) variables: Vec<Variable>,
    pub(crate) lookups: Vec<Arc<LookupTable>>,
    pub(crate) records: Vec<Record>,
    pub(crate) tests: Vec<testing::Test>,
    /// Column types declared for tests.
    pub(crate) columns: testing::Declared,
    /// The files, and warnings found while reading.
    pub(crate) diagnostics: Diagnostics,
}

/// What happens to a CRM record whose row is gone or no longer in scope.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Removal {
    /// The record is deleted (default).
    #[default]
    Delete,
    /// The fields of the rule's `archive` table are written.
    Archive,
    /// Nothing: the record stays as it is.
    Ignore,
}

/// One `[record.NAME]`.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub name: String,
    pub file: usize,
    pub span: Range<usize>,
    pub entity: String,
    pub entity_span: Range<usize>,
    pub from: From,
    pub from_span: Range<usize>,
    pub condition: Option<SpannedText>,
    pub external_id: SpannedText,
    pub on_delete: Removal,
    pub on_leave: Removal,
    pub archive: Vec<Field>,
    pub lets: Vec<(String, SpannedText)>,
    pub fields: Vec<Field>,
    pub fields_span: Range<usize>,
    /// A unique key declared for a table without a primary key.
    pub key: Option<Vec<(Name, Range<usize>)>>,
    /// Rows that the record's row points to.
    pub joins: Vec<JoinDef>,
    /// Rows that point to the record's row.
    pub children: Vec<ChildDef>,
}

impl Record {
    /// Every `from` clause: the record's own, those of its joins, of its lists, and of their joins.
    pub(crate) fn froms(&self) -> impl Iterator<Item = &From> {
        let links = self.joins.iter().map(|j| &j.link);
        let lists = self.children.iter().flat_map(|c| std::iter::once(&c.link).chain(c.joins.iter().map(|j| &j.link)));
        std::iter::once(&self.from).chain(links.chain(lists).map(|link| &link.from))
    }
}

/// One CRM field and where its value comes from.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub name: String,
    pub file: usize,
    pub span: Range<usize>,
    pub body: Body,
}

/// The right-hand side of a field.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// An expression.
    Expr(SpannedText),
    /// A nested object.
    Object(Vec<Field>),
    /// A reference to another record.
    Ref { entity: String, entity_span: Range<usize>, external_id: SpannedText, missing: Missing },
}

impl Pack {
    /// Reads a pack from its text. `path` is its name for messages, `files` reads what lookups name (`None`: nothing lies beside it), `overlay` is what a
    /// tenant changes. Everything wrong is told at once.
    pub fn parse(
        path: &str,
        text: &str,
        files: Option<ReadBeside<'_>>,
        overlay: Option<&Overlay>,
    ) -> Result<Pack, Diagnostics> {
        let none = |_: &str| Err("there are no files beside this pack".to_owned());
        let files = files.unwrap_or(&none);
        let mut diagnostics = Diagnostics::new();
        let file = diagnostics.add_file(path, text);
        let pack = Self::read(&mut Reader::new(&mut diagnostics, file), text, files, overlay);
        match pack {
            Some(pack) if !diagnostics.has_errors() => Ok(Pack { diagnostics, ..pack }),
            _ => {
                diagnostics.sort();
                Err(diagnostics)
            }
        }
    }

    fn read(reader: &mut Reader<'_>, text: &str, files: ReadBeside<'_>, overlay: Option<&Overlay>) -> Option<Pack> {
        let parsed = reader.parse(text)?;
        let mut root = Table::root(&parsed);
        check_format(reader, &mut root)?;
        let mut pack = Pack {
            name: String::new(),
            version: String::new(),
            variables: Vec::new(),
            lookups: Vec::new(),
            records: Vec::new(),
            tests: Vec::new(),
            columns: testing::Declared::new(),
            diagnostics: Diagnostics::new(),
        };
        let mut declared = Vec::new();
        if let Some(mut table) = root.take_table(reader, "pack") {
            pack.name = table.take_text(reader, "name").map(|t| t.text).unwrap_or_default();
            pack.version = table.take_text(reader, "version").map(|t| t.text).unwrap_or_default();
            if let Some(vars) = table.take_table(reader, "vars") {
                declared = variables::declared(reader, &vars);
            }
            table.finish(reader);
        }
        if let Some(lookups) = root.take_table(reader, "lookup") {
            for (key, value) in lookups.entries() {
                pack.lookups.extend(lookups::read(reader, key, value, files).map(Arc::new));
            }
        }
        if let Some(records) = root.take_table(reader, "record") {
            for (key, value) in records.entries() {
                pack.records.extend(record::read(reader, key, value));
            }
        }
        if pack.records.is_empty() && !reader.diagnostics.has_errors() {
            reader.push(
                Diagnostic::error("missing_key", reader.file, 0..0, "the pack has no records")
                    .help("declare one as [record.NAME] with `from`, `external_id` and [record.NAME.fields]"),
            );
        }
        pack.columns = testing::read_columns(reader, &mut root, &pack.records);
        pack.tests = testing::read(reader, &mut root, &pack.records);
        root.finish(reader);
        if let Some(overlay) = overlay {
            overlay.apply(reader.diagnostics, &mut pack.records, &mut declared);
        }
        pack.variables = variables::resolve(reader.diagnostics, declared, overlay.is_some());
        Some(pack)
    }

    /// The pack's name, as it gives it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pack's version, as it gives it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The tables that the pack reads, those of related rows included, each once, in the pack's order.
    pub fn table_names(&self) -> Vec<TableName> {
        let mut names: Vec<TableName> = Vec::new();
        for from in self.records.iter().flat_map(Record::froms) {
            if !names.contains(&from.table) {
                names.push(from.table.clone());
            }
        }
        names
    }

    /// Names of the rules that feed an entity, in the pack's order.
    pub fn rules_of(&self, entity: &str) -> Vec<String> {
        self.records.iter().filter(|record| record.entity == entity).map(|record| record.name.clone()).collect()
    }

    /// Names of the CRM entities that the pack writes, each once, in the pack's order.
    pub fn entity_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for record in &self.records {
            if !names.contains(&record.entity.as_str()) {
                names.push(&record.entity);
            }
        }
        names
    }
}

/// `tidemark = 1`.
fn check_format(reader: &mut Reader<'_>, root: &mut Table<'_>) -> Option<()> {
    let (_, value) = root.require(reader, "tidemark", "write `tidemark = 1` at the top: the version of this format")?;
    match value.get_ref().as_integer() {
        Some(n) if n.as_str() == FORMAT => Some(()),
        _ => {
            reader.push(
                Diagnostic::error("format_version", reader.file, value.span(), "this program reads packs of format 1")
                    .help("write `tidemark = 1`, or use the release of tidemark that the pack was written for"),
            );
            None
        }
    }
}
