//! NVMe and PCI wire types: registers, commands, status, identify, features, log pages.
//!
//! This crate knows how things are laid out in memory and in registers, and nothing else: it encodes and decodes.
//! It performs no I/O, keeps no state, and takes no decision about what a controller supports.
//!
//! # Section numbers
//! * **Base**: NVM Express Base Specification, Revision 2.0 (fields that came with 2.1 say so);
//! * **NVM**: NVM Command Set Specification, Revision 1.0;
//! * **PCIe**: NVMe over PCIe Transport Specification, Revision 1.0;
//! * **PCIe Base**: PCI Express Base Specification, Revision 5.0.
//!
//! # Conventions
//! A field that the specification calls "0's based" ends in `_z`; where the plain number is useful an accessor
//! without the suffix returns it, 1-based. Reserved bits are kept as read: a decoded value encodes to the same bytes.
//! Structures hold little-endian data as plain integers, hence the crate builds for little-endian hosts only.

#![forbid(unsafe_code)]

#[cfg(not(target_endian = "little"))]
compile_error!("nvmet-spec maps little-endian wire data on plain integers: a little-endian host is required");

pub mod aer;
pub mod command;
pub mod feature;
pub mod identify;
pub mod log;
pub mod pci;
pub mod registers;
pub mod reservation;
pub mod sgl;
pub mod status;
