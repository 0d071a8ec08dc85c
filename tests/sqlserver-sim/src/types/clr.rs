//! The CLR types that ship with the server: `hierarchyid`, `geography`, `geometry`.
//!
//! `hierarchyid` is encoded as "[MS-SSCLRT] HierarchyId Structure" says, for node labels from -8 to 79 (the first four
//! rows of its table), which is what tests write. The spatial types hold single points ("[MS-SSCLRT] GEOGRAPHY
//! Structure", version 1, property "single point"); other shapes can be stored as bytes but not written as text.

use crate::error::{Result, SqlError};

struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn push(&mut self, value: u64, width: usize) {
        for i in (0..width).rev() {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if value >> i & 1 == 1 {
                let last = self.bytes.len() - 1;
                self.bytes[last] |= 0x80 >> (self.count % 8);
            }
            self.count += 1;
        }
    }
}

fn bad_hierarchy(text: &str) -> SqlError {
    SqlError::new(
        6522,
        16,
        2,
        format!(
            "A .NET Framework error occurred during execution of user-defined routine or aggregate \"hierarchyid\": \
             24001: SqlHierarchyId.Parse failed because the input string '{text}' is not a valid string representation \
             of a SqlHierarchyId node."
        ),
    )
}

/// Bytes of `/1/3/`.
pub fn hierarchy_bytes(text: &str) -> Result<Vec<u8>> {
    let inner = text.strip_prefix('/').ok_or_else(|| bad_hierarchy(text))?;
    if inner.is_empty() {
        return Ok(Vec::new());
    }
    let inner = inner.strip_suffix('/').ok_or_else(|| bad_hierarchy(text))?;
    let mut bits = Bits { bytes: Vec::new(), count: 0 };
    for label in inner.split('/') {
        let n: i64 = match label.parse() {
            Ok(n) => n,
            Err(_) if label.contains('.') => return Err(SqlError::unmodelled("hierarchyid labels with a point")),
            Err(_) => return Err(bad_hierarchy(text)),
        };
        // The last bit of each label is the terminator "1": the label stands for itself and not for a place between.
        match n {
            0..=3 => bits.push(0b0_1001 | (n.cast_unsigned() << 1), 5),
            4..=7 => bits.push(0b10_0001 | ((n - 4).cast_unsigned() << 1), 6),
            8..=15 => bits.push(0b101_0001 | ((n - 8).cast_unsigned() << 1), 7),
            16..=79 => {
                // 110 aa 0 b 1 ccc and the terminator.
                let v = (n - 16).cast_unsigned();
                let (a, b, c) = (v >> 4 & 3, v >> 3 & 1, v & 7);
                bits.push(0b110, 3);
                bits.push(a, 2);
                bits.push(0, 1);
                bits.push(b, 1);
                bits.push(1, 1);
                bits.push(c, 3);
                bits.push(1, 1);
            }
            -8..=-1 => {
                bits.push(0b00111, 5);
                bits.push((n + 8).cast_unsigned(), 3);
                bits.push(1, 1);
            }
            _ => return Err(SqlError::unmodelled(format!("the hierarchyid label {n}"))),
        }
    }
    Ok(bits.bytes)
}

/// `/1/3/` of bytes.
pub fn hierarchy_text(bytes: &[u8]) -> Result<String> {
    let total = bytes.len() * 8;
    let mut at = 0;
    let bit = |i: usize| if i < total { u64::from(bytes[i / 8] >> (7 - i % 8) & 1) } else { 0 };
    let take = |at: &mut usize, n: usize| {
        let mut v = 0;
        for _ in 0..n {
            v = v << 1 | bit(*at);
            *at += 1;
        }
        v
    };
    let mut out = String::from("/");
    while at < total && (at..total).any(|i| bit(i) == 1) {
        let start = at;
        let label: i64 = if take(&mut at, 2) == 0b01 {
            take(&mut at, 2).cast_signed()
        } else {
            at = start;
            match take(&mut at, 3) {
                0b100 => 4 + take(&mut at, 2).cast_signed(),
                0b101 => 8 + take(&mut at, 3).cast_signed(),
                0b110 => {
                    let a = take(&mut at, 2);
                    at += 1;
                    let b = take(&mut at, 1);
                    at += 1;
                    16 + (a << 4 | b << 3 | take(&mut at, 3)).cast_signed()
                }
                _ => {
                    at = start;
                    if take(&mut at, 5) != 0b00111 {
                        return Err(SqlError::unmodelled("hierarchyid labels outside -8 to 79"));
                    }
                    take(&mut at, 3).cast_signed() - 8
                }
            }
        };
        if take(&mut at, 1) != 1 {
            return Err(SqlError::unmodelled("hierarchyid labels with a point"));
        }
        out.push_str(&format!("{label}/"));
    }
    Ok(out)
}

