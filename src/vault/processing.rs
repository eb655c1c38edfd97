//! ProcessingReport: the records of processing (GDPR 30, PIPL 54 and 55), from the schema, the policies and the ledger. Neither a
//! value nor a data subject.
//!
//! The road decides, records that it was asked, and takes the rules in force along: who may read is asked of just these. What
//! takes long is done after that, while other requests go on: values are counted in the store page by page, and reads in the
//! ledger as it was then.

mod reads;
mod recipients;
mod volumes;

use std::sync::Arc;

use strongroom_access::{Action, Policies};
use strongroom_ledger::Timestamp;
use strongroom_ledger::leaf::ParsedItem;
use strongroom_schema::{Field, Purpose};
use strongroom_storage::Store;

use crate::approvals::Asked;
use crate::error::Error;
use crate::export::ArchivedReads;
use crate::lookup::FOUND_NONE;
use crate::road::{Attempt, Caller, Prepared, Refused, Road};
use crate::subject_export::UNTOLD;
use crate::tenant::Rules;
use crate::vault::Vault;
pub use reads::{EarlierReads, FieldReads};
pub use recipients::{Exporter, Recipient};

/// Asks for the records of processing.
#[derive(Default)]
pub struct ProcessingReport {
    /// Reads are counted from then on, in microseconds since 1970.
    pub from: Option<u64>,
    /// Up to then, which is not in it.
    pub to: Option<u64>,
}

/// The records of processing.
pub struct ProcessingRecords {
    /// When they were drawn up, in microseconds since 1970.
    pub time: u64,
    /// The policies in force.
    pub policy_version: u32,
    /// The schema in force.
    pub schema_version: u32,
    /// How many leaves there were, in which reads were counted.
    pub ledger_size: u64,
    /// In which of them they were not, since these are archived; none if they were counted in all of the time.
    pub archived_reads: Option<ArchivedReads>,
    /// By number; retired ones as long as they have values.
    pub fields: Vec<ProcessedField>,
    /// Reads under names that none of these fields has now.
    pub earlier_reads: Vec<EarlierReads>,
    /// Who may export all values of a data subject.
    pub exporters: Vec<Exporter>,
    /// All that the schema declares.
    pub purposes: Vec<ReportedPurpose>,
    /// Data subjects.
    pub subjects: u64,
    /// Values.
    pub values: u64,
    /// Values that belong to nobody.
    pub values_without_subject: u64,
    /// Whether more is allowed to more principals than is listed.
    pub more_recipients: bool,
    /// Whether more was read than is counted.
    pub more_reads: bool,
}

/// How a field is processed.
pub struct ProcessedField {
    /// The field.
    pub field: ReportedField,
    /// How many values it has.
    pub values: u64,
    /// How many of them have ended, and are not removed yet.
    pub ended: u64,
    /// Who may read it.
    pub recipients: Vec<Recipient>,
    /// Who did.
    pub reads: Vec<FieldReads>,
}

/// What the schema says of a field.
pub struct ReportedField {
    /// Its full name.
    pub name: Arc<str>,
    /// `c1`, `c2` or `c3`.
    pub class: &'static str,
    /// How long its values may be read: `10y`.
    pub retention: String,
    /// What it is read for.
    pub purposes: Vec<Arc<str>>,
    /// How much of it can be shown.
    pub views: Vec<Arc<str>>,
    /// Whether it is no longer in the schema.
    pub retired: bool,
}

impl ReportedField {
    pub(crate) fn of(field: &Field) -> Self {
        Self {
            name: Arc::clone(&field.full_name),
            class: field.class.as_str(),
            retention: field.retention.to_string(),
            purposes: field.purposes.clone(),
            views: field.views().map(|(name, _)| Arc::clone(name)).collect(),
            retired: field.retired,
        }
    }
}

/// What the schema says of a purpose.
pub struct ReportedPurpose {
    /// Its name.
    pub name: Arc<str>,
    /// In words.
    pub description: String,
    /// Why it is lawful: `contract`; empty if the schema does not say.
    pub basis: &'static str,
}

