//! Chance that a seed decides (xorshift64*): the same attack in the same order.

/// A stream of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The stream of `seed`, apart from those of other `uses` of the same seed.
    pub(crate) fn new(seed: u64, uses: u64) -> Self {
        Dice((seed ^ uses.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
