//! What to do about a finding, by its kind and fault.

use strongroom_vault::{Fault, Kind};

/// What to do next, in a sentence or two.
pub fn next(kind: Kind, fault: Fault) -> &'static str {
    use Fault::{Added, RolledBack, Unreadable};
    match (kind, fault) {
        // Whatever it is, nobody knows what it should be.
        (_, Unreadable) => {
            "Look at the disk and its log first. Then put the newest good copy of data/ in its place, and `strongroom restore`."
        }
        (Kind::Log, RolledBack) => {
            "An older copy stands here. Put back the newest data/, head and journal, which belong together; if data/ is lost, \
             `strongroom restore` over the newest copy of it that there is."
        }
        (Kind::Leaf, Added) => {
            "Nobody but the vault may write to data/ or head. Put back the newest copies of both, which belong together; if they are \
             lost, `strongroom restore`."
        }
        (Kind::Log | Kind::Leaf | Kind::State, _) => {
            "The ledger is not what was signed, and nothing makes up for it. Look for a copy of data/ that is (`strongroom verify \
             --data COPY --checkpoint FILE`), and `strongroom restore` from it; exports and checkpoints that auditors have show what \
             the leaf was."
        }
        (Kind::Journal, _) => {
            "Put back the newest copy of the journal, or say in [journal] folder where it is; if it is lost, `strongroom restore`."
        }
        (Kind::Tile, _) => {
            "It follows from the leaves: whoever asks the running vault for the proof of a leaf under it (`strongroom audit prove LEAF -o \
             FILE`) has it made anew, unless these leaves are archived. Mend what else is found of the log first."
        }
        (Kind::LeafIndex, _) => {
            "It follows from the leaves, and the running vault makes it anew by itself; until then ask with --every-leaf."
        }
        (Kind::Schema | Kind::Policy | Kind::Freezes | Kind::Tiers | Kind::Principals | Kind::Tenant, _) => {
            "Do not start the vault with other rules than were decided. Put back the newest copy of data/ as a whole; if it is lost, \
             `strongroom restore`."
        }
        (Kind::SecondFactor, _) => {
            "Have it reset and enrolled anew (`strongroom second-factor`), and ask its principal about the time since that leaf."
        }
        (Kind::Counter, _) => {
            "Do not start the vault: it would give out a number twice. Put back the newest copy of data/; if it is lost, `strongroom \
             restore`, which begins new numbers."
        }
        (Kind::Value | Kind::Subject | Kind::Dek | Kind::IndexEntry | Kind::SubjectRow | Kind::Holder, _) => {
            "The leaf says who wrote or removed it, and when (of a copy, who wrote the row that it is of): leaf N is line N + 1 of \
             `strongroom audit export`. The record is not mended in place: look for a copy of data/ of which `strongroom verify \
             --data COPY` does not say this, and `strongroom restore` from it."
        }
        (Kind::IdempotencyKey | Kind::Unknown, _) => {
            "The vault reads nothing there, but somebody wrote it: find out who can write to data/. The newest copy of data/ that has \
             none of it takes it away."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_leaves_is_not_restored() {
        for kind in [Kind::Tile, Kind::LeafIndex] {
            assert!(!next(kind, Fault::Changed).contains("restore"), "{}", kind.as_str());
        }
        assert!(next(Kind::Tile, Fault::Unreadable).contains("disk"));
        assert_ne!(next(Kind::Leaf, Fault::Added), next(Kind::Leaf, Fault::Changed));
    }
}
