//! A file of recorded telemetry, read as a stream of requests in bounded memory.
//!
//! Compression (zstd, gzip, none), framing and kind are told from the content, never from the name:
//! frames are `u32` little-endian length and as many bytes; anything that begins with a brace and
//! cannot be a frame within the size limit is JSON lines.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    error::Error,
    json,
    kind::{self, Kind},
    wire::{self, Found},
};

/// The largest request that can be allowed: past it a frame's length could be read as JSON text.
pub const REQUEST_BYTES_CEILING: u64 = 128 << 20;
const _: () = assert!(
    REQUEST_BYTES_CEILING < 0x0900_0000,
    "a tab is the smallest byte of JSON text"
);

/// Buffer in front of the file.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Largest zstd window taken, as a power of two: what `zstd --long` writes at most by default.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// One request of a file.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
    /// Where it begins in the decompressed content.
    pub(crate) offset_bytes: u64,
    pub(crate) found: Found,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Unknown,
    LengthPrefixed,
    JsonLines,
}

/// A file being read.
pub(crate) struct Source {
    name: String,
    reader: Box<dyn BufRead + Send>,
    request_bytes_max: u64,
    framing: Framing,
    /// The kind of the requests so far, for empty ones.
    kind: Option<Kind>,
    offset_bytes: u64,
}

impl Source {
    /// Opens `name`, `-` being standard input. `read_bytes` is raised by what is read of the file
    /// itself, before decompression.
    pub(crate) fn open(
        name: &str,
        request_bytes_max: u64,
        read_bytes: Arc<AtomicU64>,
    ) -> Result<Self, Error> {
        let raw: Box<dyn Read + Send> = if name == "-" {
            Box::new(io::stdin())
        } else {
            let open = |source| Error::Open {
                file: name.to_owned(),
                source,
            };
            let path = Path::new(name);
            if path.is_dir() {
                return Err(open(io::Error::new(
                    io::ErrorKind::IsADirectory,
                    "it is a directory, name the files in it",
                )));
            }
            Box::new(File::open(path).map_err(open)?)
        };
        Self::new(
            name,
            Counted {
                inner: raw,
                read_bytes,
            },
            request_bytes_max,
        )
        .map_err(|source| Error::Read {
            file: name.to_owned(),
            offset_bytes: 0,
            source,
        })
    }

