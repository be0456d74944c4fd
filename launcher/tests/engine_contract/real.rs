//! What only a real engine can show.

use crate::world::{BUILT, Clause, IMAGE, World, kind, read};
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::{ListImagesOptionsBuilder, RemoveImageOptions};
use bytes::Bytes;
use futures_util::StreamExt;
use launcher::engine::docker::Docker;
use launcher::engine::{Engine, Kind, NetworkMode, Step};
use std::collections::HashMap;
use std::error::Error;
use std::sync::Mutex;

macro_rules! clauses {
    ($($name:ident),* $(,)?) => {
        pub fn all() -> Vec<Clause<Docker>> {
            vec![$((stringify!($name), |world| Box::pin($name(world)))),*]
        }
    };
}

clauses![
    a_status_is_not_an_error,
    a_terminal_may_say_anything,
    the_environment_of_an_exec_is_its_own,
    a_program_that_is_missing_is_no_program,
    a_read_only_root_takes_no_archive,
    a_network_with_endpoints_is_emptied_and_removed,
    all_networks_of_a_name_are_removed,
    names_are_looked_up_nowhere,
    what_is_written_is_measured,
    builds_stream_and_fail_with_their_last_lines,
    a_pull_without_a_registry_says_why,
];

async fn a_status_is_not_an_error(world: World<Docker>) {
    let mut spec = world.container("box");
    spec.command = Some(vec!["exit".to_owned(), "7".to_owned()]);
    let name = world.create(spec).await;
    let waiting = tokio::spawn({
        let (engine, name) = (world.engine.clone(), name.clone());
        async move { engine.wait_exit(&name).await.unwrap() }
    });
    world.start(&name).await.unwrap();
    // The first may have asked before the start; the second has not.
    assert!([0, 7].contains(&waiting.await.unwrap()));
    assert_eq!(world.engine.wait_exit(&name).await.unwrap(), 7);
}

async fn a_terminal_may_say_anything(world: World<Docker>) {
    let (name, _streams) = world.running(world.container("box")).await;
    for tty in [Some((80, 24)), None] {
        let mut spec = world.exec(&name, &["/probe", "frame"]);
        spec.tty = tty;
        let mut exec = world.engine.exec(&spec).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(chunk) = exec.streams.output.next().await {
            match chunk.unwrap() {
                launcher::engine::Chunk::Out(piece) => bytes.extend_from_slice(&piece),
                launcher::engine::Chunk::Err(piece) => panic!("on the wrong stream: {piece:?}"),
            }
        }
        assert_eq!(bytes, [&[1, 0, 0, 0, 255, 255, 255, 255, b'x'], b"after".as_slice()].concat(), "{tty:?}");
    }
}

async fn the_environment_of_an_exec_is_its_own(world: World<Docker>) {
    let (name, _streams) = world.running(world.container("box")).await;
    for (variable, wanted) in [("CARRIED", "by the exec"), ("RESTS", "here")] {
        let mut spec = world.exec(&name, &["/probe", "env", variable]);
        spec.env = vec![("CARRIED".to_owned(), "by the exec".to_owned())];
        spec.user = "ada".to_owned();
        spec.workdir = Some("/etc".to_owned());
        let mut exec = world.engine.exec(&spec).await.unwrap();
        assert_eq!(read(&mut exec.streams, "").await, wanted);
    }
}

async fn a_program_that_is_missing_is_no_program(world: World<Docker>) {
    let mut spec = world.container("none");
    spec.entrypoint = Some(vec!["/nothing".to_owned()]);
    let none = world.create(spec).await;
    assert_eq!(kind(world.start(&none).await), Kind::NoProgram);
    let (name, _streams) = world.running(world.container("box")).await;
    for argv in [["/nothing"], ["nothing"], ["/etc/passwd"], ["/etc"]] {
        for tty in [None, Some((80, 24))] {
            let mut spec = world.exec(&name, &argv);
            spec.tty = tty;
            let error = world.engine.exec(&spec).await.err().unwrap();
            assert_eq!(error.kind, Kind::NoProgram, "{argv:?}");
            assert!(error.source().unwrap().to_string().contains(argv[0]), "{:?}", error.source());
        }
    }
}

async fn a_read_only_root_takes_no_archive(world: World<Docker>) {
    let mut spec = world.container("box");
    spec.read_only = true;
    let name = world.create(spec).await;
    let empty = futures_util::stream::iter([Ok(Bytes::from_static(&[0; 1024]))]);
    assert!(world.engine.put(&name, "/", empty.boxed()).await.is_err());
}

async fn a_network_with_endpoints_is_emptied_and_removed(world: World<Docker>) {
    let network = world.network("net", 0);
    world.engine.apply(&Step::CreateNetwork(network.clone())).await.unwrap();
    let mut spec = world.container("box");
    spec.network = NetworkMode::On { network: network.name.clone(), address: None, aliases: Vec::new() };
    let (name, _streams) = world.running(spec).await;
    world.remove_network(&network.name, world.owner()).await.unwrap();
    assert_eq!(world.left().await, [name]);
}

