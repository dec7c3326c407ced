//! What Identify says, as plain values for people and programs.
//!
//! Decodes bytes that a server sent: nothing in them is trusted, and everything missing reads as zero.

use crate::{Drive, HostError, PciIdentity};

/// CNS values (Base §5.17.1).
mod cns {
    pub const NAMESPACE: u8 = 0x00;
    pub const CONTROLLER: u8 = 0x01;
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
}

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

/// Little-endian fields of a data structure; zero beyond its end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    fn u8(&self, at: usize) -> u8 {
        u8::from_le_bytes(self.bytes(at))
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    /// ASCII up to the first NUL, without the blanks that pad it; other bytes become `?`.
    fn text(&self, at: usize, len: usize) -> String {
        let bytes = self.0.get(at..at + len).unwrap_or_default();
        let text: String = bytes
            .iter()
            .take_while(|&&byte| byte != 0)
            .map(|&byte| if matches!(byte, 0x20..=0x7E) { char::from(byte) } else { '?' })
            .collect();
        text.trim().to_owned()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None` for an identifier that is all zero: it is not assigned.
fn assigned(bytes: &[u8]) -> Option<String> {
    bytes.iter().any(|&byte| byte != 0).then(|| hex(bytes))
}

impl ControllerInfo {
    fn decode(data: &[u8]) -> Self {
        let fields = Fields(data);
        let [tertiary, minor, major, major_high] = fields.bytes(80);
        let [low, middle, high] = fields.bytes(73);
        let oacs = fields.u16(256);
        Self {
            serial: fields.text(4, 20),
            model: fields.text(24, 40),
            firmware: fields.text(64, 8),
            subnqn: fields.text(768, 256),
            version: format!("{}.{minor}.{tertiary}", u16::from_le_bytes([major, major_high])),
            vendor_id: fields.u16(0),
            subsystem_vendor_id: fields.u16(2),
            ieee_oui: hex(&[high, middle, low]),
            controller_id: fields.u16(78),
            namespaces: fields.u32(516),
            mdts: fields.u8(77),
            aerl_z: fields.u8(259),
            acl_z: fields.u8(258),
            elpe_z: fields.u8(262),
            oacs,
            oncs: fields.u16(520),
            fuses: fields.u16(522),
            sgls: fields.u32(536),
            volatile_write_cache: fields.u8(525) & 1 != 0,
            doorbell_buffer_config: oacs & (1 << 8) != 0,
            rtd3e_us: fields.u32(88),
        }
    }
}

impl NamespaceInfo {
    /// Size in bytes.
    #[must_use]
    pub const fn capacity_bytes(&self) -> u64 {
        self.size
    }

    fn decode(nsid: u32, data: &[u8], descriptors: &[u8]) -> Result<Self, HostError> {
        let fields = Fields(data);
        let formats = usize::from(fields.u8(25)) + 1;
        let flbas = fields.u8(26);
        // Bits 6:5 extend bits 3:0 when there are more than 16 formats.
        let lba_format = if formats > 16 { (flbas & 0xF) | ((flbas >> 1) & 0x30) } else { flbas & 0xF };
        let size_of = |format: usize| match fields.u8(128 + format * 4 + 2) {
            lbads @ 9..=31 => Some(1u64 << lbads),
            _ => None,
        };
        let blocks = fields.u64(0);
        let shape = size_of(usize::from(lba_format))
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
            capacity: fields.u64(8),
            used: fields.u64(16),
            uuid: uuid(descriptors),
            nguid: assigned(&fields.bytes::<16>(104)),
            eui64: assigned(&fields.bytes::<8>(120)),
            nsfeat: fields.u8(24),
            dlfeat: fields.u8(33),
            lba_formats: (0..formats.min(64)).map(|format| size_of(format).unwrap_or(0)).collect(),
            lba_format,
        })
    }
}

/// The UUID among namespace identification descriptors: type, length, two reserved bytes, identifier.
fn uuid(mut descriptors: &[u8]) -> Option<String> {
    const UUID: u8 = 3;
    while let [kind, len, _, _, rest @ ..] = descriptors {
        let (kind, len) = (*kind, usize::from(*len));
        let id = rest.get(..len)?;
        match (kind, id) {
            (0, _) | (_, []) => return None,
            (UUID, [a @ .., _, _, _, _, _, _, _, _, _, _, _, _]) if len == 16 => {
                let tail = &id[4..];
                let groups = [a, &tail[..2], &tail[2..4], &tail[4..6], &tail[6..]];
                return Some(groups.map(hex).join("-"));
            }
            _ => descriptors = &rest[len..],
        }
    }
    None
}

impl Drive {
    pub(crate) fn identify_controller(&mut self) -> Result<ControllerInfo, HostError> {
        Ok(ControllerInfo::decode(&self.identify(cns::CONTROLLER, 0)?))
    }

    /// Identifiers of the active namespaces, ascending.
    ///
    /// # Errors
    /// As [`admin_ok`](Self::admin_ok).
    pub fn active_namespaces(&mut self) -> Result<Vec<u32>, HostError> {
        let mut all: Vec<u32> = Vec::new();
        loop {
            let after = all.last().copied().unwrap_or(0);
            let page = self.identify(cns::ACTIVE_NAMESPACES, after)?;
            let before = all.len();
            for bytes in page.chunks_exact(4) {
                let nsid = Fields(bytes).u32(0);
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
        let data = self.identify(cns::NAMESPACE, nsid)?;
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
    use proptest::prelude::*;

    #[test]
    fn a_namespace_is_decoded() {
        let mut data = vec![0; 4096];
        data[0..8].copy_from_slice(&1000u64.to_le_bytes());
        data[25] = 1;
        data[26] = 1;
        data[130] = 9;
        data[134] = 12;
        data[104] = 0xAB;
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
        let mut data = vec![0; 4096];
        data[4..24].copy_from_slice(b"SN 1                ");
        data[24..28].copy_from_slice(b"M\xFFd ");
        data[80..84].copy_from_slice(&0x0002_0100u32.to_le_bytes());
        data[257] = 1;
        let info = ControllerInfo::decode(&data);
        assert_eq!((info.serial.as_str(), info.model.as_str()), ("SN 1", "M?d"));
        assert_eq!(info.version, "2.1.0");
        assert!(info.doorbell_buffer_config);
    }

    #[test]
    fn a_block_size_that_makes_no_sense_is_refused() {
        let mut data = vec![0; 4096];
        assert!(NamespaceInfo::decode(1, &data, &[]).is_err());
        data[0..8].copy_from_slice(&u64::MAX.to_le_bytes());
        data[130] = 12;
        assert!(NamespaceInfo::decode(1, &data, &[]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_server_panic(
            data in proptest::collection::vec(any::<u8>(), 0..600),
            descriptors in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = ControllerInfo::decode(&data);
            let _ = NamespaceInfo::decode(1, &data, &descriptors);
        }
    }
}
