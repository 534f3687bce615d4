//! Probes that ask over HTTP or HTTPS (whose certificate is not verified).

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::tcp::plain;
use super::{Outcome, authority};

/// The most of an answer's body that is read, in bytes.
const MAX_BODY: usize = 10 * 1024;

/// Success is a code from 200 to 399. Redirects are not followed: they are successes.
pub async fn ask(action: &HTTPGetAction, host: &str, port: u16, limit: Duration) -> Outcome {
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let url = format!("{scheme}://{}{path}", authority(host, port));
    let question = get(action, host, port, &path, scheme == "https");
    match timeout(limit, question).await {
        Ok(Ok((code, _))) if (200..400).contains(&code) => Outcome::Success,
        Ok(Ok((code, _))) => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
        Ok(Err(why)) => Outcome::Failure(format!("Get \"{url}\": {why}")),
        Err(_) => Outcome::Failure(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

/// Asks once, without a limit of time; the code and the beginning of the body.
pub async fn get(
    action: &HTTPGetAction,
    host: &str,
    port: u16,
    path: &str,
    tls: bool,
) -> Result<(u16, Bytes), String> {
    let address = authority(host, port);
    let request = request(action, &address, path)?;
    let stream = TcpStream::connect(&address)
        .await
        .map_err(|e| format!("dial tcp {address}: connect: {}", plain(&e)))?;
    if !tls {
        return send(stream, request).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    let connector = TlsConnector::from(unverified()?);
    send(connector.connect(name, stream).await.map_err(|e| e.to_string())?, request).await
}

fn request(action: &HTTPGetAction, address: &str, path: &str) -> Result<Request<Empty<Bytes>>, String> {
    let headers = action.http_headers.as_deref().unwrap_or_default();
    let given = |name: &str| headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    let mut request = Request::get(path);
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    if !given("host") {
        request = request.header("Host", address);
    }
    if !given("user-agent") {
        request = request.header("User-Agent", "kube-probe/1.35");
    }
    if !given("accept") {
        request = request.header("Accept", "*/*");
    }
    request.header("Connection", "close").body(Empty::new()).map_err(|e| e.to_string())
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<(u16, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let code = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await.map(|b| b.to_bytes());
        Ok((code, body.unwrap_or_default()))
    };
    // The connection is driven here, so that it ends with the question.
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// The probe asks whether the container answers, not who it is.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn unverified() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?.dangerous();
    let config =
        builder.with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn outcome(answer: &'static str) -> (Outcome, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let action = HTTPGetAction { path: Some("healthz".into()), ..HTTPGetAction::default() };
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 4096];
            let read = stream.read(&mut seen).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&seen[..read]).into_owned()
        };
        tokio::join!(ask(&action, "127.0.0.1", port, Duration::from_secs(5)), serve)
    }

    #[tokio::test]
    async fn codes_below_400_are_successes() {
        let (result, request) = outcome("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(result, Outcome::Success);
        assert!(request.starts_with("GET /healthz HTTP/1.1\r\n"), "{request}");
        let (result, _) = outcome("HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno").await;
        assert_eq!(result, Outcome::Failure("HTTP probe failed with statuscode: 500".into()));
    }

    #[tokio::test]
    async fn nobody_listening_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let result = ask(&HTTPGetAction::default(), "127.0.0.1", port, Duration::from_secs(5)).await;
        let expected = format!(
            "Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        );
        assert_eq!(result, Outcome::Failure(expected));
    }
}
