//! Random changes to Northwind, the same ones for the same seed on the same rows.

use super::session::Session;
use tidemark_conformance::Rng;

/// Makes changes on one connection.
pub struct Workload {
    rng: Rng,
    session: Session,
    next: i64,
    /// Transactions that committed, and those that were rolled back (on purpose, or because the source refused).
    pub committed: u64,
    pub rolled_back: u64,
    /// Statements in committed transactions.
    pub changes: u64,
}

impl Workload {
    pub fn new(seed: u64, session: impl Into<Session>) -> Self {
        Self { rng: Rng::new(seed), session: session.into(), next: 20_000, committed: 0, rolled_back: 0, changes: 0 }
    }

    /// Leaves out numbers of new rows, for those that another workload has used.
    pub fn skip(&mut self, numbers: i64) {
        self.next += numbers;
    }

    /// Makes transactions until `changes` statements have been committed.
    pub async fn run(&mut self, changes: u64) {
        let goal = self.changes + changes;
        while self.changes < goal {
            self.transaction().await;
        }
    }

    /// One transaction of one to six statements, one in twelve of them rolled back.
    pub async fn transaction(&mut self) {
        let size = if self.rng.one_in(3) { 1 + self.rng.below(6) } else { 1 };
        let mut statements = Vec::new();
        for _ in 0..size {
            statements.extend(self.statement());
        }
        let give_up = self.rng.one_in(12);
        let end = if give_up { "ROLLBACK" } else { "COMMIT" };
        statements.push(end.to_owned());
        if self.session.transaction(&statements).await {
            if give_up {
                self.rolled_back += 1;
            } else {
                self.committed += 1;
                self.changes += statements.len() as u64 - 1;
            }
        } else {
            self.rolled_back += 1;
        }
    }

    fn word(&mut self) -> String {
        const WORDS: [&str; 12] = [
            "Tide",
            "Måne",
            "O''Hara",
            "東京",
            "mark",
            " edge ",
            "\"quoted\"",
            "back\\slash",
            "a,b",
            "ünï",
            "🦀",
            "{x}",
        ];
        let (a, b) = (self.rng.pick(&WORDS).copied(), self.rng.pick(&WORDS).copied());
        format!("{} {}", a.unwrap_or("a"), b.unwrap_or("b"))
    }

    /// Text or NULL.
    fn maybe(&mut self) -> String {
        if self.rng.one_in(5) { "NULL".into() } else { format!("'{}'", self.word()) }
    }

    /// An expression for the key of some row.
    fn some(&mut self, table: &str, key: &str) -> String {
        let salt = self.rng.next_u64();
        // MySQL changes no table that a subquery of the statement reads, unless it is one level further down.
        let order = self.session.hash(&format!("concat({key}, '{salt}')"));
        format!("(SELECT i FROM (SELECT {key} AS i FROM northwind.{table} ORDER BY {order} LIMIT 1) s)")
    }

    /// One of few keys, so that deleted ones come back.
    fn customer_key(&mut self) -> String {
        format!("ZZ{}", 100 + self.rng.below(60))
    }

