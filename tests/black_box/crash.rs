//! Crashes: the server is killed under load, again and again; what it acknowledged stays.
//!
//! Each client remembers what it was told. What was under way when the server died may have happened or not, but which
//! of the two it was must not change any more once a client has seen it.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use strongroom_proto::v1;
use strongroom_proto::v1::vault_client::VaultClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::deterministic::uscc;
use crate::harness::{TestVault, Told, detokenize, item, tokenize, value, vault_client};

const CLIENTS: u64 = 10;
const KILLS: usize = 22;

/// A small generator (SplitMix64), so that a failure can be run again.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }
}

/// One value as its client knows it.
struct Known {
    token: String,
    deterministic: bool,
    /// Who must be named to delete it, since others might hold it too.
    holder: String,
    /// What was acknowledged last, or seen since.
    value: String,
    /// A replacement that was not acknowledged.
    maybe: Option<String>,
    /// A deletion that was not acknowledged.
    maybe_gone: bool,
    /// Replacements that were acknowledged, or seen.
    replaced: u64,
    /// Reads that were acknowledged, and those that may have been decided.
    reads: u64,
    maybe_reads: u64,
}

/// What a client did, over all lives of the server.
struct Journal {
    number: u64,
    draw: Draw,
    made: u64,
    live: Vec<Known>,
    gone: Vec<String>,
    /// A batch under an idempotency key that was not acknowledged: it is sent again until it is.
    pending: Option<(v1::TokenizeRequest, Vec<String>)>,
    retried: u64,
    deleted: u64,
    maybe_deleted: u64,
    reads: u64,
    maybe_reads: u64,
}

/// The server is gone.
struct Lost;

/// Tells a refusal, which no operation here may meet, from the end of the connection.
fn lost(status: Status) -> Lost {
    let info = status.get_details_error_info();
    assert!(info.is_none_or(|info| info.domain != "strongroom"), "{status:?}");
    Lost
}

impl Journal {
    fn new(number: u64) -> Self {
        Self {
            number,
            draw: Draw(number),
            made: 0,
            live: vec![],
            gone: vec![],
            pending: None,
            retried: 0,
            deleted: 0,
            maybe_deleted: 0,
            reads: 0,
            maybe_reads: 0,
        }
    }

    /// Works until the server is gone; tells of each acknowledgement.
    async fn work(&mut self, mut client: VaultClient<Channel>, tell: mpsc::UnboundedSender<()>) {
        loop {
            let done = match self.draw.below(10) {
                _ if self.pending.is_some() => self.retry(&mut client).await,
                _ if self.live.len() < 3 => self.tokenize(&mut client).await,
                0 | 1 => self.tokenize(&mut client).await,
                2..=5 => self.read(&mut client).await,
                6 | 7 => self.replace(&mut client).await,
                8 => self.delete(&mut client).await,
                _ => self.read_in_a_stream(&mut client).await,
            };
            if done.is_err() {
                return;
            }
            // Whoever counted has counted enough.
            let _ = tell.send(());
        }
    }

    fn new_item(&mut self) -> (v1::TokenizeItem, String) {
        self.made += 1;
        let (client, made) = (self.number, self.made);
        let subject = format!("crash-{client}-{}", self.draw.below(4));
        let (field, value, subject) = match self.draw.below(5) {
            0 => ("borrower.name", format!("name {client} {made}"), subject),
            1 => ("borrower.email", format!("c{client}n{made}@mail.example"), subject),
            2 => ("borrower.address", format!("address {client} {made}"), String::new()),
            3 => ("company.uscc", uscc(client * 1_000_000 + made), subject),
            _ => ("company.settlement_account", format!("account-{client}-{made:08}"), subject),
        };
        (item(field, &value, &subject), value)
    }

    /// One value or a batch; half of them under an idempotency key.
    async fn tokenize(&mut self, client: &mut VaultClient<Channel>) -> Result<(), Lost> {
        let size = if self.draw.below(2) == 0 { 1 } else { 2 + self.draw.below(12) };
        let (items, values): (Vec<_>, Vec<_>) = (0..size).map(|_| self.new_item()).unzip();
        if self.draw.below(2) == 0 {
            let idempotency_key = format!("{}-{}", self.number, self.made);
            self.pending = Some((v1::TokenizeRequest { items, idempotency_key }, values));
            return self.retry(client).await;
        }
        let answer = client.tokenize(tokenize(items.clone())).await.map_err(lost)?;
        self.keep(answer.into_inner().tokens, values, items);
        Ok(())
    }

