//! What the caller may do and see: "Permissions (Database Engine)", "Metadata visibility configuration".

use super::catalog::{self, Object};
use super::session::Session;
use crate::error::{Result, SqlError};

impl Session {
    /// Member of db_owner, or dbo.
    pub fn db_owner(&self) -> bool {
        self.admin || self.user == "dbo" || self.principals().is_ok_and(|p| p.contains(&16_384))
    }

    /// Ids of the user and its roles.
    pub fn principals(&self) -> Result<Vec<i64>> {
        catalog::principals(&self.c, &self.user)
    }

    /// Fails with 229 unless the caller has a permission on an object.
    pub fn demand(&self, permission: &str, object: &Object) -> Result<()> {
        if self.admin || self.user == "dbo" {
            return Ok(());
        }
        let ids = self.principals()?;
        if ids.contains(&16_384)
            || catalog::allowed(&self.c, &ids, &permission.to_ascii_lowercase(), object.id, object.schema_id)?
        {
            return Ok(());
        }
        Err(SqlError::denied(permission, &object.name, &self.db.name, &object.schema))
    }

    /// Fails with 229 unless the caller may see the state of the server or the database: "VIEW DATABASE STATE".
    pub fn demand_state(&self, permission: &str) -> Result<()> {
        let lower = permission.to_ascii_lowercase();
        if self.admin
            || self.server.server_permissions(&self.login).iter().any(|p| *p == lower || p == "view server state")
        {
            return Ok(());
        }
        if lower == "view database state"
            && (self.db_owner() || catalog::allowed(&self.c, &self.principals()?, &lower, 0, 0)?)
        {
            return Ok(());
        }
        let (number, place) = if lower == "view database state" {
            (262, format!("database '{}'", self.db.name))
        } else {
            (300, "object 'server', database 'master'".into())
        };
        Err(SqlError::new(number, 14, 1, format!("{permission} permission was denied on {place}.")))
    }

    /// Fails unless the caller is db_owner, for procedures that demand it.
    pub fn demand_owner(&self, procedure: &str) -> Result<()> {
        if self.db_owner() {
            return Ok(());
        }
        Err(SqlError::new(
            229,
            14,
            5,
            format!(
                "The EXECUTE permission was denied on the object '{procedure}', database 'mssqlsystemresource', schema 'sys'."
            ),
        ))
    }

    /// SQLite text: may the caller read the capture instance in alias `a` of cdc.change_tables? "cdc.change_tables",
    /// `role_name`: members of the gating role, or everybody without one.
    pub fn instance_visible(&self, a: &str) -> Result<String> {
        if self.db_owner() {
            return Ok("1".into());
        }
        let list = self.principals()?.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Ok(format!(
            "({a}.c9 IS NULL OR EXISTS (SELECT 1 FROM core_principals q WHERE q.name = {a}.c9 AND q.principal_id IN ({list})))"
        ))
    }

    /// SQLite text: may the caller see change tracking of object `o`?
    pub fn tracking_visible(&self) -> Result<String> {
        let list = self.principals()?.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Ok(format!(
            "EXISTS (SELECT 1 FROM core_permissions p WHERE p.grantee IN ({list}) AND p.state = 'G' AND p.permission IN ('view change tracking', 'control') \
             AND (p.class = 0 OR p.class = 3 AND p.major = o.schema_id OR p.class = 1 AND p.major = o.object_id))"
        ))
    }
}
