//! [`RestCrm`] against servers that do what servers do on bad days, byte by byte.

use super::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What a scripted server does with one request.
enum Act {
    /// Sends these bytes and keeps the connection.
    Send(Vec<u8>),
    /// Sends these bytes and closes the connection.
    Cut(Vec<u8>),
    /// Says nothing for so long, then closes.
    Hang(Duration),
    /// Sends these bytes again and again until the client has had enough.
    Flood(Vec<u8>, Vec<u8>),
}

/// A request as it came: head and body.
#[derive(Clone, Debug)]
struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }
}

/// A server that does one act per request; 599 once the script is at its end.
struct Script {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Script {
    fn new(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let script = Script { addr: listener.local_addr().unwrap(), seen: Arc::default(), connections: Arc::default() };
        let acts = Arc::new(Mutex::new(VecDeque::from(acts)));
        let (seen, connections) = (script.seen.clone(), script.connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (acts, seen) = (acts.clone(), seen.clone());
                connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || play(stream.unwrap(), &acts, &seen));
            }
        });
        script
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn crm(&self, auth: Auth) -> RestCrm {
        self.crm_with(auth, |_| ())
    }

    fn crm_with(&self, auth: Auth, change: impl FnOnce(&mut RestConfig)) -> RestCrm {
        let mut config = RestConfig::new(self.url(), auth);
        config.timeout = Duration::from_secs(5);
        change(&mut config);
        RestCrm::new(config).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn play(mut stream: TcpStream, acts: &Mutex<VecDeque<Act>>, seen: &Mutex<Vec<Seen>>) {
    while let Some(request) = read_request(&mut stream) {
        seen.lock().unwrap().push(request);
        let act = acts.lock().unwrap().pop_front().unwrap_or_else(|| Act::Send(answer(599, "", "")));
        match act {
            Act::Send(bytes) => drop(stream.write_all(&bytes)),
            Act::Cut(bytes) => return drop(stream.write_all(&bytes)),
            Act::Hang(time) => return std::thread::sleep(time),
            Act::Flood(first, bytes) => {
                let mut going = stream.write_all(&first).is_ok();
                while going {
                    going = stream.write_all(&bytes).is_ok();
                }
                return;
            }
        }
    }
}

fn read_request(stream: &mut impl Read) -> Option<Seen> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let mut seen = Seen { head: String::from_utf8(head).unwrap(), body: Vec::new() };
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    seen.body = vec![0; length];
    stream.read_exact(&mut seen.body).ok()?;
    Some(seen)
}

/// A whole answer; `headers` end in line breaks.
fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

fn ok(body: &str) -> Vec<u8> {
    answer(200, "Content-Type: application/json\r\n", body)
}

const CREATED: &str = r#"{"results":[{"external_id":"a","status":"created"}]}"#;

fn bearer(token: &str) -> Auth {
    Auth::Bearer { token: SecretSource::fixed(token) }
}

