//! The Cluster service: one member, always.

use tonic::{Request, Response, Status};

use super::App;
use crate::pb::etcdserverpb::cluster_server::Cluster;
use crate::pb::etcdserverpb::{Member, MemberListRequest, MemberListResponse};

#[tonic::async_trait]
impl Cluster for App {
    async fn member_list(
        &self,
        _: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let member = Member {
            id: self.store.member_id(),
            name: self.name.clone(),
            peer_ur_ls: Vec::new(),
            client_ur_ls: self.client_urls.clone(),
            is_learner: false,
        };
        Ok(Response::new(MemberListResponse { header: Some(self.store.header()), members: vec![member] }))
    }
}
