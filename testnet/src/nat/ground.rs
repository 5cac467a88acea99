//! Where hosts are: in namespaces, or in the model. The stage does not know.

use super::{
    NatError,
    internet::{self, Internet},
    kind::NatKind,
    model::{self, Model},
    namespace::Namespace,
};
use std::{path::Path, sync::Arc};
use tokio::process::Command;

/// An internet.
#[derive(Debug)]
pub enum Ground {
    /// Of the kernel.
    Namespaces(Internet),
    /// Of this process.
    Model(Model),
}

/// A host, and what stands before it.
#[derive(Debug)]
pub enum Host {
    /// In a network of its own.
    Namespace(Box<internet::Host>),
    /// On loopback.
    Model(model::Host),
}

impl Ground {
    /// A new host behind a NAT of this kind.
    pub async fn host(&mut self, kind: NatKind) -> Result<Host, NatError> {
        Ok(match self {
            Ground::Namespaces(internet) => Host::Namespace(Box::new(internet.host(kind).await?)),
            Ground::Model(model) => Host::Model(model.host(kind).await?),
        })
    }

    /// What the model has counted.
    pub async fn tally(&self) -> Option<model::Tally> {
        match self {
            Ground::Namespaces(_) => None,
            Ground::Model(model) => model.tally().await.ok(),
        }
    }
}

impl Host {
    /// A command that runs `program` there.
    pub fn command(&self, program: &Path) -> Command {
        match self {
            Host::Namespace(host) => host.place.command(program),
            Host::Model(_) => Command::new(program),
        }
    }

    /// The network of its own, if it has one.
    pub fn place(&self) -> Option<Arc<Namespace>> {
        match self {
            Host::Namespace(host) => Some(host.place.clone()),
            Host::Model(_) => None,
        }
    }

    /// How a relay there is told where it listens.
    pub fn relay_flags(&self) -> Vec<String> {
        match self {
            Host::Namespace(host) => listens(&host.address),
            Host::Model(host) => host.mesh_flags(),
        }
    }

    /// How a node there is.
    pub fn node_flags(&self) -> Vec<String> {
        match self {
            // Everywhere, as nodes do: their address may change.
            Host::Namespace(_) => [listens("0.0.0.0"), vec!["--chat-listen".into(), "0.0.0.0:46337".into()]].concat(),
            Host::Model(host) => [host.mesh_flags(), host.chat_flags()].concat(),
        }
    }

    /// Where others reach a program there that has said that it listens at `listening`, each with its id.
    pub fn reached(&self, listening: Vec<String>) -> Vec<String> {
        match self {
            Host::Namespace(_) => listening,
            Host::Model(host) => {
                let id = listening.first().and_then(|address| address.rsplit_once("/p2p/")).map(|(_, id)| id);
                id.map(|id| format!("{}/p2p/{id}", host.mesh_address())).into_iter().collect()
            }
        }
    }

    /// This process is one of its programs.
    pub async fn runs(&self, pid: Option<u32>) -> Result<(), NatError> {
        match (self, pid) {
            (Host::Model(host), Some(pid)) => Ok(host.runs(pid).await?),
            // A namespace knows.
            _ => Ok(()),
        }
    }

    /// Loses `permille` of a thousand of its packets, in both directions, from now on.
    pub async fn lose(&self, permille: u16) -> Result<(), NatError> {
        match self {
            Host::Namespace(host) => Ok(host.lose(permille).await?),
            Host::Model(host) => Ok(host.lose(permille).await?),
        }
    }

    /// Gets another address. A host without a NAT stays.
    pub async fn move_elsewhere(&mut self) -> Result<(), NatError> {
        match self {
            Host::Namespace(host) => Ok(host.move_elsewhere().await?),
            Host::Model(host) => Ok(host.move_elsewhere().await?),
        }
    }
}

fn listens(address: &str) -> Vec<String> {
    let tcp = format!("/ip4/{address}/tcp/46337");
    let quic = format!("/ip4/{address}/udp/46338/quic-v1");
    vec!["--listen".into(), tcp, "--listen".into(), quic]
}
