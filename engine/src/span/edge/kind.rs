//! Kinds of edges.

use std::fmt;

/// What makes an edge.
///
/// A call is seen from both sides: a span whose parent belongs to another service. The others are seen
/// from one side only, or not by a call at all, and are answered on request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EdgeKind {
    /// A span whose parent, by the parent rule, belongs to another service.
    #[default]
    Call = 0,
    /// A client span that says which database system it talks to and has no child in another service.
    Database = 1,
    /// A producer or client span that says which messaging system it sends to.
    Messaging = 2,
    /// Any other client span that names whom it calls and has no child in another service.
    External = 3,
    /// A link of a span to a span of another service: the caller is the service linked to.
    Link = 4,
}

impl EdgeKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Call,
        Self::Database,
        Self::Messaging,
        Self::External,
        Self::Link,
    ];

    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Database => "database",
            Self::Messaging => "messaging",
            Self::External => "external",
            Self::Link => "link",
        }
    }

    /// The kind with this number on disk, if it is known.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }
}

impl fmt::Display for EdgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EdgeKinds(u8);

impl EdgeKinds {
    /// Calls alone.
    pub const CALLS: Self = Self(1 << EdgeKind::Call as u8);
    /// Peers known from the client's side alone.
    pub const PEERS: Self = Self(
        1 << EdgeKind::Database as u8
            | 1 << EdgeKind::Messaging as u8
            | 1 << EdgeKind::External as u8,
    );
    /// All kinds.
    pub const ALL: Self = Self(Self::CALLS.0 | Self::PEERS.0 | 1 << EdgeKind::Link as u8);

    /// With one more kind.
    #[must_use]
    pub const fn with(self, kind: EdgeKind) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// With one kind less.
    #[must_use]
    pub const fn without(self, kind: EdgeKind) -> Self {
        Self(self.0 & !(1 << kind as u8))
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether a kind is one of them.
    pub const fn contains(self, kind: EdgeKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Default for EdgeKinds {
    fn default() -> Self {
        Self::CALLS
    }
}

impl FromIterator<EdgeKind> for EdgeKinds {
    fn from_iter<I: IntoIterator<Item = EdgeKind>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self(0), Self::with)
    }
}
