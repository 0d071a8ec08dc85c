//! Evaluation of compiled expressions on one row. No allocation where a result is a part of the row, no parsing of
//! patterns, no loops but those over arguments: the cost of a row is bounded by the pack.

use super::cast::{cast, to_decimal, to_f64, to_text};
use super::civil::{Date, Timestamp};
use super::decimal::Dec;
use super::ir::{ArithOp, CmpOp, Node};
use super::parts::extract;
use super::text::{self, MAX_TEXT};
use super::value::{Fail, Fault, Val, fault, readable};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::cmp::Ordering;
use tidemark_contract::Row;

/// What an expression is evaluated on. Joined rows will stand beside `row`; columns are reached by number only.
pub(crate) struct Env<'a> {
    row: &'a Row,
    /// Position in the row of each column the rule uses.
    positions: &'a [u32],
    lets: &'a [Node],
    /// Results of `let`s, each computed when it is first needed.
    done: RefCell<SmallVec<[Option<Outcome<'a>>; 4]>>,
}

type Outcome<'a> = Result<Val<'a>, Fail>;

impl<'a> Env<'a> {
    pub(crate) fn new(row: &'a Row, positions: &'a [u32], lets: &'a [Node]) -> Self {
        Self { row, positions, lets, done: RefCell::new(SmallVec::from_iter(lets.iter().map(|_| None))) }
    }

