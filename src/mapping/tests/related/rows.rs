//! What comes of rows and their related rows.

use super::*;

const ORDER: &str = r#"
[record.r.join.ship]
from = "shippers as sh"
on = "sh.shipper_id = o.ship_via"
[record.r.join.city]
from = "cities as ci"
on = "ci.city_id = cl.city_id"
[record.r.join.cl]
from = "clients"
on = "o.client_id = cl.client_id"
on_change = "ignore"
[record.r.let]
total = "sum(items.amount)"
[record.r.fields]
carrier = "coalesce(sh.company_name, 'pick-up')"
rating = "rating"
city = "upper(ci.name)"
total = "total"
lines = "count(items)"
pieces = "sum(items.quantity)"
dearest = "max(items.price)"
mean = "round(avg(items.price), 2)"
gifts = "count(items.gift)"
[record.r.children.items]
from = "lines as d"
on = "d.order_id = o.order_id"
order_by = "d.price desc, d.product_id"
limit = 2
[record.r.children.items.let]
price = "d.price"
gift = "nullif(d.gift, false)"
[record.r.children.items.fields]
sku = "p.sku"
quantity = "d.quantity"
amount = "round(d.price * d.quantity * (1 - cast(coalesce(d.discount, 0) as decimal)), 2)"
product = { ref = "product", external_id = "p.product_id" }
[record.r.children.items.join.p]
from = "products as p"
on = "p.product_id = d.product_id"
"#;

#[test]
fn an_order_shows_its_carrier_its_city_and_its_lines() {
    let pack = shop_pack("orders as o", "o.order_id", ORDER);
    assert_eq!(
        documents(&pack, &[]),
        [
            r#"1 {"carrier":"Speedy","rating":4.5,"city":"BERLIN","total":"431.60","lines":3,"pieces":27,"dearest":"34.80","mean":"19.53","gifts":1,"items":[{"sku":"M-72","quantity":5,"amount":"174.00","product":{"external_id":"72"}},{"sku":"Q-11","quantity":12,"amount":"159.60","product":{"external_id":"11"}}]}"#,
            r#"2 {"carrier":"pick-up","rating":null,"city":"PARIS","total":"14.00","lines":1,"pieces":1,"dearest":"14.00","mean":"14.00","gifts":0,"items":[{"sku":"Q-11","quantity":1,"amount":"14.00","product":{"external_id":"11"}}]}"#,
            r#"3 {"carrier":"pick-up","rating":null,"city":null,"total":"3.02","lines":1,"pieces":3,"dearest":"1.005","mean":"1.01","gifts":0,"items":[{"sku":null,"quantity":3,"amount":"3.02","product":null}]}"#,
            r#"4 {"carrier":"United","rating":null,"city":null,"total":null,"lines":0,"pieces":null,"dearest":null,"mean":null,"gifts":0,"items":[]}"#,
        ]
    );
}

#[test]
fn what_is_read_and_how_it_is_found_is_told() {
    let mapping = shop_mapping(&shop_pack("orders as o", "o.order_id", ORDER));
    let rule = &mapping.rules[0];
    let relations = rule.relations.as_deref().expect("relations");
    let aliases: Vec<_> = relations.joins.iter().map(|j| (&*j.alias, j.from, j.resend, j.unique)).collect();
    assert_eq!(
        aliases,
        [("sh", Slot::Root, true, true), ("cl", Slot::Root, false, true), ("ci", Slot::Join(1), true, true)],
        "each after what it builds on"
    );
    let names = |columns: &[(Box<str>, LogicalType)]| columns.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&rule.columns), ["order_id", "ship_via", "client_id"]);
    assert_eq!(names(&relations.joins[1].columns), ["client_id", "city_id"]);
    let items = &relations.children[0];
    assert_eq!(names(&items.columns), ["price", "gift", "quantity", "discount", "product_id", "order_id"]);
    assert_eq!((&*items.name, &*items.table.name, items.from), ("items", "lines", Slot::Root));
    assert_eq!((&*items.on[0].left, &*items.on[0].right), ("order_id", "order_id"));
    assert_eq!(rule.fields.last().map(|f| &**f), Some("items"));
    assert_eq!(rule.references, [("product".into(), Missing::Wait)]);

    let roots: Vec<_> = mapping.root_tables().into_iter().map(|t| t.name.to_string()).collect();
    assert_eq!(roots, ["orders"]);
    let requests: Vec<_> = mapping.requests().into_iter().map(|r| r.table.name.to_string()).collect();
    assert_eq!(requests, ["cities", "clients", "lines", "orders", "products", "shippers"]);

    let way = |table: &str| {
        let uses = relations.uses_of(&TableId::new("public", table));
        let hop = |hop: &Hop<'_>| format!("{}.{}", hop.table.map_or("(own)", |t| &t.name), hop.on[0].left);
        uses.iter()
            .map(|u| (*u, relations.resends(*u), relations.way(*u).iter().map(hop).collect::<Vec<_>>()))
            .collect::<Vec<_>>()
    };
    assert_eq!(way("cities"), [(Related::Join(2), true, vec!["clients.city_id".into(), "(own).client_id".to_owned()])]);
    assert_eq!(way("clients"), [(Related::Join(1), false, vec!["(own).client_id".to_owned()])]);
    assert_eq!(way("lines"), [(Related::Child(0), true, vec!["(own).order_id".to_owned()])]);
    let products = [(Related::ChildJoin(0, 0), true, vec!["lines.product_id".into(), "(own).order_id".to_owned()])];
    assert_eq!(way("products"), products);
    assert_eq!(mapping.related_to(&TableId::new("public", "orders")).count(), 0);
}

