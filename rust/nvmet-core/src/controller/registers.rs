//! The register file in BAR0 below the doorbells (NVMe Base 2.0, 3.1.3; PCIe Transport 1.1, 3.1.1).
//!
//! Plain data with the access rules: widths, read-only bits, write-1-to-set, write-1-to-clear. What a write sets in
//! motion is the controller's business.

use nvmet_spec::registers::{
    self, Aqa, CAP_CSS_NVM, Cap, Cc, Crto, Csts, NSSR_MAGIC, ShutdownNotification, Vs,
};

/// CAP.MPSMAX and CAP.MPSMIN: 64 KiB and 4 KiB, as powers of two above 4 KiB.
const MPS: (u8, u8) = (0, 4);
/// CAP.TO, in units of 500 ms: how long a host waits for CSTS.RDY to change.
const TIMEOUT: u8 = 40;

/// What a register write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// CC.EN went from 0 to 1.
    Enable,
    /// CC.EN went from 1 to 0.
    Disable,
    /// CC.SHN became a shutdown notification.
    Shutdown(ShutdownNotification),
    /// NSSR was written with its magic number.
    SubsystemReset,
}

/// The registers that hold something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    cap: Cap,
    /// Interrupt masks; of no effect with MSI-X.
    intms: u32,
    /// Controller Configuration.
    pub cc: Cc,
    /// Controller Status.
    pub csts: Csts,
    /// Admin Queue Attributes.
    pub aqa: Aqa,
    /// Admin Submission Queue Base Address.
    pub asq: u64,
    /// Admin Completion Queue Base Address.
    pub acq: u64,
}

impl Registers {
    /// Registers after power on, for I/O queues of at most `entries` entries (2 to 65536).
    pub fn new(entries: u32) -> Self {
        let cap = Cap::new()
            .with_mqes_z((entries.clamp(2, 65536) - 1) as u16)
            .with_cqr(true)
            .with_to(TIMEOUT)
            .with_dstrd(0)
            .with_nssrs(true)
            .with_css(CAP_CSS_NVM)
            .with_mpsmin(MPS.0)
            .with_mpsmax(MPS.1)
            .with_crwms(true);
        Self { cap, intms: 0, cc: Cc::new(), csts: Csts::new(), aqa: Aqa::new(), asq: 0, acq: 0 }
    }

    /// Whether the host may reset the NVM subsystem (CAP.NSSRS).
    pub fn with_subsystem_reset(mut self, supported: bool) -> Self {
        self.cap.set_nssrs(supported);
        self
    }

    /// Back to power on, but for what outlives a reset of the kind: CSTS.NSSRO, and, over a Controller Reset, the
    /// admin queue registers (NVMe Base 2.0, 3.7.2).
    pub fn reset(&mut self, keep_admin_queues: bool) {
        let mut fresh = Self::new(self.cap.mqes());
        fresh.cap = self.cap;
        let old = std::mem::replace(self, fresh);
        self.csts.set_nssro(old.csts.nssro());
        if keep_admin_queues {
            (self.aqa, self.asq, self.acq) = (old.aqa, old.asq, old.acq);
        }
    }

    /// Whether CC.MPS is between CAP.MPSMIN and CAP.MPSMAX.
    pub fn page_size_is_supported(&self) -> bool {
        (MPS.0..=MPS.1).contains(&self.cc.mps())
    }

    fn dword(&self, offset: u64) -> u32 {
        let half = |value: u64, base: u64| if offset == base { value as u32 } else { (value >> 32) as u32 };
        match offset {
            0x00 | 0x04 => half(self.cap.into_bits(), registers::CAP),
            registers::VS => Vs::V2_0.into_bits(),
            registers::INTMS | registers::INTMC => self.intms,
            registers::CC => self.cc.into_bits(),
            registers::CSTS => self.csts.into_bits(),
            registers::AQA => self.aqa.into_bits(),
            0x28 | 0x2c => half(self.asq, registers::ASQ),
            0x30 | 0x34 => half(self.acq, registers::ACQ),
            // A host may take as long as CAP.TO says; the two agree (NVMe Base 2.0, 3.1.3.22).
            registers::CRTO => Crto::new().with_crwmt(u16::from(self.cap.to())).into_bits(),
            _ => 0,
        }
    }

