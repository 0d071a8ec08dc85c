use super::*;
use std::io::Write as _;

/// The example of the reference, with every section.
const EXAMPLE: &str = r#"
tidemark = 1
tenant   = "acme"

[source]
engine   = "postgres"
host     = "127.0.0.1"
port     = 5432
database = "northwind"
user     = "tidemark"
password = { env = "SOURCE_PASSWORD" }
tls      = { mode = "disable" }
time_zone = "UTC"
[source.postgres]
slot = "tidemark_acme"
publication = "tidemark_acme"

[mapping]
pack = "northwind"
[mapping.vars]
region = "eu"
[mapping.override.customer_account.fields]
industry = "'wholesale'"

[crm]
profile  = "rest"
base_url = "http://127.0.0.1:8080"
auth     = { type = "bearer", token = { env = "CRM_TOKEN" } }

[delivery]
batch_records = 200
batch_wait    = "200ms"
max_in_flight = 4
requests_per_second = 0
daily_quota   = 0
[delivery.retry]
initial = "200ms"
max     = "30s"
give_up_after = "24h"
[delivery.dead_letters]
max_records = 10000

[snapshot]
mode = "initial"
chunk_rows = 5000
parallel_tables = 2

[state]
dir = "/var/lib/tidemark/acme"
on_gap = "resync"
sweep_guard = { max_share = 0.2, max_records = 1000 }

[observe]
listen = "127.0.0.1:9464"
socket = "/run/tidemark/acme/admin.sock"
log    = { level = "info", format = "auto" }
"#;

const MINIMAL: &str = r#"
tidemark = 1
[source]
engine = "postgres"
host = "db.example"
database = "shop"
user = "tidemark"
[mapping]
pack = "shop"
[crm]
base_url = "https://crm.example"
"#;

fn parse(text: &str) -> Result<Config, Diagnostics> {
    Config::parse(Path::new("conf/acme.toml"), text)
}

fn errors(text: &str) -> String {
    parse(text).expect_err("is refused").to_string()
}

/// The message of the only error.
fn error(text: &str) -> String {
    let found = parse(text).expect_err("is refused");
    assert_eq!(found.items().len(), 1, "{found}");
    found.items()[0].message.clone()
}

#[test]
fn the_example_is_understood() {
    let c = parse(EXAMPLE).expect("is good");
    assert!(c.warnings.is_empty());
    assert_eq!(c.tenant, "acme");
    assert_eq!(c.source.identity(), "postgres://127.0.0.1:5432/northwind");
    assert!(c.source.may_have_moved_from("postgres:///run/pg:5433/northwind"));
    for other in ["postgres://127.0.0.1:5432/northwind2", "mysql://127.0.0.1:5432/northwind", "northwind", ""] {
        assert!(!c.source.may_have_moved_from(other), "{other}");
    }
    assert_eq!(c.source.password, Some(SecretRef::Env("SOURCE_PASSWORD".into())));
    assert_eq!(c.source.tls.mode, TlsMode::Disable);
    assert_eq!(c.source.time_zone.as_ref().map(|z| z.name.as_str()), Some("UTC"));
    assert_eq!(c.crm.auth, CrmAuth::Bearer { token: SecretRef::Env("CRM_TOKEN".into()) });
    assert_eq!(c.state.dir, Path::new("/var/lib/tidemark/acme"));
    assert_eq!(c.observe.socket, Path::new("/run/tidemark/acme/admin.sock"));
    let (vars, overrides) = c.mapping.tables();
    let (key, value) = vars.iter().next().expect("one variable");
    assert_eq!((key.get_ref().as_ref(), value.get_ref().as_str()), ("region", Some("eu")));
    assert_eq!(&c.mapping.file.text[value.span()], "\"eu\"");
    assert!(overrides.contains_key("customer_account"));
    assert_eq!(&c.mapping.file.text[c.mapping.pack_span.clone()], "\"northwind\"");
    let shown = format!("{c:?}\n{}", c.summary());
    assert!(shown.contains("environment variable CRM_TOKEN") && shown.contains("northwind"));
}

#[test]
fn secrets_of_the_mapping_are_places() {
    let with = |value: &str| parse(&EXAMPLE.replace("region = \"eu\"", &format!("region = \"eu\"\nkey = {value}")));
    let config = with("{ env = \"HASH_KEY\" }").expect("is good");
    assert_eq!(config.mapping.secrets, [("key".to_owned(), SecretRef::Env("HASH_KEY".into()))].into());
    assert!(with("{ env = \"A\", file = \"b\" }").is_err());
    assert!(with("{ evn = \"A\" }").is_err());
}

