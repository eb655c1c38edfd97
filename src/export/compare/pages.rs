//! The pages of a group of a Parquet file, before any of them is read: that memory has room for what is in them, and
//! that the file says of them what they are.
//!
//! The library takes as much memory as a page says that it needs, and shows nobody what that is; so the headers are
//! read here as well. They are structs of Thrift's compact protocol, and what this form does not need in them is
//! refused.

use parquet::basic::Encoding;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::ChunkReader;

use super::Difference;

/// The pages of a group take no more bytes: groups are written with 16 MiB of text in all, and a leaf more.
const MOST: u64 = 64 << 20;
/// A dictionary takes no more, since the library keeps eight times as much of it: encoders end one at 1 MiB.
const MOST_DICTIONARY: u64 = 8 << 20;
/// A header without statistics takes fewer bytes.
const HEADER: u64 = 128;

const LARGE: &str = "a group of it is larger than this form has them";
const OTHER: &str = "it says something else of its pages than they are";

/// Kinds of pages, and the fields that have the rest of their headers.
const DATA: (i32, u8) = (0, 5);
const DICTIONARY: (i32, u8) = (2, 7);
const DATA_2: (i32, u8) = (3, 8);

/// Types of Thrift's fields.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const STRUCT: u8 = 12;

/// What a page's header says.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Page {
    /// Which kind it is, and which of the structs in it the header has.
    kind: (i32, u8),
    uncompressed: i32,
    compressed: i32,
    values: i32,
    encoding: i32,
}

/// Sees that the pages of a group are what the file says of them, and have room.
pub(super) fn fit<R: ChunkReader>(file: &R, group: &RowGroupMetaData) -> Result<(), Difference> {
    let mut room = MOST;
    group.columns().iter().try_for_each(|chunk| chunk_fits(file, chunk, &mut room))
}

fn chunk_fits<R: ChunkReader>(file: &R, chunk: &ColumnChunkMetaData, room: &mut u64) -> Result<(), Difference> {
    let first = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let (Ok(mut at), Ok(length)) = (u64::try_from(first), u64::try_from(chunk.compressed_size())) else {
        return Err(unreadable(super::columns::BROKEN));
    };
    let end = at.checked_add(length).filter(|end| *end <= file.len()).ok_or(unreadable(super::columns::BROKEN))?;
    let mut has_data = false;
    while at < end {
        let bytes = file.get_bytes(at, (end - at).min(HEADER) as usize).map_err(broken)?;
        let (page, length) = header(&bytes).ok_or(unreadable("a page of it has statistics, or is broken"))?;
        let sizes = (u64::try_from(page.compressed), u64::try_from(page.uncompressed));
        let (Ok(compressed), Ok(uncompressed)) = sizes else {
            return Err(unreadable(super::columns::BROKEN));
        };
        let size = compressed.max(uncompressed);
        *room = room.checked_sub(size).ok_or(unreadable(LARGE))?;
        if page.kind == DICTIONARY {
            // Each value takes four bytes at the least, in which its length stands.
            let fits = u64::try_from(page.values).is_ok_and(|values| values <= size / 4);
            if !fits || size > MOST_DICTIONARY {
                return Err(unreadable(LARGE));
            }
        } else {
            // Some readers begin here, and not where the dictionary does.
            if !has_data && i64::try_from(at) != Ok(chunk.data_page_offset()) {
                return Err(unreadable(OTHER));
            }
            has_data = true;
            is_told(chunk, page.encoding)?;
        }
        at = at.saturating_add(length).saturating_add(compressed);
    }
    if at == end { Ok(()) } else { Err(unreadable(super::columns::BROKEN)) }
}

/// Sees that a page is encoded as the file says. Where all pages have dictionaries, engines look at these alone for
/// whether there is anything for them.
fn is_told(chunk: &ColumnChunkMetaData, encoding: i32) -> Result<(), Difference> {
    let encoding = match encoding {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        8 => Encoding::RLE_DICTIONARY,
        // The library takes as much memory for the others as they ask for.
        _ => return Err(Difference::Form("its cells are neither plain nor of a dictionary")),
    };
    let counted = chunk.page_encoding_stats_mask().is_none_or(|mask| mask.is_set(encoding));
    if counted && chunk.encodings_mask().is_set(encoding) { Ok(()) } else { Err(unreadable(OTHER)) }
}

