//! Where every register of config space lives, what it holds after reset, and which of its bits a client can
//! change.
//!
//! ```text
//! 000 type 0 header   040 Power Management   050 MSI-X   080 PCI Express   100 Device Serial Number, or none
//! ```
//! Everything between is read-only zero. Sections are of the PCI Express Base Specification, 5.0.
//!
//! May know: register offsets and bits. Must not know: who reads or writes them, or what follows from it.

use super::{Control, MsixControl, PciConfig, PowerState, msix};

/// Bytes of config space, extended config space included (7.2.2).
pub const CONFIG_SPACE_SIZE: usize = 4096;

/// The BAR of the MSI-X Table, which the MSI-X capability calls its BIR.
pub(super) const MSIX_TABLE_BAR: usize = 4;
/// The BAR of the Pending Bit Array.
pub(super) const MSIX_PBA_BAR: usize = 5;

/// One byte for each byte of config space.
pub(super) type Registers = Box<[u8; CONFIG_SPACE_SIZE]>;

/// Offsets of our own choice: where each capability was put.
const PM_CAP: usize = 0x40;
const MSIX_CAP: usize = 0x50;
const EXP_CAP: usize = 0x80;
/// Fixed by 7.6: the list of extended capabilities begins here, if only with its terminator.
const EXTENDED_CAPS: usize = 0x100;

/// Type 0 header (7.5.1.1, 7.5.1.2).
const VENDOR_ID: usize = 0x00;
const DEVICE_ID: usize = 0x02;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION_ID: usize = 0x08;
const CLASS_CODE: usize = 0x09;
const CACHE_LINE_SIZE: usize = 0x0c;
const BAR: usize = 0x10;
const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
const SUBSYSTEM_ID: usize = 0x2e;
const CAPABILITIES_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;

/// Command (7.5.1.1.3). I/O Space Enable stays zero: there is no I/O BAR.
const COMMAND_MEMORY_SPACE: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_PARITY_ERROR_RESPONSE: u16 = 1 << 6;
const COMMAND_SERR: u16 = 1 << 8;
const COMMAND_INTERRUPT_DISABLE: u16 = 1 << 10;
const COMMAND_WRITABLE: u16 = COMMAND_MEMORY_SPACE
    | COMMAND_BUS_MASTER
    | COMMAND_PARITY_ERROR_RESPONSE
    | COMMAND_SERR
    | COMMAND_INTERRUPT_DISABLE;

/// Status (7.5.1.1.4): Capabilities List is one, and the error bits 8, 11 to 15 are write-one-to-clear.
const STATUS_CAPABILITIES_LIST: u16 = 1 << 4;
const STATUS_ERRORS: u16 = 0xf900;

/// Memory BAR, Type field (7.5.1.2.1): 64-bit. Not prefetchable, as the NVMe transport fixes for MLBAR.
const BAR_64_BIT: u32 = 0b10 << 1;

/// PCI Power Management (7.5.2).
const CAP_ID_PM: u8 = 0x01;
const PM_CAPABILITIES: usize = PM_CAP + 2;
pub(super) const PM_CONTROL_STATUS: usize = PM_CAP + 4;
/// Version 3; no PME, no D1, no D2.
const PM_CAPABILITIES_VALUE: u16 = 0b011;
const PM_POWER_STATE: u16 = 0b11;
const PM_D0: u16 = 0b00;
const PM_D3HOT: u16 = 0b11;
/// D3hot to D0 resets nothing: what a guest programmed is still there, and no two copies of it can disagree.
const PM_NO_SOFT_RESET: u16 = 1 << 3;

/// MSI-X (7.7.2).
const CAP_ID_MSIX: u8 = 0x11;
const MSIX_MESSAGE_CONTROL: usize = MSIX_CAP + 2;
const MSIX_TABLE: usize = MSIX_CAP + 4;
const MSIX_PBA: usize = MSIX_CAP + 8;
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_FUNCTION_MASK: u16 = 1 << 14;

