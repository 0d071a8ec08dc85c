//! Every type: a snapshot, a read by key and the tail give the same value (R11).

use super::lab::{BARRIER, Lab, events, key, show, shown, table};
use tidemark_contract::{Connector, SourceMessage};
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

/// Column name, type, values as SQL (each list is cycled over the rows).
fn corpus(flavour: MysqlFlavour) -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    let mut columns = vec![
        ("i8", "TINYINT", vec!["-128", "127", "NULL"]),
        ("u8", "TINYINT UNSIGNED", vec!["255", "0"]),
        ("b", "BOOLEAN", vec!["TRUE", "FALSE"]),
        ("i16", "SMALLINT", vec!["-32768", "32767"]),
        ("i24", "MEDIUMINT", vec!["-8388608", "8388607"]),
        ("u24", "MEDIUMINT UNSIGNED", vec!["16777215"]),
        ("i32", "INT", vec!["-2147483648", "2147483647"]),
        ("u32", "INT UNSIGNED ZEROFILL", vec!["42", "4294967295"]),
        ("i64", "BIGINT", vec!["-9223372036854775808", "9223372036854775807"]),
        ("u64", "BIGINT UNSIGNED", vec!["18446744073709551615", "9223372036854775808", "0"]),
        ("f", "FLOAT", vec!["0.1", "1.17549e-38", "3.40282e38", "16777217", "-1.5", "123456.789"]),
        ("f2", "FLOAT(7,3)", vec!["1234.567", "-0.001"]),
        ("d", "DOUBLE", vec!["0.1", "1e300", "-2.2250738585072014e-308", "123456789.123456789", "1e15", "1e16"]),
        ("d2", "DOUBLE(10,2)", vec!["12345678.91"]),
        (
            "n",
            "DECIMAL(65,30)",
            vec![
                "12345678901234567890123456789012345.123456789012345678901234567890",
                "-0.000000000000000000000000000001",
                "0",
            ],
        ),
        ("n2", "DECIMAL(10,2) UNSIGNED ZEROFILL", vec!["1.5", "0"]),
        ("n3", "DECIMAL(5,0)", vec!["-99999", "0"]),
        ("bit1", "BIT(1)", vec!["b'1'", "b'0'", "NULL"]),
        ("bit9", "BIT(9)", vec!["b'100000001'", "b'0'"]),
        ("bit64", "BIT(64)", vec!["18446744073709551615", "1"]),
        ("yr", "YEAR", vec!["2024", "0", "1901", "2155"]),
        ("da", "DATE", vec!["'2024-02-29'", "'1000-01-01'", "'9999-12-31'", "'0000-00-00'", "'2024-00-00'", "NULL"]),
        ("dz", "DATE NOT NULL", vec!["'0000-00-00'", "'2000-01-01'"]),
        ("t0", "TIME", vec!["'838:59:59'", "'-838:59:59'", "'00:00:00'", "'-00:00:01'"]),
        ("t3", "TIME(3)", vec!["'10:11:12.345'", "'-10:11:12.345'", "'-00:00:00.500'"]),
        ("t6", "TIME(6)", vec!["'-838:59:58.999999'", "'00:00:00.000001'", "'100:00:00.100000'"]),
        ("dt", "DATETIME", vec!["'2024-02-29 23:59:59'", "'0000-00-00 00:00:00'", "'1000-01-01 00:00:00'"]),
        ("dt1", "DATETIME(1)", vec!["'2024-02-29 23:59:59.9'"]),
        ("dt4", "DATETIME(4)", vec!["'2024-02-29 23:59:59.1200'", "'9999-12-31 23:59:59.9999'"]),
        ("dt6", "DATETIME(6)", vec!["'2024-02-29 23:59:59.000001'"]),
        (
            "ts",
            "TIMESTAMP NULL",
            vec![
                "'2024-02-29 23:59:59'",
                "'1970-01-01 00:00:01'",
                "'2038-01-19 03:14:07'",
                "'0000-00-00 00:00:00'",
                "NULL",
            ],
        ),
        ("ts6", "TIMESTAMP(6) NULL", vec!["'2024-07-01 12:00:00.123456'", "'2024-07-01 12:00:00.100000'"]),
        ("c", "CHAR(10)", vec!["'a'", "'trail   '", "'öäü€😀'", "''"]),
        ("vc", "VARCHAR(300)", vec!["'a'", "'trail   '", "'öäü€😀'", "'a\\nb\\tc\\0d'"]),
        ("l1", "VARCHAR(50) CHARACTER SET latin1", vec!["'é€œ'", "_latin1 X'818D8F909D'"]),
        ("l2", "CHAR(20) CHARACTER SET latin2", vec!["'łąź'"]),
        ("gb", "VARCHAR(50) CHARACTER SET gbk", vec!["'你好'"]),
        ("sj", "TEXT CHARACTER SET sjis", vec!["'日本語〜ｶﾅ'"]),
        ("uj", "VARCHAR(20) CHARACTER SET ujis", vec!["'日本語'"]),
        ("b5", "VARCHAR(20) CHARACTER SET big5", vec!["'繁體'"]),
        ("kr", "VARCHAR(20) CHARACTER SET euckr", vec!["'한국어'"]),
        ("kc", "VARCHAR(20) CHARACTER SET koi8r", vec!["'Привет'"]),
        ("u2", "VARCHAR(20) CHARACTER SET ucs2", vec!["'aé€'"]),
        ("u16", "VARCHAR(20) CHARACTER SET utf16", vec!["'aé€😀'"]),
        ("u32c", "VARCHAR(20) CHARACTER SET utf32", vec!["'aé€😀'"]),
        ("tt", "TINYTEXT", vec!["'tiny'"]),
        ("lt", "LONGTEXT", vec!["REPEAT('long', 20000)", "''"]),
        ("bi", "BINARY(8)", vec!["X'0100'", "X''", "X'FF00000000000000'", "X'0000000000000001'"]),
        ("vb", "VARBINARY(8)", vec!["X'0100'", "X''"]),
        ("bl", "BLOB", vec!["X'00FF00'", "NULL"]),
        ("lb", "LONGBLOB", vec!["REPEAT(X'00FF', 40000)"]),
        ("e", "ENUM('a','b''c','d,e','ü','')", vec!["'a'", "'b''c'", "'d,e'", "'ü'", "0", "NULL"]),
        ("s", "SET('x','y','ü\"z')", vec!["''", "'x'", "'x,ü\"z'", "7"]),
        (
            "g",
            "GEOMETRY",
            vec![
                "ST_GeomFromText('POINT(1.5 -2)')",
                "ST_GeomFromText('POLYGON((0 0,10 0,10 10,0 10,0 0),(1 1,2 1,2 2,1 1))')",
                "ST_GeomFromText('MULTIPOINT(1 1,2 2)')",
                "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))', 4326)",
                "NULL",
            ],
        ),
        ("p", "POINT", vec!["ST_GeomFromText('POINT(1 2)')", "NULL"]),
        (
            "js",
            "JSON",
            vec![
                "'{\"b\": 1, \"a\": [true, null, \"x\\\\u0001\\\\\"\", 1.5, -0.0, 1e20, 18446744073709551615, -9223372036854775808]}'",
                "'null'",
                "NULL",
                "'[]'",
                "'{}'",
                "JSON_OBJECT('dec', CAST('1.10' AS DECIMAL(5,2)), 'd', 1e-7, 'big', 123456789012345678)",
                "JSON_ARRAY(CAST('2024-01-02' AS DATE), CAST('2024-01-02 03:04:05.6' AS DATETIME(6)), CAST('-01:02:03' AS TIME))",
                "CONCAT('[\"', REPEAT('y', 70000), '\", 1, 2.0]')",
                "'\"text\"'",
                "'1.0'",
            ],
        ),
        ("gs", "INT GENERATED ALWAYS AS (id * 2) STORED", vec![]),
        ("gv", "VARCHAR(20) GENERATED ALWAYS AS (CONCAT('v', id)) VIRTUAL", vec![]),
        ("inv", "INT INVISIBLE", vec!["7"]),
    ];
    if flavour == MysqlFlavour::MariaDb {
        columns.push((
            "uu",
            "UUID",
            vec![
                "'550e8400-e29b-41d4-9a1b-0ccda40ab12c'",
                "'018f0000-0000-7000-8000-000000000001'",
                "'00000000-0000-0000-0000-000000000000'",
                "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
                "'c9a646d3-9c61-11ed-b40e-5800e3715d64'",
                "NULL",
            ],
        ));
        columns.push(("l1b", "VARCHAR(50) CHARACTER SET latin1", vec!["'é€'"]));
        columns.push((
            "i6",
            "INET6",
            vec!["'::1'", "'2001:db8::ff00:42:8329'", "'::ffff:1.2.3.4'", "'::1.2.3.4'", "'::'"],
        ));
        columns.push(("i4", "INET4", vec!["'1.2.3.4'"]));
        columns.push(("cc", "TEXT COMPRESSED", vec!["REPEAT('compressed ü ', 500)", "'short'", "''"]));
        columns.push(("cv", "VARCHAR(3000) COMPRESSED", vec!["REPEAT('c', 2000)", "''"]));
    } else {
        columns.push(("ve", "VECTOR(3)", vec!["STRING_TO_VECTOR('[1,2.5,-3]')"]));
        columns.push((
            "js2",
            "JSON",
            vec!["CAST(X'00FF' AS JSON)", "CAST(ST_GeomFromText('POINT(1 2)') AS JSON)", "NULL"],
        ));
    }
    columns
}

