//! Carries an I/O command out on a namespace (NVM Command Set 1.1, 3.2).
//!
//! Checks what depends on the namespace, turns the data pointer into segments, and gives the operation to the
//! namespace's queue. What the backend cannot take at the moment is issued again later, from where it stopped.

use nvmet_block::{IoQueue, Op, Submitted};
use nvmet_dma::memory::Direction as DmaDirection;
use nvmet_dma::{SegmentBuf, Snapshot};
use nvmet_spec::command::{DsmRange, Psdt, Sqe};
use nvmet_spec::status::Status;
use zerocopy::{FromZeros, IntoBytes};

use super::decode::{Blocks, IoCommand};
use super::status::{dma_status, io_status};
use super::{prp, sgl};
use crate::namespace::Namespace;

/// What execution needs to know of the controller, and its scratch space.
pub struct Context<'a> {
    /// The guest's memory for this batch.
    pub snapshot: &'a Snapshot,
    /// Scratch for segments.
    pub segments: &'a mut SegmentBuf,
    /// CC.MPS in bytes.
    pub page_size: u64,
    /// MDTS in bytes.
    pub max_transfer: u64,
}

/// How far a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Operations that will complete later, each with an [`operation_tag`] of the command.
    pub pending: u32,
    /// The first error of what has completed, else success.
    pub status: Status,
    /// Operations issued so far, over all attempts: where to go on if `full`.
    pub next: u32,
    /// The backend takes no more for now; issue the rest later.
    pub full: bool,
}

impl Issued {
    /// A command that is over.
    pub fn done(status: Status) -> Self {
        Self { pending: 0, status, next: 0, full: false }
    }

    fn submit(&mut self, queue: &mut dyn IoQueue, tag: u64, op: Op<'_>) {
        match queue.submit(tag, op) {
            Submitted::Done(Ok(())) => self.next += 1,
            Submitted::Done(Err(error)) => {
                self.next += 1;
                if self.status.is_success() {
                    self.status = io_status(error);
                }
            }
            Submitted::Pending => {
                self.next += 1;
                self.pending += 1;
            }
            Submitted::Full => self.full = true,
        }
    }
}

/// The tag of a command's operation number `index`, 0 to 255, in one backend: bits 39:32 of the command's tag are clear
/// and hold it.
pub fn operation_tag(tag: u64, index: u32) -> u64 {
    tag | u64::from(index) << 32
}

/// A command to be issued.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What it asks for.
    pub command: &'a IoCommand,
    /// Its entry, for the data pointer.
    pub sqe: &'a Sqe,
    /// Its tag, which becomes its operations'; see [`operation_tag`].
    pub tag: u64,
    /// Operations that an earlier attempt issued ([`Issued::next`]), which are left out.
    pub skip: u32,
}

/// Issues a command on `queue`, a queue of `namespace`.
pub fn issue(
    request: Request<'_>,
    namespace: &Namespace,
    queue: &mut dyn IoQueue,
    context: &mut Context<'_>,
) -> Issued {
    try_issue(request, namespace, queue, context).unwrap_or_else(Issued::done)
}