async fn upsert(crm: &RestCrm) -> Result<Vec<Outcome>> {
    let document = Document::new(br#"{"name":"row value"}"#.as_slice().into(), false);
    crm.upsert("account", &[WriteRecord { external_id: "a", version: 7, document: Some(&document) }]).await
}

/// What a write comes to when the server does this.
async fn kind(act: Act) -> CrmErrorKind {
    let error = error(act).await;
    assert!(!error.message.contains("row value") && !error.message.contains("s3cret"), "{error}");
    error.kind
}

async fn error(act: Act) -> CrmError {
    let script = Script::new(vec![act]);
    upsert(&script.crm_with(bearer("s3cret"), |config| config.timeout = Duration::from_millis(700))).await.unwrap_err()
}

#[tokio::test]
async fn a_write_looks_as_the_contract_has_it() {
    let script = Script::new(vec![Act::Send(ok(CREATED)), Act::Send(ok(CREATED))]);
    let crm = script.crm(bearer("s3cret"));
    assert_eq!(upsert(&crm).await.unwrap(), [Outcome::Done(Done::Created)]);
    assert_eq!(upsert(&crm).await.unwrap(), [Outcome::Done(Done::Created)]);
    let seen = script.seen();
    assert_eq!(seen[0].line(), "POST /v1/account/upsert HTTP/1.1");
    assert_eq!(seen[0].body, br#"{"records":[{"external_id":"a","version":"7","fields":{"name":"row value"}}]}"#);
    assert_eq!(seen[0].header("authorization"), Some("Bearer s3cret"));
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
    assert!(seen[0].header("idempotency-key").unwrap().len() >= 32);
    assert_eq!(script.connections.load(Ordering::SeqCst), 1, "the connection is used again");
}

#[tokio::test]
async fn what_may_have_been_applied_is_unknown() {
    use CrmErrorKind::Unknown;
    let html = answer(200, "Content-Type: text/html\r\n", "<html>please sign in</html>");
    assert_eq!(kind(Act::Send(html)).await, Unknown);
    assert_eq!(kind(Act::Send(answer(204, "", ""))).await, Unknown);
    assert_eq!(kind(Act::Send(answer(202, "", CREATED))).await, Unknown);
    assert_eq!(kind(Act::Send(ok("{\"results\":["))).await, Unknown);
    assert_eq!(kind(Act::Send(ok(""))).await, Unknown);
    assert_eq!(kind(Act::Send(answer(500, "", "oops"))).await, Unknown);
    assert_eq!(kind(Act::Send(answer(504, "", ""))).await, Unknown);
    // Closed without a word; in the headers; in the body; with a wrong length; in a chunk; garbage.
    assert_eq!(kind(Act::Cut(Vec::new())).await, Unknown);
    assert_eq!(kind(Act::Cut(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec())).await, Unknown);
    assert_eq!(kind(Act::Cut(ok(CREATED)[..80].to_vec())).await, Unknown);
    let wrong = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{CREATED}", CREATED.len() + 10);
    assert_eq!(kind(Act::Cut(wrong.into_bytes())).await, Unknown);
    let short = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{CREATED}", CREATED.len() - 10);
    assert_eq!(kind(Act::Cut(short.into_bytes())).await, Unknown);
    let chunk = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{CREATED}\r\n", CREATED.len());
    assert_eq!(kind(Act::Cut(chunk.into_bytes())).await, Unknown);
    assert_eq!(kind(Act::Cut(b"SSH-2.0-OpenSSH\r\n".to_vec())).await, Unknown);
    // No answer in time, before its head and in its body.
    assert_eq!(kind(Act::Hang(Duration::from_secs(3))).await, Unknown);
    let half = Act::Flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), b"1\r\n \r\n".to_vec());
    assert_eq!(kind(half).await, Unknown);
}

#[tokio::test]
async fn results_that_came_before_the_body_broke_off_do_not_count() {
    // A whole JSON document, but the message says that there is more.
    let body = format!("{CREATED}   ");
    let cut = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{CREATED}", body.len());
    let error = error(Act::Cut(cut.into_bytes())).await;
    assert_eq!((error.kind, error.status), (CrmErrorKind::Unknown, Some(200)));
    assert!(error.message.contains("broke off"), "{error}");
}

#[tokio::test]
async fn what_was_not_sent_is_unavailable() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = RestCrm::new(RestConfig::new(format!("http://{addr}"), Auth::None)).unwrap();
    let error = upsert(&refused).await.unwrap_err();
    assert_eq!(error.kind, CrmErrorKind::Unavailable);
    assert!(error.message.contains("refused"), "the cause is named: {error}");
    let nowhere = RestCrm::new(RestConfig::new("http://no-such-host.invalid", Auth::None)).unwrap();
    assert_eq!(upsert(&nowhere).await.unwrap_err().kind, CrmErrorKind::Unavailable);
    assert_eq!(kind(Act::Send(answer(503, "", ""))).await, CrmErrorKind::Unavailable);
    assert_eq!(
        kind(Act::Send(answer(502, "Content-Type: text/html\r\n", "<h1>bad</h1>"))).await,
        CrmErrorKind::Unavailable
    );
}

