//! `coxswain demo`: applies the sample, serves its page, and shows what to try next.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::Target;
use crate::cluster::Cluster;
use crate::rest::Rest;
use crate::steps::{Step, Steps, seconds, tail};

/// The sample, as it lies in the repository.
const SAMPLE: &str = include_str!("../../samples/web.yaml");
const NAMESPACE: &str = "web";
/// The name of the sample's Deployment and of its Service.
const NAME: &str = "web";
/// What the page says.
const GREETING: &str = "Coxswain steers";

/// How the demonstration runs.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// How many seconds to wait for the rollout.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub timeout: u64,
}

/// Our kubectl, as the cluster's admin.
struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Runs a command to its end; what it prints is returned.
    async fn run(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let line = format!("kubectl {}", args.join(" "));
        let mut child = tokio::process::Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not run {}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input.as_bytes()).await {
                // One that ends before it has read everything says why on its own.
                Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => return Err(e.into()),
                _ => {}
            }
        }
        let output = child.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("`{line}` failed: {}{said}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(said)
    }
}

/// Runs it.
///
/// # Errors
/// With the step that failed, why, and where the log is.
pub async fn run(target: &Target, args: &DemoArgs) -> anyhow::Result<()> {
    let cluster = target.cluster()?;
    // Says so if the cluster does not run at all.
    target.supervisor().await?;
    let rest = Rest::admin(&cluster, &target.paths)?;
    let kubectl =
        Kubectl { program: cluster.bin_dir.join("kubectl"), kubeconfig: target.paths.kubeconfig("admin") };
    let steps = Steps::new();

    let step = steps.begin("apply web.yaml");
    let applied =
        kubectl.run(&["apply", "-f", "-"], SAMPLE).await.context("the sample could not be applied")?;
    step.done(format!("{} objects", applied.lines().count()));

    let step = steps.begin("rollout");
    let timeout = format!("--timeout={}s", args.timeout);
    let deployment = format!("deployment/{NAME}");
    let rollout = kubectl.run(&["-n", NAMESPACE, "rollout", "status", &deployment, &timeout], "").await;
    if let Err(error) = rollout {
        return Err(error.context(why_no_rollout(&kubectl, target, &cluster).await));
    }
    let pods = ready_pods(&rest).await?;
    step.done(format!("{} pods are ready", pods.len()));

    let patience = Duration::from_secs(args.timeout);
    let service = rest.get(&format!("/api/v1/namespaces/{NAMESPACE}/services/{NAME}")).await?;
    let cluster_ip = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    let pod = pods.first().context("no pod is ready")?;

    let step = steps.begin("page through the ClusterIP");
    for host in [cluster_ip.to_owned(), format!("{NAME}.{NAMESPACE}.svc.{}", crate::cluster::CLUSTER_DOMAIN)]
    {
        let url = format!("http://{host}/");
        let fetch = ["-n", NAMESPACE, "exec", pod, "--", "/webserver", "fetch", &url];
        let page =
            until(&step, patience, || async { kubectl.run(&fetch, "").await.and_then(check_page) }).await;
        page.with_context(|| format!("{url} could not be fetched in pod {pod}"))?;
    }
    step.done(format!("{cluster_ip} and by name, in pod {pod}"));

    let step = steps.begin("page through the NodePort");
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().and_then(|p| u16::try_from(p).ok());
    let port = port.context("the Service has no NodePort")?;
    let mut urls = Vec::new();
    for node in cluster.nodes.iter().filter(|node| !target.paths.stopped(&node.name).exists()) {
        let addr = SocketAddr::from((node.ip, port));
        let page = until(&step, patience, || async { fetch(addr).await.and_then(check_page) }).await;
        page.with_context(|| format!("http://{addr}/ could not be fetched from the host"))?;
        urls.push(format!("http://{addr}/"));
    }
    step.done(format!("{} from the host", urls.join(" ")));

    show(&kubectl, &cluster, &urls).await?;
    println!("\nthe page was served after {}", seconds(steps.elapsed()));
    Ok(())
}

fn check_page(page: String) -> anyhow::Result<()> {
    if page.contains(GREETING) { Ok(()) } else { bail!("the answer is not the page of the sample: {page:?}") }
}

