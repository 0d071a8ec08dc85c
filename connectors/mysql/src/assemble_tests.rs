use super::*;
use crate::charset::Charset;
use tidemark_contract::{Column, LogicalType, TableId};

fn log(code: u8, meta: u16) -> LogColumn {
    LogColumn { code, meta, nullable: true, unsigned: None, name: None, collation: None, labels: None }
}

/// `(id INT, hidden TINY, note VARCHAR(20), doc JSON)`, without `hidden`.
fn plan() -> Plan {
    let column = |name: &str, logical| Column {
        name: name.into(),
        logical,
        native: "".into(),
        nullable: true,
        max_length: None,
        may_be_unchanged: false,
        unlogged: false,
        labels: Vec::new(),
    };
    let schema = TableSchema {
        table: TableId::new("d", "t"),
        columns: vec![
            column("id", LogicalType::Int),
            column("note", LogicalType::Text),
            column("doc", LogicalType::Json),
        ],
        key: vec![0],
        full_before_image: true,
    };
    let steps = vec![
        Step { column: log(code::LONG, 0), kind: Some(Kind::Int { unsigned: false }) },
        Step { column: log(code::TINY, 0), kind: None },
        Step { column: log(code::VARCHAR, 20), kind: Some(Kind::Text(Charset::Utf8, None)) },
        Step { column: log(code::JSON, 4), kind: Some(Kind::Json) },
    ];
    Plan { schema: Arc::new(schema), steps, named: true }
}

fn read(of: u8, present: u8, after: Option<u8>, bytes: &[u8]) -> Result<Vec<ChangeEvent>> {
    let plan = plan();
    let (present, after) = ([present], after.map(|b| [b]));
    let rows = Rows {
        table: 1,
        columns: 4,
        present: &present,
        present_after: after.as_ref().map(|b| &b[..]),
        rows: bytes,
        is_last_of_statement: true,
    };
    let reader = RowReader::new(&plan, of, &rows, 5)?;
    let mut batch = Batch::default();
    let mut rest = Cursor(bytes);
    while !rest.is_empty() {
        reader.next(&mut rest, &mut Scratch::default(), &mut batch)?;
    }
    let changes = batch.messages.into_iter().filter_map(|m| match m {
        SourceMessage::Change(event) => Some(event),
        _ => None,
    });
    Ok(changes.collect())
}

/// id 1, hidden 9, note "ab", doc `true`.
const ROW: &[u8] = &[0, 1, 0, 0, 0, 9, 2, b'a', b'b', 3, 0, 0, 0, 4, 1, 0];

#[test]
fn inserts_and_deletes_are_read_past_columns_nobody_wants() {
    for (of, op) in [(kind::WRITE, ChangeOp::Insert), (kind::DELETE_V1, ChangeOp::Delete)] {
        let two = [ROW, ROW].concat();
        let changes = read(of, 0b1111, None, &two).unwrap();
        assert_eq!(changes.len(), 2);
        let row = &changes[1].row;
        assert_eq!((changes[1].op, changes[1].committed_at), (op, 5));
        assert!(row.iter().eq([Value::Int(1), Value::Text("ab"), Value::Json("true")]));
    }
}

#[test]
fn what_a_minimal_image_leaves_out_is_unchanged() {
    // Before: the key alone. After: the note alone, null.
    let bytes = [0, 1, 0, 0, 0, 1];
    let changes = read(kind::UPDATE, 0b0001, Some(0b0100), &bytes).unwrap();
    assert_eq!((changes[0].op, changes[0].old.is_none()), (ChangeOp::Update, true));
    assert!(changes[0].row.iter().eq([Value::Int(1), Value::Null, Value::Unchanged]));
    // Without its key a row cannot be named.
    assert_eq!(read(kind::DELETE, 0b0100, None, &[1]).unwrap_err().kind, ErrorKind::SettingWrong);
}

#[test]
fn a_changed_key_is_a_delete_and_an_insert() {
    let mut after = ROW.to_vec();
    after[1] = 7;
    let changes = read(kind::UPDATE_V1, 0b1111, Some(0b1111), &[ROW, &after].concat()).unwrap();
    let seen: Vec<_> = changes.iter().map(|c| (c.op, c.row.get(0))).collect();
    assert_eq!(seen, [(ChangeOp::Delete, Value::Int(1)), (ChangeOp::Insert, Value::Int(7))]);
}

#[test]
fn partial_documents_need_the_old_ones() {
    // Value options 1, bit of the one document set, then nulls, id, changes: replace $ by false.
    let after = [1, 1, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 1, b'$', 2, 4, 2];
    let changes = read(kind::PARTIAL_UPDATE, 0b1111, Some(0b1001), &[ROW, &after].concat()).unwrap();
    assert!(changes[0].row.iter().eq([Value::Int(1), Value::Text("ab"), Value::Json("false")]));
    assert!(changes[0].old.is_some());
    let key_only = [0, 1, 0, 0, 0];
    let changes = read(kind::PARTIAL_UPDATE, 0b0001, Some(0b1001), &[&key_only[..], &after].concat()).unwrap();
    assert!(changes[0].row.iter().eq([Value::Int(1), Value::Unchanged, Value::Unchanged]));
}

#[test]
fn a_row_that_ends_early_is_an_error() {
    for cut in 1..ROW.len() {
        assert!(read(kind::WRITE, 0b1111, None, &ROW[..cut]).is_err(), "{cut}");
    }
}
