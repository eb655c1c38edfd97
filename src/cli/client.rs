//! Where the vault is, who asks, and the connection: what every client command shares.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use strongroom_proto::v1::access_client::AccessClient;
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::keys_client::KeysClient;
use strongroom_proto::v1::subjects_client::SubjectsClient;
use strongroom_proto::v1::system_client::SystemClient;
use strongroom_proto::v1::vault_client::VaultClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Request, Status};
use zeroize::Zeroizing;

use super::input::Input;
use super::output::{CliError, Output};
use super::step_up;

/// A call carries up to 16 MiB of values; this leaves room for what is around them.
const MESSAGE_LIMIT: usize = 32 << 20;

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection and output")]
pub struct Global {
    /// Print tables for people, or one JSON document for programs.
    #[arg(long, global = true, value_enum, default_value_t, env = "STRONGROOM_OUTPUT", value_name = "FORM")]
    pub output: Output,

    /// The folder of a vault made by `strongroom dev` or `init`; certificates are found in its `pki/`.
    #[arg(long, global = true, default_value = "./.strongroom", env = "STRONGROOM_DIR")]
    pub dir: PathBuf,

    /// Ask as this principal: its certificate is DIR/pki/NAME.pem, its key DIR/pki/NAME.key.
    ///
    /// Without it each command takes the principal that is meant for it: `app` for values and files, `auditor` for audit
    /// and witness, `rotator` for keys, `operator` for status, seal, unseal, tenant, keys backup, keys copies and
    /// freeze --all-tenants, `officer-2` for approvals, approve and reject (who asks does not approve), and `officer-1` for
    /// schema, policy, freeze, unfreeze, freezes, principal, officer, own-key and second-factor.
    #[arg(long = "as", global = true, value_name = "NAME", env = "STRONGROOM_AS")]
    pub principal: Option<String>,

    /// Where the vault answers.
    #[arg(
        long,
        global = true,
        default_value = "https://127.0.0.1:7443",
        env = "STRONGROOM_ADDRESS",
        value_name = "URL"
    )]
    pub address: String,

    /// The name that the vault's certificate must carry [default: the host of --address].
    #[arg(long, global = true, env = "STRONGROOM_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,

    /// The certificate authority that the vault's certificate must come from [default: DIR/pki/ca.pem].
    #[arg(long, global = true, env = "STRONGROOM_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// The certificate to show [default: DIR/pki/NAME.pem] [env: STRONGROOM_CERT].
    #[arg(long, global = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// The certificate's private key [default: DIR/pki/NAME.key] [env: STRONGROOM_KEY].
    // The variables are read, and the two held against each other, only by what connects: with them in its environment
    // whatever works on files alone goes on. No command has a --key of its own: clap takes the two for one argument.
    #[arg(long, global = true, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// A code of your authenticator app, for what needs a second factor: used only if the vault asks for one.
    ///
    /// Without it a code is asked for at the terminal.
    #[arg(long, global = true, value_name = "CODE", env = "STRONGROOM_SECOND_FACTOR", hide_env_values = true)]
    pub second_factor: Option<String>,

    /// On whose behalf a service asks for values: a file with the token of the person, or '-' for standard input.
    ///
    /// An issuer that the vault's configuration names has signed it.
    #[arg(long, global = true, value_name = "FILE", env = "STRONGROOM_ACTOR_TOKEN")]
    pub actor_token: Option<PathBuf>,

    /// What a code was turned into already.
    #[arg(skip)]
    pub assertion: Option<String>,

    /// How the command reached the vault, for who asks again on its behalf.
    #[arg(skip)]
    pub used: Arc<Mutex<Option<Connect>>>,

    /// What the command was given on standard input.
    #[arg(skip)]
    pub input: Input,
}

impl Global {
    /// The context of a command that asks as `principal` unless the caller named another.
    pub fn context(&self, principal: &str) -> Result<Context, CliError> {
        let variable = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let cert = self.cert.clone().or_else(|| variable("STRONGROOM_CERT"));
        let key = self.key.clone().or_else(|| variable("STRONGROOM_KEY"));
        match (&cert, &key) {
            (Some(_), None) => return Err(CliError::Usage("--cert needs its private key: add --key FILE".into())),
            (None, Some(_)) => return Err(CliError::Usage("--key needs its certificate: add --cert FILE".into())),
            _ => {}
        }
        let name = self.principal.as_deref().unwrap_or(principal);
        let pki = self.dir.join("pki");
        let connect = Connect {
            endpoint: self.address.clone(),
            ca: self.ca.clone().unwrap_or_else(|| pki.join("ca.pem")),
            cert: cert.unwrap_or_else(|| pki.join(format!("{name}.pem"))),
            key: key.unwrap_or_else(|| pki.join(format!("{name}.key"))),
            domain: self.server_name.clone().unwrap_or_else(|| server_name(&self.address)),
        };
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(connect.clone());
        let shown = match &self.assertion {
            Some(assertion) => Shown::of(assertion),
            None => step_up::kept(&connect),
        };
        let (stepped_up, input, actor_token) = (self.assertion.is_some(), self.input.clone(), self.actor_token.clone());
        Ok(Context { output: self.output, connect, shown, stepped_up, input, actor_token })
    }
}

