//! Where every register of config space lives, what it holds after reset, and which of its bits a client can
//! change.
//!
//! ```text
//! 000 type 0 header   040 Power Management   050 MSI-X   080 PCI Express   100 Device Serial Number, or none
//! ```
//! Everything between is read-only zero. Sections are of the PCI Express Base Specification, 5.0.
//!
//! May know: register offsets and bits. Must not know: who reads or writes them, or what follows from it.

use std::mem::offset_of;

use nvmet_spec::pci::{
    self, CLASS_NVME, Command, DeviceCapabilities, DeviceControl, ExtendedCapabilityHeader, LinkCapabilities,
    LinkControl, MsixCapability, MsixLocation, PmCapability, Pmcsr, Status, capability, express,
    extended_capability, header,
};

use super::{Control, MsixControl, PciConfig, PowerState, msix};

/// Bytes of config space, extended config space included (7.2.2).
pub const CONFIG_SPACE_SIZE: usize = pci::EXTENDED_CONFIG_SIZE;

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

/// The registers that more than one function below looks at.
pub(super) const PM_CONTROL_STATUS: usize = PM_CAP + offset_of!(PmCapability, control_status);
const MSIX_MESSAGE_CONTROL: usize = MSIX_CAP + offset_of!(MsixCapability, control);
const DEVICE_CONTROL: usize = EXP_CAP + express::DEVICE_CONTROL;
const LINK_CONTROL: usize = EXP_CAP + express::LINK_CONTROL;
const LINK_CONTROL_2: usize = EXP_CAP + express::LINK_CONTROL_2;

/// Command (7.5.1.1.3). I/O Space Enable stays zero: there is no I/O BAR.
const COMMAND_WRITABLE: Command = Command::new()
    .with_memory_space(true)
    .with_bus_master(true)
    .with_parity_error_response(true)
    .with_serr(true)
    .with_interrupt_disable(true);

/// Status (7.5.1.1.4): the errors are write-one-to-clear.
const STATUS_ERRORS: Status = Status::new()
    .with_master_data_parity_error(true)
    .with_signaled_target_abort(true)
    .with_received_target_abort(true)
    .with_received_master_abort(true)
    .with_signaled_system_error(true)
    .with_detected_parity_error(true);

/// Power Management Capabilities (7.5.2.1): version 3; no PME, no D1, no D2.
const PM_CAPABILITIES_VALUE: u16 = 0b011;
/// The PowerState field (7.5.2.2), and what it may hold.
const PM_POWER_STATE: Pmcsr = Pmcsr::new().with_power_state(0b11);
const PM_D0: u8 = 0b00;
const PM_D3HOT: u8 = 0b11;
/// D3hot to D0 resets nothing: what a guest programmed is still there, and no two copies of it can disagree.
const PM_INITIAL: Pmcsr = Pmcsr::new().with_power_state(PM_D0).with_no_soft_reset(true);

/// Message Control (7.7.2.2): Table Size is read-only.
const MSIX_WRITABLE: pci::MsixControl = pci::MsixControl::new().with_enable(true).with_function_mask(true);

/// Capability version 2, Device/Port Type 0 (PCI Express Endpoint) (7.5.3.2).
const EXP_CAPABILITIES_VALUE: u16 = 2;
/// 128-byte payload, Role-Based Error Reporting, FLR (7.5.3.3).
const DEVICE_CAPABILITIES_VALUE: DeviceCapabilities =
    DeviceCapabilities::new().with_role_based_error_reporting(true).with_flr(true);
/// The fields of features that Device Capabilities denies (payload above 128 bytes, extended tags, phantom
/// functions) stay zero (7.5.3.4).
const DEVICE_CONTROL_WRITABLE: DeviceControl = DeviceControl::new()
    .with_error_reporting(0b1111)
    .with_relaxed_ordering(true)
    .with_no_snoop(true)
    .with_max_read_request_size(0b111);
/// Relaxed Ordering and No Snoop on, 512-byte read requests: the defaults of 7.5.3.4.
const DEVICE_CONTROL_VALUE: DeviceControl =
    DeviceControl::new().with_relaxed_ordering(true).with_no_snoop(true).with_max_read_request_size(0b010);
