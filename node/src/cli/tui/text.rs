//! Text for a pane: rows of words in a tone, tables laid out to a width, bars. Pure.
//!
//! Every sign that comes out of here is one column wide, so that counting characters is measuring. What strangers wrote (models,
//! agents, errors) goes through [`foreign`] first.

use std::cmp::Reverse;

/// What a word is to the eye; colours and weights are the screen's matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it comes.
    #[default]
    Plain,
    /// A heading, or what matters most.
    Strong,
    /// A label, or what is past.
    Faint,
    /// All is well, or it runs.
    Good,
    /// Something to mend.
    Bad,
}

/// A few words in one tone.
pub(super) type Words = (Tone, String);

/// A line of a pane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row(pub(super) Vec<Words>);

impl Row {
    /// One that is all in `tone`.
    pub(super) fn of(tone: Tone, text: impl Into<String>) -> Self {
        Row(vec![(tone, text.into())])
    }

    /// `what` in front, in a column of its own, and `said` behind it.
    pub(super) fn labelled(what: &str, tone: Tone, said: impl Into<String>) -> Self {
        Row(vec![(Tone::Faint, format!("{what:<8}")), (tone, said.into())])
    }

    /// The columns that it takes.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// Without its tones.
    #[cfg(test)]
    pub(super) fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }
}

/// What a continued line stands below: the label, if there is one.
const BELOW_LABEL: usize = 8;
const BELOW_TEXT: usize = 2;

/// `row` in lines of at most `width`, broken between words where that can be.
pub(super) fn wrapped(row: Row, width: usize) -> Vec<Row> {
    if row.width() <= width {
        return vec![row];
    }
    let is_labelled = matches!(row.0.first(), Some((Tone::Faint, label)) if label.chars().count() == BELOW_LABEL);
    let indent = if is_labelled { BELOW_LABEL } else { BELOW_TEXT };
    let mut signs: Vec<(Tone, char)> = row.0.iter().flat_map(|(tone, text)| text.chars().map(|sign| (*tone, sign))).collect();
    let mut lines = vec![signs.drain(..cut(&signs, width)).collect::<Vec<_>>()];
    let left = width.saturating_sub(indent).max(1);
    while !signs.is_empty() {
        signs.drain(..signs.iter().take_while(|(_, sign)| *sign == ' ').count());
        let here: Vec<_> = signs.drain(..cut(&signs, left)).collect();
        lines.push(std::iter::repeat_n((Tone::Plain, ' '), indent).chain(here).collect());
    }
    lines.iter().map(|line| rejoined(line)).collect()
}

/// How many of `signs` stand on a line of `width`: up to the last space that fits, if that is not too far back.
fn cut(signs: &[(Tone, char)], width: usize) -> usize {
    if signs.len() <= width {
        return signs.len();
    }
    let space = signs.iter().take(width + 1).rposition(|(_, sign)| *sign == ' ');
    space.filter(|place| *place * 2 > width).unwrap_or(width).max(1)
}

/// Signs of the same tone as words again.
fn rejoined(signs: &[(Tone, char)]) -> Row {
    let mut words: Vec<Words> = Vec::new();
    for (tone, sign) in signs {
        match words.last_mut() {
            Some((last, text)) if last == tone => text.push(*sign),
            _ => words.push((*tone, sign.to_string())),
        }
    }
    Row(words)
}

/// A stranger's text as it may stand on the screen. What is not ASCII becomes `?`: control characters would paint the screen,
/// others are wider than one column, have no width, or turn the line around.
pub(super) fn foreign(text: &str) -> String {
    let shown = |c: char| match c {
        ' ' => c,
        // Ours, where a text was cut.
        '\u{2026}' => '~',
        c if c.is_ascii_graphic() => c,
        _ => '?',
    };
    text.chars().map(shown).collect()
}

/// `text` in `columns`: filled up, or cut with a `~` at its end.
pub(super) fn fitted(text: &str, columns: usize, right: bool) -> String {
    let width = text.chars().count();
    if width > columns {
        return text.chars().take(columns.saturating_sub(1)).chain(['~']).take(columns).collect();
    }
    let room = " ".repeat(columns - width);
    if right { room + text } else { format!("{text}{room}") }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    head: &'static str,
    width: usize,
    right: bool,
    rank: u8,
}

impl Column {
    /// Left-bound. Of a table that is too wide, the columns of the highest `rank` go first.
    pub(super) const fn left(head: &'static str, width: usize, rank: u8) -> Self {
        Column { head, width, right: false, rank }
    }

    /// Right-bound, for numbers.
    pub(super) const fn right(head: &'static str, width: usize, rank: u8) -> Self {
        Column { head, width, right: true, rank }
    }
}

/// The rows of a table in `width` columns, its head first. The last column takes what is left.
pub(super) fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<Words>>, width: usize) -> Vec<Row> {
    let shown = shown(columns, width);
    let head = columns.iter().map(|column| (Tone::Faint, column.head.to_owned())).collect();
    std::iter::once(head).chain(rows).map(|cells: Vec<Words>| line(columns, &shown, &cells, width)).collect()
}