    fn new(
        name: &str,
        raw: impl Read + Send + 'static,
        request_bytes_max: u64,
    ) -> io::Result<Self> {
        let (magic, raw) = peek4(raw)?;
        let reader: Box<dyn BufRead + Send> = match magic {
            [0x28, 0xb5, 0x2f, 0xfd] => {
                let mut decoder = zstd::Decoder::new(raw)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, decoder))
            }
            [0x1f, 0x8b, ..] => {
                let decoder = flate2::read::MultiGzDecoder::new(raw);
                Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, decoder))
            }
            _ => Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, raw)),
        };
        Ok(Self {
            name: name.to_owned(),
            reader,
            request_bytes_max: request_bytes_max.min(REQUEST_BYTES_CEILING),
            framing: Framing::Unknown,
            kind: None,
            offset_bytes: 0,
        })
    }

    /// The next request; `None` at the end.
    pub(crate) fn next_request(&mut self) -> Result<Option<Request>, Error> {
        match self.framing {
            Framing::Unknown => self.first(),
            Framing::LengthPrefixed => loop {
                let Some(head) = self.frame_head()? else {
                    return Ok(None);
                };
                if let Some(request) = self.frame(head)? {
                    return Ok(Some(request));
                }
            },
            Framing::JsonLines => self.line(Vec::new()),
        }
    }

    fn first(&mut self) -> Result<Option<Request>, Error> {
        let Some(head) = self.frame_head()? else {
            return Ok(None);
        };
        if u64::from(u32::from_le_bytes(head)) <= self.request_bytes_max {
            self.framing = Framing::LengthPrefixed;
            return match self.frame(head)? {
                Some(request) => Ok(Some(request)),
                None => self.next_request(),
            };
        }
        let begins = head.trim_ascii_start().first();
        if matches!(begins, None | Some(b'{')) {
            self.framing = Framing::JsonLines;
            self.offset_bytes = 0;
            return self.line(head.to_vec());
        }
        Err(self.unrecognised(
            0,
            format!(
                "neither frames (u32 little-endian length, then a request) nor OTLP JSON lines, \
                 compressed with zstd or gzip or not: it begins with bytes {}",
                head.map(|b| format!("{b:02x}")).join(" ")
            ),
        ))
    }

    /// The four bytes before a frame; `None` at the end of the file.
    fn frame_head(&mut self) -> Result<Option<[u8; 4]>, Error> {
        let at = self.offset_bytes;
        let mut head = [0; 4];
        let got = read_up_to(&mut self.reader, &mut head).map_err(|e| self.read_error(at, e))?;
        self.offset_bytes += got as u64;
        match got {
            0 => Ok(None),
            4 => Ok(Some(head)),
            _ => Err(Error::Truncated {
                file: self.name.clone(),
                offset_bytes: at,
                wanted_bytes: 4,
                found_bytes: got as u64,
            }),
        }
    }

    /// The frame behind `head`; `None` if it is empty and nothing tells its kind.
    fn frame(&mut self, head: [u8; 4]) -> Result<Option<Request>, Error> {
        let offset_bytes = self.offset_bytes - 4;
        let len = u64::from(u32::from_le_bytes(head));
        if len > self.request_bytes_max {
            return Err(self.too_large(offset_bytes, len));
        }
        let mut body = Vec::new();
        let got = (&mut self.reader)
            .take(len)
            .read_to_end(&mut body)
            .map_err(|e| self.read_error(offset_bytes, e))? as u64;
        self.offset_bytes += got;
        if got < len {
            return Err(Error::Truncated {
                file: self.name.clone(),
                offset_bytes,
                wanted_bytes: len,
                found_bytes: got,
            });
        }
        // The kind is looked for in every frame: a file may hold several.
        let Some(kind) = kind::of_message(&body).or(self.kind) else {
            if body.is_empty() {
                return Ok(None);
            }
            return Err(self.unrecognised(
                offset_bytes,
                "this frame is neither OTLP traces, OTLP metrics nor Prometheus remote write"
                    .to_owned(),
            ));
        };
        self.kind = Some(kind);
        let found = match kind.schema() {
            Some(schema) => wire::survey(&body, schema).map_err(|e| {
                self.unrecognised(offset_bytes, format!("{} in this frame: {e}", kind.name()))
            })?,
            None => Found::default(),
        };
        Ok(Some(Request {
            kind,
            body,
            offset_bytes,
            found,
        }))
    }

    /// The next line that is not blank, `begun` being what was already read of it.
    fn line(&mut self, begun: Vec<u8>) -> Result<Option<Request>, Error> {
        let mut body = begun;
        loop {
            let offset_bytes = self.offset_bytes;
            // What was begun may already hold the end of a (blank) line.
            let complete = body.ends_with(b"\n");
            if !complete {
                let room = (self.request_bytes_max + 1).saturating_sub(body.len() as u64);
                (&mut self.reader)
                    .take(room)
                    .read_until(b'\n', &mut body)
                    .map_err(|e| self.read_error(offset_bytes, e))?;
            }
            self.offset_bytes += body.len() as u64;
            if body.is_empty() {
                return Ok(None);
            }
            if !body.ends_with(b"\n") && body.len() as u64 > self.request_bytes_max {
                return Err(self.too_large(offset_bytes, body.len() as u64));
            }
            if body.trim_ascii().is_empty() {
                body.clear();
                continue;
            }
            let (kind, found) =
                json::survey(&body).map_err(|reason| self.unrecognised(offset_bytes, reason))?;
            return Ok(Some(Request {
                kind,
                body,
                offset_bytes,
                found,
            }));
        }
    }

    fn read_error(&self, offset_bytes: u64, source: io::Error) -> Error {
        Error::Read {
            file: self.name.clone(),
            offset_bytes,
            source,
        }
    }

    fn too_large(&self, offset_bytes: u64, bytes: u64) -> Error {
        let max_bytes = self.request_bytes_max;
        Error::TooLarge {
            file: self.name.clone(),
            offset_bytes,
            bytes,
            max_bytes,
        }
    }

    fn unrecognised(&self, offset_bytes: u64, reason: String) -> Error {
        Error::Unrecognised {
            file: self.name.clone(),
            offset_bytes,
            reason,
        }
    }
}

