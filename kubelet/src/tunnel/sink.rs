//! Log text becomes frames of the tunnel.

use bytes::Bytes;

use super::Output;
use crate::logs::{AsyncSink, LogError};

impl AsyncSink for Output {
    async fn send(&mut self, text: Bytes) -> Result<(), LogError> {
        self.stdout(text).await.map_err(|_| LogError::Gone)
    }
}
