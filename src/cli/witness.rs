//! `strongroom witness`: sees that the ledger of another vault only grows, and cosigns that it does (C2SP tlog-cosignature).
//!
//! What a witness has seen is worth as much as its memory: the newest checkpoint of each log is on disk before a
//! cosignature of it leaves, and one that does not continue it is refused.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args as ClapArgs, Subcommand};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData, SigningKey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use strongroom_ledger::checkpoint::Checkpoint;
use strongroom_ledger::log_keys::{Trust, TrustedKey};
use strongroom_ledger::{LedgerError, checkpoint, cosignature};
use strongroom_proto::v1::audit_client::AuditClient;
use strongroom_proto::v1::{AddCosignatureRequest, GetCheckpointRequest};
use zeroize::Zeroizing;

use super::audit::learn::{self, does_not_hold};
use super::audit::{continues, known, known_as_json, read, read_keys};
use super::client::{Context, Global, Wire};
use super::files::{read_if_there, replace};
use super::output::{CliError, Exit, Output, facts};
use super::pki::sha256;

/// Who asks the other vault, unless the caller says otherwise.
pub const PRINCIPAL: &str = "auditor";

/// Watch the ledger of another vault, and cosign what continues what was seen.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Make a witness: its key, and the verifier key that others need.
    #[command(after_help = "Example:
  strongroom witness init bank-b.example/w1 --state witness/

Writes witness.key (keep it) and witness.vkey (give it to auditors).")]
    Init {
        /// The witness's name: a domain and a path, without a scheme.
        name: String,

        /// The witness's folder.
        #[arg(long, value_name = "FOLDER")]
        state: PathBuf,
    },
    /// Fetch the newest checkpoint of a ledger, see that it continues the last one, and cosign it.
    #[command(after_help = "Example:
  strongroom witness cosign --state witness/ --log-key bank-a.key -o bank-a.checkpoint \\
      --address https://vault.bank-a.example:7443 --ca bank-a-ca.pem \\
      --cert witness.pem --key witness-tls.key

Needs a certificate that may get checkpoints and proofs, such as an auditor's.
The log's key is the one that its owner gave you (strongroom audit key), not one
that the vault names today. When it is rotated the witness learns the new one from
the ledger while the old one signs along, and keeps it in its folder.

With --to-vault the certificate may also bring cosignatures, as an auditor's may:
then what other witnesses wait for is cosigned first.

The first time a ledger is seen, and only then, say --first: a witness that lost
what it saw does not begin anew by itself.
Exit code 0: cosigned; 1: the ledger is not the one that was seen, or can't be read.")]
    Cosign {
        /// The witness's folder.
        #[arg(long, value_name = "FOLDER")]
        state: PathBuf,

        /// The public keys of the ledger, one a line.
        #[arg(long, value_name = "FILE")]
        log_key: PathBuf,

        /// It is the first time that this witness sees this ledger: there is nothing yet that it must continue.
        #[arg(long)]
        first: bool,

        /// Bring the cosigned checkpoint back to the vault, which has it for whoever asks once enough witnesses have cosigned it.
        #[arg(long)]
        to_vault: bool,

        /// Where the cosigned checkpoint goes [default: standard output].
        #[arg(short, long, value_name = "OUT")]
        out: Option<PathBuf>,

        /// Which ledger: nothing for the caller's tenant's; for operators `system`.
        #[arg(long, default_value = "", hide_default_value = true)]
        log: String,
    },
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    match args.command {
        Command::Init { name, state } => init(&name, &state, global.output),
        Command::Cosign { state, log_key, first, to_vault, out, log } => {
            let context = global.context(PRINCIPAL)?;
            let witness = Witness::open(&state)?;
            let asked = Asked { first, to_vault, log };
            cosign(&witness, &log_key, asked, out.as_deref(), &context).await
        }
    }
}

