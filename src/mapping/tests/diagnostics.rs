//! What people see when a pack is wrong. The texts stand in `diagnostics.txt`, to be read as people would read them.

use super::*;
use std::fmt::Write as _;

/// A tenant file's part of a case.
const TENANT: &str = "tenant = \"acme\"\n[mapping.vars]\n";

struct Case {
    title: &'static str,
    text: String,
    crm: bool,
    overlay: Option<&'static str>,
}

fn case(title: &'static str, fields: &str) -> Case {
    Case { title, text: pack_text("", fields), crm: false, overlay: None }
}

fn crm_case(title: &'static str, fields: &str) -> Case {
    Case { crm: true, ..case(title, fields) }
}

fn head_case(title: &'static str, head: &str) -> Case {
    Case { title, text: pack_text(head, "name = \"c.company_name\""), crm: false, overlay: None }
}

fn replaced(title: &'static str, from: &str, to: &str) -> Case {
    let text = pack_text("", "name = \"c.company_name\"");
    assert!(text.contains(from), "{title}");
    Case { title, text: text.replace(from, to), crm: false, overlay: None }
}

fn with_lookup(title: &'static str, lookup: &str, fields: &str) -> Case {
    Case { title, text: format!("{}{lookup}", pack_text("", fields)), crm: true, overlay: None }
}

