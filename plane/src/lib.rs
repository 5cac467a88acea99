//! Reserved for the control plane: an optional indexer that follows gossip, with a dashboard and an HTTP API for web clients.
//! **There is nothing here yet**; the network needs none.
