//! The northwind pack as it is shipped, on Microsoft's own script of the shop: the same pack as on the other databases.

use super::scene::{SqlServerScene, SqlServerSource};
use super::server::{Server, enable};
use crate::support::source::repository;
use crate::support::{Vendor, seconds};
use serde_json::Value;

const TABLES: [&str; 11] = [
    "Customers",
    "Suppliers",
    "Employees",
    "EmployeeTerritories",
    "Territories",
    "Region",
    "Categories",
    "Products",
    "Shippers",
    "Orders",
    "Order Details",
];

/// What the records of one row each must be, said in SQL, for the fields that are compared.
const ORACLE: &str = "
SELECT N'account', CONCAT(N'cust-', RTRIM(CustomerID)), LTRIM(RTRIM(CompanyName)) AS [name], Phone AS [phone], Fax AS [fax]
  FROM dbo.Customers;
SELECT N'account', CONCAT(N'supp-', SupplierID), LTRIM(RTRIM(CompanyName)) AS [name], Phone AS [phone], Fax AS [fax]
  FROM dbo.Suppliers;
SELECT N'employee', CAST(EmployeeID AS nvarchar(10)), FirstName AS [first_name], LastName AS [last_name],
    CONVERT(nvarchar(10), BirthDate, 23) AS [birth_date], CAST(ReportsTo AS nvarchar(10)) AS [manager:ref] FROM dbo.Employees;
SELECT N'territory', RTRIM(t.TerritoryID), RTRIM(t.TerritoryDescription) AS [name], RTRIM(r.RegionDescription) AS [region]
  FROM dbo.Territories t LEFT JOIN dbo.Region r ON r.RegionID = t.RegionID;
SELECT N'product', CAST(p.ProductID AS nvarchar(10)), p.ProductName AS [name], c.CategoryName AS [category_name],
    CAST(CAST(p.UnitPrice AS decimal(19,2)) AS nvarchar(30)) AS [unit_price:number], CONCAT(N'supp-', p.SupplierID) AS [supplier:ref]
  FROM dbo.Products p LEFT JOIN dbo.Categories c ON c.CategoryID = p.CategoryID;
SELECT N'order', CAST(o.OrderID AS nvarchar(10)), CONVERT(nvarchar(10), o.OrderDate, 23) AS [ordered_on],
    CASE WHEN o.ShippedDate IS NULL THEN N'open' ELSE N'shipped' END AS [status], s.CompanyName AS [carrier],
    CONCAT(N'cust-', RTRIM(o.CustomerID)) AS [account:ref], COALESCE(CAST((SELECT SUM(CAST(ROUND(d.UnitPrice * d.Quantity
      * (1 - CAST(CAST(d.Discount AS nvarchar(20)) AS decimal(9,4))), 2) AS decimal(19,2))) FROM dbo.[Order Details] d
      WHERE d.OrderID = o.OrderID) AS nvarchar(30)), N'0') AS [total:number]
  FROM dbo.Orders o LEFT JOIN dbo.Shippers s ON s.ShipperID = o.ShipVia;
";

