//! Plots as SVG text: lines over growing sizes, and bars. As little as a report needs.

use std::fmt::Write;

const WIDTH: u64 = 640;
const HEIGHT: u64 = 360;
/// Room for words around the plot.
const LEFT: u64 = 70;
const TOP: u64 = 44;
const RIGHT: u64 = 20;
const BOTTOM: u64 = 56;
/// One colour for each line: told apart by those who see few colours, too (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// Marks on the upright axis.
const MARKS: u64 = 4;

/// A line of a plot: its name, and one value for each place on the axis.
pub(super) struct Series<'a> {
    /// What it shows.
    pub(super) name: &'a str,
    /// Its values.
    pub(super) values: Vec<u64>,
}

/// Lines over `places`, which stand at equal distances.
pub(super) fn lines(title: &str, unit: &str, places: &[String], series: &[Series<'_>]) -> String {
    let most = series.iter().flat_map(|series| &series.values).copied().max().unwrap_or(1).max(1);
    let mut svg = frame(title, unit, most);
    let x = |at: usize| LEFT + (WIDTH - LEFT - RIGHT) * at as u64 / (places.len().saturating_sub(1).max(1)) as u64;
    for (at, place) in places.iter().enumerate() {
        text(&mut svg, x(at), HEIGHT - BOTTOM + 18, "middle", place);
    }
    for (number, (series, colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let points: Vec<String> =
            series.values.iter().enumerate().map(|(at, value)| format!("{},{}", x(at), y(*value, most))).collect();
        let _ = write!(svg, r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, points.join(" "));
        legend(&mut svg, number, colour, series.name);
    }
    svg + "</svg>\n"
}

/// One bar for each of `values`.
pub(super) fn bars(title: &str, unit: &str, values: &[(String, u64)]) -> String {
    let most = values.iter().map(|(_, value)| *value).max().unwrap_or(1).max(1);
    let mut svg = frame(title, unit, most);
    let step = (WIDTH - LEFT - RIGHT) / (values.len().max(1)) as u64;
    for (at, (name, value)) in values.iter().enumerate() {
        let (left, top) = (LEFT + step * at as u64 + step / 8, y(*value, most));
        let (wide, high) = ((step * 3 / 4).max(1), HEIGHT - BOTTOM - top);
        let _ = write!(svg, r#"<rect x="{left}" y="{top}" width="{wide}" height="{high}" fill="{}"/>"#, COLOURS[0]);
        if values.len() <= 16 {
            let (x, y) = (left + wide / 2, HEIGHT - BOTTOM + 14);
            let _ = write!(
                svg,
                r#"<text x="{x}" y="{y}" text-anchor="end" transform="rotate(-30 {x} {y})">{}</text>"#,
                escaped(name)
            );
        }
    }
    svg + "</svg>\n"
}

fn y(value: u64, most: u64) -> u64 {
    HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value.min(most) / most
}

fn frame(title: &str, unit: &str, most: u64) -> String {
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>"#
    );
    let _ = write!(svg, r#"<text x="{LEFT}" y="20" font-size="14">{} ({})</text>"#, escaped(title), escaped(unit));
    for mark in 0..=MARKS {
        let value = most * mark / MARKS;
        let at = y(value, most);
        let _ = write!(svg, r##"<line x1="{LEFT}" x2="{}" y1="{at}" y2="{at}" stroke="#ddd"/>"##, WIDTH - RIGHT);
        text(&mut svg, LEFT - 6, at + 4, "end", &value.to_string());
    }
    svg
}

fn legend(svg: &mut String, number: usize, colour: &str, name: &str) {
    let x = LEFT + 150 * number as u64;
    let y = TOP - 10;
    let _ = write!(svg, r#"<rect x="{x}" y="{}" width="10" height="10" fill="{colour}"/>"#, y - 9);
    text(svg, x + 14, y, "start", name);
}

fn text(svg: &mut String, x: u64, y: u64, anchor: &str, words: &str) {
    let _ = write!(svg, r#"<text x="{x}" y="{y}" text-anchor="{anchor}">{}</text>"#, escaped(words));
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_values_and_harmless_words() {
        let places = ["10".to_owned(), "100".to_owned()];
        let svg = lines("a < b", "ms", &places, &[Series { name: "p50", values: vec![0, 50] }]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b (ms)") && svg.contains("70,304 620,44"), "{svg}");
        let svg = bars("jobs", "each", &[("worker 1".into(), 3), ("worker 2".into(), 0)]);
        assert!(svg.contains(r#"height="260""#) && svg.contains(r#"height="0""#), "{svg}");
    }
}
