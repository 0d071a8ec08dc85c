//! Statements that change data, control the flow or the session.

use super::ast::{Argument, Assignment, Expr, Item, Source, Statement};
use super::lexer::Kind;
use super::parser::Parser;
use crate::error::{Result, SqlError};

impl Parser<'_> {
    /// One statement, without the separator behind it.
    pub fn statement(&mut self) -> Result<Statement> {
        self.deeper(Self::statement_inner)
    }

    fn statement_inner(&mut self) -> Result<Statement> {
        let Kind::Word(word) = self.peek().clone() else {
            return if self.is_op("(") {
                self.query().map(|q| Statement::Query(Box::new(q)))
            } else {
                Err(self.unexpected())
            };
        };
        match word.to_ascii_lowercase().as_str() {
            "select" => self.query().map(|q| Statement::Query(Box::new(q))),
            "with" => self.with_statement(),
            "insert" => self.insert(),
            "update" => self.update(),
            "delete" => self.delete(),
            "truncate" => {
                self.next();
                self.expect_word("table")?;
                self.name().map(Statement::Truncate)
            }
            "declare" => self.declare(),
            "set" => self.set(),
            "if" => self.if_statement(),
            "while" => {
                self.next();
                let condition = self.condition()?;
                Ok(Statement::While(condition, Box::new(self.statement()?)))
            }
            "begin" => self.begin(),
            "commit" => {
                self.next();
                if self.word("tran") || self.word("transaction") || self.word("work") {
                    self.transaction_name()?;
                }
                Ok(Statement::Commit)
            }
            "rollback" => {
                self.next();
                let named = self.word("tran") || self.word("transaction");
                let name = if named { self.transaction_name()? } else { None };
                self.word("work");
                Ok(Statement::Rollback(name))
            }
            "save" => {
                self.next();
                if !self.word("tran") {
                    self.expect_word("transaction")?;
                }
                Ok(Statement::Save(self.ident()?))
            }
            "exec" | "execute" => self.exec(),
            "print" => {
                self.next();
                self.expr().map(Statement::Print)
            }
            "raiserror" => {
                self.next();
                self.expect("(")?;
                let args = self.list(Self::expr)?;
                self.expect(")")?;
                if self.is("with") {
                    return Err(SqlError::unmodelled("RAISERROR … WITH"));
                }
                Ok(Statement::RaiseError(args))
            }
            "throw" => {
                self.next();
                let bare = self.end() || self.is_op(";") || self.is("end");
                Ok(Statement::Throw(if bare { Vec::new() } else { self.list(Self::expr)? }))
            }
            "return" => {
                self.next();
                let value = if matches!(self.peek(), Kind::Number(_)) { Some(self.expr()?) } else { None };
                Ok(Statement::Return(value))
            }
            "waitfor" => {
                self.next();
                self.expect_word("delay")?;
                self.expr().map(Statement::WaitFor)
            }
            "use" => {
                self.next();
                self.ident().map(Statement::Use)
            }
            "checkpoint" => {
                self.next();
                Ok(Statement::Checkpoint)
            }
            "kill" => {
                self.next();
                self.expr().map(Statement::Kill)
            }
            "create" => self.create(),
            "alter" => self.alter(),
            "drop" => self.drop_statement(),
            "grant" | "deny" | "revoke" => self.permission(),
            "merge" => Err(SqlError::unmodelled("MERGE")),
            "bulk" => Err(SqlError::unmodelled("BULK INSERT")),
            "dbcc" => Err(SqlError::unmodelled("DBCC")),
            "backup" | "restore" => {
                Err(SqlError::unmodelled("BACKUP and RESTORE as statements (use the control handle)"))
            }
            "go" => Err(SqlError::syntax("go")),
            // The first statement of a batch may be a procedure without EXEC.
            _ if self.mark() == 0 => self.call_by_name(),
            _ => Err(self.unexpected()),
        }
    }

    fn with_statement(&mut self) -> Result<Statement> {
        self.query().map(|q| Statement::Query(Box::new(q)))
    }

    fn transaction_name(&mut self) -> Result<Option<String>> {
        match self.peek() {
            Kind::Quoted(_) => self.ident().map(Some),
            Kind::Word(w) if !w.starts_with('@') && !super::parser::reserved(w) => self.ident().map(Some),
            _ => Ok(None),
        }
    }

    fn insert(&mut self) -> Result<Statement> {
        self.next();
        if self.is("top") {
            return Err(SqlError::unmodelled("INSERT TOP"));
        }
        self.word("into");
        let table = self.name()?;
        self.hints()?;
        let columns = if self.is_op("(") && !self.select_follows() { self.ident_list()? } else { Vec::new() };
        let output = self.output()?;
        let source = if self.word("values") {
            Source::Values(self.rows()?)
        } else if self.words(&["default", "values"]) {
            Source::Default
        } else if self.is("exec") || self.is("execute") {
            Source::Exec(Box::new(self.exec()?))
        } else {
            Source::Query(Box::new(self.query()?))
        };
        Ok(Statement::Insert { table, columns, output, source })
    }

    fn select_follows(&self) -> bool {
        self.is_at(1, "select") || self.is_at(1, "with")
    }

    fn output(&mut self) -> Result<Vec<Item>> {
        if !self.word("output") {
            return Ok(Vec::new());
        }
        let items = self.list(Self::item)?;
        if self.is("into") {
            return Err(SqlError::unmodelled("OUTPUT … INTO"));
        }
        Ok(items)
    }

    fn update(&mut self) -> Result<Statement> {
        self.next();
        let top = self.top()?;
        let target = self.name()?;
        self.hints()?;
        self.expect_word("set")?;
        let sets = self.list(|p| {
            if matches!(p.peek(), Kind::Word(w) if w.starts_with('@')) {
                return Err(SqlError::unmodelled("UPDATE … SET @variable"));
            }
            let column = p.name()?;
            let op = ["+", "-", "*", "/"].into_iter().find(|op| p.is_op(&format!("{op}=")));
            if let Some(op) = op {
                p.next();
                let value = Expr::Arith(op, Box::new(Expr::Column(column.clone())), Box::new(p.expr()?));
                return Ok(Assignment { column, value });
            }
            p.expect("=")?;
            Ok(Assignment { column, value: p.expr()? })
        })?;
        let output = self.output()?;
        let from = if self.word("from") { self.list(Self::table_ref)? } else { Vec::new() };
        let filter = if self.word("where") { Some(self.condition()?) } else { None };
        Ok(Statement::Update { top, target, sets, output, from, filter })
    }

    fn delete(&mut self) -> Result<Statement> {
        self.next();
        let top = self.top()?;
        self.word("from");
        let target = self.name()?;
        self.hints()?;
        let output = self.output()?;
        let from = if self.word("from") { self.list(Self::table_ref)? } else { Vec::new() };
        let filter = if self.word("where") { Some(self.condition()?) } else { None };
        Ok(Statement::Delete { top, target, output, from, filter })
    }

    fn declare(&mut self) -> Result<Statement> {
        self.next();
        let list = self.list(|p| {
            let name = p.variable().ok_or_else(|| p.unexpected())?;
            p.word("as");
            if p.is("table") || p.is("cursor") {
                return Err(SqlError::unmodelled("table variables and cursors"));
            }
            let ty = p.type_name()?;
            let value = if p.op("=") { Some(p.expr()?) } else { None };
            Ok((name, ty, value))
        })?;
        Ok(Statement::Declare(list))
    }

    /// "SET Statements (Transact-SQL)"
    fn set(&mut self) -> Result<Statement> {
        self.next();
        if let Some(name) = self.variable() {
            let op = ["+", "-", "*", "/"].into_iter().find(|op| self.is_op(&format!("{op}=")));
            if let Some(op) = op {
                self.next();
                let value = Expr::Arith(op, Box::new(Expr::Var(name.clone())), Box::new(self.expr()?));
                return Ok(Statement::SetVar(name, value));
            }
            self.expect("=")?;
            return Ok(Statement::SetVar(name, self.expr()?));
        }
        if self.words(&["transaction", "isolation", "level"]) {
            let level = if self.words(&["read", "committed"]) {
                "read committed"
            } else if self.words(&["read", "uncommitted"]) {
                "read uncommitted"
            } else if self.words(&["repeatable", "read"]) {
                "repeatable read"
            } else if self.word("serializable") {
                "serializable"
            } else if self.word("snapshot") {
                "snapshot"
            } else {
                return Err(self.unexpected());
            };
            return Ok(Statement::SetIsolation(level.into()));
        }
        if self.word("identity_insert") {
            let table = self.name()?;
            return Ok(Statement::SetIdentityInsert(table, self.on_off()?));
        }
        if self.word("context_info") {
            return self.expr().map(Statement::SetContext);
        }
        let mut names = vec![self.ident()?.to_ascii_lowercase()];
        while self.op(",") {
            names.push(self.ident()?.to_ascii_lowercase());
        }
        if self.is("on") || self.is("off") {
            let on = self.on_off()?;
            return Ok(Statement::SetOption(names.join(","), on));
        }
        let name = names.remove(0);
        let value = match self.peek().clone() {
            Kind::Word(w) if !w.starts_with('@') => {
                self.next();
                Expr::Str(w, false)
            }
            _ => self.expr()?,
        };
        Ok(Statement::SetValue(name, value))
    }

    fn if_statement(&mut self) -> Result<Statement> {
        self.next();
        let condition = self.condition()?;
        let then = Box::new(self.statement()?);
        let mark = self.mark();
        while self.op(";") {}
        if self.word("else") {
            return Ok(Statement::If(condition, then, Some(Box::new(self.statement()?))));
        }
        self.reset(mark);
        Ok(Statement::If(condition, then, None))
    }

    fn begin(&mut self) -> Result<Statement> {
        self.next();
        if self.word("tran") || self.word("transaction") {
            self.transaction_name()?;
            return Ok(Statement::Begin);
        }
        if self.word("distributed") {
            return Err(SqlError::unmodelled("distributed transactions"));
        }
        if self.word("try") {
            let body = self.block(&["end", "try"])?;
            while self.op(";") {}
            if !self.words(&["begin", "catch"]) {
                return Err(self.unexpected());
            }
            let handler = self.block(&["end", "catch"])?;
            return Ok(Statement::Try(body, handler));
        }
        self.block(&["end"]).map(Statement::Block)
    }

    fn block(&mut self, close: &[&str]) -> Result<Vec<Statement>> {
        let mut out = Vec::new();
        loop {
            while self.op(";") {}
            if self.words(close) {
                return Ok(out);
            }
            if self.end() {
                return Err(self.unexpected());
            }
            out.push(self.statement()?);
        }
    }

    fn exec(&mut self) -> Result<Statement> {
        self.next();
        if self.op("(") {
            let text = self.expr()?;
            self.expect(")")?;
            return Ok(Statement::ExecText(text));
        }
        let mut result = None;
        if *self.peek_at(1) == Kind::Op("=") {
            result = self.variable();
            self.next();
        }
        let name = self.name()?;
        Ok(Statement::Exec { result, name, args: self.exec_arguments()? })
    }

    fn call_by_name(&mut self) -> Result<Statement> {
        let name = self.name()?;
        Ok(Statement::Exec { result: None, name, args: self.exec_arguments()? })
    }

    fn exec_arguments(&mut self) -> Result<Vec<Argument>> {
        if self.end() || self.is_op(";") || self.argument_cannot_begin() {
            return Ok(Vec::new());
        }
        self.list(|p| {
            let mut name = None;
            if *p.peek_at(1) == Kind::Op("=") {
                name = p.variable();
                p.next();
            }
            // A bare word is a character constant here.
            let value = match p.peek().clone() {
                Kind::Word(w)
                    if !w.starts_with('@') && !w.eq_ignore_ascii_case("null") && !w.eq_ignore_ascii_case("default") =>
                {
                    p.next();
                    Expr::Str(w, true)
                }
                Kind::Quoted(w) => {
                    p.next();
                    Expr::Str(w, true)
                }
                _ => p.expr()?,
            };
            let output = p.word("output") || p.word("out");
            Ok(Argument { name, value, output })
        })
    }

    fn argument_cannot_begin(&self) -> bool {
        match self.peek() {
            Kind::Word(w) => {
                super::parser::reserved(w) && !w.eq_ignore_ascii_case("null") && !w.eq_ignore_ascii_case("default")
            }
            _ => false,
        }
    }
}
