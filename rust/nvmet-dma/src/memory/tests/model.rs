//! Property tests: the table against a naive map of single pages, segments against copies byte by byte.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use proptest::prelude::*;

use super::{PAGE, byte_at, bytes_of, copy_of, file, space};
use crate::error::DmaError;
use crate::memory::{Access, Direction, SegmentBuf, Snapshot};

const FILES: usize = 3;
const FILE_PAGES: u64 = 6;
const GUEST_PAGES: u64 = 24;

#[derive(Debug, Clone)]
enum Step {
    Map { page: u64, pages: u64, offset: u64, access: Access, file: Option<usize> },
    Unmap { page: u64, pages: u64 },
    UnmapAll,
    Read { iova: u64, len: usize },
    Write { iova: u64, len: usize, byte: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let access = prop_oneof![
        6 => Just(Access::READ_WRITE), 1 => Just(Access::READ), 1 => Just(Access::WRITE)
    ];
    let map = (0..GUEST_PAGES, 1..5u64, 0..FILE_PAGES, access, prop::option::weighted(0.9, 0..FILES));
    let range = (0..GUEST_PAGES * PAGE, 0..3 * PAGE as usize);
    prop_oneof![
        5 => map.prop_map(|(page, pages, offset, access, file)| Step::Map { page, pages, offset, access, file }),
        2 => (0..GUEST_PAGES, 1..5u64).prop_map(|(page, pages)| Step::Unmap { page, pages }),
        1 => Just(Step::UnmapAll),
        4 => range.clone().prop_map(|(iova, len)| Step::Read { iova, len }),
        4 => (range, any::<u8>()).prop_map(|((iova, len), byte)| Step::Write { iova, len, byte }),
    ]
}

/// What the model knows of a page of guest memory.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Page {
    access: Access,
    /// File and page in it.
    place: Option<(usize, u64)>,
}

/// The regions by first page: number of pages, access, file and page in it.
type Regions = BTreeMap<u64, (u64, Access, Option<(usize, u64)>)>;

/// The page that a guest page is, looked up the slow way.
fn page(regions: &Regions, wanted: u64) -> Option<Page> {
    regions.iter().find_map(|(first, (pages, access, place))| {
        (*first..first + pages).contains(&wanted).then(|| Page {
            access: *access,
            place: place.map(|(file, offset)| (file, offset + wanted - first)),
        })
    })
}

/// Where each byte of a guest range is, or how the first one that is refused is refused.
fn places(regions: &Regions, iova: u64, len: usize, needed: Access) -> Result<Vec<(usize, u64)>, DmaError> {
    (iova..iova + len as u64)
        .map(|iova| {
            let page = page(regions, iova / PAGE).ok_or(DmaError::NotMapped { iova })?;
            if let Some(direction) = page.access.refuses(needed) {
                return Err(DmaError::AccessDenied { iova, direction });
            }
            let (file, number) = page.place.ok_or(DmaError::NotAccessible { iova })?;
            Ok((file, number * PAGE + iova % PAGE))
        })
        .collect()
}

fn read(snapshot: &Snapshot, iova: u64, len: usize) -> Result<Vec<u8>, DmaError> {
    let mut buf = SegmentBuf::new(64, 1 << 20);
    let mut segments = buf.begin(snapshot, Direction::FromGuest);
    segments.push(iova, len)?;
    let mut bytes = vec![0; len];
    segments.finish().read_to(0, &mut bytes)?;
    Ok(bytes)
}

fn write(snapshot: &Snapshot, iova: u64, bytes: &[u8]) -> Result<(), DmaError> {
    let mut buf = SegmentBuf::new(64, 1 << 20);
    let mut segments = buf.begin(snapshot, Direction::ToGuest);
    segments.push(iova, bytes.len())?;
    segments.finish().write_from(0, bytes)
}

