//! An OpenBao server of the test's own, in development mode; and servers that are none.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use strongroom_root_openbao::Settings;
use tempfile::TempDir;
use ureq::Agent;
use ureq::http::Request;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

pub const KEY: &str = "strongroom";
const POLICY: &str = r#"
    path "transit/encrypt/strongroom" { capabilities = ["update"] }
    path "transit/decrypt/strongroom" { capabilities = ["update"] }
"#;

pub struct Server {
    process: Child,
    folder: TempDir,
    address: String,
    root: String,
    agent: Agent,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    /// A server with a transit key and a policy for it.
    pub fn start() -> Self {
        Self::launch(false)
    }

    /// The same with a certificate.
    pub fn start_with_tls() -> Self {
        Self::launch(true)
    }

    fn launch(tls: bool) -> Self {
        // The port may be taken between looking for one and listening to it.
        let server = (0..10).find_map(|_| Self::try_launch(tls)).expect("no bao starts: see what it says above");
        server.api("POST", "sys/mounts/transit", &json!({"type": "transit"}));
        server.api("POST", &format!("transit/keys/{KEY}"), &json!({"type": "aes256-gcm96"}));
        server.set_policy(POLICY);
        server
    }

    fn try_launch(tls: bool) -> Option<Self> {
        let bao = std::env::var_os("STRONGROOM_TEST_BAO");
        let bao = bao.expect("STRONGROOM_TEST_BAO names no bao: run ./run test");
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = format!("root-{port}-{}", std::process::id());
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(bao);
        // Variables of its own would change what it does.
        command.env_clear().env("HOME", folder.path()).current_dir(folder.path());
        command.args(["server", "-dev", "-dev-no-store-token"]);
        command.arg(format!("-dev-root-token-id={root}")).arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        if tls {
            command.arg("-dev-tls").arg(format!("-dev-tls-cert-dir={}", folder.path().display()));
        }
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        // The last thing that it prints once it serves.
        while !line.starts_with("Root Token:") {
            line.clear();
            if lines.read_line(&mut line).unwrap() == 0 {
                process.wait().unwrap();
                eprintln!("{}", std::fs::read_to_string(folder.path().join("log")).unwrap());
                return None;
            }
        }
        // What else it prints must not fill the pipe.
        std::thread::spawn(move || drop(lines.read_to_end(&mut Vec::new())));
        let scheme = if tls { "https" } else { "http" };
        let agent = agent(tls.then(|| authority(folder.path())).as_deref());
        Some(Self { process, address: format!("{scheme}://127.0.0.1:{port}"), folder, root, agent })
    }

    pub fn stop(&mut self) {
        // It may have ended by itself, which is fine.
        drop(self.process.kill());
        drop(self.process.wait());
    }

    /// The certificate of the authority that signed its own.
    pub fn authority(&self) -> PathBuf {
        authority(self.folder.path())
    }

    /// Settings with a token of its own that the policy is for.
    pub fn settings(&self) -> Settings {
        let token = self.token();
        Settings { token_file: Some(self.write("token", &token)), ..self.bare_settings() }
    }

    /// The file with the token of the last settings.
    pub fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Deletes the transit key and makes another one of its name. For the tests of the vault.
    #[allow(dead_code)]
    pub fn make_key_anew(&self) {
        let path = format!("transit/keys/{KEY}");
        self.api("POST", &format!("{path}/config"), &json!({"deletion_allowed": true}));
        self.api("DELETE", &path, &Value::Null);
        self.api("POST", &path, &json!({"type": "aes256-gcm96"}));
    }

    pub fn bare_settings(&self) -> Settings {
        Settings {
            address: self.address.clone(),
            ca_file: self.address.starts_with("https").then(|| self.authority()),
            namespace: None,
            mount: "transit".to_owned(),
            key: KEY.to_owned(),
            token_file: None,
            approle: None,
        }
    }

    /// Writes a file that the settings may name.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path
    }

    pub fn token(&self) -> String {
        let made = self.api("POST", "auth/token/create", &json!({"policies": ["vault"], "ttl": "1h"}));
        made["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    pub fn set_policy(&self, policy: &str) {
        self.api("PUT", "sys/policies/acl/vault", &json!({"policy": policy}));
    }

    /// One call of the administrator.
    pub fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        self.api_in("", method, path, body)
    }

    pub fn api_in(&self, namespace: &str, method: &str, path: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.address))
            .header("X-Vault-Token", &self.root)
            .header("X-Vault-Namespace", namespace);
        let response = match body {
            Value::Null => self.agent.run(request.body(()).unwrap()),
            body => self.agent.run(request.body(body.to_string()).unwrap()),
        };
        let mut response = response.unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        assert!(response.status().is_success(), "{method} {path}: {} {text}", response.status());
        serde_json::from_str(&text).unwrap_or_default()
    }
}

fn authority(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.to_string_lossy().ends_with("ca.pem")).unwrap()
}

fn agent(authority: Option<&Path>) -> Agent {
    let mut tls =
        TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    if let Some(file) = authority {
        let certificate = Certificate::from_pem(&std::fs::read(file).unwrap()).unwrap();
        tls = tls.root_certs(RootCerts::new_with_certs(&[certificate]));
    }
    Agent::config_builder()
        .tls_config(tls.build())
        .proxy(None)
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build()
        .new_agent()
}

/// What is no OpenBao: answers each request with what a function makes of it, and closes.
pub fn stranger(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = read_request(&mut stream);
            // The caller may have heard enough.
            drop(stream.write_all(&answer(&request)));
        }
    });
    address
}

/// Head and body of one request.
fn read_request(stream: &mut TcpStream) -> String {
    let mut lines = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let from = request.len();
        lines.read_line(&mut request).unwrap();
        let line = request[from..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    request + &String::from_utf8(body).unwrap()
}

/// A server that takes connections and never says a word. Lives as long as what is returned.
pub fn silence() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (format!("http://{}", listener.local_addr().unwrap()), listener)
}
