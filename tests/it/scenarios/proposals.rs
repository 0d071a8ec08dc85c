//! `tidemark init`: what it proposes for known databases and the reference CRM's model, and that it fits as it stands.

use crate::scene;
use crate::support::crm::{Crm, TOKEN};
use crate::support::source::{PASSWORD, Source, repository};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

struct Desk {
    source: Source,
    crm: Crm,
    dir: tempfile::TempDir,
}

impl Desk {
    async fn with(script: &str) -> Option<Self> {
        let source = Source::empty().await?;
        source.cluster.psql_file(source.database, &repository(script)).expect("the script runs");
        source.psql("ANALYZE");
        source.own_everything();
        let model = std::fs::read(repository("src/demo/crm/northwind.json")).expect("the reference CRM's model");
        let crm = Crm::start(serde_json::from_slice(&model).expect("JSON")).await;
        Some(Self { source, crm, dir: tempfile::tempdir().expect("a directory") })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("acme").join(name)
    }

    async fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.args(words).current_dir(self.dir.path());
        command.env("SOURCE_PASSWORD", PASSWORD).env("CRM_TOKEN", TOKEN).env("NO_COLOR", "1");
        tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("the program runs")
    }

    async fn init(&self, more: &[&str]) -> Output {
        let source = format!("postgres://tidemark@127.0.0.1:{}/vendor", self.source.cluster.port());
        let url = self.crm.base_url();
        let words = ["init", "acme", "--source", &source, "--tls", "disable", "--crm", &url];
        self.run(&[&words, more].concat()).await
    }

    /// Proposes, and holds the proposal against `check` and `plan`, as it stands.
    async fn propose(&self) -> (Value, String) {
        let output = self.init(&["--json"]).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
        assert!(output.status.success(), "{}", said(&output));
        let pack = std::fs::read_to_string(self.at("mapping.toml")).expect("the pack");
        let tenant = std::fs::read_to_string(self.at("acme.toml")).expect("the tenant file");
        assert!(!tenant.contains(PASSWORD) && !pack.contains(PASSWORD));
        // Somebody else may listen on the usual port.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        std::fs::write(self.at("acme.toml"), tenant.replace("127.0.0.1:9464", &format!("127.0.0.1:{port}"))).unwrap();
        let check = self.run(&["check", "--config", "acme/acme.toml"]).await;
        assert!(check.status.success(), "{pack}\n{}", said(&check));
        let plan = self.run(&["plan", "--config", "acme/acme.toml", "--json"]).await;
        let plan: Value = serde_json::from_slice(&plan.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&plan)));
        for entity in plan["entities"].as_array().unwrap() {
            assert_eq!(
                (entity["reject"].as_u64(), entity["create"].as_u64() > Some(0)),
                (Some(0), true),
                "{entity}\n{pack}"
            );
        }
        println!("{pack}");
        (report, pack)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The fields proposed for a table, as `entity.field = value`; a field left to do has a `?` before it.
fn proposed(report: &Value, table: &str) -> (String, Vec<String>) {
    let records = report["records"].as_array().unwrap();
    let record =
        records.iter().find(|r| r["table"] == table).unwrap_or_else(|| panic!("no record for {table}: {report}"));
    let fields = record["fields"].as_array().unwrap().iter();
    let line = |f: &Value| {
        let todo = if f["todo"] == true { "?" } else { "" };
        format!("{todo}{} = {}", f["field"].as_str().unwrap(), f["value"].as_str().unwrap())
    };
    (record["entity"].as_str().unwrap().to_owned(), fields.map(line).collect())
}

