//! Tokens and accounts with a will of their own.

use crate::{Kind, Scene, closes, key, pays, voucher};
use infernet_node::settlement::evm::{contract, transaction::Call, wallet::EvmError};
use infernet_testnet::evm::{self, ChainError, Program, act, call, give_tokens};
use infernet_wire::{
    evm::{EvmAddress, address_word, word},
    voucher::{ChannelTerms, SignedVoucher},
};

/// `TestToken.Mode`.
const HONEST: u128 = 0;
const RETURNS_NOTHING: u128 = 1;
const RETURNS_FALSE: u128 = 2;
const TAKES_FEE: u128 = 3;

impl Scene {
    async fn behave(&self, mode: u128) {
        self.ok(&self.stranger, call(&self.token, "behave(uint8)", &[word(mode)], None)).await;
    }

    /// When it is touched next, `who` calls the contract with this.
    async fn arm(&self, who: &EvmAddress, what: &Call) {
        let words = [address_word(&self.channels.0)];
        self.ok(&self.stranger, call(who, "arm(address,bytes)", &words, Some(&what.data))).await;
    }

    /// Whether `who` called back since it was armed, and whether that worked.
    async fn called_back(&self, who: &EvmAddress) -> (bool, bool) {
        let ask = async |name: &str| {
            let answer = self.payer.view(&call(who, name, &[], None)).await.expect("an answer");
            answer.last() == Some(&1)
        };
        (ask("tried()").await, ask("succeeded()").await)
    }

    /// An account with code.
    async fn intruder(&self) -> EvmAddress {
        Program::Intruder.deploy(&self.stranger).await.expect("deployed")
    }
}

/// As USDT does on Ethereum.
#[tokio::test]
async fn a_token_that_returns_nothing_works() {
    let Some(scene) = Scene::new().await else { return };
    scene.behave(RETURNS_NOTHING).await;
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    scene.ok(&scene.payee, scene.channels.redeem(&pays(&terms, 600))).await;
    assert_eq!(scene.balance(Kind::Token, &scene.payee.address()).await, 600);
}

#[tokio::test]
async fn a_token_that_returns_false_opens_nothing_and_loses_nothing() {
    let Some(scene) = Scene::new().await else { return };
    scene.behave(RETURNS_FALSE).await;
    let open = scene.channels.open(&scene.payee.address(), &scene.token, 1_000, [1; 32]);
    scene.refused(&scene.payer, open, "refuses the transfer").await;
    scene.behave(HONEST).await;
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    scene.behave(RETURNS_FALSE).await;
    scene.refused(&scene.payee, scene.channels.redeem(&pays(&terms, 600)), "refuses the transfer").await;
    scene.behave(HONEST).await;
    scene.ok(&scene.payee, scene.channels.redeem(&pays(&terms, 600))).await;
    assert_eq!(scene.balance(Kind::Token, &scene.payee.address()).await, 600);
}

#[tokio::test]
async fn a_token_that_takes_a_fee_is_refused() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    scene.behave(TAKES_FEE).await;
    let open = scene.channels.open(&scene.payee.address(), &scene.token, 1_000, [2; 32]);
    scene.refused(&scene.payer, open, "takes a fee").await;
    scene.refused(&scene.payer, scene.channels.top_up(&terms.id(), &terms.token, 1_000), "takes a fee").await;
    assert_eq!((scene.held(Kind::Token).await, scene.state(&terms).await.deposit), (1_000, 1_000));
}

/// An address without code "succeeds" at everything.
#[tokio::test]
async fn a_token_that_is_not_there_is_refused() {
    let Some(scene) = Scene::new().await else { return };
    let nowhere = key(9).id().evm_address();
    for token in [nowhere, scene.channels.0] {
        let open = scene.channels.open(&scene.payee.address(), &token, 1_000, [1; 32]);
        scene.refused(&scene.payer, open, "refuses the transfer").await;
    }
    // Without an allowance nothing is taken.
    let open = scene.channels.open(&scene.payer.address(), &scene.token, 1_000, [1; 32]);
    scene.refused(&scene.payee, open, "refuses the transfer").await;
}

