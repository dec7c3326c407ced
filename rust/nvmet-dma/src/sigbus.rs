//! The guard against memory that vanishes: a client may truncate its file under our mapping, and the next access is a
//! SIGBUS that would kill every controller of the process.
//!
//! The handler looks the address up in a lock-free list of the mappings that are watched, sets the mapping's poison
//! flag, and puts an anonymous zero page there; the access then goes on. Any other address goes to the handler that was
//! there before. What it may know: address ranges and flags; it only does what a signal handler may do.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

#[cfg(test)]
mod tests;

/// Entries in one link of the list.
const CHUNK: usize = 64;
/// Pages that are replaced one by one; then the rest of the mapping goes at once, so that a client cannot use up the
/// process's mappings (`vm.max_map_count`) page by page.
const MAX_SINGLE_PAGES: u32 = 64;

/// A watched mapping. `version` is odd while the entry changes; an entry with `start` zero is free.
struct Slot {
    version: AtomicU32,
    start: AtomicUsize,
    len: AtomicUsize,
    page_size: AtomicUsize,
    faults: AtomicU32,
    flag: AtomicPtr<AtomicBool>,
}

impl Slot {
    const fn new() -> Self {
        Self {
            version: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            page_size: AtomicUsize::new(0),
            faults: AtomicU32::new(0),
            flag: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Changes the entry. Callers hold `CHANGES`.
    fn set(&self, start: usize, len: usize, page_size: usize, flag: *mut AtomicBool) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.page_size.store(page_size, Ordering::Relaxed);
        self.faults.store(0, Ordering::Relaxed);
        self.flag.store(flag, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Start, length, page size and flag, if the address is inside and the entry did not change meanwhile. (It cannot
    /// change while a thread accesses the mapping, so a change means that it is not the one that faulted.)
    fn covering(&self, address: usize) -> Option<(usize, usize, usize, *mut AtomicBool)> {
        let before = self.version.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        let page_size = self.page_size.load(Ordering::Relaxed);
        let flag = self.flag.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let after = self.version.load(Ordering::Relaxed);
        let stable = before == after && before.is_multiple_of(2);
        (stable && start != 0 && address.wrapping_sub(start) < len).then_some((start, len, page_size, flag))
    }
}

/// A link of the list. Links are never freed, so the handler can walk them at any time.
struct Chunk {
    slots: [Slot; CHUNK],
    next: OnceLock<Box<Chunk>>,
}

impl Chunk {
    const fn new() -> Self {
        Self { slots: [const { Slot::new() }; CHUNK], next: OnceLock::new() }
    }
}

static WATCHED: Chunk = Chunk::new();
/// Held while an entry is taken or given back; the handler never takes it.
static CHANGES: Mutex<()> = Mutex::new(());
/// What was there before us.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapping that is watched until this is dropped.
#[derive(Debug)]
pub(crate) struct Registration(&'static Slot);

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("start", &self.start).field("len", &self.len).finish_non_exhaustive()
    }
}

impl Registration {
    /// Watches the mapping of `len` bytes at `start`, made of pages of `page_size` bytes.
    ///
    /// # Safety
    ///
    /// As long as the registration lives, the range is one mapping that the caller owns, whose pages may be replaced
    /// by anonymous ones, and `flag` is kept alive.
    pub(crate) unsafe fn new(start: usize, len: usize, page_size: usize, flag: &Arc<AtomicBool>) -> Self {
        let _changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = &WATCHED;
        let slot = loop {
            if let Some(free) = chunk.slots.iter().find(|slot| slot.start.load(Ordering::Relaxed) == 0) {
                break free;
            }
            chunk = chunk.next.get_or_init(|| Box::new(Chunk::new()));
        };
        slot.set(start, len, page_size, Arc::as_ptr(flag).cast_mut());
        Self(slot)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _changes = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.set(0, 0, 0, ptr::null_mut());
    }
}

/// Installs the guard, once for the process. Whoever makes a [`crate::DmaSpace`] gets it by itself; a program that
/// installs a SIGBUS handler of its own does so before, and keeps it for every address that is not guest memory.
///
/// A thread that touches guest memory must not block SIGBUS: the kernel kills a process that faults with it blocked.
pub fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: only asks for the present action, which it writes into `previous`, a valid place.
        let asked = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) };
        if asked != 0 {
            return;
        }
        // SAFETY: all-zero bytes are a valid `sigaction`, and the call has filled it.
        let previous = unsafe { previous.assume_init() };
        if PREVIOUS.set(previous).is_err() {
            return;
        }
        // SAFETY: all-zero bytes are a valid `sigaction`: no flags, an empty mask.
        let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler has the signature of SA_SIGINFO and does only what is allowed in a handler.
        unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) };
    });
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a valid `siginfo_t` to a SA_SIGINFO handler; the address field is that of the union's
    // member for SIGBUS, and only used if the kernel sent the signal for a fault (a positive code).
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    if code > 0 && replace_page(address) {
        return;
    }
    chain(signal, info, context, code > 0);
}

/// Puts zero memory at an address if it is in a watched mapping.
fn replace_page(address: usize) -> bool {
    let mut next = Some(&WATCHED);
    while let Some(chunk) = next {
        for slot in &chunk.slots {
            if let Some((start, len, page_size, flag)) = slot.covering(address) {
                let single = slot.faults.fetch_add(1, Ordering::Relaxed) < MAX_SINGLE_PAGES;
                let inside = (address - start) / page_size * page_size;
                let (at, len) = if single { (start + inside, page_size) } else { (start, len) };
                return replace(at, len, flag);
            }
        }
        next = chunk.next.get().map(|chunk| &**chunk);
    }
    false
}

fn replace(at: usize, len: usize, flag: *mut AtomicBool) -> bool {
    // SAFETY: `errno` is a thread-local of libc that is always valid; it is put back below, since the interrupted code
    // may be about to look at it.
    let errno = unsafe { *libc::__errno_location() };
    // Before the page can be seen: who finds zeroes there, on whatever thread, finds the flag too.
    // SAFETY: the registration keeps the flag alive, and the mapping that faulted is registered.
    unsafe { (*flag).store(true, Ordering::SeqCst) };
    // SAFETY: the thread that faulted is accessing the watched mapping, so it is alive, registered, and by the contract
    // of `Registration::new` ours to replace in part; its accesses are raw copies that take any bytes.
    let mapped = unsafe {
        libc::mmap(
            ptr::without_provenance_mut(at),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    mapped != libc::MAP_FAILED
}

/// Does what would have been done without us.
fn chain(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, fault: bool) {
    let previous = PREVIOUS.get();
    let action = previous.map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    let with_info = previous.is_some_and(|previous| previous.sa_flags & libc::SA_SIGINFO != 0);
    match action {
        libc::SIG_IGN if !fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: all-zero bytes are a valid `sigaction`, and SIG_DFL is zero; both calls are allowed in a handler.
            // The signal is blocked until we return, then it kills: by itself or, for a fault, by happening again.
            unsafe {
                let default = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                libc::sigaction(signal, &default, ptr::null_mut());
                libc::raise(signal);
            }
        }
        handler if with_info => {
            // SAFETY: it was installed with SA_SIGINFO, so it is a function of this type.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(ptr::with_exposed_provenance::<()>(handler)) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: it was installed without SA_SIGINFO, so it is a function of this type.
            let handler: extern "C" fn(c_int) =
                unsafe { std::mem::transmute(ptr::with_exposed_provenance::<()>(handler)) };
            handler(signal);
        }
    }
}
