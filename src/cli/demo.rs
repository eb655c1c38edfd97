//! `strongroom demo`: the whole story on sample data, told by the commands that a user would type.

pub mod borrowers;

use std::path::{Path, PathBuf};

use clap::Parser;
use console::style;

use super::layout::Layout;
use super::output::{CliError, Exit, say};
use super::shell::quoted;
use super::start::{self, Begun};
use super::{Cli, dev};

use super::anew::make_anew;

/// Borrowers that are made up.
const BORROWERS: usize = 1_000;

/// Tell the whole story on sample data: import, read, look up, be refused, export, audit, verify.
///
/// Makes a vault in ./strongroom-demo, fills it with a thousand made-up borrowers and runs the commands that it shows,
/// over mutual TLS, against it. The folder stays, for a look at its files; the next run makes it anew.
#[derive(Debug, Parser)]
pub struct Args {
    /// Where the demo keeps its vault and files.
    #[arg(long, default_value = "./strongroom-demo", value_name = "FOLDER")]
    folder: PathBuf,
}

/// A vault that answers on a port of its own while the story is told.
struct Story {
    folder: PathBuf,
    address: String,
}

/// Tells the story.
pub async fn run(args: Args) -> Result<Exit, CliError> {
    let folder = args.folder;
    make_anew(&folder, "demo")?;
    let layout = Layout::new(folder.join("vault"));
    tell(
        "A vault is made: a root key under a passphrase, a keystore apart from the data, a ledger whose first entry \
          names the officers. Its schema is the lending example.",
    )?;
    dev::make(&layout).await?;
    let (opened, config) = dev::open(&layout).await?;
    let listener = start::bind("127.0.0.1:0").await?;
    let address = listener.local_addr().map_err(|error| CliError::unfit(error.to_string()))?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        // A dropped sender means that the story is over as well.
        start::serve(Begun::Open(opened), &layout, listener, &config, async { drop(stopped.await) }).await
    });
    let story = Story { folder, address: format!("https://{address}") };
    let told = story.tell().await;
    drop(stop);
    let served = serving.await.map_err(|error| CliError::unfit(format!("the vault stopped: {error}")))?;
    told.and(served)?;
    tell(&format!("Done. Everything is in {}: look at the files, or run it again.", story.folder.display()))?;
    Ok(Exit::Done)
}

impl Story {
    async fn tell(&self) -> Result<(), CliError> {
        let sample = borrowers::sample(BORROWERS);
        let csv = self.folder.join("borrowers.csv");
        let tokens = self.folder.join("borrowers.tokens.csv");
        std::fs::write(&csv, borrowers::csv(&sample)).map_err(|error| CliError::file(&csv, error))?;
        let (csv, tokens) = (text(&csv), text(&tokens));
        let maps = [
            "name=borrower.name",
            "id_card=borrower.id_card",
            "mobile=borrower.mobile",
            "bank_card=borrower.bank_card",
            "email=borrower.email",
            "address=borrower.address",
        ];
        let mapped: Vec<&str> = maps.iter().flat_map(|map| ["--map", map]).collect();

        tell(&format!(
            "{BORROWERS} made-up borrowers with six personal columns each go in; the same file comes out with tokens."
        ))?;
        let import = [&["import", &csv][..], &mapped, &["--subject", "customer", "-o", &tokens]].concat();
        self.run(&import, Exit::Done).await?;
        let rows = std::fs::read_to_string(&tokens).map_err(|error| CliError::file(&tokens, error))?;
        for line in rows.lines().take(3) {
            say(format!("    {line}\n").as_bytes())?;
        }

        let first: Vec<&str> = rows.lines().nth(1).unwrap_or_default().split(',').collect();
        let [_, name, id_card, mobile, ..] = first.as_slice() else {
            return Err(CliError::unfit("the file with tokens has fewer columns than the sample"));
        };
        let servicing = ["--purpose", "loan_servicing"];
        tell("A service that holds tokens reads masked views, unless it asks for another one.")?;
        self.run(&[&["detokenize", name, id_card, mobile][..], &servicing].concat(), Exit::Done).await?;
        tell("The same values as a purpose of lending needs them: the last four, or plain.")?;
        self.run(&[&["detokenize", id_card, mobile, "--view", "last4"][..], &servicing].concat(), Exit::Done).await?;
        self.run(&[&["detokenize", name, id_card, "--view", "plain"][..], &servicing].concat(), Exit::Done).await?;
        tell("A value is compared without being shown.")?;
        let known = &sample[0];
        self.run(&["match", id_card, &known.id_card, "--purpose", "kyc_review"], Exit::Done).await?;
        tell("A look-up by exact value finds its token through a blind index.")?;
        self.run(&["lookup", "borrower.id_card", &known.id_card, "--purpose", "kyc_review"], Exit::Done).await?;

        tell("What is not allowed is refused, and says what would be: marketing rests on consent, and there is none.")?;
        self.run(&["detokenize", mobile, "--purpose", "marketing"], Exit::Failed).await?;
        tell("An auditor may read the ledger, but no value.")?;
        self.run(&[&["detokenize", name, "--as", "auditor"][..], &servicing].concat(), Exit::Failed).await?;
        tell("An ID card number with a wrong check character does not get in; the refusal does not repeat it.")?;
        self.run(&["tokenize", "borrower.id_card", "110105194912310021", "--subject", "c-9999"], Exit::Failed).await?;

        tell("The way back: the file with plain values, byte by byte as it was.")?;
        let back = text(&self.folder.join("borrowers.back.csv"));
        let export =
            [&["export", &tokens][..], &mapped, &["--subject", "customer", "--purpose", "loan_servicing", "-o", &back]]
                .concat();
        self.run(&export, Exit::Done).await?;
        if std::fs::read(&csv).ok() != std::fs::read(&back).ok() {
            return Err(CliError::unfit("what came back is not what went in"));
        }
        tell("The two files are the same.")?;

        let ledger = text(&self.folder.join("ledger.jsonl"));
        tell(
            "Every one of these requests is in the ledger, the refused ones too. The auditor takes a copy with its signed head ...",
        )?;
        self.run(&["audit", "export", "-o", &ledger], Exit::Done).await?;
        tell("... and proves, without the vault, that nothing in it was changed, dropped or added.")?;
        self.run(&["audit", "verify", &ledger], Exit::Done).await
    }

    /// Shows a command and runs it.
    async fn run(&self, words: &[&str], expected: Exit) -> Result<(), CliError> {
        let shown: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        say(format!("\n  {} {}\n", style("$ strongroom").dim(), style(shown.join(" ")).bold()).as_bytes())?;
        let dir = text(&self.folder.join("vault"));
        let all = [&["strongroom"][..], words, &["--dir", &dir, "--address", &self.address]].concat();
        let cli = Cli::try_parse_from(all).map_err(|error| CliError::Usage(error.to_string()))?;
        let output = cli.global.output;
        let exit = match Box::pin(super::run(cli)).await {
            Ok(exit) => exit,
            Err(error) => {
                output.complain(&error);
                error.exit()
            }
        };
        match exit == expected {
            true => Ok(()),
            false => Err(CliError::unfit("the last command did not end as the story says")),
        }
    }
}

fn tell(sentence: &str) -> Result<(), CliError> {
    say(format!("\n{}\n", style(sentence).cyan()).as_bytes())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
