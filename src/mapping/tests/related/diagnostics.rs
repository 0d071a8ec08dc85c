//! What people see when the relations of a pack are wrong. The texts stand in `diagnostics.txt`.

use super::*;
use std::fmt::Write as _;

const LIST: &str = "[record.r.children.items]\nfrom = \"lines as d\"\non = \"d.order_id = o.order_id\"\n";

fn crm() -> CrmSchema {
    let item = entity(&[
        ("sku", FieldSchema { required: true, nullable: false, ..field(text(&[])) }),
        ("quantity", field(FieldKind::Integer)),
        ("product", field(FieldKind::Reference("product".into()))),
    ]);
    let order = entity(&[
        ("carrier", FieldSchema { required: true, nullable: false, ..field(text(&[])) }),
        ("total", FieldSchema { nullable: false, ..field(FieldKind::Number) }),
        ("remark", field(text(&[]))),
        ("items", field(FieldKind::List(Box::new(FieldKind::Object(item))))),
        ("labels", field(FieldKind::List(Box::new(text(&["red", "blue"]))))),
    ]);
    let product = entity(&[("name", field(text(&[])))]);
    CrmSchema { entities: [("order".into(), order), ("product".into(), product)].into(), open: false }
}

struct Case {
    title: &'static str,
    text: String,
    crm: bool,
}

fn case(title: &'static str, rest: &str) -> Case {
    Case { title, text: shop_pack("orders as o", "o.order_id", &format!("entity = \"order\"\n{rest}")), crm: false }
}

fn crm_case(title: &'static str, rest: &str) -> Case {
    Case { crm: true, ..case(title, rest) }
}

fn join(title: &'static str, join: &str) -> Case {
    case(title, &format!("[record.r.join.x]\n{join}\n[record.r.fields]\nremark = \"o.remark\"\n"))
}

fn list(title: &'static str, list: &str, fields: &str) -> Case {
    case(title, &format!("[record.r.fields]\nremark = \"o.remark\"\n{fields}\n{LIST}{list}"))
}

