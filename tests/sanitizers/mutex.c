/* What ThreadSanitizer cannot see of std's Mutex, shown to it.
 *
 * The std that comes with a stable compiler is not instrumented. Unlocking, and locking without contention, is inlined
 * into our own crates and so is seen; waiting for the lock happens inside std, and what the lock protects looks like a
 * race afterwards. `make sanitize` links this file in front of that one function (ld --wrap) and gives its name. */

extern void __tsan_acquire(void *address);
extern void lock_contended(void *mutex) __asm__("__real_" LOCK_CONTENDED);
void lock_contended_seen(void *mutex) __asm__("__wrap_" LOCK_CONTENDED);

void lock_contended_seen(void *mutex) {
  lock_contended(mutex);
  __tsan_acquire(mutex);
}
