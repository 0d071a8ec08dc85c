//! Packs as they are shipped, with the model of the reference CRM: random changes in every table that takes part, a kill
//! in the middle, and a query of its own that says what the CRM must hold.

use crate::scene;
use crate::support::crm::Crm;
use crate::support::daemon::Tenant;
use crate::support::source::{Source, repository};
use crate::support::workload::Workload;
use crate::support::{Scene, seconds, seed};
use tidemark_conformance::Rng;

fn text(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

async fn scene(source: Source, pack: &str) -> Scene {
    let model = text("src/demo/crm/northwind.json");
    let crm = Crm::start(serde_json::from_str(&model).expect("JSON")).await;
    let mut tenant = Tenant::new(&source, &crm, &format!("packs/{pack}/mapping.toml"));
    tenant.chunk_rows = 200;
    tenant.batch_records = 200;
    let oracle = text(&format!("tests/data/packs/{pack}.sql"));
    Scene { client: source.connect().await, source, crm, tenant, oracle }
}

async fn northwind() -> Option<Scene> {
    Some(scene(Source::northwind().await?, "northwind").await)
}

async fn chinook() -> Option<Scene> {
    let source = Source::empty().await?;
    source.psql(&text("tests/data/init/chinook.sql"));
    source.psql(&text("tests/data/packs/chinook-editions.sql"));
    source.own_everything();
    Some(scene(source, "chinook").await)
}

/// Changes in the tables that the workload leaves alone.
fn change(rng: &mut Rng) -> String {
    let n = rng.below(1_000);
    match rng.below(9) {
        0 => format!("UPDATE northwind.\"Shippers\" SET \"CompanyName\" = ' Carrier {n} ' WHERE \"ShipperID\" = 1 + {n} % 3"),
        1 => format!("UPDATE northwind.\"Categories\" SET \"CategoryName\" = 'Kind {n}' WHERE \"CategoryID\" = 1 + {n} % 8"),
        2 => format!("UPDATE northwind.\"Region\" SET \"RegionDescription\" = 'Region {n}' WHERE \"RegionID\" = 1 + {n} % 4"),
        3 => format!(
            "UPDATE northwind.\"Territories\" SET \"TerritoryDescription\" = 'Land {n}', \"RegionID\" = 1 + {n} % 4
             WHERE \"TerritoryID\" = (SELECT \"TerritoryID\" FROM northwind.\"Territories\" ORDER BY md5(\"TerritoryID\" || {n}) LIMIT 1)"
        ),
        4 => format!("DELETE FROM northwind.\"EmployeeTerritories\" WHERE \"EmployeeID\" = 1 + {n} % 9 AND \"TerritoryID\" < '5'"),
        5 => format!(
            "INSERT INTO northwind.\"EmployeeTerritories\" SELECT e, t FROM (SELECT \"EmployeeID\" e FROM northwind.\"Employees\"
             ORDER BY md5(\"EmployeeID\"::text || {n}) LIMIT 1) e, (SELECT \"TerritoryID\" t FROM northwind.\"Territories\"
             ORDER BY md5(\"TerritoryID\" || {n}) LIMIT 3) t ON CONFLICT DO NOTHING"
        ),
        6 => format!(
            "UPDATE northwind.\"Orders\" SET \"ShipVia\" = nullif({n} % 4, 0) WHERE \"OrderID\" % 97 = {n} % 97"
        ),
        7 => format!("UPDATE northwind.\"Products\" SET \"CategoryID\" = nullif({n} % 9, 0) WHERE \"ProductID\" % 11 = {n} % 11"),
        _ => format!("UPDATE northwind.\"Order Details\" SET \"Discount\" = {n} % 4 / 20.0 WHERE \"OrderID\" % 97 = {n} % 97"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_northwind_pack() {
    let seed = seed("the_northwind_pack");
    let scene = scene!(northwind());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(120)).await;
    let wanted = scene.wanted().await;
    assert_eq!((wanted["order"].len(), wanted["product"].len(), wanted["territory"].len()), (830, 77, 53));
    assert_eq!(wanted["order"]["10248"]["total"].as_f64(), Some(440.0));

    let mut rng = Rng::new(seed);
    let mut workload = Workload::new(seed, scene.source.connect().await);
    for round in 0..8 {
        workload.run(60).await;
        for _ in 0..6 {
            scene.source.psql(&change(&mut rng));
        }
        if round == 4 {
            daemon.kill();
            daemon = scene.start();
        }
    }
    scene.equal(&mut daemon, seconds(180)).await;
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
}

/// A change in the tables of Chinook.
fn sale(rng: &mut Rng, number: u64) -> String {
    let (n, new) = (rng.below(1_000), 200_000 + number);
    let track = "(SELECT \"TrackId\" FROM \"Track\" ORDER BY md5(\"TrackId\"::text || {n}) LIMIT 1)"
        .replace("{n}", &n.to_string());
    match rng.below(17) {
        0 => format!("UPDATE \"Customer\" SET \"FirstName\" = 'Name {n}', \"Company\" = CASE {n} % 3 WHEN 0 THEN ' Firm {n}' END WHERE \"CustomerId\" % 20 = {n} % 20"),
        1 => format!("UPDATE \"Customer\" SET \"SupportRepId\" = nullif({n} % 9, 0), \"Phone\" = '+49 30 ' || 1234000 + {n} WHERE \"CustomerId\" % 20 = {n} % 20"),
        2 => format!("UPDATE \"Customer\" SET \"Country\" = (ARRAY['Norway', 'Atlantis', 'USA'])[1 + {n} % 3], \"Email\" = 'X{n}@Example.org' WHERE \"CustomerId\" % 20 = {n} % 20"),
        3 => format!("UPDATE \"Employee\" SET \"LastName\" = 'Boss {n}', \"Country\" = 'Chile' WHERE \"EmployeeId\" = 1 + {n} % 8"),
        4 => format!("UPDATE \"Employee\" SET \"ReportsTo\" = nullif({n} % 3, 0) WHERE \"EmployeeId\" = 3 + {n} % 6"),
        // Artists without albums come and go.
        5 => format!(
            "UPDATE \"Artist\" SET \"Name\" = 'Band {n}' WHERE \"ArtistId\" = 1001 + {n} % 7;
             UPDATE \"Artist\" SET \"Name\" = CASE WHEN {n} % 2 = 0 THEN ' ' ELSE 'Soloist {n}' END WHERE \"ArtistId\" = 2001 + {n} % 7"
        ),
        6 => format!("UPDATE \"Album\" SET \"ArtistId\" = 1010 + {n} % 30 WHERE \"AlbumId\" > 1000 AND \"AlbumId\" % 13 = {n} % 13"),
        7 => format!("UPDATE \"Album\" SET \"Title\" = 'Title {n}' WHERE \"AlbumId\" = 1001 + {n} % 80"),
        8 => format!("INSERT INTO \"Album\" VALUES ({new}, 'New', 1010 + {n} % 30)"),
        9 => format!("DELETE FROM \"Album\" WHERE \"AlbumId\" > 200000 AND \"AlbumId\" % 3 = {n} % 3"),
        10 => format!("UPDATE \"Genre\" SET \"Name\" = 'Genre {n}' WHERE \"GenreId\" = (SELECT \"GenreId\" FROM \"Genre\" ORDER BY md5(\"GenreId\"::text || {n}) LIMIT 1)"),
        11 => format!("UPDATE \"Track\" SET \"Name\" = 'Song {n}', \"UnitPrice\" = {n} / 100.0 WHERE \"TrackId\" = {track}"),
        12 => format!("UPDATE \"Track\" SET \"AlbumId\" = nullif(1000 + {n} % 81, 1000) WHERE \"TrackId\" % 41 = {n} % 41"),
        13 => format!("INSERT INTO \"InvoiceLine\" VALUES ({new}, 1001 + {n} % 300, {track}, 1.25, 2)"),
        14 => format!("UPDATE \"InvoiceLine\" SET \"InvoiceId\" = 1001 + {n} % 300, \"Quantity\" = {n} WHERE \"InvoiceLineId\" % 97 = {n} % 97"),
        15 => format!("DELETE FROM \"InvoiceLine\" WHERE \"InvoiceLineId\" % 101 = {n} % 101"),
        _ => format!(
            "UPDATE \"Invoice\" SET \"CustomerId\" = 101 + {n} % 60, \"BillingCity\" = NULL WHERE \"InvoiceId\" % 37 = {n} % 37;
             INSERT INTO \"Invoice\" (\"InvoiceId\", \"CustomerId\", \"InvoiceDate\", \"Total\") VALUES ({new}, 101 + {n} % 60, '2025-02-03', 0);
             DELETE FROM \"Invoice\" WHERE \"InvoiceId\" > 200000 AND \"InvoiceId\" % 5 = {n} % 5"
        ),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chinook_pack() {
    let seed = seed("the_chinook_pack");
    let scene = scene!(chinook());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(120)).await;
    let wanted = scene.wanted().await;
    assert!(
        wanted["order"].len() >= 300 && wanted["product"].len() >= 400,
        "{} {}",
        wanted["order"].len(),
        wanted["product"].len()
    );
    let mut rng = Rng::new(seed);
    for round in 0..6 {
        for n in 0..40 {
            scene.source.psql(&sale(&mut rng, round * 100 + n));
        }
        if round == 3 {
            daemon.kill();
            daemon = scene.start();
        }
    }
    scene.equal(&mut daemon, seconds(180)).await;
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
}
