//! The same expressions, evaluated here and by a real PostgreSQL. What PostgreSQL answers is right; what is meant to
//! differ stands in [`DEVIATIONS`] (and in `docs/mapping.md`).

use super::*;
use std::fmt::Write as _;
use tidemark_throwaway::{PostgresCluster, PostgresOptions};

const ZONE: &str = "Europe/Berlin";

const TABLE: &str = "
create table customers (
    customer_id text primary key, company_name varchar(40) not null, contact_name text, country text,
    credit_limit numeric, orders bigint, rating double precision, active boolean not null, born_on date,
    created_at timestamp not null, seen_at timestamptz, token uuid, extra json, notes text);
insert into customers values
    ('a', '  Alfreds Futterkiste ', 'Maria Anders', 'Germany', 12500.50, 7, 2.5, true, '1970-03-01',
     '2024-03-31 02:30:00.123456', '2024-07-01 10:00:00+00', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{\"a\": [1, null]}', 'x_y%z'),
    ('b', 'Ana Trujillo', null, null, null, null, null, false, null,
     '1999-12-31 23:59:59', null, null, null, null),
    ('c', 'Świat Łódź 日本', 'o''NEIL  smith-jones', 'UK', -0.005, -3, -1234567.125, true, '0044-03-15 BC',
     '2024-10-27 02:30:00', '1965-02-03 04:05:06.7+00', null, '[]', ''),
    ('d', '030-0074321', 'NaN', '42', 'NaN', 9223372036854775807, 'NaN', false, 'infinity',
     'infinity', '-infinity', null, 'null', ' 12 '),
    ('e', 'a,b;c', '1e5', '-7.50', 123456789012345678901234.5678, 0, 1e-7, true, '2024-02-29',
     '0001-01-01 00:00:00', '2038-01-19 03:14:07.5+00', null, '1', 'ABC');
";

fn rows() -> Vec<Row> {
    use Value::{Bool, Date, Decimal, Float, Int, Json, Null, Text, Timestamp, TimestampTz, Uuid};
    let all: [[Value<'_>; 14]; 5] = [
        [
            Text("a"),
            Text("  Alfreds Futterkiste "),
            Text("Maria Anders"),
            Text("Germany"),
            Decimal("12500.50"),
            Int(7),
            Float(2.5),
            Bool(true),
            Date("1970-03-01"),
            Timestamp("2024-03-31T02:30:00.123456"),
            TimestampTz("2024-07-01T10:00:00Z"),
            Uuid("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            Json("{\"a\": [1, null]}"),
            Text("x_y%z"),
        ],
        [
            Text("b"),
            Text("Ana Trujillo"),
            Null,
            Null,
            Null,
            Null,
            Null,
            Bool(false),
            Null,
            Timestamp("1999-12-31T23:59:59"),
            Null,
            Null,
            Null,
            Null,
        ],
        [
            Text("c"),
            Text("Świat Łódź 日本"),
            Text("o'NEIL  smith-jones"),
            Text("UK"),
            Decimal("-0.005"),
            Int(-3),
            Float(-1_234_567.125),
            Bool(true),
            Date("-0043-03-15"),
            Timestamp("2024-10-27T02:30:00"),
            TimestampTz("1965-02-03T04:05:06.7Z"),
            Null,
            Json("[]"),
            Text(""),
        ],
        [
            Text("d"),
            Text("030-0074321"),
            Text("NaN"),
            Text("42"),
            Decimal("NaN"),
            Int(i64::MAX),
            Float(f64::NAN),
            Bool(false),
            Date("infinity"),
            Timestamp("infinity"),
            TimestampTz("-infinity"),
            Null,
            Json("null"),
            Text(" 12 "),
        ],
        [
            Text("e"),
            Text("a,b;c"),
            Text("1e5"),
            Text("-7.50"),
            Decimal("123456789012345678901234.5678"),
            Int(0),
            Float(1e-7),
            Bool(true),
            Date("2024-02-29"),
            Timestamp("0001-01-01T00:00:00"),
            TimestampTz("2038-01-19T03:14:07.5Z"),
            Null,
            Json("1"),
            Text("ABC"),
        ],
    ];
    all.iter()
        .map(|values| {
            let mut builder = RowBuilder::default();
            values.iter().for_each(|v| builder.push(*v));
            builder.finish()
        })
        .collect()
}

/// Evaluated on every row; both sides must agree on the text, or both fail.
const EXPRESSIONS: &[&str] = &[
    // Columns and their text.
    "c.customer_id",
    "company_name",
    "credit_limit",
    "orders",
    "rating",
    "active",
    "born_on",
    "created_at",
    "seen_at",
    "token",
    "extra",
    // Literals.
    "'it''s'",
    "e'a\\tb'",
    "1e3",
    "0.10",
    "123456789012345678901234567890",
    "date '2024-02-29'",
    "timestamp '2024-02-29 01:02:03.450'",
    "'2024-01-01' < date '2024-02-01'",
    // Joining.
    "company_name || '/' || country",
    "'x' || orders",
    "credit_limit || ' EUR'",
    "active || '!'",
    "'on ' || born_on",
    "'at ' || created_at",
    "'seen ' || seen_at",
    "concat(company_name, null, orders, active, rating)",
    "concat(seen_at, '|', created_at, '|', born_on)",
    "concat_ws(', ', contact_name, country, orders)",
    "concat_ws(country, 'a', 'b')",
    // Arithmetic.
    "orders + 1",
    "orders - 10",
    "orders * 3",
    "orders / 2",
    "orders % 4",
    "-orders",
    "7 / -2",
    "7 % -2",
    "orders / (orders - orders)",
    "credit_limit + 0.1",
    "credit_limit * credit_limit",
    "credit_limit / 3",
    "3 / credit_limit",
    "credit_limit / orders",
    "credit_limit % 7",
    "-credit_limit",
    "1 - credit_limit * 0.15",
    "credit_limit / 0",
    "rating * 2",
    "rating / 3",
    "rating + credit_limit",
    "orders * rating",
    "rating / 0",
    "10000000000.0 / 3",
    "0.0000001 / 3",
    "1 / 3.0",
    "12345678.9 / 0.001",
    "born_on + 30",
    "born_on - 1",
    "date '2024-03-01' - date '2024-02-01'",
    "date '2024-03-01' - born_on",
    // Comparison and logic.
    "orders = 7",
    "orders <> 7",
    "credit_limit >= 12500.5",
    "credit_limit > orders",
    "rating < credit_limit",
    "rating = rating",
    "company_name < 'B'",
    "company_name >= contact_name",
    "born_on < '2000-01-01'",
    "created_at > born_on",
    "created_at >= '2024-03-31'",
    "seen_at > timestamptz '2024-01-01 00:00:00+00'",
    "seen_at > created_at",
    "active and orders > 0",
    "active or orders > 0",
    "not active",
    "not (orders > 0)",
    "orders > 0 and country = 'Germany' or active",
    "country is null",
    "country is not null",
    "(orders > 0) is true",
    "(orders > 0) is not false",
    "(orders > 0) is unknown",
    "country is distinct from 'Germany'",
    "country is not distinct from null",
    "orders in (7, 0, null)",
    "orders not in (7, 0)",
    "country in ('UK', 'Germany')",
    "orders between 0 and 7",
    "credit_limit not between 0 and 20000",
    "born_on between '1960-01-01' and '2030-01-01'",
    "notes like 'x\\_y%'",
    "notes like '%_%'",
    "notes like 'x!_y!%z' escape '!'",
    "notes like 'x\\_y%' escape ''",
    "notes not like '%b%'",
    "notes ilike 'a_c'",
    "company_name ilike '%ŁÓDŹ%'",
    "'abc' like '%b\\'",
    // Choice.
    "case when orders > 5 then 'many' when orders > 0 then 'some' else 'none' end",
    "case when orders > 5 then 'many' end",
    "case country when 'UK' then 1 when 'Germany' then 2 else 3.5 end",
    "case when active then orders else credit_limit end",
    "case when orders = 0 then null else 100 / orders end",
    "coalesce(country, contact_name, 'n/a')",
    "coalesce(credit_limit, 0)",
    "coalesce(orders, 1.5)",
    "nullif(notes, '')",
    "nullif(orders, 7)",
    "nullif(credit_limit, 12500.500)",
    "greatest(orders, 5)",
    "least(orders, credit_limit)",
    "greatest(country, 'H')",
    "greatest(born_on, created_at)",
    // Casts.
    "cast(orders as text)",
    "orders::integer",
    "orders::smallint",
    "credit_limit::bigint",
    "credit_limit::integer",
    "rating::integer",
    "rating::bigint",
    "rating::numeric",
    "rating::real",
    "rating::real::text",
    "rating::real::numeric",
    "rating::real::double precision",
    "credit_limit::double precision",
    "credit_limit::numeric(10,1)",
    "credit_limit::decimal(4,2)",
    "credit_limit::numeric(5)",
    "country::integer",
    "country::numeric",
    "contact_name::double precision",
    "notes::integer",
    "contact_name::numeric",
    "orders::boolean",
    "active::integer",
    "active::text",
    "'yes'::boolean",
    "'of'::boolean",
    "'o'::boolean",
    "country::boolean",
    "company_name::varchar(5)",
    "cast(company_name as varchar(3))",
    "created_at::date",
    "created_at::time",
    "seen_at::date",
    "seen_at::timestamp",
    "created_at::timestamptz",
    "born_on::timestamp",
    "born_on::timestamptz",
    "created_at::timestamp(0)",
    "created_at::timestamp(3)",
    "seen_at::text",
    "created_at::text",
    "'2024-01-02'::date",
    "'2024-01-02T03:04:05+02:00'::timestamptz",
    "'2024-01-02 03:04:05'::timestamptz",
    "'0044-03-15 BC'::date",
    "'2023-02-29'::date",
    "'2024-01-01 24:00:00'::timestamp",
    "'12:34:56.7'::time",
    "company_name::date",
    "token::text",
    "'{A0EEBC999C0B4EF8BB6D6BB9BD380A11}'::uuid",
    "notes::uuid",
    "'{\"a\":1}'::json",
    "notes::json",
    // Text.
    "trim(company_name)",
    "trim(leading 'x' from notes)",
    "trim(trailing from company_name)",
    "trim(both ' A' from company_name)",
    "btrim(notes, 'xz')",
    "ltrim(company_name)",
    "rtrim(notes, 'z%')",
    "lower(company_name)",
    "upper(company_name)",
    "upper('straße')",
    "initcap(contact_name)",
    "replace(company_name, 'a', 'AA')",
    "replace(company_name, '', 'x')",
    "translate(company_name, 'abc-', 'xy')",
    "split_part(contact_name, ' ', 1)",
    "split_part(contact_name, ' ', 2)",
    "split_part(contact_name, ' ', -1)",
    "split_part(contact_name, ' ', 9)",
    "split_part(contact_name, '', 1)",
    "split_part(contact_name, ' ', 0)",
    "substring(company_name from 3)",
    "substring(company_name from 3 for 4)",
    "substring(company_name, -2, 5)",
    "substring(company_name for 3)",
    "substr(company_name, 2)",
    "substring(company_name, 1, -1)",
    "left(company_name, 3)",
    "left(company_name, -3)",
    "right(company_name, 3)",
    "right(company_name, -3)",
    "right(company_name, 0)",
    "lpad(orders::text, 6, '0')",
    "lpad(company_name, 5)",
    "rpad(country, 9, 'xy')",
    "rpad(country, 0)",
    "lpad(country, 9, '')",
    "repeat(country, 2)",
    "repeat(country, -1)",
    "reverse(company_name)",
    "length(company_name)",
    "char_length(company_name)",
    "position('a' in company_name)",
    "position('' in company_name)",
    "strpos(company_name, 'ź')",
    "starts_with(company_name, 'A')",
    "regexp_replace(company_name, '[^0-9]+', '', 'g')",
    "regexp_replace(company_name, '(\\w+) (\\w+)', '\\2 \\1')",
    "regexp_replace(company_name, 'A', '<\\&>', 'gi')",
    "encode(sha256(convert_to(company_name, 'UTF8')), 'hex')",
    // Numbers.
    "round(credit_limit)",
    "round(credit_limit, 1)",
    "round(credit_limit, -2)",
    "round(credit_limit, 5)",
    "round(rating)",
    "round(2.5)",
    "round(-2.5)",
    "round(2.5::double precision)",
    "round(rating, 1)",
    "trunc(credit_limit)",
    "trunc(credit_limit, 1)",
    "trunc(rating)",
    "ceil(credit_limit)",
    "ceiling(rating)",
    "floor(credit_limit)",
    "floor(rating)",
    "ceil(-0.5)",
    "abs(orders)",
    "abs(credit_limit)",
    "abs(rating)",
    "sign(credit_limit)",
    // Dates.
    "extract(year from created_at)",
    "extract(month from created_at)",
    "extract(day from created_at)",
    "extract(hour from created_at)",
    "extract(minute from created_at)",
    "extract(second from created_at)",
    "extract(milliseconds from created_at)",
    "extract(microseconds from created_at)",
    "extract(epoch from created_at)",
    "extract(epoch from seen_at)",
    "extract(epoch from born_on)",
    "extract(dow from created_at)",
    "extract(isodow from created_at)",
    "extract(doy from created_at)",
    "extract(week from created_at)",
    "extract(isoyear from created_at)",
    "extract(quarter from created_at)",
    "extract(decade from born_on)",
    "extract(century from born_on)",
    "extract(year from born_on)",
    "extract(hour from seen_at)",
    "extract(day from seen_at)",
    "extract(hour from born_on)",
    "extract(hour from time '10:20:30')",
    "extract(second from time '10:20:30.5')",
    "date_part('year', created_at)",
    "date_trunc('year', created_at)",
    "date_trunc('quarter', created_at)",
    "date_trunc('month', created_at)",
    "date_trunc('week', created_at)",
    "date_trunc('day', created_at)",
    "date_trunc('hour', created_at)",
    "date_trunc('minute', created_at)",
    "date_trunc('second', created_at)",
    "date_trunc('milliseconds', created_at)",
    "date_trunc('decade', created_at)",
    "date_trunc('century', created_at)",
    "date_trunc('day', seen_at)",
    "date_trunc('day', seen_at, 'Asia/Tokyo')",
    "created_at at time zone 'America/New_York'",
    "seen_at at time zone 'America/New_York'",
    "created_at at time zone 'UTC' at time zone 'Europe/Berlin'",
    "to_char(created_at, 'YYYY-MM-DD HH24:MI:SS')",
    "to_char(created_at, 'DD.MM.YY HH12:MI AM')",
    "to_char(created_at, 'FMDD FMMonth YYYY')",
    "to_char(created_at, 'Day DAY day Dy Month MONTH Mon')",
    "to_char(created_at, 'Q IYYY IW ID D DDD MS US')",
    "to_char(created_at, 'YYYY\"-Q\"Q')",
    "to_char(born_on, 'YYYY-MM-DD')",
    "to_char(seen_at, 'YYYY-MM-DD HH24:MI')",
    "mod(orders, 4)",
    "mod(credit_limit, 7)",
    "mod(orders, 0)",
    "(date '2024-03-01') - born_on",
    "extract(year from age(date '2024-02-28', born_on))::integer",
    "extract(year from age(born_on, date '2024-03-01'))::integer",
    "extract(year from age(created_at::date, date '1996-02-29'))::integer",
    // Patterns.
    "company_name ~ 'l.r'",
    "company_name ~* '^ana'",
    "notes !~ '[0-9]'",
    "contact_name !~* 'ANDERS$'",
    "country ~ '('",
    "regexp_substr(company_name, '[A-Z][a-z]+')",
    "regexp_substr(company_name, 'FUTTER', 1, 1, 'i')",
    "regexp_substr(contact_name, '[0-9]+')",
    // JSON.
    "extra -> 'a'",
    "extra ->> 'a'",
    "extra -> 'a' -> 0",
    "extra -> 'a' ->> 0",
    "extra -> 'a' ->> 1",
    "extra -> 'a' ->> -2",
    "extra -> 'a' ->> 5",
    "extra -> 0",
    "extra #> '{a,0}'",
    "extra #>> '{a,-1}'",
    "extra #>> '{}'",
    "cast('{\"a\": {\"b c\": \"x\\u00e9\\t\", \"a\": 1.50}, \"a\":  {\"n\": null}}' as json) -> 'a'",
    "cast('{\"a\": {\"b c\": \"x\\u00e9\\t\", \"d\": 1.50}}' as json) #>> '{a,\"b c\"}'",
    "cast('{\"a\": {\"b c\": \"x\", \"d\":  1.50}}' as json) -> 'a' ->> 'd'",
    "cast('{\"a\": null}' as json) -> 'a'",
    "cast('{\"a\": null}' as json) ->> 'a'",
    "cast('[true, [1 , 2]]' as json) ->> 1",
    "company_name ->> 'a'",
    // Refused by both.
    "orders || 1",
    "trim(orders)",
    "no_such_column",
    "no_such_function(1)",
    "country > 5",
    "coalesce(country, orders)",
    "case when active then country else orders end",
    "not orders",
    "1 + 'x'",
    "rating % 2",
    "company_name + 1",
];

/// Expression, row, PostgreSQL's text, ours.
const DEVIATIONS: &[(&str, &str, &str, &str)] = &[
    // Integers have 64 bits here, and any of them converts to boolean; PostgreSQL converts 32-bit ones only.
    ("orders::boolean", "a", "error 42846", "true"),
    ("orders::boolean", "b", "error 42846", "<null>"),
    ("orders::boolean", "c", "error 42846", "true"),
    ("orders::boolean", "d", "error 42846", "true"),
    ("orders::boolean", "e", "error 42846", "false"),
    // Whole parts of dates are integers here, which have no infinity.
    ("extract(year from created_at)", "d", "Infinity", "error out_of_range"),
    ("extract(isoyear from created_at)", "d", "Infinity", "error out_of_range"),
    ("extract(decade from born_on)", "d", "Infinity", "error out_of_range"),
    ("extract(century from born_on)", "d", "Infinity", "error out_of_range"),
    ("extract(year from born_on)", "d", "Infinity", "error out_of_range"),
    ("date_part('year', created_at)", "d", "Infinity", "error out_of_range"),
    // The age of an infinite date is none here.
    ("extract(year from age(date '2024-02-28', born_on))::integer", "d", "-292252", "error out_of_range"),
    ("extract(year from age(born_on, date '2024-03-01'))::integer", "d", "292252", "error out_of_range"),
    ("extract(year from age(created_at::date, date '1996-02-29'))::integer", "d", "292280", "error out_of_range"),
    // Refused for every row here, for every row that is not null there.
    ("country ~ '('", "b", "<null>", "error bad_pattern"),
    ("extract(hour from born_on)", "b", "<null>", "error wrong_type"),
];

/// Our side of an expression that is written in another way here.
fn ours(expression: &str) -> &str {
    match expression {
        "(date '2024-03-01') - born_on" => "age_in_days(date '2024-03-01', born_on)",
        "extract(year from age(date '2024-02-28', born_on))::integer" => "age_in_years(date '2024-02-28', born_on)",
        "extract(year from age(born_on, date '2024-03-01'))::integer" => "age_in_years(born_on, date '2024-03-01')",
        "extract(year from age(created_at::date, date '1996-02-29'))::integer" => {
            "age_in_years(created_at::date, date '1996-02-29')"
        }
        "regexp_substr(company_name, 'FUTTER', 1, 1, 'i')" => "regexp_substr(company_name, 'FUTTER', 'i')",
        "encode(sha256(convert_to(company_name, 'UTF8')), 'hex')" => "sha256(company_name)",
        other => other,
    }
}

fn here(expression: &str) -> Vec<String> {
    let expression = ours(expression);
    let text = pack_text("", &format!("x = '''cast(({expression}) as text)'''"));
    let mapping = match compiled(&text, None, Some(ZONE)) {
        Ok((mapping, _)) => mapping,
        Err(diagnostics) => {
            let code = diagnostics.split(['[', ']']).nth(1).unwrap_or_default().to_owned();
            return vec![format!("error {code}"); rows().len()];
        }
    };
    let rule = mapping.rules[0].bind(&customers()).expect("the same schema");
    rows()
        .iter()
        .map(|row| match rule.apply(row) {
            Applied::Upsert { document, .. } => {
                let json: serde_json::Value = serde_json::from_slice(document.json()).expect("JSON");
                json["x"].as_str().map_or("<null>".to_owned(), str::to_owned)
            }
            Applied::Rejected(rejection) => format!("error {}", rejection.code),
            other => panic!("{expression}: {other:?}"),
        })
        .collect()
}

fn there(cluster: &PostgresCluster) -> Vec<Vec<String>> {
    let mut sql = format!("set client_min_messages = error; set timezone = '{ZONE}';{TABLE}");
    sql.push_str(
        "create function attempt(q text, id text) returns text language plpgsql as $f$
         declare r text;
         begin
             execute 'select coalesce((' || q || ')::text, ''<null>'') from customers c where customer_id = $1' into r using id;
             return r;
         exception when others then return 'error ' || sqlstate;
         end $f$;\n",
    );
    for expression in EXPRESSIONS {
        let _ = writeln!(
            sql,
            "select string_agg(attempt($q${expression}$q$, customer_id), '~~' order by customer_id) from customers;"
        );
    }
    let output = cluster.psql(&sql).expect("PostgreSQL answers");
    let lines: Vec<Vec<String>> = output.lines().map(|line| line.split("~~").map(str::to_owned).collect()).collect();
    assert_eq!(lines.len(), EXPRESSIONS.len());
    lines
}

#[test]
fn expressions_mean_what_they_mean_in_postgresql() {
    let cluster = PostgresCluster::start(PostgresOptions::default()).expect("a PostgreSQL");
    let mut differences = String::new();
    let mut compared = 0;
    let mut explained = 0;
    for (expression, there) in EXPRESSIONS.iter().zip(there(&cluster)) {
        for ((row, there), here) in ["a", "b", "c", "d", "e"].iter().zip(there).zip(here(expression)) {
            compared += 1;
            let both_fail = there.starts_with("error ") && here.starts_with("error ");
            if there == here || both_fail {
                continue;
            }
            if DEVIATIONS.contains(&(expression, row, &there, &here)) {
                explained += 1;
                continue;
            }
            let _ = writeln!(differences, "(\"{expression}\", \"{row}\", \"{there}\", \"{here}\"),");
        }
    }
    assert!(differences.is_empty(), "of {compared}, PostgreSQL's text and ours differ in\n{differences}");
    assert_eq!(explained, DEVIATIONS.len(), "a deviation is none any more");
}