/// Reads a header and says how long it is. None if it has anything twice, in another order, or that this form does not
/// need: what the library would make of that is not known.
fn header(bytes: &[u8]) -> Option<(Page, u64)> {
    let mut left = bytes.iter().copied();
    let mut page = Page::default();
    // The struct that is read, which is a field of the header, or 0 for the header itself; and the field of it.
    let (mut within, mut field) = (0_u8, 0_u8);
    loop {
        let begin = left.next()?;
        if begin == 0 && within == 0 {
            let is_known = [DATA, DICTIONARY, DATA_2].contains(&page.kind);
            return is_known.then_some((page, (bytes.len() - left.len()) as u64));
        }
        if begin == 0 {
            (within, field) = (0, within);
            continue;
        }
        let (step, kind) = (begin >> 4, begin & 15);
        // A step of none has the field's number behind it, which might be that of one that was there.
        field = (step > 0).then(|| field.checked_add(step)).flatten()?;
        let number = if kind == I32 { Some(number(&mut left)?) } else { None };
        match (within, field, number) {
            (0, 1, Some(kind)) => page.kind.0 = kind,
            (0, 2, Some(bytes)) => page.uncompressed = bytes,
            (0, 3, Some(bytes)) => page.compressed = bytes,
            (5 | 7 | 8, 1, Some(values)) => page.values = values,
            (5, 2, Some(encoding)) | (8, 4, Some(encoding)) => page.encoding = encoding,
            // A sum, levels, and numbers of rows.
            (0, 4, Some(_)) | (5, 3 | 4, Some(_)) | (7, 2, Some(_)) | (8, 2 | 3 | 5 | 6, Some(_)) => {}
            (7, 3, None) | (8, 7, None) if kind == TRUE || kind == FALSE => {}
            (0, 5 | 7 | 8, None) if kind == STRUCT && page.kind.1 == 0 => {
                page.kind.1 = field;
                (within, field) = (field, 0);
            }
            _ => return None,
        }
    }
}

/// A number of 32 bits: zigzag, seven bits a byte, the lowest first.
fn number(left: &mut impl Iterator<Item = u8>) -> Option<i32> {
    let mut read = 0_u64;
    for shift in (0..35).step_by(7) {
        let byte = left.next()?;
        read |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let read = u32::try_from(read).ok()?;
            return Some((read >> 1).cast_signed() ^ -(read & 1).cast_signed());
        }
    }
    None
}

fn unreadable(why: &'static str) -> Difference {
    Difference::Unreadable { row: 0, why }
}

fn broken(_: ParquetError) -> Difference {
    unreadable(super::columns::BROKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data page of 300 bytes, 100 as compressed, with three values of a dictionary, as encoders write its header.
    const PAGE: [u8; 18] = [0x15, 0, 0x15, 0xd8, 4, 0x15, 0xc8, 1, 0x2c, 0x15, 6, 0x15, 16, 0x15, 6, 0x15, 6, 0];

    fn with_end(bytes: &[u8]) -> Vec<u8> {
        [bytes, &[0, 0xff]].concat()
    }

    #[test]
    fn a_header_is_read_to_its_end() {
        let page = Page { kind: DATA, uncompressed: 300, compressed: 100, values: 3, encoding: 8 };
        assert_eq!(header(&with_end(&PAGE)), Some((page, 19)));
        assert_eq!(header(&PAGE), None, "it has no end");
        let second = [0x15, 6, 0x15, 2, 0x15, 2, 0x5c, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 0, 0x15, 2, 0x15, 0, 0x12, 0];
        let page = Page { kind: DATA_2, uncompressed: 1, compressed: 1, values: 3, encoding: 0 };
        assert_eq!(header(&with_end(&second)), Some((page, 22)));
        let dictionary = [0x15, 4, 0x15, 2, 0x15, 2, 0x4c, 0x15, 6, 0x15, 0, 0x12, 0];
        let page = Page { kind: DICTIONARY, uncompressed: 1, compressed: 1, values: 3, encoding: 0 };
        assert_eq!(header(&with_end(&dictionary)), Some((page, 14)));
    }

    #[test]
    fn a_header_that_could_be_read_in_two_ways_or_has_more_is_none() {
        let (own, within) = PAGE.split_at(8);
        // The size once more, with its number behind it; and a second struct, whose values would count.
        assert_eq!(header(&with_end(&[own, &[0x05, 4, 0xfe, 0xff, 0xff, 0xff, 0x0f], within].concat())), None);
        assert_eq!(header(&with_end(&[&PAGE[..], &[0x2c, 0x15, 6, 0x15, 0, 0]].concat())), None);
        let statistics = [&PAGE[..17], &[0x1c, 0x18, 1, b'a', 0, 0]].concat();
        assert_eq!(header(&with_end(&statistics)), None);
        // A number in another type, of which the library takes none into account.
        assert_eq!(header(&with_end(&[&[0x15, 0, 0x11], &PAGE[5..]].concat())), None);
        // Of another kind than its struct.
        assert_eq!(header(&with_end(&[&[0x15, 4], &PAGE[2..]].concat())), None);
    }

    #[test]
    fn numbers_have_32_bits() {
        let number = |bytes: &[u8]| number(&mut bytes.iter().copied());
        assert_eq!(number(&[0xfe, 0xff, 0xff, 0xff, 0x0f]), Some(i32::MAX));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some(i32::MIN));
        assert_eq!(number(&[1]), Some(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None);
        assert_eq!(number(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]), None);
    }
}
