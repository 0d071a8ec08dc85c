//! Type OIDs → [`Kind`]s: a fixed table for the built-in scalar types, the catalogue for everything else.

use crate::decode::{ArrayKind, CompositeKind, Kind};
use crate::error::undecodable;
use crate::sql::Queries;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tidemark_contract::Result;

/// What is known about a type.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct TypeInfo {
    /// How its text is read.
    pub(crate) kind: Kind,
    /// Labels, if it is an enumeration or a domain over one.
    pub(crate) labels: Vec<Box<str>>,
    /// OID of the type below all domains, and the modifier the domains give it (-1 for none).
    pub(crate) base: (u32, i32),
    /// Whether it is a domain that refuses null.
    pub(crate) not_null: bool,
}

/// The types met so far.
#[derive(Default)]
pub(crate) struct Types {
    known: HashMap<u32, Described>,
}

/// A type as the catalogue describes it.
#[derive(Clone, Deserialize)]
struct Described {
    oid: u32,
    name: Box<str>,
    /// `typtype`: b, c, d, e, r, m, p.
    class: Box<str>,
    base: u32,
    modifier: i32,
    not_null: bool,
    /// Element type, 0 unless it is a true array.
    element: u32,
    delimiter: Option<Box<str>>,
    hstore: bool,
    #[serde(default)]
    labels: Option<Vec<Box<str>>>,
    #[serde(default)]
    attributes: Option<Vec<(Box<str>, u32)>>,
}

impl Described {
    /// Whether the type cannot change while it keeps its OID. Labels and attributes can be added.
    fn is_fixed(&self) -> bool {
        !matches!(&*self.class, "c" | "e")
    }

    fn parts(&self) -> impl Iterator<Item = u32> {
        let attributes = self.attributes.iter().flatten().map(|(_, oid)| *oid);
        [self.base, self.element].into_iter().filter(|oid| *oid != 0).chain(attributes)
    }
}

impl Types {
    /// Learns about `oids` and the types they are made of. Enumerations and composite types are looked up again each
    /// time, for they may have changed.
    pub(crate) async fn learn(&mut self, connection: &mut impl Queries, oids: &[u32]) -> Result<()> {
        let mut fresh = HashSet::new();
        let mut queue: Vec<u32> = oids.to_vec();
        while !queue.is_empty() {
            let mut missing = Vec::new();
            while let Some(oid) = queue.pop() {
                if scalar(oid).is_some() || !fresh.insert(oid) {
                    continue;
                }
                match self.known.get(&oid) {
                    Some(known) if known.is_fixed() => queue.extend(known.parts()),
                    _ => missing.push(oid),
                }
            }
            if missing.is_empty() {
                break;
            }
            for row in connection.rows("reading types from the catalogue", &describe(&missing)).await? {
                let text = row.into_iter().next().flatten().unwrap_or_default();
                let described: Described = serde_json::from_str(&text).map_err(|e| {
                    undecodable("the catalogue's description of a type was not understood").caused_by(e)
                })?;
                queue.extend(described.parts());
                self.known.insert(described.oid, described);
            }
        }
        Ok(())
    }

    /// A type by its OID. One that the catalogue does not know (any more) is text: rows of the log may be older than a
    /// `DROP TYPE`.
    pub(crate) fn get(&self, oid: u32) -> TypeInfo {
        self.resolve(oid, 0)
    }

    fn resolve(&self, oid: u32, depth: u32) -> TypeInfo {
        let plain = |kind| TypeInfo { kind, labels: Vec::new(), base: (oid, -1), not_null: false };
        if let Some(kind) = scalar(oid) {
            return plain(kind);
        }
        let Some(described) = self.known.get(&oid).filter(|_| depth < 32) else { return plain(Kind::Text) };
        if described.hstore {
            return plain(Kind::Hstore);
        }
        match &*described.class {
            "d" => {
                let mut info = self.resolve(described.base, depth + 1);
                info.not_null |= described.not_null;
                if described.modifier >= 0 {
                    info.base.1 = described.modifier;
                }
                info
            }
            "c" => {
                let attribute = |(name, oid): &(Box<str>, u32)| (name.clone(), self.resolve(*oid, depth + 1).kind);
                let attributes = described.attributes.iter().flatten().map(attribute).collect();
                plain(Kind::Composite(Arc::new(CompositeKind { name: described.name.clone(), attributes })))
            }
            "e" => TypeInfo { labels: described.labels.clone().unwrap_or_default(), ..plain(Kind::Text) },
            _ if described.element != 0 => {
                let delimiter = described.delimiter.as_deref().and_then(|d| d.bytes().next()).unwrap_or(b',');
                let element = self.resolve(described.element, depth + 1).kind;
                plain(Kind::Array(Arc::new(ArrayKind { element, delimiter })))
            }
            _ => plain(Kind::Text),
        }
    }
}

