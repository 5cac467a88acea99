//! Vouchers that must be worth nothing, and who may do what.

use crate::{Kind, Scene, closes, key, pays, voucher};
use infernet_node::settlement::evm::{contract, step::Stage, transaction::Call};
use infernet_testnet::evm::{Program, act, call};
use infernet_wire::{
    evm::{EvmAddress, address_word, word},
    id::{ChannelId, JobId},
    voucher::{ChannelTerms, Close, SignedVoucher, Voucher},
};

/// The same call with another word at a place, counted after the selector.
fn with_word(mut call: Call, place: usize, word: [u8; 32]) -> Call {
    call.data[4 + 32 * place..][..32].copy_from_slice(&word);
    call
}

#[tokio::test]
async fn a_replayed_or_older_voucher_pays_nothing() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    scene.ok(&scene.payee, scene.channels.redeem(&pays(&terms, 600))).await;
    for amount in [600, 599, 1, 0] {
        scene.refused(&scene.payee, scene.channels.redeem(&pays(&terms, amount)), "was redeemed before").await;
    }
    let other_job = SignedVoucher::sign(&key(2), Voucher { job: JobId([1; 16]), ..voucher(&terms, 600) }).expect("signed");
    scene.refused(&scene.payee, scene.channels.redeem(&other_job), "was redeemed before").await;
    assert_eq!(scene.state(&terms).await.redeemed, 600);
}

#[tokio::test]
async fn a_voucher_above_the_deposit_pays_the_deposit_and_not_a_unit_more() {
    let Some(scene) = Scene::new().await else { return };
    // Somebody else's money in the same token, which must stay.
    let others = scene.terms(&scene.token, 7);
    let call = scene.channels.open(&others.payee, &scene.token, 5_000, others.salt);
    scene.ok(&scene.stranger, call).await;
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    scene.ok(&scene.payee, scene.channels.redeem(&pays(&terms, 4_000))).await;
    assert_eq!(scene.balance(Kind::Token, &scene.payee.address()).await, 1_000);
    scene.refused(&scene.payee, scene.channels.redeem(&pays(&terms, 4_000)), "deposit is used up").await;
    // A later deposit pays the rest of it, once.
    scene.ok(&scene.payer, scene.channels.top_up(&terms.id(), &terms.token, 3_500)).await;
    scene.ok(&scene.payee, scene.channels.redeem(&pays(&terms, 4_000))).await;
    assert_eq!(scene.balance(Kind::Token, &scene.payee.address()).await, 4_000);
    scene.refused(&scene.payee, scene.channels.redeem(&pays(&terms, 4_000)), "was redeemed before").await;
    assert_eq!(scene.held(Kind::Token).await, 5_000 + 500);
}

#[tokio::test]
async fn a_voucher_for_another_chain_contract_channel_or_amount_is_refused() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    let second = scene.open(Kind::Token, 1_000, 2).await;
    let elsewhere = Program::Channels.deploy(&scene.stranger).await.expect("a second one");
    let good = scene.channels.redeem(&pays(&terms, 100));
    let forged = |changed: Voucher| {
        let signature = *SignedVoucher::sign(&key(2), changed).expect("signed").signature();
        let mut call = good.clone();
        call.data[4 + 32 * 3..].copy_from_slice(&signature.0);
        call
    };
    let claim = voucher(&terms, 100);
    let wrong = [
        forged(Voucher { chain: 1, ..claim }),
        forged(Voucher { contract: elsewhere, ..claim }),
        forged(Voucher { channel: second.id(), ..claim }),
        forged(Voucher { job: JobId([1; 16]), ..claim }),
        forged(Voucher { amount: 99, ..claim }),
        forged(Voucher { chain: 0, contract: EvmAddress::ZERO, ..claim }),
        // Another amount and another channel beside the right signature.
        with_word(good.clone(), 2, word(101)),
        with_word(good.clone(), 0, second.id().0),
    ];
    for call in wrong {
        scene.refused(&scene.payee, call, "not that of this channel's side").await;
    }
    let unknown = with_word(good.clone(), 0, [7; 32]);
    scene.refused(&scene.payee, unknown, "no such channel").await;
    // The other contract does not know the channel, even with its own signature.
    let there = SignedVoucher::sign(&key(2), Voucher { contract: elsewhere, ..claim }).expect("signed");
    scene.refused(&scene.payee, contract::Channels(elsewhere).redeem(&there), "no such channel").await;
    scene.ok(&scene.payee, good).await;
}

#[tokio::test]
async fn a_voucher_that_the_payer_did_not_sign_is_refused() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Coin, 1_000, 1).await;
    for n in [3, 4, 9] {
        let theirs = SignedVoucher::sign(&key(n), voucher(&terms, 100)).expect("signed");
        scene.refused(&scene.payee, scene.channels.redeem(&theirs), "not that of this channel's side").await;
    }
    // What recovers nobody at all must not be taken for somebody: r = 0, and an r that is no point.
    let good = scene.channels.redeem(&pays(&terms, 100));
    for r in [[0; 32], [0xff; 32]] {
        scene.refused(&scene.payee, with_word(good.clone(), 3, r), "not that of this channel's side").await;
    }
    assert_eq!(scene.state(&terms).await.redeemed, 0);
}

