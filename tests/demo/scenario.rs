//! The story from the first invocation to SHUTDOWN.

use std::time::{Duration, Instant};

use outlast_backend::{Backend, BackendError};
use outlast_simulator::{Freeze, Invocation, Moment, Sandbox, SandboxError, ShutdownEnd, ShutdownReason};
use tokio::{sync::broadcast::error::RecvError, time::sleep};

use crate::{
    options::Options,
    phase::{Backdrop, Phase},
    stage::Stage,
};

/// The function's time limit: far above its usual run, and short enough that the one invocation that
/// reaches it does not fill its phase.
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(1);
/// What is added to it for functions that run long by themselves.
const FUNCTION_TIMEOUT_FACTOR: u32 = 4;
/// How much longer than asked for the recovery may take if there is still a backlog.
const RECOVERY_EXTRA: Duration = Duration::from_secs(30);
/// Lambda freezes about this long after the last gate.
const FREEZE_GRACE: Duration = Duration::from_millis(1);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ScenarioError {
    #[error("the sandbox: {0}")]
    Sandbox(#[from] SandboxError),
    #[error("the backend: {0}")]
    Backend(#[from] BackendError),
}

/// The sandbox, initialised.
pub(crate) async fn sandbox(
    extension: &std::path::Path,
    options: &Options,
    variables: &[(String, String)],
) -> Result<Sandbox, ScenarioError> {
    let freeze = if options.freeze { Freeze::After(FREEZE_GRACE) } else { Freeze::Off };
    let timeout = FUNCTION_TIMEOUT.max(options.run * FUNCTION_TIMEOUT_FACTOR);
    let mut builder = Sandbox::builder(extension).freeze(freeze).timeout(timeout);
    for (name, value) in variables {
        builder = builder.env(name, value);
    }
    Ok(builder.start().await?)
}

/// Cuts the backend's idle connections at every freeze, as a network forgets those of a frozen sandbox.
pub(crate) async fn cut_idle_connections(
    mut moments: tokio::sync::broadcast::Receiver<Moment>,
    backend: Backend,
) {
    loop {
        match moments.recv().await {
            Ok(Moment::Frozen) => {
                backend.cut_idle().await;
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Plays all phases, then SHUTDOWN.
pub(crate) async fn play(stage: &Stage) -> Result<ShutdownEnd, ScenarioError> {
    for (index, phase) in stage.options.phases.iter().enumerate() {
        stage.enter(index);
        phase.begin(&stage.backend, stage.options.seed).await?;
        play_phase(stage, phase).await?;
    }
    stage.enter(stage.options.phases.len());
    stage.mark("SHUTDOWN");
    let end = stage.lambda.shutdown(ShutdownReason::Spindown).await;
    stage.sample();
    Ok(end)
}

async fn play_phase(stage: &Stage, phase: &Phase) -> Result<(), ScenarioError> {
    let began = Instant::now();
    let mut timeout_due = phase.times_out;
    let mut kill_due = phase.kill;
    while goes_on(stage, phase, began) {
        let incident = began.elapsed() >= phase.length / 2;
        if incident && std::mem::take(&mut timeout_due) {
            stage.mark("time-out, reset");
            invoke(stage, usual(stage).times_out()).await?;
        } else if incident && std::mem::take(&mut kill_due) {
            stage.mark("SIGKILL");
            let (invoked, ()) = tokio::join!(invoke(stage, usual(stage)), async {
                sleep(stage.options.run / 2).await;
                stage.lambda.kill().await;
            });
            invoked?;
        } else {
            invoke(stage, usual(stage)).await?;
        }
        sleep(stage.options.gap).await;
    }
    Ok(())
}

/// A phase lasts as long as it was asked to; a recovery, until the backlog is gone.
fn goes_on(stage: &Stage, phase: &Phase, began: Instant) -> bool {
    let elapsed = began.elapsed();
    let catching_up = phase.backdrop == Backdrop::Recovery && stage.book().caught_up_ms.is_none();
    elapsed < phase.length || (catching_up && elapsed < phase.length + RECOVERY_EXTRA)
}

fn usual(stage: &Stage) -> Invocation {
    let options = &stage.options;
    Invocation::new().runs_for(options.run).logs(options.logs).padded(options.padding_bytes)
}

async fn invoke(stage: &Stage, invocation: Invocation) -> Result<(), ScenarioError> {
    let at_ms = stage.elapsed_ms();
    let invoked = stage.lambda.invoke(invocation).await?;
    stage.invoked(at_ms, &invoked);
    Ok(())
}
