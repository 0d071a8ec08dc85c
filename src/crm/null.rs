//! The CRM that takes everything and keeps nothing: what a measurement of the rest of the river ends in.

use super::{Crm, CrmSchema, Done, Outcome, Page, Result, WriteRecord};
use async_trait::async_trait;
use std::sync::atomic::{AtomicU64, Ordering};

/// Answers every upsert with "updated", every delete with "deleted", and lists nothing.
#[derive(Debug, Default)]
pub struct NullCrm {
    schema: Option<CrmSchema>,
    records: AtomicU64,
    requests: AtomicU64,
}

impl NullCrm {
    /// A CRM that takes any entity and any field.
    pub fn new() -> Self {
        Self::default()
    }

    /// A CRM that publishes `schema` (and checks nothing against it).
    pub fn with_schema(schema: CrmSchema) -> Self {
        Self { schema: Some(schema), ..Self::default() }
    }

    /// Records taken since it was made.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Write calls since it was made.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn take(&self, records: usize, done: Done) -> Vec<Outcome> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        vec![Outcome::Done(done); records]
    }
}

#[async_trait]
impl Crm for NullCrm {
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn discover(&self) -> Result<CrmSchema> {
        Ok(self.schema.clone().unwrap_or(CrmSchema { open: true, ..CrmSchema::default() }))
    }

    async fn upsert(&self, _entity: &str, records: &[WriteRecord<'_>]) -> Result<Vec<Outcome>> {
        Ok(self.take(records.len(), Done::Updated))
    }

    async fn delete(&self, _entity: &str, records: &[WriteRecord<'_>]) -> Result<Vec<Outcome>> {
        Ok(self.take(records.len(), Done::Deleted))
    }

    async fn list(&self, _entity: &str, _after: Option<&str>, _limit: usize) -> Result<Page> {
        Ok(Page { records: Vec::new(), next: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_takes_everything_and_counts() {
        let crm = NullCrm::new();
        let record = WriteRecord { external_id: "a", version: 1, document: None };
        assert_eq!(crm.upsert("x", &[record, record]).await.unwrap(), vec![Outcome::Done(Done::Updated); 2]);
        assert_eq!(crm.delete("x", &[record]).await.unwrap(), vec![Outcome::Done(Done::Deleted)]);
        assert_eq!((crm.requests(), crm.records()), (2, 3));
        assert!(crm.discover().await.unwrap().entity("anything").unwrap().open);
        assert!(crm.list("x", None, 10).await.unwrap().records.is_empty());
    }
}
