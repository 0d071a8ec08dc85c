//! Syntax tree → checked and compiled expression. Only what is listed here passes; everything else the parser knows is
//! an error with a place and, where there is one, the way to say it.

use super::convert::{Checked, Place, Reported, Scope, Typed, Why, type_of};
use super::ir::{ArithOp, CmpOp, Const, Node, Target, Type};
use super::narrow::{self, NotNull};
use super::parse::Parsed;
use crate::diagnostics::{Diagnostic, did_you_mean};
use crate::mapping::names::{Found, Name};
use sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DataType, DateTimeField, ExactNumberInfo, Expr, Ident, InTarget,
    TimezoneInfo, TrimWhereField, UnaryOperator, Value,
};

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
        let typed = match expr {
            Expr::Nested(inner) => return self.lower(parsed, inner),
            Expr::Identifier(ident) => self.name(parsed, ident, place),
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
                ("access to a part of a value", "paths into JSON are not supported yet")
            }
            _ => ("this SQL", "see docs/mapping.md for what expressions can say"),
        };
        self.fail(
            Diagnostic::error("unsupported", place.file, place.span.clone(), format!("{what} is not supported here"))
                .help(help),
        )
    }

    fn literal(&mut self, value: &Value, place: Place) -> Checked {
        let constant = |c: Const, ty| Ok(Typed::new(Node::Const(c), ty, place.clone()));
        match value {
            Value::Null => {
                let why = Why { place: place.clone(), text: "this is null".into(), through: Vec::new() };
                let typed = Typed::new(Node::Const(Const::Null), Type::Null, place.clone());
                Ok(Typed { null: Some(why), ..typed })
            }
            Value::Boolean(b) => constant(Const::Bool(*b), Type::Bool),
            Value::Number(digits, _) => match (digits.parse::<i64>(), super::decimal::Dec::parse(digits)) {
                (Ok(n), _) => constant(Const::Int(n), Type::Int),
                (Err(_), Some(d)) => constant(Const::Dec(d), Type::Decimal),
                (Err(_), None) => self.error("bad_literal", &place, format!("`{digits}` is not a number")),
            },
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) | Value::NationalStringLiteral(s) => {
                Ok(text_literal(s, place))
            }
            Value::DollarQuotedString(s) => Ok(text_literal(&s.value, place)),
            Value::Placeholder(name) => self.variable(name, place),
            _ => self.fail(
                Diagnostic::error("bad_literal", place.file, place.span, "this kind of literal is not supported")
                    .help("write texts in single quotes"),
            ),
        }
    }

    fn variable(&mut self, name: &str, place: Place) -> Checked {
        let wanted = name.trim_start_matches(['$', '?', ':', '@']);
        let variables = self.variables;
        if let Some(v) = variables.iter().find(|v| v.name == wanted) {
            self.used.insert(format!("var {wanted}"));
            let literal = match &v.value {
                Const::Text(s) => text_literal(s, place.clone()),
                _ => Typed::new(Node::Const(v.value.clone()), v.ty, place.clone()),
            };
            return Ok(Typed { literal: false, ..literal });
        }
        let near = did_you_mean(wanted, variables.iter().map(|v| v.name.as_str()))
            .map_or_else(|| "declare it in [pack] vars".to_owned(), |n| format!("did you mean `${n}`?"));
        self.fail(
            Diagnostic::error(
                "unknown_variable",
                place.file,
                place.span,
                format!("variable `${wanted}` does not exist"),
            )
            .help(near),
        )
    }

    /// A bare name: a `let` of the rule, else a column.
    fn name(&mut self, parsed: &Parsed, ident: &Ident, place: Place) -> Checked {
        let name = Name { text: ident.value.clone(), quoted: ident.quote_style.is_some() };
        let found = self
            .lets
            .iter()
            .position(|l| if name.quoted { l.name == name.text } else { l.name.eq_ignore_ascii_case(&name.text) });
        if let Some(index) = found {
            return self.named(index, place);
        }
        let _ = parsed;
        self.column(&name, place)
    }

    fn named(&mut self, index: usize, place: Place) -> Checked {
        let Some(typed) = self.lets.get(index).and_then(|l| l.typed.clone()) else { return Err(Reported) };
        let name = self.lets[index].name.clone();
        let number = u16::try_from(index).unwrap_or(u16::MAX);
        let known = self.not_null.contains(&NotNull::Let(number));
        let null = typed.null.filter(|_| !known).map(|mut why| {
            why.through.insert(0, format!("`let {name}`"));
            why
        });
        Ok(Typed { node: Node::Let(number), place, null, literal: false, ..typed })
    }

    /// `alias.column`.
    fn qualified(&mut self, parsed: &Parsed, parts: &[Ident], place: Place) -> Checked {
        let [table, column] = parts else {
            return self.error("unknown_column", &place, "a column is written `alias.column`");
        };
        let said = Name { text: table.value.clone(), quoted: table.quote_style.is_some() };
        if said.find(std::iter::once(self.alias.text.as_str())) != Found::One(0) {
            if self.other_aliases.iter().any(|a| a.eq_ignore_ascii_case(&said.text)) {
                return Err(Reported);
            }
            let span = parsed.place_of(table.span);
            let help = format!("this rule's table is called `{}`", self.alias);
            return self.fail(
                Diagnostic::error("unknown_alias", place.file, span, format!("there is no table `{said}` here"))
                    .help(help),
            );
        }
        let name = Name { text: column.value.clone(), quoted: column.quote_style.is_some() };
        let span = parsed.place_of(column.span);
        let typed = self.column(&name, Place { file: place.file, span })?;
        Ok(Typed { place, ..typed })
    }

    /// A column of the rule's table.
    fn column(&mut self, name: &Name, place: Place) -> Checked {
        let schema = self.schema;
        let names = schema.columns.iter().map(|c| &*c.name);
        let index = match name.find(names.clone()) {
            Found::One(index) => index,
            Found::Ambiguous => {
                let message = format!("`{name}` names several columns of {}, which differ in case only", schema.table);
                return self.fail(
                    Diagnostic::error("ambiguous_column", place.file, place.span, message)
                        .help("write the one you mean in double quotes, exactly"),
                );
            }
            Found::None => {
                let lets = self.lets.iter().map(|l| l.name.as_str());
                let near = did_you_mean(&name.text, names.chain(lets)).map(|n| format!("did you mean `{n}`?"));
                let message = format!("column `{name}` does not exist in {}", schema.table);
                let diagnostic = Diagnostic::error("unknown_column", place.file, place.span, message);
                return self.fail(diagnostic.label("no such column").maybe_help(near));
            }
        };
        let column = &schema.columns[index];
        let position = self.columns.iter().position(|c| *c == index).unwrap_or_else(|| {
            self.columns.push(index);
            self.columns.len() - 1
        });
        let number = u16::try_from(position).unwrap_or(u16::MAX);
        let is_key = schema.key.contains(&index);
        let nullable = column.nullable && !is_key && !self.not_null.contains(&NotNull::Column(number));
        let null = nullable.then(|| Why {
            place: place.clone(),
            text: format!("the column `{}` allows null", column.name),
            through: Vec::new(),
        });
        let values = (!column.labels.is_empty()).then(|| column.labels.clone());
        let typed = Typed::new(Node::Column(number), type_of(column.logical), place);
        Ok(Typed { null, values, max_length: column.max_length, columns: vec![number], ..typed })
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
            | BinaryOperator::HashLongArrow => {
                return self.error("unsupported", &place, "paths into JSON are not supported yet");
            }
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

    fn cast(&mut self, parsed: &Parsed, expr: &Expr, inner: &Expr, data_type: &DataType, place: Place) -> Checked {
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
    fn target(&mut self, data_type: &DataType, arg: &Typed, place: &Place) -> Checked<(Type, Target)> {
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

/// A text literal.
fn text_literal(s: &str, place: Place) -> Typed {
    let typed = Typed::new(Node::Const(Const::Text(s.into())), Type::Text, place);
    let max_length = u32::try_from(s.chars().count()).ok();
    Typed { literal: true, values: Some(vec![s.into()]), max_length, ..typed }
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
