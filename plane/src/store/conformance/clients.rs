//! Clients and how they show who they are.

use super::{Both, NOW, hash, later, name};
use crate::store::{ClientId, ClientRow, Identity, KeyRow, SessionRow, Store};
use infernet_wire::money::MicroUsd;

pub(super) async fn client(store: &dyn Store) -> ClientId {
    let id = ClientId(name("cl_"));
    let row = ClientRow {
        id: id.clone(),
        name: "Ada".into(),
        created: NOW,
        balance: MicroUsd(77),
        reserved: MicroUsd(7),
        admin: false,
    };
    store.put_client(&row).await.expect("added");
    id
}

pub(super) async fn conform(both: &Both) {
    a_client_is_changed_but_not_its_money(both.store()).await;
    an_identity_is_one_clients(both).await;
    keys_are_found_by_hash(both.store()).await;
    sessions_end(both.store()).await;
    a_challenge_is_taken_once(both).await;
    a_keys_use_is_noted_and_nothing_else(both.store()).await;
    turns_are_counted(both).await;
}

async fn a_client_is_changed_but_not_its_money(store: &dyn Store) {
    let id = client(store).await;
    let row = store.client(&id).await.expect("read").expect("a client");
    assert_eq!((row.balance, row.reserved), (MicroUsd(0), MicroUsd(0)), "money comes by entries alone");
    let changed = ClientRow { name: "Grace".into(), admin: true, balance: MicroUsd(9), created: later(9), ..row.clone() };
    store.put_client(&changed).await.expect("changed");
    let expected = ClientRow { name: "Grace".into(), admin: true, ..row };
    assert_eq!(store.client(&id).await, Ok(Some(expected)));
    assert_eq!(store.client(&ClientId(name("cl_"))).await, Ok(None));
}

async fn an_identity_is_one_clients(both: &Both) {
    let store = both.store();
    let subject = name("");
    let identity = |client: &ClientId, subject: &str, seconds| Identity {
        kind: "passkey".into(),
        subject: subject.into(),
        data: "{\"counter\":1}".into(),
        client: client.clone(),
        label: "laptop".into(),
        added: later(seconds),
    };
    let mut clients = Vec::new();
    for _ in 0..super::RACERS {
        clients.push(client(store).await);
    }
    let told = both.race(|store, racer| {
        let wish = identity(&clients[racer], &subject, 1);
        async move { store.put_identity(&wish).await.expect("an answer") }
    });
    let told = told.await;
    let owner = &told[0];
    assert!(told.iter().all(|told| told == owner), "all are told the same owner");
    let kept = store.identity("passkey", &subject).await.expect("read").expect("an identity");
    assert_eq!(kept, identity(owner, &subject, 1));
    assert_eq!(store.identity("evm", &subject).await, Ok(None));
    let used = Identity { data: "{\"counter\":2}".into(), ..kept.clone() };
    assert_eq!(store.update_identity(&used).await, Ok(true));
    assert_eq!(store.identity("passkey", &subject).await, Ok(Some(used.clone())));
    let stolen = Identity { client: client(store).await, ..used.clone() };
    assert_eq!(store.update_identity(&stolen).await, Ok(false), "it is another's");
    assert_eq!(store.update_identity(&identity(owner, &name(""), 1)).await, Ok(false), "there is none");
    let second = identity(owner, &name(""), 0);
    store.put_identity(&second).await.expect("added");
    assert_eq!(store.identities(owner).await, Ok(vec![second, used]), "the oldest first");
}

fn key_row(client: &ClientId) -> KeyRow {
    KeyRow {
        hash: hash(),
        prefix: "ifr_1a2b".into(),
        client: client.clone(),
        name: "laptop".into(),
        scopes: vec!["jobs".into(), "read".into()],
        per_day: Some(MicroUsd(1_000_000)),
        per_minute: 60,
        created: NOW,
        expires: Some(later(1000)),
        used: None,
        revoked: None,
    }
}

async fn keys_are_found_by_hash(store: &dyn Store) {
    let mine = client(store).await;
    let row = |seconds| KeyRow { created: later(seconds), ..key_row(&mine) };
    let (old, new) = (row(1), KeyRow { per_day: None, expires: None, scopes: vec![], ..row(2) });
    for key in [&old, &new] {
        store.put_key(key).await.expect("added");
        assert_eq!(store.key(key.hash).await, Ok(Some(key.clone())));
    }
    assert_eq!(store.keys(&mine).await, Ok(vec![new.clone(), old.clone()]), "the newest first");
    let revoked = KeyRow { revoked: Some(later(3)), used: Some(later(2)), ..old };
    store.put_key(&revoked).await.expect("changed");
    assert_eq!(store.key(revoked.hash).await, Ok(Some(revoked.clone())), "a revoked one is still there");
    assert_eq!(store.keys(&mine).await, Ok(vec![new, revoked]));
    assert_eq!(store.key(hash()).await, Ok(None));
}

