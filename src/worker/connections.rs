//! To which of the platform's connections what a source speaks of belongs.

use crate::access::{RootPattern, ScopeId};
use crate::target::ConnectionRef;

/// The connection, or connections, of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connections {
    /// All roots belong to this one.
    One(ConnectionRef),
    /// Each root belongs to its own; a root that isn't named belongs to none.
    ByRoot(Vec<(RootPattern, ConnectionRef)>),
    /// The platform has no connections of this kind: deliveries are recorded and touch nothing.
    None,
}

impl Connections {
    /// The connection of a root, named by its id and its name as far as that is known.
    #[must_use]
    pub fn of(&self, root: &ScopeId, name: Option<&str>) -> Option<ConnectionRef> {
        match self {
            Self::One(connection) => Some(connection.clone()),
            Self::ByRoot(map) => {
                map.iter().find(|(pattern, _)| pattern.matches(root, name)).map(|(_, connection)| connection.clone())
            }
            Self::None => None,
        }
    }

    /// All connections that the source may touch.
    pub fn all(&self) -> impl Iterator<Item = &ConnectionRef> {
        let (one, map) = match self {
            Self::One(connection) => (Some(connection), [].as_slice()),
            Self::ByRoot(map) => (None, map.as_slice()),
            Self::None => (None, [].as_slice()),
        };
        one.into_iter().chain(map.iter().map(|(_, connection)| connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::ScopeKind;

    fn org(id: &str) -> ScopeId {
        ScopeId { kind: ScopeKind::Org, id: id.to_owned() }
    }

    #[test]
    fn a_map_gives_each_root_its_own_connection_by_name_or_id() {
        let map = Connections::ByRoot(vec![
            ("org:acme".parse().unwrap(), ConnectionRef::Id(12)),
            ("org:#7".parse().unwrap(), ConnectionRef::Id(13)),
        ]);
        assert_eq!(map.of(&org("1"), Some("Acme")), Some(ConnectionRef::Id(12)));
        assert_eq!(map.of(&org("7"), None), Some(ConnectionRef::Id(13)));
        assert_eq!(map.of(&org("8"), Some("other")), None);
    }

    #[test]
    fn one_connection_serves_every_root() {
        let one = Connections::One(ConnectionRef::Only("GITHUB".to_owned()));
        assert_eq!(one.of(&org("8"), None), Some(ConnectionRef::Only("GITHUB".to_owned())));
        assert_eq!(Connections::None.of(&org("8"), None), None);
    }
}
