//! The io_uring ring of a worker: fixed files, fixed buffers, one `io_uring_enter` a batch.
