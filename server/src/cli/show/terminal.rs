//! What standard output is: how wide, and whether it takes colours.

use std::io::IsTerminal as _;

/// Columns assumed where nothing says otherwise.
const COLUMNS_DEFAULT: usize = 100;
/// Columns below which nothing useful can be shown.
const COLUMNS_MIN: usize = 40;

/// Where text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Columns to fit into; `None`: no bound (a file or a pipe).
    pub(crate) columns: Option<usize>,
    /// Whether to use colours.
    pub(crate) colours: bool,
}

impl Terminal {
    /// Standard output, as it is now. Colours only on a terminal, unless `NO_COLOR` is set (and not
    /// empty) or `TERM` is `dumb`. The width is the terminal's, else that of `COLUMNS`.
    pub(crate) fn of_stdout() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_terminal = std::io::stdout().is_terminal();
        let columns = match terminal_size::terminal_size() {
            Some((terminal_size::Width(columns), _)) if is_terminal => Some(usize::from(columns)),
            _ => std::env::var("COLUMNS")
                .ok()
                .and_then(|text| text.parse().ok()),
        };
        Self {
            columns: columns.map(|columns| columns.max(COLUMNS_MIN)),
            colours: is_terminal && !dumb && !set("NO_COLOR"),
        }
    }

    /// Columns to draw bars into.
    pub(crate) fn columns_or_default(self) -> usize {
        self.columns.unwrap_or(COLUMNS_DEFAULT)
    }

    /// `text` in red.
    pub(crate) fn red(self, text: &str) -> String {
        self.coloured("31", text)
    }

    /// `text` in a fainter colour.
    pub(crate) fn faint(self, text: &str) -> String {
        self.coloured("2", text)
    }

    /// `text` in bold.
    pub(crate) fn bold(self, text: &str) -> String {
        self.coloured("1", text)
    }

    /// `text` in one of six colours that `key` decides, the same for the same key.
    pub(crate) fn by_key(self, key: &str, text: &str) -> String {
        const COLOURS: [&str; 6] = ["36", "33", "35", "34", "32", "96"];
        let hash = key
            .bytes()
            .fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
        let colour = COLOURS
            .get(hash as usize % COLOURS.len())
            .copied()
            .unwrap_or("0");
        self.coloured(colour, text)
    }

    fn coloured(self, code: &str, text: &str) -> String {
        if self.colours && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_text_stays_as_it_is() {
        let pipe = Terminal {
            columns: None,
            colours: false,
        };
        assert_eq!(pipe.red("x"), "x");
        assert_eq!(pipe.columns_or_default(), 100);
        let terminal = Terminal {
            columns: Some(80),
            colours: true,
        };
        assert_eq!(terminal.red("x"), "\x1b[31mx\x1b[0m");
        assert_eq!(terminal.red(""), "");
    }
}
