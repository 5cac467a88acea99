//! The embedded store keeps the rules, and what it was told.

use super::EmbeddedStore;
use crate::store::{Nodes, Pubkey, Store, StoreError, conformance::conforms};
use infernet_wire::{time::UnixMillis, topic::NetworkId};
use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};
use tempfile::tempdir;

fn open(directory: &Path) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(directory, &NetworkId::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let home = tempdir().expect("a directory");
    let store: Arc<dyn Store> = Arc::new(open(home.path()).expect("a store"));
    conforms(store.clone(), store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_nonce_is_used_after_a_restart() {
    let home = tempdir().expect("a directory");
    let store = open(home.path()).expect("a store");
    assert_eq!(store.use_nonce(Pubkey([1; 32]), "n", UnixMillis(9)).await, Ok(true));
    drop(store);
    let again = open(home.path()).expect("a store");
    assert_eq!(again.use_nonce(Pubkey([1; 32]), "n", UnixMillis(9)).await, Ok(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_told_what_to_do() {
    let home = tempdir().expect("a directory");
    let _first = open(home.path()).expect("a store");
    let told = open(home.path()).err().expect("refused").to_string();
    assert!(told.contains("a plane is running"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_being_let_go_can_be_opened_again() {
    let home = tempdir().expect("a directory");
    for n in 0..20 {
        let store = open(home.path()).expect("it waits for the one before");
        assert_eq!(store.use_nonce(Pubkey([1; 32]), &format!("{n}"), UnixMillis(9)).await, Ok(true));
        std::thread::spawn(move || drop(store));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_store_is_its_owners_alone() {
    let home = tempdir().expect("a directory");
    let inner = home.path().join("new");
    let _store = open(&inner).expect("a store");
    for directory in [inner.clone(), inner.join("plane-main")] {
        let mode = std::fs::metadata(&directory).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", directory.display());
    }
}
