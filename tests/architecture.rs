//! The invariants of `docs/ARCHITECTURE.md` that are absences: what a part must not know. Scans the sources, because the
//! compiler would accept every one of these.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `dir`, as path relative to the root and code: without comments, literals and
/// tests.
fn sources(dir: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            if path.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root().join(dir), &mut files);
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            (name, code_of(&text))
        })
        .collect()
}

/// `text` without comments, the insides of literals, and everything from `#[cfg(test)]` at a line's start.
fn code_of(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut i) = (String::with_capacity(text.len()), 0);
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    while i < chars.len() {
        if at(i) == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if at(i) == '/' && at(i + 1) == '*' {
            i += 2;
            while i < chars.len() && !(at(i) == '*' && at(i + 1) == '/') {
                i += 1;
            }
            i += 2;
        } else if at(i) == 'r' && (at(i + 1) == '"' || at(i + 1) == '#') && !identifier_before(&out) {
            let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
            if at(i + 1 + hashes) != '"' {
                out.push('r');
                i += 1;
                continue;
            }
            i += 2 + hashes;
            while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|h| at(i + h) == '#')) {
                i += 1;
            }
            i += 1 + hashes;
            out.push_str("\"\"");
        } else if at(i) == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
            out.push_str("\"\"");
        } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < chars.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
            out.push_str("' '");
        } else {
            out.push(at(i));
            i += 1;
        }
    }
    out
}

fn identifier_before(out: &str) -> bool {
    out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// Places where `code` has `word` as a whole identifier (or path, if it has `::`).
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.lines()
        .enumerate()
        .filter(|(_, line)| {
            line.match_indices(word).any(|(at, _)| {
                !is_word(line[..at].chars().next_back()) && !is_word(line[at + word.len()..].chars().next())
            })
        })
        .map(|(number, _)| number + 1)
        .collect()
}

/// Fails with every place below `dirs` outside `except` that uses one of `words`.
fn absent(words: &[&str], dirs: &[&str], except: &[&str]) {
    let mut found = Vec::new();
    let code: Vec<_> = dirs.iter().flat_map(|dir| sources(dir)).collect();
    assert!(!code.is_empty(), "{dirs:?} has no sources");
    for (name, code) in code {
        if except.iter().any(|e| name.starts_with(e)) {
            continue;
        }
        for word in words {
            found.extend(lines_with(&code, word).into_iter().map(|line| format!("{name}:{line}: `{word}`")));
        }
    }
    assert!(found.is_empty(), "must not be used here (docs/ARCHITECTURE.md, Absences):\n{}", found.join("\n"));
}

/// The modules of the root package as directories and files, without `except`.
fn modules_except(except: &[&str]) -> Vec<String> {
    let mut out: Vec<String> = std::fs::read_dir(root().join("src"))
        .unwrap()
        .map(|e| format!("src/{}", e.unwrap().file_name().display()))
        .filter(|name| !except.contains(&name.as_str()))
        .collect();
    out.sort();
    out
}

