//! What is told of erasures, one by its name or all that are known: how far they have come, and their receipts.

use std::fmt;

use strongroom_access::Action;
use strongroom_ids::TenantNo;
use strongroom_storage::keys as place;
use strongroom_storage::rows::{ErasureRow, ErasureStage, SubjectRecord, SubjectState};
use strongroom_storage::{Family, Range, Store};

use super::{Name, load_erasure, load_work};
use crate::error::{Error, Violation};
use crate::road::{Attempt, Caller, Item, OK, Prepared, Refused, Road};
use crate::vault::Vault;

/// Erasures of a page, if it is not said how many, and at most.
const PAGE: usize = 100;
const LARGEST: usize = 1_000;

/// Asks how far an erasure has come.
pub struct GetErasure {
    /// Its name.
    pub erasure: String,
}

/// How far an erasure has come.
#[derive(Clone, PartialEq, Eq)]
pub struct ErasureStatus {
    /// Its name: random, so that it leads nowhere.
    pub erasure: String,
    /// `waiting` for the end of its time of grace and to be closed then, `clearing`, `held` in part, `erased`, or `undone`.
    pub state: &'static str,
    /// When its time of grace ends, in microseconds since 1970.
    pub due: Option<u64>,
    /// What is signed of it, a note; empty until what can be erased is.
    pub receipt: String,
    /// By which, with the subject's id, the receipt shows whose it is: only in the answer to who named the subject.
    pub salt: Option<[u8; 32]>,
    /// What keeps the rest.
    pub kept: Vec<Kept>,
}

/// Without what shows whose it is, and without the name that leads to it.
impl fmt::Debug for ErasureStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, due, kept, .. } = self;
        f.debug_struct("ErasureStatus")
            .field("state", state)
            .field("due", due)
            .field("kept", kept)
            .finish_non_exhaustive()
    }
}

/// A legal hold that keeps something of a subject that is erased otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number.
    pub hold: u32,
    /// The fields that it keeps; none for all.
    pub fields: Vec<String>,
    /// What is kept is read for this purpose alone.
    pub purpose: String,
    /// When it ends, in microseconds since 1970.
    pub until: u64,
}

/// Asks which erasures there are: those that are not done, and those that ended in the last 90 days.
pub struct ListErasures {
    /// How many at most; 0: so many as are usual.
    pub page_size: usize,
    /// Where the page before ended; empty: from the first.
    pub page_token: String,
}

/// Some erasures, in no order that says anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasurePage {
    /// They.
    pub erasures: Vec<ErasureStatus>,
    /// Where the next page begins; empty after the last.
    pub next: String,
}

impl<S: Store> Attempt<S> for GetErasure {
    type Answer = ErasureStatus;
    const ACTION: Action = Action::GetErasure;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<ErasureStatus>, Refused> {
        road.decide_vault()?;
        let gone = || {
            let description = "there is no erasure of that name: it never was, or ended more than 90 days ago";
            Error::NotFoundAt(vec![Violation::new("erasure", "erasure_unknown", description)])
        };
        let name = name_in(&self.erasure).ok_or_else(gone)?;
        let tenant = road.tenant.number;
        let row = load_erasure(&*road.vault.store, tenant, &name).await?;
        // What is only the name of a request's key was told to nobody.
        let row = row.filter(|row| row.same.is_none()).ok_or_else(gone)?;
        let mut prepared = road.prepare(road.vault.erasure_told(tenant, &name, row).await?);
        prepared.items.push(Item { outcome: OK, ..Item::default() });
        Ok(prepared)
    }
}

/// The name in what a caller sent.
fn name_in(text: &str) -> Option<Name> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

impl<S: Store> Attempt<S> for ListErasures {
    type Answer = ErasurePage;
    const ACTION: Action = Action::ListErasures;

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<ErasurePage>, Refused> {
        road.decide_vault()?;
        let (tenant, size) = (road.tenant.number, if self.page_size == 0 { PAGE } else { self.page_size.min(LARGEST) });
        let (first, to) = place::erasures_range(tenant);
        let from = match self.page_token.as_str() {
            "" => first,
            token => {
                let after = name_in(token);
                let description = "a page begins where the one before says that the next one does";
                let after = after.ok_or_else(|| Error::invalid("page_token", "page_token", description))?;
                [place::erasure(tenant, &after), vec![0]].concat()
            }
        };
        let page = road.vault.store.scan(Family::Meta, Range { from, to, limit: size }).await?;
        let last = page.last().filter(|_| page.len() == size).and_then(|(key, _)| place::decode_erasure(key));
        let mut erasures = Vec::with_capacity(page.len());
        for (key, row) in &page {
            let (Some(name), Ok(row)) = (place::decode_erasure(key), ErasureRow::decode(row)) else {
                road.vault.damaged("an erasure");
                continue;
            };
            if row.same.is_none() {
                erasures.push(road.vault.erasure_told(tenant, &name, row).await?);
            }
        }
        let next = last.map_or_else(String::new, |last| data_encoding::HEXLOWER.encode(&last));
        let mut prepared = road.prepare(ErasurePage { erasures, next });
        prepared.items.push(Item { outcome: OK, ..Item::default() });
        Ok(prepared)
    }
}

impl<S: Store> Vault<S> {
    /// How far an erasure has come.
    pub async fn get_erasure(&self, caller: &Caller, request: &GetErasure) -> Result<ErasureStatus, Error> {
        self.travel(caller, request).await
    }

    /// Which erasures there are, a page of them.
    pub async fn list_erasures(&self, caller: &Caller, request: &ListErasures) -> Result<ErasurePage, Error> {
        self.travel(caller, request).await
    }

    /// What is told of an erasure.
    pub(super) async fn erasure_told(
        &self,
        tenant: TenantNo,
        name: &Name,
        row: ErasureRow,
    ) -> Result<ErasureStatus, Error> {
        let (mut waiting, mut clearing, mut kept) = (false, false, vec![]);
        for subject in &row.open {
            match load_work(&*self.store, tenant, *subject).await?.map(|work| work.stage) {
                // Whatever the time is: until it is closed it is as it was, and can be undone.
                Some(ErasureStage::Waiting(_)) => waiting = true,
                Some(ErasureStage::Clearing(_) | ErasureStage::Cleared) => clearing = true,
                Some(ErasureStage::Kept(_)) | None => {}
            }
            let record = self.store.get(Family::Subjects, place::subject(tenant, *subject)).await?;
            let Some(record) = record.as_deref().map(SubjectRecord::decode).transpose()? else { continue };
            if record.state == SubjectState::Held {
                let schema = self.tenant(tenant)?.rules().schema.clone();
                kept.extend(record.standing(self.now()).map(|hold| Kept {
                    hold: hold.number,
                    fields: crate::holds::field_names(&schema, &hold.fields),
                    purpose: hold.purpose.clone(),
                    until: hold.until,
                }));
            }
        }
        let state = match (waiting, clearing) {
            (true, _) => "waiting",
            (false, true) => "clearing",
            (false, false) if row.open.is_empty() && row.receipt.is_empty() => "undone",
            (false, false) if row.open.is_empty() => "erased",
            (false, false) if row.receipt.is_empty() => "clearing",
            (false, false) => "held",
        };
        Ok(ErasureStatus {
            erasure: data_encoding::HEXLOWER.encode(name),
            state,
            due: (state == "waiting").then_some(row.due),
            receipt: row.receipt,
            salt: None,
            kept,
        })
    }
}
