//! What the kernel says of this network namespace, and what it lets the process do.

pub mod interface;
pub mod kernel;
pub mod neighbours;
pub mod privileges;