    /// The raw value of one of the rule's columns.
    #[inline]
    pub(crate) fn column(&self, number: u16) -> tidemark_contract::Value<'a> {
        let position = self.positions.get(usize::from(number)).map_or(usize::MAX, |p| *p as usize);
        self.row.get(position)
    }

    fn named(&self, number: u16) -> Outcome<'a> {
        let index = usize::from(number);
        if let Some(Some(done)) = self.done.borrow().get(index) {
            return done.clone();
        }
        let result = match self.lets.get(index) {
            Some(node) => self.eval(node),
            None => Err(Fail { fault: BUG, place: 0 }),
        };
        if let Some(slot) = self.done.borrow_mut().get_mut(index) {
            *slot = Some(result.clone());
        }
        result
    }

    /// Evaluates a condition.
    pub(crate) fn is_true(&self, node: &'a Node) -> Result<bool, Fail> {
        Ok(matches!(self.eval(node)?, Val::Bool(true)))
    }

    /// Evaluates one node.
    pub(crate) fn eval(&self, node: &'a Node) -> Outcome<'a> {
        match node {
            Node::Const(c) => Ok(c.val()),
            Node::Column(n) => readable(self.column(*n)).and_then(Val::read).map_err(|fault| Fail { fault, place: 0 }),
            Node::Binary(n) => Val::read(self.column(*n)).map_err(|fault| Fail { fault, place: 0 }),
            Node::Let(n) => self.named(*n),
            Node::Cast { to, arg, place } => at(*place, cast(to, self.eval(arg)?)),
            Node::Concat(parts) => self.concat(parts),
            Node::Arith { op, left, right, place } => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                at(*place, arith(*op, left, right))
            }
            Node::Neg { arg, place } => at(*place, negate(self.eval(arg)?)),
            Node::Cmp { op, left, right } => {
                let order = compare(&self.eval(left)?, &self.eval(right)?);
                Ok(order.map_or(Val::Null, |order| Val::Bool(holds(*op, order))))
            }
            Node::Distinct { negated, left, right } => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                let same = match (left.is_null(), right.is_null()) {
                    (false, false) => compare(&left, &right) == Some(Ordering::Equal),
                    (left, right) => left == right,
                };
                Ok(Val::Bool(same == *negated))
            }
            Node::And(parts) => self.connective(parts, false),
            Node::Or(parts) => self.connective(parts, true),
            Node::Not(arg) => Ok(match self.eval(arg)? {
                Val::Bool(b) => Val::Bool(!b),
                _ => Val::Null,
            }),
            Node::IsNull { negated, arg } => {
                let is_null = match &**arg {
                    // Whether a column is null can be told without reading its value.
                    Node::Column(n) | Node::Binary(n) => self.column(*n).is_null(),
                    arg => self.eval(arg)?.is_null(),
                };
                Ok(Val::Bool(is_null != *negated))
            }
            Node::IsBool { wanted, negated, arg } => {
                let is = matches!(self.eval(arg)?, Val::Bool(b) if b == *wanted);
                Ok(Val::Bool(is != *negated))
            }
            Node::In { negated, arg, list } => self.is_in(*negated, arg, list),
            Node::Between { negated, arg, low, high } => {
                let arg = self.eval(arg)?;
                let above = compare(&arg, &self.eval(low)?).map(Ordering::is_ge);
                let below = compare(&arg, &self.eval(high)?).map(Ordering::is_le);
                Ok(match (above, below) {
                    (Some(false), _) | (_, Some(false)) => Val::Bool(*negated),
                    (Some(true), Some(true)) => Val::Bool(!*negated),
                    _ => Val::Null,
                })
            }
            Node::Like { negated, ignore_case, escape, arg, pattern, place } => {
                match (self.eval(arg)?, self.eval(pattern)?) {
                    (Val::Text(s), Val::Text(p)) => {
                        at(*place, text::like(&s, &p, *escape, *ignore_case).map(|is| Val::Bool(is != *negated)))
                    }
                    _ => Ok(Val::Null),
                }
            }
            Node::Case { operand, arms, otherwise } => self.case(operand.as_deref(), arms, otherwise),
            Node::Coalesce(args) => {
                for arg in args {
                    let val = self.eval(arg)?;
                    if !val.is_null() {
                        return Ok(val);
                    }
                }
                Ok(Val::Null)
            }
            Node::NullIf(left, right) => {
                let left = self.eval(left)?;
                let equal = compare(&left, &self.eval(right)?) == Some(Ordering::Equal);
                Ok(if equal { Val::Null } else { left })
            }
            Node::Extreme { greatest, args } => {
                let mut best = Val::Null;
                let wanted = if *greatest { Ordering::Greater } else { Ordering::Less };
                for arg in args {
                    let val = self.eval(arg)?;
                    if best.is_null() || compare(&val, &best) == Some(wanted) {
                        best = val;
                    }
                }
                Ok(best)
            }
            Node::Lookup { table, arg, place } => match self.eval(arg)? {
                Val::Null => Ok(Val::Null),
                key => at(*place, to_text(key).and_then(|key| table.translate(key))),
            },
            Node::Call { eval, strict, args, place } => {
                let mut values: SmallVec<[Val<'a>; 4]> = SmallVec::with_capacity(args.len());
                for arg in args {
                    let val = self.eval(arg)?;
                    if *strict && val.is_null() {
                        return Ok(Val::Null);
                    }
                    values.push(val);
                }
                at(*place, eval(&mut values))
            }
            Node::Extract { part, arg, place } => match self.eval(arg)? {
                Val::Null => Ok(Val::Null),
                val => at(*place, extract(*part, &val)),
            },
            Node::Trunc { unit, zone, arg, place } => {
                let start = |t: Timestamp| unit.start(t);
                let result = match (self.eval(arg)?, zone) {
                    (Val::Ts(t), _) => start(t).map(Val::Ts),
                    (Val::Date(d), _) => start(d.at_midnight()).map(Val::Ts),
                    (Val::TsTz(t), Some(zone)) => {
                        t.utc_to_local(zone).and_then(start).and_then(|t| t.local_to_utc(zone)).map(Val::TsTz)
                    }
                    (Val::TsTz(t), None) => start(t).map(Val::TsTz),
                    _ => Some(Val::Null),
                };
                at(*place, result.ok_or(OUT_OF_RANGE))
            }
            Node::AtZone { zone, arg, place } => {
                let result = match self.eval(arg)? {
                    Val::Ts(t) => t.local_to_utc(zone).map(Val::TsTz),
                    Val::TsTz(t) => t.utc_to_local(zone).map(Val::Ts),
                    _ => Some(Val::Null),
                };
                at(*place, result.ok_or(OUT_OF_RANGE))
            }
            Node::ToChar { template, zone, arg } => {
                let local = match (self.eval(arg)?, zone) {
                    (Val::Ts(t), _) => Some(t),
                    (Val::Date(d), _) => Some(d.at_midnight()),
                    (Val::TsTz(t), Some(zone)) => t.utc_to_local(zone),
                    (Val::TsTz(t), None) => Some(t),
                    _ => None,
                };
                Ok(local.and_then(|t| template.write(t)).map_or(Val::Null, Val::string))
            }
            Node::Prepared { with, arg, place } => at(*place, with.apply(self.eval(arg)?)),
            Node::RegexReplace { with, arg, place } => match self.eval(arg)? {
                Val::Text(s) => match at(*place, with.apply(&s))? {
                    Some(changed) => Ok(Val::string(changed)),
                    None => Ok(Val::Text(s)),
                },
                _ => Ok(Val::Null),
            },
        }
    }

    fn concat(&self, parts: &'a [Node]) -> Outcome<'a> {
        let mut out = String::with_capacity(48);
        for part in parts {
            match self.eval(part)? {
                Val::Null => return Ok(Val::Null),
                val => out.push_str(&at(0, to_text(val))?),
            }
        }
        if out.len() > MAX_TEXT {
            return at(0, fault("text_too_long", "the result is longer than any text may be here"));
        }
        Ok(Val::string(out))
    }

    /// `and` (decided by false) or `or` (decided by true), with null for what is not known.
    fn connective(&self, parts: &'a [Node], decided_by: bool) -> Outcome<'a> {
        let mut unknown = false;
        for part in parts {
            match self.eval(part)? {
                Val::Bool(b) if b == decided_by => return Ok(Val::Bool(decided_by)),
                Val::Bool(_) => {}
                _ => unknown = true,
            }
        }
        Ok(if unknown { Val::Null } else { Val::Bool(!decided_by) })
    }

    fn is_in(&self, negated: bool, arg: &'a Node, list: &'a [Node]) -> Outcome<'a> {
        let arg = self.eval(arg)?;
        if arg.is_null() {
            return Ok(Val::Null);
        }
        let mut unknown = false;
        for item in list {
            match compare(&arg, &self.eval(item)?) {
                Some(Ordering::Equal) => return Ok(Val::Bool(!negated)),
                Some(_) => {}
                None => unknown = true,
            }
        }
        Ok(if unknown { Val::Null } else { Val::Bool(negated) })
    }

    fn case(&self, operand: Option<&'a Node>, arms: &'a [(Node, Node)], otherwise: &'a Node) -> Outcome<'a> {
        let operand = operand.map(|node| self.eval(node)).transpose()?;
        for (when, then) in arms {
            let taken = match &operand {
                Some(operand) => compare(operand, &self.eval(when)?) == Some(Ordering::Equal),
                None => self.is_true(when)?,
            };
            if taken {
                return self.eval(then);
            }
        }
        self.eval(otherwise)
    }
}

const BUG: Fault = Fault { code: "bug", what: "types that the checker should have refused" };
const OUT_OF_RANGE: Fault = Fault { code: "out_of_range", what: "the timestamp is out of range" };

#[inline]
fn at<T>(place: u32, result: Result<T, Fault>) -> Result<T, Fail> {
    result.map_err(|fault| Fail { fault, place })
}

fn holds(op: CmpOp, order: Ordering) -> bool {
    match op {
        CmpOp::Eq => order.is_eq(),
        CmpOp::NotEq => order.is_ne(),
        CmpOp::Less => order.is_lt(),
        CmpOp::LessEq => order.is_le(),
        CmpOp::Greater => order.is_gt(),
        CmpOp::GreaterEq => order.is_ge(),
    }
}

/// Order of two values of comparable types; `None` if either is null. Text is ordered by its bytes.
pub(crate) fn compare(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    use Val::{Bool, Bytes, Float, Int, Json, List, Null, Real, Text, Time, Ts, TsTz, UInt, Uuid};
    Some(match (a, b) {
        (Null, _) | (_, Null) => return None,
        (Int(a), Int(b)) => a.cmp(b),
        (Text(a), Text(b)) => a.cmp(b),
        (Bool(a), Bool(b)) => a.cmp(b),
        (Val::Dec(a), Val::Dec(b)) => a.cmp(b),
        (Val::Date(a), Val::Date(b)) => a.cmp(b),
        (Ts(a), Ts(b)) | (TsTz(a), TsTz(b)) => a.cmp(b),
        (Val::Date(a), Ts(b)) => a.at_midnight().cmp(b),
        (Ts(a), Val::Date(b)) => a.cmp(&b.at_midnight()),
        (Time(a), Time(b)) => time_order(a, b),
        (Uuid(a), Uuid(b)) => a.cmp(b),
        (Bytes(a), Bytes(b)) => a.cmp(b),
        (Json(a), Json(b)) | (List(a), List(b)) => a.cmp(b),
        (Int(_), UInt(_)) => Ordering::Less,
        (UInt(_), Int(_)) => Ordering::Greater,
        (UInt(a), UInt(b)) => a.cmp(b),
        (Float(_) | Real(_), _) | (_, Float(_) | Real(_)) => {
            let (a, b) = (to_f64(a.clone()).ok()?, to_f64(b.clone()).ok()?);
            float_order(a, b)
        }
        _ => to_decimal(a.clone()).ok()?.cmp(&to_decimal(b.clone()).ok()?),
    })
}

/// As in PostgreSQL, NaN equals NaN and is larger than everything.
fn float_order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Times of day by their instant; ones with the same instant by their offset, as in PostgreSQL.
fn time_order(a: &str, b: &str) -> Ordering {
    let instant = |s: &str| {
        let (us, rest) = super::civil::parse_time(s).unwrap_or_default();
        let offset = super::civil::parse_offset(rest).unwrap_or_default();
        (us - i64::from(offset) * 1_000_000, -offset)
    };
    instant(a).cmp(&instant(b))
}

fn negate(val: Val<'_>) -> Result<Val<'_>, Fault> {
    match val {
        Val::Int(n) => Val::int(-i128::from(n)),
        Val::UInt(n) => Val::int(-i128::from(n)),
        Val::Float(x) => Ok(Val::Float(-x)),
        Val::Real(x) => Ok(Val::Real(-x)),
        Val::Dec(d) => Ok(Val::Dec(d.neg())),
        Val::Null => Ok(Val::Null),
        _ => Err(BUG),
    }
}

pub(crate) fn arith<'a>(op: ArithOp, a: Val<'a>, b: Val<'a>) -> Result<Val<'a>, Fault> {
    use Val::{Float, Int, Null, Real, UInt};
    match (&a, &b) {
        (Null, _) | (_, Null) => Ok(Null),
        (Int(x), Int(y)) => match integers(op, i128::from(*x), i128::from(*y))? {
            // As in PostgreSQL; only a source with unsigned integers has larger ones.
            UInt(_) => fault("out_of_range", "the result does not fit a 64-bit integer"),
            n => Ok(n),
        },
        (Int(_) | UInt(_), Int(_) | UInt(_)) => integers(op, whole(&a), whole(&b)),
        (Val::Date(d), Int(n)) if op == ArithOp::Add => shift(*d, i128::from(*n)),
        (Int(n), Val::Date(d)) if op == ArithOp::Add => shift(*d, i128::from(*n)),
        (Val::Date(d), Int(n)) if op == ArithOp::Sub => shift(*d, -i128::from(*n)),
        (Val::Date(x), Val::Date(y)) if op == ArithOp::Sub => {
            if !x.is_finite() || !y.is_finite() {
                return fault("out_of_range", "an infinite date cannot be subtracted");
            }
            Ok(Int(i64::from(x.0) - i64::from(y.0)))
        }
        (Real(x), Real(y)) => {
            let wide = floats(op, f64::from(*x), f64::from(*y))?;
            let narrow = wide as f32;
            if narrow.is_infinite() && x.is_finite() && y.is_finite() {
                return fault("out_of_range", "the result does not fit a real");
            }
            Ok(Real(narrow))
        }
        (Float(_) | Real(_), _) | (_, Float(_) | Real(_)) => Ok(Float(floats(op, to_f64(a)?, to_f64(b)?)?)),
        _ => {
            let (x, y) = (to_decimal(a)?, to_decimal(b)?);
            decimals(op, &x, &y).map(Val::Dec)
        }
    }
}

fn whole(val: &Val<'_>) -> i128 {
    match val {
        Val::Int(n) => i128::from(*n),
        Val::UInt(n) => i128::from(*n),
        _ => 0,
    }
}

fn shift(date: Date, days: i128) -> Result<Val<'static>, Fault> {
    if !date.is_finite() {
        return Ok(Val::Date(date));
    }
    match i32::try_from(i128::from(date.0) + days) {
        Ok(n) if Date(n).is_finite() => Ok(Val::Date(Date(n))),
        _ => fault("out_of_range", "the date is out of range"),
    }
}

const DIVISION_BY_ZERO: Fault = Fault { code: "division_by_zero", what: "division by zero" };

fn integers(op: ArithOp, a: i128, b: i128) -> Result<Val<'static>, Fault> {
    Val::int(match op {
        ArithOp::Add => a + b,
        ArithOp::Sub => a - b,
        ArithOp::Mul => a.saturating_mul(b),
        ArithOp::Div => a.checked_div(b).ok_or(DIVISION_BY_ZERO)?,
        ArithOp::Rem => a.checked_rem(b).ok_or(DIVISION_BY_ZERO)?,
    })
}

fn floats(op: ArithOp, a: f64, b: f64) -> Result<f64, Fault> {
    let result = match op {
        ArithOp::Add => a + b,
        ArithOp::Sub => a - b,
        ArithOp::Mul => a * b,
        ArithOp::Div if b == 0.0 && !a.is_nan() => return Err(DIVISION_BY_ZERO),
        ArithOp::Div => a / b,
        // There is none in PostgreSQL; refused by the checker.
        ArithOp::Rem => return Err(BUG),
    };
    let overflow = result.is_infinite() && a.is_finite() && b.is_finite();
    let underflow = result == 0.0
        && ((op == ArithOp::Mul && a != 0.0 && b != 0.0) || (op == ArithOp::Div && a != 0.0 && b.is_finite()));
    if overflow || underflow {
        return fault("out_of_range", "the result does not fit a float");
    }
    Ok(result)
}

fn decimals(op: ArithOp, a: &Dec, b: &Dec) -> Result<Dec, Fault> {
    match op {
        ArithOp::Add => a.add(b),
        ArithOp::Sub => a.sub(b),
        ArithOp::Mul => a.mul(b),
        ArithOp::Div => a.div(b),
        ArithOp::Rem => a.rem(b),
    }
}
