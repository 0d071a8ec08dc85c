//! Every type of MariaDB and MySQL with its odd values, and a table for each kind of key.

use tidemark_conformance::{Corpus, ExpectedCell};
use tidemark_contract::{TableId, TableRequest};
use tidemark_throwaway::MysqlFlavour;

/// Database of the tests.
pub const DATABASE: &str = "shop";

/// A type: the column's name, its SQL type, SQL literals, and for some of them the form they must have.
pub type Type = (&'static str, &'static str, &'static [(&'static str, Option<&'static str>)]);

const fn any(literal: &'static str) -> (&'static str, Option<&'static str>) {
    (literal, None)
}

const fn is(literal: &'static str, shown: &'static str) -> (&'static str, Option<&'static str>) {
    (literal, Some(shown))
}

#[rustfmt::skip]
const BOTH: &[Type] = &[
    ("c_tiny", "tinyint", &[is("-128", "integer -128"), is("127", "integer 127")]),
    ("c_utiny", "tinyint unsigned", &[is("255", "integer 255"), is("128", "integer 128")]),
    ("c_small", "smallint", &[is("-32768", "integer -32768"), is("32767", "integer 32767")]),
    ("c_usmall", "smallint unsigned", &[is("65535", "integer 65535"), is("32768", "integer 32768")]),
    ("c_medium", "mediumint", &[is("-8388608", "integer -8388608"), is("8388607", "integer 8388607"), is("-1", "integer -1")]),
    ("c_umedium", "mediumint unsigned", &[is("16777215", "integer 16777215"), is("8388608", "integer 8388608")]),
    ("c_int", "int", &[is("-2147483648", "integer -2147483648"), any("2147483647")]),
    ("c_uint", "int unsigned", &[is("4294967295", "integer 4294967295"), is("2147483648", "integer 2147483648")]),
    ("c_zerofill", "int(8) unsigned zerofill", &[is("42", "integer 42")]),
    ("c_big", "bigint", &[is("-9223372036854775808", "integer -9223372036854775808"), any("9223372036854775807")]),
    ("c_ubig", "bigint unsigned", &[is("18446744073709551615", "integer 18446744073709551615"), is("9223372036854775808", "integer 9223372036854775808"), is("7", "integer 7")]),
    ("c_bool", "boolean", &[any("true"), any("false"), any("2")]),
    ("c_bit1", "bit(1)", &[any("b'1'"), any("b'0'")]),
    ("c_bit7", "bit(7)", &[any("b'1010101'"), any("b'0'")]),
    ("c_bit64", "bit(64)", &[any("0xffffffffffffffff"), any("b'1'"), any("0x8000000000000000")]),
    ("c_decimal", "decimal(65,30)", &[is("'12345678901234567890123456789012345.123456789012345678901234567890'", "decimal 12345678901234567890123456789012345.123456789012345678901234567890"), is("'-0.000000000000000000000000000001'", "decimal -0.000000000000000000000000000001"), is("0", "decimal 0.000000000000000000000000000000"), any("'-99999999999999999999999999999999999.999999999999999999999999999999'")]),
    ("c_money", "decimal(12,2)", &[is("1.5", "decimal 1.50"), is("-0.01", "decimal -0.01"), is("9999999999.99", "decimal 9999999999.99"), is("-12.50", "decimal -12.50")]),
    ("c_whole", "decimal(20,0)", &[is("-12345678901234567890", "decimal -12345678901234567890"), is("0", "decimal 0")]),
    ("c_udecimal", "decimal(9,9) unsigned", &[is("0.123456789", "decimal 0.123456789"), any("0.000000001")]),
    ("c_float", "float", &[is("1.1", "real 1.1"), is("16777217", "real 16777216"), any("3.4028234e38"), any("1.17549435e-38"), any("-0.1"), any("123456.789"), any("0.3333333333")]),
    ("c_double", "double", &[is("0.1", "double 0.1"), any("1.7976931348623157e308"), any("2.2250738585072014e-308"), any("123456789012345680"), any("-0e0"), any("3.141592653589793")]),
    ("c_float_places", "float(7,3)", &[any("1234.567"), any("0.1")]),
    ("c_double_places", "double(12,4)", &[any("12345678.1234"), any("0.1")]),
    ("c_char", "char(6)", &[is("'ab'", "text ab"), is("'abcdef'", "text abcdef"), is("''", "text "), any("'ü🦀'")]),
    ("c_varchar", "varchar(40)", &[is("''", "text "), is("' both ends '", "text  both ends "), is("'it''s'", "text it's"), any("'ünïcödé 漢字 🦀'"), any("concat('line', char(10), 'tab', char(9), 'nul', char(0), 'back', char(92))")]),
    ("c_long_varchar", "varchar(300)", &[any("repeat('x', 300)"), is("'short'", "text short")]),
    ("c_binary_collation", "varchar(20) collate utf8mb4_bin", &[is("'MiXed'", "text MiXed")]),
    ("c_utf8mb3", "varchar(20) character set utf8mb3", &[is("'Ünï 漢'", "text Ünï 漢")]),
    ("c_latin1", "varchar(20) character set latin1", &[is("'ünïcödé'", "text ünïcödé"), is("_latin1 0x80", "text €"), any("_latin1 0x818d8f909d"), any("_latin1 0x00ff7f")]),
    ("c_latin1_text", "text character set latin1", &[is("'Müßiggang €'", "text Müßiggang €")]),
    ("c_latin2", "varchar(20) character set latin2", &[is("'łódź'", "text łódź")]),
    ("c_cp1250", "varchar(20) character set cp1250", &[is("'žluťoučký'", "text žluťoučký")]),
    ("c_cp1251", "varchar(20) character set cp1251", &[is("'Привет'", "text Привет")]),
    ("c_koi8r", "varchar(20) character set koi8r", &[is("'Привет'", "text Привет")]),
    ("c_greek", "varchar(20) character set greek", &[is("'Ελλάδα'", "text Ελλάδα")]),
    ("c_hebrew", "varchar(20) character set hebrew", &[is("'שלום'", "text שלום")]),
    ("c_gbk", "varchar(20) character set gbk", &[is("'汉字 abc'", "text 汉字 abc")]),
    ("c_sjis", "varchar(20) character set sjis", &[is("'日本語 ｶﾅ'", "text 日本語 ｶﾅ")]),
    ("c_cp932", "varchar(20) character set cp932", &[is("'①日本語'", "text ①日本語")]),
    ("c_ujis", "varchar(20) character set ujis", &[is("'日本語'", "text 日本語")]),
    ("c_euckr", "varchar(20) character set euckr", &[is("'한국어'", "text 한국어")]),
    ("c_big5", "varchar(20) character set big5", &[is("'漢字'", "text 漢字")]),
    ("c_ucs2", "varchar(20) character set ucs2", &[is("'Ünï 漢'", "text Ünï 漢")]),
    ("c_utf16", "varchar(20) character set utf16", &[is("'Ünï 🦀'", "text Ünï 🦀")]),
    ("c_utf16le", "varchar(20) character set utf16le", &[is("'Ünï 🦀'", "text Ünï 🦀")]),
    ("c_utf32", "varchar(20) character set utf32", &[is("'Ünï 🦀'", "text Ünï 🦀")]),
    ("c_ascii", "varchar(20) character set ascii", &[is("'plain'", "text plain")]),
    ("c_tinytext", "tinytext", &[is("''", "text "), any("repeat('t', 255)")]),
    ("c_text", "text", &[is("'text'", "text text"), any("repeat('long ', 4000)")]),
    ("c_mediumtext", "mediumtext", &[any("repeat('0123456789abcdef', 5000)"), any("'small'")]),
    ("c_longtext", "longtext", &[any("repeat('0123456789abcdef', 20000)"), is("'small'", "text small")]),
    ("c_binary", "binary(8)", &[is("0x00ff100000000000", "bytes AP8QAAAAAAA="), is("'ab'", "bytes YWIAAAAAAAA="), is("0x0000000000000000", "bytes AAAAAAAAAAA="), any("0x2020202020202020")]),
    ("c_varbinary", "varbinary(20)", &[is("''", "bytes "), is("0x00ff10", "bytes AP8Q"), is("0x0000", "bytes AAA="), any("0x20")]),
    ("c_tinyblob", "tinyblob", &[is("0x00", "bytes AA=="), is("''", "bytes ")]),
    ("c_blob", "blob", &[is("0x5c78", "bytes XHg="), any("repeat(0x00ff5c78, 3000)")]),
    ("c_longblob", "longblob", &[any("repeat(0x00ff, 50000)"), is("''", "bytes ")]),
    ("c_date", "date", &[is("'2024-02-29'", "date 2024-02-29"), is("'1000-01-01'", "date 1000-01-01"), is("'9999-12-31'", "date 9999-12-31"), any("'0001-01-01'")]),
    ("c_time", "time", &[is("'12:34:56'", "time 12:34:56"), is("'00:00'", "time 00:00:00"), any("'838:59:59'"), any("'-838:59:59'"), any("'-00:00:01'"), any("'24:00:00'")]),
    ("c_time1", "time(1)", &[is("'12:34:56.7'", "time 12:34:56.7"), any("'-00:00:00.1'"), any("'-12:00:00.5'")]),
    ("c_time3", "time(3)", &[is("'12:34:56.120'", "time 12:34:56.12"), any("'-01:02:03.004'"), any("'-838:59:58.999'")]),
    ("c_time6", "time(6)", &[is("'12:34:56.500000'", "time 12:34:56.5"), any("'-00:00:00.000001'"), any("'-838:59:58.999999'"), any("'23:59:59.999999'")]),
    ("c_datetime", "datetime", &[is("'2024-01-01 00:00:00'", "timestamp 2024-01-01T00:00:00"), is("'9999-12-31 23:59:59'", "timestamp 9999-12-31T23:59:59"), is("'1000-01-01 00:00:00'", "timestamp 1000-01-01T00:00:00")]),
    ("c_datetime2", "datetime(2)", &[is("'2024-01-01 10:20:30.12'", "timestamp 2024-01-01T10:20:30.12"), is("'2024-01-01 10:20:30.10'", "timestamp 2024-01-01T10:20:30.1")]),
    ("c_datetime3", "datetime(3)", &[is("'2024-01-01 10:20:30.120'", "timestamp 2024-01-01T10:20:30.12")]),
    ("c_datetime6", "datetime(6)", &[is("'2024-01-01 00:00:00.000001'", "timestamp 2024-01-01T00:00:00.000001"), any("'9999-12-31 23:59:59.999999'")]),
    ("c_timestamp", "timestamp null", &[is("'2024-06-01 12:00:00'", "timestamp with time zone 2024-06-01T12:00:00Z"), is("'1970-01-01 00:00:01'", "timestamp with time zone 1970-01-01T00:00:01Z"), is("'2038-01-19 03:14:07'", "timestamp with time zone 2038-01-19T03:14:07Z")]),
    ("c_timestamp1", "timestamp(1) null", &[is("'2024-06-01 12:00:00.5'", "timestamp with time zone 2024-06-01T12:00:00.5Z")]),
    ("c_timestamp6", "timestamp(6) null", &[is("'1999-12-31 23:59:59.000001'", "timestamp with time zone 1999-12-31T23:59:59.000001Z"), is("'2024-06-01 12:00:00'", "timestamp with time zone 2024-06-01T12:00:00Z")]),
    ("c_year", "year", &[any("1901"), any("2155"), any("0"), any("2024")]),
    ("c_enum", "enum('small','o k, \"then\"','it''s','ünhappy','')", &[is("'small'", "text small"), is("'ünhappy'", "text ünhappy"), is("''", "text "), any("'it''s'"), any("'o k, \"then\"'")]),
    ("c_enum_latin1", "enum('ä','b') character set latin1", &[is("'ä'", "text ä")]),
    ("c_big_enum", "enum('e000','e001','e002','e003','e004','e005','e006','e007','e008','e009')", &[is("'e009'", "text e009")]),
    ("c_set", "set('a','b','c d','e\"f','ü')", &[is("'a,c d'", "list [\"a\",\"c d\"]"), is("''", "list []"), any("'e\"f,ü'"), any("'a,b,c d,e\"f,ü'")]),
    ("c_json", "json", &[any("'{\"a\": 1, \"b\": [1, 2, null, true], \"c\": {\"d\": \"x\"}}'"), any("'null'"), any("'\"text\"'"), any("'[]'"), any("'123456789012345678'"), any("'18446744073709551615'"), any("'-1.5'"), any("'{\"quote\\\\\"\": \"line\\\\nfeed \\\\u00fc 漢 🦀\"}'"), any("'1e100'"), any("'{}'"), any("'true'"), any("'0.1'")]),
    ("c_point", "point", &[any("ST_GeomFromText('POINT(1.5 -2)')")]),
    ("c_line", "linestring", &[any("ST_GeomFromText('LINESTRING(0 0,1 1,2 0)')")]),
    ("c_polygon", "polygon", &[any("ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 4,0 0),(1 1,2 1,2 2,1 2,1 1))')")]),
    ("c_multipoint", "multipoint", &[any("ST_GeomFromText('MULTIPOINT((1 2),(3 4))')")]),
    ("c_multiline", "multilinestring", &[any("ST_GeomFromText('MULTILINESTRING((0 0,1 1),(2 2,3 3))')")]),
    ("c_multipolygon", "multipolygon", &[any("ST_GeomFromText('MULTIPOLYGON(((0 0,1 0,1 1,0 0)),((5 5,6 5,6 6,5 5)))')")]),
    ("c_geometry", "geometry", &[any("ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')"), any("ST_GeomFromText('POINT(7 8)', 4326)")]),
];

#[rustfmt::skip]
const MARIADB: &[Type] = &[
    ("c_uuid", "uuid", &[is("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "uuid a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), is("'00000000-0000-0000-0000-000000000000'", "uuid 00000000-0000-0000-0000-000000000000"), is("'123e4567-e89b-12d3-a456-426614174000'", "uuid 123e4567-e89b-12d3-a456-426614174000")]),
    ("c_inet6", "inet6", &[is("'2001:db8::ff00:42:8329'", "text 2001:db8::ff00:42:8329"), is("'::'", "text ::"), any("'::ffff:192.0.2.1'"), any("'fe80::1'"), any("'::192.0.2.1'")]),
    ("c_inet4", "inet4", &[is("'192.0.2.1'", "text 192.0.2.1"), is("'0.0.0.0'", "text 0.0.0.0"), any("'255.255.255.255'")]),
    ("c_compressed", "text compressed", &[any("repeat('compress me ', 500)"), is("'short'", "text short"), is("''", "text ")]),
    ("c_compressed_blob", "varbinary(2000) compressed", &[any("repeat(0x0001, 500)"), is("''", "bytes ")]),
];

#[rustfmt::skip]
const MYSQL: &[Type] = &[
    ("c_json_typed", "json", &[any("json_object('d', cast('2024-02-29' as date), 't', cast('-12:34:56.5' as time(6)), 'dt', cast('2024-01-01 10:20:30.123456' as datetime(6)))"), any("json_array(cast(12.50 as decimal(10,2)), cast('123456789012345678901234567890.123456789' as decimal(60,9)), 1.5e0, 1e300)"), any("json_object('blob', cast(0x00ff10 as binary))"), any("json_array(cast(0 as signed), -1, 32767, 32768, -32769, 2147483648, -2147483649, cast(18446744073709551615 as unsigned))"), any("json_object('k', repeat('long ', 20000))")]),
    ("c_gb18030", "varchar(20) character set gb18030", &[is("'汉字 🦀'", "text 汉字 🦀")]),
    ("c_vector", "vector(3)", &[any("to_vector('[1,2.5,-3]')")]),
];

/// Key tables: label and name, the key's type, keys.
#[rustfmt::skip]
const KEYS: &[(&str, &str, &[&str])] = &[
    ("k_bigint", "bigint", &["-9223372036854775808", "-1", "0", "9223372036854775807"]),
    ("k_ubigint", "bigint unsigned", &["0", "1", "9223372036854775808", "18446744073709551615"]),
    ("k_medium", "mediumint", &["-8388608", "-1", "0", "8388607"]),
    ("k_text", "varchar(50)", &["''", "'a'", "'b'", "'é'", "'ss!'", "'a b'", "'ab'", "'a-b'", "'漢'", "'x\\ny'", "'\"q\"'", "'🦀'", "'Zeta'"]),
    ("k_text_bin", "varchar(50) collate utf8mb4_bin", &["''", "'a'", "'A'", "'b'", "'B'", "'é'", "'z'", "'漢'"]),
    ("k_latin1", "varchar(50) character set latin1", &["''", "'a'", "'b'", "'ü'", "'€'", "'z'"]),
    ("k_latin1_bin", "varchar(50) character set latin1 collate latin1_bin", &["'a'", "'A'", "'ü'", "'Ü'", "'€'"]),
    ("k_gbk", "varchar(50) character set gbk", &["'汉'", "'字'", "'a'"]),
    ("k_char", "char(5)", &["'ab'", "'abc'", "'ABCDE'", "'a'", "''"]),
    ("k_binary", "binary(4)", &["0x00000000", "0x00ff0000", "0x20202020", "0xff000000"]),
    ("k_varbinary", "varbinary(16)", &["''", "0x00", "0x0000", "0x00ff", "0xff", "0x5c", "0x27"]),
    ("k_decimal", "decimal(20,5)", &["-1.5", "0", "0.001", "100", "-99999.99999"]),
    ("k_double", "double", &["-0.5", "0.1", "1e300", "-1e-300", "123456789.125"]),
    ("k_float", "float", &["-0.5", "0.1", "1.1", "123456.789"]),
    ("k_date", "date", &["'1000-01-01'", "'2024-01-01'", "'9999-12-31'"]),
    ("k_datetime", "datetime(6)", &["'2024-01-01 00:00:00.000001'", "'2024-01-01 00:00:00'", "'1000-01-01 00:00:00'"]),
    ("k_timestamp", "timestamp(3)", &["'2024-01-01 00:00:00.001'", "'2024-01-01 00:00:00'", "'1970-01-01 00:00:01'"]),
    ("k_time", "time(2)", &["'-12:00:00.50'", "'00:00:00'", "'100:00:00.01'"]),
    ("k_year", "year", &["1901", "2024", "2155"]),
    ("k_bit", "bit(40)", &["b'0'", "b'1'", "0xffffffffff"]),
    ("k_bool", "boolean", &["false", "true"]),
    ("k_enum", "enum('zebra','ape','ünt')", &["'ape'", "'zebra'", "'ünt'"]),
    ("k_set", "set('z','a','m')", &["''", "'z'", "'a'", "'z,a'", "'m,a'"]),
];

#[rustfmt::skip]
const MARIADB_KEYS: &[(&str, &str, &[&str])] = &[
    ("k_uuid", "uuid", &["'00000000-0000-0000-0000-000000000001'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'80000000-0000-1000-8000-000000000000'", "'123e4567-e89b-12d3-a456-426614174000'"]),
    ("k_inet6", "inet6", &["'::'", "'::1'", "'2001:db8::1'", "'::ffff:10.0.0.1'"]),
    ("k_inet4", "inet4", &["'0.0.0.0'", "'10.0.0.1'", "'255.255.255.255'"]),
];

/// The types of a server. `c_set`, `c_json` and the like of the other one are left out.
fn types(flavour: MysqlFlavour) -> Vec<&'static Type> {
    let own = if flavour == MysqlFlavour::MariaDb { MARIADB } else { MYSQL };
    BOTH.iter().chain(own).collect()
}

