//! Guest memory that the kernel keeps at hand for a ring: registered ("fixed") buffers.
//!
//! For every transfer past the page cache the kernel looks the guest's pages up and pins them, and lets them go again.
//! For a registered buffer it did so once. So memory that is used again and again is registered: by chunks, the
//! [`HOT`]th time that a chunk is used, at most one chunk for a batch. Where that is refused (`RLIMIT_MEMLOCK`),
//! everything goes on unregistered.
//!
//! A registration is of a chunk of addresses in *one region* that a client mapped: once the region is unmapped nothing
//! matches it any more, whatever is at these addresses then, since no two regions have the same number. The pages stay
//! pinned until the registration goes, also when the region has gone; so whoever unmaps has [`Fixed::forget`] called.
//! A registration in use goes with its last operation.
//!
//! May know: chunks, regions, the ring's table of buffers. Must not know: files, offsets, tags.

use std::ptr::NonNull;
use std::sync::Arc;

use io_uring::Submitter;

use crate::memory::{Life, Segments, Snapshot};

/// Bytes of a chunk, as a power of two: those of a huge page, which is one entry in the kernel's table.
const CHUNK_SHIFT: u32 = 21;
/// Most chunks of a ring: 1 GiB.
const MAX_CHUNKS: u16 = 512;
/// Uses after which a chunk is registered. It costs as much as some hundred transfers gain.
const HOT: u32 = 64;
/// Places where uses are counted; chunks that share one take turns. A power of two.
const PLACES: usize = 2048;
/// No chunk.
const NONE: u16 = u16::MAX;

/// What is known of a chunk.
#[derive(Debug, Clone, Copy)]
struct Place {
    region: u64,
    chunk: usize,
    uses: u32,
    /// Its number in the ring's table, or [`NONE`].
    index: u16,
}

const VACANT: Place = Place { region: 0, chunk: 0, uses: 0, index: NONE };

/// A registered chunk.
#[derive(Debug)]
struct Chunk {
    /// Of its region. The mapping is not kept: the kernel pins pages, not addresses.
    life: Arc<Life>,
    place: usize,
    in_flight: u32,
    /// Used since the hand passed.
    used: bool,
    /// It goes with its last operation.
    doomed: bool,
}

/// A chunk that is to be registered.
#[derive(Debug)]
struct Wanted {
    place: usize,
    life: Arc<Life>,
    /// What of the chunk is in the region.
    range: libc::iovec,
    /// Keeps the range mapped.
    _pin: Snapshot,
}

/// The registered chunks of a ring.
#[derive(Debug)]
pub(super) struct Fixed {
    /// Empty until the first transfer.
    places: Vec<Place>,
    chunks: Vec<Option<Chunk>>,
    /// To be registered with the next batch.
    wanted: Option<Wanted>,
    /// Where the search for a chunk to give up goes on.
    hand: usize,
    /// The kernel takes no more.
    refused: bool,
    /// Most chunks.
    limit: u16,
}

