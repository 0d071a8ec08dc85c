//! PostgreSQL, beside `psql` and `pg_recvlogical`.

use super::{Backlog, DATABASE, USER, Vendor};
use crate::Failure;
use crate::process::server_cpu;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tidemark_throwaway::{PostgresCluster, PostgresOptions};

/// Slot and publication of the limit tool.
const LIMIT: &str = "limit_tool";

/// 15 columns of the kinds that a customer table has, about 450 bytes a row as text.
const CREATE: &str = "
CREATE TABLE customers (
    id bigint PRIMARY KEY, first_name text, last_name text, company text, email text, phone text,
    street text, city text, country char(2), credit_limit numeric(12,2), active boolean NOT NULL,
    created_at timestamptz NOT NULL, updated_at timestamp NOT NULL, attributes jsonb, note text);
ALTER TABLE customers OWNER TO tidemark;
CREATE PUBLICATION limit_tool FOR TABLE customers;
CREATE FUNCTION make(first bigint, last bigint) RETURNS void LANGUAGE sql AS $$
INSERT INTO customers SELECT
    n, (ARRAY['Anna','Bernd','Chloé','Dmitri','Eva','Farid','Grace','Hugo'])[1 + n % 8],
    initcap(translate(substr(md5(n::text), 1, 11), '0123456789', 'ghijklmnop')),
    initcap(translate(substr(md5(n::text), 12, 14), '0123456789', 'aeiourstln')) || ' & Sons Trading GmbH',
    'Contact.' || n || '@' || substr(md5(n::text), 1, 12) || '.example',
    '+49 30 ' || lpad((n * 7919 % 100000000)::text, 8, '0'),
    initcap(translate(substr(md5((n + 1)::text), 1, 16), '0123456789', 'aeiourstln')) || 'strasse ' || n % 200,
    (ARRAY['Berlin','Łódź','Besançon','Köln','San Sebastián','Reykjavík','Praha','Zürich'])[1 + n / 8 % 8],
    (ARRAY['DE','PL','FR','DE','ES','IS','CZ','CH'])[1 + n / 8 % 8],
    CASE WHEN n % 50 = 0 THEN NULL ELSE (n * 31 % 9000000)::numeric / 100 END, n % 10 <> 0,
    timestamptz '2015-01-01 00:00:00+00' + n * interval '311.25 seconds',
    timestamp '2024-01-01 00:00:00' + n * interval '17.5 seconds',
    jsonb_build_object('segment', n % 5, 'newsletter', n % 3 = 0, 'tags', jsonb_build_array('t' || n % 17, 't' || n % 23),
                       'source', 'import', 'campaign', 'spring ' || 2015 + n % 10),
    left(md5(n::text) || ' ' || md5((n + 2)::text) || ' ' || md5((n + 3)::text) || ' ' || md5((n + 4)::text), 128)
FROM generate_series(first, last) n $$;";

/// The database with its table.
pub struct Postgres {
    cluster: PostgresCluster,
    bin: PathBuf,
}

impl Postgres {
    pub fn start(rows: u64) -> Result<Self, Failure> {
        let options = PostgresOptions::default()
            .setting("shared_buffers", "1GB")
            .setting("max_wal_size", "16GB")
            .setting("checkpoint_timeout", "1h")
            .setting("autovacuum", "off");
        let cluster = PostgresCluster::start(options)?;
        let pid = cluster.pid().ok_or("the server does not run")?;
        let server = std::fs::read_link(format!("/proc/{pid}/exe"))?;
        let bin = server.parent().ok_or("the server lies nowhere")?.to_owned();
        cluster.psql(&format!("CREATE ROLE {USER} LOGIN REPLICATION; CREATE DATABASE {DATABASE} OWNER {USER}"))?;
        cluster.psql_in(DATABASE, CREATE)?;
        cluster.psql_in(DATABASE, &format!("SELECT make(1, {rows})"))?;
        // As it lies in a database that has been running for a while.
        cluster.psql_in(DATABASE, "VACUUM (FREEZE, ANALYZE) customers; CHECKPOINT")?;
        Ok(Self { cluster, bin })
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.args(["-h", "127.0.0.1", "-U", USER, "-d", DATABASE, "-p", &self.cluster.port().to_string()]);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn head(&self) -> Result<String, Failure> {
        self.sql("SELECT pg_current_wal_flush_lsn()")
    }
}

impl Vendor for Postgres {
    fn version(&self) -> Result<String, Failure> {
        Ok(format!("PostgreSQL {}", self.sql("SHOW server_version")?))
    }

