//! Which tables a logged statement touches, and how. Not a parser of DDL: a few words at a statement's beginning and the
//! names behind them. Only statements come here, never row changes.
//!
//! Errors of judgement are on the safe side: a statement that is not understood and names a captured table makes that
//! table's catalogue entry be read again.

use tidemark_contract::TableId;

/// What a statement did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// All rows are gone (TRUNCATE, DROP, CREATE OR REPLACE).
    Emptied(TableId),
    /// Its columns or keys may be others now.
    Altered(TableId),
    /// The values that these columns hold were made anew (all of them if none is named): the log does not tell the rows.
    Rewritten(TableId, Vec<String>),
    /// Some rows are gone or were brought without being in the log (partitions).
    PartlyReplaced(TableId),
    /// The first table is called as the second from now on.
    Renamed(TableId, TableId),
    /// All tables of the database are gone.
    DatabaseGone(Box<str>),
    /// Rows were changed by a statement that is logged instead of them; these names occur in it.
    Statement(Vec<TableId>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    Name(String),
    Text,
    Mark(char),
}

fn tokens(text: &str, ansi_quotes: bool) -> Vec<Token> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        if c.is_whitespace() {
            rest = after;
        } else if rest.starts_with("-- ") || rest.starts_with("--\n") || c == '#' {
            rest = rest.find('\n').map_or("", |at| &rest[at..]);
        } else if rest.starts_with("/*!") || rest.starts_with("/*M!") {
            // A comment that servers of some versions read: we read it too.
            let body = rest.trim_start_matches(['/', '*', 'M', '!']);
            rest = body.trim_start_matches(|c: char| c.is_ascii_digit());
        } else if rest.starts_with("*/") {
            rest = &rest[2..];
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |at| &rest[at + 2..]);
        } else if c == '`' || c == '"' || c == '\'' {
            let is_name = c == '`' || (c == '"' && ansi_quotes);
            let mut name = String::new();
            let mut chars = after.char_indices().peekable();
            let mut end = after.len();
            while let Some((at, d)) = chars.next() {
                if d == c {
                    if chars.peek().is_some_and(|(_, next)| *next == c) {
                        chars.next();
                        name.push(c);
                        continue;
                    }
                    end = at + c.len_utf8();
                    break;
                }
                if d == '\\' && !is_name {
                    chars.next();
                } else {
                    name.push(d);
                }
            }
            out.push(if is_name { Token::Name(name) } else { Token::Text });
            rest = &after[end..];
        } else if c.is_alphanumeric() || matches!(c, '_' | '$' | '@') || !c.is_ascii() {
            let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '@') || !c.is_ascii();
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            out.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        } else {
            out.push(Token::Mark(c));
            rest = after;
        }
    }
    out
}

struct Reader<'a> {
    rest: &'a [Token],
    database: &'a str,
}

