//! From the file's tree to [`Config`], section by section.

use super::read::{Context, Table, is_secretive, shorten};
use super::*;
use crate::diagnostics::Diagnostic;
use std::cell::RefCell;
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

const MS: fn(u64) -> Duration = Duration::from_millis;
const SECS: fn(u64) -> Duration = Duration::from_secs;
const DAYS: fn(u64) -> Duration = |days| Duration::from_secs(days * 86_400);

pub(super) fn parse(path: &Path, text: &str) -> Result<Config, Diagnostics> {
    let mut found = Diagnostics::new();
    let file = found.add_file(path.display().to_string(), text);
    let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let context = Context { file, dir: &dir, found: RefCell::new(found) };
    let (tree, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // Where the text is broken, what looks like a secret may not be one to the parser.
        hide_secretive_lines(&context, text);
        for error in &errors {
            let message = format!("this is not TOML: {}", error.message());
            let end = text.len();
            context.push(context.error("syntax", error.span().unwrap_or(end..end), message));
        }
        // What the rest says is guesswork.
        return Err(context.found.into_inner());
    }
    let root = Table::root(&context, &tree);
    let config = read(path, text, &root);
    root.finish();
    let mut found = context.found.into_inner();
    found.sort();
    if found.has_errors() { Err(found) } else { Ok(Config { warnings: found, ..config }) }
}

/// Hides what follows the first word of each line that looks like a secret's; everything, once a text over several
/// lines begins on such a line.
fn hide_secretive_lines(context: &Context<'_>, text: &str) {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if is_secretive(line) {
            let indent = line.len() - line.trim_start().len();
            let word = line[indent..].find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(line.len() - indent);
            let end = if line.contains("'''") || line.contains("\"\"\"") { text.len() } else { at + line.len() };
            context.hide(at + indent + word..end);
        }
        at += line.len();
    }
}

fn read(path: &Path, text: &str, root: &Table<'_>) -> Config {
    version(root);
    let tenant = tenant(path, root);
    let state = state(&root.table("state"), &tenant);
    Config {
        path: path.to_path_buf(),
        dir: root.context().dir.to_path_buf(),
        source: source(root, &tenant),
        mapping: mapping(root, text),
        crm: crm(root),
        delivery: delivery(&root.table("delivery")),
        snapshot: snapshot(&root.table("snapshot")),
        observe: observe(&root.table("observe"), &state.dir),
        limits: limits(&root.table("limits")),
        state,
        tenant,
        warnings: Diagnostics::new(),
    }
}

fn version(root: &Table<'_>) {
    match root.get("tidemark") {
        None => root.missing("tidemark", "begin the file with `tidemark = 1`, the version of its format"),
        Some(found) => match found.value {
            DeValue::Integer(n) if n.as_str() == "1" => {}
            _ => root.bad_value(&found, "must be 1", "this version of the program reads format 1"),
        },
    }
}

