//! Whether the options that were given have an effect together: one that would be ignored is refused, with what is right.
//!
//! What can be said of two options alone is said where they are declared; here is what depends on their values.

use super::{Args, Part};
use crate::cli::output::CliError;

/// Refuses options of which one would have no effect.
pub fn check(args: &Args) -> Result<(), CliError> {
    let refused = if args.generator.is_asked_for() { own_load(args) } else { parts(args) };
    match refused.into_iter().find_map(|(in_vain, why)| in_vain.then_some(why)) {
        Some(why) => Err(CliError::Usage(why.to_owned())),
        None => Ok(()),
    }
}

/// An option that was given in vain, and what would be right.
type Rule = (bool, &'static str);

fn own_load(args: &Args) -> Vec<Rule> {
    let own = &args.generator;
    let (batches, reads) = (own.is_of_batches(), own.reads());
    vec![
        (
            args.requests.is_some() && batches,
            "--requests counts requests of one value, and --batch makes larger ones: write --batches, or --seconds",
        ),
        (
            args.batches.is_some() && !batches,
            "--batches counts requests of more than one value: add --batch N, or write --requests",
        ),
        (
            args.in_flight.is_some() && batches,
            "--in-flight is for requests of one value, and --batch makes larger ones: write --batches-in-flight",
        ),
        (
            args.batches_in_flight.is_some() && !batches,
            "--batches-in-flight is for requests of more than one value: add --batch N, or write --in-flight",
        ),
        (own.streams_in_vain(), "--streams has streams of one kind: write --mix tokenize, or --mix detokenize"),
        (
            own.says_how_it_reads() && !reads,
            "--reads says how stored values are read, and this --mix reads none: add detokenize=N or match=N to it",
        ),
        (
            args.stored.is_some() && !reads && args.plot.is_none(),
            "--stored says how much is stored to be read, and this --mix reads nothing: add detokenize=N or match=N to it",
        ),
    ]
}

fn parts(args: &Args) -> Vec<Rule> {
    let (loads, growth) = (args.has_loads(), args.has(Part::Growth));
    vec![
        (
            args.requests.is_some() && !loads,
            "--requests is for loads, and none of --parts has any: add the part loads or more, or write --seconds",
        ),
        (
            args.batches.is_some() && !loads,
            "--batches is for loads, and none of --parts has any: add the part loads or more, or write --seconds",
        ),
        (
            args.warm_up.is_some() && !loads,
            "--warm-up is for loads, and none of --parts has any: add the part loads or more",
        ),
        (
            args.batches_in_flight.is_some() && !loads,
            "--batches-in-flight is for loads, and none of --parts has any: add the part loads or more",
        ),
        (
            args.in_flight.is_some() && !loads && !growth,
            "--in-flight is for loads and growth, and none of --parts is one: add the part loads, more or growth",
        ),
        (args.growth.is_some() && !growth, "--growth says how far the part growth goes: add --parts growth, or --all"),
        (
            args.deks.is_some() && !args.has(Part::Rewrap),
            "--deks says how much the part rewrap wraps anew: add --parts rewrap, or --all",
        ),
        (
            args.subjects.is_some() && !args.has(Part::Retention),
            "--subjects says how many the part retention erases: add --parts retention, or --all",
        ),
        (
            args.leaves.is_some() && !args.has(Part::Ledger) && !args.has(Part::Questions),
            "--leaves says how large an export the part ledger verifies, and a log the part questions asks: add --parts ledger, \
             --parts questions, or --all",
        ),
        (
            args.stored.is_some() && !args.has_rig(),
            "--stored says how much is stored to be read, and none of --parts reads any: add the part loads, or leave it out",
        ),
        (
            args.seconds.is_some() && !args.has_rig(),
            "--seconds says how long a load goes on, and none of --parts has any: write --leaves, or leave it out",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// What is said to these words: nothing if they are taken.
    fn said(words: &str) -> Option<String> {
        let words = ["bench"].into_iter().chain(words.split_whitespace());
        match Args::try_parse_from(words) {
            Ok(args) => check(&args).err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    #[test]
    fn an_option_that_would_be_ignored_is_refused_with_what_would_be_right() {
        for (words, right) in [
            ("--growth 200000", "--parts growth"),
            ("--parts latency --deks 10000", "--parts rewrap"),
            ("--parts rewrap --subjects 10000", "--parts retention"),
            ("--leaves 5000", "--parts ledger"),
            ("--quick --parts ledger --leaves 5000", "--leaves"),
            ("--parts decide --leaves 5000", "--parts questions"),
            ("--parts ledger --stored 5000", "leave it out"),
            ("--parts questions --seconds 1", "--leaves"),
            ("--parts ledger,decide --seconds 1", "--leaves"),
            ("--parts ledger --requests 5000", "loads or more"),
            ("--mix tokenize --leaves 5000", "--leaves"),
            ("--convert parquet lines --leaves 5000", "--leaves"),
            ("--parts overload --requests 5000", "--seconds"),
            ("--parts rewrap --batches 5", "loads or more"),
            ("--parts growth --warm-up 1", "loads or more"),
            ("--parts growth --batches-in-flight 8", "loads or more"),
            ("--parts latency --in-flight 8", "growth"),
            ("--mix tokenize --reads zipfian", "detokenize=N"),
            ("--mix tokenize --stored 5000", "detokenize=N"),
            ("--batch 100 --requests 5000", "--batches"),
            ("--batch 100 --in-flight 5", "--batches-in-flight"),
            ("--mix match --batches 5", "--batch N"),
            ("--mix match --batches-in-flight 5", "--in-flight"),
            ("--streams --mix match", "--mix tokenize"),
            ("--streams --mix tokenize,detokenize", "--mix tokenize"),
            ("--streams", "--mix"),
            ("--seconds 1 --requests 5000", "--requests"),
            ("--seconds 1 --batches 5", "--batches"),
            ("--seconds 0", "0.1"),
            ("--quick --runs 5", "--runs"),
            ("--quick --stored 5000", "--stored"),
            ("--quick --seconds 1", "--seconds"),
            ("--all --parts loads", "--parts"),
            ("--all --mix tokenize", "--mix"),
            ("--parts loads --reads zipfian", "--reads"),
            ("--report r.md --mix tokenize", "--mix"),
            ("--peers p --endpoint https://localhost:1", "--endpoint"),
            ("--peers-state s", "--peers"),
            ("--profile p.md", "--report"),
            ("--rate 5 --in-flight 5", "--in-flight"),
            ("--rate 5 --requests 5000", "--requests"),
            ("--rate 5 --streams --mix tokenize", "--streams"),
            ("--streams --mix tokenize --batches-in-flight 5", "--batches-in-flight"),
            ("--endpoint https://localhost:1 --folder f", "--folder"),
            ("--endpoint https://localhost:1 --keep", "--keep"),
            ("--allow-remote --mix tokenize", "--endpoint"),
            ("--make-csv 10 f.csv --seconds 1", "--seconds"),
            ("--make-csv 10 f.csv --reads zipfian", "--reads"),
            ("--print-schema --all", "--all"),
        ] {
            let said = said(words);
            assert!(said.as_ref().is_some_and(|said| said.contains(right)), "{words}: {said:?}");
        }
    }

    #[test]
    fn options_that_have_an_effect_together_are_taken() {
        for words in [
            "",
            "--quick",
            "--quick --all --report r.md --plot p.svg",
            "--quick --parts growth,rewrap,retention",
            "--quick --parts ledger,decide",
            "--parts questions --leaves 20000000 --runs 5",
            "--parts ledger --leaves 10000000 --runs 1 --report r.md",
            "--parts decide",
            "--quick --mix match --rate 100",
            "--requests 5000 --batches 5 --in-flight 8 --batches-in-flight 2 --warm-up 0 --stored 5000",
            "--seconds 2 --runs 5",
            "--all --growth 200000 --deks 10000 --subjects 10000 --seconds 2 --report r.md --profile p.md",
            "--parts more --requests 5000 --batches 5 --warm-up 0",
            "--parts growth --growth 200000 --in-flight 8",
            "--parts growth --peers deploy/bench --peers-state s --requests 5000",
            "--plot p.svg",
            "--reads zipfian",
            "--batch 100 --batches 5 --batches-in-flight 2 --stored 5000",
            "--batch 1 --requests 5000",
            "--mix tokenize --stored 5000 --plot p.svg",
            "--streams --mix tokenize=3 --batch 100 --batches 10",
            "--rate 100 --seconds 1 --connections 8",
            "--endpoint https://192.0.2.1:1 --allow-remote --mix detokenize --stored 5000",
            "--make-csv 10 f.csv",
            "--print-schema",
        ] {
            assert_eq!(said(words), None, "{words}");
        }
    }
}