impl Fixed {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            chunks: Vec::new(),
            wanted: None,
            hand: 0,
            refused: false,
            limit: MAX_CHUNKS,
        }
    }

    /// The number of the registered buffer that `data` lies in; it is in use until [`Fixed::release`].
    #[inline]
    pub(super) fn find(&mut self, data: &Segments<'_>) -> Option<u16> {
        let start = data.only_range()?;
        let chunk = start >> CHUNK_SHIFT;
        if (start + data.len() - 1) >> CHUNK_SHIFT != chunk {
            return None;
        }
        let (life, base, size) = data.snapshot().region_at(start, data.len())?;
        let at = (chunk ^ (life.id() as usize).wrapping_mul(0x9e37)) & (PLACES - 1);
        match self.places.get_mut(at) {
            Some(place) if place.region == life.id() && place.chunk == chunk => {
                if let Some(Some(found)) = self.chunks.get_mut(usize::from(place.index)) {
                    if found.doomed {
                        return None;
                    }
                    found.used = true;
                    found.in_flight += 1;
                    return Some(place.index);
                }
                place.uses += 1;
                if place.uses >= HOT {
                    place.uses = 0;
                    self.want(at, chunk, data.snapshot(), (life, base, size));
                }
            }
            _ => self.begin(at, Place { region: life.id(), chunk, uses: 1, index: NONE }),
        }
        None
    }

    #[cold]
    fn begin(&mut self, at: usize, new: Place) {
        self.places.resize(PLACES, VACANT);
        if let Some(place) = self.places.get_mut(at).filter(|place| place.index == NONE) {
            *place = new;
        }
    }

    #[cold]
    fn want(
        &mut self,
        place: usize,
        chunk: usize,
        snapshot: &Snapshot,
        (life, base, size): (&Arc<Life>, NonNull<u8>, usize),
    ) {
        if self.refused || self.wanted.is_some() {
            return;
        }
        let first = base.as_ptr().addr();
        let start = (chunk << CHUNK_SHIFT).max(first);
        let end = ((chunk + 1) << CHUNK_SHIFT).min(first + size);
        let range = libc::iovec {
            iov_base: base.as_ptr().with_addr(start).cast(),
            iov_len: end.saturating_sub(start),
        };
        self.wanted = Some(Wanted { place, life: Arc::clone(life), range, _pin: snapshot.clone() });
    }

    /// An operation on a registered buffer is over. Before its memory is let go of.
    #[inline]
    pub(super) fn release(&mut self, submitter: &Submitter<'_>, index: u16) {
        let Some(Some(chunk)) = self.chunks.get_mut(usize::from(index)) else { return };
        chunk.in_flight -= 1;
        if chunk.doomed && chunk.in_flight == 0 {
            self.give_up(submitter, index);
        }
    }

    /// Registers the chunk that was found to be worth it, if any.
    #[inline]
    pub(super) fn register_wanted(&mut self, submitter: &Submitter<'_>) {
        if let Some(wanted) = self.wanted.take() {
            self.register(submitter, wanted);
        }
    }

    #[cold]
    fn register(&mut self, submitter: &Submitter<'_>, wanted: Wanted) {
        let Wanted { place: at, life, range, _pin } = wanted;
        // Its place may be another's by now.
        let Some(place) = self.places.get(at) else { return };
        let chunk = range.iov_base.addr() >> CHUNK_SHIFT;
        if place.region != life.id() || place.chunk != chunk || place.index != NONE || life.is_over() {
            return;
        }
        if self.chunks.is_empty() {
            if let Err(error) = submitter.register_buffers_sparse(self.limit.into()) {
                return self.refuse(&error);
            }
            self.chunks.resize_with(self.limit.into(), || None);
        }
        let Some(index) = self.room() else { return };
        // SAFETY: the range is a part of a region of the pinned snapshot, so it is mapped during the call. Afterwards the
        // kernel holds the pages, which are the client's whatever becomes of the addresses. It reads and writes them for
        // operations only, each of which is within segments of the same region.
        let registered = unsafe { submitter.register_buffers_update(index.into(), &[range], None) };
        match registered {
            Ok(()) => {
                self.vacate(index);
                let new = Chunk { life, place: at, in_flight: 0, used: true, doomed: false };
                if let (Some(chunk), Some(place)) =
                    (self.chunks.get_mut(usize::from(index)), self.places.get_mut(at))
                {
                    *chunk = Some(new);
                    place.index = index;
                }
            }
            // What had the number has it still.
            Err(error) => self.refuse(&error),
        }
    }

    /// A number for a new chunk: a free one, or that of a chunk that nobody used for a whole round of the hand. The hand
    /// moves one step at a time, so chunks in use are not exchanged for others in use.
    fn room(&mut self) -> Option<u16> {
        let free = self.chunks.iter().position(Option::is_none);
        if let Some(free) = free {
            return u16::try_from(free).ok();
        }
        self.hand = (self.hand + 1) % self.chunks.len();
        let chunk = self.chunks.get_mut(self.hand)?.as_mut()?;
        let idle = !std::mem::take(&mut chunk.used) && chunk.in_flight == 0;
        if idle { u16::try_from(self.hand).ok() } else { None }
    }

    /// Takes the kernel's refusal in.
    #[cold]
    pub(super) fn refuse(&mut self, error: &std::io::Error) {
        // Memory that cannot be registered at all (read-only, of a file system that does not allow it) says EFAULT or
        // EOPNOTSUPP; other memory may still do.
        if !matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EOPNOTSUPP)) {
            self.refused = true;
            tracing::info!(
                %error,
                "no more guest memory is registered with io_uring: transfers cost some more CPU time (RLIMIT_MEMLOCK)"
            );
        }
    }

    /// Lets go of what was unmapped, or of everything.
    pub(super) fn forget(&mut self, submitter: &Submitter<'_>, all: bool) {
        if self.wanted.as_ref().is_some_and(|wanted| all || wanted.life.is_over()) {
            self.wanted = None;
        }
        for index in 0..self.chunks.len() {
            let Some(Some(chunk)) = self.chunks.get_mut(index) else { continue };
            if all || chunk.life.is_over() {
                chunk.doomed = true;
                if chunk.in_flight == 0 {
                    self.give_up(submitter, index as u16);
                }
            }
        }
    }

    /// Takes a chunk out of the ring's table. No operation uses it.
    #[cold]
    fn give_up(&mut self, submitter: &Submitter<'_>, index: u16) {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: no memory at all.
        if let Err(error) = unsafe { submitter.register_buffers_update(index.into(), &[none], None) } {
            tracing::warn!(%error, "guest memory stays registered until the queue is closed");
        }
        self.vacate(index);
        self.refused = false;
    }

    fn vacate(&mut self, index: u16) {
        if let Some(chunk) = self.chunks.get_mut(usize::from(index)).and_then(Option::take)
            && let Some(place) = self.places.get_mut(chunk.place)
        {
            *place = VACANT;
        }
    }

    /// With another limit.
    #[cfg(test)]
    pub(super) fn set_limit(&mut self, limit: u16) {
        self.limit = limit;
    }

    /// Registered chunks.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.chunks.iter().flatten().count()
    }
}
