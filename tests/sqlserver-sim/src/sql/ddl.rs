//! Definitions: "CREATE TABLE (Transact-SQL)", "ALTER TABLE", "CREATE INDEX", "ALTER DATABASE SET options".

use super::ast::{AlterTable, ColumnDef, Constraint, ConstraintKind, DatabaseOption, Name, Statement};
use super::lexer::Kind;
use super::parser::Parser;
use crate::error::{Result, SqlError};

impl Parser<'_> {
    pub fn create(&mut self) -> Result<Statement> {
        self.next();
        if self.words(&["or", "alter"]) && !self.is("procedure") && !self.is("proc") {
            return Err(SqlError::unmodelled("CREATE OR ALTER"));
        }
        if self.word("table") {
            return self.create_table();
        }
        if self.word("view") {
            return self.create_view();
        }
        if self.word("procedure") || self.word("proc") {
            let name = self.name()?;
            // The body is kept by nobody: procedures of users can be created and dropped, not run.
            self.skip_to_end();
            return Ok(Statement::CreateProcedure { name });
        }
        if self.word("schema") {
            let name = self.ident()?;
            if self.word("authorization") {
                self.ident()?;
            }
            return Ok(Statement::CreateSchema(name));
        }
        if self.word("database") {
            let name = self.ident()?;
            let collation = if self.word("collate") { Some(self.ident()?) } else { None };
            return Ok(Statement::CreateDatabase { name, collation });
        }
        if self.word("login") {
            return self.create_login();
        }
        if self.word("user") {
            return self.create_user();
        }
        if self.word("role") {
            let name = self.ident()?;
            if self.word("authorization") {
                self.ident()?;
            }
            return Ok(Statement::CreateRole(name));
        }
        let unique = self.word("unique");
        let clustered = self.word("clustered");
        self.word("nonclustered");
        if self.word("index") {
            return self.create_index(unique, clustered);
        }
        match self.peek() {
            Kind::Word(w) => Err(SqlError::unmodelled(format!("CREATE {}", w.to_ascii_uppercase()))),
            _ => Err(self.unexpected()),
        }
    }

    fn create_view(&mut self) -> Result<Statement> {
        let name = self.name()?;
        let columns = if self.is_op("(") { self.ident_list()? } else { Vec::new() };
        self.expect_word("as")?;
        let start = self.offset();
        self.query()?;
        let text = self.text[start..self.last_end()].to_owned();
        self.op(";");
        if !self.end() {
            return Err(SqlError::new(111, 15, 1, "'CREATE VIEW' must be the only statement in the batch."));
        }
        Ok(Statement::CreateView { name, columns, text })
    }

    fn create_index(&mut self, unique: bool, clustered: bool) -> Result<Statement> {
        let name = self.ident()?;
        self.expect_word("on")?;
        let table = self.name()?;
        let columns = self.key_columns()?;
        let included = if self.word("include") { self.ident_list()? } else { Vec::new() };
        if self.is("where") {
            return Err(SqlError::unmodelled("filtered indexes"));
        }
        self.storage()?;
        Ok(Statement::CreateIndex { name, table, unique, clustered, columns, included })
    }

    /// `(a, b DESC)`
    fn key_columns(&mut self) -> Result<Vec<(String, bool)>> {
        self.expect("(")?;
        let list = self.list(|p| {
            let name = p.ident()?;
            let descending = p.word("desc");
            if !descending {
                p.word("asc");
            }
            Ok((name, descending))
        })?;
        self.expect(")")?;
        Ok(list)
    }

    /// `WITH (FILLFACTOR = 80 …) ON [PRIMARY] TEXTIMAGE_ON [PRIMARY]`: where rows lie changes no answer.
    fn storage(&mut self) -> Result<()> {
        if self.is("with") && *self.peek_at(1) == Kind::Op("(") {
            self.next();
            self.expect("(")?;
            self.list(|p| {
                p.ident()?;
                p.expect("=")?;
                if !p.word("on") && !p.word("off") && p.integer().is_err() {
                    p.ident()?;
                }
                Ok(())
            })?;
            self.expect(")")?;
        }
        if self.is("on") && !self.is_at(1, "delete") && !self.is_at(1, "update") {
            self.next();
            self.ident()?;
        }
        if self.word("textimage_on") {
            self.ident()?;
        }
        Ok(())
    }

    fn create_table(&mut self) -> Result<Statement> {
        let name = self.name()?;
        self.expect("(")?;
        let (mut columns, mut constraints) = (Vec::new(), Vec::new());
        loop {
            // A comma behind the last definition is allowed.
            if self.op(")") {
                break;
            }
            match self.constraint()? {
                Some(c) => constraints.push(c),
                None if self.is("index") => return Err(SqlError::unmodelled("an INDEX inside CREATE TABLE")),
                None if self.is("period") => return Err(SqlError::unmodelled("temporal tables")),
                None => columns.push(self.column()?),
            }
            if !self.op(",") {
                self.expect(")")?;
                break;
            }
        }
        self.storage()?;
        if self.is("with") && *self.peek_at(1) == Kind::Op("(") {
            return Err(SqlError::unmodelled("this table option"));
        }
        Ok(Statement::CreateTable { name, columns, constraints })
    }

    /// A table constraint, if one begins here.
    fn constraint(&mut self) -> Result<Option<Constraint>> {
        let name = if self.word("constraint") { Some(self.ident()?) } else { None };
        let kind = if self.word("primary") {
            self.expect_word("key")?;
            self.key(true)?
        } else if self.word("unique") {
            self.key(false)?
        } else if self.word("check") {
            ConstraintKind::Check(self.parenthesised()?)
        } else if self.word("foreign") {
            self.expect_word("key")?;
            let columns = self.ident_list()?;
            self.expect_word("references")?;
            self.references(columns)?
        } else if self.word("default") {
            let text = self.default_text()?;
            self.expect_word("for")?;
            ConstraintKind::Default(text, self.ident()?)
        } else if name.is_some() {
            return Err(self.unexpected());
        } else {
            return Ok(None);
        };
        Ok(Some(Constraint { name, kind }))
    }

    fn key(&mut self, primary: bool) -> Result<ConstraintKind> {
        let clustered = if self.word("clustered") {
            Some(true)
        } else if self.word("nonclustered") {
            Some(false)
        } else {
            None
        };
        let columns = if self.is_op("(") { self.key_columns()? } else { Vec::new() };
        self.storage()?;
        Ok(ConstraintKind::Key { primary, clustered, columns })
    }

    fn references(&mut self, columns: Vec<String>) -> Result<ConstraintKind> {
        let table = self.name()?;
        let target = if self.is_op("(") { self.ident_list()? } else { Vec::new() };
        let (mut on_delete, mut on_update) = ("NO_ACTION".to_owned(), "NO_ACTION".to_owned());
        while self.word("on") {
            let deletes = self.word("delete");
            if !deletes {
                self.expect_word("update")?;
            }
            let action = if self.word("cascade") {
                "CASCADE"
            } else if self.words(&["set", "null"]) {
                "SET_NULL"
            } else if self.words(&["no", "action"]) {
                "NO_ACTION"
            } else {
                return Err(SqlError::unmodelled("this action of a foreign key"));
            };
            *(if deletes { &mut on_delete } else { &mut on_update }) = action.into();
        }
        Ok(ConstraintKind::Foreign { columns, table, target, on_delete, on_update })
    }

    /// The text between parentheses, which must be a condition.
    fn parenthesised(&mut self) -> Result<String> {
        self.expect("(")?;
        let start = self.offset();
        self.condition()?;
        let text = self.text[start..self.last_end()].to_owned();
        self.expect(")")?;
        Ok(text)
    }

    fn default_text(&mut self) -> Result<String> {
        let start = self.offset();
        self.expr()?;
        Ok(self.text[start..self.last_end()].to_owned())
    }

    fn column(&mut self) -> Result<ColumnDef> {
        let name = self.ident()?;
        let mut c = ColumnDef {
            name,
            ty: None,
            collation: None,
            nullable: None,
            identity: None,
            default: None,
            computed: None,
            constraints: Vec::new(),
            sparse: false,
        };
        if self.word("as") {
            let start = self.offset();
            self.expr()?;
            let text = self.text[start..self.last_end()].to_owned();
            let persisted = self.word("persisted");
            c.computed = Some((text, persisted));
            if self.words(&["not", "null"]) {
                c.nullable = Some(false);
            }
            return Ok(c);
        }
        // `timestamp` may stand without a column name.
        if c.name.eq_ignore_ascii_case("timestamp")
            && !matches!(self.peek(), Kind::Word(w) if !super::parser::reserved(w))
        {
            c.ty = Some(super::ast::TypeName { name: "timestamp".into(), args: Vec::new() });
        } else {
            c.ty = Some(self.type_name()?);
        }
        loop {
            let named = if self.word("constraint") { Some(self.ident()?) } else { None };
            if self.word("null") {
                c.nullable = Some(true);
            } else if self.words(&["not", "null"]) {
                c.nullable = Some(false);
            } else if self.word("collate") {
                c.collation = Some(self.ident()?);
            } else if self.word("sparse") {
                c.sparse = true;
            } else if self.word("rowguidcol") {
            } else if self.word("identity") {
                c.identity = Some((1, 1));
                if self.op("(") {
                    let seed = self.integer()?;
                    self.expect(",")?;
                    c.identity = Some((seed, self.integer()?));
                    self.expect(")")?;
                }
                self.words(&["not", "for", "replication"]);
            } else if self.word("default") {
                c.default = Some((named, self.default_text()?));
            } else if self.word("primary") {
                self.expect_word("key")?;
                let kind = self.key(true)?;
                c.constraints.push(Constraint { name: named, kind: with_column(kind, &c.name) });
            } else if self.word("unique") {
                let kind = self.key(false)?;
                c.constraints.push(Constraint { name: named, kind: with_column(kind, &c.name) });
            } else if self.word("check") {
                c.constraints.push(Constraint { name: named, kind: ConstraintKind::Check(self.parenthesised()?) });
            } else if self.is("references") || self.is("foreign") {
                self.words(&["foreign", "key"]);
                self.expect_word("references")?;
                let kind = self.references(vec![c.name.clone()])?;
                c.constraints.push(Constraint { name: named, kind });
            } else if named.is_some() {
                return Err(self.unexpected());
            } else if matches!(self.peek(), Kind::Word(w) if ["masked", "encrypted", "generated", "hidden", "filestream"].iter().any(|x| w.eq_ignore_ascii_case(x)))
            {
                return Err(SqlError::unmodelled("this property of a column"));
            } else {
                return Ok(c);
            }
        }
    }

    pub fn alter(&mut self) -> Result<Statement> {
        self.next();
        if self.word("table") {
            let table = self.name()?;
            return Ok(Statement::AlterTable(table, self.alter_table()?));
        }
        if self.word("database") {
            return self.alter_database();
        }
        if self.words(&["server", "role"]) {
            return self.alter_role(true);
        }
        if self.word("role") {
            return self.alter_role(false);
        }
        match self.peek() {
            Kind::Word(w) => Err(SqlError::unmodelled(format!("ALTER {}", w.to_ascii_uppercase()))),
            _ => Err(self.unexpected()),
        }
    }

    fn alter_table(&mut self) -> Result<AlterTable> {
        // Whether existing rows are checked: they always are.
        let _ = self.words(&["with", "check"]) || self.words(&["with", "nocheck"]);
        if self.word("add") {
            let (mut columns, mut constraints) = (Vec::new(), Vec::new());
            loop {
                match self.constraint()? {
                    Some(c) => constraints.push(c),
                    None => columns.push(self.column()?),
                }
                if !self.op(",") {
                    return Ok(AlterTable::Add(columns, constraints));
                }
            }
        }
        if self.words(&["alter", "column"]) {
            let name = self.ident()?;
            let ty = self.type_name()?;
            let collation = if self.word("collate") { Some(self.ident()?) } else { None };
            let nullable = if self.words(&["not", "null"]) {
                Some(false)
            } else if self.word("null") {
                Some(true)
            } else {
                None
            };
            return Ok(AlterTable::AlterColumn { name, ty, collation, nullable });
        }
        if self.word("drop") {
            if self.word("column") {
                self.words(&["if", "exists"]);
                return self.list(Self::ident).map(AlterTable::DropColumns);
            }
            self.word("constraint");
            self.words(&["if", "exists"]);
            return self.list(Self::ident).map(AlterTable::DropConstraints);
        }
        if self.is("check") || self.is("nocheck") {
            let on = self.word("check") || !self.word("nocheck");
            self.expect_word("constraint")?;
            let names = if self.word("all") { Vec::new() } else { self.list(Self::ident)? };
            return Ok(AlterTable::Trust(on, names));
        }
        if self.words(&["enable", "change_tracking"]) {
            let mut columns = false;
            if self.word("with") {
                self.expect("(")?;
                self.expect_word("track_columns_updated")?;
                self.expect("=")?;
                columns = self.on_off()?;
                self.expect(")")?;
            }
            return Ok(AlterTable::ChangeTracking { on: true, columns });
        }
        if self.words(&["disable", "change_tracking"]) {
            return Ok(AlterTable::ChangeTracking { on: false, columns: false });
        }
        Err(SqlError::unmodelled("this form of ALTER TABLE"))
    }

    fn alter_database(&mut self) -> Result<Statement> {
        let name = if self.word("current") { None } else { Some(self.ident()?) };
        self.expect_word("set")?;
        let options = self.list(Self::database_option)?;
        if self.word("with") {
            // WITH ROLLBACK IMMEDIATE, NO_WAIT
            if !self.word("no_wait") {
                self.expect_word("rollback")?;
                self.expect_word("immediate")?;
            }
        }
        Ok(Statement::AlterDatabase { name, options })
    }

    fn database_option(&mut self) -> Result<DatabaseOption> {
        let word = self.ident()?.to_ascii_lowercase();
        Ok(match word.as_str() {
            "allow_snapshot_isolation" => DatabaseOption::SnapshotIsolation(self.on_off()?),
            "read_committed_snapshot" => DatabaseOption::ReadCommittedSnapshot(self.on_off()?),
            "change_tracking" => {
                let on = if self.op("=") { self.on_off()? } else { true };
                let (mut retention_minutes, mut auto_cleanup) = (None, None);
                if self.op("(") {
                    self.list(|p| {
                        if p.word("change_retention") {
                            p.expect("=")?;
                            let n = p.integer()?;
                            let unit = if p.word("days") {
                                1440
                            } else if p.word("hours") {
                                60
                            } else {
                                p.expect_word("minutes")?;
                                1
                            };
                            retention_minutes = Some(n * unit);
                        } else {
                            p.expect_word("auto_cleanup")?;
                            p.expect("=")?;
                            auto_cleanup = Some(p.on_off()?);
                        }
                        Ok(())
                    })?;
                    self.expect(")")?;
                }
                DatabaseOption::ChangeTracking { on, retention_minutes, auto_cleanup }
            }
            "recovery" | "compatibility_level" | "auto_close" | "auto_shrink" => {
                self.op("=");
                if self.integer().is_err() && !self.word("on") && !self.word("off") {
                    self.ident_or_full()?;
                }
                DatabaseOption::Ignored(word)
            }
            other => return Err(SqlError::unmodelled(format!("the database option {other}"))),
        })
    }

    /// `FULL` is a reserved word.
    fn ident_or_full(&mut self) -> Result<()> {
        if self.word("full") { Ok(()) } else { self.ident().map(drop) }
    }

    pub fn drop_statement(&mut self) -> Result<Statement> {
        self.next();
        let what = match self.next() {
            Kind::Word(w) => w.to_ascii_lowercase(),
            _ => return Err(self.unexpected()),
        };
        let if_exists = self.words(&["if", "exists"]);
        match what.as_str() {
            "index" => {
                let first = self.name()?;
                if self.word("on") {
                    let table = self.name()?;
                    return Ok(Statement::DropIndex { name: first.into_iter().next_back().unwrap_or_default(), table });
                }
                // `DROP INDEX t.i`
                let mut table: Name = first;
                let name = table.pop().unwrap_or_default();
                if table.is_empty() { Err(self.unexpected()) } else { Ok(Statement::DropIndex { name, table }) }
            }
            "table" | "view" | "procedure" | "proc" | "schema" | "database" | "user" | "role" | "login" => {
                let names = self.list(Self::name)?;
                let what = if what == "proc" { "procedure".into() } else { what };
                Ok(Statement::Drop { what, if_exists, names })
            }
            other => Err(SqlError::unmodelled(format!("DROP {}", other.to_ascii_uppercase()))),
        }
    }
}

