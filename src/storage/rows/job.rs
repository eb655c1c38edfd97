//! How far a background job has come.

use strongroom_ids::KeyringNo;

use crate::StoreError;
use crate::codec::{Reader, Writer};

const FORMAT: u8 = 1;
const PLACE: &str = "a job";

/// What a job does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum JobKind {
    /// Wraps DEKs anew under the newest version of their KEK.
    Rewrap,
    /// Gives subjects' DEKs a new version, and seals their values anew under it.
    Roll,
    /// Makes index entries anew under the newest version of their key.
    Reindex,
    /// Removes values whose time is over.
    Expire,
}

impl JobKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Rewrap, Self::Roll, Self::Reindex, Self::Expire];

    /// The kind's number, in keys and facts.
    pub fn number(self) -> u8 {
        match self {
            Self::Rewrap => 1,
            Self::Roll => 2,
            Self::Reindex => 3,
            Self::Expire => 5,
        }
    }

    /// What a job of the kind is called, before its number.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rewrap => "rewrap",
            Self::Roll => "roll",
            Self::Reindex => "reindex",
            Self::Expire => "expire",
        }
    }
}

/// Whether a job goes on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum JobState {
    /// It does, also after a restart.
    Running,
    /// It has looked at everything.
    Done,
    /// Somebody ended it.
    Cancelled,
    /// There is more to do than it may: it has ended, and another one goes on once that is approved.
    Waiting,
}

/// Beside the state: a limit stands in the row.
const HAS_LIMIT: u8 = 0x10;

/// The newest job of a kind: where it stands is written in the same commit as what it did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobRow {
    /// Counts the tenant's jobs of this kind, from 1.
    pub number: u32,
    /// Whether it goes on.
    pub state: JobState,
    /// The only keyring that it is about, or that it was asked to mark; none for all.
    pub keyring: Option<KeyringNo>,
    /// The principal that started it.
    pub principal: String,
    /// When it was started, in microseconds since 1970.
    pub started: u64,
    /// When it last came further, or ended, in microseconds since 1970.
    pub updated: u64,
    /// When a job of this kind last found something to do, in microseconds since 1970; 0: never.
    pub moved: u64,
    /// How much there was to do when that was counted, or is known to be.
    pub total: u64,
    /// How much of it is done.
    pub done: u64,
    /// How much it had to leave as it is.
    pub skipped: u64,
    /// The part that it is at, by its place among those that a job of its kind has.
    pub stage: u8,
    /// The key from which it goes on in that part.
    pub cursor: Vec<u8>,
    /// How much it may do at most; none where nothing is limited, or not known yet.
    pub limit: Option<u64>,
}

impl JobRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = Writer::new(FORMAT, 64 + self.principal.len());
        let state = match self.state {
            JobState::Running => 0,
            JobState::Done => 1,
            JobState::Cancelled => 2,
            JobState::Waiting => 3,
        };
        row.byte(if self.limit.is_some() { state | HAS_LIMIT } else { state });
        // Zero stands for all keyrings, so a keyring is written as the next number.
        row.number(self.number).number(self.keyring.map_or(0, |keyring| u32::from(keyring.0) + 1));
        row.bytes(self.principal.as_bytes()).number(self.started).number(self.updated).number(self.moved);
        row.number(self.total).number(self.done).number(self.skipped);
        row.byte(self.stage).bytes(&self.cursor);
        if let Some(limit) = self.limit {
            row.number(limit);
        }
        row.finish()
    }

    /// Reads what [`JobRow::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(PLACE, bytes, FORMAT)?;
        let state = reader.byte()?;
        let has_limit = state & HAS_LIMIT != 0;
        let state = match state & !HAS_LIMIT {
            0 => JobState::Running,
            1 => JobState::Done,
            2 => JobState::Cancelled,
            3 => JobState::Waiting,
            _ => return Err(reader.corrupt("an unknown state stands")),
        };
        let number = reader.small()?;
        let keyring = match reader.small::<u32>()? {
            0 => None,
            next => {
                let keyring = u16::try_from(next - 1).map_err(|_| reader.corrupt("an unknown keyring stands"))?;
                Some(KeyringNo(keyring))
            }
        };
        let principal =
            String::from_utf8(reader.bytes()?).map_err(|_| reader.corrupt("a name that is not UTF-8 stands"))?;
        let row = Self {
            number,
            state,
            keyring,
            principal,
            started: reader.number()?,
            updated: reader.number()?,
            moved: reader.number()?,
            total: reader.number()?,
            done: reader.number()?,
            skipped: reader.number()?,
            stage: reader.byte()?,
            cursor: reader.bytes()?,
            limit: if has_limit { Some(reader.number()?) } else { None },
        };
        reader.finish().map(|()| row)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::rows::laws;

    fn any_job() -> impl Strategy<Value = JobRow> {
        let state = [JobState::Running, JobState::Done, JobState::Cancelled, JobState::Waiting];
        let state = (0..state.len()).prop_map(move |at| state[at]);
        let who = (any::<u32>(), state, any::<Option<u16>>(), ".{0,40}");
        let numbers = (any::<[u64; 6]>(), any::<Option<u64>>());
        (who, numbers, any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(
            |((number, state, keyring, principal), (counts, limit), stage, cursor)| {
                let [started, updated, moved, total, done, skipped] = counts;
                JobRow {
                    number,
                    state,
                    keyring: keyring.map(KeyringNo),
                    principal,
                    started,
                    updated,
                    moved,
                    total,
                    done,
                    skipped,
                    stage,
                    cursor,
                    limit,
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_job_comes_back_and_nothing_else_does(job in any_job()) {
            laws::round_trip(&job, JobRow::encode, JobRow::decode);
        }

        #[test]
        fn arbitrary_bytes_are_no_second_form_of_a_job(mut bytes in vec(any::<u8>(), 1..120)) {
            bytes[0] = FORMAT;
            laws::canonical(&bytes, JobRow::encode, JobRow::decode);
        }
    }
}
