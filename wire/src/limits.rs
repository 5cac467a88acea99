//! Every bound on what may travel, in one table, each with its reason.
//!
//! A peer that exceeds a bound gets a typed refusal; nothing is allocated for what it claims, only for what it sent.

/// How far a peer's clock may differ from ours, in milliseconds. NTP keeps hosts within tens of milliseconds; a laptop
/// just woken from sleep is seconds off.
pub const CLOCK_SKEW_MS: u64 = 10_000;

/// Largest gossip message in bytes: gossipsub's own default, and that of existing c0mpute nodes.
pub const MAX_GOSSIP_BYTES: usize = 64 * 1024;

/// Bytes that an envelope adds to its payload at most: keys, lengths, network id, 33-byte signer, 64-byte signature.
pub const ENVELOPE_OVERHEAD_BYTES: usize = 192;

/// Largest capability ad payload: about twenty models with prices. More models than that: advertise the popular ones.
pub const MAX_AD_BYTES: usize = 4 * 1024;
/// How long an ad is believed. Three missed refreshes mean the worker is gone.
pub const AD_TTL_MS: u64 = 90_000;
/// A worker refreshes its ad this often, spread over the interval so that restarts do not synchronise.
pub const AD_REFRESH_MS: std::ops::Range<u64> = 30_000..45_000;
/// At most one ad per worker in this time is looked at; more is noise or an attack.
pub const AD_MIN_INTERVAL_MS: u64 = 10_000;
/// Ads of one worker that are taken at once: one per interval, one more at a restart and one when a model goes.
pub const AD_BURST: u64 = 3;
/// Models in one ad.
pub const MAX_AD_MODELS: usize = 64;
/// Tags in one ad.
pub const MAX_AD_TAGS: usize = 32;
/// Aliases of one model.
pub const MAX_ALIASES: usize = 8;
/// Addresses in an ad or bid: v4 and v6 of two uplinks, with room to spare.
pub const MAX_ADDRESSES: usize = 8;
/// Chains, contracts and tokens in which one worker is paid: 70 bytes each.
pub const MAX_EVM_TERMS: usize = 4;
/// One multiaddr: a circuit through a relay with a long name and QUIC.
pub const MAX_MESH_ADDRESS_BYTES: usize = 256;

/// Largest offer payload. The prompt is not in it, so it is small.
pub const MAX_OFFER_BYTES: usize = 1024;
/// How long an offer may live.
pub const OFFER_TTL_MS: u64 = 30_000;
/// The longest time in which a buyer collects bids.
pub const MAX_BID_WINDOW_MS: u64 = 2_000;
/// What a hold may outlast the bid window by: the time to accept and to try a runner-up.
pub const HOLD_SLACK_MS: u64 = 500;
/// Offers per second that one buyer may publish, sustained.
pub const OFFERS_PER_SECOND: u32 = 5;
/// Offers that one buyer may publish at once.
pub const OFFER_BURST: u32 = 20;

/// Largest bid or no-bid payload.
pub const MAX_BID_BYTES: usize = 1024;
/// Workers that answer one offer, so that the cost of an auction does not grow with the network.
pub const MAX_BIDDERS: usize = 32;

/// Workers that an offer may invite by name, of those who answer it: half, so that newcomers are always heard too.
pub const MAX_INVITED: usize = MAX_BIDDERS / 2;

/// Largest accept payload.
pub const MAX_ACCEPT_BYTES: usize = 1024;
/// How long an accept may be used.
pub const ACCEPT_TTL_MS: u64 = 10_000;
/// Workers named to take over, in order, if the winner fails before its first token.
pub const MAX_RUNNERS_UP: usize = 2;

/// Largest receipt payload.
pub const MAX_RECEIPT_BYTES: usize = 2 * 1024;
/// How long after the end of a job its receipt is still gossiped. Later, it is paged from the node itself.
pub const RECEIPT_TTL_MS: u64 = 10 * 60_000;

/// Largest voucher: a chain, four fixed byte strings and a signature are 171 bytes.
pub const MAX_VOUCHER_BYTES: usize = 192;

/// Decimals of a token that is paid in on Solana: with more, a tranche of a million dollars does not fit in 64 bits. USDC has 6.
pub const MAX_SOLANA_DECIMALS: u8 = 12;
/// What a worker may like to be paid at once, in micro-USD. A hundred dollars: a tranche is what can be lost.
pub const MAX_SOLANA_TRANCHE: u64 = 100_000_000;
/// Longest address or signature in base58: 64 bytes take 88 digits at most.
pub const MAX_BASE58_BYTES: usize = 88;

