//! Checks of geometry, bounds and refusals: nothing is changed.

use super::rig::{Request, Rig};
use super::{Context, Stop, Verdict, ensure};
use crate::error::IoError;

pub(super) fn geometry_is_consistent(context: &Context<'_>) -> Verdict {
    let geometry = context.backend.geometry();
    for (name, block) in [
        ("min_block", geometry.min_block),
        ("preferred_block", geometry.preferred_block),
        ("physical_block", geometry.physical_block),
    ] {
        ensure(block.is_power_of_two(), || format!("{name} {block} is not a power of two"))?;
        ensure(block >= geometry.min_block, || format!("{name} {block} is below min_block"))?;
    }
    ensure(geometry.size > 0, || "the size is zero".to_owned())?;
    ensure(geometry.size.is_multiple_of(context.block()), || "the size is not whole blocks".to_owned())?;
    ensure(i64::try_from(geometry.size).is_ok(), || "the size is 8E or more".to_owned())?;
    ensure(geometry.optimal_io.is_multiple_of(geometry.physical_block), || {
        "optimal_io is not whole physical blocks".to_owned()
    })
}

pub(super) fn one_line(context: &Context<'_>) -> Verdict {
    let text = context.backend.describe();
    ensure(!text.is_empty() && !text.contains('\n'), || format!("{text:?}"))
}

/// Every kind of operation on a range; `len` has to fit guest memory.
fn every_kind(offset: u64, len: u64, read_only: bool) -> Vec<Request> {
    let places = vec![(0, len as usize)];
    let mut requests = vec![
        Request::Read { offset, places: places.clone() },
        Request::Compare { offset, places: places.clone() },
    ];
    if !read_only {
        requests.extend([
            Request::Write { offset, places, fua: false },
            Request::WriteZeroes { offset, len, deallocate: false, fua: false },
            Request::WriteZeroes { offset, len, deallocate: true, fua: true },
            Request::Deallocate { offset, len },
        ]);
    }
    requests
}

fn all_answer(rig: &mut Rig, requests: &[Request], wanted: Result<(), IoError>) -> Verdict {
    for request in requests {
        let result = rig.run(request)?;
        ensure(result == wanted, || format!("{request:?}: {result:?} instead of {wanted:?}"))?;
    }
    Ok(())
}

pub(super) fn beyond_the_end(context: &Context<'_>) -> Verdict {
    let (geometry, block) = (context.backend.geometry(), context.block());
    let mut rig = context.rig()?;
    for (offset, len) in
        [(geometry.size, block), (geometry.size - block, 2 * block), (geometry.size + block, block)]
    {
        all_answer(&mut rig, &every_kind(offset, len, geometry.read_only), Err(IoError::OutOfRange))?;
    }
    Ok(())
}

pub(super) fn wrapping(context: &Context<'_>) -> Verdict {
    let (geometry, block) = (context.backend.geometry(), context.block());
    let mut rig = context.rig()?;
    let top = u64::MAX - (block - 1);
    all_answer(&mut rig, &every_kind(top, block, geometry.read_only), Err(IoError::OutOfRange))?;
    all_answer(&mut rig, &every_kind(top - block, 4 * block, geometry.read_only), Err(IoError::OutOfRange))?;
    if geometry.read_only {
        return Ok(());
    }
    let huge = [
        Request::Deallocate { offset: block, len: top },
        Request::WriteZeroes { offset: 0, len: top, deallocate: true, fua: false },
    ];
    all_answer(&mut rig, &huge, Err(IoError::OutOfRange))
}

pub(super) fn parts_of_blocks(context: &Context<'_>) -> Verdict {
    let (geometry, block) = (context.backend.geometry(), context.block());
    if block == 1 {
        return Err(Stop::skip("every byte is a block"));
    }
    context.needs_size(4 * block)?;
    let mut rig = context.rig()?;
    for (offset, len) in [(1, block), (block / 2, block), (0, block - 1), (block, block / 2)] {
        all_answer(&mut rig, &every_kind(offset, len, geometry.read_only), Err(IoError::Invalid))?;
    }
    Ok(())
}

pub(super) fn empty_ranges(context: &Context<'_>) -> Verdict {
    let geometry = context.backend.geometry();
    let mut rig = context.rig()?;
    for offset in [0, geometry.size] {
        all_answer(&mut rig, &every_kind(offset, 0, geometry.read_only), Ok(()))?;
    }
    Ok(())
}

pub(super) fn read_only(context: &Context<'_>) -> Verdict {
    if !context.backend.geometry().read_only {
        return Err(Stop::skip("the backend is not read-only"));
    }
    let block = context.block();
    let mut rig = context.rig()?;
    let changes = every_kind(0, block, false).split_off(2);
    all_answer(&mut rig, &changes, Err(IoError::ReadOnly))?;
    all_answer(
        &mut rig,
        &[Request::Read { offset: 0, places: vec![(0, block as usize)] }, Request::Flush],
        Ok(()),
    )
}
