//! Which columns a record's expressions name, and what types their use suggests. Only for tests that run without a
//! database; a real run takes both from the source's catalogue.

use super::{Body, Field, Record};
use crate::mapping::expr::parse::Parsed;
use crate::mapping::functions::{self, Arg, Function, Kind};
use crate::mapping::names::Name;
use crate::mapping::toml_reader::SpannedText;
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, InTarget, UnaryOperator,
    Value,
};
use tidemark_contract::LogicalType;

use crate::mapping::expr::ir::Type;

/// Columns in the order of their first use, with the type their use suggests.
pub(super) fn infer(record: &Record) -> Vec<(Name, Option<LogicalType>)> {
    let mut found = Found { columns: Vec::new(), lets: record.lets.iter().map(|(n, _)| n.clone()).collect() };
    for (_, text) in &record.lets {
        found.text(text, None);
    }
    if let Some(text) = &record.condition {
        found.text(text, Some(LogicalType::Bool));
    }
    found.text(&record.external_id, None);
    found.fields(&record.fields);
    found.fields(&record.archive);
    for (name, _) in record.key.iter().flatten() {
        found.column(name.clone(), None);
    }
    found.columns
}

struct Found {
    columns: Vec<(Name, Option<LogicalType>)>,
    lets: Vec<String>,
}

impl Found {
    fn fields(&mut self, fields: &[Field]) {
        for field in fields {
            match &field.body {
                Body::Expr(text) => self.text(text, None),
                Body::Object(inner) => self.fields(inner),
                Body::Ref { external_id, .. } => self.text(external_id, None),
            }
        }
    }

    fn text(&mut self, text: &SpannedText, wanted: Option<LogicalType>) {
        // What does not parse is told when the record is compiled.
        if let Ok(parsed) = Parsed::new(text.clone()) {
            self.expr(&parsed.expr, wanted);
        }
    }

    fn column(&mut self, name: Name, wanted: Option<LogicalType>) {
        let same = |other: &Name| {
            if name.quoted && other.quoted {
                other.text == name.text
            } else {
                other.text.eq_ignore_ascii_case(&name.text)
            }
        };
        match self.columns.iter_mut().find(|(other, _)| same(other)) {
            Some((_, ty)) => *ty = ty.or(wanted),
            None => self.columns.push((name, wanted)),
        }
    }

    fn ident(&mut self, ident: &Ident, bare: bool, wanted: Option<LogicalType>) {
        if bare && self.lets.iter().any(|l| l.eq_ignore_ascii_case(&ident.value)) {
            return;
        }
        self.column(Name { text: ident.value.clone(), quoted: ident.quote_style.is_some() }, wanted);
    }