fn cases() -> Vec<Case> {
    let vars = "version = \"1\"\nvars = { region = { type = \"text\" }, limit = { type = \"integer\", default = 5 } }";
    let name = "name = \"c.company_name\"";
    vec![
        // The file.
        Case { title: "not TOML", text: "tidemark = 1\n[pack\n".into(), crm: false, overlay: None },
        replaced("another format", "tidemark = 1", "tidemark = 2"),
        replaced("no format", "tidemark = 1\n", ""),
        replaced("a key with a slip", "external_id = ", "external_ld = "),
        replaced("an unknown table", "[pack]", "[packs]\nx = 1\n[pack]"),
        replaced("a from clause with two tables", "customers as c", "customers as c, orders as o"),
        replaced("a table that does not exist", "customers as c", "custmers as c"),
        replaced("a schema that does not exist", "customers as c", "sales.customers as c"),
        head_case("a policy that is none", "on_delete = \"remove\""),
        head_case("archive without fields", "on_delete = \"archive\""),
        head_case("a join", "[record.account.join.sh]\nfrom = \"shippers as s\"\non = \"s.id = c.ship_via\""),
        case("a field that is no expression", "name = 5"),
        case("a field that is an odd table", "name = { x = \"1\" }"),
        case(
            "several mistakes at once",
            "a = \"c.compny_name\"\nb = \"trim(c.orders)\"\nc = \"lenght(c.country) + c.nope\"",
        ),
        // Expressions.
        case("an empty expression", "name = \" \""),
        case("an unfinished expression", "name = \"trim(c.company_name\""),
        case("text after the expression", "name = \"c.company_name c.country\""),
        case("a text that is not closed", "name = \"'abc\""),
        case(
            "an unknown column in a text with escapes",
            "name = \"\"\"\n  case when c.country = 'D'\n       then \\\"compny_name\\\" end\"\"\"",
        ),
        case("an unknown alias", "name = \"x.company_name\""),
        case("an unknown function", "name = \"trimm(c.company_name)\""),
        case("a function of another system", "name = \"isnull(c.country, 'DE')\""),
        case("too many arguments", "name = \"lower(c.country, 1)\""),
        case("an argument of another type", "name = \"upper(c.created_at)\""),
        case("a float where decimals are needed", "name = \"round(c.rating, 2)\""),
        case("a condition that is none", "name = \"case when c.orders then 'x' end\""),
        case("branches of different types", "name = \"case when c.active then c.country else c.orders end\""),
        case("a literal that is no date", "name = \"c.born_on > 'soon'\""),
        case("text beside a number", "name = \"c.country + 1\""),
        case("two numbers joined", "name = \"c.orders || c.credit_limit\""),
        case("an aggregate", "name = \"sum(items.amount)\""),
        case("a subquery", "name = \"(select 1)\""),
        case("the current time", "name = \"now()\""),
        case("a conversion that makes no sense", "name = \"cast(c.active as date)\""),
        case("an unknown type", "name = \"c.country::money\""),
        case("a zone is needed", "name = \"cast(c.seen_at as date)\""),
        case("an unknown zone", "name = \"c.created_at at time zone 'Europe/Berlim'\""),
        case("an unknown part of a date", "name = \"extract(yaer from c.created_at)\""),
        case("an unknown pattern of to_char", "name = \"to_char(c.created_at, 'YYYY foo')\""),
        case("a bad regular expression", "name = \"regexp_replace(c.country, '(', '')\""),
        case("an unknown lookup", "name = \"lookup('contry', c.country)\""),
        case("an unknown variable", "name = \"$region\""),
        case("a JSON path that is none", "name = \"c.extra ->> c.country\"\nb = \"c.extra #> 'a'\""),
        case("a JSON path into a text", "name = \"c.notes -> 'a'\""),
        case("a bad pattern", "name = \"c.country ~ c.notes\"\nb = \"c.orders ~ '7'\"\nc = \"c.country ~ '*'\""),
        crm_case("a telephone number into a required field", "name = \"phone_e164(c.company_name, 'DE')\""),
        case("a key that is no secret", "name = \"hmac_sha256(c.country, 'abc')\""),
        replaced(
            "a secret in the pack, and shown",
            "version = \"1\"",
            "version = \"1\"\nvars = { key = { type = \"secret\", default = \"abc\" } }",
        ),
        // The external id.
        replaced("an external id that can be null", "c.customer_id", "c.country"),
        replaced("an external id that is always the same", "c.customer_id", "'x'"),
        replaced("an external id outside the key", "c.customer_id", "c.company_name"),
        replaced("an external id that is a float", "c.customer_id", "coalesce(c.rating, 0)"),
        head_case(
            "an archive that deletes cannot fill",
            "on_delete = \"archive\"\n[record.account.archive]\nname = \"c.company_name\"",
        ),
        head_case("a key that does not exist", "key = [\"customer_idd\"]"),
        // The CRM.
        replaced("no fields", "[record.account.fields]\nname = \"c.company_name\"", ""),
        Case { crm: true, ..replaced("an unknown entity", "external_id", "entity = \"acount\"\nexternal_id") },
        crm_case("an unknown field", &format!("{name}\nbiling = \"c.country\"\ntir = \"'gold'\"")),
        crm_case("a required field that is not mapped", "tier = \"'gold'\""),
        crm_case("null into a required field", "name = \"nullif(trim(c.company_name), '')\""),
        crm_case("null into a required field, by a column", "name = \"upper(trim(c.contact_name))\""),
        Case {
            title: "null into a required field, by way of a let",
            text: pack_text("[record.account.let]\nn = \"trim(c.contact_name)\"\nm = \"upper(n)\"", "name = \"m\""),
            crm: true,
            overlay: None,
        },
        crm_case("null into a field that does not list it", &format!("{name}\nnickname = \"c.contact_name\"")),
        crm_case("text into a number", &format!("{name}\ncredit = \"c.credit_limit || ' EUR'\"")),
        crm_case("a number into text", &format!("{name}\ncode = \"c.orders\"")),
        crm_case("a decimal into a whole number", &format!("{name}\norders = \"c.credit_limit\"")),
        crm_case("an integer into a boolean", &format!("{name}\nactive = \"c.orders\"")),
        crm_case(
            "a value that is no option",
            &format!("{name}\ntier = \"case when c.active then 'platinum' else 'silver' end\""),
        ),
        with_lookup(
            "a lookup's value that is no option",
            "[lookup.tiers]\nvalues = { a = \"gold\", b = \"sliver\" }\nunknown = { value = \"none\" }\n",
            &format!("{name}\ntier = \"lookup('tiers', c.country)\""),
        ),
        crm_case("a text that may be too long", &format!("{name}\ncode = \"c.company_name\"")),
        crm_case("a read-only field", &format!("{name}\nscore = \"1\"")),
        crm_case("a timestamp into a date", &format!("{name}\nborn_on = \"c.created_at\"")),
        crm_case("a timestamp without zone", &format!("{name}\ncreated_at = \"c.created_at\"")),
        crm_case("an expression into a reference", &format!("{name}\nowner = \"c.customer_id\"")),
        crm_case(
            "a reference to another entity",
            &format!("{name}\nowner = {{ ref = \"account\", external_id = \"c.customer_id\" }}"),
        ),
        crm_case(
            "a reference that is none in the CRM",
            &format!("{name}\ntier = {{ ref = \"contact\", external_id = \"c.customer_id\" }}"),
        ),
        crm_case(
            "a reference to nothing",
            &format!("{name}\nowner = {{ ref = \"contct\", external_id = \"c.customer_id\" }}"),
        ),
        crm_case("an object's field", &format!("{name}\naddress = {{ object = {{ stret = \"c.country\" }} }}")),
        // The tenant.
        Case {
            overlay: Some("region = 5\nlimt = 3\n"),
            ..replaced("variables of the tenant", "version = \"1\"", vars)
        },
        replaced("a variable without value", "version = \"1\"", vars),
        Case {
            overlay: Some("key = \"abc\"\n"),
            ..replaced(
                "a secret in the tenant's file",
                "version = \"1\"",
                "version = \"1\"\nvars = { key = { type = \"secret\" } }",
            )
        },
        Case {
            overlay: Some("\n"),
            ..replaced(
                "a secret that is missing",
                "version = \"1\"",
                "version = \"1\"\nvars = { key = { type = \"secret\" } }",
            )
        },
        Case {
            text: pack_text("", "name = \"$key\"")
                .replace("version = \"1\"", "version = \"1\"\nvars = { key = { type = \"secret\" } }"),
            ..case("a secret that would be sent", name)
        },
        Case {
            overlay: Some(
                "[mapping.override.account.fields]\nname = \"c.compny_name\"\n[mapping.override.acount.fields]\nx = \"1\"\n",
            ),
            ..case("overrides of the tenant", name)
        },
        // Tests of the pack.
        Case {
            text: format!("{}[[test]]\nrecord = \"acount\"\noutside = true\n", pack_text("", name)),
            ..case("a test of nothing", name)
        },
        Case {
            text: format!("{}[[test]]\nrecord = \"account\"\nrow = {{ customer_id = \"1\" }}\n", pack_text("", name)),
            ..case("a test that says nothing", name)
        },
    ]
}

