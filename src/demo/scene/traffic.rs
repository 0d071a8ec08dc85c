//! The application that uses the vendor's database: inserts, updates, deletes and changes of keys, in transactions of
//! different sizes.

use super::SceneError;
use super::database::{CUSTOMERS, FIRST_ORDER, ORDERS};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_postgres::Client;

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
    mut client: Client,
    seed: u64,
    per_second: u32,
    tally: Arc<Tally>,
    stop: watch::Receiver<bool>,
) -> Result<(), SceneError> {
    let mut dice = StdRng::seed_from_u64(seed);
    let start = Instant::now();
    while !*stop.borrow() {
        let due = (start.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        if tally.changes() >= due {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        // Mostly small transactions, now and then a large one: what applications do.
        let size = if dice.random_ratio(1, 40) { dice.random_range(50..200) } else { dice.random_range(1..12) };
        let transaction = client.transaction().await?;
        let mut done = Done::default();
        for _ in 0..size {
            change(&transaction, &mut dice, &mut done).await?;
        }
        transaction.commit().await?;
        tally.add(&done);
    }
    Ok(())
}

/// One statement. The numbers come from our own dice, so that they may stand in the text.
async fn change(
    transaction: &tokio_postgres::Transaction<'_>,
    dice: &mut StdRng,
    done: &mut Done,
) -> Result<(), SceneError> {
    let (n, m) = (dice.random_range(0..1_000_000_u32), dice.random_range(0..10_000_u32));
    // An id that exists, without reading the table: the next one above a random place.
    let order = format!(
        r#"(select "OrderID" from "Orders" where "OrderID" >= {FIRST_ORDER} + {n} % {ORDERS} order by 1 limit 1)"#
    );
    let customer = format!(
        r#"(select "CustomerID" from "Customers" where "CustomerID" >= scene_id({n} % {CUSTOMERS}) order by 1 limit 1)"#
    );
    let (text, counter): (String, fn(&mut Done) -> &mut u64) = match dice.random_range(0..100) {
        0..25 => (
            format!(
                r#"insert into "Orders" ("OrderID", "CustomerID", "EmployeeID", "OrderDate", "ShipVia", "Freight", "ShipCity")
                   values (nextval('scene_order'), {customer}, 1 + {n} % 9, now()::timestamp(3), 1 + {n} % 3, {m} / 100.0, 'Lyon')"#
            ),
            |d| &mut d.inserted,
        ),
        25..32 => (
            r#"insert into "Customers" ("CustomerID", "CompanyName", "ContactName", "City", "Country", "Phone")
                   select scene_id(n), 'Newcomer ' || n, 'Person ' || n, 'Oslo', 'Norway', null from nextval('scene_customer') n
                   on conflict do nothing"#
            .to_owned(),
            |d| &mut d.inserted,
        ),
        32..62 => (
            format!(
                r#"update "Orders" set "Freight" = {m} / 100.0, "ShippedDate" = now()::timestamp(0) where "OrderID" = {order}"#
            ),
            |d| &mut d.updated,
        ),
        62..78 => (
            format!(
                r#"update "Customers" set "Phone" = '+49 30 {n}', "City" = 'Berlin' where "CustomerID" = {customer}"#
            ),
            |d| &mut d.updated,
        ),
        78..82 => (
            format!(
                r#"update "Products" set "UnitPrice" = {m} / 100.0, "UnitsInStock" = {n} % 100 where "ProductID" = 1 + {n} % 77"#
            ),
            |d| &mut d.updated,
        ),
        82..94 => (format!(r#"delete from "Orders" where "OrderID" = {order}"#), |d| &mut d.deleted),
        94..97 => (
            format!(
                r#"delete from "Customers" c where "CustomerID" = {customer}
                   and not exists (select from "Orders" o where o."CustomerID" = c."CustomerID")"#
            ),
            |d| &mut d.deleted,
        ),
        _ => (format!(r#"update "Orders" set "OrderID" = nextval('scene_order') where "OrderID" = {order}"#), |d| {
            &mut d.rekeyed
        }),
    };
    counter(done).add_assign(transaction.execute(text.as_str(), &[]).await?);
    Ok(())
}
