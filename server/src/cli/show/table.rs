//! Tables of text in columns. Cells come from stored data: they are made safe here.

use super::{
    terminal::Terminal,
    text::{plain, shortened, width},
};

/// Narrowest that a text column is cut to.
const COLUMN_WIDTH_MIN: usize = 8;
const GAP: &str = "  ";

/// Where a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text: may be cut where the terminal is too narrow.
    Left,
    /// Ids and times: never cut.
    Whole,
    /// Numbers: never cut.
    Right,
}

/// A table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns
            .iter()
            .map(|(name, align)| (plain(name), *align))
            .collect();
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row, one cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }

    /// As text, a line for the head and each row, cut to the terminal's width if it has one.
    pub(crate) fn render(&self, terminal: Terminal) -> String {
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| width(name)).collect();
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        if let Some(columns) = terminal.columns {
            self.narrow(&mut widths, columns);
        }
        let mut out = String::new();
        let head: Vec<String> = self
            .columns
            .iter()
            .map(|(name, _)| name.to_uppercase())
            .collect();
        out.push_str(&terminal.bold(&self.line(&head, &widths)));
        out.push('\n');
        for row in &self.rows {
            out.push_str(&self.line(row, &widths));
            out.push('\n');
        }
        out
    }

    /// Takes from the widest text column until the table fits or text is as narrow as it gets.
    fn narrow(&self, widths: &mut [usize], columns: usize) {
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        let mut over = (widths.iter().sum::<usize>() + gaps).saturating_sub(columns);
        while over > 0 {
            let widest = widths
                .iter_mut()
                .zip(&self.columns)
                .filter(|(width, (_, align))| *align == Align::Left && **width > COLUMN_WIDTH_MIN)
                .map(|(width, _)| width)
                .max_by_key(|width| **width);
            let Some(widest) = widest else { break };
            *widest -= 1;
            over -= 1;
        }
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (((_, align), columns), cell) in self.columns.iter().zip(widths).zip(cells) {
            if !line.is_empty() {
                line.push_str(GAP);
            }
            let cell = if *align == Align::Left {
                shortened(cell, *columns)
            } else {
                cell.clone()
            };
            let padding = " ".repeat(columns.saturating_sub(width(&cell)));
            match align {
                Align::Left | Align::Whole => line.extend([cell, padding]),
                Align::Right => line.extend([padding, cell]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[("service", Align::Left), ("spans", Align::Right)]);
        table.row(["checkout".into(), "12".into()]);
        table.row(["a\x1b[2Jlong service name".into(), "1,234".into()]);
        table
    }

    #[test]
    fn columns_line_up() {
        let text = table().render(Terminal {
            columns: None,
            colours: false,
        });
        assert_eq!(
            text,
            "SERVICE                      SPANS\n\
             checkout                        12\n\
             a\\u{1b}[2Jlong service name  1,234\n"
        );
    }

    #[test]
    fn text_is_cut_to_the_terminal_and_numbers_are_not() {
        let text = table().render(Terminal {
            columns: Some(20),
            colours: false,
        });
        assert_eq!(
            text,
            "SERVICE        SPANS\ncheckout          12\na\\u{1b}[2Jlo…  1,234\n"
        );
    }
}