#[tokio::test]
async fn a_refused_batch_keeps_the_crms_words() {
    let words = answer(
        422,
        "Content-Type: application/json\r\n",
        r#"{"error":{"code":"bad","message":"no\u0007 such\nfield"}}"#,
    );
    let error = error(Act::Send(words)).await;
    assert_eq!((error.kind, error.message.as_str()), (CrmErrorKind::Refused, "bad: no such field"));
    let error = super::tests::error(Act::Send(answer(400, "Content-Type: text/html\r\n", "<html>"))).await;
    assert_eq!(error.kind, CrmErrorKind::Refused);
    assert!(error.message.contains("without saying why") && !error.message.contains("<html>"), "{error}");
    assert_eq!(kind(Act::Send(answer(413, "", ""))).await, CrmErrorKind::TooLarge);
    assert_eq!(kind(Act::Send(answer(404, "", ""))).await, CrmErrorKind::Contract);
    assert_eq!(kind(Act::Send(answer(403, "", ""))).await, CrmErrorKind::Forbidden);
}

#[tokio::test]
async fn the_crm_says_how_long_to_wait() {
    for (header, wait) in [
        ("Retry-After: 7\r\n", Some(7)),
        ("Retry-After: Wed, 21 Oct 2037 07:28:30 GMT\r\nDate: Wed, 21 Oct 2037 07:28:00 GMT\r\n", Some(30)),
        ("Retry-After: garbage\r\n", None),
        ("Retry-After: 86400\r\n", Some(3_600)),
        ("", None),
    ] {
        let error = error(Act::Send(answer(429, header, ""))).await;
        assert_eq!(
            (error.kind, error.retry_after),
            (CrmErrorKind::Throttled, wait.map(Duration::from_secs)),
            "{header}"
        );
    }
    let error = error(Act::Send(answer(503, "Retry-After: 5\r\n", ""))).await;
    assert_eq!((error.kind, error.retry_after), (CrmErrorKind::Unavailable, Some(Duration::from_secs(5))));
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let elsewhere = Script::new(vec![Act::Send(ok(CREATED))]);
    for status in [301, 302, 303, 307, 308] {
        let headers = format!("Location: {}/v1/account/upsert?token=t\r\n", elsewhere.url());
        let error = error(Act::Send(answer(status, &headers, ""))).await;
        assert_eq!((error.kind, error.status), (CrmErrorKind::Contract, Some(status)));
        assert!(error.message.contains("127.0.0.1") && !error.message.contains("token=t"), "{error}");
    }
    assert_eq!(elsewhere.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let started = Instant::now();
    let flood = |status: &str| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
        Act::Flood(head.into_bytes(), [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat())
    };
    let script = Script::new(vec![flood("200 OK"), flood("429 Slow down"), flood("302 Found")]);
    let crm = script.crm_with(Auth::None, |config| {
        config.max_response_bytes = 1_000_000;
        config.timeout = Duration::from_secs(30);
    });
    let error = upsert(&crm).await.unwrap_err();
    assert_eq!(error.kind, CrmErrorKind::Unknown);
    assert!(error.message.contains("1000000"), "{error}");
    assert_eq!(upsert(&crm).await.unwrap_err().kind, CrmErrorKind::Throttled);
    assert_eq!(upsert(&crm).await.unwrap_err().kind, CrmErrorKind::Contract);
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn a_gzip_bomb_does_not_go_off() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    (0..200).for_each(|_| encoder.write_all(&[b' '; 1_000_000]).unwrap());
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 300_000);
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len()).into_bytes();
    bytes.extend_from_slice(&bomb);
    let script = Script::new(vec![Act::Send(bytes)]);
    let crm = script.crm_with(Auth::None, |config| config.max_response_bytes = 1_000_000);
    assert_eq!(upsert(&crm).await.unwrap_err().kind, CrmErrorKind::Unknown);
}

