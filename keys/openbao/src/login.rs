//! Who the vault is to the server, and what it means when the server does not accept it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use ring::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::json;
use strongroom_keys::RootError;

use crate::client::{Answer, Client};
use crate::secret::Secret;
use crate::settings::{AppRole, Settings};
use crate::{KIND, failure};

#[derive(Debug)]
enum Way {
    /// A token that somebody else renews.
    Token { file: PathBuf },
    /// A role, whose token lives for one call.
    Role(AppRole),
}

/// Makes calls with a token.
#[derive(Debug)]
pub(crate) struct Login {
    way: Way,
    /// The digest of the token or secret id that the server accepted last.
    accepted: Mutex<Option<Digest>>,
}

#[derive(Deserialize)]
struct LoggedIn {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
}

impl Login {
    pub(crate) fn new(settings: &Settings) -> Result<Self, RootError> {
        let way = match (&settings.token_file, &settings.approle) {
            (Some(file), None) => Way::Token { file: file.clone() },
            (None, Some(role)) => Way::Role(role.clone()),
            _ => return Err(KIND.settings("give token_file or [root.openbao.approle], one of the two")),
        };
        Ok(Self { way, accepted: Mutex::new(None) })
    }

    /// Makes one call. `secret` is what it sends that no error may repeat.
    pub(crate) fn call(
        &self,
        client: &Client,
        path: &str,
        body: &impl Serialize,
        secret: &str,
    ) -> Result<Answer, RootError> {
        match &self.way {
            Way::Token { file } => {
                let token = Secret::read(file)?;
                let answer = client.post(path, Some(&token), body)?;
                let said = answer.said(&[token.expose(), secret]);
                // The server says the same of a token that it does not know and of one that may not do this.
                if answer.status == 403 && !is_valid(client, &token)? {
                    return Err(self.refused(&token, &said));
                }
                if matches!(answer.status, 200 | 403) {
                    self.accept(&token);
                }
                done(&said, path, answer)
            }
            Way::Role(role) => {
                let token = self.log_in(client, role)?;
                let answer = client.post(path, Some(&token), body);
                // Best effort: it runs out by itself. Without this, tokens would pile up until then.
                drop(client.post("auth/token/revoke-self", Some(&token), &json!({})));
                let answer = answer?;
                let said = answer.said(&[token.expose(), secret]);
                done(&said, path, answer)
            }
        }
    }

    fn log_in(&self, client: &Client, role: &AppRole) -> Result<Secret, RootError> {
        #[derive(Serialize)]
        struct Body<'a> {
            role_id: &'a str,
            secret_id: &'a str,
        }
        let secret_id = Secret::read(&role.secret_id_file)?;
        let body = Body { role_id: &role.role_id, secret_id: secret_id.expose() };
        let answer = client.post(&format!("auth/{}/login", role.mount), None, &body)?;
        let said = answer.said(&[secret_id.expose()]);
        match answer.status {
            200 => {
                let token = Secret::new(answer.body::<LoggedIn>()?.auth.client_token)
                    .ok_or_else(|| KIND.unreachable("it answers a login with what is no token: check address"))?;
                self.accept(&secret_id);
                Ok(token)
            }
            400 | 401 | 403 => Err(self.refused(&secret_id, &said)),
            404 => Err(KIND.settings(format!("{said}: there is no AppRole at auth/{}", role.mount))),
            status => Err(failure::classify(status, &said)),
        }
    }

    fn accept(&self, secret: &Secret) {
        // What it holds is whole at any moment.
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(secret.digest());
    }

    /// What worked before and is refused now was revoked, or ran out, which looks the same from here. The provider has
    /// said no, so the vault must not go on with the keys that it holds.
    fn refused(&self, secret: &Secret, said: &str) -> RootError {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.as_ref().map(Digest::as_ref) == Some(secret.digest().as_ref()) {
            return KIND.denied(format!(
                "{said}: what it accepted before was revoked or has run out; put a new one into the file"
            ));
        }
        KIND.credential(format!("{said}: put a token or secret id that it knows into the file"))
    }
}

/// Whether the server knows the token at all.
fn is_valid(client: &Client, token: &Secret) -> Result<bool, RootError> {
    let answer = client.get("auth/token/lookup-self", token)?;
    match answer.status {
        200 => Ok(true),
        // Also of a valid token whose policies leave out `default`.
        403 => Ok(false),
        status => Err(failure::classify(status, &answer.said(&[token.expose()]))),
    }
}

fn done(said: &str, path: &str, answer: Answer) -> Result<Answer, RootError> {
    match answer.status {
        200 => Ok(answer),
        403 => Err(KIND.denied(format!("{said}: the token's policies need \"update\" on {path}, or the key is gone"))),
        status @ (401 | 407) => Err(KIND.credential(format!("something before it answers {status}: check address"))),
        status => Err(failure::classify(status, said)),
    }
}
