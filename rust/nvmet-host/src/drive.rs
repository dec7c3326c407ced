//! An attached controller: enable and disable, registers, admin commands, queue pairs.

use crate::{
    ControllerInfo, HostConfig, HostError, SqeExt,
    doorbell::{Doorbell, ShadowPages},
    memory::HostMemory,
    queue::{CompletionQueue, QueuePair, SubmissionQueue},
    transfer::{Data, Transfer},
    transport::Transport,
};
use nvmet_spec::{
    command::{Cqe, Sqe},
    registers::{self, Aqa, CAP_CSS_NVM, Cap, Cc, Csts, ShutdownNotification, ShutdownStatus},
};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// CAP.TO counts in this unit (Base §3.1.3.1).
const TIMEOUT_UNIT: Duration = Duration::from_millis(500);
/// No wait is longer, whatever the configuration says: a point in time must not overflow.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest step between two looks at CSTS.
const READY_STEP: Duration = Duration::from_millis(10);

/// A controller that this host has enabled.
///
/// Dropping it closes the connection without a word, as a killed VMM does; [`detach`](Self::detach) takes leave.
#[derive(Debug)]
pub struct Drive {
    pub(crate) transport: Arc<Transport>,
    pub(crate) memory: Arc<HostMemory>,
    pub(crate) config: HostConfig,
    pub(crate) cap: Cap,
    pub(crate) admin: QueuePair,
    /// Completions of the admin queue that nobody waited for: events.
    pub(crate) stray: Vec<Cqe>,
    pub(crate) shadow: Option<ShadowPages>,
    pub(crate) controller: ControllerInfo,
    pub(crate) max_queues: u16,
    /// Identifiers of the I/O queues in use; submission and completion queues each have their own.
    pub(crate) sqids: BTreeSet<u16>,
    pub(crate) cqids: BTreeSet<u16>,
    /// Where the next memory is mapped.
    next_iova: u64,
    /// Asynchronous Event Requests that are kept outstanding.
    pub(crate) events_armed: u16,
}

impl Drive {
    /// Connects to the server at `path` (a socket, or a directory with SPDK's socket `cntrl`), resets and enables the
    /// controller, and identifies it.
    ///
    /// # Errors
    /// [`HostError`] says which step failed and what to do. It takes at most `config.timeout` a message and the
    /// controller's own CAP.TO for a reset.
    pub fn attach(path: impl AsRef<Path>, mut config: HostConfig) -> Result<Self, HostError> {
        config.timeout = config.timeout.min(MAX_TIMEOUT);
        if !config.page_size.is_power_of_two()
            || config.page_size < 4096
            || !config.iova.is_multiple_of(config.page_size)
        {
            return Err(HostError::argument(
                "page_size must be a power of two from 4096 on, and iova a multiple of it",
            ));
        }
        let transport = Arc::new(Transport::attach(path.as_ref(), &config)?);
        let cap = Cap::from_bits(transport.reg64(registers::CAP)?);
        check_capabilities(cap, &config)?;
        let memory = HostMemory::map(&transport, config.iova, config.memory_bytes, config.page_size)?;
        let next_iova = (config.iova + memory.len() as u64).next_multiple_of(1 << 30);
        let admin = admin_queue(&transport, &memory, &config, cap.dstrd())?;
        let mut drive = Self {
            transport,
            memory,
            cap,
            admin,
            stray: Vec::new(),
            shadow: None,
            controller: ControllerInfo::default(),
            max_queues: 0,
            sqids: BTreeSet::new(),
            cqids: BTreeSet::new(),
            next_iova,
            events_armed: 0,
            config,
        };
        drive.enable()?;
        Ok(drive)
    }