/// PCI Express (7.5.3).
const CAP_ID_EXP: u8 = 0x10;
const EXP_CAPABILITIES: usize = EXP_CAP + 0x02;
const DEVICE_CAPABILITIES: usize = EXP_CAP + 0x04;
const DEVICE_CONTROL: usize = EXP_CAP + 0x08;
const DEVICE_STATUS: usize = EXP_CAP + 0x0a;
const LINK_CAPABILITIES: usize = EXP_CAP + 0x0c;
const LINK_CONTROL: usize = EXP_CAP + 0x10;
const LINK_STATUS: usize = EXP_CAP + 0x12;
const DEVICE_CAPABILITIES_2: usize = EXP_CAP + 0x24;
const DEVICE_CONTROL_2: usize = EXP_CAP + 0x28;
const LINK_CAPABILITIES_2: usize = EXP_CAP + 0x2c;
const LINK_CONTROL_2: usize = EXP_CAP + 0x30;

/// Capability version 2, Device/Port Type 0 (PCI Express Endpoint) (7.5.3.2).
const EXP_CAPABILITIES_VALUE: u16 = 2;
/// 128-byte payload, Role-Based Error Reporting, FLR (7.5.3.3).
const DEVICE_CAPABILITIES_VALUE: u32 = (1 << 15) | (1 << 28);
/// Error reporting enables 3:0, Relaxed Ordering 4, No Snoop 11, Max_Read_Request_Size 14:12 (7.5.3.4). The
/// fields of features that Device Capabilities denies (payload above 128 bytes, extended tags, phantom
/// functions) stay zero.
const DEVICE_CONTROL_WRITABLE: u16 = 0x781f;
/// Relaxed Ordering and No Snoop on, 512-byte read requests: the defaults of 7.5.3.4.
const DEVICE_CONTROL_VALUE: u16 = (1 << 4) | (1 << 11) | (0b010 << 12);
/// Initiate Function Level Reset, in the high byte of Device Control; reads as zero.
const INITIATE_FLR_HIGH: u8 = 1 << 7;
/// Errors detected 3:0, write-one-to-clear (7.5.3.5).
const DEVICE_STATUS_ERRORS: u16 = 0x000f;
/// 5.0 GT/s: the fastest speed that asks for no further capability structures (8.0 GT/s wants Secondary PCI
/// Express).
const LINK_SPEED: u16 = 2;
const LINK_WIDTH: u16 = 4;
/// Speed, width, no ASPM, ASPM Optionality Compliance (7.5.3.6).
const LINK_CAPABILITIES_VALUE: u32 = LINK_SPEED as u32 | ((LINK_WIDTH as u32) << 4) | (1 << 22);
/// ASPM Control 1:0, Read Completion Boundary 3, Common Clock 6, Extended Synch 7 (7.5.3.7).
const LINK_CONTROL_WRITABLE: u16 = 0x00cb;
/// The link runs at what it is capable of, on the slot's clock (7.5.3.8).
const LINK_STATUS_VALUE: u16 = LINK_SPEED | (LINK_WIDTH << 4) | (1 << 12);
/// Completion Timeout Disable Supported (7.5.3.15), and its control bit (7.5.3.16).
const COMPLETION_TIMEOUT_DISABLE: u16 = 1 << 4;
/// Supported Link Speeds Vector: 2.5 and 5.0 GT/s (7.5.3.18).
const LINK_CAPABILITIES_2_VALUE: u32 = 0b11 << 1;
/// Target Link Speed (7.5.3.19).
const LINK_CONTROL_2_WRITABLE: u16 = 0x000f;

/// Device Serial Number (7.9.3), version 1, last of the list.
const EXTENDED_CAP_SERIAL: u32 = 0x0003 | (1 << 16);

/// Initial values and write masks of one function's config space; fixed for its life.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    initial: Registers,
    writable: Registers,
    write_1_to_clear: Registers,
}