fn metadata() -> &'static Value {
    static METADATA: std::sync::OnceLock<Value> = std::sync::OnceLock::new();
    METADATA.get_or_init(|| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform"]);
        let output = command.arg("x86_64-unknown-linux-gnu").current_dir(root()).output().expect("cargo runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    })
}

/// Names of all packages that `package` needs to be built and run, itself included.
fn needs(package: &str) -> BTreeSet<String> {
    let name_of: BTreeMap<&str, &str> = metadata()["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata()["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let start = name_of.iter().find(|(_, name)| **name == package).expect("a package of the tree").0;
    let (mut seen, mut todo) = (BTreeSet::new(), vec![*start]);
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dep in nodes[id]["deps"].as_array().unwrap() {
            let kinds = dep["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(|k| k["kind"].as_str() != Some("dev")) {
                todo.push(dep["pkg"].as_str().unwrap());
            }
        }
    }
    seen.into_iter().map(|id| name_of[id].to_owned()).collect()
}

#[test]
fn the_scanner_sees_code_and_nothing_else() {
    let code = code_of(
        "use sled::Db; // sled\n/* reqwest */ let a = \"tokio \\\" hyper\"; let r#type = r#\"x \" prometheus\"#;\n\
         let c = '\"'; let d: &'static str = b; reqwest_like(); fn f<'a>() {}\n#[cfg(test)]\nmod tests { use tokio; }",
    );
    assert_eq!(lines_with(&code, "sled"), [1], "{code}");
    assert_eq!(lines_with(&code, "reqwest"), [0_usize; 0], "{code}");
    for hidden in ["tokio", "hyper", "prometheus"] {
        assert!(!code.contains(hidden), "{hidden} in {code}");
    }
    assert!(code.contains("let d: &'static str") && code.contains("fn f<'a>() {}"), "{code}");
}

#[test]
fn the_contract_names_no_vendor_and_needs_neither_driver_nor_runtime() {
    let vendors =
        ["postgres", "Postgres", "mysql", "MySql", "mariadb", "sqlserver", "SqlServer", "oracle", "Lsn", "Gtid"];
    absent(&vendors, &["connectors/contract/src"], &[]);
    let needs = needs("tidemark-contract");
    for absent in ["tokio", "tokio-postgres", "reqwest", "hyper", "sled", "tracing", "prometheus"] {
        assert!(!needs.contains(absent), "tidemark-contract depends on {absent}");
    }
}

#[test]
fn a_connector_knows_no_crm_no_mapping_no_store_and_no_metric() {
    for connector in std::fs::read_dir(root().join("connectors")).unwrap() {
        let dir = connector.unwrap().file_name();
        let dir = dir.to_str().unwrap();
        if dir == "contract" {
            continue;
        }
        absent(&["crm", "Crm", "CrmChange", "Mapping", "Ledger"], &[&format!("connectors/{dir}/src")], &[]);
        let needs = needs(&format!("tidemark-{dir}"));
        for absent in ["tidemark", "reqwest", "hyper", "sled", "prometheus", "axum", "rusqlite"] {
            assert!(!needs.contains(absent), "tidemark-{dir} depends on {absent}");
        }
    }
}

#[test]
fn the_mapping_does_no_input_or_output() {
    let io = ["std::fs", "std::net", "std::process", "std::env", "tokio", "reqwest", "File", "rusqlite"];
    // A pack is read from its files before anything is mapped.
    absent(&io, &["src/mapping"], &["src/mapping/pack/"]);
}

#[test]
fn only_the_registry_names_a_connector() {
    let all: Vec<String> = std::fs::read_dir(root().join("connectors"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "contract" && name != "conformance")
        .map(|name| format!("tidemark_{name}"))
        .collect();
    let words: Vec<&str> = all.iter().map(String::as_str).collect();
    absent(&words, &["src"], &["src/registry.rs"]);
}

#[test]
fn only_the_store_names_sled() {
    absent(&["sled"], &["src"], &["src/store/"]);
}

#[test]
fn only_the_crm_side_speaks_http_to_the_outside() {
    absent(&["reqwest", "hyper", "hyper_util"], &["src"], &["src/crm/", "src/demo/crm/tests/"]);
}

#[test]
fn lower_layers_never_import_cli_or_admin() {
    let upper = ["src/cli", "src/admin", "src/daemon.rs", "src/main.rs", "src/lib.rs"];
    let mut found = Vec::new();
    for module in modules_except(&upper) {
        let files = if module.ends_with(".rs") {
            let text = std::fs::read_to_string(root().join(&module)).unwrap();
            vec![(module, code_of(&text))]
        } else {
            sources(&module)
        };
        for (name, code) in files {
            // The demo scene plays with the whole program, from above.
            if name.starts_with("src/demo/scene") {
                continue;
            }
            for word in ["crate::cli", "crate::admin"] {
                found.extend(lines_with(&code, word).into_iter().map(|line| format!("{name}:{line}: {word}")));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_dependency_has_a_licence_or_a_name_that_deny_toml_refuses() {
    let policy: toml::Table = toml::from_str(&std::fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap();
    let allowed: Vec<&str> =
        policy["licenses"]["allow"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    let banned: Vec<&str> =
        policy["bans"]["deny"].as_array().unwrap().iter().map(|b| b["crate"].as_str().unwrap()).collect();
    let mut wrong = Vec::new();
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or("none given");
        if !acceptable(licence, &allowed) {
            wrong.push(format!("{name}: licence {licence}"));
        }
        if banned.contains(&name) {
            wrong.push(format!("{name}: banned"));
        }
        let registry = package["source"].as_str();
        if registry.is_some_and(|source| !source.starts_with("registry+")) {
            wrong.push(format!("{name}: does not come from the registry"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether an SPDX expression can be satisfied with `allowed` licences alone. `/` is the old spelling of OR.
fn acceptable(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_ascii_whitespace().collect();
    let mut at = 0;
    any_of(&tokens, &mut at, allowed) && at == tokens.len()
}

fn any_of(tokens: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut ok = all_of(tokens, at, allowed);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        ok |= all_of(tokens, at, allowed);
    }
    ok
}

fn all_of(tokens: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut ok = one(tokens, at, allowed);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        ok &= one(tokens, at, allowed);
    }
    ok
}

fn one(tokens: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let Some(token) = tokens.get(*at) else { return false };
    *at += 1;
    if *token == "(" {
        let ok = any_of(tokens, at, allowed);
        let closed = tokens.get(*at) == Some(&")");
        *at += 1;
        return ok && closed;
    }
    let mut name = (*token).to_owned();
    if tokens.get(*at) == Some(&"WITH") {
        name.push_str(" WITH ");
        name.push_str(tokens.get(*at + 1).copied().unwrap_or_default());
        *at += 2;
    }
    allowed.contains(&name.as_str())
}

#[test]
fn licence_expressions_are_read_as_spdx_says() {
    let allowed = ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"];
    for yes in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
        "GPL-3.0 AND ISC OR MIT",
    ] {
        assert!(acceptable(yes, &allowed), "{yes}");
    }
    for no in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0", "GPL-3.0 WITH LLVM-exception", "MIT MIT"] {
        assert!(!acceptable(no, &allowed), "{no}");
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Names of metrics that are declared, or mentioned, in a text.
fn metric_names(text: &str, around: &str) -> BTreeSet<String> {
    let pattern = format!("{around}((?:tidemark|process)_[a-z_]*[a-z]){around}");
    let names = regex::Regex::new(&pattern).unwrap();
    names.captures_iter(text).map(|found| found[1].trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn dashboards_alerts_and_guide_name_the_metrics_that_there_are() {
    let source = read("src/metrics.rs");
    let declared = metric_names(source.split("#[cfg(test)]").next().unwrap(), "\"");
    assert!(declared.len() > 25, "the way of declaring has changed: {declared:?}");
    for path in
        ["docs/dashboards/grafana.json", "docs/alerts/tidemark.rules.yml", "docs/alerts/tidemark.rules.test.yml"]
    {
        let unknown: Vec<_> = metric_names(&read(path), r"\b").difference(&declared).cloned().collect();
        assert!(unknown.is_empty(), "{path} names metrics that do not exist: {unknown:?}");
    }
    let guide = metric_names(&read("docs/operators-guide.md"), "`");
    let ours: BTreeSet<String> = declared.into_iter().filter(|name| name.starts_with("tidemark_")).collect();
    let lacking: Vec<_> = ours.difference(&guide).collect();
    assert!(lacking.is_empty(), "docs/operators-guide.md lacks {lacking:?}");
    let unknown: Vec<_> = guide.difference(&ours).collect();
    assert!(unknown.is_empty(), "docs/operators-guide.md names metrics that do not exist: {unknown:?}");
}

#[test]
fn every_alert_has_its_place_in_the_guide() {
    let (rules, guide) = (read("docs/alerts/tidemark.rules.yml"), read("docs/operators-guide.md"));
    let alerts: Vec<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 8, "{alerts:?}");
    for alert in alerts {
        assert!(guide.contains(&format!("### {alert}\n")), "no heading for {alert}");
        let anchor = format!("docs/operators-guide.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&anchor), "{alert} does not point to {anchor}");
    }
}

#[test]
fn the_code_map_knows_every_module() {
    let map = read("docs/ARCHITECTURE.md");
    let lacking: Vec<_> = modules_except(&["src/lib.rs", "src/main.rs"])
        .into_iter()
        .filter(|m| !map.contains(&format!("`{m}")))
        .collect();
    assert!(lacking.is_empty(), "docs/ARCHITECTURE.md, code map: {lacking:?}");
}

#[test]
fn the_example_tenant_fits_its_unit() {
    let path = "systemd/example/northwind.toml";
    let config = tidemark::config::Config::parse(Path::new(path), &read(path)).unwrap_or_else(|e| panic!("{e}"));
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    let unit = read("systemd/tidemark@.service");
    for (directory, base, path) in [
        ("StateDirectory", "/var/lib", config.state.dir.clone()),
        ("RuntimeDirectory", "/run", config.observe.socket.parent().unwrap().into()),
    ] {
        let line = unit.lines().find_map(|l| l.strip_prefix(&format!("{directory}="))).unwrap();
        assert_eq!(path, Path::new(base).join(line.replace("%i", &config.tenant)), "{directory}");
    }
}