/// Tries again until it succeeds: the proxies follow an endpoint within moments, and nothing on the host says when.
async fn until<F>(step: &Step, patience: Duration, mut attempt: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let deadline = Instant::now() + patience.min(Duration::from_secs(20));
    loop {
        let Err(error) = attempt().await else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(error);
        }
        step.note(&error);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The names of the sample's ready pods.
async fn ready_pods(rest: &Rest) -> anyhow::Result<Vec<String>> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3D{NAME}");
    let list = rest.get(&path).await?;
    let ready =
        |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null() && super::readiness(pod).is_ok();
    let pods = list["items"].as_array().into_iter().flatten().filter(ready);
    Ok(pods.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

/// Fetches a page from the host.
async fn fetch(addr: SocketAddr) -> anyhow::Result<String> {
    let get = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(1 << 20).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    Ok(tokio::task::spawn_blocking(get).await??)
}

/// What people would look at when a rollout stalls.
async fn why_no_rollout(kubectl: &Kubectl, target: &Target, cluster: &Cluster) -> String {
    let mut said = "the rollout did not end".to_owned();
    for args in
        [["-n", NAMESPACE, "get", "pods", "-o", "wide"].as_slice(), &["-n", NAMESPACE, "get", "events"]]
    {
        let output = kubectl.run(args, "").await.unwrap_or_else(|e| e.to_string());
        said.push_str(&format!("\n$ kubectl {}\n{output}", args.join(" ")));
    }
    if let Some(node) = cluster.nodes.first() {
        let id = format!("{}/kubelet", node.name);
        said.push_str(&format!("\n{id}: {}", tail(&target.paths.log(&id), 10)));
    }
    said
}

async fn show(kubectl: &Kubectl, cluster: &Cluster, urls: &[String]) -> anyhow::Result<()> {
    for args in [
        ["get", "nodes", "-o", "wide"].as_slice(),
        &["-n", NAMESPACE, "get", "pods", "-o", "wide"],
        &["-n", NAMESPACE, "get", "services"],
    ] {
        println!("\n$ kubectl {}", args.join(" "));
        print!("{}", kubectl.run(args, "").await?);
    }
    let bin = cluster.bin_dir.display();
    let sudo = if std::env::var_os("SUDO_USER").is_some() { "sudo $(which coxswain)" } else { "coxswain" };
    let url = urls.first().map_or("http://NODE:30080/", String::as_str);
    println!(
        "\nWhat to try next:\n\
         \x20 export PATH={bin}:$PATH                       # our kubectl; upstream's works as well\n\
         \x20 curl {url}\n\
         \x20 kubectl -n web scale deployment/web --replicas=6\n\
         \x20 kubectl -n web set image deployment/web web=nonsense:1   # a rollout that stalls; the page stays up\n\
         \x20 kubectl -n web rollout undo deployment/web\n\
         \x20 {sudo} node stop node-2                      # a machine dies; its pods move\n\
         \x20 {sudo} node start node-2\n\
         \x20 {sudo} status                                # every process, its health, memory and log file\n\
         \x20 {sudo} logs scheduler -f                     # what it decided, and why\n\
         \x20 make down                                      # leaves the machine as it was"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_what_the_demonstration_expects() {
        assert!(SAMPLE.contains(GREETING));
        assert!(SAMPLE.contains(&format!("image: {}", crate::images::WEBSERVER)));
        let documents: Vec<Value> = serde_saphyr::from_multiple(SAMPLE).unwrap();
        let kinds: Vec<_> = documents.iter().map(|d| d["kind"].as_str().unwrap_or_default()).collect();
        assert_eq!(kinds, ["Namespace", "ConfigMap", "Deployment", "Service"]);
        assert_eq!(documents[2]["spec"]["replicas"], 3);
        assert_eq!(documents[3]["spec"]["type"], "NodePort");
    }

    #[test]
    fn another_page_is_not_the_samples() {
        assert!(check_page(format!("<h1>{GREETING}</h1>")).is_ok());
        assert!(check_page("<h1>404</h1>".into()).is_err());
    }
}
