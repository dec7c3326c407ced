//! Guest memory, the shared doorbell page and the io_uring ring: all unsafe code of nvmet-vdev.
