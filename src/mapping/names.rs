//! Names of tables and columns: how they are written in a pack, and how they find what a database has.
//!
//! SQL's rules come first: a name in double quotes is meant exactly; an unquoted one is folded to lower case (as
//! PostgreSQL stores it). Where that finds nothing, the only name that differs in nothing but case is taken, so that one
//! pack serves databases that keep `CustomerID`, `customerid` and `CUSTOMERID`.

use std::fmt;
use tidemark_contract::TableId;

/// A name as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// The name without quotes.
    pub text: String,
    /// Whether it stood in double quotes.
    pub quoted: bool,
}

/// As it would be written in SQL.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.quoted { write!(f, "\"{}\"", self.text.replace('"', "\"\"")) } else { f.write_str(&self.text) }
    }
}

/// What a name found among candidates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// The candidate at this index.
    One(usize),
    /// Nothing.
    None,
    /// Several that differ in case only.
    Ambiguous,
}

impl Name {
    /// Finds the name among `candidates`.
    pub(crate) fn find<'a>(&self, candidates: impl Iterator<Item = &'a str> + Clone) -> Found {
        let position = |wanted: &str| candidates.clone().position(|c| c == wanted);
        let exact = if self.quoted { position(&self.text) } else { position(&self.text.to_lowercase()) };
        if let Some(index) = exact.or_else(|| position(&self.text)) {
            return Found::One(index);
        }
        let wanted = self.text.to_lowercase();
        let mut alike = candidates.enumerate().filter(|(_, c)| c.to_lowercase() == wanted).map(|(index, _)| index);
        match (alike.next(), alike.next()) {
            (Some(index), None) => Found::One(index),
            (None, _) => Found::None,
            (Some(_), Some(_)) => Found::Ambiguous,
        }
    }
}

/// A table's name as written in a pack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableName {
    /// Schema (or database), if one is named.
    pub schema: Option<Name>,
    /// The table.
    pub name: Name,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        write!(f, "{}", self.name)
    }
}

impl TableName {
    /// Finds the table among `tables`. Where the pack names no schema, `default_schema` is meant; a table that is not there
    /// but stands in exactly one other schema is that one, so that a pack fits vendors who give their tables a schema of
    /// their own.
    pub(crate) fn find(&self, tables: &[&TableId], default_schema: &str) -> Found {
        match self.find_in_schema(tables, default_schema) {
            Found::None if self.schema.is_none() => {
                let mut found =
                    (0..tables.len()).filter(|&n| self.name.find(std::iter::once(&*tables[n].name)) == Found::One(0));
                match (found.next(), found.next()) {
                    (Some(index), None) => Found::One(index),
                    _ => Found::None,
                }
            }
            found => found,
        }
    }

    fn find_in_schema(&self, tables: &[&TableId], default_schema: &str) -> Found {
        let default = Name { text: default_schema.to_owned(), quoted: true };
        let schema = self.schema.as_ref().unwrap_or(&default);
        let mut schemas: Vec<&str> = tables.iter().map(|t| &*t.schema).collect();
        schemas.sort_unstable();
        schemas.dedup();
        let schema = match schema.find(schemas.iter().copied()) {
            Found::One(index) => schemas[index],
            other => return other,
        };
        let inside: Vec<usize> = (0..tables.len()).filter(|n| &*tables[*n].schema == schema).collect();
        match self.name.find(inside.iter().map(|n| &*tables[*n].name)) {
            Found::One(index) => Found::One(inside[index]),
            other => other,
        }
    }

    /// The table this names in a database whose tables are `tables`; `None` if there is none, or more than one.
    pub fn resolve<'t>(
        &self,
        tables: impl IntoIterator<Item = &'t TableId>,
        default_schema: &str,
    ) -> Option<&'t TableId> {
        let tables: Vec<&TableId> = tables.into_iter().collect();
        match self.find(&tables, default_schema) {
            Found::One(index) => tables.get(index).copied(),
            _ => None,
        }
    }

    /// The table as it would be called if the database kept names as they are written here (lower case if unquoted).
    pub fn as_written(&self, default_schema: &str) -> TableId {
        let fold = |n: &Name| if n.quoted { n.text.clone() } else { n.text.to_lowercase() };
        TableId::new(self.schema.as_ref().map_or(default_schema.to_owned(), fold), fold(&self.name))
    }
}

/// A `from` clause: `[schema.]table [[as] alias]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct From {
    pub table: TableName,
    pub alias: Option<Name>,
}

