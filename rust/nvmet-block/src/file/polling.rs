//! Whether a device can be asked for results instead of waiting for its interrupts.
//!
//! May know: the ring, words for people. Must not know: queues of ours.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nvmet_dma::AlignedBuf;
use nvmet_dma::ring::{Ring, RingOp};
use rustix::io::Errno;

use super::limits::Limits;

/// What to do where it cannot.
const REMEDY: &str = "the device has no poll queues (queue/io_poll in sysfs is 0): load its driver with some \
                      (nvme.poll_queues=N), or leave --iopoll out";

/// Why not, after what is known of the file and a read of one block.
///
/// # Errors
/// One line for people.
pub(super) fn check(fd: &Arc<OwnedFd>, limits: &Limits) -> Result<(), String> {
    if !limits.block_device {
        return Err("--iopoll is for a block device, and this is a file: leave it out".to_owned());
    }
    let Some(direct) = limits.direct else {
        return Err("--iopoll takes direct I/O, which this device does not do at this block size".to_owned());
    };
    if !limits.poll_queues {
        return Err(REMEDY.to_owned());
    }
    try_it(fd, direct.offset.max(limits.logical_block) as usize)
}

/// Reads the first `len` bytes by polling.
///
/// # Errors
/// One line for people.
pub(super) fn try_it(fd: &Arc<OwnedFd>, len: usize) -> Result<(), String> {
    let mut ring = Ring::polled(Arc::clone(fd), 1).map_err(|error| error.to_string())?;
    let buf = AlignedBuf::new(len).map_err(|error| error.to_string())?;
    ring.push(RingOp::ReadBuf { offset: 0, buf, len }, 0).map_err(|error| error.to_string())?;
    let mut result = 0;
    while ring.in_flight() > 0 {
        ring.submit();
        ring.reap(|_, moved, _| result = moved);
    }
    match Errno::from_raw_os_error(result.saturating_neg().max(0)) {
        Errno::OPNOTSUPP | Errno::INVAL => Err(REMEDY.to_owned()),
        errno if result < 0 => Err(format!("cannot be polled: {errno}")),
        _ => Ok(()),
    }
}