fn cases() -> Vec<Case> {
    let sku = "fields = { sku = \"d.product_id\" }\n";
    let shippers = "from = \"shippers as sh\"\n";
    let ship = "[record.r.join.ship]\nfrom = \"shippers as sh\"\non = \"sh.shipper_id = o.ship_via\"\n";
    let full = "[record.r.fields]\ncarrier = \"'x'\"\n";
    vec![
        join("a join of nothing", "on = \"x.id = o.ship_via\""),
        join("a join without on", shippers),
        join("a slip in a join", &format!("{shippers}on = \"sh.shipper_id = o.ship_via\"\non_chnage = \"ignore\"")),
        join("an unknown table", "from = \"shipers as sh\"\non = \"sh.shipper_id = o.ship_via\""),
        join("an unknown column of the joined table", &format!("{shippers}on = \"sh.shiper_id = o.ship_via\"")),
        join("an unknown column of the own table", &format!("{shippers}on = \"sh.shipper_id = o.ship_vai\"")),
        join("an unknown alias", &format!("{shippers}on = \"sh.shipper_id = p.ship_via\"")),
        join("an expression in on", &format!("{shippers}on = \"sh.shipper_id = o.ship_via + 1\"")),
        join("a constant in on", &format!("{shippers}on = \"sh.shipper_id = o.ship_via and sh.rating = 5\"")),
        join("another comparison in on", &format!("{shippers}on = \"sh.shipper_id > o.ship_via\"")),
        join("a bare column in on", &format!("{shippers}on = \"shipper_id = o.ship_via\"")),
        join("on of other tables", &format!("{shippers}on = \"o.order_id = o.ship_via\"")),
        join("on that is no SQL", &format!("{shippers}on = \"sh.shipper_id =\"")),
        join("columns of different types", &format!("{shippers}on = \"sh.shipper_id = o.client_id\"")),
        join("a join that can find many rows", "from = \"lines as d\"\non = \"d.order_id = o.order_id\""),
        join(
            "a join by columns that are said to be unique",
            "from = \"notes as n\"\non = \"n.order_id = o.order_id\"\nunique = true",
        ),
        join("the same alias twice", "from = \"shippers as o\"\non = \"o.shipper_id = o.ship_via\""),
        case(
            "joins that go round",
            "[record.r.join.a]\nfrom = \"clients\"\non = \"a.client_id = b.name\"\n[record.r.join.b]\nfrom = \"cities\"\non = \"b.name = c.client_id\"\n\
             unique = true\non_change = \"ignore\"\n[record.r.join.c]\nfrom = \"clients\"\non = \"c.client_id = a.name\"\n[record.r.fields]\nremark = \"c.name\"\n",
        ),
        case(
            "a join to two tables",
            &format!(
                "{ship}[record.r.join.l]\nfrom = \"lines as l\"\non = \"l.order_id = o.order_id and l.product_id = sh.shipper_id\"\n[record.r.fields]\nremark = \"l.price\"\n"
            ),
        ),
        // Expressions.
        case(
            "a bare name that two tables have",
            &format!(
                "{ship}[record.r.join.c]\nfrom = \"clients as c\"\non = \"c.client_id = o.client_id\"\n[record.r.fields]\nremark = \"client_id\"\n"
            ),
        ),
        case(
            "an unknown column of a join",
            &format!("{ship}[record.r.fields]\nremark = \"sh.company\"\nx = \"compny_name\"\n"),
        ),
        case("an alias with a slip", &format!("{ship}[record.r.fields]\nremark = \"shp.company_name\"\n")),
        case(
            "where over a join",
            &format!("where = \"sh.rating > 3\"\n{ship}[record.r.fields]\nremark = \"o.remark\"\n"),
        ),
        case(
            "where over a let over a join",
            &format!(
                "where = \"good\"\n{ship}[record.r.let]\ngood = \"sh.rating > 3\"\n[record.r.fields]\nremark = \"o.remark\"\n"
            ),
        ),
        case(
            "an external id from a join",
            &format!("{ship}[record.r.fields]\nremark = \"o.remark\"\n").replace("order\"\n", "order\"\n"),
        ),
        case(
            "an archive from a join",
            &format!(
                "on_delete = \"archive\"\n{ship}[record.r.archive]\nremark = \"sh.company_name\"\n[record.r.fields]\nremark = \"o.remark\"\n"
            ),
        ),
        // Lists.
        list("a list without fields", "", ""),
        list("a list with both", &format!("{sku}value = \"d.product_id\"\n"), ""),
        list("a list and a field", sku, "items = \"'x'\""),
        list("a limit of none", &format!("{sku}limit = 0\n"), ""),
        list("an order that is none", &format!("{sku}order_by = \"d.prise desc\"\n"), ""),
        list("a list's column in a field", sku, "x = \"d.price\""),
        list("the record's column in a list", "fields = { sku = \"o.remark\" }\n", ""),
        list("a condition that is none", &format!("{sku}where = \"d.quantity\"\n"), ""),
        case(
            "rows that could not be traced",
            "[record.r.fields]\nremark = \"o.remark\"\n[record.r.children.notes]\nfrom = \"notes as n\"\non = \"n.order_id = o.order_id\"\nvalue = \"n.body\"\n",
        ),
        case(
            "a join of a list to the record",
            &format!(
                "[record.r.fields]\nremark = \"o.remark\"\n{LIST}{sku}join.s = {{ from = \"shippers\", on = \"s.shipper_id = o.ship_via\" }}\n"
            ),
        ),
        // Aggregates.
        list("an aggregate of an unknown list", sku, "x = \"sum(itms.sku)\""),
        list("an aggregate by the row's alias", sku, "x = \"sum(d.price)\""),
        list("an aggregate of an unknown field", sku, "x = \"sum(items.price)\""),
        list("an aggregate of text", "fields = { sku = \"cast(d.product_id as text)\" }\n", "x = \"sum(items.sku)\""),
        list("an aggregate of an expression", sku, "x = \"sum(items.sku * 2)\""),
        list("a sum of a list", sku, "x = \"sum(items)\""),
        list("count of everything", sku, "x = \"count(*)\""),
        list("an aggregate that is not there", sku, "x = \"string_agg(items.sku, ',')\""),
        // The CRM.
        crm_case("a join into a required field", &format!("{ship}[record.r.fields]\ncarrier = \"sh.company_name\"\n")),
        crm_case(
            "a join into a required field, where it is known to be there",
            &format!(
                "{ship}[record.r.fields]\ncarrier = \"case when sh.rating > 0 then sh.company_name else 'none' end\"\n"
            ),
        ),
        crm_case(
            "a sum into a field that takes no null",
            &format!("{full}total = \"sum(items.n)\"\n{LIST}let = {{ n = \"d.quantity\" }}\nemit = false\n"),
        ),
        crm_case(
            "a list that the CRM has not",
            &format!(
                "{full}[record.r.children.itms]\nfrom = \"lines as d\"\non = \"d.order_id = o.order_id\"\nvalue = \"d.price\"\n"
            ),
        ),
        crm_case(
            "a list into a text",
            &format!(
                "{full}[record.r.children.remark]\nfrom = \"lines as d\"\non = \"d.order_id = o.order_id\"\nvalue = \"d.price\"\n"
            ),
        ),
        crm_case("values where objects belong", &format!("{full}{LIST}value = \"d.product_id\"\n")),
        crm_case("objects where values belong", &format!("{full}{}{sku}", LIST.replace("items", "labels"))),
        crm_case(
            "an item's fields",
            &format!(
                "{full}{LIST}fields = {{ quantity = \"d.price\", skew = \"'x'\", product = {{ ref = \"order\", external_id = \"d.product_id\" }} }}\n"
            ),
        ),
        crm_case(
            "an item that is no option",
            &format!(
                "{full}{}value = \"case when d.gift then 'red' else 'green' end\"\n",
                LIST.replace("items", "labels")
            ),
        ),
        crm_case(
            "items that can be null",
            &format!("{full}{}value = \"case when d.gift then 'red' end\"\n", LIST.replace("items", "labels")),
        ),
        // Tests.
        case(
            "a test with rows of another table",
            "[record.r.fields]\nremark = \"o.remark\"\n[[test]]\nrecord = \"r\"\nrow = { order_id = 1 }\nrelated = { lnes = [], orders = 5 }\noutside = true\n",
        ),
    ]
}