    async fn retry(&mut self, client: &mut VaultClient<Channel>) -> Result<(), Lost> {
        let (request, _) = self.pending.as_ref().unwrap();
        let tokens = match client.tokenize(request.clone()).await {
            Ok(answer) => answer.into_inner().tokens,
            Err(status) => {
                self.retried += 1;
                return Err(lost(status));
            }
        };
        let (request, values) = self.pending.take().unwrap();
        self.keep(tokens, values, request.items);
        Ok(())
    }

    fn keep(&mut self, tokens: Vec<String>, values: Vec<String>, items: Vec<v1::TokenizeItem>) {
        assert_eq!(tokens.len(), values.len());
        for ((token, value), item) in tokens.into_iter().zip(values).zip(items) {
            self.live.push(Known {
                token,
                deterministic: item.field.starts_with("company."),
                holder: if item.field == "company.uscc" { item.subject } else { String::new() },
                value,
                maybe: None,
                maybe_gone: false,
                replaced: 0,
                reads: 0,
                maybe_reads: 0,
            });
        }
    }

    /// A few live values, each once.
    fn some(&mut self) -> Vec<usize> {
        let count = 1 + self.draw.below(self.live.len().min(8));
        let first = self.draw.below(self.live.len());
        (0..count).map(|step| (first + step) % self.live.len()).collect()
    }

    fn request(&self, chosen: &[usize]) -> v1::DetokenizeRequest {
        let tokens: Vec<&str> = chosen.iter().map(|place| self.live[*place].token.as_str()).collect();
        detokenize(&tokens, "collections", "plain")
    }

    async fn read(&mut self, client: &mut VaultClient<Channel>) -> Result<(), Lost> {
        let chosen = self.some();
        match client.detokenize(self.request(&chosen)).await {
            Ok(answer) => {
                self.compare(chosen, answer.into_inner().results);
                Ok(())
            }
            Err(status) => {
                self.may_have_read(&chosen);
                Err(lost(status))
            }
        }
    }

    async fn read_in_a_stream(&mut self, client: &mut VaultClient<Channel>) -> Result<(), Lost> {
        let chosen = self.some();
        let messages = tokio_stream::iter([self.request(&chosen)]);
        let answered = async {
            let mut answers = client.detokenize_stream(messages).await?.into_inner();
            answers.message().await
        };
        match answered.await {
            Ok(Some(v1::DetokenizeStreamResponse {
                result: Some(v1::detokenize_stream_response::Result::Response(response)),
            })) => {
                self.compare(chosen, response.results);
                Ok(())
            }
            Ok(_) => panic!("a message without an answer"),
            Err(status) => {
                self.may_have_read(&chosen);
                Err(lost(status))
            }
        }
    }

    fn may_have_read(&mut self, chosen: &[usize]) {
        self.maybe_reads += chosen.len() as u64;
        for place in chosen {
            self.live[*place].maybe_reads += 1;
        }
    }

    /// Holds what was read against what was acknowledged, and settles what was open.
    fn compare(&mut self, mut chosen: Vec<usize>, results: Vec<v1::DetokenizeResult>) {
        assert_eq!(chosen.len(), results.len());
        let mut answers: HashMap<usize, Result<String, Told>> = chosen
            .iter()
            .copied()
            .zip(results.into_iter().map(|result| value(result).map(|bytes| String::from_utf8(bytes).unwrap())))
            .collect();
        // From behind, since what is gone is taken out.
        chosen.sort_unstable();
        for place in chosen.into_iter().rev() {
            let known = &mut self.live[place];
            match answers.remove(&place).unwrap() {
                Ok(answer) => {
                    if known.maybe.take().is_some_and(|maybe| maybe == answer) {
                        known.value = answer;
                        known.replaced += 1;
                    } else {
                        assert_eq!(answer, known.value, "{}", known.token);
                    }
                    known.maybe_gone = false;
                    known.reads += 1;
                    self.reads += 1;
                }
                Err(told) => {
                    assert_eq!(told.code, Code::NotFound, "{told:?}");
                    assert!(known.maybe_gone, "{} was acknowledged and is gone", known.token);
                    self.gone.push(self.live.swap_remove(place).token);
                }
            }
        }
    }

