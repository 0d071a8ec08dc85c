//! The packs that come along, against their vendors' tables and the reference CRM's model.

use super::*;
use std::io::Read as _;

/// Chinook's tables as MySQL has them, without what no pack reads.
const CHINOOK: &str = "
CREATE TABLE `Album` (`AlbumId` INT NOT NULL, `Title` VARCHAR(160) NOT NULL, `ArtistId` INT NOT NULL, PRIMARY KEY (`AlbumId`));
CREATE TABLE `Artist` (`ArtistId` INT NOT NULL, `Name` VARCHAR(120), PRIMARY KEY (`ArtistId`));
CREATE TABLE `Customer` (`CustomerId` INT NOT NULL, `FirstName` VARCHAR(40) NOT NULL, `LastName` VARCHAR(20) NOT NULL,
    `Company` VARCHAR(80), `Address` VARCHAR(70), `City` VARCHAR(40), `State` VARCHAR(40), `Country` VARCHAR(40),
    `PostalCode` VARCHAR(10), `Phone` VARCHAR(24), `Fax` VARCHAR(24), `Email` VARCHAR(60) NOT NULL, `SupportRepId` INT,
    PRIMARY KEY (`CustomerId`));
CREATE TABLE `Employee` (`EmployeeId` INT NOT NULL, `LastName` VARCHAR(20) NOT NULL, `FirstName` VARCHAR(20) NOT NULL,
    `Title` VARCHAR(30), `ReportsTo` INT, `BirthDate` DATETIME, `HireDate` DATETIME, `Address` VARCHAR(70),
    `City` VARCHAR(40), `State` VARCHAR(40), `Country` VARCHAR(40), `PostalCode` VARCHAR(10), `Phone` VARCHAR(24),
    `Fax` VARCHAR(24), `Email` VARCHAR(60), PRIMARY KEY (`EmployeeId`));
CREATE TABLE `Genre` (`GenreId` INT NOT NULL, `Name` VARCHAR(120), PRIMARY KEY (`GenreId`));
CREATE TABLE `Invoice` (`InvoiceId` INT NOT NULL, `CustomerId` INT NOT NULL, `InvoiceDate` DATETIME NOT NULL,
    `BillingAddress` VARCHAR(70), `BillingCity` VARCHAR(40), `BillingState` VARCHAR(40), `BillingCountry` VARCHAR(40),
    `BillingPostalCode` VARCHAR(10), `Total` NUMERIC(10,2) NOT NULL, PRIMARY KEY (`InvoiceId`));
CREATE TABLE `InvoiceLine` (`InvoiceLineId` INT NOT NULL, `InvoiceId` INT NOT NULL, `TrackId` INT NOT NULL,
    `UnitPrice` NUMERIC(10,2) NOT NULL, `Quantity` INT NOT NULL, PRIMARY KEY (`InvoiceLineId`));
CREATE TABLE `Track` (`TrackId` INT NOT NULL, `Name` VARCHAR(200) NOT NULL, `AlbumId` INT, `MediaTypeId` INT NOT NULL,
    `GenreId` INT, `Composer` VARCHAR(220), `Milliseconds` INT NOT NULL, `Bytes` INT, `UnitPrice` NUMERIC(10,2) NOT NULL,
    PRIMARY KEY (`TrackId`));
";

/// Tables from a script's `CREATE TABLE` statements: enough of SQL for these scripts. `case` writes names.
fn catalogue(script: &str, case: fn(&str) -> String, full_before_image: bool) -> Vec<Arc<TableSchema>> {
    let mut tables = Vec::new();
    let mut script = script.to_owned();
    while let Some((before, after)) = script.split_once("/*").and_then(|(b, rest)| Some((b, rest.split_once("*/")?.1)))
    {
        script = format!("{before}{after}");
    }
    for statement in script.split("CREATE TABLE ").skip(1) {
        let name = names_of(statement.split('(').next().expect("a name")).remove(0);
        let (mut columns, mut key) = (Vec::new(), Vec::new());
        for line in definitions(statement) {
            if let Some(listed) = line.strip_prefix("PRIMARY KEY") {
                key = names_of(listed);
            } else if !["KEY", "UNIQUE", "CONSTRAINT", "FULLTEXT", "FOREIGN"].iter().any(|w| line.starts_with(w)) {
                let (name, rest) = named(&line);
                columns.push(column_of(&case(&name), rest));
            }
        }
        let position = |k: &String| columns.iter().position(|c: &Column| *c.name == *case(k)).expect("a key column");
        let key = key.iter().map(position).collect();
        tables.push(Arc::new(TableSchema {
            table: TableId::new("vendor", case(&name)),
            columns,
            key,
            full_before_image,
        }));
    }
    tables
}

/// What stands between the commas of a table's outermost brackets.
fn definitions(statement: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut parts) = (0, false, vec![String::new()]);
    for c in statement.chars() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        match (c, depth) {
            (',', 1) if !quoted => parts.push(String::new()),
            ('(', 1) if parts.len() == 1 && parts[0].is_empty() => {}
            (_, 0) if c == ')' => break,
            (_, 0) => {}
            _ => parts.last_mut().expect("one").push(c),
        }
    }
    let clean = |p: String| p.split_whitespace().collect::<Vec<_>>().join(" ");
    parts.into_iter().map(clean).filter(|p| !p.is_empty()).collect()
}

