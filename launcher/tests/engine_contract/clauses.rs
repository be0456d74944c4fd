//! The clauses that hold on every engine.

use crate::world::{Clause, DERIVED, IMAGE, World, kind, read};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use launcher::engine::{Engine, Kind, NetworkMode, NetworkSpec, Step};
use std::collections::BTreeMap;
use tokio::io::AsyncReadExt;

macro_rules! clauses {
    ($($name:ident),* $(,)?) => {
        pub fn all<E: Engine + Clone>() -> Vec<Clause<E>> {
            vec![$((stringify!($name), |world| Box::pin($name(world)))),*]
        }
    };
}

clauses![
    names_are_taken_whoever_has_them,
    subnets_do_not_overlap,
    what_is_missing_is_not_found,
    a_step_twice_is_a_conflict,
    what_was_made_is_observed_as_planned,
    only_ones_own_is_observed,
    undo_is_idempotent_and_leaves_strangers_alone,
    running_containers_are_removed,
    a_network_goes_once_its_containers_have,
    a_step_whose_caller_went_away_is_undone_all_the_same,
    the_end_of_input_ends_a_container,
    input_that_ended_before_the_start_ends_it_as_well,
    waiting_ends_at_once_when_nothing_runs,
    what_is_put_can_be_got,
    execs_have_output_and_codes,
    an_exec_ends_with_its_input_or_its_container,
    images_are_found_and_loaded_once,
    images_are_derived,
    facts_name_what_is_taken,
];

async fn names_are_taken_whoever_has_them<E: Engine + Clone>(world: World<E>) {
    let network = world.network("net", 0);
    let elsewhere = NetworkSpec { subnet: world.subnet(1), owner: world.stranger(), ..network.clone() };
    world.engine.apply(&Step::CreateNetwork(network.clone())).await.unwrap();
    assert_eq!(kind(world.engine.apply(&Step::CreateNetwork(network.clone())).await), Kind::Conflict);
    assert_eq!(kind(world.engine.apply(&Step::CreateNetwork(elsewhere)).await), Kind::Conflict);
    let mut container = world.container("box");
    world.create(container.clone()).await;
    assert_eq!(kind(world.engine.apply(&Step::CreateContainer(container.clone())).await), Kind::Conflict);
    container.owner = world.stranger();
    assert_eq!(kind(world.engine.apply(&Step::CreateContainer(container.clone())).await), Kind::Conflict);
    assert_eq!(world.left().await, [container.name, network.name], "a conflict makes nothing");
}

async fn subnets_do_not_overlap<E: Engine + Clone>(world: World<E>) {
    world.engine.apply(&Step::CreateNetwork(world.network("one", 0))).await.unwrap();
    let mut other = world.network("two", 0);
    assert_eq!(kind(world.engine.apply(&Step::CreateNetwork(other.clone())).await), Kind::Overlap);
    other.subnet = world.subnet(1);
    world.engine.apply(&Step::CreateNetwork(other)).await.unwrap();
}

async fn what_is_missing_is_not_found<E: Engine + Clone>(world: World<E>) {
    let mut spec = world.container("box");
    spec.image = "bottle-t-engine-contract:missing".to_owned();
    assert_eq!(kind(world.engine.apply(&Step::CreateContainer(spec.clone())).await), Kind::NotFound);
    spec = world.container("box");
    spec.network = on(&world.name("net"), None);
    assert_eq!(kind(world.engine.apply(&Step::CreateContainer(spec.clone())).await), Kind::NotFound);
    spec.network = NetworkMode::Of(world.name("other"));
    assert_eq!(kind(world.engine.apply(&Step::CreateContainer(spec.clone())).await), Kind::NotFound);
    let name = spec.name.as_str();
    assert_eq!(kind(world.start(name).await), Kind::NotFound);
    assert_eq!(kind(world.engine.attach(name).await), Kind::NotFound);
    assert_eq!(kind(world.engine.wait_exit(name).await), Kind::NotFound);
    assert_eq!(kind(world.engine.exec(&world.exec(name, &["/probe"])).await), Kind::NotFound);
    assert_eq!(kind(world.engine.get(name, "/etc").await), Kind::NotFound);
    assert_eq!(kind(world.engine.put(name, "/", stream::empty().boxed()).await), Kind::NotFound);
    assert_eq!(kind(world.engine.disk_used(name).await), Kind::NotFound);
    assert_eq!(kind(world.engine.exec_code("nothing").await), Kind::NotFound);
    assert_eq!(world.left().await, Vec::<String>::new());
}