#[test]
fn the_own_row_answers_what_it_decides_alone() {
    let pack = shop_pack("orders as o", "o.order_id", &format!("where = \"o.is_open\"\n{ORDER}"));
    let mapping = shop_mapping(&pack);
    let orders = schema_of("orders");
    let bound = mapping.rules[0].bind(&orders).expect("the same schema");
    let rows = parse_rows(&orders, ROWS[4].1);
    assert!(matches!(bound.apply(&rows[0]), Applied::NeedsRow));
    assert!(matches!(bound.apply(&rows[1]), Applied::Outside { external_id: Some(id) } if &*id == "2"));
    assert_eq!(bound.external_id(&rows[0]), ExternalId::Known("1".into()));
    assert_eq!(documents(&pack, &[]).len(), 3);
}

#[test]
fn a_row_that_joins_itself_and_lists_itself() {
    let pack = shop_pack(
        "staff as s",
        "s.staff_id",
        r#"
[record.r.join.boss]
from = "staff as b"
on = "b.staff_id = s.boss_id"
[record.r.join.over]
from = "staff as bb"
on = "bb.staff_id = b.boss_id"
[record.r.fields]
boss = "b.name"
over = "bb.name"
[record.r.children.team]
from = "staff as t"
on = "t.boss_id = s.staff_id"
on_change = "ignore"
order_by = "t.name desc"
value = "t.name""#,
    );
    assert_eq!(
        documents(&pack, &[]),
        [
            r#"1 {"boss":"Andrew","over":null,"team":[]}"#,
            r#"2 {"boss":null,"over":null,"team":["Nancy","Janet"]}"#,
            r#"3 {"boss":"Andrew","over":null,"team":[]}"#,
            r#"4 {"boss":"Own","over":"Own","team":["Own"]}"#,
        ]
    );
    let mapping = shop_mapping(&pack);
    assert_eq!(mapping.related_to(&TableId::new("public", "staff")).map(|(_, uses)| uses.len()).sum::<usize>(), 3);
}

