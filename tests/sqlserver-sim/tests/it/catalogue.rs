//! Catalogue views, permissions, and the Northwind script.

use super::support::{number, one, rows, run, sim};

#[test]
fn catalogue_views() {
    let sim = sim();
    run(
        &sim,
        "CREATE TABLE dbo.t (a int NOT NULL, b nvarchar(50) NULL, c decimal(10,2) NULL, d varchar(10) COLLATE Latin1_General_BIN2 NULL, CONSTRAINT PK_t PRIMARY KEY (a))",
    );
    let columns = "SELECT c.name, ty.name, c.max_length, c.precision, c.scale, c.is_nullable, c.collation_name FROM sys.columns c \
         JOIN sys.types ty ON ty.user_type_id = c.user_type_id WHERE c.object_id = OBJECT_ID('dbo.t') ORDER BY c.column_id";
    assert_eq!(
        rows(&sim, columns),
        [
            "a int 4 10 0 0 -",
            "b nvarchar 100 0 0 1 SQL_Latin1_General_CP1_CI_AS",
            "c decimal 9 10 2 1 -",
            "d varchar 10 0 0 1 Latin1_General_BIN2"
        ]
    );
    let key = "SELECT c.name FROM sys.indexes i JOIN sys.index_columns ic ON i.object_id = ic.object_id AND i.index_id = ic.index_id \
         JOIN sys.columns c ON ic.object_id = c.object_id AND ic.column_id = c.column_id JOIN sys.tables t ON i.object_id = t.object_id \
         JOIN sys.schemas s ON t.schema_id = s.schema_id WHERE i.is_primary_key = 1 AND t.name = N'T' AND s.name = N'dbo' ORDER BY ic.key_ordinal";
    assert_eq!(rows(&sim, key), ["a"]);
    assert_eq!(
        one(&sim, "SELECT DATA_TYPE + '/' + IS_NULLABLE FROM INFORMATION_SCHEMA.COLUMNS WHERE COLUMN_NAME = 'b'"),
        "nvarchar/YES"
    );
    assert_eq!(number(&sim, "SELECT nope FROM sys.tables"), 207);
    assert_eq!(number(&sim, "SELECT * FROM sys.nope"), 208);
    assert_eq!(one(&sim, "SELECT CAST(SERVERPROPERTY('ProductMajorVersion') AS int)"), "16");
    assert_eq!(one(&sim, "SELECT COUNT(*) FROM sys.dm_server_services WHERE status_desc = 'Running'"), "2");
}

#[test]
fn a_script_in_the_style_of_northwind_loads() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/shop.sql");
    let sim = sim();
    sim.run_script("vendor", &std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(one(&sim, "SELECT COUNT(*) FROM Orders"), "3");
    assert_eq!(one(&sim, "SELECT SUM(UnitPrice * Quantity) FROM \"Order Details\""), "341.0000");
    assert_eq!(
        rows(&sim, "SELECT TOP 1 CompanyName, Subtotal FROM \"Order Totals\" ORDER BY Subtotal DESC"),
        ["Vins 173.8800"]
    );
}

/// Microsoft's instnwnd.sql as it is: tables, views, procedures, constraints.
#[test]
fn northwind_of_microsoft_loads() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packs/northwind/data/sqlserver-northwind.sql");
    let sim = sim();
    sim.run_script("vendor", &std::fs::read_to_string(path).unwrap()).unwrap();
    let tables = [
        ("Orders", 830),
        ("[Order Details]", 2155),
        ("Customers", 91),
        ("Products", 77),
        ("Employees", 9),
        ("Suppliers", 29),
        ("Territories", 53),
    ];
    for (table, count) in tables {
        assert_eq!(one(&sim, &format!("SELECT COUNT(*) FROM {table}")), count.to_string(), "{table}");
    }
    assert_eq!(one(&sim, "SELECT COUNT(*) FROM Invoices"), "2155");
    assert_eq!(one(&sim, "SELECT SUM(DATALENGTH(Photo)) FROM Employees WHERE EmployeeID = 1"), "21626");
}
