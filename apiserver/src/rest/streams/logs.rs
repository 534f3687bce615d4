//! `pods/NAME/log`.

use api::StatusError;
use api::decode::{decode, decode_json};
use api::openapi::apimachinery::pkg::apis::meta::v1::{StatusDetails, Time};
use api::validation::FieldError;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, Uri, header};
use proto::LogRequest;
use proto::node_frame::Frame;
use proto::tunnel_request::Request;

use super::{Asked, target};
use crate::rest::query::Parameters;
use crate::tunnel::{Input, Output, Tunnel};

pub(super) async fn serve(asked: &Asked<'_>, uri: &Uri) -> Result<Response, StatusError> {
    let parameters = Parameters::parse(uri)?;
    let mut request = options(&parameters, asked.pod.metadata.name.as_deref().unwrap_or_default())?;
    request.container = target::container(asked.pod, parameters.get("container"))?.container;
    // A pod that is on no node yet has written nothing.
    if asked.node.is_empty() {
        return Ok(text(Body::empty()));
    }
    request.pod = Some(asked.pod_ref());
    let Tunnel { output, input } =
        asked.app.tunnels.open(asked.node, asked.user, Request::Log(request)).await?;
    Ok(text(Body::from_stream(lines(output, input))))
}

fn text(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// The log's bytes; a log that breaks ends the response with an error, so that it is not taken for whole.
fn lines(output: Output, input: Input) -> impl futures::Stream<Item = Result<Bytes, StatusError>> {
    // The input is held because dropping it ends the request.
    futures::stream::try_unfold((output, input), |(mut output, input)| async {
        loop {
            match output.next().await {
                Some(Frame::Stdout(bytes)) => return Ok(Some((bytes, (output, input)))),
                Some(Frame::Status(json)) => return failure(&json).map_or(Ok(None), Err),
                Some(_) => {}
                None => return Err(StatusError::internal("the node ended the log without a status")),
            }
        }
    })
}

fn failure(json: &[u8]) -> Option<StatusError> {
    match decode_json(json) {
        Ok(status) => {
            Some(StatusError(Box::new(status))).filter(|e| e.0.status.as_deref() != Some("Success"))
        }
        Err(error) => Some(StatusError::internal(error)),
    }
}

/// PodLogOptions, without the pod and the container.
fn options(parameters: &Parameters, pod: &str) -> Result<LogRequest, StatusError> {
    let since_time = parameters.get("sinceTime").to_owned();
    if !since_time.is_empty() {
        let parsed = decode::<Time>(&since_time.as_str().into());
        parsed.map_err(|error| StatusError::bad_request(format!("sinceTime: {since_time:?}: {error}")))?;
    }
    let request = LogRequest {
        follow: parameters.flag("follow"),
        previous: parameters.flag("previous"),
        timestamps: parameters.flag("timestamps"),
        since_seconds: number(parameters, "sinceSeconds")?,
        since_time,
        tail_lines: number(parameters, "tailLines")?,
        limit_bytes: number(parameters, "limitBytes")?,
        ..LogRequest::default()
    };
    let errors = invalid(&request);
    if errors.is_empty() { Ok(request) } else { Err(refused(pod, &errors)) }
}

fn number(parameters: &Parameters, name: &str) -> Result<Option<i64>, StatusError> {
    match parameters.get(name) {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            StatusError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax ({name})"))
        }),
    }
}

fn invalid(request: &LogRequest) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(lines) = request.tail_lines.filter(|n| *n < 0) {
        errors.push(FieldError::invalid("tailLines", lines, "must be greater than or equal to 0"));
    }
    if let Some(bytes) = request.limit_bytes.filter(|n| *n < 1) {
        errors.push(FieldError::invalid("limitBytes", bytes, "must be greater than 0"));
    }
    match request.since_seconds {
        Some(_) if !request.since_time.is_empty() => {
            errors.push(FieldError::forbidden(
                "",
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        Some(seconds) if seconds < 1 => {
            errors.push(FieldError::invalid("sinceSeconds", seconds, "must be greater than 0"));
        }
        _ => {}
    }
    errors
}

/// 422: the options are no object of the table of kinds, but are refused like one.
fn refused(pod: &str, errors: &[FieldError]) -> StatusError {
    let list = errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    let list = if let [one] = list.as_slice() { one.clone() } else { format!("[{}]", list.join(", ")) };
    let mut error = StatusError::new(422, "Invalid", format!("PodLogOptions {pod:?} is invalid: {list}"));
    error.0.details = Some(StatusDetails {
        name: Some(pod.to_owned()),
        kind: Some("PodLogOptions".to_owned()),
        causes: Some(errors.iter().map(FieldError::cause).collect()),
        ..StatusDetails::default()
    });
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<LogRequest, StatusError> {
        options(&Parameters::parse(&format!("/x?{query}").parse().unwrap()).unwrap(), "p")
    }

    #[test]
    fn options_are_those_of_pod_log_options() {
        let request =
            parse("follow=true&previous=false&timestamps&tailLines=0&limitBytes=5&sinceSeconds=3").unwrap();
        assert!(request.follow && !request.previous && request.timestamps);
        assert_eq!(
            (request.tail_lines, request.limit_bytes, request.since_seconds),
            (Some(0), Some(5), Some(3))
        );
        assert_eq!(parse("").unwrap(), LogRequest::default());
        assert_eq!(parse("sinceTime=2024-05-01T10:00:00Z").unwrap().since_time, "2024-05-01T10:00:00Z");
    }

    #[track_caller]
    fn check(query: &str, code: u16, message: &str) {
        let error = parse(query).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (code, message));
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let tail = "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0";
        check("tailLines=-1", 422, tail);
        check(
            "limitBytes=0",
            422,
            "PodLogOptions \"p\" is invalid: limitBytes: Invalid value: 0: must be greater than 0",
        );
        check("tailLines=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax (tailLines)");
        assert_eq!(parse("sinceTime=never").unwrap_err().code(), 400);
        assert_eq!(parse("sinceTime=2024-05-01T10:00:00Z&sinceSeconds=1").unwrap_err().code(), 422);
    }
}
