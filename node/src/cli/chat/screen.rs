//! What a chat looks like: tokens to stdout as they come, the rest to stderr.

use crate::{
    cli::{
        Context, counted, exit,
        exit::Exit,
        progress::{Line, PATIENCE, TURN},
    },
    clock,
    control::schema::{ChatStep, away},
    report::ChatReport,
};
use std::{
    cell::RefCell,
    io::{IsTerminal, Write},
    ops::ControlFlow,
    time::Instant,
};
use tokio::time::interval;

/// Keeps the line about what is awaited moving. Never resolves.
pub(super) async fn turn(screen: &RefCell<Screen<'_>>) {
    let mut turn = interval(TURN);
    loop {
        turn.tick().await;
        screen.borrow_mut().turn();
    }
}

/// Tokens to stdout as they come, the rest to stderr.
pub(super) struct Screen<'a> {
    context: &'a Context,
    line: Line,
    /// What is awaited, and since when.
    awaited: Option<(&'static str, Instant)>,
    reasoning: bool,
    wrote: bool,
    closed: bool,
}

impl<'a> Screen<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        let awaited = Some(("looking for a worker", clock::instant()));
        Screen { context, line: Line::new(context), awaited, reasoning: false, wrote: false, closed: false }
    }

    fn turn(&mut self) {
        let Some((what, since)) = self.awaited else { return };
        if since.elapsed() >= PATIENCE {
            self.line.show(&format!("{what} ({} s)", since.elapsed().as_secs()));
        }
    }

    /// Nothing is awaited any more.
    pub(super) fn rest(&mut self) {
        self.awaited = None;
        self.line.clear();
    }

    /// What is awaited after `step`.
    fn awaits(&mut self, step: &ChatStep) {
        self.line.clear();
        let what = match step {
            ChatStep::Auction(_) | ChatStep::Opened { .. } | ChatStep::Retry { .. } => "waiting for the first token",
            ChatStep::Waiting { .. } => "waiting for a worker with room",
            _ => {
                self.awaited = None;
                return;
            }
        };
        let since = self.awaited.filter(|(before, _)| *before == what).map_or_else(clock::instant, |(_, since)| since);
        self.awaited = Some((what, since));
    }

    /// Breaks when nobody reads the answer any more, as in `infernet chat … | head`.
    pub(super) fn show(&mut self, step: &ChatStep) -> ControlFlow<()> {
        self.awaits(step);
        if self.context.json {
            return ControlFlow::Continue(());
        }
        match step {
            ChatStep::Auction(auction) if auction.standing => {
                self.context.note(format!("{} takes it at {}", auction.winner.short(), auction.reason));
            }
            ChatStep::Auction(auction) => self.context.note(format!(
                "{} in {:.1} ms; {} won: {}",
                counted(auction.bids.len(), "bid"),
                auction.elapsed_ms,
                auction.winner.short(),
                auction.reason
            )),
            ChatStep::Waiting { reason, next_ms } => {
                self.context.note(format!("{reason}; trying again in {:.1} s", *next_ms as f64 / 1e3));
            }
            ChatStep::Retry { worker, reason } => {
                self.context.note(format!("{} failed before its first token ({reason}); asking the next", worker.short()));
            }
            ChatStep::Opened { path, rtt_ms, why_not_direct, .. } => {
                self.context.note(format!("answer comes {path}{}", known(*rtt_ms, why_not_direct.as_deref())));
            }
            ChatStep::Resumed { path, rtt_ms, why_not_direct } => {
                let known = known(*rtt_ms, why_not_direct.as_deref());
                self.context.note(format!("the connection was lost; the answer goes on {path}{known}"));
            }
            ChatStep::Text { reasoning, text } => self.write(*reasoning, text),
            // The command offers no tools and asks for no vectors.
            ChatStep::ToolCall { .. } | ChatStep::Embedding { .. } | ChatStep::Usage { .. } => {}
            ChatStep::Done(_) | ChatStep::Error(_) => {}
        }
        if self.closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn write(&mut self, reasoning: bool, text: &str) {
        if reasoning != self.reasoning {
            self.reasoning = reasoning;
            self.context.note(if reasoning { "reasoning:" } else { "" });
        }
        if reasoning {
            // Whoever does not read it still wants the answer.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
        } else if !self.closed {
            self.wrote = true;
            let mut stdout = std::io::stdout().lock();
            self.closed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err();
        }
    }

    /// Ends the answer's line, for the eye or because the answer is `complete`: what follows is about it.
    pub(super) fn break_line(&self, complete: bool) {
        if self.wrote && (complete || std::io::stdout().is_terminal()) {
            self.context.print("");
        }
    }

    pub(super) fn end(mut self, last: ChatStep, interrupted: bool) -> Result<(), Exit> {
        self.line.clear();
        self.break_line(matches!(last, ChatStep::Done(_)));
        match last {
            ChatStep::Done(report) => {
                if self.context.json {
                    self.context.print_json(&report)?;
                }
                self.context.note(summary(&report));
                if interrupted {
                    return Err(Exit::new(exit::INTERRUPTED, "interrupted; only what had arrived is charged"));
                }
                let why = match report.stream.finish.as_str() {
                    "error" => Some("the engine failed"),
                    "unpaid" => Some("the worker waited for a payment in vain: is this node's disk full or slow?"),
                    _ => None,
                };
                if let Some(why) = why {
                    let text = format!("{why}; the answer is incomplete, and only what came is charged");
                    return Err(Exit::new(exit::WORKER, text));
                }
                Ok(())
            }
            ChatStep::Error(_) if interrupted => Err(Exit::new(exit::INTERRUPTED, "interrupted; there is no receipt")),
            ChatStep::Error(error) => {
                if let (Some(partial), true) = (&error.partial, self.context.json) {
                    self.context.print_json(&serde_json::json!({ "answer": partial, "complete": false }))?;
                }
                Err(Exit::new(error.exit, error.message))
            }
            _ => Err(Exit::new(exit::FAILED, "the answer ended without a result")),
        }
    }
}

/// How far away the worker is, and why the way there is not direct.
fn known(rtt_ms: Option<u32>, why_not_direct: Option<&str>) -> String {
    let why = why_not_direct.map(|why| format!("; not direct: {why}")).unwrap_or_default();
    format!("{}{why}", away(rtt_ms))
}

fn summary(report: &ChatReport) -> String {
    let stream = &report.stream;
    let ttft = stream.ttft_ms.map_or("no token".into(), |ms| format!("first token {ms:.1} ms"));
    let paid = report.receipt.as_ref().map_or("free of charge".into(), |r| {
        let signed = if r.verified { "signed by both" } else { "not acknowledged" };
        format!("{} for {} + {} tokens, receipt {} {signed}", r.amount(), r.input_tokens, r.output_tokens, r.job_id)
    });
    format!("{} served {}: {ttft}, {:.1} ms in all; {paid}", report.auction.winner.short(), report.model, stream.duration_ms)
}
