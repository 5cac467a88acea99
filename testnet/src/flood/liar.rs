//! A worker that answers each offer it hears with bids that must not count: too dear, for another model, for another offer, held
//! too shortly, twice.

use super::{dice::Dice, tally::Tally};
use crate::stranger::Stranger;
use futures::{StreamExt, stream::FuturesUnordered};
use infernet_node::{clock, net::Event};
use infernet_wire::{
    bid::{Answer, JobBid},
    capability::SocketAddrText,
    envelope::Verified,
    id::Hash,
    money::{MicroUsd, Price},
    offer::JobOffer,
};
use libp2p::Multiaddr;
use std::{net::Ipv4Addr, sync::Arc};

/// Bids per offer.
const BIDS: usize = 8;
/// Bids on their way at once.
const IN_FLIGHT: usize = 64;

/// Lies to whoever is at `victims`, for ever.
pub(super) async fn run(victims: Vec<Multiaddr>, mut dice: Dice, tally: Arc<Tally>) {
    let Ok(mut liar) = Stranger::join(victims).await else { return };
    let mut on_their_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            event = liar.hear() => match event {
                Some(Event::Offer(offer)) => {
                    for bid in (0..BIDS).filter_map(|_| bid(&liar, &offer, &mut dice)) {
                        tally.count("bogus bids");
                        let net = liar.net().clone();
                        let buyer = offer.signer();
                        if on_their_way.len() < IN_FLIGHT {
                            on_their_way.push(async move { net.answer(buyer, Answer::Bid(bid)).await });
                        }
                    }
                }
                Some(_) => {}
                None => return,
            },
            Some(_) = on_their_way.next() => {}
        }
    }
}

fn bid(liar: &Stranger, offer: &Verified<JobOffer>, dice: &mut Dice) -> Option<Verified<JobBid>> {
    let now = clock::now();
    let dear = Price { input: MicroUsd(offer.ceiling.input.0 + 1), output: MicroUsd(offer.ceiling.output.0 + 1) };
    let honest = JobBid {
        offer: offer.digest(),
        issued: now,
        hold_until: now.after(u64::from(offer.window_ms) + 100),
        model: offer.model.clone(),
        price: dear,
        queue_ms: 0,
        ttft_ms: 1,
        tokens_per_second: 10_000,
        // Nobody listens there: a discard port.
        chat: vec![SocketAddrText((Ipv4Addr::LOCALHOST, 9).into())],
    };
    liar.sign(match dice.below(4) {
        0 => JobBid { offer: Hash(clock::random()), ..honest },
        1 => JobBid { model: "another".into(), price: Price { input: MicroUsd(1), output: MicroUsd(1) }, ..honest },
        2 => JobBid { hold_until: now.after(1), price: Price { input: MicroUsd(1), output: MicroUsd(1) }, ..honest },
        _ => honest,
    })
}
