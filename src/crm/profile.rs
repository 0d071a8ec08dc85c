//! Where the contract's endpoints are at a CRM, and the way from a profile's name to a [`Crm`].

use super::{Crm, NullCrm, RestConfig, RestCrm, WriteLimits};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A CRM connection that cannot be set up as configured: what was found, and what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);

/// Makes the CRM that `profile` names: `rest`, `null`, or a profile file's path (relative to `directory`, that of the
/// tenant file). `config.profile` is replaced.
pub fn connect(profile: &str, directory: &Path, config: RestConfig) -> Result<Arc<dyn Crm>, SetupError> {
    match profile {
        "null" => Ok(Arc::new(NullCrm::new())),
        "rest" => Ok(Arc::new(RestCrm::new(RestConfig { profile: Profile::rest(), ..config })?)),
        path if path.contains('/') || path.ends_with(".toml") => {
            let path = directory.join(path);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| SetupError(format!("the profile {} cannot be read: {error}", path.display())))?;
            let profile = Profile::parse(&text).map_err(|error| SetupError(format!("{}: {error}", path.display())))?;
            Ok(Arc::new(RestCrm::new(RestConfig { profile, ..config })?))
        }
        name => {
            let near = ["rest", "null"]
                .into_iter()
                .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
            let hint = near.filter(|near| strsim::jaro_winkler(near, name) > 0.7);
            let hint = hint.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
            Err(SetupError(format!(
                "there is no CRM profile \"{}\" (built in: rest, null; a path to a profile file has a slash or ends in .toml){hint}",
                super::answer::clean(name, 100)
            )))
        }
    }
}

/// Where a CRM has the contract's endpoints, and what it wants beside them.
#[derive(Clone, Debug)]
pub struct Profile {
    name: String,
    pub(super) paths: Paths,
    pub(super) idempotency_key: HeaderName,
    pub(super) extra: HeaderMap,
    pub(super) limits: WriteLimits,
    pub(super) page_records: usize,
}

/// Path templates.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub health: Template,
    pub openapi: Template,
    pub upsert: Template,
    pub delete: Template,
    pub list: Template,
}

/// A path with at most one `{entity}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Template(Box<str>);

impl Template {
    const HOLE: &'static str = "{entity}";

    fn parse(key: &str, text: &str, entity: bool) -> Result<Self, SetupError> {
        let refuse = |why: &str| Err(SetupError(format!("paths.{key} {why}")));
        if !text.starts_with('/') {
            return refuse("must begin with a slash");
        }
        if text.contains(Self::HOLE) != entity {
            return refuse(if entity { "must hold {entity}" } else { "has no place for {entity}" });
        }
        let literal = text.replacen(Self::HOLE, "", 1);
        if !literal.chars().all(|c| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:@".contains(c)) {
            return refuse("holds a character that a path cannot have (a query does not belong here)");
        }
        if text.split('/').any(|segment| matches!(segment, "." | "..")) {
            return refuse("holds . or .. as a segment");
        }
        Ok(Self(text.into()))
    }

