//! What holds for any expression and any row.

use super::expressions::value;
use super::*;
use proptest::prelude::*;
use proptest::sample::select;

const TYPES: &[&str] = &[
    "text",
    "varchar(2)",
    "integer",
    "smallint",
    "bigint",
    "numeric",
    "numeric(3,1)",
    "real",
    "float8",
    "boolean",
    "date",
    "time",
    "timestamp",
    "timestamp(1)",
    "timestamptz",
    "uuid",
    "json",
];

const CALLS: &[&str] = &[
    "trim",
    "ltrim",
    "lower",
    "initcap",
    "reverse",
    "length",
    "abs",
    "round",
    "ceil",
    "floor",
    "trunc",
    "sign",
    "sha256",
    "concat",
    "coalesce",
    "greatest",
    "lpad",
    "left",
    "right",
    "split_part",
    "substring",
    "replace",
    "repeat",
    "nullif",
    "strpos",
    "translate",
    "concat_ws",
    "rpad",
    "starts_with",
    "mod",
    "age_in_days",
    "age_in_years",
    "uuid_v5",
    "phone_e164",
    "email_address",
    "country_code",
];

const LITERALS: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "2.50",
    "9223372036854775807",
    "1e300",
    "''",
    "'a'",
    "'2024-02-29'",
    "'NaN'",
    "' 7 '",
    "date '-infinity'",
    "timestamp '0044-03-15 BC'",
    "time '24:00'",
    "'\u{1F600}%_'",
];

const OPERATORS: &[&str] = &["+", "-", "*", "/", "%", "||", "=", "<", ">=", "and", "or", "like", "is distinct from"];

/// Expressions of any type, right and wrong ones.
fn expression() -> impl Strategy<Value = String> {
    let names: Vec<String> = customers().columns.iter().map(|c| c.name.to_string()).collect();
    let leaf = prop_oneof![4 => select(names), 1 => select(LITERALS).prop_map(str::to_owned)];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let three = (inner.clone(), inner.clone(), inner.clone());
        prop_oneof![
            (select(CALLS), proptest::collection::vec(inner.clone(), 1..4))
                .prop_map(|(f, args)| format!("{f}({})", args.join(", "))),
            (inner.clone(), select(TYPES)).prop_map(|(x, t)| format!("cast({x} as {t})")),
            (inner.clone(), select(OPERATORS), inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            inner.clone().prop_map(|x| format!("(- {x})")),
            inner.clone().prop_map(|x| format!("(not ({x} is null))")),
            three.clone().prop_map(|(a, b, c)| format!("case when {a} then {b} else {c} end")),
            three.clone().prop_map(|(a, b, c)| format!("case {a} when {b} then {c} end")),
            three.prop_map(|(a, b, c)| format!("({a} between {b} and {c})")),
            (inner.clone(), select(vec!["year", "week", "second", "epoch", "century", "doy"]))
                .prop_map(|(x, part)| format!("extract({part} from {x})")),
            (select(vec!["week", "century", "milliseconds"]), inner.clone())
                .prop_map(|(unit, x)| format!("date_trunc('{unit}', {x})")),
            inner.clone().prop_map(|x| format!("({x} at time zone 'Asia/Kolkata')")),
            inner.clone().prop_map(|x| format!("to_char({x}, 'FMDay IYYY-IW Month YY AM US')")),
            inner.prop_map(|x| format!("regexp_replace({x}, '(.)b*', '\\1\\1', 'g')")),
        ]
    })
}

