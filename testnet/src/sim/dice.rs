//! Chance that a seed decides: xoshiro256**, seeded by splitmix64 (Blackman and Vigna, 2018). Integers only, so that every
//! machine throws the same.

/// A stream of numbers.
#[derive(Debug, Clone)]
pub struct Dice([u64; 4]);

impl Dice {
    /// The stream of `seed`, apart from those of other `uses` of the same seed.
    pub fn new(seed: u64, uses: &str) -> Self {
        let mut state = uses.bytes().fold(seed, |state, byte| mix(state ^ u64::from(byte)));
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        };
        Dice([next(), next(), next(), next()])
    }

    /// The next number.
    pub fn throw(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.0 = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of a remainder is below 2⁻⁴⁰ for all bounds in use.
        self.throw().checked_rem(bound).unwrap_or(0)
    }

    /// A number of the range, both ends included.
    pub fn within(&mut self, range: (u64, u64)) -> u64 {
        let (low, high) = range;
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True `permille` times in a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1_000) < permille
    }

    /// One of `items`; `None` if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }

    /// Which of some weights comes up: the index; 0 if all are 0.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut thrown = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if thrown < *weight {
                return index;
            }
            thrown -= weight;
        }
        0
    }

    /// `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            chunk.iter_mut().zip(self.throw().to_le_bytes()).for_each(|(to, from)| *to = from);
        }
        bytes
    }
}

/// The finaliser of splitmix64.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_throws_the_same() {
        let mut dice = Dice::new(7, "test");
        let thrown: Vec<u64> = (0..4).map(|_| dice.below(1_000)).collect();
        let mut again = Dice::new(7, "test");
        assert_eq!(thrown, (0..4).map(|_| again.below(1_000)).collect::<Vec<_>>());
        assert_ne!(Dice::new(8, "test").throw(), Dice::new(7, "test").throw());
        assert_ne!(Dice::new(7, "other").throw(), Dice::new(7, "test").throw());
    }

    #[test]
    fn every_number_comes_up_about_as_often() {
        let mut dice = Dice::new(1, "even");
        let mut counts = [0; 10];
        (0..10_000).for_each(|_| counts[dice.below(10) as usize] += 1);
        assert!(counts.iter().all(|n| (900..1_100).contains(n)), "{counts:?}");
        assert_eq!(dice.weighted(&[0, 5, 0]), 1);
    }
}
