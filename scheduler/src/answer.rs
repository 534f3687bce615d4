//! Explains decisions to those who ask the API servers, through a stream that the scheduler keeps open to
//! each of them.

use std::time::Duration;

use client::Client;
use component::tasks::Spawner;
use proto::{Explanation, Question};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::run::Shared;

const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Answers that may wait to be sent.
const WAITING: usize = 16;

/// Answers every API server until the owner of `tasks` ends.
pub(crate) fn run(client: &Client, shared: &Shared, tasks: &Spawner) {
    for server in client.per_server() {
        let (shared, token) = (shared.clone(), tasks.token());
        tasks.spawn("explain decisions", async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = keep(&server, &shared) => {}
            }
        });
    }
}

async fn keep(server: &Client, shared: &Shared) {
    let mut wait = BACKOFF.0;
    loop {
        match answer(server, shared).await {
            Ok(()) => wait = BACKOFF.0,
            Err(error) => tracing::debug!(%error, "decisions cannot be explained to an API server"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(BACKOFF.1);
    }
}

/// Answers one API server for as long as the stream lives.
async fn answer(server: &Client, shared: &Shared) -> Result<(), tonic::Status> {
    let (answers, queue) = mpsc::channel(WAITING);
    let greeting = Explanation::default();
    answers.send(greeting).await.map_err(|_| tonic::Status::internal("the queue is closed"))?;
    let mut questions = server.decisions().explain(ReceiverStream::new(queue)).await?.into_inner();
    while let Some(Question { id, namespace, name }) = questions.message().await? {
        let decision = shared.lock().explain(&api::meta::key_of(&namespace, &name));
        let json = decision.map(|decision| decision.to_string()).unwrap_or_default();
        if answers.send(Explanation { id, json: json.into() }).await.is_err() {
            break;
        }
    }
    Ok(())
}
