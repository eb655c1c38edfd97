//! The policies that ship, held against a table that a person wrote: row by row, by the real server, with real
//! certificates. What the table says was read from the policies and the schema, and not asked of the code.

use std::collections::HashMap;

use strongroom_proto::v1;
use strongroom_proto::v1::access_client::AccessClient;
use tonic::transport::Channel;

use crate::harness::{item, tokenize};
use crate::house::House;
use crate::table::{About, Asked, Row, example, reason, rows};
use crate::tenants::operator;

const TABLE: &str = include_str!("decisions.csv");
const LENDING: &str = include_str!("../../deploy/schemas/lending.toml");
const POLICIES: &str = include_str!("../../deploy/policies/default.cedar");
/// The field that is retired before the rows are asked.
const RETIRED: &str = "company.legal_representative";
/// What is frozen by who may: no other row needs it.
const FROZEN: &str = "company.contact_mobile";

/// A token of its own for each row that asks for one, as the service that stores everything got it.
async fn tokens(house: &House, rows: &[Row]) -> Vec<String> {
    let stored = |row: &&Row| matches!(row.action, "detokenize" | "match" | "lookup" | "replace" | "delete");
    let items = rows.iter().filter(stored).enumerate();
    let items = items.map(|(number, row)| item(row.field, example(row.field), &format!("s-{number}"))).collect();
    let stored_tokens = house.vault("lending", "core").await.tokenize(tokenize(items)).await.unwrap();
    let mut stored_tokens = stored_tokens.into_inner().tokens.into_iter();
    rows.iter().map(|row| if stored(&row) { stored_tokens.next().unwrap() } else { String::new() }).collect()
}

/// A connection as a row's caller.
async fn connect(house: &House, caller: &str) -> Channel {
    let parts: Vec<&str> = caller.split('/').collect();
    match parts[..] {
        ["system", "operator", _] => house.connect(&operator(house)).await,
        [tenant, "officer", "alice"] => house.connect(house.officer(tenant)).await,
        [tenant, role, name] => house.channel(tenant, role, name).await,
        _ => panic!("{caller}"),
    }
}

/// The lending schema without the field that is retired.
fn without_retired() -> String {
    let from = LENDING.find(&format!("[field.{RETIRED}]")).unwrap();
    let end = from + 1 + LENDING[from + 1..].find("\n[field.").unwrap();
    format!("{}{}", &LENDING[..from], &LENDING[end..])
}

#[tokio::test]
async fn the_server_decides_as_a_person_reads_the_policies() {
    let rows = rows(TABLE);
    assert!(rows.len() >= 200, "{} rows", rows.len());
    // Those of tiers and second factors are in people.csv: under policies that look at them.
    assert!(rows.iter().all(|row| (row.tier, row.factor) == ("I", "absent")));
    let house = House::lending(&["lending", "savings"]).await;
    let tokens = tokens(&house, &rows).await;
    let request = v1::ApplySchemaRequest { source: without_retired(), dry_run: false };
    let mut officer = AccessClient::new(house.connect(house.officer("lending")).await);
    officer.apply_schema(request).await.unwrap();

    let frozen = v1::FreezeRequest { field: FROZEN.to_owned(), reads: true, ..Default::default() };
    let about = About { policies: POLICIES.to_owned(), frozen, certificate: vec![] };
    // One connection for each principal.
    let mut channels: HashMap<&str, Channel> = HashMap::new();
    let mut wrong = Vec::new();
    for (number, (row, token)) in rows.iter().zip(&tokens).enumerate() {
        let channel = match channels.get(row.caller) {
            Some(channel) => channel.clone(),
            None => {
                let channel = connect(&house, row.caller).await;
                channels.insert(row.caller, channel.clone());
                channel
            }
        };
        let outcome = reason(&Asked { row: *row, about: &about, channel, token, number, shown: None }.ask().await);
        if outcome != row.expect {
            wrong.push(format!("{row:?} is {outcome}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    let allowed = rows.iter().filter(|row| row.expect == "allow").count();
    assert!(allowed * 4 > rows.len() && allowed * 4 < rows.len() * 3, "{allowed} of {} are allowed", rows.len());
}