#[tokio::test]
async fn a_compressed_answer_is_read() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(CREATED.as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(&body);
    let script = Script::new(vec![Act::Send(bytes)]);
    assert_eq!(upsert(&script.crm(Auth::None)).await.unwrap(), [Outcome::Done(Done::Created)]);
}

#[tokio::test]
async fn a_refusal_that_comes_while_the_body_is_still_on_its_way_is_seen_or_unknown() {
    // A server that answers 413 after the head, does not read the body, and closes: the worst case of real ones.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1_000]);
            let _ = stream.write_all(&answer(413, "Connection: close\r\n", ""));
        }
    });
    let crm = RestCrm::new(RestConfig::new(format!("http://{addr}"), Auth::None)).unwrap();
    let text = json!({"text": "x".repeat(20_000_000)}).to_string();
    let document = Document::new(text.into_bytes().into(), false);
    let record = WriteRecord { external_id: "a", version: 1, document: Some(&document) };
    let kind = crm.upsert("x", &[record]).await.unwrap_err().kind;
    assert!(matches!(kind, CrmErrorKind::TooLarge | CrmErrorKind::Unknown), "{kind:?}");
}

#[tokio::test]
async fn a_refused_token_is_read_again_once() {
    let unauthorized = || Act::Send(answer(401, "", "{}"));
    let script = Script::new(vec![unauthorized(), Act::Send(ok(CREATED)), unauthorized(), unauthorized()]);
    let reads = Arc::new(AtomicUsize::new(0));
    let token = SecretSource::new({
        let reads = reads.clone();
        move || Ok(format!("token-{}\n", reads.fetch_add(1, Ordering::SeqCst)))
    });
    let crm = script.crm(Auth::Bearer { token });
    assert_eq!(upsert(&crm).await.unwrap(), [Outcome::Done(Done::Created)]);
    let error = upsert(&crm).await.unwrap_err();
    assert_eq!((error.kind, error.status), (CrmErrorKind::Unauthorized, Some(401)));
    assert!(!error.message.contains("token-"), "{error}");
    let tokens: Vec<_> = script.seen().iter().map(|seen| seen.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(tokens, ["Bearer token-0", "Bearer token-1", "Bearer token-1", "Bearer token-2"]);
    let keys: Vec<_> = script.seen().iter().map(|seen| seen.header("idempotency-key").unwrap().to_owned()).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "a repeated request is the same write");
}

#[tokio::test]
async fn credentials_that_cannot_be_had_are_said_without_being_shown() {
    let script = Script::new(vec![Act::Send(answer(401, "", ""))]);
    let error = |auth: Auth| {
        let crm = script.crm(auth);
        async move { upsert(&crm).await.unwrap_err() }
    };
    let gone = SecretSource::new(|| Err(std::io::ErrorKind::NotFound.into()));
    assert_eq!(error(Auth::Bearer { token: gone }).await.kind, CrmErrorKind::Unauthorized);
    assert_eq!(error(bearer("")).await.kind, CrmErrorKind::Unauthorized);
    let evil = error(bearer("evil\r\nX-Injected: 1")).await;
    assert_eq!(evil.kind, CrmErrorKind::Unauthorized);
    assert!(!evil.message.contains("evil"), "{evil}");
    assert!(script.seen().is_empty(), "nothing was sent");
    let none = error(Auth::None).await;
    assert_eq!(none.kind, CrmErrorKind::Unauthorized);
    assert!(none.message.contains("wants credentials"), "{none}");
    assert_eq!(script.seen().len(), 1, "there is nothing to renew");
}

#[tokio::test]
async fn credentials_go_where_they_belong() {
    let script = Script::new(vec![Act::Send(ok(CREATED)), Act::Send(ok(CREATED))]);
    let password = SecretSource::fixed("pä:ss w%rd");
    upsert(&script.crm(Auth::Basic { user: "us er".to_owned(), password })).await.unwrap();
    let value = SecretSource::fixed("key");
    upsert(&script.crm(Auth::Header { name: "X-Api-Key".to_owned(), value })).await.unwrap();
    let seen = script.seen();
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode("us er:pä:ss w%rd");
    assert_eq!(seen[0].header("authorization").unwrap(), format!("Basic {basic}"));
    assert_eq!((seen[1].header("x-api-key"), seen[1].header("authorization")), (Some("key"), None));
}

