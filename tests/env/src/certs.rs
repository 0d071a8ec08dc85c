//! A throwaway certificate authority, for the TLS modes.

use crate::home::Account;
use crate::{Result, on_path, run};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files of a throwaway authority: its own certificate, one for a server called `localhost` / `127.0.0.1`, and one for a
/// client.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Certificate of the authority (PEM).
    pub ca: PathBuf,
    /// Certificate of the server (PEM).
    pub server_cert: PathBuf,
    /// Its private key (PEM).
    pub server_key: PathBuf,
    /// Certificate of a client whose common name is the given user (PEM).
    pub client_cert: PathBuf,
    /// Its private key (PEM, PKCS #8).
    pub client_key: PathBuf,
}

impl Certificates {
    /// Makes them with `openssl` in `dir`, which must exist. `user` is the client certificate's common name. Takes a
    /// fraction of a second: the keys are elliptic.
    pub fn create(dir: &Path, user: &str) -> Result<Self> {
        if on_path("openssl").is_none() {
            return Err(crate::Error::Missing {
                program: "openssl".into(),
                looked_in: "PATH".into(),
                advice: "install it (`apt-get install openssl`)".into(),
            });
        }
        let file = |name: &str| dir.join(name);
        let certs = Self {
            ca: file("ca.crt"),
            server_cert: file("server.crt"),
            server_key: file("server.key"),
            client_cert: file("client.crt"),
            client_key: file("client.key"),
        };
        let ca_key = file("ca.key");
        request(&certs.ca, &ca_key, "Tidemark throwaway CA", &["basicConstraints=critical,CA:TRUE"], None)?;
        let authority = Some((certs.ca.as_path(), ca_key.as_path()));
        let server = ["subjectAltName=DNS:localhost,IP:127.0.0.1", "basicConstraints=CA:FALSE"];
        request(&certs.server_cert, &certs.server_key, "localhost", &server, authority)?;
        request(&certs.client_cert, &certs.client_key, user, &["basicConstraints=CA:FALSE"], authority)?;
        Ok(certs)
    }

    /// Lets the server's account read its key, and nobody else.
    pub(crate) fn give_to(&self, account: &Account) -> Result<()> {
        for path in [&self.ca, &self.server_cert, &self.server_key] {
            account.own(path)?;
        }
        let mode = std::fs::Permissions::from_mode(0o600);
        crate::doing("setting permissions", std::fs::set_permissions(&self.server_key, mode))
    }
}

/// One self-signed certificate, or one signed by `authority` (certificate, key), valid for two days.
fn request(cert: &Path, key: &Path, name: &str, extensions: &[&str], authority: Option<(&Path, &Path)>) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.arg("-subj").arg(format!("/CN={name}")).arg("-out").arg(cert).arg("-keyout").arg(key);
    for extension in extensions {
        command.arg("-addext").arg(extension);
    }
    if let Some((ca, ca_key)) = authority {
        command.arg("-CA").arg(ca).arg("-CAkey").arg(ca_key);
    }
    run("making a certificate with openssl", &mut command).map(drop)
}