const VARCHAR: u32 = 1043;
const BPCHAR: u32 = 1042;

/// The longest text in characters that a column of this type may hold; `modifier` is the column's own.
pub(crate) fn max_length(info: &TypeInfo, modifier: i32) -> Option<u32> {
    let (oid, inherited) = info.base;
    let modifier = if modifier >= 0 { modifier } else { inherited };
    if matches!(oid, VARCHAR | BPCHAR) { u32::try_from(modifier - 4).ok() } else { None }
}

/// Built-in scalar types, whose OIDs never change. Built-in types that are missing here are read as text or described by
/// the catalogue (arrays).
fn scalar(oid: u32) -> Option<Kind> {
    Some(match oid {
        16 => Kind::Bool,
        17 => Kind::Bytea,
        20 | 21 | 23 | 26 | 28 | 29 | 5069 => Kind::Int,
        18 | 19 | 25 | 142 | 650 | 790 | 829 | 869 | 774 | 1042 | 1043 | 1186 | 1560 | 1562 => Kind::Text,
        114 | 3802 => Kind::Json,
        700 => Kind::Float4,
        701 => Kind::Float8,
        1082 => Kind::Date,
        1083 => Kind::Time,
        1114 => Kind::Timestamp,
        1184 => Kind::TimestampTz,
        1266 => Kind::TimeTz,
        1700 => Kind::Numeric,
        2950 => Kind::Uuid,
        _ => return None,
    })
}

fn describe(oids: &[u32]) -> String {
    let list: Vec<String> = oids.iter().map(u32::to_string).collect();
    format!(
        "SELECT pg_catalog.jsonb_build_object(
            'oid', t.oid::int8,
            'name', n.nspname || '.' || t.typname,
            'class', t.typtype,
            'base', t.typbasetype::int8,
            'modifier', t.typtypmod,
            'not_null', t.typtype = 'd' AND t.typnotnull,
            'element', CASE WHEN t.typtype = 'b' AND t.typoutput = 'array_out'::regproc THEN t.typelem::int8 ELSE 0 END,
            'delimiter', e.typdelim,
            'hstore', t.typtype = 'b' AND t.typname = 'hstore' AND o.proname = 'hstore_out',
            'labels', (SELECT jsonb_agg(l.enumlabel ORDER BY l.enumsortorder) FROM pg_enum l WHERE l.enumtypid = t.oid),
            'attributes', (SELECT jsonb_agg(jsonb_build_array(a.attname, a.atttypid::int8) ORDER BY a.attnum)
                FROM pg_attribute a
                WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
        FROM pg_type t
        JOIN pg_namespace n ON n.oid = t.typnamespace
        JOIN pg_proc o ON o.oid = t.typoutput
        LEFT JOIN pg_type e ON e.oid = t.typelem
        WHERE t.oid IN ({})",
        list.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(json: &str) -> Described {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn domains_arrays_and_composites_are_seen_through() {
        let mut types = Types::default();
        for json in [
            r#"{"oid":900001,"name":"p.short","class":"d","base":1043,"modifier":44,"not_null":true,"element":0,
                "delimiter":null,"hstore":false,"labels":null,"attributes":null}"#,
            r#"{"oid":900002,"name":"p._short","class":"b","base":0,"modifier":-1,"not_null":false,"element":900001,
                "delimiter":",","hstore":false}"#,
            r#"{"oid":900003,"name":"p.pair","class":"c","base":0,"modifier":-1,"not_null":false,"element":0,
                "delimiter":null,"hstore":false,"attributes":[["a",23],["b",900002]]}"#,
        ] {
            let d = described(json);
            types.known.insert(d.oid, d);
        }
        let short = types.get(900_001);
        assert_eq!((short.kind.clone(), short.not_null, max_length(&short, -1)), (Kind::Text, true, Some(40)));
        let Kind::Composite(pair) = types.get(900_003).kind else { panic!("composite") };
        assert_eq!(pair.attributes[0], ("a".into(), Kind::Int));
        assert!(matches!(&pair.attributes[1].1, Kind::Array(a) if a.element == Kind::Text));
        assert_eq!(types.get(999_999).kind, Kind::Text);
    }

    #[test]
    fn a_type_that_holds_itself_ends() {
        let mut types = Types::default();
        let d = described(
            r#"{"oid":900001,"name":"p.loop","class":"c","base":0,"modifier":-1,"not_null":false,"element":0,
                "delimiter":null,"hstore":false,"attributes":[["a",900001]]}"#,
        );
        types.known.insert(d.oid, d);
        assert!(matches!(types.get(900_001).kind, Kind::Composite(_)));
    }
}
