//! One object's scan: its bytes, the text and the compressed data that they hold, and so on down. Objects that are in memory
//! are searched as a whole; larger ones, and what comes out of decoders, in blocks that overlap by more than any window,
//! while one reader follows the compressed data in them.
//!
//! Every layer gives its findings with places in itself; the layer around it turns them into places of its own.

use super::budget::Meter;
use super::container::{Container, DECODER_MIB_MAX, MAGIC_BYTES_MAX, Opened};
use super::engine::{By, Engine, Workspace};
use super::rules::WINDOW_BYTES_MAX;
use super::text::Decoded;
use super::{Decoder, ReadError, Refused, Secret};
use memchr::{memchr_iter, memmem, memrchr};
use std::cell::RefCell;
use std::io::{BufRead, Read};
use std::ops::Range;
use std::sync::Arc;

/// What is searched at once of an object that is not in memory. Tests have small ones, to have many.
pub(super) const BLOCK_BYTES: usize = if cfg!(test) { 5 * OVERLAP_BYTES } else { 1 << 20 };
/// Of the end of a block, what the next one begins with; its first half is context, its second was not searched yet.
pub(super) const OVERLAP_BYTES: usize = 4 * WINDOW_BYTES_MAX;
const _: () = assert!(OVERLAP_BYTES / 2 > WINDOW_BYTES_MAX && BLOCK_BYTES > 4 * OVERLAP_BYTES);
const READ_BYTES: usize = 64 << 10;

/// A finding on its way up through the layers.
pub(super) struct Found {
    pub(super) by: By,
    pub(super) secret: Secret,
    /// In the layer that gives it.
    pub(super) offset: u64,
    pub(super) line: u64,
    pub(super) column: u64,
    /// Outermost first, as far as the layer that gives it.
    pub(super) via: Vec<Decoder>,
}

/// What scans one object on one thread. Decoders read from readers that scan what they read, so all of it is shared.
pub(super) struct Object<'a> {
    pub(super) engine: &'a Engine,
    pub(super) meter: RefCell<Meter<'a>>,
    pub(super) space: RefCell<Workspace>,
    pub(super) depth_max: u32,
}

/// A text and what of it is to be searched.
struct Block<'a> {
    bytes: &'a [u8],
    own: Range<usize>,
    /// Something stands before it.
    cut: bool,
    /// Compressed data in it is followed here; in a stream another reader does.
    containers: bool,
}