fn keys(flavour: MysqlFlavour) -> Vec<&'static (&'static str, &'static str, &'static [&'static str])> {
    let own = if flavour == MysqlFlavour::MariaDb { MARIADB_KEYS } else { &[] };
    KEYS.iter().chain(own).collect()
}

/// A row has at most 64 KiB beside its blobs, and the widest types are many: the table comes in parts.
const COLUMNS_PER_TABLE: usize = 24;

/// The types of a server in parts that fit one table each.
pub fn parts(flavour: MysqlFlavour) -> Vec<Vec<&'static Type>> {
    types(flavour).chunks(COLUMNS_PER_TABLE).map(<[_]>::to_vec).collect()
}

/// Statements that make the tables, in a session without `sql_mode`.
pub fn create(flavour: MysqlFlavour) -> Vec<String> {
    let mut all = Vec::new();
    for (part, types) in parts(flavour).iter().enumerate() {
        let columns: Vec<String> = types.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
        all.push(format!(
            "CREATE TABLE every_type_{part} (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0, {})",
            columns.join(", ")
        ));
    }
    for (name, kind, _) in keys(flavour) {
        all.push(format!("CREATE TABLE {name} (id {kind} PRIMARY KEY, touched int NOT NULL DEFAULT 0, note text)"));
    }
    let rest = [
        "CREATE TABLE k_composite (a int, b varchar(40) COLLATE utf8mb4_bin, c date, touched int NOT NULL DEFAULT 0,
         PRIMARY KEY (b, a, c))",
        "CREATE TABLE k_declared (touched int NOT NULL DEFAULT 0, code varchar(40) NOT NULL UNIQUE, note text)",
        "CREATE TABLE `Odd ``Name``, really` (`Id` int PRIMARY KEY, touched int NOT NULL DEFAULT 0, `select` text,
         `a.b` text, `ünï` text)",
        "CREATE TABLE k_parted (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0, note text)
         PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN (10), PARTITION high VALUES LESS THAN MAXVALUE)",
        "CREATE TABLE k_generated (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0, price decimal(10,2),
         twice decimal(12,2) AS (price * 2) VIRTUAL, thrice decimal(12,2) AS (price * 3) STORED, note varchar(20))",
        "CREATE TABLE k_invisible (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0, hidden int INVISIBLE DEFAULT 5,
         note varchar(20))",
        "CREATE TABLE k_zero (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0, d date, dt datetime(3), ts timestamp NULL,
         dn date NOT NULL, dtn datetime NOT NULL, tsn timestamp NOT NULL DEFAULT '2024-01-01', e enum('a','b'))",
        "CREATE TABLE k_myisam (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0, note varchar(20)) ENGINE = MyISAM",
        "CREATE TABLE k_wide (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0)",
    ];
    all.extend(rest.map(str::to_owned));
    // More columns than fit one byte, so that the bitmaps and counts of the log are long ones.
    let columns: Vec<String> = (0..400).map(|n| format!("ADD COLUMN n{n} smallint")).collect();
    all.push(format!("ALTER TABLE k_wide {}", columns.join(", ")));
    all
}

