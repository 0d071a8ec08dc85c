//! The application that uses the vendor's database: inserts, updates, deletes and changes of keys, in transactions of
//! different sizes.

use super::SceneError;
use super::database::{CUSTOMERS, FIRST_ORDER, ORDERS, Owner, customer_id};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Rows that were changed so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// New rows.
    pub inserted: AtomicU64,
    /// Changed rows.
    pub updated: AtomicU64,
    /// Removed rows.
    pub deleted: AtomicU64,
    /// Rows whose key changed.
    pub rekeyed: AtomicU64,
    /// Transactions.
    pub transactions: AtomicU64,
}

impl Tally {
    /// All changes.
    pub fn changes(&self) -> u64 {
        [&self.inserted, &self.updated, &self.deleted, &self.rekeyed].iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    fn add(&self, done: &Done) {
        self.inserted.fetch_add(done.inserted, Ordering::Relaxed);
        self.updated.fetch_add(done.updated, Ordering::Relaxed);
        self.deleted.fetch_add(done.deleted, Ordering::Relaxed);
        self.rekeyed.fetch_add(done.rekeyed, Ordering::Relaxed);
        self.transactions.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Done {
    inserted: u64,
    updated: u64,
    deleted: u64,
    rekeyed: u64,
}

/// Changes about `per_second` rows a second until `stop` becomes true.
///
/// # Errors
/// If a statement fails.
pub async fn run(
    mut owner: Owner,
    seed: u64,
    per_second: u32,
    tally: Arc<Tally>,
    stop: watch::Receiver<bool>,
) -> Result<(), SceneError> {
    let mut dice = Dice::new(seed, owner.is_transact());
    let start = Instant::now();
    while !*stop.borrow() {
        let due = (start.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        if tally.changes() >= due {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        // Mostly small transactions, now and then a large one: what applications do.
        let size =
            if dice.rng.random_ratio(1, 40) { dice.rng.random_range(50..200) } else { dice.rng.random_range(1..12) };
        owner.execute(if owner.is_transact() { "begin tran" } else { "begin" }).await?;
        let mut done = Done::default();
        for _ in 0..size {
            let (text, counter) = dice.change();
            counter(&mut done).add_assign(owner.execute(&text).await?);
        }
        owner.execute("commit").await?;
        tally.add(&done);
    }
    Ok(())
}

/// What the application does next.
struct Dice {
    rng: StdRng,
    /// Numbers of the next new rows.
    order: i64,
    customer: u32,
    transact: bool,
}

impl Dice {
    fn new(seed: u64, transact: bool) -> Self {
        let (order, customer) = (FIRST_ORDER + i64::from(ORDERS), CUSTOMERS + 1);
        Self { rng: StdRng::seed_from_u64(seed), order, customer, transact }
    }

    fn new_order(&mut self) -> i64 {
        self.order += 1;
        self.order
    }

    /// One statement, in SQL that PostgreSQL, MySQL (with ANSI quotes) and MariaDB share, or in Transact-SQL, and what it
    /// counts as. The numbers come from our own dice, so that they may stand in the text.
    fn change(&mut self) -> (String, fn(&mut Done) -> &mut u64) {
        let (n, m) = (self.rng.random_range(0..1_000_000_u32), self.rng.random_range(0..10_000_u32));
        // A key that exists, without reading the table: the next one above a random place. MySQL changes no table that a
        // subquery of the statement reads, unless it is one level further down.
        let (top, limit) = if self.transact { ("top (1) ", "") } else { ("", " limit 1") };
        let some = |table: &str, key: &str, from: String| {
            format!(
                r#"(select i from (select {top}"{key}" as i from "{table}" where "{key}" >= {from} order by 1{limit}) s)"#
            )
        };
        let (now, second) = match self.transact {
            true => ("sysdatetime()", "cast(sysdatetime() as datetime2(0))"),
            false => ("localtimestamp(3)", "localtimestamp(0)"),
        };
        let order = some("Orders", "OrderID", format!("{FIRST_ORDER} + {n} % {ORDERS}"));
        let customer = some("Customers", "CustomerID", format!("'{}'", customer_id(n % CUSTOMERS)));
        match self.rng.random_range(0..100) {
            0..25 => {
                let id = self.new_order();
                let text = format!(
                    r#"insert into "Orders" ("OrderID", "CustomerID", "EmployeeID", "OrderDate", "ShipVia", "Freight", "ShipCity")
                       values ({id}, {customer}, 1 + {n} % 9, {now}, 1 + {n} % 3, {m} / 100.0, 'Lyon')"#
                );
                (text, |d| &mut d.inserted)
            }
            25..32 => {
                self.customer += 1;
                let (number, id) = (self.customer, customer_id(self.customer));
                let text = format!(
                    r#"insert into "Customers" ("CustomerID", "CompanyName", "ContactName", "City", "Country", "Phone")
                       values ('{id}', 'Newcomer {number}', 'Person {number}', 'Oslo', 'Norway', null)"#
                );
                (text, |d| &mut d.inserted)
            }
            32..62 => {
                let set = format!(r#""Freight" = {m} / 100.0, "ShippedDate" = {second}"#);
                (format!(r#"update "Orders" set {set} where "OrderID" = {order}"#), |d| &mut d.updated)
            }
            62..78 => {
                let set = format!(r#""Phone" = '+49 30 {n}', "City" = 'Berlin'"#);
                (format!(r#"update "Customers" set {set} where "CustomerID" = {customer}"#), |d| &mut d.updated)
            }
            78..82 => {
                let set = format!(r#""UnitPrice" = {m} / 100.0, "UnitsInStock" = {n} % 100"#);
                (format!(r#"update "Products" set {set} where "ProductID" = 1 + {n} % 77"#), |d| &mut d.updated)
            }
            82..94 => (format!(r#"delete from "Orders" where "OrderID" = {order}"#), |d| &mut d.deleted),
            94..97 => {
                let text = format!(
                    r#"delete from "Customers" where "CustomerID" = {customer}
                       and not exists (select 1 from "Orders" where "Orders"."CustomerID" = "Customers"."CustomerID")"#
                );
                (text, |d| &mut d.deleted)
            }
            // A number that the server gives out cannot be changed there; a newcomer's key can, if no order has it.
            _ if self.transact => {
                let customer = some("Customers", "CustomerID", format!("'{}'", customer_id(CUSTOMERS + 1)));
                self.customer += 1;
                let id = customer_id(self.customer);
                let text = format!(
                    r#"update "Customers" set "CustomerID" = '{id}' where "CustomerID" = {customer}
                       and not exists (select 1 from "Orders" where "Orders"."CustomerID" = "Customers"."CustomerID")"#
                );
                (text, |d| &mut d.rekeyed)
            }
            _ => {
                let id = self.new_order();
                (format!(r#"update "Orders" set "OrderID" = {id} where "OrderID" = {order}"#), |d| &mut d.rekeyed)
            }
        }
    }
}