impl Request {
    /// Moves all times by `shift_ns`.
    pub(crate) fn shift(&mut self, shift_ns: i64) {
        let moved = match self.kind.schema() {
            // It was surveyed with the same schema, so it is well formed.
            Some(schema) => wire::shifted(&self.body, schema, shift_ns).ok(),
            None => Some(json::shifted(&self.body, shift_ns)),
        };
        if let Some(moved) = moved {
            self.body = moved;
        }
    }
}

/// Counts what passes.
struct Counted<R> {
    inner: R,
    read_bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.read_bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The first four bytes (zeros where there are fewer) and a reader that still begins with them.
fn peek4<R: Read>(mut raw: R) -> io::Result<([u8; 4], impl BufRead)> {
    let mut magic = [0; 4];
    let got = read_up_to(&mut raw, &mut magic)?;
    let begun = Cursor::new(magic.into_iter().take(got).collect::<Vec<u8>>());
    Ok((
        magic,
        BufReader::with_capacity(READ_BUFFER_BYTES, begun.chain(raw)),
    ))
}

/// Fills `buf` as far as there are bytes.
fn read_up_to(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buf.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const METADATA: &[u8] = &[0x1a, 6, 0x08, 1, 0x12, 2, b'u', b'p'];

    fn frames(bodies: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for body in bodies {
            out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
            out.extend_from_slice(body);
        }
        out
    }

    fn source(bytes: Vec<u8>, max: u64) -> Source {
        Source::new("f", Cursor::new(bytes), max).unwrap()
    }

    fn read_all(bytes: Vec<u8>) -> Result<Vec<Request>, Error> {
        let mut source = source(bytes, 1 << 20);
        let mut all = Vec::new();
        while let Some(request) = source.next_request()? {
            all.push(request);
        }
        Ok(all)
    }

    #[test]
    fn frames_are_read_plain_and_compressed() {
        let plain = frames(&[METADATA, b"", METADATA]);
        let zstd = zstd::encode_all(&plain[..], 3).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        for bytes in [plain, zstd, gzip.finish().unwrap()] {
            let all = read_all(bytes).unwrap();
            assert_eq!(all.len(), 3);
            assert!(all.iter().all(|r| r.kind == Kind::RemoteWrite));
            assert_eq!(all[2].offset_bytes, 4 + 8 + 4);
            assert_eq!(all[0].found.counts.metadata, 1);
        }
    }

    #[test]
    fn lines_are_read_with_blank_ones_between() {
        let text = "\n\n\n \n{\"resourceSpans\":[]}\n\n{\"resourceMetrics\":[]}";
        let all = read_all(text.into()).unwrap();
        assert_eq!(
            all.iter()
                .map(|r| (r.kind, r.offset_bytes))
                .collect::<Vec<_>>(),
            [(Kind::TracesJson, 5), (Kind::MetricsJson, 27)]
        );
    }

    #[test]
    fn an_empty_file_has_no_requests() {
        assert!(read_all(Vec::new()).unwrap().is_empty());
    }

    #[test]
    fn a_cut_frame_names_its_offset() {
        let mut bytes = frames(&[METADATA, METADATA]);
        bytes.pop();
        let error = read_all(bytes).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Truncated {
                    offset_bytes: 12,
                    wanted_bytes: 8,
                    found_bytes: 7,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_cut_zstd_stream_is_an_error() {
        let mut bytes = zstd::encode_all(&frames(&[METADATA])[..], 3).unwrap();
        bytes.truncate(bytes.len() - 3);
        assert!(read_all(bytes).is_err());
    }

    #[test]
    fn too_large_is_refused_before_it_is_read() {
        let mut bytes = frames(&[METADATA]);
        bytes.extend_from_slice(&(2u32 << 20).to_le_bytes());
        assert!(matches!(
            read_all(bytes),
            Err(Error::TooLarge {
                offset_bytes: 12,
                ..
            })
        ));
        let mut line = vec![b'{'];
        line.resize(100, b' ');
        assert!(matches!(
            source(line, 50).next_request(),
            Err(Error::TooLarge { .. })
        ));
    }

    #[test]
    fn foreign_bytes_are_named() {
        let error = read_all(b"hello world".to_vec()).unwrap_err().to_string();
        assert!(error.contains("68 65 6c 6c"), "{error}");
        let error = read_all(frames(&[b"\x0a\x03abc"])).unwrap_err().to_string();
        assert!(
            error.contains("f at byte 0: this frame is neither"),
            "{error}"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_in_requests_or_a_typed_error(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        ) {
            let _ = read_all(bytes);
        }
    }
}