/// The token calls back into every function from every transfer: each inner call is refused, each outer one pays once.
#[tokio::test]
async fn a_token_that_calls_back_gets_nothing_more() {
    let Some(scene) = Scene::new().await else { return };
    // The token itself has a channel too: it would be the payer of an inner top-up, and the payee of an inner redemption.
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    let exiting = scene.open(Kind::Token, 1_000, 2).await;
    scene.ok(&scene.payer, scene.channels.start_exit(&exiting.id())).await;
    scene.anvil.pass(contract::CHALLENGE_SECS).await.expect("time");
    let close = closes(&terms, 900);
    let inner = [
        scene.channels.redeem(&pays(&terms, 700)),
        scene.channels.finish_exit(&exiting.id()),
        scene.channels.close(&close.channel, 900, &close.sign(&key(2)), &close.sign(&key(3))),
        scene.channels.open(&scene.payee.address(), &scene.token, 5, [9; 32]),
        scene.channels.top_up(&terms.id(), &terms.token, 5),
    ];
    let (mut deposit, mut redeemed, mut salt) = (1_000, 0, 10);
    for inner in &inner {
        for outer in 0..3 {
            scene.arm(&scene.token, inner).await;
            match outer {
                0 => {
                    redeemed += 10;
                    scene.ok(&scene.payee, scene.channels.redeem(&pays(&terms, redeemed))).await;
                }
                1 => {
                    deposit += 10;
                    scene.ok(&scene.payer, scene.channels.top_up(&terms.id(), &terms.token, 10)).await;
                }
                _ => {
                    salt += 1;
                    scene.open(Kind::Token, 10, salt).await;
                }
            }
            assert_eq!(scene.called_back(&scene.token).await, (true, false), "called back, in vain");
            let state = scene.state(&terms).await;
            assert_eq!((state.deposit, state.redeemed), (deposit, redeemed));
        }
    }
    assert_eq!(scene.balance(Kind::Token, &scene.payee.address()).await, redeemed);
    assert_eq!(scene.held(Kind::Token).await, deposit - redeemed + 1_000 + 10 * u128::from(salt - 10));
}

/// A payee with code calls back when coin arrives, to be paid again.
#[tokio::test]
async fn a_payee_that_calls_back_is_paid_once() {
    let Some(scene) = Scene::new().await else { return };
    let intruder = scene.intruder().await;
    let terms = ChannelTerms { payee: intruder, ..scene.terms(&EvmAddress::ZERO, 1) };
    scene.ok(&scene.payer, scene.channels.open(&intruder, &EvmAddress::ZERO, 1_000, terms.salt)).await;
    // The same voucher again, and a higher one.
    for (n, again) in [100, 900].into_iter().enumerate() {
        let amount = 100 * (n as u128 + 1);
        scene.arm(&intruder, &scene.channels.redeem(&pays(&terms, again))).await;
        scene.ok(&scene.stranger, scene.channels.redeem(&pays(&terms, amount))).await;
        assert_eq!(scene.called_back(&intruder).await, (true, false), "called back, in vain");
        assert_eq!(scene.balance(Kind::Coin, &intruder).await, amount);
    }
    assert_eq!(scene.held(Kind::Coin).await, 800);
}