#[tokio::test]
async fn a_crm_that_repeats_our_secret_does_not_get_it_into_our_messages() {
    let words = |status| answer(status, "Content-Type: text/plain\r\n", "token s3cret/+= may not do that");
    let script = Script::new(vec![Act::Send(words(422)), Act::Send(words(403))]);
    let crm = script.crm(bearer("s3cret/+="));
    let error = upsert(&crm).await.unwrap_err();
    assert_eq!(error.message, "token [secret] may not do that");
    assert!(!upsert(&crm).await.unwrap_err().message.contains("may not"));
    let rejected =
        r#"{"results":[{"external_id":"a","status":"rejected","error":{"code":"x","message":"s3cret/+= no"}}]}"#;
    let script = Script::new(vec![Act::Send(ok(rejected))]);
    let Outcome::Rejected(rejection) = &upsert(&script.crm(bearer("s3cret/+="))).await.unwrap()[0] else { panic!() };
    assert_eq!(&*rejection.message, "[secret] no");
}

#[tokio::test]
async fn only_a_refusal_repeats_what_the_crm_says_of_the_record() {
    let body = r#"{"error":{"code":"some_code","message":"the name row value is bad"}}"#;
    for status in [403, 404, 408, 413, 415, 429, 500, 502, 503, 504] {
        let error = error(Act::Send(answer(status, "Content-Type: application/json\r\n", body))).await;
        assert!(!error.message.contains("row value"), "{status}: {error}");
        assert!(error.message.contains("some_code"), "{status}: {error}");
    }
    let refused = error(Act::Send(answer(422, "Content-Type: application/json\r\n", body))).await;
    assert_eq!(refused.message, "some_code: the name row value is bad");
}

fn oauth(script: &Script, auth: ClientAuth) -> Auth {
    Auth::OAuth2ClientCredentials {
        token_url: format!("{}/token", script.url()),
        client_id: "client id".to_owned(),
        client_secret: SecretSource::fixed("cl1ent&secret"),
        scope: Some("read write".to_owned()),
        client_auth: auth,
    }
}

fn token(token: &str) -> Act {
    Act::Send(ok(&format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600}}"#)))
}

#[tokio::test]
async fn one_token_is_fetched_for_everybody_and_one_again_when_it_is_refused() {
    let tokens = Script::new(vec![token("one"), token("two"), token("three")]);
    let slow = Script::new(
        (0..8).map(|_| Act::Send(answer(401, "", ""))).chain((0..8).map(|_| Act::Send(ok(CREATED)))).collect(),
    );
    let crm = slow.crm(oauth(&tokens, ClientAuth::Basic));
    // The first eight requests carry token one; each is told 401; one of them fetches token two for all.
    let barrier = futures_util::future::join_all((0..8).map(|_| upsert(&crm))).await;
    assert!(barrier.iter().filter(|outcome| outcome.is_ok()).count() >= 1);
    let fetched = tokens.seen();
    assert!(fetched.len() <= 3, "{} tokens were fetched", fetched.len());
    assert_eq!(fetched[0].line(), "POST /token HTTP/1.1");
    assert_eq!(fetched[0].body, b"grant_type=client_credentials&scope=read%20write");
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode("client%20id:cl1ent%26secret");
    assert_eq!(fetched[0].header("authorization").unwrap(), format!("Basic {basic}"));
}