async fn all_networks_of_a_name_are_removed(world: World<Docker>) {
    let network = world.network("net", 0);
    world.engine.apply(&Step::CreateNetwork(network.clone())).await.unwrap();
    let client = bollard::Docker::connect_with_defaults().unwrap();
    let labels = launcher::engine::body::labels(&world.owner(), "net");
    let twin = |labels: HashMap<String, String>, number| NetworkCreateRequest {
        name: network.name.clone(),
        labels: Some(labels),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig { subnet: Some(world.subnet(number).to_string()), ..IpamConfig::default() }]),
            ..Ipam::default()
        }),
        ..NetworkCreateRequest::default()
    };
    // An engine that refuses a second of the name has nothing to show here.
    if client.create_network(twin(labels, 1)).await.is_err() {
        return;
    }
    let foreign = client.create_network(twin(HashMap::new(), 2)).await.unwrap();
    world.remove_network(&network.name, world.owner()).await.unwrap();
    assert_eq!(world.left().await, Vec::<String>::new());
    client.remove_network(&foreign.id).await.unwrap();
}

async fn names_are_looked_up_nowhere(world: World<Docker>) {
    let network = world.network("net", 0);
    world.engine.apply(&Step::CreateNetwork(network.clone())).await.unwrap();
    let mut spec = world.container("box");
    spec.network = NetworkMode::On { network: network.name.clone(), address: None, aliases: vec!["near".to_owned()] };
    spec.hosts.insert("known".to_owned(), network.subnet.address(9));
    let (name, _streams) = world.running(spec).await;
    for (host, wanted) in [("known", "found"), ("near", "found"), ("secret.example.org", "nothing")] {
        let mut exec = world.engine.exec(&world.exec(&name, &["/probe", "look-up", host])).await.unwrap();
        assert_eq!(read(&mut exec.streams, "").await, wanted, "{host}");
    }
    let mut exec = world.engine.exec(&world.exec(&name, &["/probe", "read", "/etc/resolv.conf"])).await.unwrap();
    let text = read(&mut exec.streams, "").await;
    // One attempt of a second, where the default is two of five.
    assert!(text.contains("timeout:1") && text.contains("attempts:1"), "{text}");
}

async fn what_is_written_is_measured(world: World<Docker>) {
    let mut spec = world.container("box");
    spec.user = "0:0".to_owned();
    let (name, _streams) = world.running(spec).await;
    let mut fill = world.exec(&name, &["/probe", "fill", "/filled", "300000"]);
    fill.user = "0:0".to_owned();
    let mut exec = world.engine.exec(&fill).await.unwrap();
    assert_eq!(read(&mut exec.streams, "").await, "");
    assert!(world.engine.disk_used(&name).await.unwrap() >= 300_000);
}

async fn builds_stream_and_fail_with_their_last_lines(world: World<Docker>) {
    let context = |dockerfile: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(dockerfile.len() as u64);
        tar.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).unwrap();
        Bytes::from(tar.into_inner().unwrap())
    };
    let told = Mutex::new(Vec::new());
    let progress = |line: &str| told.lock().unwrap().push(line.to_owned());
    // The builder keeps what a failed build has made, as its cache; the label is to find it by.
    let label = format!("bottle-t-engine={}", world.name("build"));
    let good = format!("FROM {IMAGE}\nLABEL {label}\nENV BUILT=yes\nRUN [\"/probe\", \"say\", \"building\"]\n");
    world.engine.build(BUILT, context(&good), &progress).await.unwrap();
    assert!(told.lock().unwrap().iter().any(|line| line.contains("building")), "{told:?}");
    assert!(world.engine.image(BUILT).await.unwrap().unwrap().env.contains(&"BUILT=yes".to_owned()));
    let bad = format!(
        "FROM {IMAGE}\nLABEL {label}\nRUN [\"/probe\", \"say\", \"about to fail\"]\nRUN [\"/probe\", \"exit\", \"9\"]\n"
    );
    let error = world.engine.build(BUILT, context(&bad), &progress).await.err().unwrap();
    let words = error.source().unwrap().to_string();
    assert!(words.contains("returned a non-zero code: 9") && words.contains("about to fail"), "{words}");

    let client = bollard::Docker::connect_with_defaults().unwrap();
    let filters = HashMap::from([("label", vec![label]), ("dangling", vec!["true".to_owned()])]);
    let cached = ListImagesOptionsBuilder::default().filters(&filters).build();
    for image in client.list_images(Some(cached)).await.unwrap() {
        client.remove_image(&image.id, None::<RemoveImageOptions>, None).await.unwrap();
    }
}

async fn a_pull_without_a_registry_says_why(world: World<Docker>) {
    let error = world.engine.pull("127.0.0.1:9/bottle-t-engine/none:1", &|_| {}).await.err().unwrap();
    assert!(error.source().unwrap().to_string().contains("127.0.0.1:9"), "{:?}", error.source());
    for bad in ["../info", "a b", ""] {
        assert!(world.engine.pull(bad, &|_| {}).await.is_err(), "{bad:?}");
    }
}
