//! Which columns a record's expressions name, and what types their use suggests. Only for tests that run without a
//! database; a real run takes both from the source's catalogue.

use super::{Body, Field, JoinDef, Link, Record};
use crate::mapping::expr::parse::Parsed;
use crate::mapping::functions::{self, AGGREGATES, Arg, Function, Kind};
use crate::mapping::names::{From, Name};
use crate::mapping::toml_reader::SpannedText;
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, InTarget, UnaryOperator,
    Value,
};
use tidemark_contract::LogicalType;

use crate::mapping::expr::ir::Type;

/// What one table of a record is used for.
pub(super) struct Uses<'r> {
    pub from: &'r From,
    /// Columns in the order of their first use, with the type their use suggests.
    pub columns: Vec<(Name, Option<LogicalType>)>,
}

/// What a record's expressions say of its tables.
pub(super) struct Inferred<'r> {
    /// The record's own table, then those of its joins, of its lists, and of their joins.
    pub tables: Vec<Uses<'r>>,
    /// Columns named without a table: where they can be, the likeliest first.
    pub bare: Vec<(std::ops::Range<usize>, Name, Option<LogicalType>)>,
    /// Columns that `on` compares, each with its table: they have one type.
    pub equal: Vec<[(usize, Name); 2]>,
}

/// What the expressions of a record say.
pub(super) fn infer(record: &Record) -> Inferred<'_> {
    let alias = |from: &From| from.alias.clone().unwrap_or_else(|| from.table.name.clone());
    let mut tables = vec![(alias(&record.from), &record.from)];
    tables.extend(joined(&record.joins));
    let outer = 0..tables.len();
    let mut found = Found {
        aliases: tables.iter().map(|(alias, _)| alias.text.clone()).collect(),
        scope: outer.clone(),
        inferred: Inferred { tables: Vec::new(), bare: Vec::new(), equal: Vec::new() },
        lets: Vec::new(),
        summed: Vec::new(),
        list: String::new(),
    };
    let mut lists = Vec::new();
    for list in &record.children {
        let start = tables.len();
        tables.push((list.alias.clone(), &list.link.from));
        tables.extend(joined(&list.joins));
        found.aliases.extend(tables[start..].iter().map(|(alias, _)| alias.text.clone()));
        lists.push(start..tables.len());
    }
    found.inferred.tables = tables.iter().map(|(_, from)| Uses { from, columns: Vec::new() }).collect();
    found.lets(&record.lets);
    if let Some(text) = &record.condition {
        found.text(text, Some(LogicalType::Bool));
    }
    found.text(&record.external_id, None);
    found.fields(&record.fields);
    found.fields(&record.archive);
    for (name, _) in record.key.iter().flatten() {
        found.column(0, name.clone(), None);
    }
    for (n, join) in record.joins.iter().enumerate() {
        found.link(&join.link, n + 1, outer.clone());
    }
    for (list, scope) in record.children.iter().zip(lists) {
        found.scope = scope.clone();
        found.list = list.name.to_lowercase();
        found.lets(&list.lets);
        if let Some(text) = &list.condition {
            found.text(text, Some(LogicalType::Bool));
        }
        list.order.iter().for_each(|order| found.text(&order.text, None));
        found.fields(list.item.fields());
        found.link(&list.link, scope.start, outer.clone());
        for (n, join) in list.joins.iter().enumerate() {
            found.link(&join.link, scope.start + n + 1, scope.clone());
        }
    }
    found.inferred
}

fn joined(joins: &[JoinDef]) -> impl Iterator<Item = (Name, &From)> {
    joins.iter().map(|join| (join.alias.clone(), &join.link.from))
}

struct Found<'r> {
    inferred: Inferred<'r>,
    /// Names of the tables, in their order.
    aliases: Vec<String>,
    /// The tables that expressions see now.
    scope: std::ops::Range<usize>,
    lets: Vec<String>,
    /// Lists and what of them is summed.
    summed: Vec<(String, String)>,
    /// The list whose expressions are looked at, in lower case.
    list: String,
}