#[tokio::test]
async fn renewal_is_single_flight() {
    // The CRM takes no token but "two"; eight calls at once start with "one".
    let tokens = Script::new(vec![token("one"), token("two")]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                while let Some(request) = read_request(&mut stream) {
                    let right = request.header("authorization") == Some("Bearer two");
                    let _ = stream.write_all(&if right { ok(CREATED) } else { answer(401, "", "") });
                }
            });
        }
    });
    let crm = RestCrm::new(RestConfig::new(format!("http://{addr}"), oauth(&tokens, ClientAuth::Form))).unwrap();
    for outcome in futures_util::future::join_all((0..8).map(|_| upsert(&crm))).await {
        assert_eq!(outcome.unwrap(), [Outcome::Done(Done::Created)]);
    }
    let fetched = tokens.seen();
    assert_eq!(fetched.len(), 2);
    let form = b"grant_type=client_credentials&scope=read%20write&client_id=client%20id&client_secret=cl1ent%26secret";
    assert_eq!(fetched[0].body, form);
}

#[tokio::test]
async fn a_token_endpoint_that_fails_is_told_from_one_that_refuses() {
    let kind = |act: Act| {
        let tokens = Script::new(vec![act]);
        let script = Script::new(vec![]);
        let crm = script.crm(oauth(&tokens, ClientAuth::Basic));
        async move {
            let error = upsert(&crm).await.unwrap_err();
            assert!(!error.message.contains("cl1ent"), "{error}");
            assert!(script.seen().is_empty());
            error.kind
        }
    };
    let refuse = answer(
        400,
        "Content-Type: application/json\r\n",
        r#"{"error":"invalid_client","error_description":"cl1ent&secret is wrong"}"#,
    );
    assert_eq!(kind(Act::Send(refuse)).await, CrmErrorKind::Unauthorized);
    assert_eq!(kind(Act::Send(answer(503, "", ""))).await, CrmErrorKind::Unavailable);
    assert_eq!(kind(Act::Send(answer(429, "Retry-After: 1\r\n", ""))).await, CrmErrorKind::Throttled);
    assert_eq!(kind(Act::Cut(Vec::new())).await, CrmErrorKind::Unavailable);
    assert_eq!(kind(Act::Send(ok("<html>"))).await, CrmErrorKind::Unavailable);
    assert_eq!(kind(Act::Send(answer(302, "Location: http://127.0.0.1:1/\r\n", ""))).await, CrmErrorKind::Unauthorized);
}

