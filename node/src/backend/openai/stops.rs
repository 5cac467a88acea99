//! Cutting an answer at its stop sequences, for an engine whose stream goes on past them. Pure.

/// Passes text on up to the first stop sequence. What may be the beginning of one is held until that is known.
#[derive(Debug, Default)]
pub(super) struct Stops {
    stops: Vec<String>,
    held: String,
    met: bool,
}

impl Stops {
    /// Cuts at any of `stops`; passes everything on if there is none.
    pub(super) fn new(stops: &[String]) -> Self {
        Stops { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), ..Stops::default() }
    }

    /// What of the answer so far, and not passed on yet, can be.
    pub(super) fn pass(&mut self, text: &str) -> String {
        if self.met {
            return String::new();
        }
        self.held.push_str(text);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        self.met = first.is_some();
        let end = first.unwrap_or_else(|| self.held.len() - self.begun());
        let rest = self.held.split_off(end);
        std::mem::replace(&mut self.held, if self.met { String::new() } else { rest })
    }

    /// What is still held when nothing more comes.
    pub(super) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of what is held that may be the beginning of a stop sequence.
    fn begun(&self) -> usize {
        let begins = |stop: &String| {
            let lengths = stop.char_indices().map(|(at, _)| at).filter(|at| *at > 0).rev();
            lengths.into_iter().find(|length| stop.get(..*length).is_some_and(|start| self.held.ends_with(start)))
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stops: &[&str], pieces: &[&str], expected: &[&str]) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut cut = Stops::new(&stops);
        let mut passed: Vec<String> = pieces.iter().map(|piece| cut.pass(piece)).collect();
        passed.push(cut.rest());
        assert_eq!(passed, expected, "{stops:?} {pieces:?}");
    }

    #[test]
    fn an_answer_ends_at_the_first_stop_sequence() {
        check(&[], &["a", "b"], &["a", "b", ""]);
        check(&["named"], &["a fox ", "na", "med", " Anna"], &["a fox ", "", "", "", ""]);
        check(&["named"], &["a fox named Anna"], &["a fox ", ""]);
        check(&["named"], &["na", "p", "na"], &["", "nap", "", "na"]);
        check(&["ox", "fox"], &["a f", "ox!"], &["a ", "", ""]);
        check(&["üß"], &["xü", "a"], &["x", "üa", ""]);
        check(&[""], &["a"], &["a", ""]);
    }
}
