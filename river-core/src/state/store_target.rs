//! Checkpoints in a [`Store`] that the program brings along. A panic in its code is an error like any other.

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
use crate::panics::catch_panic;

/// A program's store.
#[derive(Clone)]
pub(crate) struct StoreTarget(Arc<dyn Store>);

/// A checkpoint that is held in memory until it is complete, so that a store need not hold parts of one.
struct Draft {
    store: StoreTarget,
    number: u64,
    writer: Writer<Vec<u8>>,
}

fn cannot(what: impl Display, error: impl Display) -> StateError {
    StateError::Store(format!("cannot {what} the program's store: {error}"))
}

fn unencoded(number: u64, error: impl Display) -> StateError {
    StateError::Store(format!("cannot encode checkpoint {number}: {error}"))
}

impl fmt::Debug for StoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreTarget")
    }
}

impl StoreTarget {
    pub(crate) fn new(store: impl Store + 'static) -> Self {
        Self(Arc::new(store))
    }

    /// The error of a program that has no store.
    pub(crate) fn none() -> StateError {
        StateError::Store("the program has no store: start it with `Launch::store`".into())
    }

    /// Returns the newest complete checkpoint, with its number and the errors of newer ones. May block.
    pub(crate) fn latest(&self) -> Result<(u64, Content, Vec<StateError>), StateError> {
        let nothing = || StateError::Store("there is no checkpoint in the program's store".into());
        series::newest(&series::numbers(&self.names()?), None, |number| self.read(number))?
            .ok_or_else(nothing)
    }

    fn ask<R>(&self, call: impl FnOnce(&dyn Store) -> io::Result<R>) -> io::Result<R> {
        let answer = catch_panic(|| call(&*self.0));
        answer.unwrap_or_else(|panic| Err(io::Error::other(format!("it panicked: {panic}"))))
    }

    fn names(&self) -> Result<Vec<String>, StateError> {
        self.ask(|store| store.names()).map_err(|error| cannot("list what is in", error))
    }

    fn bytes_of(&self, number: u64) -> io::Result<Vec<u8>> {
        self.ask(|store| store.read(&series::name_of(number)))
    }

    fn read(&self, number: u64) -> Result<Content, StateError> {
        let content = self.bytes_of(number).map_err(FileError::from).and_then(|bytes| file::read(&bytes));
        content.map_err(|error| cannot(format_args!("read {} from", series::name_of(number)), error))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        self.ask(|store| store.write(name, bytes))
            .map_err(|error| cannot(format_args!("write {name} to"), error))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.ask(|store| store.remove(name))
    }

    /// Removes all but the newest `keep` checkpoints, and the images that those do not need.
    fn prune(&self, keep: usize) -> Result<(), FileError> {
        let names = self.ask(|store| store.names())?;
        let numbers = series::numbers(&names);
        let (old, kept) = series::retire(&numbers, keep);
        for &number in old {
            self.remove(&series::name_of(number))?;
        }
        let image_of =
            |number| file::read_header(io::Cursor::new(self.bytes_of(number)?)).map(|header| header.image);
        for name in series::needless_images(names, kept, image_of)? {
            self.remove(&name)?;
        }
        Ok(())
    }
}

impl Target for StoreTarget {
    fn begin(&self, image: &Image) -> Result<Box<dyn target::Draft>, StateError> {
        let names = self.names()?;
        let name = series::image_name(image.hash);
        if !names.contains(&name) {
            self.write(&name, &image.bytes)?;
        }
        let number = series::next(&series::numbers(&names));
        let writer = Writer::new(Vec::new()).map_err(|error| unencoded(number, error))?;
        Ok(Box::new(Draft { store: self.clone(), number, writer }))
    }
}

impl target::Draft for Draft {
    fn number(&self) -> u64 {
        self.number
    }

    fn vr(&mut self, _of: HostId, saved: &[u8]) -> Result<(), StateError> {
        self.writer.vr(saved).map_err(|error| unencoded(self.number, error))
    }

    fn publish(self: Box<Self>, header: &Header, keep: usize) -> Result<u64, StateError> {
        let Self { store, number, mut writer } = *self;
        let name = series::name_of(number);
        let bytes = series::complete(&mut writer, header).and_then(|()| Ok(writer.finish()?));
        let bytes = bytes.map_err(|error| unencoded(number, error))?;
        store.write(&name, &bytes)?;
        if let Err(error) = store.prune(keep) {
            tracing::warn!(%error, "cannot remove an old checkpoint from the program's store");
        }
        Ok(bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Panics;

    impl Store for Panics {
        fn names(&self) -> io::Result<Vec<String>> {
            panic!("no connection")
        }

        fn read(&self, _: &str) -> io::Result<Vec<u8>> {
            unreachable!()
        }

        fn write(&self, _: &str, _: &[u8]) -> io::Result<()> {
            unreachable!()
        }

        fn remove(&self, _: &str) -> io::Result<()> {
            unreachable!()
        }
    }

    #[test]
    fn a_panic_in_the_programs_store_is_an_error() {
        let error = StoreTarget::new(Panics).latest().unwrap_err().to_string();
        assert!(
            error.starts_with("cannot list what is in the program's store: it panicked: no connection"),
            "{error}"
        );
    }
}
