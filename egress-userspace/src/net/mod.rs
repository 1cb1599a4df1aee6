//! The kernel's view of this network namespace, and the privileges of the process.

pub mod interface;
pub mod kernel;
pub mod neighbours;
pub mod privileges;
