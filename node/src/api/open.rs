//! What a node's own endpoint is made of: its configuration, the keys in its home, its store.

use super::{Api, Authenticate, BindError, Listener, Settings, access::Doors, service};
use crate::{
    api_keys::{self, KeyError},
    config::Config,
    node::Node,
    spend::Purse,
};
use axum::Router;
use infernet_wire::money::MicroUsd;
use std::{net::SocketAddr, path::Path, sync::Arc};

/// What of a configuration is about the endpoint.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// More names that it is asked for by.
    pub hosts: Vec<String>,
    /// Pages that may use it.
    pub origins: Vec<String>,
    /// The ceiling of requests that name none, per million tokens.
    pub max_price: MicroUsd,
    /// Requests at once.
    pub max_requests: usize,
}

impl ApiConfig {
    /// An endpoint at `listen` with everything else at its default.
    pub fn new(listen: SocketAddr) -> Self {
        ApiConfig {
            listen,
            hosts: Vec::new(),
            origins: Vec::new(),
            max_price: crate::buyer::DEFAULT_CEILING,
            max_requests: service::MAX_REQUESTS,
        }
    }

    /// That of `config`; `None` if it has none.
    pub fn of(config: &Config) -> Option<Self> {
        Some(ApiConfig {
            hosts: config.api_hosts.clone(),
            origins: config.api_origins.clone(),
            max_price: config.max_price,
            ..ApiConfig::new(config.api?)
        })
    }
}

/// The endpoint can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Its keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Its socket vanished.
    #[error("the API has no address: {0}")]
    Address(std::io::Error),
}

/// An endpoint whose address and keys are there, so that only the node is missing.
pub struct Opened {
    listener: Listener,
    doors: Doors,
    authenticate: Authenticate,
    config: ApiConfig,
}

impl Opened {
    /// Takes the address, and reads or makes the keys of `home`: beyond loopback one is required.
    pub async fn new(home: &Path, config: ApiConfig) -> Result<Self, OpenError> {
        let listener = Listener::bind(config.listen).await?;
        let doors = Doors::new(listener.addr().map_err(OpenError::Address)?, &config.hosts, &config.origins);
        let authenticate = api_keys::authenticate(home, !config.listen.ip().is_loopback())?;
        Ok(Opened { listener, doors, authenticate, config })
    }

    /// Serves `node`, out of `purse`, with `more` routes.
    pub fn serve(self, node: &Node, purse: Purse, more: Router) -> Result<Api, OpenError> {
        let settings = Settings {
            doors: self.doors,
            authenticate: self.authenticate,
            till: Arc::new(purse),
            max_price: self.config.max_price,
            max_requests: self.config.max_requests,
            metrics: node.metrics().clone(),
            more,
        };
        Api::start(self.listener, node.buyer().clone(), node.net().clone(), settings).map_err(OpenError::Address)
    }
}
