//! Identify data structures (Base §5.17.2, NVM §4.1.5), their capability fields, and their text fields.
//!
//! Knows layouts. What a controller or namespace reports in them is decided where it is modelled.

mod bits;
mod command_set;
mod controller;
mod descriptor;
mod namespace;
mod namespace_bits;
mod text;

pub use self::bits::*;
pub use self::command_set::*;
pub use self::controller::*;
pub use self::descriptor::*;
pub use self::namespace::*;
pub use self::namespace_bits::*;
pub use self::text::*;

/// Bytes of every Identify data structure (Base §5.17).
pub const IDENTIFY_SIZE: usize = 4096;

/// NSIDs in a namespace list (Base §4.4.2).
pub const NAMESPACE_LIST_ENTRIES: usize = 1024;

/// CNS values: which structure Identify returns (Base §5.17.2).
pub mod cns {
    /// Identify Namespace data structure of the NVM Command Set (NVM §4.1.5.1).
    pub const NAMESPACE: u8 = 0x00;
    /// Identify Controller data structure (Base §5.17.2.1).
    pub const CONTROLLER: u8 = 0x01;
    /// Active Namespace ID list (Base §5.17.2.2).
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// Namespace Identification Descriptor list (Base §5.17.2.3).
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
    /// NVM Set List (Base §5.17.2.4).
    pub const NVM_SET_LIST: u8 = 0x04;
    /// I/O Command Set specific Identify Namespace data structure (Base §5.17.2.5).
    pub const CSI_NAMESPACE: u8 = 0x05;
    /// I/O Command Set specific Identify Controller data structure (Base §5.17.2.6).
    pub const CSI_CONTROLLER: u8 = 0x06;
    /// I/O Command Set specific Active Namespace ID list (Base §5.17.2.7).
    pub const CSI_ACTIVE_NAMESPACES: u8 = 0x07;
    /// I/O Command Set Independent Identify Namespace data structure (Base §5.17.2.8).
    pub const INDEPENDENT_NAMESPACE: u8 = 0x08;
    /// Allocated Namespace ID list (Base §5.17.2.9).
    pub const ALLOCATED_NAMESPACES: u8 = 0x10;
    /// Identify Namespace data structure of an allocated namespace (Base §5.17.2.10).
    pub const ALLOCATED_NAMESPACE: u8 = 0x11;
    /// Controller list of the controllers attached to a namespace (Base §5.17.2.11).
    pub const NAMESPACE_CONTROLLERS: u8 = 0x12;
    /// Controller list of the NVM subsystem (Base §5.17.2.12).
    pub const CONTROLLERS: u8 = 0x13;
    /// Primary Controller Capabilities data structure (Base §5.17.2.13).
    pub const PRIMARY_CONTROLLER: u8 = 0x14;
    /// Secondary Controller list (Base §5.17.2.14).
    pub const SECONDARY_CONTROLLERS: u8 = 0x15;
    /// UUID List (Base §5.17.2.16).
    pub const UUID_LIST: u8 = 0x17;
    /// Identify I/O Command Set data structure (Base §5.17.2.21).
    pub const IO_COMMAND_SETS: u8 = 0x1c;
}

/// Command Set Identifiers (Base §5.17, Figure "Command Set Identifiers").
pub mod csi {
    /// NVM Command Set.
    pub const NVM: u8 = 0x00;
    /// Key Value Command Set.
    pub const KEY_VALUE: u8 = 0x01;
    /// Zoned Namespace Command Set.
    pub const ZONED: u8 = 0x02;
}

/// Implements [`Default`] as all zeroes, what a structure that reports nothing holds.
macro_rules! zero_by_default {
    ($($structure:ident)*) => {
        $(impl Default for $structure {
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        })*
    };
}
use zero_by_default;

#[cfg(test)]
mod tests;