#[test]
fn defaults_are_those_of_the_example() {
    let (small, full) = (parse(MINIMAL).expect("is good"), parse(EXAMPLE).expect("is good"));
    assert_eq!(small.tenant, "acme", "the file's stem");
    assert_eq!(small.source.port, 5432);
    assert_eq!(small.source.engine, full.source.engine);
    assert_eq!(small.source.tls.mode, TlsMode::VerifyFull);
    assert_eq!(small.crm.auth, CrmAuth::None);
    assert_eq!((&small.delivery, &small.delivery), (&full.delivery, &Delivery::default()));
    assert_eq!((&small.snapshot, &small.snapshot), (&full.snapshot, &Snapshot::default()));
    assert_eq!((small.state.on_gap, small.state.sweep_guard), (full.state.on_gap, full.state.sweep_guard));
    assert_eq!(small.observe.listen, full.observe.listen);
    assert_eq!(small.observe.socket, small.state.dir.join("admin.sock"));
    assert_eq!(small.limits, Limits::default());
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let text = format!(
        "{MINIMAL}ca_file = \"ca.pem\"\nauth = {{ type = \"bearer\", token = {{ file = \"token\" }} }}\n[state]\ndir = \"state\"\n"
    );
    let c = parse(&text).expect("is good");
    assert_eq!(c.dir, Path::new("conf"));
    assert_eq!(c.crm.ca_file.as_deref(), Some(Path::new("conf/ca.pem")));
    assert_eq!(c.crm.auth, CrmAuth::Bearer { token: SecretRef::File("conf/token".into()) });
    assert_eq!(c.state.dir, Path::new("conf/state"));
    assert_eq!(c.observe.socket, Path::new("conf/state/admin.sock"));
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let text = r#"tidemark = 1
[source]
engin = "postgres"
host = "db.example"
port = 99999
database = "shop"
user = "tidemark"
password = "hunter2"
[source.postgres]
slot = "Tidemark-Acme"
[mapping]
pack = "shop"
[crm]
base_url = "https://crm.example"
[delivery]
batch_record = 300
batch_wait = 200
max_in_flight = 0
[delivery.retry]
max = "30 parsecs"
[state]
on_gap = "resnc"
[observe]
listen = "9464"
"#;
    let expected = r#"error[missing_key]: `source.engine` is missing
 --> conf/acme.toml:2:1
  |
2 | [source]
  | ^^^^^^^^
  |
  = help: one of "mysql" (also MariaDB), "postgres", "sqlserver"

error[unknown_key]: unknown key `source.engin`
 --> conf/acme.toml:3:1
  |
3 | engin = **********
  | ^^^^^
  |
  = help: did you mean `engine`?

error[bad_value]: `source.port` is out of range
 --> conf/acme.toml:5:8
  |
5 | port = 99999
  |        ^^^^^
  |
  = help: allowed is 1 to 65535; the default is 5432

error[bare_secret]: `source.password` is a secret and must not stand in the file
 --> conf/acme.toml:8:12
  |
8 | password = *********
  |            ^^^^^^^^^ the value is hidden here; treat it as known to whoever could read this file
  |
  = help: write { credential = "NAME" } for a systemd credential, { file = "PATH" } for a file of mode 0600, or { env = "NAME" } for an environment variable

error[bad_value]: `source.postgres.slot` cannot be "Tidemark-Acme"
  --> conf/acme.toml:10:8
   |
10 | slot = "Tidemark-Acme"
   |        ^^^^^^^^^^^^^^^
   |
   = help: use 1 to 63 of a-z, 0-9 and _: PostgreSQL allows nothing else in a slot's name

error[unknown_key]: unknown key `delivery.batch_record`
  --> conf/acme.toml:16:1
   |
16 | batch_record = 300
   | ^^^^^^^^^^^^
   |
   = help: did you mean `batch_records`?

error[wrong_type]: `delivery.batch_wait` must be a duration such as "200ms", not an integer
  --> conf/acme.toml:17:14
   |
17 | batch_wait = 200
   |              ^^^

error[bad_value]: `delivery.max_in_flight` is out of range
  --> conf/acme.toml:18:17
   |
18 | max_in_flight = 0
   |                 ^
   |
   = help: allowed is 1 to 256; the default is 4

error[bad_value]: `delivery.retry.max` is not a duration
  --> conf/acme.toml:20:7
   |
20 | max = "30 parsecs"
   |       ^^^^^^^^^^^^
   |
   = help: write a number with its unit: "200ms", "30s", "5m", "24h", "7d"

error[bad_value]: `state.on_gap` cannot be "resnc"
  --> conf/acme.toml:22:10
   |
22 | on_gap = "resnc"
   |          ^^^^^^^
   |
   = help: did you mean "resync"?

error[bad_value]: `observe.listen` is not an address: "9464"
  --> conf/acme.toml:24:10
   |
24 | listen = "9464"
   |          ^^^^^^
   |
   = help: write an address and a port, such as "127.0.0.1:9464" or "[::1]:9464"; "off" for none"#;
    let found = errors(text);
    assert_eq!(found, expected, "\n{found}");
}