/// A payer with code calls back when the rest arrives, to get it again.
#[tokio::test]
async fn a_payer_that_calls_back_gets_its_rest_once() {
    let Some(scene) = Scene::new().await else { return };
    let intruder = scene.intruder().await;
    let terms = ChannelTerms { payer: intruder, ..scene.terms(&EvmAddress::ZERO, 1) };
    // Others' coin, which would pay for it.
    scene.open(Kind::Coin, 5_000, 2).await;
    let run = |inner: &Call| {
        let words = [address_word(&scene.channels.0), word(inner.value)];
        Call { value: inner.value, ..call(&intruder, "run(address,uint256,bytes)", &words, Some(&inner.data)) }
    };
    scene.ok(&scene.stranger, run(&scene.channels.open(&terms.payee, &EvmAddress::ZERO, 1_000, terms.salt))).await;
    scene.ok(&scene.stranger, run(&scene.channels.start_exit(&terms.id()))).await;
    scene.anvil.pass(contract::CHALLENGE_SECS).await.expect("time");
    scene.arm(&intruder, &scene.channels.finish_exit(&terms.id())).await;
    scene.ok(&scene.stranger, scene.channels.finish_exit(&terms.id())).await;
    assert_eq!(scene.called_back(&intruder).await, (true, false), "called back, in vain");
    assert_eq!((scene.balance(Kind::Coin, &intruder).await, scene.held(Kind::Coin).await), (1_000, 5_000));
}

/// Who can't be paid stands in nobody's way but its own.
#[tokio::test]
async fn a_side_that_refuses_coin_blocks_only_itself() {
    let Some(scene) = Scene::new().await else { return };
    let intruder = scene.intruder().await;
    let terms = ChannelTerms { payee: intruder, ..scene.terms(&EvmAddress::ZERO, 1) };
    scene.ok(&scene.payer, scene.channels.open(&intruder, &EvmAddress::ZERO, 1_000, terms.salt)).await;
    scene.ok(&scene.stranger, call(&intruder, "refuse(bool)", &[word(1)], None)).await;
    scene.refused(&scene.stranger, scene.channels.redeem(&pays(&terms, 600)), "refuses the transfer").await;
    assert_eq!(scene.state(&terms).await.redeemed, 0, "what was not paid is not redeemed");
    scene.ok(&scene.payer, scene.channels.start_exit(&terms.id())).await;
    scene.anvil.pass(contract::CHALLENGE_SECS).await.expect("time");
    scene.ok(&scene.payer, scene.channels.finish_exit(&terms.id())).await;
    assert_eq!(scene.held(Kind::Coin).await, 0);
}

/// What one token does is no other token's business.
#[tokio::test]
async fn a_false_token_does_not_touch_another() {
    let Some(scene) = Scene::new().await else { return };
    scene.open(Kind::Token, 1_000, 1).await;
    let cheap = Program::TestToken.deploy(&scene.stranger).await.expect("another token");
    give_tokens(&scene.payer, &cheap, 1_000_000, &scene.channels.0).await.expect("tokens");
    let terms = evm::terms(&scene.channels, &scene.payer.address(), &scene.payee.address(), &cheap, 1);
    scene.ok(&scene.payer, scene.channels.open(&terms.payee, &cheap, 1_000_000, terms.salt)).await;
    scene.ok(&scene.payee, scene.channels.redeem(&pays(&terms, 1_000_000))).await;
    assert_eq!(scene.balance(Kind::Token, &scene.payee.address()).await, 0);
    assert_eq!(scene.held(Kind::Token).await, 1_000);
    // The voucher of the one is none of the other, with the same sides and salt.
    let dear = scene.terms(&scene.token, 1);
    let wrong = SignedVoucher::sign(&key(2), voucher(&terms, 500)).expect("signed");
    let mut call = scene.channels.redeem(&wrong);
    call.data[4..36].copy_from_slice(&dear.id().0);
    scene.refused(&scene.payee, call, "not that of this channel's side").await;
}

/// A call that would cost more gas than it can honestly need is not sent.
#[tokio::test]
async fn a_token_that_burns_gas_is_not_paid_for() {
    let Some(scene) = Scene::new().await else { return };
    let data = Program::Channels.built().expect("committed").bytecode;
    // Any long word will do: sixteen gas for each byte that is not zero.
    let long = Call { to: Some(scene.payee.address()), value: 0, data: data.repeat(4) };
    let refused = act(&scene.payer, long).await;
    assert!(matches!(refused, Err(ChainError::Evm(EvmError::TooMuchGas { .. }))), "{refused:?}");
}