fn outcome(case: &Case) -> String {
    let text = match case.title {
        "an external id from a join" => {
            case.text.replace("external_id = \"o.order_id\"", "external_id = \"sh.company_name\"")
        }
        _ => case.text.clone(),
    };
    let pack = match Pack::parse("mapping.toml", &text, None, None) {
        Ok(pack) => pack,
        Err(diagnostics) => return diagnostics.to_string(),
    };
    let crm = case.crm.then(crm);
    match compile(&pack, &shop(), "public", crm.as_ref(), &CompileOptions::default()) {
        Ok((_, warnings)) => warnings.to_string(),
        Err(diagnostics) => diagnostics.to_string(),
    }
}

#[test]
fn diagnostics_of_relations_read_well() {
    let mut actual = String::new();
    for case in cases() {
        let _ = writeln!(actual, "===== {}\n{}\n", case.title, outcome(&case));
    }
    let expected = include_str!("diagnostics.txt");
    assert!(actual == expected, "diagnostics.txt should be:\n{actual}");
}

#[test]
fn whole_old_rows_or_ignorance_make_a_list_traceable() {
    let pack = |more: &str| {
        shop_pack(
            "orders as o",
            "o.order_id",
            &format!(
                "[record.r.fields]\nremark = \"o.remark\"\n[record.r.children.notes]\nfrom = \"notes as n\"\non = \"n.order_id = o.order_id\"\nvalue = \"n.body\"\n{more}"
            ),
        )
    };
    let compiles = |text: &str, full: bool| {
        let mut tables = shop();
        for table in &mut tables {
            Arc::make_mut(table).full_before_image = full;
        }
        let pack = Pack::parse("t.toml", text, None, None).unwrap_or_else(|d| panic!("{d}"));
        compile(&pack, &tables, "public", None, &CompileOptions::default()).is_ok()
    };
    assert!(!compiles(&pack(""), false));
    assert!(compiles(&pack(""), true));
    assert!(compiles(&pack("on_change = \"ignore\"\n"), false));
}