/// 5.0 GT/s: the fastest speed that asks for no further capability structures (8.0 GT/s wants Secondary PCI
/// Express).
const LINK_SPEED: u8 = 2;
const LINK_WIDTH: u8 = 4;
/// No ASPM (7.5.3.6).
const LINK_CAPABILITIES_VALUE: LinkCapabilities = LinkCapabilities::new()
    .with_max_speed(LINK_SPEED)
    .with_max_width(LINK_WIDTH)
    .with_aspm_optionality_compliance(true);
/// What concerns one end of the link, and not the port above (7.5.3.7).
const LINK_CONTROL_WRITABLE: LinkControl = LinkControl::new()
    .with_aspm(0b11)
    .with_read_completion_boundary(true)
    .with_common_clock(true)
    .with_extended_synch(true);
/// The link runs at what it is capable of, on the slot's clock (7.5.3.8).
const LINK_STATUS_VALUE: u16 = LINK_SPEED as u16 | (LINK_WIDTH as u16) << 4 | express::SLOT_CLOCK;
/// Supported Link Speeds Vector: 2.5 and 5.0 GT/s (7.5.3.18).
const LINK_CAPABILITIES_2_VALUE: u32 = 0b11 << 1;

/// Device Serial Number (7.9.3), last of the list.
const SERIAL_HEADER: ExtendedCapabilityHeader =
    ExtendedCapabilityHeader::new().with_id(extended_capability::DEVICE_SERIAL_NUMBER).with_version(1);

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
            layout.put(extended_capability::FIRST, SERIAL_HEADER.into_bits().to_le_bytes());
            layout.put(extended_capability::FIRST + 4, serial.to_le_bytes());
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
        self.put(header::VENDOR_ID, ids.vendor.to_le_bytes());
        self.put(header::DEVICE_ID, ids.device.to_le_bytes());
        self.put_writable(header::COMMAND, 0, COMMAND_WRITABLE.into_bits());
        self.put(header::STATUS, Status::new().with_capabilities_list(true).into_bits().to_le_bytes());
        self.put_write_1_to_clear(header::STATUS, STATUS_ERRORS.into_bits());
        self.put(header::REVISION_ID, [ids.revision]);
        let [interface, sub_class, base_class, _] = CLASS_NVME.to_le_bytes();
        self.put(header::CLASS_CODE, [interface, sub_class, base_class]);
        self.writable[header::CACHE_LINE_SIZE] = 0xff;
        self.put(header::BAR0, header::BAR_64_BIT.to_le_bytes());
        put(&mut self.writable, header::BAR0, (!(config.bar0_size - 1)).to_le_bytes());
        for (bar, size) in
            [(MSIX_TABLE_BAR, msix::table_bar_size(config.vectors)), (MSIX_PBA_BAR, msix::PBA_BAR_SIZE)]
        {
            put(&mut self.writable, header::BAR0 + 4 * bar, (!(size as u32 - 1)).to_le_bytes());
        }
        self.put(header::SUBSYSTEM_VENDOR_ID, ids.subsystem_vendor.to_le_bytes());
        self.put(header::SUBSYSTEM_ID, ids.subsystem.to_le_bytes());
        self.put(header::CAPABILITIES_POINTER, [PM_CAP as u8]);
        self.writable[header::INTERRUPT_LINE] = 0xff;
    }

    fn power_management(&mut self) {
        self.put(PM_CAP, [capability::POWER_MANAGEMENT, MSIX_CAP as u8]);
        self.put(PM_CAP + offset_of!(PmCapability, capabilities), PM_CAPABILITIES_VALUE.to_le_bytes());
        self.put_writable(PM_CONTROL_STATUS, PM_INITIAL.into_bits(), PM_POWER_STATE.into_bits());
    }

    fn msix(&mut self, vectors: u16) {
        let control = pci::MsixControl::new().with_table_size_z(vectors - 1);
        // Both at offset 0 in their BARs (7.7.2.3, 7.7.2.4).
        let [table, pba] = [MSIX_TABLE_BAR, MSIX_PBA_BAR].map(|bar| MsixLocation::new().with_bir(bar as u8));
        self.put(MSIX_CAP, [capability::MSIX, EXP_CAP as u8]);
        self.put_writable(MSIX_MESSAGE_CONTROL, control.into_bits(), MSIX_WRITABLE.into_bits());
        self.put(MSIX_CAP + offset_of!(MsixCapability, table), table.into_bits().to_le_bytes());
        self.put(MSIX_CAP + offset_of!(MsixCapability, pba), pba.into_bits().to_le_bytes());
    }

    fn express(&mut self) {
        let device_capabilities = DEVICE_CAPABILITIES_VALUE.into_bits();
        let timeout_disable = express::COMPLETION_TIMEOUT_DISABLE;
        self.put(EXP_CAP, [capability::PCI_EXPRESS, 0]);
        self.put(EXP_CAP + express::CAPABILITIES, EXP_CAPABILITIES_VALUE.to_le_bytes());
        self.put(EXP_CAP + express::DEVICE_CAPABILITIES, device_capabilities.to_le_bytes());
        self.put_writable(
            DEVICE_CONTROL,
            DEVICE_CONTROL_VALUE.into_bits(),
            DEVICE_CONTROL_WRITABLE.into_bits(),
        );
        self.put_write_1_to_clear(EXP_CAP + express::DEVICE_STATUS, express::ERRORS_DETECTED);
        self.put(EXP_CAP + express::LINK_CAPABILITIES, LINK_CAPABILITIES_VALUE.into_bits().to_le_bytes());
        self.put_writable(LINK_CONTROL, 0, LINK_CONTROL_WRITABLE.into_bits());
        self.put(EXP_CAP + express::LINK_STATUS, LINK_STATUS_VALUE.to_le_bytes());
        self.put(EXP_CAP + express::DEVICE_CAPABILITIES_2, timeout_disable.to_le_bytes());
        self.put_writable(EXP_CAP + express::DEVICE_CONTROL_2, 0, timeout_disable);
        self.put(EXP_CAP + express::LINK_CAPABILITIES_2, LINK_CAPABILITIES_2_VALUE.to_le_bytes());
        self.put_writable(LINK_CONTROL_2, u16::from(LINK_SPEED), express::TARGET_LINK_SPEED);
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
    let command = Command::from_bits(get(registers, header::COMMAND));
    let msix = pci::MsixControl::from_bits(get(registers, MSIX_MESSAGE_CONTROL));
    Control {
        memory_space: command.memory_space(),
        bus_master: command.bus_master(),
        power_state: match power_state_bits(registers) {
            PM_D3HOT => PowerState::D3hot,
            _ => PowerState::D0,
        },
        msix: MsixControl { enabled: msix.enable(), masked: msix.function_mask() },
    }
}

