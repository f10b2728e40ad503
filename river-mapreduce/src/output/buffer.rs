//! Buffers output records into large writes.

use std::fmt;
use std::io;

use crate::datum::{Datum, Ref, encode_pair, pair_width};
use crate::output::Format;
use crate::varint;

/// The number of bytes that are buffered before they are passed on.
const WRITE: usize = 256 << 10;

/// Takes the bytes of a part, in order, and returns the next buffer to fill. An error's text is for the user.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Vec<u8>) -> Result<Vec<u8>, String>;

/// Why the output of a reducer is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutputError {
    /// A record has no text form.
    NoText(String),
    /// The sink failed.
    Sink(String),
}

/// Buffers the output of one reducer. The first error is kept until it is asked for.
pub(crate) struct OutputBuffer<'a> {
    format: Format,
    sink: Sink<'a>,
    bytes: Vec<u8>,
    scratch: Vec<u8>,
    records: u64,
    written: u64,
    error: Option<OutputError>,
}

impl<'a> OutputBuffer<'a> {
    pub(crate) fn new(format: Format, sink: Sink<'a>) -> Self {
        let bytes = Vec::with_capacity(WRITE + WRITE / 8);
        Self { format, sink, bytes, scratch: Vec::new(), records: 0, written: 0, error: None }
    }

    #[inline]
    pub(crate) fn put<K: Datum, V: Datum>(&mut self, key: Ref<'_, K>, value: Ref<'_, V>) {
        self.records += 1;
        match self.format {
            Format::Text { separator } => {
                if let Err(error) = self.put_line::<K, V>(&key, &value, separator) {
                    self.fail(OutputError::NoText(error.to_string()));
                }
            }
            Format::Raw => {
                K::encode(&key, &mut self.bytes);
                V::encode(&value, &mut self.bytes);
            }
            Format::Records => {
                if pair_width::<K, V>().is_some() {
                    encode_pair::<K, V>(&key, &value, &mut self.bytes);
                } else {
                    self.scratch.clear();
                    encode_pair::<K, V>(&key, &value, &mut self.scratch);
                    varint::put(self.scratch.len(), &mut self.bytes);
                    self.bytes.extend_from_slice(&self.scratch);
                }
            }
        }
        if self.bytes.len() >= WRITE {
            self.flush();
        }
    }

    #[inline]
    fn put_line<K: Datum, V: Datum>(
        &mut self,
        key: &Ref<'_, K>,
        value: &Ref<'_, V>,
        separator: u8,
    ) -> io::Result<()> {
        K::write_text(key, &mut self.bytes)?;
        if V::WIDTH != Some(0) {
            self.bytes.push(separator);
            V::write_text(value, &mut self.bytes)?;
        }
        self.bytes.push(b'\n');
        Ok(())
    }

    #[cold]
    fn fail(&mut self, error: OutputError) {
        self.error.get_or_insert(error);
    }

    /// Passes the buffered bytes on.
    pub(crate) fn flush(&mut self) {
        self.written += self.bytes.len() as u64;
        match (self.sink)(std::mem::take(&mut self.bytes)) {
            Ok(buffer) => self.bytes = buffer,
            Err(error) => self.fail(OutputError::Sink(error)),
        }
        self.bytes.clear();
    }

    /// Takes the error, if any.
    pub(crate) fn error(&mut self) -> Option<OutputError> {
        self.error.take()
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// The number of bytes passed on.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }
}

impl fmt::Debug for OutputBuffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputBuffer({} records)", self.records)
    }
}
