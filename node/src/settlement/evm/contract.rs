//! The calls that `Channels` and ERC-20 tokens understand, and what they answer. All their arguments are words of 32 bytes, so
//! that their ABI is a selector and a row of words.

use super::transaction::Call;
use infernet_wire::{
    evm::{EvmAddress, address_word, keccak, word},
    id::{ChannelId, EvmSignature},
    voucher::{ChannelTerms, SignedVoucher},
};

/// Keccak-256 of the code of `Channels` on a chain: what is committed in `testnet/contracts/built`. No other code gets a deposit.
pub const CODE_HASH: &str = "e544cbc41ead196df6711174f731d5c98a5659bc06626e8c7a55aa896b7dac87";

/// The time that a payee has for its last voucher, in seconds: `CHALLENGE`.
pub const CHALLENGE_SECS: u64 = 86_400;
/// In [`Channel::exit_at`]: closed for ever.
pub const CLOSED: u64 = u64::MAX;

/// How many errors of `Channels` have words here: all of them.
pub const REFUSALS: usize = ERRORS.len();

/// The errors of `Channels`, to tell a refusal by its name.
const ERRORS: [(&str, &str); 17] = [
    ("Reentered()", "it was called from within itself"),
    ("ChannelExists()", "this channel was opened before; take another salt"),
    ("NoSuchChannel()", "there is no such channel"),
    ("ChannelClosed()", "the channel is closed"),
    ("ExitUnderWay(uint64)", "the payer is on the way out"),
    ("NoExit()", "the payer has not said that it wants out"),
    ("ExitTooEarly(uint64)", "the payee still has time to redeem"),
    ("NotPayer()", "only the payer may do that"),
    ("BadPayee()", "a channel needs a payee that is neither the payer nor the contract"),
    ("NoAmount()", "the amount is zero"),
    ("AmountTooLarge()", "the amount is more than a channel holds"),
    ("WrongValue(uint256)", "the coin sent along is not the amount"),
    ("NothingNew(uint96)", "this voucher, or a higher one, was redeemed before, or the deposit is used up"),
    ("BadAmount(uint96,uint96)", "the amount is below what was redeemed, or above the deposit"),
    ("BadSignature()", "the signature is not that of this channel's side"),
    ("TransferFailed()", "the token or the receiver refuses the transfer; do balance and allowance suffice?"),
    ("FeeOnTransfer(uint256)", "this token takes a fee on transfers, which channels don't support"),
];

/// The first four bytes of a function's or error's hash.
fn selector(signature: &str) -> [u8; 4] {
    let [a, b, c, d, ..] = keccak(&[signature.as_bytes()]);
    [a, b, c, d]
}

fn data(signature: &str, words: &[[u8; 32]]) -> Vec<u8> {
    [&selector(signature)[..], words.as_flattened()].concat()
}

/// What `Channels` means by the data of a revert; `None` if it is not its own.
pub fn refusal(data: &[u8]) -> Option<&'static str> {
    let selected = data.get(..4)?;
    ERRORS.iter().find(|(signature, _)| selector(signature) == selected).map(|(_, says)| *says)
}

/// `Channels`, at its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels(pub EvmAddress);

impl Channels {
    fn call(&self, value: u128, signature: &str, words: &[[u8; 32]]) -> Call {
        Call { to: Some(self.0), value, data: data(signature, words) }
    }

    /// Opens a channel to `payee` with `amount` of `token`; of the chain's coin if that is [`EvmAddress::ZERO`]. A token must have
    /// been [`approve`]d before.
    pub fn open(&self, payee: &EvmAddress, token: &EvmAddress, amount: u128, salt: [u8; 32]) -> Call {
        let words = [address_word(payee), address_word(token), word(amount), salt];
        self.call(coin(token, amount), "open(address,address,uint96,bytes32)", &words)
    }

    /// Adds `amount` to the deposit of a channel in `token`.
    pub fn top_up(&self, channel: &ChannelId, token: &EvmAddress, amount: u128) -> Call {
        self.call(coin(token, amount), "topUp(bytes32,uint96)", &[channel.0, word(amount)])
    }

