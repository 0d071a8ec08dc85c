//! Geometry → GeoJSON.
//!
//! The server gives a geometry, in results and in the log alike, as four bytes of SRID and the well-known binary form. It
//! becomes a GeoJSON geometry (RFC 7946) with the coordinates as they are stored, longitude first. A reference system
//! other than 4326 or none at all (0) is named in a member `crs` as GeoJSON 2008 did.

use crate::cursor::Cursor;
use crate::error::undecodable;
use crate::types::Scratch;
use std::fmt::Write as _;
use tidemark_contract::{Result, RowBuilder, SourceError, Value};

const DEEPEST: u32 = 64;

fn malformed() -> SourceError {
    undecodable("a geometry is malformed")
}

/// Appends a geometry as the server gives it.
pub(crate) fn push(bytes: &[u8], row: &mut RowBuilder, scratch: &mut Scratch) -> Result<()> {
    let mut cursor = Cursor(bytes);
    let srid = cursor.u32()?;
    let out = &mut scratch.text2;
    out.clear();
    geometry(&mut cursor, out, 0, srid)?;
    if !cursor.is_empty() {
        return Err(malformed());
    }
    row.push(Value::Json(out));
    Ok(())
}

struct Reader<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    little: bool,
}

impl Reader<'_, '_> {
    fn count(&mut self) -> Result<u32> {
        let bytes = self.cursor.array()?;
        Ok(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn number(&mut self, out: &mut String) -> Result<()> {
        let bytes = self.cursor.array()?;
        let number = if self.little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) };
        if number.is_finite() {
            out.push_str(ryu::Buffer::new().format_finite(number));
        } else {
            out.push_str("null");
        }
        Ok(())
    }

    fn point(&mut self, out: &mut String) -> Result<()> {
        out.push('[');
        self.number(out)?;
        out.push(',');
        self.number(out)?;
        out.push(']');
        Ok(())
    }

    /// A counted list of parts.
    fn list(&mut self, out: &mut String, part: impl Fn(&mut Self, &mut String) -> Result<()>) -> Result<()> {
        let count = self.count()?;
        out.push('[');
        for at in 0..count {
            if at > 0 {
                out.push(',');
            }
            part(self, out)?;
        }
        out.push(']');
        Ok(())
    }

    /// A part of a collection of one kind: it repeats the byte order and the kind.
    fn part_head(&mut self, kind: u32) -> Result<()> {
        self.little = self.cursor.u8()? == 1;
        if self.count()? == kind { Ok(()) } else { Err(malformed()) }
    }
}

fn geometry(cursor: &mut Cursor<'_>, out: &mut String, depth: u32, srid: u32) -> Result<()> {
    if depth > DEEPEST {
        return Err(malformed());
    }
    let little = cursor.u8()? == 1;
    let mut reader = Reader { cursor, little };
    let kind = reader.count()?;
    let name = match kind {
        1 => "Point",
        2 => "LineString",
        3 => "Polygon",
        4 => "MultiPoint",
        5 => "MultiLineString",
        6 => "MultiPolygon",
        7 => "GeometryCollection",
        _ => return Err(undecodable(format!("a geometry is of the unknown kind {kind}"))),
    };
    let _ = write!(out, "{{\"type\":\"{name}\",\"{}\":", if kind == 7 { "geometries" } else { "coordinates" });
    let line = |r: &mut Reader<'_, '_>, out: &mut String| r.list(out, |r, out| r.point(out));
    match kind {
        1 => reader.point(out)?,
        2 => line(&mut reader, out)?,
        3 => reader.list(out, line)?,
        4 => reader.list(out, |r, out| r.part_head(1).and_then(|()| r.point(out)))?,
        5 => reader.list(out, |r, out| r.part_head(2).and_then(|()| line(r, out)))?,
        6 => reader.list(out, |r, out| r.part_head(3).and_then(|()| r.list(out, line)))?,
        _ => reader.list(out, |r, out| geometry(r.cursor, out, depth + 1, 0))?,
    }
    if srid != 0 && srid != 4326 {
        let _ = write!(out, ",\"crs\":{{\"type\":\"name\",\"properties\":{{\"name\":\"EPSG:{srid}\"}}}}");
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(bytes: &[u8]) -> Result<String> {
        let mut row = RowBuilder::default();
        push(bytes, &mut row, &mut Scratch::default())?;
        match row.finish().get(0) {
            Value::Json(text) => Ok(text.to_owned()),
            _ => Err(malformed()),
        }
    }

    fn point(x: f64, y: f64) -> Vec<u8> {
        [&[1, 1, 0, 0, 0][..], &x.to_le_bytes(), &y.to_le_bytes()].concat()
    }

    #[test]
    fn geometries_become_geojson() {
        let one = [&0_u32.to_le_bytes()[..], &point(1.5, -2.0)].concat();
        assert_eq!(shown(&one).unwrap(), r#"{"type":"Point","coordinates":[1.5,-2.0]}"#);
        let both = [&3857_u32.to_le_bytes()[..], &[1, 7, 0, 0, 0, 1, 0, 0, 0], &point(0.0, 1.0)].concat();
        assert_eq!(
            shown(&both).unwrap(),
            r#"{"type":"GeometryCollection","geometries":[{"type":"Point","coordinates":[0.0,1.0]}],"crs":{"type":"name","properties":{"name":"EPSG:3857"}}}"#
        );
        for cut in 0..both.len() {
            assert!(shown(&both[..cut]).is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_geometry_or_an_error(bytes in prop::collection::vec(0_u8..8, 0..120)) {
            let _ = shown(&bytes);
        }
    }
}
