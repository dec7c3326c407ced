//! Copies and atomic accesses to memory that other parties may change at any moment.
//!
//! The only place that touches shared bytes. What it may know: pointers and lengths that the caller vouches for.
//! SAFETY.md, "Copies", says why these are sound although others write at the same time.

use std::arch::asm;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Makes the bytes behind `ptr` opaque to the compiler: what was copied there is from now on an unknown but fixed
/// value, so no later read may be served from the shared source again.
#[inline(always)]
fn settle(ptr: *const u8) {
    // SAFETY: the block has no instruction. Without `nomem` the compiler must assume that it reads and writes any
    // memory reachable through `ptr`, which is the whole purpose.
    unsafe { asm!("/* {0} */", in(reg) ptr, options(nostack, preserves_flags)) }
}

/// Copies shared memory into `dst`, once.
///
/// # Safety
///
/// `src` is valid for reads of `dst.len()` bytes during the call and does not overlap `dst`.
#[inline]
pub(crate) unsafe fn copy_out(src: *const u8, dst: &mut [u8]) {
    settle(src);
    // SAFETY: the caller vouches for `src`; `dst` is a live exclusive slice.
    unsafe { ptr::copy_nonoverlapping(src, dst.as_mut_ptr(), dst.len()) };
    settle(dst.as_ptr());
}

/// Copies `src` into shared memory.
///
/// # Safety
///
/// `dst` is valid for writes of `src.len()` bytes during the call and does not overlap `src`.
#[inline]
pub(crate) unsafe fn copy_in(dst: *mut u8, src: &[u8]) {
    // SAFETY: the caller vouches for `dst`; `src` is a live slice.
    unsafe { ptr::copy_nonoverlapping(src.as_ptr(), dst, src.len()) };
    settle(dst);
}

/// Copies from one piece of shared memory to another.
///
/// # Safety
///
/// `src` is valid for reads and `dst` for writes of `len` bytes during the call, and they do not overlap.
#[inline]
pub(crate) unsafe fn copy_across(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    if len >= LONG_COPY && moves_strings(src, dst) {
        // SAFETY: the caller vouches for both ranges; the direction flag is clear, as everywhere. Without `nomem` the
        // block is to the compiler what `settle` is.
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") len => _,
                inout("rsi") src => _,
                inout("rdi") dst => _,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    settle(src);
    // SAFETY: the caller vouches for both.
    unsafe { ptr::copy_nonoverlapping(src, dst, len) };
    settle(dst);
}

/// Bytes from which on the processor's own string copy beats the loops of a C library.
#[cfg(target_arch = "x86_64")]
const LONG_COPY: usize = 16 * 1024;

/// Whether `rep movsb` is the fast way: the processor says so, and both addresses have the same place in their cache
/// line (it is slow for some pairs that have not).
#[cfg(target_arch = "x86_64")]
#[inline]
fn moves_strings(src: *const u8, dst: *const u8) -> bool {
    (src.addr() ^ dst.addr()) & 63 == 0 && std::is_x86_feature_detected!("ermsb")
}

/// Reads one byte of shared memory, whatever it is.
///
/// # Safety
///
/// `src` is valid for reads of a byte during the call.
#[inline]
pub(crate) unsafe fn touch(src: *const u8) {
    // SAFETY: the caller vouches for `src`; a volatile read is not left out.
    let _ = unsafe { ptr::read_volatile(src) };
}

/// Fills shared memory with one byte value.
///
/// # Safety
///
/// `dst` is valid for writes of `len` bytes during the call.
#[inline]
pub(crate) unsafe fn fill(dst: *mut u8, byte: u8, len: usize) {
    // SAFETY: the caller vouches for `dst`.
    unsafe { ptr::write_bytes(dst, byte, len) };
    settle(dst);
}

/// Loads a little-endian dword of shared memory (acquire).
///
/// A relaxed load and a fence: only relaxed loads are promised to work on memory that is mapped read-only.
///
/// # Safety
///
/// `src` is valid for reads of 4 bytes during the call and 4-byte aligned.
#[inline]
pub(crate) unsafe fn load_u32(src: *mut u8) -> u32 {
    // SAFETY: the caller vouches for validity and alignment; the reference to the atomic ends with this call.
    let value = unsafe { AtomicU32::from_ptr(src.cast()) }.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    u32::from_le(value)
}

/// Stores a dword of shared memory, little-endian.
///
/// # Safety
///
/// `dst` is valid for reads and writes of 4 bytes during the call and 4-byte aligned.
#[inline]
pub(crate) unsafe fn store_u32(dst: *mut u8, value: u32, ordering: Ordering) {
    // SAFETY: the caller vouches for validity and alignment; the reference to the atomic ends with this call.
    unsafe { AtomicU32::from_ptr(dst.cast()) }.store(value.to_le(), ordering);
}

/// Stores a qword of shared memory, little-endian.
///
/// # Safety
///
/// `dst` is valid for reads and writes of 8 bytes during the call and 8-byte aligned.
#[inline]
pub(crate) unsafe fn store_u64(dst: *mut u8, value: u64, ordering: Ordering) {
    // SAFETY: the caller vouches for validity and alignment; the reference to the atomic ends with this call.
    unsafe { AtomicU64::from_ptr(dst.cast()) }.store(value.to_le(), ordering);
}

/// Asks for the cache line at `at`; only a hint, `at` need not be valid.
#[inline]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, whatever the address is.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