    /// Pays the payee what the voucher covers beyond what was paid before.
    pub fn redeem(&self, voucher: &SignedVoucher) -> Call {
        let mut job = [0; 32];
        job[..16].copy_from_slice(&voucher.job.0);
        let [r, vs] = halves(voucher.signature());
        self.call(0, "redeem(bytes32,bytes16,uint96,bytes32,bytes32)", &[voucher.channel.0, job, word(voucher.amount), r, vs])
    }

    /// Ends a channel at once, by what both sides signed.
    pub fn close(&self, channel: &ChannelId, amount: u128, payer: &EvmSignature, payee: &EvmSignature) -> Call {
        let ([pr, pvs], [er, evs]) = (halves(payer), halves(payee));
        let words = [channel.0, word(amount), pr, pvs, er, evs];
        self.call(0, "close(bytes32,uint96,bytes32,bytes32,bytes32,bytes32)", &words)
    }

    /// The payer wants out.
    pub fn start_exit(&self, channel: &ChannelId) -> Call {
        self.call(0, "startExit(bytes32)", &[channel.0])
    }

    /// The payee's time is over; the rest goes back to the payer.
    pub fn finish_exit(&self, channel: &ChannelId) -> Call {
        self.call(0, "finishExit(bytes32)", &[channel.0])
    }

    /// Asks for a channel's state, which [`Channel::read`] reads.
    pub fn channel(&self, channel: &ChannelId) -> Call {
        self.call(0, "channels(bytes32)", &[channel.0])
    }
}

/// The hash of the event `Opened`, by which logs of it are asked for.
pub fn opened() -> [u8; 32] {
    keccak(&[b"Opened(bytes32,address,address,address,uint96,bytes32)"])
}

/// Whom the channel of a log of [`opened`] binds, and its first deposit; `None` if it is none, or its id is not that of its terms.
pub fn read_opened(chain: u64, contract: &EvmAddress, topics: &[[u8; 32]], data: &[u8]) -> Option<(ChannelTerms, u128)> {
    let [event, id, payer, payee] = topics else { return None };
    let (words, []) = data.as_chunks::<32>() else { return None };
    let [token, deposit, salt] = words else { return None };
    let (payer, payee, token) = (address(payer)?, address(payee)?, address(token)?);
    let terms = ChannelTerms { chain, contract: *contract, payer, payee, token, salt: *salt };
    let deposit = number(deposit)?;
    (*event == opened() && terms.id().0 == *id).then_some((terms, deposit))
}

/// The coin that goes along: nothing if `token` is one.
fn coin(token: &EvmAddress, amount: u128) -> u128 {
    if *token == EvmAddress::ZERO { amount } else { 0 }
}

fn halves(signature: &EvmSignature) -> [[u8; 32]; 2] {
    let mut halves = [[0; 32]; 2];
    halves.as_flattened_mut().copy_from_slice(&signature.0);
    halves
}

/// A channel as the chain has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Who deposits.
    pub payer: EvmAddress,
    /// All that was ever deposited.
    pub deposit: u128,
    /// Who is paid.
    pub payee: EvmAddress,
    /// All that was ever paid out to the payee.
    pub redeemed: u128,
    /// In what; [`EvmAddress::ZERO`] is the chain's coin.
    pub token: EvmAddress,
    /// 0 while it is open, [`CLOSED`], or when the payer may take the rest, in seconds since 1970.
    pub exit_at: u64,
}

impl Channel {
    /// Reads the answer to [`Channels::channel`]; `None` if it is not one. A channel that was never opened has no payer.
    pub fn read(answer: &[u8]) -> Option<Option<Self>> {
        let (words, []) = answer.as_chunks::<32>() else { return None };
        let [payer, deposit, payee, redeemed, token, exit_at] = words else { return None };
        let channel = Channel {
            payer: address(payer)?,
            deposit: number(deposit)?,
            payee: address(payee)?,
            redeemed: number(redeemed)?,
            token: address(token)?,
            exit_at: number(exit_at)?.try_into().ok()?,
        };
        Some((channel.payer != EvmAddress::ZERO).then_some(channel))
    }