async fn a_step_twice_is_a_conflict<E: Engine + Clone>(world: World<E>) {
    let (near, far) = (world.network("near", 0), world.network("far", 1));
    for network in [&near, &far] {
        world.engine.apply(&Step::CreateNetwork(network.clone())).await.unwrap();
    }
    let mut spec = world.container("box");
    spec.network = on(&near.name, None);
    let (name, _streams) = {
        let name = world.create(spec).await;
        let connect =
            |network: &str| Step::Connect { container: name.clone(), network: network.to_owned(), address: None };
        assert_eq!(kind(world.engine.apply(&connect(&near.name)).await), Kind::Conflict);
        world.engine.apply(&connect(&far.name)).await.unwrap();
        assert_eq!(kind(world.engine.apply(&connect(&far.name)).await), Kind::Conflict);
        let streams = world.engine.attach(&name).await.unwrap();
        world.start(&name).await.unwrap();
        assert_eq!(kind(world.engine.apply(&connect(&far.name)).await), Kind::Conflict);
        (name, streams)
    };
    assert_eq!(kind(world.start(&name).await), Kind::Conflict);
}

async fn what_was_made_is_observed_as_planned<E: Engine + Clone>(world: World<E>) {
    let near = world.network("near", 0);
    let far = NetworkSpec { internal: false, icc: false, ..world.network("far", 1) };
    for network in [&near, &far] {
        world.engine.apply(&Step::CreateNetwork(network.clone())).await.unwrap();
    }
    let (here, there) = (near.subnet.address(5), far.subnet.address(6));
    let mut spec = world.container("box");
    spec.network = on(&near.name, Some(here));
    let name = world.create(spec).await;
    let connect = Step::Connect { container: name.clone(), network: far.name.clone(), address: Some(there) };
    world.engine.apply(&connect).await.unwrap();
    let addresses = BTreeMap::from([(near.name.clone(), Some(here)), (far.name.clone(), Some(there))]);
    let owner = world.owner();
    let mut streams = None;
    for running in [false, true] {
        let seen = world.engine.observe(&owner.host, &owner.state).await.unwrap();
        let container = seen.containers.iter().find(|c| c.name == name).unwrap();
        assert_eq!((container.running, &container.role, &container.owner), (running, &"agent".to_owned(), &owner));
        assert_eq!(container.addresses, addresses, "running: {running}");
        if !running {
            streams = Some(world.engine.attach(&name).await.unwrap());
            world.start(&name).await.unwrap();
        }
    }
    let seen = world.engine.observe(&owner.host, &owner.state).await.unwrap();
    let observed = |spec: &NetworkSpec| seen.networks.iter().find(|n| n.name == spec.name).unwrap();
    let facts = |n: &launcher::engine::ObservedNetwork| (n.subnets.clone(), n.internal, n.isolated, n.icc);
    assert_eq!(facts(observed(&near)), (vec![near.subnet], true, true, true));
    assert_eq!(facts(observed(&far)), (vec![far.subnet], false, false, false));
    drop(streams);
}

async fn only_ones_own_is_observed<E: Engine + Clone>(world: World<E>) {
    world.create(world.container("mine")).await;
    let mut other = world.container("theirs");
    other.owner = world.stranger();
    world.create(other.clone()).await;
    let (mine, theirs) = (world.owner(), world.stranger());
    for (owner, name) in [(&mine, world.name("mine")), (&theirs, world.name("theirs"))] {
        let seen = world.engine.observe(&owner.host, &owner.state).await.unwrap();
        assert_eq!(seen.containers.iter().map(|c| &c.name).collect::<Vec<_>>(), [&name]);
    }
    let elsewhere = world.engine.observe("bottle-t-engine-elsewhere", &mine.state).await.unwrap();
    assert!(elsewhere.containers.is_empty());
}

async fn undo_is_idempotent_and_leaves_strangers_alone<E: Engine + Clone>(world: World<E>) {
    let network = world.network("net", 0);
    world.engine.apply(&Step::CreateNetwork(network.clone())).await.unwrap();
    let name = world.create(world.container("box")).await;
    world.remove_container(&name, world.stranger()).await.unwrap();
    world.remove_network(&network.name, world.stranger()).await.unwrap();
    let other_id = launcher::engine::Owner { id: world.name("another"), ..world.owner() };
    world.remove_container(&name, other_id).await.unwrap();
    assert_eq!(world.left().await, [name.clone(), network.name.clone()]);
    for _ in 0..2 {
        world.remove_container(&name, world.owner()).await.unwrap();
        world.remove_network(&network.name, world.owner()).await.unwrap();
        assert_eq!(world.left().await, Vec::<String>::new());
    }
    // A name that was taken back is free.
    world.create(world.container("box")).await;
}

