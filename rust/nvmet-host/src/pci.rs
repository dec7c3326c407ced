//! The little of PCI configuration space that this host needs (PCIe Base §7.5.1).

use crate::HostError;
use nvmet_spec::pci::{CLASS_NVME, Status, header};
use std::path::Path;

/// Bytes of the header that identify the device.
pub(crate) const HEADER_BYTES: usize = 64;

/// Who the device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct PciIdentity {
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

/// Reads a little-endian word of `config`; all ones beyond its end, as the bus answers.
pub(crate) fn word(config: &[u8], offset: usize) -> u16 {
    let bytes = config.get(offset..offset + 2).and_then(|bytes| bytes.try_into().ok());
    u16::from_le_bytes(bytes.unwrap_or([0xFF; 2]))
}

/// Checks that the header in `config` is that of an NVMe controller.
pub(crate) fn identify(config: &[u8], path: &Path) -> Result<PciIdentity, HostError> {
    let byte = |offset: usize| config.get(offset).copied().unwrap_or(0xFF);
    let (vendor, device) = (word(config, header::VENDOR_ID), word(config, header::DEVICE_ID));
    let [interface, sub_class, base_class] = [0, 1, 2].map(|at| byte(header::CLASS_CODE + at));
    let class = u32::from_le_bytes([interface, sub_class, base_class, 0]);
    if class != CLASS_NVME {
        return Err(HostError::NotNvme { path: path.to_owned(), vendor, device, class });
    }
    Ok(PciIdentity {
        vendor,
        device,
        subsystem_vendor: word(config, header::SUBSYSTEM_VENDOR_ID),
        subsystem: word(config, header::SUBSYSTEM_ID),
        revision: byte(header::REVISION_ID),
    })
}

/// Where capability `id` is, by walking the list through `read`, which reads a word of configuration space. `None`
/// when it is absent or the list is broken.
pub(crate) fn find_capability(
    config: &[u8],
    id: u8,
    mut read: impl FnMut(u64) -> Result<u16, HostError>,
) -> Result<Option<u64>, HostError> {
    if !Status::from_bits(word(config, header::STATUS)).capabilities_list() {
        return Ok(None);
    }
    let mut at = config.get(header::CAPABILITIES_POINTER).copied().unwrap_or(0) & !3;
    // 192 bytes hold 48 capabilities; a longer walk goes in a circle.
    for _ in 0..48 {
        if usize::from(at) < HEADER_BYTES {
            return Ok(None);
        }
        let [found, next] = read(u64::from(at))?.to_le_bytes();
        if found == id {
            return Ok(Some(u64::from(at)));
        }
        at = next & !3;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvmet_spec::pci::capability;

    fn nvme() -> Vec<u8> {
        let mut config = vec![0; HEADER_BYTES];
        config[0x00..0x04].copy_from_slice(&[0x36, 0x1b, 0x10, 0x00]);
        config[0x06] = 1 << 4;
        config[0x08..0x0C].copy_from_slice(&[3, 0x02, 0x08, 0x01]);
        config[0x34] = 0x40;
        config
    }

    #[test]
    fn an_nvme_controller_is_recognised_and_another_device_is_named() {
        let mut config = nvme();
        let identity = identify(&config, Path::new("/s")).unwrap();
        assert_eq!((identity.vendor, identity.device, identity.revision), (0x1b36, 0x10, 3));
        config[0x0B] = 2;
        let error = identify(&config, Path::new("/s")).unwrap_err().to_string();
        assert!(error.contains("1b36:0010") && error.contains("020802"), "{error}");
    }

    #[test]
    fn an_empty_slot_is_no_drive() {
        assert!(identify(&[0xFF; 64], Path::new("/s")).is_err());
        assert!(identify(&[], Path::new("/s")).is_err());
    }

    #[test]
    fn a_capability_is_found_and_a_circle_ends() {
        let list = |at: u64| Ok(if at == 0x40 { 0x5001 } else { 0x4011 });
        assert_eq!(find_capability(&nvme(), capability::MSIX, list).unwrap(), Some(0x50));
        assert_eq!(find_capability(&nvme(), capability::PCI_EXPRESS, list).unwrap(), None);
        assert_eq!(find_capability(&[0; 64], capability::MSIX, list).unwrap(), None);
    }
}
