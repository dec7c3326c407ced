//! One thread that serves many devices.
//!
//! The device-facing half: handles that other threads hold.
