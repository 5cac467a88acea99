//! `infernet model pull`: a download with its progress, tried again when the way breaks.

use super::{Engines, machine, tell_node, told};
use crate::{
    backend::manage::{Manage, ManageError},
    cli::{Context, exit, exit::Exit, progress::Line, watch::span},
    clock,
    download::{self, Download, Fetching, bytes},
    fit::{self, Fit},
    hardware::{Reading, free_disk},
};
use clap::Args;
use infernet_wire::model_name;
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Between two lines for a person who reads them in a file.
const LINES: Duration = Duration::from_secs(5);
/// Between two values for a program.
const EVENTS: Duration = Duration::from_millis(250);
/// Between two drawings on a terminal.
const DRAWN: Duration = Duration::from_millis(100);
/// Signs of the bar.
const BAR: u64 = 24;

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Its name in the engine's registry, such as llama3.1:8b.
    model: String,
    /// Fetch it though it seems too large for this machine.
    #[arg(long)]
    force: bool,
}

/// `infernet model pull --json`: one such value a line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(in crate::cli) struct PullEvent {
    /// `progress`, `retry` (the way broke, it goes on) or `done`.
    event: &'static str,
    /// The engine, as `KIND=URL`.
    engine: String,
    /// The model.
    model: String,
    /// What the engine does.
    stage: String,
    /// Bytes in all, as far as known.
    total_bytes: u64,
    /// Bytes that are there.
    completed_bytes: u64,
    /// Bytes a second; absent at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<u64>,
    /// Milliseconds until it is there, at this rate; absent at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_ms: Option<u64>,
    /// What broke, for `retry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What the running node offers then, for `done`; absent if none runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    node_offers: Option<Vec<String>>,
}

pub(super) async fn run(context: &Context, engines: &Engines, args: PullArgs) -> Result<(), Exit> {
    // One that can, if there is one; else the first says what to do instead.
    let able = engines.all.iter().find(|engine| engine.can_change());
    let engine = able.or(engines.all.first()).ok_or_else(|| Exit::new(exit::NO_ENGINE, "no engine"))?;
    let mut room = Room::look(&**engine, &args).await?;
    if let Some(size) = fit::file_size(&args.model) {
        room.check(context, size, "by its name about ")?;
    }
    let mut download = Download::default();
    let mut pull = Pull::new(context, &**engine, &args.model);
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            pull.line.clear();
            let again = format!("stopped; what has come is kept: `infernet model pull {}` goes on there", args.model);
            return Err(Exit::new(exit::INTERRUPTED, again));
        }
        done = pull.until_there(&mut download, &mut room) => done?,
    }
    pull.line.clear();
    let offers = tell_node(context, None).await;
    if context.json {
        let event = PullEvent { node_offers: offers, ..pull.event("done", &download) };
        return context.print_json(&event);
    }
    context.note(format!(
        "{} is there{}",
        args.model,
        if engines.is_offered(&args.model) { "" } else { ", and not offered: `infernet model use` says what is" }
    ));
    told(context, offers.as_ref());
    Ok(())
}

/// What the machine has room for, if the engine is on it.
struct Room {
    model: String,
    force: bool,
    machine: Option<Reading>,
    /// Free on the disk of its models.
    disk: Option<u64>,
    /// The largest size that was looked at.
    checked: u64,
}

impl Room {
    async fn look(engine: &dyn Manage, args: &PullArgs) -> Result<Self, Exit> {
        // What it has is only made new, so there is room.
        let has = match engine.installed().await {
            Ok(all) => all.iter().any(|model| model_name::same(&model.name, &args.model)),
            Err(error) => return Err(error.into()),
        };
        let here = engine.spec().is_local() && !has;
        let machine = if here { Some(machine().await) } else { None };
        let disk = here.then(|| models_dir().and_then(|dir| free_disk(&dir))).flatten();
        Ok(Room { model: args.model.clone(), force: args.force, machine, disk, checked: 0 })
    }

    /// Refuses what has no room, unless it is forced; tells what will be slow.
    fn check(&mut self, context: &Context, size: u64, how: &str) -> Result<(), Exit> {
        if size <= self.checked {
            return Ok(());
        }
        let first = self.checked == 0;
        self.checked = size;
        let anyway = "--force fetches it anyway";
        let mut lacks = Vec::new();
        if let Some(free) = self.disk.filter(|free| size.saturating_add(fit::DISK_RESERVE) > *free) {
            lacks.push(format!("the disk of the engine's models has {} free", bytes(free)));
        }
        let needs = fit::memory(size, 0, 0);
        if let Some(machine) = &self.machine {
            match fit::fit(needs, machine) {
                Fit::Nowhere => {
                    lacks.push(format!("it needs about {} of memory, more than this machine can give", bytes(needs)))
                }
                Fit::Memory if first && !machine.gpus.is_empty() => {
                    context.note(
                        "it is larger than the GPU's memory, so it will be slow; `infernet model recommend` shows what fits",
                    );
                }
                _ => {}
            }
        }
        if lacks.is_empty() {
            return Ok(());
        }
        let said = format!("{} is {how}{} and {}", self.model, bytes(size), lacks.join(", and "));
        if self.force {
            context.note(said);
            return Ok(());
        }
        Err(Exit::new(exit::FAILED, format!("{said}; {anyway}")))
    }
}

/// Where Ollama keeps its models, or the nearest directory above that is there.
fn models_dir() -> Option<PathBuf> {
    let named = std::env::var_os("OLLAMA_MODELS").map(PathBuf::from);
    let own = std::env::var_os("HOME").map(|home| Path::new(&home).join(".ollama"));
    let service = PathBuf::from("/usr/share/ollama/.ollama");
    let likely = [named, own, Some(service)].into_iter().flatten().find(|path| path.exists());
    likely.or_else(|| std::env::var_os("HOME").map(PathBuf::from))
}

