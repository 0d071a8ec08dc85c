//! T-SQL text to syntax trees.
//!
//! The parser is the simulator's own and takes exactly the constructs that are modelled. A general SQL parser would read
//! more than that, and every field of its trees that the engine forgets to look at is a clause silently ignored; here
//! what has no tree cannot be run. T-SQL also separates statements by nothing at all, has `CHANGETABLE(CHANGES t, 1)`,
//! `EXEC p @a = 1`, `ALTER DATABASE … SET`, `SELECT @x = y`, which such parsers lack.

pub mod ast;
mod ddl;
mod expr;
pub mod lexer;
mod parser;
mod query;
mod security;
mod statement;

pub use parser::parse_batch;
pub(crate) use parser::parse_condition_text;
pub(crate) use parser::parse_expr_text;
pub(crate) use parser::parse_query_text;
