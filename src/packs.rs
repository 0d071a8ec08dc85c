//! Where packs come from: the disk, or the program itself. The reading of files is here because the mapping does none.

use crate::diagnostics::{Diagnostic, Diagnostics, did_you_mean};
use crate::mapping::{Overlay, Pack};
use std::path::{Path, PathBuf};

/// Where the packs of this machine lie.
pub const PACK_DIR: &str = "/etc/tidemark/packs";

/// Packs that come with the program: name and text.
const EMBEDDED: &[(&str, &str)] = &[
    ("northwind", include_str!("../packs/northwind/mapping.toml")),
    ("chinook", include_str!("../packs/chinook/mapping.toml")),
    ("sakila", include_str!("../packs/sakila/mapping.toml")),
];

/// Largest file of a lookup: such tables are held in memory.
const MAX_LOOKUP: u64 = 16 << 20;

/// Names of the packs that come with the program.
pub fn embedded_names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| *name)
}

impl Pack {
    /// Reads a pack. `name` is a path (it contains `/` or ends in `.toml`; a directory stands for its `mapping.toml`), a
    /// directory under [`PACK_DIR`], or the name of an embedded pack, in this order. `overlay` is what a tenant changes.
    /// Everything wrong is told at once.
    pub fn load(name: &str, overlay: Option<&Overlay>) -> Result<Pack, Diagnostics> {
        Self::load_from(name, Path::new(PACK_DIR), overlay)
    }

    /// As [`Pack::load`], with another directory of packs.
    pub fn load_from(name: &str, packs: &Path, overlay: Option<&Overlay>) -> Result<Pack, Diagnostics> {
        let is_path = name.contains('/') || name.ends_with(".toml");
        let path = if is_path { PathBuf::from(name) } else { packs.join(name) };
        let path = if path.is_dir() || !is_path { path.join("mapping.toml") } else { path };
        let embedded = EMBEDDED.iter().find(|(embedded, _)| *embedded == name);
        if let (false, false, Some((_, text))) = (is_path, path.exists(), embedded) {
            return Self::parse(&format!("{name}/mapping.toml (built in)"), text, None, overlay);
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let dir = path.parent().map(Path::to_path_buf).unwrap_or_default();
                Self::parse(&path.display().to_string(), &text, Some(&|file| read_beside(&dir, file)), overlay)
            }
            Err(e) => Err(unreadable(name, packs, &path, &e)),
        }
    }
}

fn read_beside(dir: &Path, file: &str) -> Result<(String, String), String> {
    let path = dir.join(file);
    let shown = path.display().to_string();
    let why = |e: std::io::Error| format!("{shown} cannot be read: {e}");
    if std::fs::metadata(&path).map_err(why)?.len() > MAX_LOOKUP {
        return Err(format!("{shown} is larger than 16 MiB"));
    }
    let text = std::fs::read_to_string(&path).map_err(why)?;
    Ok((shown, text))
}

fn unreadable(name: &str, packs: &Path, path: &Path, error: &std::io::Error) -> Diagnostics {
    let mut diagnostics = Diagnostics::new();
    let file = diagnostics.add_file(path.display().to_string(), "");
    let near = did_you_mean(name, embedded_names()).map(|n| format!("did you mean the built-in pack `{n}`?"));
    let help = near.unwrap_or_else(|| {
        let built_in = embedded_names().collect::<Vec<_>>().join(", ");
        format!("name a path, a directory under {}, or a built-in pack ({built_in})", packs.display())
    });
    let message = format!("the pack `{name}` cannot be read: {error}");
    diagnostics.push(Diagnostic::error("pack_unreadable", file, 0..0, message).help(help));
    diagnostics
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACK: &str = "tidemark = 1\n[pack]\nname = \"mine\"\n[lookup.c]\nfile = \"c.csv\"\nkey = \"name\"\nvalue = \"iso\"\n\
        [record.account]\nfrom = \"t\"\nexternal_id = \"id\"\n[record.account.fields]\nc = \"lookup('c', country)\"\n\
        [[test]]\nrecord = \"account\"\nrow = { id = \"1\", country = \"Peru\" }\nexpect = { c = \"PE\" }\n";

    #[test]
    fn a_pack_is_found_by_path_by_directory_and_by_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let mine = dir.path().join("mine");
        std::fs::create_dir(&mine).expect("a directory");
        std::fs::write(mine.join("mapping.toml"), PACK).expect("written");
        std::fs::write(mine.join("c.csv"), "iso,name\nPE,Peru\n").expect("written");
        for name in [mine.join("mapping.toml").display().to_string(), mine.display().to_string(), "mine".into()] {
            let pack = Pack::load_from(&name, dir.path(), None).unwrap_or_else(|d| panic!("{d}"));
            let report = crate::mapping::run_pack_tests(&pack, &Default::default()).unwrap_or_else(|d| panic!("{d}"));
            assert_eq!((report.total, report.failed), (1, 0), "{}", report.diagnostics);
        }
        assert_eq!(Pack::load_from("northwind", dir.path(), None).expect("built in").name(), "northwind");
    }

    #[test]
    fn a_pack_that_is_not_there_is_told_with_what_there_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = Pack::load_from("northwynd", dir.path(), None).expect_err("not there").to_string();
        assert!(error.contains("did you mean the built-in pack `northwind`?"), "{error}");
        std::fs::write(dir.path().join("p.toml"), PACK).expect("written");
        let error = Pack::load(&dir.path().join("p.toml").display().to_string(), None).expect_err("no CSV").to_string();
        assert!(error.contains("c.csv cannot be read"), "{error}");
    }
}
