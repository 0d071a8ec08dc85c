//! What a rule makes of rows.

use super::*;

const ALFKI: &[(&str, Value<'_>)] = &[
    ("customer_id", Value::Text("ALFKI")),
    ("company_name", Value::Text(" Alfreds ")),
    ("credit_limit", Value::Decimal("50000.00")),
    ("active", Value::Bool(true)),
    ("created_at", Value::Timestamp("2024-07-01T12:00:00")),
];

fn with<'v>(more: &[(&'v str, Value<'v>)]) -> Vec<(&'v str, Value<'v>)> {
    // Later values win: `row` takes the first of a name.
    more.iter().chain(ALFKI).copied().collect()
}

#[test]
fn fields_keep_the_order_of_the_pack() {
    let text =
        pack_text("", "name = \"trim(c.company_name)\"\nactive = \"c.active\"\nb = \"c.credit_limit\"\na = \"1\"");
    assert_eq!(document(&text, ALFKI), r#"{"name":"Alfreds","active":true,"b":"50000.00","a":1}"#);
}

#[test]
fn only_true_is_inside() {
    let text = pack_text("where = \"c.credit_limit > 10\"", "a = \"1\"");
    let outside = |v| match apply(&text, &with(&[("credit_limit", v)])) {
        Applied::Outside { external_id } => external_id.expect("known").into_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(outside(Value::Decimal("10")), "ALFKI");
    assert_eq!(outside(Value::Null), "ALFKI");
    assert_eq!(document(&text, ALFKI), r#"{"a":1}"#);
}

#[test]
fn a_field_of_one_column_that_the_log_left_out_is_left_out() {
    let text = pack_text("", "name = \"c.company_name\"\nnotes = \"upper(c.notes)\"");
    match apply(&text, &with(&[("notes", Value::Unchanged)])) {
        Applied::Upsert { document, .. } => {
            assert_eq!(document.json(), br#"{"name":" Alfreds "}"#);
            assert!(document.is_partial());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn anything_else_that_needs_a_column_left_out_asks_for_the_row() {
    let unchanged = with(&[("notes", Value::Unchanged)]);
    for (head, fields) in [
        ("", "x = \"c.notes || c.company_name\""),
        ("where = \"c.notes is null\"", "x = \"1\""),
        ("", "x = { ref = \"contact\", external_id = \"c.notes\" }"),
        ("", "x = { object = { a = \"c.notes\", b = \"c.country\" } }"),
        ("[record.account.let]\nn = \"c.notes || c.country\"", "x = \"n\""),
    ] {
        let applied = apply(&pack_text(head, fields), &unchanged);
        assert!(matches!(applied, Applied::NeedsRow), "{fields}: {applied:?}");
    }
    // A column that no rule uses may be missing.
    assert_eq!(document(&pack_text("", "a = \"c.customer_id\""), &unchanged), r#"{"a":"ALFKI"}"#);
}

/// That it is unchanged in the log says nothing of a column that the log never carries.
#[test]
fn a_column_that_is_never_in_the_log_asks_for_the_row() {
    let text = pack_text("", "name = \"c.company_name\"\nx = \"c.computed\"");
    let applied = apply(&text, &with(&[("computed", Value::Unchanged)]));
    assert!(matches!(applied, Applied::NeedsRow), "{applied:?}");
    assert_eq!(document(&text, &with(&[("computed", Value::Int(7))])), r#"{"name":" Alfreds ","x":7}"#);
    assert_eq!(document(&pack_text("", "a = \"1\""), &with(&[("computed", Value::Unchanged)])), r#"{"a":1}"#);
}

#[test]
fn an_object_of_one_column_is_left_out_with_it() {
    let text = pack_text("", "x = { object = { a = \"c.notes\", b = \"'k'\" } }\ny = \"1\"");
    match apply(&text, &with(&[("notes", Value::Unchanged)])) {
        Applied::Upsert { document, .. } => assert_eq!(document.json(), br#"{"y":1}"#),
        other => panic!("{other:?}"),
    }
}

#[test]
fn references_are_sent_and_listed() {
    let text = pack_text(
        "",
        "owner = { ref = \"contact\", external_id = \"'c-' || c.contact_name\", missing = \"reject\" }\n\
         deep = { object = { other = { ref = \"account\", external_id = \"c.customer_id\" } } }",
    );
    match apply(&text, &with(&[("contact_name", Value::Text("M\"A"))])) {
        Applied::Upsert { document, references, .. } => {
            let json = String::from_utf8_lossy(document.json());
            assert_eq!(json, r#"{"owner":{"external_id":"c-M\"A"},"deep":{"other":{"external_id":"ALFKI"}}}"#);
            assert_eq!(references.len(), 2);
            assert_eq!((&*references[0].entity, references[0].missing), ("contact", Missing::Reject));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(document(&text, ALFKI), r#"{"owner":null,"deep":{"other":{"external_id":"ALFKI"}}}"#);
    assert_eq!(mapping(&text).rules[0].references.len(), 2);
}

#[test]
fn a_failing_row_is_rejected_with_the_place_and_without_the_value() {
    let text = pack_text("", "name = \"c.company_name\"\nn = \"1 + cast(c.country as integer)\"");
    match apply(&text, &with(&[("country", Value::Text("s3cret"))])) {
        Applied::Rejected(rejection) => {
            assert_eq!(rejection.external_id.as_deref(), Some("ALFKI"));
            assert_eq!((rejection.field.as_deref(), rejection.code), (Some("n"), "cast_failed"));
            assert_eq!(rejection.message, "the text is not an integer (t.toml:11:10: cast(c.country as integer))");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lookup_that_rejects_names_its_place() {
    let lookup = "[lookup.country]\nvalues = { Germany = \"DE\" }\n";
    let text = format!("{}{lookup}", pack_text("", "cc = \"lookup('country', c.country)\""));
    match apply(&text, &with(&[("country", Value::Text("Atlantis"))])) {
        Applied::Rejected(r) => {
            assert_eq!((r.field.as_deref(), r.code), (Some("cc"), "lookup_unknown"));
            assert!(!r.message.contains("Atlantis"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_external_id_is_no_record() {
    assert!(matches!(
        apply(&pack_text("", "a = \"1\""), &with(&[("customer_id", Value::Text(""))])),
        Applied::Rejected(Rejection { code: "null_external_id", .. })
    ));
}

#[test]
fn a_delete_needs_the_key_alone() {
    let text = pack_text(
        "where = \"c.active\"\non_delete = \"archive\"\n[record.account.archive]\nstatus = \"'gone'\"\nold = \"c.company_name\"",
        "name = \"c.company_name\"",
    );
    let mapping = mapping(&text);
    let rule = mapping.rules[0].bind(&customers()).expect("the same schema");
    let mut builder = RowBuilder::default();
    for n in 0..customers().columns.len() {
        builder.push(if n == 0 { Value::Text("ALFKI") } else { Value::Unchanged });
    }
    let key_only = builder.finish();
    assert_eq!(rule.external_id(&key_only), ExternalId::Known("ALFKI".into()));
    assert_eq!(rule.archive(&key_only).expect("no failure").json(), br#"{"status":"gone"}"#);
    assert!(mapping.rules[0].external_id_from_key);
    assert_eq!(mapping.rules[0].on_delete, Removal::Archive);
}

#[test]
fn an_external_id_outside_the_key_is_unknown_in_a_delete() {
    let text =
        pack_text("", "a = \"1\"").replace("external_id = \"c.customer_id\"", "external_id = \"c.company_name\"");
    let mapping = mapping(&text);
    assert!(!mapping.rules[0].external_id_from_key);
    let rule = mapping.rules[0].bind(&customers()).expect("the same schema");
    let id = rule.external_id(&row(&[("company_name", Value::Unchanged)]));
    assert_eq!(id, ExternalId::Unknown);
}

#[test]
fn a_rule_follows_its_columns_through_schema_changes() {
    let mapping = mapping(&pack_text("", "name = \"c.company_name\""));
    let rule = &mapping.rules[0];
    let mut moved = customers();
    moved.columns.reverse();
    let bound = rule.bind(&moved).expect("columns are found by name");
    let values: Vec<Value<'_>> =
        customers().columns.iter().map(|c| if &*c.name == "notes" { Value::Null } else { Value::Text("x") }).collect();
    let mut builder = RowBuilder::default();
    values.iter().rev().for_each(|v| builder.push(*v));
    assert!(matches!(bound.apply(&builder.finish()), Applied::Upsert { .. }));

    let mut renamed = customers();
    renamed.columns[1].name = "title".into();
    assert_eq!(
        rule.bind(&renamed).expect_err("gone").to_string(),
        "column `company_name` does not exist in public.customers"
    );
    let mut retyped = customers();
    retyped.columns[1].logical = LogicalType::Int;
    assert_eq!(&*rule.bind(&retyped).expect_err("changed").column, "company_name");
}

#[test]
fn only_used_columns_are_requested() {
    let text = format!(
        "{}[record.contact]\nfrom = \"Customers\"\nexternal_id = \"customer_id\"\n[record.contact.fields]\nfull_name = \"contact_name\"\n",
        pack_text("where = \"c.active\"\nkey = [\"customer_id\"]", "name = \"c.company_name\"")
    );
    let requests = mapping(&text).requests();
    assert_eq!(requests.len(), 1);
    let columns: Vec<&str> = requests[0].columns.iter().flatten().map(|c| &**c).collect();
    assert_eq!(columns, ["active", "customer_id", "company_name", "contact_name"]);
    assert_eq!(requests[0].key.as_deref(), Some(["customer_id".into()].as_slice()));
}

#[test]
fn the_fingerprint_changes_with_what_is_sent_and_with_nothing_else() {
    let of = |head: &str, fields: &str, more: &str| {
        mapping(&format!("{}{more}", pack_text(head, fields))).rules[0].fingerprint
    };
    let base = of("", "a = \"c.country\"", "");
    assert_eq!(base, of("", "a = \"c.country\"", "[lookup.unused]\nvalues = { a = \"b\" }\n"));
    assert_ne!(base, of("", "a = \"c.notes\"", ""));
    assert_ne!(base, of("where = \"c.active\"", "a = \"c.country\"", ""));
    let lookup =
        |to: &str| of("", "a = \"lookup('l', c.country)\"", &format!("[lookup.l]\nvalues = {{ a = \"{to}\" }}\n"));
    assert_ne!(lookup("b"), lookup("c"));
}

#[test]
fn the_crm_decides_how_decimals_are_written() {
    let (mapping, _) = compiled(
        &pack_text("", "name = \"c.company_name\"\ncredit = \"c.credit_limit\"\nanything = \"c.credit_limit\""),
        Some(&crm()),
        None,
    )
    .unwrap_or_else(|e| panic!("{e}"));
    match mapping.rules[0].bind(&customers()).expect("the same schema").apply(&row(ALFKI)) {
        Applied::Upsert { document, .. } => {
            assert_eq!(document.json(), br#"{"name":" Alfreds ","credit":50000.00,"anything":"50000.00"}"#);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_zone_of_the_tenant_makes_instants_of_timestamps() {
    let text = pack_text("", "created_at = \"c.created_at\"\nday = \"cast(c.seen_at as date)\"");
    let (mapping, _) = compiled(&text, None, Some("Europe/Berlin")).unwrap_or_else(|e| panic!("{e}"));
    let row = row(&with(&[("seen_at", Value::TimestampTz("2024-07-01T23:00:00Z"))]));
    match mapping.rules[0].bind(&customers()).expect("the same schema").apply(&row) {
        Applied::Upsert { document, .. } => {
            assert_eq!(document.json(), br#"{"created_at":"2024-07-01T10:00:00Z","day":"2024-07-02"}"#);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tenant_changes_variables_and_fields() {
    let pack = pack_text("", "name = \"c.company_name\"\nregion = \"$region\"")
        .replace("version = \"1\"", "version = \"1\"\nvars = { region = { type = \"text\" } }");
    let tenant = "tenant = \"acme\"\n[mapping]\npack = \"t\"\n[mapping.vars]\nregion = \"us\"\n[mapping.override.account.fields]\nname = \"upper(c.company_name)\"\nindustry = \"'wholesale'\"\n";
    let overlay = Overlay { path: "acme.toml".into(), text: tenant.into(), secrets: Default::default() };
    let pack = Pack::parse("t.toml", &pack, None, Some(&overlay)).unwrap_or_else(|d| panic!("{d}"));
    let (mapping, _) = compile(&pack, &[Arc::new(customers())], "public", None, &CompileOptions::default())
        .unwrap_or_else(|d| panic!("{d}"));
    match mapping.rules[0].bind(&customers()).expect("the same schema").apply(&row(ALFKI)) {
        Applied::Upsert { document, .. } => {
            assert_eq!(document.json(), br#"{"name":" ALFREDS ","region":"us","industry":"wholesale"}"#);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tenant_s_secret_keys_its_hashes_and_shows_nowhere() {
    let text = pack_text("", "name = \"hmac_sha256(c.customer_id, $key)\"")
        .replace("version = \"1\"", "version = \"1\"\nvars = { key = { type = \"secret\" } }");
    let made = |secret: &str| {
        let overlay = Overlay {
            path: "acme.toml".into(),
            text: "[mapping.vars]\nkey = { env = \"HASH_KEY\" }\n".into(),
            secrets: [("key".to_owned(), crate::config::Secret::new(secret))].into(),
        };
        let pack = Pack::parse("t.toml", &text, None, Some(&overlay)).unwrap_or_else(|d| panic!("{d}"));
        let (mapping, _) = compile(&pack, &[Arc::new(customers())], "public", None, &CompileOptions::default())
            .unwrap_or_else(|d| panic!("{d}"));
        let rule = mapping.rules[0].clone();
        assert!(!format!("{pack:?}{mapping:?}{overlay:?}").contains(secret));
        match rule.bind(&customers()).expect("the same schema").apply(&row(ALFKI)) {
            Applied::Upsert { document, .. } => (rule.fingerprint, document.json().to_vec()),
            other => panic!("{other:?}"),
        }
    };
    let (a, b) = (made("correct horse"), made("battery staple"));
    assert!(a.0 != b.0 && a.1 != b.1, "another key is another mapping");
    assert_eq!(a, made("correct horse"));
}