fn init(name: &str, state: &Path, output: Output) -> Result<Exit, CliError> {
    fs::create_dir_all(state).map_err(|error| CliError::file(state, error))?;
    let key_path = state.join("witness.key");
    if key_path.exists() {
        return Err(CliError::Unfit {
            message: format!("{} is there already", key_path.display()),
            next: "another --state, or this witness as it is".into(),
        });
    }
    let unfit = |error: rcgen::Error| CliError::unfit(format!("no key can be made: {error}"));
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(unfit)?;
    let vkey = cosignature::vkey(name, &public(&key)?);
    if cosignature::witnesses("", &[&vkey]) == Err(strongroom_ledger::LedgerError::Witness { place: 1 }) {
        let why = "a witness's name is a domain and a path: bank-b.example/w1; without spaces and plus signs";
        return Err(CliError::Usage(why.into()));
    }
    replace(&state.join("witness.vkey"), format!("{vkey}\n").as_bytes())?;
    replace(&key_path, Zeroizing::new(key.serialize_pem()).as_bytes())?;
    output.show(
        || json!({ "name": name, "key": key_path.display().to_string(), "vkey": vkey }),
        || {
            facts([
                ("witness", name.to_owned()),
                ("key", key_path.display().to_string()),
                ("vkey", vkey.clone()),
                ("try", "strongroom witness cosign --help".to_owned()),
            ])
        },
    )?;
    Ok(Exit::Done)
}

/// A witness with its folder, which no other process uses meanwhile.
struct Witness {
    state: PathBuf,
    name: String,
    key: KeyPair,
    _lock: File,
}

impl Witness {
    fn open(state: &Path) -> Result<Self, CliError> {
        let (key_path, vkey_path) = (state.join("witness.key"), state.join("witness.vkey"));
        let unfit = |path: &Path| CliError::Unfit {
            message: format!("{} is not what `witness init` wrote", path.display()),
            next: "strongroom witness init NAME --state FOLDER, for a new witness".into(),
        };
        let pem = Zeroizing::new(read(&key_path)?);
        let key = KeyPair::from_pem(&pem).map_err(|_| unfit(&key_path))?;
        let vkey = read(&vkey_path)?;
        let name = vkey.split('+').next().unwrap_or_default().to_owned();
        if vkey.trim() != cosignature::vkey(&name, &public(&key)?) {
            return Err(unfit(&vkey_path));
        }
        let path = state.join("lock");
        let lock = File::create(&path).map_err(|error| CliError::file(&path, error))?;
        lock.try_lock().map_err(|_| CliError::unfit(format!("{}: this witness is at work already", path.display())))?;
        Ok(Self { state: state.to_owned(), name, key, _lock: lock })
    }

    /// Where the newest checkpoint of a log stands.
    fn seen(&self, origin: &str) -> PathBuf {
        self.state.join(format!("{}.checkpoint", data_encoding::HEXLOWER.encode(&sha256(origin.as_bytes()))))
    }

    /// Whether it has cosigned a checkpoint.
    fn has_cosigned(&self, note: &str) -> Result<bool, CliError> {
        let vkey = cosignature::vkey(&self.name, &public(&self.key)?);
        Ok(cosignature::witnesses(note, &[&vkey]).is_ok_and(|count| count > 0))
    }

    /// Whether a checkpoint that is said to wait for witnesses waits for this one: else the newest is for it. One that only
    /// keys have signed which are not known, or not sound any more, helps nobody.
    fn waits_for(
        &self,
        note: &str,
        now: &Checkpoint,
        older: Option<&Checkpoint>,
        keys: &Known,
    ) -> Result<bool, CliError> {
        let behind = older.is_some_and(|older| now.size < older.size);
        Ok(!behind && keys.trust.prove(note, now.size).is_ok() && !self.has_cosigned(note)?)
    }

    /// Where the keys of a log stand that were learnt from it.
    fn learned(&self, origin: &str) -> PathBuf {
        self.seen(origin).with_extension("keys")
    }

    /// Cosigns a checkpoint that was seen to be right.
    fn sign(&self, note: &str) -> Result<String, CliError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let sign = |text: &[u8]| {
            let signature = self.key.sign(text).ok().and_then(|signature| signature.try_into().ok());
            // One that is none is refused by who checks it.
            signature.unwrap_or([0; 64])
        };
        cosignature::cosign(note, &self.name, &public(&self.key)?, now, sign)
            .map_err(|error| CliError::unfit(format!("the checkpoint can't be cosigned: {error}")))
    }
}