    fn engine(&self, tenant: &str) -> String {
        format!(
            "engine = \"postgres\"\nport = {}\n[source.postgres]\nslot = \"tidemark_{tenant}\"\n\
             publication = \"tidemark_{tenant}\"",
            self.cluster.port()
        )
    }

    fn sql(&self, sql: &str) -> Result<String, Failure> {
        Ok(self.cluster.psql_in(DATABASE, sql)?)
    }

    fn cpu(&self) -> Duration {
        self.cluster.pid().map_or(Duration::ZERO, server_cpu)
    }

    fn row_bytes(&self, rows: u64) -> Result<String, Failure> {
        let rows = rows.min(10_000);
        let mut command = self.tool("psql");
        let copy = format!("COPY (SELECT * FROM customers WHERE id <= {rows}) TO STDOUT");
        command.args(["-X", "-q", "-c", &copy]);
        let bytes = command.stdout(Stdio::piped()).output()?.stdout.len() as u64;
        Ok(format!("{} B (COPY text)", bytes / rows))
    }

    fn whole_table(&self) -> Option<(&'static str, Command)> {
        let mut command = self.tool("psql");
        command.args(["-X", "-q", "-c", "COPY (SELECT * FROM customers) TO STDOUT"]);
        Some(("psql: COPY … TO STDOUT > /dev/null", command))
    }

    fn keep_log(&self) -> Result<(), Failure> {
        self.sql(&format!("SELECT pg_create_logical_replication_slot('{LIMIT}', 'pgoutput')")).map(drop)
    }

    fn log_reader(&self, backlog: &Backlog) -> Result<Option<(&'static str, Command)>, Failure> {
        let mut command = self.tool("pg_recvlogical");
        command.args(["--slot", LIMIT, "--start", "--no-loop", "--endpos", &backlog.end, "-f", "-"]);
        command.args(["-o", "proto_version=1", "-o", &format!("publication_names={LIMIT}")]);
        Ok(Some(("pg_recvlogical (pgoutput) > /dev/null", command)))
    }

    fn log_was_read(&self) -> Result<(), Failure> {
        self.sql(&format!("SELECT pg_drop_replication_slot('{LIMIT}')")).map(drop)
    }

    fn write_backlog(&self, rows: u64, changes: u64, transactions: u64) -> Result<Backlog, Failure> {
        let (inserts, updates, deletes) =
            (changes * 6 / 10 / transactions, changes * 36 / 100 / transactions, changes * 4 / 100 / transactions);
        // 7919 is a prime that divides no round number: the rows are scattered, and none comes twice.
        self.sql(&format!(
            "DO $$ DECLARE t bigint; BEGIN
               FOR t IN 0..{transactions} - 1 LOOP
                 PERFORM make({rows} + t * {inserts} + 1, {rows} + (t + 1) * {inserts});
                 UPDATE customers SET credit_limit = coalesce(credit_limit, 0) + 0.5, phone = '+49 40 ' || id,
                     updated_at = updated_at + interval '1 hour'
                   WHERE id IN (SELECT 1 + k * 7919 % {rows} FROM generate_series(t * {updates}, (t + 1) * {updates} - 1) k);
                 DELETE FROM customers WHERE id IN (SELECT 1 + k * 7919 % {rows} FROM generate_series(
                   {transactions} * {updates} + t * {deletes}, {transactions} * {updates} + (t + 1) * {deletes} - 1) k);
                 COMMIT;
               END LOOP;
             END $$"
        ))?;
        Ok(Backlog { changes: (inserts + updates + deletes) * transactions, transactions, end: self.head()? })
    }

    fn write_giant(&self) -> Result<Backlog, Failure> {
        self.sql(
            "UPDATE customers SET credit_limit = coalesce(credit_limit, 0) + 0.25, updated_at = updated_at + interval '1 day'",
        )?;
        let changes = self.sql("SELECT count(*) FROM customers")?.parse()?;
        Ok(Backlog { changes, transactions: 1, end: self.head()? })
    }

    fn is_confirmed(&self, tenant: &str, place: &str) -> Result<bool, Failure> {
        let sql = format!(
            "SELECT confirmed_flush_lsn >= '{place}' FROM pg_replication_slots WHERE slot_name = 'tidemark_{tenant}'"
        );
        Ok(self.sql(&sql)? == "t")
    }

    fn forget(&self, tenant: &str) -> Result<(), Failure> {
        // A slot that nobody drains any more would keep the log.
        self.sql(&format!("SELECT pg_drop_replication_slot('tidemark_{tenant}')")).map(drop)
    }
}
