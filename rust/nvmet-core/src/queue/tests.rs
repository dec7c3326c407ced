use std::collections::VecDeque;
use std::sync::Arc;

use nvmet_dma::{DmaSpace, DoorbellPage, LoopbackMemory, Snapshot};
use nvmet_spec::command::Cqe;
use proptest::prelude::*;
use zerocopy::transmute;

use super::*;

const BASE: u64 = LoopbackMemory::IOVA;

fn reachable(memory: &LoopbackMemory) -> Snapshot {
    memory.handle().reader().snapshot().clone()
}

fn unreachable() -> Snapshot {
    DmaSpace::new(|| {}).handle().reader().snapshot().clone()
}

fn cq_state(entries: u32) -> CompletionQueueState {
    CompletionQueueState { cqid: 1, entries, base: BASE, tail: 0, head: 0, phase: true, vector: Some(3) }
}

fn sq_state(entries: u32) -> SubmissionQueueState {
    SubmissionQueueState { sqid: 2, cqid: 1, entries, base: BASE, head: 0, tail: 0 }
}

fn cqe(memory: &LoopbackMemory, index: u32) -> Cqe {
    transmute!(memory.memory().read_cqe(index as usize * CQE_SIZE).unwrap())
}

fn post(cq: &mut CompletionQueue, cid: u16) {
    let permit = cq.reserve().unwrap();
    cq.post(permit, 0, 0, 2, 0, cid, 0);
}

#[test]
fn a_completion_has_every_field_in_its_place() {
    let memory = LoopbackMemory::new(4096).unwrap();
    let mut cq = CompletionQueue::new(cq_state(4));
    cq.attach(&reachable(&memory)).unwrap();
    let permit = cq.reserve().unwrap();
    cq.post(permit, 0x1111_2222, 0x3333_4444, 0x5566, 0x7788, 0x99aa, 0x7fff);
    let entry = cqe(&memory, 0);
    assert_eq!((entry.dw0, entry.dw1), (0x1111_2222, 0x3333_4444));
    assert_eq!((entry.sqid, entry.sqhd, entry.cid), (0x5566, 0x7788, 0x99aa));
    assert_eq!((entry.status().into_bits(), entry.phase()), (0x7fff, true));
}

#[test]
fn the_phase_flips_at_every_wrap() {
    for entries in [2, 3, 16, 65536] {
        let memory = LoopbackMemory::new(entries as usize * CQE_SIZE).unwrap();
        let mut cq = CompletionQueue::new(cq_state(entries));
        cq.attach(&reachable(&memory)).unwrap();
        for pass in 0..3 {
            for index in 0..entries {
                post(&mut cq, index as u16);
                assert_eq!(
                    (cqe(&memory, index).cid, cqe(&memory, index).phase()),
                    (index as u16, pass % 2 == 0)
                );
                assert!(cq.set_head((index + 1) % entries));
                assert_eq!(cq.unconsumed(), 0);
            }
        }
    }
}

#[test]
fn one_entry_stays_free_however_it_is_asked_for() {
    for entries in [2, 5, 65536] {
        let memory = LoopbackMemory::new(entries as usize * CQE_SIZE).unwrap();
        let mut cq = CompletionQueue::new(cq_state(entries));
        cq.attach(&reachable(&memory)).unwrap();
        let permits: Vec<Permit> = std::iter::from_fn(|| cq.reserve()).collect();
        assert_eq!(permits.len() as u32, entries - 1);
        for permit in permits {
            cq.post(permit, 0, 0, 2, 0, 0, 0);
        }
        assert!(cq.reserve().is_none() && cq.unconsumed() == entries - 1);
        assert!(cq.set_head(1));
        let permit = cq.reserve().unwrap();
        assert!(cq.reserve().is_none());
        cq.release(permit);
        assert_eq!(cq.room(), 1);
    }
}

#[test]
fn a_head_that_passes_the_tail_or_the_end_changes_nothing() {
    let memory = LoopbackMemory::new(4096).unwrap();
    let mut cq = CompletionQueue::new(cq_state(8));
    cq.attach(&reachable(&memory)).unwrap();
    (0..3).for_each(|cid| post(&mut cq, cid));
    for head in [4, 7, 8, 9, 0xffff] {
        assert!(!cq.set_head(head), "{head}");
        assert_eq!(cq.state().head, 0);
    }
    assert!(cq.set_head(2) && cq.set_head(2) && cq.set_head(3));
    assert!(!cq.set_head(2), "a head does not go back");
}