fn try_issue(
    request: Request<'_>,
    namespace: &Namespace,
    queue: &mut dyn IoQueue,
    context: &mut Context<'_>,
) -> Result<Issued, Status> {
    let Request { command, sqe, tag, skip } = request;
    let mut issued = Issued { pending: 0, status: Status::SUCCESS, next: skip, full: false };
    let shift = namespace.block_shift();
    match *command {
        IoCommand::Flush => {
            if namespace.features().volatile_write_cache {
                issued.submit(queue, tag, Op::Flush);
            }
        }
        IoCommand::Read(blocks) => {
            let (offset, len) = data_range(blocks, namespace, context)?;
            let data = map_data(sqe, context, len, DmaDirection::ToGuest)?;
            issued.submit(queue, tag, Op::Read { offset, data });
        }
        IoCommand::Write(blocks, fua) => {
            check_writable(namespace)?;
            let (offset, len) = data_range(blocks, namespace, context)?;
            let data = map_data(sqe, context, len, DmaDirection::FromGuest)?;
            issued.submit(queue, tag, Op::Write { offset, data, fua });
        }
        IoCommand::Compare(blocks) => {
            let (offset, len) = data_range(blocks, namespace, context)?;
            let data = map_data(sqe, context, len, DmaDirection::FromGuest)?;
            issued.submit(queue, tag, Op::Compare { offset, data });
        }
        IoCommand::WriteZeroes { blocks, deallocate, fua } => {
            check_writable(namespace)?;
            check_range(blocks, namespace)?;
            let (offset, len) = (blocks.slba << shift, blocks.nlb << shift);
            issued.submit(queue, tag, Op::WriteZeroes { offset, len, deallocate, fua });
        }
        IoCommand::DatasetManagement { ranges, deallocate } => {
            if !deallocate {
                // The other attributes are hints (NVM Command Set 1.1, 3.2.3.1).
                return Ok(issued);
            }
            check_writable(namespace)?;
            let mut list = [(); 256].map(|()| DsmRange::new_zeroed());
            let list = list.get_mut(..ranges as usize).ok_or(Status::INTERNAL_ERROR)?;
            read_data(sqe, context, list.as_mut_bytes())?;
            // Every range is checked before the first one is acted on.
            for range in list.iter() {
                let blocks = Blocks { slba: range.slba, nlb: u64::from(range.nlb) };
                if !blocks.fits(namespace.blocks()) {
                    return Err(Status::LBA_OUT_OF_RANGE.with_dnr());
                }
            }
            let ranges = (0..).zip(list.iter().filter(|range| range.nlb != 0));
            for (index, range) in ranges.skip(skip as usize) {
                let (offset, len) = (range.slba << shift, u64::from(range.nlb) << shift);
                issued.submit(queue, operation_tag(tag, index), Op::Deallocate { offset, len });
                if issued.full {
                    break;
                }
            }
        }
        // Not the backend's: workers pass them on.
        IoCommand::Reservation(_) => return Err(Status::INVALID_OPCODE.with_dnr()),
    }
    Ok(issued)
}

/// Bytes that a command moves between host and medium, for the counters: read, written.
pub fn transferred(command: &IoCommand, block_shift: u32) -> (u64, u64) {
    match *command {
        IoCommand::Read(blocks) | IoCommand::Compare(blocks) => (blocks.nlb << block_shift, 0),
        IoCommand::Write(blocks, _) => (0, blocks.nlb << block_shift),
        IoCommand::Flush
        | IoCommand::WriteZeroes { .. }
        | IoCommand::DatasetManagement { .. }
        | IoCommand::Reservation(_) => (0, 0),
    }
}

fn check_writable(namespace: &Namespace) -> Result<(), Status> {
    if namespace.read_only() { Err(Status::NAMESPACE_WRITE_PROTECTED.with_dnr()) } else { Ok(()) }
}

fn check_range(blocks: Blocks, namespace: &Namespace) -> Result<(), Status> {
    if blocks.fits(namespace.blocks()) { Ok(()) } else { Err(Status::LBA_OUT_OF_RANGE.with_dnr()) }
}

/// Byte offset and length of a transfer, within MDTS and the namespace.
fn data_range(blocks: Blocks, namespace: &Namespace, context: &Context<'_>) -> Result<(u64, u64), Status> {
    let len = blocks.nlb << namespace.block_shift();
    if len > context.max_transfer {
        return Err(Status::INVALID_FIELD.with_dnr());
    }
    check_range(blocks, namespace)?;
    Ok((blocks.slba << namespace.block_shift(), len))
}

/// The segments of the command's data pointer, for `len` bytes.
pub fn map_data<'b>(
    sqe: &Sqe,
    context: &'b mut Context<'_>,
    len: u64,
    direction: DmaDirection,
) -> Result<nvmet_dma::Segments<'b>, Status> {
    let mut builder = context.segments.begin(context.snapshot, direction);
    match sqe.psdt() {
        Psdt::Prp => {
            prp::map(context.snapshot, &mut builder, context.page_size, sqe.prp1, sqe.prp2, len)?;
        }
        _ => {
            let to_host = direction == DmaDirection::ToGuest;
            sgl::map(context.snapshot, &mut builder, &sqe.sgl1(), len, to_host)?;
        }
    }
    Ok(builder.finish())
}

/// Copies the command's data, `into.len()` bytes, from guest memory, once.
pub fn read_data(sqe: &Sqe, context: &mut Context<'_>, into: &mut [u8]) -> Result<(), Status> {
    let data = map_data(sqe, context, into.len() as u64, DmaDirection::FromGuest)?;
    data.read_to(0, into).map_err(|e| dma_status(&e))
}

#[cfg(test)]
mod tests;
