//! An NVMe host (driver) over vfio-user, for tests, benchmarks and the command line.
