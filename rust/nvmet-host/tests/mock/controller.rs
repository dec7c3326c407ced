//! Registers, queues and commands of the mock.

use super::{Fault, Options};
use nvmet_dma::{DoorbellPage, EventFd, MappedArea};
use nvmet_spec::{
    command::{AdminOpcode, Cqe, CqeStatus, CreateCqCdw11, CreateQueueCdw10, CreateSqCdw11, NvmOpcode, Sqe},
    registers::{self, Aqa, Cap, Cc, Csts, ShutdownNotification, ShutdownStatus},
    status::Status,
};
use std::collections::BTreeMap;
use zerocopy::{FromBytes, IntoBytes};

pub const BLOCK: usize = 512;
pub const BLOCKS: usize = 8192;
const PAGE: u64 = 4096;

struct Sq {
    base: u64,
    depth: u32,
    head: u32,
    cqid: u16,
}

struct Cq {
    base: u64,
    depth: u32,
    tail: u32,
    phase: bool,
    vector: Option<u16>,
}

pub struct Controller {
    pub options: Options,
    pub config: Vec<u8>,
    pub page: DoorbellPage,
    pub memory: Vec<(u64, MappedArea)>,
    pub interrupts: Vec<EventFd>,
    /// Doorbell writes that came as messages.
    pub trapped: usize,
    /// Event requests that wait, oldest first.
    pub events: Vec<u16>,
    disk: Vec<u8>,
    cc: u32,
    csts: Csts,
    aqa: u32,
    asq: u64,
    acq: u64,
    shadow: Option<(u64, u64)>,
    sqs: BTreeMap<u16, Sq>,
    cqs: BTreeMap<u16, Cq>,
}

impl Controller {
    pub fn new(options: Options) -> Self {
        let mut config = vec![0; 4096];
        config[..4].copy_from_slice(&[0x36, 0x1b, 0x99, 0x99]);
        let class = if options.fault == Fault::NoNvme { [0, 0, 0x02] } else { [0x02, 0x08, 0x01] };
        config[9..12].copy_from_slice(&class);
        Self {
            options,
            config,
            // The region's file: the page of the doorbells is its second.
            page: DoorbellPage::new(0x2000).unwrap(),
            memory: Vec::new(),
            interrupts: Vec::new(),
            trapped: 0,
            events: Vec::new(),
            disk: vec![0; BLOCK * BLOCKS],
            cc: 0,
            csts: Csts::new(),
            aqa: 0,
            asq: 0,
            acq: 0,
            shadow: None,
            sqs: BTreeMap::new(),
            cqs: BTreeMap::new(),
        }
    }

