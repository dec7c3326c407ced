//! What a state file keeps of a namespace, and its bytes.
//!
//! May know: the state, the format. Must not know: files.
//!
//! The encoding is canonical: what decodes encodes to the same bytes. All integers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic |
//! | 4 | version |
//! | 4 | length of the body |
//! | 4 | CRC-32 of version, length and body |
//! | | the body of version 1: |
//! | 2, n | the NQN's length and the NQN |
//! | 4, 16 | NSID, UUID |
//! | 1 | bit 0: write-protected, bit 1: PTPL |
//! | 1 | RTYPE |
//! | 4 | GEN |
//! | 2 | index of the registrant that holds the reservation alone, FFFFh if none does |
//! | 2 | number of registrants |
//! | 24 each | Host Identifier and key, ascending by host |
//!
//! The first 20 bytes are the same in every version.

use nvmet_spec::reservation::ReservationType;

use super::HostId;
use super::command::can_be_acquired;
use super::state::{Held, MAX_REGISTRANTS, State};

const MAGIC: [u8; 8] = *b"nvmetvst";
const VERSION: u32 = 1;
const HEADER: usize = 20;
const WRITE_PROTECTED: u8 = 1;
const PTPL: u8 = 2;
const NO_HOLDER: u16 = 0xffff;
/// An NVMe Qualified Name has no more bytes (Base §4.5).
const MAX_NQN: usize = 223;

/// What a namespace's state file keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Reservations as they are at power on: nothing unless PTPL is set, whatever is put here.
    pub reservations: State,
    /// The namespace is write-protected.
    pub write_protected: bool,
}

/// The namespace that a state file belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// NQN of its subsystem.
    pub nqn: String,
    /// NSID in there.
    pub nsid: u32,
    /// Its UUID.
    pub uuid: [u8; 16],
}

/// Why bytes are not the state of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They never were, or have been damaged.
    #[error("it is corrupt: {0}")]
    Corrupt(&'static str),
    /// A later version wrote them.
    #[error("its format is version {0}, which is newer than {VERSION}")]
    Newer(u32),
    /// They belong to another namespace.
    #[error("it belongs to another namespace: {0}")]
    Foreign(String),
}

impl Saved {
    /// What is left of this at power on. What a file is said to keep is this.
    pub(super) fn at_power_on(&self) -> Self {
        Self { reservations: self.reservations.at_power_on(), write_protected: self.write_protected }
    }

    /// The content of a state file.
    pub fn encode(&self, identity: &Identity) -> Vec<u8> {
        let state = self.reservations.at_power_on();
        let mut body = Vec::with_capacity(300 + state.registrants.len() * 24);
        let nqn = identity.nqn();
        body.extend_from_slice(&(nqn.len() as u16).to_le_bytes());
        body.extend_from_slice(nqn);
        body.extend_from_slice(&identity.nsid.to_le_bytes());
        body.extend_from_slice(&identity.uuid);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        body.push(flag(self.write_protected, WRITE_PROTECTED) | flag(state.ptpl, PTPL));
        body.push(state.held.rtype().into_bits());
        body.extend_from_slice(&state.generation.to_le_bytes());
        let holder =
            state.holder().and_then(|holder| state.registrants.keys().position(|host| *host == holder));
        body.extend_from_slice(&holder.map_or(NO_HOLDER, |index| index as u16).to_le_bytes());
        body.extend_from_slice(&(state.registrants.len() as u16).to_le_bytes());
        for (host, key) in &state.registrants {
            body.extend_from_slice(host);
            body.extend_from_slice(&key.to_le_bytes());
        }
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&checksum(&bytes[8..16], &body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// From the content of a state file.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], for everything that [`Saved::encode`] does not write for this identity.
    pub fn decode(bytes: &[u8], identity: &Identity) -> Result<Self, DecodeError> {
        let mut body = Reader(body(bytes)?);
        let nqn_len = u16::from_le_bytes(body.take()?);
        let nqn = body.slice(nqn_len.into())?;
        let (nsid, uuid) = (u32::from_le_bytes(body.take()?), body.take()?);
        identity.check(nqn, nsid, uuid)?;
        let [flags, rtype] = body.take()?;
        if flags & !(WRITE_PROTECTED | PTPL) != 0 {
            return Err(DecodeError::Corrupt("flags that there are not"));
        }
        let generation = u32::from_le_bytes(body.take()?);
        let (holder, count) = (u16::from_le_bytes(body.take()?), u16::from_le_bytes(body.take()?));
        let registrants = registrants(&mut body, count.into())?;
        if !body.0.is_empty() {
            return Err(DecodeError::Corrupt("it goes on behind its end"));
        }
        let held = held(ReservationType::from_bits(rtype), holder, &registrants)?;
        let reservations = State {
            generation,
            ptpl: flags & PTPL != 0,
            held,
            registrants: registrants.into_iter().collect(),
        };
        if reservations != reservations.at_power_on() {
            return Err(DecodeError::Corrupt("reservations without PTPL"));
        }
        Ok(Self { reservations, write_protected: flags & WRITE_PROTECTED != 0 })
    }
}

/// The body, once magic, length, checksum and version are right.
fn body(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Corrupt("it is empty"));
    }
    let mut header = Reader(bytes);
    if header.take()? != MAGIC {
        return Err(DecodeError::Corrupt("it is no state file"));
    }
    let (version, len) = (u32::from_le_bytes(header.take()?), u32::from_le_bytes(header.take()?));
    let crc = u32::from_le_bytes(header.take()?);
    let body = header.0;
    if body.len() != len as usize {
        return Err(DecodeError::Corrupt("its length is not what it says"));
    }
    if checksum(&bytes[8..16], body) != crc {
        return Err(DecodeError::Corrupt("its checksum is wrong"));
    }
    match version {
        VERSION => Ok(body),
        0 => Err(DecodeError::Corrupt("there is no version 0")),
        newer => Err(DecodeError::Newer(newer)),
    }
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(body);
    crc.finalize()
}

