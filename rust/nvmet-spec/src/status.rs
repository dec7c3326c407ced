//! The Status field of a completion queue entry (Base §3.3.3.2.1): its encoding, every code, and their names.
//!
//! Knows codes and words, not when a controller returns which.

use core::fmt;

/// Status Code Type (Base §3.3.3.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatusCodeType {
    /// 0h: Generic Command Status.
    Generic,
    /// 1h: Command Specific Status.
    CommandSpecific,
    /// 2h: Media and Data Integrity Errors.
    Media,
    /// 3h: Path Related Status.
    Path,
    /// 7h: Vendor Specific.
    VendorSpecific,
    /// Any other value, reserved.
    Reserved(u8),
}

/// Status of a command: SC, SCT, CRD, M and DNR as they sit above the Phase Tag in a completion queue entry
/// (bits 31:17 of Dword 3, Base §3.3.3.2.1). Bit 15 of the number is always clear.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

const SCT_SHIFT: u16 = 8;
const CRD_SHIFT: u16 = 11;
const MORE: u16 = 1 << 13;
const DNR: u16 = 1 << 14;
const CODE_MASK: u16 = 0x07ff;

impl Status {
    /// A status of type `sct` (3 bits) and code `sc`, without More, CRD or DNR.
    pub const fn new(sct: u8, sc: u8) -> Self {
        Self(((sct as u16 & 0x7) << SCT_SHIFT) | sc as u16)
    }

    /// From the 15 bits above the Phase Tag; bit 15 of `bits` is ignored.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & 0x7fff)
    }

    /// The 15 bits that go above the Phase Tag.
    pub const fn into_bits(self) -> u16 {
        self.0
    }

    /// SC: Status Code.
    pub const fn sc(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// SCT: Status Code Type, as the number on the wire (0 to 7).
    pub const fn sct(self) -> u8 {
        ((self.0 >> SCT_SHIFT) & 0x7) as u8
    }

    /// SCT: Status Code Type.
    pub const fn code_type(self) -> StatusCodeType {
        match self.sct() {
            0 => StatusCodeType::Generic,
            1 => StatusCodeType::CommandSpecific,
            2 => StatusCodeType::Media,
            3 => StatusCodeType::Path,
            7 => StatusCodeType::VendorSpecific,
            other => StatusCodeType::Reserved(other),
        }
    }

    /// CRD: Command Retry Delay, the index of the CRDT to wait (0: none).
    pub const fn crd(self) -> u8 {
        ((self.0 >> CRD_SHIFT) & 0x3) as u8
    }

    /// M: More; the Error Information log page tells more.
    pub const fn more(self) -> bool {
        self.0 & MORE != 0
    }

    /// DNR: Do Not Retry.
    pub const fn dnr(self) -> bool {
        self.0 & DNR != 0
    }

    /// The same status with Do Not Retry set.
    pub const fn with_dnr(self) -> Self {
        Self(self.0 | DNR)
    }

    /// The same status with More set.
    pub const fn with_more(self) -> Self {
        Self(self.0 | MORE)
    }

    /// The same status with Command Retry Delay `crd` (0 to 3).
    pub const fn with_crd(self, crd: u8) -> Self {
        Self((self.0 & !(0x3 << CRD_SHIFT)) | ((crd as u16 & 0x3) << CRD_SHIFT))
    }

    /// Type and code alone: what to compare with the constants below.
    pub const fn code(self) -> Self {
        Self(self.0 & CODE_MASK)
    }

    /// Whether the command completed successfully; More, CRD and DNR do not matter.
    pub const fn is_success(self) -> bool {
        self.0 & CODE_MASK == 0
    }

    /// Whether type and code are those of `other`; More, CRD and DNR do not matter.
    pub const fn is(self, other: Self) -> bool {
        self.0 & CODE_MASK == other.0 & CODE_MASK
    }

    /// The specification's name of the code; `None` for codes that it does not define.
    pub fn name(self) -> Option<&'static str> {
        let wanted = self.code();
        NAMES.binary_search_by_key(&wanted.0, |(status, _)| status.0).ok().map(|at| NAMES[at].1)
    }

    /// Every defined status with its name, in the order of type and code.
    pub fn all() -> impl Iterator<Item = (Self, &'static str)> {
        NAMES.iter().copied()
    }
}

