//! Enable, disable, shutdown, failure (NVMe Base 2.0, 3.5 to 3.7).

use std::time::Instant;

use nvmet_spec::registers::{ArbitrationMechanism, CommandSetSelected, ShutdownNotification, ShutdownStatus};
use nvmet_spec::status::Status;

use super::admin_queue::AdminQueue;
use super::registers::Effect;
use super::{Controller, MAX_TRANSFER, SHUTDOWN_LIMIT};
use crate::queue::Shadow;
use crate::worker::Command;

/// Where the controller is between disabled and enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// CSTS.RDY is 0 and workers hold nothing.
    Disabled,
    /// CSTS.RDY is 1.
    Enabled,
    /// Workers let go of the queues; this many have not answered.
    Resetting {
        /// Workers that have not answered.
        waiting: usize,
    },
}

/// A shutdown in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// When it is declared complete even without an answer.
    pub deadline: Instant,
}

impl Controller {
    pub(super) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Enable => {
                // While a reset is going on the host has to wait for CSTS.RDY = 0; the end of the reset looks again.
                if self.phase == Phase::Disabled {
                    self.enable();
                }
            }
            Effect::Disable => self.disable(),
            Effect::Shutdown(kind) => self.shut_down(kind),
            Effect::SubsystemReset => {
                tracing::info!("NVM subsystem reset, by the host of controller {}", self.cntlid);
                self.subsystem.reset(self.cntlid);
                // The others hear of it; this one has done it when the write is over.
                self.subsystem_reset();
            }
        }
    }

    fn enable(&mut self) {
        let registers = &self.registers;
        let (cc, aqa) = (registers.cc, registers.aqa);
        let page_size = u64::from(cc.page_size());
        let aligned = registers.asq.is_multiple_of(page_size) && registers.acq.is_multiple_of(page_size);
        let supported = registers.page_size_is_supported()
            && cc.css() == CommandSetSelected::Nvm
            && cc.ams() == ArbitrationMechanism::RoundRobin;
        if !supported || !aligned || aqa.asqs() < 2 || aqa.acqs() < 2 {
            return self.fail("it was enabled with settings that it does not support");
        }
        let mut queue = AdminQueue::new(registers.asq, aqa.asqs(), registers.acq, aqa.acqs());
        if !queue.attach(self.reader.snapshot()) {
            return self.fail("its admin queues are not in the guest's memory");
        }
        self.page.zero();
        self.link.saw_admin_doorbells(0, 0);
        self.admin_queue = Some(queue);
        self.phase = Phase::Enabled;
        self.registers.csts.set_rdy(true);
        // A shutdown that was announced while there was nothing to shut down ends here.
        self.registers.csts.set_shst(ShutdownStatus::Normal);
        self.admin.enabled();
        // Before this, workers did not fetch: a failure or a client without bus mastering may have stopped them.
        self.link.set_running(self.is_running());
        for (index, worker) in self.pool.iter().enumerate() {
            worker.send(Command::Attach {
                link: self.link.clone(),
                page_size,
                max_transfer: MAX_TRANSFER,
                polled: self.polled,
                admin: self.polled && index == 0,
            });
        }
        self.tune_workers();
    }

    /// Controller Reset by CC.EN: CSTS.RDY falls when no worker holds anything of the controller.
    fn disable(&mut self) {
        self.shutdown = None;
        if self.phase == Phase::Enabled {
            self.quiesce();
        } else if self.phase == Phase::Disabled {
            self.registers.reset(true);
        }
    }

    fn quiesce(&mut self) {
        self.admin_queue = None;
        self.queues = super::QueueTable::default();
        self.moves.clear();
        self.rings.reset();
        self.doorbells.set_shadow(None);
        self.admin.reset();
        self.phase = Phase::Resetting { waiting: self.pool.iter().len() };
        self.link.set_running(false);
        for worker in self.pool.iter() {
            worker.send(Command::Quiesce { key: self.link.key });
        }
    }

    pub(super) fn worker_quiesced(&mut self) {
        let Phase::Resetting { waiting } = &mut self.phase else { return };
        *waiting -= 1;
        if *waiting > 0 {
            return;
        }
        self.phase = Phase::Disabled;
        let cc = self.registers.cc;
        self.registers.reset(true);
        self.page.zero();
        if cc.en() {
            // The host did not wait for CSTS.RDY = 0 before it enabled again.
            self.registers.cc = cc;
            self.enable();
        }
    }

    /// Controller Level Reset from outside: function level reset, DEVICE_RESET, a client that left, NSSR. Registers
    /// are at their reset values at once; [`is_quiet`](Self::is_quiet) says when the memory is no longer in use.
    pub fn reset(&mut self) {
        self.shutdown = None;
        self.registers.reset(false);
        if self.phase == Phase::Enabled {
            self.quiesce();
        }
    }

    /// This controller's part of an NVM Subsystem Reset.
    pub(super) fn subsystem_reset(&mut self) {
        self.reset();
        self.registers.csts.set_nssro(true);
    }

    /// Whether no worker holds anything of the controller.
    pub fn is_quiet(&self) -> bool {
        self.phase == Phase::Disabled
    }

    /// The controller cannot go on: CSTS.CFS, until it is reset.
    pub(super) fn fail(&mut self, why: &str) {
        if !self.registers.csts.cfs() {
            tracing::error!("controller {} failed: {why}", self.cntlid);
            self.registers.csts.set_cfs(true);
            self.link.set_running(self.is_running());
        }
    }

    /// Whether the controller executes commands.
    pub(super) fn is_running(&self) -> bool {
        self.phase == Phase::Enabled && self.bus_master && !self.registers.csts.cfs()
    }

    fn shut_down(&mut self, kind: ShutdownNotification) {
        tracing::debug!("shutdown notification: {kind:?}");
        if self.phase != Phase::Enabled {
            self.registers.csts.set_shst(ShutdownStatus::Complete);
            return;
        }
        self.registers.csts.set_shst(ShutdownStatus::Occurring);
        self.shutdown = Some(Shutdown { deadline: Instant::now() + SHUTDOWN_LIMIT });
        if let Some(worker) = self.pool.iter().next() {
            worker.send(Command::Flush { key: self.link.key });
        }
    }

    pub(super) fn flushed(&mut self, status: Status) {
        if !status.is_success() {
            tracing::error!("controller {}: the flush at shutdown failed: {status}", self.cntlid);
        }
        self.shutdown_complete();
    }

    fn shutdown_complete(&mut self) {
        if self.shutdown.take().is_some() {
            self.registers.csts.set_shst(ShutdownStatus::Complete);
        }
    }

    pub(super) fn check_deadlines(&mut self, now: Instant) {
        if self.shutdown.is_some_and(|shutdown| shutdown.deadline <= now) {
            tracing::error!("controller {}: a backend did not flush in time for the shutdown", self.cntlid);
            self.shutdown_complete();
        }
        if self.admin.keep_alive_expired(now) {
            self.fail("the host's keep alive timer expired");
        }
        self.expire_pending(now);
    }

    pub(super) fn refresh_workers(&self) {
        for worker in self.pool.iter() {
            worker.send(Command::Refresh { key: self.link.key });
        }
    }

    /// Looks the shadow buffers up again after the guest's memory changed.
    pub(super) fn attach_shadow(&mut self) {
        let Some(config) = self.admin.shadow() else { return };
        let len = self.registers.cc.page_size() as usize;
        let snapshot = self.reader.snapshot();
        match Shadow::attach(snapshot, config.shadow_doorbells, config.event_idxs, len) {
            Ok(shadow) => self.doorbells.set_shadow(Some(shadow)),
            Err(_) => self.doorbells.lose_shadow(),
        }
    }
}