/// The registrants, in the order that a state has them.
fn registrants(body: &mut Reader, count: usize) -> Result<Vec<(HostId, u64)>, DecodeError> {
    if count > MAX_REGISTRANTS {
        return Err(DecodeError::Corrupt("too many registrants"));
    }
    // Memory only for what there is.
    let mut entries = Reader(body.slice(count * (size_of::<HostId>() + size_of::<u64>()))?);
    let mut registrants: Vec<(HostId, u64)> = Vec::with_capacity(count);
    while !entries.0.is_empty() {
        let (host, key) = (entries.take()?, u64::from_le_bytes(entries.take()?));
        if registrants.last().is_some_and(|(last, _)| *last >= host) {
            return Err(DecodeError::Corrupt("registrants in disorder"));
        }
        if key == 0 {
            return Err(DecodeError::Corrupt("a key of 0"));
        }
        registrants.push((host, key));
    }
    Ok(registrants)
}

/// The reservation, whose holders have to be registered.
fn held(rtype: ReservationType, holder: u16, registrants: &[(HostId, u64)]) -> Result<Held, DecodeError> {
    let nobody = DecodeError::Corrupt("a reservation that nobody can hold");
    if rtype == ReservationType::None && holder == NO_HOLDER {
        return Ok(Held::Nothing);
    }
    let Some((first, _)) = registrants.first().filter(|_| can_be_acquired(rtype)) else { return Err(nobody) };
    match (Held::acquired(rtype, *first), registrants.get(usize::from(holder))) {
        (all @ Held::ByAll(_), None) if holder == NO_HOLDER => Ok(all),
        (Held::By(..), Some((host, _))) => Ok(Held::By(rtype, *host)),
        _ => Err(nobody),
    }
}

impl Identity {
    /// Longer names there are not; this is for the encoding to have a bound whatever it is given.
    fn nqn(&self) -> &[u8] {
        let bytes = self.nqn.as_bytes();
        &bytes[..bytes.len().min(MAX_NQN)]
    }

    /// Says what is not ours.
    fn check(&self, nqn: &[u8], nsid: u32, uuid: [u8; 16]) -> Result<(), DecodeError> {
        let mut differs = Vec::new();
        if nqn != self.nqn() {
            let theirs = String::from_utf8_lossy(nqn);
            differs.push(format!("its NQN is {theirs:?} instead of {:?}", self.nqn));
        }
        if nsid != self.nsid {
            differs.push(format!("its NSID is {nsid} instead of {}", self.nsid));
        }
        if uuid != self.uuid {
            let [theirs, ours] = [uuid, self.uuid].map(uuid::Uuid::from_bytes);
            differs.push(format!("its UUID is {theirs} instead of {ours}"));
        }
        if differs.is_empty() { Ok(()) } else { Err(DecodeError::Foreign(differs.join(", "))) }
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn slice(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Corrupt("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut taken = [0; N];
        taken.copy_from_slice(self.slice(N)?);
        Ok(taken)
    }
}