#[tokio::test]
async fn a_signature_has_no_twin_with_a_high_s() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    let good = pays(&terms, 100);
    // The twin: s' = n - s and the other parity. Its 256 bits don't fit beside the parity, so it is cut.
    let (mut s, odd) = (good.signature().0[32..].to_vec(), good.signature().0[32] >> 7);
    s[0] &= 0x7f;
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").expect("hex");
    let mut twin = minus(&order, &s);
    twin[0] = (twin[0] & 0x7f) | ((1 - odd) << 7);
    scene.refused(&scene.payee, with_word(scene.channels.redeem(&good), 4, twin), "not that of this channel's side").await;
    // The few that would fit: just above half of the order.
    let mut above: [u8; 32] =
        hex::decode("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1").expect("hex").try_into().expect("32");
    for parity in [0, 0x80] {
        above[0] = 0x7f | parity;
        scene.refused(&scene.payee, with_word(scene.channels.redeem(&good), 4, above), "not that of this channel's side").await;
    }
    scene.ok(&scene.payee, scene.channels.redeem(&good)).await;
}

/// `a - b`, big-endian.
fn minus(a: &[u8], b: &[u8]) -> [u8; 32] {
    let (mut out, mut borrow) = ([0; 32], 0i16);
    for i in (0..32).rev() {
        let d = i16::from(a[i]) - i16::from(b[i]) - borrow;
        borrow = i16::from(d < 0);
        out[i] = d.rem_euclid(256) as u8;
    }
    out
}

/// Two transactions with one voucher in one block: the first is paid, the second reverts.
#[tokio::test]
async fn two_redemptions_of_one_voucher_in_one_block_pay_once() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    let redeem = || scene.channels.redeem(&pays(&terms, 400));
    let ends = scene.meet((&scene.payee, redeem()), (&scene.stranger, redeem())).await;
    assert!(matches!(ends, (Stage::Confirmed { .. }, Stage::Reverted { .. })), "{ends:?}");
    assert_eq!(scene.balance(Kind::Token, &scene.payee.address()).await, 400);
}

#[tokio::test]
async fn a_close_needs_both_sides_one_amount_and_counts_once() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    scene.ok(&scene.payee, scene.channels.redeem(&pays(&terms, 300))).await;
    let close = |amount: u128, payer: u8, payee: u8| {
        let close = closes(&terms, amount);
        scene.channels.close(&close.channel, amount, &close.sign(&key(payer)), &close.sign(&key(payee)))
    };
    for (payer, payee) in [(2, 2), (3, 3), (3, 2), (4, 3), (2, 4)] {
        scene.refused(&scene.payee, close(500, payer, payee), "not that of this channel's side").await;
    }
    // Two amounts; another contract's; a voucher instead.
    let (five, six) = (closes(&terms, 500), closes(&terms, 600));
    let mixed = scene.channels.close(&five.channel, 500, &five.sign(&key(2)), &six.sign(&key(3)));
    scene.refused(&scene.payee, mixed, "not that of this channel's side").await;
    let foreign = Close { contract: scene.token, ..five };
    let foreign = scene.channels.close(&five.channel, 500, &foreign.sign(&key(2)), &foreign.sign(&key(3)));
    scene.refused(&scene.payee, foreign, "not that of this channel's side").await;
    let instead = scene.channels.close(&five.channel, 500, pays(&terms, 500).signature(), &five.sign(&key(3)));
    scene.refused(&scene.payee, instead, "not that of this channel's side").await;
    // An agreement from before a redemption takes nothing back; none gives more than there is.
    scene.refused(&scene.payer, close(299, 2, 3), "below what was redeemed").await;
    scene.refused(&scene.payee, close(1_001, 2, 3), "above the deposit").await;
    scene.ok(&scene.stranger, close(500, 2, 3)).await;
    scene.refused(&scene.payee, close(500, 2, 3), "closed").await;
    scene.refused(&scene.payee, scene.channels.redeem(&pays(&terms, 900)), "closed").await;
    scene.refused(&scene.payer, scene.channels.top_up(&terms.id(), &terms.token, 1), "closed").await;
    scene.refused(&scene.payer, scene.channels.start_exit(&terms.id()), "closed").await;
    assert_eq!(scene.held(Kind::Token).await, 0);
}

/// Otherwise all old vouchers would come alive again.
#[tokio::test]
async fn a_channel_is_opened_once_for_ever() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    let again = scene.channels.open(&terms.payee, &terms.token, 1_000, terms.salt);
    scene.refused(&scene.payer, again.clone(), "opened before").await;
    let close = closes(&terms, 0);
    scene.ok(&scene.payer, scene.channels.close(&close.channel, 0, &close.sign(&key(2)), &close.sign(&key(3)))).await;
    scene.refused(&scene.payer, again, "opened before").await;
    // Nobody can take another's id: it binds who opens.
    let theirs = ChannelTerms { payer: scene.stranger.address(), ..terms };
    scene.ok(&scene.stranger, scene.channels.open(&terms.payee, &terms.token, 1_000, terms.salt)).await;
    assert_eq!(scene.state(&theirs).await.payer, scene.stranger.address());
    assert_ne!(theirs.id(), terms.id());
}

