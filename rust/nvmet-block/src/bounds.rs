//! The checks that every queue makes before an operation touches anything.
//!
//! May know: geometry. Must not know: how an operation is carried out.

use crate::backend::Geometry;
use crate::error::IoError;
use crate::queue::Op;

/// What an operation must respect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    size: u64,
    block_mask: u64,
    read_only: bool,
}

impl Bounds {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        Self {
            size: geometry.size,
            block_mask: u64::from(geometry.min_block).wrapping_sub(1),
            read_only: geometry.read_only,
        }
    }

    /// Checks an operation's range, and that it may change what it wants to change.
    #[inline]
    pub(crate) fn check(&self, op: &Op<'_>) -> Result<(), IoError> {
        let (offset, len) = match *op {
            Op::Read { offset, ref data } | Op::Compare { offset, ref data } => (offset, data.len() as u64),
            Op::Write { offset, ref data, .. } => {
                self.check_writable()?;
                (offset, data.len() as u64)
            }
            Op::WriteZeroes { offset, len, .. } | Op::Deallocate { offset, len } => {
                self.check_writable()?;
                (offset, len)
            }
            Op::Flush => return Ok(()),
        };
        match offset.checked_add(len) {
            Some(end) if end <= self.size => {}
            _ => return Err(IoError::OutOfRange),
        }
        if (offset | len) & self.block_mask == 0 { Ok(()) } else { Err(IoError::Invalid) }
    }

    #[inline]
    fn check_writable(&self) -> Result<(), IoError> {
        if self.read_only { Err(IoError::ReadOnly) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(size: u64, read_only: bool) -> Bounds {
        Bounds::new(&Geometry {
            size,
            min_block: 512,
            preferred_block: 512,
            physical_block: 512,
            optimal_io: 0,
            read_only,
        })
    }

    proptest::proptest! {
        #[test]
        fn a_range_passes_only_if_it_lies_within(offset: u64, len: u64, size: u64) {
            let (offset, len, size) = (offset & !511, len & !511, size & !511);
            let inside = u128::from(offset) + u128::from(len) <= u128::from(size);
            let answer = bounds(size, false).check(&Op::Deallocate { offset, len });
            proptest::prop_assert_eq!(answer, if inside { Ok(()) } else { Err(IoError::OutOfRange) });
        }
    }

    #[test]
    fn parts_of_blocks_and_writes_to_a_read_only_backend_are_refused() {
        assert_eq!(bounds(4096, false).check(&Op::Deallocate { offset: 1, len: 512 }), Err(IoError::Invalid));
        assert_eq!(bounds(4096, false).check(&Op::Deallocate { offset: 512, len: 1 }), Err(IoError::Invalid));
        assert_eq!(bounds(4096, true).check(&Op::Deallocate { offset: 0, len: 512 }), Err(IoError::ReadOnly));
        assert_eq!(bounds(4096, true).check(&Op::Flush), Ok(()));
    }
}
