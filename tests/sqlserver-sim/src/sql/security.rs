//! Logins, users, roles and permissions: "GRANT (Transact-SQL)", "CREATE LOGIN", "CREATE USER", "ALTER ROLE".

use super::ast::{Securable, Statement};
use super::parser::Parser;
use crate::error::{Result, SqlError};

impl Parser<'_> {
    pub fn create_login(&mut self) -> Result<Statement> {
        let name = self.ident()?;
        self.expect_word("with")?;
        self.expect_word("password")?;
        self.expect("=")?;
        let password = self.string()?;
        while self.op(",") {
            // CHECK_POLICY = OFF, DEFAULT_DATABASE = x …
            self.ident()?;
            self.expect("=")?;
            if !self.word("off") && !self.word("on") {
                self.ident()?;
            }
        }
        Ok(Statement::CreateLogin { name, password })
    }

    pub fn create_user(&mut self) -> Result<Statement> {
        let name = self.ident()?;
        let mut login = Some(name.clone());
        if self.words(&["for", "login"]) || self.words(&["from", "login"]) {
            login = Some(self.ident()?);
        } else if self.words(&["without", "login"]) {
            login = None;
        }
        Ok(Statement::CreateUser { name, login })
    }

    /// `ALTER [SERVER] ROLE r ADD|DROP MEMBER m`
    pub fn alter_role(&mut self, server: bool) -> Result<Statement> {
        let role = self.ident()?;
        let add = self.word("add");
        if !add {
            self.expect_word("drop")?;
        }
        self.expect_word("member")?;
        Ok(Statement::Membership { role, member: self.ident()?, add, server })
    }

    /// GRANT, DENY, REVOKE
    pub fn permission(&mut self) -> Result<Statement> {
        let verb = match self.next() {
            super::lexer::Kind::Word(w) => w.to_ascii_lowercase(),
            _ => return Err(self.unexpected()),
        };
        let permissions = self.list(|p| {
            let mut words = Vec::new();
            while let super::lexer::Kind::Word(w) = p.peek().clone() {
                if ["on", "to", "from"].iter().any(|stop| w.eq_ignore_ascii_case(stop)) {
                    break;
                }
                p.next();
                words.push(w.to_ascii_lowercase());
            }
            if p.is_op("(") {
                return Err(SqlError::unmodelled("permissions on columns"));
            }
            if words.is_empty() { Err(p.unexpected()) } else { Ok(words.join(" ")) }
        })?;
        let mut on = Securable::Database;
        if self.word("on") {
            on = if self.is("schema") && *self.peek_at(1) == super::lexer::Kind::Op("::") {
                self.next();
                self.next();
                Securable::Schema(self.ident()?)
            } else if self.is("database") && *self.peek_at(1) == super::lexer::Kind::Op("::") {
                self.next();
                self.next();
                self.ident()?;
                Securable::Database
            } else {
                if self.is("object") && *self.peek_at(1) == super::lexer::Kind::Op("::") {
                    self.next();
                    self.next();
                }
                Securable::Object(self.name()?)
            };
        }
        if !self.word("to") && !self.word("from") {
            return Err(self.unexpected());
        }
        let to = self.list(Self::ident)?;
        if self.is("with") || self.is("cascade") {
            return Err(SqlError::unmodelled("GRANT … WITH GRANT OPTION and CASCADE"));
        }
        Ok(Statement::Permission { verb, permissions, on, to })
    }
}
