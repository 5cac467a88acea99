//! The contract `Channels`, and the node's wallet, on a real EVM chain. Each test has a chain of its own.
//!
//! `testnet/contracts/README.md` says which attack which test is about.
#![cfg(test)]

mod attacks;
mod exits;
mod rpc;
mod tokens;
mod wallet;

use infernet_node::settlement::evm::{
    contract::{Channel, Channels},
    rpc::Receipt,
    step::{Stage, Step},
    transaction::Call,
    wallet::{EvmError, Wallet},
};
use infernet_testnet::evm::{self, Anvil, ChainError, Program, act, at_once, give_tokens};
use infernet_wire::{
    evm::EvmAddress,
    id::JobId,
    key::NodeKey,
    voucher::{ChannelTerms, Close, SignedVoucher, Voucher},
};

/// What every account has of the token at first.
const TOKENS: u128 = 1_000_000_000;

/// The same in coin or token: most tests are about both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Coin,
    Token,
}

/// A chain with the contract, a token, and two who trade.
struct Scene {
    anvil: Anvil,
    channels: Channels,
    token: EvmAddress,
    payer: Wallet,
    payee: Wallet,
    /// With no part in anything.
    stranger: Wallet,
}

fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes(&[n; 32]).expect("a scalar")
}

impl Scene {
    async fn new() -> Option<Self> {
        let anvil = evm::chain("the contract was not tested").await?;
        let [payer, payee, stranger] = [key(2), key(3), key(4)];
        let wallet = async |key| anvil.wallet(&key, at_once()).await.expect("an account");
        let (payer, payee, stranger) = (wallet(payer).await, wallet(payee).await, wallet(stranger).await);
        let channels = Program::Channels.deploy(&stranger).await.expect("deployed");
        let channels = payer.check_contract(&channels).await.expect("our contract");
        let token = Program::TestToken.deploy(&stranger).await.expect("deployed");
        for wallet in [&payer, &stranger] {
            give_tokens(wallet, &token, TOKENS, &channels.0).await.expect("tokens");
        }
        Some(Scene { anvil, channels, token, payer, payee, stranger })
    }

    fn coin(&self, kind: Kind) -> EvmAddress {
        if kind == Kind::Coin { EvmAddress::ZERO } else { self.token }
    }

    /// A channel from payer to payee with this deposit.
    async fn open(&self, kind: Kind, deposit: u128, salt: u8) -> ChannelTerms {
        let token = self.coin(kind);
        let terms = self.terms(&token, salt);
        self.ok(&self.payer, self.channels.open(&terms.payee, &token, deposit, terms.salt)).await;
        terms
    }

    fn terms(&self, token: &EvmAddress, salt: u8) -> ChannelTerms {
        evm::terms(&self.channels, &self.payer.address(), &self.payee.address(), token, salt)
    }

    async fn ok(&self, wallet: &Wallet, call: Call) -> Receipt {
        act(wallet, call).await.expect("it works")
    }

    /// Nothing is done, and the contract says why.
    async fn refused(&self, wallet: &Wallet, call: Call, why: &str) {
        match act(wallet, call).await {
            Err(ChainError::Evm(EvmError::Refused(says))) => assert!(says.contains(why), "{says}, and not {why}"),
            other => panic!("not refused as {why:?}: {other:?}"),
        }
    }

    async fn state(&self, terms: &ChannelTerms) -> Channel {
        self.payer.channel(&self.channels, &terms.id()).await.expect("asked").expect("opened")
    }

    async fn balance(&self, kind: Kind, account: &EvmAddress) -> u128 {
        self.payer.balance(&self.coin(kind), account).await.expect("a balance")
    }

    /// What the contract holds.
    async fn held(&self, kind: Kind) -> u128 {
        self.balance(kind, &self.channels.0).await
    }

    /// Two who meet in one block, in this order; what becomes of each. Both were asked for before either was sent, when both would
    /// still have worked.
    async fn meet(&self, first: (&Wallet, Call), second: (&Wallet, Call)) -> (Stage, Stage) {
        self.anvil.automine(false).await.expect("held");
        let mut one = first.0.prepare(first.1).await.expect("prepared");
        let mut two = second.0.prepare(second.1).await.expect("prepared");
        for (wallet, step) in [(first.0, &mut one), (second.0, &mut two)] {
            wallet.advance(step, &mut |_| async { Ok(()) }).await.expect("sent");
        }
        self.anvil.mine(1).await.expect("a block");
        self.anvil.automine(true).await.expect("goes on");
        (end(first.0, one).await, end(second.0, two).await)
    }
}

