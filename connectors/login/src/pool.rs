//! A few sessions, opened when needed, kept while they are good.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tidemark_contract::Result;
use tidemark_contract::error::bug;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What a pool keeps.
pub trait Session: Sized + Send {
    /// How to reach the server.
    type Config: Send + Sync;

    /// Connects and logs in.
    fn open(config: &Self::Config) -> impl Future<Output = Result<Self>> + Send;

    /// Whether the session is still good after it has been idle since then.
    fn still_answers(&mut self, since: Instant) -> impl Future<Output = bool> + Send;
}

/// See the module's documentation.
pub struct Pool<S: Session> {
    config: Arc<S::Config>,
    idle: Mutex<Vec<(S, Instant)>>,
    permits: Semaphore,
}

/// A session taken from the pool. It goes back only by [`Lease::give_back`]: one that failed or was abandoned in the
/// middle of an answer is closed instead.
pub struct Lease<'a, S: Session> {
    /// The session.
    pub session: S,
    pool: &'a Pool<S>,
    _permit: SemaphorePermit<'a>,
}

impl<S: Session> Pool<S> {
    /// A pool of at most so many sessions (at least one).
    pub fn new(config: Arc<S::Config>, sessions: usize) -> Self {
        Self { config, idle: Mutex::default(), permits: Semaphore::new(sessions.max(1)) }
    }

    /// A session that works: an idle one that still answers, or a new one. Waits while all are taken.
    ///
    /// # Errors
    /// If a new one cannot be opened.
    pub async fn lease(&self) -> Result<Lease<'_, S>> {
        let permit = self.permits.acquire().await.map_err(|_| bug("the connection pool is closed"))?;
        loop {
            let Some((mut session, since)) = self.idle().pop() else { break };
            if session.still_answers(since).await {
                return Ok(Lease { session, pool: self, _permit: permit });
            }
        }
        Ok(Lease { session: S::open(&self.config).await?, pool: self, _permit: permit })
    }

    /// Takes the idle sessions out, to be closed.
    pub fn drain(&self) -> Vec<S> {
        self.idle().drain(..).map(|(session, _)| session).collect()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(S, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Session> Lease<'_, S> {
    /// Puts the session back for others; it must be between two statements and outside a transaction.
    pub fn give_back(self) {
        let Lease { session, pool, _permit } = self;
        pool.idle().push((session, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Counted {
        number: u32,
        good: bool,
    }

    impl Session for Counted {
        type Config = AtomicU32;

        async fn open(opened: &AtomicU32) -> Result<Self> {
            Ok(Self { number: opened.fetch_add(1, Ordering::Relaxed), good: true })
        }

        async fn still_answers(&mut self, _: Instant) -> bool {
            self.good
        }
    }

    #[tokio::test]
    async fn good_sessions_are_used_again_and_no_more_than_allowed_are_open() {
        let pool: Pool<Counted> = Pool::new(Arc::default(), 1);
        let first = pool.lease().await.unwrap();
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), pool.lease()).await;
        assert!(waits.is_err(), "a second one while the first is taken");
        first.give_back();
        let mut again = pool.lease().await.unwrap();
        assert_eq!(again.session.number, 0);
        again.session.good = false;
        again.give_back();
        let new = pool.lease().await.unwrap();
        assert_eq!(new.session.number, 1, "one that does not answer is not used");
        drop(new);
        assert_eq!(pool.lease().await.unwrap().session.number, 2, "nor one that was abandoned");
        assert!(pool.drain().is_empty());
    }
}