#[test]
fn many_to_many_goes_through_the_link_table() {
    let pack = shop_pack(
        "orders as o",
        "o.order_id",
        r#"
[record.r.fields]
tags = "count(labels.label)"
first = "min(labels.label)"
[record.r.children.labels]
from = "order_tags as ot"
on = "ot.order_id = o.order_id"
order_by = "t.label"
where = "t.tag_id is not null"
fields = { label = "t.label", tag = { ref = "tag", external_id = "t.tag_id", missing = "null" } }
join.t = { from = "tags", on = "t.tag_id = ot.tag_id" }"#,
    );
    let applied = all_applied(&pack, &[]);
    match &applied[0] {
        Applied::Upsert { document, references, .. } => {
            let json = r#"{"tags":2,"first":"red","labels":[{"label":"red","tag":{"external_id":"1"}},{"label":"urgent","tag":{"external_id":"2"}}]}"#;
            assert_eq!(std::str::from_utf8(document.json()).expect("UTF-8"), json);
            let fields: Vec<_> = references.iter().map(|r| (&*r.field, &*r.external_id)).collect();
            assert_eq!(fields, [("labels[0].tag", "1"), ("labels[1].tag", "2")]);
            let without = document.with_null("labels[1].tag").expect("it is there");
            assert!(without.json().ends_with(br#"{"label":"urgent","tag":null}]}"#));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(documents(&pack, &[])[1], r#"2 {"tags":0,"first":null,"labels":[]}"#);
}

#[test]
fn lists_are_sent_in_one_order_whatever_order_they_were_read_in() {
    let pack = |order: &str| {
        let list = format!(
            "[record.r.fields]\na = \"1\"\n[record.r.children.l]\nfrom = \"lines as d\"\non = \"d.order_id = o.order_id\"\n{order}\nvalue = \"d.product_id\"\n"
        );
        shop_pack("orders as o", "o.order_id", &list)
    };
    let lines = ["1|1|5|1|~|~", "1|2|5|1|0.5|t", "1|3|5.0|2|0.1|~", "1|4|1|2|~|f"];
    let orders = "1|A|1|~|t|~";
    for (order, wanted) in [
        ("", "[1,2,3,4]"),
        ("order_by = \"d.price\"", "[4,1,2,3]"),
        ("order_by = \"d.price desc\"", "[1,2,3,4]"),
        ("order_by = \"d.quantity desc, d.price\"", "[4,3,1,2]"),
        ("order_by = \"d.discount\"", "[3,2,1,4]"),
        ("order_by = \"d.discount desc\"", "[1,4,2,3]"),
        ("order_by = \"d.discount desc nulls last\"", "[2,3,1,4]"),
        ("order_by = \"d.discount nulls first\"", "[1,4,3,2]"),
        ("order_by = [\"d.gift desc nulls last\", \"-d.product_id\"]", "[2,4,3,1]"),
    ] {
        let text = pack(order);
        for turn in 0..lines.len() {
            let mut read = lines.to_vec();
            read.rotate_left(turn);
            let data = [("orders", orders), ("lines", &*read.join("\n"))];
            assert_eq!(documents(&text, &data), [format!("1 {{\"a\":1,\"l\":{wanted}}}")], "{order}");
        }
    }
}

#[test]
fn a_list_that_aggregates_alone_read_is_not_sent() {
    let pack = shop_pack(
        "orders as o",
        "o.order_id",
        r#"
[record.r.fields]
n = "count(notes)"
kinds = "count(distinct lines.quantity)"
last = "max(lines.on)"
[record.r.children.notes]
from = "notes as n"
on = "n.order_id = o.order_id"
on_change = "ignore"
emit = false
[record.r.children.lines]
from = "lines as d"
on = "d.order_id = o.order_id"
where = "d.price > 1.01"
emit = false
let = { quantity = "d.quantity % 2", on = "date '2024-01-01' + d.quantity" }"#,
    );
    assert_eq!(
        documents(&pack, &[]),
        [
            r#"1 {"n":2,"kinds":2,"last":"2024-01-13"}"#,
            r#"2 {"n":1,"kinds":1,"last":"2024-01-02"}"#,
            r#"3 {"n":0,"kinds":0,"last":null}"#,
            r#"4 {"n":0,"kinds":0,"last":null}"#,
        ]
    );
    assert_eq!(shop_mapping(&pack).rules[0].fields.len(), 3);
}

#[test]
fn rows_without_what_is_needed_ask_for_it() {
    let pack = shop_pack(
        "orders as o",
        "o.order_id",
        &format!("{ORDER}\n[record.r.fields.remark]\nobject = {{ text = \"o.remark\" }}"),
    );
    let applied = |orders: &str| all_applied(&pack, &[("orders", orders)]).remove(0);
    assert!(matches!(applied("1|A|?|~|t|~"), Applied::NeedsRow), "the way to a join");
    match applied("1|A|1|?|t|?") {
        Applied::Upsert { document, .. } => {
            assert!(document.is_partial());
            assert!(!String::from_utf8_lossy(document.json()).contains("remark"), "the CRM keeps it");
        }
        other => panic!("{other:?}"),
    }
    let lines = [("lines", "1|11|?|1|~|~")];
    assert!(matches!(all_applied(&pack, &lines)[0], Applied::NeedsRow), "a list's row");
}

#[test]
fn failures_name_the_list_the_field_and_the_place() {
    let pack = |value: &str, sum: &str| {
        let list = format!(
            "[record.r.fields]\nt = \"{sum}\"\n[record.r.children.l]\nfrom = \"lines as d\"\non = \"d.order_id = o.order_id\"\n[record.r.children.l.fields]\nv = \"{value}\"\n"
        );
        shop_pack("orders as o", "o.order_id", &list)
    };
    let rejection = |text: String, lines: &str| match all_applied(&text, &[("lines", lines)]).remove(0) {
        Applied::Rejected(r) => (r.external_id.unwrap().to_string(), r.field.unwrap().to_string(), r.code, r.message),
        other => panic!("{other:?}"),
    };
    let (id, field, code, message) = rejection(pack("100 / d.quantity", "'x'"), "1|1|1|0|~|~");
    assert_eq!((&*id, &*field, code), ("1", "l.v", "division_by_zero"));
    assert!(message.ends_with("(t.toml:11:6: 100 / d.quantity)"), "{message}");
    let (_, field, code, message) = rejection(pack("100 / d.quantity", "sum(l.v)"), "1|1|1|0|~|~");
    assert_eq!((&*field, code), ("l", "division_by_zero"));
    assert!(message.contains("100 / d.quantity"), "{message}");
    let two = format!("1|1|1|{0}|~|~\n1|2|1|{0}|~|~", i64::MAX);
    let (_, field, code, message) = rejection(pack("d.quantity", "sum(l.v)"), &two);
    assert_eq!((&*field, code), ("l", "out_of_range"));
    assert!(message.contains("t.toml:6:6: sum(l.v)"), "{message}");
}

#[test]
fn the_fingerprint_covers_everything_about_relations() {
    let pack = shop_pack("orders as o", "o.order_id", ORDER);
    let of = |text: &str| shop_mapping(text).rules[0].fingerprint;
    let base = of(&pack);
    assert_eq!(base, of(&format!("{pack}\n# a comment\n")));
    for (from, to) in [
        ("limit = 2", "limit = 3"),
        ("d.price desc,", "d.price,"),
        ("d.price desc", "d.price desc nulls last"),
        ("on = \"p.product_id = d.product_id\"", "on = \"p.product_id = d.quantity\""),
        ("from = \"products as p\"", "from = \"products as p\"\non_change = \"ignore\""),
        ("sku = \"p.sku\"", "sku = \"p.name\""),
        ("price = \"d.price\"", "price = \"d.price + 0\""),
        ("limit = 2", "limit = 2\nwhere = \"d.gift\""),
        ("limit = 2", "limit = 2\nemit = false"),
        ("sh.shipper_id = o.ship_via", "sh.shipper_id = o.order_id"),
    ] {
        assert!(pack.contains(from), "{from}");
        assert_ne!(base, of(&pack.replacen(from, to, 1)), "{to}");
    }
}

#[test]
fn bound_to_schemas_that_changed_it_says_what_is_missing() {
    let mapping = shop_mapping(&shop_pack("orders as o", "o.order_id", ORDER));
    let without = |table: &str, column: &str| {
        let mut tables = shop();
        for schema in &mut tables {
            if &*schema.table.name == table {
                Arc::make_mut(schema).columns.retain(|c| &*c.name != column);
            }
        }
        let mut found = |id: &TableId| tables.iter().find(|s| s.table == *id).cloned();
        mapping.rules[0].bind_related(&mut found).expect_err("it does not fit").to_string()
    };
    assert_eq!(without("products", "sku"), "column `sku` does not exist in public.products");
    assert_eq!(without("lines", "price"), "column `price` does not exist in public.lines");
    assert_eq!(without("orders", "ship_via"), "column `ship_via` does not exist in public.orders");
    let mut none = |_: &TableId| None;
    let error = mapping.rules[0].bind_related(&mut none).expect_err("no tables").to_string();
    assert!(error.contains("public.orders"), "{error}");
}

#[test]
fn a_flat_rule_binds_to_related_rows_that_it_has_not() {
    let pack = shop_pack("orders as o", "o.order_id", "[record.r.fields]\nremark = \"o.remark\"");
    assert_eq!(documents(&pack, &[])[0], r#"1 {"remark":"first"}"#);
}

#[test]
fn a_pack_s_tests_bring_their_related_rows() {
    let test = r#"
[[test]]
record = "r"
row = { order_id = 1, client_id = "A", ship_via = 1 }
related = { shippers = [{ shipper_id = 1, company_name = "Speedy" }], lines = [
    { order_id = 1, product_id = 11, price = "14.00", quantity = 12, discount = 0.5 },
    { order_id = 1, product_id = 12, price = "1.50", quantity = 1 },
    { order_id = 2, product_id = 11, price = "14.00", quantity = 1 } ], products = [{ product_id = 11, sku = "Q" }] }
expect = { external_id = "1", carrier = "Speedy", total = "85.50", lines = 2, items = [{ sku = "Q", amount = 84 }, { quantity = 1 }] }
"#;
    let run = |text: &str| {
        let pack = Pack::parse("t.toml", text, None, None).unwrap_or_else(|d| panic!("{d}"));
        run_pack_tests(&pack, &CompileOptions::default()).unwrap_or_else(|d| panic!("{d}"))
    };
    let pack = format!("{}{test}", shop_pack("orders as o", "o.order_id", ORDER));
    let report = run(&pack);
    assert_eq!((report.total, report.failed), (1, 0), "{}", report.diagnostics);
    let report = run(&pack.replace("lines = 2,", "lines = 3,"));
    assert!(report.diagnostics.to_string().contains("`r.lines` is 2"), "{}", report.diagnostics);
    let twice = pack.replace("company_name = \"Speedy\" }]", "company_name = \"Speedy\" }, { shipper_id = 1 }]");
    let report = run(&twice);
    assert!(
        report.diagnostics.to_string().contains("2 rows of shippers match the join `sh`"),
        "{}",
        report.diagnostics
    );
}
