//! A connection that makes changes, and the few places where the vendors' SQL differs.

use mysql_async::prelude::Queryable;

/// A connection to a vendor's server. MySQL's reads ANSI quotes and takes backslashes as they are.
pub enum Session {
    Postgres(tokio_postgres::Client),
    Mysql(mysql_async::Conn),
}

impl From<tokio_postgres::Client> for Session {
    fn from(client: tokio_postgres::Client) -> Self {
        Self::Postgres(client)
    }
}

impl From<mysql_async::Conn> for Session {
    fn from(client: mysql_async::Conn) -> Self {
        Self::Mysql(client)
    }
}

impl Session {
    /// Runs statements as one transaction; the last one ends it. `false` if the source's own rules (keys in use, rows
    /// referred to) refused one: it is rolled back then.
    pub async fn transaction(&mut self, statements: &[String]) -> bool {
        match self {
            Self::Postgres(client) => {
                let sql = format!("BEGIN; {}", statements.join("; "));
                let Err(error) = client.batch_execute(&sql).await else { return true };
                assert!(error.as_db_error().is_some(), "the source failed: {error}");
                let code = error.code().map_or("", |c| c.code());
                assert!(code.starts_with("23"), "a statement of the workload is wrong: {error:?}\n{sql}");
                client.batch_execute("ROLLBACK").await.expect("rolls back");
            }
            Self::Mysql(client) => {
                client.query_drop("BEGIN").await.expect("begins");
                let mut refused = false;
                for sql in statements {
                    if let Err(error) = client.query_drop(sql).await {
                        // Duplicate key, a parent or a child in the way.
                        let known =
                            matches!(&error, mysql_async::Error::Server(e) if [1062, 1451, 1452].contains(&e.code));
                        assert!(known, "a statement of the workload is wrong: {error}\n{sql}");
                        refused = true;
                        break;
                    }
                }
                if !refused {
                    return true;
                }
                client.query_drop("ROLLBACK").await.expect("rolls back");
            }
        }
        false
    }

    /// The end of an INSERT that leaves a row be which is there already; `column` is one of its key.
    pub fn or_leave(&self, column: &str) -> String {
        match self {
            Self::Postgres(_) => "ON CONFLICT DO NOTHING".into(),
            Self::Mysql(_) => format!("ON DUPLICATE KEY UPDATE \"{column}\" = \"{column}\""),
        }
    }

    /// A timestamp some hours after the beginning of 2024.
    pub fn hours_later(&self, hours: u64) -> String {
        match self {
            Self::Postgres(_) => format!("'2024-01-01'::timestamp + {hours} * interval '1 hour'"),
            Self::Mysql(_) => format!("timestamp '2024-01-01 00:00:00' + interval {hours} hour"),
        }
    }

    /// An expression's hash: an order that looks like none.
    pub fn hash(&self, of: &str) -> String {
        match self {
            Self::Postgres(_) => format!("md5({of})"),
            // MySQL has given up MD5.
            Self::Mysql(_) => format!("sha2({of}, 224)"),
        }
    }

    /// A few dozen bytes for each of `times`.
    pub fn bytes(&self, times: u64) -> String {
        match self {
            Self::Postgres(_) => format!("decode(repeat(md5('{times}'), {times}), 'hex')"),
            Self::Mysql(_) => format!("unhex(repeat(sha2('{times}', 224), {times}))"),
        }
    }
}
