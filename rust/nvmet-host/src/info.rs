//! What Identify says, as plain values for people and programs.
//!
//! What a server sent is not trusted: any value of a field makes sense or gives an error.

use crate::{Drive, HostError, PciIdentity};
use nvmet_spec::identify::{
    IDENTIFY_SIZE, IdentifyController, IdentifyNamespace, LbaFormat, NAMESPACE_LIST_ENTRIES,
    NamespaceDescriptor, ascii_text, cns, namespace_descriptors,
};
use zerocopy::FromBytes;

/// Namespaces that [`Drive::active_namespaces`] lists at most: 64 pages.
const MAX_NAMESPACES: usize = 65_536;

/// An Identify Controller data structure (Base §5.17.2.1), and what CAP and VS add.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct ControllerInfo {
    /// Serial Number (SN).
    pub serial: String,
    /// Model Number (MN).
    pub model: String,
    /// Firmware Revision (FR).
    pub firmware: String,
    /// NVM Subsystem NVMe Qualified Name (SUBNQN).
    pub subnqn: String,
    /// Specification version (VER), such as "2.0.0".
    pub version: String,
    /// PCI Vendor ID (VID).
    pub vendor_id: u16,
    /// PCI Subsystem Vendor ID (SSVID).
    pub subsystem_vendor_id: u16,
    /// IEEE OUI Identifier (IEEE), most significant byte first.
    pub ieee_oui: String,
    /// Controller ID (CNTLID).
    pub controller_id: u16,
    /// Number of Namespaces (NN): the largest namespace identifier.
    pub namespaces: u32,
    /// Maximum Data Transfer Size (MDTS): 0 no limit, else a power of two in units of the smallest page.
    pub mdts: u8,
    /// Asynchronous Event Request Limit (AERL), 0's based.
    pub aerl_z: u8,
    /// Abort Command Limit (ACL), 0's based.
    pub acl_z: u8,
    /// Error Log Page Entries (ELPE), 0's based.
    pub elpe_z: u8,
    /// Optional Admin Command Support (OACS).
    pub oacs: u16,
    /// Optional NVM Command Support (ONCS).
    pub oncs: u16,
    /// Fused Operation Support (FUSES).
    pub fuses: u16,
    /// SGL Support (SGLS).
    pub sgls: u32,
    /// Whether there is a volatile write cache (VWC bit 0).
    pub volatile_write_cache: bool,
    /// Whether Doorbell Buffer Config is supported (OACS bit 8).
    pub doorbell_buffer_config: bool,
    /// RTD3 Entry Latency (RTD3E), in microseconds: how long a shutdown may take; 0 not reported.
    pub rtd3e_us: u32,
}

/// An active namespace: Identify Namespace (NVM §4.1.5.1) and its identification descriptors (Base §5.17.2.3).
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct NamespaceInfo {
    /// Namespace identifier.
    pub nsid: u32,
    /// Size in bytes (NSZE times the block size).
    pub size: u64,
    /// Bytes of a logical block (LBADS).
    pub block_size: u64,
    /// Size in logical blocks (NSZE).
    pub blocks: u64,
    /// Capacity in logical blocks (NCAP).
    pub capacity: u64,
    /// Utilization in logical blocks (NUSE).
    pub used: u64,
    /// UUID, or `None` when the namespace has none.
    pub uuid: Option<String>,
    /// NGUID in hexadecimal, or `None` when it is zero.
    pub nguid: Option<String>,
    /// EUI-64 in hexadecimal, or `None` when it is zero.
    pub eui64: Option<String>,
    /// Namespace Features (NSFEAT).
    pub nsfeat: u8,
    /// Deallocate Logical Block Features (DLFEAT).
    pub dlfeat: u8,
    /// Block sizes of all LBA formats, in bytes, in the order of their numbers.
    pub lba_formats: Vec<u64>,
    /// Number of the LBA format in use (FLBAS).
    pub lba_format: u8,
}

/// Everything `identify` shows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DriveInfo {
    /// The controller.
    pub controller: ControllerInfo,
    /// PCI identity.
    pub pci: PciIdentity,
    /// Entries of the largest I/O queue (CAP.MQES).
    pub max_queue_entries: u32,
    /// I/O queue pairs that the controller grants.
    pub io_queues: u16,
    /// How this host rings doorbells: "shadow", "mapped" or "trapped".
    pub doorbells: &'static str,
    /// Active namespaces.
    pub namespaces: Vec<NamespaceInfo>,
}

/// An Identify data structure of 4096 bytes.
fn structure<T: FromBytes>(data: &[u8]) -> Result<T, HostError> {
    T::read_from_bytes(data).map_err(|_| {
        HostError::argument(format!("{} bytes; an Identify data structure has {IDENTIFY_SIZE}", data.len()))
    })
}

