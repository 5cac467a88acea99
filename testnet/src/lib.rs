//! A whole infernet on one machine: the parts that the demo, the benchmarks and the tests are built of.

pub mod engine;