const ROWS: usize = 12;

fn sql(flavour: MysqlFlavour) -> (String, String) {
    let corpus = corpus(flavour);
    let definitions: Vec<String> = corpus.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    let create =
        format!("SET sql_mode = ''; CREATE TABLE types (id INT PRIMARY KEY, n0 INT, {});", definitions.join(", "));
    let mut insert = "SET sql_mode = '', time_zone = '+00:00', NAMES utf8mb4;".replace(", NAMES", "; SET NAMES");
    let names: Vec<&str> = corpus.iter().filter(|(.., v)| !v.is_empty()).map(|(n, ..)| *n).collect();
    for row in 0..ROWS {
        let values = corpus.iter().filter(|(.., v)| !v.is_empty()).map(|(.., v)| v[row % v.len()]);
        let values: Vec<&str> = values.collect();
        insert.push_str(&format!(
            "INSERT INTO types (id, n0, {}) VALUES ({row}, 0, {});",
            names.join(", "),
            values.join(", ")
        ));
    }
    (create, insert)
}

async fn same_values_all_ways(flavour: MysqlFlavour, options: MysqlOptions) {
    let (create, insert) = sql(flavour);
    let lab = Lab::with(options, &format!("{BARRIER}{create}"));
    let request = table("types");
    let connector = lab.connector();
    let discovered = connector.discover(std::slice::from_ref(&request)).await.unwrap().remove(0);
    let mut stream = connector.open_stream(std::slice::from_ref(&request), None).await.unwrap();
    lab.sql(&insert);
    let messages = lab.drain(&connector, &mut stream).await;
    let schema =
        messages.iter().find_map(|m| if let SourceMessage::Schema(s) = m { Some(s.clone()) } else { None }).unwrap();
    for (told, found) in schema.columns.iter().zip(&discovered.columns) {
        assert_eq!(told, found);
    }
    assert_eq!(schema, discovered);
    let tail = events(&messages);
    assert_eq!(tail.len(), ROWS);
    let mut wrong = Vec::new();
    let mut compare = |way: &str, row: &tidemark_contract::Row, other: &tidemark_contract::Row| {
        for (at, column) in schema.columns.iter().enumerate() {
            if row.get(at) != other.get(at) {
                let clip = |v| show(v).chars().take(150).collect::<String>();
                wrong.push(format!(
                    "{way}, id {}, {}: tail {} | read {}",
                    show(row.get(0)),
                    column.name,
                    clip(row.get(at)),
                    clip(other.get(at))
                ));
            }
        }
    };
    let rows = lab.snapshot(&request, 5).await;
    assert_eq!(rows.len(), ROWS);
    for (change, row) in tail.iter().zip(&rows) {
        compare("snapshot", &change.row, row);
    }
    let keys: Vec<_> = rows.iter().map(|r| key(r, &[0])).collect();
    let fetched = connector.fetch_rows(&request, &keys).await.unwrap();
    for (change, row) in tail.iter().zip(&fetched.rows) {
        compare("by key", &change.row, row.as_ref().unwrap());
    }
    lab.sql("UPDATE types SET n0 = 1");
    let updates = events(&lab.drain(&connector, &mut stream).await);
    for (change, row) in updates.iter().zip(&lab.snapshot(&request, 50).await) {
        compare("update", &change.row, row);
    }
    println!("{}", shown(&rows[0]).chars().take(3000).collect::<String>());
    println!("{}", shown(&rows[5]).chars().take(3000).collect::<String>());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn same_values_with_full_metadata(flavour: MysqlFlavour) {
    same_values_all_ways(flavour, MysqlOptions::new(flavour)).await;
}

async fn same_values_without_names_in_the_log(flavour: MysqlFlavour) {
    same_values_all_ways(flavour, MysqlOptions::new(flavour).setting("binlog-row-metadata", "MINIMAL")).await;
}

async fn same_values_from_a_compressed_log(flavour: MysqlFlavour) {
    let options = MysqlOptions::new(flavour);
    let options = match flavour {
        MysqlFlavour::MariaDb => options.setting("log-bin-compress", "ON").setting("log-bin-compress-min-len", "10"),
        MysqlFlavour::MySql => options.setting("binlog-transaction-compression", "ON"),
    };
    same_values_all_ways(flavour, options).await;
}

/// Keys of many types lead through pages and back by key.
async fn keys_of_every_type(flavour: MysqlFlavour) {
    let keys = [
        ("BIGINT UNSIGNED", "18446744073709551615|1|5"),
        ("VARCHAR(20)", "'b'|'A'|'ü'|'a b'|'c '"),
        ("VARCHAR(20) CHARACTER SET latin1", "'b'|'é'|'€'"),
        ("VARCHAR(20) CHARACTER SET gbk", "'你'|'好'|'a'"),
        ("BINARY(4)", "X'01'|X'00000001'|X'FF'"),
        ("VARBINARY(9)", "X'01'|X'0100'|X''"),
        ("DATE", "'2024-01-01'|'1999-12-31'|'0000-00-00'|'2024-00-10'"),
        (
            "DATETIME(3)",
            "'2024-01-01 00:00:00.5'|'1999-12-31 01:02:03'|'0000-00-00 00:00:00'|'2024-01-00 01:02:03.250'",
        ),
        ("TIMESTAMP(6)", "'2024-01-01 00:00:00.5'|'1999-12-31 01:02:03'|'0000-00-00 00:00:00'"),
        ("TIME", "'-10:00:00'|'200:00:00'|'01:00:00'"),
        ("DECIMAL(20,5)", "1.5|-2|100.00001"),
        ("DOUBLE", "0.1|-1e300|5"),
        ("FLOAT", "0.1|-1.5e30|5"),
        ("ENUM('z','a','m')", "'z'|'a'|'m'"),
        ("SET('z','a','m')", "'z'|'a,m'|''"),
        ("BIT(10)", "1|512|3"),
        ("YEAR", "2024|1999"),
    ];
    let mut sql = "SET sql_mode = ''; SET NAMES utf8mb4; SET time_zone = '+00:00';".to_owned();
    for (n, (kind, values)) in keys.iter().enumerate() {
        sql.push_str(&format!("CREATE TABLE k{n} (k {kind}, n INT, PRIMARY KEY (k, n));"));
        for value in values.split('|') {
            sql.push_str(&format!("INSERT INTO k{n} VALUES ({value}, 1), ({value}, 2);"));
        }
    }
    let lab = Lab::new(flavour, &format!("{BARRIER}{sql}"));
    let connector = lab.connector();
    for (n, (kind, values)) in keys.iter().enumerate() {
        let request = table(&format!("k{n}"));
        let wanted = 2 * values.split('|').count();
        for limit in [1, 2, 100] {
            let rows = lab.snapshot(&request, limit).await;
            assert_eq!(rows.len(), wanted, "{kind} in pages of {limit}");
            let keys: Vec<_> = rows.iter().map(|r| key(r, &[0, 1])).collect();
            let fetched = connector.fetch_rows(&request, &keys).await.unwrap();
            let found: Vec<_> = fetched.rows.iter().flatten().map(shown).collect();
            assert_eq!(found, rows.iter().map(shown).collect::<Vec<_>>(), "{kind}");
        }
        let mut snapshot: Vec<String> = lab.snapshot(&request, 100).await.iter().map(shown).collect();
        let told = lab.told(std::slice::from_ref(&request), &format!("DELETE FROM k{n}")).await;
        let mut tail: Vec<String> = events(&told).iter().map(|event| shown(&event.row)).collect();
        snapshot.sort();
        tail.sort();
        assert_eq!(tail, snapshot, "{kind}");
    }
}

on_both! {
    same_values_with_full_metadata,
    same_values_without_names_in_the_log,
    same_values_from_a_compressed_log,
    keys_of_every_type,
}
