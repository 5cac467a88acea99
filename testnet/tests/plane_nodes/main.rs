//! Nodes and a control plane: registration, heartbeats, commands, existing daemons, and planes that lie.
//!
//! The plane is in this process, behind a real listener and over its embedded store; nodes of the mesh are processes.
#![cfg(test)]
#![cfg(test)]

mod commands;
mod hostile;
mod legacy;
mod node_api;
mod stage;
