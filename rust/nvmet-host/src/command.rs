//! Building submission queue entries in one expression, and what the specification calls commands and statuses.
//!
//! Nothing is checked: a host for tests has to be able to send what is wrong.

use crate::prp::PrpPair;
use nvmet_spec::{
    command::{AdminOpcode, NvmOpcode, Psdt, Sqe},
    sgl::SglDescriptor,
    status::Status,
};

/// Setters that return the entry (Base §3.3.3.1).
pub trait SqeExt: Sized {
    /// Points DPTR at data by PRP1 and PRP2; PSDT becomes 00b.
    #[must_use]
    fn with_prp(self, pair: PrpPair) -> Self;
    /// Points DPTR at data by SGL1; PSDT becomes 01b.
    #[must_use]
    fn with_sgl(self, first: SglDescriptor) -> Self;
    /// Sets SLBA: CDW10 and CDW11.
    #[must_use]
    fn with_slba(self, slba: u64) -> Self;
    /// Sets CDW10.
    #[must_use]
    fn with_cdw10(self, value: u32) -> Self;
    /// Sets CDW11.
    #[must_use]
    fn with_cdw11(self, value: u32) -> Self;
    /// Sets CDW12.
    #[must_use]
    fn with_cdw12(self, value: u32) -> Self;
    /// Sets CDW13.
    #[must_use]
    fn with_cdw13(self, value: u32) -> Self;
    /// Sets CDW14.
    #[must_use]
    fn with_cdw14(self, value: u32) -> Self;
    /// Sets CDW15.
    #[must_use]
    fn with_cdw15(self, value: u32) -> Self;
}

impl SqeExt for Sqe {
    fn with_prp(mut self, pair: PrpPair) -> Self {
        self.cdw0.set_psdt(Psdt::Prp);
        (self.prp1, self.prp2) = (pair.prp1, pair.prp2);
        self
    }

    fn with_sgl(mut self, first: SglDescriptor) -> Self {
        self.cdw0.set_psdt(Psdt::SglMetadataBuffer);
        self.set_sgl1(first);
        self
    }

    fn with_slba(mut self, slba: u64) -> Self {
        self.set_slba(slba);
        self
    }

    fn with_cdw10(self, value: u32) -> Self {
        Self { cdw10: value, ..self }
    }

    fn with_cdw11(self, value: u32) -> Self {
        Self { cdw11: value, ..self }
    }

    fn with_cdw12(self, value: u32) -> Self {
        Self { cdw12: value, ..self }
    }

    fn with_cdw13(self, value: u32) -> Self {
        Self { cdw13: value, ..self }
    }

    fn with_cdw14(self, value: u32) -> Self {
        Self { cdw14: value, ..self }
    }

    fn with_cdw15(self, value: u32) -> Self {
        Self { cdw15: value, ..self }
    }
}

/// The specification's name of an admin or I/O (NVM) command, if it has one.
#[must_use]
pub fn command_name(admin: bool, opcode: u8) -> Option<&'static str> {
    if admin {
        AdminOpcode::try_from(opcode).ok().map(AdminOpcode::name)
    } else {
        NvmOpcode::try_from(opcode).ok().map(NvmOpcode::name)
    }
}

/// The specification's name of status code `sc` of type `sct`, if it has one.
#[must_use]
pub fn status_name(sct: u8, sc: u8) -> Option<&'static str> {
    Status::new(sct, sc).name()
}
