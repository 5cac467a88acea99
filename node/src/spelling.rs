//! What somebody may have meant by a name that does not exist. Pure.

/// Of so many letters one may be wrong: fewer, and short names would all resemble each other.
const LETTERS_PER_MISTAKE: usize = 3;

/// The one of `names` that is most like `written`, if one is like it; the first of several.
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (written.chars().count() / LETTERS_PER_MISTAKE).max(1);
    let far = |name: &'a str| (mistakes(&written.to_lowercase(), &name.to_lowercase()), name);
    // `min_by_key` takes the first of equals.
    names.into_iter().map(far).filter(|(far, _)| *far <= allowed).min_by_key(|(far, _)| *far).map(|(_, name)| name)
}

/// Letters to add, drop or change until `a` is `b` (Levenshtein), by one row of the table at a time.
fn mistakes(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (n, of_a) in a.chars().enumerate() {
        let (mut diagonal, mut left) = (n, n + 1);
        row.iter_mut().take(1).for_each(|first| *first = left);
        for (cell, of_b) in row.iter_mut().skip(1).zip(&b) {
            let changed = diagonal + usize::from(of_a != *of_b);
            diagonal = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_counted_and_the_nearest_name_wins() {
        for (a, b, expected) in [("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("same", "same", 0)] {
            assert_eq!(mistakes(a, b), expected, "{a} {b}");
        }
        let names = ["price_in", "price_out", "slots", "api"];
        for (written, expected) in
            [("prise_out", Some("price_out")), ("SLOT", Some("slots")), ("apo", Some("api")), ("zebra", None), ("", None)]
        {
            assert_eq!(nearest(written, names), expected, "{written}");
        }
    }
}