/// Bytes of a spatial point. `x` is the longitude; a `geography` keeps the latitude first.
pub fn point(srid: i32, x: f64, y: f64, geography: bool) -> Vec<u8> {
    let (first, second) = if geography { (y, x) } else { (x, y) };
    let mut out = srid.to_le_bytes().to_vec();
    // Version 1; valid (0x04) and single point (0x08).
    out.extend([1, 0x0C]);
    out.extend(first.to_le_bytes());
    out.extend(second.to_le_bytes());
    out
}

/// Reads `POINT (x y)`.
pub fn parse_point(text: &str, srid: i32, geography: bool) -> Result<Vec<u8>> {
    let upper = text.trim().to_ascii_uppercase();
    let body = upper
        .strip_prefix("POINT")
        .map(str::trim)
        .and_then(|t| t.strip_prefix('(')?.strip_suffix(')'))
        .ok_or_else(|| SqlError::unmodelled("spatial shapes other than POINT (x y)"))?;
    let numbers: Vec<f64> = body.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [x, y] = numbers[..] else { return Err(SqlError::unmodelled("points that are not two-dimensional")) };
    Ok(point(srid, x, y, geography))
}

/// `POINT (x y)` of bytes.
pub fn point_text(bytes: &[u8], geography: bool) -> Result<String> {
    let (first, second) = coordinates(bytes)?;
    let (x, y) = if geography { (second, first) } else { (first, second) };
    Ok(format!("POINT ({x} {y})"))
}

/// Well-known binary of a point, for `STAsBinary()`.
pub fn point_wkb(bytes: &[u8], geography: bool) -> Result<Vec<u8>> {
    let (first, second) = coordinates(bytes)?;
    let (x, y) = if geography { (second, first) } else { (first, second) };
    let mut out = vec![1, 1, 0, 0, 0];
    out.extend(x.to_le_bytes());
    out.extend(y.to_le_bytes());
    Ok(out)
}

fn coordinates(bytes: &[u8]) -> Result<(f64, f64)> {
    let number = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(f64::from_le_bytes);
    match (bytes.get(4..6), number(6), number(14)) {
        (Some([1, 0x0C]), Some(a), Some(b)) if bytes.len() == 22 => Ok((a, b)),
        _ => Err(SqlError::unmodelled("the text of spatial shapes other than points")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::format::hex;

    #[test]
    fn hierarchies() {
        // Published examples: '/1/' is 0x58, '/2/' 0x68, '/1/1/' 0x5AC0, '/3/' 0x78.
        assert_eq!(hex(&hierarchy_bytes("/1/").unwrap()), "58");
        assert_eq!(hex(&hierarchy_bytes("/2/").unwrap()), "68");
        assert_eq!(hex(&hierarchy_bytes("/1/1/").unwrap()), "5AC0");
        for text in ["/", "/0/", "/1/2/3/", "/4/7/", "/8/15/", "/16/", "/79/1/", "/-1/-8/"] {
            assert_eq!(hierarchy_text(&hierarchy_bytes(text).unwrap()).unwrap(), text);
        }
        assert!(hierarchy_bytes("1/").is_err());
        assert!(hierarchy_bytes("/100/").is_err());
    }

    #[test]
    fn points() {
        let p = parse_point("POINT (-122.5 47.25)", 4326, true).unwrap();
        assert_eq!(hex(&p), "E6100000010C0000000000A047400000000000A05EC0");
        assert_eq!(point_text(&p, true).unwrap(), "POINT (-122.5 47.25)");
        assert!(parse_point("LINESTRING (0 0, 1 1)", 0, false).is_err());
    }
}
