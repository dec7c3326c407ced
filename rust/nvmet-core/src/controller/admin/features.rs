//! Features: what Set Features changes and Get Features returns (NVMe Base 2.0, 5.15, 5.27; NVM Command Set 1.1,
//! 4.1.3).
//!
//! Plain data. Nothing is saveable, so the saved value of a feature is its default. May know limits of the controller;
//! must not know queues, memory or how the values are put to use.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use nvmet_spec::aer::AsyncEventConfig;
use nvmet_spec::command::NSID_ALL;
use nvmet_spec::feature::{
    Arbitration, ErrorRecovery, FeatureId, HostBehaviorSupport, HostIdentifier, InterruptCoalescing,
    InterruptVectorConfig, NumberOfQueues, PowerManagement, Select, SupportedCapabilities,
    TemperatureThreshold, Timestamp, TimestampOrigin, VolatileWriteCache, WriteAtomicityNormal,
};
use nvmet_spec::status::Status;
use zerocopy::{FromBytes, IntoBytes};

use super::super::{ControllerLimits, MAX_IO_QUEUES};
use crate::namespace::MAX_NAMESPACES;
use crate::worker::{Coalescing, Tuning, VectorSet};

/// Identify Controller WCTEMP in kelvins, and the default of the over temperature threshold.
pub const WARNING_TEMPERATURE: u16 = 343;
/// Identify Controller CCTEMP in kelvins.
pub const CRITICAL_TEMPERATURE: u16 = 353;
/// Identify Controller KAS in milliseconds: the granularity of the keep alive timeout.
pub const KEEP_ALIVE_GRANULARITY: u32 = 100;
/// Identify Controller RAB: commands that a worker fetches from a queue at a time, as a power of two.
pub const ARBITRATION_BURST: u8 = 6;
/// The Arbitration Burst without a limit.
const NO_LIMIT: u8 = 0b111;

// Every vector has its place in the set: one for each I/O queue pair and vector 0.
const _: () = assert!(MAX_IO_QUEUES < VectorSet::LEN);

/// The features that there are; Volatile Write Cache only while a namespace has one.
const SUPPORTED: [FeatureId; 17] = [
    FeatureId::Arbitration,
    FeatureId::PowerManagement,
    FeatureId::TemperatureThreshold,
    FeatureId::ErrorRecovery,
    FeatureId::VolatileWriteCache,
    FeatureId::NumberOfQueues,
    FeatureId::InterruptCoalescing,
    FeatureId::InterruptVectorConfig,
    FeatureId::WriteAtomicityNormal,
    FeatureId::AsyncEventConfig,
    FeatureId::Timestamp,
    FeatureId::KeepAliveTimer,
    FeatureId::HostBehaviorSupport,
    FeatureId::HostIdentifier,
    FeatureId::ReservationNotificationMask,
    FeatureId::ReservationPersistence,
    FeatureId::NamespaceWriteProtection,
];

/// A Set Features command.
#[derive(Clone, Copy, Debug)]
pub struct SetRequest<'a> {
    /// Feature Identifier.
    pub fid: u8,
    /// SV: keep the value over resets and power cycles.
    pub save: bool,
    /// Namespace identifier.
    pub nsid: u32,
    /// Command Dword 11.
    pub cdw11: u32,
    /// The data, [`Features::data_len`] bytes.
    pub data: &'a [u8],
    /// Whether any I/O queue exists.
    pub queues_exist: bool,
}

/// What Get Features returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureValue {
    /// Dword 0 of the completion.
    pub dw0: u32,
    /// Data for the host; empty for features without.
    pub data: Vec<u8>,
}

impl From<u32> for FeatureValue {
    fn from(dw0: u32) -> Self {
        Self { dw0, data: Vec::new() }
    }
}

impl From<&[u8]> for FeatureValue {
    fn from(data: &[u8]) -> Self {
        Self { dw0: 0, data: data.to_vec() }
    }
}

/// A clock that the host may set, 5.27.1.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    /// When it was set or reset.
    since: SystemTime,
    /// What it showed then, in milliseconds.
    start: u64,
    origin: TimestampOrigin,
}

impl Clock {
    fn reset_at(since: SystemTime) -> Self {
        Self { since, start: 0, origin: TimestampOrigin::Reset }
    }

