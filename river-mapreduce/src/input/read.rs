//! Reads a split, record by record.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;

use super::files::Codec;
use super::frame::{Frames, Region};
use super::split::{Piece, Split};
use super::{Framing, Position};
use crate::varint;

/// Why reading a split ended early.
#[derive(Debug)]
pub(crate) enum ReadError<E> {
    /// The file cannot be read, or its content does not match its extension.
    File { path: String, error: io::Error },
    /// The callback returned an error.
    Stopped(E),
}

/// Calls `each` with every record of the split.
pub(crate) fn read_split<E>(
    split: &Split,
    framing: Framing,
    mut each: impl FnMut(&Position, &[u8]) -> Result<(), E>,
) -> Result<(), ReadError<E>> {
    match split {
        Split::Range(from, to) => {
            for number in *from..*to {
                let position = Position { file: None, offset: number };
                each(&position, &number.to_be_bytes()).map_err(ReadError::Stopped)?;
            }
            Ok(())
        }
        Split::Items(bytes, first) => {
            let (mut rest, mut number) = (&bytes[..], *first);
            while let Some((length, used)) = varint::get(rest) {
                let Some((record, after)) = rest[used..].split_at_checked(length) else { break };
                each(&Position { file: None, offset: number }, record).map_err(ReadError::Stopped)?;
                (rest, number) = (after, number + 1);
            }
            Ok(())
        }
        Split::Files(pieces) => {
            let mut frames = Frames::new(framing);
            pieces.iter().try_for_each(|piece| read_piece(piece, framing, &mut frames, &mut each))
        }
    }
}

fn read_piece<E>(
    piece: &Piece,
    framing: Framing,
    frames: &mut Frames,
    each: &mut impl FnMut(&Position, &[u8]) -> Result<(), E>,
) -> Result<(), ReadError<E>> {
    let failed = |error: io::Error| ReadError::File { path: piece.path.display().to_string(), error };
    let mut file = File::open(&*piece.path).map_err(failed)?;
    let mut position = Position { file: Some((&*piece.path).into()), offset: 0 };
    let each = &mut |offset: u64, record: &[u8]| {
        position.offset = offset;
        each(&position, record)
    };
    let result = match piece.codec {
        Codec::Plain => {
            let region = Region { start: piece.start, end: piece.end };
            // A record belongs to the piece in which it begins, so a record that began before the start is not ours;
            // the byte before the start shows whether there is one.
            let look_back = piece.start > 0 && !matches!(framing, Framing::Fixed(_));
            let from = piece.start - u64::from(look_back);
            file.seek(SeekFrom::Start(from)).map_err(failed)?;
            frames.read(&mut file, from, region, each)
        }
        Codec::Gzip => frames.read(&mut flate2::read::MultiGzDecoder::new(file), 0, Region::ALL, each),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(file).map_err(failed)?;
            frames.read(&mut decoder, 0, Region::ALL, each)
        }
    };
    result.map_err(|error| match error {
        super::frame::FrameError::Stopped(stopped) => ReadError::Stopped(stopped),
        super::frame::FrameError::Io(error) => failed(explain(error, &piece.path, piece.codec)),
    })
}

/// Describes the error of a decoder as damage to the file.
fn explain(error: io::Error, path: &Path, codec: Codec) -> io::Error {
    let format = match codec {
        Codec::Plain => return error,
        Codec::Gzip => "gzip",
        Codec::Zstd => "zstd",
    };
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "ends too early".to_owned(),
        _ => format!("is corrupt ({error})"),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    io::Error::new(error.kind(), format!("the {format} file {name} {what}: make it again, or leave it out"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;

    use super::super::{Source, split};
    use super::*;

    fn records(path: PathBuf, framing: Framing, size: u64) -> Result<Vec<(u64, Vec<u8>)>, String> {
        let mut records = Vec::new();
        for split in split::cut(&Source::Paths(vec![path]), framing, Some(size)).unwrap() {
            let read = read_split(&split, framing, |position, record| {
                records.push((position.offset, record.to_vec()));
                Ok::<(), ()>(())
            });
            match read {
                Ok(()) => {}
                Err(ReadError::File { path, error }) => return Err(format!("{path}: {error}")),
                Err(ReadError::Stopped(())) => unreachable!(),
            }
        }
        Ok(records)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_files_read_as_plain_ones() {
        let scratch = tempfile::tempdir().unwrap();
        let text: String = (0..10_000).map(|i| format!("line {i}\n")).collect();
        let write = |name: &str, bytes: &[u8]| {
            let path = scratch.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let plain = records(write("plain", text.as_bytes()), Framing::Lines, 1000).unwrap();
        assert_eq!((plain.len(), plain[1].0), (10_000, 7));
        // Two members, one after the other, make one file.
        let (a, b) = text.as_bytes().split_at(text.len() / 3);
        let zipped = [gzip(a), gzip(b)].concat();
        assert_eq!(records(write("a.gz", &zipped), Framing::Lines, 1000).unwrap(), plain);
        let zstd = zstd::encode_all(text.as_bytes(), 3).unwrap();
        assert_eq!(records(write("a.zst", &zstd), Framing::Lines, 1000).unwrap(), plain);

        let mut corrupt = gzip(text.as_bytes());
        let middle = corrupt.len() / 2;
        corrupt[middle..middle + 20].fill(0xaa);
        let error = records(write("b.gz", &corrupt), Framing::Lines, 1000).unwrap_err();
        assert!(error.contains("the gzip file b.gz is corrupt"), "{error}");
        let error = records(write("c.gz", &zipped[..zipped.len() - 100]), Framing::Lines, 1000).unwrap_err();
        assert!(error.contains("the gzip file c.gz ends too early"), "{error}");
        let error = records(write("b.zst", &zstd[..zstd.len() - 100]), Framing::Lines, 1000).unwrap_err();
        assert!(error.contains("the zstd file b.zst"), "{error}");
    }
}
