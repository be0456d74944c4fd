//! What every engine does, real or in memory: one list of clauses, run on both. A clause says what the launcher depends on.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what it does, and ends where it cannot go on"
)]

mod clauses;
mod real;
mod world;

use launcher::engine::docker::Docker;
use launcher::engine::fake::{End, Fake, Script};
use world::World;

#[tokio::test]
async fn the_engine_in_memory_keeps_the_contract() {
    let fake = Fake::new();
    fake.exec_script(|spec| {
        let argv: Vec<&str> = spec.argv.iter().map(String::as_str).collect();
        let (output, end) = match argv.as_slice() {
            ["/probe", "exit", code] => ("", End::Code(code.parse().unwrap())),
            ["/probe", "say", text] => (*text, End::Code(0)),
            ["/probe", "cat"] => ("", End::AtEndOfInput(0)),
            ["/probe", "sleep"] => ("", End::Never),
            _ => ("", End::NoProgram),
        };
        Script { output: bytes::Bytes::copy_from_slice(output.as_bytes()), end }
    });
    let world = World::new(fake, b"any program".to_vec()).await;
    world.run(clauses::all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_engine_keeps_the_contract() {
    let host = std::env::var("DOCKER_HOST").ok();
    let docker = match Docker::connect(host.as_deref(), |_| "unconfined".to_owned()).await {
        Ok(docker) => docker,
        Err(e) if std::env::var("BOTTLE_TEST_DOCKER").as_deref() == Ok("require") => panic!("{e}: {:?}", e.source),
        Err(_) => {
            println!("SKIP: no engine; BOTTLE_TEST_DOCKER=require to fail");
            return;
        }
    };
    let world = World::new(docker.clone(), world::probe()).await;
    let mut all = clauses::all();
    all.extend(real::all());
    let outcome = tokio::spawn(async move {
        world.run(all).await;
    });
    let outcome = outcome.await;
    for tag in [world::IMAGE, world::DERIVED, world::BUILT] {
        docker.remove_image(tag).await.unwrap();
    }
    if let Err(e) = outcome {
        std::panic::resume_unwind(e.into_panic());
    }
}
