//! Every type of PostgreSQL with its odd values, and a table for each kind of key.

use tidemark_conformance::{Corpus, ExpectedCell};
use tidemark_contract::{TableId, TableRequest};

/// A type: the column's name, its SQL type, SQL literals, and for some of them the form they must have.
pub type Type = (&'static str, &'static str, &'static [(&'static str, Option<&'static str>)]);

const fn any(literal: &'static str) -> (&'static str, Option<&'static str>) {
    (literal, None)
}

const fn is(literal: &'static str, shown: &'static str) -> (&'static str, Option<&'static str>) {
    (literal, Some(shown))
}

#[rustfmt::skip]
pub const TYPES: &[Type] = &[
    ("c_bool", "boolean", &[is("true", "boolean true"), is("false", "boolean false")]),
    ("c_int2", "smallint", &[is("-32768", "integer -32768"), any("32767")]),
    ("c_int4", "integer", &[is("-2147483648", "integer -2147483648"), any("0")]),
    ("c_int8", "bigint", &[is("9223372036854775807", "integer 9223372036854775807"), any("-9223372036854775808")]),
    ("c_oid", "oid", &[any("4294967295"), any("0")]),
    ("c_real", "real", &[is("1.1", "real 1.1"), any("'NaN'"), any("'Infinity'"), any("'-Infinity'"), any("'-0'"), any("1e-45"), any("3.4028235e38")]),
    ("c_double", "double precision", &[is("0.1", "double 0.1"), any("'NaN'"), any("'Infinity'"), any("'-Infinity'"), any("'-0'"), any("5e-324"), any("1.7976931348623157e308"), any("123456789012345680")]),
    ("c_numeric", "numeric", &[is("'NaN'", "decimal NaN"), is("'Infinity'", "decimal Infinity"), is("'-Infinity'", "decimal -Infinity"), is("0.000", "decimal 0.000"), is("-12.50", "decimal -12.50"), any("1e-200"), any("1e300"), any("(repeat('9', 300) || '.' || repeat('7', 300))::numeric")]),
    ("c_numeric_scaled", "numeric(12,2)", &[is("1.5", "decimal 1.50"), any("-0.01"), any("9999999999.99")]),
    ("c_money", "money", &[any("'12.34'"), any("'-92233720368547758.08'"), any("'0'")]),
    ("c_text", "text", &[is("''", "text "), is("' both ends '", "text  both ends "), any("E'line\\nfeed\\ttab\\\\back\\rreturn\\bx'"), any("'\\N'"), any("'NULL'"), any("'ünïcödé 漢字 🦀 \u{200d}'"), any("'{\"a\":1}'"), any("'it''s \"quoted\"'"), any("repeat('long ', 4000)"), any("E'\\u0001\\u001f'")]),
    ("c_large", "text", &[any("(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 2000) i)"), any("'small'")]),
    ("c_varchar", "varchar(20)", &[any("'twenty characters ok'"), any("''")]),
    ("c_bpchar", "char(6)", &[any("'ab'"), any("'abcdef'"), any("''")]),
    ("c_char", "\"char\"", &[any("'x'"), any("''")]),
    ("c_name", "name", &[any("'a name'"), any("''")]),
    ("c_citext", "citext", &[any("'MiXed'"), any("''")]),
    ("c_bytea", "bytea", &[is("''", "bytes "), is("'\\x00ff10'", "bytes AP8Q"), any("'\\x5c78'"), any("decode(repeat('00ff5c78', 3000), 'hex')")]),
    ("c_date", "date", &[is("'2024-02-29'", "date 2024-02-29"), is("'infinity'", "date infinity"), is("'-infinity'", "date -infinity"), is("'0044-03-15 BC'", "date -0043-03-15"), is("'0001-01-01'", "date 0001-01-01"), any("'5874897-12-31'"), any("'4713-01-01 BC'")]),
    ("c_time", "time", &[is("'24:00:00'", "time 24:00:00"), is("'12:34:56.50'", "time 12:34:56.5"), is("'00:00'", "time 00:00:00"), any("'23:59:59.999999'")]),
    ("c_timetz", "timetz", &[is("'12:00:00+05:30'", "time 12:00:00+05:30"), any("'24:00:00-15:59'"), any("'01:02:03.5+00'"), any("'10:00:00-00:00:01'")]),
    ("c_timestamp", "timestamp", &[is("'2024-01-01 00:00:00'", "timestamp 2024-01-01T00:00:00"), is("'2024-01-01 00:00:00.120'", "timestamp 2024-01-01T00:00:00.12"), is("'infinity'", "timestamp infinity"), is("'-infinity'", "timestamp -infinity"), is("'0044-03-15 10:00:00 BC'", "timestamp -0043-03-15T10:00:00"), any("'294276-12-31 23:59:59.999999'"), any("'4713-01-01 00:00:00 BC'"), any("'0001-01-01 00:00:00'")]),
    ("c_timestamptz", "timestamptz", &[is("'2024-06-01 12:00:00+02'", "timestamp with time zone 2024-06-01T10:00:00Z"), is("'infinity'", "timestamp with time zone infinity"), is("'-infinity'", "timestamp with time zone -infinity"), is("'1999-12-31 23:59:59.000001-05'", "timestamp with time zone 2000-01-01T04:59:59.000001Z"), any("'294276-12-31 23:59:59.999999+00'"), any("'4713-01-01 00:00:00+00 BC'"), any("'0001-01-01 00:00:00+00'"), any("'1883-11-18 12:00:00 America/New_York'")]),
    ("c_interval", "interval", &[any("'1 year 2 mons 3 days 04:05:06.789'"), any("'-1 day'"), any("'0'"), any("'-178000000 years'"), any("'1 mon -1 day +23:59:59.999999'")]),
    ("c_uuid", "uuid", &[is("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "uuid a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), any("'00000000-0000-0000-0000-000000000000'")]),
    ("c_json", "json", &[is("'{\"a\": 1,  \"b\":[1, 2]}'", "json {\"a\": 1,  \"b\":[1, 2]}"), any("'null'"), any("'\"text\"'"), any("'1e400'"), any("'{\"a\":1,\"a\":2}'")]),
    ("c_jsonb", "jsonb", &[any("'{\"b\": [1, {\"c\": null}], \"a\": \"\\u00fc\"}'"), any("'null'"), any("'123456789012345678901234567890.123'"), any("'[]'"), any("'\"line\\nfeed\"'")]),
    ("c_xml", "xml", &[any("'<a b=\"1\">t&amp;</a>'"), any("''")]),
    ("c_inet", "inet", &[any("'192.168.0.1/24'"), any("'::1'"), any("'10.0.0.1'")]),
    ("c_cidr", "cidr", &[any("'10.0.0.0/8'"), any("'2001:db8::/32'")]),
    ("c_macaddr", "macaddr", &[any("'08:00:2B:01:02:03'")]),
    ("c_macaddr8", "macaddr8", &[any("'08:00:2b:01:02:03:04:05'")]),
    ("c_bit", "bit(5)", &[any("B'10101'")]),
    ("c_varbit", "varbit", &[any("B''"), any("B'1'"), any("B'0000000011111111'")]),
    ("c_point", "point", &[any("'(1.5,-2)'"), any("'(NaN,Infinity)'")]),
    ("c_line", "line", &[any("'{1,2,3}'")]),
    ("c_lseg", "lseg", &[any("'[(0,0),(1,1)]'")]),
    ("c_box", "box", &[any("'(2,2),(0,0)'")]),
    ("c_path", "path", &[any("'[(0,0),(1,1),(2,0)]'"), any("'((0,0),(1,1))'")]),
    ("c_polygon", "polygon", &[any("'((0,0),(1,1),(2,0))'")]),
    ("c_circle", "circle", &[any("'<(0,0),5>'")]),
    ("c_tsvector", "tsvector", &[any("'a:1 fat:2,4 cat:3'")]),
    ("c_tsquery", "tsquery", &[any("'fat & !rat'")]),
    ("c_pg_lsn", "pg_lsn", &[any("'16/B374D848'")]),
    ("c_snapshot", "pg_snapshot", &[any("'10:20:10,14,15'")]),
    ("c_xid8", "xid8", &[any("'18446744073709551615'")]),
    ("c_regtype", "regtype", &[any("'integer'")]),
    ("c_int4range", "int4range", &[any("'[1,10)'"), any("'empty'"), any("'(,5]'")]),
    ("c_int8range", "int8range", &[any("'[9223372036854775806,)'")]),
    ("c_numrange", "numrange", &[any("'(1.50,2.75]'"), any("'(,)'")]),
    ("c_daterange", "daterange", &[any("'[2024-01-01,2024-02-01)'"), any("'[-infinity,infinity]'")]),
    ("c_tsrange", "tsrange", &[any("'[2024-01-01 00:00:00,2024-01-01 12:30:00.5)'")]),
    ("c_tstzrange", "tstzrange", &[any("'[2024-01-01 00:00:00+02,)'")]),
    ("c_multirange", "int4multirange", &[any("'{[1,3), [5,9)}'"), any("'{}'")]),
    ("c_int_array", "int[]", &[is("'{1,2,3}'", "list [1,2,3]"), any("'{}'"), any("'{NULL,1}'"), any("'{{1,2},{3,4}}'"), any("'[0:1]={7,8}'")]),
    ("c_text_array", "text[]", &[is("ARRAY['a', NULL, 'null', '']", "list [\"a\",null,\"null\",\"\"]"), any("ARRAY['with \"quotes\"', 'comma, brace }', 'back\\slash', ' space ', E'line\\nfeed']"), any("'{}'"), any("ARRAY[['a','b'],['c','d']]")]),
    ("c_numeric_array", "numeric[]", &[any("'{1.50,NaN,-Infinity}'")]),
    ("c_bool_array", "bool[]", &[is("'{t,f,NULL}'", "list [true,false,null]")]),
    ("c_date_array", "date[]", &[any("'{2024-01-01,infinity,0044-03-15 BC}'")]),
    ("c_timestamptz_array", "timestamptz[]", &[any("'{2024-06-01 12:00:00+02,infinity}'")]),
    ("c_uuid_array", "uuid[]", &[any("'{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}'")]),
    ("c_bytea_array", "bytea[]", &[any("ARRAY['\\x00ff'::bytea, ''::bytea, NULL]")]),
    ("c_jsonb_array", "jsonb[]", &[any("ARRAY['{\"a\": [1, 2]}'::jsonb, 'null'::jsonb, NULL]")]),
    ("c_interval_array", "interval[]", &[any("ARRAY['1 day'::interval, '-04:00:00'::interval]")]),
    ("c_range_array", "int4range[]", &[any("ARRAY['[1,5)'::int4range, 'empty'::int4range]")]),
    ("c_enum", "mood", &[is("'sad'", "text sad"), any("'o k, \"then\"'"), any("'ünhappy'")]),
    ("c_enum_array", "mood[]", &[any("ARRAY['sad', 'o k, \"then\"']::mood[]")]),
    ("c_domain_text", "short_text", &[any("'short'"), any("''")]),
    ("c_domain_int", "positive", &[is("7", "integer 7")]),
    ("c_domain_domain", "tiny_positive", &[is("8", "integer 8")]),
    ("c_domain_array", "positive[]", &[any("'{1,2}'")]),
    ("c_composite", "address", &[any("ROW('street, \"1\"', 12, ROW(1.50, '2024-01-01'))::address"), any("ROW(NULL, NULL, NULL)::address"), any("ROW('', 0, ROW(NULL, NULL))::address")]),
    ("c_composite_array", "address[]", &[any("ARRAY[ROW('a (b) \\\\ c', 1, NULL)::address, NULL]")]),
    ("c_hstore", "hstore", &[any("'a=>1, \"b c\"=>NULL, \"q\\\"\"=>\"x,y\"'"), any("''")]),
];

const KEYS: &[(&str, &str, &[&str])] = &[
    ("k_bigint", "bigint", &["-9223372036854775808", "-1", "0", "9223372036854775807"]),
    (
        "k_text_default",
        "text",
        &[
            "''", "'a'", "'A'", "'b'", "'B'", "'é'", "'e'", "'ss'", "'ß'", "'a b'", "'ab'", "'a-b'", "'漢'",
            "E'x\\ny'", "'\"q\"'",
        ],
    ),
    ("k_text_c", "text COLLATE \"C\"", &["''", "'a'", "'A'", "'b'", "'é'", "'z'", "'漢'"]),
    ("k_text_icu", "text COLLATE \"en-x-icu\"", &["'a'", "'A'", "'b'", "'B'", "'é'", "'e'", "'z'", "'-a'", "'a-'"]),
    ("k_citext", "citext", &["'Anna'", "'bert'", "'CARL'"]),
    ("k_bpchar", "char(5)", &["'ab'", "'abc'", "'ABCDE'", "'a'"]),
    (
        "k_uuid",
        "uuid",
        &[
            "'00000000-0000-0000-0000-000000000001'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            "'80000000-0000-0000-0000-000000000000'",
        ],
    ),
    ("k_numeric", "numeric", &["-1.5", "0", "0.001", "100", "'NaN'", "'Infinity'"]),
    ("k_double", "double precision", &["'-Infinity'", "-0.5", "0.1", "1e300", "'NaN'"]),
    ("k_date", "date", &["'0044-03-15 BC'", "'2024-01-01'", "'infinity'"]),
    ("k_timestamptz", "timestamptz", &["'2024-01-01 00:00:00.000001+00'", "'2024-01-01 00:00:00+00'", "'-infinity'"]),
    ("k_bytea", "bytea", &["''", "'\\x00'", "'\\x00ff'", "'\\xff'", "'\\x5c'"]),
    ("k_bool", "boolean", &["false", "true"]),
    ("k_enum", "mood", &["'ünhappy'", "'sad'", "'o k, \"then\"'"]),
    ("k_inet", "inet", &["'10.0.0.1'", "'10.0.0.0/8'", "'::1'"]),
    ("k_domain", "positive", &["1", "2", "30"]),
];

/// The types that [`TYPES`] needs.
pub const MAKE_TYPES: &str = "CREATE TYPE mood AS ENUM ('ünhappy', 'sad', 'o k, \"then\"');
    CREATE DOMAIN short_text AS text CHECK (length(value) < 10);
    CREATE DOMAIN positive AS int CHECK (value > 0);
    CREATE DOMAIN tiny_positive AS positive CHECK (value < 10);
    CREATE TYPE amount AS (value numeric(10,2), due date);
    CREATE TYPE address AS (street text, number int, amount amount)";

/// Statements that make types and tables.
pub fn create() -> Vec<String> {
    let mut all = vec![
        "DROP TYPE IF EXISTS mood, address, amount CASCADE; DROP DOMAIN IF EXISTS short_text, positive CASCADE;"
            .to_owned(),
        MAKE_TYPES.to_owned(),
    ];
    let columns: Vec<String> = TYPES.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    all.push(format!(
        "CREATE TABLE every_type (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0, {})",
        columns.join(", ")
    ));
    for (name, kind, _) in KEYS {
        all.push(format!("CREATE TABLE {name} (id {kind} PRIMARY KEY, touched int NOT NULL DEFAULT 0, note text)"));
    }
    all.push(
        "CREATE TABLE k_composite (a int, b text, c uuid, touched int NOT NULL DEFAULT 0, PRIMARY KEY (b, a, c))"
            .into(),
    );
    all.push("CREATE TABLE k_declared (touched int NOT NULL DEFAULT 0, code text NOT NULL UNIQUE, note text)".into());
    all.push("ALTER TABLE k_declared REPLICA IDENTITY FULL".into());
    all.push(
        "CREATE TABLE \"Odd \"\"Name\"\", really\" (\"Id\" int PRIMARY KEY, touched int NOT NULL DEFAULT 0,
         \"select\" text, \"a.b\" text, \"ünï\" text)"
            .into(),
    );
    all.push(
        "CREATE TABLE k_parted (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0, note text) PARTITION BY RANGE (id)"
            .into(),
    );
    all.push("CREATE TABLE k_parted_low PARTITION OF k_parted FOR VALUES FROM (MINVALUE) TO (10)".into());
    all.push("CREATE TABLE k_parted_high PARTITION OF k_parted FOR VALUES FROM (10) TO (MAXVALUE)".into());
    all.push("CREATE TABLE k_full (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0, large text)".into());
    all.push("ALTER TABLE k_full REPLICA IDENTITY FULL; ALTER TABLE k_full ALTER large SET STORAGE EXTERNAL".into());
    all.push(
        "DO $$ DECLARE name text; BEGIN FOR name IN SELECT c.oid::regclass::text FROM pg_class c
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
         LOOP EXECUTE 'ALTER TABLE ' || name || ' OWNER TO vendor'; END LOOP; END $$"
            .into(),
    );
    all
}

fn corpus(label: &str, table: &str, key: Option<&[&str]>) -> Corpus {
    Corpus {
        label: label.into(),
        request: TableRequest {
            table: TableId::new("public", table),
            columns: None,
            key: key.map(|key| key.iter().map(|c| (*c).into()).collect()),
        },
        counter: Some("touched".into()),
        expected: Vec::new(),
    }
}

/// The tables for R11.
pub fn corpora() -> Vec<Corpus> {
    let mut types = corpus("every_type", "every_type", None);
    for (column, _, literals) in TYPES {
        for (at, (_, shown)) in literals.iter().enumerate() {
            if let Some(shown) = shown {
                let (key, column, shown) = (format!("integer {}", at + 1), (*column).into(), (*shown).into());
                types.expected.push(ExpectedCell { key, column, shown });
            }
        }
    }
    let mut all = vec![types];
    all.extend(KEYS.iter().map(|(name, ..)| corpus(name, name, None)));
    all.push(corpus("k_composite", "k_composite", None));
    all.push(corpus("k_declared", "k_declared", Some(&["code"])));
    all.push(corpus("k_odd_names", "Odd \"Name\", really", None));
    all.push(corpus("k_parted", "k_parted", None));
    all.push(corpus("k_full", "k_full", None));
    all
}

/// Statements that fill a table of [`corpora`].
pub fn load(label: &str) -> Vec<String> {
    if let Some((name, _, literals)) = KEYS.iter().find(|(name, ..)| *name == label) {
        let rows: Vec<String> = literals.iter().map(|key| format!("({key}, 0, 'note')")).collect();
        return vec![format!("INSERT INTO {name} VALUES {}", rows.join(", "))];
    }
    let rows = |sql: &str| vec![sql.to_owned()];
    match label {
        "every_type" => every_type(),
        "k_composite" => rows(
            "INSERT INTO k_composite SELECT a, b, ('00000000-0000-0000-0000-00000000000' || c)::uuid, 0
             FROM generate_series(1, 3) a, unnest(ARRAY['', 'x', 'X', 'y z']) b, generate_series(1, 2) c",
        ),
        "k_declared" => rows("INSERT INTO k_declared SELECT 0, 'code ' || n, 'note' FROM generate_series(1, 12) n"),
        "k_odd_names" => rows(
            "INSERT INTO \"Odd \"\"Name\"\", really\" SELECT n, 0, 'select ' || n, NULL, 'ü' FROM generate_series(1, 9) n",
        ),
        "k_parted" => rows("INSERT INTO k_parted SELECT n, 0, 'note ' || n FROM generate_series(1, 20) n"),
        "k_full" => rows("INSERT INTO k_full SELECT n, 0, repeat(md5(n::text), 500) FROM generate_series(1, 5) n"),
        _ => Vec::new(),
    }
}

/// Row 0 is all null; row n holds each type's n-th value, or its last one.
fn every_type() -> Vec<String> {
    let most = TYPES.iter().map(|(.., literals)| literals.len()).max().unwrap_or(0);
    let names: Vec<&str> = TYPES.iter().map(|(name, ..)| *name).collect();
    let mut rows = vec!["INSERT INTO every_type (id) VALUES (0)".to_owned()];
    for at in 0..most {
        let values: Vec<&str> = TYPES.iter().map(|(.., literals)| literals[at.min(literals.len() - 1)].0).collect();
        let (names, values) = (names.join(", "), values.join(", "));
        rows.push(format!("INSERT INTO every_type (id, {names}) VALUES ({}, {values})", at + 1));
    }
    rows
}

/// A table's name for SQL.
pub fn quoted(table: &TableId) -> String {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    format!("{}.{}", quote(&table.schema), quote(&table.name))
}