    /// What a voucher of `promised` pays beyond what was redeemed.
    pub fn unredeemed(&self, promised: u128) -> u128 {
        if self.exit_at == CLOSED { 0 } else { promised.min(self.deposit).saturating_sub(self.redeemed) }
    }

    /// What is still there for vouchers.
    pub fn left(&self) -> u128 {
        if self.exit_at == CLOSED { 0 } else { self.deposit.saturating_sub(self.redeemed) }
    }
}

/// A word as a number below 2^128; `None` if it is larger.
pub fn number(word: &[u8; 32]) -> Option<u128> {
    let (high, low) = word.split_at(16);
    high.iter().all(|byte| *byte == 0).then(|| low.try_into().ok().map(u128::from_be_bytes))?
}

fn address(word: &[u8; 32]) -> Option<EvmAddress> {
    let (zeros, address) = word.split_at(12);
    zeros.iter().all(|byte| *byte == 0).then(|| address.try_into().ok().map(EvmAddress))?
}

/// Lets `spender` take up to `amount` of `token`.
pub fn approve(token: &EvmAddress, spender: &EvmAddress, amount: u128) -> Call {
    let data = data("approve(address,uint256)", &[address_word(spender), word(amount)]);
    Call { to: Some(*token), value: 0, data }
}

/// Asks how much of `token` `spender` may take from an account: one word.
pub fn allowance(token: &EvmAddress, account: &EvmAddress, spender: &EvmAddress) -> Call {
    let data = data("allowance(address,address)", &[address_word(account), address_word(spender)]);
    Call { to: Some(*token), value: 0, data }
}

/// Sends `amount` of `token`.
pub fn transfer(token: &EvmAddress, to: &EvmAddress, amount: u128) -> Call {
    Call { to: Some(*token), value: 0, data: data("transfer(address,uint256)", &[address_word(to), word(amount)]) }
}

/// Asks how much of `token` an account has: one word.
pub fn balance_of(token: &EvmAddress, account: &EvmAddress) -> Call {
    Call { to: Some(*token), value: 0, data: data("balanceOf(address)", &[address_word(account)]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_those_that_everybody_knows() {
        assert_eq!(hex::encode(selector("transfer(address,uint256)")), "a9059cbb");
        assert_eq!(hex::encode(selector("approve(address,uint256)")), "095ea7b3");
        assert_eq!(hex::encode(selector("balanceOf(address)")), "70a08231");
        assert_eq!(hex::encode(selector("allowance(address,address)")), "dd62ed3e");
    }

    #[test]
    fn an_answer_that_is_no_channel_is_told_from_a_channel_that_is_not_there() {
        assert_eq!(Channel::read(&[0; 192]), Some(None));
        for bad in [&[][..], &[0; 191], &[0; 224], &[1; 192]] {
            assert_eq!(Channel::read(bad), None);
        }
        let mut words = [[0; 32]; 6];
        words[0][31] = 1;
        words[1][31] = 9;
        words[3][31] = 4;
        let open = Channel::read(words.as_flattened()).flatten().expect("a channel");
        assert_eq!((open.deposit, open.redeemed, open.left()), (9, 4, 5));
        words[5][24..].fill(0xff);
        let closed = Channel::read(words.as_flattened()).flatten().expect("a channel");
        assert_eq!((closed.exit_at, closed.left()), (CLOSED, 0));
    }

    #[test]
    fn an_opening_says_whom_the_channel_binds_and_what_is_in_it() {
        let [contract, payer, payee, token] = [9, 1, 2, 8].map(|n| EvmAddress([n; 20]));
        let terms = ChannelTerms { chain: 5, contract, payer, payee, token, salt: [3; 32] };
        let topics = [opened(), terms.id().0, address_word(&payer), address_word(&payee)];
        let data = [address_word(&token), word(7), [3; 32]];
        let read = |chain| read_opened(chain, &contract, &topics, data.as_flattened());
        assert_eq!((read(5), read(6)), (Some((terms, 7)), None));
    }

    #[test]
    fn a_refusal_has_a_reason() {
        assert_eq!(refusal(&selector("NothingNew(uint96)")), Some(ERRORS[12].1));
        assert_eq!(refusal(&[1, 2, 3, 4]), None);
        assert_eq!(refusal(&[]), None);
    }
}