#[test]
fn completions_wait_while_the_queue_is_out_of_reach() {
    let memory = LoopbackMemory::new(4096).unwrap();
    let mut cq = CompletionQueue::new(cq_state(8));
    cq.attach(&reachable(&memory)).unwrap();
    let permits = [cq.reserve().unwrap(), cq.reserve().unwrap()];
    assert!(cq.attach(&unreachable()).is_err());
    assert!(!cq.is_attached() && cq.reserve().is_none() && cq.room() == 0);
    for (cid, permit) in (5..).zip(permits) {
        cq.post(permit, 0, 0, 2, 0, cid, 0);
    }
    assert_eq!(cq.take_interrupt(), None, "nothing is visible yet");
    cq.attach(&reachable(&memory)).unwrap();
    assert_eq!(cq.take_interrupt(), Some(3));
    assert_eq!(cq.take_interrupt(), None);
    assert_eq!([cqe(&memory, 0).cid, cqe(&memory, 1).cid], [5, 6]);
    assert_eq!((cq.room(), cq.unconsumed()), (5, 2));
}

#[test]
fn a_queue_without_a_vector_asks_for_no_interrupt() {
    let memory = LoopbackMemory::new(4096).unwrap();
    let mut cq = CompletionQueue::new(CompletionQueueState { vector: None, ..cq_state(4) });
    cq.attach(&reachable(&memory)).unwrap();
    post(&mut cq, 1);
    assert_eq!(cq.take_interrupt(), None);
}

#[derive(Clone, Debug)]
enum CqStep {
    Reserve,
    Post(u16),
    Release,
    Consume(u32),
    Head(u32),
    Detach,
    Attach,
}

fn cq_step() -> impl Strategy<Value = CqStep> {
    prop_oneof![
        4 => Just(CqStep::Reserve),
        4 => any::<u16>().prop_map(CqStep::Post),
        1 => Just(CqStep::Release),
        3 => (1_u32..6).prop_map(CqStep::Consume),
        1 => (0_u32..12).prop_map(CqStep::Head),
        1 => Just(CqStep::Detach),
        2 => Just(CqStep::Attach),
    ]
}

proptest! {
    /// The model: what the host has not consumed, what waits, and a host that believes nothing but phase tags.
    #[test]
    fn a_completion_queue_does_what_a_naive_one_does(
        entries in 2_u32..9,
        steps in prop::collection::vec(cq_step(), 1..120),
    ) {
        let memory = LoopbackMemory::new(4096).unwrap();
        let mut cq = CompletionQueue::new(cq_state(entries));
        cq.attach(&reachable(&memory)).unwrap();
        let (mut permits, mut visible, mut waiting) = (Vec::new(), VecDeque::new(), VecDeque::new());
        let (mut head, mut phase, mut attached) = (0_u32, true, true);
        for step in steps {
            match step {
                CqStep::Reserve => {
                    let used = permits.len() + visible.len() + waiting.len();
                    let permit = cq.reserve();
                    prop_assert_eq!(permit.is_some(), attached && used < entries as usize - 1);
                    permits.extend(permit);
                }
                CqStep::Post(cid) => if let Some(permit) = permits.pop() {
                    cq.post(permit, 0, 0, 2, 0, cid, 0);
                    if attached { visible.push_back(cid) } else { waiting.push_back(cid) }
                },
                CqStep::Release => if let Some(permit) = permits.pop() {
                    cq.release(permit);
                },
                CqStep::Consume(most) => {
                    for _ in 0..most {
                        let entry = cqe(&memory, head);
                        prop_assert_eq!((entry.phase() == phase).then_some(entry.cid), visible.front().copied());
                        if visible.pop_front().is_none() { break }
                        head += 1;
                        if head == entries { (head, phase) = (0, !phase) }
                    }
                    prop_assert!(cq.set_head(head));
                }
                CqStep::Head(value) => {
                    let consumed = (value + entries - head) % entries;
                    let valid = value < entries && consumed as usize <= visible.len();
                    prop_assert_eq!(cq.set_head(value), valid);
                    if valid {
                        visible.drain(..consumed as usize);
                        if value < head { phase = !phase }
                        head = value;
                    }
                }
                CqStep::Detach => {
                    prop_assert!(cq.attach(&unreachable()).is_err());
                    attached = false;
                }
                CqStep::Attach => {
                    cq.attach(&reachable(&memory)).unwrap();
                    attached = true;
                    visible.append(&mut waiting);
                }
            }
            let used = permits.len() + visible.len() + waiting.len();
            prop_assert_eq!(cq.room() as usize, if attached { entries as usize - 1 - used } else { 0 });
            prop_assert_eq!(cq.unconsumed() as usize, visible.len());
        }
        permits.drain(..).for_each(|permit| cq.release(permit));
    }

    #[test]
    fn a_submission_queue_yields_what_was_put_in_each_once_and_in_order(
        entries in 2_u32..9,
        batches in prop::collection::vec((0_u32..9, 0_u32..9, any::<bool>()), 1..40),
    ) {
        let memory = LoopbackMemory::new(4096).unwrap();
        let mut sq = SubmissionQueue::new(sq_state(entries));
        sq.attach(&reachable(&memory)).unwrap();
        let (mut tail, mut next, mut expected) = (0, 0_u8, VecDeque::new());
        for (put, take, back) in batches {
            for _ in 0..put {
                if expected.len() as u32 == entries - 1 { break }
                memory.memory().write_bytes(tail as usize * SQE_SIZE, &[next; 64]).unwrap();
                expected.push_back(next);
                next = next.wrapping_add(1);
                tail = (tail + 1) % entries;
            }
            prop_assert!(sq.set_tail(tail));
            for (ahead, value) in (0..).zip(&expected) {
                prop_assert_eq!(sq.peek(ahead), Some([*value; 64]));
            }
            prop_assert_eq!(sq.peek(expected.len() as u32), None);
            for _ in 0..take {
                prop_assert_eq!(sq.pending() as usize, expected.len());
                let entry = sq.fetch();
                prop_assert_eq!(entry, expected.front().map(|value| [*value; 64]));
                if entry.is_some() && back {
                    sq.unfetch();
                    prop_assert_eq!(sq.fetch(), entry);
                }
                expected.pop_front();
            }
        }
    }
}

