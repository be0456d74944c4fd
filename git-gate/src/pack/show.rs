//! What happens to every object, wherever it comes from: it is named, its form is checked, and the sink looks at it.

use std::io::Read;

use gix_hash::{Kind, ObjectId};

use super::content::{finish, hasher};
use super::error::Fault;
use super::{Content, Object, ObjectKind, Sink};
use crate::objects;

/// The sink, and what is needed before it.
#[derive(Clone, Copy)]
pub(super) struct Show<'a> {
    pub(super) sink: &'a dyn Sink,
    pub(super) format: Kind,
}

impl Show<'_> {
    /// An object in memory; gives its name.
    pub(super) fn bytes(&self, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId, Fault> {
        let size = bytes.len() as u64;
        let mut hasher = hasher(self.format, kind, size);
        hasher.update(bytes);
        let id = finish(hasher)?;
        self.named(id, kind, bytes)?;
        Ok(id)
    }

    /// An object in memory that has its name already.
    pub(super) fn named(&self, id: ObjectId, kind: ObjectKind, bytes: &[u8]) -> Result<(), Fault> {
        objects::check(kind, bytes, self.format)?;
        let object = Object { id, kind, size: bytes.len() as u64, content: Content::Bytes(bytes) };
        Ok(self.sink.object(object)?)
    }

    /// A blob that is too large for memory and was named on its way.
    pub(super) fn blob(&self, id: ObjectId, size: u64, content: &mut dyn Read) -> Result<(), Fault> {
        let object = Object { id, kind: ObjectKind::Blob, size, content: Content::Stream(content) };
        Ok(self.sink.object(object)?)
    }
}
