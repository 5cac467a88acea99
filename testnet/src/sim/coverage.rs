//! Which faults met jobs in which states: so that nobody has to believe that a simulation explores.

use super::{fault::FaultKind, job::Phase};
use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// Fault × state, over all runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Coverage {
    /// How often a fault struck a node with a job in a state. Faults that struck nobody with a job are in no cell.
    #[serde(serialize_with = "as_rows")]
    cells: BTreeMap<(FaultKind, Phase), u64>,
    /// How often a fault struck.
    faults: BTreeMap<FaultKind, u64>,
}

fn as_rows<S: serde::Serializer>(cells: &BTreeMap<(FaultKind, Phase), u64>, to: S) -> Result<S::Ok, S::Error> {
    let mut rows: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for ((fault, phase), times) in cells {
        rows.entry(fault.label()).or_default().insert(phase.label(), *times);
    }
    rows.serialize(to)
}

impl Coverage {
    /// A fault struck, and met jobs in these states.
    pub fn note(&mut self, fault: FaultKind, met: impl IntoIterator<Item = Phase>) {
        *self.faults.entry(fault).or_default() += 1;
        for phase in met {
            *self.cells.entry((fault, phase)).or_default() += 1;
        }
    }

    /// Takes over another run's.
    pub fn add(&mut self, other: &Coverage) {
        for (fault, times) in &other.faults {
            *self.faults.entry(*fault).or_default() += times;
        }
        for (cell, times) in &other.cells {
            *self.cells.entry(*cell).or_default() += times;
        }
    }

    /// How often `fault` met a job in `phase`.
    pub fn met(&self, fault: FaultKind, phase: Phase) -> u64 {
        self.cells.get(&(fault, phase)).copied().unwrap_or_default()
    }

    /// Faults so far.
    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// The cells that were never met.
    pub fn gaps(&self) -> Vec<(FaultKind, Phase)> {
        let all = FaultKind::ALL.into_iter().flat_map(|fault| Phase::LIVE.map(|phase| (fault, phase)));
        all.filter(|(fault, phase)| fault.can_meet(*phase) && self.met(*fault, *phase) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16}{:>9}", "fault", "struck")?;
        Phase::LIVE.iter().try_for_each(|phase| write!(f, "{:>11}", phase.label()))?;
        for fault in FaultKind::ALL {
            write!(f, "\n{:<16}{:>9}", fault.label(), self.faults.get(&fault).copied().unwrap_or_default())?;
            for phase in Phase::LIVE {
                if fault.can_meet(phase) {
                    write!(f, "{:>11}", self.met(fault, phase))?;
                } else {
                    write!(f, "{:>11}", "-")?;
                }
            }
        }
        Ok(())
    }
}
