//! The Asymmetric Namespace Access log page (NVMe Base 2.0, 5.16.1.13).

use std::collections::BTreeMap;

use nvmet_spec::log::{AnaGroupDescriptor, AnaHeader};
use zerocopy::IntoBytes;

use crate::subsystem::View;

/// Log Specific Parameter: Return Groups Only.
pub const GROUPS_ONLY: u8 = 1;

/// The log page: the groups whose state was set and those that have namespaces, ascending. With `groups_only` no NSIDs.
pub fn page(view: &View, groups_only: bool) -> Vec<u8> {
    let mut members: BTreeMap<u32, Vec<u32>> =
        view.ana().iter().map(|(group, _)| (group, Vec::new())).collect();
    for seen in view.iter() {
        members.entry(seen.slot.ana_group).or_default().push(seen.namespace().nsid());
    }
    let header = AnaHeader {
        change_count: view.map().ana_changes(None),
        groups: members.len() as u16,
        ..AnaHeader::default()
    };
    let mut page = header.as_bytes().to_vec();
    for (group_id, nsids) in members {
        let nsids = if groups_only { Vec::new() } else { nsids };
        let descriptor = AnaGroupDescriptor {
            group_id,
            nsids: nsids.len() as u32,
            change_count: view.map().ana_changes(Some(group_id)),
            state: view.ana().get(group_id).into_bits(),
            ..AnaGroupDescriptor::default()
        };
        page.extend_from_slice(descriptor.as_bytes());
        page.extend_from_slice(nsids.as_slice().as_bytes());
    }
    page
}
