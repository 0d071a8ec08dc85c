//! Authentication: SCRAM-SHA-256 (bound to the TLS certificate where the server can), and the older methods only where
//! nobody can listen.

use crate::PostgresConfig;
use crate::error::{ServerError, undecodable};
use crate::wire::{Channel, Connection, unexpected};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;
use tidemark_contract::{ErrorKind, Result, SourceError};

/// Answers the server's challenges until it is content.
pub(crate) async fn authenticate(c: &mut Connection, config: &PostgresConfig, channel: &Channel) -> Result<()> {
    loop {
        let (code, body) = challenge(c).await?;
        if let Some(objection) = objection(code, config.password.is_some(), channel) {
            return Err(objection);
        }
        match code {
            0 => return Ok(()),
            3 => {
                let password = password(config)?.as_bytes();
                c.send(|out| frontend::password_message(password, out)).await?;
            }
            5 => {
                let salt = body.first_chunk::<4>().ok_or_else(malformed)?;
                let hash = md5_hash(config.user.as_bytes(), password(config)?.as_bytes(), *salt);
                c.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
            }
            10 => scram(c, password(config)?, channel, &body).await?,
            _ => return Err(malformed()),
        }
    }
}

/// Why a request for authentication is not answered, if so: nobody may overhear a password, and there must be one.
pub(crate) fn objection(code: u32, has_password: bool, channel: &Channel) -> Option<SourceError> {
    match code {
        0 | 11 | 12 => None,
        3 if !channel.private => Some(refused_method("the password in the clear")),
        5 if !channel.private && !channel.local => Some(refused_method("an MD5 hash of the password")),
        3 | 5 | 10 => (!has_password).then(no_password),
        7..=9 => Some(refused("the server asks for Kerberos (GSSAPI or SSPI), which is not supported")),
        other => Some(refused(format!("the server asks for the unknown authentication method {other}"))),
    }
}

/// The next authentication message: its code and what follows it.
async fn challenge(c: &mut Connection) -> Result<(u32, Vec<u8>)> {
    loop {
        let (tag, body) = c.message().await?;
        match tag {
            b'R' => {
                let (code, rest) = body.split_first_chunk::<4>().ok_or_else(malformed)?;
                return Ok((u32::from_be_bytes(*code), rest.to_vec()));
            }
            b'E' => return Err(ServerError::parse(body).into_source_error("logging in to PostgreSQL")),
            b'N' | b'v' => {}
            other => return Err(unexpected(other)),
        }
    }
}

async fn scram(c: &mut Connection, password: &str, channel: &Channel, mechanisms: &[u8]) -> Result<()> {
    let offers = |name: &str| mechanisms.split(|b| *b == 0).any(|m| m == name.as_bytes());
    let (name, binding) = match &channel.end_point {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
            (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash.clone()))
        }
        // We could have, the server says it cannot: the signed exchange tells it so, which unmasks a man in the middle.
        Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
    };
    if !offers(name) {
        return Err(refused("the server offers no SASL mechanism that is known here"));
    }
    let mut exchange = ScramSha256::new(password.as_bytes(), binding);
    c.send(|out| frontend::sasl_initial_response(name, exchange.message(), out)).await?;
    let (11, body) = challenge(c).await? else { return Err(malformed()) };
    exchange.update(&body).map_err(|_| malformed())?;
    c.send(|out| frontend::sasl_response(exchange.message(), out)).await?;
    let (12, body) = challenge(c).await? else { return Err(malformed()) };
    exchange.finish(&body).map_err(|_| refused("the server could not prove that it knows the password"))
}

fn password(config: &PostgresConfig) -> Result<&str> {
    config.password.as_ref().map(|p| p.expose()).ok_or_else(no_password)
}

fn no_password() -> SourceError {
    refused("the server asks for a password, and none is configured").hint("set the source's password")
}

fn refused(message: impl Into<String>) -> SourceError {
    SourceError::new(ErrorKind::AuthRefused, message)
}

fn refused_method(what: &str) -> SourceError {
    refused(format!("the server asks for {what}, which others could read on an unencrypted connection"))
        .hint("use TLS, or set password_encryption = 'scram-sha-256' and set the role's password again")
}

fn malformed() -> SourceError {
    undecodable("a malformed authentication message")
}
