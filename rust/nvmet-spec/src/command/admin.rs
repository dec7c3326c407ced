//! Command dwords of the Admin commands (Base §5).
//!
//! Get and Set Features values are in [`crate::feature`], Identify and log page data in their own modules.

use bitfield_struct::bitfield;

/// CDW10 of Create I/O Completion Queue and Create I/O Submission Queue (Base §5.4 and §5.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateQueueCdw10 {
    /// QID: Queue Identifier.
    pub qid: u16,
    /// QSIZE: Queue Size in entries, 0's based.
    pub qsize_z: u16,
}

impl CreateQueueCdw10 {
    /// Queue size in entries, 1-based: 1 to 65536.
    pub const fn qsize(&self) -> u32 {
        self.qsize_z() as u32 + 1
    }
}

/// CDW11 of Create I/O Completion Queue (Base §5.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateCqCdw11 {
    /// PC: Physically Contiguous.
    pub pc: bool,
    /// IEN: Interrupts Enabled.
    pub ien: bool,
    #[bits(14)]
    __: u16,
    /// IV: Interrupt Vector.
    pub iv: u16,
}

/// CDW11 of Create I/O Submission Queue (Base §5.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateSqCdw11 {
    /// PC: Physically Contiguous.
    pub pc: bool,
    /// QPRIO: Queue Priority; 0 urgent, 1 high, 2 medium, 3 low.
    #[bits(2)]
    pub qprio: u8,
    #[bits(13)]
    __: u16,
    /// CQID: Completion Queue Identifier.
    pub cqid: u16,
}

/// CDW12 of Create I/O Submission Queue (Base §5.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateSqCdw12 {
    /// NVMSETID: NVM Set Identifier, 0 for none.
    pub nvmsetid: u16,
    __: u16,
}

/// CDW10 of Delete I/O Submission Queue and Delete I/O Completion Queue (Base §5.6 and §5.7).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DeleteQueueCdw10 {
    /// QID: Queue Identifier.
    pub qid: u16,
    __: u16,
}

/// CDW10 of Identify (Base §5.17).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IdentifyCdw10 {
    /// CNS: Controller or Namespace Structure; see [`crate::identify::cns`].
    pub cns: u8,
    __: u8,
    /// CNTID: Controller Identifier.
    pub cntid: u16,
}

/// CDW11 of Identify (Base §5.17).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IdentifyCdw11 {
    /// CNS Specific Identifier.
    pub cns_specific_id: u16,
    __: u8,
    /// CSI: Command Set Identifier; see [`crate::identify::csi`].
    pub csi: u8,
}

/// CDW14 of Identify, Get Features and Set Features (Base §5.15, §5.17, §5.27).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct UuidIndexCdw14 {
    /// UUID Index, 0 for none.
    #[bits(7)]
    pub uuid_index: u8,
    #[bits(25)]
    __: u32,
}

/// CDW10 of Get Log Page (Base §5.16).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetLogPageCdw10 {
    /// LID: Log Page Identifier; see [`crate::log::Lid`].
    pub lid: u8,
    /// LSP: Log Specific Parameter.
    #[bits(7)]
    pub lsp: u8,
    /// RAE: Retain Asynchronous Event.
    pub rae: bool,
    /// NUMDL: Number of Dwords Lower; with NUMDU a 0's based number.
    pub numdl: u16,
}

/// CDW11 of Get Log Page (Base §5.16).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetLogPageCdw11 {
    /// NUMDU: Number of Dwords Upper.
    pub numdu: u16,
    /// LSI: Log Specific Identifier.
    pub lsi: u16,
}

/// CDW14 of Get Log Page (Base §5.16).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetLogPageCdw14 {
    /// UUID Index, 0 for none.
    #[bits(7)]
    pub uuid_index: u8,
    __: u16,
    /// OT: Offset Type; set when the offset is an index, not bytes.
    pub ot: bool,
    /// CSI: Command Set Identifier.
    pub csi: u8,
}

/// Length of the data that a Get Log Page command asks for, in bytes: a multiple of 4, 4 to 16 GiB (Base §5.16).
pub const fn get_log_page_length(cdw10: GetLogPageCdw10, cdw11: GetLogPageCdw11) -> u64 {
    let numd_z = cdw10.numdl() as u64 | (cdw11.numdu() as u64) << 16;
    (numd_z + 1) * 4
}

/// Log Page Offset of a Get Log Page command, from LPOL (CDW12) and LPOU (CDW13), in bytes or, with OT, an index
/// (Base §5.16).
pub const fn get_log_page_offset(cdw12: u32, cdw13: u32) -> u64 {
    cdw12 as u64 | (cdw13 as u64) << 32
}

/// CDW10 of Get Features (Base §5.15).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetFeaturesCdw10 {
    /// FID: Feature Identifier; see [`crate::feature::FeatureId`].
    pub fid: u8,
    /// SEL: Select.
    #[bits(3)]
    pub sel: crate::feature::Select,
    #[bits(21)]
    __: u32,
}

/// CDW10 of Set Features (Base §5.27).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SetFeaturesCdw10 {
    /// FID: Feature Identifier; see [`crate::feature::FeatureId`].
    pub fid: u8,
    #[bits(23)]
    __: u32,
    /// SV: Save.
    pub sv: bool,
}

/// CDW10 of Abort (Base §5.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AbortCdw10 {
    /// SQID: Submission Queue Identifier of the command to abort.
    pub sqid: u16,
    /// CID: Command Identifier of the command to abort.
    pub cid: u16,
}

/// Completion Dword 0 of Abort (Base §5.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AbortDw0 {
    /// Set when the command was **not** aborted.
    pub not_aborted: bool,
    #[bits(31)]
    __: u32,
}

/// The two pages of a Doorbell Buffer Config command: PRP1 and PRP2 (Base §5.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorbellBufferConfig {
    /// PRP1: address of the Shadow Doorbell buffer, one memory page.
    pub shadow_doorbells: u64,
    /// PRP2: address of the EventIdx buffer, one memory page.
    pub event_idxs: u64,
}

impl DoorbellBufferConfig {
    /// Reads the two addresses of `sqe`.
    pub const fn from_sqe(sqe: &super::Sqe) -> Self {
        Self { shadow_doorbells: sqe.prp1, event_idxs: sqe.prp2 }
    }
}