/// ASCII up to the first NUL, without the blanks that pad it; other bytes become `?`.
fn text(field: &[u8]) -> String {
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
    ascii_text(text).trim().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None` for an identifier that is all zero: it is not assigned.
fn assigned(bytes: &[u8]) -> Option<String> {
    bytes.iter().any(|&byte| byte != 0).then(|| hex(bytes))
}

impl ControllerInfo {
    /// From the bytes of an Identify Controller data structure.
    ///
    /// # Errors
    /// [`HostError::Argument`] for another number of bytes than 4096.
    pub fn from_bytes(data: &[u8]) -> Result<Self, HostError> {
        structure(data).map(|data| Self::decode(&data))
    }

    fn decode(data: &IdentifyController) -> Self {
        let version = data.version();
        let [low, middle, high] = data.ieee;
        Self {
            serial: text(&data.sn),
            model: text(&data.mn),
            firmware: text(&data.fr),
            subnqn: text(&data.subnqn),
            version: format!("{}.{}.{}", version.mjr(), version.mnr(), version.ter()),
            vendor_id: data.vid,
            subsystem_vendor_id: data.ssvid,
            ieee_oui: hex(&[high, middle, low]),
            controller_id: data.cntlid,
            namespaces: data.nn,
            mdts: data.mdts,
            aerl_z: data.aerl_z,
            acl_z: data.acl_z,
            elpe_z: data.elpe_z,
            oacs: data.oacs.into_bits(),
            oncs: data.oncs.into_bits(),
            fuses: data.fuses.into_bits(),
            sgls: data.sgls.into_bits(),
            volatile_write_cache: data.vwc.present(),
            doorbell_buffer_config: data.oacs.doorbell_buffer_config(),
            rtd3e_us: data.rtd3e,
        }
    }
}

/// Bytes of a logical block, if it is a size that this host works with.
fn format_bytes(format: &LbaFormat) -> Option<u64> {
    format.block_size().filter(|size| (1 << 9..=1 << 31).contains(size))
}

impl NamespaceInfo {
    /// Size in bytes.
    #[must_use]
    pub const fn capacity_bytes(&self) -> u64 {
        self.size
    }

    /// From the bytes of an Identify Namespace data structure (NVM command set) and of the namespace's identification
    /// descriptors, of which there may be none.
    ///
    /// # Errors
    /// [`HostError::Argument`] for another number of bytes than 4096; [`HostError::Unsupported`] for a format that makes
    /// no sense, as that of a namespace that is not active: all zeroes.
    pub fn from_bytes(nsid: u32, data: &[u8], descriptors: &[u8]) -> Result<Self, HostError> {
        Self::decode(nsid, &structure(data)?, descriptors)
    }

    fn decode(nsid: u32, data: &IdentifyNamespace, descriptors: &[u8]) -> Result<Self, HostError> {
        let formats = usize::from(data.nlbaf_z) + 1;
        // The upper bits count only when there are more than 16 formats.
        let lba_format = if formats > 16 { data.flbas.index() } else { data.flbas.index_low() };
        let blocks = data.nsze;
        let format = data.lbaf.get(usize::from(lba_format));
        let shape = format
            .and_then(format_bytes)
            .and_then(|block_size| Some((block_size, blocks.checked_mul(block_size)?)));
        let Some((block_size, size)) = shape else {
            return Err(HostError::Unsupported(format!(
                "namespace {nsid} has {blocks} blocks of LBA format {lba_format}, whose size makes no sense"
            )));
        };
        Ok(Self {
            nsid,
            size,
            block_size,
            blocks,
            capacity: data.ncap,
            used: data.nuse,
            uuid: uuid(descriptors),
            nguid: assigned(&data.nguid),
            eui64: assigned(&data.eui64),
            nsfeat: data.nsfeat.into_bits(),
            dlfeat: data.dlfeat.into_bits(),
            lba_formats: data.lbaf.iter().take(formats).map(|one| format_bytes(one).unwrap_or(0)).collect(),
            lba_format,
        })
    }
}

/// The UUID among namespace identification descriptors.
fn uuid(descriptors: &[u8]) -> Option<String> {
    namespace_descriptors(descriptors).find_map(|descriptor| match descriptor {
        NamespaceDescriptor::Uuid(id) => {
            Some([&id[..4], &id[4..6], &id[6..8], &id[8..10], &id[10..]].map(hex).join("-"))
        }
        _ => None,
    })
}

impl Drive {
    pub(crate) fn identify_controller(&mut self) -> Result<ControllerInfo, HostError> {
        Ok(ControllerInfo::decode(&self.identify_structure(cns::CONTROLLER, 0)?))
    }

    /// Identifiers of the active namespaces, ascending.
    ///
    /// # Errors
    /// As [`admin_ok`](Self::admin_ok).
    pub fn active_namespaces(&mut self) -> Result<Vec<u32>, HostError> {
        let mut all: Vec<u32> = Vec::new();
        loop {
            let after = all.last().copied().unwrap_or(0);
            let page: [u32; NAMESPACE_LIST_ENTRIES] =
                self.identify_structure(cns::ACTIVE_NAMESPACES, after)?;
            let before = all.len();
            for nsid in page {
                // The list ascends and ends with zero; anything else would lead in a circle.
                if nsid == 0 || all.last().is_some_and(|&last| nsid <= last) {
                    return Ok(all);
                }
                all.push(nsid);
            }
            if all.len() == before || all.len() >= MAX_NAMESPACES || all.last() >= Some(&0xFFFF_FFFE) {
                return Ok(all);
            }
        }
    }

    /// What Identify says about namespace `nsid`.
    ///
    /// # Errors
    /// As [`admin_ok`](Self::admin_ok); [`HostError::Unsupported`] for a namespace whose format makes no sense.
    pub fn namespace(&mut self, nsid: u32) -> Result<NamespaceInfo, HostError> {
        let data = self.identify_structure(cns::NAMESPACE, nsid)?;
        // Descriptors came with version 1.3: without them there is just no UUID.
        let descriptors = match self.identify(cns::NAMESPACE_DESCRIPTORS, nsid) {
            Ok(descriptors) => descriptors,
            Err(HostError::Command { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        NamespaceInfo::decode(nsid, &data, &descriptors)
    }

    /// Active namespace `nsid`; `None`: the first one.
    ///
    /// # Errors
    /// [`HostError::Argument`] when it is not active, or none is; as [`namespace`](Self::namespace).
    pub fn find_namespace(&mut self, nsid: Option<u32>) -> Result<NamespaceInfo, HostError> {
        let active = self.active_namespaces()?;
        let found = match nsid {
            None => active.first().copied(),
            Some(nsid) => active.binary_search(&nsid).ok().map(|_| nsid),
        };
        match (found, nsid) {
            (Some(nsid), _) => self.namespace(nsid),
            (None, Some(nsid)) => {
                Err(HostError::argument(format!("namespace {nsid} is not active; active are {active:?}")))
            }
            (None, None) => Err(HostError::argument("the drive has no active namespace")),
        }
    }

    /// Identifies the controller and all active namespaces.
    ///
    /// # Errors
    /// As [`namespace`](Self::namespace).
    pub fn info(&mut self) -> Result<DriveInfo, HostError> {
        let mut namespaces = Vec::new();
        for nsid in self.active_namespaces()? {
            namespaces.push(self.namespace(nsid)?);
        }
        let limits = self.queue_limits();
        Ok(DriveInfo {
            controller: self.controller.clone(),
            pci: self.pci(),
            max_queue_entries: limits.max_entries,
            io_queues: limits.max_queues,
            doorbells: self.doorbell_mode(),
            namespaces,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvmet_spec::identify::{Flbas, Oacs, ascii_field};
    use proptest::prelude::*;

    #[test]
    fn a_namespace_is_decoded() {
        let mut data = IdentifyNamespace { nsze: 1000, nlbaf_z: 1, ..IdentifyNamespace::default() };
        data.flbas = Flbas::for_format(1);
        data.lbaf[0].set_lbads(9);
        data.lbaf[1].set_lbads(12);
        data.nguid[0] = 0xAB;
        let mut descriptors = vec![2, 16, 0, 0];
        descriptors.extend([9; 16]);
        descriptors.extend([3, 16, 0, 0]);
        descriptors.extend(0u8..16);
        let info = NamespaceInfo::decode(7, &data, &descriptors).unwrap();
        assert_eq!((info.nsid, info.block_size, info.size), (7, 4096, 4_096_000));
        assert_eq!(info.uuid.as_deref(), Some("00010203-0405-0607-0809-0a0b0c0d0e0f"));
        assert_eq!(info.nguid.as_deref(), Some("ab000000000000000000000000000000"));
        assert_eq!((info.eui64, info.lba_formats), (None, vec![512, 4096]));
    }

    #[test]
    fn a_controller_is_decoded_without_padding() {
        let mut data = IdentifyController { ver: 0x0002_0100, ..IdentifyController::default() };
        data.sn = ascii_field("SN 1").unwrap();
        data.mn[..4].copy_from_slice(b"M\xFFd ");
        data.ieee = [0x56, 0x34, 0x12];
        data.oacs = Oacs::new().with_doorbell_buffer_config(true);
        let info = ControllerInfo::decode(&data);
        assert_eq!((info.serial.as_str(), info.model.as_str()), ("SN 1", "M?d"));
        assert_eq!((info.version.as_str(), info.ieee_oui.as_str()), ("2.1.0", "123456"));
        assert!(info.doorbell_buffer_config);
    }

    #[test]
    fn a_block_size_that_makes_no_sense_is_refused() {
        let mut data = IdentifyNamespace::default();
        for (blocks, lbads) in [(0, 0), (1, 8), (1, 32), (u64::MAX, 12)] {
            data.nsze = blocks;
            data.lbaf[0].set_lbads(lbads);
            assert!(NamespaceInfo::decode(1, &data, &[]).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_server_panic(
            data in proptest::collection::vec(any::<u8>(), IDENTIFY_SIZE),
            descriptors in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = ControllerInfo::decode(&IdentifyController::read_from_bytes(&data).unwrap());
            let _ = NamespaceInfo::decode(1, &IdentifyNamespace::read_from_bytes(&data).unwrap(), &descriptors);
        }
    }
}