fn corpus(label: &str, table: &str, key: Option<&[&str]>) -> Corpus {
    Corpus {
        label: label.into(),
        request: TableRequest {
            table: TableId::new(DATABASE, table),
            columns: None,
            key: key.map(|key| key.iter().map(|c| (*c).into()).collect()),
        },
        counter: Some("touched".into()),
        expected: Vec::new(),
    }
}

/// The tables for R11.
pub fn corpora(flavour: MysqlFlavour) -> Vec<Corpus> {
    let mut all = Vec::new();
    for (part, types) in parts(flavour).iter().enumerate() {
        let name = format!("every_type_{part}");
        let mut corpus = corpus(&name, &name, None);
        for (column, _, literals) in types {
            for (at, (_, shown)) in literals.iter().enumerate() {
                if let Some(shown) = shown {
                    let (key, column, shown) = (format!("integer {}", at + 1), (*column).into(), (*shown).into());
                    corpus.expected.push(ExpectedCell { key, column, shown });
                }
            }
        }
        all.push(corpus);
    }
    all.extend(keys(flavour).iter().map(|(name, ..)| corpus(name, name, None)));
    all.extend(
        ["k_composite", "k_parted", "k_generated", "k_invisible", "k_myisam", "k_wide"].map(|n| corpus(n, n, None)),
    );
    all.push(corpus("k_declared", "k_declared", Some(&["code"])));
    all.push(corpus("k_odd_names", "Odd `Name`, really", None));
    let mut zero = corpus("k_zero", "k_zero", None);
    for column in ["d", "dt", "ts", "dn", "dtn", "tsn"] {
        // The policy for dates that are none is `null` unless the tenant says otherwise.
        zero.expected.push(ExpectedCell { key: "integer 1".into(), column: column.into(), shown: "null".into() });
    }
    zero.expected.push(ExpectedCell { key: "integer 1".into(), column: "e".into(), shown: "text ".into() });
    all.push(zero);
    all
}

