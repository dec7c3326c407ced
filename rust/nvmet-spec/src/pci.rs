//! PCI configuration space: header and capability layouts that an NVMe function has (PCIe Base §7.5 and §7.7,
//! PCIe §3.8).
//!
//! Knows offsets and bits. Which bits can be written, and what follows, is the function's business.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of conventional configuration space (PCIe Base §7.2.1).
pub const CONFIG_SIZE: usize = 256;
/// Bytes of extended configuration space (PCIe Base §7.2.2).
pub const EXTENDED_CONFIG_SIZE: usize = 4096;

/// Class Code of an NVM Express I/O controller: mass storage, non-volatile memory, NVMe I/O (PCIe §3.8).
pub const CLASS_NVME: u32 = 0x01_08_02;

/// Offsets in the Type 0 header (PCIe Base §7.5.1.1 and §7.5.1.2).
pub mod header {
    /// Vendor ID, 2 bytes (PCIe Base §7.5.1.1.1).
    pub const VENDOR_ID: usize = 0x00;
    /// Device ID, 2 bytes (PCIe Base §7.5.1.1.2).
    pub const DEVICE_ID: usize = 0x02;
    /// Command, 2 bytes (PCIe Base §7.5.1.1.3).
    pub const COMMAND: usize = 0x04;
    /// Status, 2 bytes (PCIe Base §7.5.1.1.4).
    pub const STATUS: usize = 0x06;
    /// Revision ID, 1 byte (PCIe Base §7.5.1.1.5).
    pub const REVISION_ID: usize = 0x08;
    /// Class Code, 3 bytes (PCIe Base §7.5.1.1.6).
    pub const CLASS_CODE: usize = 0x09;
    /// Cache Line Size, 1 byte (PCIe Base §7.5.1.1.7).
    pub const CACHE_LINE_SIZE: usize = 0x0c;
    /// Latency Timer, 1 byte (PCIe Base §7.5.1.1.8).
    pub const LATENCY_TIMER: usize = 0x0d;
    /// Header Type, 1 byte (PCIe Base §7.5.1.1.9).
    pub const HEADER_TYPE: usize = 0x0e;
    /// BIST, 1 byte (PCIe Base §7.5.1.1.10).
    pub const BIST: usize = 0x0f;
    /// Base Address Register 0 of six, 4 bytes each (PCIe Base §7.5.1.2.1).
    pub const BAR0: usize = 0x10;
    /// Low bits of a memory BAR: 64-bit, not prefetchable, as MLBAR is (PCIe Base §7.5.1.2.1, PCIe §3.8).
    pub const BAR_64_BIT: u32 = 0b10 << 1;
    /// Subsystem Vendor ID, 2 bytes (PCIe Base §7.5.1.2.3).
    pub const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
    /// Subsystem ID, 2 bytes (PCIe Base §7.5.1.2.3).
    pub const SUBSYSTEM_ID: usize = 0x2e;
    /// Expansion ROM Base Address, 4 bytes (PCIe Base §7.5.1.2.4).
    pub const EXPANSION_ROM: usize = 0x30;
    /// Capabilities Pointer, 1 byte (PCIe Base §7.5.1.1.11).
    pub const CAPABILITIES_POINTER: usize = 0x34;
    /// Interrupt Line, 1 byte (PCIe Base §7.5.1.1.12).
    pub const INTERRUPT_LINE: usize = 0x3c;
    /// Interrupt Pin, 1 byte (PCIe Base §7.5.1.1.13).
    pub const INTERRUPT_PIN: usize = 0x3d;
}

/// Capability IDs (PCI Code and ID Assignment Specification).
pub mod capability {
    /// PCI Power Management Interface (PCIe Base §7.5.2).
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// MSI (PCIe Base §7.7.1).
    pub const MSI: u8 = 0x05;
    /// PCI Express (PCIe Base §7.5.3).
    pub const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X (PCIe Base §7.7.2).
    pub const MSIX: u8 = 0x11;
}

/// Extended capabilities (PCIe Base §7.6).
pub mod extended_capability {
    /// Where the list begins, if only with its terminator (PCIe Base §7.6).
    pub const FIRST: usize = 0x100;
    /// ID of Device Serial Number (PCIe Base §7.9.3).
    pub const DEVICE_SERIAL_NUMBER: u16 = 0x0003;
}

/// Header of an extended capability, 4 bytes (PCIe Base §7.6.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ExtendedCapabilityHeader {
    /// PCI Express Extended Capability ID.
    pub id: u16,
    /// Capability Version.
    #[bits(4)]
    pub version: u8,
    /// Next Capability Offset, 0 for the last.
    #[bits(12)]
    pub next: u16,
}

/// Command register (PCIe Base §7.5.1.1.3).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Command {
    /// I/O Space Enable.
    pub io_space: bool,
    /// Memory Space Enable.
    pub memory_space: bool,
    /// Bus Master Enable.
    pub bus_master: bool,
    #[bits(3)]
    __: u8,
    /// Parity Error Response.
    pub parity_error_response: bool,
    __: bool,
    /// SERR# Enable.
    pub serr: bool,
    __: bool,
    /// Interrupt Disable.
    pub interrupt_disable: bool,
    #[bits(5)]
    __: u8,
}

