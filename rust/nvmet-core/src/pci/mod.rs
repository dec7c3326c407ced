//! The PCI function: 4096 bytes of config space with true write masks, and the memory of its MSI-X BARs.
//!
//! A type 0 function of class 01 08 02 with three memory BARs and nothing else: BAR0 (64-bit) for the
//! controller registers and doorbells, BAR4 for the MSI-X Table, BAR5 for the Pending Bit Array. No I/O BAR,
//! no ROM, no interrupt pin. Capabilities: PCI Power Management, MSI-X, PCI Express v2 (endpoint with FLR),
//! Device Serial Number.
//!
//! What a client writes changes exactly the bits that the specification makes writable; every access of any
//! size succeeds. BAR *values* are storage only: a client sizes BARs here and places them elsewhere, so
//! nothing is ever decoded by them.
//!
//! May know: the PCI specifications, and which registers the NVMe over PCIe transport fixes. Must not know:
//! vfio-user, eventfds, NVMe queues. It reports what a write means ([`Effects`]) and lets the device act:
//! nothing here waits, and a reset is done only when the device, having quiesced, calls
//! [`PciFunction::reset`].

mod ids;
mod layout;
pub mod msix;

#[cfg(test)]
mod tests;

use thiserror::Error;

pub use self::ids::{PciIds, device_serial_number};
pub use self::layout::CONFIG_SPACE_SIZE;
use self::layout::{Layout, Registers};

/// Smallest BAR0: Windows `stornvme` takes the base address from bits 63:14 only.
pub const MIN_BAR0_SIZE: u64 = 16 << 10;

/// Largest BAR0: ample for the doorbells of 65,536 queue pairs, and small enough for any guest's MMIO window.
pub const MAX_BAR0_SIZE: u64 = 16 << 20;

/// Why a PCI function cannot be built or restored as asked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PciError {
    /// An id that tells a guest that there is no device.
    #[error(
        "PCI {register} id {value:#06x} is reserved: use the id of a PCI-SIG member, or leave it out for the default"
    )]
    ReservedVendor {
        /// Which id: "vendor" or "subsystem vendor".
        register: &'static str,
        /// The refused value.
        value: u16,
    },
    /// BAR0 that guests cannot use.
    #[error("BAR0 of {size} bytes: must be a power of two from {MIN_BAR0_SIZE} to {MAX_BAR0_SIZE} bytes")]
    Bar0Size {
        /// The refused size in bytes.
        size: u64,
    },
    /// A vector count that the MSI-X capability cannot express.
    #[error("{vectors} MSI-X vectors: must be 1 to {}", msix::MAX_VECTORS)]
    Vectors {
        /// The refused count.
        vectors: u16,
    },
    /// A saved config space of the wrong length.
    #[error("saved PCI config space has {length} bytes: must be {CONFIG_SPACE_SIZE}")]
    StateLength {
        /// The refused length in bytes.
        length: usize,
    },
    /// A saved config space of a function that is not this one.
    #[error(
        "saved PCI config space differs at {offset:#x} in bits that no guest can change (saved {saved:#04x}, here \
         {here:#04x}): restore with the PCI ids, BAR0 size, vectors and serial that it was saved with"
    )]
    StateMismatch {
        /// First differing byte.
        offset: usize,
        /// That byte as saved.
        saved: u8,
        /// That byte in this function.
        here: u8,
    },
}

/// What a PCI function is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciConfig {
    /// Identity.
    pub ids: PciIds,
    /// Size of BAR0 in bytes, a power of two from [`MIN_BAR0_SIZE`] to [`MAX_BAR0_SIZE`].
    pub bar0_size: u64,
    /// MSI-X vectors, 1 to [`msix::MAX_VECTORS`].
    pub vectors: u16,
    /// Value of the Device Serial Number capability; without one the function has no extended capability.
    pub serial: Option<u64>,
}

/// Power state of the function (PCIe Base 5.3.1). D1 and D2 are not supported; D3cold is the client closing
/// the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// Fully on.
    D0,
    /// Config space only: memory requests are not answered and no interrupt is sent.
    D3hot,
}

/// The writable bits of MSI-X Message Control (PCIe Base 7.7.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixControl {
    /// MSI-X Enable.
    pub enabled: bool,
    /// Function Mask: all vectors masked, whatever their own mask bits say.
    pub masked: bool,
}

/// What a change of config space means to the device. A field is `Some` only if its value really changed.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Bus Master Enable: `false` stops DMA and interrupts (PCIe Base 7.5.1.1.3).
    pub bus_master: Option<bool>,
    /// Memory Space Enable: `false` stops access to the BARs.
    pub memory_space: Option<bool>,
    /// Initiate Function Level Reset was written with one: quiesce, then [`PciFunction::reset`] with
    /// [`Reset::Function`].
    pub flr: bool,
    /// New power state. No_Soft_Reset is set, so going back to D0 resets nothing.
    pub power_state: Option<PowerState>,
    /// New MSI-X Message Control.
    pub msix: Option<MsixControl>,
}

impl Effects {
    /// Nothing for the device to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn between(before: Control, after: Control) -> Self {
        fn changed<T: PartialEq + Copy>(before: T, after: T) -> Option<T> {
            (before != after).then_some(after)
        }
        Self {
            bus_master: changed(before.bus_master, after.bus_master),
            memory_space: changed(before.memory_space, after.memory_space),
            flr: false,
            power_state: changed(before.power_state, after.power_state),
            msix: changed(before.msix, after.msix),
        }
    }
}

