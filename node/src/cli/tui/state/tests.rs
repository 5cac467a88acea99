use super::{super::sample::snapshot, *};

fn state() -> State {
    let mut state = State::default();
    assert!(press(&mut state, Input::Snapshot(Box::new(snapshot()))).is_none());
    state
}

/// What `input` orders; it must not end.
fn press(state: &mut State, input: Input) -> Option<Order> {
    match state.handle(input, UnixMillis(1_000_000)) {
        ControlFlow::Continue(order) => order,
        ControlFlow::Break(()) => panic!("it ended"),
    }
}

fn keys(state: &mut State, keys: &str) -> Vec<Order> {
    keys.chars().filter_map(|key| press(state, Input::Key(Key::Char(key)))).collect()
}

#[test]
fn q_and_ctrl_c_leave_even_below_a_question() {
    for key in [Key::Char('q'), Key::Interrupt] {
        assert!(state().handle(Input::Key(key), UnixMillis(0)).is_break());
    }
    let mut asked = state();
    keys(&mut asked, "d");
    assert!(asked.handle(Input::Key(Key::Interrupt), UnixMillis(0)).is_break());
    keys(&mut asked, "q");
    assert_eq!(asked.overlay, Overlay::None, "q answers no");
}

#[test]
fn panes_go_round_and_have_numbers() {
    let mut state = state();
    press(&mut state, Input::Key(Key::BackTab));
    assert_eq!(state.pane, Pane::Log);
    press(&mut state, Input::Key(Key::Tab));
    assert_eq!(state.pane, Pane::Node);
    for pane in Pane::ALL {
        keys(&mut state, &pane.number().to_string());
        assert_eq!(state.pane, pane);
    }
    keys(&mut state, "890");
    assert_eq!(state.pane, Pane::Log);
}

#[test]
fn draining_is_asked_about_first() {
    let mut state = state();
    assert_eq!(keys(&mut state, "dn"), []);
    assert_eq!(keys(&mut state, "dy"), [Order::Drain(true)]);
    press(&mut state, Input::Told(Ok(true)));
    assert!(state.notice.as_ref().is_some_and(|text| text.contains("no new jobs")));

    let mut drained = snapshot();
    drained.status.seller.as_mut().unwrap().draining = true;
    press(&mut state, Input::Snapshot(Box::new(drained)));
    assert_eq!(keys(&mut state, "dY"), [Order::Drain(false)]);
    press(&mut state, Input::Told(Err("no".into())));
    assert_eq!(state.notice.as_deref(), Some("no"));
}

#[test]
fn there_is_nothing_to_drain_without_a_seller_or_a_node() {
    let mut state = state();
    press(&mut state, Input::Gone("it is gone".into()));
    assert_eq!(keys(&mut state, "dy"), []);
    let mut buyer = snapshot();
    buyer.status.seller = None;
    press(&mut state, Input::Snapshot(Box::new(buyer)));
    assert_eq!(keys(&mut state, "dy"), []);
    keys(&mut state, "d");
    assert!(state.notice.as_ref().is_some_and(|text| text.contains("sells nothing")));
}

#[test]
fn a_pause_holds_everything_still_and_loses_nothing() {
    let mut state = state();
    keys(&mut state, "p");
    let mut later = snapshot();
    later.status.peers = 99;
    press(&mut state, Input::Snapshot(Box::new(later)));
    press(&mut state, Input::Log(vec!["new".into()]));
    assert_ne!(state.shown().snapshot.as_ref().unwrap().status.peers, 99);
    assert!(state.shown().log.is_empty() && state.is_paused());
    keys(&mut state, "p");
    assert_eq!(state.shown().snapshot.as_ref().unwrap().status.peers, 99);
    assert_eq!(state.shown().log, ["new"]);
}

#[test]
fn a_node_that_goes_is_told_of_until_it_is_back() {
    let mut state = state();
    press(&mut state, Input::Gone("does not answer".into()));
    let _ = state.handle(Input::Gone("no node runs".into()), UnixMillis(2_000_000));
    assert_eq!(state.gone, Some((UnixMillis(1_000_000), "no node runs".into())));
    assert!(state.shown().snapshot.is_some(), "what was known stays");
    press(&mut state, Input::Snapshot(Box::new(snapshot())));
    assert_eq!(state.gone, None);
}

#[test]
fn scrolling_ends_where_the_rows_end() {
    let mut state = state();
    keys(&mut state, "2jjjk");
    assert_eq!(state.scrolled(Pane::Peers), 2);
    keys(&mut state, "G");
    state.settle(Drawn { hidden: vec![(Pane::Peers, 7)], ..Drawn::default() });
    keys(&mut state, "k");
    assert_eq!(state.scrolled(Pane::Peers), 6, "the first k after the end moves");
    keys(&mut state, "g");
    assert_eq!((state.scrolled(Pane::Peers), state.scrolled(Pane::Node)), (0, 0));
}

#[test]
fn the_log_is_bounded_and_its_lines_keep_their_numbers() {
    let mut state = state();
    let lines = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<_>>();
    press(&mut state, Input::Log(lines(LOG_LINES + 5)));
    assert_eq!((state.shown().log.len(), state.shown().log[0].as_str()), (LOG_LINES, "5"));
    assert_eq!(state.shown().log_gone, 5);
    press(&mut state, Input::Log(lines(3)));
    assert_eq!((state.shown().log.len(), state.shown().log_gone), (LOG_LINES, 8));
}
