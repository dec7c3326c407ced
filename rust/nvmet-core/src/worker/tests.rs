//! Workers, from outside: a guest in loopback memory, backends that do as they are told.

mod backend;
mod flow;
mod fused;
mod hostile;
mod memory;
mod moves;
mod orders;
mod rig;
mod schedule;
mod stress;
mod threads;
mod tuning;
