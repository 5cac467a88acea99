//! A job at a worker's standing price: the accept of its ad, and the offer that travels with it.
//!
//! A live ad is a bid to everybody, so such a job needs no auction: offer and accept go to the worker in one frame, and the
//! first token is one round trip away. The accept's `bid` is the ad's digest, its model and price are the ad's.
//!
//! **The offer has no signature of its own.** Nobody reads it but that worker, beside an accept of the same buyer that holds its
//! digest; so the accept's signature covers every byte of it, and as evidence the two are as good as two signed messages. A
//! signature costs its maker some 25 µs and its reader 50 to 100, of the 200 that this path may add to a job.
//!
//! The digest has a tag of its own: an accept of an auction can't pass as one at the standing price, nor the reverse.

use crate::{
    accept::JobAccept,
    codec,
    envelope::{Message, Refusal, Verified, check_age, field},
    hash,
    id::Hash,
    offer::JobOffer,
    time::UnixMillis,
};
use std::ops::Deref;

/// An offer to one worker, as its buyer makes it.
#[derive(Debug, Clone)]
pub struct StandingOffer {
    body: JobOffer,
    payload: Vec<u8>,
    digest: Hash,
}

impl StandingOffer {
    /// Encodes `body`. Fails only if a field is out of bounds, so that we never send what others refuse.
    pub fn new(body: JobOffer) -> Result<Self, Refusal> {
        body.check()?;
        let payload = codec::encode(&body);
        if payload.len() > JobOffer::MAX_BYTES {
            return Err(Refusal::TooLarge);
        }
        Ok(StandingOffer { digest: digest(&payload), body, payload })
    }

    /// What the accept must name as its offer.
    pub fn digest(&self) -> Hash {
        self.digest
    }

    /// The bytes that travel in [`crate::chat::Open::offer`].
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

impl Deref for StandingOffer {
    type Target = JobOffer;

    fn deref(&self) -> &JobOffer {
        &self.body
    }
}

/// A verified accept with the offer that it vouches for, as its worker reads them. Only [`StandingAccept::read`] makes one.
#[derive(Debug, Clone)]
pub struct StandingAccept {
    accept: Verified<JobAccept>,
    offer: JobOffer,
}

impl StandingAccept {
    /// Puts `accept` and the bytes of its offer together: size, digest, fields, age.
    pub fn read(accept: Verified<JobAccept>, payload: &[u8], now: UnixMillis) -> Result<Self, Refusal> {
        if payload.len() > JobOffer::MAX_BYTES {
            return Err(Refusal::TooLarge);
        }
        field::ensure(digest(payload) == accept.offer, "offer")?;
        let offer: JobOffer = codec::decode(payload).map_err(|_| Refusal::Malformed)?;
        offer.check()?;
        check_age(&offer, now)?;
        Ok(StandingAccept { accept, offer })
    }

    /// The accept.
    pub fn accept(&self) -> &Verified<JobAccept> {
        &self.accept
    }

    /// The offer: the accept's signer made it.
    pub fn offer(&self) -> &JobOffer {
        &self.offer
    }

    /// The offer alone.
    pub fn into_offer(self) -> JobOffer {
        self.offer
    }
}

/// Network and signer are not in it: the accept's own digest holds both.
fn digest(payload: &[u8]) -> Hash {
    hash::tagged("infernet/standing-offer/1", &[payload])
}
