//! Questions on a terminal, and what comes back.

use crate::cli::{exit, exit::Exit};
use std::io::{BufRead, Read, Write};

/// Wrong answers to one question; then somebody is not reading.
const TRIES: usize = 3;
/// No answer is longer.
const MAX_ANSWER: u64 = 4096;

/// Asks on `output`, reads from `input`.
pub(super) struct Dialogue<R, W> {
    input: R,
    output: W,
}

impl<R: BufRead, W: Write> Dialogue<R, W> {
    pub(super) fn new(input: R, output: W) -> Self {
        Dialogue { input, output }
    }

    /// One line.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Exit> {
        // What an engine says of itself does not paint the screen.
        let plain: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        writeln!(self.output, "{plain}").map_err(|error| Exit::new(exit::FAILED, error))
    }

    /// An answer that `read` takes; Enter is `usual`.
    pub(super) fn ask<T>(&mut self, question: &str, usual: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, Exit> {
        for _ in 0..TRIES {
            let answer = self.line(question, usual)?;
            let answer = if answer.is_empty() { usual } else { &answer };
            match read(answer) {
                Ok(value) => return Ok(value),
                Err(fix) => self.say(&format!("  that can't be used: {fix}"))?,
            }
        }
        Err(Exit::new(exit::USAGE, format!("{TRIES} answers that can't be used: nothing was written; try again, or use --yes")))
    }

    /// One of `choices`, the first of which is usual; their first letters will do.
    pub(super) fn choose<T>(&mut self, question: &str, choices: &[&str], read: impl Fn(&str) -> Option<T>) -> Result<T, Exit> {
        let usual = choices.first().copied().unwrap_or_default();
        self.ask(question, usual, |answer| {
            let answer = answer.to_lowercase();
            let known = choices.iter().find(|choice| choice.starts_with(&answer));
            known.and_then(|choice| read(choice)).ok_or_else(|| format!("write {}", choices.join(" or ")))
        })
    }

    /// Yes or no.
    pub(super) fn yes(&mut self, question: &str, usual: bool) -> Result<bool, Exit> {
        let choices = if usual { ["yes", "no"] } else { ["no", "yes"] };
        self.choose(question, &choices, |answer| Some(answer == "yes"))
    }

    fn line(&mut self, question: &str, usual: &str) -> Result<String, Exit> {
        let failed = |error: std::io::Error| Exit::new(exit::FAILED, format!("can't ask: {error}"));
        write!(self.output, "{question} [{usual}] ").and_then(|()| self.output.flush()).map_err(failed)?;
        let mut answer = String::new();
        let read = (&mut self.input).take(MAX_ANSWER).read_line(&mut answer).map_err(failed)?;
        if read == 0 {
            return Err(Exit::new(exit::USAGE, "the answers ended before the questions: nothing was written; --yes asks none"));
        }
        Ok(answer.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialogue(answers: &str) -> Dialogue<&[u8], Vec<u8>> {
        Dialogue::new(answers.as_bytes(), Vec::new())
    }

    fn number(text: &str) -> Result<u8, String> {
        text.parse().map_err(|_| "write a number".into())
    }

    #[test]
    fn enter_takes_what_is_in_brackets_and_a_wrong_answer_is_asked_again() {
        let mut talk = dialogue("\nmany\n7\n");
        assert_eq!(talk.ask("how many?", "2", number).unwrap(), 2);
        assert_eq!(talk.ask("how many?", "2", number).unwrap(), 7);
        let said = String::from_utf8(talk.output).unwrap();
        assert_eq!(said, "how many? [2] how many? [2]   that can't be used: write a number\nhow many? [2] ");
    }

    #[test]
    fn nobody_is_asked_for_ever() {
        let error = dialogue("a\nb\nc\n7\n").ask("?", "2", number).unwrap_err();
        assert_eq!(error.code, exit::USAGE);
        let error = dialogue("").ask("?", "2", number).unwrap_err();
        assert!(error.message.contains("nothing was written"));
    }

    #[test]
    fn first_letters_will_do() {
        let mut talk = dialogue("S\n\ny\nno\nperhaps\nyes\n");
        let choose = |talk: &mut Dialogue<&[u8], Vec<u8>>| talk.choose("?", &["both", "sell"], |s| Some(s.to_owned())).unwrap();
        assert_eq!([choose(&mut talk), choose(&mut talk)], ["sell", "both"]);
        assert_eq!([(); 3].map(|()| talk.yes("?", false).unwrap()), [true, false, true]);
    }
}