    fn read(&self, now: SystemTime) -> Timestamp {
        // A wall clock that was set back must not run the timestamp backwards beyond its start.
        let elapsed = now.duration_since(self.since).unwrap_or_default().as_millis() as u64;
        let milliseconds = self.start.wrapping_add(elapsed) & ((1 << 48) - 1);
        Timestamp::new().with_milliseconds(milliseconds).with_origin(self.origin)
    }
}

/// The values that Set Features changes and a Controller Level Reset brings back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Values {
    arbitration: Arbitration,
    power: PowerManagement,
    over_temperature: u16,
    under_temperature: u16,
    /// Of namespaces for which the host set it one by one.
    error_recovery: BTreeMap<u32, ErrorRecovery>,
    /// Of all other namespaces.
    error_recovery_all: ErrorRecovery,
    queues: NumberOfQueues,
    coalescing: InterruptCoalescing,
    /// Interrupt vectors that are not coalesced.
    coalescing_disabled: VectorSet,
    write_atomicity: WriteAtomicityNormal,
    async_events: AsyncEventConfig,
    /// Milliseconds; 0: off.
    keep_alive: u32,
    advanced_retry: u8,
}

impl Values {
    fn new(max_queues: u16) -> Self {
        let last = max_queues.saturating_sub(1);
        // Coalescing is not supported for the Admin Completion Queue, which uses vector 0 (5.27.1.7). A host that has
        // an I/O queue share this vector may turn it on for that queue.
        let mut coalescing_disabled = VectorSet::default();
        coalescing_disabled.set(0, true);
        Self {
            arbitration: Arbitration::new().with_ab(ARBITRATION_BURST),
            power: PowerManagement::new(),
            over_temperature: WARNING_TEMPERATURE,
            under_temperature: 0,
            error_recovery: BTreeMap::new(),
            error_recovery_all: ErrorRecovery::new(),
            queues: NumberOfQueues::new().with_nsq_z(last).with_ncq_z(last),
            coalescing: InterruptCoalescing::new(),
            coalescing_disabled,
            write_atomicity: WriteAtomicityNormal::new(),
            async_events: AsyncEventConfig::new(),
            keep_alive: 0,
            advanced_retry: 0,
        }
    }
}

/// The features of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// I/O queue pairs, and the last interrupt vector: vector 0 is the admin queue's.
    max_queues: u16,
    host_id: [u8; 16],
    volatile_write_cache: bool,
    current: Values,
    clock: Clock,
}

fn invalid_field() -> Status {
    Status::INVALID_FIELD.with_dnr()
}

impl Features {
    /// The features at power on of a controller that belongs to the host with `host_id`.
    pub fn new(limits: &ControllerLimits, host_id: [u8; 16]) -> Self {
        Self {
            max_queues: limits.queues,
            host_id,
            volatile_write_cache: false,
            current: Values::new(limits.queues),
            clock: Clock::reset_at(SystemTime::now()),
        }
    }

    /// Controller Level Reset: every feature has its default value, and the timestamp counts from 0. The Host
    /// Identifier is configured and stays.
    pub fn reset(&mut self) {
        self.current = Values::new(self.max_queues);
        self.clock = Clock::reset_at(SystemTime::now());
    }

    /// Says whether any namespace has a volatile write cache: without one there is no such feature (5.27.1.4).
    pub fn set_volatile_write_cache(&mut self, present: bool) {
        self.volatile_write_cache = present;
    }

