//! Sakila from end to end: every type and table of it that is mapped, then random changes in those tables.

use crate::scene;
use crate::support::crm::Crm;
use crate::support::daemon::Tenant;
use crate::support::mysql::{MysqlScene, MysqlSource};
use crate::support::source::repository;
use crate::support::{seconds, seed};
use tidemark_conformance::Rng;
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

mod tests {
    super::super::on_both! {
        sakila;
    }
}

async fn sakila(flavour: MysqlFlavour) {
    let seed = seed("sakila");
    let source = scene!(MysqlSource::sakila(MysqlOptions::new(flavour)));
    let model = std::fs::read(repository("tests/data/sakila/crm.json")).expect("crm.json");
    let crm = Crm::start(serde_json::from_slice(&model).expect("JSON")).await;
    let mut tenant = Tenant::new(&source, &crm, "tests/data/sakila/mapping.toml");
    tenant.chunk_rows = 1_000;
    tenant.batch_records = 500;
    let oracle = std::fs::read_to_string(repository("tests/data/sakila/oracle.sql")).expect("the oracle");
    let scene = MysqlScene { client: source.pool(), source, crm, tenant, oracle };

    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(120)).await;
    let wanted = scene.wanted().await;
    let counts: Vec<String> = wanted.iter().map(|(entity, records)| format!("{} {entity}", records.len())).collect();
    println!("Sakila: {}", counts.join(", "));
    assert_eq!((wanted["film"].len(), wanted["rental"].len(), wanted["payment"].len()), (1000, 16_044, 16_049));

    let mut rng = Rng::new(seed);
    for round in 0..6 {
        let statements: Vec<String> = (0..60).map(|n| change(&mut rng, round * 100 + n)).collect();
        scene.source.sql(&statements.join(";\n"));
        if round == 2 {
            // In the middle of it.
            daemon.kill();
            daemon = scene.start();
        }
    }
    scene.equal(&mut daemon, seconds(120)).await;
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
}

/// A statement, or a transaction, in the tables that are mapped.
fn change(rng: &mut Rng, number: u64) -> String {
    let (film, customer, rental) = (1 + rng.below(1000), 1 + rng.below(599), 1 + rng.below(16_049));
    let (n, cents) = (rng.below(1_000), rng.below(100));
    match rng.below(14) {
        0 => format!("UPDATE film SET rental_rate = {}.{cents:02}, length = {n} WHERE film_id = {film}", n % 100),
        1 => format!("UPDATE film SET rating = 1 + {n} % 5, special_features = {n} % 16 WHERE film_id = {film}"),
        2 => format!(
            "UPDATE film SET title = concat(title, ' é{n}'), description = NULL, release_year = 1901 + {n} % 250 WHERE film_id = {film}"
        ),
        3 => format!(
            "INSERT INTO film (title, language_id, special_features, rating) VALUES ('New {number}', 1 + {n} % 6, 'Trailers,Commentaries', 'NC-17')"
        ),
        4 => format!(
            "UPDATE customer SET email = lower(email), active = NOT active, first_name = 'Zoë {n}' WHERE customer_id = {customer}"
        ),
        5 => format!(
            "UPDATE customer SET address_id = (SELECT min(address_id) FROM address WHERE address_id > {n} % 600), store_id = 1 + {n} % 2
             WHERE customer_id = {customer}"
        ),
        6 => format!(
            "INSERT INTO payment (customer_id, staff_id, rental_id, amount, payment_date) VALUES ({customer}, 1 + {n} % 2, NULL, {}.{cents:02}, '2024-02-29 23:59:59')",
            n % 900
        ),
        7 => format!("DELETE FROM payment WHERE payment_id = {rental}"),
        8 => format!("UPDATE payment SET amount = amount + 0.01 WHERE customer_id = {customer}"),
        // The storage engine clears references of payments by itself, and most versions do not log that.
        9 => format!(
            "BEGIN; DELETE FROM payment WHERE rental_id = {rental}; DELETE FROM rental WHERE rental_id = {rental}; COMMIT"
        ),
        10 => format!(
            "UPDATE rental SET return_date = if(return_date IS NULL, '2024-01-01 10:20:30', NULL) WHERE customer_id = {customer}"
        ),
        11 => format!("UPDATE address SET district = 'Région {n}', postal_code = '{n}' WHERE address_id = {customer}"),
        12 => format!("BEGIN; UPDATE actor SET last_name = 'O''NEILL' WHERE actor_id = 1 + {n} % 200; ROLLBACK"),
        _ => format!(
            "UPDATE actor SET last_name = 'Ñandú {n}' WHERE actor_id = 1 + {n} % 200; UPDATE staff SET picture = repeat(unhex('00ff'), {n}), active = {n} % 2 WHERE staff_id = 1 + {n} % 2"
        ),
    }
}