    fn all<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>, wanted: Option<LogicalType>) {
        for expr in exprs {
            self.expr(expr, wanted);
        }
    }

    fn expr(&mut self, expr: &Expr, wanted: Option<LogicalType>) {
        match expr {
            Expr::Identifier(ident) => self.ident(ident, true, wanted),
            Expr::CompoundIdentifier(parts) => {
                if let Some(ident) = parts.last() {
                    self.ident(ident, false, wanted);
                }
            }
            Expr::Nested(inner) => self.expr(inner, wanted),
            Expr::BinaryOp { .. } => {
                // A long chain leans to the left: it is walked, not recursed into.
                let mut rest = expr;
                let mut asked = wanted;
                while let Expr::BinaryOp { left, op, right } = rest {
                    asked = of_operator(op, left, right);
                    self.expr(right, asked);
                    rest = left;
                }
                self.expr(rest, asked);
            }
            Expr::UnaryOp { op, expr } => {
                let wanted = if *op == UnaryOperator::Not { LogicalType::Bool } else { LogicalType::Decimal };
                self.expr(expr, Some(wanted));
            }
            Expr::IsTrue(e) | Expr::IsNotTrue(e) | Expr::IsFalse(e) | Expr::IsNotFalse(e) => {
                self.expr(e, Some(LogicalType::Bool))
            }
            Expr::IsNull(e) | Expr::IsNotNull(e) | Expr::IsUnknown(e) | Expr::IsNotUnknown(e) => self.expr(e, None),
            Expr::IsDistinctFrom(a, b) | Expr::IsNotDistinctFrom(a, b) => {
                let wanted = of_literals([&**a, &**b]);
                self.all([&**a, &**b], wanted);
            }
            Expr::In { expr, target: InTarget::List(list), .. } => {
                let wanted = of_literals(list);
                self.all(std::iter::once(&**expr).chain(list), wanted);
            }
            Expr::Between { expr, low, high, .. } => {
                let wanted = of_literals([&**low, &**high]);
                self.all([&**expr, &**low, &**high], wanted);
            }
            Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => {
                self.all([&**expr, &**pattern], Some(LogicalType::Text))
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let of_conditions = match operand {
                    Some(_) => of_literals(conditions.iter().map(|c| &c.condition)),
                    None => Some(LogicalType::Bool),
                };
                self.all(operand.as_deref(), of_conditions);
                self.all(conditions.iter().map(|c| &c.condition), of_conditions);
                self.all(conditions.iter().map(|c| &c.result).chain(else_result.as_deref()), wanted);
            }
            Expr::Cast { expr, .. } => self.expr(expr, None),
            Expr::AtTimeZone { timestamp, .. } => self.expr(timestamp, Some(LogicalType::Timestamp)),
            Expr::Extract { expr, .. } => self.expr(expr, Some(LogicalType::Timestamp)),
            Expr::Ceil { expr, .. } | Expr::Floor { expr, .. } => self.expr(expr, Some(LogicalType::Decimal)),
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                self.expr(expr, Some(LogicalType::Text));
                self.all(substring_from.as_deref().into_iter().chain(substring_for.as_deref()), Some(LogicalType::Int));
            }
            Expr::Trim { expr, trim_what, .. } => {
                self.all(std::iter::once(&**expr).chain(trim_what.as_deref()), Some(LogicalType::Text))
            }
            Expr::Position { expr, r#in } => self.all([&**expr, &**r#in], Some(LogicalType::Text)),
            Expr::Function(call) => self.call(call, wanted),
            _ => {}
        }
    }

    fn call(&mut self, call: &sqlparser::ast::Function, wanted: Option<LogicalType>) {
        let name = call.name.to_string().to_lowercase();
        let FunctionArguments::List(list) = &call.args else { return };
        let args: Vec<&Expr> = list
            .args
            .iter()
            .filter_map(|a| match a {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e),
                _ => None,
            })
            .collect();
        match (name.as_str(), functions::find(&name)) {
            ("coalesce" | "nullif" | "greatest" | "least", _) => {
                let wanted = of_literals(args.iter().copied()).or(wanted);
                self.all(args, wanted);
            }
            ("to_char" | "date_trunc" | "date_part", _) => self.all(args, Some(LogicalType::Timestamp)),
            (_, Some(Function { kind: Kind::Plain(signatures), .. })) => {
                for (n, arg) in args.iter().enumerate() {
                    let types = signatures.iter().filter_map(|s| match s.args.get(n) {
                        Some(Arg::Of(ty)) => logical(*ty),
                        _ => None,
                    });
                    // A function of numbers takes decimals, whatever else it takes.
                    let ty = types.clone().find(|t| *t == LogicalType::Decimal).or_else(|| types.clone().next());
                    self.expr(arg, ty);
                }
            }
            _ => self.all(args, None),
        }
    }
}

fn logical(ty: Type) -> Option<LogicalType> {
    match ty {
        Type::Text => Some(LogicalType::Text),
        Type::Int => Some(LogicalType::Int),
        Type::Decimal => Some(LogicalType::Decimal),
        Type::Float => Some(LogicalType::Float),
        Type::Bytes => Some(LogicalType::Bytes),
        _ => None,
    }
}

/// The type that an operator's sides must have.
fn of_operator(op: &BinaryOperator, left: &Expr, right: &Expr) -> Option<LogicalType> {
    use BinaryOperator::{And, Divide, Minus, Modulo, Multiply, Or, Plus, StringConcat};
    match op {
        And | Or => Some(LogicalType::Bool),
        Plus | Minus | Multiply | Divide | Modulo => of_literals([left, right]).or(Some(LogicalType::Decimal)),
        StringConcat => None,
        _ => of_literals([left, right]),
    }
}

/// The type of the first literal among values that are compared.
fn of_literals<'e>(exprs: impl IntoIterator<Item = &'e Expr>) -> Option<LogicalType> {
    exprs.into_iter().find_map(|expr| match expr {
        Expr::Value(v) => match v.value {
            Value::Number(..) => Some(LogicalType::Decimal),
            Value::Boolean(_) => Some(LogicalType::Bool),
            Value::SingleQuotedString(_) => Some(LogicalType::Text),
            _ => None,
        },
        Expr::TypedString(t) => match t.data_type {
            DataType::Date => Some(LogicalType::Date),
            DataType::Timestamp(..) => Some(LogicalType::Timestamp),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, .. } => Some(LogicalType::Decimal),
        _ => None,
    })
}
