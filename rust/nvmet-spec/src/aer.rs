//! Asynchronous events: types, information codes, the completion dword, and the configuration (Base §5.2, §5.27.1.8).
//!
//! Knows the encoding. Which events wait, and which are masked, is the controller's business.

use bitfield_struct::bitfield;

use crate::log::Lid;

/// Asynchronous Event Type (Base §5.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// 0h: Error status.
    Error,
    /// 1h: SMART / Health status.
    SmartHealth,
    /// 2h: Notice.
    Notice,
    /// 3h: Immediate (Base 2.1).
    Immediate,
    /// 6h: I/O Command Set specific status.
    IoCommandSet,
    /// 7h: Vendor specific.
    VendorSpecific,
    /// Any other value, reserved.
    Reserved(u8),
}

impl EventType {
    /// From the three bits on the wire; higher bits are ignored.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0x7 {
            0 => Self::Error,
            1 => Self::SmartHealth,
            2 => Self::Notice,
            3 => Self::Immediate,
            6 => Self::IoCommandSet,
            7 => Self::VendorSpecific,
            other => Self::Reserved(other),
        }
    }

    /// The three bits on the wire.
    pub const fn into_bits(self) -> u8 {
        match self {
            Self::Error => 0,
            Self::SmartHealth => 1,
            Self::Notice => 2,
            Self::Immediate => 3,
            Self::IoCommandSet => 6,
            Self::VendorSpecific => 7,
            Self::Reserved(bits) => bits & 0x7,
        }
    }
}

/// Completion Dword 0 of Asynchronous Event Request (Base §5.2.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq, Hash)]
pub struct AsyncEvent {
    /// Asynchronous Event Type.
    #[bits(3)]
    pub event_type: EventType,
    #[bits(5)]
    __: u8,
    /// Asynchronous Event Information: what happened, by type.
    pub information: u8,
    /// Log Page Identifier: the page to read, which also clears the event.
    pub log_page: u8,
    __: u8,
}

macro_rules! events {
    ($($id:ident $type:ident $information:literal $lid:ident $name:literal;)*) => {
        impl AsyncEvent {
            $(
                #[doc = concat!($name, " (Base §5.2.1).")]
                pub const $id: Self = Self::new()
                    .with_event_type(EventType::$type)
                    .with_information($information)
                    .with_log_page(Lid::$lid as u8);
            )*
        }
    };
}

events! {
    INVALID_DOORBELL_REGISTER Error 0x00 ErrorInformation "Error: Write to Invalid Doorbell Register";
    INVALID_DOORBELL_VALUE Error 0x01 ErrorInformation "Error: Invalid Doorbell Write Value";
    DIAGNOSTIC_FAILURE Error 0x02 ErrorInformation "Error: Diagnostic Failure";
    PERSISTENT_INTERNAL_ERROR Error 0x03 ErrorInformation "Error: Persistent Internal Error";
    TRANSIENT_INTERNAL_ERROR Error 0x04 ErrorInformation "Error: Transient Internal Error";
    FIRMWARE_IMAGE_LOAD_ERROR Error 0x05 ErrorInformation "Error: Firmware Image Load Error";
    RELIABILITY SmartHealth 0x00 SmartHealth "SMART / Health: NVM subsystem reliability";
    TEMPERATURE_THRESHOLD SmartHealth 0x01 SmartHealth "SMART / Health: Temperature Threshold";
    SPARE_BELOW_THRESHOLD SmartHealth 0x02 SmartHealth "SMART / Health: Spare Below Threshold";
    NAMESPACE_ATTRIBUTE_CHANGED Notice 0x00 ChangedNamespaceList "Notice: Namespace Attribute Changed";
    FIRMWARE_ACTIVATION_STARTING Notice 0x01 FirmwareSlot "Notice: Firmware Activation Starting";
    ANA_CHANGE Notice 0x03 AsymmetricNamespaceAccess "Notice: Asymmetric Namespace Access Change";
    RESERVATION_LOG_AVAILABLE IoCommandSet 0x00 ReservationNotification "I/O Command Set: Reservation Log Page Available";
}

/// Value of Asynchronous Event Configuration: a set bit enables the event (Base §5.27.1.8).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AsyncEventConfig {
    /// SMART / Health Critical Warnings, one bit for each bit of the Critical Warning field.
    pub smart_critical_warnings: u8,
    /// Namespace Attribute Notices.
    pub namespace_attribute: bool,
    /// Firmware Activation Notices.
    pub firmware_activation: bool,
    /// Telemetry Log Notices.
    pub telemetry_log: bool,
    /// ANA Change Notices.
    pub ana_change: bool,
    /// Predictable Latency Event Aggregate Log Change Notices.
    pub predictable_latency: bool,
    /// LBA Status Information Alert Notices.
    pub lba_status_information: bool,
    /// Endurance Group Event Aggregate Log Change Notices.
    pub endurance_group: bool,
    /// Normal NVM Subsystem Shutdown.
    pub normal_shutdown: bool,
    #[bits(11)]
    __: u16,
    /// Zone Descriptor Changed Notices.
    pub zone_descriptor: bool,
    #[bits(3)]
    __: u8,
    /// Discovery Log Page Change Notification.
    pub discovery_log: bool,
}

#[cfg(test)]
mod tests;