impl ReportedPurpose {
    pub(crate) fn of(purpose: &Purpose) -> Self {
        Self {
            name: Arc::clone(&purpose.name),
            description: purpose.description.clone(),
            basis: purpose.basis.map_or("", |basis| basis.as_str()),
        }
    }
}

/// The actions that tell something of values or of subjects, as leaves name them.
pub(crate) fn read_actions() -> Vec<String> {
    Action::ALL.iter().filter(|action| action.is_read()).map(|action| action.as_str().to_owned()).collect()
}

/// Whether an item of a read told somebody something: a refused one has its reason, in capitals.
pub(crate) fn is_told(item: &ParsedItem) -> bool {
    let outcome = item.outcome.as_str();
    !outcome.starts_with(char::is_uppercase) && outcome != FOUND_NONE && !UNTOLD.contains(&outcome)
}

/// What is damaged, if a leaf is none.
pub(crate) const UNREADABLE: Error = Error::DataLoss("the ledger: a leaf can't be read");

/// What was in force when it was asked for.
pub(crate) struct Begun {
    rules: Arc<Rules>,
    policies: Arc<Policies>,
    now: u64,
    ledger_size: u64,
}

impl<S: Store> Attempt<S> for ProcessingReport {
    type Answer = Begun;
    const ACTION: Action = Action::ProcessingReport;

    fn bound_to(&self, _rules: &Rules) -> Option<Asked> {
        let time = |time: Option<u64>| time.map_or(vec![], |time| time.to_be_bytes().to_vec());
        let parts = vec![time(self.from), time(self.to)];
        Some(Asked { parts, summary: "draw up the records of processing".to_owned() })
    }

    async fn attempt(&self, road: &Road<'_, S>) -> Result<Prepared<Begun>, Refused> {
        road.decide_vault()?;
        let mut prepared = road.prepare(Begun {
            rules: Arc::clone(&road.rules),
            policies: road.tenant.access.policies(),
            now: road.now,
            ledger_size: road.vault.committer.head(road.tenant.number).map_or(0, |head| head.size),
        });
        prepared.detail.extend(self.from.map(|from| ("from", Timestamp(from).to_string())));
        prepared.detail.extend(self.to.map(|to| ("to", Timestamp(to).to_string())));
        Ok(prepared)
    }
}

impl<S: Store> Vault<S> {
    /// The records of processing of the caller's tenant. It takes as long as looking at every value of it.
    pub async fn processing_report(
        &self,
        caller: &Caller,
        request: &ProcessingReport,
    ) -> Result<ProcessingRecords, Error> {
        let begun = self.travel(caller, request).await?;
        let (tenant, schema) = (caller.principal.tenant, &begun.rules.schema);
        let volumes = volumes::count(&*self.store, tenant, schema, begun.now).await?;
        let mut reads = self.reads(caller, request, begun.ledger_size).await?;
        let named = recipients::named(&begun, &self.directory(), tenant, reads.principals());
        let mut may = recipients::of(&begun, tenant, named).await;
        let exporters = std::mem::take(&mut may.exporters);
        let listed = schema.all_fields().filter(|field| !field.retired || volumes.of(field.number).0 > 0);
        let fields = listed.map(|field| {
            let (values, ended) = volumes.of(field.number);
            let recipients = may.of(field.number);
            ProcessedField {
                field: ReportedField::of(field),
                values,
                ended,
                recipients,
                reads: reads.of(&field.full_name),
            }
        });
        let fields = fields.collect();
        Ok(ProcessingRecords {
            time: begun.now,
            policy_version: begun.rules.policy.version,
            schema_version: schema.version(),
            ledger_size: begun.ledger_size,
            fields,
            exporters,
            archived_reads: reads.archived,
            more_reads: reads.more,
            earlier_reads: reads.rest(),
            purposes: schema.purposes().map(ReportedPurpose::of).collect(),
            subjects: volumes.subjects,
            values: volumes.values,
            values_without_subject: volumes.without_subject,
            more_recipients: may.more,
        })
    }
}
