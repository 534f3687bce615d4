//! The Maintenance service: status, alarms, checksums, defragmentation, snapshots.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{App, ETCD_VERSION, blocking};
use crate::pb::etcdserverpb::alarm_request::AlarmAction;
use crate::pb::etcdserverpb::maintenance_server::Maintenance;
use crate::pb::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse,
};
use crate::snapshot::Parts;

impl App {
    fn alarms(&self) -> Vec<AlarmMember> {
        let member_id = self.store.member_id();
        let alarms = self.store.read().alarms.clone();
        alarms.into_iter().map(|alarm| AlarmMember { member_id, alarm }).collect()
    }
}

fn alarm_type(number: i32) -> Result<AlarmType, Status> {
    AlarmType::try_from(number).map_err(|_| Status::invalid_argument("etcdserver: unknown alarm"))
}

#[tonic::async_trait]
impl Maintenance for App {
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let request = request.into_inner();
        let action = AlarmAction::try_from(request.action)
            .map_err(|_| Status::invalid_argument("etcdserver: unknown alarm action"))?;
        let alarm = alarm_type(request.alarm)?;
        let before = self.alarms();
        let alarms = match action {
            AlarmAction::Get => before,
            AlarmAction::Activate if alarm != AlarmType::None => {
                self.writes.alarm(alarm, true).await?;
                vec![AlarmMember { member_id: self.store.member_id(), alarm: alarm as i32 }]
            }
            AlarmAction::Activate => Vec::new(),
            AlarmAction::Deactivate => {
                let lowered = |a: &AlarmMember| alarm == AlarmType::None || a.alarm == alarm as i32;
                let lowered: Vec<_> = before.into_iter().filter(lowered).collect();
                for member in &lowered {
                    self.writes.alarm(alarm_type(member.alarm)?, false).await?;
                }
                lowered
            }
        };
        Ok(Response::new(AlarmResponse { header: Some(self.store.header()), alarms }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let header = self.store.header();
        let size = self.store.read().size();
        // There is no raft; its index counts what was committed, which is the revision.
        let index = u64::try_from(header.revision).unwrap_or(0);
        let name = |a: &AlarmMember| format!("memberID:{} alarm:{} ", a.member_id, alarm_name(a.alarm));
        Ok(Response::new(StatusResponse {
            version: ETCD_VERSION.into(),
            db_size: i64::try_from(size.total).unwrap_or(i64::MAX),
            db_size_in_use: i64::try_from(size.live).unwrap_or(i64::MAX),
            leader: header.member_id,
            raft_index: index,
            raft_applied_index: index,
            raft_term: header.raft_term,
            errors: self.alarms().iter().map(name).collect(),
            is_learner: false,
            header: Some(header),
        }))
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.writes.defragment().await?;
        Ok(Response::new(DefragmentResponse { header: Some(self.store.header()) }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let store = self.store.clone();
        let (hash, ..) = blocking(move || store.hash(0)).await?;
        Ok(Response::new(HashResponse { header: Some(self.store.header()), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let (store, revision) = (self.store.clone(), request.into_inner().revision);
        let (hash, hash_revision, compact_revision) = blocking(move || store.hash(revision)).await?;
        let header = Some(self.store.header());
        Ok(Response::new(HashKvResponse { header, hash, compact_revision, hash_revision }))
    }

    type SnapshotStream = ReceiverStream<Result<SnapshotResponse, Status>>;

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let (out, responses) = mpsc::channel(2);
        let (store, header) = (self.store.clone(), self.store.header());
        let mut parts = blocking(move || Ok(Parts::new(store.everything()))).await?;
        let send = async move {
            loop {
                let made = blocking(move || parts.next().map(|part| (part, parts))).await;
                let response = match made {
                    Ok((None, _)) => return,
                    Ok((Some(blob), rest)) => {
                        parts = rest;
                        let remaining_bytes = parts.remaining();
                        Ok(SnapshotResponse { header: Some(header), remaining_bytes, blob })
                    }
                    Err(status) => {
                        // Who asked may have gone away.
                        let _ = out.send(Err(status)).await;
                        return;
                    }
                };
                if out.send(response).await.is_err() {
                    return;
                }
            }
        };
        let token = self.shutdown.clone();
        self.tasks.spawn("snapshot", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = send => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

fn alarm_name(alarm: i32) -> &'static str {
    AlarmType::try_from(alarm).map_or("UNKNOWN", |alarm| alarm.as_str_name())
}
