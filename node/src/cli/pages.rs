//! Shell completions and manual pages, made from the command line's own definition.

use super::{Context, command_line, exit, exit::Exit};
use clap_complete::Shell;
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    io,
    path::{Path, PathBuf},
};

/// The command's name, whatever the binary is called.
const NAME: &str = "infernet";

/// `infernet man --dir DIR --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ManReport {
    /// Where the pages are.
    dir: PathBuf,
    /// How many there are.
    pages: usize,
}

pub(super) fn completions(context: &Context, shell: Shell) -> Result<(), Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command_line(), NAME, &mut script);
    context.print_text(&script);
    Ok(())
}

pub(super) fn man(context: &Context, dir: Option<PathBuf>) -> Result<(), Exit> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command_line()).render(&mut page).map_err(|e| Exit::new(exit::FAILED, e))?;
        context.print_text(&page);
        return Ok(());
    };
    let written = write(&dir).map_err(|e| Exit::new(exit::FAILED, format!("can't write to {}: {e}", dir.display())))?;
    context.note(format!(
        "wrote {written} pages to {}; `man -l {}` shows the first",
        dir.display(),
        dir.join("infernet.1").display()
    ));
    if context.json {
        return context.print_json(&ManReport { dir, pages: written });
    }
    Ok(())
}

/// A page for every command that is not hidden. Returns how many there are.
fn write(dir: &Path) -> io::Result<usize> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command_line(), dir)?;
    Ok(std::fs::read_dir(dir)?
        .filter_map(Result::ok)
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "1"))
        .count())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of all commands below `command`, with `-` between.
    fn names(command: &clap::Command, above: &str) -> Vec<String> {
        let name = format!("{above}{}", command.get_name());
        let below = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
        let mut all: Vec<String> = below.flat_map(|c| names(c, &format!("{name}-"))).collect();
        all.push(name);
        all
    }

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        for name in names(&command_line(), "") {
            let page = std::fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(page.contains(".SH SYNOPSIS"), "{name}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command_line().debug_assert();
    }
}