impl Reader<'_> {
    /// Passes over a word, if it is the next one.
    fn word(&mut self, wanted: &str) -> bool {
        match self.rest.split_first() {
            Some((Token::Word(word), rest)) if word.eq_ignore_ascii_case(wanted) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn words(&mut self, wanted: &[&str]) -> bool {
        let before = self.rest;
        let all = wanted.iter().all(|w| self.word(w));
        if !all {
            self.rest = before;
        }
        all
    }

    fn mark(&mut self, wanted: char) -> bool {
        match self.rest.split_first() {
            Some((Token::Mark(mark), rest)) if *mark == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn part(&mut self) -> Option<String> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        match first {
            Token::Word(word) | Token::Name(word) => Some(word.clone()),
            _ => None,
        }
    }

    /// A table's name, with or without its database.
    fn name(&mut self) -> Option<TableId> {
        let first = self.part()?;
        if self.mark('.') {
            return Some(TableId::new(first, self.part()?));
        }
        Some(TableId::new(self.database, first))
    }

    /// Goes on behind the next comma of a list whose parenthesis is open.
    fn seek_comma(&mut self) -> bool {
        let mut depth = 0;
        while let Some((first, rest)) = self.rest.split_first() {
            self.rest = rest;
            match first {
                Token::Mark('(') => depth += 1,
                Token::Mark(')') => depth -= 1,
                Token::Mark(',') if depth == 0 => return true,
                _ => {}
            }
        }
        false
    }

    /// Goes on behind the next occurrence of `wanted` outside parentheses.
    fn seek(&mut self, wanted: &str) -> bool {
        let mut depth = 0;
        while let Some((first, rest)) = self.rest.split_first() {
            self.rest = rest;
            match first {
                Token::Mark('(') => depth += 1,
                Token::Mark(')') => depth -= 1,
                Token::Word(word) if depth == 0 && word.eq_ignore_ascii_case(wanted) => return true,
                _ => {}
            }
        }
        false
    }
}

/// The effects of a statement run with `database` as the default one.
pub(crate) fn effects(text: &str, database: &str, ansi_quotes: bool) -> Vec<Effect> {
    let tokens = tokens(text, ansi_quotes);
    let mut reader = Reader { rest: &tokens, database };
    let Some(Token::Word(verb)) = tokens.first() else { return Vec::new() };
    reader.rest = &tokens[1..];
    match verb.to_ascii_uppercase().as_str() {
        "TRUNCATE" => {
            reader.word("TABLE");
            reader.name().map(Effect::Emptied).into_iter().collect()
        }
        "DROP" => drop_effects(reader),
        "RENAME" => {
            if !reader.word("TABLE") && !reader.word("TABLES") {
                return Vec::new();
            }
            reader.words(&["IF", "EXISTS"]);
            let mut out = Vec::new();
            while let Some(from) = reader.name() {
                if !reader.seek("TO") {
                    break;
                }
                let Some(to) = reader.name() else { break };
                out.push(Effect::Renamed(from, to));
                if !reader.mark(',') {
                    break;
                }
            }
            out
        }
        "ALTER" => alter_effects(reader),
        "CREATE" => create_effects(reader),
        "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" | "CALL" | "WITH" => {
            vec![Effect::Statement(names(&tokens, database))]
        }
        "ANALYZE" | "OPTIMIZE" | "REPAIR" | "CHECK" | "FLUSH" | "GRANT" | "REVOKE" | "SET" | "LOCK" | "UNLOCK" => {
            Vec::new()
        }
        _ => names(&tokens, database).into_iter().map(Effect::Altered).collect(),
    }
}

fn drop_effects(mut reader: Reader<'_>) -> Vec<Effect> {
    if reader.word("TEMPORARY") {
        return Vec::new();
    }
    if reader.word("DATABASE") || reader.word("SCHEMA") {
        reader.words(&["IF", "EXISTS"]);
        return reader.part().map(|name| Effect::DatabaseGone(name.into())).into_iter().collect();
    }
    if reader.word("TABLE") || reader.word("TABLES") {
        reader.words(&["IF", "EXISTS"]);
        let mut out = Vec::new();
        while let Some(name) = reader.name() {
            out.push(Effect::Emptied(name));
            if !reader.mark(',') {
                break;
            }
        }
        return out;
    }
    if reader.word("INDEX") && reader.seek("ON") {
        return reader.name().map(Effect::Altered).into_iter().collect();
    }
    Vec::new()
}

fn alter_effects(mut reader: Reader<'_>) -> Vec<Effect> {
    while reader.word("ONLINE") || reader.word("OFFLINE") || reader.word("IGNORE") {}
    if !reader.word("TABLE") {
        return Vec::new();
    }
    reader.words(&["IF", "EXISTS"]);
    let Some(table) = reader.name() else { return Vec::new() };
    let mut out = vec![Effect::Altered(table.clone())];
    if let Some(columns) = rewritten(reader.rest) {
        out.push(Effect::Rewritten(table.clone(), columns));
    }
    let mut depth = 0;
    while let Some((first, rest)) = reader.rest.split_first() {
        reader.rest = rest;
        let word = match first {
            Token::Mark('(') => {
                depth += 1;
                continue;
            }
            Token::Mark(')') => {
                depth -= 1;
                continue;
            }
            Token::Word(word) if depth == 0 => word.to_ascii_uppercase(),
            _ => continue,
        };
        match word.as_str() {
            "RENAME" if !reader.word("COLUMN") && !reader.word("INDEX") && !reader.word("KEY") => {
                let _ = reader.word("TO") || reader.word("AS") || reader.mark('=');
                out.extend(reader.name().map(|to| Effect::Renamed(table.clone(), to)));
            }
            "TRUNCATE" | "DROP" | "EXCHANGE" | "CONVERT" | "DISCARD" | "IMPORT"
                if reader.word("PARTITION")
                    || reader.word("TABLESPACE")
                    || (word == "CONVERT" && reader.word("TABLE")) =>
            {
                out.push(Effect::PartlyReplaced(table.clone()));
                if word == "EXCHANGE" && reader.words(&["WITH"]) | reader.seek("WITH") {
                    reader.word("TABLE");
                    out.extend(reader.name().map(Effect::PartlyReplaced));
                }
            }
            _ => {}
        }
    }
    out
}

/// The columns whose stored values an ALTER TABLE with these clauses may have changed: ones that it adds (the column of
/// that name may have been dropped before), gives another type or renames. Empty if it may be any of them, `None` if no
/// values change. What is not known changes none: those are options of the table, its keys and its partitions.
fn rewritten(clauses: &[Token]) -> Option<Vec<String>> {
    let mut columns = Vec::new();
    let mut any = false;
    let mut depth = 0;
    let outside = |token: &Token| {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == Token::Mark(',')
    };
    for clause in clauses.split(outside) {
        let mut clause = Reader { rest: clause, database: "" };
        if clause.word("WAIT") {
            clause.part();
        }
        clause.word("NOWAIT");
        if clause.word("ADD") {
            let is_column = clause.word("COLUMN");
            clause.words(&["IF", "NOT", "EXISTS"]);
            if clause.mark('(') {
                columns.extend(clause.part());
                while clause.seek_comma() {
                    columns.extend(clause.part());
                }
            } else if is_column || !is_key_or_partition(clause.rest) {
                columns.extend(clause.part());
            }
        } else if clause.word("MODIFY") {
            clause.word("COLUMN");
            clause.words(&["IF", "EXISTS"]);
            columns.extend(clause.part());
        } else if clause.word("CHANGE") {
            clause.word("COLUMN");
            clause.words(&["IF", "EXISTS"]);
            columns.extend(clause.part());
            columns.extend(clause.part());
        } else if clause.words(&["RENAME", "COLUMN"]) {
            clause.words(&["IF", "EXISTS"]);
            columns.extend(clause.part());
            clause.word("TO");
            columns.extend(clause.part());
        } else if clause.words(&["CONVERT", "TO"]) {
            any = true;
        }
    }
    match (any, columns.is_empty()) {
        (true, _) => Some(Vec::new()),
        (false, true) => None,
        (false, false) => Some(columns),
    }
}

/// Whether what follows ADD is no column.
fn is_key_or_partition(rest: &[Token]) -> bool {
    const OTHERS: [&str; 12] = [
        "INDEX",
        "KEY",
        "UNIQUE",
        "PRIMARY",
        "CONSTRAINT",
        "FOREIGN",
        "FULLTEXT",
        "SPATIAL",
        "CHECK",
        "PARTITION",
        "PERIOD",
        "SYSTEM",
    ];
    matches!(rest.first(), Some(Token::Word(word)) if OTHERS.iter().any(|other| word.eq_ignore_ascii_case(other)))
}

fn create_effects(mut reader: Reader<'_>) -> Vec<Effect> {
    let replaces = reader.words(&["OR", "REPLACE"]);
    if reader.word("TEMPORARY") {
        return Vec::new();
    }
    if reader.word("TABLE") {
        reader.words(&["IF", "NOT", "EXISTS"]);
        let Some(name) = reader.name() else { return Vec::new() };
        return if replaces {
            vec![Effect::Emptied(name.clone()), Effect::Altered(name)]
        } else {
            vec![Effect::Altered(name)]
        };
    }
    let _ = reader.word("UNIQUE") || reader.word("FULLTEXT") || reader.word("SPATIAL");
    if reader.word("INDEX") && reader.seek("ON") {
        return reader.name().map(Effect::Altered).into_iter().collect();
    }
    Vec::new()
}

/// Everything in a statement that could be a table's name.
fn names(tokens: &[Token], database: &str) -> Vec<TableId> {
    let mut out = Vec::new();
    let part = |token: Option<&Token>| match token {
        Some(Token::Word(word) | Token::Name(word)) => Some(word.clone()),
        _ => None,
    };
    for at in 0..tokens.len() {
        let Some(name) = part(tokens.get(at)) else { continue };
        if tokens.get(at + 1) == Some(&Token::Mark('.'))
            && let Some(table) = part(tokens.get(at + 2))
        {
            out.push(TableId::new(name.clone(), table));
        }
        out.push(TableId::new(database, name));
    }
    out
}

/// Whether a table of this name is the work copy of `table` that an online schema tool (gh-ost, pt-online-schema-change,
/// Facebook's OnlineSchemaChange, LHM, Spirit) puts in its place by renaming: it holds the same rows.
pub(crate) fn is_ghost_of(name: &TableId, table: &TableId) -> bool {
    if name.schema != table.schema {
        return false;
    }
    let (name, table) = (&*name.name, &*table.name);
    let cut: String = table.chars().take(50).collect();
    let framed = |prefix: &str, suffix: &str| {
        name.strip_prefix(prefix)
            .and_then(|n| n.strip_suffix(suffix))
            .is_some_and(|middle| middle == table || (middle.len() >= 20 && table.starts_with(middle)) || middle == cut)
    };
    framed("_", "_gho")
        || framed("_", "_new")
        || (framed("__", "_new") || framed("___", "_new") || framed("____", "_new"))
        || framed("__osc_new_", "")
        || framed("lhmn_", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn t(name: &str) -> TableId {
        TableId::new("db", name)
    }

    fn run(text: &str) -> Vec<Effect> {
        effects(text, "db", false)
    }

    #[test]
    fn statements_are_understood() {
        use Effect::{Altered, DatabaseGone, Emptied, PartlyReplaced, Renamed, Rewritten};
        let rewritten = |columns: &[&str]| Rewritten(t("a"), columns.iter().map(|c| (*c).to_owned()).collect());
        for (text, wanted) in [
            ("TRUNCATE TABLE a", vec![Emptied(t("a"))]),
            ("truncate `x`.`a``b`", vec![Emptied(TableId::new("x", "a`b"))]),
            ("DROP TABLE IF EXISTS `a`,`b` /* generated by server */", vec![Emptied(t("a")), Emptied(t("b"))]),
            ("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `a`", vec![]),
            ("DROP DATABASE IF EXISTS d", vec![DatabaseGone("d".into())]),
            ("DROP VIEW a", vec![]),
            ("/* c */ ALTER TABLE a ADD COLUMN b INT -- x\n", vec![Altered(t("a")), rewritten(&["b"])]),
            ("ALTER TABLE a RENAME COLUMN x TO y, RENAME INDEX i TO j", vec![Altered(t("a")), rewritten(&["x", "y"])]),
            ("ALTER TABLE a RENAME TO b", vec![Altered(t("a")), Renamed(t("a"), t("b"))]),
            ("ALTER TABLE a RENAME b, ADD c INT", vec![Altered(t("a")), rewritten(&["c"]), Renamed(t("a"), t("b"))]),
            ("ALTER TABLE a TRUNCATE PARTITION p0", vec![Altered(t("a")), PartlyReplaced(t("a"))]),
            (
                "ALTER TABLE a EXCHANGE PARTITION p WITH TABLE b",
                vec![Altered(t("a")), PartlyReplaced(t("a")), PartlyReplaced(t("b"))],
            ),
            ("ALTER TABLE a ADD CHECK (x RENAME y)", vec![Altered(t("a"))]),
            (
                "ALTER TABLE a WAIT 5 ADD (b INT CHECK (b IN (1, 2)), `c` ENUM('x', 'y')), MODIFY COLUMN d DECIMAL(9, 2)",
                vec![Altered(t("a")), rewritten(&["b", "c", "d"])],
            ),
            (
                "ALTER TABLE a CHANGE `b` `c` INT, DROP d, ADD `index` INT",
                vec![Altered(t("a")), rewritten(&["b", "c", "index"])],
            ),
            (
                "ALTER TABLE a ADD UNIQUE (b), ALTER c SET DEFAULT 1, COMMENT 'x', ENGINE = InnoDB, ADD PARTITION (PARTITION p1)",
                vec![Altered(t("a"))],
            ),
            ("ALTER TABLE a CONVERT TO CHARACTER SET latin1", vec![Altered(t("a")), rewritten(&[])]),
            (
                "ALTER TABLE a CONVERT TABLE b TO PARTITION p VALUES LESS THAN (9)",
                vec![Altered(t("a")), PartlyReplaced(t("a"))],
            ),
            (
                "RENAME TABLE `a` TO `_a_del`, `_a_gho` TO `a`",
                vec![Renamed(t("a"), t("_a_del")), Renamed(t("_a_gho"), t("a"))],
            ),
            ("CREATE OR REPLACE TABLE a (x INT)", vec![Emptied(t("a")), Altered(t("a"))]),
            ("CREATE TABLE IF NOT EXISTS a LIKE b", vec![Altered(t("a"))]),
            ("CREATE UNIQUE INDEX i ON a (x)", vec![Altered(t("a"))]),
            ("CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW SET NEW.x = 1", vec![]),
            ("GRANT SELECT ON a TO b", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(run(text), wanted, "{text}");
        }
        assert_eq!(
            effects("ALTER TABLE \"a b\" ADD c INT", "db", true),
            [Altered(t("a b")), Rewritten(t("a b"), vec!["c".into()])]
        );
    }

    #[test]
    fn statements_that_change_rows_name_their_tables() {
        let [Effect::Statement(names)] = &run("INSERT INTO `a` SELECT * FROM x.b WHERE c = 'hidden'")[..] else {
            panic!()
        };
        assert!(names.contains(&t("a")) && names.contains(&TableId::new("x", "b")));
        assert!(!names.contains(&t("hidden")));
    }

    #[test]
    fn ghosts_are_known_by_their_names() {
        for ghost in ["_orders_gho", "_orders_new", "__orders_new", "__osc_new_orders", "lhmn_orders"] {
            assert!(is_ghost_of(&t(ghost), &t("orders")), "{ghost}");
        }
        for other in ["orders_new", "_order_gho", "_orders_del", "staging"] {
            assert!(!is_ghost_of(&t(other), &t("orders")), "{other}");
        }
        assert!(!is_ghost_of(&TableId::new("x", "_orders_gho"), &t("orders")));
    }

    proptest! {
        #[test]
        fn any_text_does_no_harm(text in "[a-zA-Z`'\"/*!(),. #\\-\\\\\n€]{0,60}") {
            let _ = run(&text);
        }

        #[test]
        fn alter_of_anything_does_no_harm(text in "(ALTER TABLE|RENAME TABLE|DROP|CREATE OR REPLACE|EXCHANGE|WITH|RENAME|PARTITION|TO|a|`b`|[.,()'])( |){0,12}") {
            let _ = run(&text);
        }
    }
}
