//! Checks of single operations on data.

use super::rig::{Random, Request, Rig};
use super::{Context, Stop, Verdict, ensure};
use crate::error::IoError;

/// Where the checks put what they write, and where they read to, in guest memory.
const OUT: usize = 0;
const BACK: usize = 4 << 20;

fn write(rig: &mut Rig, offset: u64, bytes: &[u8], fua: bool) -> Verdict {
    rig.put(OUT, bytes)?;
    rig.must(&Request::Write { offset, places: vec![(OUT, bytes.len())], fua })
}

fn expect(rig: &mut Rig, offset: u64, bytes: &[u8]) -> Verdict {
    rig.put(BACK, &vec![0xa5; bytes.len()])?;
    rig.must(&Request::Read { offset, places: vec![(BACK, bytes.len())] })?;
    let back = rig.get(BACK, bytes.len())?;
    match back.iter().zip(bytes).position(|(is, wanted)| is != wanted) {
        None => Ok(()),
        Some(at) => Err(Stop::fail(format!("byte {} differs from what was put there", offset + at as u64))),
    }
}

pub(super) fn write_then_read(context: &Context<'_>) -> Verdict {
    context.needs_data()?;
    let block = context.block();
    context.needs_size(16 * block)?;
    let mut rig = context.rig()?;
    let bytes = Random::new(context.options.seed).bytes(8 * block as usize);
    write(&mut rig, 4 * block, &bytes, false)?;
    expect(&mut rig, 4 * block, &bytes)?;
    expect(&mut context.rig()?, 4 * block, &bytes)
}

/// Cuts `len` bytes of guest memory from `at` on into segments of odd lengths, with gaps.
pub(super) fn cut(random: &mut Random, at: usize, len: usize, longest: u64) -> Vec<(usize, usize)> {
    let (mut places, mut at, mut left) = (Vec::new(), at, len);
    while left > 0 {
        at += random.below(9) as usize;
        let now = (1 + random.below(longest) as usize).min(left);
        places.push((at, now));
        at += now;
        left -= now;
    }
    places
}

/// Puts the bytes of `bytes` into places, or takes them out.
fn scatter(rig: &Rig, places: &[(usize, usize)], bytes: &[u8]) -> Verdict {
    let mut rest = bytes;
    for (at, len) in places {
        let (now, tail) = rest.split_at((*len).min(rest.len()));
        rig.put(*at, now)?;
        rest = tail;
    }
    Ok(())
}

fn gather(rig: &Rig, places: &[(usize, usize)]) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    for (at, len) in places {
        bytes.extend(rig.get(*at, *len)?);
    }
    Ok(bytes)
}

/// Writes and reads through segments, and checks that the gaps between them stay as they were.
fn through_segments(context: &Context<'_>, blocks: u64, longest: u64) -> Verdict {
    context.needs_data()?;
    let block = context.block();
    context.needs_size(blocks * block)?;
    let mut rig = context.rig()?;
    let mut random = Random::new(context.options.seed);
    let len = (blocks * block) as usize;
    let bytes = random.bytes(len);
    let from = cut(&mut random, OUT, len, longest);
    scatter(&rig, &from, &bytes)?;
    rig.must(&Request::Write { offset: 0, places: from.clone(), fua: false })?;
    ensure(rig.run(&Request::Compare { offset: 0, places: from })?.is_ok(), || "compare differs".to_owned())?;
    expect(&mut rig, 0, &bytes)?;
    let to = cut(&mut random, BACK, len, longest);
    let end = to.last().map_or(BACK, |(at, len)| at + len) + 64;
    rig.put(BACK, &vec![0xa5; end - BACK])?;
    rig.must(&Request::Read { offset: 0, places: to.clone() })?;
    ensure(gather(&rig, &to)? == bytes, || "the segments do not hold what was written".to_owned())?;
    let mut gaps = rig.get(BACK, end - BACK)?;
    for (at, len) in &to {
        gaps[at - BACK..at - BACK + len].fill(0xa5);
    }
    ensure(gaps.iter().all(|byte| *byte == 0xa5), || "memory beside the segments was written".to_owned())
}

pub(super) fn odd_segments(context: &Context<'_>) -> Verdict {
    through_segments(context, 16, 1500)
}

pub(super) fn many_segments(context: &Context<'_>) -> Verdict {
    let blocks = (16384 / context.block()).max(1);
    through_segments(context, blocks, 15)
}