#[tokio::test]
async fn what_makes_no_sense_is_not_opened() {
    let Some(scene) = Scene::new().await else { return };
    let (me, payee, coin) = (scene.payer.address(), scene.payee.address(), EvmAddress::ZERO);
    let open = |payee: &EvmAddress, token: &EvmAddress, amount| scene.channels.open(payee, token, amount, [1; 32]);
    for nobody in [EvmAddress::ZERO, me, scene.channels.0] {
        scene.refused(&scene.payer, open(&nobody, &coin, 10), "needs a payee").await;
    }
    scene.refused(&scene.payer, open(&payee, &coin, 0), "the amount is zero").await;
    scene.refused(&scene.payer, open(&payee, &scene.token, 0), "the amount is zero").await;
    // Coin beside a token, too little, too much.
    for (token, amount, value) in [(scene.token, 10, 1), (coin, 10, 9), (coin, 10, 11), (coin, 10, 0)] {
        let call = Call { value, ..open(&payee, &token, amount) };
        scene.refused(&scene.payer, call, "is not the amount").await;
    }
    // Coin that belongs to no channel is not taken.
    let plain = Call { to: Some(scene.channels.0), value: 1, data: vec![] };
    assert!(act(&scene.payer, plain).await.is_err());
    assert_eq!((scene.held(Kind::Coin).await, scene.held(Kind::Token).await), (0, 0));
}

#[tokio::test]
async fn only_the_payer_adds_and_never_more_than_fits() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    scene.refused(&scene.stranger, scene.channels.top_up(&terms.id(), &terms.token, 5), "only the payer").await;
    let most = (1u128 << 96) - 1;
    scene.refused(&scene.payer, scene.channels.top_up(&terms.id(), &terms.token, most), "more than a channel holds").await;
    // A number of more than 96 bits is no number to the contract.
    let wide = with_word(scene.channels.top_up(&terms.id(), &terms.token, 5), 1, [1; 32]);
    assert!(act(&scene.payer, wide).await.is_err());
    scene.refused(&scene.payer, scene.channels.top_up(&ChannelId([1; 32]), &terms.token, 5), "no such channel").await;
    assert_eq!(scene.state(&terms).await.deposit, 1_000);
}

/// A numbered sequence of everything that can be done, with three channels of one token: after each step the contract holds exactly
/// what the channels say, whatever was refused.
#[tokio::test]
async fn whatever_is_done_the_contract_holds_what_the_channels_say() {
    let Some(scene) = Scene::new().await else { return };
    let mut terms = Vec::new();
    for (salt, kind) in [(1, Kind::Token), (2, Kind::Token), (3, Kind::Coin), (4, Kind::Coin)] {
        terms.push(scene.open(kind, 1_000, salt).await);
    }
    // A linear congruential generator (Knuth's MMIX): the same every time.
    let mut seed = 8u64;
    let mut draw = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut paid = 0u32;
    for _ in 0..120 {
        let terms = &terms[draw(4) as usize];
        let amount = u128::from(draw(2_500));
        let close = closes(terms, amount);
        let done = match draw(12) {
            0..6 => act(&scene.payee, scene.channels.redeem(&pays(terms, amount))).await,
            6..9 => act(&scene.payer, scene.channels.top_up(&terms.id(), &terms.token, amount / 8)).await,
            9 if amount > 1_500 => act(&scene.payer, scene.channels.start_exit(&terms.id())).await,
            10 => act(&scene.payer, scene.channels.finish_exit(&terms.id())).await,
            11 if amount > 2_200 => {
                let call = scene.channels.close(&close.channel, amount, &close.sign(&key(2)), &close.sign(&key(3)));
                act(&scene.payee, call).await
            }
            _ => {
                scene.anvil.pass(7_200).await.expect("time");
                continue;
            }
        };
        paid += u32::from(done.is_ok());
        for kind in [Kind::Token, Kind::Coin] {
            assert_eq!(scene.held(kind).await, left(&scene, kind).await);
        }
    }
    assert!(paid > 20, "{paid} of them did something");
}

async fn left(scene: &Scene, kind: Kind) -> u128 {
    let mut sum = 0;
    for salt in 1..=4 {
        let terms = scene.terms(&scene.coin(kind), salt);
        let channel = scene.payer.channel(&scene.channels, &terms.id()).await.expect("asked");
        sum += channel.map_or(0, |channel| channel.left());
    }
    sum
}

/// A call by its bare signature agrees with the node's own: the selectors are right.
#[tokio::test]
async fn the_contract_computes_a_channels_id_as_we_do() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.terms(&scene.token, 5);
    let words = [address_word(&terms.payer), address_word(&terms.payee), address_word(&terms.token), terms.salt];
    let asked = call(&scene.channels.0, "channelId(address,address,address,bytes32)", &words, None);
    assert_eq!(scene.payer.view(&asked).await.expect("an answer"), terms.id().0);
}
