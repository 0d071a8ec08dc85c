//! Every type of SQL Server with its odd values, and a table for each kind of key.

use tidemark_conformance::{Corpus, ExpectedCell};
use tidemark_contract::{TableId, TableRequest};

/// A type: the column's name, its SQL type, SQL literals, and for some of them the form they must have.
type Type = (&'static str, &'static str, &'static [(&'static str, Option<&'static str>)]);

const fn any(literal: &'static str) -> (&'static str, Option<&'static str>) {
    (literal, None)
}

const fn is(literal: &'static str, shown: &'static str) -> (&'static str, Option<&'static str>) {
    (literal, Some(shown))
}

#[rustfmt::skip]
const TYPES: &[Type] = &[
    ("c_bit", "bit", &[is("1", "boolean true"), is("0", "boolean false")]),
    ("c_tiny", "tinyint", &[is("0", "integer 0"), is("255", "integer 255")]),
    ("c_small", "smallint", &[is("-32768", "integer -32768"), is("32767", "integer 32767")]),
    ("c_int", "int", &[is("-2147483648", "integer -2147483648"), is("2147483647", "integer 2147483647")]),
    ("c_big", "bigint", &[is("-9223372036854775808", "integer -9223372036854775808"), is("9223372036854775807", "integer 9223372036854775807")]),
    ("c_decimal", "decimal(38,10)", &[is("'-1234567890123456789012345678.0123456789'", "decimal -1234567890123456789012345678.0123456789"), is("'0.0000000001'", "decimal 0.0000000001"), is("0", "decimal 0.0000000000")]),
    ("c_decimal_all", "decimal(38,38)", &[is("'0.00000000000000000000000000000000000001'", "decimal 0.00000000000000000000000000000000000001"), is("'-0.99999999999999999999999999999999999999'", "decimal -0.99999999999999999999999999999999999999")]),
    ("c_decimal_whole", "decimal(38,0)", &[is("'99999999999999999999999999999999999999'", "decimal 99999999999999999999999999999999999999"), is("'-99999999999999999999999999999999999999'", "decimal -99999999999999999999999999999999999999")]),
    ("c_numeric", "numeric(9,2)", &[is("1.5", "decimal 1.50"), is("-0.01", "decimal -0.01"), is("9999999.99", "decimal 9999999.99")]),
    ("c_money", "money", &[is("922337203685477.5807", "decimal 922337203685477.5807"), is("'-922337203685477.5808'", "decimal -922337203685477.5808"), is("0.0001", "decimal 0.0001"), is("'900719925474.0993'", "decimal 900719925474.0993")]),
    ("c_smallmoney", "smallmoney", &[is("214748.3647", "decimal 214748.3647"), is("-1.5", "decimal -1.5000")]),
    ("c_real", "real", &[is("1.5", "real 1.5"), is("1.1", "real 1.1"), any("3.4e38"), any("-0.1")]),
    ("c_float", "float", &[is("0.1", "double 0.1"), any("1.7976931348623157e308"), any("2.2250738585072014e-308"), is("3.141592653589793", "double 3.141592653589793")]),
    ("c_date", "date", &[is("'0001-01-01'", "date 0001-01-01"), is("'2024-02-29'", "date 2024-02-29"), is("'9999-12-31'", "date 9999-12-31")]),
    ("c_time0", "time(0)", &[is("'12:34:56'", "time 12:34:56"), is("'00:00:00'", "time 00:00:00")]),
    ("c_time3", "time(3)", &[is("'23:59:59.120'", "time 23:59:59.12")]),
    ("c_time7", "time(7)", &[is("'23:59:59.9999999'", "time 23:59:59.9999999"), is("'00:00:00.0000001'", "time 00:00:00.0000001")]),
    ("c_datetime2_0", "datetime2(0)", &[is("'2024-01-01 10:20:30'", "timestamp 2024-01-01T10:20:30")]),
    ("c_datetime2_3", "datetime2(3)", &[is("'2024-01-01 10:20:30.120'", "timestamp 2024-01-01T10:20:30.12")]),
    ("c_datetime2", "datetime2", &[is("'0001-01-01'", "timestamp 0001-01-01T00:00:00"), is("'9999-12-31 23:59:59.9999999'", "timestamp 9999-12-31T23:59:59.9999999")]),
    ("c_datetime", "datetime", &[is("'2024-01-01 00:00:00.003'", "timestamp 2024-01-01T00:00:00.003"), is("'1753-01-01'", "timestamp 1753-01-01T00:00:00"), is("'9999-12-31 23:59:59.997'", "timestamp 9999-12-31T23:59:59.997")]),
    ("c_smalldatetime", "smalldatetime", &[is("'2024-01-01 10:01'", "timestamp 2024-01-01T10:01:00"), any("'2079-06-06 23:59'")]),
    ("c_offset", "datetimeoffset(0)", &[is("'2024-02-29 23:59:59 +05:30'", "timestamp with time zone 2024-02-29T18:29:59Z"), is("'2024-01-01 00:00:00 -14:00'", "timestamp with time zone 2024-01-01T14:00:00Z")]),
    ("c_offset7", "datetimeoffset", &[is("'2024-02-29 23:59:59.1234567 +01:00'", "timestamp with time zone 2024-02-29T22:59:59.1234567Z")]),
    ("c_char", "char(3)", &[is("'ab'", "text ab "), is("'abc'", "text abc"), is("''", "text    ")]),
    ("c_varchar", "varchar(20)", &[is("''", "text "), is("' both ends '", "text  both ends "), is("'it''s'", "text it's"), is("N'hé €'", "text hé €")]),
    ("c_varchar_utf8", "varchar(40) COLLATE Latin1_General_100_CI_AS_SC_UTF8", &[is("N'é€ 漢 🦀'", "text é€ 漢 🦀")]),
    ("c_varchar_cyrillic", "varchar(20) COLLATE Cyrillic_General_CI_AS", &[is("N'Привет'", "text Привет")]),
    ("c_varchar_greek", "varchar(20) COLLATE Greek_CI_AS", &[is("N'Ελλάδα'", "text Ελλάδα")]),
    ("c_varchar_max", "varchar(max)", &[is("'short'", "text short"), any("REPLICATE(CAST('0123456789abcdef' AS varchar(max)), 5000)")]),
    ("c_text", "text", &[is("'text'", "text text"), any("REPLICATE(CAST('long ' AS varchar(max)), 4000)")]),
    ("c_nchar", "nchar(4)", &[is("N'ü漢'", "text ü漢  ")]),
    ("c_nvarchar", "nvarchar(40)", &[is("N'ünïcödé 漢字 🦀'", "text ünïcödé 漢字 🦀"), is("N''", "text "), any("N'line' + NCHAR(10) + N'tab' + NCHAR(9)")]),
    ("c_nvarchar_max", "nvarchar(max)", &[is("N'short'", "text short"), any("REPLICATE(CAST(N'漢 0123456789' AS nvarchar(max)), 6000)")]),
    ("c_ntext", "ntext", &[is("N'ntext'", "text ntext")]),
    ("c_binary", "binary(3)", &[is("0x01", "bytes AQAA"), is("0x00FF10", "bytes AP8Q")]),
    ("c_varbinary", "varbinary(20)", &[is("0x", "bytes "), is("0x00FF10", "bytes AP8Q"), is("0x20", "bytes IA==")]),
    ("c_varbinary_max", "varbinary(max)", &[is("0x5C78", "bytes XHg=")]),
    ("c_image", "image", &[is("0xFF", "bytes /w==")]),
    ("c_guid", "uniqueidentifier", &[is("'6F9619FF-8B86-D011-B42D-00C04FC964FF'", "uuid 6f9619ff-8b86-d011-b42d-00c04fc964ff"), is("'00000000-0000-0000-0000-000000000000'", "uuid 00000000-0000-0000-0000-000000000000")]),
    ("c_xml", "xml", &[is("N'<a/>'", "text <a/>"), any("N'<a b=\"c\">ü</a>'")]),
    ("c_variant", "sql_variant", &[is("CAST(42 AS int)", "text 42"), is("CAST(N'text' AS nvarchar(20))", "text text"), is("CAST(1.50 AS decimal(10,2))", "text 1.50")]),
    ("c_rowversion", "rowversion", &[]),
    ("c_hierarchy", "hierarchyid", &[is("'/1/'", "text /1/"), is("'/1/-3/7/'", "text /1/-3/7/")]),
    ("c_geography", "geography", &[is("geography::Point(1, 2, 4326)", "text POINT (2 1)")]),
];

/// Key tables: label and name, the key's type, keys.
#[rustfmt::skip]
const KEYS: &[(&str, &str, &[&str])] = &[
    ("k_bit", "bit", &["0", "1"]),
    ("k_tiny", "tinyint", &["0", "7", "255"]),
    ("k_int", "int", &["-5", "0", "7", "2147483647"]),
    ("k_bigint", "bigint", &["-9223372036854775808", "3", "9223372036854775807"]),
    ("k_decimal", "decimal(20,5)", &["-1.5", "0", "0.001", "-99999.99999"]),
    ("k_money", "money", &["-1.5", "0", "922337203685477.5807"]),
    ("k_float", "float", &["-0.5", "0.1", "1e300"]),
    ("k_real", "real", &["-0.5", "0.1", "123456.789"]),
    ("k_nvarchar", "nvarchar(20)", &["N''", "N'a'", "N'B'", "N'é'", "N'漢'", "N'it''s'", "N'a b'"]),
    ("k_nvarchar_bin", "nvarchar(20) COLLATE Latin1_General_BIN2", &["N'a'", "N'A'", "N'é'", "N'z'"]),
    ("k_varchar", "varchar(20)", &["'a'", "'B'", "N'é'", "'z z'"]),
    ("k_varchar_utf8", "varchar(30) COLLATE Latin1_General_100_CI_AS_SC_UTF8", &["N'a'", "N'漢'", "N'é'"]),
    ("k_nchar", "nchar(5)", &["N'ALFKI'", "N'ANA'"]),
    ("k_guid", "uniqueidentifier", &["'01000000-0000-0100-0000-0000000000fe'", "'02000000-0000-0200-0000-0000000000fd'", "'ff000000-0000-0000-0000-000000000001'", "'00000000-0000-0000-8000-000000000000'"]),
    ("k_date", "date", &["'0001-01-01'", "'2024-02-29'", "'9999-12-31'"]),
    ("k_datetime", "datetime", &["'2024-01-01 00:00:00.003'", "'2024-01-01 00:00:00.007'", "'1753-01-01'"]),
    ("k_smalldatetime", "smalldatetime", &["'2024-01-01 10:01'", "'1900-01-01'"]),
    ("k_datetime2", "datetime2(7)", &["'2024-01-01 00:00:00.0000001'", "'2024-01-01'", "'0001-01-01'"]),
    ("k_offset", "datetimeoffset(3)", &["'2024-01-01 00:00:00.001 +02:00'", "'2024-01-01 00:00:00 -02:00'"]),
    ("k_time", "time(2)", &["'00:00:00.01'", "'23:59:59.99'"]),
    ("k_varbinary", "varbinary(8)", &["0x00", "0x01FF", "0xFF"]),
    ("k_binary", "binary(2)", &["0x0000", "0x00FF", "0xFF00"]),
];

/// Other tables: label, name, and the columns.
const OTHERS: &[(&str, &str, &str)] = &[
    (
        "k_composite",
        "k_composite",
        "a int NOT NULL, b nvarchar(20) NOT NULL, c date NOT NULL, touched int NOT NULL DEFAULT 0, PRIMARY KEY (b, a, c)",
    ),
    (
        "k_declared",
        "k_declared",
        "touched int NOT NULL DEFAULT 0, code nvarchar(40) NOT NULL UNIQUE, note nvarchar(20)",
    ),
    (
        "k_odd_names",
        "Odd [Name], it's",
        "[Id] int NOT NULL PRIMARY KEY, touched int NOT NULL DEFAULT 0, [select] nvarchar(20), [a.b] nvarchar(20), \
         [ünï]]] nvarchar(20)",
    ),
    (
        "k_identity",
        "k_identity",
        "id int IDENTITY(5, 3) NOT NULL PRIMARY KEY, touched int NOT NULL DEFAULT 0, note nvarchar(20)",
    ),
];

/// A table's name between brackets.
fn quoted(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

fn name_of(label: &str) -> &str {
    OTHERS.iter().find(|(of, ..)| *of == label).map_or(label, |(_, name, _)| name)
}

/// The tables: their names, and the statements that make them.
pub fn create() -> Vec<(String, String)> {
    let columns: Vec<String> = TYPES.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    let columns = columns.join(", ");
    let mut all = vec![(
        "every_type".to_owned(),
        format!("CREATE TABLE dbo.every_type (id int NOT NULL PRIMARY KEY, touched int NOT NULL DEFAULT 0, {columns})"),
    )];
    for (name, kind, _) in KEYS {
        let sql = format!(
            "CREATE TABLE dbo.{name} (id {kind} NOT NULL PRIMARY KEY, touched int NOT NULL DEFAULT 0, note nvarchar(20))"
        );
        all.push(((*name).to_owned(), sql));
    }
    for (label, _, columns) in OTHERS {
        let name = name_of(label);
        all.push((name.to_owned(), format!("CREATE TABLE dbo.{} ({columns})", quoted(name))));
    }
    // More columns than fit one byte of an update mask, or a short count.
    let many: Vec<String> = (0..300).map(|n| format!("n{n} smallint")).collect();
    let wide = format!(
        "CREATE TABLE dbo.k_wide (id int NOT NULL PRIMARY KEY, touched int NOT NULL DEFAULT 0, {})",
        many.join(", ")
    );
    all.push(("k_wide".into(), wide));
    all
}

/// The tables for R11.
pub fn corpora() -> Vec<Corpus> {
    let corpus = |label: &str, key: Option<&str>| Corpus {
        label: label.into(),
        request: TableRequest {
            table: TableId::new("dbo", name_of(label)),
            columns: None,
            key: key.map(|key| vec![key.into()]),
        },
        counter: Some("touched".into()),
        expected: Vec::new(),
    };
    let mut every = corpus("every_type", None);
    for (column, _, literals) in TYPES {
        for (at, (_, shown)) in literals.iter().enumerate() {
            if let Some(shown) = shown {
                let (key, column, shown) = (format!("integer {}", at + 1), (*column).into(), (*shown).into());
                every.expected.push(ExpectedCell { key, column, shown });
            }
        }
    }
    let mut all = vec![every];
    all.extend(KEYS.iter().map(|(name, ..)| corpus(name, None)));
    all.extend(OTHERS.iter().map(|(label, ..)| corpus(label, (*label == "k_declared").then_some("code"))));
    all.push(corpus("k_wide", None));
    all
}

/// Statements that fill a table of [`corpora`].
pub fn load(label: &str) -> Vec<String> {
    if let Some((name, _, literals)) = KEYS.iter().find(|(name, ..)| *name == label) {
        let rows: Vec<String> = literals.iter().map(|key| format!("({key}, 0, N'note')")).collect();
        return vec![format!("INSERT dbo.{name} VALUES {}", rows.join(", "))];
    }
    let each = |row: &dyn Fn(i64) -> String, into: &str| {
        let rows: Vec<String> = [1, 2, 3, 4, 5, 11, 12].map(row).to_vec();
        vec![format!("INSERT {into} VALUES {}", rows.join(", "))]
    };
    match label {
        "every_type" => every_type(),
        "k_composite" => each(
            &|n| format!("({n}, N'', '2024-01-01', 0), ({n}, N'y z', '2024-01-01', 0), ({n}, N'y z', '1999-12-31', 0)"),
            "dbo.k_composite",
        ),
        "k_declared" => each(&|n| format!("(0, N'code {n}', N'note')"), "dbo.k_declared"),
        "k_odd_names" => {
            each(&|n| format!("({n}, 0, N'select {n}', NULL, N'ü')"), &format!("dbo.{}", quoted(name_of(label))))
        }
        "k_identity" => each(&|n| format!("(N'note {n}')"), "dbo.k_identity (note)"),
        "k_wide" => each(&|n| format!("({n}, {n}, -{n}, {}, -1)", n * 3), "dbo.k_wide (id, n0, n255, n256, n299)"),
        _ => Vec::new(),
    }
}

/// Row 0 is all null; row n holds each type's n-th value, or its last one.
fn every_type() -> Vec<String> {
    let types: Vec<&Type> = TYPES.iter().filter(|(.., literals)| !literals.is_empty()).collect();
    let most = types.iter().map(|(.., literals)| literals.len()).max().unwrap_or(0);
    let names: Vec<&str> = types.iter().map(|(name, ..)| *name).collect();
    let names = names.join(", ");
    let mut rows = vec!["INSERT dbo.every_type (id) VALUES (0)".to_owned()];
    for at in 0..most {
        let values: Vec<&str> = types.iter().map(|(.., literals)| literals[at.min(literals.len() - 1)].0).collect();
        rows.push(format!("INSERT dbo.every_type (id, {names}) VALUES ({}, {})", at + 1, values.join(", ")));
    }
    rows
}