fn tenant(path: &Path, root: &Table<'_>) -> String {
    const WHY: &str = "use 1 to 40 of a-z, 0-9 and _ (no `-`): the name becomes part of a replication slot's name, a \
                       directory and a systemd instance, and only these are safe in all three";
    let is_valid = |name: &str| {
        (1..=40).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if root.has("tenant") {
        let Some((name, found)) = root.text("tenant") else { return String::new() };
        if !is_valid(&name) {
            root.bad_value(&found, format_args!("cannot be \"{}\"", shorten(&name)), WHY);
        }
        return name;
    }
    root.get("tenant");
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_string();
    if !is_valid(&stem) {
        let proposal: String = stem
            .to_ascii_lowercase()
            .chars()
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' })
            .take(40)
            .collect();
        let message = format!("the file's name, \"{}\", cannot be the tenant's name", shorten(&stem));
        let context = root.context();
        context.push(
            context.error("missing_key", root.span(), message).help(format!("add `tenant = \"{proposal}\"`")).note(WHY),
        );
    }
    stem
}

/// A section that has to be there.
fn section<'a>(root: &Table<'a>, key: &'static str, help: &str) -> Option<Table<'a>> {
    if !root.has(key) {
        let context = root.context();
        let message = format!("the section [{key}] is missing");
        context.push(context.error("missing_key", root.span(), message).help(help));
        root.get(key);
        return None;
    }
    root.optional_table(key)
}

fn source(root: &Table<'_>, tenant: &str) -> Source {
    let slot = format!("tidemark_{tenant}");
    let nothing = Source {
        engine: Engine::Postgres { slot: slot.clone(), publication: slot.clone() },
        host: String::new(),
        port: 0,
        database: String::new(),
        user: String::new(),
        password: None,
        tls: Tls::default(),
        time_zone: None,
    };
    let Some(t) = section(root, "source", "it names the vendor's database: engine, host, database, user, password")
    else {
        return nothing;
    };
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Mysql,
        Postgres,
        SqlServer,
    }
    let kinds = [("mysql", Kind::Mysql), ("postgres", Kind::Postgres), ("sqlserver", Kind::SqlServer)];
    let mut kind = None;
    if t.has("engine") {
        // Aliases are told apart from typing errors: people write what the vendor calls itself.
        match t.get("engine").and_then(|found| found.value.as_str()) {
            Some(alias @ ("mariadb" | "postgresql" | "mssql")) => {
                let name = match alias {
                    "mariadb" => "mysql",
                    "postgresql" => "postgres",
                    _ => "sqlserver",
                };
                if let Some(found) = t.get("engine") {
                    t.bad_value(&found, format_args!("cannot be \"{alias}\""), format!("write \"{name}\""));
                }
            }
            _ => kind = t.choice("engine", None, &kinds.map(|(name, kind)| (name, Some(kind)))),
        }
    } else {
        t.get("engine");
        t.missing("engine", "one of \"mysql\" (also MariaDB), \"postgres\", \"sqlserver\"");
    }
    let engine = {
        let mysql = engine_table(&t, "mysql", kind.map(|k| k == Kind::Mysql));
        let postgres = engine_table(&t, "postgres", kind.map(|k| k == Kind::Postgres));
        let sqlserver = engine_table(&t, "sqlserver", kind.map(|k| k == Kind::SqlServer));
        let server_id = mysql.integer("server_id", u64::from(default_server_id(tenant)), 1..=u64::from(u32::MAX));
        let (zero_dates, zero_dates_by_column) = zero_dates(&mysql);
        let slot_name = identifier(&postgres, "slot", &slot);
        let publication = identifier(&postgres, "publication", &slot);
        let sqlserver_settings = sqlserver_engine(&sqlserver);
        for table in [mysql, postgres, sqlserver] {
            table.finish();
        }
        match kind {
            Some(Kind::Mysql) => {
                let server_id = u32::try_from(server_id).unwrap_or(1);
                Engine::Mysql { server_id, zero_dates, zero_dates_by_column }
            }
            Some(Kind::SqlServer) => Engine::SqlServer(sqlserver_settings),
            Some(Kind::Postgres) | None => Engine::Postgres { slot: slot_name, publication },
        }
    };
    let usual_port = match kind {
        Some(Kind::Mysql) => 3306,
        Some(Kind::SqlServer) => 1433,
        Some(Kind::Postgres) | None => 5432,
    };
    let host = t.required_text("host", "the server's name or address");
    if host.contains("://") || host.contains('@') {
        if let Some(found) = t.get("host") {
            t.context().hide(found.span.clone());
            t.bad_value(&found, "is not a host name", "host, port, user and database are keys of their own");
        }
    } else if host.starts_with('/')
        && kind == Some(Kind::SqlServer)
        && let Some(found) = t.get("host")
    {
        t.bad_value(&found, "is a path", "only PostgreSQL and MySQL are reached through unix sockets");
    }
    let port = u16::try_from(t.integer("port", usual_port, 1..=65_535)).unwrap_or(0);
    let source = Source {
        engine,
        host,
        port,
        database: t.required_text("database", "the database's name"),
        user: t.required_text("user", "the user that tidemark connects as"),
        password: t.secret("password"),
        tls: tls(&t.table("tls")),
        time_zone: time_zone(&t),
    };
    t.finish();
    source
}

