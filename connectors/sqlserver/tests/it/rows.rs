//! Tables read: shapes, pages, rows by key and by value, every type.

use super::lab::{Lab, Reader, request, show};
use tidemark_contract::{Connector, ErrorKind, LogicalType, RowKey, TableRequest};

const EVERY: &str = "CREATE TABLE v (id int NOT NULL PRIMARY KEY, a bit, b tinyint, c smallint, e bigint, f real, g float, \
    h decimal(38,10), i money, j smallmoney, k date, l time(3), m datetime2, n datetimeoffset(0), o datetime, p smalldatetime, \
    q char(3), r varchar(20), s varchar(max), t text, u nchar(3), v nvarchar(20), w nvarchar(max), x ntext, y binary(3), \
    z varbinary(5), aa varbinary(max), ab image, ac uniqueidentifier, ad xml, ae sql_variant, af rowversion, ag hierarchyid, \
    ah geography)";
const FILL: &str = "INSERT v (id, a, b, c, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, aa, ab, ac, ad, \
    ae, ag, ah) VALUES (1, 1, 255, -2, -9223372036854775808, 1.5, 2.25, '-1234567890123456789012345678.0123456789', \
    922337203685477.5807, -1.5, '2024-02-29', '23:59:59.120', '9999-12-31 23:59:59.9999999', '2024-02-29 23:59:59 +05:30', \
    '2024-01-01 00:00:00.003', '2024-01-01 10:01', 'ab', N'hé', 's', 't', N'u', N'😀', N'w', N'x', 0x01, 0x0102, 0x00, 0xFF, \
    '6F9619FF-8B86-D011-B42D-00C04FC964FF', N'<a/>', CAST(42 AS int), '/1/', geography::Point(1, 2, 4326)), \
    (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)";

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_the_same_from_page_and_tail() {
    let lab = Lab::new();
    lab.sql(EVERY);
    lab.capture("v");
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["v"], None).await;
    lab.sql(FILL);
    let changes = reader.changes(&lab).await;
    let chunk = connector.snapshot_chunk(&request("v"), None, 10).await.unwrap();
    assert_eq!((changes.len(), chunk.rows.len(), chunk.next.is_none()), (2, 2, true));
    let schema = &chunk.schema;
    for (change, row) in changes.iter().zip(&chunk.rows) {
        for (at, column) in schema.columns.iter().enumerate() {
            assert_eq!(show(change.row.get(at)), show(row.get(at)), "{}", column.name);
        }
    }
    for (column, wanted) in [
        ("a", "true"),
        ("e", "-9223372036854775808"),
        ("h", "-1234567890123456789012345678.0123456789"),
        ("i", "922337203685477.5807"),
        ("j", "-1.5000"),
        ("k", "2024-02-29"),
        ("l", "23:59:59.12"),
        ("m", "9999-12-31T23:59:59.9999999"),
        ("n", "2024-02-29T18:29:59Z"),
        ("o", "2024-01-01T00:00:00.003"),
        ("p", "2024-01-01T10:01:00"),
        ("q", "ab "),
        ("r", "hé"),
        ("v", "😀"),
        ("y", "[1, 0, 0]"),
        ("ac", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        ("ad", "<a/>"),
        ("ae", "42"),
        ("ag", "/1/"),
        ("ah", "POINT (2 1)"),
    ] {
        assert_eq!(show(chunk.rows[0].get(schema.position(column).unwrap())), wanted, "{column}");
    }
    let logical = |name: &str| schema.columns[schema.position(name).unwrap()].logical;
    assert_eq!((logical("i"), logical("n")), (LogicalType::Decimal, LogicalType::TimestampTz));
    assert!(chunk.rows[1].iter().skip(1).filter(|v| !v.is_null()).count() == 1, "all but rowversion are null");
}

