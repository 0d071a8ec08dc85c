//! Rows of every type: the snapshot and the tail must give the same values (R11), and the right ones.

use crate::lab::{Lab, events, show, snapshot, table};
use tidemark_contract::{ChangeOp, Connector, LogicalType, Row, SourceMessage, Value};

/// Column definition, then SQL expressions and the values they must become.
type Case = (&'static str, LogicalType, &'static [(&'static str, &'static str)]);

const TYPES: &str = "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
    CREATE SCHEMA odd;
    CREATE TYPE odd.\"Mood!\" AS ENUM ('sad', 'so, so', 'it''s \"good\"');
    CREATE TYPE pair AS (n int, \"a text\" text);
    CREATE TYPE nest AS (p pair, many pair[], at timestamptz, raw bytea);
    CREATE DOMAIN short AS varchar(5);
    CREATE DOMAIN positive AS numeric CHECK (value > 0);
    CREATE DOMAIN moods AS odd.\"Mood!\"[];
    CREATE TYPE span AS RANGE (subtype = float8);";

const CASES: &[Case] = &[
    ("bool", LogicalType::Bool, &[("true", "true"), ("false", "false")]),
    ("int2", LogicalType::Int, &[("-32768", "-32768"), ("32767", "32767")]),
    ("int4", LogicalType::Int, &[("-2147483648", "-2147483648")]),
    (
        "int8",
        LogicalType::Int,
        &[("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")],
    ),
    ("oid", LogicalType::Int, &[("4294967295", "4294967295")]),
    ("xid", LogicalType::Int, &[("'4294967295'", "4294967295")]),
    ("xid8", LogicalType::Int, &[("'18446744073709551615'", "18446744073709551615")]),
    (
        "float4",
        LogicalType::Float,
        &[
            ("0.1", "0.1"),
            ("'NaN'", "NaN"),
            ("'-Infinity'", "-inf"),
            ("3.4028235e38", "3.4028235e38"),
            ("1e-45", "1e-45"),
        ],
    ),
    (
        "float8",
        LogicalType::Float,
        &[
            ("0.1", "0.1"),
            ("'Infinity'", "inf"),
            ("'-0'", "-0.0"),
            ("2.2250738585072014e-308", "2.2250738585072014e-308"),
        ],
    ),
    (
        "numeric",
        LogicalType::Decimal,
        &[
            ("'NaN'", "NaN"),
            ("'Infinity'", "Infinity"),
            ("'-Infinity'", "-Infinity"),
            ("1.50", "1.50"),
            ("-0.00", "0.00"),
            ("1e30", "1000000000000000000000000000000"),
            ("1e-20", "0.00000000000000000001"),
        ],
    ),
    ("numeric(12,4)", LogicalType::Decimal, &[("-1.5", "-1.5000")]),
    ("positive", LogicalType::Decimal, &[("7", "7")]),
    (
        "text",
        LogicalType::Text,
        &[
            ("''", ""),
            ("E'tab\\tnl\\ncr\\rbs\\\\b\\bf\\fv\\x0b'", "tab\tnl\ncr\rbs\\b\u{8}f\u{c}v\u{b}"),
            ("'\\N'", "\\N"),
            ("'ünïcödé 😀 \u{200f}'", "ünïcödé 😀 \u{200f}"),
            ("repeat('x', 20)", "xxxxxxxxxxxxxxxxxxxx"),
        ],
    ),
    ("varchar(10)", LogicalType::Text, &[("'a  '", "a  ")]),
    ("char(5)", LogicalType::Text, &[("'ab'", "ab   "), ("''", "     ")]),
    ("\"char\"", LogicalType::Text, &[("'x'", "x")]),
    ("name", LogicalType::Text, &[("'n'", "n")]),
    ("short", LogicalType::Text, &[("'abc'", "abc")]),
    ("citext", LogicalType::Text, &[("'AbC'", "AbC")]),
    ("ltree", LogicalType::Text, &[("'a.b.c'", "a.b.c")]),
    ("xml", LogicalType::Text, &[("'<a b=\"c\">d</a>'", "<a b=\"c\">d</a>")]),
    ("money", LogicalType::Text, &[("'-1234.5'", "-$1,234.50")]),
    ("bytea", LogicalType::Bytes, &[("''", "[]"), ("'\\x00ff5c0a'", "[0, 255, 92, 10]")]),
    (
        "date",
        LogicalType::Date,
        &[
            ("'2024-02-29'", "2024-02-29"),
            ("'0044-03-15 BC'", "-0043-03-15"),
            ("'0001-01-01 BC'", "0000-01-01"),
            ("'4713-01-01 BC'", "-4712-01-01"),
            ("'5874897-12-31'", "5874897-12-31"),
            ("'infinity'", "infinity"),
            ("'-infinity'", "-infinity"),
        ],
    ),
    (
        "time",
        LogicalType::Time,
        &[("'24:00:00'", "24:00:00"), ("'00:00:00.000001'", "00:00:00.000001"), ("'12:30:00.100'", "12:30:00.1")],
    ),
    ("time(0)", LogicalType::Time, &[("'23:59:59.9'", "24:00:00")]),
    (
        "timetz",
        LogicalType::Time,
        &[
            ("'04:05:06-08'", "04:05:06-08:00"),
            ("'04:05:06.7+05:30'", "04:05:06.7+05:30"),
            ("'04:05:06+15:59:59'", "04:05:06+15:59:59"),
            ("'24:00:00+00'", "24:00:00+00:00"),
        ],
    ),
    (
        "timestamp",
        LogicalType::Timestamp,
        &[
            ("'2024-01-02 03:04:05.6'", "2024-01-02T03:04:05.6"),
            ("'4713-01-01 00:00:00 BC'", "-4712-01-01T00:00:00"),
            ("'294276-12-31 23:59:59.999999'", "294276-12-31T23:59:59.999999"),
            ("'infinity'", "infinity"),
            ("'-infinity'", "-infinity"),
        ],
    ),
    (
        "timestamptz",
        LogicalType::TimestampTz,
        &[
            ("'2024-07-01 12:00:00+02'", "2024-07-01T10:00:00Z"),
            ("'0044-03-15 12:00:00+00 BC'", "-0043-03-15T12:00:00Z"),
            ("'1883-11-18 12:00:00 America/New_York'", "1883-11-18T17:00:00Z"),
            ("'infinity'", "infinity"),
        ],
    ),
    ("interval", LogicalType::Text, &[("'1 year 2 mons -3 days 04:05:06.7'", "P1Y2M-3DT4H5M6.7S"), ("'0'", "PT0S")]),
    ("uuid", LogicalType::Uuid, &[("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")]),
    ("json", LogicalType::Json, &[("'{\"b\": 1, \"a\" : [1e2, null]}'", "{\"b\": 1, \"a\" : [1e2, null]}")]),
    (
        "jsonb",
        LogicalType::Json,
        &[("'{\"b\": 1.50, \"a\": \"\\u00fc\\n\"}'", "{\"a\": \"ü\\n\", \"b\": 1.50}"), ("'null'", "null")],
    ),
    (
        "hstore",
        LogicalType::Json,
        &[("'a=>1, \"b \\\"c\\\"\"=>NULL'", "{\"a\":\"1\",\"b \\\"c\\\"\":null}"), ("''", "{}")],
    ),
    ("odd.\"Mood!\"", LogicalType::Text, &[("'so, so'", "so, so"), ("'it''s \"good\"'", "it's \"good\"")]),
    (
        "pair",
        LogicalType::Json,
        &[
            ("(1, 'x \"y\", (z)')", "{\"n\":1,\"a text\":\"x \\\"y\\\", (z)\"}"),
            ("(NULL, '')", "{\"n\":null,\"a text\":\"\"}"),
            ("(NULL, NULL)", "{\"n\":null,\"a text\":null}"),
        ],
    ),
    (
        "nest",
        LogicalType::Json,
        &[(
            "((1, 'a\\b'), ARRAY[(2, 'c'), NULL]::pair[], '2024-01-01 00:00:00+00', '\\x00ff')",
            "{\"p\":{\"n\":1,\"a text\":\"a\\\\b\"},\"many\":[{\"n\":2,\"a text\":\"c\"},null],\"at\":\"2024-01-01T00:00:00Z\",\"raw\":\"AP8=\"}",
        )],
    ),
    (
        "int4[]",
        LogicalType::List,
        &[
            ("'{}'", "[]"),
            ("'{1,NULL,3}'", "[1,null,3]"),
            ("'[0:1]={7,8}'", "[7,8]"),
            ("'{{1,2},{3,4}}'", "[[1,2],[3,4]]"),
            ("'[2:2][-1:0]={{1,2}}'", "[[1,2]]"),
        ],
    ),
    ("int8[]", LogicalType::List, &[("'{9007199254740993}'", "[\"9007199254740993\"]")]),
    (
        "text[]",
        LogicalType::List,
        &[(
            "ARRAY['a,b', 'NULL', '', NULL, 'q\"\\', E'\\n', '{}']",
            "[\"a,b\",\"NULL\",\"\",null,\"q\\\"\\\\\",\"\\n\",\"{}\"]",
        )],
    ),
    ("numeric[]", LogicalType::List, &[("'{1.10,NaN}'", "[\"1.10\",\"NaN\"]")]),
    ("float8[]", LogicalType::List, &[("'{1e300,0.1,NaN}'", "[1e+300,0.1,\"NaN\"]")]),
    ("bool[]", LogicalType::List, &[("'{t,f}'", "[true,false]")]),
    ("jsonb[]", LogicalType::List, &[("ARRAY['{\"a\": 1}'::jsonb]", "[{\"a\": 1}]")]),
    (
        "timestamptz[]",
        LogicalType::List,
        &[("'{\"2024-01-01 00:00:00+00\",infinity}'", "[\"2024-01-01T00:00:00Z\",\"infinity\"]")],
    ),
    (
        "uuid[]",
        LogicalType::List,
        &[("'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'", "[\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"]")],
    ),
    ("box[]", LogicalType::List, &[("'{(1,1),(0,0);(3,3),(2,2)}'", "[\"(1,1),(0,0)\",\"(3,3),(2,2)\"]")]),
    ("moods", LogicalType::List, &[("'{sad,\"so, so\"}'", "[\"sad\",\"so, so\"]")]),
    ("int4range", LogicalType::Text, &[("'[1,5]'", "[1,6)"), ("'empty'", "empty")]),
    ("tstzrange", LogicalType::Text, &[("'[2024-01-01 00:00:00+01,)'", "[\"2023-12-31 23:00:00+00\",)")]),
    ("int4multirange", LogicalType::Text, &[("'{[1,3),[5,7)}'", "{[1,3),[5,7)}")]),
    ("span", LogicalType::Text, &[("'[0.5,1)'", "[0.5,1)")]),
    ("inet", LogicalType::Text, &[("'192.168.0.1/24'", "192.168.0.1/24"), ("'::1'", "::1")]),
    ("cidr", LogicalType::Text, &[("'10.0.0.0/8'", "10.0.0.0/8")]),
    ("macaddr", LogicalType::Text, &[("'08:00:2B:01:02:03'", "08:00:2b:01:02:03")]),
    ("bit(3)", LogicalType::Text, &[("B'101'", "101")]),
    ("varbit", LogicalType::Text, &[("B''", ""), ("B'0110'", "0110")]),
    ("point", LogicalType::Text, &[("'(1.5,-2)'", "(1.5,-2)")]),
    ("tsvector", LogicalType::Text, &[("'a b:1'", "'a' 'b':1")]),
    ("int2vector", LogicalType::Text, &[("'1 2'", "1 2")]),
    ("pg_lsn", LogicalType::Text, &[("'16/B374D848'", "16/B374D848")]),
    ("regclass", LogicalType::Text, &[("'pg_catalog.pg_class'", "pg_class")]),
];

/// One row for each value of each case (all other columns null), and one row of nulls.
fn insert_all() -> String {
    let mut sql = String::from("INSERT INTO corpus (id) VALUES (0);");
    let mut id = 1;
    for (at, (native, _, values)) in CASES.iter().enumerate() {
        for (expression, _) in *values {
            sql += &format!("INSERT INTO corpus (id, c{at}) VALUES ({id}, ({expression})::{native});");
            id += 1;
        }
    }
    sql
}

fn check(rows: &[Row], path: &str) {
    let mut rows = rows.iter();
    let nulls = rows.next().unwrap();
    assert!(nulls.iter().skip(1).all(|v| v.is_null()), "{path}: nulls stay null");
    for (at, (native, _, values)) in CASES.iter().enumerate() {
        for (expression, wanted) in *values {
            let row = rows.next().unwrap();
            let value = row.get(at + 1);
            assert_eq!(show(value), *wanted, "{path}: {native} {expression}");
        }
    }
    assert!(rows.next().is_none());
}

#[tokio::test]
async fn every_type_is_the_same_from_both_sides() {
    let columns: Vec<String> = CASES.iter().enumerate().map(|(at, (native, ..))| format!("c{at} {native}")).collect();
    // Settings of the database and of a session must not show through.
    let lab = Lab::new(&format!(
        "{TYPES} ALTER DATABASE shop SET DateStyle = 'SQL, DMY'; ALTER DATABASE shop SET TimeZone = 'Asia/Kolkata';
         ALTER DATABASE shop SET IntervalStyle = 'postgres'; ALTER DATABASE shop SET extra_float_digits = 0;
         ALTER DATABASE shop SET bytea_output = 'escape'; ALTER ROLE postgres SET client_encoding = 'LATIN1';
         CREATE TABLE corpus (id int PRIMARY KEY, {})",
        columns.join(", ")
    ));
    let connector = lab.connector();
    let request = table("corpus");
    let schema = connector.discover(std::slice::from_ref(&request)).await.unwrap().remove(0);
    for (column, (native, logical, _)) in schema.columns.iter().skip(1).zip(CASES) {
        assert_eq!(column.logical, *logical, "{native}");
    }
    let labels: Vec<_> = schema.columns.iter().filter(|c| !c.labels.is_empty()).map(|c| c.labels.len()).collect();
    assert_eq!(labels, [3]);

    let mut stream = connector.open_stream(std::slice::from_ref(&request), None).await.unwrap();
    lab.cluster
        .psql_in("shop", &format!("SET DateStyle = ISO; SET client_encoding = 'UTF8'; {}", insert_all()))
        .unwrap();
    let messages = lab.drain(&connector, &mut stream).await;
    let tail: Vec<Row> = events(&messages).into_iter().map(|e| e.row).collect();
    check(&tail, "tail");
    let pages = snapshot(&connector, &request, 7).await;
    check(&pages, "snapshot");
    assert!(tail == pages, "not only the same text: the same values");
    let announced: Vec<_> =
        messages.iter().filter_map(|m| if let SourceMessage::Schema(s) = m { Some(s) } else { None }).collect();
    assert_eq!(announced, [&schema], "the tail describes the table as discovery does");

    // Whole old rows, and updates that touch nothing, say the same once more.
    lab.sql("ALTER TABLE corpus REPLICA IDENTITY FULL; UPDATE corpus SET id = id WHERE id >= 0");
    let updates = events(&lab.drain(&connector, &mut stream).await);
    let mut after: Vec<Row> = updates.iter().map(|e| e.row.clone()).collect();
    let mut before: Vec<Row> = updates.iter().map(|e| e.old.clone().unwrap()).collect();
    for rows in [&mut after, &mut before] {
        rows.sort_by_key(|row| if let Value::Int(id) = row.get(0) { id } else { -1 });
    }
    check(&after, "update");
    check(&before, "old row");
    assert!(updates.iter().all(|e| e.op == ChangeOp::Update));
}

#[tokio::test]
async fn numbers_of_hundreds_of_digits_survive() {
    let lab = Lab::new("CREATE TABLE n (id int PRIMARY KEY, x numeric)");
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("n")], None).await.unwrap();
    lab.sql("INSERT INTO n VALUES (1, (repeat('9', 900) || '.' || repeat('7', 500))::numeric)");
    let tail = events(&lab.drain(&connector, &mut stream).await).remove(0).row;
    let wanted = format!("{}.{}", "9".repeat(900), "7".repeat(500));
    assert_eq!(tail.get(1), Value::Decimal(&wanted));
    assert!(snapshot(&connector, &table("n"), 10).await == [tail]);
}

#[tokio::test]
async fn text_that_is_no_utf8_passes_as_bytes_from_both_sides() {
    let lab = Lab::new("SELECT 1");
    lab.cluster.psql("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'").unwrap();
    lab.cluster.psql_in("ascii", "CREATE TABLE a (id int PRIMARY KEY, x text)").unwrap();
    let mut config = lab.config.clone();
    config.database = "ascii".into();
    let connector = tidemark_postgres::Postgres::new(config);
    let mut stream = connector.open_stream(&[table("a")], None).await.unwrap();
    lab.cluster.psql_in("ascii", "INSERT INTO a VALUES (1, E'caf\\xe9'), (2, 'plain')").unwrap();
    let messages = lab.drain(&connector, &mut stream).await;
    let tail: Vec<Row> = events(&messages).into_iter().map(|e| e.row).collect();
    assert_eq!(tail[0].get(1), Value::Bytes(b"caf\xe9"));
    assert_eq!(tail[1].get(1), Value::Text("plain"));
    assert!(snapshot(&connector, &table("a"), 10).await == tail);
    let findings = connector.preflight(&[table("a")]).await.unwrap();
    assert!(findings.iter().any(|f| f.id == "source.encoding"));
}
