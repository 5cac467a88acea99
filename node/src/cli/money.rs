//! Money on the command line: flags take whole micro-USD, people think in dollars.

use infernet_wire::money::MicroUsd;

/// Decimals of a dollar that are there.
const DECIMALS: usize = 6;
/// Dollars for a million tokens that nobody asks, nor pays for a job: what is above is no price in dollars.
const MAX_DOLLARS: u64 = 1_000;

/// A flag's micro-USD. Whoever writes dollars is told what to write.
pub(super) fn micro_usd(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| match from_dollars(text) {
        Some(micro) if micro < MAX_DOLLARS * 1_000_000 => {
            format!("it takes whole micro-USD; for {} write {micro}", dollars(micro))
        }
        _ => "it takes whole micro-USD, such as 400000 for $0.40".into(),
    })
}

/// `0.4` dollars are 400 000 micro-USD; no more than six decimals, with a dollar sign or without.
pub(super) fn from_dollars(text: &str) -> Option<u64> {
    let text = text.trim_start_matches('$');
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if part.len() > DECIMALS || !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u64 = format!("{part:0<DECIMALS$}").parse().ok()?;
    whole.checked_mul(1_000_000)?.checked_add(part)
}

/// `$0.40`: as short as it can be told, with two decimals at the least.
pub(super) fn dollars(micro: u64) -> String {
    let exact = MicroUsd(micro).to_string();
    let cut = exact.trim_end_matches('0');
    let least = exact.len() - 4;
    exact.get(..cut.len().max(least)).unwrap_or(&exact).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_to_the_last_digit_and_shown_without_idle_ones() {
        let read = from_dollars;
        assert_eq!(["0.4", "$12", ".000001", "0", "1."].map(read), [400_000, 12_000_000, 1, 0, 1_000_000].map(Some));
        assert_eq!(["", ".", "-1", "0.0000001", "1e3", "99999999999999999999", "18446744073710"].map(read), [None; 7]);
        assert_eq!([400_000, 1, 12_000_000].map(dollars), ["$0.40", "$0.000001", "$12.00"]);
    }

    #[test]
    fn who_writes_dollars_is_told_the_micro_usd() {
        assert_eq!(micro_usd("400000"), Ok(400_000));
        let told = |text| micro_usd(text).expect_err("no number of micro-USD");
        assert_eq!(told("0.4"), "it takes whole micro-USD; for $0.40 write 400000");
        assert_eq!(told("$2"), "it takes whole micro-USD; for $2.00 write 2000000");
        for text in ["400000.5", "many", "0,4", "1e6", "99999999999999999999"] {
            assert!(told(text).contains("such as 400000"), "{text}");
        }
    }
}
