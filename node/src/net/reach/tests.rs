use super::{relays::HELD, *};
use proptest::prelude::*;

const T0: UnixMillis = UnixMillis(1_000_000);
const OWN: &str = "/ip4/203.0.113.7/tcp/46337";
const PRIVATE: &str = "/ip4/192.168.0.7/tcp/46337";
const OUTSIDE: &str = "/ip4/198.51.100.7/tcp/46337";

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn setup(mode: Mode) -> Setup {
    Setup { me: PeerId::random(), mode, serves: true, external: vec![], hidden: vec![], relays: vec![] }
}

fn worker() -> Reach {
    let mut reach = Reach::new(setup(Mode::Auto));
    reach.listens(&address(PRIVATE));
    reach
}

fn texts(addresses: &[Multiaddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// A relay on network `n`.
fn add(reach: &mut Reach, n: u8, rtt_ms: u32) -> PeerId {
    let id = PeerId::random();
    reach.is_relay(id, vec![address(&format!("/ip4/198.51.{n}.1/tcp/46337"))], T0);
    reach.relays_mut().pinged(&id, rtt_ms);
    id
}

fn asked(reach: &mut Reach, now: UnixMillis) -> Vec<PeerId> {
    reach.decide(now, 0).into_iter().map(|reserve| reserve.relay).collect()
}

#[test]
fn while_nobody_has_tried_a_node_tells_where_it_listens_as_it_always_did() {
    let mut reach = Reach::new(setup(Mode::Auto));
    reach.listens(&address("/ip4/127.0.0.1/tcp/1"));
    let told = reach.told();
    assert_eq!(told.state, Reachability::Unknown);
    assert_eq!(texts(&told.addresses), ["/ip4/127.0.0.1/tcp/1"]);
    assert_eq!(told.advertised, told.addresses);
    assert_eq!(reach.due(T0), None, "and looks for no relay");
}

#[test]
fn an_address_that_is_hidden_is_told_in_no_state() {
    let hidden = vec!["192.168.0.7".parse().unwrap()];
    let mut reach = Reach::new(Setup { hidden, ..setup(Mode::Auto) });
    reach.listens(&address(PRIVATE));
    assert_eq!(reach.told().addresses, []);
    reach.tried(&address(OUTSIDE), false);
    assert_eq!((reach.told().state, reach.told().addresses), (Reachability::BehindNat, vec![]));
    reach.listens(&address(OWN));
    assert_eq!(texts(&reach.told().addresses), Vec::<String>::new(), "nor one that others can't reach");
    reach.tried(&address(OUTSIDE), true);
    assert_eq!(texts(&reach.told().addresses), [OUTSIDE]);
}

#[test]
fn a_verdict_changes_what_is_told() {
    let mut reach = worker();
    reach.listens(&address(OWN));
    reach.tried(&address(OWN), false);
    let told = reach.told();
    assert_eq!(told.state, Reachability::BehindNat);
    assert!(told.why.contains(OWN), "{}", told.why);
    assert_eq!(texts(&told.addresses), [PRIVATE], "neighbours still find it");
    assert_eq!(told.advertised, [], "nobody else");
    reach.tried(&address(OWN), true);
    let told = reach.told();
    assert_eq!((told.state, texts(&told.advertised)), (Reachability::Open, vec![OWN.to_owned()]));
    assert_eq!(texts(&told.addresses), [OWN, PRIVATE]);
    reach.stopped_listening(&address(OWN));
    assert_eq!(reach.state(), Reachability::Unknown, "the uplink is another");
}

#[test]
fn an_address_outside_is_mapped_whoever_says_so() {
    for learn in [(|reach: &mut Reach| reach.mapped(&address(OUTSIDE), true)) as fn(&mut Reach), |reach| {
        reach.setup.external.push(address(OUTSIDE))
    }] {
        let mut reach = worker();
        reach.tried(&address("/ip4/198.51.100.8/tcp/1"), false);
        learn(&mut reach);
        let told = reach.told();
        assert_eq!((told.state, texts(&told.advertised)), (Reachability::Mapped, vec![OUTSIDE.to_owned()]), "{}", told.why);
        add(&mut reach, 1, 5);
        assert!(asked(&mut reach, T0).is_empty(), "no relay is needed");
    }
}

#[test]
fn a_peer_that_came_through_a_nat_does_not_prove_that_others_can() {
    let mut reach = worker();
    reach.tried(&address(OUTSIDE), true);
    let near = add(&mut reach, 1, 5);
    assert_eq!(asked(&mut reach, T0), [near], "its filter may know the peer's address");
    reach.relays_mut().reserved(&near, T0);
    let told = reach.told();
    assert_eq!((told.state, told.advertised.len()), (Reachability::Mapped, 2), "{told:?}");
    assert!(texts(&told.advertised).contains(&OUTSIDE.to_owned()));
    reach.mapped(&address(OUTSIDE), true);
    assert_eq!(texts(&reach.told().advertised), [OUTSIDE], "the router itself says so");
}

#[test]
fn behind_a_nat_the_two_nearest_relays_on_different_networks_are_held_and_told() {
    let mut reach = worker();
    reach.tried(&address(OUTSIDE), false);
    let (near, twin, other, _far) =
        (add(&mut reach, 1, 5), add(&mut reach, 1, 6), add(&mut reach, 2, 50), add(&mut reach, 3, 90));
    assert_eq!(asked(&mut reach, T0), [near, other]);
    assert!(asked(&mut reach, T0).is_empty());
    reach.relays_mut().reserved(&near, T0);
    reach.relays_mut().reserved(&other, T0);
    let told = reach.told();
    assert_eq!(told.advertised.len(), 2);
    assert!(told.advertised.iter().all(|address| discovery::relay_of(address).is_some()), "{:?}", told.advertised);
    assert!(texts(&told.addresses).contains(&PRIVATE.to_owned()));
    reach.relays_mut().left(&near, T0, 0);
    assert_eq!(reach.told().relays, [other]);
    assert_eq!(asked(&mut reach, T0), [twin], "the next best that answers, at once");
}

#[test]
fn a_relay_that_comes_back_is_asked_within_a_minute_and_one_that_nobody_named_is_forgotten() {
    let named = PeerId::random();
    let relays = vec![address(&format!("/ip4/198.51.100.1/tcp/46337/p2p/{named}"))];
    let mut reach = Reach::new(Setup { relays, ..setup(Mode::RelayOnly) });
    let found = add(&mut reach, 9, 1);
    reach.relays_mut().left(&found, T0, 0);
    let (mut now, mut asks) = (T0, Vec::new());
    for _ in 0..40 {
        now = reach.due(now).expect("the named one is never given up").max(now);
        for id in asked(&mut reach, now) {
            asks.push((id, now));
            reach.relays_mut().lost(&id, now, 0);
        }
    }
    let times = |id: &PeerId| asks.iter().filter(|(other, _)| other == id).map(|(_, at)| *at).collect::<Vec<_>>();
    let pauses: Vec<u64> = times(&named).windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert_eq!(pauses[..3], [750, 1_500, 3_000]);
    assert!(pauses.iter().all(|pause| *pause <= 40_000), "{pauses:?}");
    assert_eq!(times(&found).len(), 9, "then it is forgotten");
    assert_eq!(reach.relays().infos().len(), 1);
    reach.relays_mut().reserved(&named, T0);
    assert_eq!(reach.told().relays, [named]);
}

/// Which relay is tried now.
fn tried(reach: &mut Reach, now: UnixMillis) -> Option<PeerId> {
    reach.next_to_prove(|_| false, now, 0).map(|prove| prove.relay)
}

#[test]
fn a_relay_that_carries_nothing_is_let_go_and_another_is_asked_before_it_is_tried_again() {
    let mut reach = Reach::new(setup(Mode::RelayOnly));
    let (near, far) = (add(&mut reach, 1, 5), add(&mut reach, 2, 50));
    let third = add(&mut reach, 3, 90);
    assert_eq!(asked(&mut reach, T0), [near, far]);
    [near, far].iter().for_each(|relay| reach.relays_mut().reserved(relay, T0));
    assert_eq!(reach.told().advertised.len(), 2, "a relay is trusted at first");

    // One at a time, and what comes of the one puts nothing off for the other.
    let first = tried(&mut reach, T0).expect("a place that was got is tried at once");
    assert_eq!(tried(&mut reach, T0), None);
    assert!(!reach.relays_mut().proved(&first, first == far, T0, 0));
    let second = tried(&mut reach, T0).expect("the other");
    assert!(first != second && !reach.relays_mut().proved(&second, second == far, T0, 0));
    assert_eq!(tried(&mut reach, T0), None);

    let soon = reach.due(T0).expect("the near one is tried again");
    assert_eq!((tried(&mut reach, soon), soon.since(T0) < 60_000), (Some(near), true));
    assert!(reach.relays_mut().proved(&near, false, soon, 0), "it is let go");
    assert_eq!((reach.told().relays, asked(&mut reach, soon)), (vec![far], vec![third]));
    let info = reach.relays().infos().into_iter().find(|relay| relay.id == near).unwrap();
    assert_eq!((info.state, info.barren), ("known", 1));

    // When it is wanted and has rested it is asked again, and told of when a circuit has come.
    reach.relays_mut().lost(&third, soon, 0);
    reach.relays_mut().left(&third, soon, 0);
    let rested = soon.after(10 * 60_000);
    assert_eq!(asked(&mut reach, rested), [third], "after all others");
    reach.relays_mut().lost(&third, rested, 0);
    assert_eq!(asked(&mut reach, rested), [near]);
    reach.relays_mut().reserved(&near, rested);
    assert_eq!(reach.told().relays, [far]);
    reach.relays_mut().carried(&near, rested, 0);
    assert_eq!(reach.told().relays.len(), 2);
}

#[test]
fn circuits_that_come_or_stand_are_proof_and_a_buyer_proves_nothing() {
    let mut reach = Reach::new(setup(Mode::RelayOnly));
    let relay = add(&mut reach, 1, 5);
    assert_eq!(asked(&mut reach, T0), [relay]);
    reach.relays_mut().reserved(&relay, T0);
    reach.relays_mut().carried(&relay, T0, 0);
    assert_eq!(tried(&mut reach, T0.after(60_000)), None);
    let due = T0.after(10 * 60_000);
    assert_eq!(reach.next_to_prove(|id| *id == relay, due, 0), None, "one stands");
    assert_eq!(tried(&mut reach, due), None);
    assert_eq!(tried(&mut reach, due.after(10 * 60_000)), Some(relay));
    // What ends while it is tried is lost, and no more.
    reach.relays_mut().lost(&relay, due, 0);
    assert!(!reach.relays_mut().proved(&relay, false, due, 0));
    assert_eq!(reach.relays().infos()[0].barren, 0);

    let mut buyer = Reach::new(Setup { serves: false, ..setup(Mode::RelayOnly) });
    let relay = add(&mut buyer, 1, 5);
    buyer.relays_mut().reserved(&relay, T0);
    assert_eq!(tried(&mut buyer, T0), None);
}

#[test]
fn relays_are_used_to_be_safe_when_nobody_tells_whether_we_can_be_dialled() {
    let mut reach = worker();
    let relay = add(&mut reach, 1, 5);
    assert!(asked(&mut reach, T0).is_empty());
    assert_eq!(reach.due(T0), Some(T0.after(PATIENCE_MS)));
    assert_eq!(asked(&mut reach, T0.after(PATIENCE_MS)), [relay]);
    reach.relays_mut().reserved(&relay, T0);
    let told = reach.told();
    assert_eq!((told.state, told.addresses.len()), (Reachability::Unknown, 2), "beside the address that may work");
}

#[test]
fn who_tells_no_address_tells_circuits_alone_and_a_buyer_needs_none() {
    for mode in [Mode::RelayOnly, Mode::OutboundOnly] {
        let mut reach = Reach::new(Setup { external: vec![address(OUTSIDE)], ..setup(mode) });
        reach.listens(&address(OWN));
        reach.tried(&address(OWN), true);
        reach.mapped(&address(OUTSIDE), true);
        let relay = add(&mut reach, 1, 5);
        assert_eq!(asked(&mut reach, T0), [relay]);
        reach.relays_mut().reserved(&relay, T0);
        let told = reach.told();
        assert_eq!(told.addresses, told.advertised);
        assert_eq!(texts(&told.addresses), [format!("/ip4/198.51.1.1/tcp/46337/p2p/{relay}/p2p-circuit")]);
    }
    let mut buyer = Reach::new(Setup { serves: false, ..setup(Mode::Auto) });
    add(&mut buyer, 1, 5);
    assert!(asked(&mut buyer, T0.after(PATIENCE_MS)).is_empty());
    assert_eq!(buyer.due(T0), None);
}

#[test]
fn modes_are_written_as_they_are_read() {
    for mode in Mode::ALL {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    assert!("both".parse::<Mode>().is_err_and(|fix| fix.contains("relay-only")));
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    Listens(u8),
    Stops(u8),
    Dialled(u8, bool),
    Mapped(u8, bool),
    Relay(u8),
    Reserved(u8),
    Carried(u8),
    Tried(bool),
    Lost(u8),
    Left(u8),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u8>().prop_map(Step::Listens),
        any::<u8>().prop_map(Step::Stops),
        any::<(u8, bool)>().prop_map(|(n, ok)| Step::Dialled(n, ok)),
        any::<(u8, bool)>().prop_map(|(n, ok)| Step::Mapped(n, ok)),
        any::<u8>().prop_map(Step::Relay),
        any::<u8>().prop_map(Step::Reserved),
        any::<u8>().prop_map(Step::Carried),
        any::<bool>().prop_map(Step::Tried),
        any::<u8>().prop_map(Step::Lost),
        any::<u8>().prop_map(Step::Left),
        (0..120_000u32).prop_map(Step::Wait),
    ]
}

fn relay_id(n: u8) -> PeerId {
    let mut key = [7; 32];
    key[0] = n;
    PeerId::from_bytes(&[&[0x12, 0x20][..], &key].concat()).unwrap()
}

proptest! {
    #[test]
    fn whatever_happens_nothing_grows_and_relays_are_asked_in_bounds(steps in prop::collection::vec(step(), 1..300), chance: u64) {
        let mut reach = Reach::new(setup(Mode::Auto));
        let (mut now, mut asks, mut trying) = (T0, 0u64, None);
        let place = |n: u8| address(&format!("/ip4/198.51.{n}.7/tcp/1"));
        for step in steps {
            let id = |n: &u8| relay_id(*n);
            match &step {
                Step::Listens(n) => reach.listens(&place(n % 4)),
                Step::Stops(n) => reach.stopped_listening(&place(n % 4)),
                Step::Dialled(n, ok) => reach.tried(&place(*n), *ok),
                Step::Mapped(n, ok) => reach.mapped(&place(*n), *ok),
                Step::Relay(n) => reach.is_relay(id(n), vec![place(*n)], now),
                Step::Reserved(n) => reach.relays_mut().reserved(&id(n), now),
                Step::Carried(n) => reach.relays_mut().carried(&id(n), now, chance),
                Step::Tried(came) => {
                    if let Some(relay) = trying.take() {
                        let gone = reach.relays_mut().proved(&relay, *came, now, chance);
                        prop_assert!(!gone || !reach.told().relays.contains(&relay), "what carries nothing is told to nobody");
                    }
                }
                Step::Lost(n) => reach.relays_mut().lost(&id(n), now, chance),
                Step::Left(n) => reach.relays_mut().left(&id(n), now, chance),
                Step::Wait(ms) => now = now.after((*ms).into()),
            }
            let ask = reach.decide(now, chance);
            asks += ask.len() as u64;
            while let Some(prove) = reach.next_to_prove(|_| false, now, chance) {
                prop_assert!(trying.replace(prove.relay).is_none(), "one at a time");
            }
            let infos = reach.relays().infos();
            prop_assert!(ask.len() <= HELD && infos.len() <= 32);
            prop_assert!(ask.is_empty() || infos.iter().filter(|relay| relay.state != "known").count() <= HELD, "{infos:?}");
            prop_assert!(reach.confirmed.len() + reach.refused.len() + reach.mapped.len() <= 3 * MAX_VERDICTS);
            prop_assert!(reach.due(now).is_none_or(|due| due > now), "nothing that is due is left");
            let told = reach.told();
            prop_assert!(told.addresses.len() <= MAX_TOLD && told.advertised.len() <= MAX_TOLD);
        }
        prop_assert!(asks <= 600);
    }
}