async fn running_containers_are_removed<E: Engine + Clone>(world: World<E>) {
    let (name, mut streams) = world.running(world.container("box")).await;
    let (one, two) =
        tokio::join!(world.remove_container(&name, world.owner()), world.remove_container(&name, world.owner()),);
    one.and(two).unwrap();
    assert_eq!(world.left().await, Vec::<String>::new(), "gone when both say so");
    assert_eq!(read(&mut streams, "").await, "");
}

async fn a_network_goes_once_its_containers_have<E: Engine + Clone>(world: World<E>) {
    let network = world.network("net", 0);
    world.engine.apply(&Step::CreateNetwork(network.clone())).await.unwrap();
    let mut spec = world.container("box");
    spec.network = on(&network.name, None);
    let (name, _streams) = world.running(spec).await;
    world.remove_container(&name, world.owner()).await.unwrap();
    world.remove_network(&network.name, world.owner()).await.unwrap();
    assert_eq!(world.left().await, Vec::<String>::new());
}

async fn a_step_whose_caller_went_away_is_undone_all_the_same<E: Engine + Clone>(world: World<E>) {
    let step = Step::CreateContainer(world.container("box"));
    assert!(world.engine.apply(&step).boxed().now_or_never().is_none());
    world.remove_container(&world.name("box"), world.owner()).await.unwrap();
    assert_eq!(world.left().await, Vec::<String>::new());
    let network = world.network("net", 0);
    assert!(world.engine.apply(&Step::CreateNetwork(network.clone())).boxed().now_or_never().is_none());
    world.remove_network(&network.name, world.owner()).await.unwrap();
    assert_eq!(world.left().await, Vec::<String>::new());
}

async fn the_end_of_input_ends_a_container<E: Engine + Clone>(world: World<E>) {
    let (name, streams) = world.running(world.container("box")).await;
    let launcher::engine::Streams { input, mut output } = streams;
    drop(input);
    assert_eq!(world.engine.wait_exit(&name).await.unwrap(), 0);
    assert!(output.next().await.is_none(), "its output ends with it");
    assert_eq!(world.left().await, [name], "it stays, with its files");
}

async fn input_that_ended_before_the_start_ends_it_as_well<E: Engine + Clone>(world: World<E>) {
    let name = world.create(world.container("box")).await;
    drop(world.engine.attach(&name).await.unwrap());
    world.start(&name).await.unwrap();
    assert_eq!(world.engine.wait_exit(&name).await.unwrap(), 0);
}

async fn waiting_ends_at_once_when_nothing_runs<E: Engine + Clone>(world: World<E>) {
    let mut spec = world.container("box");
    (spec.role, spec.command) = ("wall".to_owned(), Some(vec!["exit".to_owned(), "0".to_owned()]));
    let name = world.create(spec).await;
    assert_eq!(world.engine.wait_exit(&name).await.unwrap(), 0);
    world.start(&name).await.unwrap();
    for _ in 0..2 {
        assert_eq!(world.engine.wait_exit(&name).await.unwrap(), 0);
    }
}

async fn what_is_put_can_be_got<E: Engine + Clone>(world: World<E>) {
    let name = world.create(world.container("box")).await;
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in [("work/a", "one"), ("work/deep/b", "two")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o640);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_size(3);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let bytes = tar.into_inner().unwrap();
    let pieces: Vec<_> = bytes.chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    world.engine.put(&name, "/", stream::iter(pieces).boxed()).await.unwrap();

    let mut archive = Vec::new();
    world.engine.get(&name, "/work").await.unwrap().unwrap().read_to_end(&mut archive).await.unwrap();
    let mut tar = tar::Archive::new(archive.as_slice());
    let mut seen = BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        if entry.header().entry_type().is_file() {
            let header = entry.header().clone();
            let about = (text, header.mode().unwrap() & 0o777, header.uid().unwrap());
            seen.insert(entry.path().unwrap().display().to_string(), about);
        }
    }
    let about = |text: &str| (text.to_owned(), 0o640, 1000);
    let wanted = [("work/a".to_owned(), about("one")), ("work/deep/b".to_owned(), about("two"))];
    assert_eq!(seen, BTreeMap::from(wanted));
    assert!(world.engine.get(&name, "/nothing").await.unwrap().is_none());

    let cut = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("unreadable"))]);
    assert!(world.engine.put(&name, "/", cut.boxed()).await.is_err(), "an archive that cannot be read");
}

