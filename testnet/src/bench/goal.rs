//! A measured number beside what it should be. A goal of speed fails nobody: what it is on a busy machine says little.

use std::fmt;

/// Which side of the goal is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Should {
    /// The number is below it, or it.
    AtMost,
    /// The number is above it, or it.
    AtLeast,
}

/// A number and its goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// What is measured.
    pub what: &'static str,
    /// The number.
    pub measured: f64,
    /// Which side is good.
    pub should: Should,
    /// The goal.
    pub goal: f64,
    /// Whether it is met.
    pub met: bool,
}

impl Goal {
    /// One that is met by `goal` and what is below.
    pub fn at_most(what: &'static str, measured: f64, goal: f64) -> Self {
        Goal { what, measured, should: Should::AtMost, goal, met: measured <= goal }
    }

    /// One that is met by `goal` and what is above.
    pub fn at_least(what: &'static str, measured: f64, goal: f64) -> Self {
        Goal { what, measured, should: Should::AtLeast, goal, met: measured >= goal }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let should = match self.should {
            Should::AtMost => "at most",
            Should::AtLeast => "at least",
        };
        let came = if self.met { "met" } else { "missed" };
        write!(f, "goal {came:<6}  {}: {:.2}, {should} {}", self.what, self.measured, self.goal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_by_itself_and_a_number_that_is_none_misses_it() {
        assert!(Goal::at_most("x", 3.0, 3.0).met && Goal::at_least("x", 3.0, 3.0).met);
        assert!(!Goal::at_most("x", 3.1, 3.0).met && !Goal::at_least("x", 2.9, 3.0).met);
        assert!(!Goal::at_most("x", f64::NAN, 3.0).met && !Goal::at_least("x", f64::NAN, 3.0).met);
        assert_eq!(Goal::at_most("dials, s", 1.5, 3.0).to_string(), "goal met     dials, s: 1.50, at most 3");
    }
}
