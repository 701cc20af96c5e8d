//! Aligned tables and lists of details, as wide as the terminal and no wider.
//!
//! Widths are those that characters take up on a screen, so that names of any script line up. It
//! deliberately knows nothing of what it shows: cells come escaped or not as their maker saw fit.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How a piece of text is to stand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Paint {
    /// As it is.
    #[default]
    Plain,
    /// A heading.
    Bold,
    /// Of lesser importance.
    Dim,
    /// Wrong.
    Red,
    /// Right.
    Green,
    /// Waits, or should be looked at.
    Yellow,
    /// A name to go by.
    Cyan,
}

impl Paint {
    /// `text` in this manner, where colours are wanted.
    pub(crate) fn on(self, text: &str, colours: bool) -> String {
        let code = match self {
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Red => "31",
            Paint::Green => "32",
            Paint::Yellow => "33",
            Paint::Cyan => "36",
            Paint::Plain => return text.to_owned(),
        };
        if colours && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// A cell in `paint`.
    pub(crate) fn new(text: impl Into<String>, paint: Paint) -> Self {
        Cell { text: text.into(), paint }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::new(text, Paint::Plain)
    }
}
impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::new(text, Paint::Plain)
    }
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    is_number: bool,
    may_shrink: bool,
}

/// A column of text that is never cut.
pub(crate) const fn fixed(title: &'static str) -> Column {
    Column { title, is_number: false, may_shrink: false }
}

/// A column of text that is cut where the table is too wide.
pub(crate) const fn elastic(title: &'static str) -> Column {
    Column { title, is_number: false, may_shrink: true }
}

/// A column of numbers, aligned to the right.
pub(crate) const fn number(title: &'static str) -> Column {
    Column { title, is_number: true, may_shrink: false }
}

/// An elastic column is never cut below this width.
const NARROWEST: usize = 8;
const GAP: usize = 2;

/// How many columns `text` takes up.
pub(crate) fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// `text` cut to at most `max` columns, with an ellipsis where something was cut.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let w = c.width().unwrap_or(0);
        if used + w + 1 > max {
            break;
        }
        used += w;
        out.push(c);
    }
    if max > 0 {
        out.push('…');
    }
    out
}

/// A table; the columns in which no row has anything are left out.
pub(crate) fn table(
    columns: &[Column],
    rows: &[Vec<Cell>],
    max_width: Option<usize>,
    colours: bool,
) -> String {
    let shown: Vec<usize> = (0..columns.len())
        .filter(|i| rows.iter().any(|row| row.get(*i).is_some_and(|cell| !cell.text.is_empty())))
        .collect();
    let mut widths: Vec<usize> = shown
        .iter()
        .map(|i| {
            let cells = rows.iter().filter_map(|row| row.get(*i)).map(|cell| width(&cell.text));
            cells.chain([width(columns[*i].title)]).max().unwrap_or(0)
        })
        .collect();
    if let Some(max) = max_width {
        shrink(&mut widths, &shown, columns, max);
    }
    let mut out = String::new();
    let heads: Vec<Cell> =
        columns.iter().map(|column| Cell::new(column.title, Paint::Dim)).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (at, (i, wide)) in shown.iter().zip(&widths).enumerate() {
            let empty = Cell::default();
            let cell = row.get(*i).unwrap_or(&empty);
            let text = cut(&cell.text, *wide);
            let pad = " ".repeat(wide - width(&text).min(*wide));
            let painted = cell.paint.on(&text, colours);
            let is_last = at + 1 == shown.len();
            if columns[*i].is_number {
                line.push_str(&pad);
                line.push_str(&painted);
            } else {
                line.push_str(&painted);
                if !is_last {
                    line.push_str(&pad);
                }
            }
            if !is_last {
                line.push_str(&" ".repeat(GAP));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Takes from the widest elastic column, one by one, until the line fits or none can give more.
fn shrink(widths: &mut [usize], shown: &[usize], columns: &[Column], max: usize) {
    loop {
        let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        if total <= max {
            return;
        }
        let widest = (0..widths.len())
            .filter(|at| columns[shown[*at]].may_shrink && widths[*at] > NARROWEST)
            .max_by_key(|at| widths[*at]);
        let Some(widest) = widest else { return };
        widths[widest] -= 1;
    }
}

/// A list of `name: value` lines; values may have several lines.
pub(crate) fn details(rows: &[(&str, Cell)], colours: bool) -> String {
    let shown = || rows.iter().filter(|(_, cell)| !cell.text.is_empty());
    let wide = shown().map(|(name, _)| width(name)).max().unwrap_or(0);
    let mut out = String::new();
    for (name, cell) in shown() {
        let pad = " ".repeat(wide - width(name) + 1);
        let mut lines = cell.text.lines();
        let first = cell.paint.on(lines.next().unwrap_or_default(), colours);
        out.push_str(&format!("{}{pad}{first}\n", Paint::Dim.on(&format!("{name}:"), colours)));
        for line in lines {
            out.push_str(&format!("{}{}\n", " ".repeat(wide + 2), cell.paint.on(line, colours)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [fixed("NAME"), number("N"), fixed("NOTHING"), elastic("TITLE")];

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec![
                "planner".into(),
                "7".into(),
                "".into(),
                "a title that goes on for a while".into(),
            ],
            vec!["日本".into(), "123".into(), "".into(), "short".into()],
        ]
    }

    #[test]
    fn columns_line_up_by_what_is_seen_and_empty_ones_are_left_out() {
        assert_eq!(
            table(&COLUMNS, &rows(), None, false),
            "NAME       N  TITLE\n\
             planner    7  a title that goes on for a while\n\
             日本     123  short\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_elastic_columns_only() {
        let text = table(&COLUMNS, &rows(), Some(26), false);
        assert!(text.lines().all(|line| width(line) <= 26), "{text}");
        assert!(text.contains("planner    7  a title tha…"), "{text}");
        let text = table(&COLUMNS, &rows(), Some(1), false);
        assert!(text.contains("planner") && text.contains("a title…"), "{text}");
    }

    #[test]
    fn colours_do_not_shift_the_columns() {
        let rows = vec![vec![Cell::new("ok", Paint::Green), "1".into()]];
        let text = table(&[fixed("STATE"), number("N")], &rows, None, true);
        assert!(text.contains("\x1b[32mok\x1b[0m     1"), "{text:?}");
    }

    #[test]
    fn wide_characters_are_cut_whole() {
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn a_value_of_several_lines_is_indented() {
        let rows = [("a", "x\ny".into()), ("long", "z".into()), ("nothing", "".into())];
        assert_eq!(details(&rows, false), "a:    x\n      y\nlong: z\n");
    }
}
