//! Which columns cannot be null, given that a condition holds. Makes `where c.name is not null` and
//! `case when c.name is null then … else trim(c.name) end` count when the checker asks whether a field can be null.

use super::ir::Node;

/// A column or a `let` that is known not to be null.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotNull {
    Column(u16),
    Let(u16),
}

type Facts = Vec<NotNull>;

fn union<'n>(nodes: impl IntoIterator<Item = &'n Node>, facts: impl Fn(&Node) -> Facts) -> Facts {
    nodes.into_iter().flat_map(facts).collect()
}

fn intersection(nodes: &[Node], facts: impl Fn(&Node) -> Facts) -> Facts {
    let mut all = nodes.iter().map(facts);
    let first = all.next().unwrap_or_default();
    all.fold(first, |kept, next| kept.into_iter().filter(|f| next.contains(f)).collect())
}

/// What is not null if the node's value is not null.
fn strict(node: &Node) -> Facts {
    match node {
        Node::Column(n) | Node::Binary(n) => vec![NotNull::Column(*n)],
        Node::Let(n) => vec![NotNull::Let(*n)],
        Node::Cast { arg, .. }
        | Node::Neg { arg, .. }
        | Node::Not(arg)
        | Node::In { arg, .. }
        | Node::Lookup { arg, .. }
        | Node::Extract { arg, .. }
        | Node::Trunc { arg, .. }
        | Node::AtZone { arg, .. }
        | Node::ToChar { arg, .. }
        | Node::Prepared { arg, .. }
        | Node::RegexReplace { arg, .. }
        | Node::Between { arg, .. }
        | Node::NullIf(arg, _) => strict(arg),
        Node::Concat(parts) => union(parts, strict),
        Node::Call { strict: true, args, .. } => union(args, strict),
        Node::Arith { left, right, .. } | Node::Cmp { left, right, .. } => union([&**left, &**right], strict),
        Node::Like { arg, pattern, .. } => union([&**arg, &**pattern], strict),
        _ => Facts::new(),
    }
}

/// What is not null if the condition is true.
pub(crate) fn if_true(node: &Node) -> Facts {
    match node {
        Node::And(parts) => union(parts, if_true),
        Node::Or(parts) => intersection(parts, if_true),
        Node::Not(inner) => if_false(inner),
        Node::IsNull { negated: true, arg } | Node::IsBool { negated: false, arg, .. } => strict(arg),
        Node::IsNull { .. } | Node::IsBool { .. } | Node::Distinct { .. } => Facts::new(),
        _ => strict(node),
    }
}

/// What is not null if the condition is false.
fn if_false(node: &Node) -> Facts {
    match node {
        Node::Or(parts) => union(parts, if_false),
        Node::And(parts) => intersection(parts, if_false),
        Node::Not(inner) => if_true(inner),
        Node::IsNull { negated: false, arg } | Node::IsBool { negated: true, arg, .. } => strict(arg),
        Node::IsNull { .. } | Node::IsBool { .. } | Node::Distinct { .. } => Facts::new(),
        _ => strict(node),
    }
}

/// What is not null if the condition is false or unknown: what a later branch of a `case` may rely on.
pub(crate) fn if_not_true(node: &Node) -> Facts {
    match node {
        Node::Or(parts) => union(parts, if_not_true),
        Node::And(parts) => intersection(parts, if_not_true),
        Node::IsNull { negated: false, arg } => strict(arg),
        _ => Facts::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_null(n: u16, negated: bool) -> Node {
        Node::IsNull { negated, arg: Box::new(Node::Column(n)) }
    }

    #[test]
    fn conditions_say_what_is_not_null() {
        let both = Node::And([is_null(0, true), is_null(1, true)].into());
        assert_eq!(if_true(&both), [NotNull::Column(0), NotNull::Column(1)]);
        let either = Node::Or([is_null(0, true), is_null(1, true)].into());
        assert_eq!(if_true(&either), []);
        assert_eq!(if_true(&Node::Not(Box::new(is_null(2, false)))), [NotNull::Column(2)]);
        assert_eq!(if_not_true(&is_null(3, false)), [NotNull::Column(3)]);
        assert_eq!(if_not_true(&is_null(3, true)), []);
    }
}
