//! Admin commands by name. Each sends one command and turns a bad status into [`HostError::Command`].

use crate::{Drive, HostError, SqeExt, doorbell::ShadowPages, transfer::Data};
use nvmet_spec::{
    command::{
        AbortCdw10, AbortDw0, AdminOpcode, Cqe, GetFeaturesCdw10, GetLogPageCdw10, GetLogPageCdw11,
        IdentifyCdw10, SetFeaturesCdw10, Sqe,
    },
    feature::{FeatureId, NumberOfQueues, Select},
    identify::IDENTIFY_SIZE,
};
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of an Identify data structure (Base §5.17).
pub const IDENTIFY_BYTES: usize = IDENTIFY_SIZE;

impl Drive {
    /// Sends an admin command that has to succeed.
    ///
    /// # Errors
    /// [`HostError::Command`] with the status, and those of [`admin`](Self::admin).
    pub fn admin_ok(&mut self, sqe: Sqe, data: Data<'_>) -> Result<Cqe, HostError> {
        let name = AdminOpcode::try_from(sqe.opcode()).map_or("admin command", AdminOpcode::name);
        let completion = self.admin(sqe, data)?;
        if completion.status().is_success() {
            Ok(completion)
        } else {
            Err(HostError::command(name, completion))
        }
    }

    /// Identify (Base §5.17) with `cns` for `nsid`: 4096 bytes.
    ///
    /// # Errors
    /// As [`admin_ok`](Self::admin_ok).
    pub fn identify(&mut self, cns: u8, nsid: u32) -> Result<Vec<u8>, HostError> {
        let mut data = vec![0; IDENTIFY_BYTES];
        self.identify_into(cns, nsid, &mut data)?;
        Ok(data)
    }

    /// [`identify`](Self::identify) as the data structure that `cns` stands for.
    pub(crate) fn identify_structure<T: FromBytes + IntoBytes>(
        &mut self,
        cns: u8,
        nsid: u32,
    ) -> Result<T, HostError> {
        let mut data = T::new_zeroed();
        self.identify_into(cns, nsid, data.as_mut_bytes())?;
        Ok(data)
    }

    fn identify_into(&mut self, cns: u8, nsid: u32, data: &mut [u8]) -> Result<(), HostError> {
        let sqe = Sqe::new(AdminOpcode::Identify, 0, nsid)
            .with_cdw10(IdentifyCdw10::new().with_cns(cns).into_bits());
        self.admin_ok(sqe, Data::In(data)).map(drop)
    }

    /// Get Log Page (Base §5.16): `len` bytes (a multiple of 4) of log `lid` from `offset` on. `rae` retains the
    /// asynchronous event that the log belongs to.
    ///
    /// # Errors
    /// As [`admin_ok`](Self::admin_ok).
    pub fn get_log_page(
        &mut self,
        lid: u8,
        nsid: u32,
        len: usize,
        offset: u64,
        rae: bool,
    ) -> Result<Vec<u8>, HostError> {
        let Some(numd_z) = u32::try_from(len / 4).ok().and_then(|numd| numd.checked_sub(1)) else {
            return Err(HostError::argument("a log page is read in 4 bytes to 16 GiB"));
        };
        let mut data = vec![0; len / 4 * 4];
        let cdw10 = GetLogPageCdw10::new().with_lid(lid).with_rae(rae).with_numdl(numd_z as u16);
        let sqe = Sqe::new(AdminOpcode::GetLogPage, 0, nsid)
            .with_cdw10(cdw10.into_bits())
            .with_cdw11(GetLogPageCdw11::new().with_numdu((numd_z >> 16) as u16).into_bits())
            .with_cdw12(offset as u32)
            .with_cdw13((offset >> 32) as u32);
        self.admin_ok(sqe, Data::In(&mut data))?;
        Ok(data)
    }

