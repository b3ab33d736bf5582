//! Reading a text from left to right, for the small languages of this crate: blanks, quoted strings with
//! Go's escapes, and where a fault lies.

/// Characters of a text that an error repeats on each side of the place it points at.
const SHOWN_CHARS_MAX: usize = 60;

/// A place in a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    /// The text.
    pub(crate) text: &'a str,
    /// Bytes read.
    pub(crate) at: usize,
}

/// Where and why a text could not be read, for the errors that are made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Counted in characters from 1.
    pub(crate) character: usize,
    pub(crate) reason: String,
    /// What stands there, shortened and quoted; `end of text` at the end.
    pub(crate) rest: String,
    /// The text around the fault in one line.
    pub(crate) line: String,
    /// Characters of `line` before the fault.
    pub(crate) caret: usize,
}

impl Fault {
    /// The line and below it a mark at the fault.
    pub(crate) fn pointer(line: &str, caret: usize) -> String {
        format!("{line}\n{}^", " ".repeat(caret))
    }
}

impl<'a> Cursor<'a> {
    /// At the beginning of `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// A string in double quotes, single quotes or backquotes; the cursor stands at its first quote.
    pub(crate) fn string(&mut self) -> Result<String, Fault> {
        let open = self.at;
        let quote = self.next().unwrap_or('"');
        let mut value = String::new();
        loop {
            let here = self.at;
            match self.next() {
                Some(c) if c == quote => return Ok(value),
                Some('\\') if quote != '`' => {
                    let Some(c) = self.escape(quote) else {
                        self.at = here;
                        return Err(self.fault("unknown escape in a quoted value"));
                    };
                    value.push(c);
                }
                Some('\n') if quote != '`' => {
                    self.at = here;
                    return Err(self.fault("a line feed in a quoted value: write \\n"));
                }
                Some(c) => value.push(c),
                None => {
                    self.at = open;
                    return Err(self.fault("this quote is not closed"));
                }
            }
        }
    }

    /// What follows a backslash, as in Go.
    fn escape(&mut self, quote: char) -> Option<char> {
        let code = |cursor: &mut Self, digits: usize, radix: u32| {
            let end = cursor.at.checked_add(digits)?;
            let text = cursor.text.get(cursor.at..end)?;
            if !text.chars().all(|c| c.is_digit(radix)) {
                return None;
            }
            cursor.at = end;
            char::from_u32(u32::from_str_radix(text, radix).ok()?)
        };
        match self.next()? {
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'f' => Some('\x0c'),
            'v' => Some('\x0b'),
            '\\' => Some('\\'),
            'x' => code(self, 2, 16).filter(char::is_ascii),
            'u' => code(self, 4, 16),
            'U' => code(self, 8, 16),
            '0'..='7' => {
                self.at -= 1;
                code(self, 3, 8).filter(char::is_ascii)
            }
            c if c == quote => Some(c),
            _ => None,
        }
    }

    /// The characters from here on that `take` takes, given each with its place in the word.
    pub(crate) fn word(&mut self, mut take: impl FnMut(usize, char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest
            .char_indices()
            .find(|&(i, c)| !take(i, c))
            .map_or(rest.len(), |(i, _)| i);
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// Steps over blanks.
    pub(crate) fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    /// What is not read yet.
    pub(crate) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The character that comes next.
    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes the next character.
    pub(crate) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Takes the next character if it is `c`.
    pub(crate) fn take(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    /// A fault here.
    pub(crate) fn fault(&self, reason: impl Into<String>) -> Fault {
        let before = self.text.get(..self.at).unwrap_or_default();
        let character = before.chars().count() + 1;
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let left: Vec<char> = before
            .chars()
            .rev()
            .take(SHOWN_CHARS_MAX)
            .map(plain)
            .collect();
        let right: String = self
            .rest()
            .chars()
            .take(SHOWN_CHARS_MAX)
            .map(plain)
            .collect();
        let rest = if right.is_empty() {
            "end of text".to_owned()
        } else {
            format!("`{right}`")
        };
        let line: String = left.iter().rev().copied().chain(right.chars()).collect();
        Fault {
            character,
            reason: reason.into(),
            rest,
            line,
            caret: left.len(),
        }
    }
}