/// Checks the outcome of mapping against the model, and brings the model up to date.
fn expect_map(
    regions: &mut Regions,
    (page_number, pages): (u64, u64),
    access: Access,
    place: Option<(usize, u64)>,
    outcome: Result<(), DmaError>,
) -> Result<(), TestCaseError> {
    let taken = (page_number..page_number + pages).any(|number| page(regions, number).is_some());
    if place.is_some_and(|(_, offset)| offset + pages > FILE_PAGES) {
        let too_short = matches!(outcome, Err(DmaError::FileTooShort { .. }));
        prop_assert!(too_short, "{:?}", outcome);
    } else if regions.get(&page_number) == Some(&(pages, access, place)) {
        prop_assert_eq!(outcome, Ok(()));
    } else if taken {
        let overlap = matches!(outcome, Err(DmaError::Overlap { .. }));
        prop_assert!(overlap, "{:?}", outcome);
    } else {
        prop_assert_eq!(outcome, Ok(()));
        regions.insert(page_number, (pages, access, place));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_table_is_what_a_naive_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let files: Vec<OwnedFd> = (0..FILES).map(|seed| file(seed as u8, FILE_PAGES)).collect();
        let mut contents: Vec<Vec<u8>> = (0..FILES)
            .map(|seed| (0..FILE_PAGES * PAGE).map(|offset| byte_at(seed as u8, offset)).collect())
            .collect();
        let mut space = space();
        let mut reader = space.handle().reader();
        let mut regions = Regions::new();
        for step in steps {
            match step {
                Step::Map { page, pages, offset, access, file } => {
                    let place = file.map(|file| (file, offset));
                    let fd = file.and_then(|file| copy_of(&files[file]));
                    let outcome = space.map(page * PAGE, pages * PAGE, offset * PAGE, access, fd);
                    expect_map(&mut regions, (page, pages), access, place, outcome)?;
                }
                Step::Unmap { page, pages } => {
                    let known = regions.get(&page).is_some_and(|region| region.0 == pages);
                    let outcome = space.unmap(page * PAGE, pages * PAGE);
                    prop_assert_eq!(outcome.is_ok(), known);
                    if known {
                        regions.remove(&page);
                        reader.snapshot();
                        prop_assert!(outcome.is_ok_and(|retired| retired.is_done()));
                    }
                }
                Step::UnmapAll => {
                    drop(space.unmap_all());
                    regions.clear();
                }
                Step::Read { iova, len } => {
                    let expected = places(&regions, iova, len, Access::READ)
                        .map(|places| places.iter().map(|(file, at)| contents[*file][*at as usize]).collect());
                    let snapshot = reader.snapshot();
                    prop_assert_eq!(read(snapshot, iova, len), expected.clone());
                    let mut bytes = vec![0; len];
                    prop_assert_eq!(snapshot.read_bytes(iova, &mut bytes).map(|()| bytes), expected);
                }
                Step::Write { iova, len, byte } => {
                    // A file may be mapped twice in one range: then the later byte wins, in the model as well.
                    let bytes: Vec<u8> = (0..len).map(|index| byte ^ index as u8).collect();
                    let expected = places(&regions, iova, len, Access::WRITE);
                    prop_assert_eq!(write(reader.snapshot(), iova, &bytes), expected.clone().map(|_| ()));
                    for ((file, at), byte) in expected.unwrap_or_default().into_iter().zip(bytes) {
                        contents[file][at as usize] = byte;
                    }
                }
            }
            prop_assert_eq!(space.len(), regions.len());
        }
        for (fd, content) in files.iter().zip(&contents) {
            prop_assert_eq!(&bytes_of(fd, 0, content.len()), content);
        }
    }

    #[test]
    fn segments_are_the_bytes_of_their_ranges_in_order(
        ranges in prop::collection::vec((0..GUEST_PAGES * PAGE - 5000, 0..5000usize), 0..12),
        at in any::<prop::sample::Index>(),
        len in any::<prop::sample::Index>(),
    ) {
        // Pages of two files, turned around, so that some neighbours touch in host memory and some do not.
        let files = [file(0, GUEST_PAGES), file(1, GUEST_PAGES)];
        let mut space = space();
        let mut guest = Vec::new();
        for page in 0..GUEST_PAGES {
            let (file, offset) = ((page / 3 % 2) as usize, if page % 5 == 0 { GUEST_PAGES - 1 - page } else { page });
            space.map(page * PAGE, PAGE, offset * PAGE, Access::READ, copy_of(&files[file])).expect("map");
            guest.extend((0..PAGE).map(|at| byte_at(file as u8, offset * PAGE + at)));
        }
        let mut reader = space.handle().reader();
        let mut buf = SegmentBuf::new(1024, 1 << 20);
        let mut segments = buf.begin(reader.snapshot(), Direction::FromGuest);
        let mut expected = Vec::new();
        for (iova, len) in ranges {
            prop_assert_eq!(segments.push(iova, len), Ok(()));
            expected.extend_from_slice(&guest[iova as usize..iova as usize + len]);
        }
        prop_assert_eq!(segments.len(), expected.len());
        let segments = segments.finish();
        let at = at.index(expected.len() + 1);
        let len = len.index(expected.len() - at + 1);
        let mut bytes = vec![0; len];
        prop_assert_eq!(segments.read_to(at, &mut bytes), Ok(()));
        prop_assert_eq!(&bytes, &expected[at..at + len]);
        prop_assert_eq!(segments.compare_with(at, &bytes), Ok(true));
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
            prop_assert_eq!(segments.compare_with(at, &bytes), Ok(false));
        }
    }
}