impl Default for Status {
    fn default() -> Self {
        Self::SUCCESS
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.name() {
            Some(name) => name,
            None if self.sct() == 7 => "Vendor Specific",
            None => "Unknown Status",
        };
        write!(f, "{name} ({:02x}/{:02x}h)", self.sct(), self.sc())?;
        if self.crd() != 0 {
            write!(f, " CRD{}", self.crd())?;
        }
        f.write_str(if self.more() { " More" } else { "" })?;
        f.write_str(if self.dnr() { " DNR" } else { "" })
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({self})")
    }
}

macro_rules! statuses {
    ($($sct:literal $sc:literal $id:ident $name:literal, $section:literal;)*) => {
        impl Status {
            $(
                #[doc = concat!($name, ", type ", stringify!($sct), "h, code ", stringify!($sc), " (", $section, ").")]
                pub const $id: Self = Self::new($sct, $sc);
            )*
        }

        /// Sorted by type and code, for the binary search of [`Status::name`].
        const NAMES: &[(Status, &str)] = &[$((Status::$id, $name),)*];
    };
}

statuses! {
    0 0x00 SUCCESS "Successful Completion", "Base §3.3.3.2.1";
    0 0x01 INVALID_OPCODE "Invalid Opcode", "Base §3.3.3.2.1";
    0 0x02 INVALID_FIELD "Invalid Field in Command", "Base §3.3.3.2.1";
    0 0x03 COMMAND_ID_CONFLICT "Command ID Conflict", "Base §3.3.3.2.1";
    0 0x04 DATA_TRANSFER_ERROR "Data Transfer Error", "Base §3.3.3.2.1";
    0 0x05 ABORTED_POWER_LOSS "Commands Aborted due to Power Loss Notification", "Base §3.3.3.2.1";
    0 0x06 INTERNAL_ERROR "Internal Error", "Base §3.3.3.2.1";
    0 0x07 ABORT_REQUESTED "Command Abort Requested", "Base §3.3.3.2.1";
    0 0x08 ABORTED_SQ_DELETION "Command Aborted due to SQ Deletion", "Base §3.3.3.2.1";
    0 0x09 ABORTED_FAILED_FUSED "Command Aborted due to Failed Fused Command", "Base §3.3.3.2.1";
    0 0x0a ABORTED_MISSING_FUSED "Command Aborted due to Missing Fused Command", "Base §3.3.3.2.1";
    0 0x0b INVALID_NAMESPACE_OR_FORMAT "Invalid Namespace or Format", "Base §3.3.3.2.1";
    0 0x0c COMMAND_SEQUENCE_ERROR "Command Sequence Error", "Base §3.3.3.2.1";
    0 0x0d INVALID_SGL_SEGMENT_DESCRIPTOR "Invalid SGL Segment Descriptor", "Base §3.3.3.2.1";
    0 0x0e INVALID_NUMBER_OF_SGL_DESCRIPTORS "Invalid Number of SGL Descriptors", "Base §3.3.3.2.1";
    0 0x0f DATA_SGL_LENGTH_INVALID "Data SGL Length Invalid", "Base §3.3.3.2.1";
    0 0x10 METADATA_SGL_LENGTH_INVALID "Metadata SGL Length Invalid", "Base §3.3.3.2.1";
    0 0x11 SGL_DESCRIPTOR_TYPE_INVALID "SGL Descriptor Type Invalid", "Base §3.3.3.2.1";
    0 0x12 INVALID_USE_OF_CMB "Invalid Use of Controller Memory Buffer", "Base §3.3.3.2.1";
    0 0x13 PRP_OFFSET_INVALID "PRP Offset Invalid", "Base §3.3.3.2.1";
    0 0x14 ATOMIC_WRITE_UNIT_EXCEEDED "Atomic Write Unit Exceeded", "Base §3.3.3.2.1";
    0 0x15 OPERATION_DENIED "Operation Denied", "Base §3.3.3.2.1";
    0 0x16 SGL_OFFSET_INVALID "SGL Offset Invalid", "Base §3.3.3.2.1";
    0 0x18 HOST_ID_INCONSISTENT_FORMAT "Host Identifier Inconsistent Format", "Base §3.3.3.2.1";
    0 0x19 KEEP_ALIVE_TIMER_EXPIRED "Keep Alive Timer Expired", "Base §3.3.3.2.1";
    0 0x1a KEEP_ALIVE_TIMEOUT_INVALID "Keep Alive Timeout Invalid", "Base §3.3.3.2.1";
    0 0x1b ABORTED_PREEMPT_AND_ABORT "Command Aborted due to Preempt and Abort", "Base §3.3.3.2.1";
    0 0x1c SANITIZE_FAILED "Sanitize Failed", "Base §3.3.3.2.1";
    0 0x1d SANITIZE_IN_PROGRESS "Sanitize In Progress", "Base §3.3.3.2.1";
    0 0x1e SGL_DATA_BLOCK_GRANULARITY_INVALID "SGL Data Block Granularity Invalid", "Base §3.3.3.2.1";
    0 0x1f COMMAND_NOT_SUPPORTED_FOR_QUEUE_IN_CMB "Command Not Supported for Queue in CMB", "Base §3.3.3.2.1";
    0 0x20 NAMESPACE_WRITE_PROTECTED "Namespace is Write Protected", "Base §3.3.3.2.1";
    0 0x21 COMMAND_INTERRUPTED "Command Interrupted", "Base §3.3.3.2.1";
    0 0x22 TRANSIENT_TRANSPORT_ERROR "Transient Transport Error", "Base §3.3.3.2.1";
    0 0x23 PROHIBITED_BY_LOCKDOWN "Command Prohibited by Command and Feature Lockdown", "Base §3.3.3.2.1";
    0 0x24 ADMIN_COMMAND_MEDIA_NOT_READY "Admin Command Media Not Ready", "Base §3.3.3.2.1";
    0 0x25 INVALID_KEY_TAG "Invalid Key Tag", "Base 2.1 §4.2.3.1";
    0 0x26 HOST_DISPERSED_NAMESPACE_NOT_ENABLED "Host Dispersed Namespace Support Not Enabled", "Base 2.1 §4.2.3.1";
    0 0x27 HOST_ID_NOT_INITIALIZED "Host Identifier Not Initialized", "Base 2.1 §4.2.3.1";
    0 0x28 INCORRECT_KEY "Incorrect Key", "Base 2.1 §4.2.3.1";
    0 0x29 FDP_DISABLED "FDP Disabled", "Base 2.1 §4.2.3.1";
    0 0x2a INVALID_PLACEMENT_HANDLE_LIST "Invalid Placement Handle List", "Base 2.1 §4.2.3.1";
    0 0x80 LBA_OUT_OF_RANGE "LBA Out of Range", "NVM §3.1";
    0 0x81 CAPACITY_EXCEEDED "Capacity Exceeded", "NVM §3.1";
    0 0x82 NAMESPACE_NOT_READY "Namespace Not Ready", "Base §3.3.3.2.1";
    0 0x83 RESERVATION_CONFLICT "Reservation Conflict", "Base §3.3.3.2.1";
    0 0x84 FORMAT_IN_PROGRESS "Format In Progress", "Base §3.3.3.2.1";
    1 0x00 CQ_INVALID "Completion Queue Invalid", "Base §5.5";
    1 0x01 INVALID_QUEUE_ID "Invalid Queue Identifier", "Base §5.4 to §5.7";
    1 0x02 INVALID_QUEUE_SIZE "Invalid Queue Size", "Base §5.4 and §5.5";
    1 0x03 ABORT_COMMAND_LIMIT_EXCEEDED "Abort Command Limit Exceeded", "Base §5.1";
    1 0x05 AER_LIMIT_EXCEEDED "Asynchronous Event Request Limit Exceeded", "Base §5.2";
    1 0x06 INVALID_FIRMWARE_SLOT "Invalid Firmware Slot", "Base §5.12";
    1 0x07 INVALID_FIRMWARE_IMAGE "Invalid Firmware Image", "Base §5.12";
    1 0x08 INVALID_INTERRUPT_VECTOR "Invalid Interrupt Vector", "Base §5.4";
    1 0x09 INVALID_LOG_PAGE "Invalid Log Page", "Base §5.16";
    1 0x0a INVALID_FORMAT "Invalid Format", "Base §5.14";
    1 0x0b FIRMWARE_NEEDS_CONVENTIONAL_RESET "Firmware Activation Requires Conventional Reset", "Base §5.12";
    1 0x0c INVALID_QUEUE_DELETION "Invalid Queue Deletion", "Base §5.6";
    1 0x0d FEATURE_NOT_SAVEABLE "Feature Identifier Not Saveable", "Base §5.27";
    1 0x0e FEATURE_NOT_CHANGEABLE "Feature Not Changeable", "Base §5.27";
    1 0x0f FEATURE_NOT_NAMESPACE_SPECIFIC "Feature Not Namespace Specific", "Base §5.27";
    1 0x10 FIRMWARE_NEEDS_NVM_SUBSYSTEM_RESET "Firmware Activation Requires NVM Subsystem Reset", "Base §5.12";
    1 0x11 FIRMWARE_NEEDS_CONTROLLER_LEVEL_RESET "Firmware Activation Requires Controller Level Reset", "Base §5.12";
    1 0x12 FIRMWARE_MAXIMUM_TIME_VIOLATION "Firmware Activation Requires Maximum Time Violation", "Base §5.12";
    1 0x13 FIRMWARE_ACTIVATION_PROHIBITED "Firmware Activation Prohibited", "Base §5.12";
    1 0x14 OVERLAPPING_RANGE "Overlapping Range", "Base §5.12";
    1 0x15 NAMESPACE_INSUFFICIENT_CAPACITY "Namespace Insufficient Capacity", "Base §5.23";
    1 0x16 NSID_UNAVAILABLE "Namespace Identifier Unavailable", "Base §5.23";
    1 0x18 NAMESPACE_ALREADY_ATTACHED "Namespace Already Attached", "Base §5.22";
    1 0x19 NAMESPACE_IS_PRIVATE "Namespace Is Private", "Base §5.22";
    1 0x1a NAMESPACE_NOT_ATTACHED "Namespace Not Attached", "Base §5.22";
    1 0x1b THIN_PROVISIONING_NOT_SUPPORTED "Thin Provisioning Not Supported", "Base §5.23";
    1 0x1c CONTROLLER_LIST_INVALID "Controller List Invalid", "Base §5.22";
    1 0x1d DEVICE_SELF_TEST_IN_PROGRESS "Device Self-test In Progress", "Base §5.9";
    1 0x1e BOOT_PARTITION_WRITE_PROHIBITED "Boot Partition Write Prohibited", "Base §5.12";
    1 0x1f INVALID_CONTROLLER_ID "Invalid Controller Identifier", "Base §5.28";
    1 0x20 INVALID_SECONDARY_CONTROLLER_STATE "Invalid Secondary Controller State", "Base §5.28";
    1 0x21 INVALID_NUMBER_OF_CONTROLLER_RESOURCES "Invalid Number of Controller Resources", "Base §5.28";
    1 0x22 INVALID_RESOURCE_ID "Invalid Resource Identifier", "Base §5.28";
    1 0x23 SANITIZE_PROHIBITED_WHILE_PMR_ENABLED
        "Sanitize Prohibited While Persistent Memory Region is Enabled", "Base §5.24";
    1 0x24 ANA_GROUP_ID_INVALID "ANA Group Identifier Invalid", "Base §5.23";
    1 0x25 ANA_ATTACH_FAILED "ANA Attach Failed", "Base §5.22";
    1 0x26 INSUFFICIENT_CAPACITY "Insufficient Capacity", "Base §5.3";
    1 0x27 NAMESPACE_ATTACHMENT_LIMIT_EXCEEDED "Namespace Attachment Limit Exceeded", "Base §5.22";
    1 0x28 PROHIBITION_NOT_SUPPORTED "Prohibition of Command Execution Not Supported", "Base §5.19";
    1 0x29 IO_COMMAND_SET_NOT_SUPPORTED "I/O Command Set Not Supported", "Base §5.22 and §5.23";
    1 0x2a IO_COMMAND_SET_NOT_ENABLED "I/O Command Set Not Enabled", "Base §5.22";
    1 0x2b IO_COMMAND_SET_COMBINATION_REJECTED "I/O Command Set Combination Rejected", "Base §5.27";
    1 0x2c INVALID_IO_COMMAND_SET "Invalid I/O Command Set", "Base §5.17";
    1 0x2d IDENTIFIER_UNAVAILABLE "Identifier Unavailable", "Base §5.3";
    1 0x80 CONFLICTING_ATTRIBUTES "Conflicting Attributes", "NVM §3.2.3 to §3.2.6";
    1 0x81 INVALID_PROTECTION_INFORMATION "Invalid Protection Information", "NVM §3.2";
    1 0x82 WRITE_TO_READ_ONLY_RANGE "Attempted Write to Read Only Range", "NVM §3.2";
    1 0x83 COMMAND_SIZE_LIMIT_EXCEEDED "Command Size Limit Exceeded", "NVM §3.2.2";
    2 0x80 WRITE_FAULT "Write Fault", "Base §3.3.3.2.1";
    2 0x81 UNRECOVERED_READ_ERROR "Unrecovered Read Error", "Base §3.3.3.2.1";
    2 0x82 GUARD_CHECK_ERROR "End-to-end Guard Check Error", "NVM §3.1";
    2 0x83 APPLICATION_TAG_CHECK_ERROR "End-to-end Application Tag Check Error", "NVM §3.1";
    2 0x84 REFERENCE_TAG_CHECK_ERROR "End-to-end Reference Tag Check Error", "NVM §3.1";
    2 0x85 COMPARE_FAILURE "Compare Failure", "NVM §3.2.1";
    2 0x86 ACCESS_DENIED "Access Denied", "Base §3.3.3.2.1";
    2 0x87 DEALLOCATED_OR_UNWRITTEN_LOGICAL_BLOCK "Deallocated or Unwritten Logical Block", "NVM §3.1";
    2 0x88 STORAGE_TAG_CHECK_ERROR "End-to-End Storage Tag Check Error", "NVM §3.1";
    3 0x00 INTERNAL_PATH_ERROR "Internal Path Error", "Base §3.3.3.2.1";
    3 0x01 ANA_PERSISTENT_LOSS "Asymmetric Access Persistent Loss", "Base §8.1";
    3 0x02 ANA_INACCESSIBLE "Asymmetric Access Inaccessible", "Base §8.1";
    3 0x03 ANA_TRANSITION "Asymmetric Access Transition", "Base §8.1";
    3 0x60 CONTROLLER_PATHING_ERROR "Controller Pathing Error", "Base §3.3.3.2.1";
    3 0x70 HOST_PATHING_ERROR "Host Pathing Error", "Base §3.3.3.2.1";
    3 0x71 ABORTED_BY_HOST "Command Aborted By Host", "Base §3.3.3.2.1";
}

#[cfg(test)]
mod tests;
