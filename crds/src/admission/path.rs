//! Field paths as the API server writes them.

use std::fmt;

use jsonschema::paths::{Location, LocationSegment};

/// A field within an object, such as `spec.container.env[0].name`.
#[derive(Clone, Default)]
pub(super) struct Path(String);

impl Path {
    pub(super) fn field(&self, name: &str) -> Self {
        Self(if self.0.is_empty() { name.to_owned() } else { format!("{self}.{name}") })
    }

    pub(super) fn item(&self, index: usize) -> Self {
        Self(format!("{self}[{index}]"))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&Location> for Path {
    fn from(location: &Location) -> Self {
        location.iter().fold(Self::default(), |path, segment| match segment {
            LocationSegment::Property(name) => path.field(&name),
            LocationSegment::Index(index) => path.item(index),
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
