//! Which stored values a read asks for: all alike, or a few of them most of the time.
//!
//! What a request asks for follows from its number alone, so the vault, the echo and the yardstick in this process are
//! asked for the same.

use super::population::{COLUMNS, Owner, Shape, mix};

/// The exponent of Zipf's law, as in YCSB: of 100,000 values the 1,000 best known get half of the reads.
pub const EXPONENT: f64 = 0.99;
/// A prime that spreads what is well known over what is stored: neighbours were stored together.
const STRIDE: u64 = 1_000_003;

/// How reads are spread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Spread {
    /// Every value as often as any other.
    Uniform,
    /// The n-th best known value with a probability in proportion to 1/n^0.99.
    Zipfian,
}

/// Picks stored values: by their places, which count single values, or the values of borrowers one after the other.
#[derive(Clone)]
pub struct Picks {
    shape: Shape,
    /// Single values, or borrowers, that are stored.
    stored: u64,
    zipf: Option<Zipf>,
}

impl Picks {
    /// For requests of this shape, from so many stored values.
    pub fn new(shape: Shape, values: usize, spread: Spread) -> Self {
        let stored = match shape.owner {
            Owner::Nobody => values as u64,
            Owner::Borrower => (values / COLUMNS) as u64,
        };
        let zipf = (spread == Spread::Zipfian).then(|| Zipf::new(stored));
        Self { shape, stored, zipf }
    }

    /// The places that the request of this number asks for. A borrower stands in a request once, with all of its values,
    /// as long as there are enough of them.
    pub fn of(&self, request: u64) -> Vec<usize> {
        let wanted = self.shape.numbers();
        let mut numbers: Vec<u64> = Vec::with_capacity(wanted as usize);
        let mut draw = 0;
        while (numbers.len() as u64) < wanted {
            let number = self.draw(mix(request) ^ mix(!draw));
            draw += 1;
            // Where too few are stored, and where luck runs out, one is asked for twice.
            if draw > 20 * wanted || wanted > self.stored || !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        let per_number = if self.shape.owner == Owner::Nobody { 1 } else { COLUMNS };
        numbers
            .iter()
            .flat_map(|number| (0..per_number).map(move |column| *number as usize * per_number + column))
            .take(self.shape.items)
            .collect()
    }

    fn draw(&self, seed: u64) -> u64 {
        let random = mix(seed);
        match &self.zipf {
            None => random % self.stored,
            Some(zipf) => scattered(zipf.rank(unit(random)), self.stored),
        }
    }
}

/// A number in 0 to 1, 1 not among them, of 53 random bits.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

/// Every rank's place, each once.
fn scattered(rank: u64, count: u64) -> u64 {
    let stride = if count.is_multiple_of(STRIDE) { 1 } else { STRIDE };
    (u128::from(rank) * u128::from(stride) % u128::from(count)) as u64
}

/// Ranks by Zipf's law, by the approximation of Gray et al., "Quickly generating billion-record synthetic databases"
/// (SIGMOD 1994), that YCSB uses: constant time a draw, after one sum over all ranks. A dependency for this would be
/// larger than the need.
#[derive(Clone)]
struct Zipf {
    count: u64,
    sum: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: u64) -> Self {
        let sum = (1..=count).map(|rank| (rank as f64).powf(-EXPONENT)).sum::<f64>();
        let first_two = 1.0 + 0.5_f64.powf(EXPONENT);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - EXPONENT)) / (1.0 - first_two / sum);
        Self { count, sum, alpha: 1.0 / (1.0 - EXPONENT), eta }
    }

    /// The rank, from 0, of a number in 0 to 1.
    fn rank(&self, unit: f64) -> u64 {
        let scaled = unit * self.sum;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(EXPONENT) {
            return 1.min(self.count - 1);
        }
        let rank = self.count as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn well_known_values_get_the_share_that_zipfs_law_gives_them() {
        let (count, draws) = (100_000, 400_000);
        let zipf = Zipf::new(count);
        let mut seen = vec![0_u32; count as usize];
        for draw in 0..draws {
            seen[zipf.rank(unit(mix(draw))) as usize] += 1;
        }
        let law =
            |ranks: std::ops::Range<u64>| ranks.map(|rank| ((rank + 1) as f64).powf(-EXPONENT)).sum::<f64>() / zipf.sum;
        let share = |ranks: std::ops::Range<usize>| f64::from(seen[ranks].iter().sum::<u32>()) / draws as f64;
        for (from, to) in [(0, 1), (1, 2), (0, 100), (0, 1_000), (1_000, 10_000), (10_000, 100_000)] {
            let (expected, found) = (law(from..to), share(from as usize..to as usize));
            assert!((found / expected - 1.0).abs() < 0.1, "{from}..{to}: {found} and not {expected}");
        }
        assert!((0.45..0.65).contains(&share(0..1_000)));
    }

    #[test]
    fn uniform_reads_reach_everything_alike() {
        let picks = Picks::new(Shape::of(1), 1_000, Spread::Uniform);
        let mut seen = HashMap::new();
        for request in 0..100_000 {
            *seen.entry(picks.of(request)[0]).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 1_000);
        assert!(seen.values().all(|times| (40..200).contains(times)));
    }

    #[test]
    fn a_batch_reads_whole_borrowers_each_once() {
        for spread in [Spread::Uniform, Spread::Zipfian] {
            let picks = Picks::new(Shape::of(1_000), 12_000, spread);
            let mut places = picks.of(3);
            assert_eq!(places.len(), 1_000);
            assert_eq!(places[..6].iter().map(|place| place % COLUMNS).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
            places.sort_unstable();
            places.dedup();
            assert!(places.len() == 1_000 && places[999] < 12_000);
            assert_eq!(picks.of(3), picks.of(3));
            assert_ne!(picks.of(3), picks.of(4));
        }
    }

    #[test]
    fn few_stored_values_are_read_more_than_once() {
        let picks = Picks::new(Shape::of(1_000), 60, Spread::Zipfian);
        assert!(picks.of(0).iter().all(|place| *place < 60));
        assert_eq!(picks.of(0).len(), 1_000);
    }

    #[test]
    fn every_rank_has_a_place_of_its_own() {
        for count in [1, 7, 60, STRIDE] {
            let mut all: Vec<u64> = (0..count).map(|rank| scattered(rank, count)).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..count));
        }
    }
}
