//! The Asymmetric Namespace Access log page (NVMe Base 2.0, 5.16.1.13).

use std::collections::BTreeMap;

use nvmet_spec::log::{AnaGroupDescriptor, AnaHeader};
use zerocopy::IntoBytes;

use crate::subsystem::View;

/// Log Specific Parameter: Return Groups Only.
pub const GROUPS_ONLY: u8 = 1;

/// The log page: the groups whose state was set and those that have namespaces, ascending. With `groups_only` no NSIDs.
/// Changes are counted from those `before`, by group.
pub fn page(view: &View, before: &BTreeMap<u32, u64>, groups_only: bool) -> Vec<u8> {
    let since = |group: u32, count: u64| count - before.get(&group).copied().unwrap_or(0);
    let changes = view.map().ana_changes();
    let mut members: BTreeMap<u32, Vec<u32>> =
        view.ana().iter().map(|(group, _)| (group, Vec::new())).collect();
    for seen in view.iter() {
        members.entry(seen.slot.ana_group).or_default().push(seen.namespace().nsid());
    }
    let header = AnaHeader {
        change_count: changes.iter().map(|(&group, &count)| since(group, count)).sum(),
        groups: members.len() as u16,
        ..AnaHeader::default()
    };
    let mut page = header.as_bytes().to_vec();
    for (group_id, nsids) in members {
        let nsids = if groups_only { Vec::new() } else { nsids };
        let descriptor = AnaGroupDescriptor {
            group_id,
            nsids: nsids.len() as u32,
            change_count: since(group_id, changes.get(&group_id).copied().unwrap_or(0)),
            state: view.ana().get(group_id).into_bits(),
            ..AnaGroupDescriptor::default()
        };
        page.extend_from_slice(descriptor.as_bytes());
        page.extend_from_slice(nsids.as_slice().as_bytes());
    }
    page
}
