//! Functions: each arm names its page by the function's own name, "ABS (Transact-SQL)" and so on.

use super::{Binder, Bound, Scope};
use crate::engine::database::state;
use crate::engine::views::literal;
use crate::error::{Result, SqlError};
use crate::sql::ast::{Call, Expr};
use crate::types::{Kind, MAX, SqlType, datetime};
use rusqlite::types::Value;

/// Canonical name of a date part: "DATEADD (Transact-SQL)".
fn date_part(e: &Expr) -> Result<&'static str> {
    let Expr::Column(parts) = e else {
        return Err(SqlError::new(1023, 15, 1, "Invalid parameter 1 specified for datepart."));
    };
    let word = parts.join(".").to_ascii_lowercase();
    Ok(match word.as_str() {
        "year" | "yy" | "yyyy" => "year",
        "quarter" | "qq" | "q" => "quarter",
        "month" | "mm" | "m" => "month",
        "dayofyear" | "dy" | "y" => "dayofyear",
        "day" | "dd" | "d" => "day",
        "week" | "wk" | "ww" => "week",
        "weekday" | "dw" | "w" => "weekday",
        "hour" | "hh" => "hour",
        "minute" | "mi" | "n" => "minute",
        "second" | "ss" | "s" => "second",
        "millisecond" | "ms" => "millisecond",
        "microsecond" | "mcs" => "microsecond",
        "nanosecond" | "ns" => "nanosecond",
        "tzoffset" | "tz" => "tzoffset",
        other => return Err(SqlError::new(155, 15, 1, format!("'{other}' is not a recognized datepart option."))),
    })
}

fn int() -> SqlType {
    SqlType::of(Kind::Int)
}

fn text_type(b: &Bound) -> SqlType {
    b.ty
}