/// Pages of two rows through every kind of key give each row once, and each row is found again by its key.
#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_the_servers_order() {
    let lab = Lab::new();
    let connector = lab.connector();
    let guid = |n: u8| format!("'{n:02x}000000-0000-{n:02x}00-0000-0000000000{:02x}'", 255 - n);
    let guids: Vec<String> = (1..6).map(guid).collect();
    let keys: &[(&str, Vec<String>)] = &[
        ("int", ["-5", "0", "7", "2147483647"].map(String::from).to_vec()),
        ("bigint", ["-9223372036854775808", "3", "9223372036854775807"].map(String::from).to_vec()),
        ("decimal(20,5)", ["-1.5", "0", "0.001", "-99999.99999"].map(String::from).to_vec()),
        ("money", ["-1.5", "0", "922337203685477.5807"].map(String::from).to_vec()),
        ("float", ["-0.5", "0.1", "1e300"].map(String::from).to_vec()),
        ("real", ["-0.5", "0.1", "123456.789"].map(String::from).to_vec()),
        ("nvarchar(20)", ["N'a'", "N'B'", "N'é'", "N'漢'", "N'it''s'", "N'a b'"].map(String::from).to_vec()),
        ("varchar(20)", ["'a'", "'B'", "N'é'", "'z z'"].map(String::from).to_vec()),
        ("nchar(5)", ["N'ALFKI'", "N'ANA'"].map(String::from).to_vec()),
        ("uniqueidentifier", guids),
        ("date", ["'0001-01-01'", "'2024-02-29'", "'9999-12-31'"].map(String::from).to_vec()),
        (
            "datetime",
            ["'2024-01-01 00:00:00.003'", "'2024-01-01 00:00:00.007'", "'1753-01-01'"].map(String::from).to_vec(),
        ),
        ("datetime2(7)", ["'2024-01-01 00:00:00.0000001'", "'2024-01-01'", "'0001-01-01'"].map(String::from).to_vec()),
        (
            "datetimeoffset(3)",
            ["'2024-01-01 00:00:00.001 +02:00'", "'2024-01-01 00:00:00 -02:00'"].map(String::from).to_vec(),
        ),
        ("time(2)", ["'00:00:00.01'", "'23:59:59.99'"].map(String::from).to_vec()),
        ("varbinary(8)", ["0x00", "0x01ff", "0xff"].map(String::from).to_vec()),
        ("bit", ["0", "1"].map(String::from).to_vec()),
    ];
    for (number, (kind, values)) in keys.iter().enumerate() {
        let name = format!("k{number}");
        lab.sql(&format!(
            "CREATE TABLE {name} (k {kind} NOT NULL, n int NOT NULL, CONSTRAINT pk{number} PRIMARY KEY (k, n))"
        ));
        let rows: Vec<String> = values.iter().flat_map(|v| [format!("({v}, 1)"), format!("({v}, 2)")]).collect();
        lab.sql(&format!("INSERT {name} VALUES {}", rows.join(", ")));
        let request = request(&name);
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page =
                connector.snapshot_chunk(&request, after.as_ref(), 2).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
            seen.extend(page.rows.iter().map(|row| RowKey::of(row, &page.schema.key).unwrap()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), rows.len(), "{kind}");
        let fetched = connector.fetch_rows(&request, &seen).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
        for (key, row) in seen.iter().zip(&fetched.rows) {
            let row = row.as_ref().unwrap_or_else(|| panic!("{kind}: a key is not found again"));
            assert_eq!(RowKey::of(row, &fetched.schema.key).as_ref(), Some(key), "{kind}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_by_any_column() {
    let lab = Lab::new();
    lab.sql("CREATE TABLE line (id int NOT NULL PRIMARY KEY, parent int NULL, code varchar(10) NULL)");
    lab.sql("INSERT line VALUES (1, 10, 'x'), (2, 10, 'Y'), (3, 20, 'x'), (4, NULL, NULL), (5, 10, 'z')");
    let connector = lab.connector();
    let request = request("line");
    let all = connector.snapshot_chunk(&request, None, 100).await.unwrap();
    let ids = |rows: &[tidemark_contract::Row]| rows.iter().map(|r| show(r.get(0))).collect::<Vec<_>>();
    let by_parent: Vec<RowKey> = [0, 2, 3, 0].iter().map(|at| RowKey::of(&all.rows[*at], &[1]).unwrap()).collect();
    let columns = ["parent".into()];
    let page = connector.find_rows(&request, &columns, &by_parent, None, 3).await.unwrap();
    assert_eq!(ids(&page.rows), ["1", "2", "3"]);
    let rest = connector.find_rows(&request, &columns, &by_parent, page.next.as_ref(), 3).await.unwrap();
    assert_eq!((ids(&rest.rows), rest.next.is_none()), (vec!["5".to_owned()], true));
    // A number is looked for in a column of text, and a text that is no number in one of numbers.
    let code = RowKey::of(&all.rows[0], &[2]).unwrap();
    assert!(
        connector.find_rows(&request, &columns, std::slice::from_ref(&code), None, 9).await.unwrap().rows.is_empty()
    );
    let found = connector.find_rows(&request, &["code".into()], &[code], None, 9).await.unwrap();
    assert_eq!(ids(&found.rows), ["1", "3"]);
    let number = RowKey::of(&all.rows[0], &[0]).unwrap();
    assert!(connector.find_rows(&request, &["code".into()], &[number], None, 9).await.unwrap().rows.is_empty());
    // Keys that are not there.
    let other = RowKey::of(&all.rows[0], &[1]).unwrap();
    let fetched = connector.fetch_rows(&request, &[other]).await.unwrap();
    assert_eq!(fetched.rows, [None]);
    assert!(connector.fetch_rows(&request, &[]).await.unwrap().rows.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_found_and_refused_with_reasons() {
    let lab = Lab::new();
    lab.sql(
        "CREATE TABLE good (id int NOT NULL PRIMARY KEY, t nvarchar(5)); CREATE TABLE bare (a int NOT NULL, b int)",
    );
    lab.sql("CREATE UNIQUE INDEX ux ON bare (a); CREATE TABLE [Odd ]]Name'] ([Key] int NOT NULL PRIMARY KEY, [select] text)");
    lab.sql("INSERT [Odd ]]Name'] VALUES (1, 'x')");
    let connector = lab.connector();
    let all = connector.discover(&[]).await.unwrap();
    let names: Vec<&str> = all.iter().map(|s| &*s.table.name).collect();
    assert_eq!(names, ["Odd ]Name'", "good"]);
    assert_eq!(all[1].columns[1].max_length, Some(5));
    let refusal = async |table: &str| connector.discover(&[request(table)]).await.unwrap_err();
    let missing = refusal("nope").await;
    assert_eq!(missing.kind, ErrorKind::SettingWrong);
    assert!(missing.to_string().contains("dbo.nope"), "{missing}");
    assert!(refusal("bare").await.to_string().contains("no primary key"));
    let declared = TableRequest { key: Some(vec!["a".into()]), ..request("bare") };
    assert_eq!(connector.discover(&[declared]).await.unwrap()[0].key, [0]);
    let wrong = TableRequest { key: Some(vec!["b".into()]), ..request("bare") };
    assert!(connector.discover(&[wrong]).await.unwrap_err().to_string().contains("no unique index"));
    let page = connector.snapshot_chunk(&request("Odd ]Name'"), None, 5).await.unwrap();
    assert_eq!(page.rows.len(), 1);
    let narrow = TableRequest { columns: Some(vec!["t".into(), "gone".into()]), ..request("good") };
    let schema = connector.discover(&[narrow]).await.unwrap();
    assert_eq!(schema[0].columns.len(), 2);
}
