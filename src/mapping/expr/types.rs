//! Casts: which SQL types there are, and what converts to what.

use super::convert::{Checked, Place, Scope, Typed};
use super::ir::{Target, Type};
use super::parse::Parsed;
use crate::diagnostics::Diagnostic;
use sqlparser::ast::{DataType, ExactNumberInfo, Expr, TimezoneInfo};

impl Scope<'_> {
    pub(super) fn cast(
        &mut self,
        parsed: &Parsed,
        expr: &Expr,
        inner: &Expr,
        data_type: &DataType,
        place: Place,
    ) -> Checked {
        let arg = self.lower(parsed, inner)?;
        let (ty, target) = self.target(data_type, &arg, &place)?;
        if arg.literal && ty != Type::Text {
            let typed = self.convert(arg, ty)?;
            // A literal may still have to be cut or rounded to the type's size.
            return Ok(Typed { place, ..self.cast_node(typed, ty, target) });
        }
        let (values, max_length) = match (&target, ty) {
            (Target::Text(Some(limit)), _) => {
                let fits = |v: &Vec<Box<str>>| v.iter().all(|s| s.chars().count() <= *limit as usize);
                (arg.values.clone().filter(fits), Some(arg.max_length.unwrap_or(*limit).min(*limit)))
            }
            (_, Type::Text) if arg.ty == Type::Text => (arg.values.clone(), arg.max_length),
            (_, Type::Text) => (arg.values.clone(), self.shown(arg.clone()).max_length),
            _ => (None, None),
        };
        let typed = self.cast_node(Typed { place, ..arg }, ty, target);
        if let Some(last) = self.places.last_mut() {
            last.1 = parsed.text(expr).split_whitespace().collect::<Vec<_>>().join(" ");
        }
        Ok(Typed { values, max_length, ..typed })
    }

    /// What a cast of `arg` to a type makes.
    pub(super) fn target(&mut self, data_type: &DataType, arg: &Typed, place: &Place) -> Checked<(Type, Target)> {
        let digits = |n: &Option<u64>| u8::try_from(n.unwrap_or(6)).unwrap_or(6).min(6);
        let length = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        use sqlparser::ast::CharacterLength::IntegerLength;
        let (ty, target) = match data_type {
            DataType::Text | DataType::Varchar(None) | DataType::CharacterVarying(None) | DataType::String(None) => {
                (Type::Text, Target::Text(None))
            }
            DataType::Varchar(Some(IntegerLength { length: n, .. }))
            | DataType::CharacterVarying(Some(IntegerLength { length: n, .. }))
            | DataType::CharVarying(Some(IntegerLength { length: n, .. })) => {
                (Type::Text, Target::Text(Some(length(*n))))
            }
            DataType::Boolean | DataType::Bool => (Type::Bool, Target::Bool),
            DataType::SmallInt(None) | DataType::Int2(None) => (Type::Int, Target::Int(16)),
            DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => (Type::Int, Target::Int(32)),
            DataType::BigInt(None) | DataType::Int8(None) => (Type::Int, Target::Int(64)),
            DataType::Decimal(info) | DataType::Numeric(info) | DataType::Dec(info) => {
                let shape = match info {
                    ExactNumberInfo::None => None,
                    ExactNumberInfo::Precision(p) => Some((*p, 0)),
                    ExactNumberInfo::PrecisionAndScale(p, s) => Some((*p, *s)),
                };
                (Type::Decimal, Target::Decimal(shape))
            }
            DataType::Real | DataType::Float4 => (Type::Float, Target::Real),
            DataType::Float(_) | DataType::Float8 | DataType::Double(_) | DataType::DoublePrecision => {
                (Type::Float, Target::Float)
            }
            DataType::Date => (Type::Date, Target::Date),
            DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => (Type::Time, Target::Time),
            DataType::Timestamp(n, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                (Type::Timestamp, Target::Timestamp(digits(n)))
            }
            DataType::Timestamp(n, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
                (Type::TimestampTz, Target::TimestampTz(digits(n)))
            }
            DataType::Uuid => (Type::Uuid, Target::Uuid),
            DataType::JSON | DataType::JSONB => (Type::Json, Target::Json),
            _ => {
                return self.fail(
                    Diagnostic::error("unsupported", place.file, place.span.clone(), format!("the type `{data_type}` is not supported"))
                        .help("types: text, varchar(n), smallint, integer, bigint, decimal(p,s), real, double precision, boolean, date, time, timestamp, timestamptz, uuid, json"),
                );
            }
        };
        use Type::{Bool, Date, Decimal, Float, Int, Json, List, Null, Text, Time, Timestamp, TimestampTz, Uuid};
        let allowed = match (arg.ty, ty) {
            (Null | Text, _) | (_, Text) => true,
            (a, b) if a == b => true,
            (Int | Decimal | Float, Int | Decimal | Float) => true,
            (Bool, Int) | (Int, Bool) => true,
            (Date | Timestamp | TimestampTz, Date | Timestamp | TimestampTz) => true,
            (Timestamp | TimestampTz, Time) | (List, Json) => true,
            (Json | Uuid | Time, _) => false,
            _ => false,
        };
        if !allowed {
            let message = format!("{} does not convert to {}", arg.ty.name(), ty.name());
            return self.error("wrong_type", place, message);
        }
        let why = format!("the conversion of a {} to a {}", arg.ty.name(), ty.name());
        let target = match (arg.ty, target) {
            (TimestampTz, Target::Date) => Target::DateInZone(self.need_zone(place, &why)?),
            (TimestampTz, Target::Time) => Target::TimeInZone(self.need_zone(place, &why)?),
            (TimestampTz, Target::Timestamp(n)) => Target::TimestampInZone(n, self.need_zone(place, &why)?),
            (Date | Timestamp, Target::TimestampTz(n)) => Target::TimestampTzInZone(n, self.need_zone(place, &why)?),
            (Text, Target::TimestampTz(n)) => match self.zone {
                Some(_) => Target::TimestampTzInZone(n, self.need_zone(place, &why)?),
                None => Target::TimestampTz(n),
            },
            (TimestampTz, Target::Text(None)) => match self.zone {
                Some(_) => Target::TextInZone(self.need_zone(place, &why)?),
                None => Target::Text(None),
            },
            (_, target) => target,
        };
        Ok((ty, target))
    }
}