    /// Get Features (Base §5.15): DW0 of the completion. `data` takes the data structure of features that have one.
    ///
    /// # Errors
    /// As [`admin_ok`](Self::admin_ok).
    pub fn get_features(
        &mut self,
        fid: impl Into<u8>,
        sel: Select,
        nsid: u32,
        data: Data<'_>,
    ) -> Result<u32, HostError> {
        let cdw10 = GetFeaturesCdw10::new().with_fid(fid.into()).with_sel(sel).into_bits();
        let sqe = Sqe::new(AdminOpcode::GetFeatures, 0, nsid).with_cdw10(cdw10);
        self.admin_ok(sqe, data).map(|completion| completion.dw0)
    }

    /// Set Features (Base §5.27) with value `cdw11`, not saved: DW0 of the completion.
    ///
    /// # Errors
    /// As [`admin_ok`](Self::admin_ok).
    pub fn set_features(
        &mut self,
        fid: impl Into<u8>,
        nsid: u32,
        cdw11: u32,
        data: Data<'_>,
    ) -> Result<u32, HostError> {
        let cdw10 = SetFeaturesCdw10::new().with_fid(fid.into()).into_bits();
        let sqe = Sqe::new(AdminOpcode::SetFeatures, 0, nsid).with_cdw10(cdw10).with_cdw11(cdw11);
        self.admin_ok(sqe, data).map(|completion| completion.dw0)
    }

    /// Asks for `pairs` I/O queue pairs (Number of Queues, Base §5.27.1.5) and gives how many there may be.
    ///
    /// # Errors
    /// As [`admin_ok`](Self::admin_ok).
    pub fn set_number_of_queues(&mut self, pairs: u16) -> Result<u16, HostError> {
        // FFFFh is no legal 0's based value.
        let wanted_z = pairs.clamp(1, 0xFFFF) - 1;
        let wanted = NumberOfQueues::new().with_nsq_z(wanted_z).with_ncq_z(wanted_z);
        let granted = self.set_features(FeatureId::NumberOfQueues, 0, wanted.into_bits(), Data::None)?;
        let granted = NumberOfQueues::from_bits(granted);
        let least = granted.nsq().min(granted.ncq());
        Ok(u16::try_from(least).unwrap_or(u16::MAX).min(pairs))
    }

    /// Abort (Base §5.1) of command `cid` of queue `sqid`: whether it was aborted.
    ///
    /// # Errors
    /// As [`admin_ok`](Self::admin_ok).
    pub fn abort(&mut self, sqid: u16, cid: u16) -> Result<bool, HostError> {
        let cdw10 = AbortCdw10::new().with_sqid(sqid).with_cid(cid).into_bits();
        let completion = self.admin_ok(Sqe::new(AdminOpcode::Abort, 0, 0).with_cdw10(cdw10), Data::None)?;
        Ok(!AbortDw0::from_bits(completion.dw0).not_aborted())
    }

    /// Keep Alive (Base §5.18).
    ///
    /// # Errors
    /// As [`admin_ok`](Self::admin_ok).
    pub fn keep_alive(&mut self) -> Result<(), HostError> {
        self.admin_ok(Sqe::new(AdminOpcode::KeepAlive, 0, 0), Data::None).map(drop)
    }

    /// Doorbell Buffer Config (Base §5.8): from now on doorbells are rung through shadow pages, on the admin queue and
    /// on queues that are made later.
    ///
    /// # Errors
    /// As [`admin_ok`](Self::admin_ok); [`HostError::Argument`] when I/O queues exist already.
    pub fn use_shadow_doorbells(&mut self) -> Result<(), HostError> {
        if !self.sqids.is_empty() || !self.cqids.is_empty() {
            return Err(HostError::argument("shadow doorbells must be set up before I/O queues are created"));
        }
        let page = self.config.page_size as usize;
        let pages = ShadowPages {
            shadow: Arc::new(self.memory.allocate(page)?),
            event_idx: Arc::new(self.memory.allocate(page)?),
        };
        // A controller that looks at the admin queue's shadow sees this very command there, not an empty page.
        self.admin.announce_next(&pages)?;
        let mut sqe = Sqe::new(AdminOpcode::DoorbellBufferConfig, 0, 0);
        (sqe.prp1, sqe.prp2) = (pages.shadow.iova(), pages.event_idx.iova());
        self.admin_ok(sqe, Data::None)?;
        self.admin.use_shadow(&pages)?;
        self.shadow = Some(pages);
        Ok(())
    }
}