impl Layout {
    /// Lays out the config space of a function; `config` has been checked.
    pub(super) fn new(config: &PciConfig) -> Self {
        let mut layout = Self { initial: blank(), writable: blank(), write_1_to_clear: blank() };
        layout.header(config);
        layout.power_management();
        layout.msix(config.vectors);
        layout.express();
        if let Some(serial) = config.serial {
            layout.put(EXTENDED_CAPS, EXTENDED_CAP_SERIAL.to_le_bytes());
            layout.put(EXTENDED_CAPS + 4, serial.to_le_bytes());
        }
        layout
    }

    /// Config space as after a conventional reset.
    pub(super) fn initial(&self) -> &Registers {
        &self.initial
    }

    /// The writable and the write-one-to-clear bits of the byte at `offset`, below [`CONFIG_SPACE_SIZE`].
    pub(super) fn masks(&self, offset: usize) -> (u8, u8) {
        (self.writable[offset], self.write_1_to_clear[offset])
    }

    fn header(&mut self, config: &PciConfig) {
        let ids = config.ids;
        self.put(VENDOR_ID, ids.vendor.to_le_bytes());
        self.put(DEVICE_ID, ids.device.to_le_bytes());
        self.put_writable(COMMAND, 0, COMMAND_WRITABLE);
        self.put(STATUS, STATUS_CAPABILITIES_LIST.to_le_bytes());
        self.put_write_1_to_clear(STATUS, STATUS_ERRORS);
        self.put(REVISION_ID, [ids.revision]);
        // Programming interface 02h NVMe I/O controller, sub class 08h non-volatile memory, base class 01h
        // mass storage.
        self.put(CLASS_CODE, [0x02, 0x08, 0x01]);
        self.writable[CACHE_LINE_SIZE] = 0xff;
        self.put(BAR, BAR_64_BIT.to_le_bytes());
        put(&mut self.writable, BAR, (!(config.bar0_size - 1)).to_le_bytes());
        for (bar, size) in
            [(MSIX_TABLE_BAR, msix::table_bar_size(config.vectors)), (MSIX_PBA_BAR, msix::PBA_BAR_SIZE)]
        {
            put(&mut self.writable, BAR + 4 * bar, (!(size as u32 - 1)).to_le_bytes());
        }
        self.put(SUBSYSTEM_VENDOR_ID, ids.subsystem_vendor.to_le_bytes());
        self.put(SUBSYSTEM_ID, ids.subsystem.to_le_bytes());
        self.put(CAPABILITIES_POINTER, [PM_CAP as u8]);
        self.writable[INTERRUPT_LINE] = 0xff;
    }

    fn power_management(&mut self) {
        self.put(PM_CAP, [CAP_ID_PM, MSIX_CAP as u8]);
        self.put(PM_CAPABILITIES, PM_CAPABILITIES_VALUE.to_le_bytes());
        self.put_writable(PM_CONTROL_STATUS, PM_D0 | PM_NO_SOFT_RESET, PM_POWER_STATE);
    }

    fn msix(&mut self, vectors: u16) {
        self.put(MSIX_CAP, [CAP_ID_MSIX, EXP_CAP as u8]);
        self.put_writable(MSIX_MESSAGE_CONTROL, vectors - 1, MSIX_ENABLE | MSIX_FUNCTION_MASK);
        // Offset 0 in its BAR, BIR in the low three bits (7.7.2.3, 7.7.2.4).
        self.put(MSIX_TABLE, (MSIX_TABLE_BAR as u32).to_le_bytes());
        self.put(MSIX_PBA, (MSIX_PBA_BAR as u32).to_le_bytes());
    }

