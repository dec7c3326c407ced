//! Namespace Identification Descriptor list, CNS 03h (Base §5.17.2.3).

use super::IDENTIFY_SIZE;

/// NIDT: EUI64, 8 bytes.
const EUI64: u8 = 1;
/// NIDT: NGUID, 16 bytes.
const NGUID: u8 = 2;
/// NIDT: UUID, 16 bytes.
const UUID: u8 = 3;
/// NIDT: CSI, 1 byte.
const CSI: u8 = 4;
/// NIDT, NIDL and two reserved bytes.
const HEADER: usize = 4;

/// One Namespace Identification Descriptor (Base §5.17.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceDescriptor {
    /// NIDT 1h: IEEE Extended Unique Identifier, big-endian.
    Eui64([u8; 8]),
    /// NIDT 2h: Namespace Globally Unique Identifier, big-endian.
    Nguid([u8; 16]),
    /// NIDT 3h: Namespace UUID, in the byte order of RFC 4122.
    Uuid([u8; 16]),
    /// NIDT 4h: Command Set Identifier, see [`super::csi`].
    Csi(u8),
}

impl NamespaceDescriptor {
    const fn kind(&self) -> u8 {
        match self {
            Self::Eui64(_) => EUI64,
            Self::Nguid(_) => NGUID,
            Self::Uuid(_) => UUID,
            Self::Csi(_) => CSI,
        }
    }

    const fn value(&self) -> &[u8] {
        match self {
            Self::Eui64(id) => id,
            Self::Nguid(id) | Self::Uuid(id) => id,
            Self::Csi(id) => core::slice::from_ref(id),
        }
    }

    /// A descriptor of type `kind`; `None` for a type that is not known or a length that is not its own.
    fn parse(kind: u8, value: &[u8]) -> Option<Self> {
        match (kind, value) {
            (EUI64, _) => Some(Self::Eui64(value.try_into().ok()?)),
            (NGUID, _) => Some(Self::Nguid(value.try_into().ok()?)),
            (UUID, _) => Some(Self::Uuid(value.try_into().ok()?)),
            (CSI, &[id]) => Some(Self::Csi(id)),
            _ => None,
        }
    }
}

/// Builder of a Namespace Identification Descriptor list (Base §5.17.2.3).
///
/// The four types, each given once, always fit: a repeated one is written again as long as there is room.
#[derive(Debug, Clone)]
pub struct NamespaceDescriptorList {
    bytes: Box<[u8; IDENTIFY_SIZE]>,
    used: usize,
}

impl Default for NamespaceDescriptorList {
    fn default() -> Self {
        Self { bytes: Box::new([0; IDENTIFY_SIZE]), used: 0 }
    }
}

impl NamespaceDescriptorList {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `descriptor`; returns false, and changes nothing, when it does not fit.
    pub fn push(&mut self, descriptor: NamespaceDescriptor) -> bool {
        let value = descriptor.value();
        let end = self.used + HEADER + value.len();
        let Some(room) = self.bytes.get_mut(self.used..end) else { return false };
        let (header, id) = room.split_at_mut(HEADER);
        header.copy_from_slice(&[descriptor.kind(), value.len() as u8, 0, 0]);
        id.copy_from_slice(value);
        self.used = end;
        true
    }

    /// The list as Identify returns it: unused bytes are zero, which ends it.
    pub fn as_bytes(&self) -> &[u8; IDENTIFY_SIZE] {
        &self.bytes
    }
}

/// The descriptors in a list as Identify returned it. Unknown types are skipped; the end of the list, of `bytes`, or a
/// descriptor that does not fit ends the iteration.
pub fn namespace_descriptors(bytes: &[u8]) -> impl Iterator<Item = NamespaceDescriptor> {
    let mut rest = bytes;
    core::iter::from_fn(move || {
        let (header, after) = rest.split_at_checked(HEADER)?;
        let &[kind, length, ..] = header else { return None };
        if length == 0 {
            return None;
        }
        let (value, after) = after.split_at_checked(usize::from(length))?;
        rest = after;
        Some(NamespaceDescriptor::parse(kind, value))
    })
    .flatten()
}