struct Pull<'a> {
    context: &'a Context,
    engine: &'a dyn Manage,
    model: &'a str,
    line: Line,
    told: Option<(Instant, String)>,
    begun: Instant,
}

impl<'a> Pull<'a> {
    fn new(context: &'a Context, engine: &'a dyn Manage, model: &'a str) -> Self {
        Pull { context, engine, model, line: Line::new(context), told: None, begun: clock::instant() }
    }

    /// Until all is there; a way that breaks is tried again for as long as that is of use.
    async fn until_there(&mut self, download: &mut Download, room: &mut Room) -> Result<(), Exit> {
        let (engine, model) = (self.engine, self.model);
        let fetched = download::fetch(engine, model, download, |download, what| match what {
            Fetching::Broke(error, wait) => self.retry(download, error, wait),
            Fetching::Further => room.check(self.context, download.total(), "").and_then(|()| self.tell(download)),
        });
        fetched.await?.map_err(|error| {
            let kept = if download.completed() > 0 { "; what has come is kept for the next try" } else { "" };
            let Exit { code, message } = error.into();
            Exit::new(code, format!("{message}{kept}"))
        })
    }

    fn retry(&mut self, download: &Download, error: &ManageError, wait: Duration) -> Result<(), Exit> {
        if self.context.json {
            let event = PullEvent { reason: Some(error.to_string()), ..self.event("retry", download) };
            return self.context.print_json(&event);
        }
        self.line.clear();
        self.context.note(format!("{error}; goes on in {} s", wait.as_secs()));
        Ok(())
    }

    /// Tells how far it is: each new stage, and else as often as whoever reads it likes.
    fn tell(&mut self, download: &Download) -> Result<(), Exit> {
        // A program wants numbers; what an engine does before there are any is for people.
        if self.context.json && download.total() == 0 {
            return Ok(());
        }
        let often = if self.context.json {
            EVENTS
        } else if self.line.is_live() {
            DRAWN
        } else {
            LINES
        };
        let stage = download.stage();
        // Lines in a file are for whoever waits, so what is over soon says nothing.
        let due = match &self.told {
            Some((at, told)) => at.elapsed() >= often || (told != stage && often < LINES),
            None => often < LINES || self.begun.elapsed() >= often,
        };
        if !due {
            return Ok(());
        }
        self.told = Some((clock::instant(), stage.to_owned()));
        if self.context.json {
            return self.context.print_json(&self.event("progress", download));
        }
        let text = shown(download, self.model);
        if self.line.is_live() {
            self.line.show(&text)
        } else {
            self.context.note(text)
        }
        Ok(())
    }

    fn event(&self, event: &'static str, download: &Download) -> PullEvent {
        PullEvent {
            event,
            engine: self.engine.engine(),
            model: self.model.into(),
            stage: download.stage().into(),
            total_bytes: download.total(),
            completed_bytes: download.completed(),
            bytes_per_second: download.rate(),
            left_ms: download.left_ms(),
            reason: None,
            node_offers: None,
        }
    }
}

/// `llama3.2 [#####     ] 1.1 GB of 2.0 GB, 54 MB/s, 17 s left`.
fn shown(download: &Download, model: &str) -> String {
    let (total, completed) = (download.total(), download.completed());
    if total == 0 || completed >= total {
        return format!("{model}: {}", download.stage());
    }
    let full = usize::try_from(BAR.saturating_mul(completed) / total.max(1)).unwrap_or_default();
    let bar = format!("{}{}", "#".repeat(full), " ".repeat((BAR as usize).saturating_sub(full)));
    let mut text = format!("{model} [{bar}] {} of {}", bytes(completed), bytes(total));
    if let Some(rate) = download.rate() {
        text += &format!(", {}/s", bytes(rate));
    }
    if let Some(left) = download.left_ms() {
        text += &format!(", {} left", span(left));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::manage::PullStep;
    use infernet_wire::time::UnixMillis;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let mut download = Download::default();
        let part = |completed| PullStep::Part { part: "a".into(), total: 2_000_000_000, completed };
        download.step(&PullStep::Stage("pulling manifest".into()), UnixMillis(0));
        assert_eq!(shown(&download, "m"), "m: pulling manifest");
        download.step(&part(900_000_000), UnixMillis(0));
        download.step(&part(1_000_000_000), UnixMillis(1_000));
        assert_eq!(shown(&download, "m"), "m [############            ] 1.0 GB of 2.0 GB, 100 MB/s, 10 s left");
        download.step(&part(2_000_000_000), UnixMillis(2_000));
        download.step(&PullStep::Stage("verifying sha256 digest".into()), UnixMillis(2_000));
        assert_eq!(shown(&download, "m"), "m: verifying sha256 digest");
    }

    #[test]
    fn what_has_no_room_is_refused_unless_it_is_forced() {
        let context = Context { home: PathBuf::new(), json: true };
        let room = |force| {
            let machine = Reading { memory_bytes: Some(8 << 30), ..Reading::default() };
            Room { model: "m:70b".into(), force, machine: Some(machine), disk: Some(10 << 30), checked: 0 }
        };
        let refused = room(false).check(&context, 40_000_000_000, "").expect_err("too large").message;
        assert!(["40.0 GB", "10.7 GB free", "of memory", "--force"].iter().all(|part| refused.contains(part)), "{refused}");
        assert!(room(true).check(&context, 40_000_000_000, "").is_ok());
        let mut small = room(false);
        assert!(small.check(&context, 1_000_000, "").is_ok() && small.check(&context, 40_000_000_000, "").is_err());
    }
}
