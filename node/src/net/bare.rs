//! A stream that a peer opens, as it is once its protocol is agreed on: nothing more is said on it here.

use futures::future::{Ready, ready};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, UpgradeInfo},
};
use std::{convert::Infallible, sync::Arc};

/// The protocols that are taken. The output says which of them it is.
#[derive(Debug, Clone)]
pub(super) struct Bare(pub(super) Arc<[StreamProtocol]>);

impl UpgradeInfo for Bare {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().cloned().collect::<Vec<_>>().into_iter()
    }
}

impl InboundUpgrade<Stream> for Bare {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