    /// Reads `data.len()` bytes at `offset`. Any width and alignment reads what is there; reserved bytes read 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data.iter_mut()) {
            *byte = self.dword(at & !3).to_le_bytes()[(at & 3) as usize];
        }
    }

    /// Writes `data` at `offset`. Only aligned accesses of 4 and 8 bytes count, as the specification has it; the rest
    /// is ignored. At most two effects come of it, in order.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> [Option<Effect>; 2] {
        let mut effects = [None, None];
        if !offset.is_multiple_of(4) || !matches!(data.len(), 4 | 8) {
            return effects;
        }
        for ((at, bytes), effect) in (offset..).step_by(4).zip(data.chunks_exact(4)).zip(&mut effects) {
            let value = bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
            *effect = self.write_dword(at, value);
        }
        effects
    }

    fn write_dword(&mut self, offset: u64, value: u32) -> Option<Effect> {
        let low = |old: u64| old & 0xffff_ffff_0000_0000 | u64::from(value & 0xffff_f000);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            registers::INTMS => self.intms |= value,
            registers::INTMC => self.intms &= !value,
            registers::CC => return self.write_cc(Cc::from_bits(value)),
            registers::CSTS if Csts::from_bits(value).nssro() => self.csts.set_nssro(false),
            registers::NSSR if value == NSSR_MAGIC && self.cap.nssrs() => {
                return Some(Effect::SubsystemReset);
            }
            registers::AQA => {
                let new = Aqa::from_bits(value);
                self.aqa = Aqa::new().with_asqs_z(new.asqs_z()).with_acqs_z(new.acqs_z());
            }
            0x28 => self.asq = low(self.asq),
            0x2c => self.asq = high(self.asq),
            0x30 => self.acq = low(self.acq),
            0x34 => self.acq = high(self.acq),
            _ => {}
        }
        None
    }

    fn write_cc(&mut self, new: Cc) -> Option<Effect> {
        let old = self.cc;
        let mut cc = Cc::new()
            .with_en(new.en())
            .with_css(new.css())
            .with_mps(new.mps())
            .with_ams(new.ams())
            .with_shn(new.shn())
            .with_iosqes(new.iosqes())
            .with_iocqes(new.iocqes());
        if old.en() && new.en() {
            // These may change only while the controller is disabled.
            cc = cc.with_css(old.css()).with_mps(old.mps()).with_ams(old.ams());
        }
        self.cc = cc;
        match (old.en(), new.en()) {
            (false, true) => Some(Effect::Enable),
            (true, false) => Some(Effect::Disable),
            _ if new.shn() != old.shn()
                && matches!(new.shn(), ShutdownNotification::Normal | ShutdownNotification::Abrupt) =>
            {
                Some(Effect::Shutdown(new.shn()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(registers: &Registers, offset: u64, len: usize) -> u64 {
        let mut data = [0; 8];
        registers.read(offset, &mut data[..len]);
        u64::from_le_bytes(data)
    }

    #[test]
    fn cap_reads_the_same_in_one_or_two_pieces() {
        let registers = Registers::new(1024);
        let whole = read(&registers, 0, 8);
        assert_eq!(whole, read(&registers, 0, 4) | read(&registers, 4, 4) << 32);
        let cap = Cap::from_bits(whole);
        assert_eq!((cap.mqes(), cap.cqr(), cap.dstrd()), (1024, true, 0));
        assert_eq!((cap.mpsmin(), cap.mpsmax()), (0, 4));
    }

    #[test]
    fn read_only_registers_ignore_writes() {
        let mut registers = Registers::new(1024);
        let before = registers.clone();
        for offset in [0x00, 0x04, 0x08, 0x1c, 0x38, 0x3c, 0x40, 0x64, 0x68, 0xe00, 0xffc] {
            assert_eq!(registers.write(offset, &[0xff; 4]), [None, None], "{offset:#x}");
        }
        registers.csts.set_nssro(false);
        assert_eq!(registers, before);
    }

    #[test]
    fn interrupt_masks_are_set_and_cleared_by_ones() {
        let mut registers = Registers::new(1024);
        let _ = registers.write(registers::INTMS, &0b1110u32.to_le_bytes());
        let _ = registers.write(registers::INTMC, &0b0100u32.to_le_bytes());
        assert_eq!(read(&registers, registers::INTMS, 4), 0b1010);
        assert_eq!(read(&registers, registers::INTMC, 4), 0b1010);
    }

    #[test]
    fn nssro_is_cleared_by_one_and_outlives_resets() {
        let mut registers = Registers::new(1024);
        registers.csts.set_nssro(true);
        registers.reset(false);
        let _ = registers.write(registers::CSTS, &0u32.to_le_bytes());
        assert!(registers.csts.nssro());
        let _ = registers.write(registers::CSTS, &(1u32 << 4).to_le_bytes());
        assert!(!registers.csts.nssro());
    }

    #[test]
    fn enable_and_disable_are_edges() {
        let mut registers = Registers::new(1024);
        let enabled = Cc::new().with_en(true).with_iosqes(6).with_iocqes(4);
        let write = |registers: &mut Registers, cc: Cc| {
            registers.write(registers::CC, &cc.into_bits().to_le_bytes())[0]
        };
        assert_eq!(write(&mut registers, enabled), Some(Effect::Enable));
        assert_eq!(write(&mut registers, enabled.with_mps(3)), None);
        assert_eq!(registers.cc.mps(), 0, "MPS cannot change while enabled");
        let shutdown = enabled.with_shn(ShutdownNotification::Normal);
        assert_eq!(write(&mut registers, shutdown), Some(Effect::Shutdown(ShutdownNotification::Normal)));
        assert_eq!(write(&mut registers, shutdown), None);
        assert_eq!(write(&mut registers, Cc::new()), Some(Effect::Disable));
    }

    #[test]
    fn an_eight_byte_write_is_two_registers() {
        let mut registers = Registers::new(1024);
        let _ = registers.write(registers::ASQ, &0x1234_5678_9abc_d000u64.to_le_bytes());
        assert_eq!(registers.asq, 0x1234_5678_9abc_d000);
        let _ = registers.write(registers::ACQ, &0xfffu64.to_le_bytes());
        assert_eq!(registers.acq, 0, "the low bits are reserved");
    }

    proptest! {
        #[test]
        fn no_write_of_any_shape_changes_what_is_read_only(writes in prop::collection::vec((0u64..0x1000, prop::collection::vec(any::<u8>(), 0..9)), 0..64)) {
            let mut registers = Registers::new(512);
            for (offset, data) in writes {
                let _ = registers.write(offset, &data);
            }
            prop_assert_eq!(read(&registers, 0, 8), read(&Registers::new(512), 0, 8));
            prop_assert_eq!(read(&registers, registers::VS, 4), 0x0002_0000);
            prop_assert!(!registers.csts.rdy() && !registers.csts.cfs());
        }

        #[test]
        fn reads_of_any_shape_agree(offset in 0u64..0xff0, len in 0usize..16) {
            let registers = Registers::new(512);
            let mut data = vec![0xaa; len];
            registers.read(offset, &mut data);
            for (at, &byte) in data.iter().enumerate() {
                prop_assert_eq!(u64::from(byte), read(&registers, offset + at as u64, 1));
            }
        }
    }
}
