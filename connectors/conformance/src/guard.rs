//! Running a connector's code so that a panic or a hang is a finding, not the end of the battery.

use std::future::Future;
use std::time::Duration;

/// How guarded code ended.
#[derive(Debug)]
pub(crate) enum Ended<T> {
    /// It returned.
    Returned(T),
    /// It panicked, with this message.
    Panicked(String),
    /// It was still running after the time given.
    Hung,
}

/// Runs `work` as its own task for at most `limit`.
pub(crate) async fn guarded<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Ended<T> {
    let mut task = tokio::spawn(work);
    match tokio::time::timeout(limit, &mut task).await {
        Err(_) => {
            task.abort();
            Ended::Hung
        }
        Ok(Ok(value)) => Ended::Returned(value),
        Ok(Err(error)) => match error.try_into_panic() {
            Ok(panic) => Ended::Panicked(
                (panic.downcast_ref::<String>().cloned())
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_else(|| "without a message".into()),
            ),
            Err(_) => Ended::Hung,
        },
    }
}