fn named(text: &str) -> (String, &str) {
    let text = text.trim();
    match text.chars().next() {
        Some(quote @ ('"' | '`')) => {
            let (name, rest) = text[1..].split_once(quote).expect("a closing quote");
            (name.to_owned(), rest.trim())
        }
        _ => {
            let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
            (name.to_owned(), rest.trim())
        }
    }
}

fn names_of(text: &str) -> Vec<String> {
    let inner = text.trim().trim_start_matches('(').trim_end_matches(')');
    inner.split(',').map(|name| named(name).0).collect()
}

fn column_of(name: &str, definition: &str) -> Column {
    let ty: String = definition.chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_uppercase();
    let size = definition.split_once('(').and_then(|(_, rest)| rest.split([')', ',']).next()?.parse::<u32>().ok());
    let logical = match ty.as_str() {
        "TINYINT" if size == Some(1) => LogicalType::Bool,
        "INT" | "SMALLINT" | "TINYINT" | "MEDIUMINT" | "YEAR" => LogicalType::Int,
        "DECIMAL" | "NUMERIC" => LogicalType::Decimal,
        "REAL" | "FLOAT" => LogicalType::Float,
        "BOOLEAN" => LogicalType::Bool,
        "TIMESTAMP" | "DATETIME" => LogicalType::Timestamp,
        "BYTEA" | "BLOB" | "LONGBLOB" => LogicalType::Bytes,
        "SET" => LogicalType::List,
        "CHAR" | "VARCHAR" | "TEXT" | "ENUM" => LogicalType::Text,
        other => panic!("{name}: {other}"),
    };
    let max_length = size.filter(|_| matches!(ty.as_str(), "CHAR" | "VARCHAR"));
    Column { max_length, ..column(name, logical, !definition.to_uppercase().contains("NOT NULL")) }
}

fn northwind(case: fn(&str) -> String) -> Vec<Arc<TableSchema>> {
    catalogue(include_str!("../../../packs/northwind/data/postgres-northwind.sql"), case, false)
}

fn sakila() -> Vec<Arc<TableSchema>> {
    let packed = include_bytes!("../../../tests/data/sakila/mysql-sakila-schema.sql.gz");
    let mut script = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut script).expect("the script");
    catalogue(&script, str::to_owned, true)
}

/// The model of the reference CRM.
fn reference_crm() -> CrmSchema {
    let model = include_str!("../../demo/crm/northwind.json");
    let document = format!("{{\"openapi\": \"3.1.0\", \"components\": {{\"schemas\": {model}}}}}");
    crate::crm::parse_openapi(document.as_bytes()).expect("the model")
}

fn pack(name: &str) -> Pack {
    let path = format!("{}/packs/{name}", env!("CARGO_MANIFEST_DIR"));
    Pack::load(&path, None).unwrap_or_else(|d| panic!("{d}"))
}

#[test]
fn packs_pass_their_own_tests_and_test_every_record() {
    for name in crate::packs::embedded_names() {
        let pack = pack(name);
        assert_eq!(pack.name(), name);
        let report = run_pack_tests(&pack, &CompileOptions::default()).unwrap_or_else(|d| panic!("{d}"));
        assert_eq!(report.failed, 0, "{}", report.diagnostics);
        for record in &pack.records {
            assert!(pack.tests.iter().any(|t| t.record == record.name), "{name}: no test of {}", record.name);
        }
    }
}

#[test]
fn packs_fit_their_vendors_tables_and_the_reference_crm() {
    let crm = reference_crm();
    let zone = CompileOptions { time_zone: Some(jiff::tz::TimeZone::UTC) };
    let catalogues = [
        ("northwind", northwind(str::to_owned)),
        ("chinook", catalogue(CHINOOK, str::to_owned, true)),
        ("sakila", sakila()),
    ];
    for (name, tables) in catalogues {
        let (mapping, warnings) =
            compile(&pack(name), &tables, "vendor", Some(&crm), &zone).unwrap_or_else(|d| panic!("{d}"));
        assert!(warnings.is_empty(), "{warnings}");
        assert!(mapping.rules.iter().any(|r| r.relations.is_some()), "{name} shows related rows");
        assert!(mapping.rules.iter().all(|r| r.external_id_from_key), "{name}");
    }
}

#[test]
fn one_pack_serves_databases_that_keep_names_in_other_cases() {
    for case in [str::to_owned as fn(&str) -> String, str::to_lowercase, str::to_uppercase] {
        let catalogue = northwind(case);
        let compiled = compile(&pack("northwind"), &catalogue, "vendor", None, &CompileOptions::default());
        assert_eq!(compiled.unwrap_or_else(|d| panic!("{d}")).0.rules.len(), 9);
    }
}

#[test]
fn where_the_log_carries_keys_only_the_statement_that_helps_is_told() {
    let tables = catalogue(CHINOOK, str::to_owned, false);
    let told = compile(&pack("chinook"), &tables, "vendor", None, &CompileOptions::default()).expect_err("untraceable");
    assert_eq!(told.counts().0, 2, "{told}");
    for table in ["InvoiceLine", "Album"] {
        let statement = format!("ALTER TABLE \"vendor\".\"{table}\" REPLICA IDENTITY FULL");
        assert!(told.to_string().contains(&statement), "{told}");
    }
}