#[tokio::test]
async fn a_rotated_refresh_token_is_used_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let keep = dir.path().join("refresh-token");
    let answer_with =
        |n: u32| Act::Send(ok(&format!(r#"{{"access_token":"a{n}","refresh_token":"r{n}","expires_in":0}}"#)));
    let tokens = Script::new(vec![answer_with(1), answer_with(2), answer_with(3)]);
    let script = Script::new((0..3).map(|_| Act::Send(ok(CREATED))).collect());
    let auth = || Auth::OAuth2RefreshToken {
        token_url: format!("{}/token", tokens.url()),
        client_id: "id".to_owned(),
        client_secret: None,
        refresh_token: SecretSource::fixed("r0"),
        scope: None,
        client_auth: ClientAuth::Basic,
        keep: Some(keep.clone()),
    };
    let crm = script.crm(auth());
    upsert(&crm).await.unwrap();
    upsert(&crm).await.unwrap();
    // After a restart the kept one goes on.
    upsert(&script.crm(auth())).await.unwrap();
    let used: Vec<_> = tokens.seen().iter().map(|seen| String::from_utf8(seen.body.clone()).unwrap()).collect();
    let form = |token: &str| format!("grant_type=refresh_token&refresh_token={token}&client_id=id");
    assert_eq!(used, [form("r0"), form("r1"), form("r2")]);
    assert_eq!(script.seen()[2].header("authorization"), Some("Bearer a3"));
}

#[tokio::test]
async fn listings_that_would_go_in_circles_or_out_of_order_are_refused() {
    let list = |body: &str| {
        let script = Script::new(vec![Act::Send(ok(body))]);
        let crm = script.crm(Auth::None);
        async move { (crm.list("account", Some("m/é&x"), 10).await, script.seen()) }
    };
    let (page, seen) = list(r#"{"records":[{"external_id":"n","version":"1","fields":{"a":1}}],"next":"n"}"#).await;
    assert_eq!(page.unwrap().next.as_deref(), Some("n"));
    assert_eq!(seen[0].line(), "GET /v1/account?limit=10&after=m%2F%C3%A9%26x HTTP/1.1");
    for (body, kind) in [
        (r#"{"records":[],"next":"m/é&x"}"#, CrmErrorKind::Contract),
        (r#"{"records":[],"next":"a"}"#, CrmErrorKind::Contract),
        (r#"{"records":[{"external_id":"z"},{"external_id":"y"}],"next":null}"#, CrmErrorKind::Contract),
        (r#"{"records":[{"external_id":"n"},{"external_id":"n"}],"next":null}"#, CrmErrorKind::Contract),
        (r#"{"records":[{"external_id":"b"}],"next":null}"#, CrmErrorKind::Contract),
        (r#"{"records":[{"external_id":"z"}],"next":"o"}"#, CrmErrorKind::Contract),
        (r#"{"records":[{"id":1}]}"#, CrmErrorKind::Unknown),
        ("[]", CrmErrorKind::Unknown),
        ("<html>", CrmErrorKind::Unknown),
    ] {
        assert_eq!(list(body).await.0.unwrap_err().kind, kind, "{body}");
    }
}

#[tokio::test]
async fn a_profile_file_moves_the_endpoints() {
    let profile = "tidemark = 1\nprofile.name = \"own\"\npaths.upsert = \"/api/{entity}:batch\"\n\
                   headers.idempotency_key = \"X-Request\"\nheaders.extra = { X-Api-Version = \"3\" }\nlimits.batch_records = 1";
    let script = Script::new(vec![Act::Send(ok(CREATED))]);
    let crm = script.crm_with(Auth::None, |config| {
        config.base_url += "/tenant/7/";
        config.profile = Profile::parse(profile).unwrap();
    });
    upsert(&crm).await.unwrap();
    let seen = &script.seen()[0];
    assert_eq!(seen.line(), "POST /tenant/7/api/account:batch HTTP/1.1");
    assert_eq!(seen.header("x-api-version"), Some("3"));
    assert!(seen.header("x-request").is_some() && seen.header("idempotency-key").is_none());
    let record = WriteRecord { external_id: "a", version: 1, document: None };
    assert_eq!(crm.delete("account", &[record, record]).await.unwrap_err().kind, CrmErrorKind::TooLarge);
    assert_eq!((crm.limits().records, script.seen().len()), (Some(1), 1));
}

#[tokio::test]
async fn tls_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, others) = (dir.path().join("ours"), dir.path().join("others"));
    let certificates = |dir: &std::path::Path| {
        std::fs::create_dir(dir).unwrap();
        tidemark_throwaway::Certificates::create(dir, "nobody").unwrap()
    };
    let (certs, other) = (certificates(&ours), certificates(&others));
    let chain = CertificateDer::pem_file_iter(&certs.server_cert).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&certs.server_key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let serve = |host: &str| {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let (port, config) = (listener.local_addr().unwrap().port(), config.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
                if read_request(&mut stream).is_some() {
                    let _ = stream.write_all(&answer(200, "Connection: close\r\n", CREATED));
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        port
    };
    let (port, strange_port) = (serve("127.0.0.1"), serve("127.0.0.2"));
    let write = |host: &str, port: u16, ca: Option<&PathBuf>| {
        let mut config = RestConfig::new(format!("https://{host}:{port}"), bearer("s3cret"));
        config.ca_file = ca.cloned();
        let crm = RestCrm::new(config).unwrap();
        async move { upsert(&crm).await }
    };
    assert_eq!(write("localhost", port, Some(&certs.ca)).await.unwrap(), [Outcome::Done(Done::Created)]);
    let error = write("localhost", port, Some(&other.ca)).await.unwrap_err();
    assert_eq!(error.kind, CrmErrorKind::Unavailable);
    assert!(error.message.contains("certificate"), "{error}");
    // The certificate is for localhost and 127.0.0.1.
    let error = write("127.0.0.2", strange_port, Some(&certs.ca)).await.unwrap_err();
    assert!(error.message.contains("not valid for name"), "{error}");
}