/// Receipts in one page of [`crate::receipt_page`]: verifying them takes their reader some ten milliseconds.
pub const MAX_PAGE_RECEIPTS: usize = 100;
/// Largest page: a hundred of the largest receipts, twice signed.
pub const MAX_PAGE_BYTES: usize = 512 * 1024;
/// Largest request for a page: a network's name and a place.
pub const MAX_PAGE_REQUEST_BYTES: usize = 160;

/// Ads in one page of [`crate::ad_page`]: verifying them takes their reader some ten milliseconds.
pub const MAX_PAGE_ADS: usize = 128;
/// Largest page of ads: most are of a kilobyte.
pub const MAX_AD_PAGE_BYTES: usize = 128 * 1024;
/// Largest request for a page of ads: a network's name.
pub const MAX_AD_REQUEST_BYTES: usize = 80;

/// Largest operator command payload: two names and some numbers.
pub const MAX_COMMAND_BYTES: usize = 512;
/// How long an operator's command may be used: the time in which a node that polls every 30 s surely hears of it.
pub const COMMAND_TTL_MS: u64 = 5 * 60_000;
/// Largest key rotation payload: two keys and a time.
pub const MAX_ROTATION_BYTES: usize = 128;

/// Largest chat frame after the first: a delta is a token or a few, and this bounds what a reader must buffer.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// Largest request: a context of about two million tokens as text.
pub const MAX_REQUEST_BYTES: usize = 8 * 1024 * 1024;
/// How long a job goes on without its buyer: a train in a tunnel, a router that restarts, a change of networks. Its slot is taken
/// for so long, so not longer.
pub const RESUME_GRACE_MS: u32 = 30_000;
/// What a worker keeps of an answer until the buyer has acknowledged it: what a fast model says in the grace. When it is full, the
/// engine waits.
pub const MAX_UNACKED_BYTES: usize = 512 * 1024;
/// The same, in frames: a hundred tokens a second in the grace.
pub const MAX_UNACKED_FRAMES: usize = 4_096;
/// A buyer acknowledges after so many content frames: an acknowledgement costs about as much as a token.
pub const ACK_FRAMES: u64 = 64;
/// Or after so many bytes, for frames that are large: an eighth of what may be kept.
pub const ACK_BYTES: usize = MAX_UNACKED_BYTES / 8;
/// How often one job may be resumed: each time costs what is not acknowledged once more. A phone on a bad train does it every ten
/// seconds in a long answer.
pub const MAX_RESUMES: u32 = 64;
/// Output tokens that are paid with one voucher: its two signatures cost a token a microsecond or two, and it is the most that either
/// side can lose of an answer.
pub const CHUNK_TOKENS: u32 = 64;
/// Messages in one request.
pub const MAX_MESSAGES: usize = 4_096;
/// Stop sequences in one request.
pub const MAX_STOPS: usize = 16;
/// Tools in one request, as OpenAI has it.
pub const MAX_TOOLS: usize = 128;
/// Alternatives of a token whose probabilities may be asked for, as OpenAI has it.
pub const MAX_TOP_LOGPROBS: u8 = 20;
/// Images in one request: more never fit into [`MAX_REQUEST_BYTES`] at a size worth looking at.
pub const MAX_IMAGES: usize = 64;
/// Texts in one embedding request: their vectors of 4096 numbers are 4 MiB, half of what an answer may be.
pub const MAX_EMBEDDING_INPUTS: usize = 256;
/// Output tokens that one request may ask for.
pub const MAX_OUTPUT_TOKENS: u32 = 1 << 20;

/// Longest model id, workload name, tag or alias, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// Longest network id, in bytes.
pub const MAX_NETWORK_BYTES: usize = 32;

/// Tokens that a chat template may add for each message (role markers, turn ends). Llama 3 adds 5, Harmony 8.
pub const TEMPLATE_TOKENS_PER_MESSAGE: u32 = 16;
/// Tokens that an image may be at most: Qwen2-VL's limit; most models use a few hundred.
pub const TOKENS_PER_IMAGE: u32 = 16_384;
/// Tokens that a chat template may add once (begin of text, generation prompt, a default system prompt as in Qwen 2.5).
pub const TEMPLATE_TOKENS_ONCE: u32 = 64;
