//! How things are written on pages.

use crate::{accounts::wallet::iso, query::Spread};
use infernet_wire::{
    id::NodeId,
    money::{MicroUsd, Price},
    time::UnixMillis,
};
use maud::{Markup, html};

/// A time. Scripts make `3 s ago` of it, and show the whole when it is pointed at.
pub(super) fn time(at: UnixMillis) -> Markup {
    let text = iso(at);
    html! { time datetime=(text) { (text) } }
}

/// A time that is shown whole, where it is what the page is about.
pub(super) fn moment(at: UnixMillis) -> Markup {
    let text = iso(at);
    html! { time datetime=(text) data-whole { (text) } }
}

/// A time, or a dash.
pub(super) fn maybe_time(at: Option<UnixMillis>) -> Markup {
    at.map_or_else(dash, time)
}

/// For what is not known.
pub(super) fn dash() -> Markup {
    html! { span.none title="not known" { "–" } }
}

/// Something, or a dash.
pub(super) fn or_dash(text: Option<String>) -> Markup {
    text.map_or_else(dash, |text| html! { (text) })
}

/// Dollars without needless zeros, with two places at least: `$1.25`, `$0.000123`.
pub(super) fn dollars(amount: MicroUsd) -> String {
    let text = amount.to_string();
    let short = text.trim_end_matches('0');
    let places = short.split_once('.').map_or(0, |(_, places)| places.len());
    let end = short.len() + 2usize.saturating_sub(places);
    text.get(..end.min(text.len())).unwrap_or(&text).to_owned()
}

/// A change of a balance.
pub(super) fn signed_dollars(amount: i64) -> String {
    let sign = if amount < 0 { "−" } else { "+" };
    format!("{sign}{}", dollars(MicroUsd(amount.unsigned_abs())))
}

/// Input and output per million tokens.
pub(super) fn price(price: Price) -> String {
    format!("{} / {}", dollars(price.input), dollars(price.output))
}

/// `$0.10`, or `$0.10 to $0.40, median $0.20`.
pub(super) fn price_spread(spread: Option<Spread>) -> Markup {
    spread_of(spread, |n| dollars(MicroUsd(n)))
}

/// The least, the middle and the most of what `shown` writes.
pub(super) fn spread_of(spread: Option<Spread>, shown: impl Fn(u64) -> String) -> Markup {
    match spread {
        None => dash(),
        Some(Spread { min, max, .. }) if min == max => html! { (shown(min)) },
        Some(Spread { min, median, max }) => {
            html! { (shown(min)) " – " (shown(max)) " " small { "median " (shown(median)) } }
        }
    }
}

/// A number with thin spaces between its thousands.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// One decimal.
pub(super) fn rate(rate: Option<f64>) -> Markup {
    or_dash(rate.map(|rate| format!("{rate:.1}")))
}

/// A node: its last characters, which differ most, with its whole id behind.
pub(super) fn node(id: &NodeId) -> Markup {
    html! { a.id href={ "/nodes/" (id) } title=(id) { (id.short()) } }
}

/// A name of many digits, cut.
pub(super) fn cut(text: &str) -> &str {
    text.get(..12).unwrap_or(text)
}

/// A status, with a colour and never by colour alone.
pub(super) fn badge(kind: &str, text: &str) -> Markup {
    html! { span class={ "badge " (kind) } { (text) } }
}

/// Text as a value in an address.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A column of numbers has a `#` before its name, and is to the right.
fn column(name: &str) -> Markup {
    match name.strip_prefix('#') {
        Some(name) => html! { th.n scope="col" { (name) } },
        None => html! { th scope="col" { (name) } },
    }
}

/// What a wide table is in, so that it scrolls and the page does not.
pub(super) fn table(head: &[&str], rows: &[Markup], none: &str) -> Markup {
    html! {
        @if rows.is_empty() {
            p.none { (none) }
        } @else {
            div.scroll tabindex="0" {
                table {
                    thead { tr { @for name in head { (column(name)) } } }
                    tbody { @for row in rows { (row) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_have_two_places_at_least() {
        for (micros, expected) in [
            (0, "$0.00"),
            (1_250_000, "$1.25"),
            (1_200_000, "$1.20"),
            (123, "$0.000123"),
            (100_000, "$0.10"),
            (10_000_000, "$10.00"),
        ] {
            assert_eq!(dollars(MicroUsd(micros)), expected);
        }
        assert_eq!(signed_dollars(-5), "−$0.000005");
    }

    #[test]
    fn thousands_are_apart() {
        for (n, expected) in [(0, "0"), (999, "999"), (1_000, "1\u{2009}000"), (1_234_567, "1\u{2009}234\u{2009}567")] {
            assert_eq!(number(n), expected);
        }
    }

    #[test]
    fn what_is_in_an_address_is_escaped() {
        assert_eq!(escaped("/jobs?a=b&c=\"é"), "/jobs%3Fa%3Db%26c%3D%22%C3%A9");
    }
}
