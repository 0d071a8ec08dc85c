//! Syntax trees. Every field is used by the engine; what a tree cannot say cannot be run.
#![allow(missing_docs)]

/// A name of up to four parts; a part left out (`db..t`) is empty.
pub type Name = Vec<String>;

#[derive(Clone, Debug, PartialEq)]
pub struct TypeName {
    pub name: String,
    pub args: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Null,
    Default,
    /// Digits alone.
    Int(String),
    /// Digits with a point.
    Exact(String),
    /// With an exponent.
    Float(String),
    Str(String, bool),
    Hex(Vec<u8>),
    Var(String),
    Global(String),
    Column(Name),
    Call(Call),
    /// `x.ToString()`
    Method(Box<Expr>, String, Vec<Expr>),
    /// `geography::Point(1, 2, 4326)`
    Static(String, String, Vec<Expr>),
    Cast {
        expr: Box<Expr>,
        ty: TypeName,
        style: Option<Box<Expr>>,
        lenient: bool,
    },
    Negative(Box<Expr>),
    BitNot(Box<Expr>),
    /// `+ - * / % & | ^`
    Arith(&'static str, Box<Expr>, Box<Expr>),
    /// `= <> < <= > >=`
    Compare(&'static str, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>, bool),
    Between(Box<Expr>, Box<Expr>, Box<Expr>, bool),
    InList(Box<Expr>, Vec<Expr>, bool),
    InQuery(Box<Expr>, Box<Query>, bool),
    Like {
        value: Box<Expr>,
        pattern: Box<Expr>,
        escape: Option<Box<Expr>>,
        negated: bool,
    },
    Exists(Box<Query>),
    Case {
        operand: Option<Box<Expr>>,
        whens: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Scalar(Box<Query>),
    Collate(Box<Expr>, String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub name: Name,
    pub args: Vec<Expr>,
    pub star: bool,
    pub distinct: bool,
    pub over: Option<Over>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    pub partition: Vec<Expr>,
    pub order: Vec<OrderItem>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OrderItem {
    pub expr: Expr,
    pub descending: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub ctes: Vec<(String, Vec<String>, Query)>,
    pub body: SetExpr,
    pub order: Vec<OrderItem>,
    pub offset: Option<Expr>,
    pub fetch: Option<Expr>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SetExpr {
    Select(Box<Select>),
    Values(Vec<Vec<Expr>>),
    Op(Box<SetExpr>, &'static str, Box<SetExpr>),
    Nested(Box<Query>),
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Select {
    pub distinct: bool,
    pub top: Option<Expr>,
    pub items: Vec<Item>,
    pub into: Option<Name>,
    pub from: Vec<TableRef>,
    pub filter: Option<Expr>,
    pub group: Vec<Expr>,
    pub having: Option<Expr>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// `*` or `t.*`
    Star(Option<String>),
    Expr(Expr, Option<String>),
    /// `@x = expr`
    Assign(String, Expr),
}

#[derive(Clone, Debug, PartialEq)]
pub enum TableRef {
    Named { name: Name, alias: Option<String>, hints: Vec<String> },
    Function { name: Name, args: Vec<Expr>, alias: Option<String> },
    Changes { table: Name, version: Expr, alias: String },
    Version { table: Name, columns: Vec<String>, values: Vec<Expr>, alias: String },
    Derived { query: Box<Query>, alias: String, columns: Vec<String> },
    Join { left: Box<TableRef>, right: Box<TableRef>, kind: JoinKind, on: Option<Expr> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
    Cross,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDef {
    pub name: String,
    pub ty: Option<TypeName>,
    pub collation: Option<String>,
    pub nullable: Option<bool>,
    pub identity: Option<(i64, i64)>,
    pub default: Option<(Option<String>, String)>,
    pub computed: Option<(String, bool)>,
    pub constraints: Vec<Constraint>,
    pub sparse: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Constraint {
    pub name: Option<String>,
    pub kind: ConstraintKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ConstraintKind {
    Key {
        primary: bool,
        clustered: Option<bool>,
        columns: Vec<(String, bool)>,
    },
    Check(String),
    Foreign {
        columns: Vec<String>,
        table: Name,
        target: Vec<String>,
        on_delete: String,
        on_update: String,
    },
    /// `DEFAULT x FOR column`
    Default(String, String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum AlterTable {
    Add(Vec<ColumnDef>, Vec<Constraint>),
    AlterColumn {
        name: String,
        ty: TypeName,
        collation: Option<String>,
        nullable: Option<bool>,
    },
    DropColumns(Vec<String>),
    DropConstraints(Vec<String>),
    /// `CHECK` (true) or `NOCHECK CONSTRAINT` (names; none is ALL)
    Trust(bool, Vec<String>),
    ChangeTracking {
        on: bool,
        columns: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    pub column: Name,
    pub value: Expr,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Values(Vec<Vec<Expr>>),
    Query(Box<Query>),
    Exec(Box<Statement>),
    Default,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    pub name: Option<String>,
    pub value: Expr,
    pub output: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Query(Box<Query>),
    Insert {
        table: Name,
        columns: Vec<String>,
        output: Vec<Item>,
        source: Source,
    },
    Update {
        top: Option<Expr>,
        target: Name,
        sets: Vec<Assignment>,
        output: Vec<Item>,
        from: Vec<TableRef>,
        filter: Option<Expr>,
    },
    Delete {
        top: Option<Expr>,
        target: Name,
        output: Vec<Item>,
        from: Vec<TableRef>,
        filter: Option<Expr>,
    },
    Truncate(Name),
    Declare(Vec<(String, TypeName, Option<Expr>)>),
    SetVar(String, Expr),
    SetOption(String, bool),
    SetValue(String, Expr),
    SetIsolation(String),
    SetIdentityInsert(Name, bool),
    SetContext(Expr),
    If(Expr, Box<Statement>, Option<Box<Statement>>),
    While(Expr, Box<Statement>),
    Block(Vec<Statement>),
    Try(Vec<Statement>, Vec<Statement>),
    Begin,
    Commit,
    Rollback(Option<String>),
    Save(String),
    Exec {
        result: Option<String>,
        name: Name,
        args: Vec<Argument>,
    },
    ExecText(Expr),
    Print(Expr),
    RaiseError(Vec<Expr>),
    Throw(Vec<Expr>),
    Return(Option<Expr>),
    WaitFor(Expr),
    Use(String),
    Checkpoint,
    CreateTable {
        name: Name,
        columns: Vec<ColumnDef>,
        constraints: Vec<Constraint>,
    },
    AlterTable(Name, AlterTable),
    Drop {
        what: String,
        if_exists: bool,
        names: Vec<Name>,
    },
    DropIndex {
        name: String,
        table: Name,
    },
    CreateIndex {
        name: String,
        table: Name,
        unique: bool,
        clustered: bool,
        columns: Vec<(String, bool)>,
        included: Vec<String>,
    },
    CreateView {
        name: Name,
        columns: Vec<String>,
        text: String,
    },
    CreateProcedure {
        name: Name,
    },
    CreateSchema(String),
    CreateDatabase {
        name: String,
        collation: Option<String>,
    },
    AlterDatabase {
        name: Option<String>,
        options: Vec<DatabaseOption>,
    },
    CreateLogin {
        name: String,
        password: String,
    },
    CreateUser {
        name: String,
        login: Option<String>,
    },
    CreateRole(String),
    Membership {
        role: String,
        member: String,
        add: bool,
        server: bool,
    },
    Permission {
        verb: String,
        permissions: Vec<String>,
        on: Securable,
        to: Vec<String>,
    },
    Kill(Expr),
}

#[derive(Clone, Debug, PartialEq)]
pub enum DatabaseOption {
    SnapshotIsolation(bool),
    ReadCommittedSnapshot(bool),
    ChangeTracking {
        on: bool,
        retention_minutes: Option<i64>,
        auto_cleanup: Option<bool>,
    },
    /// Options that change nothing that is modelled.
    Ignored(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Securable {
    Database,
    Schema(String),
    Object(Name),
}