/// Settings of a SQL Server.
fn sqlserver_engine(t: &Table<'_>) -> SqlServer {
    let modes = [
        ("auto", SqlServerMode::Auto),
        ("cdc", SqlServerMode::Cdc),
        ("change-tracking", SqlServerMode::ChangeTracking),
    ];
    let encryption = [
        ("standard", SqlServerEncryption::Standard),
        ("login-only", SqlServerEncryption::LoginOnly),
        ("strict", SqlServerEncryption::Strict),
    ];
    SqlServer {
        mode: t.choice("mode", SqlServerMode::Auto, &modes),
        poll_interval: t.duration("poll_interval", MS(500), MS(50)..=SECS(3600)),
        capture_timeout: t.duration("capture_timeout", SECS(120), SECS(1)..=SECS(86_400)),
        encryption: t.choice("encryption", SqlServerEncryption::Standard, &encryption),
        token: t.secret("token"),
        read_only: t.choice("application_intent", false, &[("read-write", false), ("read-only", true)]),
    }
}

/// The subtable of one engine; one that belongs to another engine than the chosen one is an error.
fn engine_table<'a>(t: &Table<'a>, key: &'static str, is_chosen: Option<bool>) -> Table<'a> {
    if t.has(key) && is_chosen == Some(false) {
        let context = t.context();
        let message = format!("[{}] is for another engine than the one that is chosen", t.name(key));
        context
            .push(context.error("other_engine", t.key_span(key), message).help("remove it, or change `source.engine`"));
    }
    t.table(key)
}

/// `[source.mysql.zero_dates]`: `default`, and columns by their names.
fn zero_dates(mysql: &Table<'_>) -> (ZeroDates, BTreeMap<String, ZeroDates>) {
    const FORMS: &str = "write \"null\", \"reject\", or a date as \"1970-01-01\"";
    let mut default = ZeroDates::default();
    let mut columns = BTreeMap::new();
    let Some(t) = mysql.optional_table("zero_dates") else { return (default, columns) };
    for (name, text, found) in t.texts() {
        let policy = match text.as_str() {
            "null" => ZeroDates::Null,
            "reject" => ZeroDates::Reject,
            date if date.len() == 10 && date.parse::<jiff::civil::Date>().is_ok() => ZeroDates::Fixed(text),
            _ => {
                t.bad_value(&found, format_args!("cannot be \"{}\"", shorten(&text)), FORMS);
                continue;
            }
        };
        match name.split('.').count() {
            1 if name == "default" => default = policy,
            2 | 3 => drop(columns.insert(name, policy)),
            _ => t.bad_value(&found, "names no column", "write \"table.column\" in quotation marks, or default"),
        }
    }
    (default, columns)
}

/// A name of a slot or publication.
fn identifier(t: &Table<'_>, key: &'static str, default: &str) -> String {
    let Some((name, found)) = t.text(key) else { return default.to_string() };
    let is_valid = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !is_valid {
        let help = "use 1 to 63 of a-z, 0-9 and _: PostgreSQL allows nothing else in a slot's name";
        t.bad_value(&found, format_args!("cannot be \"{}\"", shorten(&name)), help);
    }
    name
}

/// Stable for a tenant, and far from the small numbers that people give to their servers.
fn default_server_id(tenant: &str) -> u32 {
    let hash = xxhash_rust::xxh3::xxh3_64(tenant.as_bytes());
    1_000_000_000 + u32::try_from(hash % 1_000_000_000).unwrap_or(0)
}