    /// The features that there are now.
    pub fn supported(&self) -> impl Iterator<Item = FeatureId> + '_ {
        let absent = (!self.volatile_write_cache).then_some(FeatureId::VolatileWriteCache);
        SUPPORTED.into_iter().filter(move |&fid| Some(fid) != absent)
    }

    /// Bytes that Set Features transfers from the host; 0 for features without data and for unknown ones.
    pub fn data_len(fid: u8, cdw11: u32) -> usize {
        match FeatureId::try_from(fid) {
            Ok(FeatureId::Timestamp) => 8,
            Ok(FeatureId::HostBehaviorSupport) => size_of::<HostBehaviorSupport>(),
            Ok(FeatureId::HostIdentifier) if HostIdentifier::from_bits(cdw11).exhid() => 16,
            Ok(FeatureId::HostIdentifier) => 8,
            _ => 0,
        }
    }

    fn lookup(&self, fid: u8) -> Result<FeatureId, Status> {
        let known = FeatureId::try_from(fid).ok().filter(|&fid| self.supported().any(|other| other == fid));
        known.ok_or_else(invalid_field)
    }

    /// Set Features. Returns Dword 0 of the completion.
    ///
    /// # Errors
    ///
    /// Invalid Field for a feature or value that is not supported, Feature Identifier Not Saveable, Feature Not
    /// Namespace Specific, Feature Not Changeable, Invalid Namespace or Format, and for Number of Queues and the Host
    /// Identifier Command Sequence Error. Nothing has changed then.
    pub fn set(&mut self, request: SetRequest<'_>, now: SystemTime) -> Result<u32, Status> {
        let fid = self.lookup(request.fid)?;
        if request.save {
            return Err(Status::FEATURE_NOT_SAVEABLE.with_dnr());
        }
        check_nsid(fid, request.nsid)?;
        let (cdw11, current) = (request.cdw11, &mut self.current);
        match fid {
            FeatureId::Arbitration => current.arbitration = Arbitration::from_bits(cdw11),
            FeatureId::PowerManagement => {
                let value = PowerManagement::from_bits(cdw11);
                // Identify Controller NPSS: there is power state 0.
                if value.ps() != 0 {
                    return Err(invalid_field());
                }
                current.power = PowerManagement::new().with_wh(value.wh());
            }
            FeatureId::TemperatureThreshold => {
                self.set_temperature(TemperatureThreshold::from_bits(cdw11))?
            }
            FeatureId::ErrorRecovery => {
                self.set_error_recovery(ErrorRecovery::from_bits(cdw11), request.nsid)?
            }
            FeatureId::VolatileWriteCache => {
                // The cache is the backend's, for all its users: no controller turns it off.
                if !VolatileWriteCache::from_bits(cdw11).wce() {
                    return Err(Status::FEATURE_NOT_CHANGEABLE.with_dnr());
                }
            }
            FeatureId::NumberOfQueues => return self.set_queues(cdw11, request.queues_exist),
            FeatureId::InterruptCoalescing => {
                let value = InterruptCoalescing::from_bits(cdw11);
                current.coalescing =
                    InterruptCoalescing::new().with_thr_z(value.thr_z()).with_time(value.time());
            }
            FeatureId::InterruptVectorConfig => {
                let value = self.vector(cdw11)?;
                self.current.coalescing_disabled.set(value.iv(), value.cd());
            }
            FeatureId::WriteAtomicityNormal => {
                let value = WriteAtomicityNormal::from_bits(cdw11);
                current.write_atomicity = WriteAtomicityNormal::new().with_dn(value.dn());
            }
            FeatureId::AsyncEventConfig => {
                let value = AsyncEventConfig::from_bits(cdw11);
                // Events that Identify Controller OAES does not name cannot be turned on (5.27.1.8).
                current.async_events = AsyncEventConfig::new()
                    .with_smart_critical_warnings(value.smart_critical_warnings())
                    .with_namespace_attribute(value.namespace_attribute())
                    .with_ana_change(value.ana_change());
            }
            FeatureId::Timestamp => {
                let value = Timestamp::read_from_bytes(request.data).map_err(|_| invalid_field())?;
                let start = value.milliseconds();
                self.clock = Clock { since: now, start, origin: TimestampOrigin::SetFeatures };
            }
            FeatureId::KeepAliveTimer => {
                // Rounded up to the granularity, or down where that does not fit (5.27.1.12).
                let most = u32::MAX / KEEP_ALIVE_GRANULARITY;
                let units = cdw11.div_ceil(KEEP_ALIVE_GRANULARITY).min(most);
                current.keep_alive = units * KEEP_ALIVE_GRANULARITY;
            }
            FeatureId::HostBehaviorSupport => {
                let value =
                    HostBehaviorSupport::read_from_bytes(request.data).map_err(|_| invalid_field())?;
                // Telemetry Data Area 4 and the LBA format extension are not supported (5.27.1.18).
                if value.acre > 1 || value.etdas != 0 || value.lbafee != 0 {
                    return Err(invalid_field());
                }
                current.advanced_retry = value.acre;
            }
            FeatureId::HostIdentifier => self.check_host_id(cdw11, request.data)?,
            _ => return Err(invalid_field()),
        }
        Ok(0)
    }

    fn set_temperature(&mut self, value: TemperatureThreshold) -> Result<(), Status> {
        // There is the composite temperature (0) and no sensor; Fh means all that there are (5.27.1.3).
        if !matches!(value.tmpsel(), 0 | 0xf) {
            return Err(invalid_field());
        }
        match value.thsel() {
            0 => self.current.over_temperature = value.tmpth(),
            1 => self.current.under_temperature = value.tmpth(),
            _ => return Err(invalid_field()),
        }
        Ok(())
    }

    fn set_error_recovery(&mut self, value: ErrorRecovery, nsid: u32) -> Result<(), Status> {
        // No namespace reports errors for deallocated blocks (Identify Namespace NSFEAT.DAE).
        if value.dulbe() {
            return Err(invalid_field());
        }
        let value = ErrorRecovery::new().with_tler(value.tler());
        if matches!(nsid, 0 | NSID_ALL) {
            self.current.error_recovery.clear();
            self.current.error_recovery_all = value;
        } else {
            self.current.error_recovery.insert(nsid, value);
        }
        Ok(())
    }

    fn set_queues(&mut self, cdw11: u32, queues_exist: bool) -> Result<u32, Status> {
        let wanted = NumberOfQueues::from_bits(cdw11);
        if wanted.nsq_z() == u16::MAX || wanted.ncq_z() == u16::MAX {
            return Err(invalid_field());
        }
        // Only before the first I/O queue is created (5.27.1.5).
        if queues_exist {
            return Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr());
        }
        let last = self.max_queues.saturating_sub(1);
        self.current.queues =
            NumberOfQueues::new().with_nsq_z(wanted.nsq_z().min(last)).with_ncq_z(wanted.ncq_z().min(last));
        Ok(self.current.queues.into_bits())
    }

    /// An interrupt vector that exists: one for each I/O queue pair and one for the admin queue (5.27.1.7).
    fn vector(&self, cdw11: u32) -> Result<InterruptVectorConfig, Status> {
        let value = InterruptVectorConfig::from_bits(cdw11);
        if value.iv() > self.max_queues { Err(invalid_field()) } else { Ok(value) }
    }

    /// The Host Identifier is configured with the controller, as Fabrics has it from Connect. A host may say it again,
    /// and has to find another one refused (5.27.1.25).
    fn check_host_id(&self, cdw11: u32, data: &[u8]) -> Result<(), Status> {
        if data == self.host_id(cdw11)? { Ok(()) } else { Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr()) }
    }

    /// The 128-bit or the 64-bit form. An identifier that needs more than 64 bits has no short form.
    fn host_id(&self, cdw11: u32) -> Result<&[u8], Status> {
        let (low, high) = self.host_id.split_at(8);
        if HostIdentifier::from_bits(cdw11).exhid() {
            Ok(&self.host_id)
        } else if high == [0; 8] {
            Ok(low)
        } else {
            Err(Status::HOST_ID_INCONSISTENT_FORMAT.with_dnr())
        }
    }

    /// Get Features.
    ///
    /// # Errors
    ///
    /// Invalid Field for a feature, selection or attribute that is not supported, Invalid Namespace or Format, Host
    /// Identifier Inconsistent Format.
    pub fn get(
        &self,
        fid: u8,
        select: Select,
        cdw11: u32,
        nsid: u32,
        now: SystemTime,
    ) -> Result<FeatureValue, Status> {
        let fid = self.lookup(fid)?;
        match select {
            Select::Current => self.value(&self.current, &self.clock, fid, cdw11, nsid, now),
            // Nothing is saveable: the saved value is the default value (5.15).
            Select::Default | Select::Saved => {
                let clock = Clock::reset_at(now);
                self.value(&Values::new(self.max_queues), &clock, fid, cdw11, nsid, now)
            }
            Select::SupportedCapabilities => Ok(capabilities(fid).into_bits().into()),
            Select::Reserved(_) => Err(invalid_field()),
        }
    }

    fn value(
        &self,
        values: &Values,
        clock: &Clock,
        fid: FeatureId,
        cdw11: u32,
        nsid: u32,
        now: SystemTime,
    ) -> Result<FeatureValue, Status> {
        let dw0 = match fid {
            FeatureId::Arbitration => values.arbitration.into_bits(),
            FeatureId::PowerManagement => values.power.into_bits(),
            FeatureId::TemperatureThreshold => temperature(values, cdw11)?.into_bits(),
            FeatureId::ErrorRecovery => match nsid {
                0 => values.error_recovery_all.into_bits(),
                1..=MAX_NAMESPACES => {
                    values.error_recovery.get(&nsid).unwrap_or(&values.error_recovery_all).into_bits()
                }
                _ => return Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr()),
            },
            FeatureId::VolatileWriteCache => VolatileWriteCache::new().with_wce(true).into_bits(),
            FeatureId::NumberOfQueues => values.queues.into_bits(),
            FeatureId::InterruptCoalescing => values.coalescing.into_bits(),
            FeatureId::InterruptVectorConfig => {
                let iv = self.vector(cdw11)?.iv();
                let disabled = values.coalescing_disabled.contains(iv);
                InterruptVectorConfig::new().with_iv(iv).with_cd(disabled).into_bits()
            }
            FeatureId::WriteAtomicityNormal => values.write_atomicity.into_bits(),
            FeatureId::AsyncEventConfig => values.async_events.into_bits(),
            FeatureId::Timestamp => return Ok(clock.read(now).as_bytes().into()),
            FeatureId::KeepAliveTimer => values.keep_alive,
            FeatureId::HostBehaviorSupport => {
                let value = HostBehaviorSupport { acre: values.advanced_retry, ..Default::default() };
                return Ok(value.as_bytes().into());
            }
            FeatureId::HostIdentifier => return Ok(self.host_id(cdw11)?.into()),
            _ => return Err(invalid_field()),
        };
        Ok(dw0.into())
    }

    /// I/O submission and completion queues that the host may create, one-based.
    pub fn queues(&self) -> (u16, u16) {
        // The limit is below 65536, and so is what was allocated.
        (self.current.queues.nsq() as u16, self.current.queues.ncq() as u16)
    }

    /// Arbitration, Interrupt Coalescing and Interrupt Vector Configuration, as workers apply them (5.27.1.1, 5.27.1.6,
    /// 5.27.1.7).
    pub fn tuning(&self) -> Tuning {
        let burst = self.current.arbitration.ab();
        let coalescing = self.current.coalescing;
        Tuning {
            arbitration_burst: if burst == NO_LIMIT { u32::MAX } else { 1 << burst },
            coalescing: Coalescing::new(coalescing.thr(), coalescing.time()),
            uncoalesced: self.current.coalescing_disabled,
        }
    }

    /// The events that the host wants to hear of.
    pub fn async_event_config(&self) -> AsyncEventConfig {
        self.current.async_events
    }

    /// The keep alive timeout; zero: off.
    pub fn keep_alive(&self) -> Duration {
        Duration::from_millis(self.current.keep_alive.into())
    }

    /// Whether the composite temperature, in kelvins, is at or beyond a threshold of the host's: SMART Critical Warning bit 1.
    pub fn temperature_warning(&self, temperature: u16) -> bool {
        temperature >= self.current.over_temperature || temperature <= self.current.under_temperature
    }
}

