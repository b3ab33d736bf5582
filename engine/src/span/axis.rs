//! How spans of a trace are related.

/// A relation between spans of one trace, by the parent rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Axis {
    /// Called directly by it.
    Child,
    /// Called it directly.
    Parent,
    /// Below it, however deep.
    Descendant,
    /// Above it, up to its root.
    Ancestor,
    /// Another span with the same parent; roots have none.
    Sibling,
}

impl Axis {
    /// The relation seen from the other side.
    #[must_use]
    pub fn inverse(self) -> Self {
        match self {
            Self::Child => Self::Parent,
            Self::Parent => Self::Child,
            Self::Descendant => Self::Ancestor,
            Self::Ancestor => Self::Descendant,
            Self::Sibling => Self::Sibling,
        }
    }
}
