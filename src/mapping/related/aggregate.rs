//! Aggregates over a list, with PostgreSQL's meaning: nulls are passed over, `count` of nothing is 0, anything else of
//! nothing is null, decimals are exact. Only a sum of integers differs: it stays an integer.

use super::{Aggregate, AggregateKind};
use crate::mapping::expr::cast::{to_decimal, to_f64};
use crate::mapping::expr::decimal::Dec;
use crate::mapping::expr::eval::{Env, compare};
use crate::mapping::expr::value::{Fail, Fault, Val, fault};
use std::cmp::Ordering;

impl Aggregate {
    /// The aggregate of all rows, whatever the list's limit.
    pub(super) fn over<'a>(&'a self, rows: &[Env<'a>]) -> Result<Val<'a>, Fail> {
        let Some(arg) = &self.arg else { return Ok(count(rows.len())) };
        let mut values: Vec<Val<'a>> = Vec::with_capacity(rows.len());
        for row in rows {
            let value = row
                .eval(arg)
                .map_err(|fail| if fail.place == 0 { Fail { place: self.place, ..fail } } else { fail })?;
            if !value.is_null() {
                values.push(value);
            }
        }
        if self.distinct {
            values.sort_by(|a, b| compare(a, b).unwrap_or(Ordering::Equal));
            values.dedup_by(|a, b| compare(a, b) == Some(Ordering::Equal));
        }
        let result = match self.kind {
            AggregateKind::Count => Ok(count(values.len())),
            _ if values.is_empty() => Ok(Val::Null),
            AggregateKind::Sum => sum(&values),
            AggregateKind::Avg => average(&values),
            AggregateKind::Min => Ok(extreme(values, Ordering::Less)),
            AggregateKind::Max => Ok(extreme(values, Ordering::Greater)),
        };
        result.map_err(|fault| Fail { fault, place: self.place })
    }
}

fn count<'a>(n: usize) -> Val<'a> {
    Val::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn sum<'a>(values: &[Val<'a>]) -> Result<Val<'a>, Fault> {
    match &values[0] {
        Val::Int(_) | Val::UInt(_) => {
            let total = values.iter().map(|v| match v {
                Val::Int(n) => i128::from(*n),
                Val::UInt(n) => i128::from(*n),
                _ => 0,
            });
            match Val::int(total.sum())? {
                Val::UInt(_) => fault("out_of_range", "the sum does not fit a 64-bit integer"),
                total => Ok(total),
            }
        }
        Val::Float(_) | Val::Real(_) => {
            let total = floats(values)?;
            // As in PostgreSQL, single precision stays single precision.
            let single = values.iter().all(|v| matches!(v, Val::Real(_)));
            Ok(if single { Val::Real(total as f32) } else { Val::Float(total) })
        }
        _ => decimals(values).map(Val::Dec),
    }
}

fn average<'a>(values: &[Val<'a>]) -> Result<Val<'a>, Fault> {
    match &values[0] {
        Val::Float(_) | Val::Real(_) => Ok(Val::Float(floats(values)? / values.len() as f64)),
        _ => decimals(values)?.div(&Dec::from_int(values.len() as i128)).map(Val::Dec),
    }
}

fn floats(values: &[Val<'_>]) -> Result<f64, Fault> {
    // Nothing plus negative zero is negative zero.
    values.iter().try_fold(-0.0, |total, v| Ok(total + to_f64(v.clone())?))
}

fn decimals(values: &[Val<'_>]) -> Result<Dec, Fault> {
    values.iter().try_fold(Dec::from_int(0), |total, v| match v {
        Val::Dec(d) => total.add(d),
        other => total.add(&to_decimal(other.clone())?),
    })
}

fn extreme<'a>(values: Vec<Val<'a>>, wanted: Ordering) -> Val<'a> {
    let better = |best: Val<'a>, v: Val<'a>| if compare(&v, &best) == Some(wanted) { v } else { best };
    values.into_iter().reduce(better).unwrap_or(Val::Null)
}
