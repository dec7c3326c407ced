//! Opcodes of the Admin and NVM Command Sets (Base §5 and §7, NVM §3).

use core::fmt;

/// An opcode that the command set does not define (or that is vendor specific).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown {set} opcode {opcode:02x}h")]
pub struct UnknownOpcode {
    /// The command set that was asked: "Admin" or "NVM".
    pub set: &'static str,
    /// The opcode as it stood in the command.
    pub opcode: u8,
}

macro_rules! opcodes {
    ($(#[$doc:meta])* $set:literal $enum:ident { $($code:literal $id:ident $name:literal, $section:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $enum {
            $(
                #[doc = concat!($name, " (", $section, ").")]
                $id = $code,
            )*
        }

        impl $enum {
            /// Every opcode of the set, in numerical order.
            pub const ALL: &'static [Self] = &[$(Self::$id,)*];

            /// The command's name in the specification.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)*
                }
            }
        }

        impl TryFrom<u8> for $enum {
            type Error = UnknownOpcode;

            fn try_from(opcode: u8) -> Result<Self, UnknownOpcode> {
                match opcode {
                    $($code => Ok(Self::$id),)*
                    _ => Err(UnknownOpcode { set: $set, opcode }),
                }
            }
        }

        impl From<$enum> for u8 {
            fn from(opcode: $enum) -> u8 {
                opcode as u8
            }
        }

        impl fmt::Display for $enum {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

opcodes! {
    /// Opcodes of the Admin Command Set (Base §5).
    "Admin" AdminOpcode {
        0x00 DeleteIoSq "Delete I/O Submission Queue", "Base §5.7";
        0x01 CreateIoSq "Create I/O Submission Queue", "Base §5.5";
        0x02 GetLogPage "Get Log Page", "Base §5.16";
        0x04 DeleteIoCq "Delete I/O Completion Queue", "Base §5.6";
        0x05 CreateIoCq "Create I/O Completion Queue", "Base §5.4";
        0x06 Identify "Identify", "Base §5.17";
        0x08 Abort "Abort", "Base §5.1";
        0x09 SetFeatures "Set Features", "Base §5.27";
        0x0a GetFeatures "Get Features", "Base §5.15";
        0x0c AsyncEventRequest "Asynchronous Event Request", "Base §5.2";
        0x0d NamespaceManagement "Namespace Management", "Base §5.23";
        0x10 FirmwareCommit "Firmware Commit", "Base §5.12";
        0x11 FirmwareImageDownload "Firmware Image Download", "Base §5.13";
        0x14 DeviceSelfTest "Device Self-test", "Base §5.9";
        0x15 NamespaceAttachment "Namespace Attachment", "Base §5.22";
        0x18 KeepAlive "Keep Alive", "Base §5.18";
        0x19 DirectiveSend "Directive Send", "Base §5.11";
        0x1a DirectiveReceive "Directive Receive", "Base §5.10";
        0x1c VirtualizationManagement "Virtualization Management", "Base §5.28";
        0x1d NvmeMiSend "NVMe-MI Send", "Base §5.21";
        0x1e NvmeMiReceive "NVMe-MI Receive", "Base §5.20";
        0x20 CapacityManagement "Capacity Management", "Base §5.3";
        0x24 Lockdown "Lockdown", "Base §5.19";
        0x7c DoorbellBufferConfig "Doorbell Buffer Config", "Base §5.8";
        0x7f Fabrics "Fabrics Commands", "Base §6";
        0x80 FormatNvm "Format NVM", "Base §5.14";
        0x81 SecuritySend "Security Send", "Base §5.26";
        0x82 SecurityReceive "Security Receive", "Base §5.25";
        0x84 Sanitize "Sanitize", "Base §5.24";
        0x86 GetLbaStatus "Get LBA Status", "NVM §4.2.1";
    }
}

opcodes! {
    /// Opcodes of the NVM Command Set (NVM §3) and of the I/O commands common to all sets (Base §7).
    "NVM" NvmOpcode {
        0x00 Flush "Flush", "Base §7.1";
        0x01 Write "Write", "NVM §3.2.6";
        0x02 Read "Read", "NVM §3.2.4";
        0x04 WriteUncorrectable "Write Uncorrectable", "NVM §3.2.7";
        0x05 Compare "Compare", "NVM §3.2.1";
        0x08 WriteZeroes "Write Zeroes", "NVM §3.2.8";
        0x09 DatasetManagement "Dataset Management", "NVM §3.2.3";
        0x0c Verify "Verify", "NVM §3.2.5";
        0x0d ReservationRegister "Reservation Register", "Base §7.3";
        0x0e ReservationReport "Reservation Report", "Base §7.5";
        0x11 ReservationAcquire "Reservation Acquire", "Base §7.2";
        0x15 ReservationRelease "Reservation Release", "Base §7.4";
        0x19 Copy "Copy", "NVM §3.2.2";
    }
}
