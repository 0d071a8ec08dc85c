//! Users, roles and permissions.

use super::catalog;
use super::session::Session;
use crate::error::{Result, SqlError};
use crate::sql::ast::{Securable, Statement};
use rusqlite::{OptionalExtension, params};

/// Permissions of the server, "GRANT Server Permissions".
const SERVER: [&str; 3] = ["view server state", "view server performance state", "view any definition"];

/// Permissions on a database, a schema or an object that mean something here.
const KNOWN: [&str; 13] = [
    "select",
    "insert",
    "update",
    "delete",
    "alter",
    "control",
    "execute",
    "references",
    "connect",
    "view definition",
    "view change tracking",
    "view database state",
    "view database performance state",
];

impl Session {
    /// Runs a statement about logins, users, roles or permissions.
    pub fn security(&mut self, s: &Statement) -> Result<()> {
        if !self.db_owner() {
            return Err(SqlError::new(15_247, 16, 1, "User does not have permission to perform this action."));
        }
        match s {
            Statement::CreateLogin { name, password } => self.server.add_login(name, password),
            Statement::CreateUser { name, login } => {
                if let Some(login) = login
                    && self.server.login(login).is_none()
                {
                    return Err(SqlError::new(
                        15_007,
                        16,
                        1,
                        format!("'{login}' is not a valid login or you do not have permission."),
                    ));
                }
                self.write(|s| s.add_principal(name, "S", login.as_deref()))
            }
            Statement::CreateRole(name) => self.write(|s| s.add_principal(name, "R", None)),
            Statement::Membership { role, member, add, server: true } => {
                if !role.eq_ignore_ascii_case("sysadmin") {
                    return Err(SqlError::unmodelled(format!("the server role {role}")));
                }
                self.server.change_login(member, |l| l.admin = *add)
            }
            Statement::Membership { role, member, add, server: false } => self.write(|s| {
                let (role, member) = (s.principal(role)?, s.principal(member)?);
                let sql = if *add {
                    "INSERT OR IGNORE INTO core_members VALUES(?1, ?2)"
                } else {
                    "DELETE FROM core_members WHERE role_id = ?1 AND member_id = ?2"
                };
                s.c.execute(sql, params![role, member])?;
                Ok(())
            }),
            Statement::Permission { verb, permissions, on, to } => self.permit(verb, permissions, on, to),
            _ => Err(SqlError::unmodelled("this statement")),
        }
    }

    fn add_principal(&mut self, name: &str, kind: &str, login: Option<&str>) -> Result<()> {
        let exists: bool =
            self.c.query_row("SELECT count(*) > 0 FROM core_principals WHERE name = ?1", [name], |r| r.get(0))?;
        if exists {
            return Err(SqlError::new(
                15_023,
                16,
                1,
                format!("User, group, or role '{name}' already exists in the current database."),
            ));
        }
        // Ids of the fixed roles begin at 16384.
        self.c.execute(
            "INSERT INTO core_principals SELECT 1 + max(principal_id), ?1, ?2, ?3 FROM core_principals WHERE principal_id < 16384",
            params![name, kind, login],
        )?;
        Ok(())
    }

    fn principal(&self, name: &str) -> Result<i64> {
        let id: Option<i64> = self
            .c
            .query_row("SELECT principal_id FROM core_principals WHERE name = ?1", [name], |r| r.get(0))
            .optional()?;
        id.ok_or_else(|| {
            let text =
                format!("Cannot find the user '{name}', because it does not exist or you do not have permission.");
            SqlError::new(15_151, 16, 1, text)
        })
    }

    fn permit(&mut self, verb: &str, permissions: &[String], on: &Securable, to: &[String]) -> Result<()> {
        for permission in permissions {
            if SERVER.contains(&permission.as_str()) {
                for login in to {
                    self.server.change_login(login, |l| {
                        l.permissions.retain(|p| p != permission);
                        if verb == "grant" {
                            l.permissions.push(permission.clone());
                        }
                    })?;
                }
                continue;
            }
            if !KNOWN.contains(&permission.as_str()) {
                return Err(SqlError::unmodelled(format!("the permission {permission}")));
            }
            let (class, major) = match on {
                Securable::Database => (0, 0),
                Securable::Schema(name) => {
                    let id = catalog::schema_id(&self.c, name)?;
                    (3, id.ok_or_else(|| SqlError::new(15_151, 16, 1, format!("Cannot find the schema '{name}', because it does not exist or you do not have permission.")))?)
                }
                Securable::Object(name) => {
                    let r = catalog::resolve(self, name)?;
                    let object = catalog::find(&self.c, &r.schema, &r.object)?;
                    let text = format!(
                        "Cannot find the object '{}', because it does not exist or you do not have permission.",
                        r.object
                    );
                    (1, object.ok_or_else(|| SqlError::new(15_151, 16, 1, text))?.id)
                }
            };
            self.write(|s| {
                for name in to {
                    let grantee = s.principal(name)?;
                    s.c.execute("DELETE FROM core_permissions WHERE grantee = ?1 AND class = ?2 AND major = ?3 AND permission = ?4", params![grantee, class, major, permission])?;
                    if verb != "revoke" {
                        let state = if verb == "grant" { "G" } else { "D" };
                        s.c.execute("INSERT INTO core_permissions VALUES(?1, ?2, ?3, ?4, ?5)", params![grantee, class, major, permission, state])?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
