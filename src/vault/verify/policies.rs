//! Older versions of a tenant's policy: each is as its leaf records it, and none is missing or too many.

use strongroom_storage::keys as place;
use strongroom_storage::{Family, Store, StoreError};

use super::Check;
use super::finding::{Fault, Kind, Place};
use super::history::History;
use crate::pages::Pages;
use crate::policies::PolicyHistory;
use crate::rules::sha256;
use crate::source::SourceKind;
use crate::values::row_hash;

impl<S: Store> Check<'_, S> {
    /// The older versions, and when they were applied.
    pub async fn policies(&mut self, history: &History) -> Result<(), StoreError> {
        self.older_policies(history).await?;
        self.policy_history(history).await
    }

    /// The older versions. That takes no key.
    pub async fn older_policies(&mut self, history: &History) -> Result<(), StoreError> {
        let (from, to) = place::older_policies_range(self.number);
        let mut missing: Vec<u32> = history.older_policies.keys().copied().collect();
        let mut pages = Pages::new(Family::Meta, from, to);
        while let Some(page) = pages.next(self.store).await? {
            for (key, row) in &page {
                let place = || Place::Key(key.to_vec());
                let Ok(version) = place::decode_older_policy(key) else {
                    self.unknown(key);
                    continue;
                };
                let Some((recorded, _)) = history.older_policies.get(&version) else {
                    let what = format!("version {version} is kept, and the ledger records none that still would be");
                    self.found(Kind::Policy, Fault::Added, place(), what);
                    continue;
                };
                missing.retain(|one| *one != version);
                if row_hash(row) != recorded.hash {
                    let what = format!("version {version}, which is kept, is not as leaf {} records it", recorded.leaf);
                    self.found_by(recorded.leaf, Kind::Policy, Fault::Changed, place(), what);
                }
            }
        }
        for (version, (recorded, _)) in history.older_policies.iter().filter(|(one, _)| missing.contains(one)) {
            let what = format!("leaf {} records version {version}, which is not kept any more", recorded.leaf);
            let place = Place::Key(place::older_policy(self.number, *version));
            self.found_by(recorded.leaf, Kind::Policy, Fault::Missing, place, what);
        }
        Ok(())
    }

    /// When they were applied and by whom, as their leaves say.
    async fn policy_history(&mut self, history: &History) -> Result<(), StoreError> {
        let key = place::policy_history(self.number);
        let row = self.store.get(Family::Meta, key.clone()).await?;
        let Some(policy) = &history.policy else { return Ok(()) };
        let Some(row) = row else {
            if !history.older_policies.is_empty() {
                let what = "the list of when policies were applied is gone";
                self.found(Kind::Policy, Fault::Missing, Place::Key(key), what);
            }
            return Ok(());
        };
        let source = self.source(&row, SourceKind::Policies);
        let listed: Option<PolicyHistory> = source.and_then(|source| serde_json::from_str(&source.body).ok());
        let Some(listed) = listed else {
            let what = "the list of when policies were applied is not one that this vault wrote";
            self.found(Kind::Policy, Fault::Unreadable, Place::Key(key), what);
            return Ok(());
        };
        let in_force = (policy.version, history.policy_by.as_str());
        let older = history.older_policies.iter().map(|(version, (_, by))| (*version, by.as_str()));
        let recorded: Vec<(u32, &str)> = older.chain([in_force]).collect();
        // Of the first policies no principal is named: the vault brought them.
        let same = |(one, (version, by)): (&crate::AppliedPolicy, &(u32, &str))| {
            one.version == *version && (one.by == *by || (one.by.is_empty() && one.time == 0))
        };
        let same = listed.applied.len() == recorded.len() && listed.applied.iter().zip(&recorded).all(same);
        if !listed.is_sound(policy.version) || !same {
            let what =
                "the list of when policies were applied is not what their leaves say: versions, or who applied them";
            self.found(Kind::Policy, Fault::Changed, Place::Key(key), what);
            return Ok(());
        }
        for one in &listed.applied {
            let at = match one.version == policy.version {
                true => place::policy(self.number),
                false => place::older_policy(self.number, one.version),
            };
            let row = self.store.get(Family::Meta, at).await?;
            // A row that is missing or can't be read is a finding of its own.
            let source = row.and_then(|row| self.source(&row, SourceKind::Policy));
            if source.is_some_and(|source| source.version == one.version && sha256(&source.body) != one.sha256) {
                let what =
                    format!("the list of when policies were applied has another hash for version {}", one.version);
                self.found(Kind::Policy, Fault::Changed, Place::Key(key.clone()), what);
            }
        }
        Ok(())
    }
}