impl Object<'_> {
    /// Scans an object that is in memory.
    pub(super) fn whole(&self, bytes: &[u8]) -> Result<Vec<Found>, Refused> {
        let mut lines = Lines::default();
        let mut found = self.block(&Block { bytes, own: 0..bytes.len(), cut: false, containers: true }, 0)?;
        lines.place(&mut found, bytes);
        Ok(found)
    }

    /// Scans what a reader gives, to its end. An error of the reader ends it; the caller knows what that means.
    pub(super) fn stream(&self, reader: &mut dyn Read, depth: u32) -> Result<Vec<Found>, Refused> {
        let mut head = Vec::new();
        let mut ended = None;
        let mut part = vec![0; READ_BYTES];
        while head.len() < BLOCK_BYTES && ended.is_none() {
            let room = part.len().min(BLOCK_BYTES - head.len());
            match reader.read(&mut part[..room]) {
                Ok(0) => ended = Some(Ok(())),
                Ok(count) => head.extend_from_slice(&part[..count]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => ended = Some(Err(e)),
            }
        }
        drop(part);
        self.refused()?;
        let Some(end) = ended else { return self.long(&head, reader, depth) };
        if depth == 0 {
            end.map_err(|e| Refused::Read(Arc::new(ReadError(e))))?;
            return self.whole(&head);
        }
        // Compressed data that is cut short or broken: what came out of it counts.
        self.block(&Block { bytes: &head, own: 0..head.len(), cut: false, containers: true }, depth)
    }

    /// The same for what is longer than a block.
    fn long(&self, head: &[u8], reader: &mut dyn Read, depth: u32) -> Result<Vec<Found>, Refused> {
        let blocks = Blocks {
            object: self,
            depth,
            buffer: Vec::new(),
            base: 0,
            own: 0,
            lines: Lines::default(),
            found: Vec::new(),
        };
        let mut window = Window {
            tee: Tee { head, reader, blocks, error: None },
            buffer: vec![0; READ_BYTES],
            from: 0,
            to: 0,
            before: 0,
        };
        let mut inside = Vec::new();
        let mut first = true;
        while let Some(kind) = window.next(first) {
            first = false;
            let at = window.before + window.from as u64;
            let found = self.container(kind, &mut window, depth)?;
            inside.extend(found.into_iter().map(|found| Found { offset: at, ..found }));
            if window.before + window.from as u64 == at {
                window.from += 1;
            }
        }
        let Tee { blocks, error, .. } = window.tee;
        self.refused()?;
        if let Some(error) = error
            && depth == 0
        {
            return Err(Refused::Read(Arc::new(ReadError(error))));
        }
        let mut found = blocks.finish()?;
        found.extend(inside);
        Ok(found)
    }

    fn block(&self, block: &Block<'_>, depth: u32) -> Result<Vec<Found>, Refused> {
        let bytes = block.bytes;
        let seen = {
            let mut meter = self.meter.borrow_mut();
            self.engine
                .search(bytes, block.own.clone(), &mut self.space.borrow_mut(), &mut |units| meter.work(units))?
        };
        let mut found: Vec<Found> = Vec::new();
        for hit in &seen.hits {
            found.push(Found {
                by: hit.by,
                secret: self.engine.secret(hit, bytes),
                offset: hit.at.start as u64,
                line: 0,
                column: 0,
                via: self.engine.form(hit.by).and_then(|form| form.via).into_iter().collect(),
            });
        }
        if block.containers {
            let zlib = Container::is_zlib(bytes).then_some((0, Container::Zlib));
            self.containers(bytes, zlib.into_iter().chain(seen.containers), depth, &mut found)?;
        }
        if depth < self.depth_max {
            self.decoded(block, depth, &mut found)?;
        }
        Ok(found)
    }

    fn containers(
        &self,
        bytes: &[u8],
        all: impl Iterator<Item = (usize, Container)>,
        depth: u32,
        found: &mut Vec<Found>,
    ) -> Result<(), Refused> {
        let mut done = 0;
        for (at, kind) in all {
            // What belongs to the one before it was scanned as its content.
            if at < done {
                continue;
            }
            let mut rest = &bytes[at..];
            let inside = self.container(kind, &mut rest, depth)?;
            if !inside.is_empty() {
                done = bytes.len() - rest.len();
            }
            found.extend(inside.into_iter().map(|inner| Found { offset: at as u64, ..inner }));
        }
        Ok(())
    }

    /// Opens what may be compressed and scans what comes out of it.
    fn container(&self, kind: Container, input: &mut dyn BufRead, depth: u32) -> Result<Vec<Found>, Refused> {
        let mut content = match kind.open(input) {
            Opened::Nothing => return Ok(Vec::new()),
            Opened::TooLarge => return Err(TOO_LARGE),
            Opened::Content(reader) => Counted { object: self, reader, begun: false, depth },
        };
        let found = self.stream(&mut content, depth + 1)?;
        Ok(found.into_iter().map(|inner| inner.inside(kind.decoder(), 0)).collect())
    }

    fn decoded(&self, block: &Block<'_>, depth: u32, found: &mut Vec<Found>) -> Result<(), Refused> {
        self.meter.borrow_mut().work(block.bytes.len() as u64)?;
        let decoded = Decoded::of(block.bytes, block.cut);
        let bytes = decoded.bytes.as_slice();
        if bytes.is_empty() {
            return Ok(());
        }
        let mut inner = self.block(&Block { bytes, own: 0..bytes.len(), cut: false, containers: true }, depth + 1)?;
        let zlib =
            decoded.pieces.iter().skip(1).map(|piece| piece.start).filter(|at| Container::is_zlib(&bytes[*at..]));
        self.containers(bytes, zlib.map(|at| (at, Container::Zlib)), depth + 1, &mut inner)?;
        found.extend(inner.into_iter().filter_map(|inner| {
            let piece = decoded.piece(usize::try_from(inner.offset).ok()?)?;
            Some(inner.inside(piece.via, piece.from as u64))
        }));
        Ok(())
    }

    /// What a reader below refused, since it could only say that by an error of input.
    fn refused(&self) -> Result<(), Refused> {
        self.meter.borrow().refused()
    }
}

const TOO_LARGE: Refused = Refused::Limit { name: "decoder memory", value: DECODER_MIB_MAX, unit: "MiB" };

impl Found {
    fn inside(mut self, via: Decoder, offset: u64) -> Self {
        self.via.insert(0, via);
        Self { offset, ..self }
    }
}

/// Where lines of the object itself begin.
#[derive(Default)]
struct Lines {
    /// Before the block.
    lines: u64,
    /// The object's place after the last line feed before the block.
    begins: u64,
    base: u64,
}

impl Lines {
    /// Gives the findings of a block their places in the object.
    fn place(&mut self, found: &mut [Found], block: &[u8]) {
        found.sort_by_key(|found| found.offset);
        let (mut line, mut begins, mut counted) = (self.lines, self.begins, 0);
        for found in found {
            let at = usize::try_from(found.offset).unwrap_or(usize::MAX).min(block.len());
            for newline in memchr_iter(b'\n', &block[counted..at]) {
                line += 1;
                begins = self.base + (counted + newline + 1) as u64;
            }
            counted = at;
            found.offset += self.base;
            (found.line, found.column) = (line + 1, found.offset - begins + 1);
            if found.via.iter().any(|via| via.is_container()) {
                (found.line, found.column) = (0, 0);
            }
        }
    }

    /// Steps over the first bytes of a block.
    fn step(&mut self, over: &[u8]) {
        self.lines += memchr_iter(b'\n', over).count() as u64;
        if let Some(newline) = memrchr(b'\n', over) {
            self.begins = self.base + newline as u64 + 1;
        }
        self.base += over.len() as u64;
    }
}