/// Whether values are per namespace (NVM Command Set 1.1, 4.1.3).
pub fn is_namespace_specific(fid: FeatureId) -> bool {
    matches!(
        fid,
        FeatureId::ErrorRecovery
            | FeatureId::ReservationNotificationMask
            | FeatureId::ReservationPersistence
            | FeatureId::NamespaceWriteProtection
    )
}

/// What Set Features may name as a namespace (5.27).
fn check_nsid(fid: FeatureId, nsid: u32) -> Result<(), Status> {
    match nsid {
        // Hosts set Error Recovery without a namespace too; it is taken as for all.
        0 | NSID_ALL => Ok(()),
        1..=MAX_NAMESPACES if is_namespace_specific(fid) => Ok(()),
        1..=MAX_NAMESPACES => Err(Status::FEATURE_NOT_NAMESPACE_SPECIFIC.with_dnr()),
        _ => Err(Status::INVALID_NAMESPACE_OR_FORMAT.with_dnr()),
    }
}

/// What can be done with a feature.
pub fn capabilities(fid: FeatureId) -> SupportedCapabilities {
    let fixed = matches!(fid, FeatureId::VolatileWriteCache | FeatureId::HostIdentifier);
    SupportedCapabilities::new().with_changeable(!fixed).with_namespace_specific(is_namespace_specific(fid))
}

/// The threshold that a Get Features command names. Sensors that do not exist have thresholds that nothing reaches.
fn temperature(values: &Values, cdw11: u32) -> Result<TemperatureThreshold, Status> {
    let selected = TemperatureThreshold::from_bits(cdw11);
    let threshold = match (selected.tmpsel(), selected.thsel()) {
        (0, 0) => values.over_temperature,
        (0, 1) => values.under_temperature,
        (1..=8, 0) => u16::MAX,
        (1..=8, 1) => 0,
        _ => return Err(invalid_field()),
    };
    let value = TemperatureThreshold::new().with_tmpsel(selected.tmpsel()).with_thsel(selected.thsel());
    Ok(value.with_tmpth(threshold))
}

#[cfg(test)]
mod tests;
