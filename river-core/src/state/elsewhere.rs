//! Checkpoints in a [`Store`] that the program brings along.

use std::fmt::{self, Display};
use std::io;
use std::sync::Arc;

use super::file::{self, Content, FileError, Header, Writer};
use super::series;
use super::store::Store;
use super::target::{self, Target};
use crate::error::StateError;
use crate::id::HostId;
use crate::image::Image;

/// A program's store.
#[derive(Clone)]
pub(crate) struct Elsewhere(Arc<dyn Store>);

/// A checkpoint that is held in memory until it is complete, so that a store need not hold parts of one.
struct Draft {
    store: Elsewhere,
    number: u64,
    writer: Writer<Vec<u8>>,
}

fn failed(name: &str, error: impl Display) -> StateError {
    StateError::Store(format!("{name}: {error}"))
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Elsewhere")
    }
}

impl Elsewhere {
    pub(crate) fn new(store: impl Store + 'static) -> Self {
        Self(Arc::new(store))
    }

    /// The error of a program that has no store.
    pub(crate) fn none() -> StateError {
        StateError::Store("it has none: start it with `Launch::store`".into())
    }

    /// Returns the newest complete checkpoint, with its number and the errors of newer ones. May block.
    pub(crate) fn latest(&self) -> Result<(u64, Content, Vec<StateError>), StateError> {
        let nothing = || StateError::Store("there is no checkpoint".into());
        series::newest(&series::numbers(&self.names()?), None, |number| self.read(number))?
            .ok_or_else(nothing)
    }

    fn names(&self) -> Result<Vec<String>, StateError> {
        self.0.names().map_err(|error| failed("what is there is unknown", error))
    }

    fn read(&self, number: u64) -> Result<Content, StateError> {
        let name = series::name_of(number);
        let content = self.0.read(&name).map_err(FileError::from).and_then(|bytes| file::read(&bytes));
        content.map_err(|error| failed(&name, error))
    }

    /// Removes all but the newest `keep` checkpoints, and the images that those do not need.
    fn prune(&self, keep: usize) -> Result<(), FileError> {
        let names = self.0.names()?;
        let numbers = series::numbers(&names);
        let (old, kept) = series::retire(&numbers, keep);
        for &number in old {
            self.0.remove(&series::name_of(number))?;
        }
        let image_of = |number| {
            let bytes = self.0.read(&series::name_of(number))?;
            file::read_header(io::Cursor::new(bytes)).map(|header| header.image)
        };
        for name in series::needless_images(names, kept, image_of)? {
            self.0.remove(&name)?;
        }
        Ok(())
    }
}

impl Target for Elsewhere {
    fn begin(&self, image: &Image) -> Result<Box<dyn target::Draft>, StateError> {
        let names = self.names()?;
        let name = series::image_name(image.hash);
        if !names.contains(&name) {
            self.0.write(&name, &image.bytes).map_err(|error| failed(&name, error))?;
        }
        let number = series::next(&series::numbers(&names));
        let writer = Writer::new(Vec::new()).map_err(|error| failed(&series::name_of(number), error))?;
        Ok(Box::new(Draft { store: self.clone(), number, writer }))
    }
}

impl target::Draft for Draft {
    fn number(&self) -> u64 {
        self.number
    }

    fn vr(&mut self, _of: HostId, saved: &[u8]) -> Result<(), StateError> {
        self.writer.vr(saved).map_err(|error| failed(&series::name_of(self.number), error))
    }

    fn publish(self: Box<Self>, header: &Header, keep: usize) -> Result<u64, StateError> {
        let Self { store, number, mut writer } = *self;
        let name = series::name_of(number);
        let bytes = series::complete(&mut writer, header).and_then(|()| Ok(writer.finish()?));
        let bytes = bytes.map_err(|error| failed(&name, error))?;
        store.0.write(&name, &bytes).map_err(|error| failed(&name, error))?;
        if let Err(error) = store.prune(keep) {
            tracing::warn!(%error, "cannot remove an old checkpoint from the program's store");
        }
        Ok(bytes.len() as u64)
    }
}