    async fn replace(&mut self, client: &mut VaultClient<Channel>) -> Result<(), Lost> {
        let place = self.draw.below(self.live.len());
        // What may be gone is read first, and what can't be replaced is read instead.
        let known = &mut self.live[place];
        if known.deterministic || known.maybe.is_some() || known.maybe_gone {
            return self.read(client).await;
        }
        self.made += 1;
        let new = match known.value.contains('@') {
            true => format!("c{}r{}@mail.example", self.number, self.made),
            false => format!("replaced {} {}", self.number, self.made),
        };
        let item = v1::ReplaceItem { token: known.token.clone(), value: new.clone().into(), expire_time: None };
        let request = v1::ReplaceRequest { items: vec![item], idempotency_key: String::new() };
        match client.replace(request).await {
            Ok(answer) => {
                known.replaced += 1;
                known.value = new;
                assert_eq!(u64::from(answer.into_inner().versions[0]), known.replaced + 1);
                Ok(())
            }
            Err(status) => {
                known.maybe = Some(new);
                Err(lost(status))
            }
        }
    }

    async fn delete(&mut self, client: &mut VaultClient<Channel>) -> Result<(), Lost> {
        let place = self.draw.below(self.live.len());
        let known = &mut self.live[place];
        if known.maybe_gone {
            return self.read(client).await;
        }
        let item = v1::DeleteItem { token: known.token.clone(), subject: known.holder.clone() };
        let request = v1::DeleteRequest { items: vec![item], idempotency_key: String::new() };
        match client.delete(request).await {
            Ok(answer) => {
                let problem = answer.into_inner().results.remove(0).problem;
                assert!(problem.is_none(), "{}", problem.unwrap().reason);
                self.deleted += 1;
                self.gone.push(self.live.swap_remove(place).token);
                Ok(())
            }
            Err(status) => {
                known.maybe_gone = true;
                self.maybe_deleted += 1;
                Err(lost(status))
            }
        }
    }
}

/// The reads, writes and deletions of one row, as the ledger has them.
#[derive(Default)]
struct Recorded {
    stored: usize,
    versions: Vec<u64>,
    reads: u64,
}

fn recorded(leaves: &[Value]) -> HashMap<String, Recorded> {
    let mut rows: HashMap<String, Recorded> = HashMap::new();
    for leaf in leaves {
        for item in leaf["items"].as_array().into_iter().flatten().filter(|item| item["outcome"] == "ok") {
            let row = rows.entry(item["row"].as_str().unwrap().to_owned()).or_default();
            match leaf["action"].as_str().unwrap() {
                "tokenize" => row.stored += 1,
                "replace" => row.versions.push(item["version"].as_u64().unwrap()),
                "detokenize" => row.reads += 1,
                other => panic!("{other}"),
            }
        }
    }
    rows
}

