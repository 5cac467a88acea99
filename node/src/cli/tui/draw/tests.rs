use super::*;
use crate::cli::tui::{
    income::Earned,
    sample::{HOSTILE, snapshot},
    state::{Input, Key},
};
use infernet_wire::{id::JobId, time::UnixMillis};
use ratatui::{backend::TestBackend, buffer::Buffer};

const NOW: UnixMillis = UnixMillis(1_000_000_000);
const PLAIN: Look = Look { colour: false, blocks: false };

fn state() -> State {
    let mut state = State::default();
    let earned =
        |minutes: u64| Earned { at: UnixMillis(NOW.0 - minutes * 60_000), job: JobId([minutes as u8; 16]), amount: 500 };
    let log = ["2026-11-25 13:05:07 INFO  peer joined peers=2", "2026-11-25 13:05:08 WARN  engine does not answer"];
    for input in [
        Input::Snapshot(Box::new(snapshot())),
        Input::Earned(vec![earned(0), earned(3), earned(90)]),
        Input::Log(log.map(str::to_owned).to_vec()),
    ] {
        assert!(state.handle(input, NOW).is_continue());
    }
    state
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        assert!(state.handle(Input::Key(Key::Char(key)), NOW).is_continue());
    }
}

fn buffer(state: &State, look: Look, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| _ = render(state, look, frame)).unwrap();
    terminal.backend().buffer().clone()
}

/// The screen as text, a line for each row.
fn screen(state: &State, size: (u16, u16)) -> String {
    let buffer = buffer(state, PLAIN, size);
    let rows = buffer.content().chunks(size.0.into());
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n").collect()
}

fn check(state: &State, size: (u16, u16), words: &[&str]) {
    let text = screen(state, size);
    for word in words {
        assert!(text.contains(word), "{word:?} at {size:?} in\n{text}");
    }
}

/// What each pane must say in a window of 80 columns.
const SAID: [(&str, &[&str]); 7] = [
    (
        "1",
        &[
            "3 h 12 min",
            "1 running, 1 held, 2 free of 4",
            "! 1 of 2 engines down",
            "> ollama serve",
            "takes work",
            "https://plane.example: told 12 s ago",
            "other.example: not told yet: can't be",
            "behind NAT: a peer could not reach it",
            "16Uiu2HAmPlace, 21 ms away",
            "2: 1 direct, 1 relayed",
            "1 through 16Uiu2HAmRelay, 3 ms away: hole punching",
        ],
    ),
    (
        "2",
        &[
            "PEER",
            "PATH",
            "direct",
            "relayed",
            "RTT",
            "2 ms",
            "-1.5",
            "infernet/0.1.0",
            "is relayed through 16Uiu2HAmRelay: hole",
        ],
    ),
    (
        "3",
        &["offers 12", "won 5", "dearer 4, slower 1", "no_slot 3", "got at ad's price", "us", "$0.40", "$0.35", "llama3.1:8b"],
    ),
    ("4", &["1 job running, 42 tokens/s", "streaming", "settled", "TOK/S", "17", "AMOUNT", "$0.001234"]),
    (
        "5",
        &[
            "ollama at http://127.0.0.1:11434: 2 models, 3",
            "running, 1 waiting",
            "does not answer",
            "can't reach",
            "$0.10 in, $0.40 out",
            "RTX 4090: busy 97 %",
        ],
    ),
    ("6", &["earned $0.001234 in 5 jobs, $0.000005 more", "last 60 minutes  $0.001000", "last 24 hours  $0.001500", "#"]),
    ("7", &["13:05:07 INFO  peer joined", "WARN  engine does not answer"]),
];

/// What the first pane says further down than half of a large window's height.
const SAID_BELOW: [&str; 4] = [
    "behind NAT: a peer could not reach it",
    "16Uiu2HAmPlace, 21 ms away",
    "2: 1 direct, 1 relayed",
    "1 through 16Uiu2HAmRelay, 3 ms away: hole punching",
];

#[test]
fn each_pane_says_what_it_should_in_a_usual_window() {
    for (key, words) in SAID {
        let mut state = state();
        press(&mut state, key);
        check(&state, (80, 24), words);
        check(&state, (80, 24), &["1 node", "7 log", "q leave", "? help"]);
    }
}

#[test]
fn a_large_window_shows_all_panes_at_once() {
    let all: Vec<&str> =
        SAID.iter().flat_map(|(_, words)| words.iter().copied()).filter(|word| !word.contains("60 min")).collect();
    // Half a window has less room for a table than a whole small one.
    let is_cut = |word: &str| word == "infernet/0.1.0" || word.contains("example") || SAID_BELOW.contains(&word);
    let all: Vec<&str> = all.into_iter().filter(|word| !is_cut(word)).collect();
    check(&state(), (120, 40), &all);
    check(&state(), (160, 50), &all);
    let mut zoomed = state();
    press(&mut zoomed, "3z");
    let text = screen(&zoomed, (120, 40));
    assert!(text.contains("$0.35") && !text.contains("last 24 hours"), "{text}");
}

#[test]
fn a_small_window_has_one_pane_and_a_smaller_one_says_so() {
    let mut state = state();
    check(&state, (40, 12), &["1 node", " 2 ", "3 h 12 min", "q leave"]);
    press(&mut state, "3");
    check(&state, (40, 12), &["3 auctions", "offers 12", "OUTCOME", "MODEL", "more"]);
    press(&mut state, "jjjjjj");
    check(&state, (40, 12), &["dearer"]);
    check(&state, (29, 12), &["too small: 29x12"]);
    for size in [(1, 1), (30, 8), (31, 9), (500, 3), (3, 200), (110, 36), (255, 100)] {
        screen(&state, size);
    }
}