impl Binder<'_> {
    /// Binds a function call.
    pub fn call(&mut self, call: &Call, scope: &Scope<'_>) -> Result<Bound> {
        let full = call.name.iter().map(|p| p.to_ascii_lowercase()).collect::<Vec<_>>().join(".");
        if let Some(b) = self.aggregate(&full, call, scope)? {
            return Ok(b);
        }
        if call.star || call.distinct || call.over.is_some() {
            return Err(SqlError::unmodelled(format!("the function {full} in this form")));
        }
        if let Some(cdc) = full.strip_prefix("sys.") {
            return self.system_call(cdc, &call.args, scope);
        }
        if let Some(b) = self.special(&full, &call.args, scope)? {
            return Ok(b);
        }
        let args: Vec<Bound> = call.args.iter().map(|a| self.value(a, scope)).collect::<Result<_>>()?;
        if let Some(b) = self.session_call(&full, &args)? {
            return Ok(b);
        }
        self.plain_call(&full, args)
    }

    fn text_arg(&self, b: Bound) -> Result<Bound> {
        if b.ty.is_char() {
            return Ok(b);
        }
        let kind = if b.ty.kind == Kind::NText { Kind::NVarChar } else { Kind::VarChar };
        let ty = if b.ty.is_old_lob() { SqlType::max(kind) } else { SqlType::sized(kind, 8000) };
        self.implicit(b, ty.collate(self.session.db.collation))
    }

    fn aggregate(&mut self, name: &str, call: &Call, scope: &Scope<'_>) -> Result<Option<Bound>> {
        let over = match &call.over {
            None => String::new(),
            Some(o) => {
                let mut parts = Vec::new();
                if !o.partition.is_empty() {
                    let keys: Vec<_> = o
                        .partition
                        .iter()
                        .map(|e| self.value(e, scope).map(|b| self.key(&b)))
                        .collect::<Result<_>>()?;
                    parts.push(format!("PARTITION BY {}", keys.join(", ")));
                }
                if !o.order.is_empty() {
                    let mut keys = Vec::new();
                    for item in &o.order {
                        // `ORDER BY (SELECT NULL)` is how one says that any order will do.
                        let b = self.value(&item.expr, scope)?;
                        keys.push(format!("{}{}", self.key(&b), if item.descending { " DESC" } else { "" }));
                    }
                    parts.push(format!("ORDER BY {}", keys.join(", ")));
                }
                format!(" OVER ({})", parts.join(" "))
            }
        };
        if ["row_number", "rank", "dense_rank"].contains(&name) {
            if call.over.is_none() {
                return Err(SqlError::new(
                    10753,
                    15,
                    1,
                    format!("The function '{}' must have an OVER clause.", name.to_ascii_uppercase()),
                ));
            }
            return Ok(Some(Bound::new(format!("{name}(){over}"), SqlType::of(Kind::BigInt)).not_null()));
        }
        if !["count", "count_big", "sum", "avg", "min", "max", "string_agg"].contains(&name) {
            return Ok(None);
        }
        let inner = Scope { sources: scope.sources.clone(), parent: scope.parent, grouped: None };
        let distinct = if call.distinct { "DISTINCT " } else { "" };
        let big = SqlType::of(Kind::BigInt);
        if call.star {
            if name != "count" && name != "count_big" {
                return Err(SqlError::syntax("*"));
            }
            let ty = if name == "count" { int() } else { big };
            return Ok(Some(Bound::new(format!("count(*){over}"), ty)));
        }
        let first = call.args.first().ok_or_else(|| SqlError::syntax(")"))?;
        let b = self.value(first, &inner)?;
        let key = self.key(&b);
        let sql = match name {
            "count" | "count_big" => {
                let ty = if name == "count" { int() } else { big };
                return Ok(Some(Bound::new(format!("count({distinct}{key}){over}"), ty)));
            }
            "min" | "max" => {
                if b.ty.is_old_lob()
                    || matches!(b.ty.kind, Kind::Bit | Kind::Xml | Kind::DateTimeOffset | Kind::Variant)
                {
                    if matches!(b.ty.kind, Kind::DateTimeOffset | Kind::Variant) {
                        return Err(SqlError::unmodelled(format!("{name} of {}", b.ty.name())));
                    }
                    let text = format!("Operand data type {} is invalid for {name} operator.", b.ty.name());
                    return Err(SqlError::new(8117, 16, 1, text));
                }
                return Ok(Some(Bound { hold: b.hold, ..Bound::new(format!("{name}({distinct}{key}){over}"), b.ty) }));
            }
            "string_agg" => {
                let separator = call.args.get(1).ok_or_else(|| SqlError::syntax(")"))?;
                let separator = self.value(separator, &inner)?;
                let b = self.text_arg(b)?;
                let ty = SqlType { len: if b.ty.len == MAX { MAX } else { 4000 }, ..b.ty };
                return Ok(Some(Bound::new(format!("group_concat({}, {}){over}", b.sql, separator.sql), ty)));
            }
            other => other,
        };
        // SUM and AVG widen: int for the small ones, numeric(38, s), money, float.
        let (kind, ty) = match b.ty.kind {
            Kind::TinyInt | Kind::SmallInt | Kind::Int => (Kind::Int, int()),
            Kind::BigInt => (Kind::BigInt, big),
            Kind::Money | Kind::SmallMoney => (Kind::Money, SqlType::of(Kind::Money)),
            Kind::Real | Kind::Float => (Kind::Float, SqlType::of(Kind::Float)),
            Kind::Decimal | Kind::Numeric => (Kind::Numeric, SqlType { precision: 38, ..b.ty }),
            _ => {
                let text = format!("Operand data type {} is invalid for {sql} operator.", b.ty.name());
                return Err(SqlError::new(8117, 16, 1, text));
            }
        };
        if sql == "sum" {
            return Ok(Some(match kind {
                Kind::Numeric => Bound::new(format!("t_sumdec({distinct}{}){over}", b.sql), ty),
                Kind::Int => Bound::new(format!("t_arith('+', sum({distinct}{}){over}, 0, {})", b.sql, ty.code()), ty),
                _ => Bound::new(format!("sum({distinct}{}){over}", b.sql), ty),
            }));
        }
        Ok(Some(match kind {
            Kind::Float => Bound::new(format!("avg({distinct}{}){over}", b.sql), ty),
            Kind::Numeric => {
                let result = SqlType::numeric(38, b.ty.scale.max(6));
                let count = format!(
                    "t_cv(count({distinct}{}){over}, {}, {}, 0)",
                    b.sql,
                    big.code(),
                    SqlType::numeric(19, 0).code()
                );
                let sum = format!("t_sumdec({distinct}{}){over}", b.sql);
                let sql = format!(
                    "CASE WHEN count({}){over} > 0 THEN t_dec('/', {sum}, {count}, {}, {}, {}) END",
                    b.sql,
                    ty.code(),
                    SqlType::numeric(19, 0).code(),
                    result.code()
                );
                Bound::new(sql, result)
            }
            _ => Bound::new(format!("(sum({distinct}{0}){over} / count({distinct}{0}){over})", b.sql), ty),
        }))
    }

    /// Functions whose arguments are not plain values.
    fn special(&mut self, name: &str, args: &[Expr], scope: &Scope<'_>) -> Result<Option<Bound>> {
        Ok(Some(match (name, args) {
            ("iif", [condition, a, b]) => {
                let condition = self.condition(condition, scope)?;
                let values = vec![self.value(a, scope)?, self.value(b, scope)?];
                let (values, ty, hold) = self.same_type(values)?;
                let sql = format!("(CASE WHEN {condition} THEN {} ELSE {} END)", values[0].sql, values[1].sql);
                Bound { hold, nullable: values.iter().any(|v| v.nullable), ..Bound::new(sql, ty) }
            }
            ("dateadd", [part, n, value]) => {
                let part = date_part(part)?;
                let n = self.value(n, scope)?;
                let n = self.cast(n, SqlType::of(Kind::BigInt), None, false);
                let value = self.temporal(value, scope)?;
                Bound::new(format!("t_dateadd('{part}', {}, {}, {})", n.sql, value.sql, value.ty.code()), value.ty)
            }
            ("datediff" | "datediff_big", [part, a, b]) => {
                let part = date_part(part)?;
                let (a, b) = (self.temporal(a, scope)?, self.temporal(b, scope)?);
                let big = Bound::new(format!("t_datediff('{part}', {}, {})", a.sql, b.sql), SqlType::of(Kind::BigInt));
                if name == "datediff" {
                    Bound::new(format!("t_arith('+', {}, 0, {})", big.sql, int().code()), int())
                } else {
                    big
                }
            }
            ("datepart", [part, value]) => {
                let part = date_part(part)?;
                let value = self.temporal(value, scope)?;
                Bound::new(format!("t_datepart('{part}', {})", value.sql), int())
            }
            ("datename", [part, value]) => {
                let part = date_part(part)?;
                let value = self.temporal(value, scope)?;
                let ty = SqlType::sized(Kind::NVarChar, 30);
                if matches!(part, "month" | "weekday") {
                    Bound::new(format!("t_datename('{part}', {})", value.sql), ty)
                } else {
                    self.cast(Bound::new(format!("t_datepart('{part}', {})", value.sql), int()), ty, None, false)
                }
            }
            ("year" | "month" | "day", [value]) => {
                let value = self.temporal(value, scope)?;
                Bound::new(format!("t_datepart('{name}', {})", value.sql), int())
            }
            ("coalesce", _) if !args.is_empty() => {
                let values: Vec<Bound> = args.iter().map(|a| self.value(a, scope)).collect::<Result<_>>()?;
                let (values, ty, hold) = self.same_type(values)?;
                let nullable = values.iter().all(|v| v.nullable);
                let list: Vec<_> = values.iter().map(|v| v.sql.as_str()).collect();
                Bound { hold, nullable, ..Bound::new(format!("coalesce({}, NULL)", list.join(", ")), ty) }
            }
            ("nullif", [a, b]) => {
                let (a, b) = (self.value(a, scope)?, self.value(b, scope)?);
                let equal = self.compare("=", a.clone(), b)?;
                Bound { hold: a.hold, ..Bound::new(format!("(CASE WHEN {equal} THEN NULL ELSE {} END)", a.sql), a.ty) }
            }
            ("isnull", [a, b]) => {
                let (a, b) = (self.value(a, scope)?, self.value(b, scope)?);
                let ty = if a.untyped { b.ty } else { a.ty };
                let b = self.implicit(b, ty)?;
                Bound { hold: a.hold, nullable: b.nullable, ..Bound::new(format!("ifnull({}, {})", a.sql, b.sql), ty) }
            }
            _ => return Ok(None),
        }))
    }

    /// A date or time; text becomes datetime2, a number datetime.
    fn temporal(&mut self, e: &Expr, scope: &Scope<'_>) -> Result<Bound> {
        let b = self.value(e, scope)?;
        if b.ty.is_temporal() && !b.untyped {
            return Ok(b);
        }
        let ty = if b.ty.is_number() { SqlType::of(Kind::DateTime) } else { SqlType::of(Kind::DateTime2) };
        self.implicit(b, ty)
    }

    /// Functions of the session, most of which are constants for one statement.
    fn session_call(&mut self, name: &str, args: &[Bound]) -> Result<Option<Bound>> {
        let session = self.session;
        let sysname = SqlType::sysname();
        let constant =
            |v: Value, ty: SqlType| Ok(Some(Bound { nullable: v == Value::Null, ..Bound::new(literal(&v), ty) }));
        let word = |t: &str| constant(Value::Text(t.into()), sysname);
        let number = |i: i64, ty: SqlType| constant(Value::Integer(i), ty);
        let now = session.statement_time;
        match (name, args) {
            // In text that is kept (views, checks, computed columns) the time is that of the reading.
            ("getdate" | "current_timestamp" | "getutcdate", []) if self.kept => {
                Ok(Some(Bound::new("t_now(1)", SqlType::of(Kind::DateTime))))
            }
            ("sysdatetime" | "sysutcdatetime", []) if self.kept => {
                Ok(Some(Bound::new("t_now(0)", SqlType::of(Kind::DateTime2))))
            }
            ("getdate" | "current_timestamp" | "getutcdate", []) => {
                number(datetime::round_datetime(now), SqlType::of(Kind::DateTime))
            }
            ("sysdatetime" | "sysutcdatetime", []) => number(now, SqlType::of(Kind::DateTime2)),
            ("sysdatetimeoffset", []) => {
                constant(crate::types::convert::zoned(now, 0), SqlType::of(Kind::DateTimeOffset))
            }
            ("db_name", []) => word(&session.db.name),
            ("db_id", []) => number(session.db.id, SqlType::of(Kind::SmallInt)),
            ("db_name" | "db_id", [a]) => {
                let rows: Vec<String> = session
                    .server
                    .databases()
                    .iter()
                    .map(|d| format!("({}, {})", literal(&Value::Text(d.name.clone())), d.id))
                    .collect();
                let (what, key, ty) = if name == "db_id" {
                    ("column2", "column1 COLLATE NOCASE", SqlType::of(Kind::SmallInt))
                } else {
                    ("column1", "column2", sysname)
                };
                Ok(Some(Bound::new(
                    format!("(SELECT {what} FROM (VALUES {}) WHERE {key} = {})", rows.join(", "), a.sql),
                    ty,
                )))
            }
            ("suser_sname" | "suser_name" | "original_login" | "system_user", []) => word(&session.login),
            ("user_name" | "current_user" | "session_user" | "user", []) => word(&session.user),
            ("app_name", []) => word(&session.program),
            ("host_name", []) => word(&session.host),
            ("schema_name", []) => word("dbo"),
            ("schema_name", [a]) => {
                Ok(Some(Bound::new(format!("(SELECT name FROM core_schemas WHERE schema_id = {})", a.sql), sysname)))
            }
            ("schema_id", [a]) => {
                Ok(Some(Bound::new(format!("(SELECT schema_id FROM core_schemas WHERE name = {})", a.sql), int())))
            }
            ("object_id", [a]) => Ok(Some(self.object_id(a))),
            ("object_id", [a, kind]) => {
                let b = self.object_id(a);
                let sql = format!(
                    "(SELECT object_id FROM core_objects WHERE object_id = {} AND type = trim({}))",
                    b.sql, kind.sql
                );
                Ok(Some(Bound::new(sql, int())))
            }
            ("object_name", [a]) => {
                Ok(Some(Bound::new(format!("(SELECT name FROM core_objects WHERE object_id = {})", a.sql), sysname)))
            }
            ("object_schema_name", [a]) => Ok(Some(Bound::new(
                format!(
                    "(SELECT s.name FROM core_objects o JOIN core_schemas s ON s.schema_id = o.schema_id WHERE o.object_id = {})",
                    a.sql
                ),
                sysname,
            ))),
            ("col_name", [t, c]) => Ok(Some(Bound::new(
                format!("(SELECT name FROM core_columns WHERE object_id = {} AND column_id = {})", t.sql, c.sql),
                sysname,
            ))),
            ("type_name", [a]) => {
                let rows: Vec<String> =
                    crate::types::system_types().map(|(n, _, _, user)| format!("('{n}', {user})")).collect();
                Ok(Some(Bound::new(
                    format!(
                        "(SELECT column1 FROM (VALUES {}, ('sysname', 256)) WHERE column2 = {})",
                        rows.join(", "),
                        a.sql
                    ),
                    sysname,
                )))
            }
            ("serverproperty", [a]) => Ok(Some(self.server_property(a)?)),
            ("databasepropertyex", [_, a]) => Ok(Some(self.database_property(a)?)),
            ("is_srvrolemember", [a]) => {
                let roles = literal(&Value::Text("sysadmin".into()));
                Ok(Some(Bound::new(
                    format!(
                        "(CASE WHEN {} COLLATE NOCASE = {roles} THEN {} ELSE 0 END)",
                        a.sql,
                        i64::from(session.admin)
                    ),
                    int(),
                )))
            }
            ("is_member" | "is_rolemember", [a]) => {
                let ids = session.principals()?;
                let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                let owner = i64::from(session.admin || session.user == "dbo");
                let sql = format!(
                    "(SELECT CASE WHEN principal_id IN ({list}) OR ({owner} AND principal_id = 16384) THEN 1 ELSE 0 END FROM core_principals WHERE type = 'R' AND name = {})",
                    a.sql
                );
                Ok(Some(Bound::new(sql, int())))
            }
            ("has_dbaccess", [a]) => {
                let rows: Vec<String> = session
                    .server
                    .databases()
                    .iter()
                    .map(|d| {
                        format!(
                            "({}, {})",
                            literal(&Value::Text(d.name.clone())),
                            i64::from(session.server.may_enter(d, &session.login))
                        )
                    })
                    .collect();
                Ok(Some(Bound::new(
                    format!(
                        "(SELECT column2 FROM (VALUES {}) WHERE column1 COLLATE NOCASE = {})",
                        rows.join(", "),
                        a.sql
                    ),
                    int(),
                )))
            }
            ("has_perms_by_name", [securable, class, permission]) => {
                Ok(Some(self.has_perms(securable, class, permission)?))
            }
            ("scope_identity", []) => match session.last_identity {
                Some(i) => constant(
                    crate::types::convert::convert(
                        &Value::Integer(i),
                        SqlType::of(Kind::BigInt),
                        SqlType::numeric(38, 0),
                        0,
                    )?,
                    SqlType::numeric(38, 0),
                ),
                None => constant(Value::Null, SqlType::numeric(38, 0)),
            },
            ("xact_state", []) => number(i64::from(session.depth() > 0), SqlType::of(Kind::SmallInt)),
            ("error_number" | "error_severity" | "error_state" | "error_line", []) => match &session.caught {
                Some(e) => number(
                    match name {
                        "error_number" => i64::from(e.number),
                        "error_severity" => i64::from(e.class),
                        "error_state" => i64::from(e.state),
                        _ => 1,
                    },
                    int(),
                ),
                None => constant(Value::Null, int()),
            },
            ("error_message", []) => constant(
                session.caught.as_ref().map_or(Value::Null, |e| Value::Text(e.message.clone())),
                SqlType::sized(Kind::NVarChar, 4000),
            ),
            ("change_tracking_current_version", []) => {
                if state(&session.c, "ct")? == 0 {
                    return constant(Value::Null, SqlType::of(Kind::BigInt));
                }
                Ok(Some(Bound::new(
                    "ifnull((SELECT value FROM core_state WHERE key = 'ct_version'), 0)",
                    SqlType::of(Kind::BigInt),
                )))
            }
            ("change_tracking_min_valid_version", [a]) => {
                let visible =
                    if session.admin || session.db_owner() { "1".to_owned() } else { session.tracking_visible()? };
                let sql =
                    format!("(SELECT ct_min FROM core_objects o WHERE o.object_id = {} AND o.ct AND {visible})", a.sql);
                Ok(Some(Bound::new(sql, SqlType::of(Kind::BigInt))))
            }
            ("change_tracking_is_column_in_mask", [column, mask]) => {
                let sql = format!("(CASE WHEN {1} IS NULL THEN 1 ELSE t_ctmask({0}, {1}) END)", column.sql, mask.sql);
                Ok(Some(Bound::new(sql, SqlType::of(Kind::Bit))))
            }
            ("columnproperty", [table, column, property]) => {
                let sql = format!(
                    "(SELECT CASE lower({2}) WHEN 'columnid' THEN column_id WHEN 'isidentity' THEN seed IS NOT NULL WHEN 'iscomputed' THEN computed IS NOT NULL \
                     WHEN 'allowsnull' THEN nullable END FROM core_columns WHERE object_id = {0} AND name = {1})",
                    table.sql, column.sql, property.sql
                );
                Ok(Some(Bound::new(sql, int())))
            }
            _ => Ok(None),
        }
    }

    fn object_id(&self, name: &Bound) -> Bound {
        let sql = format!(
            "(SELECT o.object_id FROM core_objects o JOIN core_schemas s ON s.schema_id = o.schema_id WHERE o.name = t_namepart({0}, 1) \
             AND s.name = ifnull(t_namepart({0}, 2), 'dbo') AND ifnull(t_namepart({0}, 3), {1}) = {1} COLLATE NOCASE)",
            name.sql,
            literal(&Value::Text(self.session.db.name.clone()))
        );
        Bound::new(sql, int())
    }

    fn server_property(&self, a: &Bound) -> Result<Bound> {
        let options = &self.session.server.options;
        let variant = |v: Value, ty: SqlType| crate::types::variant::pack(&v, ty);
        let text = |t: &str| variant(Value::Text(t.into()), SqlType::sysname());
        let number = |i: i64| variant(Value::Integer(i), int());
        let major = options.version.split('.').next().unwrap_or("16").to_owned();
        let list = [
            ("productversion", text(&options.version)),
            ("productmajorversion", text(&major)),
            ("productlevel", text("RTM")),
            ("edition", text(&options.edition)),
            ("engineedition", number(options.engine_edition)),
            ("servername", text(&options.server_name)),
            ("machinename", text(&options.server_name)),
            ("instancename", Value::Null),
            ("collation", text("SQL_Latin1_General_CP1_CI_AS")),
            ("ishadrenabled", number(0)),
            ("isintegratedsecurityonly", number(0)),
            ("isclustered", number(0)),
        ];
        let rows: Vec<String> = list.iter().map(|(k, v)| format!("('{k}', {})", literal(v))).collect();
        let sql = format!("(SELECT column2 FROM (VALUES {}) WHERE column1 = lower({}))", rows.join(", "), a.sql);
        Ok(Bound::new(sql, SqlType::of(Kind::Variant)))
    }

    fn database_property(&self, a: &Bound) -> Result<Bound> {
        let text = |t: &str| crate::types::variant::pack(&Value::Text(t.into()), SqlType::sysname());
        let list = [
            ("collation", text(self.session.db.collation.name())),
            ("status", text("ONLINE")),
            ("updateability", text("READ_WRITE")),
            ("recovery", text("FULL")),
        ];
        let rows: Vec<String> = list.iter().map(|(k, v)| format!("('{k}', {})", literal(v))).collect();
        Ok(Bound::new(
            format!("(SELECT column2 FROM (VALUES {}) WHERE column1 = lower({}))", rows.join(", "), a.sql),
            SqlType::of(Kind::Variant),
        ))
    }

    /// HAS_PERMS_BY_NAME: objects, the database, the server.
    fn has_perms(&mut self, securable: &Bound, class: &Bound, permission: &Bound) -> Result<Bound> {
        let session = self.session;
        if session.admin || session.db_owner() {
            return Ok(Bound::new("1", int()).not_null());
        }
        let list = session.principals()?.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let object = self.object_id(securable);
        let server: Vec<String> = session
            .server
            .server_permissions(&session.login)
            .iter()
            .map(|p| literal(&Value::Text(p.clone())))
            .collect();
        let server = if server.is_empty() { "''".to_owned() } else { server.join(", ") };
        let sql = format!(
            "(CASE WHEN {0} IS NULL OR lower({0}) = 'server' THEN lower({1}) IN ({server}) ELSE EXISTS (SELECT 1 FROM core_permissions p \
             WHERE p.grantee IN ({list}) AND p.state = 'G' AND p.permission IN (lower({1}), 'control') AND (p.class = 0 \
             OR p.class = 1 AND p.major = {2} OR p.class = 3 AND p.major = (SELECT schema_id FROM core_objects WHERE object_id = {2}))) END)",
            class.sql, permission.sql, object.sql
        );
        Ok(Bound::new(sql, int()))
    }

    /// Scalar functions in schema `sys`, those of change data capture above all.
    fn system_call(&mut self, name: &str, args: &[Expr], scope: &Scope<'_>) -> Result<Bound> {
        let args: Vec<Bound> = args.iter().map(|a| self.value(a, scope)).collect::<Result<_>>()?;
        let lsn = SqlType::sized(Kind::Binary, 10);
        let enabled = state(&self.session.c, "cdc")? == 1;
        let need = |b: Bound| if enabled { b } else { Bound { sql: "NULL".into(), ..b } };
        let instances = || crate::engine::cdc::table(self.session, "change_tables");
        let mapping = || crate::engine::cdc::table(self.session, "lsn_time_mapping");
        Ok(match (name, &args[..]) {
            // The largest start_lsn of cdc.lsn_time_mapping; NULL without rows.
            ("fn_cdc_get_max_lsn", []) if enabled => Bound::new(format!("(SELECT max(c1) FROM {})", mapping()?), lsn),
            // start_lsn of the instance; ten zero bytes if there is none or the caller may not see it.
            ("fn_cdc_get_min_lsn", [i]) if enabled => {
                let visible = self.session.instance_visible("x")?;
                Bound::new(
                    format!(
                        "ifnull((SELECT x.c5 FROM {} x WHERE x.c4 = {} AND {visible}), x'00000000000000000000')",
                        instances()?,
                        i.sql
                    ),
                    lsn,
                )
            }
            ("fn_cdc_get_max_lsn", []) | ("fn_cdc_get_min_lsn", [_]) => need(Bound::new("NULL", lsn)),
            ("fn_cdc_increment_lsn", [l]) => {
                Bound::new(format!("t_lsnadd({}, 1)", self.implicit(l.clone(), lsn)?.sql), lsn)
            }
            ("fn_cdc_decrement_lsn", [l]) => {
                Bound::new(format!("t_lsnadd({}, -1)", self.implicit(l.clone(), lsn)?.sql), lsn)
            }
            ("fn_cdc_map_lsn_to_time", [l]) if enabled => {
                Bound::new(format!("(SELECT c3 FROM {} WHERE c1 = {})", mapping()?, l.sql), SqlType::of(Kind::DateTime))
            }
            ("fn_cdc_map_time_to_lsn", [op, t]) if enabled => {
                let t = self.implicit(t.clone(), SqlType::of(Kind::DateTime))?;
                let m = mapping()?;
                let sql = format!(
                    "(CASE lower({0}) WHEN 'largest less than' THEN (SELECT max(c1) FROM {m} WHERE c3 < {1}) \
                     WHEN 'largest less than or equal' THEN (SELECT max(c1) FROM {m} WHERE c3 <= {1}) \
                     WHEN 'smallest greater than' THEN (SELECT min(c1) FROM {m} WHERE c3 > {1}) \
                     WHEN 'smallest greater than or equal' THEN (SELECT min(c1) FROM {m} WHERE c3 >= {1}) END)",
                    op.sql, t.sql
                );
                Bound::new(sql, lsn)
            }
            ("fn_cdc_is_bit_set", [at, mask]) => {
                Bound::new(format!("t_bitset({}, {})", at.sql, mask.sql), SqlType::of(Kind::Bit))
            }
            ("fn_cdc_get_column_ordinal", [i, column]) if enabled => {
                let columns = crate::engine::cdc::table(self.session, "captured_columns")?;
                let sql = format!(
                    "(SELECT k.c5 FROM {columns} k JOIN {} x ON x.c1 = k.c1 WHERE x.c4 = {} AND k.c2 = {})",
                    instances()?,
                    i.sql,
                    column.sql
                );
                Bound::new(sql, int())
            }
            ("fn_cdc_has_column_changed", [i, column, mask]) if enabled => {
                let columns = crate::engine::cdc::table(self.session, "captured_columns")?;
                let at = format!(
                    "(SELECT k.c5 FROM {columns} k JOIN {} x ON x.c1 = k.c1 WHERE x.c4 = {} AND k.c2 = {})",
                    instances()?,
                    i.sql,
                    column.sql
                );
                Bound::new(format!("t_bitset({at}, {})", mask.sql), SqlType::of(Kind::Bit))
            }
            _ => return Err(SqlError::object(&format!("sys.{name}"))),
        })
    }

    fn plain_call(&mut self, name: &str, args: Vec<Bound>) -> Result<Bound> {
        let count = args.len();
        let nullable = args.iter().any(|a| a.nullable);
        let wrong = || {
            SqlError::new(
                174,
                15,
                1,
                format!("The {name} function requires a different number of arguments than {count}."),
            )
        };
        let mut it = args.into_iter();
        let mut next = || it.next().ok_or_else(wrong);
        let done = |sql: String, ty: SqlType| Bound { nullable, ..Bound::new(sql, ty) };
        Ok(match (name, count) {
            ("len", 1) => done(format!("t_len({})", self.text_arg(next()?)?.sql), int()),
            ("datalength", 1) => {
                let b = next()?;
                let ty = if b.ty.is_max() { SqlType::of(Kind::BigInt) } else { int() };
                done(format!("t_datalength({}, {})", b.sql, b.ty.code()), ty)
            }
            ("substring", 3) => {
                let b = next()?;
                let b = if b.ty.is_binary() || b.ty.kind == Kind::Image { b } else { self.text_arg(b)? };
                let ty = match b.ty.kind {
                    Kind::Char => SqlType { kind: Kind::VarChar, ..b.ty },
                    Kind::NChar => SqlType { kind: Kind::NVarChar, ..b.ty },
                    Kind::Binary | Kind::RowVersion => SqlType { kind: Kind::VarBinary, ..b.ty },
                    Kind::Image => SqlType::max(Kind::VarBinary),
                    _ => b.ty,
                };
                Bound { hold: b.hold, ..done(format!("t_substring({}, {}, {})", b.sql, next()?.sql, next()?.sql), ty) }
            }
            ("left", 2) => {
                let b = self.text_arg(next()?)?;
                Bound { hold: b.hold, ..done(format!("t_substring({}, 1, {})", b.sql, next()?.sql), text_type(&b)) }
            }
            ("right", 2) => {
                let b = self.text_arg(next()?)?;
                Bound { hold: b.hold, ..done(format!("t_right({}, {})", b.sql, next()?.sql), text_type(&b)) }
            }
            ("upper" | "lower" | "reverse", 1) => {
                let b = self.text_arg(next()?)?;
                Bound { hold: b.hold, ..done(format!("t_{name}({})", b.sql), b.ty) }
            }
            ("ltrim" | "rtrim" | "trim", 1) => {
                let b = self.text_arg(next()?)?;
                let kind =
                    if matches!(b.ty.kind, Kind::NChar | Kind::NVarChar) { Kind::NVarChar } else { Kind::VarChar };
                Bound { hold: b.hold, ..done(format!("{name}({}, ' ')", b.sql), SqlType { kind, ..b.ty }) }
            }
            ("replicate", 2) => {
                let b = next()?;
                let b = if b.ty.is_binary() { b } else { self.text_arg(b)? };
                // Cut at 8000 bytes unless the argument is (max).
                let max = b.ty.len == MAX;
                let wide = matches!(b.ty.kind, Kind::NChar | Kind::NVarChar);
                let ty = match (b.ty.is_binary(), max, wide) {
                    (true, ..) => SqlType { len: if max { MAX } else { 8000 }, kind: Kind::VarBinary, ..b.ty },
                    (_, true, _) => b.ty,
                    (_, false, true) => SqlType { len: 4000, kind: Kind::NVarChar, ..b.ty },
                    _ => SqlType { len: 8000, kind: Kind::VarChar, ..b.ty },
                };
                let whole = SqlType { len: MAX, ..ty };
                let repeated = done(format!("t_replicate({}, {})", b.sql, next()?.sql), whole);
                if max { repeated } else { self.cast(repeated, ty, None, false) }
            }
            ("replace", 3) => {
                let (a, b, c) = (self.text_arg(next()?)?, self.text_arg(next()?)?, self.text_arg(next()?)?);
                let code = a.ty.code();
                let wide = [&a, &b, &c].iter().any(|x| matches!(x.ty.kind, Kind::NChar | Kind::NVarChar));
                let ty = if a.ty.len == MAX {
                    a.ty
                } else {
                    SqlType {
                        len: if wide { 4000 } else { 8000 },
                        kind: if wide { Kind::NVarChar } else { Kind::VarChar },
                        ..a.ty
                    }
                };
                Bound { hold: a.hold, ..done(format!("t_replace({}, {}, {}, {code})", a.sql, b.sql, c.sql), ty) }
            }
            ("charindex", 2 | 3) => {
                let (a, b) = (self.text_arg(next()?)?, self.text_arg(next()?)?);
                let start = if count == 3 { next()?.sql } else { "1".into() };
                done(format!("t_charindex({}, {}, {start}, {})", a.sql, b.sql, b.ty.code()), int())
            }
            ("stuff", 4) => {
                let a = self.text_arg(next()?)?;
                let (start, length, with) = (next()?, next()?, self.text_arg(next()?)?);
                let ty = SqlType { len: if a.ty.len == MAX { MAX } else { 4000 }, ..a.ty };
                done(format!("t_stuff({}, {}, {}, ifnull({}, ''))", a.sql, start.sql, length.sql, with.sql), ty)
            }
            ("concat", n) if n >= 2 => {
                let parts: Vec<Bound> = it.map(|b| self.text_arg(b)).collect::<Result<_>>()?;
                let wide = parts.iter().any(|p| matches!(p.ty.kind, Kind::NChar | Kind::NVarChar));
                let max = parts.iter().any(|p| p.ty.len == MAX);
                let kind = if wide { Kind::NVarChar } else { Kind::VarChar };
                let ty = if max {
                    SqlType::max(kind)
                } else {
                    SqlType { len: if wide { 4000 } else { 8000 }, ..SqlType::of(kind) }
                };
                let sql = parts.iter().map(|p| format!("ifnull({}, '')", p.sql)).collect::<Vec<_>>().join(" || ");
                Bound::new(format!("({sql})"), ty.collate(self.session.db.collation)).not_null()
            }
            ("quotename", 1 | 2) => {
                let a = self.text_arg(next()?)?;
                let quote = if count == 2 { next()?.sql } else { "'['".into() };
                Bound::new(format!("t_quotename({}, {quote})", a.sql), SqlType::sized(Kind::NVarChar, 258))
            }
            ("parsename", 2) => Bound::new(format!("t_namepart({}, {})", next()?.sql, next()?.sql), SqlType::sysname()),
            ("space", 1) => done(format!("t_replicate(' ', {})", next()?.sql), SqlType::sized(Kind::VarChar, 8000)),
            ("unicode", 1) => done(format!("t_unicode({})", next()?.sql), int()),
            ("ascii", 1) => {
                let b = self.text_arg(next()?)?;
                done(format!("t_ascii({}, {})", b.sql, b.ty.code()), int())
            }
            ("nchar", 1) => Bound::new(format!("t_nchar({})", next()?.sql), SqlType::sized(Kind::NChar, 1)),
            ("char", 1) => {
                let ty = SqlType::sized(Kind::Char, 1).collate(self.session.db.collation);
                Bound::new(format!("t_char({}, {})", next()?.sql, ty.code()), ty)
            }
            ("abs" | "sign" | "ceiling" | "floor", 1) | ("round", 2) => {
                let b = next()?;
                let b = if b.ty.is_number() { b } else { self.implicit(b, SqlType::of(Kind::Float))? };
                let second = if count == 2 { next()?.sql } else { "0".into() };
                done(format!("t_math('{name}', {}, {second}, {})", b.sql, b.ty.code()), b.ty)
            }
            ("sqrt", 1) | ("power", 2) => {
                let b = next()?;
                let float = SqlType::of(Kind::Float);
                let b = if name == "power" && b.ty.is_integer() { b } else { self.implicit(b, float)? };
                let second = if count == 2 { next()?.sql } else { "0".into() };
                done(format!("t_math('{name}', {}, {second}, {})", b.sql, b.ty.code()), b.ty)
            }
            ("newid" | "newsequentialid", 0) => Bound::new("t_newid()", SqlType::of(Kind::UniqueIdentifier)).not_null(),
            ("switchoffset", 2) => {
                let b = self.implicit(next()?, SqlType::of(Kind::DateTimeOffset))?;
                done(format!("t_switchoffset({}, {})", b.sql, next()?.sql), b.ty)
            }
            ("todatetimeoffset", 2) => {
                let b = self.implicit(next()?, SqlType::of(Kind::DateTime2))?;
                done(
                    format!("t_todatetimeoffset({}, {})", b.sql, next()?.sql),
                    SqlType::scaled(Kind::DateTimeOffset, b.ty.scale),
                )
            }
            ("sql_variant_property", 2) => {
                Bound::new(format!("t_variant({}, {})", next()?.sql, next()?.sql), SqlType::of(Kind::Variant))
            }
            _ => {
                let known = [
                    "len",
                    "substring",
                    "left",
                    "right",
                    "upper",
                    "lower",
                    "replace",
                    "round",
                    "abs",
                    "newid",
                    "concat",
                ];
                if known.contains(&name) {
                    return Err(wrong());
                }
                return Err(SqlError::new(
                    195,
                    15,
                    10,
                    format!("'{name}' is not a recognized built-in function name."),
                ));
            }
        })
    }

    /// `@@TRANCOUNT` and its like: "System functions".
    pub fn global(&mut self, name: &str) -> Result<Bound> {
        let session = self.session;
        let number = |i: i64, ty: SqlType| Ok(Bound::new(i.to_string(), ty).not_null());
        match name.to_ascii_lowercase().as_str() {
            "@@trancount" => number(session.depth(), int()),
            "@@rowcount" => number(session.row_count, int()),
            "@@error" => number(i64::from(session.last_error), int()),
            "@@spid" => number(session.id, SqlType::of(Kind::SmallInt)),
            "@@identity" => match session.last_identity {
                Some(i) => {
                    let v = crate::types::convert::convert(
                        &Value::Integer(i),
                        SqlType::of(Kind::BigInt),
                        SqlType::numeric(38, 0),
                        0,
                    )?;
                    Ok(Bound::new(literal(&v), SqlType::numeric(38, 0)))
                }
                None => Ok(Bound::new("NULL", SqlType::numeric(38, 0))),
            },
            "@@dbts" => {
                let v = session.db.counters.rowversion.load(std::sync::atomic::Ordering::SeqCst);
                Ok(Bound::new(literal(&Value::Blob(v.to_be_bytes().to_vec())), SqlType::sized(Kind::VarBinary, 8))
                    .not_null())
            }
            "@@version" => Ok(Bound::new(
                literal(&Value::Text(session.server.options.banner())),
                SqlType::sized(Kind::NVarChar, 300),
            )
            .not_null()),
            "@@servername" => {
                Ok(Bound::new(literal(&Value::Text(session.server.options.server_name.clone())), SqlType::sysname())
                    .not_null())
            }
            "@@lock_timeout" => number(session.lock_timeout.map_or(-1, |d| d.as_millis() as i64), int()),
            "@@datefirst" => number(7, SqlType::of(Kind::TinyInt)),
            "@@language" => Ok(Bound::new("'us_english'", SqlType::sysname()).not_null()),
            "@@max_precision" => number(38, SqlType::of(Kind::TinyInt)),
            "@@options" => number(5496, int()),
            "@@microsoftversion" => number(0x1000_0000, int()),
            _ => Err(SqlError::new(137, 15, 2, format!("Must declare the scalar variable \"{name}\"."))),
        }
    }

    /// `x.ToString()`, `x.STAsText()`, `x.STAsBinary()`: "hierarchyid methods", "OGC methods on geography instances".
    pub fn method(&mut self, target: &Expr, name: &str, args: &[Expr], scope: &Scope<'_>) -> Result<Bound> {
        let b = self.value(target, scope)?;
        let clr = matches!(b.ty.kind, Kind::HierarchyId | Kind::Geography | Kind::Geometry);
        let (sql, ty) = match (name.to_ascii_lowercase().as_str(), args) {
            ("tostring", []) | ("stastext", []) if clr => (
                format!("t_tostring({}, {})", b.sql, b.ty.code()),
                if b.ty.kind == Kind::HierarchyId {
                    SqlType::sized(Kind::NVarChar, 4000)
                } else {
                    SqlType::max(Kind::NVarChar)
                },
            ),
            ("stasbinary", []) if clr && b.ty.kind != Kind::HierarchyId => {
                (format!("t_wkb({}, {})", b.sql, b.ty.code()), SqlType::max(Kind::VarBinary))
            }
            (other, _) => return Err(SqlError::unmodelled(format!("the method {other} of {}", b.ty.name()))),
        };
        Ok(Bound::new(sql, ty))
    }

    /// `geography::Point(…)`, `geography::STGeomFromText(…)`, `hierarchyid::Parse(…)`, `hierarchyid::GetRoot()`.
    pub fn static_method(&mut self, ty: &str, name: &str, args: &[Expr], scope: &Scope<'_>) -> Result<Bound> {
        let args: Vec<Bound> = args.iter().map(|a| self.value(a, scope)).collect::<Result<_>>()?;
        let kind = SqlType::declared(ty, &[], true)?;
        let float = SqlType::of(Kind::Float);
        let geography = kind.kind == Kind::Geography;
        let sql = match (kind.kind, name.to_ascii_lowercase().as_str(), &args[..]) {
            (Kind::Geography | Kind::Geometry, "point", [a, b, srid]) => {
                let (a, b) = (self.implicit(a.clone(), float)?.sql, self.implicit(b.clone(), float)?.sql);
                // geography::Point takes the latitude first.
                let (x, y) = if geography { (b, a) } else { (a, b) };
                format!("t_point({x}, {y}, {}, {})", srid.sql, i64::from(geography))
            }
            (Kind::Geography | Kind::Geometry, "stgeomfromtext" | "stpointfromtext", [t, srid]) => {
                format!("t_pointtext({}, {}, {})", t.sql, srid.sql, i64::from(geography))
            }
            (Kind::HierarchyId, "parse", [t]) => return Ok(self.cast(t.clone(), kind, None, false)),
            (Kind::HierarchyId, "getroot", []) => "x''".into(),
            _ => return Err(SqlError::unmodelled(format!("{ty}::{name}"))),
        };
        Ok(Bound::new(sql, kind))
    }
}
