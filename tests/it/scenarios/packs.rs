//! The northwind pack as it is shipped, with the model of the reference CRM: random changes in every table that takes
//! part, a kill in the middle, and a query of its own that says what the CRM must hold.

use crate::scene;
use crate::support::crm::Crm;
use crate::support::daemon::Tenant;
use crate::support::source::{Source, repository};
use crate::support::workload::Workload;
use crate::support::{Scene, seconds, seed};
use tidemark_conformance::Rng;

async fn northwind() -> Option<Scene> {
    let source = Source::northwind().await?;
    let model = std::fs::read(repository("src/demo/crm/northwind.json")).expect("the model");
    let crm = Crm::start(serde_json::from_slice(&model).expect("JSON")).await;
    let tenant = Tenant::new(&source, &crm, "packs/northwind/mapping.toml");
    let oracle = std::fs::read_to_string(repository("tests/data/packs/northwind.sql")).expect("the oracle");
    Some(Scene { client: source.connect().await, source, crm, tenant, oracle })
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
    let mut scene = scene!(northwind());
    scene.tenant.chunk_rows = 200;
    scene.tenant.batch_records = 200;
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
