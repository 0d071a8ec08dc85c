//! The pack and the tenant file as text.

use super::fields::word;
use super::records::is_high;
use super::{Findings, RecordProposal};
use std::fmt::Write as _;

/// An expression as a TOML string.
pub(super) fn toml(expression: &str) -> String {
    match (expression.contains('"'), expression.contains('\'')) {
        (false, _) => format!("\"{expression}\""),
        (true, false) => format!("'{expression}'"),
        (true, true) => format!("\"\"\" {expression} \"\"\""),
    }
}

/// A pack of this record alone, without comments.
pub(super) fn minimal(record: &RecordProposal) -> String {
    let mut out = String::from("tidemark = 1\n[pack]\nname = \"proposal\"\nversion = \"0.1.0\"\n");
    let _ = writeln!(
        out,
        "[record.{}]\nentity = \"{}\"\nfrom = {}\nexternal_id = {}\n[record.{}.fields]",
        record.rule,
        record.entity,
        toml(&record.from),
        toml(&record.external_id),
        record.rule
    );
    for field in record.fields.iter().filter(|f| !f.todo) {
        let _ = writeln!(out, "{} = {}", field.field, field.value);
    }
    out
}

/// The proposed pack.
pub fn pack_text(name: &str, source: &str, crm: &str, findings: &Findings) -> String {
    let mut out = format!(
        "# Proposed by `tidemark init` from {source} and the model of {crm}.
#
# Left of the equals sign stands a field of the CRM, right of it an SQL expression over the row (docs/mapping.md).
# Behind each field: how sure the proposal is (high, medium, low) and why. Search for TODO: that is what could not be known.
# Which column points to which table is a guess too: the catalogue tells columns and keys, not foreign keys.
tidemark = 1

[pack]
name = \"{name}\"
version = \"0.1.0\"
"
    );
    for record in &findings.records {
        out.push_str(&one(record));
    }
    if !findings.unmapped.is_empty() {
        out.push_str(
            "\n# ---------------------------------------------------------------- tables that feed no record\n#\n",
        );
        for (table, why) in &findings.unmapped {
            let _ = writeln!(out, "# {table}: {why}");
        }
    }
    if !findings.unfed.is_empty() {
        let _ =
            writeln!(out, "\n# TODO no table was found for these entities of the CRM: {}", findings.unfed.join(", "));
    }
    out
}

fn one(record: &RecordProposal) -> String {
    let mut body = String::new();
    let from = format!("from = {}", toml(&record.from));
    let _ = writeln!(
        body,
        "[record.{}]\nentity = \"{}\"\n{from}\nexternal_id = {}\n",
        record.rule,
        record.entity,
        toml(&record.external_id)
    );
    let _ = writeln!(body, "[record.{}.fields]", record.rule);
    let width = record.fields.iter().map(|f| f.field.len() + 3 + f.value.len()).filter(|w| *w <= 70).max().unwrap_or(0);
    for field in &record.fields {
        let todo = if field.todo { "# TODO " } else { "" };
        let line = format!("{todo}{} = {}", field.field, field.value);
        let _ = writeln!(body, "{line:<width$}  # {}: {}", word(field.confidence), field.reason.replace('\n', " "));
    }
    if !record.not_found.is_empty() {
        let _ = writeln!(body, "# TODO nothing was found for: {}", record.not_found.join(", "));
    }
    if !record.pointed_to_by.is_empty() {
        let _ = writeln!(
            body,
            "# TODO a list can be made of rows that point here (`children`): {}",
            record.pointed_to_by.join(", ")
        );
    }
    let rows = record.rows.map_or(String::new(), |n| format!(", about {n} rows"));
    let surely = if is_high(record.confidence) { "surely" } else { "probably" };
    let mut out = format!(
        "\n# ---------------------------------------------------------------- {}{rows}: {surely} {} ({:.0} %)\n\n",
        record.table,
        record.entity,
        record.confidence * 100.0
    );
    match &record.problem {
        None => out.push_str(&body),
        Some(problem) => {
            let _ = writeln!(out, "# TODO not used, because it does not fit yet: {}", problem.replace('\n', " "));
            for line in body.lines() {
                let _ = writeln!(out, "{}", if line.is_empty() { "#".into() } else { format!("# {line}") });
            }
        }
    }
    out
}

/// What a tenant file is made of.
#[derive(Clone, Debug)]
pub struct TenantFile {
    /// The tenant.
    pub tenant: String,
    /// `postgres`, `mysql` or `sqlserver`.
    pub engine: String,
    /// Host, port, database and user of the source.
    pub host: String,
    /// See `host`.
    pub port: u16,
    /// See `host`.
    pub database: String,
    /// See `host`.
    pub user: String,
    /// The secret's place, as TOML; none if there is none.
    pub password: Option<String>,
    /// The TLS mode.
    pub tls: String,
    /// The pack, as the tenant file names it.
    pub pack: String,
    /// The CRM's address.
    pub base_url: String,
    /// How the CRM knows us, as TOML.
    pub auth: String,
}

impl TenantFile {
    /// The file's text.
    pub fn text(&self) -> String {
        let quote = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let name: String =
            self.tenant.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
        let of_engine = match self.engine.as_str() {
            "mysql" => "[source.mysql]\nserver_id = 7001                               # TODO unique among the server's replicas\n".to_owned(),
            "sqlserver" => "[source.sqlserver]\npoll_interval = \"500ms\"\n".to_owned(),
            _ => format!("[source.postgres]                              # made at the first start, removed by tidemark drop-slot\nslot        = \"tidemark_{name}\"\npublication = \"tidemark_{name}\"\n"),
        };
        let password = self.password.as_ref().map(|p| format!("password = {p}\n")).unwrap_or_default();
        format!(
            "# Proposed by `tidemark init`. Holds no secret; docs/configuration.md has every key.
#
#   tidemark check --config FILE        everything before the first byte, each finding with its fix
#   tidemark plan --config FILE                  what a first start would send
#   tidemark run --config FILE
tidemark = 1
tenant   = {quoted}

[source]
engine   = {engine}
host     = {host}
port     = {port}
database = {database}
user     = {user}
{password}tls      = {{ mode = {tls} }}
# time_zone = \"Europe/Berlin\"                   # TODO the zone of timestamps that have none, if the mapping reads one

{of_engine}
[mapping]
pack = {pack}

[crm]
profile  = \"rest\"
base_url = {base_url}
auth     = {auth}

[state]
on_gap = \"resync\"                              # resync | halt

[observe]
listen = \"127.0.0.1:9464\"                      # one port per tenant
",
            quoted = quote(&self.tenant),
            engine = quote(&self.engine),
            host = quote(&self.host),
            port = self.port,
            database = quote(&self.database),
            user = quote(&self.user),
            tls = quote(&self.tls),
            pack = quote(&self.pack),
            base_url = quote(&self.base_url),
            auth = self.auth,
        )
    }
}