/// The raw public key.
fn public(key: &KeyPair) -> Result<[u8; 32], CliError> {
    let unfit = || CliError::unfit("the witness's key is no Ed25519 key");
    if key.algorithm() != &PKCS_ED25519 {
        return Err(unfit());
    }
    key.der_bytes().try_into().map_err(|_| unfit())
}

/// What is to be cosigned, and where it goes.
struct Asked {
    first: bool,
    to_vault: bool,
    log: String,
}

/// A checkpoint that the vault gave, and what it says, whoever signed it.
async fn get(client: &mut AuditClient<Wire>, log: &str, awaited: bool) -> Result<(String, Checkpoint), CliError> {
    let asked = GetCheckpointRequest { log: log.to_owned(), witnessed: false, awaited };
    let note = client.get_checkpoint(asked).await?.into_inner().checkpoint;
    let claimed = checkpoint::claimed(&note).map_err(does_not_hold)?;
    Ok((note, claimed))
}

async fn cosign(
    witness: &Witness,
    log_key: &Path,
    Asked { first, to_vault, log }: Asked,
    out: Option<&Path>,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut client = context.audit().await?;
    // What waits for more witnesses comes first, or many would cosign many and none be cosigned by many.
    let (mut note, mut now) = get(&mut client, &log, to_vault).await?;
    let mut keys = Known::read(log_key, witness.learned(&now.origin), &now.origin)?;
    keys.see_form(&note).map_err(does_not_hold)?;
    let seen = witness.seen(&now.origin);
    let older = last(&seen, &keys)?;
    if to_vault && !witness.waits_for(&note, &now, older.as_ref().map(|(older, _)| older), &keys)? {
        (note, now) = get(&mut client, &log, false).await?;
        keys.see_form(&note).map_err(does_not_hold)?;
    }
    let before = older.as_ref().map(|(older, _)| older);
    let signers = learn::signers(&mut client, &log, (&note, &now), before, &mut keys.trust).await?;
    check_first(before, first, &now.origin, &seen)?;
    if let Some((older, _)) = &older {
        let forked = |why: String| CliError::Unfit {
            message: format!("refused: the ledger {} is not the one that was seen: {why}", now.origin),
            next: format!("keep {} and what the vault answers now; nothing was cosigned", seen.display()),
        };
        continues(&mut client, log.clone(), older, &now, forked).await?;
    }
    let strange = checkpoint::signatures(&note, &now.origin) > signers.len();
    let gone = older.as_ref().is_some_and(|(_, before)| before.iter().any(|key| !signers.contains(key)));
    if (strange || gone) && learn::learn_new(&mut client, &log, &now, &mut keys.trust).await {
        // One that signed may be called compromised.
        keys.trust.prove(&note, now.size).map_err(does_not_hold)?;
    }
    keys.write()?;
    let learned: Vec<TrustedKey> = keys.trust.trusted().into_iter().filter(|key| key.leaf.is_some()).collect();
    let older = older.map(|(older, _)| older);
    replace(&seen, note.as_bytes())?;
    let cosigned = witness.sign(&note)?;
    let brought = match to_vault {
        false => None,
        true => {
            let asked = AddCosignatureRequest { checkpoint: cosigned.clone(), log };
            let added = client.add_cosignature(asked).await?.into_inner();
            Some(format!("{} of {} witnesses", added.witnesses, added.needed))
        }
    };
    let since = older.map(|older| older.size);
    let continued = || match since {
        Some(size) => format!("from {size} leaves"),
        None => "nothing: it is the first that this witness saw of it".to_owned(),
    };
    let since = since.map(|size| size.to_string());
    let Some(out) = out else {
        if let Some(brought) = &brought {
            eprintln!("brought   to the vault: {brought}");
        }
        // Standard output is the checkpoint, as it goes on to others.
        eprintln!("continued {}", continued());
        let json = || json!({ "checkpoint": cosigned, "continued_from": since });
        return context.output.show(json, || cosigned.clone()).map(|()| Exit::Done);
    };
    replace(out, cosigned.as_bytes())?;
    let written = out.display().to_string();
    context.output.show(
        || {
            json!({
                "origin": now.origin,
                "leaves": now.size.to_string(),
                "continued_from": since,
                "learned_keys": learned.iter().map(known_as_json).collect::<Vec<_>>(),
                "out": written,
                "cosigned_by": brought,
            })
        },
        || {
            let mut pairs = vec![
                ("cosigned", now.origin.clone()),
                ("leaves", now.size.to_string()),
                ("continued", continued()),
                ("written", written.clone()),
            ];
            pairs.extend(brought.iter().map(|brought| ("cosigned by", brought.clone())));
            pairs.extend(learned.iter().map(|key| ("learnt key", known(key))));
            facts(pairs)
        },
    )?;
    Ok(Exit::Done)
}