async fn execs_have_output_and_codes<E: Engine + Clone>(world: World<E>) {
    let (name, _streams) = world.running(world.container("box")).await;
    let mut exec = world.engine.exec(&world.exec(&name, &["/probe", "say", "hello"])).await.unwrap();
    assert_eq!(read(&mut exec.streams, "").await, "hello");
    assert_eq!(world.engine.exec_code(&exec.handle).await.unwrap(), Some(0));
    let mut exec = world.engine.exec(&world.exec(&name, &["/probe", "exit", "7"])).await.unwrap();
    assert_eq!(read(&mut exec.streams, "").await, "");
    assert_eq!(world.engine.exec_code(&exec.handle).await.unwrap(), Some(7));
    let missing = world.engine.exec(&world.exec(&name, &["/nothing"])).await;
    assert_eq!(kind(missing), Kind::NoProgram);
    let mut tty = world.exec(&name, &["/probe", "say", "hello"]);
    tty.tty = Some((80, 24));
    let mut exec = world.engine.exec(&tty).await.unwrap();
    assert_eq!(read(&mut exec.streams, "").await, "hello");
}

async fn an_exec_ends_with_its_input_or_its_container<E: Engine + Clone>(world: World<E>) {
    let (name, streams) = world.running(world.container("box")).await;
    let launcher::engine::Exec { handle, streams: mut cat } =
        world.engine.exec(&world.exec(&name, &["/probe", "cat"])).await.unwrap();
    assert_eq!(world.engine.exec_code(&handle).await.unwrap(), None);
    drop(cat.input);
    assert!(cat.output.next().await.is_none());
    assert_eq!(world.engine.exec_code(&handle).await.unwrap(), Some(0));

    let mut tty = world.exec(&name, &["/probe", "sleep"]);
    tty.tty = Some((80, 24));
    let mut sleep = world.engine.exec(&tty).await.unwrap();
    world.engine.resize(&sleep.handle, (100, 30)).await.unwrap();
    assert_eq!(world.engine.exec_code(&sleep.handle).await.unwrap(), None);
    drop(streams);
    assert_eq!(read(&mut sleep.streams, "").await, "");
    world.engine.wait_exit(&name).await.unwrap();
    let after = world.engine.exec(&world.exec(&name, &["/probe", "exit", "0"])).await;
    assert_eq!(kind(after), Kind::Conflict, "nothing runs there any more");
}

async fn images_are_found_and_loaded_once<E: Engine + Clone>(world: World<E>) {
    let first = world.engine.load(&world.image).await.unwrap();
    assert_eq!(first, world.engine.load(&world.image).await.unwrap());
    let seen = world.engine.image(IMAGE).await.unwrap().unwrap();
    assert_eq!(seen.id, first);
    assert_eq!(
        (seen.user.as_str(), seen.entrypoint, seen.command),
        ("1000:1000", vec!["/probe".to_owned()], vec!["agent".to_owned()])
    );
    assert!(world.engine.image(&first).await.unwrap().is_some(), "by its id");
    assert_eq!(world.engine.image("bottle-t-engine-contract:missing").await.unwrap(), None);
}

async fn images_are_derived<E: Engine + Clone>(world: World<E>) {
    let before = world.engine.facts().await.unwrap().containers;
    let file = ("/.bottle/deep/init", 0o555, Bytes::from_static(b"init"));
    let entrypoint = ["/.bottle/deep/init".to_owned(), "agent".to_owned()];
    let labels = BTreeMap::from([("dev.bottle.base".to_owned(), "x".to_owned())]);
    for _ in 0..2 {
        world.engine.derive(IMAGE, DERIVED, file.clone(), &entrypoint, &labels).await.unwrap();
        let seen = world.engine.image(DERIVED).await.unwrap().unwrap();
        assert_eq!((seen.user.as_str(), seen.command), ("1000:1000", Vec::new()));
        assert_eq!(seen.entrypoint, entrypoint);
    }
    let missing = world.engine.derive("bottle-t-engine-contract:missing", DERIVED, file, &entrypoint, &labels).await;
    assert_eq!(kind(missing), Kind::NotFound);
    let left = world.engine.facts().await.unwrap().containers;
    // Others work on the same engine: nothing of theirs is ours to count.
    let new: Vec<_> = left.iter().filter(|name| !before.contains(name) && name.starts_with("bottle-derive-")).collect();
    assert_eq!(new, Vec::<&String>::new());
}

async fn facts_name_what_is_taken<E: Engine + Clone>(world: World<E>) {
    let network = world.network("net", 0);
    world.engine.apply(&Step::CreateNetwork(network.clone())).await.unwrap();
    let name = world.create(world.container("box")).await;
    let facts = world.engine.facts().await.unwrap();
    assert_eq!(facts.networks.get(&network.name), Some(&vec![network.subnet]));
    assert!(facts.containers.contains(&name));
    assert_eq!(world.engine.disk_used(&name).await.unwrap(), 0);
}

fn on(network: &str, address: Option<std::net::Ipv4Addr>) -> NetworkMode {
    NetworkMode::On { network: network.to_owned(), address, aliases: Vec::new() }
}
