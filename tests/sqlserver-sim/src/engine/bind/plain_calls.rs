//! Functions of their arguments alone: text, numbers, and the methods of CLR types.

use super::{Binder, Bound, Scope};
use crate::error::{Result, SqlError};
use crate::sql::ast::Expr;
use crate::types::{Kind, MAX, SqlType};

fn int() -> SqlType {
    SqlType::of(Kind::Int)
}

fn text_type(b: &Bound) -> SqlType {
    b.ty
}

impl Binder<'_> {
    pub(crate) fn plain_call(&mut self, name: &str, args: Vec<Bound>) -> Result<Bound> {
        let count = args.len();
        let nullable = args.iter().any(|a| a.nullable);
        let wrong = || {
            SqlError::new(
                174,
                15,
                1,
                format!("The {name} function requires a different number of arguments than {count}."),
            )
        };
        let mut it = args.into_iter();
        let mut next = || it.next().ok_or_else(wrong);
        let done = |sql: String, ty: SqlType| Bound { nullable, ..Bound::new(sql, ty) };
        Ok(match (name, count) {
            ("len", 1) => done(format!("t_len({})", self.text_arg(next()?)?.sql), int()),
            ("datalength", 1) => {
                let b = next()?;
                let ty = if b.ty.is_max() { SqlType::of(Kind::BigInt) } else { int() };
                done(format!("t_datalength({}, {})", b.sql, b.ty.code()), ty)
            }
            ("substring", 3) => {
                let b = next()?;
                let b = if b.ty.is_binary() || b.ty.kind == Kind::Image { b } else { self.text_arg(b)? };
                let ty = match b.ty.kind {
                    Kind::Char => SqlType { kind: Kind::VarChar, ..b.ty },
                    Kind::NChar => SqlType { kind: Kind::NVarChar, ..b.ty },
                    Kind::Binary | Kind::RowVersion => SqlType { kind: Kind::VarBinary, ..b.ty },
                    Kind::Image => SqlType::max(Kind::VarBinary),
                    _ => b.ty,
                };
                Bound { hold: b.hold, ..done(format!("t_substring({}, {}, {})", b.sql, next()?.sql, next()?.sql), ty) }
            }
            ("left", 2) => {
                let b = self.text_arg(next()?)?;
                Bound { hold: b.hold, ..done(format!("t_substring({}, 1, {})", b.sql, next()?.sql), text_type(&b)) }
            }
            ("right", 2) => {
                let b = self.text_arg(next()?)?;
                Bound { hold: b.hold, ..done(format!("t_right({}, {})", b.sql, next()?.sql), text_type(&b)) }
            }
            ("upper" | "lower" | "reverse", 1) => {
                let b = self.text_arg(next()?)?;
                Bound { hold: b.hold, ..done(format!("t_{name}({})", b.sql), b.ty) }
            }
            ("ltrim" | "rtrim" | "trim", 1) => {
                let b = self.text_arg(next()?)?;
                let kind =
                    if matches!(b.ty.kind, Kind::NChar | Kind::NVarChar) { Kind::NVarChar } else { Kind::VarChar };
                Bound { hold: b.hold, ..done(format!("{name}({}, ' ')", b.sql), SqlType { kind, ..b.ty }) }
            }
            ("replicate", 2) => {
                let b = next()?;
                let b = if b.ty.is_binary() { b } else { self.text_arg(b)? };
                // Cut at 8000 bytes unless the argument is (max).
                let max = b.ty.len == MAX;
                let wide = matches!(b.ty.kind, Kind::NChar | Kind::NVarChar);
                let ty = match (b.ty.is_binary(), max, wide) {
                    (true, ..) => SqlType { len: if max { MAX } else { 8000 }, kind: Kind::VarBinary, ..b.ty },
                    (_, true, _) => b.ty,
                    (_, false, true) => SqlType { len: 4000, kind: Kind::NVarChar, ..b.ty },
                    _ => SqlType { len: 8000, kind: Kind::VarChar, ..b.ty },
                };
                let whole = SqlType { len: MAX, ..ty };
                let repeated = done(format!("t_replicate({}, {})", b.sql, next()?.sql), whole);
                if max { repeated } else { self.cast(repeated, ty, None, false) }
            }
            ("replace", 3) => {
                let (a, b, c) = (self.text_arg(next()?)?, self.text_arg(next()?)?, self.text_arg(next()?)?);
                let code = a.ty.code();
                let wide = [&a, &b, &c].iter().any(|x| matches!(x.ty.kind, Kind::NChar | Kind::NVarChar));
                let ty = if a.ty.len == MAX {
                    a.ty
                } else {
                    SqlType {
                        len: if wide { 4000 } else { 8000 },
                        kind: if wide { Kind::NVarChar } else { Kind::VarChar },
                        ..a.ty
                    }
                };
                Bound { hold: a.hold, ..done(format!("t_replace({}, {}, {}, {code})", a.sql, b.sql, c.sql), ty) }
            }
            ("charindex", 2 | 3) => {
                let (a, b) = (self.text_arg(next()?)?, self.text_arg(next()?)?);
                let start = if count == 3 { next()?.sql } else { "1".into() };
                done(format!("t_charindex({}, {}, {start}, {})", a.sql, b.sql, b.ty.code()), int())
            }
            ("stuff", 4) => {
                let a = self.text_arg(next()?)?;
                let (start, length, with) = (next()?, next()?, self.text_arg(next()?)?);
                let ty = SqlType { len: if a.ty.len == MAX { MAX } else { 4000 }, ..a.ty };
                Bound::new(format!("t_stuff({}, {}, {}, ifnull({}, ''))", a.sql, start.sql, length.sql, with.sql), ty)
            }
            ("concat", n) if n >= 2 => {
                let parts: Vec<Bound> = it.map(|b| self.text_arg(b)).collect::<Result<_>>()?;
                let wide = parts.iter().any(|p| matches!(p.ty.kind, Kind::NChar | Kind::NVarChar));
                let max = parts.iter().any(|p| p.ty.len == MAX);
                let kind = if wide { Kind::NVarChar } else { Kind::VarChar };
                let ty = if max {
                    SqlType::max(kind)
                } else {
                    SqlType { len: if wide { 4000 } else { 8000 }, ..SqlType::of(kind) }
                };
                let sql = parts.iter().map(|p| format!("ifnull({}, '')", p.sql)).collect::<Vec<_>>().join(" || ");
                Bound::new(format!("({sql})"), ty.collate(self.session.db.collation)).not_null()
            }
            ("quotename", 1 | 2) => {
                let a = self.text_arg(next()?)?;
                let quote = if count == 2 { next()?.sql } else { "'['".into() };
                Bound::new(format!("t_quotename({}, {quote})", a.sql), SqlType::sized(Kind::NVarChar, 258))
            }
            ("parsename", 2) => Bound::new(format!("t_namepart({}, {})", next()?.sql, next()?.sql), SqlType::sysname()),
            ("space", 1) => done(format!("t_replicate(' ', {})", next()?.sql), SqlType::sized(Kind::VarChar, 8000)),
            ("unicode", 1) => Bound::new(format!("t_unicode({})", next()?.sql), int()),
            ("ascii", 1) => {
                let b = self.text_arg(next()?)?;
                Bound::new(format!("t_ascii({}, {})", b.sql, b.ty.code()), int())
            }
            ("nchar", 1) => Bound::new(format!("t_nchar({})", next()?.sql), SqlType::sized(Kind::NChar, 1)),
            ("char", 1) => {
                let ty = SqlType::sized(Kind::Char, 1).collate(self.session.db.collation);
                Bound::new(format!("t_char({}, {})", next()?.sql, ty.code()), ty)
            }
            ("abs" | "sign" | "ceiling" | "floor", 1) | ("round", 2) => {
                let b = next()?;
                let b = if b.ty.is_number() { b } else { self.implicit(b, SqlType::of(Kind::Float))? };
                let second = if count == 2 { next()?.sql } else { "0".into() };
                done(format!("t_math('{name}', {}, {second}, {})", b.sql, b.ty.code()), b.ty)
            }
            ("sqrt", 1) | ("power", 2) => {
                let b = next()?;
                let float = SqlType::of(Kind::Float);
                let b = if name == "power" && b.ty.is_integer() { b } else { self.implicit(b, float)? };
                let second = if count == 2 { next()?.sql } else { "0".into() };
                done(format!("t_math('{name}', {}, {second}, {})", b.sql, b.ty.code()), b.ty)
            }
            ("newid" | "newsequentialid", 0) => Bound::new("t_newid()", SqlType::of(Kind::UniqueIdentifier)).not_null(),
            ("switchoffset", 2) => {
                let b = self.implicit(next()?, SqlType::of(Kind::DateTimeOffset))?;
                done(format!("t_switchoffset({}, {})", b.sql, next()?.sql), b.ty)
            }
            ("todatetimeoffset", 2) => {
                let b = self.implicit(next()?, SqlType::of(Kind::DateTime2))?;
                done(
                    format!("t_todatetimeoffset({}, {})", b.sql, next()?.sql),
                    SqlType::scaled(Kind::DateTimeOffset, b.ty.scale),
                )
            }
            ("sql_variant_property", 2) => {
                Bound::new(format!("t_variant({}, {})", next()?.sql, next()?.sql), SqlType::of(Kind::Variant))
            }
            _ => {
                let known = [
                    "len",
                    "substring",
                    "left",
                    "right",
                    "upper",
                    "lower",
                    "replace",
                    "round",
                    "abs",
                    "newid",
                    "concat",
                ];
                if known.contains(&name) {
                    return Err(wrong());
                }
                return Err(SqlError::new(
                    195,
                    15,
                    10,
                    format!("'{name}' is not a recognized built-in function name."),
                ));
            }
        })
    }

    /// `x.ToString()`, `x.STAsText()`, `x.STAsBinary()`: "hierarchyid methods", "OGC methods on geography instances".
    pub fn method(&mut self, target: &Expr, name: &str, args: &[Expr], scope: &Scope<'_>) -> Result<Bound> {
        let b = self.value(target, scope)?;
        let clr = matches!(b.ty.kind, Kind::HierarchyId | Kind::Geography | Kind::Geometry);
        let (sql, ty) = match (name.to_ascii_lowercase().as_str(), args) {
            ("tostring", []) | ("stastext", []) if clr => (
                format!("t_tostring({}, {})", b.sql, b.ty.code()),
                if b.ty.kind == Kind::HierarchyId {
                    SqlType::sized(Kind::NVarChar, 4000)
                } else {
                    SqlType::max(Kind::NVarChar)
                },
            ),
            ("stasbinary", []) if clr && b.ty.kind != Kind::HierarchyId => {
                (format!("t_wkb({}, {})", b.sql, b.ty.code()), SqlType::max(Kind::VarBinary))
            }
            (other, _) => return Err(SqlError::unmodelled(format!("the method {other} of {}", b.ty.name()))),
        };
        Ok(Bound::new(sql, ty))
    }

    /// `geography::Point(…)`, `geography::STGeomFromText(…)`, `hierarchyid::Parse(…)`, `hierarchyid::GetRoot()`.
    pub fn static_method(&mut self, ty: &str, name: &str, args: &[Expr], scope: &Scope<'_>) -> Result<Bound> {
        let args: Vec<Bound> = args.iter().map(|a| self.value(a, scope)).collect::<Result<_>>()?;
        let kind = SqlType::declared(ty, &[], true)?;
        let float = SqlType::of(Kind::Float);
        let geography = kind.kind == Kind::Geography;
        let sql = match (kind.kind, name.to_ascii_lowercase().as_str(), &args[..]) {
            (Kind::Geography | Kind::Geometry, "point", [a, b, srid]) => {
                let (a, b) = (self.implicit(a.clone(), float)?.sql, self.implicit(b.clone(), float)?.sql);
                // geography::Point takes the latitude first.
                let (x, y) = if geography { (b, a) } else { (a, b) };
                format!("t_point({x}, {y}, {}, {})", srid.sql, i64::from(geography))
            }
            (Kind::Geography | Kind::Geometry, "stgeomfromtext" | "stpointfromtext", [t, srid]) => {
                format!("t_pointtext({}, {}, {})", t.sql, srid.sql, i64::from(geography))
            }
            (Kind::HierarchyId, "parse", [t]) => return Ok(self.cast(t.clone(), kind, None, false)),
            (Kind::HierarchyId, "getroot", []) => "x''".into(),
            _ => return Err(SqlError::unmodelled(format!("{ty}::{name}"))),
        };
        Ok(Bound::new(sql, kind))
    }
}