/// Which columns fit, with the space between them.
fn shown(columns: &[Column], width: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by_key(|n| columns.get(*n).map(|column| Reverse(column.rank)));
    let mut shown = vec![true; columns.len()];
    for out in order {
        let kept = columns.iter().zip(&shown).filter(|(_, shown)| **shown);
        let (needed, count) = kept.fold((0, 0usize), |(sum, n), (column, _)| (sum + column.width + 1, n + 1));
        if needed <= width + 1 || count <= 1 {
            break;
        }
        if let Some(shown) = shown.get_mut(out) {
            *shown = false;
        }
    }
    shown
}

fn line(columns: &[Column], shown: &[bool], cells: &[Words], width: usize) -> Row {
    let kept: Vec<_> = columns.iter().zip(shown).zip(cells).filter(|((_, shown), _)| **shown).collect();
    let (mut words, mut left) = (Vec::with_capacity(kept.len()), width);
    for (n, ((column, _), (tone, text))) in kept.iter().enumerate() {
        let is_last = n + 1 == kept.len();
        let columns = if is_last && !column.right { left } else { column.width.min(left) };
        let fitted = fitted(text, columns, column.right);
        left = left.saturating_sub(columns + 1);
        words.push((*tone, if is_last { fitted.trim_end().to_owned() } else { fitted + " " }));
    }
    Row(words)
}

/// From nothing to the most.
const BLOCKS: [char; 9] = [' ', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];
/// The same where there are only letters.
const LETTERS: [char; 9] = ['_', '.', ':', '-', '=', '+', '*', '%', '#'];

/// `values` as bars beside each other, the highest of full height. What is not nothing can be seen.
pub(super) fn bars(values: &[u64], blocks: bool) -> String {
    let most = u128::from(values.iter().copied().max().unwrap_or_default().max(1));
    let level = |value: u64| usize::try_from((u128::from(value) * 8).div_ceil(most)).unwrap_or(8);
    let signs = if blocks { BLOCKS } else { LETTERS };
    values.iter().map(|value| signs.get(level(*value)).copied().unwrap_or(' ')).collect()
}

/// `part` of `whole` as a bar of `columns` signs.
pub(super) fn gauge(part: u64, whole: u64, columns: usize, blocks: bool) -> String {
    let (full, empty) = if blocks { ('\u{2588}', '\u{2591}') } else { ('#', '.') };
    let filled = u128::from(part.min(whole)) * columns as u128;
    let filled = usize::try_from(filled.div_ceil(u128::from(whole.max(1)))).unwrap_or(columns);
    std::iter::repeat_n(full, filled).chain(std::iter::repeat_n(empty, columns - filled.min(columns))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_can_neither_paint_nor_turn_nor_widen_a_line() {
        assert_eq!(foreign("a\x1b[31mb\u{202e}c\u{200d}\u{4e2d}\n"), "a?[31mb?c???");
        assert_eq!(foreign("meta-llama/Llama-3.1:8b "), "meta-llama/Llama-3.1:8b ");
    }

    #[test]
    fn lines_are_broken_between_words_and_go_on_below_their_text() {
        let lines = |row, width| wrapped(row, width).iter().map(Row::text).collect::<Vec<_>>();
        let labelled = || Row::labelled("lost", Tone::Bad, "dearer 4, slower 1");
        assert_eq!(lines(labelled(), 20), ["lost    dearer 4,", "        slower 1"]);
        assert_eq!(lines(labelled(), 26), ["lost    dearer 4, slower 1"]);
        assert_eq!(lines(Row::of(Tone::Plain, "abcdefghij kl"), 6), ["abcdef", "  ghij", "  kl"]);
        assert_eq!(wrapped(labelled(), 20)[1].0.last(), Some(&(Tone::Bad, "slower 1".into())));
        for width in 0..12 {
            assert!(lines(labelled(), width).len() < 40, "it ends");
        }
    }

    #[test]
    fn a_cell_has_its_width_whatever_is_in_it() {
        assert_eq!([fitted("ab", 4, false), fitted("ab", 4, true), fitted("abcdef", 4, false)], ["ab  ", "  ab", "abc~"]);
        assert_eq!([fitted("abc", 1, false), fitted("abc", 0, true)], ["~", ""]);
    }

    const COLUMNS: [Column; 3] = [Column::left("A", 3, 0), Column::right("N", 4, 2), Column::left("REST", 4, 1)];

    fn laid_out(width: usize) -> Vec<String> {
        let row = ["aaaa", "12", "the rest of it"].map(|text| (Tone::Plain, text.to_owned()));
        table(&COLUMNS, [row.to_vec()], width).iter().map(Row::text).collect()
    }

    #[test]
    fn a_table_that_is_too_wide_loses_its_least_columns() {
        assert_eq!(laid_out(24), ["A      N REST", "aa~   12 the rest of it"]);
        assert_eq!(laid_out(13), ["A      N REST", "aa~   12 the~"]);
        assert_eq!(laid_out(12), ["A   REST", "aa~ the res~"]);
        assert_eq!(laid_out(7), ["A", "aaaa"]);
        assert_eq!(laid_out(2), ["A", "a~"]);
    }

    #[test]
    fn bars_show_the_least_and_the_most() {
        assert_eq!(bars(&[0, 1, 4, 8], false), "_.=#");
        assert_eq!(bars(&[0, u64::MAX], true), " \u{2588}");
        assert_eq!(bars(&[0, 0], false), "__");
        assert_eq!([gauge(1, 4, 8, false), gauge(9, 4, 4, false), gauge(0, 0, 2, false)], ["##......", "####", ".."]);
    }
}