/// The name that the certificate of the vault at an address carries: its host. One on this machine is `localhost`, by
/// whatever number.
fn server_name(address: &str) -> String {
    let uri: Option<Uri> = address.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    match host.trim_start_matches('[').trim_end_matches(']') {
        // What is no address is refused when it comes to connecting.
        "" | "127.0.0.1" | "::1" => "localhost".to_owned(),
        host => host.to_owned(),
    }
}

/// What a command runs in.
#[derive(Clone, Debug)]
pub struct Context {
    /// How to print.
    pub output: Output,
    /// How to reach the vault.
    pub connect: Connect,
    /// What it shows as a second factor.
    pub shown: Shown,
    /// Whether a code was turned into that for just this run: no other would do better.
    pub stepped_up: bool,
    /// What stands on standard input.
    pub input: Input,
    /// Where the token is of the person on whose behalf it asks for values.
    pub actor_token: Option<PathBuf>,
}

/// Shows an assertion of a second factor with each request, and the token of an actor, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    assertion: Option<MetadataValue<Ascii>>,
    actor: Option<MetadataValue<Ascii>>,
}

impl Shown {
    /// This assertion; nothing if it can't be one.
    pub fn of(assertion: &str) -> Self {
        Self { assertion: secret(assertion), actor: None }
    }

    /// The token in a file besides.
    fn on_behalf(self, file: &Path) -> Result<Self, CliError> {
        let unread = |error| CliError::file(file, error);
        let text = Zeroizing::new(match file.to_str() {
            Some("-") => io::read_to_string(io::stdin()).map_err(unread)?,
            _ => std::fs::read_to_string(file).map_err(unread)?,
        });
        let unfit = || {
            CliError::unfit(format!("{} holds no token", file.display()))
                .advise("the token alone, in the compact form: three parts with dots between them")
        };
        let token = Some(text.trim()).filter(|text| !text.is_empty()).and_then(secret).ok_or_else(unfit)?;
        Ok(Self { actor: Some(token), ..self })
    }
}

/// A text as metadata that nobody prints; none if it can't be that.
fn secret(text: &str) -> Option<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = text.parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Interceptor for Shown {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(assertion) = &self.assertion {
            request.metadata_mut().insert("strongroom-second-factor", assertion.clone());
        }
        if let Some(actor) = &self.actor {
            request.metadata_mut().insert("strongroom-actor", actor.clone());
        }
        Ok(request)
    }
}

/// The connection that clients use.
pub type Wire = InterceptedService<Channel, Shown>;

/// How to reach the vault.
#[derive(Clone, Debug)]
pub struct Connect {
    /// `https://HOST:PORT`.
    pub endpoint: String,
    /// The certificate authority of the vault's certificate.
    pub ca: PathBuf,
    /// The caller's certificate.
    pub cert: PathBuf,
    /// The caller's private key.
    pub key: PathBuf,
    /// The name in the vault's certificate.
    pub domain: String,
}