#[test]
fn an_empty_file_says_what_belongs_into_it() {
    let found = parse("").expect_err("is refused");
    let messages: Vec<&str> = found.items().iter().map(|d| d.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "`tidemark` is missing",
            "the section [source] is missing",
            "the section [mapping] is missing",
            "the section [crm] is missing",
        ]
    );
}

#[test]
fn a_secret_never_comes_out_of_a_message() {
    let broken = [
        // In the right place, but bare.
        "[source]\npassword = \"hunter2\"",
        "[crm]\nauth = { type = \"bearer\", token = \"hunter2\" }",
        "[crm.auth]\ntype = \"header\"\nname = \"X-Api-Key\"\nvalue = \"hunter2\"",
        "[crm.auth]\ntype = \"bearer\"\ntoken = [\"hunter2\"]",
        // In the wrong place, or under a misspelt name.
        "[source]\npasswort = \"hunter2\"",
        "[source]\nurl = \"postgres://u:hunter2@h/d\"",
        "[source]\nhost = \"postgres://u:hunter2@h/d\"",
        "[crm.auth]\ntype = \"none\"\nkey = \"hunter2\"",
        "[crm]\nauth = \"hunter2\"",
        "[crm]\nbase_url = \"https://u:hunter2@crm.example\"",
        "[crm]\nbase_url = \"hunter2\"",
        "[crm.auth]\ntype = \"bearer\"\ntoken = { value = \"hunter2\" }",
        "[crmm.auth]\ntoken = { value = \"hunter2\" }",
        "password = \"hunter2\"",
        // In a file that is not TOML.
        "[source]\npassword = \"hunter2",
        "[source]\npassword = hunter2",
        "[source]\npassword \"hunter2\"",
        "[source]\npassword = '''\nhunter2",
        "[source]\npassword = \"a\" \"hunter2\"",
    ];
    for text in broken {
        let found = parse(text).expect_err("is refused");
        let all = format!("{found}\n{found:?}\n{}", found.to_json());
        assert!(!all.contains("hunter2"), "{text}\n{found}");
    }
}