#[test]
fn a_tail_beyond_the_queue_changes_nothing() {
    let memory = LoopbackMemory::new(4096).unwrap();
    let mut sq = SubmissionQueue::new(sq_state(4));
    sq.attach(&reachable(&memory)).unwrap();
    assert!(sq.set_tail(3));
    for tail in [4, 5, 0xffff] {
        assert!(!sq.set_tail(tail));
        assert_eq!((sq.state().tail, sq.pending()), (3, 3));
    }
}

#[test]
fn the_smallest_and_the_largest_submission_queue_work() {
    for entries in [2, 65536] {
        let memory = LoopbackMemory::new(entries as usize * SQE_SIZE).unwrap();
        let mut sq = SubmissionQueue::new(sq_state(entries));
        sq.attach(&reachable(&memory)).unwrap();
        for pass in 0..2_u8 {
            for index in 0..entries {
                let byte = pass.wrapping_add(index as u8);
                memory.memory().fill(index as usize * SQE_SIZE, 64, byte).unwrap();
                assert!(sq.set_tail((index + 1) % entries));
                assert_eq!(sq.fetch(), Some([byte; 64]));
                assert_eq!(sq.fetch(), None);
            }
        }
        assert!(!sq.set_tail(65536), "no index");
    }
}

#[test]
fn nothing_is_fetched_while_the_queue_is_out_of_reach() {
    let memory = LoopbackMemory::new(4096).unwrap();
    let mut sq = SubmissionQueue::new(sq_state(4));
    sq.set_tail(2);
    assert!(sq.attach(&unreachable()).is_err());
    assert_eq!((sq.pending(), sq.fetch(), sq.peek(0)), (0, None, None));
    sq.attach(&reachable(&memory)).unwrap();
    assert_eq!(sq.pending(), 2);
    assert!(sq.fetch().is_some() && sq.peek(0).is_some());
}

#[test]
fn a_ring_that_is_only_partly_in_memory_is_refused() {
    let memory = LoopbackMemory::new(4096).unwrap();
    let snapshot = reachable(&memory);
    assert!(SubmissionQueue::new(sq_state(65)).attach(&snapshot).is_err());
    assert!(SubmissionQueue::new(sq_state(64)).attach(&snapshot).is_ok());
    assert!(CompletionQueue::new(cq_state(257)).attach(&snapshot).is_err());
    assert!(CompletionQueue::new(cq_state(256)).attach(&snapshot).is_ok());
}

const SHADOW: u64 = BASE;
const EVENT_IDX: u64 = BASE + 4096;

fn shadowed(memory: &LoopbackMemory) -> (Arc<DoorbellPage>, Doorbells) {
    let page = Arc::new(DoorbellPage::new(DOORBELL_PAGE_SIZE).unwrap());
    let mut doorbells = Doorbells::new(page.clone());
    doorbells.set_shadow(Some(Shadow::attach(&reachable(memory), SHADOW, EVENT_IDX, 4096).unwrap()));
    (page, doorbells)
}

