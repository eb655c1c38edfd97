//! A log that is followed: pages of leaves as they come, for as long as the reader may have them.

use std::time::Duration;

use strongroom_proto::v1;
use strongroom_storage::Store;
use strongroom_vault::Leaves;
use tonic::Status;

use crate::edge::{Edge, Shown};
use crate::errors::status;
use crate::stage::{self, Stage};

/// How long a leaf waits at the most for its reader.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A reader, and how far it is.
pub(crate) struct Followed<S: Store> {
    pub edge: Edge<S>,
    pub shown: Shown,
    pub leaves: Leaves<S>,
}

impl<S: Store> Followed<S> {
    /// The next page, once there is one; none when the vault shuts down.
    pub async fn next(mut self) -> Result<Option<(v1::TailResponse, Self)>, Status> {
        loop {
            let leaves = self.leaves.come().await.map_err(status)?;
            // A reader does not outlive its certificate, nor its permission. Last, so that what was read before is not
            // told after.
            let caller = self.edge.again(&self.shown)?;
            self.edge.vault()?.may_follow(&caller).await.map_err(status)?;
            if !leaves.is_empty() {
                let answer = v1::TailResponse { leaves, next: self.leaves.next };
                return Ok(Some((answer, self)));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stage::reached(self.edge.stage.clone(), Stage::Closing) => return Ok(None),
            }
        }
    }
}