/// A ledger that was never seen is begun with only by who says so, and who says so does not always.
fn check_first(older: Option<&Checkpoint>, first: bool, origin: &str, seen: &Path) -> Result<(), CliError> {
    match (older, first) {
        (None, false) => Err(CliError::Unfit {
            message: format!("this witness has seen nothing of the ledger {origin}: {} is not there", seen.display()),
            next: "bring its folder back if it saw some; if this is the first time, the same with --first".into(),
        }),
        (Some(older), true) => Err(CliError::Unfit {
            message: format!("this witness has seen {} leaves of the ledger {origin} already", older.size),
            next: "the same without --first".into(),
        }),
        _ => Ok(()),
    }
}

/// The keys of a log: those that its owner gave, and those that the log has named since.
struct Known {
    given: Vec<String>,
    /// Where what was learnt stands.
    path: PathBuf,
    learned: Learned,
    trust: Trust,
}

/// What a witness has learnt of a log's keys.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Learned {
    /// Keys that leaves name.
    keys: BTreeSet<String>,
    /// Keys that leaves call compromised, whoever gave them.
    compromised: BTreeSet<String>,
}

impl Known {
    fn read(log_key: &Path, path: PathBuf, origin: &str) -> Result<Self, CliError> {
        let learned = match read_if_there(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(|_| CliError::Unfit {
                message: format!("{} is not what this witness wrote", path.display()),
                next: "bring the file back as it was; without it the keys that the owner gave must do".into(),
            })?,
            None => Learned::default(),
        };
        let given = read_keys(log_key)?;
        let sound = given.iter().chain(&learned.keys).filter(|key| !learned.compromised.contains(*key));
        let trust = Trust::new(origin, sound.map(String::as_str));
        Ok(Self { given, path, learned, trust })
    }

    /// Sees that the keys that were given can be read, and that a note which one of them signed is whole.
    fn see_form(&self, note: &str) -> Result<(), LedgerError> {
        let given: Vec<&str> = self.given.iter().map(String::as_str).collect();
        match checkpoint::verify(note, &given) {
            Err(LedgerError::Unsigned) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All keys, those too that were compromised later than what they are to verify.
    fn all(&self) -> Vec<&str> {
        let all = self.given.iter().chain(&self.learned.keys).chain(&self.learned.compromised);
        all.map(String::as_str).collect()
    }

    /// Keeps what is new.
    fn write(&mut self) -> Result<(), CliError> {
        let (mut keys, mut compromised) = (self.learned.keys.clone(), self.learned.compromised.clone());
        for key in self.trust.trusted() {
            if key.compromised.is_some() {
                compromised.insert(key.key);
            } else if key.leaf.is_some() {
                keys.insert(key.key);
            }
        }
        let learned = Learned { keys, compromised };
        if learned != self.learned {
            let text = serde_json::to_vec(&learned).map_err(|error| CliError::unfit(error.to_string()))?;
            replace(&self.path, &text)?;
            self.learned = learned;
        }
        Ok(())
    }
}

/// The newest checkpoint that was seen of a log, and which keys signed it; none if it was never seen.
fn last(seen: &Path, known: &Known) -> Result<Option<(Checkpoint, Vec<String>)>, CliError> {
    let Some(note) = read_if_there(seen)? else { return Ok(None) };
    let older = checkpoint::verify_by(&note, &known.all()).map_err(|error| CliError::Unfit {
        message: format!("{} is not what this witness wrote, or the log's key is another: {error}", seen.display()),
        next: "bring the file back as it was: without it the witness would have to begin anew".into(),
    })?;
    Ok(Some(older))
}
