//! Rules of the kinds in `storage.k8s.io/v1`.

pub mod csi_driver;
pub mod csi_node;
pub mod storage_class;
pub mod volume_attachment;