    fn number(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    /// One statement, or a few that belong together.
    fn statement(&mut self) -> Vec<String> {
        let (a, b, c) = (self.maybe(), self.maybe(), self.word());
        let small = self.rng.below(60);
        let customer = self.some("\"Customers\"", "\"CustomerID\"");
        let order = self.some("\"Orders\"", "\"OrderID\"");
        let product = self.some("\"Products\"", "\"ProductID\"");
        let employee = self.some("\"Employees\"", "\"EmployeeID\"");
        let supplier = self.some("\"Suppliers\"", "\"SupplierID\"");
        let line = {
            let salt = self.rng.next_u64();
            let order = self.session.hash(&format!("concat(\"OrderID\", '.', \"ProductID\", '{salt}')"));
            format!(
                "(\"OrderID\", \"ProductID\") = (SELECT o, p FROM (SELECT \"OrderID\" AS o, \"ProductID\" AS p FROM northwind.\"Order Details\"
                 ORDER BY {order} LIMIT 1) s)"
            )
        };
        let price = format!("{}.{:04}", self.rng.below(500), self.rng.below(10_000));
        let one = |sql: String| vec![sql];
        match self.rng.below(30) {
            0..=2 => {
                let key = self.customer_key();
                one(format!("INSERT INTO northwind.\"Customers\" (\"CustomerID\", \"CompanyName\", \"ContactName\", \"Country\", \"City\")
                     VALUES ('{key}', ' {c} ', left({a}, 30), left({b}, 15), 'x') {}", self.session.or_leave("CustomerID")))
            }
            3 | 4 => one(format!("UPDATE northwind.\"Customers\" SET \"CompanyName\" = '{c}', \"Region\" = left({a}, 15),
                     \"Country\" = CASE WHEN {small} < 20 THEN 'Germany' ELSE left({b}, 15) END WHERE \"CustomerID\" = {customer}")),
            5 => one(format!("UPDATE northwind.\"Customers\" SET \"Fax\" = left({a}, 20) WHERE \"CustomerID\" = {customer}")),
            6 => one(format!("UPDATE northwind.\"Customers\" SET \"CompanyName\" = \"CompanyName\" WHERE \"CustomerID\" = {customer}")),
            7 => {
                let key = self.customer_key();
                one(format!("UPDATE northwind.\"Customers\" SET \"CustomerID\" = '{key}' WHERE \"CustomerID\" = {customer}"))
            }
            8 => {
                let key = self.customer_key();
                one(format!("DELETE FROM northwind.\"Customers\" WHERE \"CustomerID\" = '{key}'"))
            }
            9 => {
                // Deleted and born again inside one transaction.
                let key = self.customer_key();
                vec![
                    format!("DELETE FROM northwind.\"Customers\" WHERE \"CustomerID\" = '{key}'"),
                    format!("INSERT INTO northwind.\"Customers\" (\"CustomerID\", \"CompanyName\") VALUES ('{key}', '{c}')"),
                ]
            }
            10..=12 => {
                let id = self.number();
                let other = self.some("\"Products\"", "\"ProductID\"");
                vec![
                    format!("INSERT INTO northwind.\"Orders\" (\"OrderID\", \"CustomerID\", \"EmployeeID\", \"OrderDate\", \"Freight\", \"ShipName\")
                         VALUES ({id}, {customer}, {employee}, {}, {price}, {a})", self.session.hours_later(small)),
                    format!("INSERT INTO northwind.\"Order Details\" (\"OrderID\", \"ProductID\", \"UnitPrice\", \"Quantity\", \"Discount\") VALUES ({id}, {product}, {price}, {small}, 0.15)"),
                    format!("INSERT INTO northwind.\"Order Details\" (\"OrderID\", \"ProductID\", \"UnitPrice\", \"Quantity\", \"Discount\") VALUES ({id}, {other}, 1.5, 1, 0) {}", self.session.or_leave("OrderID")),
                ]
            }
            13 | 14 => one(format!("UPDATE northwind.\"Orders\" SET \"Freight\" = {price}, \"ShippedDate\" = localtimestamp(0),
                     \"ShipCity\" = left({a}, 15), \"CustomerID\" = {customer} WHERE \"OrderID\" = {order}")),
            15 => vec![
                format!("DELETE FROM northwind.\"Order Details\" WHERE \"OrderID\" = {order}"),
                format!("DELETE FROM northwind.\"Orders\" WHERE \"OrderID\" = {order}"),
            ],
            16 => {
                let id = self.number();
                one(format!("UPDATE northwind.\"Orders\" SET \"OrderID\" = {id} WHERE \"OrderID\" = {order}"))
            }
            17 | 18 => one(format!("UPDATE northwind.\"Order Details\" SET \"Quantity\" = {small}, \"UnitPrice\" = {price} WHERE {line}")),
            19 => {
                // Leaves the rule's scope, or comes back.
                let quantity = if self.rng.one_in(2) { 2_000 } else { 3 };
                one(format!("UPDATE northwind.\"Order Details\" SET \"Quantity\" = {quantity} WHERE {line}"))
            }
            20 => one(format!("UPDATE northwind.\"Order Details\" SET \"ProductID\" = {product} WHERE {line}")),
            21 => one(format!("DELETE FROM northwind.\"Order Details\" WHERE {line}")),
            22 => one(format!("UPDATE northwind.\"Employees\" SET \"Title\" = left({a}, 20), \"FirstName\" = left('{c}', 10) WHERE \"EmployeeID\" = {employee}")),
            23 => {
                let times = 1 + self.rng.below(900);
                one(format!("UPDATE northwind.\"Employees\" SET \"Photo\" = {},
                     \"Notes\" = repeat({a}, {small} * 20) WHERE \"EmployeeID\" = {employee}", self.session.bytes(times)))
            }
            24 => one(format!("UPDATE northwind.\"Employees\" SET \"ReportsTo\" = {} WHERE \"EmployeeID\" = {employee}",
                     if self.rng.one_in(3) { "NULL".to_owned() } else { self.some("\"Employees\"", "\"EmployeeID\"") })),
            25 => {
                let id = self.number();
                vec![
                    format!("INSERT INTO northwind.\"Suppliers\" (\"SupplierID\", \"CompanyName\", \"HomePage\") VALUES ({id}, '{c}', repeat({a}, {small} * 50))"),
                    format!("INSERT INTO northwind.\"Products\" (\"ProductID\", \"ProductName\", \"SupplierID\", \"UnitPrice\", \"Discontinued\")
                         VALUES ({id}, '{c}', {id}, {price}, {small} > 30)"),
                ]
            }
            26 => one(format!("UPDATE northwind.\"Suppliers\" SET \"Phone\" = left({a}, 24) WHERE \"SupplierID\" = {supplier}")),
            27 => one(format!("UPDATE northwind.\"Products\" SET \"UnitPrice\" = \"UnitPrice\" + 1 WHERE \"ProductID\" % 7 = {}", self.rng.below(7))),
            28 => one(format!("UPDATE northwind.\"Products\" SET \"SupplierID\" = {supplier}, \"UnitsInStock\" = {small} WHERE \"ProductID\" = {product}")),
            _ => {
                let id = self.number();
                vec![
                    "SAVEPOINT s".to_owned(),
                    format!("INSERT INTO northwind.\"Suppliers\" (\"SupplierID\", \"CompanyName\") VALUES ({id}, 'never seen')"),
                    "ROLLBACK TO s".to_owned(),
                    format!("DELETE FROM northwind.\"Products\" WHERE \"ProductID\" > 20000 AND \"ProductID\" = {product}"),
                ]
            }
        }
    }
}