fn outcome(case: &Case) -> String {
    let overlay = case.overlay.map(|text| Overlay {
        path: "acme.toml".into(),
        text: format!("{TENANT}{text}"),
        secrets: Default::default(),
    });
    let pack = match Pack::parse("mapping.toml", &case.text, None, overlay.as_ref()) {
        Ok(pack) => pack,
        Err(diagnostics) => return diagnostics.to_string(),
    };
    let crm = case.crm.then(crm);
    match compile(&pack, &[Arc::new(customers())], "public", crm.as_ref(), &CompileOptions::default()) {
        Ok((_, warnings)) => warnings.to_string(),
        Err(diagnostics) => diagnostics.to_string(),
    }
}

#[test]
fn diagnostics_read_well() {
    let mut actual = String::new();
    for case in cases() {
        let _ = writeln!(actual, "===== {}\n{}\n", case.title, outcome(&case));
    }
    let expected = include_str!("diagnostics.txt");
    assert!(actual == expected, "diagnostics.txt should be:\n{actual}");
}

#[test]
fn a_pack_s_failing_tests_say_what_came_out() {
    let text = format!(
        "{}[[test]]\nrecord = \"account\"\nrow = {{ customer_id = \"1\", company_name = \"Acme\" }}\nexpect = {{ name = \"ACME\", nme = \"x\" }}\n",
        pack_text("", "name = \"c.company_name\"")
    );
    let pack = Pack::parse("mapping.toml", &text, None, None).unwrap_or_else(|d| panic!("{d}"));
    let report = run_pack_tests(&pack, &CompileOptions::default()).unwrap_or_else(|d| panic!("{d}"));
    assert_eq!((report.total, report.failed), (1, 1));
    let text = report.diagnostics.to_string();
    assert!(text.contains("`account.name` is \"Acme\"") && text.contains("expected \"ACME\""), "{text}");
    assert!(text.contains("record `account` has no field `nme`"), "{text}");
}
