//! `infernet why`: why this worker earns, or does not, and what to change.

use super::{
    Context,
    exit::Exit,
    watch::{self, Paint, WatchArgs, cell, wrapped},
};
use crate::{
    control::client::Client,
    why::{Finding, WhyReport},
};
use std::fmt::Write;

/// Findings that are shown: a screen. `--json` has all.
const SHOWN: usize = 8;

pub(super) async fn run(context: &Context, args: WatchArgs) -> Result<(), Exit> {
    let node = Client::connect(&context.home).ok_or_else(|| Exit::not_running(&context.home))?;
    watch::show(context, args, async |paint| {
        let report: WhyReport = node.get("why").await?;
        if context.json { super::json(&report) } else { Ok(screen(&report, paint)) }
    })
    .await
}

fn screen(report: &WhyReport, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(wrapped(&report.summary, "")));
    report.findings.iter().take(SHOWN).enumerate().for_each(|(n, finding)| text.push_str(&found(n + 1, finding, paint)));
    if report.findings.len() > SHOWN {
        let _ = writeln!(text, "\n   and {} lighter ones; --json tells all", report.findings.len() - SHOWN);
    }
    if report.findings.iter().any(|finding| finding.change.as_ref().is_some_and(|change| change.contains(" = "))) {
        let _ = writeln!(text, "\n   {}", paint.faint("what has a = goes into config.toml; then start the node again"));
    }
    if !report.wanted.is_empty() {
        let _ = writeln!(text, "\n{}", paint.bold("asked for, and not served here:"));
    }
    for wanted in &report.wanted {
        let buyers = super::counted(usize::try_from(wanted.buyers).unwrap_or(usize::MAX), "buyer");
        let _ = writeln!(text, "{:>6} times by {buyers:<10}  {}", wanted.offers, cell(&wanted.model, 48));
    }
    text
}

fn found(n: usize, finding: &Finding, paint: Paint) -> String {
    let number = format!("{n:>2}");
    let number = if finding.blocks { paint.bad(number) } else { number };
    // The number takes the place of the first line's indent.
    let seen = wrapped(&finding.seen, "   ");
    let seen = seen.strip_prefix("   ").unwrap_or(&seen);
    let mut text = format!("\n{number} {seen}\n{}\n", wrapped(&finding.means, "   "));
    for line in finding.change.iter().flat_map(|change| change.lines()) {
        let _ = writeln!(text, "     {} {}", paint.good(">"), paint.bold(line));
    }
    text
}