    pub fn reset(&mut self) {
        self.cc = 0;
        self.csts = Csts::new();
        self.shadow = None;
        self.sqs.clear();
        self.cqs.clear();
        self.events.clear();
        self.page.zero();
    }

    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let cap = Cap::new().with_mqes_z(1023).with_cqr(true).with_to(1).with_css(1).with_mpsmax(4);
        let value = match offset {
            registers::CAP => cap.into_bits(),
            registers::VS => 0x0002_0000,
            registers::CC => u64::from(self.cc),
            registers::CSTS => u64::from(self.csts.into_bits()),
            _ => 0,
        };
        data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut bytes = [0; 8];
        bytes[..data.len()].copy_from_slice(data);
        let value = u64::from_le_bytes(bytes);
        match offset {
            registers::AQA => self.aqa = value as u32,
            registers::ASQ => self.asq = value,
            registers::ACQ => self.acq = value,
            registers::CC => self.configure(value as u32),
            0x1000.. => {
                self.trapped += 1;
                self.page.store(offset as usize / 4, value as u32).unwrap();
            }
            _ => {}
        }
    }

    fn configure(&mut self, value: u32) {
        let cc = Cc::from_bits(value);
        if !cc.en() {
            self.reset();
        } else if self.sqs.is_empty() && self.options.fault != Fault::NeverReady {
            let aqa = Aqa::from_bits(self.aqa);
            self.sqs.insert(0, Sq { base: self.asq, depth: aqa.asqs(), head: 0, cqid: 0 });
            let cq = Cq { base: self.acq, depth: aqa.acqs(), tail: 0, phase: true, vector: Some(0) };
            self.cqs.insert(0, cq);
            self.csts.set_rdy(true);
        }
        if cc.shn() == ShutdownNotification::Normal {
            self.csts.set_shst(ShutdownStatus::Complete);
        }
        self.cc = value;
    }

    fn area(&self, iova: u64) -> Option<(&MappedArea, usize)> {
        let holds = |(base, area): &&(u64, MappedArea)| (*base..*base + area.len() as u64).contains(&iova);
        self.memory.iter().find(holds).map(|(base, area)| (area, (iova - base) as usize))
    }

    fn load(&self, iova: u64) -> u32 {
        self.area(iova).map_or(0, |(area, at)| area.load_u32(at).unwrap_or(0))
    }

    fn tail(&self, qid: u16) -> u32 {
        let slot = u64::from(qid) * 8;
        match self.shadow {
            Some((shadow, event_idx)) if qid > 0 => {
                let tail = self.load(shadow + slot);
                // Never ask for a trap: this controller polls.
                if let Some((area, at)) = self.area(event_idx + slot) {
                    let _ = area.store_u32(at, tail.wrapping_sub(1) & 0xFFFF);
                }
                tail
            }
            _ => self.page.load(0x400 + slot as usize / 4).unwrap(),
        }
    }

    /// Carries out everything that was submitted. Whether there was anything.
    pub fn process(&mut self) -> bool {
        let mut busy = false;
        let ids: Vec<u16> = self.sqs.keys().copied().collect();
        for qid in ids {
            let tail = self.tail(qid);
            let mut touched = None;
            while let Some(sq) = self.sqs.get_mut(&qid).filter(|sq| sq.head != tail && tail < sq.depth) {
                let at = sq.base + u64::from(sq.head) * Sqe::SIZE as u64;
                sq.head = (sq.head + 1) % sq.depth;
                let (head, cqid) = (sq.head as u16, sq.cqid);
                let mut bytes = [0; Sqe::SIZE];
                let Some((area, offset)) = self.area(at) else { break };
                area.read_bytes(offset, &mut bytes).unwrap();
                let sqe = Sqe::read_from_bytes(&bytes).unwrap();
                busy = true;
                let done = if qid == 0 { self.admin(&sqe) } else { self.io(&sqe) };
                if let Some((status, dw0)) = done {
                    self.complete(
                        cqid,
                        Cqe { dw0, sqhd: head, sqid: qid, cid: sqe.cid(), ..Cqe::default() },
                        status,
                    );
                    touched = Some(cqid);
                }
            }
            if let Some(vector) = touched.and_then(|cqid| self.cqs.get(&cqid)).and_then(|cq| cq.vector)
                && let Some(eventfd) = self.interrupts.get(usize::from(vector))
            {
                eventfd.signal().unwrap();
            }
        }
        busy
    }

    fn complete(&mut self, cqid: u16, mut cqe: Cqe, status: Status) {
        if self.options.fault == Fault::WrongCid && cqid > 0 {
            cqe.cid = 0x7777;
        }
        let Some(cq) = self.cqs.get_mut(&cqid) else { return };
        cqe.status = CqeStatus::new().with_phase(cq.phase).with_status(status);
        let at = cq.base + u64::from(cq.tail) * Cqe::SIZE as u64;
        cq.tail += 1;
        if cq.tail == cq.depth {
            (cq.tail, cq.phase) = (0, !cq.phase);
        }
        let (area, offset) = self.area(at).unwrap();
        area.write_bytes(offset, &cqe.as_bytes()[..12]).unwrap();
        area.store_u32(offset + 12, u32::from_le_bytes(cqe.as_bytes()[12..].try_into().unwrap())).unwrap();
    }

    /// Reports an event, if a request waits.
    pub fn raise(&mut self, dw0: u32) {
        let cid = self.events.remove(0);
        let head = self.sqs[&0].head as u16;
        self.complete(0, Cqe { dw0, sqhd: head, cid, ..Cqe::default() }, Status::SUCCESS);
    }

    fn admin(&mut self, sqe: &Sqe) -> Option<(Status, u32)> {
        let create = CreateQueueCdw10::from_bits(sqe.cdw10);
        let mut dw0 = 0;
        match AdminOpcode::try_from(sqe.opcode()) {
            Ok(AdminOpcode::Identify) => self.move_out(sqe, &self.identify(sqe.cdw10 as u8, sqe.nsid)),
            Ok(AdminOpcode::SetFeatures) => dw0 = 3 | 3 << 16,
            Ok(AdminOpcode::CreateIoCq) => {
                let cdw11 = CreateCqCdw11::from_bits(sqe.cdw11);
                let vector = cdw11.ien().then_some(cdw11.iv());
                let cq = Cq { base: sqe.prp1, depth: create.qsize(), tail: 0, phase: true, vector };
                self.cqs.insert(create.qid(), cq);
            }
            Ok(AdminOpcode::CreateIoSq) if self.options.fault == Fault::NoQueues => {
                return Some((Status::INVALID_FIELD.with_dnr(), 0));
            }
            Ok(AdminOpcode::CreateIoSq) => {
                let cqid = CreateSqCdw11::from_bits(sqe.cdw11).cqid();
                self.page.store(0x400 + usize::from(create.qid()) * 2, 0).unwrap();
                self.sqs.insert(create.qid(), Sq { base: sqe.prp1, depth: create.qsize(), head: 0, cqid });
            }
            Ok(AdminOpcode::DeleteIoSq) => drop(self.sqs.remove(&create.qid())),
            Ok(AdminOpcode::DeleteIoCq) => drop(self.cqs.remove(&create.qid())),
            Ok(AdminOpcode::AsyncEventRequest) => {
                self.events.push(sqe.cid());
                return None;
            }
            Ok(AdminOpcode::DoorbellBufferConfig) => self.shadow = Some((sqe.prp1, sqe.prp2)),
            _ => return Some((Status::INVALID_OPCODE.with_dnr(), 0)),
        }
        Some((Status::SUCCESS, dw0))
    }

    fn identify(&self, cns: u8, nsid: u32) -> Vec<u8> {
        let mut data = vec![0; 4096];
        match cns {
            0 => {
                data[..8].copy_from_slice(&(BLOCKS as u64).to_le_bytes());
                data[130] = 9;
            }
            1 => {
                data[4..8].copy_from_slice(b"MOCK");
                data[77] = 5;
                data[257] = u8::from(self.options.shadow);
                data[259] = 3;
            }
            2 if nsid == 0 => data[0] = 1,
            _ => {}
        }
        data
    }

    fn io(&mut self, sqe: &Sqe) -> Option<(Status, u32)> {
        match self.options.fault {
            Fault::Silent => return None,
            Fault::Fatal => {
                self.csts.set_cfs(true);
                return None;
            }
            _ => {}
        }
        let (lba, blocks) = (sqe.slba() as usize, (sqe.cdw12 & 0xFFFF) as usize + 1);
        let opcode = NvmOpcode::try_from(sqe.opcode()).ok()?;
        if matches!(opcode, NvmOpcode::Flush | NvmOpcode::DatasetManagement) || self.options.null {
            return Some((Status::SUCCESS, 0));
        }
        if lba + blocks > BLOCKS {
            return Some((Status::LBA_OUT_OF_RANGE.with_dnr(), 0));
        }
        let range = lba * BLOCK..(lba + blocks) * BLOCK;
        match opcode {
            NvmOpcode::Read => {
                let mut data = self.disk[range].to_vec();
                if let Fault::FlippedBit(bad) = self.options.fault
                    && let Some(block) = (bad as usize).checked_sub(lba).filter(|block| *block < blocks)
                {
                    data[block * BLOCK + 100] ^= 1;
                }
                self.move_out(sqe, &data);
            }
            NvmOpcode::Write => {
                let data = self.move_in(sqe, blocks * BLOCK);
                let mut start = range.start;
                if let Fault::Misplaced(bad) = self.options.fault
                    && bad == lba as u64
                {
                    start += BLOCK;
                }
                self.disk[start..start + data.len()].copy_from_slice(&data);
            }
            NvmOpcode::Compare => {
                if self.move_in(sqe, blocks * BLOCK) != self.disk[range] {
                    return Some((Status::COMPARE_FAILURE, 0));
                }
            }
            NvmOpcode::WriteZeroes => self.disk[range].fill(0),
            _ => return Some((Status::INVALID_OPCODE.with_dnr(), 0)),
        }
        Some((Status::SUCCESS, 0))
    }

    /// Page by page addresses of a transfer (Base §4.1.1).
    fn pages(&self, sqe: &Sqe, len: usize) -> Vec<(u64, usize)> {
        let first = (PAGE - sqe.prp1 % PAGE).min(len as u64) as usize;
        let (mut out, mut left, mut list) = (vec![(sqe.prp1, first)], len - first, sqe.prp2);
        if left > 0 && left <= PAGE as usize {
            out.push((sqe.prp2, left));
            return out;
        }
        let qword = |at| u64::from(self.load(at)) | u64::from(self.load(at + 4)) << 32;
        while left > 0 {
            let entry = qword(list);
            if list % PAGE == PAGE - 8 && left > PAGE as usize {
                list = entry;
                continue;
            }
            let n = left.min(PAGE as usize);
            out.push((entry, n));
            (left, list) = (left - n, list + 8);
        }
        out
    }

    fn move_out(&self, sqe: &Sqe, data: &[u8]) {
        let mut at = 0;
        for (iova, n) in self.pages(sqe, data.len()) {
            let (area, offset) = self.area(iova).unwrap();
            area.write_bytes(offset, &data[at..at + n]).unwrap();
            at += n;
        }
    }

    fn move_in(&self, sqe: &Sqe, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        let mut at = 0;
        for (iova, n) in self.pages(sqe, len) {
            let (area, offset) = self.area(iova).unwrap();
            area.read_bytes(offset, &mut data[at..at + n]).unwrap();
            at += n;
        }
        data
    }
}