async fn a_keys_use_is_noted_and_nothing_else(store: &dyn Store) {
    let client = client(store).await;
    let row = key_row(&client);
    store.put_key(&row).await.expect("kept");
    store.put_key(&KeyRow { revoked: Some(NOW), ..row.clone() }).await.expect("kept");
    for (at, used) in [(later(60), later(60)), (NOW, later(60))] {
        store.touch_key(row.hash, at).await.expect("noted");
        let found = store.key(row.hash).await.expect("an answer").expect("it is there");
        assert_eq!((found.used, found.revoked), (Some(used), Some(NOW)), "the latest, and it stays revoked");
    }
    store.touch_key(hash(), NOW).await.expect("nobody's key is nobody's");
}

async fn sessions_end(store: &dyn Store) {
    let mine = client(store).await;
    let session = SessionRow { hash: hash(), client: mine.clone(), until: later(60) };
    let other = SessionRow { hash: hash(), client: mine, until: later(120) };
    store.put_session(&session).await.expect("added");
    store.put_session(&other).await.expect("added");
    assert_eq!(store.session(session.hash, later(59)).await, Ok(Some(session.clone())));
    assert_eq!(store.session(session.hash, later(60)).await, Ok(None), "it is over");
    store.forget_nonces(later(100)).await.expect("forgotten");
    assert_eq!(store.session(session.hash, NOW).await, Ok(None), "what is over is forgotten with the nonces");
    assert_eq!(store.session(other.hash, NOW).await, Ok(Some(other.clone())), "and nothing else");
    store.end_session(other.hash).await.expect("ended");
    assert_eq!(store.session(other.hash, NOW).await, Ok(None));
    store.end_session(hash()).await.expect("no session is ended already");
}

async fn a_challenge_is_taken_once(both: &Both) {
    let (store, id) = (both.store(), name(""));
    store.put_challenge(&id, "what was 'asked'", later(60)).await.expect("kept");
    for _ in 0..2 {
        assert_eq!(both.1.challenge(&id, NOW).await, Ok(Some("what was 'asked'".into())), "to look is not to take");
    }
    assert_eq!(both.1.challenge(&id, later(60)).await, Ok(None), "it is over");
    let told = both.race(|store, _| {
        let id = id.clone();
        async move { store.take_challenge(&id, NOW).await.expect("an answer") }
    });
    let taken: Vec<String> = told.await.into_iter().flatten().collect();
    assert_eq!(taken, ["what was 'asked'"], "of all who ask at once one gets it");
    let late = name("");
    store.put_challenge(&late, "x", later(60)).await.expect("kept");
    assert_eq!(store.take_challenge(&late, later(60)).await, Ok(None), "it is over");
    store.put_challenge(&late, "x", later(60)).await.expect("kept");
    store.put_challenge(&late, "y", later(300)).await.expect("kept");
    store.forget_nonces(later(100)).await.expect("forgotten");
    assert_eq!(store.take_challenge(&late, later(100)).await, Ok(Some("y".into())), "the newest of a name counts");
    assert_eq!(store.take_challenge(&name(""), NOW).await, Ok(None));
}

async fn turns_are_counted(both: &Both) {
    let (store, who) = (both.store(), name("ip "));
    let told = both.race(|store, _| {
        let who = who.clone();
        async move { store.take_turn(&who, 5, NOW).await.expect("an answer") }
    });
    assert_eq!(told.await.into_iter().filter(|may| *may).count(), 5, "whoever asks at the same time");
    assert_eq!(store.take_turn(&who, 5, later(11)).await, Ok(false), "the next comes after a fifth of a minute");
    assert_eq!(store.take_turn(&who, 5, later(13)).await, Ok(true));
    assert_eq!(store.take_turn(&who, 5, later(13)).await, Ok(false));
    store.forget_nonces(later(14)).await.expect("forgotten");
    assert_eq!(store.take_turn(&who, 5, later(14)).await, Ok(false), "what is used is not forgotten");
    assert_eq!(store.take_turn(&name("ip "), 1, NOW).await, Ok(true), "another's turns are others");
    assert_eq!(store.take_turn(&name("ip "), 0, NOW).await, Ok(false));
    store.forget_nonces(later(1000)).await.expect("forgotten");
    for _ in 0..5 {
        assert_eq!(store.take_turn(&who, 5, later(1000)).await, Ok(true), "a minute later all are there");
    }
    assert_eq!(store.take_turn(&who, 5, later(1000)).await, Ok(false));
    let busy = name("key ");
    for _ in 0..7 {
        assert_eq!(store.take_turn(&busy, 7, NOW).await, Ok(true), "a minute that seven do not divide has seven");
    }
    assert_eq!(store.take_turn(&busy, 7, NOW).await, Ok(false));
}