fn with_column(kind: ConstraintKind, column: &str) -> ConstraintKind {
    match kind {
        ConstraintKind::Key { primary, clustered, columns } if columns.is_empty() => {
            ConstraintKind::Key { primary, clustered, columns: vec![(column.to_owned(), false)] }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::ast::Statement;
    use crate::sql::parse_batch;

    #[test]
    fn statements_need_no_separator() {
        let batch = "SET NOCOUNT ON SELECT 1 a SELECT TOP (2) * FROM dbo.t WHERE x = 1 INSERT t VALUES (1), (2) \
                     IF @@TRANCOUNT > 0 ROLLBACK ELSE PRINT 'x' EXEC sp_executesql N'select 1'";
        assert_eq!(parse_batch(batch).unwrap().len(), 6);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "MERGE INTO t USING s ON 1 = 1 WHEN MATCHED THEN DELETE",
            "SELECT * FROM t FOR JSON AUTO",
            "SELECT TOP (1) PERCENT a FROM t",
            "CREATE TRIGGER x ON t AFTER INSERT AS SELECT 1",
            "SELECT * FROM t CROSS APPLY f(t.x)",
            "CREATE TABLE t (a int MASKED WITH (FUNCTION = 'default()'))",
            "ALTER INDEX ALL ON t REBUILD",
            "GRANT SELECT (a) ON t TO u",
            "SELECT SUM(a) OVER (ORDER BY b ROWS UNBOUNDED PRECEDING) FROM t",
        ] {
            let e = parse_batch(text).unwrap_err();
            assert_eq!(e.number, 49_999, "{text}: {e}");
        }
        for text in ["SELECT FROM", "SELECT 1 +", "INSERT", "UPDATE t SET", "SELECT (1", "BEGIN SELECT 1"] {
            let e = parse_batch(text).unwrap_err();
            assert!([102, 156].contains(&e.number), "{text}: {e}");
        }
    }

    #[test]
    fn northwind_parses() {
        let create = "CREATE TABLE \"Orders\" (\"OrderID\" \"int\" IDENTITY (1, 1) NOT NULL , \"Freight\" \"money\" NULL \
             CONSTRAINT \"DF\" DEFAULT (0), CONSTRAINT \"PK\" PRIMARY KEY  CLUSTERED (\"OrderID\"), CONSTRAINT FK FOREIGN KEY \
             (a) REFERENCES dbo.x (b), CONSTRAINT \"CK\" CHECK (BirthDate < getdate())) ON [PRIMARY]";
        let [Statement::CreateTable { columns, constraints, .. }] = &parse_batch(create).unwrap()[..] else { panic!() };
        assert_eq!((columns.len(), constraints.len()), (2, 3));
        parse_batch(
            "create view v AS SELECT o.* FROM Customers INNER JOIN (Orders o INNER JOIN x ON o.a = x.a) ON b = c",
        )
        .unwrap();
        parse_batch("ALTER TABLE T NOCHECK CONSTRAINT ALL").unwrap();
        parse_batch(
            "if exists (select * from sysobjects where id = object_id('dbo.x') and sysstat & 0xf = 3) drop table dbo.x",
        )
        .unwrap();
    }

    #[test]
    fn change_tables() {
        parse_batch(
            "SELECT CT.SYS_CHANGE_VERSION, T.* FROM CHANGETABLE(CHANGES [dbo].[t], @v) AS CT LEFT OUTER JOIN dbo.t AS T ON \
             T.id = CT.id ORDER BY 1; ALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 2 DAYS, \
             AUTO_CLEANUP = ON); ALTER TABLE t ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = ON)",
        )
        .unwrap();
    }
}