#[test]
fn registers_are_the_truth_until_shadow_buffers_are_set() {
    let memory = LoopbackMemory::new(8192).unwrap();
    let page = Arc::new(DoorbellPage::new(DOORBELL_PAGE_SIZE).unwrap());
    let mut doorbells = Doorbells::new(page.clone());
    page.store(register_index(3, false), 0xdead_0007).unwrap();
    page.store(register_index(3, true), 9).unwrap();
    memory.memory().store_u32(3 * 8, 21).unwrap();
    memory.memory().store_u32(3 * 8 + 4, 0xffff_0022).unwrap();
    assert_eq!((doorbells.sq_tail(3), doorbells.cq_head(3)), (Some(7), Some(9)));
    doorbells.set_shadow(Some(Shadow::attach(&reachable(&memory), SHADOW, EVENT_IDX, 4096).unwrap()));
    assert!(doorbells.is_shadowed());
    assert_eq!((doorbells.sq_tail(3), doorbells.cq_head(3)), (Some(21), Some(0x22)));
    doorbells.set_shadow(None);
    assert_eq!(doorbells.sq_tail(3), Some(7));
}

#[test]
fn a_doorbell_lies_in_the_page_where_bar0_has_it() {
    assert_eq!((register_index(0, false) * 4, register_index(0, true) * 4), (0x1000, 0x1004));
    assert_eq!((register_index(511, false) * 4, register_index(511, true) * 4), (0x1ff8, 0x1ffc));
    let page = Arc::new(DoorbellPage::new(DOORBELL_PAGE_SIZE).unwrap());
    page.store(register_index(511, true), 1).unwrap();
    let doorbells = Doorbells::new(page);
    assert_eq!((doorbells.cq_head(511), doorbells.sq_tail(512)), (Some(1), None));
}

#[test]
fn seeding_overwrites_what_a_queue_of_another_time_left() {
    let memory = LoopbackMemory::new(8192).unwrap();
    memory.memory().fill(0, 8192, 0x55).unwrap();
    let (_page, doorbells) = shadowed(&memory);
    doorbells.seed(5, false, 4);
    doorbells.seed(5, true, 0);
    assert_eq!((doorbells.sq_tail(5), doorbells.cq_head(5)), (Some(4), Some(0)));
    let event_idx = |offset: usize| memory.memory().load_u32(4096 + offset).unwrap();
    assert_eq!((event_idx(40), event_idx(44)), (4, 0xffff), "armed, and not armed");
    assert_eq!(memory.memory().load_u32(48).unwrap(), 0x5555_5555, "its neighbour is not touched");
    assert_eq!(event_idx(36), 0x5555_5555);
}

/// What a host does after it has written `new` over `old` (NVMe Base 2.0, 5.8): whether it writes the register too.
fn host_rings(event_idx: u32, new: u32, old: u32) -> bool {
    (new.wrapping_sub(event_idx).wrapping_sub(1) as u16) < (new.wrapping_sub(old) as u16)
}

#[test]
fn an_armed_doorbell_rings_and_a_seeded_completion_queue_does_not() {
    let memory = LoopbackMemory::new(8192).unwrap();
    let (_page, doorbells) = shadowed(&memory);
    let event_idx = |offset: usize| memory.memory().load_u32(4096 + offset).unwrap();
    doorbells.seed(1, false, 0);
    assert!(host_rings(event_idx(8), 1, 0), "the first command of a new queue");
    doorbells.arm(1, false, 7);
    for new in [8, 9, 63] {
        assert!(host_rings(event_idx(8), new, 7));
    }
    assert!(host_rings(event_idx(8), 2, 7), "over the end of the queue");
    assert!(!host_rings(event_idx(8), 9, 8), "once is enough");
    doorbells.seed(1, true, 0);
    for head in 1..64 {
        assert!(!host_rings(event_idx(12), head, head - 1));
    }
    doorbells.arm(1, true, 12);
    assert!(host_rings(event_idx(12), 13, 12));
}

#[test]
fn there_are_no_doorbells_while_shadow_buffers_are_out_of_reach() {
    let memory = LoopbackMemory::new(8192).unwrap();
    let (page, mut doorbells) = shadowed(&memory);
    page.store(register_index(1, false), 5).unwrap();
    doorbells.lose_shadow();
    assert!(!doorbells.is_shadowed());
    assert_eq!((doorbells.sq_tail(1), doorbells.cq_head(1)), (None, None), "the registers are out of date");
    doorbells.seed(1, false, 3);
    doorbells.arm(1, false, 3);
    assert_eq!(memory.memory().load_u32(8).unwrap(), 0, "nobody writes where nobody can");
}

#[test]
fn shadow_buffers_have_to_be_whole_and_writable() {
    let memory = LoopbackMemory::new(8192).unwrap();
    let snapshot = reachable(&memory);
    assert!(Shadow::attach(&snapshot, SHADOW, EVENT_IDX + 4, 4096).is_err());
    assert!(Shadow::attach(&snapshot, SHADOW - 4096, EVENT_IDX, 4096).is_err());
    assert!(Shadow::attach(&unreachable(), SHADOW, EVENT_IDX, 4096).is_err());
}