impl From {
    /// Reads the clause; the error is what was expected and the byte at which it was missed.
    pub(crate) fn parse(text: &str) -> Result<From, (String, usize)> {
        let mut cursor = Cursor { text, at: 0 };
        let mut parts = vec![cursor.name("a table name")?];
        while cursor.eat(".") {
            parts.push(cursor.name("a name after the point")?);
        }
        let (Some(name), schema, true) = (parts.pop(), parts.pop(), parts.is_empty()) else {
            return Err(("at most a schema and a table".into(), 0));
        };
        cursor.skip_space();
        let rest = &text[cursor.at..];
        if rest.len() > 2 && rest[..2].eq_ignore_ascii_case("as") && rest[2..].starts_with([' ', '\t', '\n', '"']) {
            cursor.at += 2;
        }
        cursor.skip_space();
        let alias = if cursor.at < text.len() { Some(cursor.name("an alias")?) } else { None };
        cursor.skip_space();
        if cursor.at < text.len() {
            return Err(("nothing after the alias".into(), cursor.at));
        }
        Ok(From { table: TableName { schema, name }, alias })
    }
}

/// Reads one name, possibly quoted, that must be the whole text (a column of a declared key).
pub(crate) fn parse_name(text: &str) -> Result<Name, (String, usize)> {
    let mut cursor = Cursor { text, at: 0 };
    // A declared key stands in a list of TOML texts: the text itself is the name, unless it is quoted as in SQL.
    cursor.skip_space();
    if text[cursor.at..].starts_with('"') {
        let name = cursor.name("a column name")?;
        cursor.skip_space();
        return if cursor.at == text.len() { Ok(name) } else { Err(("nothing after the name".into(), cursor.at)) };
    }
    match text.trim() {
        "" => Err(("a column name".into(), 0)),
        name => Ok(Name { text: name.to_owned(), quoted: false }),
    }
}

struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl Cursor<'_> {
    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn name(&mut self, wanted: &str) -> Result<Name, (String, usize)> {
        self.skip_space();
        let rest = &self.text[self.at..];
        if let Some(inner) = rest.strip_prefix('"') {
            let mut text = String::new();
            let mut chars = inner.char_indices().peekable();
            while let Some((n, c)) = chars.next() {
                match c {
                    '"' if chars.peek().is_some_and(|(_, c)| *c == '"') => {
                        chars.next();
                        text.push('"');
                    }
                    '"' => {
                        self.at += n + 2;
                        return Ok(Name { text, quoted: true });
                    }
                    _ => text.push(c),
                }
            }
            return Err(("a closing double quote".into(), self.at));
        }
        let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '#');
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        if end == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
            return Err((wanted.to_owned(), self.at));
        }
        self.at += end;
        Ok(Name { text: rest[..end].to_owned(), quoted: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> String {
        match From::parse(text) {
            Ok(From { table, alias }) => format!("{table} / {}", alias.map(|a| a.to_string()).unwrap_or_default()),
            Err((wanted, at)) => format!("{wanted} at {at}"),
        }
    }

    #[test]
    fn from_clauses() {
        assert_eq!(from("customers as c"), "customers / c");
        assert_eq!(from(" customers c "), "customers / c");
        assert_eq!(from("sales.\"Order Details\" AS d"), "sales.\"Order Details\" / d");
        assert_eq!(from("\"a\"\"b\""), "\"a\"\"b\" / ");
        assert_eq!(from("assets"), "assets / ");
        assert_eq!(from(""), "a table name at 0");
        assert_eq!(from("a as b c"), "nothing after the alias at 7");
        assert_eq!(from("a.b.c"), "at most a schema and a table at 0");
        assert_eq!(from("\"a"), "a closing double quote at 0");
        assert_eq!(from("a, b"), "an alias at 1");
    }

    #[test]
    fn names_find_what_the_database_has() {
        let find = |text: &str, quoted, has: &[&str]| Name { text: text.into(), quoted }.find(has.iter().copied());
        assert_eq!(find("CustomerID", false, &["id", "customerid", "CustomerID"]), Found::One(1));
        assert_eq!(find("CustomerID", true, &["id", "customerid", "CustomerID"]), Found::One(2));
        assert_eq!(find("CustomerID", true, &["CUSTOMERID"]), Found::One(0));
        assert_eq!(find("customer_id", false, &["CustomerID"]), Found::None);
        assert_eq!(find("ID", true, &["id", "Id"]), Found::Ambiguous);
    }

    #[test]
    fn tables_are_found_in_their_schema() {
        let tables = [TableId::new("public", "Customers"), TableId::new("sales", "customers")];
        let resolve = |text: &str| {
            From::parse(text).ok().and_then(|f| f.table.resolve(&tables, "public").map(ToString::to_string))
        };
        assert_eq!(resolve("customers").as_deref(), Some("public.Customers"));
        assert_eq!(resolve("Sales.Customers").as_deref(), Some("sales.customers"));
        assert_eq!(resolve("orders"), None);
        let elsewhere = [TableId::new("shop", "Orders"), TableId::new("shop", "Lines"), TableId::new("old", "Lines")];
        let resolve = |text: &str| {
            From::parse(text).ok().and_then(|f| f.table.resolve(&elsewhere, "public").map(ToString::to_string))
        };
        assert_eq!(resolve("orders").as_deref(), Some("shop.Orders"), "the only one there is");
        assert_eq!(resolve("lines"), None, "two schemas have it: the pack has to say which");
        assert_eq!(resolve("public.orders"), None, "a named schema is meant as it is named");
    }
}