/// Status register (PCIe Base §7.5.1.1.4).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Status {
    #[bits(3)]
    __: u8,
    /// Interrupt Status.
    pub interrupt: bool,
    /// Capabilities List.
    pub capabilities_list: bool,
    #[bits(3)]
    __: u8,
    /// Master Data Parity Error, RW1C.
    pub master_data_parity_error: bool,
    #[bits(2)]
    __: u8,
    /// Signaled Target Abort, RW1C.
    pub signaled_target_abort: bool,
    /// Received Target Abort, RW1C.
    pub received_target_abort: bool,
    /// Received Master Abort, RW1C.
    pub received_master_abort: bool,
    /// Signaled System Error, RW1C.
    pub signaled_system_error: bool,
    /// Detected Parity Error, RW1C.
    pub detected_parity_error: bool,
}

/// Power Management Control/Status register, 2 bytes at offset 4 of the capability (PCIe Base §7.5.2.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Pmcsr {
    /// PowerState; 0 D0, 3 D3hot.
    #[bits(2)]
    pub power_state: u8,
    __: bool,
    /// No_Soft_Reset: the transition from D3hot to D0 keeps the state.
    pub no_soft_reset: bool,
    #[bits(4)]
    __: u8,
    /// PME_En.
    pub pme_enable: bool,
    #[bits(6)]
    __: u8,
    /// PME_Status, RW1C.
    pub pme_status: bool,
}

/// Offsets in the PCI Express capability (PCIe Base §7.5.3).
pub mod express {
    /// PCI Express Capabilities, 2 bytes (PCIe Base §7.5.3.2).
    pub const CAPABILITIES: usize = 0x02;
    /// Device Capabilities, 4 bytes (PCIe Base §7.5.3.3).
    pub const DEVICE_CAPABILITIES: usize = 0x04;
    /// Device Control, 2 bytes (PCIe Base §7.5.3.4).
    pub const DEVICE_CONTROL: usize = 0x08;
    /// Device Status, 2 bytes (PCIe Base §7.5.3.5).
    pub const DEVICE_STATUS: usize = 0x0a;
    /// Link Capabilities, 4 bytes (PCIe Base §7.5.3.6).
    pub const LINK_CAPABILITIES: usize = 0x0c;
    /// Link Control, 2 bytes (PCIe Base §7.5.3.7).
    pub const LINK_CONTROL: usize = 0x10;
    /// Link Status, 2 bytes (PCIe Base §7.5.3.8).
    pub const LINK_STATUS: usize = 0x12;
    /// Device Capabilities 2, 4 bytes (PCIe Base §7.5.3.15).
    pub const DEVICE_CAPABILITIES_2: usize = 0x24;
    /// Device Control 2, 2 bytes (PCIe Base §7.5.3.16).
    pub const DEVICE_CONTROL_2: usize = 0x28;
    /// Link Capabilities 2, 4 bytes (PCIe Base §7.5.3.18).
    pub const LINK_CAPABILITIES_2: usize = 0x2c;
    /// Link Control 2, 2 bytes (PCIe Base §7.5.3.19).
    pub const LINK_CONTROL_2: usize = 0x30;
    /// Bytes of the capability, version 2.
    pub const SIZE: usize = 0x3c;
    /// Errors detected, RW1C, a field of Device Status: correctable, non-fatal, fatal, unsupported request (PCIe Base
    /// §7.5.3.5).
    pub const ERRORS_DETECTED: u16 = 0x000f;
    /// Slot Clock Configuration, a bit of Link Status (PCIe Base §7.5.3.8).
    pub const SLOT_CLOCK: u16 = 1 << 12;
    /// Completion Timeout Disable: Supported in Device Capabilities 2, the switch in Device Control 2 (PCIe Base
    /// §7.5.3.15, §7.5.3.16).
    pub const COMPLETION_TIMEOUT_DISABLE: u16 = 1 << 4;
    /// Target Link Speed, a field of Link Control 2 (PCIe Base §7.5.3.19).
    pub const TARGET_LINK_SPEED: u16 = 0x000f;
}

/// Device Capabilities register of the PCI Express capability (PCIe Base §7.5.3.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct DeviceCapabilities {
    /// Max_Payload_Size Supported, `128 << value` bytes.
    #[bits(3)]
    pub max_payload_size: u8,
    /// Phantom Functions Supported.
    #[bits(2)]
    pub phantom_functions: u8,
    /// Extended Tag Field Supported.
    pub extended_tag: bool,
    /// Endpoint L0s Acceptable Latency.
    #[bits(3)]
    pub l0s_latency: u8,
    /// Endpoint L1 Acceptable Latency.
    #[bits(3)]
    pub l1_latency: u8,
    #[bits(3)]
    __: u8,
    /// Role-Based Error Reporting.
    pub role_based_error_reporting: bool,
    #[bits(12)]
    __: u16,
    /// Function Level Reset Capability.
    pub flr: bool,
    #[bits(3)]
    __: u8,
}

