//! Random operations in batches, against a model of what the backend must hold.
//!
//! The operations of a batch run at the same time, so they touch ranges that do not overlap.

use super::data::cut;
use super::rig::{Random, Request, Rig, brief};
use super::{Context, Stop, Verdict, ensure};
use crate::error::IoError;

/// Operations of one batch.
const LANES: usize = 48;
/// Guest memory of one operation: its data, and gaps between segments.
const LANE: usize = 64 << 10;
/// Most bytes of one operation.
const LONGEST: u64 = 32 << 10;

/// What a block holds: known bytes, or anything after a deallocation without a promise.
struct Model {
    bytes: Vec<u8>,
    known: Vec<bool>,
    block: u64,
}

impl Model {
    fn range(&self, offset: u64, len: u64) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let bytes = offset as usize..(offset + len) as usize;
        let blocks = (offset / self.block) as usize..((offset + len) / self.block) as usize;
        (bytes, blocks)
    }

    fn set(&mut self, offset: u64, data: &[u8]) {
        let (bytes, blocks) = self.range(offset, data.len() as u64);
        self.bytes[bytes].copy_from_slice(data);
        self.known[blocks].fill(true);
    }

    fn forget(&mut self, offset: u64, len: u64) {
        let (_, blocks) = self.range(offset, len);
        self.known[blocks].fill(false);
    }

    fn known(&self, offset: u64, len: u64) -> bool {
        let (_, blocks) = self.range(offset, len);
        self.known[blocks].iter().all(|known| *known)
    }
}

/// One operation of a batch, and what must come of it.
struct Case {
    request: Request,
    wanted: Result<(), IoError>,
    /// What a read must bring.
    data: Option<Vec<u8>>,
}

pub(super) fn random_operations(context: &Context<'_>) -> Verdict {
    context.needs_data()?;
    let block = context.block();
    let window = context.backend.geometry().size.min(4 << 20);
    context.needs_size(LANES as u64 * block)?;
    let mut rig = context.rig()?;
    let mut random = Random::new(context.options.seed);
    let mut model =
        Model { bytes: vec![0; window as usize], known: vec![false; (window / block) as usize], block };
    for round in 0..context.options.rounds {
        let cases = batch(context, &mut rig, &mut random, &mut model)?;
        for (tag, case) in cases.iter().enumerate() {
            rig.start(tag as u64, &case.request)?;
            if random.below(4) == 0 {
                rig.queue().kick();
                rig.reap();
            }
        }
        let mut results = rig.finish()?;
        for (tag, case) in cases.iter().enumerate() {
            let what = || format!("seed {}, round {round}, {}", context.options.seed, brief(&case.request));
            let result =
                results.remove(&(tag as u64)).ok_or_else(|| Stop::fail(format!("{}: lost", what())))?;
            ensure(result == case.wanted, || format!("{}: {result:?} instead of {:?}", what(), case.wanted))?;
            if let (Request::Read { places, .. }, Some(wanted)) = (&case.request, &case.data) {
                let mut data = Vec::with_capacity(wanted.len());
                for (at, len) in places {
                    data.extend(rig.get(*at, *len)?);
                }
                ensure(&data == wanted, || format!("{}: other data than was written", what()))?;
            }
        }
        ensure(results.is_empty(), || format!("tags were reported that nobody submitted: {results:?}"))?;
    }
    Ok(())
}

/// One operation for each lane; the model is already what it must be afterwards.
fn batch(
    context: &Context<'_>,
    rig: &mut Rig,
    random: &mut Random,
    model: &mut Model,
) -> Result<Vec<Case>, Stop> {
    let block = model.block;
    let part = model.bytes.len() as u64 / LANES as u64 / block;
    let mut cases = Vec::with_capacity(LANES);
    for lane in 0..LANES {
        let blocks = 1 + random.below(part.min((LONGEST / block).max(1)));
        let offset = (lane as u64 * part + random.below(part - blocks + 1)) * block;
        cases.push(case(context, rig, random, model, (lane, offset, blocks * block))?);
    }
    Ok(cases)
}

fn case(
    context: &Context<'_>,
    rig: &mut Rig,
    random: &mut Random,
    model: &mut Model,
    (lane, offset, len): (usize, u64, u64),
) -> Result<Case, Stop> {
    let at = lane * LANE;
    let bytes = len as usize;
    let places = match random.below(3) {
        0 => vec![(at, bytes)],
        1 => cut(random, at, bytes, 4096),
        // As PRPs are: a first page that starts in its middle, then whole pages.
        _ => {
            let first = bytes.min(512);
            let mut places = vec![(at + 4096 - first, first), (at + 8192, bytes - first)];
            places.retain(|(_, len)| *len > 0);
            places
        }
    };
    let passes = |request| Case { request, wanted: Ok(()), data: None };
    Ok(match random.below(12) {
        0..=3 => {
            let data = random.bytes(bytes);
            fill(rig, &places, &data)?;
            model.set(offset, &data);
            passes(Request::Write { offset, places, fua: random.below(8) == 0 })
        }
        4..=7 => {
            let (range, _) = model.range(offset, len);
            let data = model.known(offset, len).then(|| model.bytes[range].to_vec());
            Case { request: Request::Read { offset, places }, wanted: Ok(()), data }
        }
        8 if model.known(offset, len) => {
            let (range, _) = model.range(offset, len);
            let mut data = model.bytes[range].to_vec();
            let differs = random.below(2) == 0;
            if differs {
                let at = random.below(len) as usize;
                data[at] ^= 0x80;
            }
            fill(rig, &places, &data)?;
            let wanted = if differs { Err(IoError::CompareFailed) } else { Ok(()) };
            Case { request: Request::Compare { offset, places }, wanted, data: None }
        }
        9 => {
            if context.backend.features().discarded_reads_zero {
                model.set(offset, &vec![0; bytes]);
            } else {
                model.forget(offset, len);
            }
            passes(Request::Deallocate { offset, len })
        }
        10 => passes(Request::Flush),
        _ => {
            model.set(offset, &vec![0; bytes]);
            let (deallocate, fua) = (random.below(2) == 0, random.below(4) == 0);
            passes(Request::WriteZeroes { offset, len, deallocate, fua })
        }
    })
}

fn fill(rig: &Rig, places: &[(usize, usize)], data: &[u8]) -> Verdict {
    let mut rest = data;
    for (at, len) in places {
        let (now, tail) = rest.split_at(*len);
        rig.put(*at, now)?;
        rest = tail;
    }
    Ok(())
}
