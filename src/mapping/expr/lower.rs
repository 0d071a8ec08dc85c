//! Syntax tree → checked and compiled expression. Only what is listed here passes; everything else the parser knows is
//! an error with a place and, where there is one, the way to say it.

use super::convert::{Checked, Place, Reported, Scope, Typed, Why};
use super::ir::{ArithOp, CmpOp, Const, Node, Target, Type};
use super::narrow;
use super::parse::Parsed;
use crate::diagnostics::Diagnostic;
use sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DateTimeField, Expr, InTarget, TrimWhereField, UnaryOperator, Value,
};

/// Chains of `and`, `or` and `||` count as one level. Compiling and evaluating recurse, and daemons' threads have small
/// stacks.
const MAX_DEPTH: usize = 100;

impl Scope<'_> {
    /// Checks and compiles a whole expression.
    pub(crate) fn compile(&mut self, parsed: &Parsed) -> Checked {
        self.lower(parsed, &parsed.expr)
    }

    pub(crate) fn place(&self, parsed: &Parsed, expr: &Expr) -> Place {
        Place { file: parsed.source.file, span: parsed.place(expr) }
    }

    /// Checks and compiles one node and what lies below it.
    pub(crate) fn lower(&mut self, parsed: &Parsed, expr: &Expr) -> Checked {
        let place = self.place(parsed, expr);
        if self.depth == MAX_DEPTH {
            return self.error("too_deep", &place, format!("expressions nest at most {MAX_DEPTH} levels deep"));
        }
        self.depth += 1;
        let lowered = self.lower_at(parsed, expr, place);
        self.depth -= 1;
        lowered
    }

    fn lower_at(&mut self, parsed: &Parsed, expr: &Expr, place: Place) -> Checked {
        let typed = match expr {
            Expr::Nested(inner) => return self.lower(parsed, inner),
            Expr::Identifier(ident) => self.name(ident, place),
            Expr::CompoundIdentifier(parts) => self.qualified(parsed, parts, place),
            Expr::Value(value) => self.literal(&value.value, place),
            Expr::TypedString(typed) => {
                let text = self.literal(&typed.value.value, place.clone())?;
                let (ty, _) = self.target(&typed.data_type, &text, &place)?;
                self.convert(Typed { literal: true, ..text }, ty)
            }
            Expr::UnaryOp { op, expr: inner } => self.unary(parsed, *op, inner, place),
            Expr::BinaryOp { left, op, right } => self.binary(parsed, expr, left, op, right, place),
            Expr::IsNull(inner) | Expr::IsUnknown(inner) => self.is_null(parsed, inner, false, place),
            Expr::IsNotNull(inner) | Expr::IsNotUnknown(inner) => self.is_null(parsed, inner, true, place),
            Expr::IsTrue(inner) => self.is_bool(parsed, inner, true, false, place),
            Expr::IsNotTrue(inner) => self.is_bool(parsed, inner, true, true, place),
            Expr::IsFalse(inner) => self.is_bool(parsed, inner, false, false, place),
            Expr::IsNotFalse(inner) => self.is_bool(parsed, inner, false, true, place),
            Expr::IsDistinctFrom(left, right) => self.distinct(parsed, left, right, false, place),
            Expr::IsNotDistinctFrom(left, right) => self.distinct(parsed, left, right, true, place),
            Expr::In { expr: inner, target: InTarget::List(list), negated, global: false } => {
                self.is_in(parsed, inner, list, *negated, place)
            }
            Expr::Between { expr: inner, negated, low, high } => {
                let parts = self.all(parsed, [&**inner, &**low, &**high])?;
                let (_, parts) = self.unify("the values compared", parts)?;
                let typed = Typed::new(Node::Const(Const::Null), Type::Bool, place).reads(&parts).null_with(&parts);
                let [arg, low, high] = nodes(parts);
                Ok(Typed { node: Node::Between { negated: *negated, arg, low, high }, ..typed })
            }
            Expr::Like { negated, any: false, expr: inner, pattern, escape_char } => {
                self.like(parsed, expr, (inner, pattern, escape_char.as_deref()), (*negated, false), place)
            }
            Expr::ILike { negated, any: false, expr: inner, pattern, escape_char } => {
                self.like(parsed, expr, (inner, pattern, escape_char.as_deref()), (*negated, true), place)
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let arms: Vec<_> = conditions.iter().map(|c| (&c.condition, &c.result)).collect();
                self.case(parsed, operand.as_deref(), &arms, else_result.as_deref(), place)
            }
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: inner, data_type, format: None } => {
                self.cast(parsed, expr, inner, data_type, place)
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                let parts = self.all(parsed, [&**timestamp, &**time_zone])?;
                self.at_time_zone(parsed, expr, parts, place)
            }
            Expr::Extract { field, expr: inner, .. } => {
                let arg = self.lower(parsed, inner)?;
                let name = match field {
                    DateTimeField::Custom(ident) => ident.value.clone(),
                    other => other.to_string(),
                };
                self.extract(parsed, expr, &name, arg, place)
            }
            Expr::Ceil { expr: inner, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.call_plain(parsed, expr, "ceil", [&**inner], place)
            }
            Expr::Floor { expr: inner, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.call_plain(parsed, expr, "floor", [&**inner], place)
            }
            Expr::Position { expr: part, r#in } => self.call_plain(parsed, expr, "strpos", [&**r#in, &**part], place),
            Expr::Substring { expr: inner, substring_from, substring_for, .. } => {
                let one = Expr::value(Value::Number("1".into(), false));
                let from = substring_from.as_deref().unwrap_or(&one);
                let args = [Some(&**inner), Some(from), substring_for.as_deref()];
                self.call_plain(parsed, expr, "substring", args.into_iter().flatten(), place)
            }
            Expr::Trim { trim_where, trim_what, expr: inner, trim_characters } => {
                let name = match trim_where {
                    None | Some(TrimWhereField::Both) => "trim",
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                };
                let listed = trim_characters.iter().flatten();
                let args = std::iter::once(&**inner).chain(trim_what.as_deref()).chain(listed);
                self.call_plain(parsed, expr, name, args, place)
            }
            Expr::Function(function) => self.function(parsed, expr, function, place),
            _ => self.unsupported(expr, &place),
        }?;
        Ok(self.fold(typed))
    }

    /// Checks several parts; all of their errors are reported.
    pub(crate) fn all<'e>(
        &mut self,
        parsed: &Parsed,
        exprs: impl IntoIterator<Item = &'e Expr>,
    ) -> Checked<Vec<Typed>> {
        let all: Vec<_> = exprs.into_iter().map(|e| self.lower(parsed, e)).collect();
        all.into_iter().collect()
    }

    /// Replaces a node whose parts are all constants by its value, if it has one.
    fn fold(&self, typed: Typed) -> Typed {
        let constant = |n: &Node| matches!(n, Node::Const(_));
        let foldable = match &typed.node {
            Node::Neg { arg, .. } | Node::Not(arg) => constant(arg),
            Node::Arith { left, right, .. } => constant(left) && constant(right),
            Node::Concat(args) | Node::Call { args, .. } => args.iter().all(constant),
            _ => false,
        };
        if !foldable {
            return typed;
        }
        let row = tidemark_contract::RowBuilder::default().finish();
        let folded = match super::eval::Env::new(&row, &[], &[]).eval(&typed.node) {
            Ok(val) => Const::of(&val),
            Err(_) => None,
        };
        match folded {
            Some(Const::Text(text)) => Typed {
                values: Some(vec![text.clone()]),
                max_length: u32::try_from(text.chars().count()).ok(),
                node: Node::Const(Const::Text(text)),
                ..typed
            },
            Some(constant) => Typed { node: Node::Const(constant), ..typed },
            None => typed,
        }
    }

    fn unsupported(&mut self, expr: &Expr, place: &Place) -> Checked {
        let (what, help) = match expr {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::In { .. } => {
                ("a subquery", "an expression sees one row; rows of other tables come from `join`")
            }
            Expr::Interval(_) => ("an interval", "add days to a date: `d + 7`"),
            Expr::SimilarTo { .. } | Expr::RLike { .. } => ("this kind of pattern", "use `like`, or `regexp_replace`"),
            Expr::Array(_) => ("an array", "arrays come from columns only"),
            Expr::Collate { .. } => ("a collation", "texts are compared by their bytes"),
            Expr::Cast { .. } | Expr::Convert { .. } => ("this conversion", "use `cast(x as type)`"),
            Expr::Ceil { .. } | Expr::Floor { .. } => ("rounding to a unit", "use `date_trunc`, or `round(x, digits)`"),
            Expr::CompoundFieldAccess { .. } | Expr::JsonAccess { .. } => {
                ("access to a part of a value", "write JSON paths as x -> 'a' ->> 0, or x #>> '{a,0}'")
            }
            _ => ("this SQL", "see docs/mapping.md for what expressions can say"),
        };
        self.fail(
            Diagnostic::error("unsupported", place.file, place.span.clone(), format!("{what} is not supported here"))
                .help(help),
        )
    }

    fn unary(&mut self, parsed: &Parsed, op: UnaryOperator, inner: &Expr, place: Place) -> Checked {
        let arg = self.lower(parsed, inner)?;
        match op {
            UnaryOperator::Not => {
                let arg = self.condition(arg)?;
                let typed = Typed::new(Node::Const(Const::Null), Type::Bool, place).reads([&arg]).null_with([&arg]);
                Ok(Typed { node: Node::Not(Box::new(arg.node)), ..typed })
            }
            UnaryOperator::Plus | UnaryOperator::Minus if arg.ty.is_number() || arg.ty == Type::Null => {
                if op == UnaryOperator::Plus {
                    return Ok(Typed { place, ..arg });
                }
                let mark = self.mark(&place, "-x");
                let typed = Typed::new(Node::Const(Const::Null), arg.ty, place).reads([&arg]).null_with([&arg]);
                Ok(Typed { node: Node::Neg { arg: Box::new(arg.node), place: mark }, ..typed })
            }
            UnaryOperator::Plus | UnaryOperator::Minus => self.not_a_number(&arg),
            _ => self.error("unsupported", &place, "this operator is not supported"),
        }
    }

    fn not_a_number(&mut self, typed: &Typed) -> Checked {
        let place = typed.place.clone();
        self.fail(
            Diagnostic::error("wrong_type", place.file, place.span, "a number is needed here")
                .label(format!("this is {}", typed.ty.name()))
                .maybe_help((typed.ty == Type::Text).then_some("convert it: cast(... as decimal)")),
        )
    }

    fn binary(
        &mut self,
        parsed: &Parsed,
        expr: &Expr,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
        place: Place,
    ) -> Checked {
        use BinaryOperator::{
            And, Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Or, Plus, StringConcat,
        };
        let cmp = match op {
            And | Or | StringConcat => return self.chain(parsed, expr, op, place),
            Plus => return self.arith(parsed, expr, ArithOp::Add, (left, right), place),
            Minus => return self.arith(parsed, expr, ArithOp::Sub, (left, right), place),
            Multiply => return self.arith(parsed, expr, ArithOp::Mul, (left, right), place),
            Divide => return self.arith(parsed, expr, ArithOp::Div, (left, right), place),
            Modulo => return self.arith(parsed, expr, ArithOp::Rem, (left, right), place),
            Eq => CmpOp::Eq,
            NotEq => CmpOp::NotEq,
            Lt => CmpOp::Less,
            LtEq => CmpOp::LessEq,
            Gt => CmpOp::Greater,
            GtEq => CmpOp::GreaterEq,
            BinaryOperator::Arrow
            | BinaryOperator::LongArrow
            | BinaryOperator::HashArrow
            | BinaryOperator::HashLongArrow => return self.json_path(parsed, expr, (left, op, right), place),
            BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch => return self.matches(parsed, expr, (left, op, right), place),
            _ => return self.error("unsupported", &place, format!("the operator `{op}` is not supported")),
        };
        let parts = self.all(parsed, [left, right])?;
        let parts = self.comparable(parts)?;
        let typed = Typed::new(Node::Const(Const::Null), Type::Bool, place).reads(&parts).null_with(&parts);
        let [left, right] = nodes(parts);
        Ok(Typed { node: Node::Cmp { op: cmp, left, right }, ..typed })
    }

    /// Converts to the common type, which must be one that has an order.
    fn comparable(&mut self, parts: Vec<Typed>) -> Checked<Vec<Typed>> {
        let (ty, parts) = self.unify("the values compared", parts)?;
        if matches!(ty, Type::Json | Type::List) {
            let place = parts.first().map(|p| p.place.clone());
            let message = format!("{} values cannot be compared", ty.name());
            return match place {
                Some(place) => self.fail(
                    Diagnostic::error("wrong_type", place.file, place.span, message).help("compare cast(... as text)"),
                ),
                None => Err(Reported),
            };
        }
        Ok(parts)
    }

    /// `and`, `or` and `||`: the whole chain as one node, so that long ones do not nest.
    fn chain(&mut self, parsed: &Parsed, expr: &Expr, op: &BinaryOperator, place: Place) -> Checked {
        let mut operands = Vec::new();
        let mut rest = expr;
        loop {
            match rest {
                Expr::BinaryOp { left, op: inner, right } if inner == op => {
                    operands.push(&**right);
                    rest = left;
                }
                _ => break operands.push(rest),
            }
        }
        operands.reverse();
        if *op == BinaryOperator::StringConcat {
            let parts = self.all(parsed, operands)?;
            return self.concat(parts, place);
        }
        let mark = self.not_null.len();
        let mut parts = Vec::new();
        let mut failed = false;
        for operand in operands {
            match self.lower(parsed, operand).and_then(|p| self.condition(p)) {
                Ok(part) => {
                    if *op == BinaryOperator::And {
                        self.not_null.extend(narrow::if_true(&part.node));
                    }
                    parts.push(part);
                }
                Err(Reported) => failed = true,
            }
        }
        self.not_null.truncate(mark);
        if failed {
            return Err(Reported);
        }
        let typed = Typed::new(Node::Const(Const::Null), Type::Bool, place).reads(&parts).null_with(&parts);
        let parts: Box<[Node]> = parts.into_iter().map(|p| p.node).collect();
        let node = if *op == BinaryOperator::And { Node::And(parts) } else { Node::Or(parts) };
        Ok(Typed { node, ..typed })
    }

    fn concat(&mut self, parts: Vec<Typed>, place: Place) -> Checked {
        // As in PostgreSQL, at least one of the first two must be text: `1 || 2` is a mistake.
        if !parts.iter().take(2).any(|p| matches!(p.ty, Type::Text | Type::Null)) {
            let found = parts.first().map_or("", |p| p.ty.name());
            return self.fail(
                Diagnostic::error("wrong_type", place.file, place.span, "`||` joins texts")
                    .label(format!("this is {found}"))
                    .help("convert one side: cast(... as text), or use `concat`"),
            );
        }
        let parts = parts.into_iter().map(|p| self.shown(p)).collect::<Vec<_>>();
        let max_length = parts.iter().map(|p| p.max_length).try_fold(0_u32, |sum, n| n.map(|n| sum.saturating_add(n)));
        let typed = Typed::new(Node::Const(Const::Null), Type::Text, place).reads(&parts).null_with(&parts);
        let node = Node::Concat(parts.into_iter().map(|p| p.node).collect());
        Ok(Typed { node, max_length, ..typed })
    }

    /// A value about to become text: a timestamp with time zone is shown in the zone, if one is set. Knows the longest
    /// text of types that have one.
    pub(crate) fn shown(&mut self, typed: Typed) -> Typed {
        if let (Type::TimestampTz, Some(zone)) = (typed.ty, self.zone) {
            self.used.insert("time zone".into());
            return self.cast_node(typed, Type::Text, Target::TextInZone(zone.clone()));
        }
        let max_length = match typed.ty {
            Type::Text => typed.max_length,
            Type::Bool => Some(5),
            Type::Int => Some(20),
            Type::Uuid => Some(36),
            Type::Null => Some(0),
            _ => None,
        };
        Typed { max_length, ..typed }
    }

    fn arith(&mut self, parsed: &Parsed, expr: &Expr, op: ArithOp, sides: (&Expr, &Expr), place: Place) -> Checked {
        let parts = self.all(parsed, [sides.0, sides.1])?;
        let [mut left, mut right] = <[Typed; 2]>::try_from(parts).map_err(|_| Reported)?;
        // A literal takes the type of the other side, except that a number is meant beside a date.
        if left.literal && right.ty.is_number() {
            left = self.convert(left, right.ty)?;
        } else if right.literal && left.ty.is_number() {
            right = self.convert(right, left.ty)?;
        }
        use Type::{Date, Int, Null};
        let ty = match (left.ty, op, right.ty) {
            (Date, ArithOp::Add | ArithOp::Sub, Int) | (Int, ArithOp::Add, Date) => Date,
            (Date, ArithOp::Sub, Date) => Int,
            (Type::Timestamp | Type::TimestampTz, _, _) | (_, _, Type::Timestamp | Type::TimestampTz) => {
                return self.fail(
                    Diagnostic::error(
                        "unsupported",
                        place.file,
                        place.span,
                        "arithmetic with timestamps is not supported",
                    )
                    .help("use dates: cast(a as date) - cast(b as date) is a number of days"),
                );
            }
            (a, _, b) if (a.is_number() || a == Null) && (b.is_number() || b == Null) => {
                super::convert::common(a, b).unwrap_or(Type::Decimal)
            }
            (a, _, _) if a.is_number() => return self.not_a_number(&right),
            _ => return self.not_a_number(&left),
        };
        if ty == Type::Float && op == ArithOp::Rem {
            return self.fail(
                Diagnostic::error("wrong_type", place.file, place.span, "`%` needs integers or decimals")
                    .help("convert the float: cast(... as decimal)"),
            );
        }
        let mark = self.mark(&place, parsed.text(expr));
        let typed = Typed::new(Node::Const(Const::Null), ty, place).reads([&left, &right]).null_with([&left, &right]);
        let node = Node::Arith { op, left: Box::new(left.node), right: Box::new(right.node), place: mark };
        Ok(Typed { node, ..typed })
    }

    fn is_null(&mut self, parsed: &Parsed, inner: &Expr, negated: bool, place: Place) -> Checked {
        let arg = self.lower(parsed, inner)?;
        let typed = Typed::new(Node::Const(Const::Null), Type::Bool, place).reads([&arg]);
        Ok(Typed { node: Node::IsNull { negated, arg: Box::new(arg.node) }, ..typed })
    }

    fn is_bool(&mut self, parsed: &Parsed, inner: &Expr, wanted: bool, negated: bool, place: Place) -> Checked {
        let arg = self.lower(parsed, inner)?;
        let arg = self.condition(arg)?;
        let typed = Typed::new(Node::Const(Const::Null), Type::Bool, place).reads([&arg]);
        Ok(Typed { node: Node::IsBool { wanted, negated, arg: Box::new(arg.node) }, ..typed })
    }

    fn distinct(&mut self, parsed: &Parsed, left: &Expr, right: &Expr, negated: bool, place: Place) -> Checked {
        let parts = self.all(parsed, [left, right])?;
        let parts = self.comparable(parts)?;
        let typed = Typed::new(Node::Const(Const::Null), Type::Bool, place).reads(&parts);
        let [left, right] = nodes(parts);
        Ok(Typed { node: Node::Distinct { negated, left, right }, ..typed })
    }

    fn is_in(&mut self, parsed: &Parsed, inner: &Expr, list: &[Expr], negated: bool, place: Place) -> Checked {
        let parts = self.all(parsed, std::iter::once(inner).chain(list))?;
        let parts = self.comparable(parts)?;
        let typed = Typed::new(Node::Const(Const::Null), Type::Bool, place).reads(&parts).null_with(&parts);
        let mut nodes = parts.into_iter().map(|p| p.node);
        let Some(arg) = nodes.next() else { return Err(Reported) };
        Ok(Typed { node: Node::In { negated, arg: Box::new(arg), list: nodes.collect() }, ..typed })
    }

    fn like(
        &mut self,
        parsed: &Parsed,
        expr: &Expr,
        (inner, pattern, escape): (&Expr, &Expr, Option<&Expr>),
        (negated, ignore_case): (bool, bool),
        place: Place,
    ) -> Checked {
        let mut parts = self.all(parsed, [inner, pattern])?;
        for part in &mut parts {
            if !matches!(part.ty, Type::Text | Type::Null) {
                let at = part.place.clone();
                return self.fail(
                    Diagnostic::error("wrong_type", at.file, at.span, "`like` compares texts")
                        .label(format!("this is {}", part.ty.name()))
                        .help("convert it: cast(... as text)"),
                );
            }
        }
        let escape = match escape {
            None => Some('\\'),
            Some(e) => {
                let typed = self.lower(parsed, e)?;
                let text = typed.constant_text().map(str::to_owned);
                let mut chars = text.as_deref().unwrap_or("too long").chars();
                match (chars.next(), chars.next()) {
                    (c, None) => c,
                    _ => return self.error("bad_literal", &typed.place, "`escape` takes one character"),
                }
            }
        };
        let mark = self.mark(&place, parsed.text(expr));
        let typed = Typed::new(Node::Const(Const::Null), Type::Bool, place).reads(&parts).null_with(&parts);
        let [arg, pattern] = nodes(parts);
        Ok(Typed { node: Node::Like { negated, ignore_case, escape, arg, pattern, place: mark }, ..typed })
    }

    fn case(
        &mut self,
        parsed: &Parsed,
        operand: Option<&Expr>,
        arms: &[(&Expr, &Expr)],
        otherwise: Option<&Expr>,
        place: Place,
    ) -> Checked {
        let operand = operand.map(|e| self.lower(parsed, e)).transpose();
        let mut failed = operand.is_err();
        let operand = operand.ok().flatten();
        let outer = self.not_null.len();
        let (mut conditions, mut results) = (Vec::new(), Vec::new());
        for (when, then) in arms {
            let condition = match (self.lower(parsed, when), &operand) {
                (Ok(c), None) => self.condition(c),
                (other, _) => other,
            };
            let inner = self.not_null.len();
            if let (Ok(c), None) = (&condition, &operand) {
                self.not_null.extend(narrow::if_true(&c.node));
            }
            let result = self.lower(parsed, then);
            self.not_null.truncate(inner);
            match (condition, result) {
                (Ok(c), Ok(r)) => {
                    if operand.is_none() {
                        self.not_null.extend(narrow::if_not_true(&c.node));
                    }
                    conditions.push(c);
                    results.push(r);
                }
                _ => failed = true,
            }
        }
        let otherwise = match otherwise {
            Some(e) => self.lower(parsed, e),
            None => {
                let why =
                    Why { place: place.clone(), text: "null where no branch is taken".into(), through: Vec::new() };
                let typed = Typed::new(Node::Const(Const::Null), Type::Null, place.clone());
                Ok(Typed { null: Some(why), ..typed })
            }
        };
        self.not_null.truncate(outer);
        let (Ok(otherwise), false) = (otherwise, failed) else { return Err(Reported) };
        if let Some(operand) = operand {
            let mut compared = vec![operand];
            compared.extend(conditions);
            conditions = self.comparable(compared)?;
        }
        results.push(otherwise);
        let (ty, results) = self.unify("the branches", results)?;
        let (values, max_length) = (all_values(&results), longest(&results));
        let typed =
            Typed::new(Node::Const(Const::Null), ty, place).reads(&conditions).reads(&results).null_with(&results);
        let mut conditions = conditions.into_iter().map(|c| c.node);
        let operand = if arms.len() < conditions.len() { conditions.next().map(Box::new) } else { None };
        let mut results: Vec<Node> = results.into_iter().map(|r| r.node).collect();
        let otherwise = Box::new(results.pop().unwrap_or(Node::Const(Const::Null)));
        let node = Node::Case { operand, arms: conditions.zip(results).collect(), otherwise };
        Ok(Typed { node, values, max_length, ..typed })
    }
}

/// Every text that several branches can be.
pub(crate) fn all_values(parts: &[Typed]) -> Option<Vec<Box<str>>> {
    let mut values = Vec::new();
    for part in parts.iter().filter(|p| !matches!(p.node, Node::Const(Const::Null))) {
        values.extend(part.values.clone()?);
    }
    values.sort_unstable();
    values.dedup();
    Some(values)
}

/// Length of the longest of several branches.
pub(crate) fn longest(parts: &[Typed]) -> Option<u32> {
    parts
        .iter()
        .filter(|p| !matches!(p.node, Node::Const(Const::Null)))
        .map(|p| p.max_length)
        .try_fold(0, |longest, n| n.map(|n| n.max(longest)))
}

/// The nodes of `N` parts, boxed. A wrong number would be a mistake here; nulls stand in.
fn nodes<const N: usize>(parts: Vec<Typed>) -> [Box<Node>; N] {
    let mut nodes = parts.into_iter().map(|p| p.node);
    std::array::from_fn(|_| Box::new(nodes.next().unwrap_or(Node::Const(Const::Null))))
}