macro_rules! client {
    ($(#[$doc:meta])* $name:ident, $client:ident) => {
        client!($(#[$doc])* $name, $client, |context: &Context| Ok::<_, CliError>(context.shown.clone()));
    };
    ($(#[$doc:meta])* $name:ident, $client:ident, $shown:expr) => {
        $(#[$doc])*
        pub async fn $name(&self) -> Result<$client<Wire>, CliError> {
            let shown: Shown = $shown(self)?;
            let wire = InterceptedService::new(self.connect.channel().await?, shown);
            Ok($client::new(wire).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
        }
    };
}

impl Context {
    client!(
        /// Connects, for values, on somebody's behalf if that is told.
        vault,
        VaultClient,
        Context::on_behalf
    );
    client!(
        /// Connects, for data subjects.
        subjects, SubjectsClient
    );
    client!(
        /// Connects, for schema and policy.
        access, AccessClient
    );
    client!(
        /// Connects, for keys.
        keys, KeysClient
    );
    client!(
        /// Connects, for the ledger.
        audit, AuditClient
    );
    client!(
        /// Connects, for the state of the vault.
        system, SystemClient
    );
}

impl Context {
    /// One in which nothing is shown, and nothing was given.
    pub fn bare(output: Output, connect: Connect) -> Self {
        let (shown, input) = (Shown::default(), Input::default());
        Self { output, connect, shown, stepped_up: false, input, actor_token: None }
    }

    /// What is shown where a service may call for somebody.
    fn on_behalf(&self) -> Result<Shown, CliError> {
        match &self.actor_token {
            None => Ok(self.shown.clone()),
            Some(file) => self.shown.clone().on_behalf(file),
        }
    }
}

impl Connect {
    /// Opens a connection over mutual TLS.
    pub async fn channel(&self) -> Result<Channel, CliError> {
        let tls = ClientTlsConfig::new()
            .domain_name(&self.domain)
            .ca_certificate(Certificate::from_pem(&*read(&self.ca)?))
            .identity(Identity::from_pem(&*read(&self.cert)?, &*read(&self.key)?));
        let endpoint = Endpoint::from_shared(self.endpoint.clone())
            .map_err(|_| CliError::Usage(format!("--address {}: write https://HOST:PORT", self.endpoint)))?;
        if endpoint.uri().scheme_str() != Some("https") {
            return Err(CliError::Usage(format!("--address {}: only https:// is spoken", self.endpoint)));
        }
        endpoint
            .tls_config(tls)
            .map_err(|error| CliError::Unfit {
                message: format!("the certificates can't be used: {}", chain(&error)),
                next: "--ca, --cert and --key with PEM files".into(),
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            // The default windows of 64 KiB would make a large answer wait for a round trip after each of them.
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .connect()
            .await
            .map_err(|error| self.not_reached(&error))
    }

    fn not_reached(&self, error: &(dyn Error + 'static)) -> CliError {
        let (message, next) = if io_kind(error) == Some(io::ErrorKind::ConnectionRefused) {
            (format!("no vault answers at {}", self.endpoint), "start one with: strongroom dev".to_owned())
        } else {
            let message = format!("no connection to {}: {}", self.endpoint, chain(error));
            let next = format!(
                "--address, --server-name, and a --ca that the vault's certificate comes from (now {})",
                self.ca.display()
            );
            (message, next)
        };
        CliError::NotReached { message, next }
    }
}

/// Reads a PEM file; a private key among them is wiped after use.
fn read(path: &PathBuf) -> Result<Zeroizing<Vec<u8>>, CliError> {
    std::fs::read(path).map(Zeroizing::new).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CliError::Unfit {
            message: format!("there is no {}", path.display()),
            next: "run this where `strongroom dev` made its vault, or name the vault's folder with --dir, a principal with --as".into(),
        },
        _ => CliError::file(path, error),
    })
}

/// The kind of the I/O error that an error comes from.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

/// An error and what it comes from, without repetitions.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if text != "transport error" && parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        global: Global,
    }

    #[test]
    fn a_command_finds_the_principal_that_is_meant_for_it() {
        let line = Line::parse_from(["strongroom", "--dir", "/v"]);
        let connect = line.global.context("auditor").unwrap().connect;
        assert_eq!(connect.cert, PathBuf::from("/v/pki/auditor.pem"));
        assert_eq!(connect.key, PathBuf::from("/v/pki/auditor.key"));
        assert_eq!(connect.ca, PathBuf::from("/v/pki/ca.pem"));
    }

    #[test]
    fn a_named_principal_wins() {
        let line = Line::parse_from(["strongroom", "--dir", "/v", "--as", "officer-2"]);
        assert_eq!(line.global.context("app").unwrap().connect.cert, PathBuf::from("/v/pki/officer-2.pem"));
    }

    #[test]
    fn a_certificate_without_its_key_is_bad_usage() {
        for option in ["--cert", "--key"] {
            let line = Line::parse_from(["strongroom", option, "x.pem"]);
            assert!(matches!(line.global.context("app"), Err(CliError::Usage(_))), "{option}");
        }
    }

    #[test]
    fn the_vault_is_expected_to_carry_the_name_by_which_it_is_called() {
        for (address, name) in [
            ("https://vault.bank.example:7443", "vault.bank.example"),
            ("https://10.0.0.7:7443", "10.0.0.7"),
            ("https://[fd00::7]:7443", "fd00::7"),
            ("https://127.0.0.1:7443", "localhost"),
            ("https://[::1]:7443", "localhost"),
            ("https://localhost", "localhost"),
            ("no address", "localhost"),
        ] {
            assert_eq!(server_name(address), name, "{address}");
        }
        let line = Line::parse_from(["strongroom", "--address", "https://vault:1", "--server-name", "other"]);
        assert_eq!(line.global.context("app").unwrap().connect.domain, "other");
    }

    #[test]
    fn a_refused_connection_names_the_command_that_starts_a_vault() {
        let context = Line::parse_from(["strongroom"]).global.context("app").unwrap();
        let error = context.connect.not_reached(&io::Error::from(io::ErrorKind::ConnectionRefused));
        assert!(matches!(error, CliError::NotReached { next, .. } if next.contains("strongroom dev")));
    }
}
