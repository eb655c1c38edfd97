//! What policies decide by tier and second factor, and of every action there is: held against a table that a person wrote, row
//! by row, by the real server.

use std::collections::HashMap;

use strongroom_proto::v1;
use tonic_types::StatusExt;

use crate::approvals::with_approval;
use crate::harness::{TestVault, one_token};
use crate::second_factor::{App, POLICIES, showing, step_up, stepped_up};
use crate::table::{About, Asked, example, reason, rows};

const TABLE: &str = include_str!("people.csv");
const NARROW: &str = r#"
@id("narrow-tier")
@why("In tier III nobody sees anything whole.")
forbid (principal, action == Action::"detokenize", resource)
when { context.tier == 3 && context has view && context.view == "plain" };
"#;
/// What rows ask for by a token.
const FIELDS: [&str; 3] = ["borrower.id_card", "borrower.name", "borrower.email"];

/// A person's recovery codes, and what it shows for any request.
struct Person {
    app: App,
    fresh: String,
    used: usize,
}

impl Person {
    async fn enrolled(vault: &TestVault, name: &str) -> Self {
        let (app, fresh) = stepped_up(&mut vault.access_as(name).await).await;
        Self { app, fresh, used: 0 }
    }

    /// An assertion for one request.
    async fn bound(&mut self, vault: &TestVault, name: &str, request: &str) -> String {
        self.used += 1;
        let code = &self.app.recovery[self.used - 1];
        step_up(&mut vault.access_as(name).await, code, request).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiers_and_second_factors_decide_as_a_person_reads_the_policies() {
    let (vault, rows) = (TestVault::start(), rows(TABLE));
    let mut people = HashMap::new();
    for name in ["officer-1", "officer-2", "privacy"] {
        people.insert(name, Person::enrolled(&vault, name).await);
    }
    let officer = vault.access().await;
    let source = format!("{}\n{NARROW}", POLICIES.join("\n"));
    let policy = || v1::ApplyPolicyRequest { source: source.clone(), ..Default::default() };
    let shown = people["officer-1"].fresh.clone();
    with_approval(&vault, async || officer.clone().apply_policy(showing(policy(), &shown)).await).await.unwrap();
    let mut tokens = HashMap::new();
    for field in FIELDS {
        tokens.insert(field, one_token(&vault, field, example(field), "cust-1").await);
    }
    let mut others = HashMap::new();
    for name in ["officer-1", "officer-2", "privacy"] {
        let person = people.get_mut(name).unwrap();
        others.insert(name, person.bound(&vault, name, &"0".repeat(64)).await);
    }
    let certificate = std::fs::read(vault.dir().join("pki/officer-2.pem")).unwrap();
    let (_, certificate) = x509_parser::pem::parse_x509_pem(&certificate).unwrap();
    let about = About {
        policies: POLICIES.join("\n"),
        frozen: v1::FreezeRequest { writes: true, ..Default::default() },
        certificate: certificate.contents,
    };
    let mut tiers: HashMap<&str, &str> = HashMap::new();
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().copied().enumerate() {
        if *tiers.get(row.caller).unwrap_or(&"I") != row.tier {
            let principal = format!("{0}/{0}", row.caller);
            let request = v1::SetTierRequest { principal, tier: row.tier.to_owned() };
            let fresh = &people["officer-2"].fresh;
            vault.access_as("officer-2").await.set_tier(showing(request, fresh)).await.unwrap();
            tiers.insert(row.caller, row.tier);
        }
        let (channel, token) = (vault.channel(row.caller).await, tokens.get(row.field).map_or("", String::as_str));
        let asked = async |shown: Option<&str>| {
            Asked { row, about: &about, channel: channel.clone(), token, number, shown }.ask().await
        };
        let outcome = match row.factor {
            "absent" => asked(None).await,
            "fresh" => asked(Some(&people[row.caller].fresh)).await,
            "other" => asked(Some(&others[row.caller])).await,
            "bound" => {
                let status = asked(None).await.unwrap_err();
                let metadata = status.get_details_error_info().unwrap().metadata;
                let person = people.get_mut(row.caller).unwrap();
                let bound = person.bound(&vault, row.caller, &metadata["request"]).await;
                asked(Some(&bound)).await
            }
            other => panic!("{other}"),
        };
        if reason(&outcome) != row.expect {
            wrong.push(format!("{row:?} is {}", reason(&outcome)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn every_action_has_a_row_in_one_of_the_tables() {
    let other = include_str!("decisions.csv");
    let asked: Vec<&str> =
        [TABLE, other].iter().flat_map(|table| table.lines()).filter_map(|line| line.split(',').nth(1)).collect();
    for action in strongroom_access::Action::ALL {
        assert!(asked.contains(&action.as_str()), "{action}");
    }
}