/// The PowerState field as it stands.
pub(super) fn power_state_bits(registers: &Registers) -> u8 {
    Pmcsr::from_bits(get(registers, PM_CONTROL_STATUS)).power_state()
}

/// Whether the low byte of the Power Management Control/Status register says D0 or D3hot; D1 and D2 are not
/// supported.
pub(super) fn is_power_state_supported(low_byte: u8) -> bool {
    matches!(Pmcsr::from_bits(low_byte.into()).power_state(), PM_D0 | PM_D3HOT)
}

/// Undoes a write of D1 or D2 to PowerState: a state that is not supported is not entered, and the rest of
/// the write counts (7.5.2.2).
pub(super) fn drop_unsupported_power_state(registers: &mut Registers, before: u8) {
    if !is_power_state_supported(registers[PM_CONTROL_STATUS]) {
        let written = Pmcsr::from_bits(get(registers, PM_CONTROL_STATUS));
        put(registers, PM_CONTROL_STATUS, written.with_power_state(before).into_bits().to_le_bytes());
    }
}

/// Whether writing `byte` at `offset` is a write of one to Initiate Function Level Reset, which is in the high
/// byte of Device Control.
pub(super) fn is_initiate_flr(offset: usize, byte: u8) -> bool {
    offset == DEVICE_CONTROL + 1 && DeviceControl::from_bits(u16::from(byte) << 8).initiate_flr()
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