    /// The path for `entity`, which is percent-encoded already.
    pub fn path(&self, entity: &str) -> String {
        self.0.replacen(Self::HOLE, entity, 1)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tidemark: u32,
    profile: FileProfile,
    #[serde(default)]
    paths: FilePaths,
    #[serde(default)]
    headers: FileHeaders,
    #[serde(default)]
    limits: FileLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileProfile {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FilePaths {
    health: String,
    openapi: String,
    upsert: String,
    delete: String,
    list: String,
}

impl Default for FilePaths {
    fn default() -> Self {
        Self {
            health: "/health".to_owned(),
            openapi: "/openapi.json".to_owned(),
            upsert: "/v1/{entity}/upsert".to_owned(),
            delete: "/v1/{entity}/delete".to_owned(),
            list: "/v1/{entity}".to_owned(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileHeaders {
    idempotency_key: String,
    extra: BTreeMap<String, String>,
}

impl Default for FileHeaders {
    fn default() -> Self {
        Self { idempotency_key: "Idempotency-Key".to_owned(), extra: BTreeMap::new() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileLimits {
    batch_records: usize,
    batch_bytes: usize,
    page_records: usize,
}

impl Default for FileLimits {
    fn default() -> Self {
        Self { batch_records: 0, batch_bytes: 0, page_records: 1_000 }
    }
}

impl Profile {
    /// The built-in text: the defaults, with their explanation.
    pub const REST: &'static str = include_str!("../../profiles/rest.toml");

    /// The profile `rest`: every default.
    pub fn rest() -> Self {
        let path = |text: String| Template(text.into());
        let FilePaths { health, openapi, upsert, delete, list } = FilePaths::default();
        Self {
            name: "rest".to_owned(),
            paths: Paths {
                health: path(health),
                openapi: path(openapi),
                upsert: path(upsert),
                delete: path(delete),
                list: path(list),
            },
            idempotency_key: HeaderName::from_static("idempotency-key"),
            extra: HeaderMap::new(),
            limits: WriteLimits::default(),
            page_records: FileLimits::default().page_records,
        }
    }

    /// Reads a profile file.
    pub fn parse(text: &str) -> Result<Self, SetupError> {
        let file: File = toml::from_str(text).map_err(|error| SetupError(error.to_string()))?;
        if file.tidemark != 1 {
            return Err(SetupError(format!(
                "this is a profile of format {}; this program reads format 1",
                file.tidemark
            )));
        }
        let header = |key: &str, name: &str| {
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| SetupError(format!("headers.{key} is no name that a header can have")))
        };
        let mut extra = HeaderMap::new();
        for (name, value) in &file.headers.extra {
            let key = header("extra", name)?;
            if matches!(key.as_str(), "authorization" | "content-length" | "content-type" | "content-encoding" | "host")
            {
                return Err(SetupError(format!("headers.extra may not set {key}: Tidemark sets it itself")));
            }
            let value = HeaderValue::from_str(value)
                .map_err(|_| SetupError(format!("headers.extra.{key} holds characters that no header can carry")))?;
            extra.insert(key, value);
        }
        let some = |number: usize| (number > 0).then_some(number);
        Ok(Self {
            name: file.profile.name,
            paths: Paths {
                health: Template::parse("health", &file.paths.health, false)?,
                openapi: Template::parse("openapi", &file.paths.openapi, false)?,
                upsert: Template::parse("upsert", &file.paths.upsert, true)?,
                delete: Template::parse("delete", &file.paths.delete, true)?,
                list: Template::parse("list", &file.paths.list, true)?,
            },
            idempotency_key: header("idempotency_key", &file.headers.idempotency_key)?,
            extra,
            limits: WriteLimits { records: some(file.limits.batch_records), bytes: some(file.limits.batch_bytes) },
            page_records: file.limits.page_records.clamp(1, 100_000),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::rest()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crm::Auth;

    #[test]
    fn the_shipped_file_says_what_the_program_does() {
        let shipped = Profile::parse(Profile::REST).unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{:?}", Profile::rest()));
        let empty = Profile::parse("tidemark = 1\nprofile.name = \"rest\"").unwrap();
        assert_eq!(format!("{empty:?}"), format!("{:?}", Profile::rest()));
    }

    #[test]
    fn what_cannot_work_is_refused_when_it_is_read() {
        for (text, wanted) in [
            ("paths.upsert = \"/v1/upsert\"", "{entity}"),
            ("paths.health = \"/{entity}\"", "no place"),
            ("paths.list = \"v1/{entity}\"", "slash"),
            ("paths.list = \"/v1/../{entity}\"", ".."),
            ("paths.list = \"/v1/{entity}?x=1\"", "query"),
            ("paths.list = \"/v1/{entity}/{entity}\"", "character"),
            ("paths.lst = \"/\"", "lst"),
            ("headers.idempotency_key = \"a b\"", "header"),
            ("headers.extra = { Authorization = \"x\" }", "itself"),
            ("headers.extra = { A = \"x\\ny\" }", "carry"),
        ] {
            let error = Profile::parse(&format!("tidemark = 1\nprofile.name = \"x\"\n{text}")).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        assert!(Profile::parse("tidemark = 2\nprofile.name = \"x\"").unwrap_err().to_string().contains("format 2"));
    }

    #[test]
    fn profiles_are_found_by_name_and_by_path() {
        let config = || RestConfig::new("http://127.0.0.1:1", Auth::None);
        let connect = |name: &str, dir: &Path| connect(name, dir, config()).map(|_| ());
        assert!(connect("rest", Path::new("/")).is_ok());
        assert!(connect("null", Path::new("/")).is_ok());
        assert!(connect("rset", Path::new("/")).unwrap_err().to_string().contains("did you mean \"rest\""));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("own.toml"), "tidemark = 1\nprofile.name = \"own\"").unwrap();
        assert!(connect("own.toml", dir.path()).is_ok());
        assert!(connect("missing.toml", dir.path()).unwrap_err().to_string().contains("missing.toml"));
    }
}
