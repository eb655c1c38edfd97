//! moto, which answers as AWS does; and servers that answer what moto never does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kms::{Client, Config};
use aws_smithy_http_client::Builder;
use strongroom_root_aws_kms::Settings;
use tempfile::TempDir;

pub const REGION: &str = "eu-central-1";

/// A server of moto's. It ends with its standard input, so with this process at the latest.
pub struct Moto {
    _process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: TempDir,
    pub address: String,
}

impl Moto {
    pub fn start() -> Self {
        let python = std::env::var_os("STRONGROOM_TEST_MOTO");
        let python = python.expect("STRONGROOM_TEST_MOTO names no Python with moto: run ./run test");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/aws.py");
        let mut command = Command::new(python);
        command.arg(script).env("PYTHONDONTWRITEBYTECODE", "1");
        // What it logs is of use to nobody: each test says itself what it got.
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let mut moto = Self { _process: process, input, output, folder, address: String::new() };
        moto.address = moto.line();
        assert!(moto.address.starts_with("http://"), "moto does not start: run ./run test");
        moto
    }

    /// One that the tests share. They make keys of their own in it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Moto> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Sends a command and brings the answer.
    pub fn tell(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Settings for a key, with an access key that moto takes as long as it does not look at rights.
    pub fn settings(&self, key: &str) -> Settings {
        settings(&self.address, key, self.write("secret", "a-secret-access-key"))
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path
    }

    /// Makes a key. Gives its ARN.
    pub fn key(&self) -> String {
        let made = self.administer(async |client| client.create_key().send().await.unwrap());
        made.key_metadata.unwrap().arn.unwrap()
    }

    /// Points an alias at a key.
    pub fn alias(&self, alias: &str, arn: &str) {
        self.administer(async |client| {
            // There may be none yet.
            drop(client.delete_alias().alias_name(alias).send().await);
            client.create_alias().alias_name(alias).target_key_id(arn).send().await.unwrap()
        });
    }

    fn administer<T>(&self, work: impl AsyncFnOnce(Client) -> T) -> T {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(&self.address)
            .http_client(Builder::new().build_http())
            .credentials_provider(Credentials::new("admin", "admin", None, None, "test"))
            .build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(Client::from_conf(config)))
    }
}

pub fn settings(address: &str, key: &str, secret: PathBuf) -> Settings {
    Settings {
        key: key.to_owned(),
        region: Some(REGION.to_owned()),
        endpoint: Some(address.to_owned()),
        access_key_id: Some("AKIAIOSFODNN7EXAMPLE".to_owned()),
        secret_access_key_file: Some(secret),
    }
}

/// A server that gives one answer to everything, and counts how often.
pub struct Stranger {
    pub address: String,
    asked: Arc<AtomicUsize>,
}

impl Stranger {
    /// Answers as KMS does when something is wrong.
    pub fn failing(status: u16, code: &str, message: &str) -> Self {
        Self::answering(status, &format!(r#"{{"__type":"{code}","message":"{message}"}}"#))
    }

    pub fn answering(status: u16, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.1\r\nconnection: close\r\n");
        Self::saying(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }

    pub fn saying(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                read_request(&mut stream);
                count.fetch_add(1, Ordering::Relaxed);
                // The caller may have heard enough.
                drop(stream.write_all(&answer));
            }
        });
        Self { address, asked }
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn read_request(stream: &mut TcpStream) {
    let mut lines = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        // It may have given up.
        if lines.read_line(&mut line).unwrap_or_default() == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    drop(lines.read_exact(&mut vec![0; length]));
}

/// A server that takes connections and never says a word. Lives as long as what is returned.
pub fn silence() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (format!("http://{}", listener.local_addr().unwrap()), listener)
}