    /// Resets the controller and brings it up again with empty queues. Queue pairs made before are dead.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn enable(&mut self) -> Result<(), HostError> {
        self.disable()?;
        // New rings: nothing of an earlier life is in them.
        self.admin = admin_queue(&self.transport, &self.memory, &self.config, self.cap.dstrd())?;
        let entries_z = self.config.admin_entries.clamp(2, 4096) - 1;
        let aqa = Aqa::new().with_asqs_z(entries_z).with_acqs_z(entries_z);
        self.transport.set_reg32(registers::AQA, aqa.into_bits())?;
        let asq = self.admin.sq_memory(0).map_or(0, crate::DmaBuffer::iova);
        self.transport.set_reg64(registers::ASQ, asq)?;
        self.transport.set_reg64(registers::ACQ, self.admin.cq_memory().iova())?;
        let cc = Cc::new()
            .with_en(true)
            .with_mps((self.config.page_size.trailing_zeros() - 12) as u8)
            .with_iosqes(Sqe::SIZE_LOG2)
            .with_iocqes(Cqe::SIZE_LOG2);
        self.transport.set_reg32(registers::CC, cc.into_bits())?;
        self.wait_csts("the controller to become ready (CSTS.RDY)", self.ready_timeout(), |csts| csts.rdy())?;
        self.set_up()
    }

    /// What follows CSTS.RDY: identify, shadow doorbells, number of queues.
    fn set_up(&mut self) -> Result<(), HostError> {
        self.controller = self.identify_controller()?;
        let (mapped, supported) =
            (self.transport.has_mapped_doorbells(), self.controller.doorbell_buffer_config);
        if self.config.doorbells.wants_shadow(mapped, supported)? {
            self.use_shadow_doorbells()?;
        }
        self.max_queues = self.set_number_of_queues(self.config.io_queues.max(1))?;
        Ok(())
    }

    /// Clears CC.EN and waits for CSTS.RDY to clear. All queues but the admin queue's memory are gone.
    ///
    /// # Errors
    /// [`HostError::Timeout`] after CAP.TO; a lost connection.
    pub fn disable(&mut self) -> Result<(), HostError> {
        let cc = Cc::from_bits(self.transport.reg32(registers::CC)?);
        if cc.en() {
            let cc = cc.with_en(false).with_shn(ShutdownNotification::None);
            self.transport.set_reg32(registers::CC, cc.into_bits())?;
        }
        self.wait_csts_even_if_fatal("the controller to reset (CSTS.RDY)", self.ready_timeout(), |csts| {
            !csts.rdy()
        })?;
        self.shadow = None;
        self.sqids.clear();
        self.cqids.clear();
        self.stray.clear();
        self.events_armed = 0;
        Ok(())
    }

    /// Announces a normal shutdown (CC.SHN) and waits until it is complete (Base §3.6.1): acknowledged data is safe then.
    ///
    /// # Errors
    /// [`HostError::Timeout`]; a lost connection.
    pub fn shutdown(&mut self) -> Result<(), HostError> {
        let cc = Cc::from_bits(self.transport.reg32(registers::CC)?);
        self.transport.set_reg32(registers::CC, cc.with_shn(ShutdownNotification::Normal).into_bits())?;
        // A flush of the medium may take longer than a reset.
        let limit = self.ready_timeout().max(self.config.timeout);
        self.wait_csts("shutdown to complete (CSTS.SHST)", limit, |csts| {
            csts.shst() == ShutdownStatus::Complete
        })
    }

    /// Shuts down, disables the controller, takes host memory back, and closes the connection.
    ///
    /// # Errors
    /// The first step that failed; the connection is closed all the same.
    pub fn detach(mut self) -> Result<(), HostError> {
        self.shutdown()?;
        self.disable()?;
        self.memory.unmap()
    }

    /// CAP.TO, the worst case of CSTS.RDY (Base §3.1.3.1).
    fn ready_timeout(&self) -> Duration {
        TIMEOUT_UNIT * u32::from(self.cap.to().max(1))
    }

    /// As [`wait_csts_even_if_fatal`](Self::wait_csts_even_if_fatal), but CSTS.CFS is an error.
    fn wait_csts(
        &self,
        what: &'static str,
        limit: Duration,
        done: impl Fn(Csts) -> bool,
    ) -> Result<(), HostError> {
        self.wait_csts_even_if_fatal(what, limit, |csts| done(csts) || csts.cfs())?;
        self.transport.check_health()
    }

    /// Reads CSTS until `done`, at most for `limit`.
    fn wait_csts_even_if_fatal(
        &self,
        what: &'static str,
        limit: Duration,
        done: impl Fn(Csts) -> bool,
    ) -> Result<(), HostError> {
        let started = Instant::now();
        let mut step = Duration::from_micros(50);
        loop {
            let csts = self.transport.reg32(registers::CSTS)?;
            if csts == u32::MAX {
                return Err(HostError::Fatal { csts });
            }
            if done(Csts::from_bits(csts)) {
                return Ok(());
            }
            let after = started.elapsed();
            if after >= limit {
                return Err(HostError::Timeout { what, after });
            }
            thread::sleep(step);
            step = (step * 2).min(READY_STEP);
        }
    }

    /// Sends an admin command and waits for its completion, whatever its status. `data` is moved through host memory
    /// by PRPs; with [`Data::None`] DPTR is sent as it is. The CID is chosen here.
    ///
    /// # Errors
    /// [`HostError::Timeout`], [`HostError::Fatal`], a lost connection; not for a bad status.
    pub fn admin(&mut self, sqe: Sqe, data: Data<'_>) -> Result<Cqe, HostError> {
        let Self { admin, stray, memory, config, .. } = self;
        exchange(memory, config.page_size, sqe, data, |sqe| {
            admin.call(sqe, config.timeout, |completion| stray.push(completion))
        })
    }

    /// Sends an I/O command on `pair` and waits for its completion, whatever its status; as [`admin`](Self::admin).
    /// Completions of other commands that come meanwhile are dropped.
    ///
    /// # Errors
    /// As [`admin`](Self::admin).
    pub fn io(&self, pair: &mut QueuePair, sqe: Sqe, data: Data<'_>) -> Result<Cqe, HostError> {
        exchange(&self.memory, self.config.page_size, sqe, data, |sqe| {
            pair.call(sqe, self.config.timeout, |_| {})
        })
    }

    /// The admin queue itself, to submit and poll by hand.
    pub const fn admin_queue(&mut self) -> &mut QueuePair {
        &mut self.admin
    }

    /// Host memory that was mapped when attaching.
    #[must_use]
    pub const fn memory(&self) -> &Arc<HostMemory> {
        &self.memory
    }

    /// Maps `bytes` more of host memory, at an address that was never used before.
    ///
    /// # Errors
    /// [`HostError::Memory`], or the server refuses the map.
    pub fn map_memory(&mut self, bytes: usize) -> Result<Arc<HostMemory>, HostError> {
        let memory = HostMemory::map(&self.transport, self.next_iova, bytes, self.config.page_size)?;
        self.next_iova = (self.next_iova + memory.len() as u64).next_multiple_of(1 << 30);
        Ok(memory)
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        self.transport.close();
    }
}

