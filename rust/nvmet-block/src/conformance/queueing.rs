//! Checks of the queue itself: depth, cancellation, threads, dropping.

use super::rig::{Random, Request, Rig};
use super::{Context, Stop, Verdict, ensure};
use crate::error::IoError;
use crate::queue::Submitted;

pub(super) fn two_threads(context: &Context<'_>) -> Verdict {
    context.needs_data()?;
    let block = context.block();
    let half = (context.backend.geometry().size / 2 / block * block).min(1 << 20);
    context.needs_size(16 * block)?;
    let worker = |side: u64| -> Verdict {
        let mut rig = context.rig()?;
        let mut random = Random::new(context.options.seed + side);
        let len = block as usize;
        for _ in 0..context.options.rounds {
            let offset = side * half + random.below(half / block) * block;
            let data = random.bytes(len);
            rig.put(0, &data)?;
            rig.must(&Request::Write { offset, places: vec![(0, len)], fua: false })?;
            rig.must(&Request::Read { offset, places: vec![(65536, len)] })?;
            ensure(rig.get(65536, len)? == data, || {
                format!("block at {offset} holds what another queue wrote")
            })?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(|| worker(0)), scope.spawn(|| worker(1))];
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(Stop::fail("a queue's thread panicked")))
        })
    })
}

/// Reads, one per tag, each with a place of its own. Returns how many were accepted before the queue was full.
fn flood(rig: &mut Rig, block: usize, most: u64) -> Result<(Vec<u64>, bool), Stop> {
    let mut accepted = Vec::new();
    for tag in 0..most {
        let request = Request::Read { offset: 0, places: vec![(tag as usize % 64 * block, block)] };
        match rig.submit(tag, &request)? {
            Submitted::Pending => accepted.push(tag),
            Submitted::Done(result) => {
                ensure(result.is_ok(), || format!("a read failed: {result:?}"))?;
            }
            Submitted::Full => return Ok((accepted, true)),
        }
    }
    Ok((accepted, false))
}

pub(super) fn full(context: &Context<'_>) -> Verdict {
    let block = context.block() as usize;
    let mut rig = context.rig()?;
    let most = u64::from(context.options.depth) * 4;
    let (accepted, was_full) = flood(&mut rig, block, most)?;
    ensure(rig.queue().in_flight() == accepted.len(), || {
        format!("{} were accepted, and {} are in flight", accepted.len(), rig.queue().in_flight())
    })?;
    let enough = !was_full || accepted.len() >= context.options.depth as usize;
    ensure(enough, || format!("full with {} operations, below the depth asked for", accepted.len()))?;
    let results = rig.finish()?;
    ensure(results.keys().copied().eq(accepted.iter().copied()), || {
        "other tags came back than went in".to_owned()
    })?;
    ensure(results.values().all(Result::is_ok), || format!("a read failed: {results:?}"))?;
    // There is room again.
    rig.must(&Request::Read { offset: 0, places: vec![(0, block)] })
}

pub(super) fn cancel(context: &Context<'_>) -> Verdict {
    let block = context.block() as usize;
    let mut rig = context.rig()?;
    for kicked in [false, true] {
        let (accepted, _) = flood(&mut rig, block, u64::from(context.options.depth))?;
        if kicked {
            rig.queue().kick();
        }
        rig.queue().cancel(u64::MAX);
        for tag in accepted.iter().step_by(2) {
            rig.queue().cancel(*tag);
        }
        let results = rig.finish()?;
        ensure(results.keys().copied().eq(accepted.iter().copied()), || {
            format!("{} went in, {} came back", accepted.len(), results.len())
        })?;
        for (tag, result) in results {
            let fine = result.is_ok() || (tag % 2 == 0 && result == Err(IoError::Aborted));
            ensure(fine, || format!("tag {tag}: {result:?}"))?;
        }
    }
    Ok(())
}

pub(super) fn dropped(context: &Context<'_>) -> Verdict {
    let block = context.block() as usize;
    for kicked in [false, true] {
        let mut rig = context.rig()?;
        flood(&mut rig, block, u64::from(context.options.depth))?;
        if kicked {
            rig.queue().kick();
        }
        drop(rig);
        context.rig()?.must(&Request::Read { offset: 0, places: vec![(0, block)] })?;
    }
    Ok(())
}

/// A region that is unmapped while the queue lives must retire: the queue holds no pin of an operation that is done.
pub(super) fn released(context: &Context<'_>) -> Verdict {
    let block = context.block() as usize;
    let mut rig = context.rig()?;
    rig.must(&Request::Read { offset: 0, places: vec![(0, block)] })?;
    rig.must(&Request::Compare { offset: 0, places: vec![(0, block / 2), (block / 2, block - block / 2)] })
        .or_else(|stop| if context.backend.features().stores_data { Err(stop) } else { Ok(()) })?;
    ensure(rig.unmap(), || "guest memory is still pinned though nothing is in flight".to_owned())
}
