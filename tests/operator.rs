//! The program as its operator meets it: exit codes, streams, the service manager's protocol, the admin socket. Needs no
//! server: source and CRM are ports at which nobody listens.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

struct Tenant {
    dir: tempfile::TempDir,
    listen: SocketAddr,
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Tenant {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = free_address();
        let text = format!(
            r#"
tidemark = 1
tenant = "acme"
[source]
engine = "postgres"
host = "127.0.0.1"
port = {}
database = "shop"
user = "tidemark"
password = {{ env = "SOURCE_PASSWORD" }}
tls = {{ mode = "disable" }}
[source.postgres]
slot = "tidemark"
publication = "tidemark"
[mapping]
pack = "northwind"
[crm]
profile = "rest"
base_url = "http://{}"
auth = {{ type = "none" }}
[state]
dir = "state"
[observe]
listen = "{listen}"
log = {{ level = "debug", format = "text" }}
"#,
            free_address().port(),
            free_address(),
        );
        std::fs::write(dir.path().join("acme.toml"), text).unwrap();
        Self { dir, listen }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.args(args).arg("--config").arg(self.dir.path().join("acme.toml"));
        command.env("SOURCE_PASSWORD", "hunter2-secret").env_remove("NOTIFY_SOCKET").env_remove("TIDEMARK_LOG");
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn daemon(&self, change: impl FnOnce(&mut Command)) -> Daemon {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = self.command(&["run"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        change(&mut command);
        let daemon = Daemon(command.spawn().unwrap());
        wait_for("the admin socket", || self.run(&["status", "--json"]).status.success());
        daemon
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.listen).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// Killed when dropped, so that a failing test leaves nothing behind.
struct Daemon(Child);

impl Daemon {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap().success());
    }

    fn wait(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_command_without_a_daemon_says_so_and_creates_nothing() {
    let tenant = Tenant::new();
    let status = tenant.run(&["status", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((code(&status), report["state"].as_str(), report["schema"].as_u64()), (1, Some("stopped"), Some(1)));
    for args in [&["pause"][..], &["checkpoint", "show"], &["dead-letters", "list"], &["resync", "--all"]] {
        let output = tenant.run(args);
        assert_eq!(code(&output), 1, "{args:?}");
        assert!(output.stdout.is_empty() && stderr(&output).contains("there is no state"), "{args:?}: {output:?}");
    }
    assert!(!tenant.state().exists());
}

#[test]
fn exit_codes_tell_usage_from_configuration() {
    let tenant = Tenant::new();
    let program = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_tidemark")).args(args).output().unwrap();
    assert_eq!(code(&program(&["no-such-command"])), 2);
    assert_eq!(code(&program(&["run", "--config", "/nonexistent.toml"])), 78);
    assert_eq!(code(&program(&["--version"])), 0);
    assert_eq!(code(&tenant.run(&["check", "--offline"])), 0);
    let file = tenant.dir.path().join("acme.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("password = { env = \"SOURCE_PASSWORD\" }", "password = \"hunter2-secret\""))
        .unwrap();
    let output = tenant.run(&["check", "--offline"]);
    assert_eq!(code(&output), 78);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
    assert!(said.contains("acme.toml:") && !said.contains("hunter2"), "{said}");
}

#[test]
fn check_reports_both_sides_at_once() {
    let output = Tenant::new().run(&["check", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed: Vec<&str> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["severity"] == "error")
        .map(|f| f["id"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["source.reachable", "crm.reachable", "crm.model"], "{found}");
    assert_eq!((code(&output), found["ok"].as_bool()), (1, Some(false)));
}

#[test]
fn a_daemon_that_waits_for_its_source_can_be_asked_and_stopped() {
    let tenant = Tenant::new();
    let mut daemon = tenant.daemon(|_| {});
    let mode = std::fs::metadata(tenant.state().join("admin.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    wait_for("the state", || tenant.get("/status.json").contains("waiting_for_source"));
    assert!(tenant.get("/livez").starts_with("HTTP/1.1 200"), "a source that is away is no reason for a restart");
    let ready = tenant.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("waiting for source"), "{ready}");
    assert!(tenant.get("/metrics").contains("\ntidemark_state{state=\"waiting_for_source\"} 1\n"));
    let shown = String::from_utf8(tenant.run(&["status", "--once"]).stdout).unwrap();
    assert!(shown.starts_with("acme   WAITING FOR SOURCE") && shown.contains("error:"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colour into a pipe: {shown}");

    let second = tenant.run(&["run"]);
    assert_eq!(code(&second), 75, "{second:?}");

    daemon.signal("TERM");
    assert_eq!(daemon.wait(), 0, "{}", tenant.log());
    assert!(!tenant.state().join("admin.sock").exists(), "the socket is gone with its daemon");
    assert!(!tenant.log().contains("hunter2"), "{}", tenant.log());
}

#[test]
fn the_service_manager_hears_readiness_progress_and_the_end() {
    let tenant = Tenant::new();
    let path = tenant.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = |wanted: &str| {
        let begun = Instant::now();
        loop {
            let mut buffer = [0; 4096];
            let length = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no {wanted}: {e}\n{}", tenant.log()));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.contains(wanted) {
                return message;
            }
            assert!(begun.elapsed() < PATIENCE, "no {wanted}\n{}", tenant.log());
        }
    };
    let mut daemon = tenant.daemon(|command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000").env_remove("WATCHDOG_PID");
    });
    heard("READY=1");
    heard("WATCHDOG=1");
    heard("STATUS=waiting for source");
    heard("WATCHDOG=1");
    daemon.signal("TERM");
    assert!(heard("STOPPING=1").contains("EXTEND_TIMEOUT_USEC="));
    assert_eq!(daemon.wait(), 0, "{}", tenant.log());
}
