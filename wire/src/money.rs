//! Money is whole micro-USD (10⁻⁶ USD, the unit of USDC), prices are per million tokens, and there is one rounding rule.

use serde::{Deserialize, Serialize};
use std::{fmt, iter::Sum};

/// An amount in micro-USD.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroUsd(pub u64);

impl MicroUsd {
    /// Sum, or `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(MicroUsd)
    }
}

impl fmt::Display for MicroUsd {
    /// As dollars: `$0.000123`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl Sum for MicroUsd {
    /// Saturates: a total for people to read, never an amount to sign.
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        MicroUsd(iter.fold(0, |total, amount| total.saturating_add(amount.0)))
    }
}

/// What a model costs, in micro-USD per million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Price {
    /// Per million input tokens.
    pub input: MicroUsd,
    /// Per million output tokens.
    pub output: MicroUsd,
}

impl Price {
    /// The price of one job: exact, rounded up once, on the total.
    /// `None` if it does not fit in 64 bits, which no honest price comes near.
    pub fn cost(&self, input_tokens: u32, output_tokens: u32) -> Option<MicroUsd> {
        let exact = u128::from(self.input.0) * u128::from(input_tokens) + u128::from(self.output.0) * u128::from(output_tokens);
        u64::try_from(exact.div_ceil(1_000_000)).ok().map(MicroUsd)
    }

    /// The same, at most `budget`.
    pub fn cost_within(&self, input_tokens: u32, output_tokens: u32, budget: MicroUsd) -> MicroUsd {
        self.cost(input_tokens, output_tokens).map_or(budget, |cost| cost.min(budget))
    }

    /// Whether neither part is above `ceiling`'s.
    pub fn within(&self, ceiling: &Price) -> bool {
        self.input <= ceiling.input && self.output <= ceiling.output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: u64, output: u64, tokens: (u32, u32), expected: Option<u64>) {
        let price = Price { input: MicroUsd(input), output: MicroUsd(output) };
        assert_eq!(price.cost(tokens.0, tokens.1), expected.map(MicroUsd));
    }

    #[test]
    fn rounds_up_once_on_the_total() {
        check(500_000, 500_000, (1, 1), Some(1));
        check(1, 1, (1, 0), Some(1));
        check(1, 1, (0, 0), Some(0));
        check(150_000, 600_000, (1_000, 500), Some(450));
        check(u64::MAX, u64::MAX, (u32::MAX, u32::MAX), None);
    }

    #[test]
    fn shows_dollars() {
        assert_eq!(MicroUsd(1_234_567).to_string(), "$1.234567");
    }
}