/// A value of a column's type, often an extreme one.
fn cell(logical: LogicalType) -> BoxedStrategy<String> {
    let pick = |values: &'static [&'static str]| select(values).prop_map(str::to_owned).boxed();
    match logical {
        LogicalType::Int => pick(&["0", "-1", "7", "9223372036854775807", "-9223372036854775808"]),
        LogicalType::Float => pick(&["0", "-0.0", "1e-320", "1.7e308", "NaN", "inf", "-inf", "2.5"]),
        LogicalType::Decimal => pick(&[
            "0",
            "0.00",
            "-12.50",
            "NaN",
            "Infinity",
            "-Infinity",
            "99999999999999999999.99",
            "0.000000000000000000001",
        ]),
        LogicalType::Bool => pick(&["true", "false"]),
        LogicalType::Date => {
            pick(&["1970-01-01", "-4712-01-01", "5874897-12-31", "infinity", "-infinity", "2024-02-29"])
        }
        LogicalType::Timestamp => {
            pick(&["2024-03-31T02:30:00", "294276-12-31T23:59:59.999999", "-4712-01-01T00:00:00", "infinity"])
        }
        LogicalType::TimestampTz => pick(&["2024-07-01T00:00:00.5Z", "-4712-01-01T00:00:00Z", "-infinity"]),
        LogicalType::Uuid => pick(&["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
        LogicalType::Json => pick(&["{}", "[1,\"a\"]", "not json"]),
        _ => prop_oneof![pick(&["", " ", "1", "a b", "yes", "2024-02-29", "%", "\u{0}"]), "\\PC{0,6}"].boxed(),
    }
}

fn any_row() -> impl Strategy<Value = Row> {
    let cells: Vec<_> = customers()
        .columns
        .iter()
        .map(|c| {
            let logical = c.logical;
            proptest::option::weighted(0.8, cell(logical)).prop_map(move |text| (logical, text))
        })
        .collect();
    (cells, any::<u8>()).prop_map(|(cells, seed)| {
        let mut builder = RowBuilder::default();
        for (n, (logical, text)) in cells.iter().enumerate() {
            let Some(s) = text else {
                // Null, or not carried by the log.
                let left_out = n > 0 && usize::from(seed) % 5 == n % 5;
                builder.push(if left_out { Value::Unchanged } else { Value::Null });
                continue;
            };
            builder.push(match logical {
                LogicalType::Int => Value::Int(s.parse().expect("an integer")),
                LogicalType::Float => Value::Float(s.parse().expect("a float")),
                LogicalType::Decimal => Value::Decimal(s),
                LogicalType::Bool => Value::Bool(s == "true"),
                LogicalType::Date => Value::Date(s),
                LogicalType::Timestamp => Value::Timestamp(s),
                LogicalType::TimestampTz => Value::TimestampTz(s),
                LogicalType::Uuid => Value::Uuid(s),
                LogicalType::Json => Value::Json(s),
                _ => Value::Text(s),
            });
        }
        builder.finish()
    })
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(4000))]

    /// Whatever compiles gives JSON or a rejection for every row: never a panic, and never the type error that the
    /// checker is there to prevent.
    #[test]
    fn what_compiles_can_be_evaluated(expression in expression(), rows in proptest::collection::vec(any_row(), 4)) {
        let text = pack_text("", &format!("x = '''{expression}'''"));
        let Ok((mapping, _)) = compiled(&text, None, Some("Europe/Berlin")) else { return Ok(()) };
        let rule = mapping.rules[0].bind(&customers()).expect("the same schema");
        for row in rows {
            match rule.apply(&row) {
                Applied::Upsert { document, .. } => {
                    let json = serde_json::from_slice::<serde::de::IgnoredAny>(document.json());
                    prop_assert!(json.is_ok(), "{}: {:?}", expression, String::from_utf8_lossy(document.json()));
                }
                Applied::Rejected(rejection) => prop_assert_ne!(rejection.code, "bug", "{}", expression),
                Applied::NeedsRow | Applied::Outside { .. } => {}
            }
        }
    }

    /// No text makes the parser or the checker panic.
    #[test]
    fn any_text_compiles_or_is_refused(expression in "[-a-z0-9'\"()., *+|:$<>=%]{0,40}|\\PC{0,20}") {
        // A JSON text is a TOML text too.
        let quoted = serde_json::to_string(&expression).expect("a text");
        let _ = compiled(&pack_text("", &format!("x = {quoted}")), None, None);
    }

    /// Nor does any text in place of a pack.
    #[test]
    fn any_pack_is_read_or_refused(noise in "[-a-z0-9'\"(){}\\[\\]., =\n]{0,60}", at in 0_usize..200) {
        let mut text = pack_text("", "x = \"c.country\"");
        text.insert_str(at.min(text.len()), &noise);
        let _ = compiled(&text, None, None);
    }
}

#[test]
fn long_chains_and_deep_nesting_do_not_exhaust_the_stack() {
    let chain = |op: &str, part: &str, n: usize| vec![part; n].join(op);
    for expression in [chain(" || ", "'a'", 900), chain(" and ", "active", 900), chain(" or ", "active", 900)] {
        assert_ne!(value(&expression, &[("active", Value::Bool(true))]), "");
    }
    for expression in [
        format!("{}1{}", "(".repeat(500), ")".repeat(500)),
        chain(" + ", "1", 1100),
        "case when true then ".repeat(300),
        chain(" - ", "orders", 900),
    ] {
        let text = pack_text("", &format!("x = '''{expression}'''"));
        let refused = compiled(&text, None, None).expect_err("too deep");
        assert!(refused.contains("error["), "{refused}");
    }
}
