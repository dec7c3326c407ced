//! The NVMe controller model: PCI function, registers, queues, commands, workers, target.

pub mod irq;
pub mod pci;
