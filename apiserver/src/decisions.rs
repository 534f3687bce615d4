//! What schedulers decided: they dial in, and are asked why a pod is where it is or waits.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use api::StatusError;
use component::tasks::{Spawner, lock};
use futures::Stream;
use proto::decisions_server::DecisionsServer;
use proto::{Explanation, Question};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Request, Response, Status, Streaming};

use crate::server::Peer;

/// How long a scheduler may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Questions that may wait for one scheduler.
const WAITING: usize = 64;

/// A question that has not been answered by all who were asked.
struct Pending {
    /// The schedulers that have yet to answer.
    left: Vec<u64>,
    answer: oneshot::Sender<Option<Vec<u8>>>,
}

#[derive(Default)]
struct State {
    count: u64,
    schedulers: HashMap<u64, mpsc::Sender<Result<Question, Status>>>,
    pending: HashMap<u64, Pending>,
}

impl State {
    /// A scheduler has answered a question, or cannot any more.
    fn answered(&mut self, scheduler: u64, id: u64, json: Vec<u8>) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        pending.left.retain(|other| *other != scheduler);
        if json.is_empty() && !pending.left.is_empty() {
            return;
        }
        if let Some(pending) = self.pending.remove(&id) {
            // Whoever asked may have gone.
            let _ = pending.answer.send((!json.is_empty()).then_some(json));
        }
    }

    fn gone(&mut self, scheduler: u64) {
        self.schedulers.remove(&scheduler);
        let ids: Vec<u64> = self.pending.keys().copied().collect();
        ids.into_iter().for_each(|id| self.answered(scheduler, id, Vec::new()));
    }
}

/// The schedulers that are connected, and what they are asked.
pub struct Decisions {
    state: Mutex<State>,
    shutdown: CancellationToken,
    tasks: Spawner,
}

impl Decisions {
    /// Nobody is connected; streams end with `shutdown`.
    pub fn new(shutdown: CancellationToken, tasks: Spawner) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), shutdown, tasks })
    }

    /// The gRPC service.
    pub fn service(self: &Arc<Self>) -> DecisionsServer<Service> {
        DecisionsServer::new(Service(self.clone()))
            .max_decoding_message_size(proto::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(proto::MAX_MESSAGE_BYTES)
    }

    /// The last decision about a pod, as JSON.
    ///
    /// # Errors
    /// 503 when no scheduler is connected or none answers, 404 when none keeps a decision about the pod.
    pub async fn about(&self, namespace: &str, name: &str) -> Result<Vec<u8>, StatusError> {
        let unavailable = |why: &str| StatusError::new(503, "ServiceUnavailable", why);
        let (id, answer) = {
            let mut state = lock(&self.state);
            if state.schedulers.is_empty() {
                return Err(unavailable("no scheduler is connected"));
            }
            state.count += 1;
            let (id, (sender, answer)) = (state.count, oneshot::channel());
            let question = Question { id, namespace: namespace.to_owned(), name: name.to_owned() };
            let reached = |(scheduler, queue): (&u64, &mpsc::Sender<Result<Question, Status>>)| {
                queue.try_send(Ok(question.clone())).ok().map(|()| *scheduler)
            };
            let left: Vec<u64> = state.schedulers.iter().filter_map(reached).collect();
            if left.is_empty() {
                return Err(unavailable("no scheduler takes questions"));
            }
            state.pending.insert(id, Pending { left, answer: sender });
            (id, answer)
        };
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(Some(json))) => Ok(json),
            Ok(_) => Err(StatusError::new(
                404,
                "NotFound",
                format!("no decision about pod \"{namespace}/{name}\" is kept"),
            )),
            Err(_) => {
                lock(&self.state).pending.remove(&id);
                Err(unavailable("no scheduler has answered in time"))
            }
        }
    }

    fn register(self: &Arc<Self>) -> (u64, Questions) {
        let (sender, queue) = mpsc::channel(WAITING);
        let mut state = lock(&self.state);
        state.count += 1;
        let scheduler = state.count;
        state.schedulers.insert(scheduler, sender);
        let registration = Registration { decisions: Arc::downgrade(self), scheduler };
        let shutdown = Box::pin(self.shutdown.clone().cancelled_owned());
        (scheduler, Questions { queue, shutdown, registration })
    }
}

