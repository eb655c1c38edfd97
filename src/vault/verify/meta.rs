//! The vault's own rows: rules in force, principals, counters; and what belongs to nobody.

use std::collections::BTreeSet;
use std::sync::Arc;

use strongroom_access::Directory;
use strongroom_ids::{KeyVersion, KeyringNo, TenantNo};
use strongroom_keys::{IndexName, KeyState};
use strongroom_schema::Schema;
use strongroom_storage::keys::{self as place, Counter};
use strongroom_storage::rows::{
    CounterRow, ErasureRow, ErasureWork, IdempotencyRow, JobKind, JobRow, TenantRow, UsageRow,
};
use strongroom_storage::{Family, Store, StoreError};

use super::Check;
use super::finding::{Fault, Kind, Place};
use super::history::{History, RecordedEnd, RecordedRule};
use crate::open::{LANE, SYSTEM_NO};
use crate::pages::Pages;
use crate::source::{Source, SourceKind};
use crate::values::row_hash;

/// Where the kind of a `Meta` row stands in its key.
const KIND: usize = 4;

impl<S: Store> Check<'_, S> {
    /// Everything of the tenant in `Meta`.
    pub async fn meta(&mut self, history: &History, tenants: &[TenantRow]) -> Result<(), StoreError> {
        let (mut schema, mut policy, mut freezes, mut tiers, mut principals) = (false, false, false, false, false);
        let mut second_factors = BTreeSet::new();
        let mut pages = Pages::of_tenant(Family::Meta, self.number);
        while let Some(page) = pages.next(self.store).await? {
            for (key, row) in &page {
                if **key == *place::schema(self.number) {
                    schema = true;
                    self.rule(Kind::Schema, row, history.schema.as_ref());
                    self.schema = self.source(row, SourceKind::Schema).and_then(|source| {
                        let schema = Schema::from_stored(source.body.as_bytes());
                        schema.ok().map(Arc::new)
                    });
                } else if **key == *place::policy(self.number) {
                    policy = true;
                    self.rule(Kind::Policy, row, history.policy.as_ref());
                } else if **key == *place::freezes(self.number) {
                    freezes = true;
                    self.rule(Kind::Freezes, row, history.freezes.as_ref());
                } else if **key == *place::tiers(self.number) {
                    tiers = true;
                    self.rule(Kind::Tiers, row, history.tiers.as_ref());
                } else if self.number == SYSTEM_NO && **key == *place::principals() {
                    principals = true;
                    self.principals(row, history, tenants);
                } else if let Some(principal) = place::decode_second_factor(key) {
                    self.second_factor(principal, key, row, history);
                    second_factors.insert(principal.to_owned());
                } else if let Some(next) = self.counter(key, row) {
                    self.counters.insert(key.to_vec(), next);
                } else if !self.is_known(key, row, tenants) {
                    self.unknown(key);
                }
            }
        }
        for (kind, recorded, there) in [
            (Kind::Schema, &history.schema, schema),
            (Kind::Freezes, &history.freezes, freezes),
            (Kind::Tiers, &history.tiers, tiers),
        ] {
            if let Some(rule) = recorded.as_ref().filter(|_| !there) {
                let what = format!("leaf {} records version {}, and there is none", rule.leaf, rule.version);
                self.found_by(rule.leaf, kind, Fault::Missing, Place::Only, what);
            }
        }
        for (principal, (hash, leaf)) in &history.second_factors {
            if hash.is_some() && !second_factors.contains(principal) {
                let what = format!("leaf {leaf} records the second factor of {principal}, and there is none");
                let key = place::second_factor(self.number, principal);
                self.found_by(*leaf, Kind::SecondFactor, Fault::Missing, Place::Key(key), what);
            }
        }
        if !schema {
            self.schema = history.schema.is_none().then(|| Arc::new(Schema::empty()));
        }
        if !policy {
            let leaf = history.policy.as_ref().map(|rule| rule.leaf);
            self.found_of(leaf, Kind::Policy, Fault::Missing, Place::Only, "the tenant has no policy");
        }
        if self.number == SYSTEM_NO && !principals {
            let leaf = history.principals.map(|(_, leaf)| leaf);
            self.found_of(leaf, Kind::Principals, Fault::Missing, Place::Only, "the enrolled officers are gone");
        }
        Ok(())
    }

    /// One that is put back as it was before would take used codes and lost apps again.
    fn second_factor(&mut self, principal: &str, key: &[u8], row: &[u8], history: &History) {
        let recorded = history.second_factors.get(principal);
        let (fault, what) = match recorded {
            Some((Some(hash), _)) if *hash == row_hash(row) => return,
            Some((Some(_), leaf)) => {
                (Fault::Changed, format!("the second factor of {principal} is not as leaf {leaf} records it"))
            }
            Some((None, leaf)) => {
                (Fault::Added, format!("leaf {leaf} says that the second factor of {principal} was reset"))
            }
            None => (Fault::Added, "the ledger records no such second factor".to_owned()),
        };
        let leaf = recorded.map(|(_, leaf)| *leaf);
        self.found_of(leaf, Kind::SecondFactor, fault, Place::Key(key.to_vec()), what);
    }

    fn rule(&mut self, kind: Kind, row: &[u8], recorded: Option<&RecordedRule>) {
        let Some(recorded) = recorded else {
            return self.found(kind, Fault::Added, Place::Only, "the ledger records none");
        };
        if row_hash(row) == recorded.hash {
            return;
        }
        let older = Source::claimed_version(row).is_some_and(|version| version < recorded.version);
        let fault = if older { Fault::RolledBack } else { Fault::Changed };
        let what = format!("it is not version {} as leaf {} records it", recorded.version, recorded.leaf);
        self.found_by(recorded.leaf, kind, fault, Place::Only, what);
    }

    /// A row of rules, if this vault wrote it.
    pub(super) fn source(&self, row: &[u8], kind: SourceKind) -> Option<Source> {
        let key = self.keystore.index_key(self.id, IndexName::Fingerprint).ok()?;
        Source::decode(row, kind, &key).ok()
    }

    fn principals(&mut self, row: &[u8], history: &History, tenants: &[TenantRow]) {
        let (recorded, leaf) = history.principals.unwrap_or_default();
        if recorded != row_hash(row) {
            let what =
                format!("the tenants and enrolled officers are not those that leaf {leaf} of the log `system` records");
            return self.found_by(leaf, Kind::Principals, Fault::Changed, Place::Only, what);
        }
        let source = self.source(row, SourceKind::Principals);
        let directory = source.and_then(|source| Directory::from_stored(&source.body).ok());
        let Some(directory) = directory else {
            let what = "the enrolled officers can't be read";
            return self.found(Kind::Principals, Fault::Unreadable, Place::Only, what);
        };
        for (name, number) in directory.tenants.iter().chain(&directory.destroyed) {
            if !tenants.iter().any(|tenant| tenant.number == *number && tenant.name == *name) {
                let what =
                    format!("tenant `{name}` (number {number}) is enrolled, and its row is gone or has another name");
                self.found(Kind::Tenant, Fault::Missing, Place::Only, what);
            }
        }
        for tenant in tenants {
            let mut enrolled = directory.tenants.values().chain(directory.destroyed.values());
            if !enrolled.any(|number| *number == tenant.number) {
                let what = format!("there is a tenant number {} that is not enrolled", tenant.number);
                self.found(Kind::Tenant, Fault::Added, Place::Only, what);
            }
        }
    }

    /// The counter under a key; none if it is no counter's key, or can't be read.
    fn counter(&mut self, key: &[u8], row: &[u8]) -> Option<u64> {
        let seals = || {
            let keyring = u16::from_be_bytes(key.get(KIND + 2..KIND + 4)?.try_into().ok()?);
            let version = u32::from_be_bytes(key.get(KIND + 4..KIND + 8)?.try_into().ok()?);
            Some(Counter::Seals(KeyringNo(keyring), KeyVersion(version)))
        };
        let known = [Some(Counter::RowIds), Some(Counter::SubjectHandles), seals()];
        known.into_iter().flatten().find(|counter| *place::counter(self.number, *counter) == *key)?;
        match CounterRow::decode(row) {
            Ok(row) => Some(row.next),
            Err(error) => {
                self.found(Kind::Counter, Fault::Unreadable, Place::Key(key.to_vec()), error.to_string());
                // Everything lies above it then, which is said once more, and rightly.
                Some(0)
            }
        }
    }

    /// Rows that are decoded elsewhere or have nothing in them.
    fn is_known(&self, key: &[u8], row: &[u8], tenants: &[TenantRow]) -> bool {
        let is_job = |kind| *key == *place::job(self.number, kind) && JobRow::decode(row).is_ok();
        let vaults_own = self.number == SYSTEM_NO
            && (*key == *place::vault()
                || (*key == *place::keystore_copies() && self.source(row, SourceKind::Copies).is_some())
                || (*key == *place::tenant_in_making() && self.source(row, SourceKind::Making).is_some())
                || tenants.iter().any(|tenant| {
                    *key == *place::tenant(tenant.number)
                        || (*key == *place::tenant_end(tenant.number) && self.source(row, SourceKind::End).is_some())
                }));
        vaults_own
            || *key == *place::lane(self.number, LANE)
            || (*key == *place::key_change(self.number) && self.source(row, SourceKind::Keys).is_some())
            // Looked at by themselves.
            || place::decode_older_policy(key).is_ok()
            || *key == *place::policy_history(self.number)
            || (*key == *place::approvals(self.number) && self.source(row, SourceKind::Approvals).is_some())
            || (*key == *place::witnessed(self.number) && self.source(row, SourceKind::Witnessed).is_some())
            || (self.number == SYSTEM_NO && *key == *place::clock() && self.source(row, SourceKind::Clock).is_some())
            || JobKind::ALL.into_iter().any(is_job)
            || (row.is_empty() && place::decode_dek_mark(key).is_ok())
            || (place::decode_erasure_work(key).is_ok() && ErasureWork::decode(row).is_ok())
            || (place::decode_erasure(key).is_some() && ErasureRow::decode(row).is_ok())
            || *key == *place::leftovers(self.number)
            || (place::decode_usage(key).is_ok() && UsageRow::decode(row).is_ok())
    }

    /// No number that was given out may be given out again.
    pub fn counters_suffice(&mut self, history: &History) {
        let incarnation = self.lane.as_ref().map_or(1, |lane| lane.incarnation);
        let [rows, subjects] = history.last_counters(incarnation);
        let mut needs = vec![
            (Counter::RowIds, rows, "row id".to_owned()),
            (Counter::SubjectHandles, subjects, "subject handle".to_owned()),
        ];
        for ((keyring, version), count) in std::mem::take(&mut self.wrapped) {
            let what = format!("sealing under version {version} of the KEK of keyring {keyring}");
            needs.push((Counter::Seals(keyring, version), Some(count), what));
        }
        for (counter, last, what) in needs {
            let key = place::counter(self.number, counter);
            let next = self.counters.get(&key).copied().unwrap_or(0);
            if let Some(last) = last
                && last >= next
            {
                let what = format!("{what} {last} is in use, and the next to be given out is {next}");
                self.found(Kind::Counter, Fault::RolledBack, Place::Key(key), what);
            }
        }
    }

    /// Idempotency keys: they can only be read.
    pub async fn idempotency(&mut self) -> Result<(), StoreError> {
        let mut pages = Pages::of_tenant(Family::Idempotency, self.number);
        while let Some(page) = pages.next(self.store).await? {
            for (key, row) in &page {
                let known = <[u8; 32]>::try_from(key.get(KIND..).unwrap_or_default());
                match (known, IdempotencyRow::decode(row)) {
                    (Ok(_), Ok(_)) => self.counts.idempotency_keys += 1,
                    (Err(_), _) => self.unknown(key),
                    (Ok(_), Err(error)) => {
                        let place = Place::Key(key.to_vec());
                        self.found(Kind::IdempotencyKey, Fault::Unreadable, place, error.to_string());
                    }
                }
            }
        }
        Ok(())
    }

    /// Nothing is left of a tenant that was cleared but its log. `leaf`, of the log `system`, says that it was.
    pub async fn only_the_log(&mut self, leaf: u64) -> Result<(), StoreError> {
        let head = place::lane(self.number, LANE);
        let log = [Family::Leaves, Family::Tiles, Family::LeafIndex, Family::Archived];
        for family in Family::ALL.into_iter().filter(|family| !log.contains(family)) {
            let mut pages = Pages::of_tenant(family, self.number);
            while let Some(page) = pages.next(self.store).await? {
                for (key, _) in page.iter().filter(|(key, _)| **key != *head) {
                    let (name, place) = (family.name(), Place::Key(key.to_vec()));
                    let what =
                        format!("it stands in {name}, and leaf {leaf} of the log `system` says that all was cleared");
                    self.found_by_system(leaf, Kind::Unknown, Fault::Added, place, what);
                }
            }
        }
        Ok(())
    }

    /// Of a destroyed tenant: by what the vault knows that it is, and its keys.
    pub async fn is_destroyed(&mut self, end: &RecordedEnd) -> Result<(), StoreError> {
        if self.store.get(Family::Meta, place::tenant_end(self.number)).await?.is_none() {
            let what = "the log `system` says that the tenant was destroyed, and the row of its end is gone";
            self.found(Kind::Tenant, Fault::Missing, Place::Key(place::tenant_end(self.number)), what);
        }
        let alive = self.keystore.keys(self.id).iter().filter(|key| key.state != KeyState::Destroyed).count();
        if let (Some(leaf), true) = (end.done, alive > 0) {
            let what = format!(
                "leaf {leaf} of the log `system` says that its keys were destroyed, and the keystore has {alive} of them: \
                 it is an older one"
            );
            self.found_by_system(leaf, Kind::Tenant, Fault::RolledBack, Place::Only, what);
        }
        Ok(())
    }

    /// Whatever stands under a tenant's number that no tenant has.
    pub async fn foreign_rows(&mut self, tenants: &[TenantRow]) -> Result<(), StoreError> {
        let mut numbers: Vec<TenantNo> = tenants.iter().map(|tenant| tenant.number).collect();
        numbers.sort_unstable();
        for family in Family::ALL {
            let mut from = Vec::new();
            for number in &numbers {
                let own = number.0.to_be_bytes().to_vec();
                let next = place::prefix_end(&own);
                if from < own {
                    self.foreign_range(family, std::mem::replace(&mut from, next), own).await?;
                } else {
                    from = next;
                }
            }
            if !from.is_empty() {
                self.foreign_range(family, from, vec![]).await?;
            }
        }
        Ok(())
    }

    async fn foreign_range(&mut self, family: Family, from: Vec<u8>, to: Vec<u8>) -> Result<(), StoreError> {
        let mut pages = Pages::new(family, from, to);
        while let Some(page) = pages.next(self.store).await? {
            for (key, _) in &page {
                let what = format!("it stands in {} under a number that no tenant has", family.name());
                self.found(Kind::Unknown, Fault::Added, Place::Key(key.to_vec()), what);
            }
        }
        Ok(())
    }
}