async fn end(wallet: &Wallet, mut step: Step) -> Stage {
    wallet.drive(&mut step, evm::PATIENCE, |_| async { Ok(()) }).await.expect("an end")
}

fn voucher(terms: &ChannelTerms, amount: u128) -> Voucher {
    Voucher { chain: terms.chain, contract: terms.contract, channel: terms.id(), job: JobId([9; 16]), amount }
}

/// What the payer promises.
fn pays(terms: &ChannelTerms, amount: u128) -> SignedVoucher {
    SignedVoucher::sign(&key(2), voucher(terms, amount)).expect("a voucher")
}

fn closes(terms: &ChannelTerms, amount: u128) -> Close {
    Close { chain: terms.chain, contract: terms.contract, channel: terms.id(), amount }
}

#[tokio::test]
async fn a_channel_pays_by_its_highest_voucher_and_closes_by_agreement() {
    let Some(scene) = Scene::new().await else { return };
    for (kind, salt) in [(Kind::Token, 1), (Kind::Coin, 2)] {
        let before = scene.balance(kind, &scene.payee.address()).await;
        let terms = scene.open(kind, 1_000_000, salt).await;
        scene.ok(&scene.payer, scene.channels.top_up(&terms.id(), &terms.token, 500_000)).await;
        assert_eq!((scene.state(&terms).await.deposit, scene.held(kind).await), (1_500_000, 1_500_000));
        // A stranger sends it, so that the payee's own coin is not touched by gas: the money goes to the payee alone.
        scene.ok(&scene.stranger, scene.channels.redeem(&pays(&terms, 400_000))).await;
        scene.ok(&scene.stranger, scene.channels.redeem(&pays(&terms, 700_000))).await;
        assert_eq!(scene.balance(kind, &scene.payee.address()).await, before + 700_000);
        let close = closes(&terms, 900_000);
        let payer_before = scene.balance(kind, &scene.payer.address()).await;
        let (payer, payee) = (close.sign(&key(2)), close.sign(&key(3)));
        scene.ok(&scene.stranger, scene.channels.close(&close.channel, close.amount, &payer, &payee)).await;
        assert_eq!(scene.balance(kind, &scene.payee.address()).await, before + 900_000);
        assert_eq!(scene.balance(kind, &scene.payer.address()).await, payer_before + 600_000);
        assert_eq!((scene.state(&terms).await.left(), scene.held(kind).await), (0, 0));
    }
}

/// What the node knows of the contract is what is committed.
#[test]
fn the_node_knows_the_contract_that_is_committed() {
    use infernet_node::settlement::evm::contract;
    use infernet_wire::evm::keccak;
    let built = Program::Channels.built().expect("committed");
    assert_eq!(hex::encode(keccak(&[&built.runtime])), contract::CODE_HASH);
    let mut errors = 0;
    for item in built.abi.as_array().expect("a list").iter().filter(|item| item["type"] == "error") {
        let inputs: Vec<&str> =
            item["inputs"].as_array().expect("a list").iter().map(|i| i["type"].as_str().expect("a type")).collect();
        let signature = format!("{}({})", item["name"].as_str().expect("a name"), inputs.join(","));
        assert!(contract::refusal(&keccak(&[signature.as_bytes()])).is_some(), "{signature} has no words");
        errors += 1;
    }
    assert_eq!(errors, contract::REFUSALS, "each refusal is one of the contract's errors");
}

#[tokio::test]
async fn money_goes_only_to_the_code_we_know_on_the_chain_we_mean() {
    let Some(scene) = Scene::new().await else { return };
    let other = scene.payer.check_contract(&scene.token).await;
    assert!(matches!(other, Err(EvmError::NotOurContract { .. })), "{other:?}");
    let nobody = scene.payer.check_contract(&key(9).id().evm_address()).await;
    assert!(matches!(nobody, Err(EvmError::NotOurContract { .. })), "{nobody:?}");
    let elsewhere =
        infernet_node::settlement::evm::rpc::Rpc::new(scene.anvil.url().parse().expect("a URL"), 1).expect("a client");
    let error = elsewhere.check_chain().await.expect_err("another chain");
    assert!(error.to_string().contains("is on chain 31337, not on 1"), "{error}");
}
