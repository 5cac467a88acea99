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
        context.print(screen(&report, Paint::new(context)).trim_end());
    }
    match report.problems {
        0 => Ok(()),
        n => Err(Exit::new(exit::UNHEALTHY, format!("{} to mend, the first first", counted(n, "problem")))),
    }
}

/// Each check, and below what is not as it should be what to do.
pub(super) fn screen(report: &DoctorReport, paint: Paint) -> String {
    let mut text = String::new();
    report.checks.iter().for_each(|check| text.push_str(&checked(check, paint)));
    let _ = writeln!(text, "\n{}, {}", counted(report.problems, "problem"), counted(report.warnings, "warning"));
    text
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
    let mut text = format!("{label}{:<12}{}\n", check.name, said.trim_start());
    for line in check.fix.iter().flat_map(|fix| fix.lines()) {
        let _ = writeln!(text, "{indent}{} {}", paint.good(">"), paint.bold(cell(line, usize::MAX)));
    }
    text
}