impl Found<'_> {
    fn lets(&mut self, lets: &[(String, SpannedText)]) {
        self.lets = lets.iter().map(|(name, _)| name.clone()).collect();
        for (name, text) in lets {
            let wanted = self.wanted(name);
            self.text(text, wanted);
        }
    }

    /// What is summed is a number.
    fn wanted(&self, name: &str) -> Option<LogicalType> {
        let summed = self.summed.iter().any(|(list, member)| *list == self.list && member.eq_ignore_ascii_case(name));
        summed.then_some(LogicalType::Decimal)
    }

    /// The columns of `on`: of the table at `own`, and of one among `others`.
    fn link(&mut self, link: &Link, own: usize, others: std::ops::Range<usize>) {
        for (name, _) in link.key.iter().flatten() {
            self.column(own, name.clone(), None);
        }
        let Ok(parsed) = Parsed::new(link.on.clone()) else { return };
        let mut rest = vec![&parsed.expr];
        while let Some(expr) = rest.pop() {
            match expr {
                Expr::Nested(inner) => rest.push(inner),
                Expr::BinaryOp { left, op: BinaryOperator::And, right } => rest.extend([&**left, &**right]),
                Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                    let side = |expr: &Expr| match expr {
                        Expr::CompoundIdentifier(parts) => {
                            let [alias, column] = &parts[..] else { return None };
                            let is = |n: &usize| self.aliases[*n].eq_ignore_ascii_case(&alias.value);
                            let table = Some(own).filter(is).or_else(|| others.clone().find(is))?;
                            Some((table, Name { text: column.value.clone(), quoted: column.quote_style.is_some() }))
                        }
                        _ => None,
                    };
                    if let (Some(left), Some(right)) = (side(left), side(right)) {
                        self.column(left.0, left.1.clone(), None);
                        self.column(right.0, right.1.clone(), None);
                        self.inferred.equal.push([left, right]);
                    }
                }
                _ => {}
            }
        }
    }

    fn fields(&mut self, fields: &[Field]) {
        for field in fields {
            match &field.body {
                Body::Expr(text) => {
                    let wanted = self.wanted(&field.name);
                    self.text(text, wanted);
                }
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

    fn column(&mut self, table: usize, name: Name, wanted: Option<LogicalType>) {
        let columns = &mut self.inferred.tables[table].columns;
        match columns.iter_mut().find(|(other, _)| same(other, &name)) {
            Some((_, ty)) => *ty = ty.or(wanted),
            None => columns.push((name, wanted)),
        }
    }

    /// A name without a table.
    fn bare(&mut self, ident: &Ident, wanted: Option<LogicalType>) {
        if self.lets.iter().any(|l| l.eq_ignore_ascii_case(&ident.value)) {
            return;
        }
        let name = Name { text: ident.value.clone(), quoted: ident.quote_style.is_some() };
        if self.scope.len() == 1 {
            return self.column(self.scope.start, name, wanted);
        }
        self.inferred.bare.push((self.scope.clone(), name, wanted));
    }

    fn qualified(&mut self, alias: &Ident, column: &Ident, wanted: Option<LogicalType>) {
        let found = self.scope.clone().find(|n| self.aliases[*n].eq_ignore_ascii_case(&alias.value));
        // Another alias is told when the record is compiled.
        if let Some(table) = found {
            self.column(table, Name { text: column.value.clone(), quoted: column.quote_style.is_some() }, wanted);
        }
    }

    fn all<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>, wanted: Option<LogicalType>) {
        for expr in exprs {
            self.expr(expr, wanted);
        }
    }

    fn expr(&mut self, expr: &Expr, wanted: Option<LogicalType>) {
        match expr {
            Expr::Identifier(ident) => self.bare(ident, wanted),
            Expr::CompoundIdentifier(parts) => {
                if let [alias, column] = &parts[..] {
                    self.qualified(alias, column, wanted);
                }
            }
            Expr::Nested(inner) => self.expr(inner, wanted),
            Expr::BinaryOp { .. } => {
                // A long chain leans to the left: it is walked, not recursed into.
                let mut rest = expr;
                let mut asked = wanted;
                while let Expr::BinaryOp { left, op, right } = rest {
                    asked = of_operator(op, left, right);
                    // The right side of a step into JSON is a constant.
                    if asked != Some(LogicalType::Json) {
                        self.expr(right, asked);
                    }
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
            // The arguments of aggregates are names of lists.
            (name, _) if AGGREGATES.contains(&name) => {
                if let ("sum" | "avg", Some(Expr::CompoundIdentifier(path))) = (name, args.first())
                    && let [list, member] = &path[..]
                {
                    self.summed.push((list.value.to_lowercase(), member.value.to_lowercase()));
                }
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

/// Whether two names mean one column.
pub(super) fn same(a: &Name, b: &Name) -> bool {
    if a.quoted && b.quoted { a.text == b.text } else { a.text.eq_ignore_ascii_case(&b.text) }
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
        BinaryOperator::Arrow
        | BinaryOperator::LongArrow
        | BinaryOperator::HashArrow
        | BinaryOperator::HashLongArrow => Some(LogicalType::Json),
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
