//! Bars over time, as SVG that follows the page's colours.

use maud::{Markup, html};

/// One bar.
pub(super) struct Bar {
    /// When it begins, as it is shown.
    pub(super) at: String,
    /// How much.
    pub(super) value: f64,
    /// The same, as it is shown.
    pub(super) shown: String,
}

/// The height of the highest bar, and the width of each with its gap.
const HEIGHT: f64 = 100.0;
const STEP: usize = 10;
const WIDTH: usize = 8;

/// Bars with a title, the highest named beside them. Whoever sees no picture is told the first, the highest and the last.
pub(super) fn bars(title: &str, bars: &[Bar]) -> Markup {
    let most = bars.iter().max_by(|a, b| a.value.total_cmp(&b.value));
    let top = most.map_or(0.0, |bar| bar.value);
    let height = |bar: &Bar| if top > 0.0 { (bar.value / top * HEIGHT).clamp(0.0, HEIGHT) } else { 0.0 };
    let (first, last) = (bars.first(), bars.last());
    let width = (bars.len() * STEP).max(1);
    let told = match (most, last) {
        (Some(most), Some(last)) if top > 0.0 => {
            format!("{title}: highest {} ({}), last {} ({})", most.shown, most.at, last.shown, last.at)
        }
        _ => format!("{title}: nothing yet"),
    };
    html! {
        figure.plot {
            figcaption { (title) @if top > 0.0 { @if let Some(most) = most { " " small { "highest " (most.shown) } } } }
            svg viewBox={ "0 0 " (width) " 100" } preserveAspectRatio="none" role="img" aria-label=(told) {
                @for (place, bar) in bars.iter().enumerate() {
                    @let tall = height(bar);
                    // Whoever points at an empty hour is told that it was.
                    rect.back x=(place * STEP) y="0" width=(STEP) height="100" { title { (bar.at) ": " (bar.shown) } }
                    rect.bar x=(place * STEP + 1) y=(format!("{:.1}", HEIGHT - tall)) width=(WIDTH) height=(format!("{tall:.1}")) {
                        title { (bar.at) ": " (bar.shown) }
                    }
                }
            }
            div.axis { span { @if let Some(first) = first { (first.at) } } span { @if let Some(last) = last { (last.at) } } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(value: f64) -> Bar {
        Bar { at: "t".into(), value, shown: format!("{value}") }
    }

    #[test]
    fn the_highest_bar_is_as_high_as_the_plot_and_nothing_divides_by_zero() {
        let drawn = bars("Volume", &[bar(1.0), bar(4.0)]).into_string();
        assert!(
            drawn.contains("y=\"75.0\" width=\"8\" height=\"25.0\"")
                && drawn.contains("y=\"0.0\" width=\"8\" height=\"100.0\""),
            "{drawn}"
        );
        for none in [vec![], vec![bar(0.0)]] {
            let drawn = bars("Volume", &none).into_string();
            assert!(drawn.contains("nothing yet") && !drawn.contains("NaN"), "{drawn}");
        }
    }
}