fn has(report: &Value, table: &str, entity: &str, fields: &[&str]) {
    let (found, lines) = proposed(report, table);
    assert_eq!(found, entity, "{table}");
    for field in fields {
        assert!(lines.iter().any(|line| line == field), "{table} lacks {field}:\n{}", lines.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn northwind_is_recognised() {
    let desk = scene!(Desk::with("packs/northwind/data/postgres-northwind.sql"));
    let (report, pack) = desk.propose().await;
    has(
        &report,
        "northwind.Customers",
        "account",
        &["name = 't.\"CompanyName\"'", "phone = 't.\"Phone\"'", "fax = 't.\"Fax\"'", "kind = \"'customer'\""],
    );
    has(&report, "northwind.Suppliers", "account", &["name = 't.\"CompanyName\"'"]);
    has(&report, "northwind.Products", "product", &["name = 't.\"ProductName\"'", "unit_price = 't.\"UnitPrice\"'"]);
    has(
        &report,
        "northwind.Orders",
        "order",
        &[
            "ordered_on = 'cast(t.\"OrderDate\" as date)'",
            "shipped_on = 'cast(t.\"ShippedDate\" as date)'",
            "freight = 't.\"Freight\"'",
        ],
    );
    has(
        &report,
        "northwind.Employees",
        "employee",
        &["first_name = 't.\"FirstName\"'", "last_name = 't.\"LastName\"'"],
    );
    has(&report, "northwind.Categories", "category", &["name = 't.\"CategoryName\"'"]);
    let (_, order) = proposed(&report, "northwind.Orders");
    assert!(order.iter().any(|f| f.starts_with("account = { ref = \"account\"")), "{order:?}");
    let (_, employee) = proposed(&report, "northwind.Employees");
    assert!(employee.iter().any(|f| f.starts_with("manager = { ref = \"employee\"")), "{employee:?}");
    assert!(pack.contains("guessed that CustomerID points to northwind.Customers"), "guesses are called so");
    assert!(pack.contains("TODO"), "what cannot be known is left to do");
    // Nothing is overwritten unasked.
    let before = std::fs::read_to_string(desk.at("mapping.toml")).unwrap();
    std::fs::write(desk.at("mapping.toml"), "mine").unwrap();
    let output = desk.init(&[]).await;
    assert!(output.status.code() == Some(1) && said(&output).contains("is there already"), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(desk.at("mapping.toml")).unwrap(), "mine");
    let shown = desk.init(&["--dry-run"]).await;
    assert!(shown.status.success() && std::fs::read_to_string(desk.at("mapping.toml")).unwrap() == "mine");
    assert_eq!(String::from_utf8_lossy(&shown.stdout), before, "the same proposal each time");
    let forced = desk.init(&["--force"]).await;
    assert!(forced.status.success() && said(&forced).contains("SURE"), "{}", said(&forced));
    assert_eq!(std::fs::read_to_string(desk.at("mapping.toml")).unwrap(), before);
    // A password in an argument is refused; so is a table that is not there.
    let output = desk.run(&["init", "x", "--source", "postgres://u:secret@h/d", "--crm", "http://127.0.0.1:1"]).await;
    assert!(output.status.code() == Some(2) && !said(&output).contains("secret@"), "{}", said(&output));
    let output = desk.init(&["--table", "nonsense", "--dry-run"]).await;
    assert!(output.status.code() == Some(1), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chinook_is_recognised() {
    let desk = scene!(Desk::with("tests/data/init/chinook.sql"));
    let (report, _) = desk.propose().await;
    has(&report, "public.genre", "category", &["name = \"coalesce(left(t.name, 60), '')\""]);
    has(&report, "public.employee", "employee", &["last_name = \"t.last_name\"", "title = \"t.title\""]);
    has(&report, "public.track", "product", &["name = \"left(t.name, 80)\"", "unit_price = \"t.unit_price\""]);
    let (_, invoice) = proposed(&report, "public.invoice");
    assert!(invoice.iter().any(|f| f.starts_with("account = { ref = \"account\"")), "{invoice:?}");
    let (_, line) = proposed(&report, "public.invoice_line");
    for reference in ["order = { ref", "product = { ref"] {
        assert!(line.iter().any(|f| f.starts_with(reference)), "{line:?}");
    }
    let (_, employee) = proposed(&report, "public.employee");
    assert!(employee.iter().any(|f| f.starts_with("manager = { ref = \"employee\"")), "{employee:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sakila_is_recognised() {
    let desk = scene!(Desk::with("tests/data/init/sakila.sql"));
    let (report, _) = desk.propose().await;
    has(
        &report,
        "public.staff",
        "employee",
        &["last_name = \"left(t.last_name, 40)\"", "first_name = \"left(t.first_name, 40)\""],
    );
    has(&report, "public.category", "category", &["name = \"t.name\""]);
    has(&report, "public.film", "product", &["name = \"left(t.title, 80)\""]);
    let (entity, customer) = proposed(&report, "public.customer");
    assert_eq!(entity, "contact", "a customer who is a person: {customer:?}");
    assert!(customer.contains(&"email = \"t.email\"".to_owned()), "{customer:?}");
}