fn tls(t: &Table<'_>) -> Tls {
    let modes = [
        ("disable", TlsMode::Disable),
        ("require", TlsMode::Require),
        ("verify-ca", TlsMode::VerifyCa),
        ("verify-full", TlsMode::VerifyFull),
    ];
    let mode = t.choice("mode", TlsMode::VerifyFull, &modes);
    let ca_file = t.path("ca_file");
    let client = match (t.path("client_cert"), t.path("client_key")) {
        (Some(cert), Some(key)) => Some(ClientCertificate { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            t.missing("client_key", "a client certificate needs its private key");
            None
        }
        (None, Some(_)) => {
            t.missing("client_cert", "a client key needs its certificate");
            None
        }
    };
    t.finish();
    Tls { mode, ca_file, client }
}

fn time_zone(t: &Table<'_>) -> Option<TimeZone> {
    let (name, found) = t.text("time_zone")?;
    match jiff::tz::TimeZone::get(&name) {
        Ok(zone) => Some(TimeZone { name, zone }),
        Err(_) => {
            let help = "write an IANA name such as \"Europe/Berlin\" or \"UTC\"";
            t.bad_value(&found, format_args!("is not a time zone known here: \"{}\"", shorten(&name)), help);
            None
        }
    }
}

fn mapping(root: &Table<'_>, text: &str) -> Mapping {
    let mut mapping = Mapping {
        pack: String::new(),
        pack_span: 0..0,
        file: SourceFile { path: String::new(), text: text.to_string() },
        secrets: BTreeMap::new(),
    };
    if let Some(file) = root.context().found.borrow().files().get(root.context().file) {
        mapping.file.path.clone_from(&file.path);
    }
    let Some(t) = section(root, "mapping", "it names the pack: pack = \"NAME or PATH\"") else { return mapping };
    mapping.pack = t.required_text("pack", "a pack's name, or the path of a mapping.toml or its directory");
    mapping.pack_span = t.get("pack").map_or(t.span(), |found| found.span);
    // Read by the mapping itself, which knows what belongs there.
    if let Some(vars) = t.optional_table("vars") {
        mapping.secrets = vars.secrets();
    }
    t.optional_table("override");
    t.finish();
    mapping
}

fn crm(root: &Table<'_>) -> CrmConfig {
    let mut crm = CrmConfig {
        profile: "rest".into(),
        base_url: String::new(),
        auth: CrmAuth::None,
        timeout: SECS(30),
        connect_timeout: SECS(5),
        gzip: false,
        max_response: 32 << 20,
        ca_file: None,
        schema_check: SECS(300),
        allow_plain_http: false,
    };
    let Some(t) = section(root, "crm", "it says where the CRM is: base_url and auth") else { return crm };
    if let Some((profile, found)) = t.text("profile") {
        if profile.is_empty() {
            t.bad_value(&found, "is empty", "\"rest\", or the path of a profile file");
        }
        crm.profile = profile;
    }
    if crm.profile == "null" {
        crm.base_url = t.text("base_url").map(|(url, _)| url).unwrap_or_default();
    } else {
        crm.base_url = t.required_text("base_url", "for example \"https://crm.example/api\"");
        check_url(&t, "base_url", &crm.base_url);
    }
    crm.auth = match t.optional_table("auth") {
        Some(auth) => self::auth(&auth),
        None => CrmAuth::None,
    };
    crm.timeout = t.duration("timeout", crm.timeout, SECS(1)..=SECS(3600));
    crm.connect_timeout = t.duration("connect_timeout", crm.connect_timeout, MS(100)..=SECS(300));
    crm.gzip = t.boolean("gzip", crm.gzip);
    crm.max_response = t.size("max_response", crm.max_response, 64 << 10..=1 << 30);
    crm.ca_file = t.path("ca_file");
    crm.schema_check = t.duration("schema_check", crm.schema_check, SECS(0)..=SECS(86_400));
    crm.allow_plain_http = t.boolean("allow_plain_http", crm.allow_plain_http);
    t.finish();
    crm
}

/// An http(s) URL without credentials in it.
fn check_url(t: &Table<'_>, key: &'static str, url: &str) {
    let Some(found) = t.get(key).filter(|_| !url.is_empty()) else { return };
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else {
        t.context().hide(found.span.clone());
        return t.bad_value(&found, "is not an http(s) URL", "for example \"https://crm.example/api\"");
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        t.context().hide(found.span.clone());
        t.bad_value(
            &found,
            "holds credentials",
            "credentials belong into `crm.auth`, read from where secrets are kept",
        );
    } else if authority.is_empty() {
        t.bad_value(&found, "names no host", "for example \"https://crm.example/api\"");
    }
}

fn auth(t: &Table<'_>) -> CrmAuth {
    #[derive(Clone, Copy)]
    enum Kind {
        None,
        Bearer,
        Header,
        Basic,
        ClientCredentials,
        RefreshToken,
    }
    let kinds = [
        ("none", Kind::None),
        ("bearer", Kind::Bearer),
        ("header", Kind::Header),
        ("basic", Kind::Basic),
        ("oauth2-client-credentials", Kind::ClientCredentials),
        ("oauth2-refresh-token", Kind::RefreshToken),
    ];
    if !t.has("type") {
        t.get("type");
        let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
        t.missing("type", format!("one of {}", names.join(", ")));
    }
    let client_auths = [("basic", crm::ClientAuth::Basic), ("form", crm::ClientAuth::Form)];
    let client_auth = || t.choice("client_auth", crm::ClientAuth::Basic, &client_auths);
    let token_url = || {
        let url = t.required_text("token_url", "the CRM's token endpoint");
        check_url(t, "token_url", &url);
        url
    };
    let scope = || t.text("scope").map(|(scope, _)| scope);
    let auth = match t.choice("type", Kind::None, &kinds) {
        Kind::None => CrmAuth::None,
        Kind::Bearer => CrmAuth::Bearer { token: t.required_secret("token") },
        Kind::Header => CrmAuth::Header {
            name: t.required_text("name", "the header's name, for example \"X-Api-Key\""),
            value: t.required_secret("value"),
        },
        Kind::Basic => {
            CrmAuth::Basic { user: t.required_text("user", "the user's name"), password: t.required_secret("password") }
        }
        Kind::ClientCredentials => CrmAuth::OAuth2ClientCredentials {
            token_url: token_url(),
            client_id: t.required_text("client_id", "the client's id"),
            client_secret: t.required_secret("client_secret"),
            scope: scope(),
            client_auth: client_auth(),
        },
        Kind::RefreshToken => CrmAuth::OAuth2RefreshToken {
            token_url: token_url(),
            client_id: t.required_text("client_id", "the client's id"),
            client_secret: t.secret("client_secret"),
            refresh_token: t.required_secret("refresh_token"),
            scope: scope(),
            client_auth: client_auth(),
        },
    };
    t.finish();
    auth
}

fn delivery(t: &Table<'_>) -> Delivery {
    let usual = Delivery::default();
    let count = |key, default: usize, max| usize::try_from(t.integer(key, default as u64, 1..=max)).unwrap_or(default);
    let batch_records = count("batch_records", usual.batch_records, 10_000);
    let max_in_flight = count("max_in_flight", usual.max_in_flight, 256);
    let retry = t.table("retry");
    let letters = t.table("dead_letters");
    let delivery = Delivery {
        batch_records,
        batch_wait: t.duration("batch_wait", usual.batch_wait, MS(0)..=SECS(60)),
        max_in_flight,
        requests_per_second: u32::try_from(t.integer("requests_per_second", 0, 0..=100_000)).unwrap_or(0),
        daily_quota: t.integer("daily_quota", 0, 0..=u64::MAX >> 1),
        retry: Retry {
            initial: retry.duration("initial", usual.retry.initial, MS(1)..=SECS(3600)),
            max: retry.duration("max", usual.retry.max, MS(1)..=SECS(24 * 3600)),
            give_up_after: retry.duration("give_up_after", usual.retry.give_up_after, SECS(1)..=DAYS(3650)),
        },
        max_dead_letters: letters.integer("max_records", usual.max_dead_letters, 0..=10_000_000),
    };
    if delivery.retry.initial > delivery.retry.max
        && let Some(found) = retry.get("initial").or_else(|| retry.get("max"))
    {
        retry.bad_value(&found, "makes the first wait longer than the longest one", "initial must not exceed max");
    }
    retry.finish();
    letters.finish();
    t.finish();
    delivery
}

fn snapshot(t: &Table<'_>) -> Snapshot {
    let usual = Snapshot::default();
    let modes = [("initial", SnapshotMode::Initial), ("never", SnapshotMode::Never)];
    let count = |key, default: usize, max| usize::try_from(t.integer(key, default as u64, 1..=max)).unwrap_or(default);
    let snapshot = Snapshot {
        mode: t.choice("mode", usual.mode, &modes),
        chunk_rows: count("chunk_rows", usual.chunk_rows, 100_000),
        parallel_tables: count("parallel_tables", usual.parallel_tables, 32),
    };
    t.finish();
    snapshot
}

fn state(t: &Table<'_>, tenant: &str) -> State {
    let dir = t.path("dir").unwrap_or_else(|| {
        // systemd lists several directories with colons in between; ours is the first.
        match std::env::var("STATE_DIRECTORY").ok().filter(|dirs| !dirs.is_empty()) {
            Some(dirs) => PathBuf::from(dirs.split(':').next().unwrap_or_default()),
            None => Path::new("tidemark-state").join(tenant),
        }
    });
    let guard = t.table("sweep_guard");
    let usual = SweepGuard::default();
    let sweep_guard = SweepGuard {
        max_share: guard.share("max_share", usual.max_share),
        max_records: guard.integer("max_records", usual.max_records, 0..=u64::MAX >> 1),
    };
    guard.finish();
    let on_gap = t.choice("on_gap", OnGap::Resync, &[("resync", OnGap::Resync), ("halt", OnGap::Halt)]);
    t.finish();
    State { dir, on_gap, sweep_guard }
}

fn observe(t: &Table<'_>, state: &Path) -> Observe {
    let usual = SocketAddr::from(([127, 0, 0, 1], 9464));
    let listen = match t.text("listen") {
        None => Some(usual),
        Some((text, _)) if text == "off" => None,
        Some((text, found)) => match text.replace("localhost:", "127.0.0.1:").parse::<SocketAddr>() {
            Ok(address) => {
                if !address.ip().is_loopback() {
                    let context = t.context();
                    let message = format!("`{}` can be reached from other machines", t.name("listen"));
                    context.push(Diagnostic::warning("public_listener", context.file, found.span, message).help(
                        "it only shows, and shows no row values; put it behind a firewall or on a loopback address",
                    ));
                }
                Some(address)
            }
            Err(_) => {
                let help =
                    "write an address and a port, such as \"127.0.0.1:9464\" or \"[::1]:9464\"; \"off\" for none";
                t.bad_value(&found, format_args!("is not an address: \"{}\"", shorten(&text)), help);
                None
            }
        },
    };
    let socket = t.path("socket").unwrap_or_else(|| state.join("admin.sock"));
    let log = t.table("log");
    let log_level = log.text("level").map_or_else(|| "info".to_string(), |(level, _)| level);
    let formats = [
        ("auto", LogFormat::Auto),
        ("journald", LogFormat::Journald),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
    ];
    let log_format = log.choice("format", LogFormat::Auto, &formats);
    log.finish();
    t.finish();
    Observe { listen, socket, log_level, log_format }
}

fn limits(t: &Table<'_>) -> Limits {
    let usual = Limits::default();
    let window = t.integer("window_records", usual.window_records as u64, 1000..=10_000_000);
    let limits = Limits {
        memory: t.size("memory", usual.memory, 64 << 20..=1 << 40),
        window_records: usize::try_from(window).unwrap_or(usual.window_records),
    };
    t.finish();
    limits
}