/// Runs `call` with `sqe` pointed at `data` in host memory.
pub(crate) fn exchange(
    memory: &Arc<HostMemory>,
    page: u64,
    sqe: Sqe,
    data: Data<'_>,
    call: impl FnOnce(Sqe) -> Result<Cqe, HostError>,
) -> Result<Cqe, HostError> {
    let len = match &data {
        Data::None => return call(sqe),
        Data::Out(bytes) => bytes.len(),
        Data::In(bytes) => bytes.len(),
    };
    let transfer = Transfer::new(memory, len, 0, page)?;
    if let Data::Out(bytes) = &data {
        transfer.buffer().write(0, bytes)?;
    }
    let completion = match call(sqe.with_prp(transfer.prp())) {
        Ok(completion) => completion,
        Err(error) => {
            // The command may still be running: its memory must not serve another one.
            transfer.abandon();
            return Err(error);
        }
    };
    if let Data::In(bytes) = data
        && completion.status().is_success()
    {
        transfer.buffer().read(0, bytes)?;
    }
    Ok(completion)
}

fn check_capabilities(cap: Cap, config: &HostConfig) -> Result<(), HostError> {
    if cap.css() & CAP_CSS_NVM == 0 {
        return Err(HostError::Unsupported("it does not support the NVM command set (CAP.CSS)".into()));
    }
    let mps = config.page_size.trailing_zeros() - 12;
    let (min, max) = (u32::from(cap.mpsmin()), u32::from(cap.mpsmax()));
    if !(min..=max).contains(&mps) {
        return Err(HostError::Unsupported(format!(
            "pages of {} bytes are outside of what it supports, {} to {} bytes (CAP.MPSMIN, CAP.MPSMAX)",
            config.page_size,
            4096u64 << min,
            4096u64 << max
        )));
    }
    Ok(())
}

/// The admin queues: identifier 0, no creation command.
fn admin_queue(
    transport: &Arc<Transport>,
    memory: &Arc<HostMemory>,
    config: &HostConfig,
    dstrd: u8,
) -> Result<QueuePair, HostError> {
    let depth = u32::from(config.admin_entries.clamp(2, 4096));
    let doorbell = |which| Doorbell::new(Arc::clone(transport), which, dstrd);
    let cq = CompletionQueue {
        id: 0,
        ring: memory.allocate(depth as usize * Cqe::SIZE)?,
        depth,
        head: 0,
        phase: true,
        doorbell: doorbell(registers::Doorbell::CqHead(0)),
        interrupt: transport.interrupt(0),
    };
    let sq = SubmissionQueue {
        id: 0,
        ring: memory.allocate(depth as usize * Sqe::SIZE)?,
        depth,
        tail: 0,
        rung: 0,
        head: 0,
        doorbell: doorbell(registers::Doorbell::SqTail(0)),
    };
    Ok(QueuePair::new(cq, vec![sq], Arc::clone(transport)))
}
