//! `infernet doctor`: what is right and wrong, and what to do about it.

use super::{
    Context, counted, exit,
    exit::Exit,
    watch::{Paint, cell, cell_to_lines},
};
use crate::doctor::{self, Check, DoctorReport, Level};
use std::fmt::Write;

/// Columns of a check's level and name.
const NAME: usize = 24;

pub(super) async fn run(context: &Context) -> Result<(), Exit> {
    let report = context.during("looking at home, machine and surroundings", doctor::examine(&context.home)).await;
    if context.json {
        context.print_json(&report)?;
    } else {
        let text = listed(&report, Paint::new(context));
        // What is a failure ends on stderr, once.
        let text = if report.problems == 0 { format!("{text}\n{}", ending(&report)) } else { text };
        context.print(text.trim_end());
    }
    match report.problems {
        0 => Ok(()),
        _ => Err(Exit::new(exit::UNHEALTHY, format!("{}: mend the first first", ending(&report)))),
    }
}

/// Each check, and below what is not as it should be what to do; then how many are not.
pub(super) fn screen(report: &DoctorReport, paint: Paint) -> String {
    format!("{}\n{}\n", listed(report, paint), ending(report))
}

fn listed(report: &DoctorReport, paint: Paint) -> String {
    report.checks.iter().map(|check| checked(check, paint)).collect()
}

fn ending(report: &DoctorReport) -> String {
    format!("{}, {}", counted(report.problems, "problem"), counted(report.warnings, "warning"))
}

fn checked(check: &Check, paint: Paint) -> String {
    let label = format!("{:<12}", check.level.label());
    let label = match check.level {
        Level::Ok => paint.good(label),
        Level::NotChecked => paint.faint(label),
        Level::Warning | Level::Problem => paint.bad(label),
    };
    let indent = " ".repeat(NAME);
    let said = cell_to_lines(&check.said, &indent);
    // A code of a running node's may be longer than its column.
    let mut text = format!("{label}{:<11} {}\n", check.name, said.trim_start());
    for line in check.fix.iter().flat_map(|fix| fix.lines()) {
        let _ = writeln!(text, "{indent}{} {}", paint.good(">"), paint.bold(cell(line, usize::MAX)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_stays_apart_from_what_is_said() {
        let check = Check { name: "auction_losses".into(), level: Level::Ok, said: "x".into(), fix: None };
        assert!(checked(&check, Paint::none()).ends_with("auction_losses x\n"));
    }
}