/// Differences in the fields that the oracle tells, and in which records there are.
async fn differences(scene: &SqlServerScene) -> Vec<String> {
    let (wanted, got) = (scene.wanted().await, scene.crm.content());
    let mut lines = Vec::new();
    for (entity, records) in &wanted {
        let there = got.get(entity).map_or(0, |records| records.len());
        if there != records.len() {
            lines.push(format!("{entity}: {there} records, wanted {}", records.len()));
        }
        for (id, fields) in records {
            let record = got.get(entity).and_then(|records| records.get(id));
            for (name, value) in fields {
                let is = record.and_then(|fields| fields.get(name)).unwrap_or(&Value::Null);
                // A number may come as text with its scale, where the CRM's model has one.
                let same = is == value || is.as_f64().zip(value.as_f64()).is_some_and(|(a, b)| (a - b).abs() < 1e-9);
                if !same {
                    lines.push(format!("{entity}/{id}.{name}: wanted {value}, is {is}"));
                }
            }
        }
    }
    lines.truncate(12);
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_northwind_pack() {
    let server = tokio::task::spawn_blocking(Server::start).await.expect("no panic").expect("a server");
    let source = SqlServerSource::start(server, true).await;
    let mut session = source.connect().await;
    let script =
        std::fs::read_to_string(repository("packs/northwind/data/sqlserver-northwind.sql")).expect("the script");
    let mut batch = String::new();
    for line in script.lines().chain(["go"]) {
        if line.trim().eq_ignore_ascii_case("go") {
            if !batch.trim().is_empty() {
                session.run(&batch).await.unwrap_or_else(|e| panic!("{e}"));
            }
            batch.clear();
        } else {
            batch.push_str(line);
            batch.push('\n');
        }
    }
    session.run("SET NOCOUNT OFF").await.unwrap();
    for table in TABLES {
        session
            .run(&enable(table, &format!("dbo_{}", table.replace(' ', "_"))))
            .await
            .unwrap_or_else(|e| panic!("{e}"));
    }
    session.captured().await.unwrap();
    let model = std::fs::read(repository("src/demo/crm/northwind.json")).expect("the model");
    let mut scene = SqlServerScene::of_source(source, "", serde_json::from_slice(&model).expect("JSON"), ORACLE).await;
    scene.tenant.pack = repository("packs/northwind/mapping.toml");
    scene.tenant.chunk_rows = 200;
    scene.tenant.batch_records = 200;
    scene.tenant.engine = scene.source.engine();
    scene.tenant.done(&["check"]).await;
    let mut daemon = scene.start();
    let equal = async |scene: &SqlServerScene| {
        let deadline = std::time::Instant::now() + seconds(60);
        loop {
            let lines = differences(scene).await;
            if lines.is_empty() {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{}\n{}", lines.join("\n"), scene.tenant.last_words());
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
    };
    equal(&scene).await;
    let order = &scene.crm.content()["order"]["10248"];
    assert_eq!(order["total"].as_f64(), Some(440.0), "{order:?}");
    assert_eq!(order["items"].as_array().map(Vec::len), Some(3), "{order:?}");
    assert_eq!(scene.crm.content()["account"]["cust-ALFKI"]["country"], "DE");

    for (round, sql) in [
        "UPDATE Shippers SET CompanyName = N'Carrier of another name' WHERE ShipperID = 1",
        "UPDATE Categories SET CategoryName = N'Kind' WHERE CategoryID = 2; UPDATE Region SET RegionDescription = N'North' WHERE RegionID = 3",
        "UPDATE [Order Details] SET Discount = 0.15 WHERE OrderID < 10300; DELETE [Order Details] WHERE OrderID = 10400",
        "DELETE EmployeeTerritories WHERE EmployeeID = 2; UPDATE Employees SET ReportsTo = 1, BirthDate = '1970-02-28' WHERE EmployeeID = 6",
        "INSERT Customers (CustomerID, CompanyName, ContactName, Country) VALUES (N'NEWCO', N' New Company ', N'A Person', N'France'); \
         UPDATE Orders SET CustomerID = N'NEWCO', ShippedDate = NULL WHERE OrderID % 50 = 0",
        "UPDATE Suppliers SET Phone = NULL, Fax = N'1' WHERE SupplierID < 5; UPDATE Products SET UnitPrice = UnitPrice * 1.1 WHERE ProductID < 20",
    ]
    .iter()
    .enumerate()
    {
        session.run(sql).await.unwrap_or_else(|e| panic!("{e}"));
        if round == 3 {
            daemon.kill();
            daemon = scene.start();
        }
    }
    equal(&scene).await;
    scene.quiet().await;
    let territories = scene.crm.content()["employee"]["2"].get("territories").cloned();
    assert!(territories.is_none_or(|list| list.as_array().is_none_or(Vec::is_empty)));
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
    scene.finish().await;
}
