//! The JSON of VERSION: what the client can do, and what this server answers.
//!
//! Knows text, not sockets. Input is bounded by [`MAX_VERSION_DATA`]; unknown members are ignored.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::wire::{DEFAULT_MAX_DATA_XFER_SIZE, DEFAULT_MAX_MSG_FDS, MAX_VERSION_DATA, SERVER_MAX_MSG_FDS};

/// What a peer announced in VERSION, with the protocol's defaults where it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCaps {
    /// Whether there was any JSON.
    pub json: bool,
    /// File descriptors that the peer takes in one message.
    pub max_msg_fds: u32,
    /// Bytes of data that the peer takes in one message.
    pub max_data_xfer_size: u32,
    /// Whether the peer announced a member that only clients that look at error replies do.
    pub reads_errors: bool,
}

impl Default for PeerCaps {
    fn default() -> Self {
        Self {
            json: false,
            max_msg_fds: DEFAULT_MAX_MSG_FDS,
            max_data_xfer_size: DEFAULT_MAX_DATA_XFER_SIZE,
            reads_errors: false,
        }
    }
}

/// Why the JSON of VERSION was refused.
#[derive(Debug, thiserror::Error)]
pub enum CapsError {
    /// It is longer than [`MAX_VERSION_DATA`].
    #[error("capabilities of {0} bytes, at most {MAX_VERSION_DATA} are accepted")]
    TooLong(usize),
    /// It is no JSON of the expected form.
    #[error("malformed capabilities: {0}")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    capabilities: Members,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Members {
    max_msg_fds: Option<u64>,
    max_data_xfer_size: Option<u64>,
    max_dma_maps: Option<IgnoredAny>,
    pgsizes: Option<IgnoredAny>,
    write_multiple: Option<IgnoredAny>,
}

/// Reads what follows the version numbers: nothing at all, or JSON up to a NUL or the end.
///
/// # Errors
///
/// [`CapsError`] if it is too long or malformed.
pub fn parse(data: &[u8]) -> Result<PeerCaps, CapsError> {
    if data.len() > MAX_VERSION_DATA {
        return Err(CapsError::TooLong(data.len()));
    }
    let text = data.split(|&byte| byte == 0).next().unwrap_or_default().trim_ascii();
    if text.is_empty() {
        return Ok(PeerCaps::default());
    }
    let Document { capabilities: members } = serde_json::from_slice(text)?;
    let clamp = |value: Option<u64>, default| value.map_or(default, |v| u32::try_from(v).unwrap_or(u32::MAX));
    Ok(PeerCaps {
        json: true,
        max_msg_fds: clamp(members.max_msg_fds, DEFAULT_MAX_MSG_FDS),
        max_data_xfer_size: clamp(members.max_data_xfer_size, DEFAULT_MAX_DATA_XFER_SIZE),
        reads_errors: members.pgsizes.is_some()
            || members.max_dma_maps.is_some()
            || members.write_multiple.is_some(),
    })
}

/// The server's JSON with its NUL.
///
/// QEMU takes no reply that is longer than its request, so where the client sent `request_len` bytes of JSON, members
/// are left out until the answer fits; their defaults are true of this server too. What always stays is the
/// `capabilities` object and the NUL: Cloud Hypervisor needs both.
pub fn reply(request_len: usize) -> Vec<u8> {
    let full = format!(
        r#"{{"capabilities":{{"max_msg_fds":{SERVER_MAX_MSG_FDS},"max_data_xfer_size":{DEFAULT_MAX_DATA_XFER_SIZE}}}}}"#
    );
    let short = format!(r#"{{"capabilities":{{"max_msg_fds":{SERVER_MAX_MSG_FDS}}}}}"#);
    let least = String::from(r#"{"capabilities":{}}"#);
    let fits = |text: &String| request_len == 0 || text.len() < request_len;
    let text = [full, short].into_iter().find(fits).unwrap_or(least);
    let mut bytes = text.into_bytes();
    bytes.push(0);
    bytes
}

/// The JSON that this crate's own client sends, with its NUL. `pgsizes` says that it understands errors.
pub fn request(max_msg_fds: u32) -> Vec<u8> {
    let mut bytes = format!(
        r#"{{"capabilities":{{"max_msg_fds":{max_msg_fds},"max_data_xfer_size":{DEFAULT_MAX_DATA_XFER_SIZE},"pgsizes":4096}}}}"#
    )
    .into_bytes();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QEMU: &[u8] = b"{\"capabilities\":{\"pgsizes\":4096,\"max_msg_fds\":16,\"max_dma_maps\":65535,\
        \"max_data_xfer_size\":1048576,\"migration\":{\"max_bitmap_size\":268435456,\"pgsize\":4096},\
        \"write_multiple\":true}}\0";
    const CLOUD_HYPERVISOR: &[u8] = b"{\"capabilities\":{\"max_msg_fds\":1,\"max_data_xfer_size\":1048576,\
        \"migration\":{\"pgsize\":4096}}}\0";

    #[test]
    fn clients_are_told_apart_by_what_they_announce() {
        let qemu = parse(QEMU).unwrap();
        assert!(qemu.json && qemu.reads_errors);
        assert_eq!(qemu.max_msg_fds, 16);
        let ch = parse(CLOUD_HYPERVISOR).unwrap();
        assert!(ch.json && !ch.reads_errors);
        assert_eq!(parse(b"").unwrap(), PeerCaps::default());
        assert_eq!(parse(b"\0").unwrap(), PeerCaps::default());
        assert!(parse(&request(16)).unwrap().reads_errors);
    }

    #[test]
    fn members_are_optional_and_unknown_ones_ignored() {
        let caps = parse(br#"{"other":1,"capabilities":{"twin_socket":{"supported":true}}}"#).unwrap();
        assert_eq!((caps.max_msg_fds, caps.max_data_xfer_size), (1, 1 << 20));
        assert_eq!(parse(b"{}\0").unwrap().max_msg_fds, 1);
    }

    #[test]
    fn malformed_and_oversized_json_is_refused() {
        assert!(matches!(parse(b"{\0"), Err(CapsError::Malformed(_))));
        assert!(matches!(parse(br#"{"capabilities":{"max_msg_fds":"x"}}"#), Err(CapsError::Malformed(_))));
        assert!(matches!(parse(&[b' '; MAX_VERSION_DATA + 1]), Err(CapsError::TooLong(_))));
        let deep = vec![b'['; MAX_VERSION_DATA];
        assert!(matches!(parse(&deep), Err(CapsError::Malformed(_))));
    }

    #[test]
    fn the_reply_to_each_client_is_no_longer_than_its_request() {
        for request in [QEMU, CLOUD_HYPERVISOR] {
            let full = reply(request.len());
            assert!(full.len() <= request.len());
            assert_eq!(parse(&full).unwrap().max_msg_fds, SERVER_MAX_MSG_FDS);
        }
        assert_eq!(reply(25), b"{\"capabilities\":{}}\0");
        assert_eq!(parse(&reply(0)).unwrap().max_msg_fds, SERVER_MAX_MSG_FDS);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(data in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&data);
        }

        #[test]
        fn a_reply_is_bounded_and_parses(len in 0usize..400) {
            let bytes = reply(len);
            prop_assert!(len == 0 || bytes.len() <= len.max(20));
            prop_assert!(parse(&bytes).unwrap().json);
        }
    }
}