/// Device Control register of the PCI Express capability (PCIe Base §7.5.3.4).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct DeviceControl {
    /// Error reporting enables: correctable, non-fatal, fatal, unsupported request.
    #[bits(4)]
    pub error_reporting: u8,
    /// Enable Relaxed Ordering.
    pub relaxed_ordering: bool,
    /// Max_Payload_Size, `128 << value` bytes.
    #[bits(3)]
    pub max_payload_size: u8,
    /// Extended Tag Field Enable.
    pub extended_tag: bool,
    /// Phantom Functions Enable.
    pub phantom_functions: bool,
    /// Aux Power PM Enable.
    pub aux_power: bool,
    /// Enable No Snoop.
    pub no_snoop: bool,
    /// Max_Read_Request_Size, `128 << value` bytes.
    #[bits(3)]
    pub max_read_request_size: u8,
    /// Initiate Function Level Reset; always reads as 0.
    pub initiate_flr: bool,
}

/// Link Capabilities register of the PCI Express capability (PCIe Base §7.5.3.6).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct LinkCapabilities {
    /// Max Link Speed: 1 2.5 GT/s, 2 5.0 GT/s, and so on.
    #[bits(4)]
    pub max_speed: u8,
    /// Maximum Link Width in lanes.
    #[bits(6)]
    pub max_width: u8,
    /// ASPM Support: bit 0 L0s, bit 1 L1.
    #[bits(2)]
    pub aspm: u8,
    #[bits(10)]
    __: u16,
    /// ASPM Optionality Compliance.
    pub aspm_optionality_compliance: bool,
    #[bits(9)]
    __: u16,
}

/// Link Control register of the PCI Express capability, as far as an endpoint has it (PCIe Base §7.5.3.7).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct LinkControl {
    /// ASPM Control: bit 0 L0s, bit 1 L1.
    #[bits(2)]
    pub aspm: u8,
    __: bool,
    /// Read Completion Boundary.
    pub read_completion_boundary: bool,
    #[bits(2)]
    __: u8,
    /// Common Clock Configuration.
    pub common_clock: bool,
    /// Extended Synch.
    pub extended_synch: bool,
    __: u8,
}

/// Message Control register of the MSI-X capability, 2 bytes at offset 2 (PCIe Base §7.7.2.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MsixControl {
    /// Table Size in entries, 0's based.
    #[bits(11)]
    pub table_size_z: u16,
    #[bits(3)]
    __: u8,
    /// Function Mask.
    pub function_mask: bool,
    /// MSI-X Enable.
    pub enable: bool,
}

impl MsixControl {
    /// Entries of the table, 1-based: 1 to 2048.
    pub const fn table_size(&self) -> u32 {
        self.table_size_z() as u32 + 1
    }
}

/// Table Offset/Table BIR and PBA Offset/PBA BIR registers, 4 bytes at offsets 4 and 8 (PCIe Base §7.7.2.3, §7.7.2.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MsixLocation {
    /// BIR: which BAR, 0 to 5.
    #[bits(3)]
    pub bir: u8,
    /// Offset in that BAR in units of 8 bytes.
    #[bits(29)]
    pub offset_qwords: u32,
}

/// Vector Control of an MSI-X table entry (PCIe Base §7.7.2.8).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VectorControl {
    /// Mask Bit; set after a reset.
    pub masked: bool,
    #[bits(31)]
    __: u32,
}

/// Most entries of an MSI-X table: Table Size has 11 bits, 0's based (PCIe Base §7.7.2.2).
pub const MSIX_MAX_VECTORS: u16 = 2048;

/// An MSI-X table entry, 16 bytes (PCIe Base §7.7.2.5 to §7.7.2.8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MsixEntry {
    /// Message Address.
    pub address: u64,
    /// Message Data.
    pub data: u32,
    /// Vector Control.
    pub control: VectorControl,
}

/// The MSI-X capability, 12 bytes (PCIe Base §7.7.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MsixCapability {
    /// Capability ID: [`capability::MSIX`].
    pub id: u8,
    /// Next Capability Pointer, 0 for the last.
    pub next: u8,
    /// Message Control.
    pub control: MsixControl,
    /// Where the table is.
    pub table: MsixLocation,
    /// Where the Pending Bit Array is.
    pub pba: MsixLocation,
}

/// The PCI Power Management capability, 8 bytes (PCIe Base §7.5.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PmCapability {
    /// Capability ID: [`capability::POWER_MANAGEMENT`].
    pub id: u8,
    /// Next Capability Pointer, 0 for the last.
    pub next: u8,
    /// Power Management Capabilities; bits 2:0 are the version, 3 for the current one.
    pub capabilities: u16,
    /// Power Management Control/Status.
    pub control_status: Pmcsr,
    /// Reserved.
    pub reserved: [u8; 2],
}

const _: () = {
    assert!(size_of::<MsixEntry>() == 16);
    assert!(size_of::<MsixCapability>() == 12);
    assert!(size_of::<PmCapability>() == 8);
};

#[cfg(test)]
mod tests;
