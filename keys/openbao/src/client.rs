//! One call over HTTP: bounded in time and size, to one address, through nobody.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strongroom_keys::RootError;
use ureq::http::request::Builder;
use ureq::http::{HeaderValue, Method, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use crate::KIND;
use crate::secret::Secret;
use crate::settings::Settings;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// From the look-up of the name to the last byte.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of an answer at most.
const ANSWER: u64 = 64 * 1024;
/// Characters that are kept of what the server says at most.
const SAID: usize = 200;

/// Speaks to one server.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    address: String,
    namespace: Option<String>,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Result<Self, RootError> {
        let mut tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        if let Some(file) = &settings.ca_file {
            tls = tls.root_certs(RootCerts::new_with_certs(&authorities(file)?));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .https_only(settings.address.starts_with("https:"))
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_global(Some(LIMIT))
            .max_response_header_size(16 * 1024)
            // A call now and then: a connection kept would be a stale one, with secrets in its buffers.
            .max_idle_connections(0)
            .user_agent("strongroom")
            .build();
        Ok(Self {
            agent: config.new_agent(),
            address: settings.address.trim_end_matches('/').to_owned(),
            namespace: settings.namespace.clone(),
        })
    }

    /// Sends a body, with a token if there is one. Any status is an answer.
    ///
    /// # Errors
    /// [`RootError::Unreachable`].
    pub(crate) fn post(&self, path: &str, token: Option<&Secret>, body: &impl Serialize) -> Result<Answer, RootError> {
        // Room for all of it, so that no smaller piece is left behind by growing.
        let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
        serde_json::to_writer(&mut *bytes, body).map_err(|error| KIND.unreachable(error))?;
        let request = self.request(Method::POST, path, token)?.header("Content-Type", "application/json");
        self.answer(request.body(bytes.as_slice()).map_err(ureq::Error::from).and_then(|it| self.agent.run(it)))
    }

    /// Asks with a token. Any status is an answer.
    ///
    /// # Errors
    /// [`RootError::Unreachable`].
    pub(crate) fn get(&self, path: &str, token: &Secret) -> Result<Answer, RootError> {
        let request = self.request(Method::GET, path, Some(token))?;
        self.answer(request.body(()).map_err(ureq::Error::from).and_then(|it| self.agent.run(it)))
    }

    fn request(&self, method: Method, path: &str, token: Option<&Secret>) -> Result<Builder, RootError> {
        let mut request = Builder::new()
            .method(method)
            .uri(format!("{}/v1/{path}", self.address))
            // An agent may ask for it, to refuse what a browser was made to send.
            .header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose())
                .map_err(|_| KIND.credential("the token has characters that no header can carry"))?;
            value.set_sensitive(true);
            request = request.header("X-Vault-Token", value);
        }
        Ok(request)
    }

    fn answer(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Answer, RootError> {
        let mut response = response.map_err(|error| self.unreachable(&error))?;
        let body = response.body_mut().with_config().limit(ANSWER).read_to_vec();
        let body = Zeroizing::new(body.map_err(|error| self.unreachable(&error))?);
        let answer = Answer { status: response.status().as_u16(), body };
        // What stands between answers with the same statuses, and must not be taken for a refusal.
        match answer.status {
            200..=299 => Ok(answer),
            _ if serde_json::from_slice::<Errors>(&answer.body).is_ok() => Ok(answer),
            status => Err(KIND.unreachable(format!(
                "{} answers {status} with what is no answer of OpenBao's: check address, and what stands before it",
                self.address
            ))),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> RootError {
        KIND.unreachable(format!("{}: {error}", self.address))
    }
}

fn authorities(file: &Path) -> Result<Vec<Certificate<'static>>, RootError> {
    let failed =
        |what: &dyn fmt::Display| KIND.settings(format!("ca_file = {file:?}: {what}; give certificates in PEM"));
    let pem = std::fs::read(file).map_err(|error| failed(&error))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| failed(&error))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(failed(&"it holds no certificate"));
    }
    Ok(certificates)
}

/// What the server answered. Wiped on drop, since it may be a key.
pub(crate) struct Answer {
    pub(crate) status: u16,
    body: Zeroizing<Vec<u8>>,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

impl Answer {
    /// The member `data`.
    pub(crate) fn data<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RootError> {
        self.body::<Data<T>>().map(|body| body.data)
    }

    /// The whole body.
    pub(crate) fn body<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RootError> {
        // What does not fit is not told: it may be a key.
        serde_json::from_slice(&self.body).map_err(|_| {
            KIND.unreachable(format!("it answers {} with what is no answer of OpenBao's: check address", self.status))
        })
    }

    /// What it said in its own words: one line, cut short, and without what was sent to it.
    pub(crate) fn said(&self, secrets: &[&str]) -> String {
        let Ok(Errors { errors }) = serde_json::from_slice(&self.body) else { return "nothing".to_owned() };
        let said = errors.join("; ");
        if secrets.iter().any(|secret| !secret.is_empty() && said.contains(secret)) {
            return "something that repeats a secret, and is left out".to_owned();
        }
        let words: Vec<&str> =
            said.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
        match words.join(" ") {
            said if said.is_empty() => "nothing".to_owned(),
            said => said.chars().take(SAID).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str, secrets: &[&str]) -> String {
        Answer { status: 400, body: Zeroizing::new(body.as_bytes().to_vec()) }.said(secrets)
    }

    #[test]
    fn what_it_says_becomes_one_short_line() {
        let body = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n","\u001b[31mred"]}"#;
        assert_eq!(said(body, &[]), "1 error occurred: * permission denied ; [31mred");
        assert_eq!(said(&format!(r#"{{"errors":["{}"]}}"#, "x".repeat(1_000)), &[]).len(), SAID);
        for body in ["", "<html>", r#"{"errors":[]}"#, r#"{"errors":1}"#] {
            assert_eq!(said(body, &[]), "nothing");
        }
    }

    #[test]
    fn what_it_repeats_of_a_secret_is_left_out() {
        let body = r#"{"errors":["bad token s.abc"]}"#;
        assert_eq!(said(body, &["", "s.abc"]), "something that repeats a secret, and is left out");
        assert_eq!(said(body, &["", "s.abd"]), "bad token s.abc");
    }
}