#[test]
fn only_the_chosen_engines_table_is_accepted() {
    let text = MINIMAL.replace("[mapping]", "[source.mysql]\nserver_id = 7\n[mapping]");
    assert_eq!(error(&text), "[source.mysql] is for another engine than the one that is chosen");
    let c = parse(&text.replace("\"postgres\"", "\"mysql\"")).expect("is good");
    let plain = Engine::Mysql {
        server_id: 7,
        zero_dates: ZeroDates::Null,
        zero_dates_by_column: std::collections::BTreeMap::new(),
    };
    assert_eq!((&c.source.engine, c.source.port), (&plain, 3306));
    let dates = "[source.mysql.zero_dates]\ndefault = \"reject\"\n\"film.made\" = \"1970-01-01\"\n\"v.t.c\" = \"null\"\n[mapping]";
    let text = text.replace("\"postgres\"", "\"mysql\"");
    let c = parse(&text.replace("[mapping]", dates)).expect("is good");
    let columns =
        [("film.made".to_owned(), ZeroDates::Fixed("1970-01-01".into())), ("v.t.c".to_owned(), ZeroDates::Null)];
    let wanted = Engine::Mysql {
        server_id: 7,
        zero_dates: ZeroDates::Reject,
        zero_dates_by_column: columns.into_iter().collect(),
    };
    assert_eq!(c.source.engine, wanted);
    assert!(
        !parse(&MINIMAL.replace("postgres", "sqlserver"))
            .expect("is good")
            .source
            .may_have_moved_from("sqlserver://other:1/northwind")
    );
    for (wrong, message) in [
        ("default = \"1970-02-30\"", "`source.mysql.zero_dates.default` cannot be \"1970-02-30\""),
        ("made = \"null\"", "`source.mysql.zero_dates.made` names no column"),
        ("default = 0", "`source.mysql.zero_dates.default` must be a string, not an integer"),
    ] {
        let table = format!("[source.mysql.zero_dates]\n{wrong}\n[mapping]");
        assert_eq!(error(&text.replace("[mapping]", &table)), message);
    }
    let text = MINIMAL.replace("\"postgres\"", "\"sqlserver\"");
    let c = parse(&text).expect("is good");
    let usual = SqlServer {
        mode: SqlServerMode::Auto,
        poll_interval: Duration::from_millis(500),
        capture_timeout: Duration::from_secs(120),
        encryption: SqlServerEncryption::Standard,
        token: None,
        read_only: false,
    };
    assert_eq!(c.source.engine, Engine::SqlServer(usual.clone()));
    let own = "[source.sqlserver]\nmode = \"change-tracking\"\nencryption = \"strict\"\ntoken = { file = \"/run/token\" }\napplication_intent = \"read-only\"\n";
    let c = parse(&text.replace("[mapping]", &format!("{own}[mapping]"))).expect("is good");
    let token = Some(SecretRef::File("/run/token".into()));
    let encryption = SqlServerEncryption::Strict;
    let own = SqlServer { mode: SqlServerMode::ChangeTracking, encryption, token, read_only: true, ..usual };
    assert_eq!(c.source.engine, Engine::SqlServer(own));
    let found = errors(&MINIMAL.replace("\"postgres\"", "\"mariadb\""));
    assert!(found.contains("write \"mysql\""), "{found}");
    let found = errors(&MINIMAL.replace("\"postgres\"", "\"oracle\""));
    assert!(found.contains("allowed is \"mysql\", \"postgres\", \"sqlserver\""), "{found}");
}

#[test]
fn a_tenants_name_is_safe_wherever_it_is_used() {
    let named = |name: &str| parse(&MINIMAL.replace("tidemark = 1", &format!("tidemark = 1\ntenant = \"{name}\"")));
    assert_eq!(named("acme_2").expect("is good").tenant, "acme_2");
    for bad in ["", "Acme", "acme-eu", "acme.eu", "../acme", "a b", &"a".repeat(41)] {
        let found = named(bad).expect_err("is refused");
        assert!(found.to_string().contains("no `-`"), "{found}");
    }
    let found = Config::parse(Path::new("/etc/tidemark/tenants/Acme-EU.toml"), MINIMAL).expect_err("is refused");
    assert!(found.to_string().contains("add `tenant = \"acme_eu\"`"), "{found}");
}

#[test]
fn every_way_to_authenticate_is_read() {
    let auth = |text: &str| parse(&format!("{MINIMAL}[crm.auth]\n{text}")).map(|c| c.crm.auth);
    let env = |name: &str| SecretRef::Env(name.into());
    assert_eq!(auth("type = \"none\"").expect("is good"), CrmAuth::None);
    assert_eq!(
        auth("type = \"basic\"\nuser = \"u\"\npassword = { credential = \"p\" }").expect("is good"),
        CrmAuth::Basic { user: "u".into(), password: SecretRef::Credential("p".into()) }
    );
    let oauth =
        "token_url = \"https://crm.example/token\"\nclient_id = \"c\"\nscope = \"api\"\nclient_auth = \"form\"\n";
    let text = format!("type = \"oauth2-client-credentials\"\n{oauth}client_secret = {{ env = \"S\" }}");
    assert!(matches!(
        auth(&text).expect("is good"),
        CrmAuth::OAuth2ClientCredentials { client_secret, client_auth: crm::ClientAuth::Form, .. } if client_secret == env("S")
    ));
    let text = format!("type = \"oauth2-refresh-token\"\n{oauth}refresh_token = {{ env = \"R\" }}");
    assert!(matches!(
        auth(&text).expect("is good"),
        CrmAuth::OAuth2RefreshToken { client_secret: None, refresh_token, .. } if refresh_token == env("R")
    ));
    let found = auth("type = \"bearer\"").expect_err("is refused").to_string();
    assert!(found.contains("`crm.auth.token` is missing"), "{found}");
    let found = auth("type = \"bearer\"\ntoken = { env = \"A\", file = \"b\" }").expect_err("is refused").to_string();
    assert!(found.contains("more than one place"), "{found}");
    let found = auth("type = \"bearer\"\ntoken = { credential = \"../x\" }").expect_err("is refused").to_string();
    assert!(found.contains("is no credential's name"), "{found}");
    let found = auth("type = \"bearer\"\ntoken = {}").expect_err("is refused").to_string();
    assert!(found.contains("does not say where"), "{found}");
}