/// Statements that fill a table of [`corpora`], in a session without `sql_mode`.
pub fn load(flavour: MysqlFlavour, label: &str) -> Vec<String> {
    if let Some((name, _, literals)) = keys(flavour).iter().find(|(name, ..)| *name == label) {
        let rows: Vec<String> = literals.iter().map(|key| format!("({key}, 0, 'note')")).collect();
        return vec![format!("INSERT INTO {name} VALUES {}", rows.join(", "))];
    }
    if let Some(part) = label.strip_prefix("every_type_").and_then(|n| n.parse::<usize>().ok()) {
        return every_type(flavour, part);
    }
    let numbers =
        "(SELECT 1 n UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 11 UNION SELECT 12) n";
    vec![match label {
        "k_composite" => "INSERT INTO k_composite SELECT a.n, b.t, c.d, 0 FROM (SELECT 1 n UNION SELECT 2 UNION SELECT 3) a,
             (SELECT '' t UNION SELECT 'x' UNION SELECT 'y z' UNION SELECT 'X') b,
             (SELECT '2024-01-01' d UNION SELECT '1999-12-31') c"
            .to_owned(),
        "k_declared" => format!("INSERT INTO k_declared SELECT 0, concat('code ', n), 'note' FROM {numbers}"),
        "k_odd_names" => format!("INSERT INTO `Odd ``Name``, really` SELECT n, 0, concat('select ', n), NULL, 'ü' FROM {numbers}"),
        "k_parted" => format!("INSERT INTO k_parted SELECT n, 0, concat('note ', n) FROM {numbers}"),
        "k_generated" => format!("INSERT INTO k_generated (id, price, note) SELECT n, n * 1.25, 'x' FROM {numbers}"),
        "k_invisible" => format!("INSERT INTO k_invisible (id, hidden, note) SELECT n, n * 7, 'x' FROM {numbers}"),
        "k_zero" => "INSERT INTO k_zero VALUES (1, 0, '0000-00-00', '0000-00-00 00:00:00', 0, 0, 0, 0, 'not one of them'),
             (2, 0, '2024-00-10', '2024-02-00 10:20:30.5', NULL, '2024-00-00', '0000-01-01 00:00:01', '2024-01-01', 'b')"
            .to_owned(),
        "k_myisam" => format!("INSERT INTO k_myisam SELECT n, 0, 'x' FROM {numbers}"),
        "k_wide" => format!("INSERT INTO k_wide (id, n0, n255, n256, n399) SELECT n, n, -n, n * 3, -1 FROM {numbers}"),
        _ => return Vec::new(),
    }]
}

/// Row 0 is all null; row n holds each type's n-th value, or its last one.
fn every_type(flavour: MysqlFlavour, part: usize) -> Vec<String> {
    let types = parts(flavour).into_iter().nth(part).unwrap_or_default();
    let most = types.iter().map(|(.., literals)| literals.len()).max().unwrap_or(0);
    let names: Vec<&str> = types.iter().map(|(name, ..)| *name).collect();
    let mut rows = vec![format!("INSERT INTO every_type_{part} (id) VALUES (0)")];
    for at in 0..most {
        let values: Vec<&str> = types.iter().map(|(.., literals)| literals[at.min(literals.len() - 1)].0).collect();
        let (names, values) = (names.join(", "), values.join(", "));
        rows.push(format!("INSERT INTO every_type_{part} (id, {names}) VALUES ({}, {values})", at + 1));
    }
    rows
}