/// Searches a stream block by block as it is read.
struct Blocks<'o, 'a> {
    object: &'o Object<'a>,
    depth: u32,
    buffer: Vec<u8>,
    base: u64,
    /// From here on nothing was searched yet.
    own: usize,
    lines: Lines,
    found: Vec<Found>,
}

impl Blocks<'_, '_> {
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), Refused> {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == BLOCK_BYTES {
                self.search(BLOCK_BYTES - OVERLAP_BYTES / 2)?;
                let done = BLOCK_BYTES - OVERLAP_BYTES;
                self.lines.step(&self.buffer[..done]);
                self.buffer.drain(..done);
                self.base += done as u64;
                self.own = OVERLAP_BYTES / 2;
            }
        }
        Ok(())
    }

    fn search(&mut self, end: usize) -> Result<(), Refused> {
        let block = Block { bytes: &self.buffer, own: self.own..end, cut: self.base > 0, containers: false };
        let mut found = self.object.block(&block, self.depth)?;
        self.lines.place(&mut found, &self.buffer);
        self.found.extend(found);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Found>, Refused> {
        self.search(self.buffer.len())?;
        Ok(self.found)
    }
}

/// Gives bytes on to whoever looks for compressed data in them, and searches them itself.
struct Tee<'r, 'o, 'a> {
    head: &'r [u8],
    reader: &'r mut dyn Read,
    blocks: Blocks<'o, 'a>,
    error: Option<std::io::Error>,
}

impl Read for Tee<'_, '_, '_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.error.is_some() || self.blocks.object.refused().is_err() {
            return Err(std::io::Error::other("the scan has ended"));
        }
        let read = if self.head.is_empty() { self.reader.read(into) } else { self.head.read(into) };
        let count = match read {
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return Err(e),
            Err(e) => {
                self.error = Some(e);
                return Err(std::io::Error::other("the object cannot be read"));
            }
        };
        self.blocks.push(&into[..count]).map_err(|refused| self.blocks.object.meter.borrow_mut().refuse(refused))?;
        Ok(count)
    }
}

/// A buffered reader that finds the beginnings of compressed data.
struct Window<'r, 'o, 'a> {
    tee: Tee<'r, 'o, 'a>,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    /// The place of the buffer's first byte in the stream.
    before: u64,
}

impl Window<'_, '_, '_> {
    /// Steps to the next beginning; `None` at the end of the stream or of all reading.
    fn next(&mut self, first: bool) -> Option<Container> {
        if first {
            while self.to < MAGIC_BYTES_MAX && self.more() {}
            if Container::is_zlib(&self.buffer[..self.to]) {
                return Some(Container::Zlib);
            }
        }
        loop {
            let here = &self.buffer[self.from..self.to];
            let found = Container::ALL.iter().flat_map(|kind| {
                kind.magic().iter().filter_map(move |magic| {
                    memmem::find_iter(here, magic).find_map(|at| Some((kind.begins(here, at)?, *kind)))
                })
            });
            if let Some((at, kind)) = found.min_by_key(|(at, _)| *at) {
                self.from += at;
                return Some(kind);
            }
            self.from = self.to.saturating_sub(MAGIC_BYTES_MAX).max(self.from);
            if !self.more() {
                return None;
            }
        }
    }

    /// Reads on, after what was not used yet.
    fn more(&mut self) -> bool {
        self.buffer.copy_within(self.from..self.to, 0);
        self.before += self.from as u64;
        (self.from, self.to) = (0, self.to - self.from);
        loop {
            match self.tee.read(&mut self.buffer[self.to..]) {
                Ok(count) => {
                    self.to += count;
                    return count > 0;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                // The tee keeps it.
                Err(_) => return false,
            }
        }
    }
}

impl Read for Window<'_, '_, '_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Window<'_, '_, '_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.from == self.to {
            self.more();
        }
        Ok(&self.buffer[self.from..self.to])
    }

    fn consume(&mut self, count: usize) {
        self.from = (self.from + count).min(self.to);
    }
}

/// What comes out of a decoder, counted.
struct Counted<'r, 'o, 'a> {
    object: &'o Object<'a>,
    reader: Box<dyn Read + 'r>,
    begun: bool,
    depth: u32,
}

impl Read for Counted<'_, '_, '_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = match self.reader.read(into) {
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::OutOfMemory => {
                return Err(self.object.meter.borrow_mut().refuse(TOO_LARGE));
            }
            Err(e) => return Err(e),
        };
        let mut meter = self.object.meter.borrow_mut();
        let mut counted = meter.decoded(count as u64);
        if count > 0 && !self.begun {
            self.begun = true;
            counted = counted.and_then(|()| meter.entry());
            if self.depth >= self.object.depth_max {
                let value = u64::from(self.object.depth_max);
                counted = Err(Refused::Limit { name: "decode_depth", value, unit: "layers" });
            }
        }
        counted.map_err(|refused| meter.refuse(refused))?;
        Ok(count)
    }
}