#[test]
fn a_listener_for_other_machines_is_a_warning() {
    let c = parse(&format!("{MINIMAL}[observe]\nlisten = \"0.0.0.0:9464\"")).expect("is good");
    assert_eq!(c.warnings.items()[0].code, "public_listener");
    let c = parse(&format!("{MINIMAL}[observe]\nlisten = \"off\"")).expect("is good");
    assert!(c.warnings.is_empty() && c.observe.listen.is_none());
    let c = parse(&format!("{MINIMAL}[observe]\nlisten = \"localhost:0\"")).expect("is good");
    assert!(c.observe.listen.is_some_and(|a| a.ip().is_loopback()));
}

#[test]
fn secrets_are_read_where_they_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    let mut file = std::fs::File::create(&path).expect("creates");
    writeln!(file, "s3cret with spaces ").expect("writes");
    let secret = SecretRef::File(path.clone());
    let set_mode = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("sets");
    };
    for mode in [0o640, 0o604, 0o660] {
        set_mode(mode);
        let refused = secret.read().err().expect("refused");
        assert!(refused.to_string().contains("can be read by others"), "{refused}");
        assert_eq!(refused.hint, Some(format!("chmod 600 {}", path.display())));
    }
    set_mode(0o600);
    assert_eq!(secret.read().expect("reads").expose(), "s3cret with spaces ");
    std::fs::write(&path, "\n").expect("writes");
    assert!(secret.read().err().expect("refused").to_string().ends_with("is empty"));
    assert!(SecretRef::File(dir.path().join("none")).read().is_err());
    assert!(SecretRef::File(dir.path().to_path_buf()).read().is_err());
    let unset = SecretRef::Env("TIDEMARK_TEST_NOT_SET".into()).read().err().expect("refused");
    assert_eq!(unset.to_string(), "the environment variable TIDEMARK_TEST_NOT_SET is not set");
}

#[test]
fn a_missing_file_says_which_tenants_there_are() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("beta.toml"), "").expect("writes");
    let error = Config::load("acme", Some(&dir.path().join("acme.toml"))).expect_err("there is none");
    assert_eq!(error.hint().as_deref(), Some("tenants there: beta"));
    assert!(matches!(Config::load_file(&dir.path().join("beta.toml")), Err(ConfigError::Wrong(_))));
}

#[test]
fn nothing_that_can_be_written_makes_the_reader_panic() {
    use proptest::prelude::*;
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    let lines: Vec<&'static str> = EXAMPLE.lines().collect();
    let mutated = (any::<prop::sample::Index>(), ".{0,30}", any::<prop::sample::Index>());
    runner
        .run(&mutated, |(line, text, cut)| {
            let mut lines: Vec<String> = lines.iter().map(|l| l.to_string()).collect();
            let at = line.index(lines.len());
            lines[at] = match lines[at].split_once('=') {
                Some((key, _)) => format!("{key}= {text}"),
                None => text,
            };
            let all = lines.join("\n");
            let _ = parse(&all).map_err(|e| e.to_string());
            let end = (0..=cut.index(all.len() + 1)).rev().find(|i| all.is_char_boundary(*i)).unwrap_or(0);
            let _ = parse(&all[..end]).map_err(|e| e.to_string());
            Ok(())
        })
        .expect("never panics");
}

/// Keys are found where the reader asks for them, so that a new one cannot be forgotten.
#[test]
fn every_key_is_documented() {
    let (source, docs) = (include_str!("parse.rs"), include_str!("../../docs/configuration.md"));
    let asked = regex::Regex::new(
        r#"\b(?:text|required_text|integer|duration|size|boolean|path|choice|share|secret|required_secret|table|optional_table|count)\("([a-z_0-9]+)""#,
    )
    .expect("a pattern");
    let keys: std::collections::BTreeSet<&str> =
        asked.captures_iter(source).filter_map(|c| c.get(1)).map(|m| m.as_str()).collect();
    assert!(keys.len() > 50, "the reader's way of asking has changed: {keys:?}");
    let missing: Vec<&&str> = keys.iter().filter(|key| !docs.contains(**key)).collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks {missing:?}");
}