    fn express(&mut self) {
        self.put(EXP_CAP, [CAP_ID_EXP, 0]);
        self.put(EXP_CAPABILITIES, EXP_CAPABILITIES_VALUE.to_le_bytes());
        self.put(DEVICE_CAPABILITIES, DEVICE_CAPABILITIES_VALUE.to_le_bytes());
        self.put_writable(DEVICE_CONTROL, DEVICE_CONTROL_VALUE, DEVICE_CONTROL_WRITABLE);
        self.put_write_1_to_clear(DEVICE_STATUS, DEVICE_STATUS_ERRORS);
        self.put(LINK_CAPABILITIES, LINK_CAPABILITIES_VALUE.to_le_bytes());
        self.put_writable(LINK_CONTROL, 0, LINK_CONTROL_WRITABLE);
        self.put(LINK_STATUS, LINK_STATUS_VALUE.to_le_bytes());
        self.put(DEVICE_CAPABILITIES_2, COMPLETION_TIMEOUT_DISABLE.to_le_bytes());
        self.put_writable(DEVICE_CONTROL_2, 0, COMPLETION_TIMEOUT_DISABLE);
        self.put(LINK_CAPABILITIES_2, LINK_CAPABILITIES_2_VALUE.to_le_bytes());
        self.put_writable(LINK_CONTROL_2, LINK_SPEED, LINK_CONTROL_2_WRITABLE);
    }

    fn put<const N: usize>(&mut self, offset: usize, value: [u8; N]) {
        put(&mut self.initial, offset, value);
    }

    fn put_writable(&mut self, offset: usize, value: u16, writable: u16) {
        put(&mut self.initial, offset, value.to_le_bytes());
        put(&mut self.writable, offset, writable.to_le_bytes());
    }

    fn put_write_1_to_clear(&mut self, offset: usize, bits: u16) {
        put(&mut self.write_1_to_clear, offset, bits.to_le_bytes());
    }
}

/// The bits that the device acts upon.
pub(super) fn control(registers: &Registers) -> Control {
    let command = get(registers, COMMAND);
    let msix = get(registers, MSIX_MESSAGE_CONTROL);
    Control {
        memory_space: command & COMMAND_MEMORY_SPACE != 0,
        bus_master: command & COMMAND_BUS_MASTER != 0,
        power_state: match power_state_bits(registers) {
            PM_D3HOT => PowerState::D3hot,
            _ => PowerState::D0,
        },
        msix: MsixControl { enabled: msix & MSIX_ENABLE != 0, masked: msix & MSIX_FUNCTION_MASK != 0 },
    }
}

/// The PowerState field as it stands.
pub(super) fn power_state_bits(registers: &Registers) -> u16 {
    get(registers, PM_CONTROL_STATUS) & PM_POWER_STATE
}

/// Whether the low byte of the Power Management Control/Status register says D0 or D3hot; D1 and D2 are not
/// supported.
pub(super) fn is_power_state_supported(low_byte: u8) -> bool {
    matches!(u16::from(low_byte) & PM_POWER_STATE, PM_D0 | PM_D3HOT)
}

/// Undoes a write of D1 or D2 to PowerState: a state that is not supported is not entered, and the rest of
/// the write counts (7.5.2.2).
pub(super) fn drop_unsupported_power_state(registers: &mut Registers, before: u16) {
    if !is_power_state_supported(registers[PM_CONTROL_STATUS]) {
        let others = get(registers, PM_CONTROL_STATUS) & !PM_POWER_STATE;
        put(registers, PM_CONTROL_STATUS, (others | before).to_le_bytes());
    }
}

/// Whether writing `byte` at `offset` is a write of one to Initiate Function Level Reset.
pub(super) fn is_initiate_flr(offset: usize, byte: u8) -> bool {
    offset == DEVICE_CONTROL + 1 && byte & INITIATE_FLR_HIGH != 0
}

/// Carries over what a function level reset must leave alone: registers that act on the link (6.6.2).
pub(super) fn keep_link_registers(before: &Registers, after: &mut Registers) {
    for offset in [LINK_CONTROL, LINK_CONTROL_2] {
        put(after, offset, get(before, offset).to_le_bytes());
    }
}

fn blank() -> Registers {
    Box::new([0; CONFIG_SPACE_SIZE])
}

/// `offset` is one of the constants above, never a client's.
fn put<const N: usize>(registers: &mut Registers, offset: usize, value: [u8; N]) {
    registers[offset..offset + N].copy_from_slice(&value);
}

/// `offset` is one of the constants above, never a client's.
fn get(registers: &Registers, offset: usize) -> u16 {
    u16::from_le_bytes([registers[offset], registers[offset + 1]])
}