struct Registration {
    decisions: Weak<Decisions>,
    scheduler: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(decisions) = self.decisions.upgrade() {
            lock(&decisions.state).gone(self.scheduler);
        }
    }
}

/// The stream of questions to one scheduler.
pub struct Questions {
    queue: mpsc::Receiver<Result<Question, Status>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    #[allow(dead_code, reason = "its drop is what matters")]
    registration: Registration,
}

impl Stream for Questions {
    type Item = Result<Question, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.shutdown.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => self.queue.poll_recv(context),
        }
    }
}

/// The gRPC service.
pub struct Service(Arc<Decisions>);

#[tonic::async_trait]
impl proto::decisions_server::Decisions for Service {
    type ExplainStream = Questions;

    async fn explain(&self, request: Request<Streaming<Explanation>>) -> Result<Response<Questions>, Status> {
        let user = request.extensions().get::<Peer>().map(|peer| &peer.user);
        if !user.is_some_and(|u| u.name == "system:kube-scheduler" || u.is_in("system:masters")) {
            return Err(Status::permission_denied("decisions are explained by schedulers"));
        }
        let mut explanations = request.into_inner();
        let (scheduler, questions) = self.0.register();
        let (decisions, shutdown) = (Arc::downgrade(&self.0), self.0.shutdown.clone());
        self.0.tasks.spawn("explanations", async move {
            let heard = async {
                while let Ok(Some(Explanation { id, json })) = explanations.message().await {
                    let Some(decisions) = decisions.upgrade() else { return };
                    lock(&decisions.state).answered(scheduler, id, json.to_vec());
                }
                if let Some(decisions) = decisions.upgrade() {
                    lock(&decisions.state).gone(scheduler);
                }
            };
            tokio::select! {
                () = heard => {}
                () = shutdown.cancelled() => {}
            }
        });
        Ok(Response::new(questions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use component::tasks::Tasks;
    use futures::StreamExt;

    /// Asks while schedulers with these answers are connected; the empty answer knows nothing.
    async fn ask(answers: &[&str]) -> Result<String, u16> {
        let tasks = Tasks::new("test");
        let decisions = Decisions::new(CancellationToken::new(), tasks.spawner());
        let connected: Vec<_> = answers.iter().map(|answer| (*answer, decisions.register())).collect();
        let reply =
            futures::future::join_all(connected.into_iter().map(|(answer, (scheduler, mut questions))| {
                let decisions = decisions.clone();
                async move {
                    let question = questions.next().await.expect("asked").expect("a question");
                    assert_eq!((&*question.namespace, &*question.name), ("default", "web"));
                    match answer {
                        "leaves" => drop(questions),
                        answer => {
                            lock(&decisions.state).answered(
                                scheduler,
                                question.id,
                                answer.as_bytes().to_vec(),
                            );
                        }
                    }
                }
            }));
        let asked = decisions.about("default", "web");
        let (answer, _) = futures::join!(asked, async {
            if !answers.is_empty() {
                reply.await;
            }
        });
        answer.map(|json| String::from_utf8(json).expect("text")).map_err(|error| error.code())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_decided_answers() {
        assert_eq!(ask(&[]).await, Err(503));
        assert_eq!(ask(&["", "mine"]).await, Ok("mine".into()));
        assert_eq!(ask(&["", ""]).await, Err(404));
        assert_eq!(ask(&["leaves", ""]).await, Err(404));
    }

    #[tokio::test(start_paused = true)]
    async fn a_scheduler_that_is_silent_is_not_waited_for_without_end() {
        let tasks = Tasks::new("test");
        let decisions = Decisions::new(CancellationToken::new(), tasks.spawner());
        let _silent = decisions.register();
        assert_eq!(decisions.about("default", "web").await.map_err(|e| e.code()), Err(503));
        assert!(lock(&decisions.state).pending.is_empty());
    }
}
