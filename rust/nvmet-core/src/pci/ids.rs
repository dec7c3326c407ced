//! Who the function says it is: PCI ids, and the serial number of the PCIe Device Serial Number capability.
//!
//! # The default ids, and why
//!
//! Every guest driver binds by class code 01 08 02 (Linux `nvme`, Windows `stornvme`, UEFI, SeaBIOS, the
//! BSDs), so the ids choose no driver: they only decide which *quirks* a guest applies. The default is
//! **1af4:10f8**:
//!
//! * Red Hat, who owns vendor 1af4, offers device ids 10f0 to 10ff for use without registration (QEMU's
//!   `docs/specs/pci-ids.rst`). We know of no other vendor who does, and this project has no vendor id.
//! * The quirk table of Linux `nvme` has no entry for it, and `stornvme` installs for `PCI\CC_010802`. Linux
//!   `virtio_pci` matches all of vendor 1af4 but declines device ids outside 1000 to 107f, so `nvme` gets the
//!   function.
//! * 1b36:0010 and 8086:5845 are QEMU's and carry `NVME_QUIRK_BOGUS_NID` in Linux: our namespace ids are real
//!   and would be ignored. 4e58:0001 is what SPDK's vfio-user target shows and 1414:c03e is OpenVMM's: free
//!   of quirks, but other people's products, whose future quirks we would inherit. Subsystem 1af4:1100 means
//!   "emulated by QEMU" and is avoided for the same reason.
//!
//! The range is meant for use until an id is assigned: whoever ships the drive as part of a product of their
//! own configures their own ids.
//!
//! May know: the value rules of the id registers. Must not know: where in config space they live.

use super::PciError;

/// PCI identity of the function (PCIe Base 7.5.1.1.1, 7.5.1.1.2, 7.5.1.1.5, 7.5.1.2.3).
///
/// Identify Controller's VID and SSVID are the same values (NVMe Base 2.0 5.17.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciIds {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem Vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Revision ID.
    pub revision: u8,
}

impl Default for PciIds {
    fn default() -> Self {
        Self { vendor: 0x1af4, device: 0x10f8, subsystem_vendor: 0x1af4, subsystem: 0x10f8, revision: 1 }
    }
}

impl PciIds {
    /// Checks that a guest will see a device behind these ids.
    ///
    /// # Errors
    /// [`PciError::ReservedVendor`] for a vendor or subsystem vendor of 0000h (reads as "not programmed"), 0001h (a
    /// root port's answer for "retry later", PCIe Base 2.3.2) or FFFFh (reads as "no device").
    pub fn validate(&self) -> Result<(), PciError> {
        for (register, value) in [("vendor", self.vendor), ("subsystem vendor", self.subsystem_vendor)] {
            if matches!(value, 0x0000 | 0x0001 | 0xffff) {
                return Err(PciError::ReservedVendor { register, value });
            }
        }
        Ok(())
    }
}

/// An EUI-64 for the Device Serial Number capability (PCIe Base 7.9.3), derived from the drive's serial
/// number.
///
/// Stable for a serial, so a guest sees the same function after a restart. Without an OUI of our own the
/// value is marked as locally administered (bit 1 of the first octet) and individual (bit 0 clear), which is
/// what IEEE gives to such use.
#[must_use]
pub fn device_serial_number(serial: &str) -> u64 {
    // FNV-1a, 64 bits: needs to be stable across releases, not strong.
    let hash = serial.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash & !(0x03 << 56)) | (0x02 << 56)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_ids_are_valid_and_nobody_elses() {
        let ids = PciIds::default();
        ids.validate().expect("valid");
        let quirky_or_taken = [(0x1b36, 0x0010), (0x8086, 0x5845), (0x4e58, 0x0001), (0x1414, 0xc03e)];
        assert!(!quirky_or_taken.contains(&(ids.vendor, ids.device)));
        assert_eq!(ids.vendor, 0x1af4);
        assert!((0x10f0..=0x10ff).contains(&ids.device), "outside the range offered for unregistered use");
        assert_ne!((ids.subsystem_vendor, ids.subsystem), (0x1af4, 0x1100));
    }

    #[test]
    fn reserved_vendors_are_refused_by_name() {
        for value in [0x0000, 0x0001, 0xffff] {
            let error = PciIds { vendor: value, ..PciIds::default() }.validate().expect_err("refused");
            assert!(error.to_string().starts_with("PCI vendor id"), "{error}");
            let error =
                PciIds { subsystem_vendor: value, ..PciIds::default() }.validate().expect_err("refused");
            assert!(error.to_string().starts_with("PCI subsystem vendor id"), "{error}");
        }
    }

    #[test]
    fn the_serial_number_is_stable_local_and_differs_by_serial() {
        let one = device_serial_number("NVMET0001");
        assert_eq!(one, device_serial_number("NVMET0001"));
        assert_ne!(one, device_serial_number("NVMET0002"));
        for serial in ["", "a", "NVMET0001", "é"] {
            assert_eq!(device_serial_number(serial) >> 56 & 0x03, 0x02);
        }
    }
}
