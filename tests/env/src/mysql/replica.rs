//! One server as the replica of another, for tests of failover.

use super::{MysqlCluster, MysqlFlavour};
use crate::{Error, Result};
use std::time::{Duration, Instant};

const PASSWORD: &str = "throwaway-replication";

impl MysqlCluster {
    /// Makes this server a replica of `primary`, by global transaction ids. Both must have them, and different server
    /// ids; the primary's logs must reach back to its beginning.
    pub fn replicate_from(&self, primary: &MysqlCluster) -> Result<()> {
        primary.sql(&format!(
            "CREATE USER IF NOT EXISTS replication@'%' IDENTIFIED BY '{PASSWORD}';
             GRANT REPLICATION SLAVE ON *.* TO replication@'%'"
        ))?;
        let port = primary.port();
        self.sql(&match self.flavour() {
            MysqlFlavour::MariaDb => format!(
                "RESET MASTER; SET GLOBAL gtid_slave_pos = '';
                 CHANGE MASTER TO master_host = '127.0.0.1', master_port = {port}, master_user = 'replication',
                 master_password = '{PASSWORD}', master_connect_retry = 1, master_use_gtid = slave_pos; START SLAVE"
            ),
            MysqlFlavour::MySql => format!(
                "RESET BINARY LOGS AND GTIDS;
                 CHANGE REPLICATION SOURCE TO source_host = '127.0.0.1', source_port = {port},
                 source_user = 'replication', source_password = '{PASSWORD}', source_auto_position = 1,
                 source_connect_retry = 1, get_source_public_key = 1, source_ssl = {}; START REPLICA",
                u8::from(primary.options.tls)
            ),
        })?;
        Ok(())
    }

    /// Waits until this replica has everything that `primary` has committed so far.
    pub fn wait_for(&self, primary: &MysqlCluster) -> Result<()> {
        let (head, ask) = match self.flavour() {
            MysqlFlavour::MariaDb => ("SELECT @@gtid_binlog_pos", "master_gtid_wait"),
            MysqlFlavour::MySql => ("SELECT replace(@@gtid_executed, '\\n', '')", "wait_for_executed_gtid_set"),
        };
        let head = primary.sql(head)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.sql(&format!("SELECT {ask}('{head}', 1)"))? != "0" {
            let wrong = self.sql(match self.flavour() {
                MysqlFlavour::MariaDb => "SHOW SLAVE STATUS",
                MysqlFlavour::MySql => {
                    "SELECT last_error_message FROM performance_schema.replication_connection_status
                     UNION ALL SELECT last_error_message FROM performance_schema.replication_applier_status_by_worker"
                }
            })?;
            if Instant::now() > deadline {
                let what = "waiting for the replica".to_owned();
                return Err(Error::Failed {
                    what,
                    details: format!("it is behind {head} after 60 s: {}", wrong.trim()),
                });
            }
        }
        Ok(())
    }

    /// Ends the replication: this server goes on for itself.
    pub fn promote(&self) -> Result<()> {
        self.sql(match self.flavour() {
            MysqlFlavour::MariaDb => "STOP SLAVE; RESET SLAVE ALL",
            MysqlFlavour::MySql => "STOP REPLICA; RESET REPLICA ALL",
        })
        .map(drop)
    }
}