/// How the function is reset; they differ in what survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Function Level Reset (PCIe Base 6.6.2): registers that belong to the link rather than to the function
    /// survive, here the writable fields of Link Control and Link Control 2.
    Function,
    /// Conventional reset (PCIe Base 6.6.1), which is what a vfio-user DEVICE_RESET stands for: everything
    /// goes back to its initial value.
    Conventional,
}

/// Config space as plain data, to be written down and given to [`PciFunction::restore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciState {
    /// All [`CONFIG_SPACE_SIZE`] bytes.
    pub config_space: Vec<u8>,
}

/// The bits of config space that the device acts upon.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Control {
    memory_space: bool,
    bus_master: bool,
    power_state: PowerState,
    msix: MsixControl,
}

/// The PCI function of one controller.
#[derive(Clone, Debug)]
pub struct PciFunction {
    config: PciConfig,
    layout: Layout,
    registers: Registers,
}

impl PciFunction {
    /// A function as after power-on.
    ///
    /// # Errors
    /// [`PciError`] naming the member of `config` that is out of its range.
    pub fn new(config: PciConfig) -> Result<Self, PciError> {
        config.ids.validate()?;
        if !config.bar0_size.is_power_of_two() || !(MIN_BAR0_SIZE..=MAX_BAR0_SIZE).contains(&config.bar0_size)
        {
            return Err(PciError::Bar0Size { size: config.bar0_size });
        }
        msix::check_vectors(config.vectors)?;
        let layout = Layout::new(&config);
        let registers = layout.initial().clone();
        Ok(Self { config, layout, registers })
    }

    /// What the function was made of.
    #[must_use]
    pub fn config(&self) -> &PciConfig {
        &self.config
    }

    /// Size in bytes of BAR `index` (0 to 5); 0 if there is none, also for the upper half of BAR0.
    #[must_use]
    pub fn bar_size(&self, index: usize) -> u64 {
        match index {
            0 => self.config.bar0_size,
            layout::MSIX_TABLE_BAR => msix::table_bar_size(self.config.vectors),
            layout::MSIX_PBA_BAR => msix::PBA_BAR_SIZE,
            _ => 0,
        }
    }

    /// Memory Space Enable.
    #[must_use]
    pub fn memory_space(&self) -> bool {
        self.control().memory_space
    }

    /// Bus Master Enable: without it the function may neither access guest memory nor send interrupts.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        self.control().bus_master
    }

    /// Current power state.
    #[must_use]
    pub fn power_state(&self) -> PowerState {
        self.control().power_state
    }

    /// Current MSI-X Message Control.
    #[must_use]
    pub fn msix_control(&self) -> MsixControl {
        self.control().msix
    }

    /// Reads config space from `offset`, any size and alignment. Bytes outside of it read as ones, as from no
    /// device.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some(bytes) = usize::try_from(offset).ok().and_then(|at| self.registers.get(at..)) else {
            return;
        };
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    /// Writes config space at `offset`, any size and alignment. Read-only bits and bytes outside keep their
    /// value.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Effects {
        let before = self.control();
        let power = layout::power_state_bits(&self.registers);
        let mut flr = false;
        // An offset that does not fit is as far outside as one that does.
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, &byte) in (start..CONFIG_SPACE_SIZE).zip(data) {
            flr |= layout::is_initiate_flr(at, byte);
            let (writable, write_1_to_clear) = self.layout.masks(at);
            let old = self.registers[at];
            self.registers[at] = ((old & !writable) | (byte & writable)) & !(byte & write_1_to_clear);
        }
        layout::drop_unsupported_power_state(&mut self.registers, power);
        Effects { flr, ..Effects::between(before, self.control()) }
    }

    /// Resets the function. The effects tell what that switched off; `flr` is never set in them.
    pub fn reset(&mut self, reset: Reset) -> Effects {
        let before = self.control();
        let old = std::mem::replace(&mut self.registers, self.layout.initial().clone());
        if reset == Reset::Function {
            layout::keep_link_registers(&old, &mut self.registers);
        }
        Effects::between(before, self.control())
    }

    /// All of config space, to be written down.
    #[must_use]
    pub fn snapshot(&self) -> PciState {
        PciState { config_space: self.registers.to_vec() }
    }

    /// Takes over a saved config space. The effects are relative to the function as it was before.
    ///
    /// # Errors
    /// [`PciError::StateLength`] or [`PciError::StateMismatch`] if the state is not one that this function can reach; the
    /// function is unchanged then.
    pub fn restore(&mut self, state: &PciState) -> Result<Effects, PciError> {
        let saved: Registers = match <[u8; CONFIG_SPACE_SIZE]>::try_from(state.config_space.as_slice()) {
            Ok(bytes) => Box::new(bytes),
            Err(_) => return Err(PciError::StateLength { length: state.config_space.len() }),
        };
        let reachable = self.layout.initial();
        for (offset, (&saved, &here)) in saved.iter().zip(reachable.iter()).enumerate() {
            let (writable, _) = self.layout.masks(offset);
            let supported = offset != layout::PM_CONTROL_STATUS || layout::is_power_state_supported(saved);
            if (saved ^ here) & !writable != 0 || !supported {
                return Err(PciError::StateMismatch { offset, saved, here });
            }
        }
        let before = self.control();
        self.registers = saved;
        Ok(Effects::between(before, self.control()))
    }

    fn control(&self) -> Control {
        layout::control(&self.registers)
    }
}
