use super::*;
use crate::engine::{Chunk, NetworkMode, NetworkSpec, Owner, Seccomp, Subnet};
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;

fn owner() -> Owner {
    let [id, host, state, agent] = ["a", "h", "s", "ada"].map(str::to_owned);
    Owner { id, host, state, agent }
}

fn network(name: &str) -> Step {
    Step::CreateNetwork(NetworkSpec {
        name: name.to_owned(),
        role: "internal".to_owned(),
        owner: owner(),
        subnet: Subnet::parse("10.0.0.0/28").unwrap(),
        internal: true,
        icc: true,
    })
}

fn container(name: &str, role: &str) -> Step {
    Step::CreateContainer(ContainerSpec {
        name: name.to_owned(),
        role: role.to_owned(),
        owner: owner(),
        image: "image".to_owned(),
        entrypoint: None,
        command: None,
        env: BTreeMap::new(),
        user: "1".to_owned(),
        workdir: None,
        network: NetworkMode::On { network: "net".to_owned(), address: None, aliases: Vec::new() },
        hosts: BTreeMap::new(),
        dns: false,
        read_only: false,
        tmpfs: BTreeMap::new(),
        volumes: Vec::new(),
        memory_bytes: 1,
        nano_cpus: 1,
        pids: 1,
        disk_bytes: None,
        runtime: None,
        capabilities: Vec::new(),
        seccomp: Seccomp::Bottle,
    })
}

fn start(name: &str) -> Step {
    Step::Start { container: name.to_owned() }
}

/// Two calls: a network, and one container of a role on it.
pub(crate) async fn with(role: &str) -> Fake {
    let fake = Fake::new();
    fake.add_image("image", ImageFacts::default());
    fake.apply(&network("net")).await.unwrap();
    fake.apply(&container("x", role)).await.unwrap();
    fake
}

async fn next(streams: &mut Streams) -> Option<String> {
    match streams.output.next().await?.unwrap() {
        Chunk::Out(bytes) | Chunk::Err(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
    }
}

#[tokio::test]
async fn faults_happen_at_their_call_and_nowhere_else() {
    for (how, left) in
        [(How::ErrorBefore, vec!["net"]), (How::ErrorAfter, vec!["net", "x"]), (How::Panic, vec!["net", "x"])]
    {
        let fake = Fake::new();
        fake.add_image("image", ImageFacts::default());
        fake.fault(Fault { at: 1, how });
        fake.apply(&network("net")).await.unwrap();
        let other = fake.clone();
        let answer = tokio::spawn(async move { other.apply(&container("x", "agent")).await }).await;
        assert_eq!(answer.is_err(), how == How::Panic);
        assert!(answer.is_err() || answer.unwrap().is_err(), "{how:?}");
        assert_eq!(fake.left(), left, "{how:?}");
        fake.undo(&Undo::RemoveContainer { name: "x".to_owned(), owner: owner() }).await.unwrap();
        assert_eq!(fake.left(), ["net"], "{how:?}");
        assert_eq!(fake.log(), ["create-network", "create-container", "remove-container"]);
    }
}

#[tokio::test]
async fn a_caller_who_goes_away_has_had_its_effect() {
    let fake = with("agent").await;
    fake.fault(Fault { at: 2, how: How::Hang });
    let again = start("x");
    let mut call = Box::pin(fake.apply(&again));
    assert!((&mut call).now_or_never().is_none());
    drop(call);
    assert!(fake.observe("h", "s").await.unwrap().containers[0].running);
}

#[tokio::test]
async fn every_call_is_told() {
    let fake = Fake::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    fake.on_call(move |number, name| telling.lock().unwrap().push((number, name)));
    fake.apply(&network("net")).await.unwrap();
    fake.facts().await.unwrap();
    assert_eq!(*told.lock().unwrap(), [(0, "create-network"), (1, "facts")]);
}

#[tokio::test]
async fn a_network_with_running_containers_stays() {
    let fake = with("agent").await;
    let undo = Undo::RemoveNetwork { name: "net".to_owned(), owner: owner() };
    let streams = fake.attach("x").await.unwrap();
    fake.apply(&start("x")).await.unwrap();
    assert!(fake.undo(&undo).await.is_err());
    assert_eq!(fake.left(), ["net", "x"]);
    drop(streams);
    fake.undo(&undo).await.unwrap();
    assert_eq!(fake.left(), ["x"]);
}

#[tokio::test]
async fn roles_speak_their_wire() {
    let fake = with("cred-proxy").await;
    let mut streams = fake.attach("x").await.unwrap();
    fake.apply(&start("x")).await.unwrap();
    streams.input.write_all(b"{\"command\":\"conf").await.unwrap();
    streams.input.write_all(b"igure\"}\n{}\n").await.unwrap();
    assert_eq!(next(&mut streams).await.unwrap(), "{\"event\":\"ready\"}\n{\"event\":\"configured\"}\n");
    fake.end("x", 9);
    assert_eq!(next(&mut streams).await, None);
    assert!(streams.input.write_all(b"x\n").await.is_err());
    assert_eq!(fake.wait_exit("x").await.unwrap(), 9);

    let fake = with("pipelock").await;
    let mut streams = fake.attach("x").await.unwrap();
    fake.apply(&start("x")).await.unwrap();
    streams.input.write_all(b"file 600 5 /run/a\nab\ncdrun\nprobe h:443\n").await.unwrap();
    let said = "bottle-init: wrote /run/a\nbottle-init: ready\n\
                bottle-init: probed h:443 403 CONNECT blocked: domain not in allowlist: h\n";
    assert_eq!(next(&mut streams).await.unwrap(), said);
    // A policy that comes while it runs is taken, and its hosts are open.
    let policy = "api_allowlist:\n- 'h'\n- '*.d.example'\nfetch: {}\n";
    let order = format!("file 600 {} /p.yaml\n{policy}probe h:443\nprobe x.d.example:443\nprobe d:443\n", policy.len());
    streams.input.write_all(order.as_bytes()).await.unwrap();
    let said = next(&mut streams).await.unwrap();
    for part in ["config_reload", "probed h:443 200", "probed x.d.example:443 200", "probed d:443 403"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    fake.say("x", "{\"level\":\"info\"}\n");
    assert_eq!(next(&mut streams).await.unwrap(), "{\"level\":\"info\"}\n");

    let fake = with("wall").await;
    fake.apply(&start("x")).await.unwrap();
    assert_eq!(fake.wait_exit("x").await.unwrap(), 0);
}

#[tokio::test]
async fn what_runs_in_a_container_ends_with_it() {
    let fake = with("agent").await;
    let streams = fake.attach("x").await.unwrap();
    fake.apply(&start("x")).await.unwrap();
    let spec = ExecSpec {
        container: "x".to_owned(),
        argv: vec!["a".to_owned()],
        env: Vec::new(),
        user: "1".to_owned(),
        workdir: None,
        tty: None,
    };
    let mut exec = fake.exec(&spec).await.unwrap();
    assert_eq!(fake.exec_code(&exec.handle).await.unwrap(), None);
    drop(streams);
    assert_eq!(next(&mut exec.streams).await, None);
    assert_eq!(fake.exec_code(&exec.handle).await.unwrap(), Some(137));
    assert_eq!(fake.exec(&spec).await.err().unwrap().kind, Kind::Conflict);
}