pub(super) fn long_transfers(context: &Context<'_>) -> Verdict {
    context.needs_data()?;
    let block = context.block();
    let len = (2 << 20) + block as usize;
    context.needs_size(len as u64 + block)?;
    let mut rig = context.rig()?;
    let bytes = Random::new(context.options.seed).bytes(len);
    write(&mut rig, block, &bytes, false)?;
    expect(&mut rig, block, &bytes)?;
    // The same through memory that suits no direct I/O.
    rig.put(OUT + 3, &bytes)?;
    rig.must(&Request::Write { offset: 0, places: vec![(OUT + 3, len)], fua: true })?;
    rig.must(&Request::Compare { offset: 0, places: vec![(OUT + 3, len)] })?;
    expect(&mut rig, 0, &bytes)
}

pub(super) fn last_block(context: &Context<'_>) -> Verdict {
    context.needs_data()?;
    let (block, size) = (context.block(), context.backend.geometry().size);
    let mut rig = context.rig()?;
    let bytes = Random::new(context.options.seed).bytes(block as usize);
    write(&mut rig, size - block, &bytes, false)?;
    expect(&mut rig, size - block, &bytes)?;
    rig.must(&Request::WriteZeroes { offset: size - block, len: block, deallocate: true, fua: false })?;
    expect(&mut rig, size - block, &vec![0; block as usize])?;
    ensure(context.backend.geometry().size == size, || "the size changed".to_owned())
}

pub(super) fn fua_and_flush(context: &Context<'_>) -> Verdict {
    context.needs_write()?;
    let block = context.block();
    let mut rig = context.rig()?;
    let bytes = Random::new(context.options.seed).bytes(block as usize);
    write(&mut rig, 0, &bytes, true)?;
    rig.must(&Request::Flush)?;
    if context.backend.features().stores_data { expect(&mut rig, 0, &bytes) } else { Ok(()) }
}

/// A pattern over 64 blocks, the operation on some of them, and what must be there then.
fn on_part(context: &Context<'_>, zeroes: bool, request: impl Fn(u64, u64) -> Request) -> Verdict {
    let block = context.block();
    context.needs_size(64 * block)?;
    let mut rig = context.rig()?;
    for (first, count) in [(8, 40), (1, 1), (3, 5)] {
        let mut bytes = Random::new(context.options.seed + first).bytes(64 * block as usize);
        write(&mut rig, 0, &bytes, false)?;
        rig.must(&request(first * block, count * block))?;
        let (start, end) = ((first * block) as usize, ((first + count) * block) as usize);
        if zeroes {
            bytes[start..end].fill(0);
            expect(&mut rig, 0, &bytes)?;
        } else {
            expect(&mut rig, 0, &bytes[..start])?;
            expect(&mut rig, end as u64, &bytes[end..])?;
        }
    }
    Ok(())
}

pub(super) fn write_zeroes(context: &Context<'_>) -> Verdict {
    context.needs_data()?;
    for (deallocate, fua) in [(false, false), (false, true), (true, false), (true, true)] {
        on_part(context, true, |offset, len| Request::WriteZeroes { offset, len, deallocate, fua })?;
    }
    Ok(())
}

pub(super) fn deallocate(context: &Context<'_>) -> Verdict {
    context.needs_data()?;
    let zeroes = context.backend.features().discarded_reads_zero;
    on_part(context, zeroes, |offset, len| Request::Deallocate { offset, len })
}

pub(super) fn compare(context: &Context<'_>) -> Verdict {
    context.needs_data()?;
    let block = context.block();
    context.needs_size(8 * block)?;
    let mut rig = context.rig()?;
    let len = 8 * block as usize;
    let mut bytes = Random::new(context.options.seed).bytes(len);
    write(&mut rig, 0, &bytes, false)?;
    let request =
        Request::Compare { offset: 0, places: vec![(OUT, len / 2), (OUT + len / 2, len - len / 2)] };
    rig.must(&request)?;
    for at in [0, len / 2, len - 1] {
        bytes[at] ^= 1;
        rig.put(OUT, &bytes)?;
        let result = rig.run(&request)?;
        ensure(result == Err(IoError::CompareFailed), || {
            format!("byte {at} differs, and compare says {result:?}")
        })?;
        bytes[at] ^= 1;
    }
    expect(&mut rig, 0, &bytes)
}

pub(super) fn sync(context: &Context<'_>) -> Verdict {
    context.backend.sync().map_err(|error| Stop::fail(error.to_string()))
}
