//! Packs as they are shipped, with the model of the reference CRM: joins over three tables, lists, aggregates, a link
//! table. Random changes in every table that takes part, then a query of its own says what the CRM must hold.

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
        the_sakila_pack;
    }
}

/// SQL has no `initcap`.
const INITCAP: &str = "CREATE DATABASE judge CHARACTER SET utf8mb4;
    DELIMITER ;;
    CREATE FUNCTION judge.initcap(s text CHARACTER SET utf8mb4) RETURNS text CHARACTER SET utf8mb4 DETERMINISTIC NO SQL
    BEGIN
        DECLARE at, inside int DEFAULT 0;
        DECLARE made text CHARACTER SET utf8mb4 DEFAULT '';
        DECLARE c varchar(1) CHARACTER SET utf8mb4;
        WHILE at < char_length(s) DO
            SET at = at + 1;
            SET c = substr(s, at, 1);
            SET made = concat(made, if(inside, lower(c), upper(c)));
            SET inside = c RLIKE '[[:alnum:]]';
        END WHILE;
        RETURN made;
    END;;
    DELIMITER ;";

async fn the_sakila_pack(flavour: MysqlFlavour) {
    let seed = seed("the sakila pack");
    let source = scene!(MysqlSource::sakila(MysqlOptions::new(flavour)));
    source.admin(INITCAP);
    let model = std::fs::read(repository("src/demo/crm/northwind.json")).expect("the model");
    let crm = Crm::start(serde_json::from_slice(&model).expect("JSON")).await;
    let mut tenant = Tenant::new(&source, &crm, "packs/sakila/mapping.toml");
    tenant.chunk_rows = 1_000;
    tenant.batch_records = 500;
    let oracle = std::fs::read_to_string(repository("tests/data/packs/sakila.sql")).expect("the oracle");
    let scene = MysqlScene { client: source.pool(), source, crm, tenant, oracle };

    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(180)).await;
    let wanted = scene.wanted().await;
    assert_eq!((wanted["product"].len(), wanted["order"].len(), wanted["contact"].len()), (1000, 16_044, 599));
    let shown = |entity: &str, id: &str| serde_json::to_string(&wanted[entity][id]).expect("JSON");
    assert!(shown("contact", "customer-1").contains("Sasebo") && shown("order", "1").contains("2.99"));

    let mut rng = Rng::new(seed);
    for round in 0..6 {
        let statements: Vec<String> = (0..40).map(|n| change(&mut rng, round * 100 + n)).collect();
        scene.source.sql(&statements.join(";\n"));
        if round == 2 {
            // In the middle of it.
            daemon.kill();
            daemon = scene.start();
        }
    }
    scene.equal(&mut daemon, seconds(180)).await;
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
}

/// A statement, or a transaction, in the tables that take part. The shops stay in their countries.
fn change(rng: &mut Rng, number: u64) -> String {
    let (film, customer, rental) = (1 + rng.below(1000), 1 + rng.below(599), 1 + rng.below(16_049));
    let (n, cents) = (rng.below(1_000), rng.below(100));
    match rng.below(20) {
        0 => format!("UPDATE city SET city = 'Stadt {n}' WHERE city_id = 1 + {n} % 600"),
        1 => format!("UPDATE country SET country = 'Land {n}' WHERE country_id = 1 + {n} % 109 AND country_id NOT IN (8, 20)"),
        2 => format!("UPDATE city SET country_id = 1 + {n} % 109 WHERE city_id = {customer} AND city_id NOT IN (300, 576)"),
        3 => format!("UPDATE address SET district = 'Région {n}', phone = if({n} % 2, '', '{n}') WHERE address_id = {customer}"),
        4 => format!("UPDATE address SET city_id = 1 + {n} % 600 WHERE address_id = 4 + {customer}"),
        5 => format!("UPDATE customer SET address_id = 5 + {n} % 600, store_id = 1 + {n} % 2 WHERE customer_id = {customer}"),
        6 => format!("UPDATE customer SET first_name = 'ZOË', active = NOT active WHERE customer_id = {customer}"),
        7 => format!("UPDATE staff SET last_name = 'MÜLLER{n}', active = {n} % 2 WHERE staff_id = 1 + {n} % 2"),
        // The two managers change places; the column is unique.
        8 => "BEGIN; SET @a = (SELECT manager_staff_id FROM store WHERE store_id = 1); \
              UPDATE store SET address_id = address_id; SET FOREIGN_KEY_CHECKS = 0; \
              UPDATE store SET manager_staff_id = 99 WHERE store_id = 1; \
              UPDATE store SET manager_staff_id = @a WHERE store_id = 2; \
              UPDATE store SET manager_staff_id = 3 - @a WHERE store_id = 1; SET FOREIGN_KEY_CHECKS = 1; COMMIT"
            .into(),
        9 => format!("UPDATE category SET name = 'Kind {n}' WHERE category_id = 1 + {n} % 16"),
        10 => format!("UPDATE film SET title = concat('NEW ', title), rental_rate = {}.{cents:02} WHERE film_id = {film}", n % 90),
        11 => format!("UPDATE film SET rental_duration = 1 + {n} % 9 WHERE film_id = {film}"),
        12 => format!("INSERT IGNORE INTO film_category (film_id, category_id) VALUES ({film}, 1 + {n} % 16)"),
        13 => format!("DELETE FROM film_category WHERE film_id = {film}"),
        14 => format!("UPDATE film_category SET category_id = 1 + {n} % 16 WHERE film_id = {film} AND (SELECT n FROM (SELECT count(*) AS n FROM film_category WHERE film_id = {film}) x) = 1"),
        15 => format!("UPDATE inventory SET film_id = {film}, store_id = 1 + {n} % 2 WHERE inventory_id = 1 + {n}"),
        16 => format!("INSERT INTO inventory (film_id, store_id) VALUES ({film}, 1 + {n} % 2)"),
        17 => format!(
            "UPDATE payment SET amount = {}.{cents:02} WHERE rental_id = {rental}; \
             INSERT INTO payment (customer_id, staff_id, rental_id, amount, payment_date)
             SELECT customer_id, staff_id, rental_id, 1.{cents:02}, '2005-0{}-01 10:00:00' FROM rental WHERE rental_id = {rental}",
            n % 90,
            1 + number % 9
        ),
        18 => format!("UPDATE payment SET rental_id = (SELECT rental_id FROM rental WHERE rental_id = {rental}) WHERE payment_id = {rental} - 1"),
        _ => format!(
            "UPDATE rental SET return_date = if(return_date IS NULL, '2024-01-01 10:20:30', NULL), customer_id = {customer} WHERE rental_id = {rental}; \
             BEGIN; DELETE FROM payment WHERE rental_id = {rental} - 7; DELETE FROM rental WHERE rental_id = {rental} - 7; COMMIT"
        ),
    }
}
