//! Name servers that are gone. What stands in for the resolver of the system is `resolver.c`, loaded before it.

use crate::support::{
    World, attempts_within_budget, balance, eventually, free_invocations, invoke, leave, left_on_disk,
    output, within,
};
use outlast_simulator::{Builder, Invocation, Sandbox};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// As `LOOKUPS_MAX` in `src/deliver/lookup.rs`.
const LOOKUPS_MAX: u64 = 4;

/// `resolver.c`, built by the compiler that building the extension needs as well.
fn library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
                .join(format!("resolver-{}.so", std::process::id()));
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/resolver.c");
            let built = Command::new("cc")
                .args(["-shared", "-fPIC", "-O1", "-o"])
                .arg(&library)
                .args([source, "-ldl"])
                .status();
            assert!(built.unwrap().success(), "resolver.c does not build");
            library
        })
        .clone()
}

struct Names(PathBuf);

impl Names {
    fn new(world: &World) -> Self {
        Self(world.queue().with_file_name("resolver"))
    }

    fn set(&self, mood: &str) {
        // Whole or not at all: it is read while it is written.
        let draft = self.0.with_extension("draft");
        std::fs::write(&draft, mood).unwrap();
        std::fs::rename(draft, &self.0).unwrap();
    }

    /// How many look-ups have begun.
    fn lookups(&self) -> u64 {
        std::fs::metadata(self.0.with_extension("lookups")).map_or(0, |file| file.len())
    }

    /// The extension, sending to a backend that has a name.
    fn lambda(&self, world: &World) -> Builder {
        world
            .lambda_of_logs()
            .env("OUTLAST_ENDPOINT", format!("http://backend.test:{}", world.backend.address().port()))
            .env("LD_PRELOAD", library().display())
            .env("RESOLVER_SCRIPT", self.0.display())
    }
}

async fn outage(world: &World, names: &Names, lambda: &Sandbox, mood: &str) {
    invoke(lambda, Invocation::new().logs(10)).await;
    world.until_delivered(lambda).await;
    assert_eq!(names.lookups(), 1);
    names.set(mood);
    // The connection that is kept needs no name.
    world.backend.cut_all().await;
    invoke(lambda, Invocation::new().logs(10)).await;
    within("the outage to be told", lambda.until_output(|line| line.contains("backend: away"))).await;
    free_invocations(lambda).await;
}

#[tokio::test]
async fn a_look_up_that_fails_is_an_outage_like_any_other() {
    let world = World::new().await;
    let names = Names::new(&world);
    let lambda = names.lambda(&world).start().await.unwrap();
    outage(&world, &names, &lambda, "fail").await;
    eventually("more attempts", || names.lookups() > 4).await;
    names.set("work");
    world.until_delivered(&lambda).await;
    assert!(output(&lambda).iter().any(|line| line.contains("name lookup failed")), "{:?}", output(&lambda));
    attempts_within_budget(&lambda).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn look_ups_that_hang_delay_neither_invocations_nor_the_recovery_and_are_bounded() {
    let world = World::new().await;
    let names = Names::new(&world);
    let lambda = names.lambda(&world).env("OUTLAST_TIMEOUT", "100ms").start().await.unwrap();
    // The first two from now on never return, and the third finds the backend all the same.
    outage(&world, &names, &lambda, "hang3").await;
    world.until_delivered(&lambda).await;
    assert!(names.lookups() >= 4);
    attempts_within_budget(&lambda).await;
    world.end(lambda).await;
}

#[tokio::test]
async fn with_every_look_up_hanging_the_function_goes_on_and_shutdown_leaves_in_time() {
    let world = World::new().await;
    let names = Names::new(&world);
    let lambda = names.lambda(&world).env("OUTLAST_TIMEOUT", "50ms").start().await.unwrap();
    outage(&world, &names, &lambda, "hang").await;
    eventually("every look-up to hang", || names.lookups() == 1 + LOOKUPS_MAX).await;
    for _ in 0..3 {
        free_invocations(&lambda).await;
    }
    assert_eq!(names.lookups(), 1 + LOOKUPS_MAX, "no thread beyond the bound");
    let end = leave(&lambda).await;
    assert!(end.left().is_some(), "before the deadline");
    assert!(left_on_disk(&lambda) > 0);
    names.set("work");
    let next = world.aftermath_by(world.lambda_of_logs()).await;
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0, "nothing had left the process");
}

#[tokio::test]
async fn names_that_are_gone_from_the_first_moment_on_are_no_different() {
    for mood in ["fail", "hang"] {
        let world = World::new().await;
        let names = Names::new(&world);
        names.set(mood);
        let lambda = names.lambda(&world).env("OUTLAST_TIMEOUT", "100ms").start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        within("the outage to be told", lambda.until_output(|line| line.contains("backend: away"))).await;
        free_invocations(&lambda).await;
        names.set("work");
        world.until_delivered(&lambda).await;
        world.end(lambda).await;
    }
}