/// The rows that the last requests of an action named, request by request.
fn rows_of_the_last(leaves: &[Value], action: &str, count: usize) -> Vec<Vec<String>> {
    let mut requests: Vec<(&Value, Vec<String>)> = Vec::new();
    for leaf in leaves.iter().filter(|leaf| leaf["action"] == action) {
        if requests.last().is_none_or(|(request, _)| **request != leaf["request"]) {
            requests.push((&leaf["request"], vec![]));
        }
        let rows = leaf["items"].as_array().into_iter().flatten().map(|item| item["row"].as_str().unwrap_or_default());
        requests.last_mut().unwrap().1.extend(rows.map(str::to_owned));
    }
    requests.split_off(requests.len() - count).into_iter().map(|(_, rows)| rows).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_kill() {
    let mut vault = TestVault::start();
    let mut journals: Vec<Journal> = (1..=CLIENTS).map(Journal::new).collect();
    let mut draw = Draw(4711);
    let mut early = Vec::new();
    for kill in 0..KILLS {
        if kill == KILLS / 2 {
            early = vault.leaves().await;
        }
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut work = JoinSet::new();
        for mut journal in journals.drain(..) {
            let (client, tell) = (vault.vault().await, tell.clone());
            work.spawn(async move {
                journal.work(client, tell).await;
                journal
            });
        }
        drop(tell);
        // At the first sign of life, or in the middle of it.
        let answers = [1, 20 + draw.below(60), 80 + draw.below(120)][kill % 3];
        for _ in 0..answers {
            // Nobody is left to tell if all of them failed.
            if told.recv().await.is_none() {
                break;
            }
        }
        vault.kill();
        journals = tokio::time::timeout(Duration::from_secs(30), work.join_all()).await.unwrap();
        vault.up();
    }
    assert!(vault.stop().success());
    vault.up();

    let mut client = vault.vault().await;
    journals.sort_by_key(|journal| journal.number);
    for round in 0..2 {
        for journal in &mut journals {
            if journal.pending.is_some() {
                assert!(journal.retry(&mut client).await.is_ok());
            }
            let all: Vec<usize> = (0..journal.live.len()).collect();
            let results = client.detokenize(journal.request(&all)).await.unwrap().into_inner().results;
            let open = journal.gone.len();
            journal.compare(all, results);
            assert!(round == 0 || journal.gone.len() == open, "what was seen once must stay");
        }
    }
    let leaves = vault.leaves().await;
    for token in journals.iter().flat_map(|journal| &journal.gone) {
        let results = client.detokenize(detokenize(&[token], "collections", "")).await.unwrap().into_inner().results;
        let told = value(results.into_iter().next().unwrap()).unwrap_err();
        assert_eq!((told.code, told.reason.as_str()), (Code::NotFound, "NOT_FOUND"), "{token} came back");
    }

    assert_eq!(leaves[..early.len()], early, "the ledger only grows");
    let rows = recorded(&leaves);
    let named = rows_of_the_last(&leaves, "detokenize", journals.len());
    for (journal, named) in journals.iter().zip(named) {
        assert_eq!(journal.live.len(), named.len());
        for (known, row) in journal.live.iter().zip(named) {
            let recorded = &rows[&row];
            assert_eq!(recorded.stored, 1, "row {row}");
            assert_eq!(recorded.versions, (2..=known.replaced + 1).collect::<Vec<_>>(), "row {row}");
            let reads = known.reads..=known.reads + known.maybe_reads;
            assert!(reads.contains(&recorded.reads), "row {row}: {} reads, told of {reads:?}", recorded.reads);
        }
    }
    let sum = |part: fn(&Journal) -> u64| journals.iter().map(part).sum::<u64>();
    let reads = sum(|journal| journal.reads)..=sum(|journal| journal.reads + journal.maybe_reads);
    let all: u64 = rows.values().map(|row| row.reads).sum();
    assert!(reads.contains(&all), "{all} reads in the ledger, and the clients know of {reads:?}");
    let deleted = leaves.iter().filter(|leaf| leaf["action"] == "delete");
    let deleted = deleted.filter(|leaf| leaf["items"][0]["outcome"] == "deleted").count() as u64;
    assert_eq!(deleted, sum(|journal| journal.gone.len() as u64));
    assert!(
        (sum(|journal| journal.deleted)..=sum(|journal| journal.deleted + journal.maybe_deleted)).contains(&deleted)
    );
    // The kills hit what they should: work under way.
    assert!(sum(|journal| journal.retried) > 0 && sum(|journal| journal.maybe_reads) > 0);
    vault.verify_ledger();
    let subjects = (1..=CLIENTS).flat_map(|client| (0..4).map(move |n| format!("crash-{client}-{n}")));
    vault.hides(journals.into_iter().flat_map(|journal| journal.live).map(|known| known.value).chain(subjects));
}

#[test]
fn a_server_that_is_asked_to_end_as_soon_as_it_serves_ends_in_order() {
    let mut vault = TestVault::start();
    for _ in 0..12 {
        let status = vault.stop();
        assert!(status.success(), "{status}");
        vault.up();
    }
}

#[tokio::test]
async fn a_client_that_stands_still_keeps_the_server_for_a_while_and_not_for_ever() {
    let mut vault = TestVault::start();
    let mut client = vault_client(vault.channel_that_stands_still("app").await);
    client.tokenize(tokenize(vec![item("borrower.name", "Ann", "cust-1")])).await.unwrap();
    // It waits on this thread, which is the client's.
    assert!(vault.stop().success());
    assert!(vault.read_log().contains("their connections are broken"), "{}", vault.read_log());
    vault.up();
    vault.verify_ledger();
}