#[test]
fn nothing_a_stranger_says_gets_beyond_its_cells() {
    assert!(HOSTILE.chars().any(char::is_control));
    for key in ["1", "2", "3", "4", "5", "6", "7"] {
        let mut state = state();
        press(&mut state, key);
        let _ = state.handle(Input::Log(vec![HOSTILE.into()]), NOW);
        let _ = state.handle(Input::Told(Err(HOSTILE.into())), NOW);
        for size in [(80, 24), (120, 40), (40, 12)] {
            let text = screen(&state, size);
            assert!(text.chars().all(|c| c == '\n' || c == ' ' || c.is_ascii_graphic()), "{text:?}");
            assert!(text.lines().all(|line| line.len() <= size.0.into()));
        }
    }
}

#[test]
fn no_color_has_no_colour_and_the_chosen_pane_is_seen_all_the_same() {
    let coloured = |look| {
        buffer(&state(), look, (120, 40)).content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(!coloured(PLAIN));
    assert!(coloured(Look { colour: true, blocks: true }));
    let buffer = buffer(&state(), PLAIN, (80, 24));
    assert!(buffer.content().iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)));
}

#[test]
fn blocks_and_lines_are_drawn_where_they_can_be_shown() {
    let mut state = state();
    press(&mut state, "6");
    let drawn = buffer(&state, Look { colour: true, blocks: true }, (80, 24));
    let has = |sign: &str| drawn.content().iter().any(|cell| cell.symbol() == sign);
    assert!(has("\u{2588}") && has("\u{250f}"));
}

#[test]
fn a_node_that_is_gone_a_pause_and_draining_stand_in_the_first_line() {
    let mut state = state();
    press(&mut state, "p");
    check(&state, (80, 24), &["held still"]);
    press(&mut state, "p");
    let mut draining = snapshot();
    draining.status.seller.as_mut().unwrap().draining = true;
    let _ = state.handle(Input::Snapshot(Box::new(draining)), NOW);
    check(&state, (40, 12), &["draining", "! 1 warning"]);
    let _ = state.handle(Input::Gone("no node runs in /home/x".into()), NOW);
    let _ = state.handle(Input::Tick, UnixMillis(NOW.0 + 12_000));
    check(&state, (80, 24), &["node gone for 12 s, trying again: no node runs", "3 h 12 min"]);
}

#[test]
fn help_and_questions_lie_over_the_panes() {
    let mut state = state();
    press(&mut state, "?");
    check(&state, (80, 24), &["Shift-Tab", "d       take no new jobs", "any other key closes it."]);
    check(&state, (40, 12), &["Tab", "keys"]);
    press(&mut state, "xd");
    check(&state, (40, 12), &["Take no new jobs; running ones end.", "y yes"]);
}

/// As the screen does it: what is drawn says how far can be scrolled.
fn drawn(state: &mut State, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut drawn = Drawn::default();
    terminal.draw(|frame| drawn = render(state, PLAIN, frame)).unwrap();
    state.settle(drawn);
    screen(state, (width, height))
}

#[test]
fn all_of_the_help_can_be_read_in_a_small_window() {
    let (mut state, size) = (state(), (40, 12));
    press(&mut state, "?");
    let mut seen = drawn(&mut state, size);
    for _ in 0..30 {
        press(&mut state, "j");
        seen += &drawn(&mut state, size);
    }
    for (key, said) in HELP {
        for word in said.split(' ').chain([key]) {
            assert!(seen.contains(word), "{word:?} in\n{seen}");
        }
    }
    assert!(drawn(&mut state, size).contains("closes it."), "it stays, at its end");
    press(&mut state, "k");
    assert!(!drawn(&mut state, size).contains("closes it."), "and the first key back moves");
    press(&mut state, "x");
    assert!(!drawn(&mut state, size).contains(" keys "));
}

#[test]
fn the_log_stands_still_while_it_is_read_whatever_comes() {
    let (mut state, size) = (state(), (40, 12));
    let long =
        |n: usize| format!("2026-11-25 13:06:00 INFO  line {n} of some words that no line of forty columns can hold at once");
    let log = |state: &mut State, from: usize| {
        let _ = state.handle(Input::Log((from..from + 7).map(long).collect()), NOW);
    };
    (0..10).for_each(|n| log(&mut state, n * 7));
    press(&mut state, "7");
    assert!(drawn(&mut state, size).contains("line 69"));
    press(&mut state, "kkkk");
    let text = |state: &mut State| {
        let shown = drawn(state, size);
        // The frame's last line counts what is below.
        shown.lines().filter(|line| !line.contains("more")).collect::<Vec<_>>().join("\n")
    };
    let before = text(&mut state);
    assert!(!before.contains("line 69"), "{before}");
    for n in 10..40 {
        log(&mut state, n * 7);
        assert_eq!(text(&mut state), before);
    }
    press(&mut state, "G");
    assert!(text(&mut state).contains("line 279"));
    log(&mut state, 280);
    assert!(text(&mut state).contains("line 286"), "it follows again");
}

#[test]
fn a_node_that_has_not_answered_or_does_nothing_is_no_trouble() {
    let mut state = State::default();
    for key in ["1", "2", "3", "4", "5", "6", "7"] {
        press(&mut state, key);
        screen(&state, (80, 24));
        screen(&state, (120, 40));
    }
    check(&state, (120, 40), &["waiting for the node's first answer", "no log"]);
    let mut idle = snapshot();
    (idle.status.seller, idle.peers, idle.jobs) = (None, Vec::new(), Vec::new());
    idle.status.engines.clear();
    let _ = state.handle(Input::Snapshot(Box::new(idle)), NOW);
    check(&state, (120, 40), &["only buys", "no peers", "0 jobs running"]);
}
